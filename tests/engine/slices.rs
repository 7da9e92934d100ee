//! Imports of backups with an oplog slice. The target shows the source at the slice's end,
//! including indexes, views and names, whenever each part was read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bson::{DateTime, Document, RawDocumentBuf, Timestamp, doc};
use bsonvault::engine::backup::BackupOptions;
use bsonvault::engine::import::ImportOptions;
use bsonvault::engine::test_restore::{self, TestRestoreOptions};
use bsonvault::error::ErrorKind;
use bsonvault::format::checks::CheckKind;
use bsonvault::format::digest::Content;
use bsonvault::format::manifest::{CollectionKind, ConsistencyKind};
use bsonvault::mongo::{MongoUri, Role};
use bsonvault::names::NamespaceRename;
use bsonvault::repository::catalog::Backup;
use futures::TryStreamExt as _;
use mongodb::Database;

use crate::support::bank::{self, Bank, BankOptions};
use crate::support::compare::CompareOptions;
use crate::support::data::{assert_same, content, insert, numbered};
use crate::support::files::inside;
use crate::support::link::{Link, LinkOptions};
use crate::support::server::{Server, ServerOptions};
use crate::support::vault::{Vault, divided, verified, without};

/// Takes a backup over a slow link while writers run, as if the snapshot history expired as soon as
/// `large` is read.
async fn taken(vault: &Vault, server: &Server, options: &BackupOptions, large: &str, mbit: f64) -> Backup {
    let lost = doc! { "failCommands": ["find"], "namespace": large, "errorCode": 239 };
    server.fail_command(doc! { "times": 1 }, lost).await;
    let link = Link::to(server.port(), LinkOptions { mbit: Some(mbit), ..LinkOptions::default() });
    let report = vault.take(&server.uri_through(link.port()), options).await.unwrap();
    assert_eq!(report.manifest.consistency.kind, ConsistencyKind::Oplog);
    vault.find(&report.name).await
}

/// The source's content at this time.
async fn content_at(database: &Database, collection: &str, time: Timestamp) -> Content {
    let find = doc! {
        "find": collection, "batchSize": 100_000, "readConcern": { "level": "snapshot", "atClusterTime": time },
    };
    let mut then = Content::default();
    let mut cursor = database.run_cursor_command(find).await.unwrap();
    while cursor.advance().await.unwrap() {
        then.add(cursor.current().as_bytes());
    }
    then
}

#[tokio::test]
async fn an_import_shows_the_moment_at_the_slices_end() {
    let (server, target) = tokio::join!(Server::uncompressed("moment"), Server::standalone());
    let client = server.client().await;
    let database = client.database("moment");
    let bank = Bank::start(&client, BankOptions { db: "moment".to_owned(), ..BankOptions::default() }).await;
    insert(&database, "large", numbered(30_000)).await;
    let changing = tokio::spawn({
        let large = database.collection::<Document>("large");
        async move {
            for i in 0.. {
                // Deleted and inserted again, behind the cursor or before it: stored in a new
                // place, but in the same place by `_id`.
                let id = i * 7919 % 30_000;
                large.delete_one(doc! { "_id": id }).await.unwrap();
                large.insert_one(doc! { "_id": id, "back": i }).await.unwrap();
            }
        }
    });
    let vault = Vault::new();
    let backup = taken(&vault, &server, &divided("moment", u64::MAX), "moment.large", 120.0).await;
    bank.wait_for(2, 2).await;
    // Entries of the slice do not count as documents.
    let verified = verified(&backup, true).await;
    assert!(verified.is_sound() && backup.manifest.oplog.as_ref().unwrap().content().documents > 50, "{verified:?}");
    assert_eq!(verified.documents, backup.manifest.totals.documents);
    let report = vault.run(&backup, &target.uri(), &ImportOptions::default()).await.unwrap();
    let replayed = report.replayed.unwrap();
    assert!(replayed.operations > 50 && replayed.entries > 50, "{replayed:?}");
    let copy = target.client().await;
    for collection in &report.collections {
        let name = collection.namespace.split_once('.').unwrap().1;
        let then = content_at(&database, name, replayed.to.into()).await;
        assert_eq!(content(&copy.database("moment"), name).await, then, "{name}");
        assert_eq!(collection.documents, then.documents, "{name}");
    }
    changing.abort();
    bank.stop().await;
    assert_eq!(bank::check(&copy, "moment").await, Vec::<String>::new());

    // A part of it under other names has the same consistency point.
    let options = ImportOptions {
        filter: without(&["moment.large"]),
        renames: vec![NamespaceRename::parse("moment.*=part.*").unwrap()],
        ..ImportOptions::default()
    };
    vault.run(&backup, &target.uri(), &options).await.unwrap();
    assert_eq!(bank::check(&copy, "part").await, Vec::<String>::new());
    assert!(!copy.database("part").list_collection_names().await.unwrap().contains(&"large".to_owned()));
}

/// The target of `$out`: a collection that the server marks as temporary.
async fn temporary(database: &Database, name: &str, ids: std::ops::Range<i32>) {
    let namespace = format!("{}.$cmd", database.name());
    let create = doc! { "applyOps": [{ "op": "c", "ns": namespace, "o": { "create": name, "temp": true } }] };
    database.client().database("admin").run_command(create).await.unwrap();
    insert(database, name, ids.map(|i| doc! { "_id": i, "of": name })).await;
}

#[tokio::test]
async fn temporary_collections_are_left_out_unless_they_come_to_last() {
    const RENAMED: &str = "tmp.agg_out.0b1a4d1c-8d4c-4c3e-9b8a-000000000001";
    const KILLED: &str = "tmp.agg_out.0b1a4d1c-8d4c-4c3e-9b8a-000000000002";
    let (server, target) = tokio::join!(Server::uncompressed("temporary"), Server::standalone());
    let database = server.client().await.database("out");
    let copy = target.client().await.database("out");
    temporary(&database, RENAMED, 0..300).await;
    temporary(&database, KILLED, 0..200).await;
    // It has such a name, but belongs to a user.
    insert(&database, "tmp.agg_out.mine", (0..7).map(|i| doc! { "_id": i })).await;
    insert(&database, "report", (0..5).map(|i| doc! { "_id": i, "old": true })).await;
    let names = async || {
        let mut names = copy.list_collection_names().await.unwrap();
        names.sort();
        names
    };
    let left_out = |backup: &Backup| -> Vec<String> {
        let left_out = backup.manifest.left_out.iter();
        left_out.inspect(|l| assert!(l.reason.starts_with("temporary"), "{l:?}")).map(|l| l.collection.clone()).collect()
    };

    // With a snapshot: neither is part of the backup.
    let vault = Vault::new();
    let backup = vault.backup(&server, &["out"]).await;
    assert_eq!(backup.manifest.consistency.kind, ConsistencyKind::Snapshot);
    assert_eq!(left_out(&backup), [RENAMED, KILLED]);
    vault.import(&backup, &target.uri()).await.unwrap();
    assert_eq!(names().await, ["report", "tmp.agg_out.mine"]);

    // With the oplog: one is filled further and renamed within the slice, the other one never is.
    insert(&database, "large", numbered(10_000)).await;
    let finish = async {
        // The listing exists once its journal does.
        while !inside(vault.directory.path()).iter().any(|backup| backup.join("resume.00000.json").exists()) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        insert(&database, RENAMED, (300..400).map(|i| doc! { "_id": i, "of": RENAMED })).await;
        let rename = doc! { "renameCollection": format!("out.{RENAMED}"), "to": "out.report", "dropTarget": true };
        server.admin(rename).await.unwrap();
        temporary(&database, "tmp.agg_out.later", 0..10).await;
    };
    let mut options = divided("out", u64::MAX);
    options.filter.exclude = without(&["out.tmp.agg_out.*-*"]).exclude;
    let (backup, ()) = tokio::join!(taken(&vault, &server, &options, "out.large", 40.0), finish);
    assert_eq!(left_out(&backup), [""; 0], "what is kept out by a pattern is not named");
    vault.run(&backup, &target.uri(), &ImportOptions::default()).await.unwrap();
    assert_eq!(names().await, ["large", "report", "tmp.agg_out.mine"]);
    assert_eq!(content(&copy, "report").await, content(&database, "report").await);

    // A test restore expects what exists at the end of the slice, not what was listed.
    assert_ne!(backup.manifest.collections.len(), 3);
    let uri = MongoUri::parse(Role::Target, &target.uri()).unwrap();
    let restored = test_restore::run(&backup, &uri, None, &TestRestoreOptions::default(), &vault.cx).await.unwrap();
    assert_eq!(restored.collections.len(), 3);
    assert!(backup.checks().await.of(CheckKind::Restore).is_some_and(|check| check.passed));
}

/// Changes names, indexes, views and options while a backup runs, and writes to all of them.
async fn change_everything(database: &Database, stop: &AtomicBool) {
    let run = |command: Document| async move { database.run_command(command).await.unwrap() };
    let log = |name: &str| database.collection::<Document>(name);
    insert(database, "log", (1000..1100).map(|i| doc! { "_id": i, "unique": i })).await;
    let admin = database.client().database("admin");
    let rename = doc! { "renameCollection": "ddl.log", "to": "ddl.log_old" };
    admin.run_command(rename).await.unwrap();
    insert(database, "log", (0..50).map(|i| doc! { "_id": i, "new": true })).await;
    let unique = doc! { "key": { "unique": 1 }, "name": "unique", "unique": true };
    // It becomes unique only once the duplicate is gone. A replay over data that was read later may
    // violate that for a moment.
    log("log_old").delete_one(doc! { "_id": "twin" }).await.unwrap();
    run(doc! { "createIndexes": "log_old", "indexes": [unique] }).await;
    run(doc! { "collMod": "view", "viewOn": "log_old", "pipeline": [{ "$match": { "unique": 1 } }] }).await;
    run(doc! { "create": "second", "viewOn": "log", "pipeline": [] }).await;
    run(doc! { "drop": "gone" }).await;
    run(doc! { "collMod": "kept", "validator": { "n": { "$exists": true } }, "validationLevel": "moderate" }).await;
    run(doc! { "dropIndexes": "kept", "index": "n" }).await;
    run(doc! { "create": "born", "collation": { "locale": "fr" } }).await;
    insert(database, "born", [doc! { "_id": "a" }]).await;
    run(doc! { "create": "series_born", "timeseries": { "timeField": "t", "metaField": "m" } }).await;
    insert(database, "series_born", (0..20i64).map(|i| doc! { "t": DateTime::from_millis(i * 1000), "m": i % 3, "v": i })).await;
    run(doc! { "aggregate": "kept", "pipeline": [{ "$match": { "n": 1 } }, { "$out": "out" }], "cursor": {} }).await;
    for i in 0.. {
        log("log").insert_one(doc! { "_id": 10_000 + i }).await.unwrap();
        log("log_old").update_one(doc! { "_id": 1000 + i % 100 }, doc! { "$set": { "seen": i } }).await.unwrap();
        log("events").insert_one(doc! { "_id": 10_000 + i }).await.unwrap();
        insert(database, "series", [doc! { "t": DateTime::from_millis(9_000_000 + i * 1000), "m": 1, "v": i }]).await;
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

#[tokio::test]
async fn what_was_renamed_altered_dropped_and_created_meanwhile_is_as_it_was_left() {
    let (server, target) = tokio::join!(Server::uncompressed("ddl"), Server::replica_set("ddl_target"));
    let client = server.client().await;
    let database = client.database("ddl");
    insert(&database, "large", numbered(30_000)).await;
    insert(&database, "log", (0..1000).map(|i| doc! { "_id": i, "unique": i })).await;
    insert(&database, "log", [doc! { "_id": "twin", "unique": 1 }]).await;
    insert(&database, "gone", numbered(10)).await;
    insert(&database, "kept", numbered(100)).await;
    insert(&database, "out", numbered(5)).await;
    database.run_command(doc! { "createIndexes": "kept", "indexes": [{ "key": { "n": 1 }, "name": "n" }] }).await.unwrap();
    database.run_command(doc! { "create": "view", "viewOn": "log", "pipeline": [] }).await.unwrap();
    database.run_command(doc! { "create": "events", "capped": true, "size": 40_000, "max": 500 }).await.unwrap();
    insert(&database, "events", (0..900).map(|i| doc! { "_id": i })).await;
    database.run_command(doc! { "create": "series", "timeseries": { "timeField": "t", "metaField": "m" } }).await.unwrap();
    insert(&database, "series", (0..50i64).map(|i| doc! { "t": DateTime::from_millis(i * 1000), "m": i % 3, "v": i })).await;

    let vault = Vault::new();
    let stop = Arc::new(AtomicBool::new(false));
    let changing = tokio::spawn({
        let (database, stop, progress) = (database.clone(), stop.clone(), vault.cx.progress.clone());
        async move {
            while progress.view().phase != "reading" {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            change_everything(&database, &stop).await;
        }
    });
    // One by one, the largest first: the capped one is read when much of what it held at the
    // listing is overwritten.
    let mut options = divided("ddl", u64::MAX);
    options.tuning.readers = Some(1);
    // Eight seconds, in which everything is changed.
    let backup = taken(&vault, &server, &options, "ddl.large", 30.0).await;
    stop.store(true, Ordering::Relaxed);
    changing.await.unwrap();
    let report = vault.run(&backup, &target.uri(), &ImportOptions::default()).await.unwrap();
    let to: Timestamp = report.replayed.unwrap().to.into();

    let copy = target.client().await.database("ddl");
    for collection in ["large", "log", "log_old", "kept", "born", "out", "system.buckets.series", "system.buckets.series_born"] {
        assert_eq!(content(&copy, collection).await, content_at(&database, collection, to).await, "{collection}");
    }
    assert_eq!(copy.collection::<Document>("events").count_documents(doc! {}).await.unwrap(), 500);
    // In their original order, up to that time.
    let order: Vec<i64> = copy
        .collection::<Document>("events")
        .find(doc! {})
        .await
        .unwrap()
        .map_ok(|d| d.get_i64("_id").or(d.get_i32("_id").map(i64::from)).unwrap())
        .try_collect()
        .await
        .unwrap();
    assert!(order.is_sorted() && order.last().is_some_and(|last| *last >= 10_000), "{order:?}");
    // Names, options, views and indexes: after the slice's end, only documents changed.
    let find = doc! { "$nor": [{ "_id": null }] };
    for client in [&client, &target.client().await] {
        for name in ["large", "log", "log_old", "kept", "born", "events", "series", "series_born", "out"] {
            client.database("ddl").collection::<RawDocumentBuf>(name).delete_many(find.clone()).await.ok();
        }
    }
    let options = CompareOptions { databases: Some(vec!["ddl".to_owned()]), ..CompareOptions::default() };
    let comparison = crate::support::compare::compare(&client, &target.client().await, options).await;
    let of_documents = |line: &&String| line.contains("events") || line.contains("series");
    let differences: Vec<&String> = comparison.differences.iter().filter(|line| !of_documents(line)).collect();
    assert!(differences.is_empty(), "{differences:?}");
    let views: Vec<_> = report.collections.iter().filter(|c| c.kind == CollectionKind::View).map(|c| &*c.namespace).collect();
    assert_eq!(views, ["ddl.second", "ddl.view"]);
}

#[tokio::test]
async fn a_target_whose_login_may_not_replay_is_told_so_before_anything_is_written() {
    let auth = ServerOptions { auth: true, ..ServerOptions::default() };
    let (server, target) = tokio::join!(Server::uncompressed("rights"), Server::start(auth));
    let client = server.client().await;
    insert(&client.database("rights"), "large", numbered(3000)).await;
    let vault = Vault::new();
    let backup = taken(&vault, &server, &divided("rights", u64::MAX), "rights.large", 120.0).await;
    let roles = [doc! { "role": "readWrite", "db": "rights" }, doc! { "role": "dbAdmin", "db": "rights" }];
    target.admin(doc! { "createUser": "one", "pwd": "p", "roles": roles.to_vec() }).await.unwrap();
    let uri = target.uri().replace("root:secret", "one:p");
    let error = vault.run(&backup, &uri, &ImportOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("lacks rights to replay it: applyOps on the cluster"), "{error}");
    assert!(target.client().await.database("rights").list_collection_names().await.unwrap().is_empty());
    vault.run(&backup, &target.uri(), &ImportOptions::default()).await.unwrap();
    assert_same(&client, &target.client().await, CompareOptions::default()).await;
}
