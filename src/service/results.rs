//! What came of a job, as it is kept and as programs read it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::import::ImportReport;
use crate::engine::verify::VerifyReport;
use crate::format::manifest::ConsistencyKind;

/// What came of a job: the parts that it did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobResult {
    /// The backup that was taken. It is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupResult>,
    /// Whether a backup was imported into the target; none if that was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub imported: Option<bool>,
    /// The import that was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<ImportReport>,
    /// What a verification found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyReport>,
    /// What retention removed after a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionResult>,
}

/// A backup that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupResult {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// Its collections.
    pub collections: u64,
    /// Its documents.
    pub documents: u64,
    /// Their bytes, uncompressed.
    pub raw_bytes: u64,
    /// The bytes that it takes.
    pub stored_bytes: u64,
    /// What moment it shows.
    #[schema(value_type = String, example = "snapshot")]
    pub consistency: ConsistencyKind,
}

/// What retention did after a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionResult {
    /// Names of the backups that were removed.
    pub deleted: Vec<String>,
    /// Bytes that they took.
    pub freed_bytes: u64,
    /// Why not all was removed that should have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
