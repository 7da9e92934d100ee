//! A job's result, as it is stored and as programs read it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::import::ImportReport;
use crate::engine::verify::VerifyReport;
use crate::format::manifest::ConsistencyKind;

/// A job's result: the parts that it completed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobResult {
    /// The backup that was taken. It is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupResult>,
    /// Whether a backup was imported into the target. Absent if no import was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub imported: Option<bool>,
    /// The completed import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<ImportReport>,
    /// The findings of a verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyReport>,
    /// What retention did after the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionResult>,
}

/// A completed backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupResult {
    /// The backup's name.
    pub name: String,
    /// Its path.
    pub path: String,
    /// The number of collections.
    pub collections: u64,
    /// The number of documents.
    pub documents: u64,
    /// Bytes of the documents, uncompressed.
    pub raw_bytes: u64,
    /// Bytes that the backup takes in storage.
    pub stored_bytes: u64,
    /// The kind of consistency point: `snapshot`, `oplog` or `none`.
    #[schema(value_type = String, example = "snapshot")]
    pub consistency: ConsistencyKind,
}

/// What retention did after a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionResult {
    /// Names of the deleted backups.
    pub deleted: Vec<String>,
    /// Bytes that were freed.
    pub freed_bytes: u64,
    /// Why retention could not delete all that it should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
