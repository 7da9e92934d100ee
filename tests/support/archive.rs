//! Small backups, made from the library's own parts without a server: for tests that damage them,
//! and for `examples/make_fixtures.rs`.

use bson::{RawDocumentBuf, rawdoc};
use bsonvault::error::Result;
use bsonvault::format::digest::{Content, Sha256Hex};
use bsonvault::format::frame::{Codec, Compression, Compressor};
use bsonvault::format::key::{self, Stems};
use bsonvault::format::manifest::{
    ClusterTime, Collection, CollectionKind, Consistency, ConsistencyKind, FORMAT_VERSION, LeftOut, Manifest, OplogPosition,
    OplogSlice, RawValue, Segment, Settings, Source, StoredObject, Tool, Topology, Totals,
};
use bsonvault::format::metadata;
use bsonvault::format::segment::{Builder, Finished};
use bsonvault::names::{BackupName, Namespace};
use bsonvault::oplog::Position;
use bsonvault::repository::backend::Objects;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// A collection to write.
pub(crate) struct Given {
    pub(crate) namespace: Namespace,
    pub(crate) kind: CollectionKind,
    pub(crate) options: RawDocumentBuf,
    pub(crate) indexes: Vec<RawDocumentBuf>,
    pub(crate) documents: Vec<Vec<u8>>,
}

impl Given {
    /// An ordinary collection with its `_id` index.
    pub(crate) fn new(database: &str, name: &str, documents: Vec<Vec<u8>>) -> Self {
        Self {
            namespace: Namespace::new(database, name),
            kind: CollectionKind::Collection,
            options: rawdoc! {},
            indexes: vec![rawdoc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" }],
            documents,
        }
    }
}

/// The sizes of frames and segments in bytes, and the codec of frames.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) frame: usize,
    pub(crate) segment: usize,
    pub(crate) codec: Codec,
}

impl Shape {
    /// With zstd frames.
    pub(crate) const fn of(frame: usize, segment: usize) -> Self {
        Self { frame, segment, codec: Codec::Zstd }
    }
}

/// When these backups began.
pub(crate) fn started() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_795_383_900_000).unwrap_or_default()
}

/// The segments of these documents, in order.
pub(crate) fn segments(documents: &[Vec<u8>], shape: Shape) -> Result<Vec<Finished>> {
    let mut compressor = Compressor::new(Compression { codec: shape.codec, ..Compression::of(3) })?;
    let mut finished = Vec::new();
    let mut builder = Builder::default();
    let mut at = 0;
    while at < documents.len() {
        let (mut frame, mut content) = (Vec::new(), Content::default());
        while at < documents.len() && (frame.is_empty() || frame.len() + documents[at].len() <= shape.frame) {
            frame.extend_from_slice(&documents[at]);
            content.add(&documents[at]);
            at += 1;
        }
        builder.push(compressor.compress(&frame)?, &content);
        if builder.stored() >= shape.segment {
            finished.push(std::mem::take(&mut builder).finish());
        }
    }
    if !builder.is_empty() {
        finished.push(builder.finish());
    }
    Ok(finished)
}

/// The cluster time of these backups' listing.
pub(crate) const LISTED: ClusterTime = ClusterTime { t: 1_795_383_900, i: 7 };

/// Writes a complete backup into the store, in the order of a real backup, and returns its
/// manifest. The same input gives the same bytes.
pub(crate) async fn write(store: &Objects, given: &[Given], shape: Shape) -> Result<Manifest> {
    write_as(store, given, None, FORMAT_VERSION, shape).await
}

/// The same with an oplog slice of these entries, from a second before the listing to one after it.
pub(crate) async fn write_with_oplog(store: &Objects, given: &[Given], entries: &[Vec<u8>], shape: Shape) -> Result<Manifest> {
    write_as(store, given, Some(entries), FORMAT_VERSION, shape).await
}

/// The same in this version of the format. From version 4 on, it can be replayed from the first of
/// the entries, or from the listing.
pub(crate) async fn write_as(
    store: &Objects,
    given: &[Given],
    entries: Option<&[Vec<u8>]>,
    format_version: u32,
    shape: Shape,
) -> Result<Manifest> {
    let mut stems = Stems::default();
    let mut collections = Vec::new();
    for (number, one) in (1..).zip(given) {
        collections.push(write_collection(store, one, &stems.assign(&one.namespace), number, shape).await?);
    }
    let mut manifest = describe(collections, shape);
    manifest.format_version = format_version;
    if let Some(entries) = entries {
        let (content, segments) = write_segments(store, key::OPLOG, entries, shape).await?;
        let (from, to) = (ClusterTime { t: LISTED.t - 1, ..LISTED }, ClusterTime { t: LISTED.t + 1, ..LISTED });
        let (documents, bytes, digest) = (content.documents, content.bytes, content.digest());
        manifest.oplog = Some(OplogSlice { from, to, documents, bytes, digest, segments });
        let consistency = &mut manifest.consistency;
        (consistency.kind, consistency.from, consistency.to) = (ConsistencyKind::Oplog, Some(from), Some(to));
        manifest.totals = Totals::of(&manifest.collections, manifest.oplog.as_ref());
    }
    if format_version >= 4 {
        manifest.consistency.replay_from = Some(match entries.and_then(<[_]>::first) {
            Some(first) => Position::of(first)?.into(),
            None => OplogPosition { time: LISTED, term: None, digest: None },
        });
    }
    let sums = manifest.sums();
    manifest.checksums = Sha256Hex::of(sums.as_bytes());
    store.put(key::SHA256SUMS, vec![Bytes::from(sums)]).await?;
    let bytes = manifest.to_bytes()?;
    store.put(key::MANIFEST, vec![Bytes::from(bytes.clone())]).await?;
    Manifest::from_bytes(&bytes)
}

/// Stores these documents under the stem. Returns their content and segments.
async fn write_segments(store: &Objects, stem: &str, documents: &[Vec<u8>], shape: Shape) -> Result<(Content, Vec<Segment>)> {
    let mut content = Content::default();
    let mut stored = Vec::new();
    for (n, segment) in segments(documents, shape)?.into_iter().enumerate() {
        content.merge(&segment.content);
        let object = StoredObject { key: key::segment(stem, n), bytes: segment.stored_bytes, sha256: segment.sha256 };
        store.put(&object.key, segment.chunks).await?;
        stored.push(Segment {
            object,
            raw_bytes: segment.raw_bytes,
            documents: segment.content.documents,
            digest: segment.content.digest(),
            frames: segment.frames,
        });
    }
    Ok((content, stored))
}

async fn write_collection(store: &Objects, given: &Given, stem: &str, number: u128, shape: Shape) -> Result<Collection> {
    let (content, stored) = write_segments(store, stem, &given.documents, shape).await?;
    let uuid = (given.kind != CollectionKind::View).then(|| Uuid::from_u128(0xb50f_0000_0000_4000_8000_0000_0000_0000 + number));
    let indexes = given.indexes.iter().map(|i| &**i);
    let file = metadata::write(&given.namespace.collection, given.kind, uuid, &given.options, indexes);
    let metadata = StoredObject { key: key::metadata(stem), bytes: file.len() as u64, sha256: Sha256Hex::of(&file) };
    store.put(&metadata.key, vec![Bytes::from(file)]).await?;
    Ok(Collection {
        database: given.namespace.database.clone(),
        name: given.namespace.collection.clone(),
        kind: given.kind,
        uuid,
        options: RawValue::of(&given.options),
        indexes: given.indexes.iter().map(|i| RawValue::of(i)).collect(),
        metadata,
        documents: content.documents,
        bytes: content.bytes,
        digest: content.digest(),
        segments: stored,
    })
}

fn describe(collections: Vec<Collection>, shape: Shape) -> Manifest {
    Manifest {
        format_version: FORMAT_VERSION,
        tool: Tool { name: "bsonvault".to_owned(), version: "0.1.0".to_owned() },
        id: Uuid::from_u128(0xa71a_5000_0000_4000_8000_0000_0000_0001),
        name: BackupName::at(started()),
        source: Source {
            uri: "mongodb://db1.example.net:27017,db2.example.net:27017".to_owned(),
            hosts: vec!["db1.example.net:27017".to_owned(), "db2.example.net:27017".to_owned()],
            server_version: "6.0.5".to_owned(),
            feature_compatibility_version: Some("6.0".to_owned()),
            topology: Topology::ReplicaSet,
            replica_set: Some("atlas".to_owned()),
            replica_set_id: Some("65a0c0ffee65a0c0ffee65a0".to_owned()),
            deployment_id: None,
            known_as: Vec::new(),
        },
        created: started() + TimeDelta::milliseconds(2_250),
        started: started(),
        finished: started() + TimeDelta::milliseconds(2_125),
        consistency: Consistency {
            kind: ConsistencyKind::Snapshot,
            cluster_time: Some(LISTED),
            from: None,
            to: None,
            replay_from: None,
            exceptions: Vec::new(),
        },
        settings: Settings {
            codec: shape.codec,
            level: 3,
            long_distance: false,
            readers: 2,
            frame_bytes: shape.frame as u64,
            segment_bytes: shape.segment as u64,
            databases: Vec::new(),
            include: Vec::new(),
            exclude: Vec::new(),
            query: None,
            views_as_collections: false,
        },
        left_out: vec![LeftOut {
            database: "shop".to_owned(),
            collection: "dropped while it ran".to_owned(),
            uuid: Some(Uuid::from_u128(0xb50f_0000_0000_4000_8000_0000_0000_0fff)),
            reason: "was dropped after the snapshot time".to_owned(),
        }],
        totals: Totals::of(&collections, None),
        collections,
        oplog: None,
        checksums: Sha256Hex::zero(),
        sha256: Sha256Hex::zero(),
    }
}
