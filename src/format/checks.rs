//! The results of the last checks of a backup: `checks.json` beside the manifest, which does not
//! cover it. It is copied with the backup, and applies to the times it names.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::key;
use crate::error::{Error, ErrorKind, Result};

/// The version of this file that is written and read.
const FORMAT_VERSION: u32 = 1;

/// The largest `checks.json` that is read.
pub const LIMIT: u64 = 64 * 1024;

/// The most bytes of a problem that are kept.
const PROBLEM: usize = 1000;

/// The last check of each kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checks {
    format_version: u32,
    /// The `id` of the manifest they belong to.
    backup: Uuid,
    /// At most one of each kind.
    checks: Vec<Check>,
}

/// One completed check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The kind of check.
    pub kind: CheckKind,
    /// Whether everything was correct.
    pub passed: bool,
    /// When it ended.
    pub finished: DateTime<Utc>,
    /// How long it took.
    pub milliseconds: u64,
    /// The version of the program that ran it.
    pub tool_version: String,
    /// The version of the server that a test restore imported into.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server_version: Option<String>,
    /// The first problem, if it did not pass.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<String>,
}

/// Kinds of checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckKind {
    /// `verify`: every stored byte by its SHA-256.
    Verify,
    /// `verify --deep`: every document decoded, too.
    Deep,
    /// An import of the whole backup whose every digest matched.
    Import,
    /// `verify --restore`: an import into scratch databases, read back and dropped.
    Restore,
}

impl std::fmt::Display for CheckKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Verify => "verify",
            Self::Deep => "deep",
            Self::Import => "import",
            Self::Restore => "test restore",
        })
    }
}

impl CheckKind {
    /// How much it proves: a failure is valid until a check that proves at least as much passes.
    fn rank(self) -> u8 {
        match self {
            Self::Verify => 0,
            Self::Deep => 1,
            Self::Import | Self::Restore => 2,
        }
    }
}

impl Check {
    /// A check that ended now. A long problem is cut.
    #[must_use]
    pub fn ended(kind: CheckKind, finished: DateTime<Utc>, milliseconds: u64, problem: Option<String>) -> Self {
        let problem = problem.map(|mut text| {
            let end = (0..=PROBLEM.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            text.truncate(end);
            text
        });
        let tool_version = env!("CARGO_PKG_VERSION").to_owned();
        Self { kind, passed: problem.is_none(), finished, milliseconds, tool_version, server_version: None, problem }
    }
}

impl Checks {
    /// An empty list for the backup with this ID.
    #[must_use]
    pub fn none(backup: Uuid) -> Self {
        Self { format_version: FORMAT_VERSION, backup, checks: Vec::new() }
    }

    /// Parses the file of the backup with this ID.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if it is not one, is another backup's, or has an unknown version.
    pub fn from_bytes(bytes: &[u8], backup: Uuid) -> Result<Self> {
        let read: Self =
            serde_json::from_slice(bytes).map_err(|e| Error::damaged(format!("{} cannot be read: {e}", key::CHECKS)).cause(e))?;
        if read.format_version != FORMAT_VERSION {
            return Err(Error::damaged(format!(
                "{} has version {}, expected {FORMAT_VERSION}",
                key::CHECKS,
                read.format_version
            )));
        }
        if read.backup != backup {
            return Err(Error::damaged(format!("{} belongs to the backup {}, expected {backup}", key::CHECKS, read.backup)));
        }
        let mut checks = Self::none(backup);
        read.checks.into_iter().for_each(|check| checks.put(check));
        Ok(checks)
    }

    /// The file.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let written = serde_json::to_vec_pretty(self);
        written.map_err(|e| Error::new(ErrorKind::Internal, format!("{} cannot be written", key::CHECKS)).cause(e))
    }

    /// Replaces the last check of the same kind by this one.
    pub fn put(&mut self, check: Check) {
        self.checks.retain(|c| c.kind != check.kind);
        self.checks.push(check);
    }

    /// The last check of each kind, in the order they ended.
    #[must_use]
    pub fn by_time(&self) -> Vec<&Check> {
        let mut checks: Vec<&Check> = self.checks.iter().collect();
        checks.sort_by_key(|c| c.finished);
        checks
    }

    /// The last check of this kind.
    #[must_use]
    pub fn of(&self, kind: CheckKind) -> Option<&Check> {
        self.checks.iter().find(|c| c.kind == kind)
    }

    /// The check that decides whether the backup counts as verified. It is the last failure that no
    /// later check of at least the same strength has refuted, or otherwise the last check that
    /// passed. `None` if there is none.
    #[must_use]
    pub fn verdict(&self) -> Option<&Check> {
        let checks = self.by_time();
        let refuted = |failed: &Check| {
            checks.iter().any(|c| c.passed && c.finished > failed.finished && c.kind.rank() >= failed.kind.rank())
        };
        let standing = checks.iter().rev().find(|c| !c.passed && !refuted(c));
        standing.or(checks.iter().rev().find(|c| c.passed)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: CheckKind, second: i64, problem: Option<&str>) -> Check {
        Check::ended(kind, DateTime::from_timestamp(second, 0).unwrap(), 5, problem.map(str::to_owned))
    }

    fn verdict(checks: &[Check]) -> Option<(CheckKind, bool)> {
        let mut all = Checks::none(Uuid::nil());
        checks.iter().for_each(|c| all.put(c.clone()));
        all.verdict().map(|c| (c.kind, c.passed))
    }

    #[test]
    fn a_failure_stands_until_a_check_that_proves_as_much_passes() {
        use CheckKind::{Deep, Import, Restore, Verify};
        assert_eq!(verdict(&[]), None);
        assert_eq!(verdict(&[check(Verify, 2, None), check(Deep, 1, None)]), Some((Verify, true)));
        assert_eq!(verdict(&[check(Deep, 1, Some("x")), check(Verify, 2, None)]), Some((Deep, false)));
        assert_eq!(verdict(&[check(Deep, 1, Some("x")), check(Restore, 2, None)]), Some((Restore, true)));
        assert_eq!(verdict(&[check(Restore, 1, Some("x")), check(Deep, 2, None)]), Some((Restore, false)));
        assert_eq!(verdict(&[check(Restore, 1, Some("x")), check(Import, 2, None)]), Some((Import, true)));
        assert_eq!(verdict(&[check(Restore, 1, None), check(Verify, 2, Some("x"))]), Some((Verify, false)));
    }

    #[test]
    fn the_file_is_bounded_and_says_whose_it_is() {
        let id = Uuid::from_u128(7);
        let mut checks = Checks::none(id);
        for second in 0..100 {
            for kind in [CheckKind::Verify, CheckKind::Deep, CheckKind::Import, CheckKind::Restore] {
                checks.put(check(kind, second, Some(&"ü\u{1}".repeat(5000))));
            }
        }
        let bytes = checks.to_bytes().unwrap();
        assert!((bytes.len() as u64) < LIMIT, "{}", bytes.len());
        assert_eq!(Checks::from_bytes(&bytes, id).unwrap(), checks);
        assert_eq!(checks.by_time().len(), 4);
        let other = Checks::from_bytes(&bytes, Uuid::nil()).unwrap_err();
        assert!(other.to_string().contains("belongs to the backup 00000000-0000-0000-0000-000000000007"), "{other}");
        assert!(Checks::from_bytes(&bytes[..bytes.len() / 2], id).is_err());
        let newer = String::from_utf8(bytes).unwrap().replacen("\"formatVersion\": 1", "\"formatVersion\": 2", 1);
        assert!(Checks::from_bytes(newer.as_bytes(), id).unwrap_err().to_string().contains("version 2, expected 1"));
    }
}
