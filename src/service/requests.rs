//! Requests for backups and imports, as programs write them and as jobs store them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::keep::Keep;
use crate::engine::import;
use crate::engine::moment::Moment;
use crate::engine::wanted::Wanted;
use crate::error::{Error, Result};

/// Options for a backup. The configuration applies to those that are not given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupRequest {
    /// Back up only these databases. Default: the one in the source's URI, or else all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_items = 1, example = json!(["shop"]))]
    pub databases: Option<Vec<String>>,
    /// Back up only namespaces that match any of these. `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_items = 1, example = json!(["shop.*"]))]
    pub include: Option<Vec<String>>,
    /// Skip namespaces that match any of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_items = 1, example = json!(["shop.log"]))]
    pub exclude: Option<Vec<String>>,
    /// Whether to import the backup into the target once it is complete. Default:
    /// `AUTO_IMPORT_TO_LOCAL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub import: Option<bool>,
    /// Which backups to keep afterwards. Default: as `BACKUP_KEEP_…` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, inline)]
    pub keep: Option<Keep>,
}

impl BackupRequest {
    /// Whether it asks for less than the service backs up by default.
    pub(super) fn is_of_a_part(&self) -> bool {
        self.databases.is_some() || self.include.is_some() || self.exclude.is_some()
    }
}

/// Options for an import.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImportRequest {
    /// The backup: its name, its path as in the status, or `latest` for the newest complete one.
    /// With `to` or `undo` it may be left out, and `latest` means the same: then the newest backup
    /// that leads there is taken.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schema(example = "atlas-backup-2026-11-22T21-45-00-000Z")]
    pub backup_path: String,
    /// Restore this point in time from a backup and the archived oplog: `2026-11-28T14:03:22Z` (all
    /// of that second), `SECONDS:ORDINAL`, or `before:SECONDS:ORDINAL`. Not with `undo`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "2026-11-28T14:03:22Z")]
    pub to: Option<String>,
    /// Bring back the collections that the operation at this time touched, as they were right
    /// before it: `SECONDS:ORDINAL`. Not with `to`, `include` or `exclude`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "1795383900:7")]
    pub undo: Option<String>,
    /// The target database, if exactly one database is imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub database_name: Option<String>,
    /// Import only namespaces that match any of these. `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_items = 1, example = json!(["shop.*"]))]
    pub include: Option<Vec<String>>,
    /// Skip namespaces that match any of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_items = 1, example = json!(["shop.log"]))]
    pub exclude: Option<Vec<String>>,
    /// What to do with existing collections of the same names in the target. Default: `replace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub mode: Option<ImportMode>,
}

impl ImportRequest {
    /// The point in time that it asks for. `None` if it asks for a backup as it is.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) for what is no time, and for fields
    /// that exclude each other.
    pub(super) fn wanted(&self) -> Result<Option<Wanted>> {
        match (&self.to, &self.undo) {
            (None, None) => Ok(None),
            (Some(to), None) => Moment::parse(to).map(|to| Some(Wanted::To(to))),
            (None, Some(undo)) if self.include.is_none() && self.exclude.is_none() => Wanted::undo(undo).map(Some),
            (None, Some(_)) => Err(Error::usage("undo is given with include or exclude")
                .hint("undo itself selects the collections: leave out include and exclude, or give to")),
            (Some(_), Some(_)) => {
                Err(Error::usage("to and undo are given").hint("to restores a time, undo what one operation touched: give one"))
            }
        }
    }
}

/// What to do with existing collections of the same names when the first copy of a sync is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
    /// Refuse to begin.
    Fail,
    /// Replace each.
    Replace,
}

impl From<SyncMode> for import::ImportMode {
    fn from(mode: SyncMode) -> Self {
        match mode {
            SyncMode::Fail => Self::Fail,
            SyncMode::Replace => Self::Replace,
        }
    }
}

/// What to do with existing collections of the same names in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImportMode {
    /// Replace each collection atomically.
    Replace,
    /// Refuse the import before anything is written.
    Fail,
    /// Add the backup's documents to each collection; they replace documents with the same `_id`.
    /// Not atomic.
    Merge,
}

impl From<ImportMode> for import::ImportMode {
    fn from(mode: ImportMode) -> Self {
        match mode {
            ImportMode::Replace => Self::Replace,
            ImportMode::Fail => Self::Fail,
            ImportMode::Merge => Self::Merge,
        }
    }
}
