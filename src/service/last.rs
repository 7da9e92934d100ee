//! How the last job of each kind ended, from the stored jobs.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::job::{Job, JobId, JobKind, JobState, Trigger};
use super::requests::BackupRequest;

/// The last run: of the schedule, or on request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    /// The time that it was planned for, or the time of the request.
    pub planned: DateTime<Utc>,
    /// When the scheduler handled it.
    pub at: DateTime<Utc>,
    /// What the scheduler did.
    pub outcome: RunOutcome,
    /// The job that it began, or a failed job that tells why none began.
    pub job_id: Option<JobId>,
    /// Who began it. Absent in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub trigger: Option<Trigger>,
    /// Why no job began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What the scheduler did at a planned time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunOutcome {
    /// A job began.
    Started,
    /// Another backup was still running.
    Skipped,
    /// The backup could not begin.
    Failed,
}

/// How the last jobs of a kind ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Last {
    /// When one last succeeded.
    pub(super) success: Option<DateTime<Utc>>,
    /// When one last failed or was interrupted.
    pub(super) failure: Option<DateTime<Utc>>,
}

impl Last {
    /// Whether the last one succeeded; `None` if there was none.
    pub(super) fn succeeded(&self) -> Option<bool> {
        (self.success.is_some() || self.failure.is_some()).then_some(self.success > self.failure)
    }
}

/// How the last job of each kind ended. Jobs may be added in any order, and repeatedly.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastResults([Last; JobKind::ALL.len()]);

impl LastResults {
    /// Adds a job that ended.
    pub(super) fn take(&mut self, job: &Job) {
        let Some(finished) = job.finished else { return };
        for kind in JobKind::ALL {
            // A partial backup does not stand for a full one, whether it succeeded or failed.
            if kind == JobKind::Backup && job.create.as_ref().is_some_and(BackupRequest::is_of_a_part) {
                continue;
            }
            let last = &mut self.0[kind as usize];
            match outcome(job, kind) {
                // When a killed job had done this is unknown, but not before it started.
                Some(true) if job.state == JobState::Interrupted => last.success = last.success.max(job.started),
                Some(true) => last.success = last.success.max(Some(finished)),
                Some(false) => last.failure = last.failure.max(Some(finished)),
                None => {}
            }
        }
    }

    /// The results of this kind.
    pub(super) fn of(&self, kind: JobKind) -> Last {
        self.0[kind as usize]
    }
}

/// Whether a job that ended did this kind of work, or failed at it. `None` if it did not get to it,
/// or was cancelled during it. A backup whose import failed counts as a successful backup and a
/// failed import.
pub(super) fn outcome(job: &Job, kind: JobKind) -> Option<bool> {
    let result = &job.result;
    let done = match kind {
        JobKind::Backup => result.backup.is_some(),
        JobKind::Import => result.import.is_some(),
        JobKind::Verify => result.verify.is_some(),
    };
    let failed = job.error.as_ref().is_some_and(|error| error.stage == kind);
    match job.state {
        JobState::Queued | JobState::Running => None,
        // A complete backup stays a success, even if the job was killed later.
        _ if kind == JobKind::Backup && done => Some(true),
        JobState::Failed | JobState::Interrupted if failed => Some(false),
        JobState::Cancelled if failed => None,
        _ => (done || (job.state == JobState::Succeeded && job.kind == kind)).then_some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::import::ImportReport;
    use crate::error::{Error, ErrorKind};
    use crate::format::manifest::ConsistencyKind;
    use crate::service::job::JobError;
    use crate::service::results::BackupResult;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
    }

    fn ended(kind: JobKind, state: JobState, second: i64, failed: Option<JobKind>) -> Job {
        let mut job = Job::new(kind, Trigger::Manual, at(second - 10));
        (job.state, job.started, job.finished) = (state, Some(at(second - 5)), Some(at(second)));
        job.error = failed.map(|stage| JobError::of(stage, &Error::new(ErrorKind::Server, "x")));
        job
    }

    fn with_backup(mut job: Job) -> Job {
        job.result.backup = Some(BackupResult {
            name: "n".into(),
            path: "p".into(),
            collections: 1,
            documents: 2,
            raw_bytes: 3,
            stored_bytes: 4,
            consistency: ConsistencyKind::None,
        });
        job
    }

    fn with_import(mut job: Job) -> Job {
        job.result.import = Some(ImportReport { documents: 1, bytes: 1, ..ImportReport::default() });
        job
    }

    use JobKind::{Backup, Import, Verify};
    use JobState::{Cancelled, Failed, Interrupted, Running, Succeeded};

    #[test]
    fn each_part_of_a_job_counts_for_itself() {
        let parts = |job: &Job| [Backup, Import, Verify].map(|kind| outcome(job, kind));
        let plain = |kind, state| ended(kind, state, 0, (state != Succeeded).then_some(kind));
        assert_eq!(parts(&with_backup(plain(Backup, Succeeded))), [Some(true), None, None]);
        assert_eq!(parts(&with_import(with_backup(plain(Backup, Succeeded)))), [Some(true), Some(true), None]);
        assert_eq!(parts(&with_backup(ended(Backup, Failed, 0, Some(Import)))), [Some(true), Some(false), None]);
        let mismatch = with_import(with_backup(ended(Backup, Failed, 0, Some(Import))));
        assert_eq!(parts(&mismatch), [Some(true), Some(false), None], "an import that does not match is none");
        assert_eq!(parts(&plain(Backup, Failed)), [Some(false), None, None]);
        assert_eq!(parts(&plain(Backup, Interrupted)), [Some(false), None, None]);
        assert_eq!(parts(&with_backup(plain(Backup, Interrupted))), [Some(true), None, None]);
        assert_eq!(parts(&plain(Backup, Cancelled)), [None, None, None]);
        assert_eq!(parts(&with_backup(ended(Backup, Cancelled, 0, Some(Import)))), [Some(true), None, None]);
        assert_eq!(parts(&plain(Import, Failed)), [None, Some(false), None]);
        assert_eq!(parts(&plain(Verify, Succeeded)), [None, None, Some(true)]);
        assert_eq!(parts(&ended(Verify, Running, 0, None)), [None, None, None]);
    }

    #[test]
    fn the_last_one_counts_in_whatever_order_they_come() {
        let jobs = [
            with_backup(ended(Backup, Succeeded, 10, None)),
            ended(Backup, Failed, 20, Some(Backup)),
            with_backup(ended(Backup, Succeeded, 30, None)),
            ended(Import, Interrupted, 40, Some(Import)),
        ];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
            let mut last = LastResults::default();
            for job in order {
                last.take(&jobs[job]);
            }
            assert_eq!(last.of(Backup), Last { success: Some(at(30)), failure: Some(at(20)) });
            assert_eq!((last.of(Backup).succeeded(), last.of(Import).succeeded()), (Some(true), Some(false)));
            assert_eq!((last.of(Verify), last.of(Verify).succeeded()), (Last::default(), None));
            last.take(&ended(Backup, Cancelled, 50, Some(Backup)));
            assert_eq!(last.of(Backup).succeeded(), Some(true), "cancelled is neither");
            last.take(&ended(Backup, Failed, 60, Some(Backup)));
            assert_eq!(last.of(Backup).succeeded(), Some(false));
        }
    }

    #[test]
    fn a_backup_of_a_part_stands_in_for_none_of_all() {
        let mut last = LastResults::default();
        last.take(&ended(Backup, Failed, 10, Some(Backup)));
        let some = |text: &str| Some(vec![text.to_owned()]);
        let of_parts = [
            BackupRequest { databases: some("crm"), ..BackupRequest::default() },
            BackupRequest { include: some("crm.*"), ..BackupRequest::default() },
            BackupRequest { exclude: some("*.log"), ..BackupRequest::default() },
        ];
        for request in of_parts {
            last.take(&Job { create: Some(request), ..with_backup(ended(Backup, Succeeded, 20, None)) });
            assert_eq!(last.of(Backup).succeeded(), Some(false));
        }
        let of_all = BackupRequest { import: Some(false), ..BackupRequest::default() };
        last.take(&Job { create: Some(of_all), ..with_backup(ended(Backup, Succeeded, 30, None)) });
        assert_eq!(last.of(Backup).succeeded(), Some(true));
    }

    #[test]
    fn what_was_done_before_a_kill_is_no_younger_than_the_job() {
        let mut last = LastResults::default();
        last.take(&with_backup(ended(Backup, Interrupted, 1000, Some(Backup))));
        assert_eq!(last.of(Backup), Last { success: Some(at(995)), failure: None });
    }
}
