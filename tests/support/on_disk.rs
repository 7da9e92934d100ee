//! The paths of a backup's objects on disk, for tests that inspect files or damage them.

use std::path::PathBuf;

use bsonvault::repository::backend::Objects;

pub trait OnDisk {
    fn directory(&self) -> PathBuf;
}

impl OnDisk for Objects {
    fn directory(&self) -> PathBuf {
        self.location().into()
    }
}
