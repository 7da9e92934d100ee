//! A place in a store for what is to stay no longer than it is looked at.

use std::path::{Path, PathBuf};

use super::{Store, local};
use crate::error::Result;

/// What the names of all scratch directories begin with. No backup is named so.
const PREFIX: &str = ".bsonvault-scratch-";

/// A directory below a store's root, removed with all in it, and with the directories that were made for it: by [`remove`](Self::remove), and where
/// that was not reached, when it is dropped.
#[derive(Debug)]
pub struct Scratch {
    store: Store,
    /// The directories that were not there, the innermost first.
    made: Vec<PathBuf>,
    lock: Option<local::Lock>,
}

impl Scratch {
    /// Makes one below the root of `store`, which need not exist. What others left there that live no more is removed.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage), with what to do where the path cannot be written.
    pub async fn make(store: &Store) -> Result<Self> {
        for name in store.prefixes().await?.into_iter().filter(|name| name.starts_with(PREFIX)) {
            let left = store.below(&name);
            // One that is gone, or another's.
            if let Ok(Some(lock)) = left.lock().await
                && lock.holds()
            {
                local::remove_tree(&left.root).await?;
            }
        }
        let own = store.below(&format!("{PREFIX}{}", uuid::Uuid::new_v4().simple()));
        let made = own.root.ancestors().take_while(|d| !d.exists()).map(Path::to_owned).collect();
        let mut scratch = Self { store: own, made, lock: None };
        local::make_parent(&scratch.store.root.join("any")).await?;
        scratch.lock = scratch.store.lock().await?;
        Ok(scratch)
    }

    /// Where to put things.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Removes it.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage) where something stays.
    pub async fn remove(mut self) -> Result<()> {
        self.lock = None;
        local::remove_tree(&self.store.root).await?;
        // A directory that others use by now is not empty, and stays.
        self.remove_made();
        Ok(())
    }

    fn remove_made(&mut self) {
        for directory in self.made.drain(..) {
            let _may_be_in_use = std::fs::remove_dir(directory);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _may_be_gone = std::fs::remove_dir_all(&self.store.root);
        self.remove_made();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(root: &Path) -> Store {
        Store::open(root.to_str().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn nothing_stays_of_it_however_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        for by_drop in [false, true] {
            let scratch = Scratch::make(&store(&directory.path().join("a/b"))).await.unwrap();
            scratch.store().put("x", vec![bytes::Bytes::from_static(b"x")]).await.unwrap();
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
        let left = directory.path().join(format!("{PREFIX}1"));
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("half"), "x").unwrap();
        let in_use = directory.path().join(format!("{PREFIX}2"));
        std::fs::create_dir(&in_use).unwrap();
        let held = store(&in_use).lock().await.unwrap();
        let scratch = Scratch::make(&store(directory.path())).await.unwrap();
        assert!(!left.exists() && in_use.exists());
        scratch.remove().await.unwrap();
        assert!(held.is_some() && in_use.exists());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
