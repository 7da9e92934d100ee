//! How fast a backup is, and what it takes, against the limit that reading alone sets.
//!
//! `cargo bench --bench backup -- [--documents N] [--runs N] [--uri URI]`
//!
//! Starts a server of its own and fills `shop.orders` (about 880 bytes a document, texts and numbers mixed) and `shop.huge`
//! (documents of 16 MiB); with `--uri`, reads `shop.orders` as it is there. Each run measures in turn: reading `shop.orders` with
//! raw batches and dropping them; `bsonvault backup` of it; the same over a slow link (40 ms round trip, 400 Mbit/s, 100 Mbit/s
//! a connection), where a server of its own is used. Prints medians and ratios; the ratios are what to compare. Peak memory is the process's own high-water
//! mark, read every 5 ms from /proc (Linux).

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

use std::time::{Duration, Instant};

use bson::{RawDocumentBuf, doc};
use futures::TryStreamExt as _;
use mongodb::Client;
use shop::{Measured, fill_huge, fill_orders, measure, median, median_of};
use support::link::{Link, LinkOptions};
use support::server::{Server, ServerOptions};

struct Arguments {
    documents: usize,
    runs: usize,
    uri: Option<String>,
}

impl Arguments {
    fn read() -> Self {
        let mut read = Self { documents: 300_000, runs: 3, uri: None };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--documents" => read.documents = arguments.next().unwrap().parse().unwrap(),
                "--runs" => read.runs = arguments.next().unwrap().parse().unwrap(),
                "--uri" => read.uri = arguments.next(),
                _ => {} // cargo's own
            }
        }
        read
    }
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::read();
    let server = match arguments.uri {
        Some(_) => None,
        None => {
            let options = ServerOptions { repl_set: Some("bench".to_owned()), cache_gb: Some(4.0), ..ServerOptions::default() };
            Some(Server::start(options).await)
        }
    };
    let uri = arguments.uri.clone().unwrap_or_else(|| server.as_ref().unwrap().uri());
    let client = Client::with_uri_str(&uri).await.unwrap();
    if server.is_some() {
        println!("filling shop.orders with {} documents", arguments.documents);
        fill_orders(&client, arguments.documents).await;
        fill_huge(&client, 40).await;
    }
    let raw = read_and_drop(&client).await.0; // also warms the server's cache

    let mut limits = Vec::new();
    let mut backups = Vec::new();
    for _ in 0..arguments.runs {
        limits.push(read_and_drop(&client).await.1);
        backups.push(backup(&uri, "shop.orders"));
    }
    let (limit, took) = (median(&limits), median_of(&backups, |m| m.seconds));
    let stored = backups[0].report["storedBytes"].as_f64().unwrap();
    println!("raw batches read and dropped   {limit:7.2} s   {:.0} MB", raw as f64 / 1e6);
    println!("backup, default settings       {took:7.2} s   {:.2} times the limit", took / limit);
    println!(
        "stored                         {:7.0} MB  {:.3} of the raw",
        stored / 1e6,
        stored / backups[0].report["rawBytes"].as_f64().unwrap()
    );
    println!("peak resident memory           {:7.0} MB", median_of(&backups, |m| m.peak_mb));

    if let Some(server) = &server {
        let huge: Vec<Measured> = (0..arguments.runs).map(|_| backup(&uri, "shop.huge")).collect();
        println!(
            "40 documents of 16 MiB         {:7.2} s   peak {:.0} MB",
            median_of(&huge, |m| m.seconds),
            median_of(&huge, |m| m.peak_mb)
        );
        let how = LinkOptions {
            round_trip: Duration::from_millis(40),
            mbit: Some(400.0),
            stream_mbit: Some(100.0),
            ..LinkOptions::default()
        };
        let link = Link::to(server.port(), how);
        let far = server.uri_through(link.port());
        let far = tokio::task::spawn_blocking(move || backup(&far, "shop.orders")).await.unwrap();
        let plain = raw as f64 * 8.0 / 100e6;
        println!("over a slow link               {:7.2} s   where one uncompressed stream needs {plain:.0} s", far.seconds);
    }
}

/// Reads the whole collection with one cursor and drops it: bytes and seconds.
async fn read_and_drop(client: &Client) -> (usize, f64) {
    let begin = Instant::now();
    let orders = client.database("shop").collection::<RawDocumentBuf>("orders");
    let mut cursor = orders.find(doc! {}).batch_size(1_000_000).batch().await.unwrap();
    let mut bytes = 0;
    while let Some(batch) = cursor.try_next().await.unwrap() {
        bytes += batch.as_raw_document().as_bytes().len();
    }
    (bytes, begin.elapsed().as_secs_f64())
}

fn backup(uri: &str, namespace: &str) -> Measured {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    measure(&["backup", "--source", uri, "--include", namespace, "--path", path])
}
