//! The limits: the least that reading, verifying and writing need, measured without the binary.

use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use bson::oid::ObjectId;
use bson::{Document, RawDocumentBuf, doc, rawdoc};
use bsonvault::context::cpu::{CpuPool, cores};
use bsonvault::format::digest::{Content, Sha256Hex};
use bsonvault::format::document::Documents;
use bsonvault::format::frame::Decompressor;
use bsonvault::format::segment::SeekTable;
use bsonvault::repository::Repository;
use bsonvault::repository::catalog::{Backup, Catalog};
use futures::TryStreamExt as _;
use mongodb::Client;
use mongodb::options::RunCursorCommandOptions;

/// Bytes of one write.
const WRITE: usize = 4 * 1024 * 1024;

/// How the read limit reads.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    pub cursors: usize,
    /// Documents per reply. A server ends a reply at 16 MiB.
    pub documents: u32,
}

impl Reading {
    /// The ways that are tried.
    pub const WAYS: [Self; 4] = [
        Self { cursors: 1, documents: 5_000 },
        Self { cursors: 2, documents: 5_000 },
        Self { cursors: 1, documents: 1_000_000 },
        Self { cursors: 2, documents: 1_000_000 },
    ];
}

impl std::fmt::Display for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reply = if self.documents < 100_000 { format!("{} documents", self.documents) } else { "16 MiB".to_owned() };
        write!(f, "{} cursor{}, replies of {reply}", self.cursors, if self.cursors == 1 { "" } else { "s" })
    }
}

/// Reads `orders` as raw batches, drops them, and returns their bytes.
pub async fn read(client: &Client, database: &str, middle: ObjectId, how: Reading) -> usize {
    let finds = match how.cursors {
        1 => vec![rawdoc! { "find": "orders", "hint": { "$natural": 1 }, "batchSize": i64::from(how.documents) }],
        _ => ["$lt", "$gte"].map(|side| half(side, middle, how)).to_vec(),
    };
    let mut cursors = tokio::task::JoinSet::new();
    for find in finds {
        let database = client.database(database);
        let options = RunCursorCommandOptions::builder().batch_size(how.documents).build();
        cursors.spawn(async move {
            let mut cursor = database.run_raw_cursor_command(find).with_options(options).batch().await.unwrap();
            let mut bytes = 0;
            while let Some(batch) = cursor.try_next().await.unwrap() {
                bytes += batch.as_raw_document().as_bytes().len();
            }
            bytes
        });
    }
    cursors.join_all().await.into_iter().sum()
}

fn half(side: &str, middle: ObjectId, how: Reading) -> RawDocumentBuf {
    let (hint, bound) = (doc! { "_id": 1 }, doc! { side: middle });
    let find = doc! { "find": "orders", "hint": hint, "filter": { "_id": bound }, "batchSize": i64::from(how.documents) };
    RawDocumentBuf::try_from(&find).unwrap()
}

/// The `_id` at which the second half of the orders begins.
pub async fn middle(client: &Client, database: &str, documents: usize) -> ObjectId {
    let orders = client.database(database).collection::<Document>("orders");
    let found = orders.find_one(doc! {}).sort(doc! { "_id": 1 }).skip(documents as u64 / 2).projection(doc! { "_id": 1 });
    found.await.unwrap().unwrap().get_object_id("_id").unwrap()
}

/// The segments of a backup, in memory.
pub struct Segments(Vec<Vec<u8>>);

impl Segments {
    pub async fn of(backup: &str) -> Self {
        let Backup { store, manifest } =
            Catalog::new(Repository::open(backup).unwrap(), &CpuPool::of_this_machine()).find(backup).await.unwrap();
        let mut all = Vec::new();
        for segment in manifest.collections.iter().flat_map(|collection| &collection.segments) {
            all.push(store.get(&segment.object.key).await.unwrap().to_vec());
        }
        Self(all)
    }

    /// The minimum work of `verify`: the SHA-256 of every stored byte, on all cores.
    pub fn hash(&self) {
        self.each(|segment| _ = std::hint::black_box(Sha256Hex::of(segment)));
    }

    /// The minimum work of `verify --deep`: the SHA-256, decompression, and the digest of the
    /// content, on all cores. Returns the number of documents.
    pub fn prove(&self) -> usize {
        let documents = AtomicUsize::new(0);
        self.each(|segment| {
            std::hint::black_box(Sha256Hex::of(segment));
            let (table, mut decompressor) = (SeekTable::read(segment).unwrap(), Decompressor::new().unwrap());
            let mut content = Content::default();
            for (place, raw) in table.frames() {
                let frame = decompressor.decompress(&segment[place.clone()], *raw).unwrap();
                Documents::of(&frame).for_each(|document| content.add(document.unwrap()));
            }
            documents.fetch_add(content.documents as usize, Ordering::Relaxed);
        });
        documents.into_inner()
    }

    fn each(&self, work: impl Fn(&[u8]) + Sync) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..cores() {
                scope.spawn(|| {
                    while let Some(segment) = self.0.get(next.fetch_add(1, Ordering::Relaxed)) {
                        work(segment);
                    }
                });
            }
        });
    }
}

/// Writes these bytes into a new file, and syncs it.
pub fn write(bytes: &[u8], to: &Path) {
    let mut file = std::fs::File::create(to).unwrap();
    bytes.chunks(WRITE).for_each(|chunk| file.write_all(chunk).unwrap());
    file.sync_all().unwrap();
}
