//! How fast an import is, and what it takes, against the limit that the server's inserts alone set.
//!
//! `cargo bench --bench import -- [--documents N] [--runs N] [--backup PATH --target URI]`
//!
//! Starts a server of its own, fills `shop.orders` (about 880 bytes a document) with three secondary indexes and `shop.huge` (three documents of 16 MiB), and backs them
//! up. Each run measures in turn: the same documents inserted by four writers into a collection without indexes, acknowledged and not
//! journaled; `bsonvault import` of the backup with its default settings, which proves, reads back, indexes and publishes; and the same of an archive and a directory in
//! mongodump's formats, both gzip, that were exported from it. With `--backup` and `--target` it
//! imports that backup into that server. Prints medians and ratios; the ratios are what to compare.

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

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bson::doc;
use bsonvault::catalog::{Backup, Catalog};
use bsonvault::mongo::connect::ConnectOptions;
use bsonvault::mongo::{Connection, MongoUri, Role};
use bsonvault::names::Namespace;
use bsonvault::pipeline::cpu::Cpu;
use bsonvault::pipeline::progress::Progress;
use bsonvault::pipeline::read::SegmentReader;
use bsonvault::sink::insert::Inserter;
use bsonvault::sink::{Blueprint, Target};
use bsonvault::store::Store;
use mongodb::Client;
use shop::{Measured, fill_huge, fill_orders, measure, median, median_of};
use support::server::{Server, ServerOptions};
use tokio_util::sync::CancellationToken;

/// Writers of the limit.
const WRITERS: usize = 4;

#[tokio::main]
async fn main() {
    let (mut documents, mut runs, mut given, mut target) = (300_000, 3, None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--documents" => documents = arguments.next().unwrap().parse().unwrap(),
            "--runs" => runs = arguments.next().unwrap().parse().unwrap(),
            "--backup" => given = arguments.next(),
            "--target" => target = arguments.next(),
            _ => {} // cargo's own
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let server = match target {
        Some(_) => None,
        None => Some(Server::start(ServerOptions { cache_gb: Some(4.0), ..ServerOptions::default() }).await),
    };
    let uri = target.unwrap_or_else(|| server.as_ref().unwrap().uri());
    let client = Client::with_uri_str(&uri).await.unwrap();
    let path = directory.path().to_str().unwrap();
    let (orders, huge) = match given {
        Some(given) => (given, None),
        None => {
            println!("filling shop.orders with {documents} documents");
            fill_orders(&client, documents).await;
            fill_huge(&client, 3).await;
            let keys = [doc! { "customer": 1 }, doc! { "status": 1, "created": -1 }, doc! { "address.geo": "2dsphere" }];
            let indexes: Vec<_> = keys.iter().enumerate().map(|(i, key)| doc! { "key": key, "name": format!("i{i}") }).collect();
            client.database("shop").run_command(doc! { "createIndexes": "orders", "indexes": indexes }).await.unwrap();
            let take = |namespace: &str| {
                let report = measure(&["backup", "--source", &uri, "--include", namespace, "--path", path]).report;
                report["path"].as_str().unwrap().to_owned()
            };
            let taken = (take("shop.orders"), Some(take("shop.huge")));
            client.database("shop").drop().await.unwrap();
            taken
        }
    };
    let import = |backup: &str| measure(&["import", backup, "--target", &uri, "--allow-same", "--path", path]);
    let dump = |format: &str| {
        let out = directory.path().join(format!("dump-{format}")).to_str().unwrap().to_owned();
        measure(&["export", &orders, "--format", format, "--gzip", "--out", &out]);
        out
    };
    let (archive, dir) = (dump("archive"), dump("dir"));
    let (mut limits, mut imports) = (Vec::new(), Vec::<Measured>::new());
    let (mut of_archive, mut of_dir) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        limits.push(inserts_alone(&client, &uri, &orders).await);
        imports.push(import(&orders));
        of_archive.push(import(&archive));
        of_dir.push(import(&dir));
    }
    let (limit, took) = (median(&limits), median_of(&imports, |m| m.seconds));
    println!("inserts alone, {WRITERS} writers      {limit:7.2} s");
    println!("import, default settings     {took:7.2} s   {:.2} times the limit", took / limit);
    println!("peak resident memory         {:7.0} MB", median_of(&imports, |m| m.peak_mb));
    for (name, imports) in [("of a gzip archive", of_archive), ("of a gzip directory", of_dir)] {
        let (seconds, peak) = (median_of(&imports, |m| m.seconds), median_of(&imports, |m| m.peak_mb));
        println!("import {name:<21} {seconds:7.2} s   {:.2} times that of the backup, peak {peak:.0} MB", seconds / took);
    }
    if let Some(huge) = huge {
        let imports: Vec<Measured> = (0..runs).map(|_| import(&huge)).collect();
        println!(
            "3 documents of 16 MiB        {:7.2} s   peak {:.0} MB",
            median_of(&imports, |m| m.seconds),
            median_of(&imports, |m| m.peak_mb)
        );
    }
}

/// Inserts the documents of the backup's one collection and gives the seconds that it took, until the last is acknowledged.
async fn inserts_alone(client: &Client, uri: &str, backup: &str) -> f64 {
    client.database("floor").drop().await.unwrap();
    client.database("floor").create_collection("orders").await.unwrap();
    let Backup { store, manifest } = Catalog::new(Store::open(backup).unwrap()).find(backup).await.unwrap();
    let uri = MongoUri::parse(Role::Target, uri).unwrap();
    let connection = Connection::open(&uri, ConnectOptions { pool: 16, selection_timeout: None }).await.unwrap();
    let version = connection.behaves_as().await;
    let blueprint = Blueprint::of(&manifest.collections[0], Namespace::new("floor", "orders"), version).unwrap();
    let cpu = Cpu::of_this_machine();
    let target = Target::new(connection.clone(), version, CancellationToken::new());
    let inserter = Inserter::new(target, Arc::new(blueprint), cpu.clone());
    let item = Progress::default().item("floor.orders", 0, 0);
    let queue = Arc::new(Mutex::new(manifest.collections[0].segments.clone().into_iter().collect::<VecDeque<_>>()));
    let begin = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let (queue, store, cpu, inserter, item) = (queue.clone(), store.clone(), cpu.clone(), inserter.clone(), item.clone());
        writers.spawn(async move {
            loop {
                let next = queue.lock().unwrap().pop_front();
                let Some(segment) = next else { return };
                let mut reader = SegmentReader::open(&store, &segment, &cpu).await.unwrap();
                while let Some(frame) = reader.next().await.unwrap() {
                    inserter.insert(frame, &item).await.unwrap();
                }
            }
        });
    }
    writers.join_all().await;
    let seconds = begin.elapsed().as_secs_f64();
    drop(inserter);
    connection.close().await;
    client.database("floor").drop().await.unwrap();
    seconds
}
