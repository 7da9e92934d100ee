//! The manifest: what a backup holds and how to prove it. It is written last; without it there is no backup.

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

pub use consistency::{ClusterTime, Consistency, ConsistencyException, ConsistencyKind, OplogSlice};
pub use object::{Segment, StoredObject};
pub use value::RawValue;
pub(super) use value::base64_document;

use self::lists::{MOST_COLLECTIONS, MOST_INDEXES, MOST_LEFT_OUT, MOST_NAMES, at_most};
use self::object::stored_bytes;
use super::compression::{Codec, Compression};
use super::digest::{Content, ContentDigest, Sha256Hex};
use super::document;
use crate::names::{BackupName, Namespace};

/// The version of the format that this program writes where nothing in a backup needs a newer one.
pub const FORMAT_VERSION: u32 = 2;

/// The newest version that this program reads.
pub const NEWEST_VERSION: u32 = WITH_COLUMNS;

/// The first version that knows oplog slices.
const WITH_OPLOG: u32 = 2;

/// The first version that knows frames in columns. Only backups that may have them are of it.
const WITH_COLUMNS: u32 = 3;

/// The largest manifest that a reader takes: some hundred thousand collections, or more than a million segments.
pub const LIMIT: u64 = 512 * 1024 * 1024;

/// A backup, as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The format's version: what [`Settings::format_version`] says for those written now.
    pub format_version: u32,
    /// The program that wrote it.
    pub tool: Tool,
    /// The backup's own identity.
    pub id: Uuid,
    /// Its name, which is its directory's.
    pub name: BackupName,
    /// Where the data came from.
    pub source: Source,
    /// The moment that the backup shows: the time of its snapshot, or the end of its oplog slice; of one that shows no one moment,
    /// when its last document was read; of an adopted dump, the dump's own date. Never later than when the manifest was made.
    /// Of backups whose maker knew no such moment, it is when the manifest was made.
    pub created: DateTime<Utc>,
    /// When the backup began.
    pub started: DateTime<Utc>,
    /// When the last document was read.
    pub finished: DateTime<Utc>,
    /// What moment the data shows.
    pub consistency: Consistency,
    /// The settings that shaped it.
    pub settings: Settings,
    /// What it holds, ordered by namespace.
    #[serde(deserialize_with = "at_most::<_, _, MOST_COLLECTIONS>")]
    pub collections: Vec<Collection>,
    /// What was seen and is not part of it, and why.
    #[serde(deserialize_with = "at_most::<_, _, MOST_LEFT_OUT>")]
    pub left_out: Vec<LeftOut>,
    /// What was written to the source while it was read; present exactly where [`Consistency::kind`] is [`ConsistencyKind::Oplog`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oplog: Option<OplogSlice>,
    /// Sums over all of it.
    pub totals: Totals,
    /// The SHA-256 of `SHA256SUMS`.
    pub checksums: Sha256Hex,
    /// The SHA-256 of the manifest's own bytes with these 64 digits set to 0.
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

/// The deployment that a backup was taken from. Never any credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Scheme, hosts and database of the URI that was used.
    pub uri: String,
    /// The deployment's members as it names them itself, or the host that was connected to: `host:port`.
    #[serde(deserialize_with = "at_most::<_, _, MOST_NAMES>")]
    pub hosts: Vec<String>,
    /// The server's version.
    pub server_version: String,
    /// The feature compatibility version, where it could be read.
    pub feature_compatibility_version: Option<String>,
    /// What kind of deployment.
    pub topology: Topology,
    /// The replica set's name.
    pub replica_set: Option<String>,
    /// The replica set's id (`settings.replicaSetId` of its configuration, 24 hexadecimal digits), where it could be read.
    pub replica_set_id: Option<String>,
    /// Where there is no replica set's id, what tells this deployment from others: the UUID of its `admin.system.version`, which
    /// comes with the data, or behind mongos the cluster's id; where it could be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deployment_id: Option<String>,
    /// Where there is no replica set's id, the names of the servers, `host:port`: those of `hosts`, with this machine's name in
    /// place of `localhost` and the like, and the server's own. Of an adopted dump without identities of collections, its path.
    #[serde(skip_serializing_if = "Vec::is_empty", default, deserialize_with = "at_most::<_, _, MOST_NAMES>")]
    pub known_as: Vec<String>,
}

/// What the URI of a [`Source`] begins with that is a dump.
pub const DUMP_SCHEME: &str = "dump:";

impl Source {
    /// Whether it is a dump that was adopted.
    #[must_use]
    pub fn is_dump(&self) -> bool {
        self.uri.starts_with(DUMP_SCHEME)
    }
}

/// Kinds of deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Topology {
    /// One server on its own: it keeps no history, so nothing can be read at one moment.
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
    /// What frames are made of; of [`Codec::Columns`], each is either in columns or zstd's.
    #[serde(skip_serializing_if = "Codec::is_default", default)]
    pub codec: Codec,
    /// zstd's level.
    pub level: i32,
    /// Whether zstd looked for repetitions far apart in a frame, too.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub long_distance: bool,
    /// Cursors at a time.
    pub readers: usize,
    /// About the bytes of documents in a frame.
    pub frame_bytes: u64,
    /// About the stored bytes of a segment.
    pub segment_bytes: u64,
    /// The databases asked for; empty for all.
    #[serde(deserialize_with = "at_most::<_, _, MOST_NAMES>")]
    pub databases: Vec<String>,
    /// The patterns of namespaces asked for; empty for all.
    #[serde(deserialize_with = "at_most::<_, _, MOST_NAMES>")]
    pub include: Vec<String>,
    /// The patterns of namespaces kept out.
    #[serde(deserialize_with = "at_most::<_, _, MOST_NAMES>")]
    pub exclude: Vec<String>,
    /// The query, in Extended JSON: only documents that match it were read. Such a backup is never one of all documents.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub query: Option<String>,
    /// What views show was read as collections, and nothing else.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub views_as_collections: bool,
}

impl Settings {
    /// How its frames are compressed.
    #[must_use]
    pub fn compression(&self) -> Compression {
        Compression { codec: self.codec, level: self.level, long_distance: self.long_distance }
    }

    /// The version of the format that a backup with these settings is of.
    #[must_use]
    pub fn format_version(&self) -> u32 {
        match self.codec {
            Codec::Zstd => FORMAT_VERSION,
            Codec::Columns => WITH_COLUMNS,
        }
    }
}

/// Kinds of namespaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CollectionKind {
    /// An ordinary collection, capped and clustered ones included.
    #[default]
    Collection,
    /// A view: it has options and no documents.
    View,
    /// A time series: its documents are those of its buckets.
    TimeSeries,
}

impl CollectionKind {
    /// What its documents are counted in: `documents`, or `buckets` of a time series, each of which holds many measurements.
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
    /// What it is.
    #[serde(rename = "type")]
    pub kind: CollectionKind,
    /// The server's identity of the collection (of a time series, that of its buckets); none for views.
    pub uuid: Option<Uuid>,
    /// The `options` document of `listCollections`.
    pub options: RawValue,
    /// The documents of `listIndexes`, in the server's order.
    #[serde(deserialize_with = "at_most::<_, _, MOST_INDEXES>")]
    pub indexes: Vec<RawValue>,
    /// The file that holds options and indexes for people and for mongorestore.
    pub metadata: StoredObject,
    /// How many documents (of a time series, buckets).
    pub documents: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
    /// Their content digest.
    pub digest: ContentDigest,
    /// The objects that hold them, in order.
    pub segments: Vec<Segment>,
}

/// Why a temporary collection is left out.
pub const TEMPORARY: &str = "temporary: the server made it for something that was under way, such as $out";

impl Collection {
    /// Whether the server marked it as temporary: it holds what an operation has done so far, and is gone or renamed when that ends.
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

/// Something that was seen on the source and is not part of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// The database.
    pub database: String,
    /// The collection.
    pub collection: String,
    /// The server's identity of it, where it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub uuid: Option<Uuid>,
    /// Why.
    pub reason: String,
}

/// Sums over a backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Namespaces, views included.
    pub collections: u64,
    /// Documents of the collections; entries of the oplog slice are none.
    pub documents: u64,
    /// Their bytes, uncompressed.
    pub raw_bytes: u64,
    /// Bytes of segments, stored, those of the oplog slice included.
    pub stored_bytes: u64,
    /// Segments, those of the oplog slice included.
    pub segments: u64,
}

impl Totals {
    /// The sums over these collections, and what the oplog slice takes.
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
    /// About what it takes of the memory, and what an import works out of it.
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

    /// Every object that the manifest names: metadata files and segments, those of the oplog slice last.
    pub fn objects(&self) -> impl Iterator<Item = &StoredObject> {
        let slice = self.oplog.iter().flat_map(|slice| &slice.segments).map(|s| &s.object);
        let collections = self.collections.iter();
        collections.flat_map(|c| std::iter::once(&c.metadata).chain(c.segments.iter().map(|s| &s.object))).chain(slice)
    }

    /// The text of `SHA256SUMS` that belongs to it, as `sha256sum` writes and checks it: a line per object, by key.
    #[must_use]
    pub fn sums(&self) -> String {
        let mut objects: Vec<_> = self.objects().collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        objects.iter().map(|o| format!("{}  {}\n", o.sha256, o.key)).collect()
    }
}
