//! What to export, and how.

use crate::engine::Tuning;
use crate::interop::write::Format;
use crate::names::NamespaceFilter;

/// What to export, and how.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// The format.
    pub format: Format,
    /// The level of gzip, one of [`LEVELS`](crate::interop::write::LEVELS). Without it, the export
    /// is not compressed.
    pub gzip: Option<u32>,
    /// The namespaces of the backup to export.
    pub filter: NamespaceFilter,
    /// Whether the export may overwrite: an archive may replace a file or be written to a device or
    /// pipe, and a directory may replace the files of a dump.
    pub force: bool,
    /// Whether to write an oplog in any case: an empty one if the backup needs none.
    pub oplog: bool,
    /// What precedes the backup's collections and is not part of a backup.
    pub beside: Vec<Beside>,
    /// How much of the machine it may use.
    pub tuning: Tuning,
}

/// Part of an export that is not a collection of the backup: users and roles.
#[derive(Debug, Clone)]
pub struct Beside {
    /// The database that it belongs to.
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
