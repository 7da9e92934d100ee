//! The service: jobs, scheduler and status on top of the engine, for the REST interface and for
//! programs that use this library.
//!
//! It runs on the runtime that it was opened on. Jobs belong to the service, not to their callers.

mod archive;
mod connections;
mod endless;
mod inner;
mod job;
mod jobs;
mod keep;
mod kinds;
mod last;
mod metrics;
mod notices;
mod prober;
mod progress;
mod rates;
mod requests;
mod results;
mod retry;
mod schedule;
mod scheduler;
mod seen;
mod shown;
mod state;
mod status;
mod sync;
mod task;
mod told;
pub mod webhook;

use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::archive::ArchiveView;
pub use self::connections::{ConnectionError, ConnectionState, DualConnection, DualState, connect_dual_db};
use self::inner::{Inner, missing};
pub use self::job::{Job, JobError, JobId, JobKind, JobState, Trigger};
pub use self::jobs::JobView;
pub use self::keep::Keep;
pub use self::last::{LastRun, RunOutcome};
use self::metrics::Seen;
pub use self::metrics::{DescribedMetric, METRICS_TYPE, described_metrics};
pub use self::prober::Readiness;
pub use self::progress::JobProgress;
pub use self::requests::{BackupRequest, ImportMode, ImportRequest, SyncMode};
pub use self::results::{BackupResult, JobResult, RetentionResult};
pub use self::retry::NotTaken;
pub use self::schedule::{Schedule, ScheduleChange};
pub use self::shown::Answered;
pub use self::status::{BackupEntry, BackupState, BackupStatus, RunningJob};
pub use self::sync::SyncView;
use crate::clock;
use crate::config::Config;
pub use crate::context::progress::CollectionProgress;
use crate::engine::clean::{self, CleanOptions, CleanReport};
use crate::engine::download::Download;
use crate::engine::sync::ProofReport;
use crate::engine::timeline::Timeline;
use crate::error::{Error, ErrorKind, Result};
use crate::names::{LATEST, is_latest};
use crate::repository::catalog::{Backup, Described};
use crate::repository::lock::read::ReadLock;
use crate::repository::retention::Rule;

/// How often the service lists the backups on its own.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How long a download may keep its backup from being deleted.
const LONGEST_DOWNLOAD: Duration = Duration::from_secs(24 * 3600);

/// Backups of one source in one path: taken by hand or by schedule, imported, verified, removed.
/// Clones share one service.
///
/// ```no_run
/// # async fn example() -> bsonvault::error::Result<()> {
/// use bsonvault::config::{Config, Flags};
/// use bsonvault::service::MongoBackupService;
///
/// let config = Config::load(".".as_ref(), std::env::vars_os(), &Flags::default())?;
/// let service = MongoBackupService::open(config).await?;
/// service.start_automatic_backup().await?;
/// let made = service.manual_backup().await?;
/// if let Some(backup) = &made.result.backup {
///     println!("{} of {} documents", backup.name, backup.documents);
/// }
/// service.shut_down().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MongoBackupService(Arc<Inner>);

impl MongoBackupService {
    /// Opens the service on the current runtime: its path, its state file, and what is known of
    /// former jobs. Contacts neither deployment.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for invalid settings; [`ErrorKind::Storage`] if the path or the state
    /// file cannot be written; [`ErrorKind::Busy`] if another service has the state file open.
    pub async fn open(config: Config) -> Result<Self> {
        let (inner, interrupted) = Inner::open(config).await?;
        let worker: Weak<Inner> = Arc::downgrade(&inner);
        inner.jobs.served_by(worker);
        let service = inner.clone();
        let take = move |job: &Job| {
            service.metrics.kept(job);
            service.scheduler.hear(job);
        };
        inner.jobs.visit_ended(take).await?;
        for job in &interrupted {
            tracing::warn!(job = %job.id, kind = job.kind.name(), "was interrupted when the service ended");
            inner.tell(job);
        }
        Ok(Self(inner))
    }

    // ---- backups ----

    /// Takes a backup, applies retention, and waits for both. Does not import it.
    ///
    /// # Errors
    /// Those of [`begin_backup`](Self::begin_backup). How the job ended is in the job.
    pub async fn create_backup(&self) -> Result<Arc<Job>> {
        let request = BackupRequest { import: Some(false), ..BackupRequest::default() };
        let id = self.begin_backup_of(Trigger::Manual, request).await?;
        self.wait(id).await
    }

    /// Takes a backup, imports it if that is configured, applies retention, and waits for all of
    /// it.
    ///
    /// # Errors
    /// As for [`create_backup`](Self::create_backup).
    pub async fn manual_backup(&self) -> Result<Arc<Job>> {
        let id = self.begin_backup(Trigger::Manual).await?;
        self.wait(id).await
    }

    /// Begins what [`manual_backup`](Self::manual_backup) does, and returns its job's id.
    ///
    /// # Errors
    /// [`ErrorKind::NotConfigured`] and [`ErrorKind::Usage`] for the source's URI;
    /// [`ErrorKind::Busy`] if this service or a command line is already backing up this source;
    /// [`ErrorKind::Closing`]; [`ErrorKind::Storage`].
    pub async fn begin_backup(&self, trigger: Trigger) -> Result<JobId> {
        self.begin_backup_of(trigger, BackupRequest::default()).await
    }

    /// Begins a backup as the request says: which databases and namespaces, whether to import it,
    /// and which backups to keep. The configuration applies to everything else.
    ///
    /// # Errors
    /// Those of [`begin_backup`](Self::begin_backup); [`ErrorKind::Usage`] for an invalid request;
    /// [`ErrorKind::NotConfigured`] if it asks for an import and no target is configured. On an
    /// error, nothing was done.
    pub async fn begin_backup_of(&self, trigger: Trigger, request: BackupRequest) -> Result<JobId> {
        self.on_engine(move |inner| kinds::backup::begin(inner, trigger, request)).await
    }

    /// Imports a backup into the target, and waits for it.
    ///
    /// # Errors
    /// Those of [`begin_import`](Self::begin_import). How the job ended is in the job.
    pub async fn import_to_local(&self, request: ImportRequest) -> Result<Arc<Job>> {
        let id = self.begin_import(request).await?;
        self.wait(id).await
    }

    /// Begins an import, and returns its job's id.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the backup does not exist, or if nothing leads to the point in
    /// time; [`ErrorKind::Gap`] if that is in one; [`ErrorKind::Usage`] if the request does not
    /// fit; [`ErrorKind::Refused`] if the backup is incomplete; [`ErrorKind::Damaged`];
    /// [`ErrorKind::NotConfigured`]; [`ErrorKind::Busy`] if another import writes to one of the
    /// databases; [`ErrorKind::Closing`]; [`ErrorKind::Storage`].
    pub async fn begin_import(&self, request: ImportRequest) -> Result<JobId> {
        self.on_engine(|inner| kinds::import::begin(inner, request)).await
    }

    /// Begins to verify a backup, and returns the job's id.
    ///
    /// # Errors
    /// As for [`find`](Self::find); [`ErrorKind::Closing`]; [`ErrorKind::Storage`].
    pub async fn begin_verify(&self, name: &str, deep: bool) -> Result<JobId> {
        let name = name.to_owned();
        self.on_engine(move |inner| kinds::verify::begin(inner, name, deep)).await
    }

    /// Removes all but the newest `keep` complete backups, whatever else retention would keep. Also
    /// removes leftovers of runs that crashed more than a day ago. The report lists what could not
    /// be removed.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the path cannot be listed; [`ErrorKind::Closing`].
    pub async fn clean_old_backups(&self, keep: NonZeroU32, dry_run: bool) -> Result<CleanReport> {
        let (zone, window) = (self.0.config.timezone, self.0.config.pitr.window());
        let options = CleanOptions { rule: Rule::Count(keep), all_incomplete: false, zone, window };
        self.on_engine(move |inner| async move {
            let _entered = inner.jobs.enter()?;
            let plan = clean::plan(&inner.catalog, &options, clock::now()).await?;
            if dry_run {
                return Ok(plan.report());
            }
            let report = clean::execute(&inner.catalog, plan, &CancellationToken::new()).await;
            told::cleaned(&report, "clean");
            inner.listing.forget();
            Ok(report)
        })
        .await
    }

    /// Removes one backup.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Busy`] if it is being made or read;
    /// [`ErrorKind::Usage`] for `latest`; [`ErrorKind::Storage`]; [`ErrorKind::Closing`].
    pub async fn delete_backup(&self, name: &str) -> Result<()> {
        let resolved = self.0.resolve(name).await?;
        if is_latest(name) {
            return Err(Error::usage(format!("{LATEST} cannot be deleted: it may be another backup by now"))
                .hint(format!("name the backup; the newest complete one is {resolved}")));
        }
        let name = resolved;
        self.on_engine(move |inner| async move {
            let _entered = inner.jobs.enter()?;
            let deleted = clean::delete_one(&inner.catalog, &name, clock::now()).await;
            if deleted.is_ok() {
                tracing::info!(backup = %name, "deleted the backup {name} on request");
            }
            inner.listing.forget();
            // A backup that vanishes meanwhile and an empty directory get the same message.
            deleted.map(drop).map_err(|e| if e.kind() == ErrorKind::NotFound { missing() } else { e })
        })
        .await
    }

    /// A complete backup, by its name or by its path as in the status.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Refused`] if it is incomplete; [`ErrorKind::Damaged`];
    /// [`ErrorKind::Storage`].
    pub async fn find(&self, name: &str) -> Result<Backup> {
        self.0.find(name).await
    }

    /// What `write` makes of a complete backup's description. All answers share a part of the
    /// memory budget.
    ///
    /// # Errors
    /// As for [`find`](Self::find), and those of `write`; [`ErrorKind::Busy`] if other answers take
    /// all of that memory.
    pub async fn show(&self, name: &str, segments: bool, write: impl FnOnce(Described) -> Result<Vec<u8>>) -> Result<Answered> {
        let name = self.0.resolve(name).await?;
        self.0.shown.get(self.0.find(name.as_str()), &name, segments, write).await
    }

    /// A complete backup as one tar stream. The backup cannot be deleted while the stream exists,
    /// for a day at most.
    ///
    /// # Errors
    /// As for [`find`](Self::find), [`Backup::read_lock`] and [`Download::open`].
    pub async fn download(&self, name: &str) -> Result<Download<ReadLock>> {
        let backup = self.find(name).await?;
        let lock = backup.read_lock("download").await?;
        Ok(Download::open(backup, lock).await?.within(LONGEST_DOWNLOAD))
    }

    // ---- status ----

    /// The service, its schedule and its backups.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn get_backup_status(&self) -> Result<BackupStatus> {
        let backups = self.0.listing.get().await?;
        Ok(BackupStatus {
            schedule: self.schedule(),
            auto_import: self.0.settings.auto_import,
            backup_path: self.0.catalog.repository().location(),
            running: self.0.jobs.unfinished().iter().map(|job| RunningJob::from(&**job)).collect(),
            backups: backups.to_vec(),
        })
    }

    /// Checks the connections to both deployments, within five seconds.
    pub async fn test_connections(&self) -> DualState {
        self.0.prober.ask().await
    }

    /// Whether the service can do its work, as far as it knows; this contacts nobody.
    /// [`start_automatic_backup`](Self::start_automatic_backup) makes it probe both deployments
    /// every half minute. [`test_connections`](Self::test_connections) probes them, too.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let replaced = self.0.state.replaced().map(|_| {
            "the state file was damaged and replaced by a new one: earlier jobs are not listed, and the schedule is the configured one"
                .to_owned()
        });
        let now = clock::now();
        let ahead = self.0.listing.known().iter().filter(|backup| backup.complete && backup.is_ahead(now)).count();
        let ahead = (ahead > 0)
            .then(|| format!("{ahead} backups are dated in the future and do not count as the newest: a clock is or was wrong"));
        let mut readiness = self.0.prober.readiness(self.is_open());
        let not_taken = self.0.scheduler.shown().not_taken;
        let busy = not_taken
            .filter(|not| not.busy)
            .map(|_| "the last scheduled backup did not begin, because another backup was running".to_owned());
        if let Some(not) = not_taken.filter(|not| !not.busy && readiness.ready) {
            let next = not.next_try.map(|next| format!(": the next try is at {}", next.format("%Y-%m-%dT%H:%M:%SZ")));
            let reason = format!("the last scheduled backup was not taken{}", next.unwrap_or_default());
            (readiness.ready, readiness.reason) = (false, Some(reason));
        }
        let warnings: Vec<String> = [replaced, ahead, busy].into_iter().flatten().collect();
        readiness.warning = (!warnings.is_empty()).then(|| warnings.join("; "));
        readiness
    }

    /// Metrics in the text format of OpenMetrics ([`METRICS_TYPE`]). Values that cannot be
    /// determined are absent.
    pub async fn metrics(&self) -> String {
        let seen = Seen::look(&self.0).await;
        self.0.metrics.render(&seen)
    }

    // ---- jobs ----

    /// A job.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Storage`].
    pub async fn job(&self, id: JobId) -> Result<Arc<Job>> {
        self.0.jobs.job(id).await
    }

    /// The newest jobs, newest first, optionally only of this kind or in this state.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn jobs(&self, limit: usize, kind: Option<JobKind>, state: Option<JobState>) -> Result<Vec<Arc<Job>>> {
        let wanted = move |job: &Job| kind.is_none_or(|k| k == job.kind) && state.is_none_or(|s| s == job.state);
        self.0.jobs.list(limit, wanted).await
    }

    /// Waits for a job to end.
    ///
    /// # Errors
    /// As for [`job`](Self::job).
    pub async fn wait(&self, id: JobId) -> Result<Arc<Job>> {
        self.0.jobs.wait(id).await
    }

    /// Follows a job: every change, up to its end.
    ///
    /// # Errors
    /// As for [`job`](Self::job).
    pub async fn watch(&self, id: JobId) -> Result<watch::Receiver<JobView>> {
        self.0.jobs.watch(id).await
    }

    /// Asks a job to stop, and returns its present state. The job leaves nothing behind.
    ///
    /// # Errors
    /// As for [`job`](Self::job); [`ErrorKind::Refused`] if it has already ended.
    pub async fn cancel(&self, id: JobId) -> Result<Arc<Job>> {
        self.0.jobs.cancel(id).await
    }

    // ---- schedule ----

    /// Starts the scheduler, which takes backups whenever the schedule is enabled. It makes up once
    /// for backups that were missed while the service did not run. From now on, both deployments
    /// are also probed, whether or not the schedule is enabled. This call does not wait for their
    /// answers.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`].
    pub async fn start_automatic_backup(&self) -> Result<()> {
        self.0.prober.start();
        self.watch_the_backups();
        let service = Arc::downgrade(&self.0);
        self.0
            .scheduler
            .start(Box::new(move |trigger| {
                let service = service.upgrade().map(Self);
                Box::pin(async move {
                    match service {
                        Some(service) => service.begin_by_schedule(trigger).await,
                        None => Err(Error::new(ErrorKind::Closing, "the service has ended")),
                    }
                })
            }))
            .await?;
        told::start(&self.0);
        if self.0.config.pitr.enabled
            && let Err(e) = self.0.archive.start().await
        {
            tracing::error!("the archive of the oplog does not run: {e}");
        }
        if self.0.config.sync.enabled
            && let Err(e) = self.0.sync.start(None).await
        {
            tracing::error!("the target does not follow the source: {e}");
        }
        Ok(())
    }

    /// Begins a scheduled backup. One that cannot begin becomes a failed job.
    async fn begin_by_schedule(&self, trigger: Trigger) -> Result<JobId> {
        match self.begin_backup(trigger).await {
            Err(e) if e.kind() != ErrorKind::Closing => {
                Err(self.0.jobs.fail(Job::new(JobKind::Backup, trigger, clock::now()), e).await)
            }
            begun => begun,
        }
    }

    /// Lists the backups regularly, so that readiness knows about them.
    fn watch_the_backups(&self) {
        let service = Arc::downgrade(&self.0);
        self.0.engine.spawn(async move {
            while let Some(service) = service.upgrade().filter(|service| service.jobs.is_open()) {
                if let Err(e) = service.listing.get().await {
                    tracing::warn!("cannot list the backups: {e}");
                }
                drop(service);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }

    /// The schedule.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule::of(self.0.scheduler.shown(), self.0.config.timezone)
    }

    /// Changes the schedule. The change survives a restart. It ends when the schedule in the
    /// configuration changes.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for an invalid schedule; [`ErrorKind::Closing`];
    /// [`ErrorKind::Storage`].
    pub async fn change_schedule(&self, change: ScheduleChange) -> Result<Schedule> {
        self.on_engine(move |inner| async move {
            let _entered = inner.jobs.enter()?;
            let configured = inner.config.timezone;
            inner.scheduler.change(|now| change.over(now, configured)).await?;
            Ok(Schedule::of(inner.scheduler.shown(), configured))
        })
        .await
    }

    // ---- archive ----

    /// The archive of the source's oplog: what it does, and how far it is.
    #[must_use]
    pub fn archive(&self) -> ArchiveView {
        self.0.archive.view()
    }

    /// Starts the archive, unless it runs. Does not wait until it follows the source. After a
    /// restart of the service, `PITR_ENABLED` decides again.
    ///
    /// # Errors
    /// [`ErrorKind::NotConfigured`] and [`ErrorKind::Usage`] for the source's URI;
    /// [`ErrorKind::Closing`].
    pub async fn start_archive(&self) -> Result<ArchiveView> {
        self.on_engine(|inner| async move {
            let _entered = inner.jobs.enter()?;
            inner.archive.start().await?;
            Ok(inner.archive.view())
        })
        .await
    }

    /// Stops the archive in order, and waits until it has ended. After a restart of the service,
    /// `PITR_ENABLED` decides again.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if it does not end within a minute; [`ErrorKind::Closing`].
    pub async fn stop_archive(&self) -> Result<ArchiveView> {
        self.on_engine(|inner| async move {
            let _entered = inner.jobs.enter()?;
            inner.archive.stop().await?;
            Ok(inner.archive.view())
        })
        .await
    }

    /// Which times can be restored, and what happened in them: all archives below the path.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`]; [`ErrorKind::Damaged`] if it is unclear what an archive is of. Other
    /// damage is in the result.
    pub async fn timeline(&self) -> Result<Timeline> {
        self.on_engine(|inner| async move { inner.archive.timeline().await }).await
    }

    // ---- sync ----

    /// The sync: how far the target is, and who follows the source into it. If this service does
    /// not, the target is asked, unless it did not answer at the last probe.
    pub async fn sync(&self) -> SyncView {
        let asks = self.0.prober.known().is_none_or(|known| known.local.connected);
        let asked = self.on_engine(move |inner| async move { Ok(inner.sync.look(asks).await) }).await;
        asked.unwrap_or_else(|_| self.0.sync.view())
    }

    /// Follows the sync of this service. It does not tell what other processes do.
    #[must_use]
    pub fn watch_sync(&self) -> watch::Receiver<SyncView> {
        self.0.sync.watch()
    }

    /// Makes the target follow the source, unless it does. If it is held, it begins again where it
    /// stopped. Does not wait until it follows. `mode` says what happens to what exists in the
    /// target when the first copy is made; by default, what `SYNC_MODE` says. After a restart of
    /// the service, `SYNC_ENABLED` decides again.
    ///
    /// # Errors
    /// [`ErrorKind::NotConfigured`] and [`ErrorKind::Usage`] for the URIs; [`ErrorKind::Busy`] if
    /// one that is held does not end; [`ErrorKind::Closing`].
    pub async fn start_sync(&self, mode: Option<SyncMode>) -> Result<SyncView> {
        self.on_engine(move |inner| async move {
            let _entered = inner.jobs.enter()?;
            inner.sync.start(mode.map(Into::into)).await?;
            Ok(inner.sync.view())
        })
        .await
    }

    /// Stops it in order, and waits until it has ended. After a restart of the service,
    /// `SYNC_ENABLED` decides again.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if it does not end within a minute; [`ErrorKind::Closing`].
    pub async fn stop_sync(&self) -> Result<SyncView> {
        self.on_engine(|inner| async move {
            let _entered = inner.jobs.enter()?;
            inner.sync.stop().await?;
            Ok(inner.sync.view())
        })
        .await
    }

    /// Pauses the process that follows into the target, whichever that is. The source's oplog is
    /// still archived. A pause outlasts that process.
    ///
    /// # Errors
    /// [`ErrorKind::NotConfigured`] and [`ErrorKind::Usage`] for the target's URI;
    /// [`ErrorKind::NotFound`] if the target follows nothing; [`ErrorKind::Refused`] if it is held,
    /// final or gets its first copy; [`ErrorKind::Closing`]; server errors.
    pub async fn pause_sync(&self) -> Result<SyncView> {
        self.on_engine(|inner| async move {
            let _entered = inner.jobs.enter()?;
            inner.sync.pause().await
        })
        .await
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// As for [`pause_sync`](Self::pause_sync).
    pub async fn resume_sync(&self) -> Result<SyncView> {
        self.on_engine(|inner| async move {
            let _entered = inner.jobs.enter()?;
            inner.sync.resume().await
        })
        .await
    }

    /// Lets the process that follows into the target prove it now, and waits for the result.
    ///
    /// # Errors
    /// As for [`pause_sync`](Self::pause_sync); [`ErrorKind::Refused`] also if no process follows
    /// into the target, or if it cannot be proven.
    pub async fn verify_sync(&self) -> Result<ProofReport> {
        self.on_engine(|inner| async move {
            drop(inner.jobs.enter()?);
            inner.sync.verify().await
        })
        .await
    }

    /// Stops the sync of this service in order, and ends the following for good: the target is a
    /// deployment of its own from then on. If that is not possible, the sync goes on.
    ///
    /// # Errors
    /// As for [`pause_sync`](Self::pause_sync); [`ErrorKind::Busy`] if another process follows into
    /// the target.
    pub async fn finalize_sync(&self) -> Result<SyncView> {
        self.on_engine(|inner| async move {
            let _entered = inner.jobs.enter()?;
            inner.sync.finalize().await
        })
        .await
    }

    // ---- life ----

    /// Whether the service accepts jobs.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.jobs.is_open()
    }

    /// Accepts no more jobs. Running jobs continue.
    pub fn close(&self) {
        self.0.jobs.close();
    }

    /// Shuts down: accepts no more jobs, gives running jobs the configured grace period, and then
    /// stops the rest. The sync and the archive end meanwhile, with everything durable that the
    /// source has. Returns when all have cleaned up.
    pub async fn shut_down(&self) {
        self.close();
        self.0.scheduler.stop().await;
        self.0.prober.stop().await;
        let grace = self.0.settings.grace;
        tokio::join!(self.0.jobs.shut_down(grace), self.0.sync.shut_down(grace), self.0.archive.shut_down(grace));
        // A scheduled backup that ends only now is retried by the next process.
        self.0.scheduler.keep_what_was_heard(clock::now()).await;
        self.0.notices.stop().await;
    }

    /// Runs work to its end on the service's own runtime, even if the caller goes away or sits on
    /// another runtime.
    async fn on_engine<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.0.engine.spawn(work(self.0.clone())).await.map_err(|e| {
            let (kind, message) = match e.is_panic() {
                true => (ErrorKind::Internal, "the request failed because of a defect in this program"),
                false => (ErrorKind::Closing, "the service has ended"),
            };
            Error::new(kind, message).cause(e)
        })?
    }
}

#[cfg(test)]
mod tests;
