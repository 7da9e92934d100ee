//! The repository, where backups live: the objects of a place ([`backend`]), their keys
//! ([`layout`]), the backups among them ([`catalog`]), who works on one ([`lock`]), what makes an
//! unfinished one resumable ([`checkpoint`]), and which of them stay ([`retention`]).

pub mod backend;
pub mod catalog;
pub mod chain;
pub mod checkpoint;
pub mod config;
pub mod layout;
pub mod lock;
mod remove;
pub mod retention;
mod scratch;

use std::path::Path;

use self::backend::Objects;
pub use self::scratch::Scratch;
use crate::error::Result;
use crate::names::BackupName;

/// Where backups live. Every operation gets one. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Repository {
    objects: Objects,
}

impl Repository {
    /// The repository at a directory of this machine, which need not exist yet.
    ///
    /// # Errors
    /// Those of [`Objects::open`].
    pub fn open(location: &str) -> Result<Self> {
        Ok(Self::of(Objects::open(location)?))
    }

    /// The same on a thread that may block, because the place may not answer.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn open_apart(location: &str) -> Result<Self> {
        Ok(Self::of(Objects::open_apart(location).await?))
    }

    /// An empty repository in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::of(Objects::in_memory())
    }

    /// A repository with objects of any backend.
    #[must_use]
    pub fn of(objects: Objects) -> Self {
        Self { objects }
    }

    /// All its objects, by the keys of [`layout`].
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Its location, for people.
    #[must_use]
    pub fn location(&self) -> String {
        self.objects.location()
    }

    /// The objects of the backup of this name.
    #[must_use]
    pub fn place(&self, name: &BackupName) -> Objects {
        self.objects.below(name.as_str())
    }

    /// The last part of a path that leads directly into this repository.
    #[must_use]
    pub fn name_in<'a>(&self, path: &'a str) -> Option<&'a str> {
        let path = Path::new(path);
        let is_here = path.parent() == Some(Path::new(&self.location()));
        path.file_name().filter(|_| is_here)?.to_str()
    }

    /// Tests whether the repository is writable, and leaves nothing behind.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage), with what to do about it.
    pub async fn try_write(&self) -> Result<()> {
        self.objects.try_write().await
    }

    /// The free space in bytes, if known.
    #[must_use]
    pub fn free_space(&self) -> Option<u64> {
        self.objects.free_space()
    }
}
