//! What a local disk needs beyond `object_store`.

use std::collections::HashSet;
use std::io;
use std::path::{Component, Path, PathBuf};

use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;

use crate::error::{Error, ErrorKind, Result};

/// The whole file system, every write synced with its parent directory. One instance serves every root: keys are absolute paths,
/// so that a root need not exist before it is written to.
pub(super) fn file_system() -> LocalFileSystem {
    LocalFileSystem::new().with_fsync(true)
}

/// The key of an absolute path. `Path::parse` keeps `%` as it is, where `Path::from` would encode it again.
pub(super) fn key(path: &Path) -> Result<Key> {
    path.to_str().and_then(|text| Key::parse(text).ok()).ok_or_else(|| {
        Error::new(ErrorKind::Storage, format!("path {} cannot be used as it is", path.display()))
            .hint("use a path of plain text without control characters")
    })
}

/// The path from the root of the file system on, without `.`, `..` and a slash at the end: keys have none of these. A `..` means what
/// it means to the operating system, the parent of where a link leads.
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

/// Whether there is anything at the path; what cannot be looked at is an error, not an absence.
pub(super) async fn is_there(path: &Path) -> Result<bool> {
    tokio::fs::try_exists(path).await.map_err(|e| error("look at", path, e))
}

/// Makes the directories above `path`, 0700, each one synced into its parent.
pub(super) async fn make_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) => make_directories(parent).await,
        None => Ok(()),
    }
}

async fn make_directories(directory: &Path) -> Result<()> {
    if tokio::fs::metadata(directory).await.is_ok_and(|m| m.is_dir()) {
        return Ok(());
    }
    let directory = directory.to_owned();
    blocking(move || {
        let missing: Vec<_> = directory.ancestors().take_while(|d| !d.exists()).collect();
        for new in missing.into_iter().rev() {
            match builder().create(new) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(error("create", new, e)),
                _ => sync_directory_of(new)?,
            }
        }
        Ok(())
    })
    .await
}

/// Makes the directory `root`, which must not exist.
pub(super) async fn claim(root: &Path) -> Result<()> {
    make_parent(root).await?;
    let root = root.to_owned();
    blocking(move || match builder().create(&root) {
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

/// Takes the rights of others off a file. Until then its directory keeps them out.
pub(super) async fn restrict(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        tokio::fs::set_permissions(path, mode).await.map_err(|e| error("restrict", path, e))?;
    }
    Ok(())
}

/// A directory that no other process takes a lock on meanwhile: let go when it is dropped, or its process ends.
#[derive(Debug)]
pub struct Lock {
    directory: Option<std::fs::File>,
}

impl Lock {
    /// Whether it keeps anyone out: not where the file system knows no locks.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.directory.is_some()
    }
}

/// Locks the directory `root`, as far as its file system knows locks.
pub(super) async fn lock(root: &Path) -> Result<Option<Lock>> {
    let root = root.to_owned();
    blocking(move || {
        let directory = std::fs::File::open(&root).map_err(|e| error("open", &root, e))?;
        match rustix::fs::flock(&directory, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { directory: Some(directory) })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => {
                tracing::debug!("{} cannot be locked: {e}", root.display());
                Ok(Some(Lock { directory: None }))
            }
        }
    })
    .await
}

/// Deletes every file below `root` whose path from there is not to be kept, those that writes were staged under included, and syncs their
/// directories. Gives how many they were.
pub(super) async fn sweep(root: &Path, keep: HashSet<String>) -> Result<usize> {
    let root = root.to_owned();
    blocking(move || {
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
                std::fs::File::open(&directory).and_then(|d| d.sync_all()).map_err(|e| error("sync", &directory, e))?;
            }
        }
        Ok(swept)
    })
    .await
}

/// Names of the directories in `root`, sorted.
pub(super) async fn directories(root: &Path) -> Result<Vec<String>> {
    let mut listing = match tokio::fs::read_dir(root).await {
        Ok(listing) => listing,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(error("list", root, e)),
    };
    let mut names = Vec::new();
    while let Some(entry) = listing.next_entry().await.map_err(|e| error("list", root, e))? {
        let is_directory = entry.file_type().await.is_ok_and(|t| t.is_dir());
        if let (true, Ok(name)) = (is_directory, entry.file_name().into_string()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Removes a directory and all in it, and syncs its parent.
pub(super) async fn remove_tree(root: &Path) -> Result<()> {
    tokio::fs::remove_dir_all(root).await.map_err(|e| error("delete", root, e))?;
    sync_parent(root).await
}

/// Syncs the directory that `path` is in; one that is gone needs none.
pub(super) async fn sync_parent(path: &Path) -> Result<()> {
    let path = path.to_owned();
    blocking(move || sync_directory_of(&path)).await
}

fn sync_directory_of(path: &Path) -> Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    match std::fs::File::open(parent).and_then(|directory| directory.sync_all()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(error("sync", parent, e)),
        _ => Ok(()),
    }
}

/// Writes a small file at `path`, or at the nearest parent that exists, and removes it.
pub(super) async fn try_write(path: &Path) -> Result<()> {
    let path = path.to_owned();
    blocking(move || {
        let existing = path.ancestors().find(|p| p.exists()).unwrap_or(&path);
        let probe = existing.join(format!(".bsonvault-check-{}", std::process::id()));
        std::fs::write(&probe, b"can this be written?").map_err(|e| error("write in", existing, e))?;
        std::fs::remove_file(&probe).map_err(|e| error("delete", &probe, e))
    })
    .await
}

/// Bytes that an ordinary user can still write below `path`, or below the nearest parent that exists.
pub(super) fn free_space(path: &Path) -> Option<u64> {
    let existing: PathBuf = path.ancestors().find(|p| p.exists())?.to_owned();
    let found = rustix::fs::statvfs(&existing).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

pub(super) fn store_error(what: &str, path: &Path, cause: object_store::Error) -> Error {
    if matches!(cause, object_store::Error::NotFound { .. }) {
        return Error::new(ErrorKind::NotFound, format!("{} does not exist", path.display())).cause(cause);
    }
    // The operating system's own error is somewhere down the chain, and decides the hint.
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
            error.hint("make space there, or set BACKUP_PATH or --path to a disk with more")
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            error.hint("let this user write there, or set BACKUP_PATH or --path to a directory it may write to")
        }
        _ => error,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::new(ErrorKind::Internal, "a storage task died").cause(e))?
}
