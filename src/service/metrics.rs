//! The metrics of the service in the text format of OpenMetrics, for Prometheus. Labels are words
//! of this program: no names, addresses or paths.
//!
//! Counters start at 0 with the process; last results come from the stored jobs. Everything else is
//! looked up on each scrape. Unknown values are absent rather than 0, so `absent()` detects them.

mod described;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::archive::ArchiveView;
use super::connections::DualState;
use super::job::{Job, JobKind, JobState};
use super::last::{LastResults, outcome};
use super::retry::NotTaken;
use super::status::{BackupEntry, BackupState};
use super::sync::SyncView;
use crate::context::lock;
use crate::engine::sync::SyncState;

pub use self::described::{DescribedMetric, described_metrics};

/// The media type of [`MongoBackupService::metrics`](super::MongoBackupService::metrics).
pub const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The prefix of all metric names.
const PREFIX: &str = "bsonvault";
/// Upper bounds of the duration buckets, in seconds: from one second to a day.
const DURATIONS: [f64; 12] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0];

type Kind = [(&'static str, &'static str); 1];
type KindAndState = [(&'static str, &'static str); 2];

/// Counters over the life of the process.
pub(super) struct Metrics {
    started: DateTime<Utc>,
    last: Mutex<LastResults>,
    ended: Family<KindAndState, Counter>,
    durations: Family<Kind, Histogram, fn() -> Histogram>,
    backup_documents: Counter,
    backup_raw_bytes: Counter,
    backup_stored_bytes: Counter,
    import_documents: Counter,
    import_bytes: Counter,
    /// Held during a look at the path. If a network file system hangs, only one look hangs, not one
    /// more per scrape.
    pub(super) looking: Arc<tokio::sync::Mutex<()>>,
}

/// Values that are looked up on each scrape.
pub(super) struct Seen {
    pub(super) now: DateTime<Utc>,
    /// `None` if they cannot be listed.
    pub(super) backups: Option<Arc<Vec<BackupEntry>>>,
    /// The group of the service's own backups.
    pub(super) own: Option<usize>,
    pub(super) free_bytes: Option<u64>,
    pub(super) jobs: Vec<(JobKind, JobState, u64)>,
    pub(super) accepting: bool,
    pub(super) state_file_replaced: bool,
    pub(super) schedule_enabled: bool,
    pub(super) next_run: Option<DateTime<Utc>>,
    pub(super) not_taken: Option<NotTaken>,
    pub(super) connections: Option<DualState>,
    pub(super) archive: ArchiveView,
    pub(super) sync: SyncView,
}

impl Metrics {
    /// All counters at 0.
    pub(super) fn new(started: DateTime<Utc>) -> Self {
        let durations: fn() -> Histogram = || Histogram::new(DURATIONS);
        let metrics = Self {
            started,
            last: Mutex::default(),
            ended: Family::default(),
            durations: Family::new_with_constructor(durations),
            backup_documents: Counter::default(),
            backup_raw_bytes: Counter::default(),
            backup_stored_bytes: Counter::default(),
            import_documents: Counter::default(),
            import_bytes: Counter::default(),
            looking: Arc::default(),
        };
        // Series must exist at 0 first, so that their first increase is visible.
        for kind in JobKind::ALL {
            drop(metrics.durations.get_or_create(&labelled(kind)));
            for state in JobState::ALL.into_iter().filter(|state| state.is_final()) {
                drop(metrics.ended.get_or_create(&of_kind(kind, state)));
            }
        }
        metrics
    }

    /// Adds a job that ended under another process.
    pub(super) fn kept(&self, job: &Job) {
        lock(&self.last).take(job);
    }

    /// Counts a job that ended now.
    pub(super) fn ended(&self, job: &Job) {
        self.kept(job);
        self.ended.get_or_create(&of_kind(job.kind, job.state)).inc();
        // If it was found interrupted, how long it worked is unknown.
        if let Some(seconds) = job.seconds().filter(|_| job.finished >= Some(self.started) && job.started >= Some(self.started)) {
            self.durations.get_or_create(&labelled(job.kind)).observe(seconds);
        }
        if let (Some(backup), Some(true)) = (&job.result.backup, outcome(job, JobKind::Backup)) {
            self.backup_documents.inc_by(backup.documents);
            self.backup_raw_bytes.inc_by(backup.raw_bytes);
            self.backup_stored_bytes.inc_by(backup.stored_bytes);
        }
        if let (Some(import), Some(true)) = (&job.result.import, outcome(job, JobKind::Import)) {
            self.import_documents.inc_by(import.documents);
            self.import_bytes.inc_by(import.bytes);
        }
    }

    /// All metrics as text.
    pub(super) fn render(&self, seen: &Seen) -> String {
        let mut page = Page(Registry::with_prefix(PREFIX));
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        page.register("build", "The version of bsonvault", version);
        page.one("process_start_time_seconds", "When the service started, in Unix time", Some(unix(self.started)));
        page.one("accepting_jobs", "1 if the service accepts jobs, 0 while it shuts down", Some(truth(seen.accepting)));
        page.one(
            "state_file_replaced",
            "1 if the state file was damaged and replaced by a new one since the service started",
            Some(truth(seen.state_file_replaced)),
        );
        page.backups(seen);
        self.jobs(&mut page, seen);
        page.schedule(seen);
        page.connections(seen.connections.as_ref());
        page.archive(&seen.archive, seen.sync.archive);
        page.sync(&seen.sync);
        let mut text = String::new();
        // Writing to a String does not fail.
        let _infallible = text::encode(&mut text, &page.0);
        text
    }

    fn jobs(&self, page: &mut Page, seen: &Seen) {
        let counts = seen.jobs.iter().map(|(kind, state, count)| (of_kind(*kind, *state), *count as f64));
        page.each("jobs", "Jobs that are queued or running", counts);
        page.register("jobs_ended", "Jobs that ended since the service started", self.ended.clone());
        let help = "How long jobs ran, without their time in the queue";
        page.register("job_duration_seconds", help, self.durations.clone());
        let last = *lock(&self.last);
        let each = |what: fn(super::last::Last) -> Option<f64>| {
            JobKind::ALL.into_iter().filter_map(move |kind| Some((labelled(kind), what(last.of(kind))?)))
        };
        page.each(
            "last_succeeded",
            "1 if the last full backup, import or verification succeeded. A backup whose import failed counts as a successful backup and a failed import",
            each(|last| last.succeeded().map(truth)),
        );
        page.each(
            "last_success_timestamp_seconds",
            "When a full backup, import or verification last succeeded, in Unix time",
            each(|last| last.success.map(unix)),
        );
        page.each(
            "last_failure_timestamp_seconds",
            "When a full backup, import or verification last failed or was interrupted, in Unix time",
            each(|last| last.failure.map(unix)),
        );
        page.register("backup_documents", "Documents in completed backups", self.backup_documents.clone());
        page.register(
            "backup_raw_bytes",
            "Bytes of the documents in completed backups, uncompressed",
            self.backup_raw_bytes.clone(),
        );
        page.register(
            "backup_stored_bytes",
            "Bytes of the documents in completed backups, as stored",
            self.backup_stored_bytes.clone(),
        );
        page.register("import_documents", "Documents of successful imports", self.import_documents.clone());
        page.register("import_bytes", "Bytes of the documents of successful imports, uncompressed", self.import_bytes.clone());
    }
}

/// The page under construction.
struct Page(Registry);

impl Page {
    fn backups(&mut self, seen: &Seen) {
        self.one("catalog_readable", "1 if the backups can be listed", Some(truth(seen.backups.is_some())));
        let free = seen.free_bytes.map(|bytes| bytes as f64);
        self.one("backup_path_free_bytes", "Free bytes in the backup path", free);
        let Some(backups) = &seen.backups else { return };
        let states = [BackupState::Complete, BackupState::Running, BackupState::Incomplete, BackupState::Damaged];
        let counts = states.into_iter().map(|state| {
            let count = backups.iter().filter(|backup| backup.state == state).count();
            ([("state", state_name(state))], count as f64)
        });
        self.each("backups", "Backups, by state", counts);
        let complete = || backups.iter().filter(|backup| backup.complete);
        let stored: u64 = complete().map(|backup| backup.size).sum();
        let ahead = complete().filter(|backup| backup.is_ahead(seen.now)).count();
        let help =
            "Complete backups that are dated in the future, because a clock is or was wrong. None of them counts as the newest";
        self.one("backups_dated_ahead", help, Some(ahead as f64));
        self.one("backups_stored_bytes", "Bytes of the documents in all complete backups, as stored", Some(stored as f64));

        // Other deployments' and partial backups do not count here. Without a complete backup, the
        // metrics below are absent.
        let own = complete().filter(|backup| seen.own.is_some() && backup.of.group == seen.own);
        // A backup dated in the future would stay the newest for a long time, and hide missing
        // ones.
        let own = own.filter(|backup| !backup.is_ahead(seen.now));
        let newest = own.max_by_key(|backup| (backup.created, &backup.name));
        let created = newest.and_then(|backup| backup.created);
        let age = created.map(|created| (unix(seen.now) - unix(created)).max(0.0));
        self.one(
            "newest_backup_age_seconds",
            "Age of the newest complete backup of the source, since its consistency point",
            age,
        );
        let help = "The consistency point of the newest complete backup of the source, in Unix time";
        self.one("newest_backup_timestamp_seconds", help, created.map(unix));
        let of_newest = |what: fn(&BackupEntry) -> u64| newest.map(|backup| what(backup) as f64);
        self.one("newest_backup_documents", "Documents in the newest complete backup of the source", of_newest(|b| b.documents));
        self.one(
            "newest_backup_raw_bytes",
            "Bytes of the documents in the newest complete backup of the source, uncompressed",
            of_newest(|b| b.raw_size),
        );
        self.one(
            "newest_backup_stored_bytes",
            "Bytes of the documents in the newest complete backup of the source, as stored",
            of_newest(|b| b.size),
        );
        let ratio = newest.filter(|backup| backup.size > 0).map(|backup| backup.raw_size as f64 / backup.size as f64);
        self.one(
            "newest_backup_compression_ratio",
            "Uncompressed bytes divided by stored bytes of the newest complete backup of the source",
            ratio,
        );
        let verified = newest.map(|backup| truth(backup.verified));
        self.one(
            "newest_backup_verified",
            "1 if the last check of the newest complete backup of the source passed; 0 if it failed, or if there was none",
            verified,
        );
    }

    fn schedule(&mut self, seen: &Seen) {
        self.one("schedule_enabled", "1 if the schedule is on", Some(truth(seen.schedule_enabled)));
        let help = "When the next scheduled backup is due, in Unix time";
        self.one("schedule_next_run_timestamp_seconds", help, seen.next_run.map(unix));
        let help = "How often the last scheduled backup failed so far; 0 once it is taken";
        self.one("schedule_failed_attempts", help, Some(seen.not_taken.map_or(0.0, |not| f64::from(not.failed))));
        let help = "When the next try for the last scheduled backup is due, in Unix time";
        let next_try = seen.not_taken.and_then(|not| not.next_try);
        self.one("schedule_next_try_timestamp_seconds", help, next_try.map(unix));
    }

    /// Deployments that are not configured or not yet probed are absent.
    fn connections(&mut self, connections: Option<&DualState>) {
        let known: Vec<_> = connections
            .into_iter()
            .flat_map(|both| [("source", &both.atlas), ("target", &both.local)])
            .filter(|(_, state)| state.configured)
            .map(|(name, state)| ([("deployment", name)], state))
            .collect();
        let each = || known.iter().copied();
        let up = each().map(|(label, state)| (label, truth(state.connected)));
        self.each("connection_up", "1 if the deployment answered and accepted the login at the last probe", up);
        let latency = each().filter_map(|(label, state)| Some((label, state.latency_ms? / 1000.0)));
        self.each("connection_latency_seconds", "The round trip of a small command to the deployment", latency);
        let checked = each().map(|(label, state)| (label, unix(state.checked)));
        self.each("connection_checked_timestamp_seconds", "When the deployment was last probed, in Unix time", checked);
    }

    /// What was never known since the service started is absent. Lag and headroom are known while
    /// the archive follows, or that of the sync.
    fn archive(&mut self, archive: &ArchiveView, (headroom, lag_seconds): (Option<f64>, Option<u32>)) {
        self.one("archive_enabled", "1 if PITR_ENABLED is true", Some(truth(archive.enabled)));
        let help = "1 if the archive follows the source's oplog; 0 if it starts, waits or is stopped";
        self.one("archive_running", help, Some(truth(archive.follows())));
        let help = "How many seconds of the source's time are not durable in the archive yet";
        self.one("archive_lag_seconds", help, archive.lag_seconds.or(lag_seconds).map(f64::from));
        let help =
            "How much of the source's oplog is behind the archived position, from 0 to 1; at 0, entries are about to be lost";
        self.one("archive_headroom_ratio", help, archive.headroom.or(headroom));
        let position = archive.position.as_ref().map(|position| unix(position.time));
        self.one("archive_position_seconds", "The time of the last durable entry of the archive, in Unix time", position);
        let known = |value: u64| archive.is_known().then_some(value as f64);
        self.one(
            "archive_gaps",
            "Gaps in the archive: parts of the oplog that were never archived",
            known(archive.gaps.len() as u64),
        );
        self.one("archive_stored_bytes", "Bytes of the archive's links, as stored", known(archive.stored_bytes));
    }

    /// Lag, moment and debts are known once the target follows.
    fn sync(&mut self, sync: &SyncView) {
        self.one("sync_enabled", "1 if SYNC_ENABLED is true", Some(truth(sync.enabled)));
        let help = "1 if the sync makes the first copy or follows the source; 0 if it starts, waits, is paused, held or stopped";
        self.one("sync_running", help, Some(truth(sync.works())));
        let help = "1 if something came that the sync cannot apply";
        self.one("sync_held", help, Some(truth(sync.state == SyncState::Held)));
        let help = "How many seconds of the source the target is behind the archive";
        self.one("sync_lag_seconds", help, sync.lag_seconds.map(f64::from));
        let help = "How many seconds the target stays behind on purpose";
        self.one("sync_delay_seconds", help, Some(sync.delay_seconds as f64));
        let help = "1 if the target shows one moment of the source";
        self.one("sync_moment", help, sync.moment.map(truth));
        let at = sync.at.as_ref().map(|at| unix(at.time));
        self.one("sync_position_seconds", "The time of the last entry that is in the target, in Unix time", at);
        let help = "Indexes that are still being built in the target";
        self.one("sync_debts", help, sync.debts.map(|debts| debts as f64));
        let proven = sync.proven.as_ref();
        let help = "When the target was last proven, in Unix time";
        self.one("sync_proven_seconds", help, proven.map(|proven| proven.ended.timestamp() as f64));
        let help = "1 if everything was proven to be the same then";
        self.one("sync_proven_same", help, proven.map(|proven| truth(proven.same)));
        let help = "Differences that were found then";
        self.one("sync_differences", help, proven.map(|proven| proven.differences as f64));
        self.count("sync_operations", "Operations that the sync applied since the service started", sync.operations);
        self.count("sync_batches", "Batches that the sync wrote since the service started", sync.batches);
        let help = "Changes of collections, views and indexes that the sync made since the service started";
        self.count("sync_ddl", help, sync.ddl);
        let seconds = Counter::<f64, AtomicU64>::default();
        seconds.inc_by(sync.batch_time.as_secs_f64());
        self.register("sync_batch_seconds", "How long these batches took together", seconds);
    }

    /// Adds a count of what happened since the service started.
    fn count(&mut self, name: &str, help: &str, value: u64) {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        self.register(name, help, counter);
    }

    /// Adds a value without labels, if it is known.
    fn one(&mut self, name: &str, help: &str, value: Option<f64>) {
        if let Some(value) = value {
            let gauge = Gauge::<f64, AtomicU64>::default();
            gauge.set(value);
            self.register(name, help, gauge);
        }
    }

    /// Adds a value for each set of labels.
    fn each<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'static str, &'static str); N], f64)>,
    ) {
        let family = Family::<[(&'static str, &'static str); N], Gauge<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.register(name, help, family);
    }

    /// Registers a metric. If the last word of its name is a unit, the page also states the unit.
    fn register(&mut self, name: &str, help: &str, metric: impl prometheus_client::registry::Metric) {
        let units = [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes)];
        match units.into_iter().find_map(|(ending, unit)| Some((name.strip_suffix(ending)?, unit))) {
            Some((name, unit)) => self.0.register_with_unit(name, help, unit, metric),
            None => self.0.register(name, help, metric),
        }
    }
}

fn labelled(kind: JobKind) -> Kind {
    [("kind", kind.name())]
}

fn of_kind(kind: JobKind, state: JobState) -> KindAndState {
    [("kind", kind.name()), ("state", state.name())]
}

fn state_name(state: BackupState) -> &'static str {
    match state {
        BackupState::Complete => "complete",
        BackupState::Running => "running",
        BackupState::Incomplete => "incomplete",
        BackupState::Damaged => "damaged",
    }
}

fn unix(time: DateTime<Utc>) -> f64 {
    time.timestamp_millis() as f64 / 1000.0
}

fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

#[cfg(test)]
mod tests;
