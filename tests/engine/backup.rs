//! Backups of real servers: every document once, at one consistency point, whatever happens
//! meanwhile. A failed backup leaves nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, RawDocumentBuf, Timestamp, doc, oid::ObjectId};
use bsonvault::context::Context;
use bsonvault::engine::Tuning;
use bsonvault::engine::backup::{self, BackupOptions, BackupReport};
use bsonvault::error::ErrorKind;
use bsonvault::format::manifest::{CollectionKind, ConsistencyKind};
use bsonvault::mongo::{MongoUri, Role};
use mongodb::Client;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use tokio_util::sync::CancellationToken;

use crate::support::data::{content, fill, insert, numbered};
use crate::support::files::{directories, inside};
use crate::support::server::{ReplicaSet, Server, ServerOptions, without_oplog};
use crate::support::vault::{Vault, at, divided, filter, matching, of_databases, on, without};

fn mixed_ids() -> Vec<Bson> {
    let mut ids = vec![
        Bson::Null,
        Bson::Boolean(true),
        Bson::Boolean(false),
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Double(f64::NAN),
        Bson::Double(f64::NEG_INFINITY),
    ];
    for i in 0..200 {
        ids.extend([
            Bson::Int32(i),
            Bson::Int64(i64::from(i) + (1 << 40)),
            Bson::Double(f64::from(i) + 0.5),
            Bson::String(format!("s{i}")),
            Bson::ObjectId(ObjectId::new()),
            Bson::Document(doc! { "k": i }),
            Bson::Document(doc! { "k": i.to_string() }),
            Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: i.to_be_bytes().to_vec() }),
            Bson::Timestamp(Timestamp { time: 1 + i.unsigned_abs(), increment: 1 }),
            Bson::DateTime(bson::DateTime::from_millis(i64::from(i) * 1000)),
            Bson::Symbol(format!("y{i}")),
        ]);
    }
    ids
}

#[tokio::test]
async fn ranges_read_every_document_once_whatever_the_ids() {
    let server = Server::replica_set("ranges").await;
    let client = server.client().await;
    let database = client.database("ranges");
    fill(&database, "ints", (0..3000).map(Bson::Int32)).await;
    fill(&database, "mixed", mixed_ids()).await;
    fill(&database, "only_extremes", [Bson::MinKey, Bson::MaxKey]).await;
    fill(&database, "skewed", (0..2000).map(|i| Bson::String(format!("{}{i}", "k".repeat(200))))).await;
    fill(&database, "subdocuments", (0..2000).map(|i| Bson::Document(doc! { "a": i % 3, "b": i }))).await;
    database
        .run_command(doc! { "create": "collated", "collation": { "locale": "en", "strength": 1, "numericOrdering": true } })
        .await
        .unwrap();
    fill(&database, "collated", (0..2000).map(|i| Bson::String(format!("Name{i}")))).await;
    database
        .run_command(doc! { "create": "clustered", "clusteredIndex": { "key": { "_id": 1 }, "unique": true } })
        .await
        .unwrap();
    fill(&database, "clustered", mixed_ids()).await;
    database.run_command(doc! { "create": "series", "timeseries": { "timeField": "t", "metaField": "m" } }).await.unwrap();
    let measurements = (0..4000)
        .map(|i| doc! { "t": bson::DateTime::from_millis(1_700_000_000_000 + i64::from(i) * 60_000), "m": i % 50, "v": i });
    database.collection::<Document>("series").insert_many(measurements).await.unwrap();

    let vault = Vault::new();
    let options = divided("ranges", 20_000);
    let plan = backup::plan(&MongoUri::parse(Role::Source, &server.uri()).unwrap(), &options, &Context::default()).await.unwrap();
    for planned in plan.collections.iter().filter(|c| c.name != "only_extremes") {
        assert!(planned.ranges > 3, "{} is not divided: {} ranges of {} bytes", planned.name, planned.ranges, planned.bytes);
    }
    let report = vault.take(&server.uri(), &options).await.unwrap();
    let contents = vault.contents(&report).await;
    assert_eq!(contents.len(), 8);
    for (namespace, found) in contents {
        let collection = namespace.strip_prefix("ranges.").unwrap();
        let data = if collection == "series" { "system.buckets.series" } else { collection };
        assert_eq!(found, content(&database, data).await, "{namespace}");
    }
    assert_eq!(report.manifest.consistency.kind, ConsistencyKind::Snapshot);
}

#[tokio::test]
async fn a_backup_shows_one_moment_while_others_write() {
    let server = Server::replica_set("moment").await;
    let client = server.client().await;
    let database = client.database("moment");
    for side in ["left", "right"] {
        fill(&database, side, (0..500).map(Bson::Int32)).await;
        database.collection::<Document>(side).update_many(doc! {}, doc! { "$set": { "balance": 1000 } }).await.unwrap();
    }
    let writing = CancellationToken::new();
    let writer = tokio::spawn(transfer(client.clone(), writing.clone()));
    let vault = Vault::new();
    let mut seen = Vec::new();
    for _ in 0..5 {
        let report = vault.take(&server.uri(), &divided("moment", 10_000)).await.unwrap();
        let (total, documents) = balances(&vault, &report).await;
        assert_eq!((total, documents), (1_000_000, 1000), "the two sides of a transfer are not of one moment");
        seen.push(report.manifest.totals);
    }
    writing.cancel();
    assert!(writer.await.unwrap() > 20, "the writer hardly wrote");
}

/// Moves money between two collections in transactions until it is stopped. Returns the number of
/// transfers.
async fn transfer(client: Client, stop: CancellationToken) -> u32 {
    let mut done = 0;
    for i in 0i32.. {
        if stop.is_cancelled() {
            break;
        }
        let database = client.database("moment");
        let mut session = client.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        for (side, amount) in [("left", -7), ("right", 7)] {
            let change = doc! { "$inc": { "balance": amount } };
            database
                .collection::<Document>(side)
                .update_one(doc! { "_id": i % 500 }, change)
                .session(&mut session)
                .await
                .unwrap();
        }
        session.commit_transaction().await.unwrap();
        done += 1;
    }
    done
}

/// The sum of all balances in a backup, and their number.
async fn balances(vault: &Vault, report: &BackupReport) -> (i64, usize) {
    let (mut total, mut documents) = (0, 0);
    for collection in &report.manifest.collections {
        for segment in &collection.segments {
            let bytes = vault.repository().place(&report.name).get(&segment.object.key).await.unwrap();
            let raw = zstd::stream::decode_all(&bytes[..]).unwrap();
            for document in bsonvault::format::document::Documents::of(&raw) {
                let document = RawDocumentBuf::from_bytes(document.unwrap().to_vec()).unwrap();
                total += i64::from(document.get_i32("balance").unwrap());
                documents += 1;
            }
        }
    }
    (total, documents)
}

#[tokio::test]
async fn without_the_oplog_a_collection_dropped_meanwhile_is_listed_as_dropped() {
    let (server, uri) = without_oplog("dropped", &[]).await;
    let client = server.client().await;
    for (moment, database) in [("find", "before"), ("getMore", "during")] {
        let database = client.database(database);
        insert(&database, "kept", numbered(10_000)).await;
        insert(&database, "going", numbered(10_000)).await;
        let vault = Vault::new();
        let namespace = format!("{}.going", database.name());
        let options = divided(database.name(), u64::MAX);
        let report = at((&server, &uri), (moment, &namespace), &vault, &options, async {
            database.collection::<Document>("going").drop().await.unwrap();
        })
        .await
        .unwrap();
        let contents = vault.contents(&report).await;
        assert_eq!(contents.keys().collect::<Vec<_>>(), [&format!("{}.kept", database.name())], "{moment}");
        assert_eq!(report.manifest.left_out.len(), 1);
        assert_eq!(report.manifest.left_out[0].collection, "going");
        assert!(report.manifest.left_out[0].reason.contains("dropped"), "{:?}", report.manifest.left_out);
        assert_eq!(report.manifest.consistency.kind, ConsistencyKind::Snapshot);
        assert!(
            inside(&vault.directory.path().join(report.name.as_str()).join(database.name()))
                .iter()
                .all(|f| !f.to_string_lossy().contains("going"))
        );
    }
}

#[tokio::test]
async fn without_the_oplog_a_collection_renamed_or_altered_while_it_is_read_begins_the_backup_again() {
    let (server, uri) = without_oplog("renamed", &[]).await;
    let client = server.client().await;
    for moment in ["find", "getMore"] {
        let database = client.database(&format!("renamed_{moment}"));
        insert(&database, "old", numbered(6_000)).await;
        let expected = content(&database, "old").await;
        let vault = Vault::new();
        let namespace = format!("{}.old", database.name());
        let report = at((&server, &uri), (moment, &namespace), &vault, &divided(database.name(), u64::MAX), async {
            let to = format!("{}.new", database.name());
            client.database("admin").run_command(doc! { "renameCollection": &namespace, "to": to }).await.unwrap();
        })
        .await
        .unwrap();
        let contents = vault.contents(&report).await;
        assert_eq!(contents.into_iter().collect::<Vec<_>>(), [(format!("{}.new", database.name()), expected)], "{moment}");
        assert!(vault.cx.progress.take_notes().iter().any(|n| n.contains("was renamed to") && n.contains("1 of 5")));
    }

    let database = client.database("altered");
    insert(&database, "c", numbered(2_000)).await;
    let vault = Vault::new();
    let report = at((&server, &uri), ("find", "altered.c"), &vault, &divided("altered", u64::MAX), async {
        database
            .run_command(doc! { "collMod": "c", "validationLevel": "moderate", "validator": { "pad": { "$exists": true } } })
            .await
            .unwrap();
        database.run_command(doc! { "createIndexes": "c", "indexes": [{ "key": { "pad": 1 }, "name": "pad" }] }).await.unwrap();
    })
    .await
    .unwrap();
    vault.contents(&report).await;
    let collection = &report.manifest.collections[0];
    // A state before both changes or after one of them, but never a mixture.
    let (altered, indexes) = (collection.options.bson.get("validator").unwrap().is_some(), collection.indexes.len());
    assert!(matches!((altered, indexes), (false, 1) | (true, 2)), "{altered} {indexes}");
}

#[tokio::test]
async fn without_the_oplog_a_collection_that_is_renamed_each_time_fails_by_name() {
    let (server, uri) = without_oplog("restless", &[]).await;
    let client = server.client().await;
    let database = client.database("restless");
    insert(&database, "name0", numbered(2_000)).await;
    let vault = Vault::new();
    let stop = CancellationToken::new();
    // Every read of the collection is delayed, and whenever it continues, the collection has
    // another name.
    server.fail_command("alwaysOn", doc! { "failCommands": ["find"], "blockConnection": true, "blockTimeMS": 1000 }).await;
    let renaming = tokio::spawn({
        let (client, stop) = (client.clone(), stop.clone());
        async move {
            for i in 0u32.. {
                if stop.is_cancelled() {
                    return;
                }
                let (from, to) = (format!("restless.name{i}"), format!("restless.name{}", i + 1));
                client.database("admin").run_command(doc! { "renameCollection": from, "to": to }).await.unwrap();
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        }
    });
    let error = vault.take(&uri, &divided("restless", u64::MAX)).await.unwrap_err();
    stop.cancel();
    renaming.await.unwrap();
    let text = error.to_string();
    assert!(text.contains("restless.name") && (text.contains("6 attempts") || text.contains("listings")), "{text}");
    vault.assert_nothing_left();
}

#[tokio::test]
async fn without_the_oplog_a_collection_created_or_swapped_meanwhile_is_not_mixed_in() {
    let (server, uri) = without_oplog("created", &[]).await;
    let client = server.client().await;
    let database = client.database("created");
    insert(&database, "log", numbered(4_000)).await;
    insert(&database, "other", numbered(4_000)).await;
    let expected = content(&database, "log").await;
    let vault = Vault::new();
    let report = at((&server, &uri), ("find", "created.log"), &vault, &divided("created", u64::MAX), async {
        fill(&database, "brand_new", [Bson::Int32(1)]).await;
        // The usual log rotation: the name stays, the collection is a new one.
        let rename = doc! { "renameCollection": "created.log", "to": "created.log_old" };
        client.database("admin").run_command(rename).await.unwrap();
        fill(&database, "log", [Bson::Int32(-1)]).await;
    })
    .await
    .unwrap();
    let contents = vault.contents(&report).await;
    assert_eq!(contents["created.log_old"], expected);
    assert_eq!(contents["created.log"].documents, 1);
    assert_eq!(contents["created.brand_new"].documents, 1);

    // Only created: the snapshot time is earlier, so it is not part of the backup.
    let report = at((&server, &uri), ("find", "created.other"), &vault, &divided("created", u64::MAX), async {
        fill(&database, "too_late", [Bson::Int32(1)]).await;
    })
    .await
    .unwrap();
    assert!(!vault.contents(&report).await.contains_key("created.too_late"));
}

#[tokio::test]
async fn without_the_oplog_a_collection_replaced_under_its_name_is_read_as_it_is_afterwards() {
    let (server, uri) = without_oplog("replaced", &[]).await;
    let client = server.client().await;
    let database = client.database("replaced");
    insert(&database, "report", numbered(4_000)).await;
    insert(&database, "orders", numbered(1_000)).await;
    let vault = Vault::new();
    let report = at((&server, &uri), ("find", "replaced.report"), &vault, &divided("replaced", u64::MAX), async {
        let out = doc! { "aggregate": "orders", "pipeline": [{ "$limit": 7 }, { "$out": "report" }], "cursor": {} };
        database.run_command(out).await.unwrap();
    })
    .await
    .unwrap();
    assert_eq!(vault.contents(&report).await["replaced.report"].documents, 7);
    assert!(report.manifest.left_out.is_empty(), "{:?}", report.manifest.left_out);
}

#[tokio::test]
async fn a_server_that_is_told_to_behave_as_an_older_one_is_backed_up() {
    let (server, uri) = without_oplog("older", &[]).await;
    let client = server.client().await;
    let database = client.database("older");
    fill(&database, "c", (0..500).map(Bson::Int32)).await;
    server.admin(doc! { "setFeatureCompatibilityVersion": "5.0" }).await.unwrap();
    let vault = Vault::new();
    let report = vault.take(&uri, &divided("older", 5_000)).await.unwrap();
    assert_eq!(vault.contents(&report).await["older.c"], content(&database, "c").await);
    assert_eq!(report.manifest.source.feature_compatibility_version.as_deref(), Some("5.0"));

    // There, a read by name cannot detect that the name belongs to another collection.
    let report = at((&server, &uri), ("find", "older.c"), &vault, &divided("older", u64::MAX), async {
        let rename = doc! { "renameCollection": "older.c", "to": "older.d" };
        client.database("admin").run_command(rename).await.unwrap();
    })
    .await
    .unwrap();
    assert_eq!(vault.contents(&report).await["older.d"].documents, 500);
}

#[tokio::test]
async fn an_index_built_between_listing_and_moment_is_in_the_listing() {
    let server = Server::replica_set("settled").await;
    let client = server.client().await;
    let database = client.database("settled");
    for collection in ["early", "late"] {
        fill(&database, collection, [Bson::Int32(1)]).await;
    }
    // The first listing is for planning. In the second one, `late` is delayed once `early` is
    // listed.
    let hold =
        doc! { "failCommands": ["listIndexes"], "namespace": "settled.late", "blockConnection": true, "blockTimeMS": 5000 };
    let before = server.fail_command(doc! { "skip": 1 }, hold).await;
    let vault = Vault::new();
    let uri = server.uri();
    let options = on("settled");
    let build = async {
        let held = doc! { "waitForFailPoint": "failCommand", "timesEntered": before + 1, "maxTimeMS": 30_000 };
        server.admin(held).await.unwrap();
        let index = doc! { "createIndexes": "early", "indexes": [{ "key": { "pad": 1 }, "name": "pad" }] };
        database.run_command(index).await.unwrap();
        server.fail_no_more().await;
    };
    let (report, ()) = tokio::join!(vault.take(&uri, &options), build);
    let report = report.unwrap();
    let early = report.manifest.collections.iter().find(|c| c.name == "early").unwrap();
    assert_eq!(early.indexes.len(), 2);
}

#[tokio::test]
async fn a_broken_cursor_goes_on_where_it_was() {
    let server = Server::replica_set("broken").await;
    let client = server.client().await;
    let database = client.database("broken");
    database.run_command(doc! { "create": "capped", "capped": true, "size": 64 << 20 }).await.unwrap();
    let cluster = doc! { "create": "clustered", "clusteredIndex": { "key": { "_id": 1 }, "unique": true } };
    database.run_command(cluster).await.unwrap();
    // `small` is read in one piece and starts over. `ranges`, `clustered` and `whole` continue,
    // each in its own way.
    for (collection, documents) in [("capped", 20_000), ("clustered", 20_000), ("ranges", 20_000), ("whole", 20_000)] {
        insert(&database, collection, numbered(documents)).await;
    }
    // Segments are stored before the interruption, and must be deleted: the data is incompressible,
    // and segments are small.
    for part in 0..9 {
        let noise = |i: i32| {
            let mut rng = StdRng::seed_from_u64(u64::from((part * 1000 + i).unsigned_abs()));
            let mut bytes = vec![0; 900];
            rng.fill_bytes(&mut bytes);
            bytes
        };
        let documents: Vec<Document> = (0..1000)
            .map(|i| doc! { "_id": part * 1000 + i, "pad": Binary { subtype: BinarySubtype::Generic, bytes: noise(i) } })
            .collect();
        database.collection::<Document>("small").insert_many(documents).await.unwrap();
    }
    database.collection::<Document>("whole").delete_many(doc! { "_id": { "$gte": 17_000 } }).await.unwrap();
    let mut expected = BTreeMap::new();
    for collection in ["capped", "clustered", "ranges", "whole", "small"] {
        expected.insert(format!("broken.{collection}"), content(&database, collection).await);
    }
    let failures = [
        doc! { "failCommands": ["getMore"], "closeConnection": true },
        doc! { "failCommands": ["getMore"], "errorCode": 43 },
        doc! { "failCommands": ["find", "getMore"], "errorCode": 11602 },
        doc! { "failCommands": ["getMore"], "errorCode": 136 },
    ];
    for (collection, range_bytes) in
        [("capped", 9_000_000), ("clustered", 9_000_000), ("ranges", 9_000_000), ("whole", u64::MAX), ("small", u64::MAX)]
    {
        for failure in &failures {
            let only_natural = failure.get_i32("errorCode").is_ok_and(|code| code == 136);
            if only_natural && ["clustered", "ranges"].contains(&collection) {
                continue;
            }
            let mut data = failure.clone();
            data.insert("namespace", format!("broken.{collection}"));
            // The second reply of a cursor fails, twice. Documents that were passed on before must
            // count exactly once.
            let before = server.fail_command(doc! { "times": 2 }, data).await;
            let vault = Vault::new();
            let options = BackupOptions {
                filter: matching(&[&format!("broken.{collection}")]),
                tuning: Tuning { memory_bytes: 48 << 20, ..divided("broken", range_bytes).tuning },
                ..divided("broken", range_bytes)
            };
            let report = vault.take(&server.uri(), &options).await.unwrap();
            assert_eq!(server.fail_no_more().await - before, 2, "{collection} was not interrupted by {failure}");
            let contents = vault.contents(&report).await;
            let namespace = format!("broken.{collection}");
            assert_eq!(contents[&namespace], expected[&namespace], "{collection} after {failure}");
            assert!(report.manifest.consistency.exceptions.is_empty());
            let stored = inside(&vault.directory.path().join(report.name.as_str()).join("broken"));
            let listed = report.manifest.collections[0].segments.len() + 1;
            assert_eq!(stored.len(), listed, "segments that do not count were left: {stored:?}");
        }
    }
}

#[tokio::test]
async fn a_primary_that_steps_down_or_dies_is_waited_for() {
    let mut set = ReplicaSet::start(3).await;
    let client = set.client().await;
    let database = client.database("failover");
    insert(&database, "large", numbered(60_000)).await;
    let majority = doc! { "insert": "mark", "documents": [{ "_id": 1 }], "writeConcern": { "w": 3 } };
    database.run_command(majority).await.unwrap();
    let expected = content(&database, "large").await;
    for kill in [false, true] {
        let vault = Vault::new();
        let primary = set.primary().await;
        let namespace = "failover.large";
        set.members[primary]
            .fail_command(
                doc! { "times": 2 },
                doc! { "failCommands": ["getMore"], "namespace": namespace, "blockConnection": true, "blockTimeMS": 700 },
            )
            .await;
        let uri = set.uri();
        let options = divided("failover", 10_000_000);
        let backup = vault.take(&uri, &options);
        let fail = async {
            while vault.cx.progress.view().sums().0 == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if kill {
                set.members[primary].kill();
            } else {
                set.members[primary].step_down(30).await;
            }
        };
        let (report, ()) = tokio::join!(backup, fail);
        let report = report.unwrap();
        assert_eq!(vault.contents(&report).await["failover.large"], expected, "kill: {kill}");
        assert_eq!(report.manifest.consistency.kind, ConsistencyKind::Snapshot);
    }
}

#[tokio::test]
async fn without_the_oplog_a_history_that_is_too_short_fails_with_what_to_do_and_commits_nothing() {
    let (server, uri) = without_oplog("short", &[("minSnapshotHistoryWindowInSeconds", "1")]).await;
    let client = server.client().await;
    let database = client.database("short");
    insert(&database, "c", numbered(20_000)).await;
    let stop = CancellationToken::new();
    // History is discarded only while there are writes.
    let writer = tokio::spawn({
        let (database, stop) = (database.clone(), stop.clone());
        async move {
            for i in 0.. {
                if stop.is_cancelled() {
                    return;
                }
                let change = doc! { "$set": { "n": i } };
                database.collection::<Document>("c").update_one(doc! { "_id": i % 20_000 }, change).await.unwrap();
            }
        }
    });
    let slow = doc! { "failCommands": ["getMore"], "blockConnection": true, "blockTimeMS": 4000 };
    server.fail_command(doc! { "times": 2 }, slow.clone()).await;
    let vault = Vault::new();
    let error = vault.take(&uri, &divided("short", u64::MAX)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SnapshotLost, "{error}");
    assert!(error.to_string().contains("local.oplog.rs") || error.to_string().contains("not authorized on local"), "{error}");
    assert!(error.to_string().contains("239") && error.to_string().contains("it keeps 1 seconds"), "{error}");
    let hint = error.hint_text().unwrap();
    assert!(
        hint.contains("role backup or clusterMonitor")
            && hint.contains("minSnapshotHistoryWindowInSeconds")
            && hint.contains("[[allow-inconsistent]]")
            && hint.contains("faster"),
        "{hint}"
    );
    vault.assert_nothing_left();

    server.fail_command(doc! { "times": 1 }, slow).await;
    let options = BackupOptions { allow_inconsistent: true, ..divided("short", u64::MAX) };
    let report = vault.take(&uri, &options).await.unwrap();
    stop.cancel();
    writer.await.unwrap();
    assert_eq!(report.manifest.consistency.kind, ConsistencyKind::None);
    assert_eq!(report.manifest.consistency.cluster_time, None);
    assert_eq!(vault.contents(&report).await["short.c"].documents, 20_000);
}

#[tokio::test]
async fn a_standalone_is_backed_up_and_says_that_it_is_not_consistent() {
    let server = Server::standalone().await;
    let database = server.client().await.database("alone");
    fill(&database, "c", (0..500).map(Bson::Int32)).await;
    let vault = Vault::new();
    let report = vault.take(&server.uri(), &divided("alone", 5_000)).await.unwrap();
    assert_eq!(report.manifest.consistency.kind, ConsistencyKind::None);
    assert_eq!((report.manifest.consistency.replay_from, report.manifest.format_version), (None, 2));
    assert_eq!(vault.contents(&report).await["alone.c"], content(&database, "c").await);
}

#[tokio::test]
async fn without_the_oplog_capped_collections_keep_their_order_and_are_exceptions() {
    let (server, uri) = without_oplog("capped", &[]).await;
    let client = server.client().await;
    let database = client.database("capped");
    for name in ["quiet", "busy"] {
        database.run_command(doc! { "create": name, "capped": true, "size": 64 << 20 }).await.unwrap();
        fill(&database, name, (0..300).map(|i| Bson::Int32(1000 - i))).await;
    }
    let vault = Vault::new();
    let report = at((&server, &uri), ("find", "capped.busy"), &vault, &divided("capped", 2_000), async {
        fill(&database, "busy", [Bson::Int32(5000)]).await;
    })
    .await
    .unwrap();
    vault.contents(&report).await;
    let exceptions = &report.manifest.consistency.exceptions;
    assert_eq!(exceptions.iter().map(|e| e.collection.as_str()).collect::<Vec<_>>(), ["busy", "quiet"], "{exceptions:?}");
    assert!(exceptions[0].reason.contains("the login cannot read the oplog"));
    let quiet = report.manifest.collections.iter().find(|c| c.name == "quiet").unwrap();
    assert_eq!(quiet.segments.len(), 1);
    let bytes = vault.repository().place(&report.name).get(&quiet.segments[0].object.key).await.unwrap();
    let raw = zstd::stream::decode_all(&bytes[..]).unwrap();
    let ids: Vec<i32> = bsonvault::format::document::Documents::of(&raw)
        .map(|d| RawDocumentBuf::from_bytes(d.unwrap().to_vec()).unwrap().get_i32("_id").unwrap())
        .collect();
    assert_eq!(ids, (0..300).map(|i| 1000 - i).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_capped_collection_that_is_written_to_is_read_as_something_that_it_held() {
    let server = Server::replica_set("ring").await;
    let client = server.client().await;
    let database = client.database("ring");
    database.run_command(doc! { "create": "log", "capped": true, "size": 64 << 20, "max": 12_000 }).await.unwrap();
    insert(&database, "log", numbered(12_000)).await;
    let vault = Vault::new();
    // While its second part is read, a fifth of it is overwritten.
    let report = at((&server, &server.uri()), ("getMore", "ring.log"), &vault, &divided("ring", u64::MAX), async {
        let more: Vec<Document> = (0..2400).map(|i| doc! { "_id": 20_000 + i, "pad": "x".repeat(980) }).collect();
        database.collection::<Document>("log").insert_many(more).await.unwrap();
    })
    .await
    .unwrap();
    assert_eq!(report.manifest.consistency.kind, ConsistencyKind::Oplog);
    let held = vault.contents(&report).await["ring.log"].documents;
    assert!((1..=12_000).contains(&held), "{held} documents of a collection that holds 12,000");
}

#[tokio::test]
async fn what_is_asked_for_is_what_is_in_it() {
    let server = Server::replica_set("asked").await;
    let client = server.client().await;
    for database in ["shop", "blog"] {
        for collection in ["orders", "orders.2026", "tmp_1"] {
            fill(&client.database(database), collection, [Bson::Int32(1)]).await;
        }
    }
    client.database("shop").run_command(doc! { "create": "a_view", "viewOn": "orders", "pipeline": [] }).await.unwrap();
    client.database("shop").run_command(doc! { "profile": 2 }).await.unwrap();
    client.database("shop").collection::<Document>("orders").find_one(doc! {}).await.unwrap();
    client.database("shop").run_command(doc! { "profile": 0 }).await.unwrap();
    let vault = Vault::new();
    let names = |report: &BackupReport| report.manifest.collections.iter().map(|c| c.namespace().to_string()).collect::<Vec<_>>();

    let all = vault.take(&server.uri(), &BackupOptions::default()).await.unwrap();
    assert_eq!(names(&all).len(), 7, "{:?}", names(&all));
    assert_eq!(all.manifest.collections.iter().find(|c| c.name == "a_view").unwrap().kind, CollectionKind::View);
    let left: Vec<_> = all.manifest.left_out.iter().map(|l| l.collection.as_str()).collect();
    assert_eq!(left, ["system.profile"]);

    let options = BackupOptions { filter: filter(&["shop.*", "*.orders"], &["*tmp*"]), ..BackupOptions::default() };
    let some = vault.take(&server.uri(), &options).await.unwrap();
    assert_eq!(names(&some), ["blog.orders", "shop.a_view", "shop.orders", "shop.orders.2026"]);

    let twice = BackupOptions { filter: of_databases(&["blog", "blog"]), ..BackupOptions::default() };
    assert_eq!(names(&vault.take(&server.uri(), &twice).await.unwrap()).len(), 3);

    // The path of the URI selects a database, unless it is `admin`.
    let by_path = vault.take(&server.uri().replace("/?", "/blog?"), &BackupOptions::default()).await.unwrap();
    assert_eq!(names(&by_path).len(), 3);
    let admin = vault.take(&server.uri().replace("/?", "/admin?"), &BackupOptions::default()).await.unwrap();
    assert_eq!(names(&admin).len(), 7);

    let before = inside(vault.directory.path()).len();
    for (options, names) in [
        (on("shopp"), "\"shopp\""),
        (BackupOptions { filter: matching(&["shop.order"]), ..BackupOptions::default() }, "shop.order"),
        (BackupOptions { filter: without(&["nothing.*"]), ..BackupOptions::default() }, "nothing.*"),
        (BackupOptions { filter: without(&["*"]), ..BackupOptions::default() }, "nothing to back up"),
        (on("admin"), "admin"),
    ] {
        let error = vault.take(&server.uri(), &options).await.unwrap_err();
        assert!(error.to_string().contains(names), "{error}");
        assert!(error.hint_text().is_some());
    }
    assert_eq!(inside(vault.directory.path()).len(), before, "a failed backup left something");

    let empty = BackupOptions { allow_empty: true, ..on("shopp") };
    let report = vault.take(&server.uri(), &empty).await.unwrap();
    assert_eq!(report.manifest.totals.collections, 0);
    vault.contents(&report).await;
}

#[tokio::test]
async fn a_plan_writes_nothing() {
    let server = Server::replica_set("plan").await;
    fill(&server.client().await.database("plan"), "c", (0..100).map(Bson::Int32)).await;
    let plan =
        backup::plan(&MongoUri::parse(Role::Source, &server.uri()).unwrap(), &BackupOptions::default(), &Context::default())
            .await
            .unwrap();
    assert_eq!((plan.collections.len(), plan.collections[0].documents, plan.collections[0].ranges), (1, 100, 1));
    assert_eq!(plan.consistency, ConsistencyKind::Snapshot);
}

#[tokio::test]
async fn a_stop_ends_it_soon_and_leaves_nothing() {
    let server = Server::replica_set("stop").await;
    let database = server.client().await.database("stop");
    insert(&database, "c", numbered(30_000)).await;
    server.fail_command("alwaysOn", doc! { "failCommands": ["getMore"], "blockConnection": true, "blockTimeMS": 20_000 }).await;
    let vault = Vault::new();
    let uri = server.uri();
    let options = divided("stop", u64::MAX);
    let backup = vault.take(&uri, &options);
    let stop = async {
        while vault.cx.progress.view().sums().0 == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        vault.cx.cancel.cancel();
    };
    let both = async { tokio::join!(backup, stop) };
    let (result, ()) = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
    vault.assert_nothing_left();
    server.fail_no_more().await;
}

#[tokio::test]
async fn what_the_source_refuses_is_named() {
    let server = Server::start(ServerOptions { repl_set: Some("auth".to_owned()), auth: true, ..ServerOptions::default() }).await;
    let client = server.client().await;
    fill(&client.database("open"), "c", [Bson::Int32(1)]).await;
    fill(&client.database("closed"), "secret", [Bson::Int32(1)]).await;
    let admin = client.database("admin");
    admin
        .run_command(doc! { "createRole": "lister", "roles": [{ "role": "read", "db": "open" }], "privileges": [
            { "resource": { "cluster": true }, "actions": ["listDatabases"] },
            { "resource": { "db": "closed", "collection": "" }, "actions": ["listCollections", "listIndexes", "collStats"] },
        ] })
        .await
        .unwrap();
    admin.run_command(doc! { "createUser": "partial", "pwd": "p", "roles": ["lister"] }).await.unwrap();
    let login = |user: &str| format!("mongodb://{user}@{}/?directConnection=true&authSource=admin", server.host());
    let vault = Vault::new();

    let error = vault.take(&login("partial:p"), &BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("closed.secret"), "{error}");
    assert!(error.hint_text().unwrap().contains("grant"), "{:?}", error.hint_text());

    let error = vault.take(&login("partial:wrong"), &BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("refuses the login"), "{error}");
    assert!(!format!("{error:?}").contains("wrong@"));

    let nobody = format!("mongodb://127.0.0.1:{}/?serverSelectionTimeoutMS=300", crate::support::server::free_port());
    let error = vault.take(&nobody, &BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("does not answer"), "{error}");

    // A database that cannot be read at all is named, not silently skipped.
    let lister = doc! { "createRole": "listsAll", "roles": [{ "role": "read", "db": "open" }], "privileges": [
        { "resource": { "cluster": true }, "actions": ["listDatabases"] },
    ] };
    admin.run_command(lister).await.unwrap();
    admin.run_command(doc! { "createUser": "blind", "pwd": "p", "roles": ["listsAll"] }).await.unwrap();
    let error = vault.take(&login("blind:p"), &BackupOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("closed"), "{error}");

    // For one database, the privilege to read one database is enough.
    let report = vault.take(&login("partial:p"), &on("open")).await.unwrap();
    assert_eq!(vault.contents(&report).await.len(), 1);
    assert_eq!(directories(vault.directory.path()).len(), 1);
    assert!(report.manifest.left_out.is_empty());

    // A login that sees its own databases only cannot name the others: the backup says that, too.
    let roles: Vec<_> = ["open", "local", "config"].iter().map(|db| doc! { "role": "read", "db": *db }).collect();
    admin.run_command(doc! { "createUser": "one", "pwd": "p", "roles": roles }).await.unwrap();
    let report = vault.take(&login("one:p"), &BackupOptions::default()).await.unwrap();
    let [missing] = report.manifest.left_out.as_slice() else { panic!("{:?}", report.manifest.left_out) };
    assert!(missing.database == "*" && missing.reason.contains("may not list all databases"), "{missing:?}");
}
