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

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bson::{Binary, Document, RawDocumentBuf, doc, spec::BinarySubtype};
use futures::TryStreamExt as _;
use mongodb::Client;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
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

/// One measured process.
struct Measured {
    seconds: f64,
    peak_mb: f64,
    report: serde_json::Value,
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
    let begin = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_bsonvault"))
        .args(["backup", "--json", "--source", uri, "--include", namespace, "--path"])
        .arg(directory.path())
        .current_dir(directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak_mb = 0.0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let kilobytes = text.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().split(' ').next()?.parse::<f64>().ok());
        peak_mb = kilobytes.map_or(peak_mb, |kb| kb / 1000.0);
        std::thread::sleep(Duration::from_millis(5));
    }
    let seconds = begin.elapsed().as_secs_f64();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Measured { seconds, peak_mb, report: serde_json::from_slice(&output.stdout).unwrap() }
}

fn median_of(measured: &[Measured], figure: impl Fn(&Measured) -> f64) -> f64 {
    median(&measured.iter().map(figure).collect::<Vec<_>>())
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

async fn fill_orders(client: &Client, documents: usize) {
    let mut rng = StdRng::seed_from_u64(7);
    let words: Vec<String> =
        (0..5000).map(|_| (0..rng.random_range(3..12)).map(|_| rng.random_range('a'..='z')).collect()).collect();
    let text = |rng: &mut StdRng, n: usize| (0..n).map(|_| words.choose(rng).unwrap().as_str()).collect::<Vec<_>>().join(" ");
    let notes: Vec<String> = (0..20_000)
        .map(|_| {
            let n = rng.random_range(20..91);
            text(&mut rng, n)
        })
        .collect();
    let orders = client.database("shop").collection::<Document>("orders");
    for part in 0..documents.div_ceil(5000) {
        let batch = (0..5000.min(documents - part * 5000)).map(|_| {
            let items: Vec<Document> = (0..rng.random_range(1..6))
                .map(|_| doc! { "sku": rng.random_range(0..100_000_000), "qty": rng.random_range(0..10), "price": rng.random::<f64>() * 99.0 })
                .collect();
            doc! {
                "customer": rng.random_range(0..1_000_000), "status": *["new", "paid", "shipped", "done"].choose(&mut rng).unwrap(),
                "created": bson::DateTime::from_millis(1_704_067_200_000 + rng.random_range(0..30_000_000) * 1000),
                "total": rng.random::<f64>() * 1000.0, "note": notes.choose(&mut rng).unwrap(),
                "tags": (0..4).map(|_| words.choose(&mut rng).unwrap().clone()).collect::<Vec<_>>(),
                "address": {
                    "street": format!("{} {}", words.choose(&mut rng).unwrap(), rng.random_range(0..999)), "city": words.choose(&mut rng).unwrap(),
                    "zip": format!("{:05}", rng.random_range(0..100_000)),
                    "geo": { "type": "Point", "coordinates": [rng.random::<f64>() * 360.0 - 180.0, rng.random::<f64>() * 180.0 - 90.0] },
                },
                "items": items,
            }
        });
        orders.insert_many(batch.collect::<Vec<_>>()).ordered(false).await.unwrap();
    }
}

async fn fill_huge(client: &Client, documents: i32) {
    let mut rng = StdRng::seed_from_u64(8);
    for i in 0..documents {
        let mut bytes = vec![0; 16 * 1024 * 1024 - 64];
        rng.fill_bytes(&mut bytes);
        let document = doc! { "_id": i, "v": Binary { subtype: BinarySubtype::Generic, bytes } };
        client.database("shop").collection::<Document>("huge").insert_one(document).await.unwrap();
    }
}
