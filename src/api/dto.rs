//! Answers of the interface that are not the service's own types.

use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::import::ImportReport;
use crate::engine::verify::VerifyReport;
use crate::service::{Job, JobId, Readiness};

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
    #[serde(flatten)]
    pub(super) failure: FailureBody,
    /// What it knows.
    pub(super) data: Readiness,
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
    #[serde(flatten)]
    pub(super) report: ImportReport,
}

impl Imported {
    /// What a job that imported something tells of it.
    pub(super) fn of(job: &Job) -> Option<Self> {
        Some(Self { job_id: job.id, name: job.backup.clone(), report: job.result.import.clone()? })
    }
}

/// What a verification found.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Verified {
    /// The job that did it.
    pub(super) job_id: JobId,
    /// Whether nothing is wrong.
    pub(super) sound: bool,
    #[serde(flatten)]
    pub(super) report: VerifyReport,
}

impl Verified {
    /// What a job that verified a backup to its end found.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let report = job.result.verify.clone()?;
        Some(Self { job_id: job.id, sound: report.is_sound(), report })
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
