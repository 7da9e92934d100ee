//! What outlives the process: jobs and the schedule, in one file, with transactions that are on the disk when they return.
//!
//! Of jobs, [`KEPT`] are kept: of those that ended, the ones that were asked for first go first. Values are JSON, so that a newer version can read what an older one wrote.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
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

const NO_BACKUPS: &str = "it holds no backups: move it away, and the service begins a new one";

/// What a file of this library begins with.
const MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";
/// How the names of state files end, unless another one is configured.
const ENDING: &str = "redb";

/// The state file. Cloning shares it. One process has it open at a time.
#[derive(Clone)]
pub(super) struct State {
    /// Where a damaged file is now that was moved aside.
    replaced: Arc<Mutex<Option<PathBuf>>>,
    /// None only where it could not be opened again.
    database: Arc<RwLock<Option<Database>>>,
    /// After an error of the disk the library refuses everything until the file is opened anew.
    is_broken: Arc<AtomicBool>,
    path: Arc<PathBuf>,
}

impl State {
    /// Opens the file, or makes it, with the directories above it. One that is damaged is moved aside, and a new one is begun: jobs
    /// that were kept are lost then, and backups go on by the configured schedule.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process has it open; [`ErrorKind::Storage`] if it cannot be read, made or moved;
    /// [`ErrorKind::Damaged`] if it is no state file at all, or that of a newer version.
    pub(super) async fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        blocking(move || {
            let (database, replaced) = open_or_begin(&path)?;
            let replaced = Arc::new(Mutex::new(replaced));
            Ok(Self {
                replaced,
                database: Arc::new(RwLock::new(Some(database))),
                is_broken: Arc::default(),
                path: Arc::new(path),
            })
        })
        .await
    }

    /// Where the damaged file is that this one was begun instead of.
    pub(super) fn replaced(&self) -> Option<PathBuf> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// Keeps several jobs as they are now, all of them or none. When it returns, that is on the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub(super) async fn put_all(&self, jobs: &[Job]) -> Result<()> {
        let records = jobs.iter().map(|job| Ok((job.id, to_json(job)?))).collect::<Result<Vec<_>>>()?;
        self.write(move |write| {
            let mut jobs = write.open_table(JOBS)?;
            for (id, bytes) in records {
                jobs.insert(id.as_bytes(), bytes.as_slice())?;
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
        asked(&self.path, || what(database)).inspect_err(|_| self.is_broken.store(true, Ordering::SeqCst))
    }

    /// Once a disk is full for a moment, a service must not be without its state until somebody starts it again.
    fn open_again(&self) -> Result<()> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if self.is_broken.load(Ordering::SeqCst) {
            // The old one has the file's lock.
            let old = database.take();
            let _dies_of_damage = catch_unwind(AssertUnwindSafe(|| drop(old)));
            let (opened, replaced) = open_or_begin(&self.path)?;
            *database = Some(opened);
            if replaced.is_some() {
                *self.replaced.lock().unwrap_or_else(PoisonError::into_inner) = replaced;
            }
            self.is_broken.store(false, Ordering::SeqCst);
            tracing::info!("the state file was opened again after an error");
        }
        Ok(())
    }

    fn parsed<T: DeserializeOwned>(&self, bytes: &[u8], what: &str) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|e| unreadable(&self.path, what, &e))
    }
}

fn unreadable(path: &Path, what: &str, e: &serde_json::Error) -> Error {
    Error::damaged(format!("{what} in the state file {} cannot be read: {e}", path.display())).hint(NO_BACKUPS)
}

/// What the library says to something. It dies of some damage instead of telling it: that is told here.
fn asked<T>(path: &Path, what: impl FnOnce() -> Result<T, redb::Error>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(what)) {
        Ok(Ok(told)) => Ok(told),
        Ok(Err(e)) if is_of_the_disk(&e) => {
            Err(Error::new(ErrorKind::Storage, format!("the state file {} cannot be used: {e}", path.display()))
                .hint("look after the disk that it is on, or set BACKUP_STATE to another file")
                .cause(e))
        }
        Ok(Err(e)) => Err(Error::damaged(format!("the state file {} is damaged: {e}", path.display())).hint(NO_BACKUPS).cause(e)),
        Err(_) => {
            Err(Error::damaged(format!("the state file {} is damaged: it cannot be read", path.display())).hint(NO_BACKUPS))
        }
    }
}

/// Whether an error says nothing of the file's content.
fn is_of_the_disk(e: &redb::Error) -> bool {
    match e {
        redb::Error::Io(e) => !matches!(e.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => true,
        _ => false,
    }
}

/// The file as it is, or a new one if it is damaged; then also where the damaged one is now.
fn open_or_begin(path: &Path) -> Result<(Database, Option<PathBuf>)> {
    let damage = match open_as_it_is(path) {
        Err(e) if e.kind() == ErrorKind::Damaged && may_be_replaced(path) => e,
        opened => return Ok((opened?, None)),
    };
    let aside = move_aside(path)?;
    tracing::error!(
        "the state file was damaged and is now {}: {damage}; a new one was begun: earlier jobs are not listed any more, and the \
         schedule is the configured one; backups are not touched",
        aside.display()
    );
    Ok((open_as_it_is(path)?, Some(aside)))
}

fn open_as_it_is(path: &Path) -> Result<Database> {
    let mut database = open(path)?;
    // What a flipped bit did to pages that nobody reads now would show when they are written.
    asked(path, || Ok(database.check_integrity()?))?;
    prepare(&database, path)?;
    read_through(&database, path)?;
    Ok(database)
}

/// Makes the tables, and refuses what a newer version wrote.
fn prepare(database: &Database, path: &Path) -> Result<()> {
    let version = asked(path, || {
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
        Some(Ok(newer)) => Err(Error::new(
            ErrorKind::Refused,
            format!("the state file {} is of version {newer}, and this program knows version {VERSION}", path.display()),
        )
        .hint("run the program that wrote it, or set BACKUP_STATE to another file")),
        Some(Err(e)) => Err(unreadable(path, "its version", &e)),
    }
}

/// Looks at everything once: damage is to show at the start, not at the next job.
fn read_through(database: &Database, path: &Path) -> Result<()> {
    let mut found = None;
    asked(path, || {
        let read = database.begin_read()?;
        for entry in read.open_table(JOBS)?.iter()? {
            if let Err(e) = serde_json::from_slice::<Job>(entry?.1.value()) {
                found = Some(e);
                break;
            }
        }
        for entry in read.open_table(SETTINGS)?.iter()? {
            entry?;
        }
        Ok(())
    })?;
    found.map_or(Ok(()), |e| Err(unreadable(path, "a job", &e)))
}

/// Whether a damaged file may be moved aside: only if it is a state file by its name or by its first bytes, so that a path that was
/// configured by mistake harms nothing; and not if a newer version wrote it.
fn may_be_replaced(path: &Path) -> bool {
    let begins = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(std::fs::File::open(path)?, MAGIC.len() as u64), &mut bytes)?;
        Ok(bytes)
    };
    path.extension().is_some_and(|ending| ending == ENDING) || begins().is_ok_and(|bytes| bytes == MAGIC)
}

/// Gives a file a name that tells what it is and since when, beside where it was.
fn move_aside(path: &Path) -> Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".damaged-{}", crate::clock::now().format("%Y-%m-%dT%H-%M-%S-%3fZ")));
    let aside = path.with_file_name(name);
    std::fs::rename(path, &aside).map_err(|e| {
        Error::new(ErrorKind::Storage, format!("the damaged state file {} cannot be moved aside: {e}", path.display()))
            .hint("move it away by hand, or set BACKUP_STATE to another file")
            .cause(e)
    })?;
    Ok(aside)
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
    let found = options.open(path).and_then(|file| file.metadata()).map_err(|e| cannot("opened", &e))?;
    if !found.is_file() {
        return Err(Error::new(
            ErrorKind::Storage,
            format!("the state file {} is a pipe or a device, and no file", path.display()),
        )
        .hint("move it away, and the service begins a new one; or set BACKUP_STATE to another file"));
    }
    let created = catch_unwind(AssertUnwindSafe(|| Database::create(path)));
    let damaged = |why: &dyn std::fmt::Display| {
        Error::damaged(format!("{} cannot be used as a state file: {why}", path.display()))
            .hint("it holds no backups: move it away, and the service begins a new one; or set BACKUP_STATE to another file")
    };
    created.map_err(|_| damaged(&"it cannot be read"))?.map_err(|e| match e {
        DatabaseError::DatabaseAlreadyOpen => {
            Error::new(ErrorKind::Busy, format!("the state file {} is open in another process", path.display()))
                .hint("one service runs at a time: stop the other one, or give this one another BACKUP_PATH or BACKUP_STATE")
        }
        e => {
            let e = redb::Error::from(e);
            if is_of_the_disk(&e) { cannot("opened", &e).cause(e) } else { damaged(&e).cause(e) }
        }
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

    #[tokio::test]
    async fn whatever_is_damaged_is_moved_aside_and_a_new_file_is_begun() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bsonvault.redb");
        let state = State::open(&path).await.unwrap();
        for _ in 0..40 {
            state.put(&Job::new(JobKind::Verify, Trigger::Manual, clock::now())).await.unwrap();
        }
        state.keep("schedule", &7).await.unwrap();
        drop(state);
        let whole = std::fs::read(&path).unwrap();
        let step = whole.len() / 25;
        let flips = (0..25).map(|n| {
            let mut bytes = whole.clone();
            bytes[n * step + n] ^= 1 << (n % 8);
            bytes
        });
        let pages = (0..12).map(|n| {
            let mut bytes = whole.clone();
            bytes[n * 4096..(n + 1) * 4096].fill(0);
            bytes
        });
        let cuts = (1..10).map(|n| whole[..n * whole.len() / 10 + n].to_vec());
        let mut replaced = 0;
        for (n, bytes) in flips.chain(pages).chain(cuts).enumerate() {
            std::fs::write(&path, &bytes).unwrap();
            let state = State::open(&path).await.unwrap_or_else(|e| panic!("case {n}: {e}"));
            let job = Job::new(JobKind::Backup, Trigger::Manual, clock::now());
            if let Err(e) = state.put(&job).await {
                // What shows only when it is written ends one attempt, and no more.
                assert_eq!(e.kind(), ErrorKind::Damaged, "case {n}: {e}");
                state.put(&job).await.unwrap_or_else(|e| panic!("case {n}: {e}"));
            }
            assert_eq!(state.job(job.id).await.unwrap(), Some(job), "case {n}");
            if let Some(aside) = state.replaced() {
                replaced += 1;
                assert!(aside.file_name().unwrap().to_str().unwrap().starts_with("bsonvault.redb.damaged-20"), "{aside:?}");
                assert_eq!(std::fs::read(&aside).unwrap().len(), bytes.len(), "case {n}: nothing of it is lost");
            }
        }
        assert!(replaced > 10, "{replaced}: too few of these are damage to prove anything");
    }

    #[tokio::test]
    async fn damage_that_shows_later_is_mended_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bsonvault.redb");
        let state = State::open(&path).await.unwrap();
        state.keep("schedule", &7).await.unwrap();
        std::fs::write(&path, b"something else").unwrap();
        let failed = state.write(|_| panic!("as the library does")).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Damaged, "{failed}");
        state.keep("schedule", &8).await.unwrap();
        assert_eq!(state.kept::<u8>("schedule").await.unwrap(), Some(8));
        assert!(state.replaced().is_some());
    }
}
