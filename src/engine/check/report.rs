//! The report of a check.

use serde::Serialize;

use crate::error::{Error, ErrorKind};

/// The report of a check.
#[derive(Debug, Serialize)]
pub struct CheckReport {
    /// One line per finding, in reading order.
    pub lines: Vec<CheckLine>,
    /// What each feature needs, and what is missing.
    pub rights: Vec<RightRow>,
    #[serde(skip)]
    pub(super) failure: Option<ErrorKind>,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckLine {
    /// The subject: `source`, `source rights`, `path`.
    pub subject: String,
    /// How it stands.
    pub status: Status,
    /// What was found.
    pub message: String,
    /// What to do about it, with options as tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub todo: Option<String>,
}

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Something will not work, or not as well.
    Warning,
    /// A backup or an import would fail.
    Failed,
}

/// One of the two deployments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Where backups are taken from.
    Source,
    /// Where imports go.
    Target,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

/// What a feature needs, and whether the login has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RightRow {
    /// Which side.
    pub side: Side,
    /// The feature: `read documents`.
    pub feature: String,
    /// The actions it needs, by the server's names.
    pub needs: Vec<String>,
    /// The actions that are missing somewhere.
    pub missing: Vec<String>,
    /// Where they are missing: the first few places.
    pub places: Vec<String>,
    /// Whether a backup or an import fails without it, as far as the check can tell.
    pub required: bool,
    /// Whether the login has all of it.
    pub granted: bool,
    /// The role that grants it.
    pub grant: String,
    /// What is lost without it, if it is not required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without: Option<String>,
}

impl CheckReport {
    /// The error that sums up the report, if a backup or an import would fail.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        let failed = self.lines.iter().filter(|l| l.status == Status::Failed).count();
        let things = if failed == 1 { "1 check failed".to_owned() } else { format!("{failed} checks failed") };
        let first = self.lines.iter().find(|l| l.status == Status::Failed)?;
        let others = self.lines.iter().filter(|l| l.status == Status::Failed).skip(1).map(|l| l.subject.as_str());
        let others: std::collections::BTreeSet<&str> = others.filter(|subject| *subject != first.subject).collect();
        let others = match others.len() {
            0 => String::new(),
            _ => format!("; also {}", others.into_iter().collect::<Vec<_>>().join(", ")),
        };
        let error = Error::new(self.failure?, format!("{things}: {}: {}{others}", first.subject, first.message));
        Some(match &first.todo {
            Some(todo) => error.hint(todo.clone()),
            None => error,
        })
    }

    pub(super) fn add(&mut self, subject: &str, status: Status, message: impl Into<String>, todo: Option<&str>) {
        self.lines.push(CheckLine {
            subject: subject.to_owned(),
            status,
            message: message.into(),
            todo: todo.map(str::to_owned),
        });
    }

    pub(super) fn fail(&mut self, subject: &str, error: &Error) {
        self.failure.get_or_insert(error.kind());
        self.add(subject, Status::Failed, error.to_string(), error.hint_text());
    }
}
