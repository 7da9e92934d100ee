//! Measures what two hundred clients cost a backup, and what a backup costs them.
//!
//! `cargo bench --bench service -- [--documents N] [--runs N] [--clients N]`
//!
//! It starts a server with `shop.orders` (about 880 bytes per document) and a service for it, all
//! on this machine. Each run takes one backup without clients, and one with them; the order
//! alternates. Every client requests the status once a second, and holds an event stream of the
//! job. The program prints medians over all runs, their ratio, and percentiles of the status
//! requests during backups.

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

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mongodb::Client;
use serde_json::Value;
use shop::arguments::Arguments;
use shop::data::fill_orders;
use shop::median;
use support::server::{Server, ServerOptions};
use support::service::{ADMIN, Service, configured};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// The observations of the clients.
#[derive(Default)]
struct Seen {
    /// Whether a backup is running.
    counts: AtomicBool,
    latencies: std::sync::Mutex<Vec<f64>>,
    events: AtomicU64,
    errors: AtomicU64,
}

#[tokio::main]
async fn main() {
    let mut arguments = Arguments::read("cargo bench --bench service -- [--documents N] [--runs N] [--clients N]");
    let documents = arguments.number("--documents", 1_200_000);
    let (runs, clients) = (arguments.number("--runs", 5), arguments.number("--clients", 200));
    arguments.finish();
    let options = ServerOptions { repl_set: Some("bench".to_owned()), cache_gb: Some(4.0), ..ServerOptions::default() };
    let server = Server::start(options).await;
    println!("filling shop.orders with {documents} documents");
    fill_orders(&Client::with_uri_str(server.uri()).await.unwrap(), "shop", documents).await;
    let cli = configured()
        .env("MONGO_URI_ATLAS", server.uri())
        .env("BACKUP_ENABLED", "false")
        .env("AUTO_IMPORT_TO_LOCAL", "false")
        .env("BACKUP_KEEP_LAST", "2")
        .env("RUST_LOG", "warn,bsonvault::api::launch=info");
    let service = Service::start(&cli).await;
    backup(&service).await; // warms the server's cache

    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let seen = Arc::new(Seen::default());
    for run in 0..runs {
        for turn in 0..2 {
            if (run + turn) % 2 == 0 {
                alone.push(backup(&service).await);
            } else {
                beside.push(backup_beside(&service, clients, &seen).await);
            }
        }
    }
    let (one, other) = (median(&alone), median(&beside));
    println!("backup alone                {one:7.2} s   of {alone:.2?}");
    println!("backup beside {:3} clients   {other:7.2} s   of {beside:.2?}   {:.3} times", clients, other / one);
    let mut latencies = std::mem::take(&mut *seen.latencies.lock().unwrap());
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    println!(
        "status, {} requests        p50 {:.1} ms   p90 {:.1} ms   p99 {:.1} ms   max {:.1} ms",
        latencies.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
    println!("events {}   errors {}", seen.events.load(Ordering::Relaxed), seen.errors.load(Ordering::Relaxed));
}

/// Takes a backup, and returns how long its job ran, in seconds.
async fn backup(service: &Service) -> f64 {
    let id = service.begin_backup().await;
    ended(service, &id).await
}

async fn ended(service: &Service, id: &str) -> f64 {
    loop {
        let job = service.job(id).await;
        match job["state"].as_str().unwrap() {
            "queued" | "running" => tokio::time::sleep(Duration::from_millis(200)).await,
            "succeeded" => {
                let at = |name: &str| chrono::DateTime::parse_from_rfc3339(job[name].as_str().unwrap()).unwrap();
                return (at("finished") - at("started")).num_milliseconds() as f64 / 1000.0;
            }
            _ => panic!("{job}"),
        }
    }
}

async fn backup_beside(service: &Service, clients: usize, seen: &Arc<Seen>) -> f64 {
    let (stop, address) = (CancellationToken::new(), service.address.strip_prefix("http://").unwrap().to_owned());
    // All clients are connected before the backup begins, and are spread over the second.
    let mut tasks = Vec::new();
    for number in 0..clients {
        let (stop, address, seen) = (stop.clone(), address.clone(), seen.clone());
        tasks.push(tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1).mul_f64(number as f64 / clients as f64)).await;
            if stop.run_until_cancelled(ask(&address, &seen)).await.is_some() {
                seen.errors.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    seen.counts.store(true, Ordering::Relaxed);
    let id = service.begin_backup().await;
    for _ in 0..clients {
        let (stop, address, seen, id) = (stop.clone(), address.clone(), seen.clone(), id.clone());
        tasks.push(tokio::spawn(async move {
            if stop.run_until_cancelled(follow(&address, &id, &seen)).await == Some(false) {
                seen.errors.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let took = ended(service, &id).await;
    seen.counts.store(false, Ordering::Relaxed);
    stop.cancel();
    for task in tasks {
        task.await.unwrap();
    }
    took
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {ADMIN}\r\n\r\n")
}

/// Requests the status once a second over one connection. Returns only on an error.
async fn ask(address: &str, seen: &Seen) {
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    let mut body = Vec::new();
    loop {
        let begun = Instant::now();
        stream.write_all(request("/api/backups/status").as_bytes()).await.unwrap();
        let Some((200, Some(length))) = head(&mut stream).await else { return };
        body.resize(length, 0);
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let took = begun.elapsed();
        if seen.counts.load(Ordering::Relaxed) {
            seen.latencies.lock().unwrap().push(took.as_secs_f64() * 1000.0);
        }
        let status: Value = serde_json::from_slice(&body).unwrap();
        if status["success"] != true {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1).saturating_sub(took)).await;
    }
}

/// Follows a job. Returns whether the stream reached its last event.
async fn follow(address: &str, id: &str, seen: &Seen) -> bool {
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    stream.write_all(request(&format!("/api/jobs/{id}/events")).as_bytes()).await.unwrap();
    if !matches!(head(&mut stream).await, Some((200, _))) {
        return false;
    }
    let mut line = String::new();
    loop {
        line.clear();
        match stream.read_line(&mut line).await {
            Ok(0) | Err(_) => return false,
            Ok(_) if line.starts_with("event") && line.contains("end") => return true,
            Ok(_) if line.starts_with("event") => _ = seen.events.fetch_add(1, Ordering::Relaxed),
            Ok(_) => {}
        }
    }
}

/// Status and length of a response.
async fn head(stream: &mut BufReader<TcpStream>) -> Option<(u16, Option<usize>)> {
    let (mut status, mut length, mut line) = (None, None, String::new());
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
        let text = line.trim_end().to_ascii_lowercase();
        if text.is_empty() {
            return Some((status?, length));
        } else if let Some(value) = text.strip_prefix("content-length: ") {
            length = value.parse().ok();
        } else if text.starts_with("http/") {
            status = text.split(' ').nth(1)?.parse().ok();
        }
    }
}
