//! Answers of the interface that are not the service's own types.

use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::import::ImportReport;
use crate::engine::verify::VerifyReport;
use crate::service::{Job, JobId, Readiness};

/// The body of every successful call.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done<T> {
    /// Always true.
    #[schema(example = true)]
    pub(super) success: bool,
    /// What was done, if there is something to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) message: Option<String>,
    /// The data that was requested, or the result.
    pub(super) data: T,
}

/// Why the service is not ready, and its state.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NotReady {
    #[serde(flatten)]
    pub(super) failure: FailureBody,
    /// The state of the service.
    pub(super) data: Readiness,
}

/// The body of every failed call.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FailureBody {
    /// Always false.
    #[schema(example = false)]
    pub(super) success: bool,
    /// What went wrong.
    #[schema(example = "Database backup not found")]
    pub(super) message: String,
    /// Details for programs.
    pub(super) error: FailureError,
}

/// Details of a failure for programs.
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
    /// The job that the failure is about: the one that failed, or the one that is already running.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) job_id: Option<String>,
}

/// A job that has begun.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Begun {
    /// The job's id.
    pub(super) job_id: JobId,
}

/// A new backup, and the result of its import.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Created {
    /// The backup's path.
    pub(super) backup_path: String,
    /// Whether it was also imported.
    pub(super) imported: bool,
    /// Why the import failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) import_error: Option<String>,
    /// The id of the job that took it.
    pub(super) job_id: JobId,
    /// The backup's name.
    pub(super) name: String,
    /// The number of collections.
    pub(super) collections: u64,
    /// The number of documents.
    pub(super) documents: u64,
    /// Bytes of the documents, uncompressed.
    pub(super) raw_size: u64,
    /// Bytes that the backup takes in storage.
    pub(super) size: u64,
    /// The kind of consistency point: `snapshot`, `oplog` or `none`.
    #[schema(example = "snapshot")]
    pub(super) consistency: String,
    /// Backups that retention deleted afterwards.
    pub(super) deleted: Vec<String>,
}

impl Created {
    /// The backup that a job took, if it took one.
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

/// A completed import.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Imported {
    /// The id of the job that did it.
    pub(super) job_id: JobId,
    /// The backup's name.
    pub(super) name: Option<String>,
    #[serde(flatten)]
    pub(super) report: ImportReport,
}

impl Imported {
    /// The import that a job did, if it did one.
    pub(super) fn of(job: &Job) -> Option<Self> {
        Some(Self { job_id: job.id, name: job.backup.clone(), report: job.result.import.clone()? })
    }
}

/// The findings of a verification.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Verified {
    /// The id of the job that did it.
    pub(super) job_id: JobId,
    /// Whether nothing is wrong with the backup.
    pub(super) sound: bool,
    #[serde(flatten)]
    pub(super) report: VerifyReport,
}

impl Verified {
    /// The findings of a job that verified a backup to its end.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let report = job.result.verify.clone()?;
        Some(Self { job_id: job.id, sound: report.is_sound(), report })
    }
}

/// A deleted backup.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Deleted {
    /// The backup's name.
    pub(super) name: String,
}

/// A list of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobList {
    /// Newest first, without details of each collection. `GET /api/jobs/{id}` shows those.
    pub(super) jobs: Vec<Job>,
}

/// An event of a stream, with the fields of server-sent events.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes what Rocket writes")]
pub(super) struct StreamEvent {
    /// `progress`, or `end` for the last one. The stream of the sync has `state`, too.
    #[schema(example = "progress")]
    pub(super) event: String,
    /// The event's number in this stream.
    #[schema(example = "1")]
    pub(super) id: String,
    /// The job or the sync as JSON, as in `data` of `GET /api/jobs/{id}` or `GET /api/sync`.
    pub(super) data: String,
}

/// The answer of a live process.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Alive {
    /// Always true.
    pub(super) alive: bool,
}
