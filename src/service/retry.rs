//! Retries a scheduled backup that was not taken, before its next time comes: soon at first, then
//! more and more rarely.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::job::{Job, JobId, JobKind};
use super::last::outcome;
use super::requests::BackupRequest;

/// The wait after the first failure. It doubles with each further one.
const FIRST: TimeDelta = TimeDelta::minutes(1);
/// The longest wait is the time between two backups divided by this.
const PARTS: i32 = 4;

/// A scheduled backup, from its planned time until one was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Retry {
    /// The time that it was planned for.
    pub(super) planned: DateTime<Utc>,
    /// How often it failed.
    pub(super) failed: u32,
    /// The job that is trying to take it.
    pub(super) job: Option<JobId>,
    /// When the next try is; `None` if its next regular time comes first.
    pub(super) next: Option<DateTime<Utc>>,
    /// Whether the only obstacle was another running backup.
    #[serde(default)]
    pub(super) busy: bool,
}

/// The last scheduled backup was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotTaken {
    /// How often it has failed so far.
    pub failed: u32,
    /// When the next try is. Absent while a try is running, or if the next regular time comes
    /// first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_try: Option<DateTime<Utc>>,
    /// Whether it did not begin because another backup was running.
    pub busy: bool,
}

/// How a full backup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) id: JobId,
    created: DateTime<Utc>,
    /// Whether one was taken; `None` if it was cancelled.
    taken: Option<bool>,
}

impl Ended {
    /// `None` for other jobs, and for partial backups.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let is_of_all = job.kind == JobKind::Backup && !job.create.as_ref().is_some_and(BackupRequest::is_of_a_part);
        is_of_all.then(|| Self { id: job.id, created: job.created, taken: outcome(job, JobKind::Backup) })
    }
}

impl Retry {
    /// A retry that this job has begun.
    pub(super) fn begun(planned: DateTime<Utc>, failed: u32, job: JobId) -> Self {
        Self { planned, failed, job: Some(job), next: None, busy: false }
    }

    /// After one more failure: the next try is within `interval`, which ends at `regular`.
    pub(super) fn after_failure(
        planned: DateTime<Utc>,
        failed: u32,
        now: DateTime<Utc>,
        regular: DateTime<Utc>,
        interval: TimeDelta,
    ) -> Self {
        let next = now.checked_add_signed(wait(failed, interval)).filter(|next| *next < regular);
        Self { planned, failed, job: None, next, busy: false }
    }

    /// Corrects it after a clock was set back: it waits no longer than it did at first.
    pub(super) fn at_most(&mut self, now: DateTime<Utc>, interval: TimeDelta) {
        let latest = now.checked_add_signed(wait(self.failed, interval));
        self.next = self.next.map(|next| latest.map_or(next, |latest| next.min(latest)));
    }

    /// What the end of a job means for it.
    pub(super) fn meaning(&self, ended: &Ended) -> Meaning {
        let is_own = self.job == Some(ended.id);
        match ended.taken {
            Some(true) if is_own || ended.created >= self.planned => Meaning::Done,
            Some(false) if is_own => Meaning::Failed,
            // A cancelled backup is not wanted.
            None if is_own => Meaning::Done,
            _ => Meaning::Nothing,
        }
    }

    /// As it is shown; `None` unless it has failed.
    pub(super) fn shown(&self) -> Option<NotTaken> {
        (self.failed > 0).then_some(NotTaken { failed: self.failed, next_try: self.next, busy: self.busy })
    }
}

/// What the end of a job means for a backup that is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Done,
    Failed,
    Nothing,
}

fn wait(failed: u32, interval: TimeDelta) -> TimeDelta {
    let doubled = FIRST.checked_mul(1 << failed.saturating_sub(1).min(20)).unwrap_or(interval);
    doubled.min(interval / PARTS)
}
