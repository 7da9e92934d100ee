//! The archive of an oplog: a chain of links, each with the entries of about an hour, and the
//! pieces of the current hour. FORMAT.md describes it.
//!
//! Every part says which entry it follows, and contains the SHA-256 of the part
//! before it. So a part that is missing, changed, or exchanged for another one is found.

mod index;
mod link;
mod piece;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

pub use self::index::{Burst, CollectionCounts, Ddl, FrameRecord, IndexRecord, Minute};
pub use self::link::{LINK_LIMIT, Link, Previous};
pub use self::piece::{PIECE_LIMIT, Piece, PieceHeader};
use super::manifest::{ClusterTime, Source};
use crate::error::{Error, Result};

/// The version of the format of an archive: that in which it was added.
pub const CHAIN_VERSION: u32 = 4;

/// The largest `chain.json` and `archiver.json` that are read, in bytes.
pub const CHAIN_LIMIT: u64 = 1024 * 1024;

/// `chain.json`: what an archive is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainConfig {
    /// The version of the format.
    pub format_version: u32,
    /// The replica set's ID, 24 hexadecimal digits, or the deployment's ID if the login may not
    /// read that: also the name of its directory.
    pub replica_set_id: String,
    /// The replica set's name.
    pub replica_set: String,
    /// The deployment's ID: that of backups whose login could not read the replica set's ID.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deployment_id: Option<String>,
    /// When it was begun.
    pub created: DateTime<Utc>,
    /// The databases whose entries are kept; empty for every entry of the oplog.
    #[serde(default)]
    pub databases: Vec<String>,
    /// The oldest link that counts, by its name, once older ones were removed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first: Option<String>,
}

/// A part of the oplog that the archive does not have, and never will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// The last entry before it: times up to here are on its near side.
    pub from: ClusterTime,
    /// Where the archive goes on: times from here on are on its far side.
    pub to: ClusterTime,
    /// Why, in words.
    pub reason: String,
    /// When it was found.
    pub found: DateTime<Utc>,
}

impl Gap {
    /// Whether a time is inside.
    #[must_use]
    pub fn holds(&self, time: ClusterTime) -> bool {
        self.from < time && time < self.to
    }
}

/// `archiver.json`: the process that writes an archive, renewed while it runs. It is also how the
/// loss of the newest pieces is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Archiver {
    /// The version of the format.
    pub format_version: u32,
    /// Its host.
    pub host: String,
    /// Its process ID there.
    pub process: u32,
    /// Distinguishes it from every other one.
    pub id: uuid::Uuid,
    /// Whether its process holds a lock (`flock`) on `open`.
    #[serde(default)]
    pub locked: bool,
    /// When it began.
    pub started: DateTime<Utc>,
    /// When this was written.
    pub heartbeat: DateTime<Utc>,
    /// Whether it has ended, in order.
    #[serde(default)]
    pub ended: bool,
    /// What it does, in one word: `following`, `waiting` for the source, or `starting`.
    pub state: String,
    /// Why it waits, if it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<String>,
    /// The last entry that is durable.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub position: Option<ClusterTime>,
    /// The source's operation time when it was last read to its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source_time: Option<ClusterTime>,
    /// The oldest entry of the source's oplog.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oldest: Option<ClusterTime>,
    /// The number of the newest piece.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub piece: Option<u64>,
}

/// The age at which a heartbeat counts as that of a dead process.
const STALE: TimeDelta = TimeDelta::seconds(30);

impl Archiver {
    /// Whether its process counts as alive, by the heartbeat alone.
    #[must_use]
    pub fn is_alive(&self, now: DateTime<Utc>) -> bool {
        !self.ended && now.signed_duration_since(self.heartbeat) < STALE
    }

    /// Parses `archiver.json`.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|e| Error::damaged(format!("archiver.json cannot be read: {e}")).cause(e))
    }
}

/// `replay.json`: how fast entries were replayed the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayRate {
    /// The entries that were replayed.
    pub entries: u64,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

impl ReplayRate {
    /// The rate if nothing was measured: fewer entries a second than were ever measured.
    const UNKNOWN: u64 = 20_000;
    /// Fewer entries than this say nothing about many.
    const ENOUGH: u64 = 10_000;

    /// How many seconds it takes to replay so many entries.
    #[must_use]
    pub fn seconds(measured: Option<Self>, entries: u64) -> u64 {
        let measured = measured.filter(|rate| rate.entries >= Self::ENOUGH && rate.milliseconds > 0);
        let rate = measured.map_or(Self::UNKNOWN, |rate| (rate.entries.saturating_mul(1000) / rate.milliseconds).max(1));
        entries.div_ceil(rate)
    }
}

impl ChainConfig {
    /// Whether it is of the deployment that a backup came from.
    #[must_use]
    pub fn is_of(&self, source: &Source) -> bool {
        let ids = [source.replica_set_id.as_deref(), source.deployment_id.as_deref()];
        ids.into_iter().flatten().any(|id| id == self.replica_set_id || Some(id) == self.deployment_id.as_deref())
    }

    /// Parses `chain.json`.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if it cannot be read, or is of a
    /// later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let config: Self =
            serde_json::from_slice(bytes).map_err(|e| Error::damaged(format!("chain.json cannot be read: {e}")).cause(e))?;
        known("chain.json", config.format_version)?;
        if !is_replica_set_id(&config.replica_set_id) {
            return Err(Error::damaged(format!("chain.json names the replica set ID {:?}", config.replica_set_id)));
        }
        Ok(config)
    }
}

/// Whether this can be the ID of a replica set, 24 hexadecimal digits, or of a deployment, a UUID.
#[must_use]
pub fn is_replica_set_id(text: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (text.len() == 24 && is_hex(text)) || (text.len() == 36 && is_hex(&text.replace('-', "")))
}

/// The name of a link that begins at this time: `2026-11-28T14-00-00Z`.
#[must_use]
pub fn link_name(time: ClusterTime) -> String {
    match DateTime::<Utc>::from_timestamp(i64::from(time.t), 0) {
        Some(time) => time.format("%Y-%m-%dT%H-%M-%SZ").to_string(),
        None => format!("{}", time.t),
    }
}

/// Whether a directory of an archive may have a link in it.
#[must_use]
pub fn is_link_name(name: &str) -> bool {
    name.len() >= 20 && name.as_bytes()[4] == b'-' && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

fn known(what: &str, version: u32) -> Result<()> {
    match version {
        CHAIN_VERSION => Ok(()),
        _ => Err(Error::damaged(format!(
            "{what} is of format version {version}, and this program reads archives of version {CHAIN_VERSION}"
        ))
        .hint("use the version of bsonvault that wrote it, or a newer one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_named_by_the_second_it_begins_in() {
        let name = link_name(ClusterTime { t: 1_795_383_900, i: 7 });
        assert_eq!(name, "2026-11-22T21-45-00Z");
        assert!(is_link_name(&name) && is_link_name(&format!("{name}-2")));
        for other in ["open", "chain.json", "", "2026", "atlas-backup-x/y-1234567890"] {
            assert!(!is_link_name(other), "{other:?}");
        }
    }

    #[test]
    fn the_ends_of_a_gap_are_outside_of_it() {
        let time = |t, i| ClusterTime { t, i };
        let gap = Gap { from: time(10, 2), to: time(20, 1), reason: String::new(), found: DateTime::UNIX_EPOCH };
        for (inside, at) in
            [(false, time(10, 2)), (true, time(10, 3)), (true, time(20, 0)), (false, time(20, 1)), (false, time(21, 0))]
        {
            assert_eq!(gap.holds(at), inside, "{at}");
        }
    }

    #[test]
    fn a_chain_of_a_later_version_or_of_no_replica_set_is_refused() {
        let config = |version: u32, id: &str| {
            let text = format!(
                r#"{{"formatVersion":{version},"replicaSetId":"{id}","replicaSet":"rs","created":"2026-01-01T00:00:00Z"}}"#
            );
            ChainConfig::from_bytes(text.as_bytes())
        };
        let id = "6386c5a0f1d2e3b4a5968778";
        assert_eq!(config(CHAIN_VERSION, id).unwrap().replica_set_id, id);
        assert!(config(CHAIN_VERSION + 1, id).unwrap_err().to_string().contains("version"));
        for bad in ["", "../x", "6386C5A0F1D2E3B4A5968778"] {
            assert!(config(CHAIN_VERSION, bad).is_err(), "{bad:?}");
        }
    }
}
