//! Interruptions: whatever ends a backup, what is left is whole or recognisably unfinished, the same command succeeds again, and an unfinished one
//! can be resumed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

use bson::doc;
use rand::{Rng as _, SeedableRng as _};
use support::backups::{content, fill_large};
use support::bank::{self, Bank, BankOptions};
use support::cli::{Cli, Output, finish};
use support::server::{Server, ServerOptions};

/// How many collections of a thousand documents there are beside what changes.
const STEADY: usize = 16;

async fn fill_steady(server: &Server, database: &str) {
    let database = server.client().await.database(database);
    for number in 0..STEADY {
        fill_large(&database, &format!("steady{number}"), 1000).await;
    }
}

/// Everything the program reads takes its time.
async fn slow_down(server: &Server, milliseconds: i32) {
    let slow = doc! { "failCommands": ["find"], "appName": "bsonvault", "blockConnection": true, "blockTimeMS": milliseconds };
    server.fail_command("alwaysOn", slow).await;
}

async fn full_speed(server: &Server) {
    server.admin(doc! { "configureFailPoint": "failCommand", "mode": "off" }).await.unwrap();
}

/// The one directory of the backups' path.
fn directory(cli: &Cli) -> Option<PathBuf> {
    std::fs::read_dir(cli.dir().join("backups")).ok()?.map(|e| e.unwrap().path()).next()
}

/// What the journal says is durable: keys of segments of collections.
fn durable(directory: &Path) -> Vec<String> {
    let mut keys = Vec::new();
    for number in 1.. {
        let Ok(text) = std::fs::read_to_string(directory.join(format!("resume.{number:05}.json"))) else { return keys };
        let step: serde_json::Value = serde_json::from_str(&text).unwrap();
        for range in step["ranges"].as_array().unwrap() {
            keys.extend(range["segments"].as_array().unwrap().iter().map(|s| s["key"].as_str().unwrap().to_owned()));
        }
    }
    keys
}

fn written(directory: &Path, keys: &[String]) -> BTreeMap<String, SystemTime> {
    keys.iter().map(|k| (k.clone(), std::fs::metadata(directory.join(k)).unwrap().modified().unwrap())).collect()
}

/// Waits until this many segments are durable by the journal, and gives the backup's directory.
async fn wait_durable(cli: &Cli, child: &mut Child, segments: usize) -> PathBuf {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(directory) = directory(cli).filter(|d| durable(d).len() >= segments) {
            return directory;
        }
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "nothing became durable");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn kill(mut child: Child) {
    child.kill().unwrap(); // SIGKILL
    finish(child).await;
}

fn name(directory: &Path) -> String {
    directory.file_name().unwrap().to_str().unwrap().to_owned()
}

fn failed(output: &Output, message: &str) {
    assert_ne!(output.code, Some(0), "{output:?}");
    assert!(output.stderr.contains(message), "{message:?} is not in {output:?}");
}

/// That a backup is sound, holds the steady collections to the byte, and comes back consistent.
async fn prove(cli: &Cli, server: &Server, target: &Server, name: &str, database: &str) -> serde_json::Value {
    cli.json(&["verify", name, "--deep"]).await;
    let left = std::fs::read_dir(cli.dir().join("backups").join(name)).unwrap().map(|e| e.unwrap().file_name());
    let left: Vec<_> = left.filter(|n| n.to_string_lossy().starts_with("resume.") || n == "progress.json").collect();
    assert!(left.is_empty(), "{left:?}");
    let shown = cli.json(&["show", name]).await;
    let source = server.client().await.database(database);
    for number in 0..STEADY {
        let collection = format!("steady{number}");
        let held = shown["collections"].as_array().unwrap().iter().find(|c| c["name"] == collection.as_str()).unwrap();
        assert_eq!(held["digest"], content(&source, &collection).await.digest().to_string(), "{collection}");
    }
    cli.json(&["import", name, "--target", &target.uri()]).await;
    assert_eq!(bank::check(&target.client().await, database).await, Vec::<String>::new());
    shown
}

#[tokio::test]
async fn killed_at_any_moment_it_is_resumed_and_reads_nothing_twice() {
    let (server, target) = tokio::join!(Server::replica_set("killed"), Server::standalone());
    fill_bank_and_steady(&server, "killed").await;
    let client = server.client().await;
    let seed = rand::rng().random();
    println!("seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let bank = Bank::start(&client, BankOptions { db: "bank".to_owned(), ..BankOptions::default() }).await;
    for _ in 0..2 {
        let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
        slow_down(&server, 300).await;
        let mut child = cli.spawn(&["backup", "--readers", "2"]);
        let place = wait_durable(&cli, &mut child, 1).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..700))).await;
        kill(child).await;
        let before = written(&place, &durable(&place));
        assert!(!before.is_empty() && before.len() < STEADY);

        // Killed again while it is resumed.
        let mut child = cli.spawn(&["backup", "--resume", &name(&place)]);
        tokio::time::sleep(Duration::from_millis(random.random_range(0..2500))).await;
        assert!(child.try_wait().unwrap().is_none());
        kill(child).await;

        let plan = cli.json(&["backup", "--resume", "--dry-run"]).await;
        assert_eq!(plan["resumes"], name(&place));
        let done: u64 = plan["collections"].as_array().unwrap().iter().map(|c| c["rangesDone"].as_u64().unwrap()).sum();
        assert!(done >= before.len() as u64, "{done} {before:?}");
        let between = durable(&place);
        full_speed(&server).await;
        let done = cli.json(&["backup", "--resume"]).await;
        assert_eq!(done["name"], name(&place));
        assert_eq!(done["consistency"]["kind"], "snapshot", "{done}");
        assert_eq!(written(&place, &before.keys().cloned().collect::<Vec<_>>()), before, "what was durable was written again");
        assert!(between.len() >= before.len());
        let shown = prove(&cli, &server, &target, &name(&place), "killed").await;
        assert!(shown["started"].as_str().unwrap() < shown["finished"].as_str().unwrap());
        failed(&cli.run(&["backup", "--resume"]).await, "there is no unfinished backup");
        failed(&cli.run(&["backup", "--resume", &name(&place)]).await, "is complete");
    }
    bank.stop().await;
    assert_eq!(bank::check(&target.client().await, "bank").await, Vec::<String>::new());
}

/// The steady collections, and a bank's tables that nobody writes to any more, in one database.
async fn fill_bank_and_steady(server: &Server, database: &str) {
    let bank = Bank::start(&server.client().await, BankOptions { db: database.to_owned(), ..BankOptions::default() }).await;
    bank.wait_for(3, 3).await;
    bank.stop().await;
    fill_steady(server, database).await;
}

#[tokio::test]
async fn where_the_history_is_over_it_is_resumed_with_the_oplog() {
    let parameters = vec![("minSnapshotHistoryWindowInSeconds".to_owned(), "1".to_owned())];
    let options = ServerOptions { repl_set: Some("short".to_owned()), parameters, ..ServerOptions::default() };
    let (server, target) = tokio::join!(Server::start(options), Server::standalone());
    let client = server.client().await;
    let bank = Bank::start(&client, BankOptions { db: "short".to_owned(), ..BankOptions::default() }).await;
    fill_steady(&server, "short").await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
    slow_down(&server, 300).await;
    let mut child = cli.spawn(&["backup", "--readers", "2"]);
    let place = wait_durable(&cli, &mut child, 3).await;
    kill(child).await;
    let before = written(&place, &durable(&place));
    full_speed(&server).await;
    bank.wait_for(200, 200).await;
    tokio::time::sleep(Duration::from_secs(4)).await; // for the history to be over, which nothing tells
    let done = cli.json(&["backup", "--resume"]).await;
    bank.wait_for(5, 5).await;
    bank.stop().await;
    assert_eq!(done["consistency"]["kind"], "oplog", "{done}");
    let kept: Vec<String> = before.keys().cloned().collect();
    assert_eq!(written(&place, &kept), before);
    let shown = prove(&cli, &server, &target, &name(&place), "short").await;
    assert!(shown["oplog"]["documents"].as_u64().unwrap() > 200, "{}", shown["oplog"]);
}
