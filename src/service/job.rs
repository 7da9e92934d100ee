//! A job: one run of a verb, as it is kept and as programs read it. Its JSON is the record in the state file and the body of the REST interface.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::keep::Keep;
use crate::engine::import::{self, ImportReport};
use crate::engine::verify::VerifyReport;
use crate::error::Error;
use crate::format::manifest::{CollectionKind, ConsistencyKind};

/// Problems that a job in short tells of.
const PROBLEMS_IN_SHORT: usize = 10;

/// The identity of a job: a UUID whose order is that of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    pub(super) fn new() -> Self {
        Self(Uuid::now_v7())
    }

    pub(super) fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        text.parse().map(Self).map_err(|_| Error::usage(format!("{text:?} is not a job's id: expected a UUID")))
    }
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// Takes a backup, and where that is configured imports it and removes old ones.
    Backup,
    /// Imports a backup.
    Import,
    /// Verifies a backup.
    Verify,
}

impl JobKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Backup, Self::Import, Self::Verify];

    /// Its name where a program reads it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Import => "import",
            Self::Verify => "verify",
        }
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It waits for another one to end.
    Queued,
    /// It is at work.
    Running,
    /// All of it was done.
    Succeeded,
    /// Some of it was not: `error` says what.
    Failed,
    /// It was stopped by request, and left nothing behind.
    Cancelled,
    /// The service ended, or was killed, before the job did.
    Interrupted,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 6] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled, Self::Interrupted];

    /// Whether nothing will change any more.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    /// Its name where a program reads it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Who asked for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// Somebody, through the REST interface or the library.
    Manual,
    /// The schedule, at its time.
    Schedule,
    /// The schedule, for a time at which the service did not run.
    Missed,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its identity.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// Where it stands.
    pub state: JobState,
    /// Who asked for it.
    pub trigger: Trigger,
    /// When it was asked for.
    pub created: DateTime<Utc>,
    /// When it began to work.
    pub started: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished: Option<DateTime<Utc>>,
    /// The backup that it makes or reads, once that has a name.
    pub backup: Option<String>,
    /// What was asked of a backup by somebody, beyond what is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub create: Option<BackupRequest>,
    /// What was asked of an import.
    pub import: Option<ImportRequest>,
    /// How far it is.
    pub progress: JobProgress,
    /// What it had to say on the way, the last hundred lines.
    pub notes: Vec<String>,
    /// What came of it. Where the job failed this is what was done all the same: a backup whose import failed is complete.
    pub result: JobResult,
    /// Why it did not succeed.
    pub error: Option<JobError>,
}

impl Job {
    pub(super) fn new(kind: JobKind, trigger: Trigger, now: DateTime<Utc>) -> Self {
        Self {
            id: JobId::new(),
            kind,
            state: JobState::Queued,
            trigger,
            created: now,
            started: None,
            finished: None,
            backup: None,
            create: None,
            import: None,
            progress: JobProgress::default(),
            notes: Vec::new(),
            result: JobResult::default(),
            error: None,
        }
    }

    /// The job without what there is of each of its collections, of which there may be thousands.
    pub(super) fn in_short(&self) -> Self {
        let mut short = self.clone();
        short.progress.collections.clear();
        if let Some(import) = &mut short.result.import {
            import.collections.clear();
        }
        if let Some(verify) = &mut short.result.verify {
            verify.problems.truncate(PROBLEMS_IN_SHORT);
            verify.notes.truncate(PROBLEMS_IN_SHORT);
        }
        short
    }

    /// How long it worked, in seconds; none where it never began or has not ended.
    #[must_use]
    pub fn seconds(&self) -> Option<f64> {
        let milliseconds = (self.finished? - self.started?).num_milliseconds();
        Some(u32::try_from(milliseconds).map_or(f64::from(u32::MAX), f64::from) / 1000.0)
    }
}

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

/// How far a job is; of one that did its work, all of that.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobProgress {
    /// What it is doing, as a short phrase: `reading`.
    pub phase: String,
    /// Documents done in this phase.
    pub documents: u64,
    /// About how many there are; 0 where that is not known.
    pub expected_documents: u64,
    /// Bytes done in this phase, uncompressed.
    pub bytes: u64,
    /// About how many there are; 0 where that is not known.
    pub expected_bytes: u64,
    /// Documents a second, over the last few seconds.
    pub documents_per_second: u64,
    /// Bytes a second, over the last few seconds.
    pub bytes_per_second: u64,
    /// Collections that are done.
    pub collections_done: u64,
    /// Collections of this phase.
    pub collections_total: u64,
    /// Each collection of this phase; in events those that are being worked on, fifty at most.
    pub collections: Vec<CollectionProgress>,
}

impl JobProgress {
    /// That of work that is done: namespaces with their documents and bytes.
    pub(super) fn done(collections: impl Iterator<Item = (String, u64, u64)>) -> Self {
        let collections: Vec<CollectionProgress> = collections
            .map(|(namespace, documents, bytes)| CollectionProgress {
                namespace,
                documents,
                expected_documents: documents,
                bytes,
                expected_bytes: bytes,
                finished: true,
            })
            .collect();
        let documents = collections.iter().map(|c| c.documents).sum();
        let bytes = collections.iter().map(|c| c.bytes).sum();
        Self {
            documents,
            expected_documents: documents,
            bytes,
            expected_bytes: bytes,
            collections_done: collections.len() as u64,
            collections_total: collections.len() as u64,
            collections,
            ..Self::default()
        }
    }
}

/// How far a collection is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CollectionProgress {
    /// Its namespace.
    pub namespace: String,
    /// Documents done.
    pub documents: u64,
    /// About how many there are; 0 where that is not known.
    pub expected_documents: u64,
    /// Bytes done, uncompressed.
    pub bytes: u64,
    /// About how many there are; 0 where that is not known.
    pub expected_bytes: u64,
    /// Whether all of it is done.
    pub finished: bool,
}

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

/// Why a job did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobError {
    /// The part of the job that failed: of a backup that is imported, too, one of the two.
    pub stage: JobKind,
    /// The kind, as in every error.
    #[schema(example = "unreachable")]
    pub kind: String,
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The job that is at work already, where that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<String>,
}

impl JobError {
    pub(super) fn of(stage: JobKind, error: &Error) -> Self {
        Self {
            stage,
            kind: error.kind().name().to_owned(),
            message: error.to_string(),
            hint: error.hint_text().map(str::to_owned),
            running: error.job_id().map(str::to_owned),
        }
    }
}
