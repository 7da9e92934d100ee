//! Where the objects of a backup lie on the disk, for tests that look at files or damage them.

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
