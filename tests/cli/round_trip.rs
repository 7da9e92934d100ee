//! The whole way with the binary: a deployment, its backup, verification and import, and a
//! comparison of both sides.

use std::process::Command;
use std::time::Duration;

use bson::{Document, doc};

use crate::support::bank::{self, Bank, BankOptions};
use crate::support::cli::{Cli, finish};
use crate::support::compare::{CompareOptions, compare};
use crate::support::link::{Link, LinkOptions};
use crate::support::server::Server;
use crate::support::zoo::{self, ZooOptions};

/// Backs up, verifies and imports. Returns the report of `backup`.
async fn round_trip(cli: &Cli, source: &str, target: &str, more: &[&str]) -> serde_json::Value {
    let report = cli.json(&[&["backup", "--source", source, "--path", "b"], more].concat()).await;
    let name = report["name"].as_str().unwrap().to_owned();
    let verified = cli.json(&["verify", &name, "--deep", "--path", "b"]).await;
    assert_eq!(verified["problems"], serde_json::json!([]));
    assert_eq!(verified["documents"], report["documents"]);
    let imported = cli.json(&["import", &name, "--yes", "--target", target, "--path", "b"]).await;
    // An oplog slice that is replayed adds and removes documents.
    if report["consistency"]["kind"] != "oplog" {
        assert_eq!(imported["documents"], report["documents"]);
    }
    assert!(imported["collections"].as_array().unwrap().iter().all(|c| c["digestMatches"] == true), "{imported}");
    report
}

#[tokio::test]
async fn one_of_everything_comes_back_without_a_difference() {
    for (seed, documents) in [(1, 2500), (99, 400)] {
        let (source, target) = tokio::join!(Server::replica_set("source"), Server::standalone());
        let (a, b) = (source.client().await, target.client().await);
        zoo::fill(&a, &ZooOptions { seed, docs: documents, large: true, ..ZooOptions::default() }).await;
        let cli = Cli::new();
        let report = round_trip(&cli, &source.uri(), &target.uri(), &[]).await;
        assert_eq!(report["consistency"]["kind"], "snapshot");
        let comparison = compare(&a, &b, CompareOptions::default()).await;
        assert_eq!(comparison.differences, Vec::<String>::new(), "seed {seed}");
        assert!(comparison.namespaces > 50, "{comparison:?}");

        // Ordinary tools can read it, too.
        let place = cli.dir().join("b").join(report["name"].as_str().unwrap());
        let sums =
            Command::new("sha256sum").args(["-c", "--strict", "--quiet", "SHA256SUMS"]).current_dir(&place).status().unwrap();
        assert!(sums.success());

        // An import over the present data restores the same.
        b.database("zoo").collection::<Document>("people").delete_many(doc! {}).await.unwrap();
        b.database("zoo").collection::<Document>("adults").drop().await.unwrap();
        b.database("zoo").collection::<Document>("adults").insert_one(doc! { "a": "collection where a view was" }).await.unwrap();
        cli.json(&["import", report["name"].as_str().unwrap(), "--yes", "--target", &target.uri(), "--path", "b"]).await;
        let comparison = compare(&a, &b, CompareOptions::default()).await;
        assert_eq!(comparison.differences, Vec::<String>::new(), "seed {seed}, imported again");
    }
}

#[tokio::test]
async fn frames_in_columns_come_back_without_a_difference() {
    let (source, target) = tokio::join!(Server::replica_set("columns"), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    let order = |i: i32| {
        let lines: Vec<Document> = (0..i % 4)
            .map(|n| doc! { "sku": format!("SKU-{}", (i * 7 + n) % 300), "price": f64::from(i % 900) / 100.0 })
            .collect();
        let at = bson::DateTime::from_millis(1_795_300_000_000 + i64::from(i) * 977);
        let mut order = doc! { "_id": bson::oid::ObjectId::new(), "n": i, "at": at, "state": (["new", "paid", "sent"][i as usize % 3]), "lines": lines };
        if i % 50 == 0 {
            order.insert(format!("only {i}"), bson::Bson::JavaScriptCode("f()".to_owned()));
        }
        order
    };
    for part in 0..8 {
        let orders: Vec<Document> = (part * 1000..part * 1000 + 1000).map(order).collect();
        a.database("shop").collection::<Document>("orders").insert_many(orders).await.unwrap();
    }
    a.database("shop")
        .collection::<Document>("few")
        .insert_many([doc! { "_id": 1 }, doc! { "_id": { "0": 1 }, "": [[], {}] }])
        .await
        .unwrap();
    let cli = Cli::new();
    let plain = cli.json(&["backup", "--source", &source.uri(), "--path", "plain", "--level", "1"]).await;
    let report = round_trip(&cli, &source.uri(), &target.uri(), &["--codec", "columns", "--level", "1"]).await;
    let comparison = compare(&a, &b, CompareOptions::default()).await;
    assert_eq!(comparison.differences, Vec::<String>::new());
    let stored = |report: &serde_json::Value| report["storedBytes"].as_u64().unwrap();
    assert!(stored(&report) * 10 < stored(&plain) * 9, "{} of {}", stored(&report), stored(&plain));

    let manifest = |path: &str, report: &serde_json::Value| -> serde_json::Value {
        let file = cli.dir().join(path).join(report["name"].as_str().unwrap()).join("manifest.json");
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
    };
    let (made, usual) = (manifest("b", &report), manifest("plain", &plain));
    assert_eq!((&made["formatVersion"], &made["settings"]["codec"]), (&4.into(), &"columns".into()));
    assert_eq!((&usual["formatVersion"], &usual["settings"]["codec"]), (&4.into(), &serde_json::Value::Null));

    // The exports in mongodump's formats and the test restore support columns, too.
    let name = report["name"].as_str().unwrap();
    cli.json(&["export", name, "--path", "b", "--format", "dir", "--out", "dump"]).await;
    let adopted = cli.json(&["adopt", "dump", "--path", "adopted", "--codec", "columns"]).await;
    assert_eq!(adopted["documents"], report["documents"]);
    assert_eq!(manifest("adopted", &adopted)["formatVersion"], 3);
    let drilled = cli.json(&["verify", name, "--restore", "--path", "b", "--target", &target.uri()]).await;
    assert_eq!(drilled["documents"], report["documents"], "{drilled}");
}

#[tokio::test]
async fn what_was_written_under_invariants_comes_back_under_them() {
    let (source, target) = tokio::join!(Server::replica_set("bank"), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    let running = Bank::start(&a, BankOptions { ddl: true, ..BankOptions::default() }).await;
    running.wait_for(50, 500).await;
    let cli = Cli::new();
    for _ in 0..3 {
        let report = round_trip(&cli, &source.uri(), &target.uri(), &[]).await;
        // `oplog` if a listed collection was dropped before it was read.
        assert_ne!(report["consistency"]["kind"], "none");
        assert_eq!(bank::check(&b, "bank").await, Vec::<String>::new());
        running.wait_for(20, 200).await;
        b.database("bank").drop().await.unwrap();
    }
    running.stop().await;
}

#[tokio::test]
async fn a_network_that_breaks_again_and_again_is_outlasted() {
    let (source, target) = tokio::join!(Server::replica_set("cuts"), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    for name in ["one", "two"] {
        for part in 0..25 {
            let documents: Vec<Document> =
                (0..1000).map(|i| doc! { "_id": part * 1000 + i, "pad": format!("{i}").repeat(300) }).collect();
            a.database("cuts").collection::<Document>(name).insert_many(documents).await.unwrap();
        }
    }
    let options = || LinkOptions { mbit: Some(120.0), cut_every: Some(Duration::from_millis(900)), ..LinkOptions::default() };
    let (near, far) = (Link::to(source.port(), options()), Link::to(target.port(), options()));
    let cli = Cli::new();
    round_trip(&cli, &source.uri_through(near.port()), &target.uri_through(far.port()), &[]).await;
    assert!(near.cuts() > 1 && far.cuts() > 1, "the network held: {} and {} cuts", near.cuts(), far.cuts());
    let comparison = compare(&a, &b, CompareOptions::default()).await;
    assert_eq!(comparison.differences, Vec::<String>::new());
}

#[tokio::test]
async fn a_connection_that_breaks_before_anything_is_read_or_written_ends_nothing() {
    let (source, target) = tokio::join!(Server::replica_set("early"), Server::replica_set("early_target"));
    source.client().await.database("early").collection::<Document>("c").insert_one(doc! { "_id": 1 }).await.unwrap();
    let cli = Cli::new();
    // Whether a backup requests it from the source, and an import from the target.
    for (command, asked) in [
        ("buildInfo", [true, true]),
        ("listDatabases", [true, true]),
        ("listCollections", [true, true]),
        ("replSetGetConfig", [true, true]),
        ("getParameter", [true, true]),
        ("ping", [true, false]),
        ("connectionStatus", [false, true]),
        ("getCmdLineOpts", [false, true]),
    ] {
        let broken = doc! { "failCommands": [command], "closeConnection": true, "appName": "bsonvault" };
        let times = doc! { "times": 2 };
        let before = [source.fail_command(times.clone(), broken.clone()).await, target.fail_command(times, broken).await];
        let report = round_trip(&cli, &source.uri(), &target.uri(), &[]).await;
        let manifest = cli.dir().join("b").join(report["name"].as_str().unwrap()).join("manifest.json");
        let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
        let known = |name: &str| manifest["source"][name].is_string();
        assert!(known("replicaSetId") && known("featureCompatibilityVersion"), "{command}: {manifest}");
        let after = [source.fail_no_more().await, target.fail_no_more().await];
        assert_eq!([after[0] > before[0], after[1] > before[1]], asked, "{command}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn signals_end_a_backup_cleanly() {
    let source = Server::replica_set("signals").await;
    let client = source.client().await;
    let documents: Vec<Document> = (0..20_000).map(|i| doc! { "_id": i, "pad": "x".repeat(900) }).collect();
    client.database("signals").collection::<Document>("c").insert_many(documents).await.unwrap();
    source.fail_command("alwaysOn", doc! { "failCommands": ["getMore"], "blockConnection": true, "blockTimeMS": 30_000 }).await;
    for signal in ["INT", "TERM", "HUP"] {
        let cli = Cli::new();
        let child = cli.spawn(&["backup", "--source", &source.uri(), "--path", "b", "--json"]);
        let pid = child.id().to_string();
        let place = cli.dir().join("b");
        // The backup has claimed its directory, and is delayed in the middle of reading.
        while source.admin(doc! { "currentOp": 1, "failpointMsg": { "$exists": true } }).await.is_err()
            || std::fs::read_dir(&place).map_or(0, |d| d.flatten().filter(|e| e.path().join("progress.json").exists()).count())
                == 0
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let output = tokio::time::timeout(Duration::from_secs(20), finish(child)).await.unwrap();
        assert_eq!(output.code, Some(130), "{output:?}");
        assert_eq!(output.json()["success"], false);
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0, "SIG{signal} left something behind");
    }
    source.fail_no_more().await;
}

#[tokio::test]
async fn a_backup_that_is_killed_is_incomplete_and_refused() {
    let (source, target) = tokio::join!(Server::replica_set("killed"), Server::standalone());
    let client = source.client().await;
    let documents: Vec<Document> = (0..20_000).map(|i| doc! { "_id": i, "pad": "x".repeat(900) }).collect();
    client.database("killed").collection::<Document>("c").insert_many(documents).await.unwrap();
    source.fail_command("alwaysOn", doc! { "failCommands": ["getMore"], "blockConnection": true, "blockTimeMS": 30_000 }).await;
    let cli = Cli::new();
    std::fs::create_dir(cli.dir().join("b")).unwrap();
    let mut child = cli.spawn(&["backup", "--source", &source.uri(), "--path", "b", "--json"]);
    let running = loop {
        let listed = cli.json(&["list", "--path", "b"]).await;
        if listed["backups"][0]["state"] == "running" {
            break listed;
        }
        assert!(child.try_wait().unwrap().is_none());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    child.kill().unwrap();
    child.wait().unwrap();
    let name = running["backups"][0]["name"].as_str().unwrap();
    let refused = cli.run(&["import", name, "--target", &target.uri(), "--path", "b"]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("manifest"), "{}", refused.stderr);
    source.fail_no_more().await;
}
