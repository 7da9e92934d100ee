//! Tests the tests' own support: a comparison that finds nothing must be able to find something.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Client;

use crate::support::bank::{self, Bank, BankOptions};
use crate::support::cli::Cli;
use crate::support::compare::{CompareOptions, compare, of_any_version};
use crate::support::link::{Link, LinkOptions};
use crate::support::server::{ReplicaSet, Server, ServerOptions};
use crate::support::zoo::{self, ZooOptions};

#[tokio::test]
async fn a_server_keeps_its_data_when_killed_and_restarted() {
    let mut server = Server::replica_set("rs").await;
    let things = server.client().await.database("d").collection("c");
    things.insert_one(doc! {"_id": 1}).await.unwrap();
    server.kill();
    assert!(!server.is_running());
    server.restart().await;
    server.wait_writable().await;
    assert_eq!(server.client().await.database("d").collection::<Document>("c").count_documents(doc! {}).await.unwrap(), 1);
    server.stop();
    server.restart().await;
    server.wait_writable().await;
    server.step_down(1).await;
    server.wait_writable().await;
}

#[tokio::test]
async fn access_control_lets_only_the_user_in() {
    for repl_set in [None, Some("rs".to_owned())] {
        let server = Server::start(ServerOptions { auth: true, repl_set, ..ServerOptions::default() }).await;
        server.client().await.list_database_names().await.unwrap();
        let anyone = Client::with_uri_str(format!("mongodb://{}/?directConnection=true", server.host())).await.unwrap();
        anyone.list_database_names().await.unwrap_err();
    }
}

#[tokio::test]
async fn a_set_elects_another_primary() {
    let mut set = ReplicaSet::start(3).await;
    let first = set.primary().await;
    set.members[first].kill();
    let second = set.primary().await;
    assert_ne!(first, second);
    set.members[first].restart().await;
    set.wait_healthy().await;
}

#[tokio::test]
async fn what_is_filled_alike_compares_equal() {
    let (a, b) = futures::join!(Server::replica_set("a"), Server::replica_set("b"));
    let (a, b) = (a.client().await, b.client().await);
    let options = ZooOptions::default();
    let (refused, refused_too) = futures::join!(zoo::fill(&a, &options), zoo::fill(&b, &options));
    assert_eq!(refused, refused_too);
    let found = compare(&a, &b, CompareOptions { filled_apart: true, ..CompareOptions::default() }).await;
    assert_eq!(found.differences, [""; 0]);
    assert!(found.namespaces > 70 && found.documents > 7000, "{found:?}");

    // The same namespaces, but none of the larger collections is equal.
    let other = Server::replica_set("other").await;
    let other = other.client().await;
    zoo::fill(&other, &ZooOptions { seed: 2, ..options }).await;
    let found = compare(&a, &other, CompareOptions { filled_apart: true, ..CompareOptions::default() }).await;
    assert!(found.differences.iter().all(|d| d.starts_with("differs ") && !d.contains(" options")), "{found:#?}");
    assert!(found.differences.len() > 30, "{found:#?}");
}

#[test]
fn across_versions_the_form_is_forgiven_and_nothing_else() {
    let listed = |index: &Document, options: &Document| of_any_version(index.clone(), options);
    let same = |a: Document, b: Document| listed(&a, &doc! {}) == listed(&b, &doc! {});
    for (a, b) in [
        (doc! {"expireAfterSeconds": 1e9, "sparse": 2_i64}, doc! {"expireAfterSeconds": 1_000_000_000, "sparse": true}),
        (doc! {"bits": 20, "min": -10_i64}, doc! {"bits": 20.0, "min": -10}),
        (doc! {"wildcardProjection": {"a": 1}}, doc! {"wildcardProjection": {"a": true, "_id": false}}),
    ] {
        assert!(same(a.clone(), b.clone()), "{a} and {b}");
    }
    for (a, b) in [
        (doc! {"expireAfterSeconds": 10}, doc! {"expireAfterSeconds": 11}),
        (doc! {"expireAfterSeconds": 10}, doc! {}),
        (doc! {"sparse": 0}, doc! {"sparse": true}),
        (doc! {"bits": 20}, doc! {"bits": 21.0}),
        (doc! {"key": {"a": 1}}, doc! {"key": {"a": 1.0}}),
        (doc! {"clustered": false, "expireAfterSeconds": 10}, doc! {"clustered": false}),
        (doc! {"wildcardProjection": {"a": 1}}, doc! {"wildcardProjection": {"a": false}}),
        (doc! {"wildcardProjection": {"a": 1}}, doc! {"wildcardProjection": {"a": true, "_id": true}}),
        (doc! {"partialFilterExpression": {"a": 1}}, doc! {"partialFilterExpression": {"a": 1.0}}),
    ] {
        assert!(!same(a.clone(), b.clone()), "{a} and {b}");
    }
    // Listed twice, and only if both are the same.
    let clustered = doc! {"clustered": true, "expireAfterSeconds": 10};
    assert_eq!(listed(&clustered, &doc! {"expireAfterSeconds": 10_i64}), doc! {"clustered": true});
    assert_ne!(listed(&clustered, &doc! {"expireAfterSeconds": 11}), doc! {"clustered": true});
    assert_ne!(listed(&clustered, &doc! {}), doc! {"clustered": true});
}

/// Two databases of one server with the same content, including buckets, until one is changed.
#[tokio::test]
async fn every_kind_of_change_is_reported() {
    let server = Server::standalone().await;
    let client = server.client().await;
    fill_small(&client, "same").await;
    fill_small(&client, "other").await;
    assert_eq!(differences(&client, "other").await, [""; 0]);

    let set = |collection: &str, id: i32, set: Document| doc! {"update": collection, "updates": [{"q": {"_id": id}, "u": {"$set": set}}]};
    let changes = [
        ("a value", set("plain", 3, doc! {"v": "changed"}), "differs same.plain documents"),
        ("a type", set("plain", 3, doc! {"v": 3_i64}), "differs same.plain documents"),
        ("a document gone", doc! {"delete": "plain", "deletes": [{"q": {"_id": 3}, "limit": 1}]}, "differs same.plain count"),
        ("a document more", doc! {"insert": "plain", "documents": [{"_id": 99}]}, "differs same.plain count"),
        ("a collection gone", doc! {"drop": "plain"}, "missing same.plain"),
        ("a collection more", doc! {"create": "new"}, "extra same.new"),
        ("an option", doc! {"collMod": "plain", "validationLevel": "moderate"}, "differs same.plain options"),
        ("a view", doc! {"collMod": "view", "viewOn": "plain", "pipeline": []}, "differs same.view options"),
        ("an index gone", doc! {"dropIndexes": "plain", "index": "v_1"}, "differs same.plain indexes"),
        ("an index's option", doc! {"collMod": "plain", "index": {"name": "v_1", "hidden": true}}, "differs same.plain indexes"),
        (
            "the order where it is kept",
            doc! {"insert": "capped", "documents": [{"_id": 1}, {"_id": 0}]},
            "differs same.capped order",
        ),
        (
            "a bucket",
            doc! {"update": "system.buckets.series", "updates": [{"q": {}, "u": {"$set": {"control.max.odd": 1}}}]},
            "differs same.series buckets",
        ),
        ("a measurement", doc! {"insert": "system.buckets.series", "documents": [bucket(2)]}, "differs same.series count"),
        ("a type of namespace", doc! {"create": "gone", "viewOn": "plain"}, "extra same.gone"),
    ];
    for (what, change, expected) in changes {
        if what.starts_with("the order") {
            // Then both hold the same two documents.
            let reversed = doc! {"insert": "capped", "documents": [{"_id": 0}, {"_id": 1}]};
            client.database("same").run_command(reversed).await.unwrap();
        }
        client.database("other").run_command(change).await.unwrap();
        let found = differences(&client, "other").await;
        assert!(found.iter().any(|d| d.starts_with(expected)), "{what} is not told: {found:#?}");
        let namespace = expected.split(' ').nth(1).unwrap();
        assert!(found.iter().all(|d| d.contains(namespace)), "{what} tells of more: {found:#?}");
        for db in ["same", "other"] {
            client.database(db).drop().await.unwrap();
            fill_small(&client, db).await;
        }
    }

    client.database("extra").collection("c").insert_one(doc! {}).await.unwrap();
    let other = Server::standalone().await;
    let found = compare(&other.client().await, &client, CompareOptions::default()).await;
    assert_eq!(found.differences, ["extra database extra", "extra database other", "extra database same"]);
    let lenient = CompareOptions { ignore_extra: true, ..CompareOptions::default() };
    assert_eq!(compare(&other.client().await, &client, lenient).await.differences, [""; 0]);
}

async fn fill_small(client: &Client, db: &str) {
    let db = client.database(db);
    for command in [
        doc! {"createIndexes": "plain", "indexes": [{"key": {"v": 1}, "name": "v_1"}]},
        doc! {"insert": "plain", "documents": (0..10).map(|i| doc! {"_id": i, "v": i}).collect::<Vec<_>>()},
        doc! {"create": "capped", "capped": true, "size": 4096},
        doc! {"create": "view", "viewOn": "plain", "pipeline": [{"$match": {}}]},
        doc! {"create": "series", "timeseries": {"timeField": "t"}},
        doc! {"insert": "system.buckets.series", "documents": [bucket(1)]},
    ] {
        db.run_command(command).await.unwrap();
    }
}

/// A bucket of one measurement, as a restore would insert it.
fn bucket(id: u8) -> Document {
    let at = bson::DateTime::from_millis(i64::from(id) * 1000);
    let measured = doc! {"t": at, "v": 1};
    doc! {
        "_id": bson::oid::ObjectId::from_bytes([id; 12]),
        "control": {"version": 1, "min": &measured, "max": &measured},
        "data": {"t": {"0": at}, "v": {"0": 1}},
    }
}

async fn differences(client: &Client, db: &str) -> Vec<String> {
    let options = CompareOptions {
        databases: Some(vec!["same".to_owned()]),
        rename: [("same".to_owned(), db.to_owned())].into(),
        ..CompareOptions::default()
    };
    compare(client, client, options).await.differences
}

#[tokio::test]
async fn the_bank_adds_up_until_it_is_robbed() {
    let server = Server::replica_set("rs").await;
    let client = server.client().await;
    let bank = Bank::start(&client, BankOptions { accounts: 50, ddl: true, ..BankOptions::default() }).await;
    bank.wait_for(20, 810).await;
    let written = bank.stop().await;
    assert!(written.transfers >= 20 && written.counters >= 810, "{written:?}");
    assert_eq!(bank::check(&client, "bank").await, [""; 0]);

    let db = client.database("bank");
    let thefts = [
        (
            doc! {"update": "left", "updates": [{"q": {"_id": 7}, "u": {"$inc": {"balance": -1_i64}}}]},
            vec!["total ", "1 balances disagree"],
        ),
        (doc! {"delete": "counters", "deletes": [{"q": {"_id": 5}, "limit": 1}]}, vec!["counters have gaps"]),
        (doc! {"delete": "renamed800", "deletes": [{"q": {"_id": 5}, "limit": 1}]}, vec!["renamed800 is missing or not whole"]),
        (doc! {"create": "tmp400"}, vec!["tmp400 should be gone"]),
    ];
    let mut expected = Vec::new();
    for (theft, broken) in thefts {
        db.run_command(theft).await.unwrap();
        expected.extend(broken);
        let found = bank::check(&client, "bank").await;
        let all = expected.iter().all(|start| found.iter().any(|line| line.starts_with(start)));
        assert!(all && found.len() == expected.len(), "{found:#?}");
    }
}

#[tokio::test]
async fn a_link_delays_limits_cuts_and_refuses() {
    let server = Server::standalone().await;
    let ping = doc! {"ping": 1};

    let far = Link::to(server.port(), LinkOptions { round_trip: Duration::from_millis(80), ..LinkOptions::default() });
    let client = Client::with_uri_str(server.uri_through(far.port())).await.unwrap();
    client.database("admin").run_command(ping.clone()).await.unwrap();
    let started = Instant::now();
    client.database("admin").run_command(ping.clone()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(80));

    let narrow = Link::to(server.port(), LinkOptions { mbit: Some(16.0), ..LinkOptions::default() });
    let through = Client::with_uri_str(server.uri_through(narrow.port())).await.unwrap();
    server.client().await.database("d").collection("c").insert_one(doc! {"v": "x".repeat(1_000_000)}).await.unwrap();
    let started = Instant::now();
    let found = through.database("d").collection::<Document>("c").find_one(doc! {}).await.unwrap();
    assert!(found.is_some() && started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
    assert!(narrow.bytes_down() > 1_000_000 && narrow.bytes_up() > 100, "{} {}", narrow.bytes_down(), narrow.bytes_up());

    narrow.cut_after(100_000);
    let retrying = through.database("d").collection::<Document>("c").find_one(doc! {}).await;
    assert!(retrying.is_ok() && narrow.cuts() == 1, "a read survives one cut by the driver's own retry: {retrying:?}");

    narrow.refuse(true);
    narrow.cut();
    // Accepted and reset at once, or reset before that shows: both are refusals.
    let _refused = tokio::net::TcpStream::connect(("127.0.0.1", narrow.port())).await;
    let given_up = tokio::time::timeout(Duration::from_millis(500), through.database("admin").run_command(ping.clone())).await;
    assert!(!matches!(given_up, Ok(Ok(_))), "{given_up:?}");
    narrow.refuse(false);
    through.database("admin").run_command(ping).await.unwrap();
}

#[tokio::test]
async fn the_binary_runs_in_a_place_of_its_own() {
    let output = Cli::new().env("RUST_LOG", "off").run::<&str>(&[]).await;
    assert!(output.code.is_some(), "{output:?}");
}

/// Runs itself in another process, which holds a server when it is killed.
#[test]
fn a_killed_process_leaves_no_server() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if std::env::var_os("HOLD_A_SERVER").is_some() {
        let server = runtime.block_on(Server::standalone());
        println!("\nholding {}", server.port());
        std::thread::sleep(Duration::from_secs(600));
    }
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "support_works::a_killed_process_leaves_no_server", "--nocapture"])
        .env("HOLD_A_SERVER", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let port: u16 = BufReader::new(holder.stdout.take().unwrap())
        .lines()
        .find_map(|line| line.unwrap().strip_prefix("holding ").map(|port| port.parse().unwrap()))
        .unwrap();
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(Instant::now() < deadline, "the server outlived the process that started it");
        std::thread::sleep(Duration::from_millis(20));
    }
}
