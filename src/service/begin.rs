//! How jobs begin, and which backup is meant. All of it runs on the runtime of the service, to its end.

use std::path::Path;
use std::sync::Arc;

use super::Inner;
use super::job::{Job, JobId, JobKind, Trigger};
use super::jobs::Claims;
use super::requests::{BackupRequest, ImportRequest};
use super::status::BackupState;
use super::work::{self, Asked};
use crate::clock;
use crate::engine::backup;
use crate::error::{Error, ErrorKind, Result};
use crate::names::{BackupName, is_latest};
use crate::repository::catalog::Backup;

impl Inner {
    pub(super) async fn begin(self: Arc<Self>, trigger: Trigger, request: BackupRequest) -> Result<JobId> {
        // Who asks while the service ends is told that, and not what runs still.
        let _entered = self.jobs.enter()?;
        let source = self.config.source()?;
        let asked = Asked::read(&self, &request)?;
        if let Some((name, progress)) = backup::running(&self.catalog, source.hosts(), clock::now()).await? {
            let error = Error::new(
                ErrorKind::Busy,
                format!(
                    "a backup of this source is running already: {name}, by process {} on {}",
                    progress.process, progress.host
                ),
            )
            .hint("wait until it ends, or stop it");
            return Err(match progress.job {
                Some(job) => error.job(job),
                None => error,
            });
        }
        let mut job = Job::new(JobKind::Backup, trigger, clock::now());
        job.create = Some(request).filter(|request| *request != BackupRequest::default());
        let claims = Claims { source: true, ..Claims::default() };
        let inner = self.clone();
        let work = move |context| inner.engine.clone().block_on(work::backup(inner, source, asked, context));
        let begun = self.jobs.submit(job, claims, Box::new(work)).await?;
        if trigger == Trigger::Manual {
            self.scheduler.ran(begun, clock::now()).await;
        }
        Ok(begun)
    }

    pub(super) async fn begin_import(self: Arc<Self>, request: ImportRequest) -> Result<JobId> {
        let _entered = self.jobs.enter()?;
        let import = work::Import::prepare(&self, &request).await?;
        let claims = Claims { databases: import.databases().clone(), ..Claims::default() };
        let mut job = Job::new(JobKind::Import, Trigger::Manual, clock::now());
        job.backup = Some(import.backup().to_string());
        job.import = Some(request);
        let inner = self.clone();
        let work = move |context| inner.engine.clone().block_on(import.run(inner, context));
        self.jobs.submit(job, claims, Box::new(work)).await
    }

    pub(super) async fn begin_verify(self: Arc<Self>, name: String, deep: bool) -> Result<JobId> {
        let _entered = self.jobs.enter()?;
        let name = self.resolve(&name).await?;
        // A manifest that cannot be used is what a verification is there to find. One that can is read again when its turn comes: many may wait.
        match self.find(name.as_str()).await {
            Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
            _ => {}
        }
        let mut job = Job::new(JobKind::Verify, Trigger::Manual, clock::now());
        job.backup = Some(name.to_string());
        let inner = self.clone();
        let work = move |context| inner.engine.clone().block_on(work::verify(inner, name, deep, context));
        self.jobs.submit(job, Claims::default(), Box::new(work)).await
    }

    pub(super) async fn find(&self, name: &str) -> Result<Backup> {
        let name = self.resolve(name).await?;
        // One that goes meanwhile, and a directory that holds nothing, are told in the same words.
        let found = self.catalog.find(name.as_str()).await;
        let found = found.map_err(|e| if e.kind() == ErrorKind::NotFound { missing() } else { e })?;
        // So is one that became a link meanwhile.
        match found.store.directory() == self.catalog.store().below(name.as_str()).directory() {
            true => Ok(found),
            false => Err(missing()),
        }
    }

    /// The backup that is meant by its name, or by its path as the status gives it. Whatever else is asked for, and whatever is no directory of its own right below the path, is not
    /// there: a link, and what leads out of the path. `latest` is the newest complete one.
    pub(super) async fn resolve(&self, name_or_path: &str) -> Result<BackupName> {
        if is_latest(name_or_path) {
            let entries = self.listing.get().await?;
            let newest = entries.iter().find(|entry| entry.state == BackupState::Complete).ok_or_else(missing)?;
            return BackupName::parse(&newest.name);
        }
        let root = self.catalog.store().directory();
        let path = Path::new(name_or_path);
        let name = match path.parent() {
            Some(parent) if parent == root => path.file_name().and_then(|name| name.to_str()).ok_or_else(missing)?,
            _ => name_or_path,
        };
        let name = BackupName::parse(name).map_err(|_| missing())?;
        if self.catalog.holds(&name).await? { Ok(name) } else { Err(missing()) }
    }
}

/// The words are those that users of the REST interface match on.
pub(super) fn missing() -> Error {
    Error::new(ErrorKind::NotFound, "Database backup not found")
        .hint("the status lists the backups that there are, by name and path")
}
