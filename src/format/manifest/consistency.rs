//! The consistency of a backup, and its consistency point.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::lists::{MOST_LEFT_OUT, at_most};
use super::object::{Segment, stored_bytes};
use crate::error::{Error, Result};
use crate::format::digest::{Content, ContentDigest};

/// A cluster time or oplog time: seconds and an ordinal within the second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct ClusterTime {
    /// Seconds since 1970.
    pub t: u32,
    /// The ordinal within the second.
    pub i: u32,
}

impl ClusterTime {
    /// Parses a time: seconds since 1970, alone or with an ordinal (`1795383900:7`), or RFC 3339.
    /// Without an ordinal, it is the beginning of the second.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage).
    pub fn parse(text: &str) -> Result<Self> {
        let (seconds, ordinal) = text.split_once(':').unwrap_or((text, "0"));
        if let (Ok(t), Ok(i)) = (seconds.parse(), ordinal.parse()) {
            return Ok(Self { t, i });
        }
        let time = DateTime::parse_from_rfc3339(text).ok();
        // Entries in the rest of the second would not be before it.
        let whole = time.filter(|time| time.timestamp_subsec_nanos() == 0).and_then(|time| u32::try_from(time.timestamp()).ok());
        whole.map(|t| Self { t, i: 0 }).ok_or_else(|| {
            Error::usage(format!("{text:?} is not an oplog time"))
                .hint("write seconds since 1970, SECONDS:ORDINAL, or whole seconds, for instance 2026-11-22T21:45:00Z")
        })
    }
}

impl From<bson::Timestamp> for ClusterTime {
    fn from(time: bson::Timestamp) -> Self {
        Self { t: time.time, i: time.increment }
    }
}

impl From<ClusterTime> for bson::Timestamp {
    fn from(time: ClusterTime) -> Self {
        Self { time: time.t, increment: time.i }
    }
}

impl std::fmt::Display for ClusterTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match DateTime::<Utc>::from_timestamp(i64::from(self.t), 0) {
            Some(time) => write!(f, "{} ({}, {})", time.format("%Y-%m-%dT%H:%M:%SZ"), self.t, self.i),
            None => write!(f, "({}, {})", self.t, self.i),
        }
    }
}

/// A position in the oplog of a source: a time, and what identifies the entry there.
///
/// A source that was restored to an older state may use a time again, for another entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OplogPosition {
    /// The time.
    pub time: ClusterTime,
    /// The entry's `t`: the term of the primary that wrote it. Absent without a digest, and if the
    /// entry has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub term: Option<i64>,
    /// The content digest of the whole entry. Absent if there was no entry of this very time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub digest: Option<ContentDigest>,
}

/// The consistency of a backup, and its consistency point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Consistency {
    /// How far the parts belong together.
    pub kind: ConsistencyKind,
    /// The time of the listing. In a snapshot, every document has its state at this time. In a
    /// backup with an oplog slice, no document was read earlier.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cluster_time: Option<ClusterTime>,
    /// The start of the oplog slice, if any: [`OplogSlice::from`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<ClusterTime>,
    /// The consistency point of the backup once its oplog slice is replayed: [`OplogSlice::to`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<ClusterTime>,
    /// Where an archive of the source's oplog must begin, at the latest, to be replayed on this
    /// backup: at or before the first entry of every transaction that was open at
    /// [`cluster_time`](Self::cluster_time). With an oplog slice, it is the start of that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replay_from: Option<OplogPosition>,
    /// The collections of a snapshot that could not be read at its time. These are capped ones, for
    /// which servers refuse that, if they were written to between that time and the end of their
    /// own read, or if this could not be excluded.
    #[serde(skip_serializing_if = "Vec::is_empty", default, deserialize_with = "at_most::<_, _, MOST_LEFT_OUT>")]
    pub exceptions: Vec<ConsistencyException>,
}

impl Consistency {
    /// The consistency point of the backup; `None` if its parts have different times.
    #[must_use]
    pub fn moment(&self) -> Option<DateTime<Utc>> {
        let time = match self.kind {
            ConsistencyKind::Snapshot => self.cluster_time,
            ConsistencyKind::Oplog => self.to,
            ConsistencyKind::None => None,
        };
        DateTime::from_timestamp(i64::from(time?.t), 0)
    }
}

/// A collection that is not part of the snapshot of its backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsistencyException {
    /// The collection's database.
    pub database: String,
    /// The collection's name.
    pub collection: String,
    /// The reason.
    pub reason: String,
}

/// Kinds of consistency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConsistencyKind {
    /// Every document as it was at one cluster time.
    Snapshot,
    /// Documents from different times, and every write between the first and the last of these
    /// times. Replayed, these give the state of all documents at one cluster time.
    Oplog,
    /// Read one after the other during writes: a write may be in one part and missing in another.
    None,
}

impl std::fmt::Display for ConsistencyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Snapshot => "snapshot",
            Self::Oplog => "oplog",
            Self::None => "none",
        })
    }
}

/// The source's oplog between two times, beside data that was read between them.
///
/// It holds every entry whose `ts` is between `from` and `to`, in the order of `ts`, as the server
/// returned it. No-ops and entries of databases outside of the backup are omitted. The digests of
/// collections describe the data before the replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OplogSlice {
    /// Its start, at or before [`Consistency::cluster_time`]: the first entry of every transaction
    /// that commits after that.
    pub from: ClusterTime,
    /// Its end, at or after the last read. Replayed up to here, the backup has the source's state
    /// at this time.
    pub to: ClusterTime,
    /// The number of entries.
    pub documents: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
    /// Their content digest.
    pub digest: ContentDigest,
    /// The objects that hold them, in order.
    pub segments: Vec<Segment>,
}

impl OplogSlice {
    /// The entries, their bytes and their digest.
    #[must_use]
    pub fn content(&self) -> Content {
        Content { documents: self.documents, bytes: self.bytes, sum: self.digest.0 }
    }

    /// The stored bytes of its segments.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        stored_bytes(&self.segments)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_position_is_written_with_what_is_known_of_its_entry() {
        let time = ClusterTime { t: 1_795_383_900, i: 7 };
        let known = OplogPosition { time, term: Some(3), digest: Some(ContentDigest(0xab)) };
        let written = json!({
            "time": { "t": 1_795_383_900, "i": 7 }, "term": 3, "digest": "000000000000000000000000000000ab",
        });
        let alone = OplogPosition { time, term: None, digest: None };
        for (position, written) in [(known, written), (alone, json!({ "time": { "t": 1_795_383_900, "i": 7 } }))] {
            assert_eq!(serde_json::to_value(position).unwrap(), written);
            assert_eq!(serde_json::from_value::<OplogPosition>(written).unwrap(), position);
        }
        assert!(serde_json::from_value::<OplogPosition>(json!({ "term": 3 })).is_err());
    }

    #[test]
    fn times_are_read_as_seconds_with_an_ordinal_or_by_the_calendar() {
        assert_eq!(ClusterTime::parse("1795383900").unwrap(), ClusterTime { t: 1_795_383_900, i: 0 });
        assert_eq!(ClusterTime::parse("1795383900:7").unwrap(), ClusterTime { t: 1_795_383_900, i: 7 });
        assert_eq!(ClusterTime::parse("2026-11-22T22:45:00+01:00").unwrap(), ClusterTime::parse("1795383900").unwrap());
        for bad in
            ["", "x", "1:", ":1", "-1", "1:2:3", "4294967296", "2026-11-22", "2026-11-22T21:45:00.5Z", "1969-01-01T00:00:00Z"]
        {
            assert_eq!(ClusterTime::parse(bad).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }
}
