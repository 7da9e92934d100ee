//! A complete backup.

use crate::format::manifest::Manifest;
use crate::repository::backend::Objects;

/// A complete backup, its manifest read and verified.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Its directory.
    pub store: Objects,
    /// Its manifest, with the name that it was given when it was made. The directory may have been
    /// renamed since.
    pub manifest: Manifest,
}

impl Backup {
    /// Its location, for people.
    #[must_use]
    pub fn location(&self) -> String {
        self.store.location()
    }
}
