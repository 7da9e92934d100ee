//! Measures the CPU-bound parts on one thread each, in bytes of BSON per second (`segment/put
//! together`: stored bytes).
//!
//! `cargo bench --bench cpu -- [NAME]`
//!
//! It needs no server. The documents are orders of a shop, the same in each run, in frames of 4
//! MiB. Files are in memory if the system has `/dev/shm`, so that a disk does not matter.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a measurement ends where something is wrong"
)]

mod shop;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bson::{RawDocumentBuf, doc};
use bsonvault::context::cpu::CpuPool;
use bsonvault::context::memory::MemoryBudget;
use bsonvault::context::progress::Progress;
use bsonvault::error::Result;
use bsonvault::format::digest::{Content, ContentDigest, Sha256Hex};
use bsonvault::format::document::{self, Documents, Elements, Writer};
use bsonvault::format::frame::{self, Compression, Compressor, Compressors, Decompressor};
use bsonvault::format::manifest::{Collection, CollectionKind, RawValue, Segment, StoredObject};
use bsonvault::format::mongodump::read::{Event, Reader};
use bsonvault::format::mongodump::write::{self, Crc};
use bsonvault::format::mongodump::{Member, Prelude, TERMINATOR};
use bsonvault::format::segment::Builder;
use bsonvault::interop::write::{DEFAULT_LEVEL, Destination, Format, WriteOptions};
use bsonvault::interop::{Dump, Part, Wanted};
use bsonvault::mongo::Version;
use bsonvault::names::Namespace;
use bsonvault::pipeline::read::SegmentReader;
use bsonvault::pipeline::write::{self as pipeline, CollectionWriter, Sizes};
use bsonvault::repository::backend::Objects;
use bsonvault::sink::CollectionSpec;
use bsonvault::sink::insert;
use criterion::{BatchSize, BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use shop::data::Orders;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Frames per measurement of a whole segment.
const FRAMES: usize = 8;
/// Levels of zstd: the fastest useful one, the one for near sources, and the one for far sources.
const LEVELS: [i32; 3] = [-1, 1, 3];

type Group<'a> = BenchmarkGroup<'a, criterion::measurement::WallTime>;

criterion_group! {
    name = parts;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = of_documents, of_frames, of_segments, of_dumps
}
criterion_main!(parts);

/// A batch as a server gives it.
#[derive(Clone)]
struct Batch(Arc<Vec<u8>>);

impl Batch {
    fn of(frame: &[u8]) -> Self {
        let mut array = Writer::with_capacity(frame.len() + frame.len() / 50);
        for (number, document) in Documents::of(frame).enumerate() {
            array.document(number.to_string(), document.unwrap());
        }
        Self(Arc::new(array.finish()))
    }
}

impl pipeline::Documents for Batch {
    fn array(&self) -> Result<&[u8]> {
        Ok(&self.0)
    }

    fn counts(&self, _: usize) -> bool {
        true
    }
}

/// The work on every document: take it out of a batch, check it, digest it, and put it into a
/// command.
fn of_documents(criterion: &mut Criterion) {
    let frame = Orders::new().frame(frame::TARGET);
    let batch = Batch::of(&frame);
    let mut group = criterion.benchmark_group("documents");
    group.throughput(Throughput::Bytes(frame.len() as u64));
    group.bench_function("taken out of a batch and copied", |b| {
        let mut to = Vec::with_capacity(frame.len());
        b.iter(|| {
            to.clear();
            Elements::of(&batch.0).unwrap().for_each(|element| to.extend_from_slice(element.unwrap().value));
            black_box(&to);
        });
    });
    each(&mut group, "told apart", &frame, |document| _ = black_box(document));
    each(&mut group, "checked", &frame, |document| document::check(document).unwrap());
    each(&mut group, "looked at for empty timestamps", &frame, |document| {
        assert!(!document::has_empty_timestamp(document).unwrap());
    });
    group.bench_function("digested", |b| b.iter(|| black_box(content(&frame))));
    let spec = spec();
    group.bench_function("put into insert commands", |b| {
        b.iter(|| black_box(insert::commands(&spec, Version(6, 0, 5), &frame).unwrap()));
    });
    group.finish();
}

fn each(group: &mut Group<'_>, name: &str, frame: &[u8], work: impl Fn(&[u8])) {
    group.bench_function(name, |b| b.iter(|| Documents::of(frame).for_each(|document| work(document.unwrap()))));
}

/// The work on a whole frame.
fn of_frames(criterion: &mut Criterion) {
    let frame = Orders::new().frame(frame::TARGET);
    let mut group = criterion.benchmark_group("frame");
    group.throughput(Throughput::Bytes(frame.len() as u64));
    for level in LEVELS {
        let mut compressor = Compressor::new(Compression::of(level)).unwrap();
        group
            .bench_function(format!("compressed, level {level}"), |b| b.iter(|| black_box(compressor.compress(&frame).unwrap())));
        let packed = compressor.compress(&frame).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        group.bench_function(format!("decompressed, level {level}"), |b| {
            b.iter(|| black_box(decompressor.decompress(&packed, frame.len()).unwrap()));
        });
    }
    group.bench_function("SHA-256", |b| b.iter(|| black_box(Sha256Hex::of(&frame))));
    group.finish();
}

/// Segments, written and read as a backup and `verify --deep` do, including everything around them.
fn of_segments(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut orders = Orders::new();
    let frames: Vec<Vec<u8>> = (0..FRAMES).map(|_| orders.frame(frame::TARGET)).collect();
    let raw: usize = frames.iter().map(Vec::len).sum();
    let mut compressor = Compressor::new(Compression::of(1)).unwrap();
    let packed: Vec<(Vec<u8>, Content)> =
        frames.iter().map(|frame| (compressor.compress(frame).unwrap(), content(frame))).collect();
    let mut group = slow_group(criterion, "segment");
    group.throughput(Throughput::Bytes(packed.iter().map(|(packed, _)| packed.len() as u64).sum()));
    group.bench_function("put together", |b| {
        let build = |frames: Vec<(Vec<u8>, Content)>| {
            let mut builder = Builder::default();
            frames.into_iter().for_each(|(frame, content)| builder.push(frame, &content));
            builder.finish()
        };
        b.iter_batched(|| packed.clone(), build, BatchSize::PerIteration);
    });
    group.throughput(Throughput::Bytes(raw as u64));
    let batches: Vec<Batch> = frames.iter().map(|frame| Batch::of(frame)).collect();
    for level in LEVELS {
        let compressors = Arc::new(Compressors::new(Compression::of(level)));
        group.bench_function(format!("written from batches, level {level}"), |b| {
            b.iter_with_large_drop(|| runtime.block_on(write_segments(&batches, &compressors)));
        });
    }
    let (directory, segment) = runtime.block_on(stored(&packed));
    let store = Objects::open(directory.path().to_str().unwrap()).unwrap();
    for (name, checked) in [("read and proven", false), ("read and proven, documents checked", true)] {
        group.bench_function(name, |b| b.iter(|| runtime.block_on(read_segment(&store, &segment, checked))));
    }
    group.finish();
}

async fn write_segments(batches: &[Batch], compressors: &Arc<Compressors>) -> TempDir {
    let directory = directory();
    let store = Objects::open(directory.path().to_str().unwrap()).unwrap();
    let item = Progress::default().item("shop.orders", 0, 0);
    let sizes = Sizes::of_segments(bsonvault::format::segment::TARGET);
    let writer = CollectionWriter::new(store, "shop/orders".to_owned(), compressors.clone(), sizes, CpuPool::new(1), item);
    let mut range = writer.range();
    for batch in batches {
        range.write(batch.clone()).await.unwrap();
    }
    assert!(!range.finish().await.unwrap().is_empty());
    directory
}

/// A repository with one segment.
async fn stored(packed: &[(Vec<u8>, Content)]) -> (TempDir, Segment) {
    let directory = directory();
    let mut builder = Builder::default();
    packed.iter().for_each(|(frame, content)| builder.push(frame.clone(), content));
    let finished = builder.finish();
    let object = StoredObject { key: "segment.zst".to_owned(), bytes: finished.stored_bytes, sha256: finished.sha256 };
    Objects::open(directory.path().to_str().unwrap()).unwrap().put(&object.key, finished.chunks).await.unwrap();
    let (documents, digest) = (finished.content.documents, finished.content.digest());
    (directory, Segment { object, raw_bytes: finished.raw_bytes, documents, digest, frames: finished.frames })
}

async fn read_segment(store: &Objects, segment: &Segment, checked: bool) {
    let cpu = CpuPool::new(1);
    let mut reader = SegmentReader::open(store, segment, &cpu).await.unwrap();
    while let Some(frame) = reader.next().await.unwrap() {
        if checked {
            let check = move || Documents::of(&frame).try_for_each(|document| document::check(document?));
            cpu.run(check).await.unwrap();
        }
    }
}

/// mongodump archives: the grammar and its checksums alone, and as an import reads them.
fn of_dumps(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut orders = Orders::new();
    let frames: Vec<Vec<u8>> = (0..FRAMES).map(|_| orders.frame(frame::TARGET)).collect();
    let raw: usize = frames.iter().map(Vec::len).sum();
    let documents: usize = frames.iter().map(|frame| Documents::of(frame).count()).sum();
    let bytes = archive(&frames);
    let mut group = slow_group(criterion, "archive");
    group.throughput(Throughput::Bytes(raw as u64));
    group.bench_function("parsed", |b| {
        b.iter(|| {
            let (mut reader, mut found) = (Reader::open(bytes.as_slice()).unwrap(), 0);
            while let Some(event) = reader.next().unwrap() {
                found += usize::from(matches!(event, Event::Document(..)));
            }
            assert_eq!(found, documents);
        });
    });
    let directory = directory();
    let (plain, packed) = (directory.path().join("plain"), directory.path().join("packed"));
    std::fs::write(&plain, &bytes).unwrap();
    runtime.block_on(write_archive(&packed, Some(DEFAULT_LEVEL), &frames));
    for (name, path) in [("read", &plain), ("read, gzip", &packed)] {
        group.bench_function(name, |b| b.iter(|| assert_eq!(runtime.block_on(read_dump(path)), documents as u64)));
    }
    let out = directory.path().join("out");
    for (name, gzip) in [("written", None), ("written, gzip", Some(DEFAULT_LEVEL))] {
        group.bench_function(name, |b| b.iter(|| runtime.block_on(write_archive(&out, gzip, &frames))));
    }
    group.finish();
}

/// An archive of one collection.
fn archive(frames: &[Vec<u8>]) -> Vec<u8> {
    let (database, collection) = ("shop".to_owned(), "orders".to_owned());
    let metadata = r#"{"options":{},"indexes":[],"collectionName":"orders","type":"collection"}"#.to_owned();
    let member = Member { database, collection, metadata, kind: Some("collection".to_owned()) };
    let (server_version, tool_version) = ("6.0.5".to_owned(), "bench".to_owned());
    let mut bytes = Prelude { concurrent: 1, server_version, tool_version, namespaces: vec![member] }.to_bytes();
    let mut crc = Crc::default();
    for frame in frames {
        bytes.extend(write::segment("shop", "orders"));
        bytes.extend(frame);
        bytes.extend(TERMINATOR);
        crc.update(frame);
    }
    bytes.extend(write::end("shop", "orders", &crc));
    bytes
}

async fn write_archive(path: &Path, gzip: Option<u32>, frames: &[Vec<u8>]) {
    let options = WriteOptions { format: Format::Archive, gzip, force: true, whole: false };
    let described = bsonvault::interop::write::Described {
        database: "shop".to_owned(),
        name: "orders".to_owned(),
        data: "orders".to_owned(),
        kind: CollectionKind::Collection,
        metadata: r#"{"options":{},"indexes":[],"collectionName":"orders","type":"collection"}"#.to_owned(),
    };
    let contents = bsonvault::interop::write::Contents {
        server_version: "6.0.5".to_owned(),
        tool_version: "bench".to_owned(),
        collections: vec![described],
        oplog: false,
    };
    let destination = Destination::Path(path.to_owned());
    let mut writer = bsonvault::interop::write::Writer::open(&destination, options, contents, &CpuPool::new(1)).await.unwrap();
    writer.begin().await.unwrap();
    for frame in frames {
        writer.documents(frame.clone()).await.unwrap();
    }
    writer.end().await.unwrap();
    writer.finish().await.unwrap();
    writer.put().await.unwrap();
}

/// Reads a dump to its end, and returns the number of documents.
async fn read_dump(path: &Path) -> u64 {
    let stop = CancellationToken::new();
    let dump = Dump::open(path.to_str().unwrap(), &stop).await.unwrap();
    let wanted = Wanted { collections: vec![true; dump.collections().len()], oplog: false, users: false };
    let (parts, mut taken) = tokio::sync::mpsc::channel(1);
    let budget = MemoryBudget::new(256 * 1024 * 1024);
    let count = async {
        let mut documents = 0;
        while let Some(part) = taken.recv().await {
            if let Part::Documents { content, .. } = part {
                documents += content.documents;
            }
        }
        documents
    };
    let (read, documents) = tokio::join!(dump.read(&wanted, &budget, &stop, parts), count);
    read.unwrap();
    documents
}

fn content(frame: &[u8]) -> Content {
    let mut content = Content::default();
    Documents::of(frame).for_each(|document| content.add(document.unwrap()));
    content
}

fn spec() -> CollectionSpec {
    let object = StoredObject { key: "metadata.json".to_owned(), bytes: 0, sha256: Sha256Hex::zero() };
    let collection = Collection {
        database: "shop".to_owned(),
        name: "orders".to_owned(),
        kind: CollectionKind::Collection,
        uuid: None,
        options: RawValue::of(&RawDocumentBuf::try_from(&doc! {}).unwrap()),
        indexes: Vec::new(),
        metadata: object,
        documents: 0,
        bytes: 0,
        digest: ContentDigest::default(),
        segments: Vec::new(),
    };
    CollectionSpec::of(&collection, Namespace::new("shop", "orders"), Version(6, 0, 5)).unwrap()
}

/// A group for measurements of a tenth of a second or more.
fn slow_group<'a>(criterion: &'a mut Criterion, name: &str) -> Group<'a> {
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat);
    group
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}
