//! What is exported, and how.

use crate::engine::Tuning;
use crate::interop::write::Format;
use crate::names::NamespaceFilter;

/// What is exported, and how.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// The format.
    pub format: Format,
    /// The level of gzip, one of [`LEVELS`](crate::interop::write::LEVELS); not compressed without.
    pub gzip: Option<u32>,
    /// Of the backup, these namespaces.
    pub filter: NamespaceFilter,
    /// Whether an archive may take the place of a file or be written to a device or pipe, and the files of a directory those of a dump that is there.
    pub force: bool,
    /// Whether there is an oplog in any case: an empty one where the backup needs none.
    pub oplog: bool,
    /// What comes before the backup's collections and is no part of a backup.
    pub beside: Vec<Beside>,
    /// How much of the machine it may use.
    pub tuning: Tuning,
}

/// What an export has beside a backup's collections, such as users and roles.
#[derive(Debug, Clone)]
pub struct Beside {
    /// The database with whose collections it comes.
    pub database: String,
    /// Its name there.
    pub name: String,
    /// Its documents, one after the other.
    pub documents: Vec<u8>,
}

impl ExportOptions {
    /// All of a backup in this format, not compressed.
    #[must_use]
    pub fn of(format: Format) -> Self {
        Self {
            format,
            gzip: None,
            filter: NamespaceFilter::default(),
            force: false,
            oplog: false,
            beside: Vec::new(),
            tuning: Tuning::default(),
        }
    }
}
