//! What the measurements of the binary share: the data, and how a process is measured.
#![allow(dead_code, reason = "each measurement uses a part")]
#![allow(clippy::unwrap_used, unreachable_pub, clippy::allow_attributes, reason = "a measurement ends where something is wrong")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bson::{Binary, Document, doc, spec::BinarySubtype};
use mongodb::Client;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngCore as _, SeedableRng as _};

/// One measured process.
pub struct Measured {
    pub seconds: f64,
    pub peak_mb: f64,
    pub report: serde_json::Value,
}

/// Runs the binary with these arguments and `--json`; it must succeed. Peak memory is the process's own high-water mark, read every 5 ms.
pub fn measure(arguments: &[&str]) -> Measured {
    let directory = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_bsonvault"))
        .args(arguments)
        .arg("--json")
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

pub fn median_of(measured: &[Measured], figure: impl Fn(&Measured) -> f64) -> f64 {
    median(&measured.iter().map(figure).collect::<Vec<_>>())
}

pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

pub async fn fill_orders(client: &Client, documents: usize) {
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

pub async fn fill_huge(client: &Client, documents: i32) {
    let mut rng = StdRng::seed_from_u64(8);
    for i in 0..documents {
        let mut bytes = vec![0; 16 * 1024 * 1024 - 64];
        rng.fill_bytes(&mut bytes);
        let document = doc! { "_id": i, "v": Binary { subtype: BinarySubtype::Generic, bytes } };
        client.database("shop").collection::<Document>("huge").insert_one(document).await.unwrap();
    }
}
