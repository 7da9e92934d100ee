//! A job: one run of a backup, an import or a verification. Its JSON is the record in the state
//! file and the body in the REST interface.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::progress::JobProgress;
use super::requests::{BackupRequest, ImportRequest};
use super::results::JobResult;
use crate::error::{Error, Face};

/// Problems in the short form of a job.
const PROBLEMS_IN_SHORT: usize = 10;

/// A job's id: a UUID. Ids are ordered by time of creation.
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

    pub(super) fn of_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
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
        text.parse().map(Self).map_err(|_| Error::usage(format!("{text:?} is not a job id, expected a UUID")))
    }
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// Takes a backup; if configured, imports it and applies retention.
    Backup,
    /// Imports a backup.
    Import,
    /// Verifies a backup.
    Verify,
}

impl JobKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Backup, Self::Import, Self::Verify];

    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Import => "import",
            Self::Verify => "verify",
        }
    }
}

/// The state of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for another job to end.
    Queued,
    /// Is at work.
    Running,
    /// Did all of its work.
    Succeeded,
    /// Did not do all of its work: see `error`.
    Failed,
    /// Was cancelled on request, and left nothing behind.
    Cancelled,
    /// The service ended or was killed before the job ended.
    Interrupted,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 6] = [Self::Queued, Self::Running, Self::Succeeded, Self::Failed, Self::Cancelled, Self::Interrupted];

    /// Whether the job has ended.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    /// Its name in JSON.
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

/// Who began a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// A request through the REST interface or the library.
    Manual,
    /// The schedule, on time.
    Schedule,
    /// The schedule, for a time when the service did not run.
    Missed,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// Its state.
    pub state: JobState,
    /// Who began it.
    pub trigger: Trigger,
    /// When it was created.
    pub created: DateTime<Utc>,
    /// When it started to work.
    pub started: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished: Option<DateTime<Utc>>,
    /// The backup that it makes or reads, once that has a name.
    pub backup: Option<String>,
    /// The options of a backup that a request gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub create: Option<BackupRequest>,
    /// The options of an import.
    pub import: Option<ImportRequest>,
    /// Its progress.
    pub progress: JobProgress,
    /// Its last hundred notes.
    pub notes: Vec<String>,
    /// Its result. A failed job lists what it did before: a backup whose import failed is complete.
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

    /// The job without details of each collection, since there may be thousands.
    pub(super) fn in_short(&self) -> Self {
        let mut short = self.clone();
        short.progress.collections.clear();
        if let Some(import) = &mut short.result.import {
            import.collections.clear();
            import.left_out.truncate(PROBLEMS_IN_SHORT);
        }
        if let Some(verify) = &mut short.result.verify {
            verify.problems.truncate(PROBLEMS_IN_SHORT);
            verify.notes.truncate(PROBLEMS_IN_SHORT);
        }
        short
    }

    /// How long it worked, in seconds; `None` if it never started or has not ended.
    #[must_use]
    pub fn seconds(&self) -> Option<f64> {
        let milliseconds = (self.finished? - self.started?).num_milliseconds();
        Some(u32::try_from(milliseconds).map_or(f64::from(u32::MAX), f64::from) / 1000.0)
    }
}

/// Why a job did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobError {
    /// The part of the job that failed. A backup job with an import has two parts.
    pub stage: JobKind,
    /// The kind of error, as in all errors.
    #[schema(example = "unreachable")]
    pub kind: String,
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The id of the job that is already running, if that is the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<String>,
}

impl JobError {
    pub(super) fn of(stage: JobKind, error: &Error) -> Self {
        let (message, hint) = error.told(Face::Service);
        Self { stage, kind: error.kind().name().to_owned(), message, hint, running: error.job_id().map(str::to_owned) }
    }
}
