//! Names of namespaces and backups, and patterns over namespaces.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use self::filter::NamespaceFilter;
pub use self::nearest::{closest, nearest};
pub use self::pattern::NamespacePattern;
pub use self::rename::NamespaceRename;
use crate::error::{Error, Result};

mod filter;
mod nearest;
mod pattern;
mod rename;

/// Databases that belong to a deployment and not to its users: never in a backup, never a target.
pub const SYSTEM_DATABASES: [&str; 3] = ["admin", "local", "config"];

/// The database of a target in which `sync` keeps how far it is.
pub const SYNC_DATABASE: &str = "bsonvault";

/// Refuses names that servers do not accept for a database.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage).
pub fn check_database(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > 63 || name.contains(['/', '\\', '.', ' ', '"', '$', '\0']) {
        return Err(Error::usage(format!("{name:?} cannot be the name of a database"))
            .hint("use 1 to 63 bytes, without / \\ . \" $ and spaces"));
    }
    Ok(())
}

/// `database.collection`. The database's name has no dot; the collection's may have several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace {
    /// The database's name.
    pub database: String,
    /// The collection's name.
    pub collection: String,
}

impl Namespace {
    /// The namespace of this collection in this database.
    pub fn new(database: impl Into<String>, collection: impl Into<String>) -> Self {
        Self { database: database.into(), collection: collection.into() }
    }

    /// The collection that holds the buckets of the time series of this name,
    /// `system.buckets.NAME`.
    #[must_use]
    pub fn buckets(&self) -> Self {
        Self::new(self.database.clone(), format!("{BUCKETS_PREFIX}{}", self.collection))
    }

    /// Whether it is a collection that imports create in their target, while they run or for what
    /// they replaced. It is never part of a backup.
    #[must_use]
    pub fn is_of_an_import(&self) -> bool {
        let name = self.collection.strip_prefix(BUCKETS_PREFIX).unwrap_or(&self.collection);
        let prefixes = [STAGING_PREFIX, KEPT_PREFIX, FILLING_PREFIX];
        prefixes.iter().any(|prefix| name.starts_with(prefix)) || name == IMPORT_COLLECTION
    }
}

/// The prefix of bucket collections.
pub const BUCKETS_PREFIX: &str = "system.buckets.";

/// The prefix of collections that an import fills before it publishes them.
pub const STAGING_PREFIX: &str = "bsonvault.staging.";

/// The prefix of collections that an import replaced and keeps.
pub const KEPT_PREFIX: &str = "bsonvault.kept.";

/// The prefix of collections that mark what is filled under its final name: see `sink/in_place.rs`.
pub const FILLING_PREFIX: &str = "bsonvault.filling.";

/// The collection that holds the lease of an import and the record of what it publishes, while it
/// runs, and of what it keeps.
pub const IMPORT_COLLECTION: &str = "bsonvault.import";

/// The prefix of the scratch databases of a test restore.
pub const SCRATCH_PREFIX: &str = "bsonvault_drill_";

/// The prefix if a collection's name leaves no room for the long one.
pub const SHORT_SCRATCH_PREFIX: &str = "~";

/// The most bytes of a scratch database's short name.
pub const SHORT_SCRATCH_NAME: usize = 6;

/// Whether the name may be that of a test restore's database. Its lease decides.
#[must_use]
pub fn may_be_scratch(database: &str) -> bool {
    database.starts_with(SCRATCH_PREFIX) || (database.starts_with(SHORT_SCRATCH_PREFIX) && database.len() <= SHORT_SCRATCH_NAME)
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.collection)
    }
}

/// The name of a backup: its directory, and its identity in a store. It consists of letters,
/// digits, `.`, `_` and `-`, starts with a letter or a digit, and has at most 200 bytes: one part
/// of a path on any file system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupName(String);

/// Stands for the newest complete backup wherever a backup's name is expected. No backup may have
/// this name.
pub const LATEST: &str = "latest";

/// The directory of a repository that holds archived oplogs. No backup may have this name.
pub const OPLOG_ARCHIVES: &str = "oplog";

/// Whether this stands for the newest complete backup.
#[must_use]
pub fn is_latest(name: &str) -> bool {
    name.eq_ignore_ascii_case(LATEST)
}

impl BackupName {
    /// The prefix of every backup that was not given another name.
    pub const PREFIX: &str = "atlas-backup-";

    /// The name of a backup started at this time: `atlas-backup-2026-11-22T21-45-00-000Z`. Names
    /// sort by time.
    #[must_use]
    pub fn at(time: DateTime<Utc>) -> Self {
        Self(format!("{}{}", Self::PREFIX, time.format("%Y-%m-%dT%H-%M-%S-%3fZ")))
    }

    /// Checks a name.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if it cannot be a backup's.
    pub fn parse(name: &str) -> Result<Self> {
        if is_latest(name) {
            return Err(Error::usage(format!(
                "{name:?} cannot be a backup's own name: it stands for the newest complete backup"
            ))
            .hint("give the backup's name; `bsonvault list` shows it"));
        }
        let good = name.len() <= 200
            && name != OPLOG_ARCHIVES
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if good {
            Ok(Self(name.to_owned()))
        } else {
            Err(Error::usage(format!("{name:?} is not the name of a backup"))
                .hint("a backup's name has only letters, digits, '.', '_' and '-'; `bsonvault list` shows all names"))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for BackupName {
    type Error = Error;
    fn try_from(name: String) -> Result<Self> {
        Self::parse(&name)
    }
}

impl From<BackupName> for String {
    fn from(name: BackupName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, namespace: &str) -> bool {
        let (database, collection) = namespace.split_once('.').unwrap();
        NamespacePattern::parse(pattern).unwrap().matches(&Namespace::new(database, collection))
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        assert!(matches("*", "a.b"));
        assert!(matches("shop.*", "shop.orders.2026"));
        assert!(matches("*.orders", "shop.orders"));
        assert!(matches("s*p.o*s", "shop.orders"));
        assert!(matches("*a*b*", "xa.yyb"));
        assert!(!matches("shop.*", "shop2.orders"));
        assert!(!matches("*.orders", "shop.orders2"));
        assert!(!matches("shop.orders", "shop.Orders"));
    }

    #[test]
    fn a_backslash_takes_a_star_literally() {
        assert!(matches(r"a.x\*y", "a.x*y"));
        assert!(!matches(r"a.x\*y", "a.xzy"));
        assert!(NamespacePattern::parse("a.b\\").is_err());
    }

    #[test]
    fn a_pattern_that_can_match_nothing_is_refused_with_what_to_write() {
        let error = NamespacePattern::parse("shop").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.hint_text().unwrap().contains("shop.*"));
        assert!(NamespacePattern::parse("").is_err());
    }

    #[test]
    fn a_backup_name_is_one_part_of_a_path() {
        let time = DateTime::parse_from_rfc3339("2026-11-22T21:45:00.007Z").unwrap().to_utc();
        assert_eq!(BackupName::at(time).as_str(), "atlas-backup-2026-11-22T21-45-00-007Z");
        assert!(BackupName::parse(BackupName::at(time).as_str()).is_ok());
        for bad in ["", "oplog", ".", "..", "a/b", "a\\b", "-x", "a b", "é"] {
            assert!(BackupName::parse(bad).is_err(), "{bad:?} was taken for a backup's name");
        }
    }
}
