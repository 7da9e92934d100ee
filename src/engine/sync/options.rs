//! What to follow, and how.

use std::time::Duration;

use crate::engine::Tuning;
use crate::engine::archive::ArchiveOptions;
use crate::engine::import::ImportMode;
use crate::error::Result;
use crate::names::{Namespace, NamespaceFilter, NamespaceRename, SYNC_DATABASE};

/// How often a target is proven if nothing else is said.
pub const PROOF: Duration = Duration::from_secs(24 * 60 * 60);

/// What to follow, and how.
#[derive(Debug, Clone)]
pub struct SyncOptions {
    /// Which namespaces of the source are followed.
    pub filter: NamespaceFilter,
    /// Namespaces that get another name. If several rules match, the first counts.
    pub renames: Vec<NamespaceRename>,
    /// The backup to begin with. By default the newest from which the archive reaches the present.
    /// If there is none, the source is copied straight into the target.
    pub from: Option<String>,
    /// If there is none, the archive takes one, and the first copy is made from that.
    pub keep_backup: bool,
    /// What happens to what exists in the target when the first copy is made.
    pub mode: ImportMode,
    /// How far the target stays behind on purpose.
    pub delay: Option<Duration>,
    /// How often the target is proven; never by itself if `None`.
    pub proof: Option<Duration>,
    /// How the source's oplog is archived.
    pub archive: ArchiveOptions,
    /// How much of the machine the first copy may use.
    pub tuning: Tuning,
}

impl Default for SyncOptions {
    /// Everything, as soon as possible, proven once a day.
    fn default() -> Self {
        Self {
            filter: NamespaceFilter::default(),
            renames: Vec::new(),
            from: None,
            keep_backup: false,
            mode: ImportMode::default(),
            delay: None,
            proof: Some(PROOF),
            archive: ArchiveOptions::default(),
            tuning: Tuning::default(),
        }
    }
}

impl SyncOptions {
    /// Whether the first copy may come straight from the source.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.from.is_none() && !self.keep_backup
    }

    /// Whether a namespace of the source is followed.
    #[must_use]
    pub fn wants(&self, namespace: &Namespace) -> bool {
        // A source may be a copy of another one, and say so of itself.
        namespace.database != SYNC_DATABASE && self.filter.takes(namespace)
    }

    /// The name of a namespace in the target.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if it would get a name that no server
    /// accepts.
    pub fn name(&self, namespace: &Namespace) -> Result<Namespace> {
        for rename in &self.renames {
            if let Some(new) = rename.apply(namespace)? {
                return Ok(new);
            }
        }
        Ok(namespace.clone())
    }

    /// What is followed under which names, as text that is compared when it goes on.
    #[must_use]
    pub fn selection(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.filter.databases.iter().map(|database| format!("database {database}")));
        parts.extend(self.filter.include.iter().map(|pattern| format!("include {}", pattern.as_str())));
        parts.extend(self.filter.exclude.iter().map(|pattern| format!("exclude {}", pattern.as_str())));
        parts.extend(self.renames.iter().map(|rename| format!("rename {}", rename.as_str())));
        if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
    }
}
