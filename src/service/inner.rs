//! The parts of a service, and how it finds a backup. All of it runs on the service's runtime, to
//! its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::archive::Archiving;
use super::job::Job;
use super::jobs::{JobContext, Jobs};
use super::metrics::Metrics;
use super::notices::Notices;
use super::prober::Prober;
use super::scheduler::{Plan, Scheduler};
use super::shown::Shown;
use super::state::State;
use super::status::{BackupState, Listing};
use super::sync::Syncing;
use crate::clock;
use crate::config::{Config, ServiceSettings};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::names::{BackupName, is_latest};
use crate::repository::Repository;
use crate::repository::catalog::{Backup, Catalog};

/// How long a path below the backup path may take to answer.
const PATIENCE: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(5) };
/// How long the backup path itself may take when the service starts.
const PATIENCE_AT_FIRST: Duration = Duration::from_secs(30);

/// The parts of a service.
pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) settings: ServiceSettings,
    pub(super) catalog: Catalog,
    pub(super) listing: Listing,
    pub(super) shown: Shown,
    pub(super) state: State,
    pub(super) jobs: Jobs,
    pub(super) scheduler: Scheduler,
    pub(super) prober: Prober,
    pub(super) metrics: Metrics,
    pub(super) notices: Arc<Notices>,
    pub(super) archive: Arc<Archiving>,
    pub(super) sync: Syncing,
    pub(super) engine: Handle,
    cx: Context,
}

impl Inner {
    /// Opens the path and the state file. Also returns the jobs that were interrupted when the
    /// service last ended.
    ///
    /// # Errors
    /// Those of [`MongoBackupService::open`](super::MongoBackupService::open).
    pub(super) async fn open(config: Config) -> Result<(Arc<Self>, Vec<Job>)> {
        let settings = config.service()?;
        let repository = open_path(&config.path).await?;
        let memory = config.tuning.memory_bytes;
        let cx = Context::default().with_memory(memory);
        let catalog = Catalog::new(repository, &cx.cpu).within(memory).patient_for(PATIENCE).watched();
        let state = State::open(&settings.state).await?;
        let engine = Handle::current();
        let (jobs, interrupted) = Jobs::open(state.clone(), engine.clone()).await?;
        let plan = Plan { enabled: settings.enabled, cadence: settings.schedule.clone() };
        let notices = Arc::new(Notices::new(settings.webhook.as_ref(), engine.clone())?);
        let parts = || (config.clone(), catalog.repository().clone(), cx.operation());
        let archive = Arc::new(Archiving::new(parts(), notices.clone(), engine.clone()));
        let inner = Self {
            sync: Syncing::new(parts(), archive.clone(), notices.clone(), engine.clone()),
            archive,
            scheduler: Scheduler::open(state.clone(), plan).await?,
            listing: Listing::new(catalog.clone()),
            shown: Shown::new(catalog.clone(), cx.memory.part(memory / 2)),
            prober: Prober::new(config.clone(), engine.clone()),
            metrics: Metrics::new(clock::now()),
            notices,
            config,
            settings,
            catalog,
            state,
            jobs,
            engine,
            cx,
        };
        Ok((Arc::new(inner), interrupted))
    }

    /// The engine's context for a job.
    pub(super) fn works_with(&self, job: &JobContext) -> Context {
        Context { progress: job.progress.clone(), cancel: job.stop.clone(), ..self.cx.operation() }
    }

    /// The engine's context for work that is no job.
    pub(super) fn operation(&self) -> Context {
        self.cx.operation()
    }

    /// Processes a job that ended, before its waiters learn of it.
    pub(super) fn tell(&self, job: &Job) {
        self.metrics.ended(job);
        self.scheduler.hear(job);
        self.notices.tell(job);
    }

    /// A complete backup, by its name or by its path as in the status.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Refused`] if it is incomplete; [`ErrorKind::Damaged`];
    /// [`ErrorKind::Storage`].
    pub(super) async fn find(&self, name: &str) -> Result<Backup> {
        let name = self.resolve(name).await?;
        // A backup that vanishes meanwhile and an empty directory get the same message.
        let found = self.catalog.find(name.as_str()).await;
        let found = found.map_err(|e| if e.kind() == ErrorKind::NotFound { missing() } else { e })?;
        // So does one that became a link meanwhile.
        match found.store.is(&self.catalog.repository().place(&name)) {
            true => Ok(found),
            false => Err(missing()),
        }
    }

    /// Finds a backup by its name, or by its path as in the status; `latest` is the newest complete
    /// one. Only real directories directly below the backup path are found: no links, and no paths
    /// that lead elsewhere.
    pub(super) async fn resolve(&self, name_or_path: &str) -> Result<BackupName> {
        if is_latest(name_or_path) {
            let entries = self.listing.get().await?;
            let newest = entries.iter().find(|entry| entry.state == BackupState::Complete).ok_or_else(missing)?;
            return BackupName::parse(&newest.name);
        }
        let name = self.catalog.repository().name_in(name_or_path).unwrap_or(name_or_path);
        let name = BackupName::parse(name).map_err(|_| missing())?;
        if self.catalog.holds(&name).await? { Ok(name) } else { Err(missing()) }
    }
}

/// Users of the REST interface match on this text.
pub(super) fn missing() -> Error {
    Error::new(ErrorKind::NotFound, "Database backup not found")
        .hint("the status lists the backups that there are, by name and path")
}

/// Opens the backup path, which must be writable.
async fn open_path(path: &str) -> Result<Repository> {
    let opened = async move {
        let repository = Repository::open_apart(path).await?;
        repository.try_write().await?;
        Ok(repository)
    };
    tokio::time::timeout(PATIENCE_AT_FIRST, opened).await.unwrap_or_else(|_| {
        let seconds = PATIENCE_AT_FIRST.as_secs();
        Err(Error::new(ErrorKind::Storage, format!("the backup path {path} has not answered for {seconds} s"))
            .hint("check the disk or network mount that it is on"))
    })
}
