//! Everything that can be done to a replica set, at random and one by one.

use bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use bsonvault::format::manifest::{Collection, CollectionKind};
use mongodb::{Client, ClientSession, Database};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use uuid::Uuid;

use super::changes;

const PLAIN: [&str; 4] = ["a", "b", "c", "d"];

/// Random writes to the database `work`.
pub(crate) struct Work {
    db: Database,
    rng: StdRng,
    prepared: Option<(ClientSession, bson::Timestamp)>,
    number: i32,
    has_series: bool,
}

impl Work {
    pub(crate) async fn start(client: &Client, seed: u64) -> Self {
        let db = client.database("work");
        let has_series = changes::version(client).await >= 5;
        if has_series {
            let series = doc! { "create": "series", "timeseries": { "timeField": "t", "metaField": "m" } };
            db.run_command(series).await.unwrap();
        }
        db.run_command(doc! { "create": "capped", "capped": true, "size": 1 << 20, "max": 40 }).await.unwrap();
        for name in PLAIN {
            db.run_command(doc! { "create": name }).await.unwrap();
        }
        Self { db, rng: StdRng::seed_from_u64(seed), prepared: None, number: 0, has_series }
    }

    /// The parts, each for a different time, in which this collection can be read.
    pub(crate) fn parts_of(&self, uuid: Uuid, listed: &[Collection]) -> Vec<(Uuid, u64, u64)> {
        let collection = listed.iter().find(|c| c.uuid == Some(uuid)).unwrap();
        let capped = collection.options.bson.get_bool("capped").unwrap_or(false);
        let parts = if capped { 1 } else { 4 };
        assert!(collection.kind != CollectionKind::View);
        (0..parts).map(|part| (uuid, part, parts)).collect()
    }

    pub(crate) async fn some(&mut self, count: usize) {
        for _ in 0..count {
            self.one().await;
        }
    }

    async fn one(&mut self) {
        self.number += 1;
        let n = self.number;
        // A search that meets a document of a prepared transaction waits for it.
        let free = if self.prepared.is_none() { &PLAIN[..] } else { &PLAIN[..2] };
        let name = *free.choose(&mut self.rng).unwrap();
        let collection = self.db.collection::<Document>(name);
        let id = self.id();
        match self.rng.random_range(0..100) {
            // Inserts of existing documents are refused; those of a prepared transaction's
            // documents would wait.
            0..=14 => drop(collection.insert_one(self.document(id)).await),
            15..=29 => {
                let update = self.change();
                collection
                    .update_one(doc! { "_id": id }, update)
                    .upsert(self.rng.random_bool(0.5))
                    .await
                    .map_or_else(only_conflicts, drop);
            }
            30..=41 => {
                let document = self.document(id.clone());
                drop(collection.replace_one(doc! { "_id": id }, document).upsert(true).await);
            }
            42..=53 => drop(collection.delete_one(doc! { "_id": id }).await.unwrap()),
            54..=58 => {
                let update = doc! { "$inc": { "n": 1 }, "$push": { "list": { "$each": [n], "$slice": -5 } } };
                drop(collection.update_many(doc! { "k": n % 3 }, update).await);
            }
            59..=65 => self.transaction(name).await,
            66..=77 => {
                let size = self.rng.random_range(1..200);
                let document = doc! { "_id": n, "pad": "x".repeat(size) };
                self.db.collection::<Document>("capped").insert_one(document).await.unwrap();
            }
            78..=90 if self.has_series => {
                let t = bson::DateTime::from_millis(1_700_000_000_000 + i64::from(n) * 20_000);
                let document = doc! { "t": t, "m": n % 2, "v": f64::from(n) / 3.0, format!("f{}", n % 3): "x" };
                self.db.collection::<Document>("series").insert_one(document).await.unwrap();
            }
            91 if self.has_series && self.rng.random_bool(0.5) => {
                // Not supported by every version.
                drop(self.db.collection::<Document>("series").delete_many(doc! { "m": 0 }).await);
            }
            92 => drop(collection.delete_many(doc! { "k": n % 4 }).await.unwrap()),
            93..=99 if self.prepared.is_none() => self.catalog(name, n).await,
            _ => {
                let many = (0..20).map(|i| doc! { "_id": format!("{n} {i}"), "k": i % 4 });
                collection.insert_many(many).await.unwrap();
            }
        }
    }

    async fn catalog(&mut self, name: &str, n: i32) {
        let (db, admin) = (&self.db, self.db.client().database("admin"));
        let old = format!("{name}_old");
        match self.rng.random_range(0..7) {
            // Log rotation: the log is renamed, and a new one begins.
            0 => {
                db.collection::<Document>(name).insert_one(doc! { "_id": format!("last {n}") }).await.unwrap();
                let rename = doc! { "renameCollection": format!("work.{name}"), "to": format!("work.{old}"), "dropTarget": true };
                admin.run_command(rename).await.unwrap();
                db.collection::<Document>(name).insert_one(doc! { "_id": format!("first {n}") }).await.unwrap();
            }
            1 => {
                db.collection::<Document>(name).drop().await.unwrap();
                db.collection::<Document>(name).insert_one(doc! { "_id": 1, "new": n }).await.unwrap();
            }
            2 => {
                let out = doc! { "aggregate": name, "pipeline": [{ "$match": { "k": { "$gte": 1 } } }, { "$out": "out" }], "cursor": {} };
                drop(db.run_command(out).await.unwrap());
            }
            3 => {
                let index = doc! { "createIndexes": name, "indexes": [{ "key": { format!("i{}", n % 3): 1 }, "name": format!("i{}", n % 3) }] };
                drop(db.run_command(index).await.unwrap());
            }
            4 => drop(db.run_command(doc! { "dropIndexes": name, "index": format!("i{}", n % 3) }).await),
            5 => {
                let view = doc! { "create": "view", "viewOn": name, "pipeline": [{ "$match": { "n": n } }] };
                if db.run_command(view).await.is_err() {
                    let view = doc! { "collMod": "view", "viewOn": name, "pipeline": [{ "$match": { "n": n } }] };
                    db.run_command(view).await.unwrap();
                }
            }
            _ => drop(
                db.run_command(doc! { "collMod": name, "validator": { "n": { "$ne": n } }, "validationLevel": "off" })
                    .await
                    .unwrap(),
            ),
        }
    }

    async fn transaction(&mut self, name: &str) {
        let mut session = self.db.client().start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        let mut failed = false;
        for _ in 0..self.rng.random_range(1..6) {
            let (id, update) = (self.id(), self.change());
            let collection = self.db.collection::<Document>(name);
            let done = match self.rng.random_range(0..3) {
                0 => collection.update_one(doc! { "_id": id }, update).session(&mut session).await.map(drop),
                1 => collection.delete_one(doc! { "_id": id }).session(&mut session).await.map(drop),
                _ => {
                    let document = self.document(Bson::Int32(self.number * 100 + 50_000));
                    self.db.collection(PLAIN[0]).insert_one(document).session(&mut session).await.map(drop)
                }
            };
            self.number += 1;
            if done.is_err() {
                failed = true;
                break;
            }
        }
        if failed || self.rng.random_bool(0.2) {
            drop(session.abort_transaction().await);
        } else {
            session.commit_transaction().await.unwrap();
        }
    }

    /// A transaction that does not fit into one oplog entry. If a server's cache is too small for
    /// it, it is repeated.
    pub(crate) async fn a_large_transaction(&mut self) {
        let mut session = self.db.client().start_session().await.unwrap();
        for _ in 0..20 {
            session.start_transaction().await.unwrap();
            if self.large_documents(&mut session).await.is_ok() && session.commit_transaction().await.is_ok() {
                return;
            }
            drop(session.abort_transaction().await);
        }
        panic!("the server takes no large transaction");
    }

    async fn large_documents(&self, session: &mut ClientSession) -> mongodb::error::Result<()> {
        for i in 0..20 {
            let bytes = vec![i; 1 << 20];
            let document = doc! { "_id": format!("large {i}"), "bytes": Binary { subtype: BinarySubtype::Generic, bytes } };
            let query = doc! { "_id": format!("large {i}") };
            self.db.collection::<Document>("d").replace_one(query, document).upsert(true).session(&mut *session).await?;
        }
        Ok(())
    }

    /// A transaction that stays open, with its operations already in the oplog.
    pub(crate) async fn prepare_a_transaction(&mut self) {
        let mut session = self.db.client().start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        let collection = self.db.collection::<Document>("c");
        collection.insert_one(doc! { "_id": format!("prepared {}", self.number) }).session(&mut session).await.unwrap();
        let update = doc! { "$set": { "prepared": self.number } };
        collection.update_many(doc! { "_id": { "$type": "int" } }, update).session(&mut session).await.unwrap();
        let prepare = doc! { "prepareTransaction": 1, "writeConcern": { "w": "majority" } };
        let reply = self.db.client().database("admin").run_command(prepare).session(&mut session).await.unwrap();
        self.prepared = Some((session, reply.get_timestamp("prepareTimestamp").unwrap()));
    }

    pub(crate) async fn commit_the_prepared_one(&mut self) {
        if let Some((mut session, time)) = self.prepared.take() {
            let commit = doc! { "commitTransaction": 1, "commitTimestamp": time };
            self.db.client().database("admin").run_command(commit).session(&mut session).await.unwrap();
        }
    }

    pub(crate) async fn give_up_the_prepared_one(&mut self) {
        if let Some((mut session, _)) = self.prepared.take() {
            session.abort_transaction().await.unwrap();
        }
    }

    fn id(&mut self) -> Bson {
        match self.rng.random_range(0..4) {
            0 => Bson::Int32(self.rng.random_range(0..30)),
            1 => Bson::String(format!("id {}", self.rng.random_range(0..20))),
            2 => Bson::Double(f64::from(self.rng.random_range(100..120))),
            _ => bson::bson!({ "x": self.rng.random_range(0..10) }),
        }
    }

    fn document(&mut self, id: Bson) -> Document {
        let mut document = doc! { "_id": id, "k": self.rng.random_range(0..4) };
        for _ in 0..self.rng.random_range(0..6) {
            document.insert(format!("f{}", self.rng.random_range(0..6)), self.value());
        }
        document
    }

    fn value(&mut self) -> Bson {
        match self.rng.random_range(0..5) {
            0 => Bson::Int32(self.rng.random()),
            1 => Bson::String("t".repeat(self.rng.random_range(0..60))),
            2 => bson::bson!([1, { "y": 2 }, [3]]),
            3 => bson::bson!({ "g": { "h": 1 }, "i": [1, 2, 3] }),
            _ => Bson::Timestamp(bson::Timestamp { time: 0, increment: 0 }),
        }
    }

    fn change(&mut self) -> Document {
        let field = format!("f{}", self.rng.random_range(0..6));
        let value = self.value();
        match self.rng.random_range(0..7) {
            0 => doc! { "$unset": { field: 1 } },
            1 => doc! { "$inc": { "n": 1 } },
            2 => doc! { "$push": { "list": self.rng.random_range(0..100) } },
            3 => doc! { "$set": { field: value, "k": self.rng.random_range(0..4) } },
            4 => doc! { "$set": { "deep.er": value } },
            5 => doc! { "$pull": { "list": { "$lt": 50 } } },
            _ => doc! { "$rename": { field: "renamed" } },
        }
    }
}

/// Checks that the error is only a conflict: the path of an update leads through a scalar, and
/// nothing is written.
fn only_conflicts(error: mongodb::error::Error) {
    assert!(matches!(&*error.kind, mongodb::error::ErrorKind::Write(_)), "{error}");
}
