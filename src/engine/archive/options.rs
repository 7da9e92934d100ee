//! What to archive, and how.

use std::time::Duration;

use chrono::TimeDelta;

use crate::engine::backup::BackupOptions;
use crate::format::frame::Compression;
use crate::format::manifest::ClusterTime;

/// What to archive, and how.
#[derive(Debug, Clone)]
pub struct ArchiveOptions {
    /// The databases whose entries are kept; empty for everything.
    pub databases: Vec<String>,
    /// Where a new archive begins, if the source's oplog still has that. By default, it begins now.
    pub since: Option<ClusterTime>,
    /// How long an entry may wait until it is made durable.
    pub age: Duration,
    /// How long a link is: pieces of this time become one.
    pub roll: Duration,
    /// How entries are compressed.
    pub compression: Compression,
    /// The window: links out of it are removed, unless a backup needs them. `None` removes none.
    pub keep: Option<TimeDelta>,
    /// How base backups are taken. `None` takes none.
    pub bases: Option<BackupOptions>,
    /// A base is taken early if a replay would take longer than this.
    pub max_replay: Duration,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        Self {
            databases: Vec::new(),
            since: None,
            age: Duration::from_millis(900),
            roll: Duration::from_secs(3600),
            compression: Compression::of(3),
            keep: None,
            bases: Some(BackupOptions::default()),
            max_replay: Duration::from_secs(15 * 60),
        }
    }
}
