//! A backup that was found complete.

use crate::format::manifest::Manifest;
use crate::repository::backend::Objects;

/// A complete backup, its manifest read and proven.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Its directory.
    pub store: Objects,
    /// Its manifest. The name in it is the one it was given when it was made; the directory's may be another since.
    pub manifest: Manifest,
}

impl Backup {
    /// Where it is, as a person would name it.
    #[must_use]
    pub fn location(&self) -> String {
        self.store.location()
    }
}
