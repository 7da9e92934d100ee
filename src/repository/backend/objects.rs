//! The objects of a place, whichever backend keeps them.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::{ControlFlow, Deref};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use tokio::runtime::Handle;

use super::local::Local;
use super::memory::Memory;
use super::{Backend, Entry, Lock, Opened, Sharing, There};
use crate::error::{Error, Result};

/// How much of an object a thread reads at a time.
const PIECE: u64 = 1024 * 1024;

/// The objects below a place, and what a [`Backend`] can do with them. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Objects(Arc<dyn Backend>);

impl Objects {
    /// The objects of a directory of this machine, which need not exist yet.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) for a URL: object storage is not
    /// supported yet; [`ErrorKind::Storage`](crate::error::ErrorKind::Storage) if the path is not a
    /// directory or cannot be looked at.
    pub fn open(location: &str) -> Result<Self> {
        if let Some((scheme, _)) = location.split_once("://") {
            return Err(Error::usage(format!("backup path {scheme}://…: {scheme}:// is not yet supported"))
                .hint("give a directory on this machine"));
        }
        if location.is_empty() {
            return Err(Error::usage("the backup path is empty").hint("set [[BACKUP_PATH or path]] to a directory"));
        }
        Ok(Self(Arc::new(Local::open(Path::new(location))?)))
    }

    /// The same on a thread that may block, because the place may not answer.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn open_apart(location: &str) -> Result<Self> {
        let of = location.to_owned();
        Local::apart(location, move || Self::open(&of)).await
    }

    /// No objects yet, in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::of(Arc::new(Memory::default()))
    }

    /// The objects of any backend.
    #[must_use]
    pub fn of(backend: Arc<dyn Backend>) -> Self {
        Self(backend)
    }

    /// What is at a path that a user gave.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal).
    pub async fn there(path: &str) -> Result<There> {
        Local::there(path).await
    }

    /// The objects at the target if this place is a link: a backup may be kept elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub async fn resolved(self) -> Result<Self> {
        Ok(self.0.resolved().await?.map_or(self, Self))
    }

    /// The same objects, but the place itself must not be a link either.
    #[must_use]
    pub fn strict(&self) -> Self {
        self.0.strict().map_or_else(|| self.clone(), Self)
    }

    /// The part below a prefix, as objects of its own.
    #[must_use]
    pub fn below(&self, prefix: &str) -> Self {
        Self(self.0.below(prefix))
    }

    /// The last part of their place: for a backup, its name.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let location = self.location();
        location.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned)
    }

    /// Whether these are the same objects.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.location() == other.location()
    }

    /// An object's size in bytes.
    ///
    /// # Errors
    /// As for [`Backend::get`].
    pub async fn size(&self, key: &str) -> Result<u64> {
        Ok(self.0.look(key).await?.size)
    }

    /// Opens an object to read it piece by piece.
    ///
    /// # Errors
    /// As for [`Backend::get`].
    pub async fn open_object(&self, key: &str) -> Result<ObjectReader> {
        Ok(ObjectReader { opened: self.0.open(key).await?, at: 0 })
    }

    /// The same for a thread that may block, and is not one of the runtime's workers.
    ///
    /// # Errors
    /// As for [`Backend::get`].
    pub async fn open_to_read(&self, key: &str) -> Result<Reading> {
        let opened = self.0.open(key).await?;
        Ok(Reading { opened, runtime: Handle::current(), at: 0, piece: Bytes::new() })
    }

    /// An object's size in bytes and when it was last written. None if it does not exist or cannot
    /// be looked at.
    pub async fn stamp(&self, key: &str) -> Option<(u64, DateTime<Utc>)> {
        let found = self.0.look(key).await.ok()?;
        Some((found.size, found.modified?.into()))
    }

    /// All objects, by key. Objects that are not plain have no bytes. Empty if the place does not
    /// exist.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub async fn list(&self) -> Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = self.0.list().try_collect().await?;
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    /// Passes every object to `look`, unordered, until it breaks: there may be more than fit into
    /// memory.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub async fn each(&self, mut look: impl FnMut(Entry) -> ControlFlow<()>) -> Result<()> {
        let mut entries = self.0.list();
        while let Some(entry) = entries.try_next().await? {
            if look(entry).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Whether anything exists at the place and can be looked at.
    pub async fn exists(&self) -> bool {
        self.0.exists().await.unwrap_or(false)
    }

    /// Keeps other processes of this machine from writing or reading there, until the result is
    /// dropped. None if another process has such a lock. If there are no locks, it keeps nobody
    /// out.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::error::ErrorKind::NotFound) if the place does not exist;
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub async fn lock(&self) -> Result<Option<Lock>> {
        self.0.lock(Sharing::Exclusive).await
    }

    /// The same for readers, which share it. None if an exclusive [`lock`](Self::lock) is in the
    /// way.
    ///
    /// # Errors
    /// As for [`lock`](Self::lock).
    pub async fn lock_shared(&self) -> Result<Option<Lock>> {
        self.0.lock(Sharing::Shared).await
    }

    /// Deletes everything, and the place. `first` is deleted before all else, so that what it
    /// commits is never seen half deleted.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub async fn delete_all(&self, first: &str) -> Result<()> {
        if !self.0.exists().await? {
            return Ok(());
        }
        self.delete(first).await?;
        self.0.delete_all().await
    }
}

impl Deref for Objects {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

/// An object, open for reading from its start. Its content at opening can be read to the end even
/// if it is deleted meanwhile.
#[derive(Debug)]
pub struct ObjectReader {
    opened: Box<dyn Opened>,
    at: u64,
}

impl ObjectReader {
    /// Its size in bytes when it was opened.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.opened.size()
    }

    /// The next bytes: `most`, or the rest. Empty at the end.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub async fn read(&mut self, most: usize) -> Result<Bytes> {
        let bytes = self.opened.read(self.at..self.at.saturating_add(most as u64)).await?;
        self.at += bytes.len() as u64;
        Ok(bytes)
    }
}

/// An object that is read by a thread that may block.
#[derive(Debug)]
pub struct Reading {
    opened: Box<dyn Opened>,
    runtime: Handle,
    /// The position where `piece` ends.
    at: u64,
    piece: Bytes,
}

impl Read for Reading {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            let range = self.at..self.at.saturating_add(PIECE);
            self.piece = self.runtime.block_on(self.opened.read(range)).map_err(io::Error::other)?;
            self.at += self.piece.len() as u64;
        }
        let count = into.len().min(self.piece.len());
        into[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

impl Seek for Reading {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.opened.size().checked_add_signed(by),
            SeekFrom::Current(by) => (self.at - self.piece.len() as u64).checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        self.piece = Bytes::new();
        Ok(self.at)
    }
}
