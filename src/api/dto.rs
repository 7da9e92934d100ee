//! Answers of the interface that are not the service's own types.

use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::clean::{CleanReport, Group};
use crate::repository::catalog::provenance::{BriefSource, Selection};
use crate::service::{ImportedCollection, Job, JobId, NotImportableResult, VerifyProblem};

/// The body of every call that was carried out.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done<T> {
    /// Always true.
    #[schema(example = true)]
    pub(super) success: bool,
    /// What was done, where there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) message: Option<String>,
    /// What was asked for, or what came of it.
    pub(super) data: T,
}

/// Why the service is not ready, and what it knows.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NotReady {
    /// Always false.
    #[schema(example = false)]
    pub(super) success: bool,
    /// What is not as it should be.
    #[schema(example = "the source does not answer")]
    pub(super) message: String,
    /// What programs may want to tell apart.
    pub(super) error: FailureError,
    /// What it knows.
    pub(super) data: Ready,
}

/// The body of every call that was not.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FailureBody {
    /// Always false.
    #[schema(example = false)]
    pub(super) success: bool,
    /// What went wrong.
    #[schema(example = "Database backup not found")]
    pub(super) message: String,
    /// What programs may want to tell apart.
    pub(super) error: FailureError,
}

/// What programs may want to tell apart of a failure.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FailureError {
    /// The kind of failure.
    #[schema(example = "notFound")]
    pub(super) kind: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) hint: Option<String>,
    /// The request's id, as in the header `X-Request-Id` and in the log.
    pub(super) request_id: String,
    /// The job that it is about: the one that failed, or the one that is running already.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) job_id: Option<String>,
}

/// A job that has begun.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Begun {
    /// Its id.
    pub(super) job_id: JobId,
}

/// A backup that was taken, and what became of its import.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Created {
    /// Where the backup is.
    pub(super) backup_path: String,
    /// Whether it was imported, too.
    pub(super) imported: bool,
    /// Why it was not, where it should have been.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) import_error: Option<String>,
    /// The job that did it.
    pub(super) job_id: JobId,
    /// The backup's name.
    pub(super) name: String,
    /// Its collections.
    pub(super) collections: u64,
    /// Its documents.
    pub(super) documents: u64,
    /// Their bytes, uncompressed.
    pub(super) raw_size: u64,
    /// The bytes that it takes.
    pub(super) size: u64,
    /// What moment it shows.
    #[schema(example = "snapshot")]
    pub(super) consistency: String,
    /// Backups that retention removed then.
    pub(super) deleted: Vec<String>,
}

impl Created {
    /// What a job that took a backup tells of it; none where it took none.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let backup = job.result.backup.as_ref()?;
        Some(Self {
            backup_path: backup.path.clone(),
            imported: job.result.import.is_some() && job.error.is_none(),
            import_error: job.error.as_ref().map(|error| error.message.clone()),
            job_id: job.id,
            name: backup.name.clone(),
            collections: backup.collections,
            documents: backup.documents,
            raw_size: backup.raw_bytes,
            size: backup.stored_bytes,
            consistency: backup.consistency.to_string(),
            deleted: job.result.retention.iter().flat_map(|retention| retention.deleted.clone()).collect(),
        })
    }
}

/// An import that was done.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Imported {
    /// The job that did it.
    pub(super) job_id: JobId,
    /// The backup.
    pub(super) name: Option<String>,
    /// Where it was imported: scheme, hosts and database of the target's URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "mongodb://db2.example.net:27017/")]
    pub(super) target: Option<String>,
    /// Every collection that was imported.
    pub(super) collections: Vec<ImportedCollection>,
    /// Documents.
    pub(super) documents: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Indexes that were built.
    pub(super) indexes: u64,
    /// Documents that had no `_id` and were given one.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) given_ids: u64,
    /// Documents whose `_id` was not their first field, and was moved there.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) moved_ids: u64,
    /// Documents of capped collections that later ones have overwritten.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) overwritten: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Imported {
    /// What a job that imported something tells of it.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let import = job.result.import.as_ref()?;
        Some(Self {
            job_id: job.id,
            name: job.backup.clone(),
            target: import.target.clone(),
            collections: import.collections.clone(),
            documents: import.documents,
            bytes: import.bytes,
            indexes: import.indexes,
            given_ids: import.given_ids,
            moved_ids: import.moved_ids,
            overwritten: import.overwritten,
        })
    }
}

/// What a verification found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Verified {
    /// The job that did it.
    pub(super) job_id: JobId,
    /// The backup.
    pub(super) name: Option<String>,
    /// Whether nothing is wrong.
    pub(super) sound: bool,
    /// Whether every document was decoded, too.
    pub(super) deep: bool,
    /// Objects that were looked at.
    pub(super) objects: u64,
    /// Their bytes that are as they should be.
    pub(super) stored_bytes: u64,
    /// Documents that were decoded; 0 unless `deep`.
    pub(super) documents: u64,
    /// Everything that is wrong.
    pub(super) problems: Vec<VerifyProblem>,
    /// What is odd and does no harm.
    pub(super) notes: Vec<String>,
    /// With `deep`, documents that no server takes: they are as they were read, and cannot be imported.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) not_importable: Vec<NotImportableResult>,
}

impl Verified {
    /// What a job that verified a backup to its end found.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let found = job.result.verify.as_ref()?;
        Some(Self {
            job_id: job.id,
            name: job.backup.clone(),
            sound: found.problems.is_empty(),
            deep: found.deep,
            objects: found.objects,
            stored_bytes: found.stored_bytes,
            documents: found.documents,
            problems: found.problems.clone(),
            notes: found.notes.clone(),
            not_importable: found.not_importable.clone(),
        })
    }
}

/// What became of the backups.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cleaned {
    /// Whether this is only what would be done.
    pub(super) dry_run: bool,
    /// Those that went.
    pub(super) deleted: Vec<DeletedBackup>,
    /// Those that stayed.
    pub(super) kept: Vec<KeptBackup>,
    /// Those that should have gone, and could not be removed.
    pub(super) failed: Vec<FailedBackup>,
    /// The bytes that those took which went.
    pub(super) freed_bytes: u64,
}

/// A backup that could not be removed. What is left of it is no complete backup, or all of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FailedBackup {
    /// Its name.
    pub(super) name: String,
    /// Where it is.
    pub(super) path: String,
    /// Why it could not be removed.
    pub(super) message: String,
}

/// A backup that went.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeletedBackup {
    /// Its name.
    pub(super) name: String,
    /// Where it was.
    pub(super) path: String,
    /// Why it went.
    pub(super) reason: String,
    /// The bytes that it took.
    pub(super) bytes: u64,
    /// The deployment, or the dump, that it was of; none where it was not complete.
    pub(super) source: Option<BriefSource>,
    /// What was asked for; none where it was not complete.
    pub(super) selection: Option<Selection>,
    /// What it counted with: those of one number in this answer; none where it was not complete.
    pub(super) group: Option<usize>,
}

/// A backup that stayed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeptBackup {
    /// Its name.
    pub(super) name: String,
    /// Where it is.
    pub(super) path: String,
    /// Why it stayed.
    pub(super) reasons: Vec<String>,
    /// The deployment, or the dump, that it is of; none where it is not complete.
    pub(super) source: Option<BriefSource>,
    /// What was asked for; none where it is not complete.
    pub(super) selection: Option<Selection>,
    /// What it counts with: those of one number in this answer; none where it is not complete.
    pub(super) group: Option<usize>,
}

impl From<CleanReport> for Cleaned {
    fn from(report: CleanReport) -> Self {
        let deleted = report.deleted.into_iter().map(|d| {
            let (source, selection, group) = apart(d.group);
            DeletedBackup { name: d.name.to_string(), path: d.path, reason: d.reason, bytes: d.bytes, source, selection, group }
        });
        let kept = report.kept.into_iter().map(|k| {
            let (source, selection, group) = apart(k.group);
            KeptBackup { name: k.name.to_string(), path: k.path, reasons: k.reasons, source, selection, group }
        });
        Self {
            dry_run: report.dry_run,
            deleted: deleted.collect(),
            failed: report
                .failed
                .into_iter()
                .map(|f| FailedBackup { name: f.name.to_string(), path: f.path, message: f.message })
                .collect(),
            kept: kept.collect(),
            freed_bytes: report.freed_bytes,
        }
    }
}

/// The parts of what a backup counts with.
fn apart(group: Option<Group>) -> (Option<BriefSource>, Option<Selection>, Option<usize>) {
    match group {
        Some(Group { group, provenance }) => (Some(provenance.source), Some(provenance.selection), Some(group)),
        None => (None, None, None),
    }
}

/// A backup that was deleted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Deleted {
    /// Its name.
    pub(super) name: String,
}

/// Jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobList {
    /// Newest first, in short: what there is of each collection stands with the job itself.
    pub(super) jobs: Vec<Job>,
}

/// An event of a job's stream, by its fields as server-sent events have them.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes what Rocket writes")]
pub(super) struct JobEvent {
    /// `progress`, or `end` for the last.
    #[schema(example = "progress")]
    pub(super) event: String,
    /// The event's number in this stream.
    #[schema(example = "1")]
    pub(super) id: String,
    /// The job as JSON, as `GET /api/jobs/{id}` gives it in `data`.
    pub(super) data: String,
}

/// That the service is there.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Alive {
    /// Always true.
    pub(super) alive: bool,
}

/// Whether the service is ready. Anyone may read it, so it names no hosts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    /// Whether it takes work and could do it.
    pub(super) ready: bool,
    /// Whether it takes work.
    pub(super) accepting: bool,
    /// Whether the source answered when it was last asked; null where it was not asked yet.
    pub(super) atlas: Option<bool>,
    /// Whether the target answered when it was last asked; null where it was not asked yet.
    pub(super) local: Option<bool>,
    /// What somebody should look at though it is ready: a damaged state file that was replaced.
    pub(super) warning: Option<String>,
    /// What is not as it should be.
    pub(super) reason: Option<String>,
}
