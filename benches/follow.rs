//! Measures how fast a target that is far behind catches up, compared with plain bulk writes.
//!
//! `cargo bench --bench follow -- [--operations N] [--runs N] [--single N] [--standalone]`
//!
//! The source's operations are those of `replay`, and are archived before anything is measured.
//! Each run puts an empty target back to the position before them, and lets it follow. Once its
//! collections have a unique index, so that it is one moment of the source all the time, and once
//! they have none, so that it catches up entry by entry. Then the same server takes the same
//! operations as plain bulk writes: for each, in its order, the last state of its document is put
//! in its place, or deleted, in unordered commands of a thousand statements from four clients. And
//! it takes some of them one by one.
//!
//! It prints medians of operations per second, and ratios to the bulk writes of the same run.
//! Compare the ratios.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    clippy::allow_attributes,
    reason = "a measurement prints, and ends where something is wrong"
)]

#[path = "../tests/support/mod.rs"]
mod support;

mod shop;

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use bson::{Bson, Document, doc};
use bsonvault::context::Context;
use bsonvault::engine::archive::{self, ArchiveOptions};
use bsonvault::engine::sync::{self, StatusSender, SyncOptions, SyncState, SyncStatus};
use bsonvault::format::manifest::ClusterTime;
use bsonvault::mongo::{MongoUri, Role};
use bsonvault::repository::Repository;
use mongodb::{Client, Collection};
use shop::arguments::Arguments;
use shop::median;
use shop::writer::{self, COLLECTIONS, name};
use support::server::{Server, ServerOptions};
use support::vault::Vault;
use tokio_util::sync::CancellationToken;

/// How many statements a bulk write has, and how many clients write.
const STATEMENTS: usize = 1_000;
const CLIENTS: usize = 4;

/// An operation: its collection, the `_id` of its document, and what becomes of that in the end.
type Work = (usize, Bson, Option<Document>);

#[tokio::main]
async fn main() {
    let mut arguments = Arguments::read("cargo bench --bench follow -- [--operations N] [--runs N] [--single N] [--standalone]");
    let operations = arguments.number("--operations", 500_000);
    let (runs, single) = (arguments.number("--runs", 3), arguments.number("--single", 4_000));
    let repl_set = (!arguments.flag("--standalone")).then(|| "target".to_owned());
    arguments.finish();
    let kind = if repl_set.is_some() { "replica set of one" } else { "standalone" };
    let large = |repl_set| ServerOptions {
        repl_set,
        cache_gb: Some(2.0),
        extra_args: vec!["--oplogSize".to_owned(), "4000".to_owned()],
        ..ServerOptions::default()
    };
    let unique = Behind::make([large(Some("source".to_owned())), large(repl_set.clone())], true, operations).await;
    let plain = Behind::make([large(Some("source".to_owned())), large(repl_set)], false, operations).await;
    println!("{kind}: {} operations", plain.work.len());
    let (mut figures, mut ratios): ([Vec<f64>; 4], [Vec<f64>; 3]) = Default::default();
    for _ in 0..runs {
        let (moments, lanes) = (unique.followed().await, plain.followed().await);
        let (bulk, one) = (plain.in_bulk().await, plain.one_by_one(single).await);
        for (all, rate) in figures.iter_mut().zip([moments, lanes, bulk, one]) {
            all.push(rate);
        }
        for (all, ratio) in ratios.iter_mut().zip([moments / bulk, lanes / bulk, lanes / one]) {
            all.push(ratio);
        }
    }
    let [moments, lanes, bulk, one] = figures.each_ref().map(|all| median(all));
    println!("operations a second: {moments:.0} with a unique index, {lanes:.0} without; {bulk:.0} in bulk, {one:.0} one by one");
    let [moments, lanes, single] = ratios.each_ref().map(|all| median(all));
    println!("of bulk writes: {moments:.2} with a unique index, {lanes:.2} without, which is {single:.1} times one by one");
}

/// A target that is far behind its source.
struct Behind {
    source: MongoUri,
    target: MongoUri,
    client: Client,
    vault: Vault,
    /// The position before the operations.
    position: Document,
    end: ClusterTime,
    work: Vec<Work>,
    _servers: [Server; 2],
}

impl Behind {
    async fn make(servers: [ServerOptions; 2], unique: bool, operations: usize) -> Self {
        let [source, target] = servers;
        let (source, target) = tokio::join!(Server::start(source), Server::start(target));
        let (client, vault) = (source.client().await, Vault::new());
        let database = client.database("src");
        for n in 0..COLLECTIONS {
            database.run_command(doc! { "create": name(n) }).await.unwrap();
            if unique {
                let index = doc! { "key": { "never": 1 }, "name": "never", "unique": true, "sparse": true };
                database.run_command(doc! { "createIndexes": name(n), "indexes": [index] }).await.unwrap();
            }
        }
        let from = MongoUri::parse(Role::Source, &source.uri()).unwrap();
        let to = MongoUri::parse(Role::Target, &target.uri()).unwrap();
        follow(&from, &to, vault.repository(), |status| status.state == SyncState::Following).await;
        let state = target.client().await.database("bsonvault").collection::<Document>("sync");
        let position = state.find_one(doc! { "_id": "position" }).await.unwrap().unwrap();
        writer::write(&client, operations).await;
        let reply = client.database("marks").run_command(doc! { "insert": "marks", "documents": [{}] }).await.unwrap();
        let end = ClusterTime::from(reply.get_timestamp("operationTime").unwrap());
        archive_until(&from, vault.repository(), end).await;
        let work = work(&client).await;
        let client = target.client().await;
        Self { source: from, target: to, client, vault, position, end, work, _servers: [source, target] }
    }

    /// Puts the target back, and lets it follow. Returns operations per second.
    async fn followed(&self) -> f64 {
        for n in 0..COLLECTIONS {
            self.collection("src", n).delete_many(doc! {}).await.unwrap();
        }
        self.client.database("marks").collection::<Document>("marks").delete_many(doc! {}).await.unwrap();
        let state = self.client.database("bsonvault").collection::<Document>("sync");
        state.delete_many(doc! {}).await.unwrap();
        state.insert_one(&self.position).await.unwrap();
        let (begin, end) = (Instant::now(), self.end);
        follow(&self.source, &self.target, self.vault.repository(), |status| status.at.is_some_and(|at| at >= end)).await;
        let seconds = begin.elapsed().as_secs_f64();
        let left: HashSet<(usize, String)> =
            self.work.iter().filter(|(.., last)| last.is_some()).map(|(n, id, _)| (*n, id.to_string())).collect();
        let mut found = 0;
        for n in 0..COLLECTIONS {
            found += self.collection("src", n).count_documents(doc! {}).await.unwrap();
        }
        assert_eq!(found, left.len() as u64, "the target does not hold what the source holds");
        self.work.len() as f64 / seconds
    }

    async fn in_bulk(&self) -> f64 {
        self.empty("plain").await;
        let begin = Instant::now();
        let share = self.work.len().div_ceil(CLIENTS);
        let clients = self.work.chunks(share).map(|work| {
            let (client, work) = (self.client.clone(), work.to_vec());
            tokio::spawn(async move {
                for some in work.chunks(STATEMENTS) {
                    write(&client, some).await;
                }
            })
        });
        for done in futures::future::join_all(clients).await {
            done.unwrap();
        }
        self.work.len() as f64 / begin.elapsed().as_secs_f64()
    }

    async fn one_by_one(&self, most: usize) -> f64 {
        self.empty("plain").await;
        let begin = Instant::now();
        let some = &self.work[..most.min(self.work.len())];
        for one in some {
            write(&self.client, std::slice::from_ref(one)).await;
        }
        some.len() as f64 / begin.elapsed().as_secs_f64()
    }

    async fn empty(&self, database: &str) {
        self.client.database(database).drop().await.unwrap();
        for n in 0..COLLECTIONS {
            self.client.database(database).run_command(doc! { "create": name(n) }).await.unwrap();
        }
    }

    fn collection(&self, database: &str, n: usize) -> Collection<Document> {
        self.client.database(database).collection(&name(n))
    }
}

/// Writes what becomes of these documents, in one unordered command for each kind and collection.
async fn write(client: &Client, work: &[Work]) {
    let database = client.database("plain");
    for n in 0..COLLECTIONS {
        // In one command, only the last state of a document counts.
        let of_this: HashMap<String, &Work> =
            work.iter().filter(|(of, ..)| *of == n).map(|one| (one.1.to_string(), one)).collect();
        let (mut updates, mut deletes) = (Vec::new(), Vec::new());
        for (_, id, last) in of_this.into_values() {
            match last {
                Some(last) => updates.push(doc! { "q": { "_id": id }, "u": last, "upsert": true }),
                None => deletes.push(doc! { "q": { "_id": id }, "limit": 1 }),
            }
        }
        if !updates.is_empty() {
            database.run_command(doc! { "update": name(n), "updates": updates, "ordered": false }).await.unwrap();
        }
        if !deletes.is_empty() {
            database.run_command(doc! { "delete": name(n), "deletes": deletes, "ordered": false }).await.unwrap();
        }
    }
}

/// Every operation of the source's oplog, with the last state of its document.
async fn work(client: &Client) -> Vec<Work> {
    let mut last: [HashMap<String, Document>; COLLECTIONS] = Default::default();
    for (n, last) in last.iter_mut().enumerate() {
        let mut found = client.database("src").collection::<Document>(&name(n)).find(doc! {}).await.unwrap();
        while found.advance().await.unwrap() {
            let document = found.deserialize_current().unwrap();
            last.insert(document.get("_id").unwrap().to_string(), document);
        }
    }
    let mut work = Vec::new();
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let of_them = doc! { "$or": [{ "ns": { "$regex": "^src[.]" } }, { "ns": "admin.$cmd", "o.applyOps": { "$exists": true } }] };
    let mut entries = oplog.find(of_them).await.unwrap();
    while entries.advance().await.unwrap() {
        let entry = entries.deserialize_current().unwrap();
        let inner = entry.get_document("o").ok().and_then(|o| o.get_array("applyOps").ok());
        let operations: Vec<&Document> =
            inner.map_or_else(|| vec![&entry], |all| all.iter().filter_map(Bson::as_document).collect());
        for operation in operations.into_iter().filter(|operation| operation.get_str("op").unwrap() != "c") {
            let n = (0..COLLECTIONS).find(|n| operation.get_str("ns").unwrap() == format!("src.{}", name(*n)));
            let of = if operation.get_str("op").unwrap() == "u" { "o2" } else { "o" };
            let id = operation.get_document(of).unwrap().get("_id").unwrap().clone();
            let (n, key) = (n.unwrap(), id.to_string());
            work.push((n, id, last[n].get(&key).cloned()));
        }
    }
    work
}

/// Lets the target follow until this holds.
async fn follow(source: &MongoUri, target: &MongoUri, repository: Repository, is_met: impl Fn(&SyncStatus) -> bool) {
    let stop = CancellationToken::new();
    let (sender, mut status) = StatusSender::new();
    let cx = Context::default().cancelled_by(stop.clone());
    let options = SyncOptions { proof: None, ..SyncOptions::default() };
    let run = sync::run(source, target, &repository, &options, &sender, &cx);
    let until = async {
        status.wait_for(|status| is_met(status)).await.unwrap();
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(Box::pin(run), until);
    ended.unwrap();
}

/// Archives the source's oplog up to this time.
async fn archive_until(source: &MongoUri, repository: Repository, end: ClusterTime) {
    let stop = CancellationToken::new();
    let (sender, mut status) = archive::status();
    let cx = Context::default().cancelled_by(stop.clone());
    let options = ArchiveOptions { bases: None, ..ArchiveOptions::default() };
    let run = archive::run(source, &repository, &options, &sender, &cx);
    let until = async {
        status.wait_for(|status| status.position.is_some_and(|at| at >= end)).await.unwrap();
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(Box::pin(run), until);
    ended.unwrap();
}
