//! The data: orders of a shop, of about 880 bytes each, with mixed texts and numbers. Each run
//! creates the same data.

use bson::oid::ObjectId;
use bson::{Binary, Document, doc, spec::BinarySubtype};
use mongodb::Client;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

/// 2024-01-01, in seconds.
const BEGIN: u32 = 1_704_067_200;
/// Documents per command.
const BATCH: usize = 5_000;

/// An endless sequence of orders.
pub struct Orders {
    rng: StdRng,
    words: Vec<String>,
    notes: Vec<String>,
    number: u32,
}

impl Orders {
    /// Starts with the first order.
    pub fn new() -> Self {
        let mut rng = StdRng::seed_from_u64(7);
        let words: Vec<String> =
            (0..5000).map(|_| (0..rng.random_range(3..12)).map(|_| rng.random_range('a'..='z')).collect()).collect();
        let text = |rng: &mut StdRng, n: usize| (0..n).map(|_| words.choose(rng).unwrap().as_str()).collect::<Vec<_>>().join(" ");
        let notes = (0..20_000).map(|_| {
            let n = rng.random_range(20..91);
            text(&mut rng, n)
        });
        let notes = notes.collect();
        Self { rng, words, notes, number: 0 }
    }

    /// The next orders as in a frame, of about this many bytes.
    pub fn frame(&mut self, bytes: usize) -> Vec<u8> {
        let mut frame = Vec::with_capacity(bytes + 4096);
        while frame.len() < bytes {
            frame.extend(bson::serialize_to_vec(&self.next().unwrap()).unwrap());
        }
        frame
    }

    /// An `_id` as a driver creates it, ascending.
    fn id(&self) -> ObjectId {
        let mut bytes = [0x5A; 12];
        bytes[..4].copy_from_slice(&(BEGIN + self.number / 1000).to_be_bytes());
        bytes[9..].copy_from_slice(&self.number.to_be_bytes()[1..]);
        ObjectId::from_bytes(bytes)
    }
}

impl Iterator for Orders {
    type Item = Document;

    fn next(&mut self) -> Option<Document> {
        let id = self.id();
        self.number += 1;
        let Self { rng, words, notes, .. } = self;
        let items: Vec<Document> = (0..rng.random_range(1..6))
            .map(|_| doc! { "sku": rng.random_range(0..100_000_000), "qty": rng.random_range(0..10), "price": rng.random::<f64>() * 99.0 })
            .collect();
        Some(doc! {
            "_id": id, "customer": rng.random_range(0..1_000_000), "status": *["new", "paid", "shipped", "done"].choose(rng).unwrap(),
            "created": bson::DateTime::from_millis(i64::from(BEGIN) * 1000 + rng.random_range(0..30_000_000) * 1000),
            "total": rng.random::<f64>() * 1000.0, "note": notes.choose(rng).unwrap(),
            "tags": (0..4).map(|_| words.choose(rng).unwrap().clone()).collect::<Vec<_>>(),
            "address": {
                "street": format!("{} {}", words.choose(rng).unwrap(), rng.random_range(0..999)), "city": words.choose(rng).unwrap(),
                "zip": format!("{:05}", rng.random_range(0..100_000)),
                "geo": { "type": "Point", "coordinates": [rng.random::<f64>() * 360.0 - 180.0, rng.random::<f64>() * 180.0 - 90.0] },
            },
            "items": items,
        })
    }
}

/// Fills the collection `orders` of this database.
pub async fn fill_orders(client: &Client, database: &str, documents: usize) {
    let (orders, mut source) = (client.database(database).collection::<Document>("orders"), Orders::new());
    for part in 0..documents.div_ceil(BATCH) {
        let batch: Vec<Document> = source.by_ref().take(BATCH.min(documents - part * BATCH)).collect();
        orders.insert_many(batch).ordered(false).await.unwrap();
    }
}

/// Three secondary indexes of orders: on a number, on two fields, and on places.
pub fn indexes() -> Vec<Document> {
    let keys = [doc! { "customer": 1 }, doc! { "status": 1, "created": -1 }, doc! { "address.geo": "2dsphere" }];
    (0..).zip(keys).map(|(number, key)| doc! { "key": key, "name": format!("i{number}") }).collect()
}

/// Builds these indexes of `orders` in this database.
pub async fn build_indexes(client: &Client, database: &str, indexes: &[Document]) {
    let command = doc! { "createIndexes": "orders", "indexes": indexes, "writeConcern": { "w": 1 } };
    client.database(database).run_command(command).await.unwrap();
}

/// Fills `huge` of this database with incompressible documents of 16 MiB.
pub async fn fill_huge(client: &Client, database: &str, documents: i32) {
    let mut rng = StdRng::seed_from_u64(8);
    for id in 0..documents {
        let mut bytes = vec![0; 16 * 1024 * 1024 - 64];
        rng.fill_bytes(&mut bytes);
        let document = doc! { "_id": id, "v": Binary { subtype: BinarySubtype::Generic, bytes } };
        client.database(database).collection::<Document>("huge").insert_one(document).await.unwrap();
    }
}
