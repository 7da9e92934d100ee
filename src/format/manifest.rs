//! The manifest: what a backup holds and how to verify it. It is written last; without it there is
//! no backup.

mod check;
mod consistency;
mod lists;
mod object;
mod read;
mod value;
mod write;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use consistency::{ClusterTime, Consistency, ConsistencyException, ConsistencyKind, OplogPosition, OplogSlice};
pub use object::{Segment, StoredObject};
pub use value::RawValue;
pub(super) use value::base64_document;

use self::lists::{MOST_COLLECTIONS, MOST_INDEXES, MOST_LEFT_OUT, MOST_NAMES, at_most};
use self::object::stored_bytes;
use super::compression::{Codec, Compression};
use super::digest::{Content, ContentDigest, Sha256Hex};
use super::document;
use crate::names::{BackupName, Namespace};

/// The version of the format that this program writes unless a backup needs a newer one.
pub const FORMAT_VERSION: u32 = 2;

/// The newest version that this program reads.
pub const NEWEST_VERSION: u32 = WITH_REPLAY_FROM;

/// The first version with oplog slices.
const WITH_OPLOG: u32 = 2;

/// The first version with frames in columns. Only backups that may have them use it.
const WITH_COLUMNS: u32 = 3;

/// The first version with [`Consistency::replay_from`]. Only backups that have it use it.
const WITH_REPLAY_FROM: u32 = 4;

/// The largest manifest that a reader accepts: some hundred thousand collections, or more than a
/// million segments.
pub const LIMIT: u64 = 512 * 1024 * 1024;

/// A backup as described by its manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The format's version; for new ones, see [`Settings::format_version`].
    pub format_version: u32,
    /// The program that wrote it.
    pub tool: Tool,
    /// The ID of the backup.
    pub id: Uuid,
    /// Its name, which is also its directory's.
    pub name: BackupName,
    /// The deployment that the data came from.
    pub source: Source,
    /// The consistency point of the backup: its snapshot time, or the end of its oplog slice.
    /// Without a consistency point, it is when the last document was read. For an adopted dump, it
    /// is the dump's own date. It is never later than the manifest. If the maker of a backup did
    /// not know such a time, it is when the manifest was written.
    pub created: DateTime<Utc>,
    /// When the backup began.
    pub started: DateTime<Utc>,
    /// When the last document was read.
    pub finished: DateTime<Utc>,
    /// The consistency of the data.
    pub consistency: Consistency,
    /// The settings that shaped it.
    pub settings: Settings,
    /// Its collections, ordered by namespace.
    #[serde(deserialize_with = "at_most::<_, _, MOST_COLLECTIONS>")]
    pub collections: Vec<Collection>,
    /// What was seen and skipped, each with a reason.
    #[serde(deserialize_with = "at_most::<_, _, MOST_LEFT_OUT>")]
    pub left_out: Vec<LeftOut>,
    /// What was written to the source while it was read. Present if and only if
    /// [`Consistency::kind`] is [`ConsistencyKind::Oplog`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oplog: Option<OplogSlice>,
    /// Totals.
    pub totals: Totals,
    /// The SHA-256 of `SHA256SUMS`.
    pub checksums: Sha256Hex,
    /// The SHA-256 of the manifest's own bytes, with these 64 digits set to 0.
    pub sha256: Sha256Hex,
}

/// The program that wrote a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    /// `bsonvault`.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The deployment that a backup was taken from. Never has credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Scheme, hosts and database of the URI used.
    pub uri: String,
    /// The deployment's members as it names them, or the connected host: `host:port`.
    #[serde(deserialize_with = "at_most::<_, _, MOST_NAMES>")]
    pub hosts: Vec<String>,
    /// The server's version.
    pub server_version: String,
    /// The feature compatibility version, if it could be read.
    pub feature_compatibility_version: Option<String>,
    /// The kind of deployment.
    pub topology: Topology,
    /// The replica set's name.
    pub replica_set: Option<String>,
    /// The replica set's ID (`settings.replicaSetId` of its configuration, 24 hexadecimal digits),
    /// if it could be read.
    pub replica_set_id: Option<String>,
    /// The ID that distinguishes a deployment without a replica set's ID, if it could be read: the
    /// UUID of its `admin.system.version`, which stays with the data, or the cluster's ID behind
    /// mongos.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deployment_id: Option<String>,
    /// Without a replica set's ID, the names of the servers, `host:port`: those in `hosts`, with
    /// this machine's name for `localhost` and the like, and the server's own. For an adopted dump
    /// without collection UUIDs, its path.
    #[serde(skip_serializing_if = "Vec::is_empty", default, deserialize_with = "at_most::<_, _, MOST_NAMES>")]
    pub known_as: Vec<String>,
}

/// The prefix of the URI of a [`Source`] that is a dump.
pub const DUMP_SCHEME: &str = "dump:";

impl Source {
    /// Whether it is an adopted dump.
    #[must_use]
    pub fn is_dump(&self) -> bool {
        self.uri.starts_with(DUMP_SCHEME)
    }
}

/// Kinds of deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Topology {
    /// A single server: it keeps no history, so it cannot be read at one snapshot time.
    Standalone,
    /// A replica set.
    ReplicaSet,
    /// Behind mongos.
    Sharded,
}

impl std::fmt::Display for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Standalone => "standalone",
            Self::ReplicaSet => "replica set",
            Self::Sharded => "sharded",
        })
    }
}

/// The settings that shaped a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The codec. With [`Codec::Columns`], each frame is either in columns or plain zstd.
    #[serde(skip_serializing_if = "Codec::is_default", default)]
    pub codec: Codec,
    /// zstd's level.
    pub level: i32,
    /// Whether zstd also looked for distant repetitions in a frame.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub long_distance: bool,
    /// The number of concurrent cursors.
    pub readers: usize,
    /// The approximate bytes of documents per frame.
    pub frame_bytes: u64,
    /// The approximate stored bytes per segment.
    pub segment_bytes: u64,
    /// The requested databases; empty for all.
    #[serde(deserialize_with = "at_most::<_, _, MOST_NAMES>")]
    pub databases: Vec<String>,
    /// The requested namespace patterns; empty for all.
    #[serde(deserialize_with = "at_most::<_, _, MOST_NAMES>")]
    pub include: Vec<String>,
    /// The excluded namespace patterns.
    #[serde(deserialize_with = "at_most::<_, _, MOST_NAMES>")]
    pub exclude: Vec<String>,
    /// The query, in Extended JSON: only matching documents were read. Such a backup never has all
    /// documents.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub query: Option<String>,
    /// Whether the documents that views show were read as collections, and nothing else.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub views_as_collections: bool,
}

impl Settings {
    /// How its frames are compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        Compression { codec: self.codec, level: self.level, long_distance: self.long_distance }
    }

    /// The lowest format version that describes a backup with these settings and this
    /// [`Consistency::replay_from`].
    #[must_use]
    pub fn format_version(&self, replay_from: Option<&OplogPosition>) -> u32 {
        match (replay_from, self.codec) {
            (Some(_), _) => WITH_REPLAY_FROM,
            (None, Codec::Columns) => WITH_COLUMNS,
            (None, Codec::Zstd) => FORMAT_VERSION,
        }
    }
}

/// Kinds of namespaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CollectionKind {
    /// An ordinary collection, including capped and clustered ones.
    #[default]
    Collection,
    /// A view: it has options and no documents.
    View,
    /// A time series: its documents are its buckets.
    TimeSeries,
}

impl CollectionKind {
    /// The unit of its documents: `documents`, or `buckets` for a time series, each with many
    /// measurements.
    #[must_use]
    pub fn counted_in(self) -> &'static str {
        match self {
            Self::TimeSeries => "buckets",
            Self::Collection | Self::View => "documents",
        }
    }
}

impl std::fmt::Display for CollectionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Collection => "collection",
            Self::View => "view",
            Self::TimeSeries => "timeseries",
        })
    }
}

/// One namespace of a backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Collection {
    /// The database's name.
    pub database: String,
    /// The collection's name, not escaped.
    pub name: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: CollectionKind,
    /// The server's UUID of the collection; for a time series, that of its buckets; `None` for
    /// views.
    pub uuid: Option<Uuid>,
    /// The `options` document of `listCollections`.
    pub options: RawValue,
    /// The documents of `listIndexes`, in the server's order.
    #[serde(deserialize_with = "at_most::<_, _, MOST_INDEXES>")]
    pub indexes: Vec<RawValue>,
    /// The file with options and indexes for people and for mongorestore.
    pub metadata: StoredObject,
    /// The number of documents; for a time series, of buckets.
    pub documents: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
    /// Their content digest.
    pub digest: ContentDigest,
    /// The objects that hold them, in order.
    pub segments: Vec<Segment>,
}

/// Why a temporary collection is skipped.
pub const TEMPORARY: &str = "temporary: the server made it for something that was under way, such as $out";

impl Collection {
    /// Whether the server marked it as temporary: it holds the result of an operation so far, and
    /// is dropped or renamed when that ends.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.options.bson.get("temp").is_ok_and(|mark| mark.is_some_and(document::is_true))
    }

    /// `database.collection`.
    #[must_use]
    pub fn namespace(&self) -> Namespace {
        Namespace::new(self.database.clone(), self.name.clone())
    }

    /// The documents, their bytes and their digest.
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

/// A collection that was seen on the source and is not part of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// The database.
    pub database: String,
    /// The collection.
    pub collection: String,
    /// The server's UUID of it, if known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uuid: Option<Uuid>,
    /// The reason.
    pub reason: String,
}

/// The totals of a backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Namespaces, including views.
    pub collections: u64,
    /// Documents of the collections, without the entries of the oplog slice.
    pub documents: u64,
    /// Their bytes, uncompressed.
    pub raw_bytes: u64,
    /// Stored bytes of segments, including those of the oplog slice.
    pub stored_bytes: u64,
    /// Segments, including those of the oplog slice.
    pub segments: u64,
}

impl Totals {
    /// The totals of these collections and of the oplog slice.
    #[must_use]
    pub fn of(collections: &[Collection], oplog: Option<&OplogSlice>) -> Self {
        let slice = Self {
            stored_bytes: oplog.map_or(0, OplogSlice::stored_bytes),
            segments: oplog.map_or(0, |slice| slice.segments.len() as u64),
            ..Self::default()
        };
        collections.iter().fold(slice, |sum, c| Self {
            collections: sum.collections + 1,
            documents: sum.documents.saturating_add(c.documents),
            raw_bytes: sum.raw_bytes.saturating_add(c.bytes),
            stored_bytes: sum.stored_bytes.saturating_add(c.stored_bytes()),
            segments: sum.segments + c.segments.len() as u64,
        })
    }
}

impl Manifest {
    /// The approximate memory for it, and for what an import derives from it.
    #[must_use]
    pub fn memory(&self) -> u64 {
        const COLLECTION: usize = 1024;
        const SEGMENT: usize = 320;
        let documents =
            |c: &Collection| c.indexes.iter().chain([&c.options]).map(|d| 2 * d.bson.as_bytes().len() + 64).sum::<usize>();
        let of = |c: &Collection| COLLECTION + documents(c) + SEGMENT * c.segments.len();
        let slice = self.oplog.as_ref().map_or(0, |slice| SEGMENT * slice.segments.len());
        (self.collections.iter().map(of).sum::<usize>() + slice) as u64
    }

    /// How many of its documents are buckets of time series.
    #[must_use]
    pub fn buckets(&self) -> u64 {
        let series = self.collections.iter().filter(|c| c.kind == CollectionKind::TimeSeries);
        series.fold(0, |sum, c| sum.saturating_add(c.documents))
    }

    /// Every object that the manifest names: metadata files and segments, those of the oplog slice
    /// last.
    pub fn objects(&self) -> impl Iterator<Item = &StoredObject> {
        let slice = self.oplog.iter().flat_map(|slice| &slice.segments).map(|s| &s.object);
        let collections = self.collections.iter();
        collections.flat_map(|c| std::iter::once(&c.metadata).chain(c.segments.iter().map(|s| &s.object))).chain(slice)
    }

    /// The text of its `SHA256SUMS`, as `sha256sum` writes and checks it: one line per object, by
    /// key.
    #[must_use]
    pub fn sums(&self) -> String {
        let mut objects: Vec<_> = self.objects().collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        objects.iter().map(|o| format!("{}  {}\n", o.sha256, o.key)).collect()
    }
}
