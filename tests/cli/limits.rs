//! Load on a source and on this machine: limits hold, a slow source gets a pause, and frames have
//! the requested form.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use mongodb::Client;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};

use crate::support::cli::{Cli, finish};
use crate::support::link::{Link, LinkOptions};
use crate::support::server::{Server, ServerOptions};

/// A collection of this many incompressible documents of 10 kB each.
async fn fill(client: &Client, documents: i32) {
    let mut random = StdRng::seed_from_u64(6);
    let documents = (0..documents).map(|number| {
        let mut bytes = vec![0; 10_000];
        random.fill_bytes(&mut bytes);
        doc! { "_id": number, "v": Binary { subtype: BinarySubtype::Generic, bytes } }
    });
    let collection = client.database("shop").collection::<Document>("orders");
    collection.insert_many(documents.collect::<Vec<_>>()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_kept_and_the_backup_is_whole() {
    let source = Server::standalone().await;
    fill(&source.client().await, 400).await;
    let cli = Cli::new();
    let began = Instant::now();
    // 4 MB at 2 MB/s.
    let taken = cli.json(&["backup", "--source", &source.uri(), "--max-mbit", "16"]).await;
    assert!(began.elapsed() >= Duration::from_millis(1_700), "{:?}", began.elapsed());
    assert_eq!(taken["documents"], 400);
    let verified = cli.json(&["verify", taken["path"].as_str().unwrap(), "--deep"]).await;
    assert_eq!(verified["documents"], 400);
}

/// Inserts documents of this size with ascending `_id`s as fast as possible, and removes the
/// oldest, until it is stopped.
async fn queue(client: Client, stop: Arc<AtomicBool>) {
    let queue = client.database("shop").collection::<Document>("queue");
    for number in 200.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        queue.insert_one(doc! { "_id": number, "job": "x".repeat(40_000) }).await.unwrap();
        queue.delete_one(doc! { "_id": number - 40 }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_ends_though_documents_come_faster_than_it_may_read() {
    // Neither can read a snapshot: one has none, the other's expires at once.
    let history = vec![("minSnapshotHistoryWindowInSeconds".to_owned(), "0".to_owned())];
    let set = ServerOptions { repl_set: Some("rs".to_owned()), parameters: history, ..ServerOptions::default() };
    let (alone, set) = tokio::join!(Server::standalone(), Server::start(set));
    let backup = async |source: &Server, kind: &str| {
        let client = source.client().await;
        let queue_ids = (160..200).map(Bson::from).chain([Bson::MaxKey]);
        let documents: Vec<Document> = queue_ids.map(|id| doc! { "_id": id, "job": "x".repeat(40_000) }).collect();
        client.database("shop").collection::<Document>("queue").insert_many(documents).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let writing = tokio::spawn(queue(client, stop.clone()));
        let cli = Cli::new();
        let source = source.uri();
        let args = ["backup", "--source", &source, "--max-mbit", "4"];
        let taken = tokio::time::timeout(Duration::from_secs(60), cli.json(&args)).await;
        stop.store(true, Ordering::Relaxed);
        let taken = taken.expect("the backup follows what is written for ever");
        writing.await.unwrap();
        assert_eq!(taken["consistency"]["kind"], kind, "{taken}");
        let documents = taken["documents"].as_u64().unwrap();
        assert!((1..=200).contains(&documents), "{taken}");
    };
    tokio::join!(backup(&alone, "none"), backup(&set, "oplog"));
}

/// The same with `_id`s in the middle of what is read, before one that stays the last.
async fn queue_in_the_middle(client: Client, stop: Arc<AtomicBool>) {
    let queue = client.database("shop").collection::<Document>("queue");
    let id = |number: i32| format!("b{number:09}");
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        queue.insert_one(doc! { "_id": id(number), "job": "x".repeat(40_000) }).await.unwrap();
        queue.delete_one(doc! { "_id": id(number - 40) }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_ends_though_documents_come_just_before_its_cursor() {
    let source = Server::standalone().await;
    let client = source.client().await;
    let ids = (0..20).map(|number| format!("a{number}")).chain(["z".to_owned()]);
    let documents: Vec<Document> = ids.map(|id| doc! { "_id": id, "job": "x".repeat(40_000) }).collect();
    client.database("shop").collection::<Document>("queue").insert_many(documents).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(queue_in_the_middle(client, stop.clone()));
    let cli = Cli::new().env("RUST_LOG", "bsonvault=warn");
    let uri = source.uri();
    let args = ["backup", "--source", &uri, "--max-mbit", "4"];
    let taken = tokio::time::timeout(Duration::from_secs(30), cli.run(&args)).await;
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    let taken = taken.expect("the backup follows what is written for ever");
    assert_eq!(taken.code, Some(0), "{taken:?}");
    assert!(taken.stderr.contains("grows faster than the rate limit allows"), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polite_backup_eases_a_source_that_is_late_and_goes_on_when_it_is_not() {
    let source = Server::standalone().await;
    fill(&source.client().await, 800).await;
    // 8 MB at 2 MB/s: enough time for answers to become late.
    let link = Link::to(source.port(), LinkOptions { mbit: Some(16.0), ..LinkOptions::default() });
    let cli = Cli::new().env("RUST_LOG", "bsonvault=info");
    let uri = source.uri_through(link.port());
    // Small batches, so that it pauses often.
    let began = Instant::now();
    let backup = cli.spawn(&["backup", "--source", &uri, "--adaptive-throttle", "--max-mbit", "40", "--json"]);
    let path = cli.dir().join("backups");
    let is_reading =
        || std::fs::read_dir(&path).is_ok_and(|mut found| found.any(|e| e.unwrap().path().join("resume.00000.json").exists()));
    while !is_reading() {
        assert!(began.elapsed() < Duration::from_secs(60), "it does not begin to read");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let began = Instant::now();
    let late = doc! { "failCommands": ["find"], "blockConnection": true, "blockTimeMS": 150 };
    source.fail_command("alwaysOn", late).await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    source.fail_no_more().await;
    let ended = finish(backup).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("answers late: readers pause"), "{}", ended.stderr);
    assert_eq!(ended.json()["documents"], 800);
    // 8 MB take four seconds on the link. While answers were late, readers paused.
    assert!(began.elapsed() >= Duration::from_millis(6500), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_as_large_as_asked_for_and_far_repetitions_are_found() {
    let source = Server::standalone().await;
    let client = source.client().await;
    fill(&client, 500).await;
    // The same again, 5 MB later.
    let again = client.database("shop").collection::<Document>("orders");
    let pipeline = [doc! { "$set": { "_id": { "$add": ["$_id", 1000] } } }, doc! { "$merge": "orders" }];
    again.aggregate(pipeline).await.unwrap();
    let cli = Cli::new();
    let level = ["--level", "1", "--readers", "1"];
    let take = async |more: &[&str]| {
        let uri = source.uri();
        let arguments = [&["backup", "--source", &uri][..], &level, more].concat();
        let taken = cli.json(&arguments).await;
        let manifest = std::fs::read(format!("{}/manifest.json", taken["path"].as_str().unwrap())).unwrap();
        (taken, serde_json::from_slice::<serde_json::Value>(&manifest).unwrap())
    };
    let (plain, _) = take(&[]).await;
    let (long, manifest) = take(&["--frame-mb", "16", "--long"]).await;
    let stored = |taken: &serde_json::Value| taken["storedBytes"].as_u64().unwrap();
    assert!(stored(&long) * 3 < stored(&plain) * 2, "{} is not much less than {}", stored(&long), stored(&plain));
    let settings = &manifest["settings"];
    assert_eq!((&settings["longDistance"], &settings["frameBytes"]), (&true.into(), &(16 * 1024 * 1024).into()), "{manifest}");
    let verified = cli.json(&["verify", long["path"].as_str().unwrap(), "--deep"]).await;
    assert_eq!(verified["documents"], 1_000);
}
