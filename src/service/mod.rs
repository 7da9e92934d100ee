//! The service: jobs, scheduler and status over the engine, for the REST interface and for programs that use this library.
//!
//! It runs on the runtime that it was opened on. Jobs belong to it, not to whoever asked for them.

mod connections;
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
mod task;
mod told;
pub mod webhook;

use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::connections::{ConnectionError, ConnectionState, DualConnection, DualState, connect_dual_db};
use self::inner::{Inner, missing};
pub use self::job::{Job, JobError, JobId, JobKind, JobState, Trigger};
pub use self::jobs::JobView;
pub use self::keep::Keep;
pub use self::last::{LastRun, RunOutcome};
pub use self::metrics::METRICS_TYPE;
use self::metrics::Seen;
pub use self::prober::Readiness;
pub use self::progress::JobProgress;
pub use self::requests::{BackupRequest, ImportMode, ImportRequest};
pub use self::results::{BackupResult, JobResult, RetentionResult};
pub use self::retry::NotTaken;
pub use self::schedule::{Schedule, ScheduleChange};
pub use self::shown::Answered;
pub use self::status::{BackupEntry, BackupState, BackupStatus, RunningJob};
use crate::clock;
use crate::config::Config;
pub use crate::context::progress::CollectionProgress;
use crate::engine::clean::{self, CleanOptions, CleanReport};
use crate::engine::download::Download;
use crate::error::{Error, ErrorKind, Result};
use crate::names::{LATEST, is_latest};
use crate::repository::catalog::{Backup, Described};
use crate::repository::lock::read::ReadLock;
use crate::repository::retention::Rule;

/// How often somebody looks at the backups, whoever asks.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How long a download may keep its backup from being deleted.
const LONGEST_DOWNLOAD: Duration = Duration::from_secs(24 * 3600);

/// Backups of one source in one path: by hand, by schedule, imported, verified, removed. Cloning shares it.
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
    /// Opens the service on the runtime that this is called on: its path, its state file, what is known of former jobs. Neither deployment is asked anything yet.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for settings that cannot be used; [`ErrorKind::Storage`] where path or state file cannot be written;
    /// [`ErrorKind::Busy`] where another service has the state file open.
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

    /// Takes a backup, removes what retention no longer keeps, and waits for both. It is not imported.
    ///
    /// # Errors
    /// Those of [`begin_backup`](Self::begin_backup). How the job itself ended is in the job.
    pub async fn create_backup(&self) -> Result<Arc<Job>> {
        let request = BackupRequest { import: Some(false), ..BackupRequest::default() };
        let id = self.begin_backup_of(Trigger::Manual, request).await?;
        self.wait(id).await
    }

    /// Takes a backup, imports it where that is configured, removes what retention no longer keeps, and waits for all of it.
    ///
    /// # Errors
    /// As for [`create_backup`](Self::create_backup).
    pub async fn manual_backup(&self) -> Result<Arc<Job>> {
        let id = self.begin_backup(Trigger::Manual).await?;
        self.wait(id).await
    }

    /// Begins what [`manual_backup`](Self::manual_backup) does, and gives its job.
    ///
    /// # Errors
    /// [`ErrorKind::NotConfigured`] and [`ErrorKind::Usage`] for the source's URI; [`ErrorKind::Busy`] where a backup of this source is running, of this service or of
    /// a command line; [`ErrorKind::Closing`]; [`ErrorKind::Storage`].
    pub async fn begin_backup(&self, trigger: Trigger) -> Result<JobId> {
        self.begin_backup_of(trigger, BackupRequest::default()).await
    }

    /// Begins a backup as it is asked for: of these databases and namespaces, imported or not, and with so many to stay. What is not
    /// asked for is as configured.
    ///
    /// # Errors
    /// Those of [`begin_backup`](Self::begin_backup); [`ErrorKind::Usage`] for what cannot be asked; [`ErrorKind::NotConfigured`] where
    /// it is to be imported and no target is configured. Nothing was done then.
    pub async fn begin_backup_of(&self, trigger: Trigger, request: BackupRequest) -> Result<JobId> {
        self.on_engine(move |inner| kinds::backup::begin(inner, trigger, request)).await
    }

    /// Imports a backup into the target, and waits for it.
    ///
    /// # Errors
    /// Those of [`begin_import`](Self::begin_import). How the job itself ended is in the job.
    pub async fn import_to_local(&self, request: ImportRequest) -> Result<Arc<Job>> {
        let id = self.begin_import(request).await?;
        self.wait(id).await
    }

    /// Begins an import, and gives its job.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a backup that there is not; [`ErrorKind::Usage`] for what cannot be asked of it; [`ErrorKind::Refused`] for one that is not complete, [`ErrorKind::Damaged`];
    /// [`ErrorKind::NotConfigured`]; [`ErrorKind::Busy`] where another import writes to one of the databases; [`ErrorKind::Closing`]; [`ErrorKind::Storage`].
    pub async fn begin_import(&self, request: ImportRequest) -> Result<JobId> {
        self.on_engine(|inner| kinds::import::begin(inner, request)).await
    }

    /// Begins to verify a backup, and gives its job.
    ///
    /// # Errors
    /// As for [`find`](Self::find); [`ErrorKind::Closing`]; [`ErrorKind::Storage`].
    pub async fn begin_verify(&self, name: &str, deep: bool) -> Result<JobId> {
        let name = name.to_owned();
        self.on_engine(move |inner| kinds::verify::begin(inner, name, deep)).await
    }

    /// Removes all but the newest `keep` complete backups, whatever else retention would keep, and what a crash left more than a day ago. What could
    /// not be removed is in the report.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] where the path cannot be listed; [`ErrorKind::Closing`].
    pub async fn clean_old_backups(&self, keep: NonZeroU32, dry_run: bool) -> Result<CleanReport> {
        let options = CleanOptions { rule: Rule::Count(keep), all_incomplete: false, zone: self.0.config.timezone };
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
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Busy`] where it is being made or read; [`ErrorKind::Usage`] for `latest`;
    /// [`ErrorKind::Storage`]; [`ErrorKind::Closing`].
    pub async fn delete_backup(&self, name: &str) -> Result<()> {
        let resolved = self.0.resolve(name).await?;
        if is_latest(name) {
            return Err(Error::usage(format!("{LATEST} is not deleted: it may be another one by now"))
                .hint(format!("name the backup; the newest complete one is {resolved}")));
        }
        let name = resolved;
        self.on_engine(move |inner| async move {
            let _entered = inner.jobs.enter()?;
            let deleted = clean::delete_one(&inner.catalog, &name, clock::now()).await;
            if deleted.is_ok() {
                tracing::info!(backup = %name, "deleted the backup {name}, as asked for");
            }
            inner.listing.forget();
            // One that goes meanwhile, and a directory that holds nothing, are told in the same words.
            deleted.map(drop).map_err(|e| if e.kind() == ErrorKind::NotFound { missing() } else { e })
        })
        .await
    }

    /// A complete backup, by its name or its path as the status gives it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Refused`] for one that is not complete; [`ErrorKind::Damaged`]; [`ErrorKind::Storage`].
    pub async fn find(&self, name: &str) -> Result<Backup> {
        self.0.find(name).await
    }

    /// What `write` makes of what a complete backup holds. Its answers share a part of the memory.
    ///
    /// # Errors
    /// As for [`find`](Self::find), and those of `write`; [`ErrorKind::Busy`] where the memory is taken by other answers.
    pub async fn show(&self, name: &str, segments: bool, write: impl FnOnce(Described) -> Result<Vec<u8>>) -> Result<Answered> {
        let name = self.0.resolve(name).await?;
        self.0.shown.get(self.0.find(name.as_str()), &name, segments, write).await
    }

    /// A complete backup as one tar stream. It is not deleted as long as the stream is there, which is for a day at most.
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

    /// Asks both deployments how they stand, within five seconds.
    pub async fn test_connections(&self) -> DualState {
        self.0.prober.ask().await
    }

    /// Whether the service can do what it is there for, as far as it knows: nothing is asked for it. Both deployments are asked from
    /// [`start_automatic_backup`](Self::start_automatic_backup) on, every half minute, and by [`test_connections`](Self::test_connections).
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let replaced = self.0.state.replaced().map(|_| {
            "the state file was damaged, and a new one was begun: earlier jobs are not listed, and the schedule is the configured one"
                .to_owned()
        });
        let now = clock::now();
        let ahead = self.0.listing.known().iter().filter(|backup| backup.complete && backup.is_ahead(now)).count();
        let ahead = (ahead > 0).then(|| {
            format!("{ahead} backups are dated in the future, and do not count as the newest: a clock is wrong, or was")
        });
        let mut readiness = self.0.prober.readiness(self.is_open());
        let not_taken = self.0.scheduler.shown().not_taken;
        let busy = not_taken
            .filter(|not| not.busy)
            .map(|_| "the last scheduled backup was not begun, because another one was running".to_owned());
        if let Some(not) = not_taken.filter(|not| !not.busy && readiness.ready) {
            let next = not.next_try.map(|next| format!(": it is tried again at {}", next.format("%Y-%m-%dT%H:%M:%SZ")));
            let reason = format!("the last scheduled backup was not taken{}", next.unwrap_or_default());
            (readiness.ready, readiness.reason) = (false, Some(reason));
        }
        let warnings: Vec<String> = [replaced, ahead, busy].into_iter().flatten().collect();
        readiness.warning = (!warnings.is_empty()).then(|| warnings.join("; "));
        readiness
    }

    /// What those need to know who watch the service, in the text format of OpenMetrics ([`METRICS_TYPE`]). What cannot be looked up is not in it.
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

    /// The newest jobs, newest first, of this kind and in this state where that is given.
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

    /// Follows a job: every change up to its end, which is the last.
    ///
    /// # Errors
    /// As for [`job`](Self::job).
    pub async fn watch(&self, id: JobId) -> Result<watch::Receiver<JobView>> {
        self.0.jobs.watch(id).await
    }

    /// Asks a job to stop, and gives it as it is now. It leaves nothing behind.
    ///
    /// # Errors
    /// As for [`job`](Self::job); [`ErrorKind::Refused`] where it ended already.
    pub async fn cancel(&self, id: JobId) -> Result<Arc<Job>> {
        self.0.jobs.cancel(id).await
    }

    // ---- schedule ----

    /// Begins to take backups by the schedule, where that is enabled, now or later. What was missed while the service did not run is made up for once.
    /// From now on both deployments are asked how they stand, too, whether or not the schedule is enabled; this does not wait for their answers.
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
        Ok(())
    }

    /// Begins a backup of the schedule. One that cannot be begun is a job that failed.
    async fn begin_by_schedule(&self, trigger: Trigger) -> Result<JobId> {
        match self.begin_backup(trigger).await {
            Err(e) if e.kind() != ErrorKind::Closing => {
                Err(self.0.jobs.fail(Job::new(JobKind::Backup, trigger, clock::now()), e).await)
            }
            begun => begun,
        }
    }

    /// Looks at the backups every now and then, so that readiness knows of them.
    fn watch_the_backups(&self) {
        let service = Arc::downgrade(&self.0);
        self.0.engine.spawn(async move {
            while let Some(service) = service.upgrade().filter(|service| service.jobs.is_open()) {
                if let Err(e) = service.listing.get().await {
                    tracing::warn!("the backups cannot be listed: {e}");
                }
                drop(service);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }

    /// When backups are taken.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule::of(self.0.scheduler.shown(), self.0.config.timezone)
    }

    /// Changes when backups are taken. It stays so after a restart, until the configuration says something else than it does now.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for what cannot be a schedule; [`ErrorKind::Closing`]; [`ErrorKind::Storage`].
    pub async fn change_schedule(&self, change: ScheduleChange) -> Result<Schedule> {
        self.on_engine(move |inner| async move {
            let _entered = inner.jobs.enter()?;
            let configured = inner.config.timezone;
            inner.scheduler.change(|now| change.over(now, configured)).await?;
            Ok(Schedule::of(inner.scheduler.shown(), configured))
        })
        .await
    }

    // ---- life ----

    /// Whether jobs are taken.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.jobs.is_open()
    }

    /// Takes no more jobs. What runs goes on.
    pub fn close(&self) {
        self.0.jobs.close();
    }

    /// Ends: takes no more jobs, gives those that run the configured grace, stops what has not ended then, and returns when all of it is tidied up.
    pub async fn shut_down(&self) {
        self.close();
        self.0.scheduler.stop().await;
        self.0.prober.stop().await;
        self.0.jobs.shut_down(self.0.settings.grace).await;
        // What ended only now is tried again by the next process.
        self.0.scheduler.keep_what_was_heard(clock::now()).await;
        self.0.notices.stop().await;
    }

    /// Does what must not end halfway where whoever asked for it goes away, or sits on another runtime: on the service's own, to its end.
    async fn on_engine<T, F>(&self, work: impl FnOnce(Arc<Inner>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.0.engine.spawn(work(self.0.clone())).await.map_err(|e| {
            let (kind, message) = match e.is_panic() {
                true => (ErrorKind::Internal, "what was asked for died of a defect of this program"),
                false => (ErrorKind::Closing, "the service has ended"),
            };
            Error::new(kind, message).cause(e)
        })?
    }
}

#[cfg(test)]
mod tests;
