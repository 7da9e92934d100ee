//! The source lock: backups that begin at the same time, later ones, and killed ones.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use bson::doc;
use bsonvault::clock;
use bsonvault::context::Context;
use bsonvault::engine::backup::{self, BackupOptions};
use bsonvault::error::ErrorKind;
use bsonvault::mongo::{MongoUri, Role};
use bsonvault::repository::catalog::State;
use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::support::cli::{Cli, Output, finish};
use crate::support::data::{fill, insert, numbered};
use crate::support::server::Server;
use crate::support::vault::{Vault, catalog, on};

/// A source whose backup takes at least this many milliseconds.
async fn slow_source(server: &Server, milliseconds: i32) {
    let database = server.client().await.database("d");
    for number in 0..8 {
        insert(&database, &format!("c{number}"), numbered(1000)).await;
    }
    // The largest collection is checked before a backup announces itself; this one is only read.
    fill(&database, "slow", [bson::Bson::Int32(1)]).await;
    slow_down(server, milliseconds).await;
}

async fn slow_down(server: &Server, milliseconds: i32) {
    let slow = doc! { "failCommands": ["find"], "namespace": "d.slow", "blockConnection": true, "blockTimeMS": milliseconds };
    server.fail_command("alwaysOn", slow).await;
}

fn directories(cli: &Cli) -> Vec<PathBuf> {
    let Ok(found) = std::fs::read_dir(cli.dir().join("backups")) else { return Vec::new() };
    found.map(|e| e.unwrap().path()).filter(|path| path.is_dir()).collect()
}

/// Its progress file, once it has decided to continue.
async fn decided(cli: &Cli, child: &mut Child) -> Value {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        for directory in directories(cli) {
            let read = std::fs::read_to_string(directory.join("progress.json")).ok();
            match read.and_then(|text| serde_json::from_str::<Value>(&text).ok()) {
                Some(p) if p["process"] == child.id() && p.get("undecided").is_none() => return p,
                _ => {}
            }
        }
        if child.try_wait().unwrap().is_some() {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("it ended: {said}");
        }
        assert!(Instant::now() < deadline, "it does not run");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_busy(output: &Output) -> bool {
    let said = "error: a backup of this source is running already: atlas-backup-";
    output.code == Some(1) && output.stderr.contains(said) && output.stderr.contains("--allow-concurrent")
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_second_backup_of_a_source_is_refused_by_name_unless_it_is_allowed() {
    let (server, other) = tokio::join!(Server::replica_set("turns"), Server::standalone());
    slow_source(&server, 6000).await;
    insert(&other.client().await.database("d"), "c", numbered(1000)).await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
    let mut first = cli.spawn(&["backup"]);
    let progress = decided(&cli, &mut first).await;
    assert_eq!((&progress["process"], &progress["host"]), (&first.id().into(), &bsonvault::system::host().into()));
    assert_eq!((&progress["source"], &progress["locked"]), (&json!([server.host()]), &true.into()));

    let begin = Instant::now();
    let second = cli.run(&["backup"]).await;
    assert!(is_busy(&second), "{second:?}");
    let who = format!("process {} on {}", first.id(), bsonvault::system::host());
    assert!(second.stderr.contains(&who), "{second:?}");
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    let json = cli.run(&["backup", "--json"]).await;
    assert_eq!((json.code, &json.json()["error"]["kind"]), (Some(1), &"busy".into()));

    // The same deployment under another name of its host, recognized once connected.
    let alias = format!("mongodb://localhost:{}/?directConnection=true", server.port());
    assert!(is_busy(&cli.run(&["backup", "--source", &alias]).await));
    assert_eq!(directories(&cli).len(), 1);

    // Another source, a dry run, and a backup with consent do not wait.
    for args in [vec!["backup", "--source", &other.uri()], vec!["backup", "--dry-run"], vec!["backup", "--allow-concurrent"]] {
        assert_eq!(cli.run(&args).await.code, Some(0), "{args:?}");
    }
    assert_eq!(finish(first).await.code, Some(0));
    server.fail_no_more().await;
    assert_eq!(cli.run(&["backup"]).await.code, Some(0));
    let listed = cli.json(&["list"]).await;
    let states: Vec<_> = listed["backups"].as_array().unwrap().iter().map(|b| b["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["complete"; 4]);
}

#[tokio::test]
async fn of_two_that_begin_at_once_one_goes_on() {
    let server = Server::standalone().await;
    slow_source(&server, 2500).await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
    let alias = format!("mongodb://localhost:{}/?directConnection=true", server.port());
    for round in 1..=4 {
        // Under the same name, neither can miss the other's heartbeat. If each knows only its own
        // name, a standalone cannot be recognized.
        let both = [cli.spawn(&["backup"]), cli.spawn(&["backup", "--source", &server.uri()])];
        let ended = futures::future::join_all(both.map(finish)).await;
        let done = ended.iter().filter(|o| o.code == Some(0)).count();
        let busy = ended.iter().filter(|o| is_busy(o)).count();
        assert_eq!((done, busy), (1, 1), "{ended:?}");
        assert_eq!(directories(&cli).len(), round, "the one that gave way left something");
    }
    server.fail_no_more().await;
    assert_eq!(cli.run(&["backup", "--source", &alias]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_begin_at_once_one_goes_on() {
    let server = Server::replica_set("many").await;
    slow_source(&server, 5000).await;
    let vault = Vault::new();
    let uris = [server.uri(), format!("mongodb://localhost:{}/?directConnection=true", server.port())];
    for _ in 0..3 {
        let all = (0..8).map(|n| {
            let uri = MongoUri::parse(Role::Source, &uris[n % 2]).unwrap();
            let (store, options) = (vault.repository(), BackupOptions { job: Some(format!("job-{n}")), ..on("d") });
            tokio::task::spawn_blocking(move || {
                let cx = Context::default();
                tokio::runtime::Handle::current().block_on(backup::run(&uri, &store, &options, &cx))
            })
        });
        let ended: Vec<_> = futures::future::join_all(all).await.into_iter().map(Result::unwrap).collect();
        let (done, busy): (Vec<_>, Vec<_>) = ended.iter().enumerate().partition(|(_, e)| e.is_ok());
        assert_eq!(done.len(), 1, "{ended:?}");
        for (_, error) in busy {
            let error = error.as_ref().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
            assert!(error.job_id().is_some_and(|job| job.starts_with("job-")), "{error:?}");
        }
    }
    assert_eq!(crate::support::files::directories(vault.directory.path()).len(), 3);
}

#[tokio::test]
async fn a_killed_backup_is_incomplete_at_once_and_in_nobodys_way() {
    let server = Server::replica_set("killed").await;
    slow_source(&server, 10_000).await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri());
    let catalog = catalog(&cli.dir().join("backups"));
    let mut child = cli.spawn(&["backup"]);
    decided(&cli, &mut child).await;
    let hosts = [server.host()];
    let (name, progress) = backup::running(&catalog, &hosts, clock::now()).await.unwrap().unwrap();
    assert_eq!(progress.process, child.id());
    // From here on, it can be resumed.
    let (begin, begun) = (Instant::now(), cli.dir().join("backups").join(name.as_str()).join("resume.00000.json"));
    while !begun.exists() {
        assert!(begin.elapsed() < Duration::from_secs(30), "no journal");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(backup::running(&catalog, &["db.example:27017".to_owned()], clock::now()).await.unwrap().is_none());
    assert!(matches!(catalog.list(clock::now()).await.unwrap()[0].state, State::Running(_)));
    // Nobody deletes it meanwhile, on request or not.
    let clean = cli.json(&["clean", "--incomplete"]).await;
    assert_eq!(clean["kept"][0]["reasons"], json!(["it is being made"]));
    kill(child);

    assert!(backup::running(&catalog, &hosts, clock::now()).await.unwrap().is_none());
    assert!(matches!(catalog.list(clock::now()).await.unwrap()[0].state, State::Incomplete));
    server.fail_no_more().await;
    assert_eq!(cli.run(&["backup"]).await.code, Some(0));

    // A resumed backup makes others wait, and waits for others.
    slow_down(&server, 10_000).await;
    let mut resumed = cli.spawn(&["backup", "--resume", name.as_str()]);
    decided(&cli, &mut resumed).await;
    assert!(is_busy(&cli.run(&["backup"]).await));
    kill(resumed);
    let mut other = cli.spawn(&["backup"]);
    decided(&cli, &mut other).await;
    let output = cli.run(&["backup", "--resume", name.as_str()]).await;
    assert!(is_busy(&output), "{output:?}");
    // By consistency point: that of the complete one may be before the start of the incomplete one,
    // if nobody writes to the source.
    let states = |listed: &Value| -> Vec<String> {
        let backups = listed["backups"].as_array().unwrap().iter();
        let mut states: Vec<_> = backups.map(|b| b["state"].as_str().unwrap().to_owned()).collect();
        states.sort();
        states
    };
    assert_eq!(states(&cli.json(&["list"]).await), ["complete", "incomplete", "running"]);
    kill(other);
    server.fail_no_more().await;
    assert_eq!(cli.run(&["backup", "--resume", name.as_str()]).await.code, Some(0));
    let clean = cli.json(&["clean", "--incomplete"]).await;
    assert_eq!(clean["deleted"].as_array().unwrap().len(), 1, "{clean}");
    assert_eq!(states(&cli.json(&["list"]).await), ["complete", "complete"]);
}

#[tokio::test]
async fn a_backup_of_another_machine_counts_by_its_heartbeat() {
    let root = tempfile::tempdir().unwrap();
    let catalog = catalog(root.path());
    let now = clock::now();
    let put = |name: &str, host: &str, age: i64, more: Value| {
        let at = now - TimeDelta::seconds(age);
        let mut progress = json!({
            "formatVersion": 2, "host": host, "process": 77, "started": at, "heartbeat": at, "snapshotTime": null,
            "rangesDone": 0, "ranges": 1, "documents": 0, "rawBytes": 0,
        });
        progress.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        std::fs::create_dir_all(root.path().join(name)).unwrap();
        std::fs::write(root.path().join(name).join("progress.json"), progress.to_string()).unwrap();
    };
    let hosts = ["db.example:27017".to_owned(), "localhost:27017".to_owned()];
    let source = json!({ "source": ["db.example:27017"], "job": "job-7", "locked": true });
    put("stale", "elsewhere", 31, source.clone());
    put("dead", &bsonvault::system::host(), 1, source.clone());
    put("without-hosts", "elsewhere", 1, json!({}));
    put("own-name", "elsewhere", 1, json!({ "source": ["localhost:27017"] }));
    put("complete", "elsewhere", 1, source.clone());
    std::fs::write(root.path().join("complete/manifest.json"), "{").unwrap();
    assert_eq!(backup::running(&catalog, &hosts, now).await.unwrap(), None);
    put("alive", "elsewhere", 1, source);
    let (name, progress) = backup::running(&catalog, &hosts, now).await.unwrap().unwrap();
    assert_eq!((name.as_str(), progress.job.as_deref()), ("alive", Some("job-7")));
}
