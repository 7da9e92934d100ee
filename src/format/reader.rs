//! What a reader of a backup leaves in its directory while it reads, so that nobody deletes it meanwhile: `reader.ID.json`, renewed while it
//! reads and removed at its end.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// How often it is renewed, in seconds.
pub const HEARTBEAT_SECONDS: u64 = 5;

/// How far from now a heartbeat may be before its reader counts as gone.
const STALE: TimeDelta = TimeDelta::seconds(30);

/// The largest one that is read.
pub const LIMIT: u64 = 16 * 1024;

/// One that reads a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reader {
    /// The host it runs on.
    pub host: String,
    /// The process there.
    pub process: u32,
    /// What it reads for: `import`, `export`, `verify`, `test restore`, `download`.
    pub purpose: String,
    /// It keeps a lock on the directory, too: where that machine's processes find none, this one is gone.
    pub locked: bool,
    /// When it began.
    pub since: DateTime<Utc>,
    /// When this was written.
    pub heartbeat: DateTime<Utc>,
}

impl Reader {
    /// Whether the process that wrote it can be taken to be alive. One from the future is not, beyond what clocks may differ: it would keep a
    /// backup for good.
    #[must_use]
    pub fn is_alive(&self, now: DateTime<Utc>) -> bool {
        now.signed_duration_since(self.heartbeat).abs() < STALE
    }
}

impl std::fmt::Display for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by process {} on {}", self.purpose, self.process, self.host)
    }
}
