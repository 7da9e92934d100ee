//! Keys and bytes: where backups are kept. A key is a path of `/`-separated parts below the store's root. Written over `object_store`,
//! whose local file system stages, syncs and renames each object; what it leaves out on a local disk is added here: modes
//! (0600 in directories of 0700), synced deletes, and reading what is a regular file, and nothing else, reached by no link (`file`).

mod file;
#[cfg(test)]
pub(crate) mod hang;
mod local;
mod scratch;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use object_store::path::Path as Key;
use object_store::{ObjectStoreExt as _, PutPayload};

pub use self::file::RegularFile;
use self::local::Sharing;
pub use self::local::{Lock, blocking};
pub use self::scratch::Scratch;
use crate::error::{Error, ErrorKind, Result};

/// How long a lock is waited for: longer than one that only looks whether there is one keeps it.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);

/// A place that keeps objects.
#[derive(Debug, Clone)]
pub struct Store {
    inner: std::sync::Arc<object_store::local::LocalFileSystem>,
    root: PathBuf,
}

/// An object in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub size: u64,
}

impl Store {
    /// Opens a store at a directory, which need not exist yet.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] for a URL: object storage is not supported yet. [`ErrorKind::Storage`] where the path is not a
    /// directory or cannot be looked at.
    pub fn open(location: &str) -> Result<Self> {
        if let Some((scheme, _)) = location.split_once("://") {
            return Err(Error::usage(format!("backup path {scheme}://…: {scheme}:// is not yet supported"))
                .hint("give a directory on this machine"));
        }
        if location.is_empty() {
            return Err(Error::usage("the backup path is empty").hint("set BACKUP_PATH or --path to a directory"));
        }
        let root = local::absolute(Path::new(location))?;
        match std::fs::metadata(&root) {
            Ok(found) if !found.is_dir() => {
                return Err(Error::new(ErrorKind::Storage, format!("backup path {} is not a directory", root.display()))
                    .hint("set BACKUP_PATH or --path to a directory"));
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(local::error("open", &root, e)),
        }
        Ok(Self { inner: std::sync::Arc::new(local::file_system()), root })
    }

    /// The same by the directory that its path leads to, where that is a link: somebody keeps a backup elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn resolved(self) -> Result<Self> {
        let root = self.root.clone();
        let real = blocking(&self.root, move || match std::fs::symlink_metadata(&root) {
            Ok(found) if found.is_symlink() && root.exists() => {
                std::fs::canonicalize(&root).map(Some).map_err(|e| local::error("open", &root, e))
            }
            _ => Ok(None),
        });
        let real = real.await?;
        Ok(Self { root: real.unwrap_or_else(|| self.root.clone()), ..self })
    }

    /// The part of this store below a prefix, as a store of its own.
    #[must_use]
    pub fn below(&self, prefix: &str) -> Self {
        Self { inner: self.inner.clone(), root: self.root.join(prefix) }
    }

    /// Where it is, as a person would name it.
    #[must_use]
    pub fn location(&self) -> String {
        self.root.display().to_string()
    }

    /// The directory of a store on this machine.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.root
    }

    /// Stores an object, whole or not at all, replacing what the key held. When it returns, the object and the way to it are
    /// on the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`], with what to do where the disk is full or the path cannot be written.
    pub async fn put(&self, key: &str, chunks: Vec<Bytes>) -> Result<()> {
        let (path, key) = self.place(key)?;
        local::make_parent(&path).await?;
        self.inner.put(&key, PutPayload::from_iter(chunks)).await.map_err(|e| local::store_error("write", &path, e))?;
        local::restrict(&path).await
    }

    /// An object's bytes. No link below the root is followed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the key holds nothing; [`ErrorKind::Damaged`] where it is anything but a regular file; [`ErrorKind::Storage`].
    pub async fn get(&self, key: &str) -> Result<Bytes> {
        self.place(key)?;
        file::read(self.root.clone(), key).await
    }

    /// An object's size in bytes.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn size(&self, key: &str) -> Result<u64> {
        self.place(key)?;
        Ok(file::look(self.root.clone(), key).await?.size)
    }

    /// Opens an object for a thread that may wait to read it piece by piece.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn open_to_read(&self, key: &str) -> Result<std::fs::File> {
        self.place(key)?;
        file::open_to_read(self.root.clone(), key).await
    }

    /// Opens an object to read it piece by piece. The root may be no link either.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn open_file(&self, key: &str) -> Result<RegularFile> {
        self.place(key)?;
        file::open(self.root.clone(), key, file::Root::Plain).await
    }

    /// An object's size in bytes and when it was last written, where it is there and can be looked at.
    pub async fn stamp(&self, key: &str) -> Option<(u64, DateTime<Utc>)> {
        self.place(key).ok()?;
        let found = file::look(self.root.clone(), key).await.ok()?;
        Some((found.size, found.modified?.into()))
    }

    /// Everything below the root that is no directory, by key; what is no regular file has no bytes. Nothing where the root does not exist.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn list(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.each(|entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        })
        .await?;
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    /// Shows every object below the root, in no order, until it is told to stop: there may be more than memory holds.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn each(&self, look: impl FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
        local::each(&self.root, look).await
    }

    /// The names right below the root that have objects below them: a directory listing. Nothing where the root does not exist.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn prefixes(&self) -> Result<Vec<String>> {
        local::directories(&self.root).await
    }

    /// Whether there is anything at the root that can be looked at.
    pub async fn exists(&self) -> bool {
        local::is_there(&self.root).await.unwrap_or(false)
    }

    /// Claims the root for one writer: makes the directory, and fails where it exists already.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] where it exists; [`ErrorKind::Storage`].
    pub async fn claim(&self) -> Result<()> {
        local::claim(&self.root).await
    }

    /// Keeps other processes of this machine from working on what is at the root, and from reading it, until what it gives is dropped. Nothing where another one
    /// does. Where the file system knows no locks, nothing is kept from anyone.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no root; [`ErrorKind::Storage`].
    pub async fn lock(&self) -> Result<Option<Lock>> {
        local::lock(&self.root, Sharing::Exclusive, LOCK_PATIENCE).await
    }

    /// The same beside others that take it so, too: readers. Nothing where a [`lock`](Self::lock) is in the way.
    ///
    /// # Errors
    /// As for [`lock`](Self::lock).
    pub async fn lock_shared(&self) -> Result<Option<Lock>> {
        local::lock(&self.root, Sharing::Shared, LOCK_PATIENCE).await
    }

    /// Whether a process of this machine has the [`lock`](Self::lock); nothing where that cannot be told.
    pub async fn is_locked(&self) -> Option<bool> {
        local::is_locked(&self.root).await
    }

    /// Puts a small file right at the root, whole or not at all, replacing one of that name. It does not make the root, and it is not on the disk for good
    /// when this returns: it is for what says that a process lives. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn leave_note(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.place(name)?;
        local::leave_note(&self.root, name, bytes)
    }

    /// Removes what [`leave_note`](Self::leave_note) put; one that is not there is no error. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub fn take_note_away(&self, name: &str) -> Result<()> {
        self.place(name)?;
        local::take_note_away(&self.root, name)
    }

    /// Names of the objects right at the root. Nothing where the root does not exist.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn files(&self) -> Result<Vec<String>> {
        local::files(&self.root).await
    }

    /// The bytes of everything below the root, what is half written included, and when the newest of it was written.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn measure(&self) -> Result<(u64, Option<SystemTime>)> {
        local::measure(&self.root).await
    }

    /// Deletes everything but these keys, what was half written included, and gives how many they were.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn sweep(&self, keep: HashSet<String>) -> Result<usize> {
        local::sweep(&self.root, keep).await
    }

    /// Deletes one object, or whatever is in its place; one that is not there is no error. When it returns, it will not come back.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn delete(&self, key: &str) -> Result<()> {
        let (path, _) = self.place(key)?;
        local::remove(&path).await
    }

    /// Deletes everything below the root, and the root. `first` goes before all else, so that what it commits is
    /// never seen half deleted.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn delete_all(&self, first: &str) -> Result<()> {
        if !local::is_there(&self.root).await? {
            return Ok(());
        }
        self.delete(first).await?;
        local::remove_tree(&self.root).await
    }

    /// Proves that something can be written at the root, or where the root would be made, and leaves nothing behind.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`], with what to do about it.
    pub async fn try_write(&self) -> Result<()> {
        local::try_write(&self.root).await
    }

    /// Bytes that can still be written, where the system tells.
    #[must_use]
    pub fn free_space(&self) -> Option<u64> {
        local::free_space(&self.root)
    }

    fn place(&self, key: &str) -> Result<(PathBuf, Key)> {
        let inside = !key.is_empty() && key.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !inside {
            return Err(Error::damaged(format!("the key {key:?} leads outside of its backup")));
        }
        let path = self.root.join(key);
        let key = local::key(&path)?;
        Ok((path, key))
    }
}
