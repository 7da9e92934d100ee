//! Interruptions. Whatever ends a backup, the result is complete or recognizably unfinished, the
//! same command succeeds again, and an unfinished backup can be resumed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use bson::{Binary, Document, doc};
use rand::{Rng as _, SeedableRng as _};

use crate::support::bank::{self, Bank, BankOptions};
use crate::support::cli::{Cli, Output, finish};
use crate::support::data::{content, fill, insert, numbered};
use crate::support::link::{Link, LinkOptions};
use crate::support::server::{ReplicaSet, Server, ServerOptions};

/// The number of unchanging collections, of a thousand documents each.
const STEADY: usize = 16;

async fn fill_steady(server: &Server, database: &str) {
    let database = server.client().await.database(database);
    for number in 0..STEADY {
        insert(&database, &format!("steady{number}"), numbered(1000)).await;
    }
}

/// The only directory in the backup path.
fn directory(cli: &Cli) -> Option<PathBuf> {
    std::fs::read_dir(cli.dir().join("backups")).ok()?.map(|e| e.unwrap().path()).find(|path| path.is_dir())
}

/// The keys of collection segments that are durable according to the journal.
fn durable(directory: &Path) -> Vec<String> {
    steps(directory).iter().flat_map(|step| step["ranges"].as_array().unwrap()).flat_map(keys).collect()
}

/// The same for the oplog slice.
fn slice_durable(directory: &Path) -> Vec<String> {
    steps(directory).iter().filter(|step| step["oplog"].is_object()).flat_map(|step| keys(&step["oplog"])).collect()
}

fn steps(directory: &Path) -> Vec<serde_json::Value> {
    let text = |number: i32| std::fs::read_to_string(directory.join(format!("resume.{number:05}.json"))).ok();
    (1..).map_while(text).map(|text| serde_json::from_str(&text).unwrap()).collect()
}

fn keys(part: &serde_json::Value) -> Vec<String> {
    part["segments"].as_array().unwrap().iter().map(|s| s["key"].as_str().unwrap().to_owned()).collect()
}

fn written(directory: &Path, keys: &[String]) -> BTreeMap<String, SystemTime> {
    keys.iter().map(|k| (k.clone(), std::fs::metadata(directory.join(k)).unwrap().modified().unwrap())).collect()
}

/// Waits until the journal lists this many durable segments, and returns the backup's directory.
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

/// Checks that a backup is intact, holds the unchanging collections to the byte, and is restored
/// consistently.
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
    cli.json(&["import", name, "--yes", "--target", &target.uri()]).await;
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
        server.slow_down(&["find"], 600).await;
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
        server.fail_no_more().await;
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

/// The unchanging collections, and a bank's tables without writers, in one database.
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
    // There are more accounts than anything else, so they are read first: a later read does not
    // make up for what the slice lacks of them.
    let bank = Bank::start(&client, BankOptions { db: "short".to_owned(), accounts: 4000, ..BankOptions::default() }).await;
    fill_steady(&server, "short").await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
    server.slow_down(&["find"], 1000).await;
    let mut child = cli.spawn(&["backup", "--readers", "2"]);
    let place = wait_durable(&cli, &mut child, 3).await;
    while slice_durable(&place).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before any of its slice was durable");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    kill(child).await;
    let before = written(&place, &[durable(&place), slice_durable(&place)].concat());
    let begun: serde_json::Value = serde_json::from_slice(&std::fs::read(place.join("resume.00000.json")).unwrap()).unwrap();
    server.fail_no_more().await;
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
    let replay_from = &shown["consistency"]["replayFrom"];
    assert_eq!(replay_from["time"], begun["oplog"]["from"], "{shown}");
    assert_eq!((&replay_from["term"], &replay_from["digest"]), (&begun["oplog"]["term"], &begun["oplog"]["digest"]));
}

#[tokio::test]
async fn where_the_oplog_no_longer_reaches_back_it_is_refused_and_a_new_one_succeeds() {
    let options = ServerOptions {
        repl_set: Some("rolled".to_owned()),
        parameters: vec![("minSnapshotHistoryWindowInSeconds".to_owned(), "1".to_owned())],
        extra_args: ["--oplogSize", "1", "--syncdelay", "1"].map(str::to_owned).to_vec(),
        ..ServerOptions::default()
    };
    let server = Server::start(options).await;
    fill_steady(&server, "rolled").await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
    server.slow_down(&["find"], 600).await;
    let mut child = cli.spawn(&["backup", "--readers", "2", "--database", "rolled"]);
    let place = wait_durable(&cli, &mut child, 2).await;
    kill(child).await;
    server.fail_no_more().await;
    let before = durable(&place);
    let now = server.admin(doc! { "ping": 1 }).await.unwrap().get_timestamp("operationTime").unwrap();
    let client = server.client().await;
    let (oplog, elsewhere) = (client.database("local").collection::<Document>("oplog.rs"), client.database("elsewhere"));
    while oplog.find_one(doc! {}).await.unwrap().unwrap().get_timestamp("ts").unwrap() <= now {
        let documents: Vec<Document> = (0..500).map(|_| doc! { "pad": "x".repeat(1000) }).collect();
        elsewhere.collection::<Document>("c").insert_many(documents).await.unwrap();
    }
    let output = cli.run(&["backup", "--resume", "--json"]).await;
    let json = output.json();
    assert_eq!((output.code, &json["error"]["kind"]), (Some(1), &"snapshotLost".into()), "{json}");
    let message = json["message"].as_str().unwrap();
    assert!(message.contains("cannot be resumed") && message.contains("oplog no longer reaches back"), "{json}");
    let hint = json["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("without --resume") && hint.contains(place.to_str().unwrap()), "{json}");
    // It may have read on until it missed the oplog.
    let after = durable(&place);
    assert!(before.iter().all(|key| after.contains(key)), "what was durable is to stay: {before:?}, {after:?}");
    let anew = cli.json(&["backup", "--database", "rolled"]).await;
    cli.json(&["verify", anew["name"].as_str().unwrap(), "--deep"]).await;
}

#[tokio::test]
async fn what_contradicts_the_beginning_is_refused_by_name() {
    let (server, other) = tokio::join!(Server::replica_set("agreed"), Server::replica_set("agreed"));
    fill_steady(&server, "agreed").await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
    failed(&cli.run(&["backup", "--resume"]).await, "there is no unfinished backup");
    server.slow_down(&["find"], 1500).await;
    let mut child = cli.spawn(&["backup", "--readers", "2", "--exclude", "agreed.steady1*", "--level", "2", "--long"]);
    let place = wait_durable(&cli, &mut child, 1).await;
    failed(&cli.run(&["backup", "--resume"]).await, "is running");
    failed(&cli.run(&["backup", "--resume", &name(&place)]).await, "is running");
    kill(child).await;
    server.fail_no_more().await;
    for (args, message) in [
        (["--database", "agreed"], "--database is agreed, and backup"),
        (["--include", "agreed.*"], "--include is agreed.*"),
        (["--exclude", "agreed.steady2"], "was started with agreed.steady1*"),
        (["--level", "3"], "the level (--level, BACKUP_LEVEL) is 3"),
        (["--codec", "columns"], "the codec (--codec, BACKUP_CODEC) is columns"),
        (["--long=false", "--level=2"], "BACKUP_LONG_DISTANCE) is false, and backup"),
        (["--source", &other.uri()], "is another deployment"),
    ] {
        failed(&cli.run(&["backup", "--resume", args[0], args[1]]).await, message);
    }
    // If the directory lost segments that the journal lists, they are read again.
    let lost = durable(&place)[0].clone();
    std::fs::remove_file(place.join(&lost)).unwrap();
    std::fs::write(place.join("agreed/half.00000.bson.zst#1"), "half written").unwrap();
    let output = cli.run(&["backup", "--resume", "--level", "2"]).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stderr.contains(&format!("{lost} is missing or has another size")), "{output:?}");
    assert!(!place.join("agreed/half.00000.bson.zst#1").exists());
    let verified = cli.json(&["verify", &name(&place), "--deep"]).await;
    assert_eq!((&verified["notes"], &verified["documents"]), (&serde_json::json!([]), &9000.into()), "{verified}");
}

/// More data than is ever discarded, and a small, incompressible collection that is read last.
async fn fill_much(server: &Server, database: &str) {
    let database = server.client().await.database(database);
    insert(&database, "much", numbered(200_000)).await;
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let noise: Vec<Document> = (0..10)
        .map(|i| {
            let mut bytes = vec![0; 900_000];
            random.fill(&mut bytes[..]);
            doc! { "_id": i, "noise": Binary { subtype: bson::spec::BinarySubtype::Generic, bytes } }
        })
        .collect();
    database.collection::<Document>("noise").insert_many(noise).await.unwrap();
}

#[tokio::test]
async fn stopped_or_with_a_full_disk_it_keeps_what_is_worth_it() {
    let server = Server::replica_set("kept").await;
    fill_much(&server, "kept").await;
    let source = server.client().await.database("kept");
    let (much, noise) = (content(&source, "much").await.digest(), content(&source, "noise").await.digest());
    let prove = async |cli: &Cli, name: &str| {
        cli.json(&["verify", name, "--deep"]).await;
        let shown = cli.json(&["show", name]).await;
        let digest = |of: usize| shown["collections"][of]["digest"].as_str().unwrap().to_owned();
        assert_eq!((digest(0), digest(1)), (much.to_string(), noise.to_string()));
    };

    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
    let wait = doc! { "failCommands": ["find"], "namespace": "kept.noise", "blockConnection": true, "blockTimeMS": 20_000 };
    server.fail_command("alwaysOn", wait).await;
    let mut child = cli.spawn(&["backup", "--readers", "2"]);
    let place = wait_durable(&cli, &mut child, 6).await;
    let term = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(term.success());
    let output = finish(child).await;
    server.fail_no_more().await;
    assert_eq!(output.code, Some(130), "{output:?}");
    failed(&output, &format!("`bsonvault backup --resume {}` resumes the backup", name(&place)));
    let listed = cli.json(&["list"]).await["backups"][0].clone();
    assert_eq!((&listed["state"], &listed["resumable"]), (&"incomplete".into(), &true.into()));
    assert!(cli.run(&["list"]).await.stdout.contains(&format!("bsonvault backup --resume {}", name(&place))));
    let before = written(&place, &durable(&place));
    cli.json(&["backup", "--resume"]).await;
    assert_eq!(written(&place, &before.keys().cloned().collect::<Vec<_>>()), before);
    prove(&cli, &name(&place)).await;

    // A file size limit of two megabytes: to the program, this is a full disk.
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
    let full = async |args: &str| {
        let line = format!("trap '' XFSZ; ulimit -f 2048; exec {} {args}", env!("CARGO_BIN_EXE_bsonvault"));
        let mut command = Command::new("bash");
        command.args(["-c", &line]).current_dir(cli.dir()).stdin(Stdio::null());
        command.env("HOME", cli.dir()).env("MONGO_URI_ATLAS", server.uri());
        Output::from(tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap())
    };
    failed(&full("backup --include kept.noise").await, "make space there");
    assert_eq!(cli.json(&["list"]).await["backups"], serde_json::json!([]), "a little was kept");
    let output = full("backup --readers 2").await;
    failed(&output, "make space there");
    let place = directory(&cli).unwrap();
    failed(&output, &format!("`bsonvault backup --resume {}` resumes the backup", name(&place)));
    failed(&full("backup --resume").await, "make space there");
    let before = written(&place, &durable(&place));
    assert!(before.len() >= 5, "{before:?}");
    cli.json(&["backup", "--resume"]).await;
    assert_eq!(written(&place, &before.keys().cloned().collect::<Vec<_>>()), before);
    prove(&cli, &name(&place)).await;
}

#[tokio::test]
async fn a_network_that_is_cut_every_two_seconds_is_lived_with() {
    let (server, target) = tokio::join!(Server::replica_set("cut"), Server::standalone());
    fill_bank_and_steady(&server, "cut").await;
    let every = Some(Duration::from_secs(2));
    let link = Link::to(server.port(), LinkOptions { cut_every: every, ..LinkOptions::default() });
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri_through(link.port()));
    server.slow_down(&["find"], 400).await;
    let mut child = cli.spawn(&["backup", "--readers", "2"]);
    let place = wait_durable(&cli, &mut child, 2).await;
    kill(child).await;
    cli.json(&["backup", "--resume", "--readers", "2"]).await;
    server.fail_no_more().await;
    assert!(link.cuts() > 2, "{} cuts", link.cuts());
    prove(&cli, &server, &target, &name(&place), "cut").await;
    cli.json(&["backup"]).await;
}

#[tokio::test]
async fn after_its_primary_was_killed_it_is_resumed_from_the_next_one() {
    let mut set = ReplicaSet::start(3).await;
    let database = set.client().await.database("failover");
    for number in 0..STEADY {
        fill(&database, &format!("steady{number}"), (0..1000).map(bson::Bson::Int32)).await;
    }
    let majority = doc! { "insert": "mark", "documents": [{ "_id": 1 }], "writeConcern": { "w": 3 } };
    database.run_command(majority).await.unwrap();
    let expected = content(&database, "steady7").await;
    let primary = set.primary().await;
    set.members[primary].slow_down(&["find"], 600).await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", set.uri());
    let mut child = cli.spawn(&["backup", "--readers", "2"]);
    let place = wait_durable(&cli, &mut child, 3).await;
    kill(child).await;
    set.members[primary].kill();
    let done = cli.json(&["backup", "--resume"]).await;
    assert_ne!(done["consistency"]["kind"], "none", "{done}");
    assert_eq!(done["documents"], 1000 * STEADY + 1);
    cli.json(&["verify", &name(&place), "--deep"]).await;
    let shown = cli.json(&["show", &name(&place)]).await;
    let held = shown["collections"].as_array().unwrap().iter().find(|c| c["name"] == "steady7").unwrap();
    assert_eq!(held["digest"], expected.digest().to_string());
}
