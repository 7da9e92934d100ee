//! The archive as a process: killed, stopped and cut off, and the commands that use it.

use std::process::{Child, Command};
use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::Client;
use serde_json::Value;

use crate::support::cli::{Cli, finish};
use crate::support::data::{content, documents, fill};
use crate::support::link::{Link, LinkOptions};
use crate::support::server::Server;

async fn write(client: &Client, id: impl Into<Bson>) -> (u32, u32) {
    let command = doc! { "insert": "c", "documents": [{ "_id": id.into() }] };
    let reply = client.database("kept").run_command(command).await.unwrap();
    let time = reply.get_timestamp("operationTime").unwrap();
    (time.time, time.increment)
}

fn text((seconds, ordinal): (u32, u32)) -> String {
    format!("{seconds}:{ordinal}")
}

fn time(position: &Value) -> (u32, u32) {
    let (seconds, ordinal) = position.as_str().unwrap().split_once(':').unwrap();
    (seconds.parse().unwrap(), ordinal.parse().unwrap())
}

/// The last time that the archive holds, if it holds any.
async fn end(cli: &Cli) -> Option<(u32, u32)> {
    let timeline = cli.json(&["timeline"]).await;
    timeline["archives"].get(0).filter(|archive| !archive["to"].is_null()).map(|archive| time(&archive["to"]["position"]))
}

async fn reaches(cli: &Cli, wanted: (u32, u32)) {
    for _ in 0..200 {
        if end(cli).await.is_some_and(|end| end >= wanted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the archive does not reach {wanted:?}");
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn a_killed_archiver_loses_seconds_at_most_and_a_stopped_one_nothing() {
    let (server, target) = tokio::join!(Server::replica_set("kept"), Server::standalone());
    let client = server.client().await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri()).env("MONGO_URI_LOCAL", target.uri()).env("PITR_LINK", "2s");
    let mut id = 0;
    for _ in 0..3 {
        let child = cli.spawn(&["archive"]);
        let mut durable = (0, 0);
        for _ in 0..12 {
            durable = write(&client, id).await;
            id += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // What was written two seconds ago is durable, even on a machine that is busy with tests.
        reaches(&cli, durable).await;
        write(&client, id).await;
        id += 1;
        signal(&child, "KILL");
        finish(child).await;
        assert!(end(&cli).await.unwrap() >= durable);
    }
    let child = cli.spawn(&["archive", "--json"]);
    reaches(&cli, write(&client, id).await).await;
    // Nothing gives it the time to notice this one before it is stopped.
    let last = write(&client, id + 1).await;
    signal(&child, "TERM");
    let output = finish(child).await;
    let json = output.json();
    assert_eq!((output.code, json["gaps"].as_u64()), (Some(0), Some(0)), "{json}");
    assert!(end(&cli).await.unwrap() >= last, "{json}");
    assert_eq!(cli.json(&["verify", "oplog", "--deep"]).await["archives"][0]["problems"], serde_json::json!([]));

    // A base was taken by itself, and leads to the last write.
    let plan = cli.json(&["import", "--to", &text(last), "--dry-run"]).await;
    assert!(plan["pointInTime"]["entries"].as_u64().unwrap() > 0, "{plan}");
    cli.json(&["import", "--to", &text(last), "--yes"]).await;
    let held = content(&target.client().await.database("kept"), "c").await;
    assert_eq!(held, content(&client.database("kept"), "c").await);
    let ranges = cli.json(&["timeline"]).await["ranges"].clone();
    assert!(ranges[0]["base"].as_str().unwrap().starts_with("atlas-backup-") && time(&ranges[0]["to"]["position"]) >= last);
}

#[tokio::test]
async fn a_network_that_is_cut_again_and_again_leaves_no_gap() {
    let server = Server::replica_set("cut").await;
    let client = server.client().await;
    let cuts = LinkOptions { cut_every: Some(Duration::from_millis(700)), ..LinkOptions::default() };
    let link = Link::to(server.port(), cuts);
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri_through(link.port()));
    let child = cli.spawn(&["archive", "--no-base"]);
    reaches(&cli, write(&client, "begun").await).await;
    let mut last = (0, 0);
    for id in 0..60 {
        last = write(&client, id).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    reaches(&cli, last).await;
    signal(&child, "TERM");
    assert_eq!(finish(child).await.code, Some(0));
    assert_eq!(cli.json(&["timeline"]).await["gaps"], serde_json::json!([]));
    let found = cli.json(&["oplog-search", "--namespace", "kept.c", "--op", "insert"]).await;
    let ids: Vec<i64> = found["entries"].as_array().unwrap().iter().filter_map(|entry| entry["id"].as_i64()).collect();
    assert_eq!(ids, (0..60).collect::<Vec<_>>(), "{found}");
    assert_eq!(found["entries"].as_array().unwrap().last().unwrap()["time"], text(last));
}

#[tokio::test]
async fn a_dropped_collection_comes_back_with_one_command() {
    let (server, target) = tokio::join!(Server::replica_set("back"), Server::standalone());
    let client = server.client().await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri()).env("MONGO_URI_LOCAL", target.uri());
    fill(&client.database("shop"), "orders", (0..100).map(Bson::Int32)).await;
    cli.json(&["backup"]).await;
    let child = cli.spawn(&["archive"]);
    reaches(&cli, write(&client, "begun").await).await;
    // The backup is older than the archive: nothing can be replayed on it.
    let name = cli.json(&["list"]).await["backups"].as_array().unwrap().last().unwrap()["name"].clone();
    let refused = cli.run(&["import", "--to", &text(write(&client, 1).await), name.as_str().unwrap(), "--json"]).await;
    assert_eq!((refused.code, &refused.json()["error"]["kind"]), (Some(1), &"notFound".into()), "{}", refused.stdout);
    for _ in 0..100 {
        if !cli.json(&["timeline"]).await["ranges"].as_array().unwrap().is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fill(&client.database("shop"), "orders", (100..200).map(Bson::Int32)).await;
    client.database("shop").collection::<Document>("orders").drop().await.unwrap();
    reaches(&cli, write(&client, "later").await).await;
    let found = cli.json(&["oplog-search", "--namespace", "shop.orders", "--op", "drop,dropDatabase", "--since", "1h"]).await;
    let dropped = &found["entries"][0];
    assert_eq!((&dropped["op"], dropped["documents"].as_i64()), (&"drop".into(), Some(200)), "{found}");
    let at = dropped["time"].as_str().unwrap();
    let report = cli.json(&["import", "--undo", at, "--rename", "shop.*=rescued.*"]).await;
    assert_eq!((report["documents"].as_u64(), report["collections"].as_array().unwrap().len()), (Some(200), 1), "{report}");
    assert_eq!(documents(&target.client().await.database("rescued"), "orders").await.len(), 200);

    signal(&child, "TERM");
    assert_eq!(finish(child).await.code, Some(0));
    let usage = [
        (vec!["import", "--undo", "12"], "exact time of an operation"),
        (vec!["import", "--to", "yesterday"], "is not a time that can be restored"),
        (vec!["import", "--to", "2026-11-22T21:45:00.5Z"], "is not a time that can be restored"),
        (vec!["oplog-search", "--namespace", "a.b", "--op", "delet"], "is no operation"),
        (vec!["oplog-search", "--namespace", "a.b", "--filter", "{"], "--filter is not a document"),
        (vec!["archive", "--pitr-keep", "7"], "expected a number above 0 with s, m, h, d or w"),
    ];
    for (args, message) in usage {
        let output = cli.run(&args).await;
        assert!(output.code == Some(2) && output.stderr.contains(message), "{args:?}: {output:?}");
    }
    let failed = [
        (vec!["import", "--undo", "5:1"], "no archive of an oplog has an entry at 5:1"),
        (vec!["import", "--to", "2020-01-01T00:00:00Z"], "before the first backup"),
        (vec!["import", "--to", "2100-01-01T00:00:00Z"], "the archive of the oplog ends at"),
    ];
    for (args, message) in failed {
        let output = cli.run(&args).await;
        assert!(output.code == Some(1) && output.stderr.contains(message), "{args:?}: {output:?}");
    }
}
