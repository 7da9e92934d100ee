//! Opens the state file. A damaged one is moved aside and replaced by a new one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use serde::de::DeserializeOwned;

use super::store::Assignment;
use crate::error::{Error, ErrorKind, Result};
use crate::service::job::Job;

/// The version of the stored data; newer ones are refused. Versions that do not know a table leave
/// it unchanged.
const VERSION: u32 = 1;

/// Jobs by id, as JSON.
pub(super) const JOBS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("jobs");
/// Assignments of unfinished jobs, as JSON.
pub(super) const ASSIGNMENTS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("assignments");
/// When owners' leases expire, in milliseconds since 1970.
pub(super) const LEASES: TableDefinition<'_, &[u8; 16], i64> = TableDefinition::new("leases");
/// Settings by name, as JSON.
pub(super) const SETTINGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("settings");
const VERSION_KEY: &str = "version";

/// The hint for an unreadable file.
pub(super) const NO_BACKUPS: &str = "it holds no backups: move it away, and the service creates a new one";

/// The first bytes of a file of this library.
const MAGIC: &[u8] = b"redb\x1A\x0A\xA9\x0D\x0A";
/// The extension of state files, unless another one is configured.
const ENDING: &str = "redb";

pub(super) fn unreadable(path: &Path, what: &str, e: &serde_json::Error) -> Error {
    Error::damaged(format!("{what} in the state file {} cannot be read: {e}", path.display())).hint(NO_BACKUPS)
}

/// Why an operation on the file failed.
pub(super) enum Trouble {
    /// The library returned an error.
    Library(redb::Error),
    /// The stored content cannot be read.
    Content(Error),
}

impl<E: Into<redb::Error>> From<E> for Trouble {
    fn from(e: E) -> Self {
        Self::Library(e.into())
    }
}

/// Runs an operation on the file. The library panics on some kinds of damage.
pub(super) fn attempt<T>(what: impl FnOnce() -> Result<T, Trouble>) -> std::thread::Result<Result<T, Trouble>> {
    catch_unwind(AssertUnwindSafe(what))
}

/// The result of an operation, with a message for users.
pub(super) fn told<T>(path: &Path, attempted: std::thread::Result<Result<T, Trouble>>) -> Result<T> {
    match attempted {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(Trouble::Content(e))) => Err(e),
        Ok(Err(Trouble::Library(e))) if is_of_the_disk(&e) => {
            Err(Error::new(ErrorKind::Storage, format!("the state file {} cannot be used: {e}", path.display()))
                .hint("check the disk that it is on, or set BACKUP_STATE to another file")
                .cause(e))
        }
        Ok(Err(Trouble::Library(e))) => {
            Err(Error::damaged(format!("the state file {} is damaged: {e}", path.display())).hint(NO_BACKUPS).cause(e))
        }
        Err(_) => {
            Err(Error::damaged(format!("the state file {} is damaged: it cannot be read", path.display())).hint(NO_BACKUPS))
        }
    }
}

/// A stored JSON value.
pub(super) fn parsed<T: DeserializeOwned>(path: &Path, bytes: &[u8], what: &str) -> Result<T, Trouble> {
    serde_json::from_slice(bytes).map_err(|e| Trouble::Content(unreadable(path, what, &e)))
}

fn told_of<T>(path: &Path, what: impl FnOnce() -> Result<T, Trouble>) -> Result<T> {
    told(path, attempt(what))
}

/// Whether an error says nothing about the file's content.
fn is_of_the_disk(e: &redb::Error) -> bool {
    match e {
        redb::Error::Io(e) => !matches!(e.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof),
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => true,
        _ => false,
    }
}

/// Opens the file, or a new one if it is damaged. Then also returns the new path of the damaged
/// one.
pub(super) fn open_or_begin(path: &Path) -> Result<(Database, Option<PathBuf>)> {
    let damage = match open_as_it_is(path) {
        Err(e) if e.kind() == ErrorKind::Damaged && may_be_replaced(path) => e,
        opened => return Ok((opened?, None)),
    };
    let aside = move_aside(path)?;
    tracing::error!(
        "the state file was damaged and is now {}: {damage}; a new one replaces it: earlier jobs are no longer listed, and the \
         schedule is the configured one; backups are not affected",
        aside.display()
    );
    Ok((open_as_it_is(path)?, Some(aside)))
}

fn open_as_it_is(path: &Path) -> Result<Database> {
    let mut database = open(path)?;
    // Otherwise, damage to pages that nobody reads now would only show on a later write.
    told_of(path, || Ok(database.check_integrity()?))?;
    prepare(&database, path)?;
    read_through(&database, path)?;
    Ok(database)
}

/// Creates the tables, and refuses data that a newer version wrote.
fn prepare(database: &Database, path: &Path) -> Result<()> {
    let version = told_of(path, || {
        let write = database.begin_write()?;
        let version = {
            write.open_table(JOBS)?;
            write.open_table(ASSIGNMENTS)?;
            write.open_table(LEASES)?;
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
            format!("the state file {} has version {newer}, this program supports version {VERSION}", path.display()),
        )
        .hint("run the program that wrote it, or set BACKUP_STATE to another file")),
        Some(Err(e)) => Err(unreadable(path, "its version", &e)),
    }
}

/// Reads everything once, so that damage shows at the start, not at the next job.
fn read_through(database: &Database, path: &Path) -> Result<()> {
    told_of(path, || {
        let read = database.begin_read()?;
        for entry in read.open_table(JOBS)?.iter()? {
            parsed::<Job>(path, entry?.1.value(), "a job")?;
        }
        for entry in read.open_table(ASSIGNMENTS)?.iter()? {
            parsed::<Assignment>(path, entry?.1.value(), "who is at a job")?;
        }
        for entry in read.open_table(LEASES)?.iter()? {
            entry?;
        }
        for entry in read.open_table(SETTINGS)?.iter()? {
            entry?;
        }
        Ok(())
    })
}

/// Whether a damaged file may be moved aside: only if its name or its first bytes are those of a
/// state file, so that a misconfigured path harms nothing.
fn may_be_replaced(path: &Path) -> bool {
    let begins = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(std::fs::File::open(path)?, MAGIC.len() as u64), &mut bytes)?;
        Ok(bytes)
    };
    path.extension().is_some_and(|ending| ending == ENDING) || begins().is_ok_and(|bytes| bytes == MAGIC)
}

/// Renames a file in its directory; the new name tells that it is damaged, and since when.
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
            .hint("give this user write permission there, or set BACKUP_STATE to another file")
    };
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(parent).map_err(|e| cannot("created", &e))?;
    }
    // Only its owner may read it: it tells what is backed up, and where.
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let found = options.open(path).and_then(|file| file.metadata()).map_err(|e| cannot("opened", &e))?;
    if !found.is_file() {
        return Err(Error::new(
            ErrorKind::Storage,
            format!("the state file {} is a pipe or a device, expected a file", path.display()),
        )
        .hint("move it away, and the service creates a new one; or set BACKUP_STATE to another file"));
    }
    let created = catch_unwind(AssertUnwindSafe(|| Database::create(path)));
    let damaged = |why: &dyn std::fmt::Display| {
        Error::damaged(format!("{} cannot be used as a state file: {why}", path.display()))
            .hint("it holds no backups: move it away, and the service creates a new one; or set BACKUP_STATE to another file")
    };
    created.map_err(|_| damaged(&"it cannot be read"))?.map_err(|e| match e {
        DatabaseError::DatabaseAlreadyOpen => {
            Error::new(ErrorKind::Busy, format!("the state file {} is open in another process", path.display()))
                .hint("only one service can use it: stop the other one, or give this one another BACKUP_PATH or BACKUP_STATE")
        }
        e => {
            let e = redb::Error::from(e);
            if is_of_the_disk(&e) { cannot("opened", &e).cause(e) } else { damaged(&e).cause(e) }
        }
    })
}
