//! Measures how fast an oplog slice is replayed, compared with one operation per command.
//!
//! `cargo bench --bench replay -- [--operations N] [--runs N] [--single N]`
//!
//! It starts two servers, one of them a replica set. Each run replays one third inserts, one third
//! updates (differences) and one third deletes. It first replays some of them one by one, each in
//! its own command. Then it replays all of them as an import does, with one to four commands in
//! flight. It prints medians of operations per second, and ratios. Compare the ratios.

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

use std::time::Instant;

use bson::{Binary, Document, Timestamp, doc, spec::BinarySubtype};
use bsonvault::context::Context;
use bsonvault::format::manifest::ClusterTime;
use bsonvault::mongo::connect::ConnectOptions;
use bsonvault::mongo::{Connection, MongoUri, Role};
use bsonvault::names::Namespace;
use bsonvault::oplog::Committed;
use bsonvault::oplog::apply::{Applier, Commits, Destination, Holds};
use bsonvault::sink::Target;
use shop::arguments::Arguments;
use shop::median;
use support::server::{Server, ServerOptions};
use uuid::Uuid;

const FRAME: usize = 4 * 1024 * 1024;
const COLLECTION: Uuid = Uuid::from_u128(7);

#[tokio::main]
async fn main() {
    let mut arguments = Arguments::read("cargo bench --bench replay -- [--operations N] [--runs N] [--single N]");
    let operations = arguments.number("--operations", 200_000);
    let (runs, single) = (arguments.number("--runs", 3), arguments.number("--single", 3_000));
    arguments.finish();
    for repl_set in [None, Some("bench".to_owned())] {
        let kind = if repl_set.is_some() { "replica set of one" } else { "standalone" };
        let server = Server::start(ServerOptions { repl_set, cache_gb: Some(2.0), ..ServerOptions::default() }).await;
        let (mut one, mut many) = (Vec::new(), [const { Vec::new() }; 3]);
        for _ in 0..runs {
            one.push(one_by_one(&server, single).await);
            for (figures, lanes) in many.iter_mut().zip([1, 2, 4]) {
                figures.push(replayed(&server, operations, lanes).await);
            }
        }
        let one = median(&one);
        println!("{kind}: one operation a command   {one:8.0} operations a second");
        for (figures, lanes) in many.iter().zip([1, 2, 4]) {
            let many = median(figures);
            println!(
                "{kind}: {operations} replayed, {lanes} lanes   {many:8.0} operations a second, {:.1} times as fast",
                many / one
            );
        }
    }
}

/// The `n`th operation: every third document is inserted, the one before it is updated, and the one
/// before that is deleted.
fn operation(n: usize) -> Document {
    let id = (n / 3) as i64;
    match n % 3 {
        0 => doc! { "op": "i", "o": { "_id": id, "n": 1, "text": "x".repeat(200), "more": { "a": [1, 2, 3] } } },
        1 => doc! { "op": "u", "o": { "$v": 2, "diff": { "u": { "n": 2 }, "i": { "new": "field" } } }, "o2": { "_id": id } },
        _ => doc! { "op": "d", "o": { "_id": id - 1 } },
    }
}

async fn empty(server: &Server) {
    let db = server.client().await.database("bench");
    db.drop().await.unwrap();
    db.run_command(doc! { "create": "c" }).await.unwrap();
}

async fn one_by_one(server: &Server, operations: usize) -> f64 {
    empty(server).await;
    let admin = server.client().await.database("admin");
    let begin = Instant::now();
    for n in 0..operations {
        let mut operation = operation(n);
        operation.insert("ns", "bench.c");
        admin.run_command(doc! { "applyOps": [operation] }).await.unwrap();
    }
    operations as f64 / begin.elapsed().as_secs_f64()
}

async fn replayed(server: &Server, operations: usize, lanes: usize) -> f64 {
    empty(server).await;
    let ui = Binary { subtype: BinarySubtype::Uuid, bytes: COLLECTION.as_bytes().to_vec() };
    let session = doc! { "id": ui.clone(), "uid": Binary { subtype: BinarySubtype::Generic, bytes: vec![0; 32] } };
    let mut frames = vec![Vec::with_capacity(FRAME)];
    for n in 0..operations {
        let mut entry = operation(n);
        let time = Timestamp { time: 10 + n as u32, increment: 1 };
        entry.extend(doc! { "lsid": session.clone(), "txnNumber": 1_i64, "ns": "src.c", "ui": ui.clone(), "ts": time, "t": 1_i64, "v": 2_i64 });
        let entry = entry.to_vec().unwrap();
        if frames.last().unwrap().len() + entry.len() > FRAME {
            frames.push(Vec::with_capacity(FRAME));
        }
        frames.last_mut().unwrap().extend(entry);
    }
    let uri = MongoUri::parse(Role::Target, &server.uri()).unwrap();
    let connection = Connection::open(&uri, ConnectOptions { pool: 16, selection_timeout: None }).await.unwrap();
    let destination =
        Destination { namespace: Namespace::new("bench", "c"), holds: Holds::Documents, has_rules: false, collated: false };
    let commits = Commits::Known(Committed::new(ClusterTime { t: 1, i: 1 }));
    let begin = Instant::now();
    let behaves_as = connection.behaves_as().await;
    let target = Target::new(connection, behaves_as, &Context::default());
    let mut applier = Applier::with_lanes(target, commits, lanes).await.unwrap();
    applier.direct(COLLECTION, destination).unwrap();
    for frame in frames {
        applier.take(frame).await.unwrap();
    }
    assert_eq!(applier.make_durable().await.unwrap().operations, operations as u64);
    operations as f64 / begin.elapsed().as_secs_f64()
}
