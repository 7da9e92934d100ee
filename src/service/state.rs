//! What survives the process: jobs and the schedule. Values are JSON, so that newer versions can
//! read what older ones wrote.

mod disk;
#[cfg(test)]
mod memory;
mod opening;
mod store;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::disk::Disk;
#[cfg(test)]
pub(super) use self::memory::Memory;
pub(super) use self::store::{Assignment, Claim, Conflict, JobStore, Lease, Orphan, Owner};
use super::job::{Job, JobId};
use crate::clock;
use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};

/// The state, without blocking its callers. Clones share it.
///
/// Errors are those of [`JobStore`]. Changes are durable when a call returns.
#[derive(Clone)]
pub(super) struct State(Arc<dyn JobStore>);

impl State {
    /// Opens a state file, and creates it if it does not exist. A damaged one is moved aside.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process has it open; [`ErrorKind::Storage`] if it cannot be
    /// read, created or moved; [`ErrorKind::Damaged`] if it is not a state file at all;
    /// [`ErrorKind::Refused`] if a newer version wrote it.
    pub(super) async fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        Ok(Self::over(blocking(move || Disk::open(&path)).await?))
    }

    /// The state in this store.
    pub(super) fn over(store: impl JobStore) -> Self {
        Self(Arc::new(store))
    }

    /// See [`JobStore::replaced`].
    pub(super) fn replaced(&self) -> Option<PathBuf> {
        self.0.replaced()
    }

    /// See [`JobStore::admit`].
    pub(super) async fn admit(&self, job: Job, assignment: Assignment) -> Result<Option<Conflict>> {
        let store = self.0.clone();
        blocking(move || store.admit(&job, &assignment, clock::now())).await
    }

    /// See [`JobStore::put`].
    pub(super) async fn put(&self, jobs: Vec<Job>, lease: Option<Lease>) -> Result<()> {
        let store = self.0.clone();
        blocking(move || store.put(&jobs, lease)).await
    }

    /// See [`JobStore::orphans`].
    pub(super) async fn orphans(&self) -> Result<Vec<Orphan>> {
        let store = self.0.clone();
        blocking(move || store.orphans(clock::now())).await
    }

    /// See [`JobStore::visit`].
    pub(super) async fn visit(&self, mut look: impl FnMut(Job) -> ControlFlow<()> + Send + 'static) -> Result<()> {
        let store = self.0.clone();
        blocking(move || store.visit(&mut look)).await
    }

    /// The results of `wanted` for the newest jobs, newest first, `limit` at most.
    pub(super) async fn newest(&self, limit: usize, wanted: impl Fn(Job) -> Option<Job> + Send + 'static) -> Result<Vec<Job>> {
        let found = Arc::new(Mutex::new(Vec::new()));
        let into = found.clone();
        self.visit(move |job| {
            let mut found = lock(&into);
            if found.len() < limit {
                found.extend(wanted(job));
            }
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .await?;
        let mut found = lock(&found);
        Ok(std::mem::take(&mut *found))
    }

    /// See [`JobStore::job`].
    pub(super) async fn job(&self, id: JobId) -> Result<Option<Job>> {
        let store = self.0.clone();
        blocking(move || store.job(id)).await
    }

    /// Stores a setting.
    pub(super) async fn keep<T: Serialize>(&self, name: &'static str, value: &T) -> Result<()> {
        let (store, value) = (self.0.clone(), serde_json::to_vec(value));
        let value =
            value.map_err(|e| Error::new(ErrorKind::Internal, format!("{name} cannot be written as JSON: {e}")).cause(e))?;
        blocking(move || store.keep(name, &value)).await
    }

    /// A stored setting.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if it cannot be read.
    pub(super) async fn kept<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>> {
        let store = self.0.clone();
        let found = blocking(move || store.kept(name)).await?;
        found.map(|bytes| serde_json::from_slice(&bytes)).transpose().map_err(|e| {
            Error::damaged(format!("{name} in {} cannot be read: {e}", self.0.place())).hint(opening::NO_BACKUPS).cause(e)
        })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(ErrorKind::Internal, "a task of the state file died").cause(e))?
}
