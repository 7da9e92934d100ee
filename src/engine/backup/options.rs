//! What to back up, and how.

use crate::engine::Tuning;
use crate::names::NamespaceFilter;
use crate::source::discover::Documents;

/// What to back up, and how.
#[derive(Debug, Clone, Default)]
pub struct BackupOptions {
    /// Which namespaces. If it names no database, the one in the URI's path; if that names none,
    /// all but `admin`, `local`, `config`.
    pub filter: NamespaceFilter,
    /// Don't fail if a name or pattern matches nothing, or if the backup would be empty.
    pub allow_empty: bool,
    /// Don't fail if an exclude pattern matches nothing.
    pub idle_excludes: bool,
    /// Remove everything if the backup is interrupted, however much is stored: nobody will resume
    /// it.
    pub discard_unfinished: bool,
    /// Which documents of the selected collections. Unless all, an unfinished backup is never kept.
    pub documents: Documents,
    /// Read a replica set that can show no consistency point all the same.
    pub allow_inconsistent: bool,
    /// Allow other backups of the same source at the same time.
    pub allow_concurrent: bool,
    /// Taken beside others without being asked for: it does not hold the source lock, so that
    /// nobody has to wait for it.
    pub is_background: bool,
    /// The service's job that runs the backup. Backups that wait for it name it.
    pub job: Option<String>,
    /// How much of the machine it may use.
    pub tuning: Tuning,
}

impl BackupOptions {
    /// Whether an interrupted backup may be resumed.
    pub(super) fn may_be_resumed(&self) -> bool {
        !self.discard_unfinished && self.documents == Documents::All
    }
}
