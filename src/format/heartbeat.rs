//! The heartbeat of a running backup: `progress.json` in its directory, renewed while it runs and
//! removed at its end. It is how `list` distinguishes a running backup from leftovers of a crash.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::manifest::ClusterTime;

/// How often it is renewed, in seconds.
pub const HEARTBEAT_SECONDS: u64 = 2;

/// The maximum age of a heartbeat before its process counts as dead.
const STALE: TimeDelta = TimeDelta::seconds(30);

/// A running backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The version of the format being written.
    pub format_version: u32,
    /// The host it runs on.
    pub host: String,
    /// The process ID there.
    pub process: u32,
    /// The source's hosts, `host:port` in lower case: as the deployment names its members, and as
    /// its URI does.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub source: Vec<String>,
    /// The service's job that runs it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub job: Option<String>,
    /// Whether it still checks for another backup of the same source, and gives way if there is
    /// one.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub undecided: bool,
    /// Whether its process locks the directory. If no process of that machine holds the lock, it is
    /// dead.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub locked: bool,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When this was written.
    pub heartbeat: DateTime<Utc>,
    /// The snapshot time of its reads, once known.
    pub snapshot_time: Option<ClusterTime>,
    /// The time up to which the oplog is kept, if it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oplog_time: Option<ClusterTime>,
    /// Ranges whose documents are all stored.
    pub ranges_done: u64,
    /// The total number of ranges.
    pub ranges: u64,
    /// Documents stored.
    pub documents: u64,
    /// Their bytes, uncompressed.
    pub raw_bytes: u64,
}

impl Heartbeat {
    /// Whether its process counts as alive, by the heartbeat alone.
    #[must_use]
    pub fn is_alive(&self, now: DateTime<Utc>) -> bool {
        now.signed_duration_since(self.heartbeat) < STALE
    }
}
