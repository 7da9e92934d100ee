//! How fast an export is, against reading alone and against writing the same bytes.
//!
//! `cargo bench --bench export -- [--documents N] [--runs N] [--backup PATH]`
//!
//! Starts a server of its own, fills `shop.orders` (about 880 bytes a document) and backs it up, or takes the backup that is given. Each run measures in turn: `bsonvault verify --deep`, which
//! reads and proves as much; the export's bytes written by plain writes of 4 MiB, and synced; `bsonvault export` as an archive, as a directory, and as an archive with gzip. Prints medians; the
//! ratios are what to compare.

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

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Instant;

use mongodb::Client;
use shop::{Measured, fill_orders, measure, median, median_of};
use support::server::{Server, ServerOptions};

#[tokio::main]
async fn main() {
    let (mut documents, mut runs, mut given) = (1_000_000, 3, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--documents" => documents = arguments.next().unwrap().parse().unwrap(),
            "--runs" => runs = arguments.next().unwrap().parse().unwrap(),
            "--backup" => given = arguments.next(),
            "--bench" => {}
            other => panic!("{other} is not known"),
        }
    }
    let directory = tempfile::tempdir_in(".").unwrap();
    let backup = match given {
        Some(given) => given,
        None => taken(directory.path(), documents).await,
    };
    let out = directory.path().join("out");
    let out = out.to_str().unwrap();
    let export = |format: &str, gzip: bool| {
        let mut arguments = vec!["export", &backup, "--format", format, "--out", out];
        arguments.extend(gzip.then_some("--gzip"));
        let backup = std::fs::canonicalize(&backup).unwrap();
        let out = std::path::absolute(out).unwrap();
        (arguments[1], arguments[5]) = (backup.to_str().unwrap(), out.to_str().unwrap());
        measure(&arguments)
    };
    let (mut reads, mut plain) = (Vec::new(), Vec::new());
    let (mut archives, mut directories, mut packed) = (Vec::<Measured>::new(), Vec::<Measured>::new(), Vec::<Measured>::new());
    for _ in 0..runs {
        let path = std::fs::canonicalize(&backup).unwrap();
        reads.push(measure(&["verify", path.to_str().unwrap(), "--deep"]));
        archives.push(export("archive", false));
        plain.push(written_again(Path::new(out)));
        std::fs::remove_file(out).unwrap();
        directories.push(export("dir", false));
        std::fs::remove_dir_all(out).unwrap();
        packed.push(export("archive", true));
        std::fs::remove_file(out).unwrap();
    }
    let megabytes = archives[0].report["bytes"].as_f64().unwrap() / 1e6;
    let (read, write) = (median_of(&reads, |m| m.seconds), median(&plain));
    println!("{megabytes:.0} MB of BSON");
    println!("verify --deep          {read:6.2} s  {:6.0} MB/s", megabytes / read);
    println!("plain writes, synced   {write:6.2} s  {:6.0} MB/s", megabytes / write);
    for (name, measured) in [("archive", &archives), ("directory", &directories), ("archive, gzip", &packed)] {
        let took = median_of(measured, |m| m.seconds);
        println!(
            "{name:<22} {took:6.2} s  {:6.0} MB/s  {:.2} times reading, {:.2} times writing, peak {:.0} MB",
            megabytes / took,
            took / read,
            took / write,
            median_of(measured, |m| m.peak_mb)
        );
    }
}

async fn taken(directory: &Path, documents: usize) -> String {
    let server = Server::start(ServerOptions { cache_gb: Some(2.0), ..ServerOptions::default() }).await;
    let client = Client::with_uri_str(server.uri()).await.unwrap();
    println!("filling shop.orders with {documents} documents");
    fill_orders(&client, documents).await;
    let path = std::path::absolute(directory).unwrap();
    let report = measure(&["backup", "--source", &server.uri(), "--path", path.to_str().unwrap()]).report;
    report["path"].as_str().unwrap().to_owned()
}

/// Seconds that it takes to write the bytes of this file into another one beside it, and to sync that; reading them is not counted.
fn written_again(file: &Path) -> f64 {
    let to = file.with_extension("again");
    let (mut from, mut copy) = (std::fs::File::open(file).unwrap(), std::fs::File::create(&to).unwrap());
    let (mut buffer, mut seconds) = (vec![0; 4 * 1024 * 1024], 0.0);
    loop {
        let count = from.read(&mut buffer).unwrap();
        let begin = Instant::now();
        if count == 0 {
            copy.sync_all().unwrap();
            seconds += begin.elapsed().as_secs_f64();
            break;
        }
        copy.write_all(&buffer[..count]).unwrap();
        seconds += begin.elapsed().as_secs_f64();
    }
    std::fs::remove_file(to).unwrap();
    seconds
}
