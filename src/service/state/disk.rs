//! Stores jobs in the state file, which one process may have open at a time.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, WriteTransaction};
use serde::Serialize;

use super::opening::{self, ASSIGNMENTS, JOBS, LEASES, SETTINGS, Trouble, parsed};
use super::store::{Assignment, Conflict, JobStore, KEPT, Lease, Orphan, Owner, conflict};
use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::service::job::{Job, JobId};

/// The state file.
pub(super) struct Disk {
    path: PathBuf,
    /// `None` only if it could not be reopened.
    database: RwLock<Option<Database>>,
    /// After a disk error, the library refuses everything until the file is reopened.
    is_broken: AtomicBool,
    /// The new path of a damaged file that was moved aside.
    replaced: Mutex<Option<PathBuf>>,
}

impl Disk {
    /// Opens the file; creates it and its parent directories if needed. A damaged file is moved
    /// aside and replaced by a new one. Its jobs are lost then, and the configured schedule
    /// applies.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process has it open; [`ErrorKind::Storage`] if it cannot be
    /// read, created or moved; [`ErrorKind::Damaged`] if it is not a state file at all;
    /// [`ErrorKind::Refused`] if a newer version wrote it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (database, replaced) = opening::open_or_begin(path)?;
        Ok(Self {
            path: path.to_owned(),
            database: RwLock::new(Some(database)),
            is_broken: AtomicBool::new(false),
            replaced: Mutex::new(replaced),
        })
    }

    pub(super) fn write<T>(&self, change: impl FnOnce(&WriteTransaction) -> Result<T, Trouble>) -> Result<T> {
        self.attempt(|database| {
            let write = database.begin_write()?;
            let changed = change(&write)?;
            write.commit()?;
            Ok(changed)
        })
    }

    fn read<T>(&self, look: impl FnOnce(&redb::ReadTransaction) -> Result<T, Trouble>) -> Result<T> {
        self.attempt(|database| look(&database.begin_read()?))
    }

    fn attempt<T>(&self, what: impl FnOnce(&Database) -> Result<T, Trouble>) -> Result<T> {
        if self.is_broken.load(Ordering::SeqCst) {
            self.open_again()?;
        }
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = &*database else {
            return Err(Error::new(ErrorKind::Storage, format!("the state file {} is not open", self.path.display())));
        };
        let attempted = opening::attempt(|| what(database));
        if !matches!(attempted, Ok(Ok(_) | Err(Trouble::Content(_)))) {
            self.is_broken.store(true, Ordering::SeqCst);
        }
        opening::told(&self.path, attempted)
    }

    /// After a temporarily full disk, the service must get its state back without a restart.
    fn open_again(&self) -> Result<()> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if self.is_broken.load(Ordering::SeqCst) {
            // The old one holds the file's lock.
            let old = database.take();
            let _dies_of_damage = catch_unwind(AssertUnwindSafe(|| drop(old)));
            let (opened, replaced) = opening::open_or_begin(&self.path)?;
            *database = Some(opened);
            if replaced.is_some() {
                *lock(&self.replaced) = replaced;
            }
            self.is_broken.store(false, Ordering::SeqCst);
            tracing::info!("reopened the state file after an error");
        }
        Ok(())
    }
}

impl JobStore for Disk {
    fn place(&self) -> String {
        format!("the state file {}", self.path.display())
    }

    fn admit(&self, job: &Job, assignment: &Assignment, now: DateTime<Utc>) -> Result<Option<Conflict>> {
        let (kept_job, kept_assignment) = (to_json(job)?, to_json(assignment)?);
        self.write(|write| {
            let mut leases = write.open_table(LEASES)?;
            leases.retain(|_, expires| expires > now.timestamp_millis())?;
            let mut alive = Vec::new();
            for entry in leases.iter()? {
                alive.push(Owner::of_bytes(*entry?.0.value()));
            }
            let mut assignments = write.open_table(ASSIGNMENTS)?;
            let mut others = Vec::new();
            for entry in assignments.iter()? {
                let (id, other) = entry?;
                others.push((JobId::of_bytes(*id.value()), parsed(&self.path, other.value(), "who is at a job")?));
            }
            let others = others.iter().map(|(id, other)| (*id, other));
            if let Some(conflict) = conflict(job.id, assignment, others, |owner| alive.contains(&owner)) {
                return Ok(Some(conflict));
            }
            write.open_table(JOBS)?.insert(job.id.as_bytes(), kept_job.as_slice())?;
            assignments.insert(job.id.as_bytes(), kept_assignment.as_slice())?;
            let lease = Lease::from(assignment.owner, now);
            leases.insert(lease.owner.as_bytes(), lease.expires.timestamp_millis())?;
            Ok(None)
        })
    }

    fn put(&self, changed: &[Job], lease: Option<Lease>) -> Result<()> {
        let records = changed.iter().map(|job| Ok((job.id, to_json(job)?, job.state.is_final()))).collect::<Result<Vec<_>>>()?;
        self.write(|write| {
            let (mut jobs, mut assignments) = (write.open_table(JOBS)?, write.open_table(ASSIGNMENTS)?);
            for (id, bytes, has_ended) in &records {
                jobs.insert(id.as_bytes(), bytes.as_slice())?;
                if *has_ended {
                    assignments.remove(id.as_bytes())?;
                }
            }
            if records.iter().any(|(.., has_ended)| *has_ended) {
                forget_the_oldest(&mut jobs)?;
            }
            if let Some(lease) = lease {
                write.open_table(LEASES)?.insert(lease.owner.as_bytes(), lease.expires.timestamp_millis())?;
            }
            Ok(())
        })
    }

    /// Only one process can have the file open, so all former owners are gone, whatever their
    /// leases.
    fn orphans(&self, _: DateTime<Utc>) -> Result<Vec<Orphan>> {
        self.read(|read| {
            let (jobs, assignments) = (read.open_table(JOBS)?, read.open_table(ASSIGNMENTS)?);
            let mut orphans = Vec::new();
            for entry in jobs.iter()? {
                let job: Job = parsed(&self.path, entry?.1.value(), "a job")?;
                if !job.state.is_final() {
                    let found = assignments.get(job.id.as_bytes())?;
                    let assignment = found.map(|found| parsed(&self.path, found.value(), "who is at a job")).transpose()?;
                    orphans.push(Orphan { job, assignment });
                }
            }
            Ok(orphans)
        })
    }

    fn visit(&self, look: &mut dyn FnMut(Job) -> ControlFlow<()>) -> Result<()> {
        self.read(|read| {
            for entry in read.open_table(JOBS)?.iter()?.rev() {
                if look(parsed(&self.path, entry?.1.value(), "a job")?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn job(&self, id: JobId) -> Result<Option<Job>> {
        self.read(|read| {
            let found = read.open_table(JOBS)?.get(id.as_bytes())?;
            found.map(|found| parsed(&self.path, found.value(), "a job")).transpose()
        })
    }

    fn keep(&self, name: &str, value: &[u8]) -> Result<()> {
        self.write(|write| {
            write.open_table(SETTINGS)?.insert(name, value)?;
            Ok(())
        })
    }

    fn kept(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.read(|read| Ok(read.open_table(SETTINGS)?.get(name)?.map(|value| value.value().to_vec())))
    }

    fn replaced(&self) -> Option<PathBuf> {
        lock(&self.replaced).clone()
    }
}

/// Removes the oldest ended jobs beyond [`KEPT`].
fn forget_the_oldest(jobs: &mut redb::Table<'_, &[u8; 16], &[u8]>) -> Result<(), Trouble> {
    let kept = usize::try_from(jobs.len()?).unwrap_or(usize::MAX);
    let mut oldest = Vec::new();
    for entry in jobs.iter()? {
        if kept - oldest.len() <= KEPT {
            break;
        }
        let (id, value) = entry?;
        if serde_json::from_slice::<Job>(value.value()).is_ok_and(|job| job.state.is_final()) {
            oldest.push(*id.value());
        }
    }
    for id in oldest {
        jobs.remove(&id)?;
    }
    Ok(())
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::new(ErrorKind::Internal, format!("cannot be written as JSON: {e}")).cause(e))
}
