//! A place in a repository for temporary data.

use std::fmt::Debug;

use super::Repository;
use super::backend::{Lock, Objects};
use super::layout::SCRATCH;
use crate::error::Result;

/// A place that is removed with everything in it, and with the parents created for it: by
/// [`remove`](Self::remove), or else when it is dropped.
#[derive(Debug)]
pub struct Scratch {
    of: Repository,
    name: String,
    objects: Objects,
    /// Dropped after the lock is released.
    _guard: Box<dyn Debug + Send + Sync>,
    lock: Option<Lock>,
}

impl Scratch {
    /// Makes one in `repository`, which need not exist. Removes those that crashed processes left.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage), with a hint if the path is not
    /// writable.
    pub async fn make(repository: &Repository) -> Result<Self> {
        for name in repository.objects().top().await?.prefixes.into_iter().filter(|name| name.starts_with(SCRATCH)) {
            let left = repository.objects().below(&name);
            // One that is gone, or in use by others.
            if let Ok(Some(lock)) = left.lock().await
                && lock.holds()
            {
                (*left).delete_all().await?;
            }
        }
        let name = format!("{SCRATCH}{}", uuid::Uuid::new_v4().simple());
        let objects = repository.objects().below(&name);
        let guard = objects.until_dropped();
        let mut scratch = Self { of: repository.clone(), name, objects, _guard: guard, lock: None };
        scratch.objects.claim().await?;
        scratch.lock = scratch.objects.lock().await?;
        Ok(scratch)
    }

    /// Where to put data.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Moves everything below a prefix into the repository, under the same name.
    ///
    /// # Errors
    /// Those of [`rename`](super::backend::Backend::rename).
    pub async fn keep(&self, prefix: &str) -> Result<()> {
        self.of.objects().rename(&format!("{}/{prefix}", self.name), prefix).await
    }

    /// Removes it.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage) if something remains.
    pub async fn remove(mut self) -> Result<()> {
        self.lock = None;
        (*self.objects).delete_all().await
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn repository(root: &Path) -> Repository {
        Repository::open(root.to_str().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn nothing_stays_of_it_however_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        for by_drop in [false, true] {
            let scratch = Scratch::make(&repository(&directory.path().join("a/b"))).await.unwrap();
            scratch.objects().put("x", vec![bytes::Bytes::from_static(b"x")]).await.unwrap();
            assert!(directory.path().join("a/b").is_dir());
            if by_drop {
                drop(scratch)
            } else {
                scratch.remove().await.unwrap()
            }
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }

    #[tokio::test]
    async fn what_was_there_stays_and_what_a_crash_left_goes() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join(format!("{SCRATCH}1"));
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("half"), "x").unwrap();
        let in_use = directory.path().join(format!("{SCRATCH}2"));
        std::fs::create_dir(&in_use).unwrap();
        let held = repository(&in_use).objects().lock().await.unwrap();
        let scratch = Scratch::make(&repository(directory.path())).await.unwrap();
        assert!(!left.exists() && in_use.exists());
        scratch.remove().await.unwrap();
        assert!(held.is_some() && in_use.exists());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
