//! Backups with an oplog slice. Whenever the data has no consistency point of its own, the slice
//! holds every write since, without a gap. It exists only if needed.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use bsonvault::context::Context;
use bsonvault::engine::Tuning;
use bsonvault::engine::backup::{self, BackupOptions, BackupReport};
use bsonvault::error::ErrorKind;
use bsonvault::format::document::Documents;
use bsonvault::format::manifest::{ConsistencyKind, OplogSlice, Segment};
use bsonvault::mongo::{MongoUri, Role};
use bsonvault::oplog::Position;
use futures::TryStreamExt as _;
use mongodb::{Client, ClientSession};
use tokio_util::sync::CancellationToken;

use crate::support::bank::{Bank, BankOptions};
use crate::support::data::{content, fill, insert, numbered};
use crate::support::files::inside;
use crate::support::link::{Link, LinkOptions};
use crate::support::server::{Server, ServerOptions, without_oplog};
use crate::support::vault::{Vault, at, at_for, divided, on};

/// The documents of these segments, in order.
async fn documents(vault: &Vault, report: &BackupReport, segments: &[Segment]) -> Vec<RawDocumentBuf> {
    let mut documents = Vec::new();
    for segment in segments {
        let bytes = vault.repository().place(&report.name).get(&segment.object.key).await.unwrap();
        let raw = zstd::stream::decode_all(&bytes[..]).unwrap();
        documents.extend(Documents::of(&raw).map(|d| RawDocumentBuf::from_bytes(d.unwrap().to_vec()).unwrap()));
    }
    documents
}

/// The slice of a backup, after a check that it equals the server's own oplog between its ends for
/// these databases.
async fn proven_slice(
    client: &Client,
    vault: &Vault,
    report: &BackupReport,
    databases: &[&str],
) -> (OplogSlice, Vec<RawDocumentBuf>) {
    let manifest = &report.manifest;
    assert_eq!(manifest.consistency.kind, ConsistencyKind::Oplog, "{:?}", manifest.consistency);
    let slice = manifest.oplog.clone().unwrap();
    let listed = manifest.consistency.cluster_time.unwrap();
    assert!(slice.from <= listed && listed <= slice.to, "{slice:?} {listed}");
    assert!(manifest.consistency.exceptions.is_empty());
    assert_eq!((manifest.consistency.replay_from.map(|p| p.time), manifest.format_version), (Some(slice.from), 4));
    let kept = documents(vault, report, &slice.segments).await;
    let (from, to) = (Timestamp::from(slice.from), Timestamp::from(slice.to));
    let filter = doc! { "ts": { "$gte": from, "$lte": to }, "op": { "$ne": "n" } };
    let oplog = client.database("local").collection::<RawDocumentBuf>("oplog.rs");
    let all: Vec<RawDocumentBuf> = oplog.find(filter).await.unwrap().try_collect().await.unwrap();
    let expected: Vec<RawDocumentBuf> = all
        .into_iter()
        .filter(|entry| {
            let ns = entry.get_str("ns").unwrap();
            let database = ns.split('.').next().unwrap();
            ns == "admin.$cmd"
                && entry.get_document("o").is_ok_and(|o| {
                    let first = o.iter().next().unwrap().unwrap().0;
                    ["applyOps", "commitTransaction", "abortTransaction"].contains(&first.as_str())
                })
                || databases.contains(&database)
        })
        .collect();
    let times = |entries: &[RawDocumentBuf]| entries.iter().map(|e| e.get_timestamp("ts").unwrap()).collect::<Vec<_>>();
    assert_eq!(times(&kept), times(&expected));
    assert_eq!(kept, expected);
    (slice, kept)
}

/// The `_id`s of a collection in a backup; each once.
async fn ids(vault: &Vault, report: &BackupReport, namespace: &str) -> Vec<Bson> {
    let collection = report.manifest.collections.iter().find(|c| c.namespace().to_string() == namespace).unwrap();
    let documents = documents(vault, report, &collection.segments).await;
    let mut ids: Vec<Bson> = documents.iter().map(|d| d.get("_id").unwrap().unwrap().try_into().unwrap()).collect();
    ids.sort_by_key(ToString::to_string);
    let all = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), all, "{namespace} has documents of the same _id");
    ids
}

fn short_history(name: &str) -> ServerOptions {
    let parameters = vec![("minSnapshotHistoryWindowInSeconds".to_owned(), "1".to_owned())];
    ServerOptions { repl_set: Some(name.to_owned()), parameters, ..ServerOptions::default() }
}

#[tokio::test]
async fn a_quick_backup_keeps_no_slice() {
    let server = Server::replica_set("quick").await;
    let client = server.client().await;
    let bank = Bank::start(&client, BankOptions { db: "quick".to_owned(), ..BankOptions::default() }).await;
    bank.wait_for(5, 5).await;
    let vault = Vault::new();
    let report = vault.take(&server.uri(), &on("quick")).await.unwrap();
    bank.stop().await;
    assert_eq!(report.manifest.consistency.kind, ConsistencyKind::Snapshot);
    assert_eq!((&report.manifest.oplog, report.manifest.consistency.to), (&None, None));
    vault.contents(&report).await;
    let stored = inside(&vault.directory.path().join(report.name.as_str()));
    assert!(!stored.iter().any(|f| f.to_string_lossy().contains("oplog")), "{stored:?}");
    assert!(vault.cx.progress.take_notes().is_empty());
}

#[tokio::test]
async fn a_history_that_is_too_short_is_made_up_for_by_the_oplog() {
    let server = Server::start(short_history("short")).await;
    let client = server.client().await;
    let bank = Bank::start(&client, BankOptions { db: "short".to_owned(), ..BankOptions::default() }).await;
    let others = Bank::start(&client, BankOptions { db: "elsewhere".to_owned(), seed: 2, ..BankOptions::default() }).await;
    insert(&client.database("short"), "large", numbered(12_000)).await;
    let slow = doc! { "failCommands": ["getMore"], "namespace": "short.large", "blockConnection": true, "blockTimeMS": 4000 };
    server.fail_command(doc! { "times": 2 }, slow).await;
    let vault = Vault::new();
    let report = vault.take(&server.uri(), &divided("short", u64::MAX)).await.unwrap();
    bank.wait_for(3, 3).await;
    bank.stop().await;
    others.stop().await;
    let contents = vault.contents(&report).await;
    assert_eq!(contents["short.large"], content(&client.database("short"), "large").await);
    let (slice, kept) = proven_slice(&client, &vault, &report, &["short"]).await;
    assert!(slice.documents > 50 && kept.iter().any(|e| e.get_str("op").ok() == Some("i")), "{slice:?}");
    for collection in ["left", "right", "journal", "counters", "churn"] {
        ids(&vault, &report, &format!("short.{collection}")).await;
    }
    let notes = vault.cx.progress.take_notes();
    assert_eq!(
        notes.iter().filter(|n| n.contains("keeps an oplog slice: the source no longer has the history")).count(),
        1,
        "{notes:?}"
    );
    let totals = report.manifest.totals;
    assert_eq!(totals.documents, report.manifest.collections.iter().map(|c| c.documents).sum::<u64>());
    assert!(totals.segments > report.manifest.collections.iter().map(|c| c.segments.len() as u64).sum::<u64>());
}

#[tokio::test]
async fn a_collection_renamed_and_made_anew_while_it_is_read_is_read_on() {
    let server = Server::replica_set("rotated").await;
    let client = server.client().await;
    for (moment, name) in [("find", "before"), ("getMore", "during")] {
        let database = client.database(name);
        insert(&database, "log", numbered(10_000)).await;
        let expected = content(&database, "log").await;
        let vault = Vault::new();
        let report = at((&server, &server.uri()), (moment, &format!("{name}.log")), &vault, &divided(name, u64::MAX), async {
            let rename = doc! { "renameCollection": format!("{name}.log"), "to": format!("{name}.log_old") };
            client.database("admin").run_command(rename).await.unwrap();
            fill(&database, "log", [Bson::Int32(-1)]).await;
        })
        .await
        .unwrap();
        let contents = vault.contents(&report).await;
        assert_eq!(contents.into_iter().collect::<Vec<_>>(), [(format!("{name}.log"), expected)], "{moment}");
        let (_, kept) = proven_slice(&client, &vault, &report, &[name]).await;
        let of = |entry: &RawDocumentBuf| entry.get_document("o").unwrap().iter().next().unwrap().unwrap().0.to_string();
        let kinds: Vec<String> = kept.iter().filter(|e| e.get_str("op").ok() == Some("c")).map(of).collect();
        assert_eq!(kinds, ["renameCollection", "create"], "{moment}");
        let notes = vault.cx.progress.take_notes();
        let why = format!("keeps an oplog slice: {name}.log was renamed to {name}.log_old while the backup ran");
        assert_eq!(notes.iter().filter(|n| n.contains(&why)).count(), 1, "{notes:?}");
        assert!(notes.iter().all(|n| !n.contains("starting again")), "{notes:?}");
    }
}

#[tokio::test]
async fn a_collection_that_moves_again_and_again_is_found_by_every_cursor() {
    let server = Server::replica_set("restless").await;
    let client = server.client().await;
    let database = client.database("restless");
    insert(&database, "name0", numbered(12_000)).await;
    let expected = content(&database, "name0").await;
    let stop = CancellationToken::new();
    let renaming = tokio::spawn({
        let (client, stop) = (client.clone(), stop.clone());
        async move {
            for i in 0u32..12 {
                if stop.is_cancelled() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                let (from, to) = (format!("restless.name{i}"), format!("restless.name{}", i + 1));
                client.database("admin").run_command(doc! { "renameCollection": from, "to": to }).await.unwrap();
            }
        }
    });
    server.fail_command("alwaysOn", doc! { "failCommands": ["find"], "blockConnection": true, "blockTimeMS": 150 }).await;
    let vault = Vault::new();
    let report = vault.take(&server.uri(), &divided("restless", 1_500_000)).await.unwrap();
    stop.cancel();
    renaming.await.unwrap();
    let contents = vault.contents(&report).await;
    assert_eq!(contents.values().collect::<Vec<_>>(), [&expected]);
    let (_, kept) = proven_slice(&client, &vault, &report, &["restless"]).await;
    assert!(kept.len() > 1, "it was renamed {} times while it was read", kept.len());
}

#[tokio::test]
async fn a_collection_dropped_or_replaced_while_it_is_read_is_left_out_and_in_the_slice() {
    let server = Server::replica_set("dropped").await;
    let client = server.client().await;
    let database = client.database("dropped");
    for name in ["kept", "going", "report"] {
        insert(&database, name, numbered(10_000)).await;
    }
    let vault = Vault::new();
    let report = at((&server, &server.uri()), ("find", "dropped.report"), &vault, &divided("dropped", u64::MAX), async {
        database.collection::<Document>("going").drop().await.unwrap();
        let out = doc! { "aggregate": "kept", "pipeline": [{ "$limit": 7 }, { "$out": "report" }], "cursor": {} };
        database.run_command(out).await.unwrap();
    })
    .await
    .unwrap();
    let contents = vault.contents(&report).await;
    // Whether `going` was read before it was dropped depends on which reader came first. Both are
    // right.
    assert!(contents.contains_key("dropped.kept") && !contents.contains_key("dropped.report"), "{contents:?}");
    let left: BTreeMap<_, _> = report.manifest.left_out.iter().map(|l| (l.collection.as_str(), l.reason.as_str())).collect();
    assert!(left["report"].contains("replaced"), "{left:?}");
    let (_, kept) = proven_slice(&client, &vault, &report, &["dropped"]).await;
    assert!(kept.iter().any(|e| e.get_document("o").is_ok_and(|o| o.get_str("drop").ok() == Some("going"))));
    assert!(kept.iter().any(|e| e.get_document("o").is_ok_and(|o| o.get_str("to").ok() == Some("dropped.report"))));

    let report = at((&server, &server.uri()), ("getMore", "dropped.kept"), &vault, &divided("dropped", u64::MAX), async {
        database.collection::<Document>("kept").drop().await.unwrap();
    })
    .await
    .unwrap();
    assert!(!vault.contents(&report).await.contains_key("dropped.kept"));
    assert!(report.manifest.left_out[0].reason.contains("dropped"), "{:?}", report.manifest.left_out);
    proven_slice(&client, &vault, &report, &["dropped"]).await;
}

#[tokio::test]
async fn a_collection_altered_before_it_is_read_is_read_without_the_snapshot() {
    let server = Server::replica_set("altered").await;
    let client = server.client().await;
    let database = client.database("altered");
    insert(&database, "c", numbered(2_000)).await;
    let vault = Vault::new();
    let report = at((&server, &server.uri()), ("find", "altered.c"), &vault, &divided("altered", u64::MAX), async {
        let rename = |from: &str, to: &str| doc! { "renameCollection": format!("altered.{from}"), "to": format!("altered.{to}") };
        client.database("admin").run_command(rename("c", "d")).await.unwrap();
        database.run_command(doc! { "createIndexes": "d", "indexes": [{ "key": { "pad": 1 }, "name": "pad" }] }).await.unwrap();
        client.database("admin").run_command(rename("d", "c")).await.unwrap();
    })
    .await
    .unwrap();
    assert_eq!(vault.contents(&report).await["altered.c"].documents, 2_000);
    // The listing is from before; later changes are in the slice.
    assert_eq!(report.manifest.collections[0].indexes.len(), 1);
    let (_, kept) = proven_slice(&client, &vault, &report, &["altered"]).await;
    assert_eq!(kept.iter().filter(|e| e.get_str("op").ok() == Some("c")).count(), 4, "two renames, and a build's start and end");
}

#[tokio::test]
async fn a_capped_collection_that_is_written_to_needs_the_slice_and_a_quiet_one_does_not() {
    let server = Server::replica_set("capped").await;
    let client = server.client().await;
    let database = client.database("capped");
    for name in ["quiet", "busy"] {
        database.run_command(doc! { "create": name, "capped": true, "size": 64 << 20 }).await.unwrap();
        fill(&database, name, (0..300).map(|i| Bson::Int32(1000 - i))).await;
    }
    let vault = Vault::new();
    let report = at((&server, &server.uri()), ("find", "capped.busy"), &vault, &on("capped"), async {
        fill(&database, "busy", [Bson::Int32(5000)]).await;
    })
    .await
    .unwrap();
    vault.contents(&report).await;
    let (_, kept) = proven_slice(&client, &vault, &report, &["capped"]).await;
    assert_eq!(kept.last().unwrap().get_document("o").unwrap().get_i32("_id").unwrap(), 5000);
    let notes = vault.cx.progress.take_notes();
    assert!(notes.iter().any(|n| n.contains("keeps an oplog slice: capped.busy is capped, and was written to")), "{notes:?}");

    let report = vault.take(&server.uri(), &on("capped")).await.unwrap();
    let consistency = &report.manifest.consistency;
    assert_eq!((consistency.kind, consistency.exceptions.len()), (ConsistencyKind::Snapshot, 0));
}

#[tokio::test]
async fn a_connection_that_breaks_again_and_again_loses_nothing_of_the_slice() {
    let server = Server::start(short_history("cut")).await;
    let client = server.client().await;
    let bank = Bank::start(&client, BankOptions { db: "cut".to_owned(), ddl: true, ..BankOptions::default() }).await;
    insert(&client.database("cut"), "large", numbered(10_000)).await;
    let link = Link::to(
        server.port(),
        LinkOptions {
            cut_every: Some(Duration::from_millis(1500)),
            round_trip: Duration::from_millis(4),
            ..LinkOptions::default()
        },
    );
    let slow = doc! { "failCommands": ["find"], "namespace": "cut.large", "blockConnection": true, "blockTimeMS": 5_000 };
    server.fail_command(doc! { "times": 8 }, slow).await;
    let vault = Vault::new();
    let uri = server.uri_through(link.port());
    let options = BackupOptions { tuning: Tuning { readers: Some(2), ..Tuning::default() }, ..on("cut") };
    let report = vault.take(&uri, &options).await.unwrap();
    bank.stop().await;
    assert!(link.cuts() > 4, "{} cuts", link.cuts());
    vault.contents(&report).await;
    let (slice, _) = proven_slice(&client, &vault, &report, &["cut"]).await;
    assert!(slice.documents > 100, "{slice:?}");
}

#[tokio::test]
async fn a_piece_of_the_slice_that_breaks_in_the_middle_goes_on_where_it_was() {
    let server = Server::uncompressed("piece").await;
    let client = server.client().await;
    let database = client.database("piece");
    insert(&database, "large", numbered(16_000)).await;
    let broken = doc! { "failCommands": ["getMore"], "namespace": "local.oplog.rs", "closeConnection": true };
    let before = server.fail_command(doc! { "times": 2 }, broken).await;
    let link = Link::to(server.port(), LinkOptions { mbit: Some(40.0), ..LinkOptions::default() });
    let vault = Vault::new();
    let (uri, options) = (server.uri_through(link.port()), divided("piece", u64::MAX));
    let backup = vault.take(&uri, &options);
    let change = async {
        while vault.cx.progress.view().sums().0 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let rename = doc! { "renameCollection": "piece.large", "to": "piece.renamed" };
        client.database("admin").run_command(rename).await.unwrap();
        // More entries within a second than one reply holds.
        fill(&database, "c", (0..40_000).map(Bson::Int32)).await;
    };
    let (report, ()) = tokio::join!(backup, change);
    let report = report.unwrap();
    assert_eq!(server.fail_no_more().await - before, 2, "the slice was not interrupted");
    vault.contents(&report).await;
    let (slice, _) = proven_slice(&client, &vault, &report, &["piece"]).await;
    assert!(slice.documents > 20_000, "{slice:?}");
}

/// The time of the oldest entry of a server's oplog.
async fn oldest(client: &Client) -> Timestamp {
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    oplog.find_one(doc! {}).await.unwrap().unwrap().get_timestamp("ts").unwrap()
}

#[tokio::test]
async fn an_oplog_that_no_longer_reaches_back_fails_the_backup_that_rests_on_it() {
    let mut options = ServerOptions { repl_set: Some("rolled".to_owned()), ..ServerOptions::default() };
    options.extra_args = ["--oplogSize", "1", "--syncdelay", "1"].map(str::to_owned).to_vec();
    let server = Server::start(options).await;
    let client = server.client().await;
    insert(&client.database("rolled"), "c", numbered(12_000)).await;
    let elsewhere = client.database("elsewhere").collection::<Document>("c");
    let link = Link::to(server.port(), LinkOptions { mbit: Some(16.0), ..LinkOptions::default() });
    let vault = Vault::new();
    let (uri, options) = (server.uri_through(link.port()), divided("rolled", u64::MAX));
    // As if the snapshot history expired as soon as reading begins.
    let lost = doc! { "failCommands": ["find"], "namespace": "rolled.c", "errorCode": 239, "appName": "bsonvault" };
    server.fail_command(doc! { "times": 1 }, lost).await;
    let backup = vault.take(&uri, &options);
    let change = async {
        while !vault
            .cx
            .progress
            .take_notes()
            .iter()
            .any(|n| n.contains("keeps an oplog slice: the source no longer has the history"))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The slice cannot be read further until the oplog is overwritten.
        let refuse = doc! { "failCommands": ["find"], "namespace": "local.oplog.rs", "errorCode": 189, "appName": "bsonvault" };
        server.fail_command("alwaysOn", refuse).await;
        let now = server.admin(doc! { "ping": 1 }).await.unwrap().get_timestamp("operationTime").unwrap();
        while oldest(&client).await <= now {
            elsewhere.insert_many((0..500).map(|_| doc! { "pad": "x".repeat(1000) })).await.unwrap();
        }
        server.fail_no_more().await;
    };
    let both = async { tokio::join!(backup, change) };
    let (result, ()) = tokio::time::timeout(Duration::from_secs(120), both).await.unwrap();
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SnapshotLost, "{error}");
    assert!(error.to_string().contains("oplog no longer reaches back to"), "{error}");
    assert!(error.hint_text().unwrap().contains("replSetResizeOplog"), "{:?}", error.hint_text());
    vault.assert_nothing_left();
}

#[tokio::test]
async fn an_oplog_that_is_lost_fails_no_backup_that_does_not_need_it() {
    let server = Server::uncompressed("unneeded").await;
    insert(&server.client().await.database("unneeded"), "c", numbered(24_000)).await;
    let link = Link::to(server.port(), LinkOptions { mbit: Some(30.0), ..LinkOptions::default() });
    let vault = Vault::new();
    let (uri, options) = (server.uri_through(link.port()), divided("unneeded", u64::MAX));
    let backup = vault.take(&uri, &options);
    let change = async {
        while vault.cx.progress.view().sums().0 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Not a temporary error.
        let refuse = doc! { "failCommands": ["find"], "namespace": "local.oplog.rs", "errorCode": 2, "appName": "bsonvault" };
        server.fail_command("alwaysOn", refuse).await;
    };
    let (report, ()) = tokio::join!(backup, change);
    let report = report.unwrap();
    assert_eq!(report.manifest.consistency.kind, ConsistencyKind::Snapshot);
    let notes = vault.cx.progress.take_notes();
    assert!(notes.iter().any(|n| n.contains("the oplog is no longer kept")), "{notes:?}");
    vault.contents(&report).await;
}

#[tokio::test]
async fn a_transaction_that_was_open_at_the_start_is_in_the_slice_from_its_first_entry() {
    let server = Server::replica_set("open").await;
    let client = server.client().await;
    let database = client.database("open");
    database.run_command(doc! { "create": "capped", "capped": true, "size": 1 << 20 }).await.unwrap();
    fill(&database, "c", (0..10).map(Bson::Int32)).await;
    // A prepared transaction has oplog entries long before it is committed.
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    database.collection::<Document>("c").insert_one(doc! { "_id": 100 }).session(&mut session).await.unwrap();
    let prepare = doc! { "prepareTransaction": 1, "writeConcern": { "w": "majority" } };
    let prepared = client.database("admin").run_command(prepare).session(&mut session).await.unwrap();
    let prepared = prepared.get_timestamp("prepareTimestamp").unwrap();
    fill(&database, "c", (10..20).map(Bson::Int32)).await;
    let vault = Vault::new();
    let report = at((&server, &server.uri()), ("find", "open.capped"), &vault, &on("open"), async {
        fill(&database, "capped", [Bson::Int32(1)]).await;
        let commit = doc! { "commitTransaction": 1, "commitTimestamp": prepared, "writeConcern": { "w": "majority" } };
        client.database("admin").run_command(commit).session(&mut session).await.unwrap();
        fill(&database, "c", [Bson::Int32(200)]).await;
    })
    .await
    .unwrap();
    vault.contents(&report).await;
    let (slice, kept) = proven_slice(&client, &vault, &report, &["open"]).await;
    assert_eq!(Timestamp::from(slice.from), prepared);
    let first = kept[0].get_document("o").unwrap();
    assert!(first.get_bool("prepare").unwrap() && first.get_array("applyOps").is_ok());
    let position = Position::of(kept[0].as_bytes()).unwrap();
    assert_eq!(report.manifest.consistency.replay_from, Some(position.into()));
    assert!(kept.iter().any(|e| e.get_document("o").unwrap().get("commitTransaction").unwrap().is_some()));
}

#[tokio::test]
async fn entries_of_sixteen_mebibytes_and_transactions_of_several_entries_are_kept_whole() {
    let server = Server::start(short_history("large")).await;
    let client = server.client().await;
    let database = client.database("large");
    database.run_command(doc! { "create": "capped", "capped": true, "size": 1 << 20 }).await.unwrap();
    fill(&database, "c", (0..10).map(Bson::Int32)).await;
    let vault = Vault::new();
    let report =
        at_for(Duration::from_secs(12), (&server, &server.uri()), ("find", "large.capped"), &vault, &on("large"), async {
            fill(&database, "capped", [Bson::Int32(1)]).await;
            // The largest document has an oplog entry that is even larger.
            let empty = bson::serialize_to_vec(&doc! { "_id": 100, "pad": "" }).unwrap().len();
            let largest = doc! { "_id": 100, "pad": "x".repeat(16 * 1024 * 1024 - empty) };
            database.collection::<Document>("c").insert_one(largest).await.unwrap();
            let mut session = client.start_session().await.unwrap();
            // A server that is short of cache aborts a transaction, and wants it repeated.
            let insert = async |session: &mut ClientSession| {
                for i in 0..3 {
                    let document = doc! { "_id": 200 + i, "pad": "y".repeat(9 << 20) };
                    database.collection::<Document>("c").insert_one(document).session(&mut *session).await?;
                }
                Ok(())
            };
            session.start_transaction().and_run2(insert).await.unwrap();
        })
        .await
        .unwrap();
    vault.contents(&report).await;
    let (slice, kept) = proven_slice(&client, &vault, &report, &["large"]).await;
    assert!(slice.bytes > (16 + 27) << 20, "{slice:?}");
    assert!(kept.iter().any(|e| e.as_bytes().len() > 16 << 20));
    assert!(kept.iter().filter(|e| e.get("txnNumber").unwrap().is_some()).count() > 1);
}

#[tokio::test]
async fn a_login_without_the_right_to_the_oplog_is_told_so() {
    let (server, uri) = without_oplog("denied", &[]).await;
    fill(&server.client().await.database("denied"), "c", (0..10).map(Bson::Int32)).await;
    let vault = Vault::new();
    let report = vault.take(&uri, &on("denied")).await.unwrap();
    assert_eq!(report.manifest.consistency.kind, ConsistencyKind::Snapshot);
    let notes = vault.cx.progress.take_notes();
    assert!(notes.len() == 1 && notes[0].contains("the oplog cannot be kept"), "{notes:?}");
}

#[tokio::test]
async fn a_plan_says_what_the_backup_will_be() {
    let server = Server::replica_set("plan").await;
    fill(&server.client().await.database("plan"), "c", (0..100).map(Bson::Int32)).await;
    let plan =
        backup::plan(&MongoUri::parse(Role::Source, &server.uri()).unwrap(), &BackupOptions::default(), &Context::default())
            .await
            .unwrap();
    assert_eq!(plan.consistency, ConsistencyKind::Snapshot);
}

#[tokio::test]
async fn a_slice_that_cannot_be_replayed_fails_the_backup_and_not_its_import() {
    let server = Server::uncompressed("unreplayable").await;
    let client = server.client().await;
    let database = client.database("unreplayable");
    insert(&database, "large", numbered(24_000)).await;
    database.run_command(doc! { "create": "capped", "capped": true, "size": 100_000 }).await.unwrap();
    fill(&database, "capped", (0..200).map(Bson::Int32)).await;
    let lost = doc! { "failCommands": ["find"], "namespace": "unreplayable.large", "errorCode": 239, "appName": "bsonvault" };
    server.fail_command(doc! { "times": 1 }, lost).await;
    let link = Link::to(server.port(), LinkOptions { mbit: Some(60.0), ..LinkOptions::default() });
    let vault = Vault::new();
    let (uri, options) = (server.uri_through(link.port()), divided("unreplayable", u64::MAX));
    let backup = vault.take(&uri, &options);
    let change = async {
        // The small collection has been read by then.
        while vault.cx.progress.view().sums().0 < 300 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        database.run_command(doc! { "collMod": "capped", "cappedMax": 100 }).await.unwrap();
    };
    let (result, ()) = tokio::join!(backup, change);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(
        error.to_string().contains("the oplog slice cannot be replayed: collMod makes a capped collection smaller"),
        "{error}"
    );
    vault.assert_nothing_left();
}
