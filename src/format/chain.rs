//! The archive of an oplog: a chain of links, each with the entries of about an hour, and the
//! pieces of the current hour. FORMAT.md describes it.
//!
//! Every part says which entry it follows, and contains the SHA-256 of the part
//! before it. So a part that is missing, changed, or exchanged for another one is found.

mod index;
mod link;
mod piece;

use chrono::{DateTime, TimeDelta, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::index::{Burst, CollectionCounts, Ddl, FrameRecord, IndexRecord, Minute};
pub use self::link::{LINK_LIMIT, Link, Previous};
pub use self::piece::{PIECE_LIMIT, Piece, PieceHeader};
use super::digest::Sha256Hex;
use super::manifest::{ClusterTime, Source};
use super::sealed;
use crate::error::{Error, ErrorKind, Result};

/// The version of the format of an archive: that in which it was added.
pub const CHAIN_VERSION: u32 = 4;

/// The largest `chain.json` and `archiver.json` that are read, in bytes.
pub const CHAIN_LIMIT: u64 = 1024 * 1024;

/// `chain.json`: what an archive is of. It holds its own SHA-256.
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
/// loss of the newest pieces is found. It holds its own SHA-256.
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
    /// Its SHA-256, because no later piece names it yet.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub piece_sha256: Option<Sha256Hex>,
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
    /// [`ErrorKind::Damaged`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        unsealed("archiver.json", bytes)
    }

    /// `archiver.json`, with its own digest.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        sealed_json("archiver.json", self)
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
    /// [`ErrorKind::Damaged`] if it cannot be read, or is of a
    /// later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let config: Self = unsealed("chain.json", bytes)?;
        known("chain.json", config.format_version)?;
        if !is_replica_set_id(&config.replica_set_id) {
            return Err(Error::damaged(format!("chain.json names the replica set ID {:?}", config.replica_set_id)));
        }
        Ok(config)
    }

    /// `chain.json`, with its own digest.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        sealed_json("chain.json", self)
    }
}

/// A small file with the SHA-256 of its own bytes, with these 64 digits set to 0.
#[derive(Serialize, Deserialize)]
struct Sealed<T> {
    #[serde(flatten)]
    value: T,
    sha256: Sha256Hex,
}

fn sealed_json<T: Serialize>(name: &str, value: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(&Sealed { value, sha256: Sha256Hex::zero() })
        .map_err(|e| Error::new(ErrorKind::Internal, format!("{name} cannot be written")).cause(e))?;
    bytes.push(b'\n');
    sealed::seal(&mut bytes, &Sha256Hex::zero());
    Ok(bytes)
}

fn unsealed<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    let read: Sealed<T> =
        serde_json::from_slice(bytes).map_err(|e| Error::damaged(format!("{name} cannot be read: {e}")).cause(e))?;
    let sha256 = sealed::digest(bytes, &read.sha256);
    if sha256 != read.sha256 {
        return Err(Error::damaged(format!(
            "{name} was changed after it was written: its SHA-256 is {sha256}, expected {}",
            read.sha256
        )));
    }
    Ok(read.value)
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

    fn of(version: u32, id: &str) -> ChainConfig {
        ChainConfig {
            format_version: version,
            replica_set_id: id.to_owned(),
            deployment_id: None,
            replica_set: "rs".to_owned(),
            created: DateTime::UNIX_EPOCH,
            databases: vec!["d".to_owned()],
            first: None,
        }
    }

    #[test]
    fn any_change_of_a_small_file_is_found() {
        let bytes = of(CHAIN_VERSION, "6386c5a0f1d2e3b4a5968778").to_bytes().unwrap();
        assert!(ChainConfig::from_bytes(&bytes).is_ok());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(ChainConfig::from_bytes(&changed).is_err(), "bit {bit} of byte {at}");
            }
            // The end of a line does not matter.
            assert!(at + 1 == bytes.len() || ChainConfig::from_bytes(&bytes[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn a_chain_of_a_later_version_or_of_no_replica_set_is_refused() {
        let config = |version: u32, id: &str| ChainConfig::from_bytes(&of(version, id).to_bytes().unwrap());
        let id = "6386c5a0f1d2e3b4a5968778";
        assert_eq!(config(CHAIN_VERSION, id).unwrap().replica_set_id, id);
        assert!(config(CHAIN_VERSION + 1, id).unwrap_err().to_string().contains("version"));
        for bad in ["", "../x", "6386C5A0F1D2E3B4A5968778"] {
            assert!(config(CHAIN_VERSION, bad).is_err(), "{bad:?}");
        }
    }
}
