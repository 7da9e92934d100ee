//! A directory of this machine. `object_store`'s local file system stages, syncs and renames each
//! object. This module adds what it lacks: modes (0600 in directories of 0700), synced deletes, and
//! locks. It reads only regular files that are reached by no link. Nothing outside this module
//! knows that there is a file system.

mod disk;
mod file;
#[cfg(test)]
pub(crate) mod hang;

use std::collections::HashSet;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutPayload};

use self::file::Root;
use super::{Backend, Created, Entry, Found, Lock, Opened, Sharing, There, Top, inside};
use crate::error::{Error, ErrorKind, Result};

/// How long to wait for a lock: longer than a mere look for a lock holds it.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);

/// The objects of a directory.
#[derive(Debug, Clone)]
pub(super) struct Local {
    inner: Arc<LocalFileSystem>,
    root: PathBuf,
    links: Root,
}

impl Local {
    /// The objects of this directory, which need not exist yet.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let root = disk::absolute(path)?;
        match std::fs::metadata(&root) {
            Ok(found) if !found.is_dir() => {
                return Err(Error::new(ErrorKind::Storage, format!("{} is not a directory", root.display()))
                    .hint("set [[BACKUP_PATH or path]] to a directory"));
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(disk::error("open", &root, e)),
        }
        Ok(Self { inner: Arc::new(disk::file_system()), root, links: Root::Followed })
    }

    /// Does work that may wait for a place, on a thread that may block.
    pub(super) async fn apart<T: Send + 'static>(place: &str, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        disk::blocking(Path::new(place), work).await
    }

    /// What is at a path.
    pub(super) async fn there(path: &str) -> Result<There> {
        disk::there(Path::new(path)).await
    }

    fn at(&self, root: PathBuf) -> Self {
        Self { inner: self.inner.clone(), root, links: Root::Followed }
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        Ok(self.root.join(inside(key)?))
    }

    fn place(&self, key: &str) -> Result<(PathBuf, Key)> {
        let path = self.path(key)?;
        let key = disk::key(&path)?;
        Ok((path, key))
    }
}

impl Backend for Local {
    fn location(&self) -> String {
        self.root.display().to_string()
    }

    fn below(&self, prefix: &str) -> Arc<dyn Backend> {
        Arc::new(self.at(self.root.join(prefix)))
    }

    fn put<'a>(&'a self, key: &'a str, chunks: Vec<Bytes>) -> BoxFuture<'a, Result<()>> {
        async move {
            let (path, key) = self.place(key)?;
            disk::make_parent(&path).await?;
            self.inner.put(&key, PutPayload::from_iter(chunks)).await.map_err(|e| disk::store_error("write", &path, e))?;
            disk::restrict(&path).await
        }
        .boxed()
    }

    fn put_if_absent<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>> {
        async move {
            let (path, key) = self.place(key)?;
            disk::make_parent(&path).await?;
            match self.inner.put_opts(&key, bytes.clone().into(), PutMode::Create.into()).await {
                Ok(_) => {}
                Err(object_store::Error::AlreadyExists { .. }) => return Ok(false),
                // A file system without hard links: two concurrent writers may both succeed there.
                Err(_) if !disk::is_there(&path).await? => {
                    self.inner.put(&key, bytes.into()).await.map_err(|e| disk::store_error("write", &path, e))?;
                }
                Err(_) => return Ok(false),
            }
            disk::restrict(&path).await?;
            Ok(true)
        }
        .boxed()
    }

    fn create(&self, key: &str) -> Result<Box<dyn Created>> {
        disk::create(self.path(key)?)
    }

    fn open<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn Opened>>> {
        async move { Ok(Box::new(file::open(self.root.clone(), inside(key)?, self.links).await?) as Box<dyn Opened>) }.boxed()
    }

    fn look<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Found>> {
        async move { file::look(self.root.clone(), inside(key)?, self.links).await }.boxed()
    }

    fn list(&self) -> BoxStream<'_, Result<Entry>> {
        disk::list(&self.root)
    }

    fn top(&self) -> BoxFuture<'_, Result<Top>> {
        disk::top(&self.root).boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move { disk::remove(&self.path(key)?).await }.boxed()
    }

    fn claim(&self) -> BoxFuture<'_, Result<()>> {
        disk::claim(&self.root).boxed()
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, Result<()>> {
        async move { disk::rename(self.path(from)?, self.path(to)?).await }.boxed()
    }

    fn leave_note(&self, key: &str, bytes: &[u8]) -> Result<()> {
        disk::leave_note(&self.root, inside(key)?, bytes)
    }

    fn take_note_away(&self, key: &str) -> Result<()> {
        disk::take_note_away(&self.root, inside(key)?)
    }

    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        async move { file::read(self.root.clone(), inside(key)?, self.links).await }.boxed()
    }

    fn resolved(&self) -> BoxFuture<'_, Result<Option<Arc<dyn Backend>>>> {
        async move {
            let real = disk::resolved(&self.root).await?;
            Ok(real.map(|root| Arc::new(self.at(root)) as Arc<dyn Backend>))
        }
        .boxed()
    }

    fn strict(&self) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Self { links: Root::Plain, ..self.clone() }))
    }

    fn exists(&self) -> BoxFuture<'_, Result<bool>> {
        disk::is_there(&self.root).boxed()
    }

    fn delete_all(&self) -> BoxFuture<'_, Result<()>> {
        disk::remove_tree(&self.root).boxed()
    }

    fn sweep(&self, keep: HashSet<String>) -> BoxFuture<'_, Result<usize>> {
        disk::sweep(&self.root, keep).boxed()
    }

    fn measure(&self) -> BoxFuture<'_, Result<(u64, Option<SystemTime>)>> {
        disk::measure(&self.root).boxed()
    }

    fn try_write(&self) -> BoxFuture<'_, Result<()>> {
        disk::try_write(&self.root).boxed()
    }

    fn free_space(&self) -> Option<u64> {
        disk::free_space(&self.root)
    }

    fn lock(&self, sharing: Sharing) -> BoxFuture<'_, Result<Option<Lock>>> {
        disk::lock(&self.root, sharing, LOCK_PATIENCE).boxed()
    }

    fn is_locked(&self) -> BoxFuture<'_, Option<bool>> {
        disk::is_locked(&self.root).boxed()
    }

    fn until_dropped(&self) -> Box<dyn Debug + Send + Sync> {
        Box::new(disk::Passing::at(&self.root))
    }

    fn covers(&self, path: &Path) -> bool {
        // A path that does not exist is reported later.
        matches!((path.canonicalize(), self.root.canonicalize()), (Ok(path), Ok(own)) if path.starts_with(&own))
    }
}
