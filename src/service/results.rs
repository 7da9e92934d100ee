//! What came of a job, as it is kept and as programs read it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::import::ImportReport;
use crate::engine::verify::VerifyReport;
use crate::format::manifest::{CollectionKind, ConsistencyKind};

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
    pub import: Option<ImportResult>,
    /// What a verification found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyResult>,
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

/// An import that was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportResult {
    /// The target: scheme, hosts and database of its URI. None of jobs that were kept before this was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "mongodb://db2.example.net:27017/")]
    pub target: Option<String>,
    /// Every collection that was imported.
    pub collections: Vec<ImportedCollection>,
    /// Documents.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Indexes that were built.
    pub indexes: u64,
    /// Documents that had no `_id` and were given one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub given_ids: u64,
    /// Documents whose `_id` was not their first field, and was moved there.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub moved_ids: u64,
    /// Documents of capped collections that later ones have overwritten.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overwritten: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A collection that was imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImportedCollection {
    /// Its namespace in the target.
    pub namespace: String,
    /// Its documents; of a time series, its buckets.
    pub documents: u64,
    /// What these are: `documents` or `buckets`.
    #[serde(default = "documents")]
    #[schema(example = "documents")]
    pub counted_in: String,
    /// Whether what was read back from the target is what the backup holds.
    pub digest_matches: bool,
}

/// What most are counted in, and what was not said of those that are kept from before.
fn documents() -> String {
    CollectionKind::Collection.counted_in().to_owned()
}

impl From<&ImportReport> for ImportResult {
    fn from(report: &ImportReport) -> Self {
        Self {
            target: Some(report.target.clone()),
            collections: report
                .collections
                .iter()
                .map(|c| ImportedCollection {
                    namespace: c.namespace.to_string(),
                    documents: c.documents,
                    counted_in: c.counted_in.to_owned(),
                    digest_matches: c.digest_matches,
                })
                .collect(),
            documents: report.documents,
            bytes: report.bytes,
            indexes: report.indexes,
            given_ids: report.given_ids,
            moved_ids: report.moved_ids,
            overwritten: report.overwritten,
        }
    }
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifyResult {
    /// Whether every document was decoded, too.
    pub deep: bool,
    /// Objects that were looked at.
    pub objects: u64,
    /// Their bytes that are as they should be.
    pub stored_bytes: u64,
    /// Documents that were decoded; 0 unless `deep`.
    pub documents: u64,
    /// Everything that is wrong.
    pub problems: Vec<VerifyProblem>,
    /// What is odd and does no harm.
    pub notes: Vec<String>,
    /// With `deep`, documents that no server takes: they are as they were read, and cannot be imported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_importable: Vec<NotImportableResult>,
}

/// Documents of one collection that no server takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotImportableResult {
    /// The collection's namespace.
    pub namespace: String,
    /// Why no server takes them.
    pub reason: String,
    /// How many there are.
    pub documents: u64,
}

/// Something that is wrong with a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifyProblem {
    /// The object that it is about.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl From<VerifyReport> for VerifyResult {
    fn from(report: VerifyReport) -> Self {
        Self {
            deep: report.deep,
            objects: report.objects,
            stored_bytes: report.stored_bytes,
            documents: report.documents,
            problems: report.problems.into_iter().map(|p| VerifyProblem { key: p.key, message: p.message }).collect(),
            notes: report.notes,
            not_importable: report
                .not_importable
                .into_iter()
                .map(|n| NotImportableResult { namespace: n.namespace, reason: n.reason, documents: n.documents })
                .collect(),
        }
    }
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
