//! The checkpoint of an unfinished backup, from which it can be resumed: small numbered objects
//! beside its segments, `resume.00000.json` and so on. The first one describes what is read and
//! how, each next one what has become durable since.

use bson::RawDocumentBuf;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::digest::ContentDigest;
use super::key;
use super::manifest::{
    ClusterTime, CollectionKind, ConsistencyKind, FORMAT_VERSION, LeftOut, NEWEST_VERSION, OplogPosition, Segment, Settings,
    Source, base64_document,
};
use crate::error::{Error, ErrorKind, Result};

/// The plan of a backup: the checkpoint's first object, durable before the first document is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// The version of the format being written.
    pub format_version: u32,
    /// When the backup began.
    pub started: DateTime<Utc>,
    /// The source deployment.
    pub source: Source,
    /// The settings that shape the backup.
    pub settings: Settings,
    /// The intended consistency; the result may be weaker.
    pub consistency: ConsistencyKind,
    /// Whether it may have no consistency point although the source is a replica set.
    pub allow_inconsistent: bool,
    /// The time of the listing.
    pub snapshot_time: Option<ClusterTime>,
    /// Where the oplog slice begins, if one is kept, and an archive of the oplog must begin.
    pub oplog: Option<OplogStart>,
    /// Why none is kept although the source has an oplog.
    pub why_no_oplog: Option<String>,
    /// What was listed, in the order of names.
    pub collections: Vec<Listed>,
    /// Existing collections that cannot be part of a backup.
    pub left_out: Vec<LeftOut>,
}

/// Where an oplog slice begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OplogStart {
    /// The first entry needed.
    pub from: ClusterTime,
    /// The earliest time of a listing to which the slice belongs.
    pub since: ClusterTime,
    /// The term of the first entry, as in [`OplogPosition`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub term: Option<i64>,
    /// Its content digest.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<ContentDigest>,
}

impl OplogStart {
    /// The start at this position.
    #[must_use]
    pub fn at(OplogPosition { time, term, digest }: OplogPosition, since: ClusterTime) -> Self {
        Self { from: time, since, term, digest }
    }

    /// The position of its first entry.
    #[must_use]
    pub fn position(&self) -> OplogPosition {
        OplogPosition { time: self.from, term: self.term, digest: self.digest }
    }
}

/// A listed namespace, and how it is divided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// The database's name.
    pub database: String,
    /// The collection's name.
    pub name: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: CollectionKind,
    /// The server's UUID of it.
    pub uuid: Option<Uuid>,
    /// Its options.
    pub options: Raw,
    /// Its indexes.
    pub indexes: Vec<Raw>,
    /// The prefix of its objects' keys.
    pub stem: String,
    /// Its approximate number of documents, if known.
    pub documents: Option<u64>,
    /// Their approximate bytes.
    pub bytes: Option<u64>,
    /// Its parts.
    pub ranges: Vec<Part>,
}

/// A document as the server returned it, in base64.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Raw(#[serde(with = "base64_document")] pub RawDocumentBuf);

/// A part of a collection. A bound is a document with that `_id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "by")]
pub enum Part {
    /// All of it, in storage order.
    Natural,
    /// From `lower` (inclusive) to `upper` (exclusive), by an expression.
    Expression {
        /// Inclusive.
        lower: Option<Raw>,
        /// Exclusive.
        upper: Option<Raw>,
    },
    /// The same by `min` and `max`.
    Bounds {
        /// Inclusive.
        lower: Option<Raw>,
        /// Exclusive.
        upper: Option<Raw>,
    },
    /// The document whose `_id` is MaxKey.
    MaxKey,
}

/// What became durable since the previous object: each further object of the checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Ranges whose documents are all stored.
    pub ranges: Vec<RangeDone>,
    /// More of the oplog slice.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oplog: Option<OplogStep>,
    /// What the reading depends on by now.
    #[serde(rename = "standing")]
    pub state: ResumeState,
}

/// What the reading of a backup depends on. A flag that is set once stays set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResumeState {
    /// Ranges are read without the snapshot.
    pub without_snapshot: bool,
    /// The oplog slice is needed.
    pub needs_oplog: bool,
    /// The backup has no consistency point.
    pub inconsistent: bool,
}

/// A range whose documents are all stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RangeDone {
    /// The collection's index in [`Head::collections`].
    pub collection: usize,
    /// The range's index in [`Listed::ranges`].
    pub range: usize,
    /// Its segments.
    pub segments: Vec<Segment>,
    /// The operation time of the last reply.
    pub end: Option<ClusterTime>,
    /// Why nothing of its collection is kept, if the collection does not exist any more.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gone: Option<String>,
}

/// More of an oplog slice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OplogStep {
    /// The last entry seen, or where to look for the first one.
    pub position: ClusterTime,
    /// Whether an entry was seen there.
    pub seen: bool,
    /// The new segments.
    pub segments: Vec<Segment>,
}

impl Head {
    /// Parses it, the version first.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if it is not one, or has a version that cannot be resumed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            format_version: u32,
        }
        let Version { format_version } = read(bytes, 0)?;
        if !(FORMAT_VERSION..=NEWEST_VERSION).contains(&format_version) {
            return Err(Error::damaged(format!(
                "the unfinished backup has format version {format_version}, but this program writes {FORMAT_VERSION} to {NEWEST_VERSION}"
            ))
            .hint("resume it with the version of bsonvault that began it, or take a new backup without [[resume]]"));
        }
        read(bytes, 0)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        write(self)
    }
}

impl Step {
    /// Parses the checkpoint's object of this number.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if it is not one.
    pub fn from_bytes(bytes: &[u8], number: usize) -> Result<Self> {
        read(bytes, number)
    }

    /// Its bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        write(self)
    }
}

impl ResumeState {
    /// The union of both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            without_snapshot: self.without_snapshot || other.without_snapshot,
            needs_oplog: self.needs_oplog || other.needs_oplog,
            inconsistent: self.inconsistent || other.inconsistent,
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(bytes: &[u8], number: usize) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| {
        Error::damaged(format!("{} cannot be read: {e}", key::checkpoint(number)))
            .hint("the unfinished backup cannot be resumed: take a new one without [[resume]]")
            .cause(e)
    })
}

fn write<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::new(ErrorKind::Internal, "cannot write the checkpoint as JSON").cause(e))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_start_of_older_versions_has_a_position_without_an_entry() {
        let (from, since) = (ClusterTime { t: 7, i: 1 }, ClusterTime { t: 8, i: 1 });
        let older = json!({ "from": { "t": 7, "i": 1 }, "since": { "t": 8, "i": 1 } });
        let start: OplogStart = serde_json::from_value(older.clone()).unwrap();
        assert_eq!(start.position(), OplogPosition { time: from, term: None, digest: None });
        assert_eq!(serde_json::to_value(start).unwrap(), older);

        let position = OplogPosition { time: from, term: Some(3), digest: Some(ContentDigest(5)) };
        let start = OplogStart::at(position, since);
        let read: OplogStart = serde_json::from_value(serde_json::to_value(start).unwrap()).unwrap();
        assert_eq!((read.position(), read.since), (position, since));
    }
}
