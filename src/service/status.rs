//! Which backups there are, as the service shows them: looked at often, and read only where something changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::job::{Job, JobId, JobKind, JobState, Trigger};
use crate::catalog::{Catalog, Stamp, State, Summary};
use crate::clock;
use crate::error::Result;
use crate::names::BackupName;

/// For how long what was looked at is told without another look.
const FRESH: Duration = Duration::from_millis(250);
/// How many backups are looked at at a time.
const LOOKERS: usize = 4;

/// The service, and the backups of its path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// Whether the scheduler runs.
    pub enabled: bool,
    /// Hours between two backups; none where a cron expression says when.
    #[schema(example = 6)]
    pub interval: Option<u32>,
    /// When, as a cron expression of five fields; none where an interval says it.
    pub cron: Option<String>,
    /// The zone that the cron expression is read in.
    #[schema(example = "UTC")]
    pub timezone: String,
    /// When the next backup is due; none where the scheduler does not run.
    pub next_run: Option<DateTime<Utc>>,
    /// The last backup that the scheduler began, or skipped.
    pub last_run: Option<LastRun>,
    /// Whether each backup is imported once it is complete.
    pub auto_import: bool,
    /// Where backups are kept.
    pub backup_path: String,
    /// Jobs that have not ended.
    pub running: Vec<RunningJob>,
    /// The backups, newest first.
    pub backups: Vec<BackupEntry>,
}

/// What became of a time of the schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    /// The time that it was planned for.
    pub planned: DateTime<Utc>,
    /// When it was looked at.
    pub at: DateTime<Utc>,
    /// What was done.
    pub outcome: RunOutcome,
    /// The job that it began.
    pub job_id: Option<JobId>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What was done at a time of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunOutcome {
    /// A job began.
    Started,
    /// Another backup was running still.
    Skipped,
    /// It could not begin.
    Failed,
}

/// A job that has not ended, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunningJob {
    /// Its id.
    pub job_id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// Whether it waits or works.
    pub state: JobState,
    /// Who asked for it.
    pub trigger: Trigger,
    /// What it is doing.
    pub phase: String,
    /// The backup that it makes or reads.
    pub backup: Option<String>,
    /// Documents done.
    pub documents: u64,
    /// About how many there are.
    pub expected_documents: u64,
}

impl From<&Job> for RunningJob {
    fn from(job: &Job) -> Self {
        Self {
            job_id: job.id,
            kind: job.kind,
            state: job.state,
            trigger: job.trigger,
            phase: job.progress.phase.clone(),
            backup: job.backup.clone(),
            documents: job.progress.documents,
            expected_documents: job.progress.expected_documents,
        }
    }
}

/// A backup, without its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupEntry {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// When it was complete; of others, when it was begun, where that is known.
    pub created: Option<DateTime<Utc>>,
    /// The bytes that its documents take, compressed; 0 where that is not known.
    pub size: u64,
    /// Its documents; those that are stored already where it is not complete.
    pub documents: u64,
    /// Their bytes, uncompressed.
    pub raw_size: u64,
    /// What moment it shows: `snapshot`, `oplog` or `none`; none where it is not complete.
    #[schema(example = "snapshot")]
    pub consistency: Option<String>,
    /// Whether a verification or an import found it whole.
    pub verified: bool,
    /// Whether it can be relied on.
    pub complete: bool,
    /// What it is like.
    pub state: BackupState,
    /// Why it cannot be used, where it is damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a backup is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackupState {
    /// It is whole.
    Complete,
    /// It is being made.
    Running,
    /// Nobody works on it any more, and it was never completed.
    Incomplete,
    /// Its manifest cannot be used.
    Damaged,
}

impl From<&Summary> for BackupEntry {
    fn from(summary: &Summary) -> Self {
        let mut entry = Self {
            name: summary.name.to_string(),
            path: summary.location.clone(),
            created: summary.started(),
            size: 0,
            documents: 0,
            raw_size: 0,
            consistency: None,
            verified: summary.checks.as_ref().and_then(|c| c.verdict()).is_some_and(|check| check.passed),
            complete: false,
            state: BackupState::Incomplete,
            reason: None,
        };
        match &summary.state {
            State::Complete(manifest) => {
                entry.created = Some(manifest.created);
                entry.size = manifest.totals.stored_bytes;
                entry.documents = manifest.totals.documents;
                entry.raw_size = manifest.totals.raw_bytes;
                entry.consistency = Some(manifest.consistency.kind.to_string());
                entry.complete = true;
                entry.state = BackupState::Complete;
            }
            State::Running(progress) => {
                entry.documents = progress.documents;
                entry.raw_size = progress.raw_bytes;
                entry.state = BackupState::Running;
            }
            State::Incomplete => {}
            State::Damaged(reason) => {
                entry.reason = Some(reason.clone());
                entry.state = BackupState::Damaged;
            }
        }
        entry
    }
}

/// The backups of a catalog, remembered.
pub(super) struct Listing {
    catalog: Catalog,
    seen: Mutex<Seen>,
    /// One looks at a time, and the others take what it found.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Seen {
    at: Option<Instant>,
    /// How often it was forgotten: a look that began before that tells nothing new.
    forgotten: u64,
    entries: Arc<Vec<BackupEntry>>,
    known: HashMap<BackupName, (Stamp, BackupEntry)>,
}

impl Listing {
    pub(super) fn new(catalog: Catalog) -> Self {
        Self { catalog, seen: Mutex::default(), looking: tokio::sync::Mutex::default() }
    }

    /// The backups, newest first, as they were a quarter of a second ago at most.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub(super) async fn get(&self) -> Result<Arc<Vec<BackupEntry>>> {
        if let Some(entries) = self.fresh() {
            return Ok(entries);
        }
        let _looking = self.looking.lock().await;
        match self.fresh() {
            Some(entries) => Ok(entries),
            None => self.look().await,
        }
    }

    /// The next who asks looks anew.
    pub(super) fn forget(&self) {
        let mut seen = self.seen();
        seen.at = None;
        seen.forgotten += 1;
    }

    async fn look(&self) -> Result<Arc<Vec<BackupEntry>>> {
        let (began, now, forgotten) = (Instant::now(), clock::now(), self.seen().forgotten);
        let names = self.catalog.names().await?;
        let looks = futures::stream::iter(names.into_iter().map(|name| self.look_at(name, now))).buffer_unordered(LOOKERS);
        let found: Vec<_> = looks.filter_map(std::future::ready).collect().await;
        let mut entries: Vec<BackupEntry> = found.iter().map(|(_, _, entry)| entry.clone()).collect();
        entries.sort_by(|a, b| (b.created, &b.name).cmp(&(a.created, &a.name)));
        let mut seen = self.seen();
        seen.at = (seen.forgotten == forgotten).then_some(began);
        seen.known = found.into_iter().filter_map(|(name, stamp, entry)| Some((name, (stamp?, entry)))).collect();
        seen.entries = Arc::new(entries);
        Ok(seen.entries.clone())
    }

    /// A backup whose files have not changed is as it was.
    async fn look_at(&self, name: BackupName, now: DateTime<Utc>) -> Option<(BackupName, Option<Stamp>, BackupEntry)> {
        let stamp = self.catalog.stamp(&name).await;
        if let Some(stamp) = stamp {
            let known = self.seen().known.get(&name).filter(|(then, _)| *then == stamp).map(|(_, entry)| entry.clone());
            if let Some(entry) = known {
                return Some((name, Some(stamp), entry));
            }
        }
        let summary = self.catalog.summary(name.clone(), now).await?;
        let entry = BackupEntry::from(&summary);
        // What could not be read may be read the next time, with no other stamp.
        Some((name, stamp.filter(|_| entry.complete), entry))
    }

    fn fresh(&self) -> Option<Arc<Vec<BackupEntry>>> {
        let seen = self.seen();
        seen.at.filter(|at| at.elapsed() < FRESH).map(|_| seen.entries.clone())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
