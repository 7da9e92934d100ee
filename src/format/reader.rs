//! The read lock of a backup: `reader.ID.json` in its directory, which prevents its deletion. It is
//! renewed while the reader reads, and removed at its end.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// How often it is renewed, in seconds.
pub const HEARTBEAT_SECONDS: u64 = 5;

/// The maximum distance of a heartbeat from now before its reader counts as dead.
const STALE: TimeDelta = TimeDelta::seconds(30);

/// The largest one that is read.
pub const LIMIT: u64 = 16 * 1024;

/// A reader of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reader {
    /// The host it runs on.
    pub host: String,
    /// The process ID there.
    pub process: u32,
    /// Its purpose: `import`, `export`, `verify`, `test restore`, `download`.
    pub purpose: String,
    /// Whether it also locks the directory. If no process of that machine holds the lock, it is
    /// dead.
    pub locked: bool,
    /// When it began.
    pub since: DateTime<Utc>,
    /// When this was written.
    pub heartbeat: DateTime<Utc>,
}

impl Reader {
    /// Whether its process counts as alive. One from the future does not, beyond a tolerance for
    /// clocks: it would keep a backup forever.
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
