//! What a running backup tells others about itself: `progress.json` in its directory, renewed while it runs and removed at
//! its end. It is how `list` tells a running backup from one that a crash left.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::manifest::ClusterTime;

/// How often it is renewed, in seconds.
pub const HEARTBEAT_SECONDS: u64 = 2;

/// How old a heartbeat may be before its process counts as gone.
const STALE: TimeDelta = TimeDelta::seconds(30);

/// A running backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The version of the format being written.
    pub format_version: u32,
    /// The host it runs on.
    pub host: String,
    /// The process there.
    pub process: u32,
    /// The source's hosts, `host:port` in lower case: as the deployment names its members, and as its URI does.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub source: Vec<String>,
    /// The job of the service that it is the work of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub job: Option<String>,
    /// It still looks whether another backup of that source runs, and gives way if so.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub undecided: bool,
    /// Its process keeps a lock on the directory: where that machine's processes find none, this one is gone.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub locked: bool,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When this was written.
    pub heartbeat: DateTime<Utc>,
    /// The time that its reads share, once it is known.
    pub snapshot_time: Option<ClusterTime>,
    /// Up to where the oplog is kept, where it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oplog_time: Option<ClusterTime>,
    /// Ranges whose documents are all stored.
    pub ranges_done: u64,
    /// Ranges in all.
    pub ranges: u64,
    /// Documents stored.
    pub documents: u64,
    /// Their bytes, uncompressed.
    pub raw_bytes: u64,
}

impl Heartbeat {
    /// Whether the process that wrote it can be taken to be alive, by the heartbeat alone.
    #[must_use]
    pub fn is_alive(&self, now: DateTime<Utc>) -> bool {
        now.signed_duration_since(self.heartbeat) < STALE
    }
}
