//! Keys and bytes: where backups are kept. A key is a path of `/`-separated parts below the place of its objects.
//!
//! [`Backend`] is what any store has to be able to do, [`Objects`] what the rest of the program uses of one. There are two
//! backends: a directory of this machine, and memory. `tests/format/backends.rs` holds for every one.

mod local;
mod memory;
mod objects;

use std::any::Any;
use std::collections::HashSet;
use std::fmt::Debug;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, TryStreamExt as _};
use uuid::Uuid;

#[cfg(test)]
pub(crate) use self::local::hang;
pub use self::memory::Memory;
pub use self::objects::{ObjectReader, Objects, Reading};
use crate::error::{Error, Result};

/// A place that keeps objects: all keys are below it.
///
/// What a store need not be able to do has a default, which is right for one that keeps whole objects and nothing else.
///
/// # Errors
/// Whatever can fail: [`ErrorKind::Storage`](crate::error::ErrorKind::Storage), with what to do where the disk is full or the place
/// cannot be written. Whatever takes a key: [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) where it leads out of the place.
/// Whatever reads: [`ErrorKind::NotFound`](crate::error::ErrorKind::NotFound) where the key holds nothing, and `Damaged` where what
/// it holds is no plain object.
pub trait Backend: Debug + Send + Sync {
    /// Where it is, as a person would name it. Two of one location are one place.
    fn location(&self) -> String;

    /// The part of it below a prefix.
    fn below(&self, prefix: &str) -> Arc<dyn Backend>;

    /// Stores an object, whole or not at all, replacing what the key held. When it returns, the object outlives a power cut.
    fn put<'a>(&'a self, key: &'a str, chunks: Vec<Bytes>) -> BoxFuture<'a, Result<()>>;

    /// The same only where the key holds nothing, and whether it did: of several that try, one succeeds.
    fn put_if_absent<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>>;

    /// Begins an object whose length is not known, on a thread that may wait. There is none before [`Created::finish`]; a key
    /// that holds something is [`Refused`](crate::error::ErrorKind::Refused).
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](crate::error::ErrorKind::Refused); [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    fn create(&self, key: &str) -> Result<Box<dyn Created>>;

    /// Opens an object. What it held then is read, also if it is replaced or deleted meanwhile.
    fn open<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn Opened>>>;

    /// An object's size, and when it was written.
    fn look<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Found>>;

    /// All objects, in no order, as they come: there may be more than memory holds.
    fn list(&self) -> BoxStream<'_, Result<Entry>>;

    /// What is right at the top: nothing where the place does not exist.
    fn top(&self) -> BoxFuture<'_, Result<Top>>;

    /// Deletes an object; one that is not there is no error. When it returns, it does not come back.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Takes the place for one writer: of several that try, one succeeds, and the others, or all where something is there already,
    /// are [`Refused`](crate::error::ErrorKind::Refused).
    fn claim(&self) -> BoxFuture<'_, Result<()>>;

    /// Moves all that is below one prefix to another one; [`Refused`](crate::error::ErrorKind::Refused) where something is there.
    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Puts a small object that says a process lives, whole or not at all, and need not outlive a power cut. Makes no way to
    /// it. Waits.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    fn leave_note(&self, key: &str, bytes: &[u8]) -> Result<()>;

    /// Removes what [`leave_note`](Self::leave_note) put; one that is not there is no error. Waits.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    fn take_note_away(&self, key: &str) -> Result<()>;

    /// All that an object holds.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        async move {
            let opened = self.open(key).await?;
            opened.read(0..opened.size()).await
        }
        .boxed()
    }

    /// The place that this one leads to, where it only leads somewhere.
    fn resolved(&self) -> BoxFuture<'_, Result<Option<Arc<dyn Backend>>>> {
        std::future::ready(Ok(None)).boxed()
    }

    /// The same place where it may not lead elsewhere, if it could.
    fn strict(&self) -> Option<Arc<dyn Backend>> {
        None
    }

    /// Whether there is anything at the place.
    fn exists(&self) -> BoxFuture<'_, Result<bool>> {
        async move { Ok(self.list().try_next().await?.is_some()) }.boxed()
    }

    /// Deletes everything below the place, and the place.
    fn delete_all(&self) -> BoxFuture<'_, Result<()>> {
        async move { self.sweep(HashSet::new()).await.map(drop) }.boxed()
    }

    /// Deletes everything but these keys, what was half written included, and gives how many they were.
    fn sweep(&self, keep: HashSet<String>) -> BoxFuture<'_, Result<usize>> {
        async move {
            let entries: Vec<Entry> = self.list().try_collect().await?;
            let mut swept = 0;
            for entry in entries.iter().filter(|entry| !keep.contains(&entry.key)) {
                self.delete(&entry.key).await?;
                swept += 1;
            }
            Ok(swept)
        }
        .boxed()
    }

    /// The bytes of everything below the place, what is half written included, and when the newest of it was written.
    fn measure(&self) -> BoxFuture<'_, Result<(u64, Option<SystemTime>)>> {
        async move {
            let (mut bytes, mut newest) = (0, None);
            let mut entries = self.list();
            while let Some(entry) = entries.try_next().await? {
                let found = self.look(&entry.key).await?;
                (bytes, newest) = (bytes + found.size, newest.max(found.modified));
            }
            Ok((bytes, newest))
        }
        .boxed()
    }

    /// Proves that something can be written, and leaves nothing behind.
    fn try_write(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let key = format!(".bsonvault-check-{}", Uuid::new_v4());
            self.put(&key, vec![Bytes::from_static(b"can this be written?")]).await?;
            self.delete(&key).await
        }
        .boxed()
    }

    /// Bytes that can still be written, where that is known.
    fn free_space(&self) -> Option<u64> {
        None
    }

    /// Keeps other processes of this machine out of the place until what it gives is dropped; nothing where another one does.
    /// Where there are no such locks, it [keeps nobody out](Lock::holds).
    fn lock(&self, sharing: Sharing) -> BoxFuture<'_, Result<Option<Lock>>> {
        let _nobody_is_kept_out = sharing;
        std::future::ready(Ok(Some(Lock::none()))).boxed()
    }

    /// Whether a process of this machine has an exclusive [`lock`](Self::lock); nothing where that cannot be told.
    fn is_locked(&self) -> BoxFuture<'_, Option<bool>> {
        std::future::ready(None).boxed()
    }

    /// Removes the place when it is dropped, with all in it and what is made of the way to it from now on.
    fn until_dropped(&self) -> Box<dyn Debug + Send + Sync>;

    /// Whether a path of this machine leads into the place.
    fn covers(&self, path: &Path) -> bool {
        let _of_this_machine = path;
        false
    }
}

/// The key, where it stays below its place.
fn inside(key: &str) -> Result<&str> {
    match !key.is_empty() && key.split('/').all(|part| !matches!(part, "" | "." | "..")) {
        true => Ok(key),
        false => Err(Error::damaged(format!("the key {key:?} leads outside of its backup"))),
    }
}

/// An object that is open.
pub trait Opened: Debug + Send + Sync {
    /// Its bytes, when it was opened.
    fn size(&self) -> u64;

    /// Some of its bytes; fewer where it ends before.
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>>;
}

/// An object that is being written, by a thread that may wait. Where it is dropped before its end, there may be a part of it.
pub trait Created: Write + Send {
    /// All of it is written. When it returns, the object outlives a power cut.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    fn finish(self: Box<Self>) -> Result<()>;
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub size: u64,
}

/// What is at a key, by the look of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its bytes.
    pub size: u64,
    /// When it was written, where that is known.
    pub modified: Option<SystemTime>,
}

/// What is right at the top of a place, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Top {
    /// The names that have objects below them.
    pub prefixes: Vec<String>,
    /// The names of objects.
    pub objects: Vec<String>,
}

/// A lock on a place: let go when it is dropped, or its process ends.
#[derive(Debug)]
pub struct Lock(Option<Box<dyn Held>>);

/// What is held as long as a [`Lock`] is there.
trait Held: Any + Debug + Send + Sync {}

impl<T: Any + Debug + Send + Sync> Held for T {}

impl Lock {
    /// One that keeps nobody out.
    pub(super) fn none() -> Self {
        Self(None)
    }

    fn of(held: impl Any + Debug + Send + Sync) -> Self {
        Self(Some(Box::new(held)))
    }

    /// Whether it keeps anyone out: not where the backend knows no locks.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.is_some()
    }
}

/// How a lock goes with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// It is the only one.
    Exclusive,
    /// Others of this kind are beside it.
    Shared,
}

/// What is at a path that a person gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    /// Nothing.
    Nothing,
    /// A place of objects.
    Place,
    /// Something else: a file, say.
    SomethingElse,
}
