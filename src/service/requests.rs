//! What a backup and an import are asked for, as programs write it and as it is kept with their jobs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::keep::Keep;
use crate::engine::import;

/// What a backup is asked for, beyond what is configured; what is not given is as configured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupRequest {
    /// Only these databases. Without it, the one that the source's URI names, or else all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_items = 1, example = json!(["shop"]))]
    pub databases: Option<Vec<String>>,
    /// Only namespaces that match any of these, `*` standing for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_items = 1, example = json!(["shop.*"]))]
    pub include: Option<Vec<String>>,
    /// Without namespaces that match any of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_items = 1, example = json!(["shop.log"]))]
    pub exclude: Option<Vec<String>>,
    /// Whether the backup is imported into the target once it is complete. Without it, as `AUTO_IMPORT_TO_LOCAL` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub import: Option<bool>,
    /// Which backups stay afterwards. Without it, those that `BACKUP_KEEP_…` keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, inline)]
    pub keep: Option<Keep>,
}

impl BackupRequest {
    /// Whether it asks for less than all that the service asks the source for.
    pub(super) fn is_of_a_part(&self) -> bool {
        self.databases.is_some() || self.include.is_some() || self.exclude.is_some()
    }
}

/// What an import is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImportRequest {
    /// The backup: its name, its path as the status gives it, or `latest` for the newest complete one.
    #[schema(example = "atlas-backup-2026-11-22T21-45-00-000Z")]
    pub backup_path: String,
    /// The name that the one database gets which is imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub database_name: Option<String>,
    /// Only namespaces that match any of these, `*` standing for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_items = 1, example = json!(["shop.*"]))]
    pub include: Option<Vec<String>>,
    /// Without namespaces that match any of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, min_items = 1, example = json!(["shop.log"]))]
    pub exclude: Option<Vec<String>>,
    /// What happens to what stands in the target under the same names; `replace` where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub mode: Option<ImportMode>,
}

/// What happens to what stands in the target under names of the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImportMode {
    /// Each collection is replaced, whole or not at all.
    Replace,
    /// It refuses the import, before anything is written.
    Fail,
    /// Each collection gets the documents of the backup in place of those with the same `_id`s; not atomic.
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
