//! What outlives the process: jobs and the schedule, in one file, with transactions that are on the disk when they return.
//!
//! Of jobs, [`KEPT`] are kept: of those that ended, the ones that were asked for first go first. Values are JSON, so that a newer version can read what an older one wrote.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::job::{Job, JobId};
use crate::error::{Error, ErrorKind, Result};

/// How many jobs are kept.
pub(super) const KEPT: usize = 1000;

/// The version of what is kept; one that is newer is refused.
const VERSION: u32 = 1;

const JOBS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("jobs");
const SETTINGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("settings");
const VERSION_KEY: &str = "version";

/// The state file. Cloning shares it. One process has it open at a time.
#[derive(Clone)]
pub(super) struct State {
    /// None only where it could not be opened again.
    database: Arc<RwLock<Option<Database>>>,
    /// After an error of the disk the library refuses everything until the file is opened anew.
    is_broken: Arc<AtomicBool>,
    path: Arc<PathBuf>,
}

impl State {
    /// Opens the file, or makes it, with the directories above it.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] where another process has it open; [`ErrorKind::Storage`] where it cannot be read or made;
    /// [`ErrorKind::Damaged`] where it is no state file of this program.
    pub(super) async fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        blocking(move || {
            let database = open(&path)?;
            let state = Self { database: Arc::new(RwLock::new(Some(database))), is_broken: Arc::default(), path: Arc::new(path) };
            state.prepare()?;
            Ok(state)
        })
        .await
    }

    /// Keeps a job as it is now. When it returns, that is on the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub(super) async fn put(&self, job: &Job) -> Result<()> {
        let (id, bytes, is_final) = (job.id, to_json(job)?, job.state.is_final());
        self.write(move |write| {
            let mut jobs = write.open_table(JOBS)?;
            jobs.insert(id.as_bytes(), bytes.as_slice())?;
            if is_final {
                let kept = usize::try_from(redb::ReadableTableMetadata::len(&jobs)?).unwrap_or(usize::MAX);
                // The oldest are those that were asked for first; only what has ended may go.
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
            }
            Ok(())
        })
        .await
    }

    /// Goes through the jobs that are kept, newest first, one at a time, until `look` has seen enough.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`]; [`ErrorKind::Damaged`] for one that cannot be read.
    pub(super) async fn visit(&self, mut look: impl FnMut(Job) -> ControlFlow<()> + Send + 'static) -> Result<()> {
        let state = self.clone();
        blocking(move || {
            let mut unreadable = None;
            state.read(|read| {
                for entry in read.open_table(JOBS)?.iter()?.rev() {
                    match state.parsed(entry?.1.value(), "a job").map(&mut look) {
                        Ok(ControlFlow::Continue(())) => {}
                        Ok(ControlFlow::Break(())) => break,
                        Err(e) => {
                            unreadable = Some(e);
                            break;
                        }
                    }
                }
                Ok(())
            })?;
            unreadable.map_or(Ok(()), Err)
        })
        .await
    }

    /// What is wanted of jobs, of the newest so many that anything is wanted of, newest first.
    ///
    /// # Errors
    /// As for [`visit`](Self::visit).
    pub(super) async fn newest(&self, limit: usize, wanted: impl Fn(Job) -> Option<Job> + Send + 'static) -> Result<Vec<Job>> {
        let found = Arc::new(Mutex::new(Vec::new()));
        let into = found.clone();
        self.visit(move |job| {
            let mut found = into.lock().unwrap_or_else(PoisonError::into_inner);
            if found.len() < limit {
                found.extend(wanted(job));
            }
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .await?;
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *found))
    }

    /// One job.
    ///
    /// # Errors
    /// As for [`visit`](Self::visit).
    pub(super) async fn job(&self, id: JobId) -> Result<Option<Job>> {
        let state = self.clone();
        blocking(move || {
            let found = state.read(|read| Ok(read.open_table(JOBS)?.get(id.as_bytes())?.map(|v| v.value().to_vec())))?;
            found.map(|bytes| state.parsed(&bytes, "a job")).transpose()
        })
        .await
    }

    /// Keeps a setting. When it returns, that is on the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub(super) async fn keep<T: Serialize>(&self, name: &'static str, value: &T) -> Result<()> {
        let bytes = to_json(value)?;
        self.write(move |write| {
            write.open_table(SETTINGS)?.insert(name, bytes.as_slice())?;
            Ok(())
        })
        .await
    }

    /// A setting that was kept.
    ///
    /// # Errors
    /// As for [`visit`](Self::visit).
    pub(super) async fn kept<T: DeserializeOwned + Send + 'static>(&self, name: &'static str) -> Result<Option<T>> {
        let state = self.clone();
        blocking(move || {
            let found = state.read(|read| Ok(read.open_table(SETTINGS)?.get(name)?.map(|v| v.value().to_vec())))?;
            found.map(|bytes| state.parsed(&bytes, name)).transpose()
        })
        .await
    }

    /// Makes the tables, and refuses what a newer version wrote.
    fn prepare(&self) -> Result<()> {
        let version = self.attempt(|database| {
            let write = database.begin_write()?;
            let version = {
                write.open_table(JOBS)?;
                let mut settings = write.open_table(SETTINGS)?;
                let found = settings.get(VERSION_KEY)?.map(|v| v.value().to_vec());
                if found.is_none() {
                    settings.insert(VERSION_KEY, VERSION.to_string().as_bytes())?;
                }
                found
            };
            write.commit()?;
            Ok(version)
        })?;
        match version.map(|bytes| serde_json::from_slice::<u32>(&bytes)) {
            None | Some(Ok(VERSION)) => Ok(()),
            Some(Ok(newer)) => Err(Error::damaged(format!(
                "the state file {} is of version {newer}, and this program knows version {VERSION}",
                self.path.display()
            ))
            .hint("run the program that wrote it, or set BACKUP_STATE to another file")),
            Some(Err(e)) => Err(self.unreadable("its version", &e)),
        }
    }

    async fn write(
        &self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    ) -> Result<()> {
        let state = self.clone();
        blocking(move || {
            state.attempt(|database| {
                let write = database.begin_write()?;
                change(&write)?;
                Ok(write.commit()?)
            })
        })
        .await
    }

    fn read<T>(&self, look: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T> {
        self.attempt(|database| look(&database.begin_read()?))
    }

    fn attempt<T>(&self, what: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T> {
        if self.is_broken.load(Ordering::SeqCst) {
            self.open_again()?;
        }
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = &*database else {
            return Err(Error::new(ErrorKind::Storage, format!("the state file {} is not open", self.path.display())));
        };
        what(database).map_err(|e| {
            self.is_broken.store(true, Ordering::SeqCst);
            Error::new(ErrorKind::Storage, format!("the state file {} cannot be used: {e}", self.path.display()))
                .hint("look after the disk that it is on, or set BACKUP_STATE to another file")
                .cause(e)
        })
    }

    /// Once a disk is full for a moment, a service must not be without its state until somebody starts it again.
    fn open_again(&self) -> Result<()> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if self.is_broken.load(Ordering::SeqCst) {
            // The old one has the file's lock.
            drop(database.take());
            *database = Some(open(&self.path)?);
            self.is_broken.store(false, Ordering::SeqCst);
            tracing::info!("the state file was opened again after an error");
        }
        Ok(())
    }

    fn parsed<T: DeserializeOwned>(&self, bytes: &[u8], what: &str) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|e| self.unreadable(what, &e))
    }

    fn unreadable(&self, what: &str, e: &serde_json::Error) -> Error {
        Error::damaged(format!("{what} in the state file {} cannot be read: {e}", self.path.display()))
            .hint("it holds no backups: move it away, and the service begins a new one")
    }
}

fn open(path: &Path) -> Result<Database> {
    let cannot = |what: &str, e: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Storage, format!("the state file {} cannot be {what}: {e}", path.display()))
            .hint("let this user write there, or set BACKUP_STATE to another file")
    };
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(parent).map_err(|e| cannot("made", &e))?;
    }
    // Only its owner may read it: it says what is backed up, and where.
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|e| cannot("opened", &e))?;
    Database::create(path).map_err(|e| match e {
        DatabaseError::DatabaseAlreadyOpen => {
            Error::new(ErrorKind::Busy, format!("the state file {} is open in another process", path.display()))
                .hint("one service runs at a time: stop the other one, or give this one another BACKUP_PATH or BACKUP_STATE")
        }
        e => Error::damaged(format!("{} cannot be used as a state file: {e}", path.display()))
            .hint("it holds no backups: move it away, and the service begins a new one; or set BACKUP_STATE to another file")
            .cause(e),
    })
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::new(ErrorKind::Internal, format!("cannot be written as JSON: {e}")).cause(e))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(ErrorKind::Internal, "a task of the state file died").cause(e))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::service::job::{JobKind, JobState, Trigger};

    /// Oldest first.
    async fn all(state: &State) -> Vec<Job> {
        let mut jobs = state.newest(usize::MAX, Some).await.unwrap();
        jobs.reverse();
        jobs
    }

    #[tokio::test]
    async fn what_was_kept_is_there_after_it_was_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/state.redb");
        let state = State::open(&path).await.unwrap();
        let mut job = Job::new(JobKind::Backup, Trigger::Manual, clock::now());
        state.put(&job).await.unwrap();
        job.state = JobState::Running;
        state.put(&job).await.unwrap();
        state.keep("schedule", &vec![1, 2]).await.unwrap();
        drop(state);
        let state = State::open(&path).await.unwrap();
        assert_eq!(all(&state).await, [job.clone()]);
        assert_eq!(state.job(job.id).await.unwrap(), Some(job));
        assert_eq!(state.kept::<Vec<u8>>("schedule").await.unwrap(), Some(vec![1, 2]));
        assert_eq!(state.kept::<Vec<u8>>("else").await.unwrap(), None);
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn only_so_many_are_kept_and_none_that_has_not_ended() {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(&directory.path().join("s")).await.unwrap();
        let running = Job::new(JobKind::Backup, Trigger::Manual, clock::now());
        state.put(&running).await.unwrap();
        let mut last = None;
        for _ in 0..KEPT + 5 {
            let mut job = Job::new(JobKind::Verify, Trigger::Manual, clock::now());
            job.state = JobState::Succeeded;
            state.put(&job).await.unwrap();
            last = Some(job);
        }
        let jobs = all(&state).await;
        assert_eq!((jobs.len(), jobs.first(), jobs.last()), (KEPT, Some(&running), last.as_ref()));
    }

    #[tokio::test]
    async fn after_an_error_of_the_disk_it_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("s"), directory.path().join("other"));
        let state = State::open(&path).await.unwrap();
        // Another file in its place shows that it is opened anew.
        let job = Job::new(JobKind::Backup, Trigger::Manual, clock::now());
        State::open(&other).await.unwrap().put(&job).await.unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(all(&state).await, []);
        let failed = state.write(|_| Err(redb::Error::PreviousIo)).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Storage, "{failed}");
        state.keep("schedule", &7).await.unwrap();
        assert_eq!((all(&state).await, state.kept::<u8>("schedule").await.unwrap()), (vec![job], Some(7)));
    }

    #[tokio::test]
    async fn a_file_that_is_open_or_no_state_file_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let _open = State::open(&path).await.unwrap();
        let Err(busy) = State::open(&path).await else { panic!("opened twice") };
        assert_eq!(busy.kind(), ErrorKind::Busy);
        let other = directory.path().join("other");
        std::fs::write(&other, "not a database, but long enough to be looked at".repeat(200)).unwrap();
        let Err(damaged) = State::open(&other).await else { panic!("opened") };
        assert_eq!(damaged.kind(), ErrorKind::Damaged, "{damaged}");
        assert!(std::fs::read_to_string(&other).unwrap().starts_with("not a database"));
        let Err(storage) = State::open(&other.join("below")).await else { panic!("opened") };
        assert_eq!(storage.kind(), ErrorKind::Storage, "{storage}");
    }
}
