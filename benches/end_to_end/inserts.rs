//! The insert limit: how long the server needs for the same inserts and indexes, driven by the best
//! hand-made client.
//!
//! Commands are prepared before the clock starts, so only sending them and waiting for the server
//! counts. The number of writers, the size of commands, and the time of index builds vary. The best
//! ways are measured in every run.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bson::{Document, RawDocumentBuf, doc, rawdoc};
use bsonvault::format::document::{Documents, Writer};
use futures::TryStreamExt as _;
use futures::future::join_all;
use mongodb::Client;

use crate::figures::{Meter, Taken};
use crate::shop::data::{build_indexes, indexes};

/// How often each way is tried before the choice. The shorter time counts.
const TRIALS: usize = 2;
/// How many ways are chosen.
const CHOSEN: usize = 3;
/// The most bytes of documents in one command.
const LARGEST: usize = 16 * 1024 * 1024 - 64 * 1024;

/// A way to insert.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    writers: usize,
    batch: Batch,
    indexes: Indexes,
}

/// The content of a command.
#[derive(Debug, Clone, Copy)]
enum Batch {
    Documents(usize),
    Bytes(usize),
}

/// When indexes are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Indexes {
    Never,
    /// With one command, after all documents.
    Together,
    /// With three concurrent commands, after all documents.
    Each,
    /// With three commands that begin after half of the documents.
    Meanwhile,
    /// On the empty collection.
    Before,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.batch {
            Batch::Documents(documents) => write!(f, "{} writers, {documents} documents a command", self.writers)?,
            Batch::Bytes(bytes) => write!(f, "{} writers, {} MiB a command", self.writers, bytes.div_ceil(1024 * 1024))?,
        }
        f.write_str(match self.indexes {
            Indexes::Never => ", no indexes",
            Indexes::Together => ", indexes by one command",
            Indexes::Each => ", indexes by three commands",
            Indexes::Meanwhile => ", indexes from the half on",
            Indexes::Before => ", indexes before",
        })
    }
}

/// Documents in memory, and the target of their inserts.
pub struct Inserts<'a> {
    client: &'a Client,
    meter: &'a Meter,
    database: &'static str,
    documents: Vec<u8>,
    count: usize,
}

impl<'a> Inserts<'a> {
    /// The orders of one database, to be inserted into another one.
    pub async fn of(client: &'a Client, meter: &'a Meter, source: &str, database: &'static str) -> Self {
        let orders = client.database(source).collection::<RawDocumentBuf>("orders");
        let mut cursor = orders.find(doc! {}).batch().await.unwrap();
        let (mut documents, mut count) = (Vec::new(), 0);
        while let Some(batch) = cursor.try_next().await.unwrap() {
            for document in batch.doc_slices().unwrap() {
                documents.extend(document.unwrap().as_document().unwrap().as_bytes());
                count += 1;
            }
        }
        Self { client, meter, database, documents, count }
    }

    /// The bytes of the documents.
    pub fn bytes(&self) -> usize {
        self.documents.len()
    }

    /// Tries the ways, and returns the best ones.
    pub async fn choose(&self) -> Vec<Way> {
        let batches =
            [Batch::Documents(1000), Batch::Bytes(4 * 1024 * 1024), Batch::Bytes(8 * 1024 * 1024), Batch::Bytes(LARGEST)];
        let plain = [2, 4].into_iter().flat_map(|writers| batches.map(|batch| Way { writers, batch, indexes: Indexes::Never }));
        let plain = self.ranked(plain.collect()).await;
        let indexed = |way: Way| {
            [Indexes::Together, Indexes::Each, Indexes::Meanwhile, Indexes::Before].map(|indexes| Way { indexes, ..way })
        };
        let mut best = self.ranked(plain.iter().take(2).copied().flat_map(indexed).collect()).await;
        best.truncate(CHOSEN);
        best
    }

    /// The ways, fastest first.
    async fn ranked(&self, ways: Vec<Way>) -> Vec<Way> {
        let mut tried: Vec<(f64, Way)> = ways.into_iter().map(|way| (f64::INFINITY, way)).collect();
        for _ in 0..TRIALS {
            for (seconds, way) in &mut tried {
                *seconds = seconds.min(self.measure(*way).await.seconds);
            }
        }
        tried.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (seconds, way) in &tried {
            println!("  {seconds:6.2} s   {way}");
        }
        tried.into_iter().map(|(_, way)| way).collect()
    }

    /// Measures one way.
    pub async fn measure(&self, way: Way) -> Taken {
        self.client.database(self.database).drop().await.unwrap();
        let commands = self.commands(way.batch);
        let (taken, ()) = self.meter.own(self.insert(way, commands)).await;
        let orders = self.client.database(self.database).collection::<Document>("orders");
        assert_eq!(orders.count_documents(doc! {}).await.unwrap(), self.count as u64);
        let expected = if way.indexes == Indexes::Never { 1 } else { 1 + indexes().len() };
        assert_eq!(orders.list_index_names().await.unwrap().len(), expected);
        self.client.database(self.database).drop().await.unwrap();
        taken
    }

    async fn insert(&self, way: Way, mut commands: VecDeque<RawDocumentBuf>) {
        self.client.database(self.database).create_collection("orders").await.unwrap();
        if way.indexes == Indexes::Before {
            build_indexes(self.client, self.database, &indexes()).await;
        }
        if way.indexes == Indexes::Meanwhile {
            let rest = commands.split_off(commands.len() / 2);
            self.send(way.writers, commands).await;
            tokio::join!(self.send(way.writers, rest), self.build_each());
        } else {
            self.send(way.writers, commands).await;
        }
        match way.indexes {
            Indexes::Together => build_indexes(self.client, self.database, &indexes()).await,
            Indexes::Each => self.build_each().await,
            Indexes::Never | Indexes::Meanwhile | Indexes::Before => {}
        }
        make_durable(self.client, self.database).await;
    }

    async fn build_each(&self) {
        let indexes = indexes();
        join_all(indexes.chunks(1).map(|index| build_indexes(self.client, self.database, index))).await;
    }

    async fn send(&self, writers: usize, commands: VecDeque<RawDocumentBuf>) {
        let queue = Arc::new(Mutex::new(commands));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..writers {
            let (database, queue) = (self.client.database(self.database), queue.clone());
            tasks.spawn(async move {
                loop {
                    let next = queue.lock().unwrap().pop_front();
                    let Some(command) = next else { return };
                    let reply = database.run_raw_command(command).await.unwrap();
                    assert!(!reply.contains_key("writeErrors"), "{reply}");
                }
            });
        }
        tasks.join_all().await;
    }

    fn commands(&self, batch: Batch) -> VecDeque<RawDocumentBuf> {
        let mut commands = VecDeque::new();
        let (mut documents, mut bytes) = (Vec::new(), 0);
        for document in Documents::of(&self.documents) {
            let document = document.unwrap();
            let is_full = match batch {
                Batch::Documents(most) => documents.len() == most,
                // The names in the array take a few bytes each.
                Batch::Bytes(most) => bytes + document.len() + 16 > most,
            };
            if is_full {
                commands.push_back(insert(&std::mem::take(&mut documents)));
                bytes = 0;
            }
            bytes += document.len() + 16;
            documents.push(document);
        }
        commands.push_back(insert(&documents));
        commands
    }
}

fn insert(documents: &[&[u8]]) -> RawDocumentBuf {
    let mut command = Writer::default();
    command.string("insert", "orders");
    command.bool("ordered", false);
    command.document("writeConcern", rawdoc! { "w": 1, "j": false }.as_bytes());
    command.documents("documents", documents.iter().copied());
    command.raw().unwrap()
}

/// Waits until all writes are on the disks of a majority, with an update that matches nothing, as
/// an import does.
pub async fn make_durable(client: &Client, database: &str) {
    let nothing = doc! { "q": { "_id": "nothing" }, "u": { "$set": { "a": 1 } } };
    let concern = doc! { "w": "majority", "j": true };
    let update = doc! { "update": "orders", "updates": [nothing], "writeConcern": concern };
    client.database(database).run_command(update).await.unwrap();
}
