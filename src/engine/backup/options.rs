//! What to back up, and how.

use crate::engine::Tuning;
use crate::names::NamespaceFilter;
use crate::source::discover::Documents;

/// What to back up, and how.
#[derive(Debug, Clone, Default)]
pub struct BackupOptions {
    /// Where it names no database, the one in the URI's path; where that names none, all but `admin`, `local`, `config`.
    pub filter: NamespaceFilter,
    /// A name or a pattern that matches nothing, and nothing at all, are no errors.
    pub allow_empty: bool,
    /// A pattern that keeps out what is not there is no error.
    pub idle_excludes: bool,
    /// A backup that is interrupted leaves nothing, however much it had stored: nobody will resume it.
    pub discard_unfinished: bool,
    /// Which documents of what is selected; if not all, an unfinished backup is never kept.
    pub documents: Documents,
    /// A replica set that cannot be read at one moment is read without.
    pub allow_inconsistent: bool,
    /// Other backups of the same source may run beside it.
    pub allow_concurrent: bool,
    /// The job of the service that it is the work of: those whom it keeps waiting are told.
    pub job: Option<String>,
    /// How much of the machine it may use.
    pub tuning: Tuning,
}

impl BackupOptions {
    /// Whether what an interrupted backup stored may be gone on with.
    pub(super) fn may_be_resumed(&self) -> bool {
        !self.discard_unfinished && self.documents == Documents::All
    }
}
