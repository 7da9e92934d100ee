//! Keys and bytes: where backups are kept. A key is a path of `/`-separated parts below the place
//! of its objects.
//!
//! [`Backend`] is what any store must be able to do. [`Objects`] is what the rest of the program
//! uses of it. There are two backends: a directory of this machine, and memory.
//! `tests/format/backends.rs` tests both.

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
/// Optional abilities have a default, which is right for a store that keeps whole objects and
/// nothing else.
///
/// # Errors
/// Every method that can fail: [`ErrorKind::Storage`](crate::error::ErrorKind::Storage), with a
/// hint if the disk is full or the place is not writable. Every method that takes a key:
/// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if the key leads out of the place.
/// Every method that reads: [`ErrorKind::NotFound`](crate::error::ErrorKind::NotFound) if nothing
/// is at the key, and `Damaged` if it is not a plain object.
pub trait Backend: Debug + Send + Sync {
    /// Its location, for people. Two places with one location are the same.
    fn location(&self) -> String;

    /// The part of it below a prefix.
    fn below(&self, prefix: &str) -> Arc<dyn Backend>;

    /// Stores an object, atomically, and replaces an existing one. After the return, the object
    /// survives a power failure.
    fn put<'a>(&'a self, key: &'a str, chunks: Vec<Bytes>) -> BoxFuture<'a, Result<()>>;

    /// The same only if the key holds nothing. Returns whether it stored the object: of several
    /// callers, one succeeds.
    fn put_if_absent<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>>;

    /// Begins an object of unknown length, on a thread that may block. It does not exist before
    /// [`Created::finish`]. An existing key is [`Refused`](crate::error::ErrorKind::Refused).
    ///
    /// # Errors
    /// [`ErrorKind::Refused`](crate::error::ErrorKind::Refused);
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    fn create(&self, key: &str) -> Result<Box<dyn Created>>;

    /// Opens an object. Its content at this time can be read even if it is replaced or deleted
    /// meanwhile.
    fn open<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn Opened>>>;

    /// An object's size, and when it was written.
    fn look<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Found>>;

    /// All objects, unordered, as a stream: there may be more than fit into memory.
    fn list(&self) -> BoxStream<'_, Result<Entry>>;

    /// The entries at the top. Empty if the place does not exist.
    fn top(&self) -> BoxFuture<'_, Result<Top>>;

    /// Deletes an object. Not an error if it does not exist. After the return, it does not come
    /// back.
    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Claims the place for one writer: of several callers, one succeeds. The others, or all if
    /// something exists there already, are [`Refused`](crate::error::ErrorKind::Refused).
    fn claim(&self) -> BoxFuture<'_, Result<()>>;

    /// Moves everything below one prefix to another one.
    /// [`Refused`](crate::error::ErrorKind::Refused) if something exists there.
    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, Result<()>>;

    /// Puts a small object that shows that a process is alive. It is atomic, but need not survive a
    /// power failure. Makes no directories. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    fn leave_note(&self, key: &str, bytes: &[u8]) -> Result<()>;

    /// Removes what [`leave_note`](Self::leave_note) put. Not an error if it does not exist.
    /// Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    fn take_note_away(&self, key: &str) -> Result<()>;

    /// The whole content of an object.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        async move {
            let opened = self.open(key).await?;
            opened.read(0..opened.size()).await
        }
        .boxed()
    }

    /// The place that this one links to, if it is a link.
    fn resolved(&self) -> BoxFuture<'_, Result<Option<Arc<dyn Backend>>>> {
        std::future::ready(Ok(None)).boxed()
    }

    /// The same place, but without following a link at it. None if places cannot be links.
    fn strict(&self) -> Option<Arc<dyn Backend>> {
        None
    }

    /// Whether anything exists at the place.
    fn exists(&self) -> BoxFuture<'_, Result<bool>> {
        async move { Ok(self.list().try_next().await?.is_some()) }.boxed()
    }

    /// Deletes everything below the place, and the place itself.
    fn delete_all(&self) -> BoxFuture<'_, Result<()>> {
        async move { self.sweep(HashSet::new()).await.map(drop) }.boxed()
    }

    /// Deletes everything except these keys, including half-written objects. Returns the number of
    /// deleted objects.
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

    /// The bytes of everything below the place, including half-written objects, and when the newest
    /// was written.
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

    /// Tests whether the place is writable, and leaves nothing behind.
    fn try_write(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            let key = format!(".bsonvault-check-{}", Uuid::new_v4());
            self.put(&key, vec![Bytes::from_static(b"can this be written?")]).await?;
            self.delete(&key).await
        }
        .boxed()
    }

    /// The free space in bytes, if known.
    fn free_space(&self) -> Option<u64> {
        None
    }

    /// Keeps other processes of this machine out of the place until the result is dropped. None if
    /// another process does so already. If there are no such locks, it [keeps nobody
    /// out](Lock::holds).
    fn lock(&self, sharing: Sharing) -> BoxFuture<'_, Result<Option<Lock>>> {
        let _nobody_is_kept_out = sharing;
        std::future::ready(Ok(Some(Lock::none()))).boxed()
    }

    /// Whether a process of this machine has an exclusive [`lock`](Self::lock). None if unknown.
    fn is_locked(&self) -> BoxFuture<'_, Option<bool>> {
        std::future::ready(None).boxed()
    }

    /// Removes the place when the result is dropped, with everything in it and the parents created
    /// from now on.
    fn until_dropped(&self) -> Box<dyn Debug + Send + Sync>;

    /// Whether a path of this machine is inside the place.
    fn covers(&self, path: &Path) -> bool {
        let _of_this_machine = path;
        false
    }
}

/// The key, if it stays below its place.
fn inside(key: &str) -> Result<&str> {
    match !key.is_empty() && key.split('/').all(|part| !matches!(part, "" | "." | "..")) {
        true => Ok(key),
        false => Err(Error::damaged(format!("the key {key:?} leads outside of its backup"))),
    }
}

/// An object that is open.
pub trait Opened: Debug + Send + Sync {
    /// Its size in bytes when it was opened.
    fn size(&self) -> u64;

    /// Some of its bytes; fewer if it ends before.
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>>;
}

/// An object that is being written, by a thread that may block. If it is dropped before its end, a
/// part of it may remain.
pub trait Created: Write + Send {
    /// Finishes the object. After the return, it survives a power failure.
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
    /// Its size in bytes.
    pub size: u64,
}

/// The properties of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its size in bytes.
    pub size: u64,
    /// When it was written, if known.
    pub modified: Option<SystemTime>,
}

/// The entries at the top of a place, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Top {
    /// The prefixes that have objects below them.
    pub prefixes: Vec<String>,
    /// The names of objects.
    pub objects: Vec<String>,
}

/// A lock on a place, released when it is dropped or its process ends.
#[derive(Debug)]
pub struct Lock(Option<Box<dyn Held>>);

/// What is held while a [`Lock`] exists.
trait Held: Any + Debug + Send + Sync {}

impl<T: Any + Debug + Send + Sync> Held for T {}

impl Lock {
    /// A lock that keeps nobody out.
    pub(super) fn none() -> Self {
        Self(None)
    }

    fn of(held: impl Any + Debug + Send + Sync) -> Self {
        Self(Some(Box::new(held)))
    }

    /// Whether it keeps anyone out. Not if the backend has no locks.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.is_some()
    }
}

/// How a lock combines with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// It is the only one.
    Exclusive,
    /// Other shared locks may exist beside it.
    Shared,
}

/// What is at a path that a user gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    /// Nothing.
    Nothing,
    /// A place of objects.
    Place,
    /// Something else, for example a file.
    SomethingElse,
}
