//! What a local disk needs beyond `object_store`. Only this module waits for the disk that holds
//! backups.

use std::collections::HashSet;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use rustix::fs::{Mode, OFlags};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::repository::backend::{Created, Entry, Lock, Sharing, There, Top};

/// How long to wait before a lock is tried again.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The whole file system; every write is synced with its parent directory. One instance serves
/// every root: keys are absolute paths, so a root need not exist before it is written to.
pub(super) fn file_system() -> LocalFileSystem {
    LocalFileSystem::new().with_fsync(true)
}

/// The key of an absolute path. `Path::parse` keeps `%`; `Path::from` would encode it again.
pub(super) fn key(path: &Path) -> Result<Key> {
    path.to_str().and_then(|text| Key::parse(text).ok()).ok_or_else(|| {
        Error::new(ErrorKind::Storage, format!("path {} cannot be used as it is", path.display()))
            .hint("use a path of plain text without control characters")
    })
}

/// The absolute path, without `.`, `..` and a trailing slash, as keys require. As for the operating
/// system, `..` after a link is the parent of the link's target.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    let whole = std::path::absolute(path).map_err(|e| error("open", path, e))?;
    let mut plain = PathBuf::new();
    for part in whole.components() {
        if part == Component::ParentDir {
            plain = match std::fs::canonicalize(&plain) {
                Ok(real) => real,
                Err(e) if e.kind() == io::ErrorKind::NotFound => plain,
                Err(e) => return Err(error("open", path, e)),
            };
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    Ok(plain)
}

/// The directory that a path leads to, if it is a link.
pub(super) async fn resolved(path: &Path) -> Result<Option<PathBuf>> {
    let path = path.to_owned();
    blocking(&path.clone(), move || match std::fs::symlink_metadata(&path) {
        Ok(found) if found.is_symlink() && path.exists() => {
            std::fs::canonicalize(&path).map(Some).map_err(|e| error("open", &path, e))
        }
        _ => Ok(None),
    })
    .await
}

/// Whether anything exists at the path. A path that cannot be checked is an error, not absent.
pub(super) async fn is_there(path: &Path) -> Result<bool> {
    let path = path.to_owned();
    blocking(&path.clone(), move || path.try_exists().map_err(|e| error("look at", &path, e))).await
}

/// Makes the directories above `path`, 0700, each synced into its parent.
pub(super) async fn make_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) => make_directories(parent).await,
        None => Ok(()),
    }
}

async fn make_directories(directory: &Path) -> Result<()> {
    let directory = directory.to_owned();
    blocking(&directory.clone(), move || make_directories_now(&directory)).await
}

fn make_directories_now(directory: &Path) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let missing: Vec<_> = directory.ancestors().take_while(|d| !d.exists()).collect();
    for new in missing.into_iter().rev() {
        match builder().create(new) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(error("create", new, e)),
            _ => sync_directory_of(new)?,
        }
    }
    Ok(())
}

/// Makes the directory `root`, which must not exist.
pub(super) async fn claim(root: &Path) -> Result<()> {
    make_parent(root).await?;
    let root = root.to_owned();
    blocking(&root.clone(), move || match builder().create(&root) {
        Ok(()) => sync_directory_of(&root),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::new(ErrorKind::Refused, format!("{} exists already", root.display())))
        }
        Err(e) => Err(error("create", &root, e)),
    })
    .await
}

fn builder() -> std::fs::DirBuilder {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Removes the rights of others from a file. Until then, its directory protects it.
pub(super) async fn restrict(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        let place = path.to_owned();
        let restrict = move || std::fs::set_permissions(&place, mode).map_err(|e| error("restrict", &place, e));
        blocking(path, restrict).await?;
    }
    Ok(())
}

/// Locks the directory `root`, if its file system supports locks. None if another lock is in the
/// way for `patience`: a mere look for a lock holds one for a moment.
pub(super) async fn lock(root: &Path, sharing: Sharing, patience: Duration) -> Result<Option<Lock>> {
    let until = tokio::time::Instant::now() + patience;
    loop {
        let place = root.to_owned();
        if let Some(lock) = blocking(root, move || try_lock(&place, sharing)).await? {
            return Ok(Some(lock));
        }
        if tokio::time::Instant::now() >= until {
            return Ok(None);
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

fn try_lock(root: &Path, sharing: Sharing) -> Result<Option<Lock>> {
    let directory = open_directory(root).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::new(ErrorKind::NotFound, format!("{} does not exist", root.display())).cause(e),
        _ => error("open", root, e),
    })?;
    let operation = match sharing {
        Sharing::Exclusive => rustix::fs::FlockOperation::NonBlockingLockExclusive,
        Sharing::Shared => rustix::fs::FlockOperation::NonBlockingLockShared,
    };
    match rustix::fs::flock(&directory, operation) {
        Ok(()) => Ok(Some(Lock::of(directory))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(e) => {
            tracing::debug!("{} cannot be locked: {e}", root.display());
            Ok(Some(Lock::none()))
        }
    }
}

/// Opens a directory, and nothing else: opening a pipe would block.
fn open_directory(path: &Path) -> io::Result<std::fs::File> {
    let way = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, way, Mode::empty())?.into())
}

/// Whether a process of this machine has an exclusive lock on the directory. None if unknown.
pub(super) async fn is_locked(root: &Path) -> Option<bool> {
    let place = root.to_owned();
    match blocking(root, move || try_lock(&place, Sharing::Shared)).await {
        Ok(Some(lock)) => lock.holds().then_some(false),
        Ok(None) => Some(true),
        Err(_) => None,
    }
}

/// Puts a small file into the directory `root`, atomically, in place of an earlier one. It makes no
/// directory, and the file need not survive a crash of the machine.
pub(super) fn leave_note(root: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = root.join(name);
    // Listings skip names with this ending: the store stages under them.
    let staged = root.join(format!("{name}#{}", Uuid::new_v4().as_u64_pair().0));
    let written = create_new(&staged).and_then(|mut file| io::Write::write_all(&mut file, bytes));
    let done = written.and_then(|()| std::fs::rename(&staged, &path));
    done.map_err(|e| {
        let _may_not_be_there = std::fs::remove_file(&staged);
        error("write", &path, e)
    })
}

/// Removes a file that [`leave_note`] put. Not an error if it is gone.
pub(super) fn take_note_away(root: &Path, name: &str) -> Result<()> {
    let path = root.join(name);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error("delete", &path, e)),
        _ => Ok(()),
    }
}

/// The entries directly in `root`. Empty if it does not exist.
pub(super) async fn top(root: &Path) -> Result<Top> {
    let root = root.to_owned();
    blocking(&root.clone(), move || {
        let listing = match std::fs::read_dir(&root) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Top::default()),
            listing => listing.map_err(|e| error("list", &root, e))?,
        };
        let mut top = Top::default();
        for entry in listing {
            let entry = entry.map_err(|e| error("list", &root, e))?;
            let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else { continue };
            if kind.is_dir() {
                top.prefixes.push(name);
            } else if kind.is_file() && !is_staged(&name) {
                top.objects.push(name);
            }
        }
        top.prefixes.sort();
        top.objects.sort();
        Ok(top)
    })
    .await
}

/// The bytes of all files below `root`, including half-written ones, and when the newest was
/// written. Files that vanish meanwhile do not count.
pub(super) async fn measure(root: &Path) -> Result<(u64, Option<SystemTime>)> {
    let root = root.to_owned();
    blocking(&root.clone(), move || {
        let (mut directories, mut bytes, mut newest) = (vec![root], 0, None);
        while let Some(directory) = directories.pop() {
            let listing = match std::fs::read_dir(&directory) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                listing => listing.map_err(|e| error("list", &directory, e))?,
            };
            for entry in listing {
                let entry = entry.map_err(|e| error("list", &directory, e))?;
                // For a link, these are the link's own.
                match entry.metadata() {
                    Ok(found) if found.is_dir() => directories.push(entry.path()),
                    Ok(found) => {
                        bytes += found.len();
                        newest = newest.max(found.modified().ok());
                    }
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(error("look at", &entry.path(), e)),
                }
            }
        }
        Ok((bytes, newest))
    })
    .await
}

/// Deletes every file below `root` except those in `keep`, including staged files of writes, and
/// syncs their directories. Returns the number of deleted files.
pub(super) async fn sweep(root: &Path, keep: HashSet<String>) -> Result<usize> {
    let root = root.to_owned();
    blocking(&root.clone(), move || {
        let (mut directories, mut swept) = (vec![root.clone()], 0);
        while let Some(directory) = directories.pop() {
            let before = swept;
            for entry in std::fs::read_dir(&directory).map_err(|e| error("list", &directory, e))? {
                let entry = entry.map_err(|e| error("list", &directory, e))?;
                let path = entry.path();
                if entry.file_type().map_err(|e| error("look at", &path, e))?.is_dir() {
                    directories.push(path);
                } else if !path.strip_prefix(&root).ok().and_then(Path::to_str).is_some_and(|key| keep.contains(key)) {
                    std::fs::remove_file(&path).map_err(|e| error("delete", &path, e))?;
                    swept += 1;
                }
            }
            if swept > before {
                open_directory(&directory).and_then(|d| d.sync_all()).map_err(|e| error("sync", &directory, e))?;
            }
        }
        Ok(swept)
    })
    .await
}

/// How many entries of a directory are handed on at a time.
const PART: usize = 1_000;

/// Every entry below `root` that is not a directory, by its relative path, with its bytes. No link
/// is followed. Links, and anything else that is not a regular file, have no bytes. Staged files of
/// writes and files that vanish meanwhile are skipped.
pub(super) fn list(root: &Path) -> BoxStream<'static, Result<Entry>> {
    let root = root.to_owned();
    let begin = async move {
        let (send, parts) = tokio::sync::mpsc::channel(1);
        let walking = tokio::spawn(async move { blocking(&root.clone(), move || walk(root, &send)).await });
        stream::unfold((parts, Some(walking)), async |(mut parts, walking)| {
            if let Some(part) = parts.recv().await {
                return Some((Vec::into_iter(part).map(Ok).collect::<Vec<_>>(), (parts, walking)));
            }
            let ended = walking?.await.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, "a listing died").cause(e)));
            ended.err().map(|e| (vec![Err(e)], (parts, None)))
        })
        .flat_map(stream::iter)
    };
    begin.flatten_stream().boxed()
}

fn walk(root: PathBuf, to: &tokio::sync::mpsc::Sender<Vec<Entry>>) -> Result<()> {
    let (mut directories, mut part) = (vec![(root, String::new())], Vec::new());
    while let Some((directory, key)) = directories.pop() {
        let listing = match std::fs::read_dir(&directory) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            listing => listing.map_err(|e| error("list", &directory, e))?,
        };
        for entry in listing {
            let entry = entry.map_err(|e| error("list", &directory, e))?;
            // A key is text.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let key = format!("{key}{name}");
            match entry.metadata() {
                Ok(found) if found.is_dir() => directories.push((entry.path(), format!("{key}/"))),
                Ok(_) if is_staged(&name) => {}
                Ok(found) => part.push(Entry { key, size: if found.is_file() { found.len() } else { 0 } }),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(error("look at", &entry.path(), e)),
            }
            if part.len() == PART && to.blocking_send(std::mem::take(&mut part)).is_err() {
                return Ok(());
            }
        }
    }
    // Nobody receives the rest once enough was seen.
    let _enough = to.blocking_send(part);
    Ok(())
}

/// Whether `object_store` stages under this file name.
fn is_staged(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(_, number)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// A file that is written piece by piece, under another name until its end.
struct Staged {
    file: std::fs::File,
    staged: PathBuf,
    path: PathBuf,
}

/// Begins a file at `path`, where nothing may exist. Blocks.
pub(super) fn create(path: PathBuf) -> Result<Box<dyn Created>> {
    let taken = |what: &str| Error::new(ErrorKind::Refused, format!("{} {what}", path.display()));
    match std::fs::symlink_metadata(&path) {
        Ok(_) => return Err(taken("exists already")),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => return Err(taken("would be below a file")),
        Err(_) => {}
    }
    if let Some(parent) = path.parent() {
        make_directories_now(parent)?;
    }
    // A longer suffix might not fit behind a long name.
    for number in 1..100 {
        let mut staged = path.as_os_str().to_owned();
        staged.push(format!("#{number}"));
        match create_new(staged.as_ref()) {
            Ok(file) => return Ok(Box::new(Staged { file, staged: staged.into(), path })),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(error("write", &path, e)),
        }
    }
    Err(taken("is being written by others"))
}

impl io::Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Created for Staged {
    fn finish(self: Box<Self>) -> Result<()> {
        let done = self.file.sync_all().and_then(|()| std::fs::rename(&self.staged, &self.path));
        done.map_err(|e| error("write", &self.path, e))?;
        sync_directory_of(&self.path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _is_in_its_place = std::fs::remove_file(&self.staged);
    }
}

/// Creates a new file that others cannot read.
fn create_new(path: &Path) -> io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Moves a directory to a place where nothing exists.
pub(super) async fn rename(from: PathBuf, to: PathBuf) -> Result<()> {
    blocking(&from.clone(), move || {
        if to.symlink_metadata().is_ok() {
            return Err(Error::new(ErrorKind::Refused, format!("{} exists already", to.display())));
        }
        std::fs::rename(&from, &to).map_err(|e| error("move", &from, e))?;
        sync_directory_of(&to)
    })
    .await
}

/// What is at a path.
pub(super) async fn there(path: &Path) -> Result<There> {
    let path = path.to_owned();
    blocking(&path.clone(), move || {
        Ok(match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => There::Place,
            Ok(_) => There::SomethingElse,
            Err(_) => There::Nothing,
        })
    })
    .await
}

/// A directory that is removed when this is dropped, together with the parents that did not exist
/// before.
#[derive(Debug)]
pub(super) struct Passing {
    root: PathBuf,
    /// The innermost first.
    made: Vec<PathBuf>,
}

impl Passing {
    pub(super) fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), made: root.ancestors().take_while(|d| !d.exists()).map(Path::to_owned).collect() }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let _may_be_gone = std::fs::remove_dir_all(&self.root);
        // A directory that others use by now is not empty, and stays.
        for directory in self.made.drain(..) {
            let _may_be_in_use = std::fs::remove_dir(directory);
        }
    }
}

/// Removes whatever is at `path`, and syncs its directory. Not an error if there is nothing.
pub(super) async fn remove(path: &Path) -> Result<()> {
    let path = path.to_owned();
    blocking(&path.clone(), move || {
        let removed = match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_file(&path),
            Err(e) => Err(e),
        };
        match removed {
            Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Err(error("delete", &path, e))
            }
            _ => sync_directory_of(&path),
        }
    })
    .await
}

/// Removes a directory and everything in it, and syncs its parent.
pub(super) async fn remove_tree(root: &Path) -> Result<()> {
    let root = root.to_owned();
    blocking(&root.clone(), move || match std::fs::remove_dir_all(&root) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error("delete", &root, e)),
        _ => sync_directory_of(&root),
    })
    .await
}

/// Syncs the directory that `path` is in. Not needed if it is gone.
fn sync_directory_of(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    match open_directory(parent).and_then(|directory| directory.sync_all()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error("sync", parent, e)),
        _ => Ok(()),
    }
}

/// Writes a small file at `path`, or in the nearest parent that exists, and removes it.
pub(super) async fn try_write(path: &Path) -> Result<()> {
    let path = path.to_owned();
    blocking(&path.clone(), move || {
        let existing = path.ancestors().find(|p| p.exists()).unwrap_or(&path);
        // An unguessable name, and only if nothing exists there: a planted link is not followed.
        let probe = existing.join(format!(".bsonvault-check-{}", Uuid::new_v4()));
        let made = create_new(&probe).and_then(|mut file| io::Write::write_all(&mut file, b"can this be written?"));
        made.map_err(|e| {
            let _may_not_be_there = std::fs::remove_file(&probe);
            error("write in", existing, e)
        })?;
        std::fs::remove_file(&probe).map_err(|e| error("delete", &probe, e))
    })
    .await
}

/// The bytes that an ordinary user can still write below `path`, or below the nearest parent that
/// exists.
pub(super) fn free_space(path: &Path) -> Option<u64> {
    let existing: PathBuf = path.ancestors().find(|p| p.exists())?.to_owned();
    let found = rustix::fs::statvfs(&existing).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

pub(super) fn store_error(what: &str, path: &Path, cause: object_store::Error) -> Error {
    if matches!(cause, object_store::Error::NotFound { .. }) {
        return Error::new(ErrorKind::NotFound, format!("{} does not exist", path.display())).cause(cause);
    }
    // The operating system's own error is somewhere in the chain, and decides the hint.
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(&cause);
    while let Some(link) = next {
        if let Some(io) = link.downcast_ref::<io::Error>() {
            return describe(what, path, io).cause(cause);
        }
        next = link.source();
    }
    Error::new(ErrorKind::Storage, format!("cannot {what} {}: {cause}", path.display())).cause(cause)
}

pub(super) fn error(what: &str, path: &Path, cause: io::Error) -> Error {
    describe(what, path, &cause).cause(cause)
}

fn describe(what: &str, path: &Path, cause: &io::Error) -> Error {
    let error = Error::new(ErrorKind::Storage, format!("cannot {what} {}: {cause}", path.display()));
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            error.hint("make space there, or set [[BACKUP_PATH or path]] to a disk with more")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            error.hint("grant this user write access, or set [[BACKUP_PATH or path]] to a directory it may write to")
        }
        _ => error,
    }
}

/// Does work that may wait for the disk, at a place on it, on a thread that may block. Nothing else
/// here waits for a disk.
///
/// # Errors
/// Those of `work`; [`ErrorKind::Internal`].
pub(super) async fn blocking<T: Send + 'static>(place: &Path, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    #[cfg(test)]
    let work = super::hang::before(place, work);
    #[cfg(not(test))]
    let _only_tests_look_at_it = place;
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::new(ErrorKind::Internal, "a storage task died").cause(e))?
}
