//! Imports into real servers. The data is restored, existing collections are replaced, nothing else
//! is touched, and every refusal comes before the first write.

use std::time::Duration;

use bson::spec::BinarySubtype;
use bson::{Bson, DateTime, Document, RawDocumentBuf, Timestamp, doc, rawdoc};
use bsonvault::engine::Tuning;
use bsonvault::engine::import::{ImportOptions, ImportReport, IndexMode};
use bsonvault::error::{Error, ErrorKind};
use bsonvault::format::manifest::RawValue;
use futures::TryStreamExt as _;
use mongodb::Database;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::compare::{CompareOptions, compare};
use crate::support::data::{assert_same, documents, insert, numbered, only, snapshot};
use crate::support::link::{Link, LinkOptions};
use crate::support::on_disk::OnDisk as _;
use crate::support::server::{ReplicaSet, Server, ServerOptions};
use crate::support::vault::{Vault, with_manifest};
use crate::support::zoo::raw::{Raw, string};
use crate::support::zoo::{self, ZooOptions};

#[tokio::test]
async fn one_of_everything_comes_back_and_replaces_what_stands_there() {
    let (source, target) = tokio::join!(Server::standalone(), Server::replica_set("target"));
    let (a, b) = (source.client().await, target.client().await);
    zoo::fill(&a, &ZooOptions { seed: 5, docs: 600, large: true, ..ZooOptions::default() }).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let first = vault.import(&backup, &target.uri()).await.unwrap();
    assert_same(&a, &b, CompareOptions::default()).await;
    assert!(first.indexes > 20 && first.left_out.is_empty(), "{first:?}");

    // Over itself, with less memory than one frame takes.
    let tuning = Tuning { writers: Some(3), memory_bytes: 1, ..Tuning::default() };
    let options = ImportOptions { tuning, ..ImportOptions::default() };
    let second = vault.import_with(&backup, &target.uri(), None, &options).await.unwrap();
    assert_eq!(second.collections, first.collections);
    assert_same(&a, &b, CompareOptions::default()).await;
}

#[tokio::test]
async fn what_stands_under_the_same_name_is_replaced_whatever_its_kind() {
    let (source, target) = tokio::join!(Server::standalone(), Server::replica_set("kinds"));
    let (a, b) = (source.client().await, target.client().await);
    let (from, to) = (a.database("kinds"), b.database("kinds"));
    let series = || doc! { "timeField": "t", "metaField": "m" };
    let point = |i: i64| doc! { "t": DateTime::from_millis(i * 60_000), "m": 1, "v": i };
    let (kinds, others) = (["collection", "view", "series"], ["collection", "view", "series", "nothing"]);
    for (database, name_first) in [(&from, true), (&to, false)] {
        insert(database, "base", [doc! { "_id": i32::from(name_first) }]).await;
        for kind in kinds {
            for other in others {
                let name = format!("{kind}_over_{other}");
                match if name_first { kind } else { other } {
                    "collection" => {
                        insert(database, &name, numbered(3)).await;
                        database
                            .run_command(doc! { "createIndexes": &name, "indexes": [{ "key": { "n": 1 }, "name": "n" }] })
                            .await
                            .unwrap();
                    }
                    "view" => {
                        database.run_command(doc! { "create": &name, "viewOn": "base", "pipeline": [] }).await.unwrap();
                    }
                    "series" => {
                        database.run_command(doc! { "create": &name, "timeseries": series() }).await.unwrap();
                        insert(database, &name, (0..5).map(point)).await;
                    }
                    _ => {}
                }
            }
        }
    }
    // Buckets without a time series, and a stored function, which servers do not drop.
    to.run_command(doc! { "create": "system.buckets.series_over_buckets" }).await.unwrap();
    from.run_command(doc! { "create": "series_over_buckets", "timeseries": series() }).await.unwrap();
    insert(&from, "system.js", [doc! { "_id": "one", "value": "new" }]).await;
    insert(&to, "system.js", [doc! { "_id": "one", "value": "old" }, doc! { "_id": "two", "value": "old" }]).await;
    // Collections that the backup lacks stay.
    insert(&to, "kept", numbered(4)).await;
    insert(&b.database("kept"), "kept", numbered(4)).await;

    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    vault.import(&backup, &target.uri()).await.unwrap();
    assert_same(&a, &b, CompareOptions { ignore_extra: true, ..CompareOptions::default() }).await;
    assert_eq!(documents(&to, "kept").await.len(), 4);
    assert_eq!(documents(&b.database("kept"), "kept").await.len(), 4);
    assert_eq!(documents(&to, "system.js").await.len(), 1);
}

#[tokio::test]
async fn what_is_refused_leaves_the_target_as_it_was() {
    let (source, target) = tokio::join!(Server::replica_set("source"), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    insert(&a.database("one"), "c", numbered(2000)).await;
    insert(&a.database("two"), "c", numbered(1)).await;
    for name in ["one", "ONE2"] {
        insert(&b.database(name), "c", [doc! { "_id": "stays" }]).await;
    }
    insert(&a.database("one"), "stays", [doc! { "_id": 1 }]).await;
    let before = (snapshot(&a).await, snapshot(&b).await);
    let vault = Vault::new();
    let both = vault.backup(&source, &[]).await;
    let one = vault.backup(&source, &["one"]).await;
    let renamed = |name: &str| ImportOptions { database: Some(name.to_owned()), ..ImportOptions::default() };
    let expect = |result: Result<ImportReport, Error>, kind: ErrorKind, words: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{words:?} is not in: {error}");
        assert!(!error.hint_text().unwrap_or_default().contains("partly filled"), "{error}");
        error
    };

    // The deployment that it came from: by its hosts and, behind another address, by its set's id.
    let error = expect(vault.import(&both, &source.uri()).await, ErrorKind::Refused, "the deployment that the backup came from");
    assert!(error.hint_text().unwrap().contains("[[allow-same]]"));
    let moved = with_manifest(both.clone(), |manifest| manifest.source.hosts = vec!["elsewhere:27017".to_owned()]).await;
    let link = Link::to(source.port(), LinkOptions::default());
    let behind = source.uri_through(link.port());
    expect(vault.import(&moved, &behind).await, ErrorKind::Refused, "the same id");
    // The configured source: by its hosts and, behind another address, by its process.
    let options = ImportOptions::default();
    let result = vault.import_with(&both, &target.uri(), Some(&target.uri()), &options).await;
    expect(result, ErrorKind::Refused, "the configured source");
    let link = Link::to(target.port(), LinkOptions::default());
    let result = vault.import_with(&both, &target.uri(), Some(&target.uri_through(link.port())), &options).await;
    expect(result, ErrorKind::Refused, "the same process");
    // Names.
    expect(vault.import_with(&both, &target.uri(), None, &renamed("x")).await, ErrorKind::Usage, "the backup holds 2: one, two");
    expect(vault.import_with(&one, &target.uri(), None, &renamed("config")).await, ErrorKind::Refused, "config.c");
    expect(vault.import_with(&one, &target.uri(), None, &renamed("a.b")).await, ErrorKind::Usage, "\"a.b\"");
    expect(vault.import_with(&one, &target.uri(), None, &renamed("one2")).await, ErrorKind::Refused, "differ in case only");
    // Damage anywhere, even in what would be written last.
    let segment = one.manifest.collections[0].segments[0].object.key.clone();
    let path = one.store.directory().join(&segment);
    let whole = std::fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    expect(vault.import(&one, &target.uri()).await, ErrorKind::Damaged, &segment);
    std::fs::write(&path, whole).unwrap();
    // No server.
    let nobody = format!("mongodb://127.0.0.1:{}/?serverSelectionTimeoutMS=300", crate::support::server::free_port());
    expect(vault.import(&one, &nobody).await, ErrorKind::Unreachable, "does not answer");
    assert!((snapshot(&a).await, snapshot(&b).await) == before, "a refused import wrote something");

    // If nothing is in the way, a source that does not answer does not matter.
    vault.import_with(&one, &target.uri(), Some(&nobody), &renamed("fresh")).await.unwrap();
    let allowed = ImportOptions { allow_same: true, ..renamed("fresh") };
    vault.import_with(&one, &source.uri(), Some(&source.uri()), &allowed).await.unwrap();
    assert_same(&a, &b, only("fresh")).await;
    assert_eq!(documents(&a.database("fresh"), "c").await.len(), 2000);
}

#[tokio::test]
async fn a_secondary_is_refused() {
    let (source, set) = tokio::join!(Server::standalone(), ReplicaSet::start(2));
    insert(&source.client().await.database("d"), "c", numbered(1)).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let secondary = 1 - set.primary().await;
    let error = vault.import(&backup, &set.members[secondary].uri()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("it is not a primary"), "{error}");
    vault.import(&backup, &set.uri()).await.unwrap();
}

#[tokio::test]
async fn one_database_may_get_another_name() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    zoo::fill(&a, &ZooOptions { seed: 3, docs: 10, large: false, ..ZooOptions::default() }).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &["zoo"]).await;
    let by_path = target.uri().replace("/?", "/by_path?");
    vault.import(&backup, &by_path).await.unwrap();
    let options = ImportOptions { database: Some("by_option".to_owned()), ..ImportOptions::default() };
    vault.import_with(&backup, &by_path, None, &options).await.unwrap();
    for name in ["by_path", "by_option"] {
        let rename = [("zoo".to_owned(), name.to_owned())].into();
        assert_same(&a, &b, CompareOptions { rename, ..only("zoo") }).await;
    }
    assert!(!b.list_database_names().await.unwrap().contains(&"zoo".to_owned()));
}

/// Documents with `Timestamp(0, 0)` at the top level, and with everything that makes it hard to
/// copy a document.
fn odd_timestamps() -> Vec<RawDocumentBuf> {
    const ZERO: [u8; 8] = [0; 8];
    let odd = |id: &str| Raw::with_id(id).element(0x11, "v", ZERO);
    let mut all = vec![
        odd("plain").int32("x", 1),
        odd("nested").document("in", Raw::new().element(0x11, "v", ZERO)),
        Raw::with_id("dotted").element(0x11, "a.b", ZERO).int32("c.d", 1),
        Raw::with_id("dollar").element(0x11, "$v", ZERO).int32("$w", 1),
        odd("dollar inside").document("a", Raw::new().int32("$w", 1).int32("z.w", 1)),
        Raw::with_id("empty name").element(0x11, "", ZERO).int32("x", 1),
        Raw::with_id("repeated").int32("a", 1).element(0x11, "v", ZERO).int32("a", 2),
        Raw::with_id("repeated timestamp").element(0x11, "v", ZERO).int32("x", 2).element(0x11, "v", ZERO),
        Raw::with_id("repeated as another type").int32("v", 2).element(0x11, "v", ZERO),
        odd("undefined").element(0x06, "u", []),
        odd("symbol").element(0x0E, "u", string("s")),
        odd("pointer").element(0x0C, "u", [string("d.c"), (0..12).collect()].concat()),
        odd("odd array").element(0x04, "a", Raw::new().int32("5", 1).int32("5", 2).into_bytes()),
        odd("nan").element(0x01, "n", 0x7ff8_0000_0000_0001_u64.to_le_bytes()),
        odd("not utf-8").element(0x02, "n", string(b"\xff\xfe")),
        Raw::with_id("large").element(0x02, "s", string("x".repeat(15_900_000))).element(0x11, "v", ZERO),
    ];
    for (number, id) in (0u8..).zip([
        (0x01, f64::NAN.to_le_bytes().to_vec()),
        (0x0A, vec![]),
        (0xFF, vec![]),
        (0x7F, vec![]),
        (0x12, 5i64.to_le_bytes().to_vec()),
        (0x03, Raw::new().int32("k", 1).int32("k", 2).into_bytes()),
        (0x11, ZERO.to_vec()),
    ]) {
        all.push(Raw::new().element(id.0, "_id", id.1).int32("number", number.into()).element(0x11, "v", ZERO));
    }
    all.into_iter().map(Raw::build).collect()
}

#[tokio::test]
async fn empty_timestamps_stay_empty() {
    let (source, target) = tokio::join!(Server::standalone(), Server::replica_set("zero"));
    let (a, b) = (source.client().await, target.client().await);
    let database = a.database("zero");
    database.run_command(doc! { "create": "capped", "capped": true, "size": 1 << 25 }).await.unwrap();
    database.run_command(doc! { "create": "ruled", "validator": { "never": 1 } }).await.unwrap();
    for (number, document) in odd_timestamps().iter().enumerate() {
        let id = document.get("_id").unwrap().unwrap();
        for collection in ["plain", "capped", "ruled"] {
            if collection != "plain" && document.as_bytes().len() > 1_000_000 {
                continue;
            }
            let mut query = RawDocumentBuf::new();
            query.append(bson::raw::cstr!("$eq"), id);
            let update = rawdoc! {
                "update": collection,
                "updates": [{
                    "q": { "_id": query }, "u": [{ "$replaceWith": { "$literal": document.clone() } }], "upsert": true,
                }],
                "bypassDocumentValidation": true,
            };
            let reply = database.run_raw_command(update).await.unwrap();
            assert!(!reply.contains_key("writeErrors"), "{reply}");
            insert(
                &database,
                collection,
                [doc! { "_id": format!("between {number}") }].into_iter().filter(|_| collection == "capped"),
            )
            .await;
        }
    }
    let stored = documents(&database, "plain").await;
    assert!(odd_timestamps().iter().all(|d| stored.contains(d)), "the source changed a document");
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    vault.import(&backup, &target.uri()).await.unwrap();
    assert_same(&a, &b, CompareOptions::default()).await;

    // Again, with the first reply lost: existing documents are not overwritten.
    let fail = doc! { "failCommands": ["update"], "writeConcernError": { "code": 91, "errmsg": "shutting down" }, "appName": "bsonvault" };
    target.fail_command(doc! { "times": 2 }, fail).await;
    vault.import(&backup, &target.uri()).await.unwrap();
    assert_same(&a, &b, CompareOptions::default()).await;
}

#[tokio::test]
async fn documents_of_the_largest_size_come_back() {
    const LARGEST: usize = 16 * 1024 * 1024;
    let (source, target) = tokio::join!(Server::standalone(), Server::replica_set("large"));
    let (a, b) = (source.client().await, target.client().await);
    let database = a.database("large");
    for id in 0..3 {
        let mut document = rawdoc! { "_id": id };
        let around = rawdoc! { "_id": id, "v": "" }.as_bytes().len();
        document.append(bson::raw::cstr!("v"), "x".repeat(LARGEST - around));
        assert_eq!(document.as_bytes().len(), LARGEST);
        database.collection::<RawDocumentBuf>("c").insert_one(document).await.unwrap();
    }
    insert(&database, "c", (10..20).map(|id| doc! { "_id": id })).await;
    // Very many small ones: more than fit into one command.
    insert(&database, "small", (0..230_000).map(|id| doc! { "_id": id })).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let report = vault.import(&backup, &target.uri()).await.unwrap();
    assert_eq!(report.documents, 230_013);
    assert_same(&a, &b, CompareOptions::default()).await;
}

#[tokio::test]
async fn a_capped_collection_keeps_its_order() {
    let (source, target) = tokio::join!(Server::standalone(), Server::replica_set("capped"));
    let (a, b) = (source.client().await, target.client().await);
    a.database("capped").run_command(doc! { "create": "c", "capped": true, "size": 60 << 20 }).await.unwrap();
    // Incompressible, so that there are several segments; more than fit.
    let mut random = StdRng::seed_from_u64(11);
    for part in (0..80_000).rev().collect::<Vec<i32>>().chunks(4000) {
        let documents = part.iter().map(|i| {
            let mut bytes = vec![0; 900];
            random.fill(&mut bytes[..]);
            doc! { "_id": i, "v": Bson::Binary(bson::Binary { subtype: BinarySubtype::Generic, bytes }) }
        });
        insert(&a.database("capped"), "c", documents).await;
    }
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    assert!(backup.manifest.collections[0].segments.len() > 1);
    let tuning = Tuning { writers: Some(4), ..Tuning::default() };
    target
        .fail_command(doc! { "times": 2 }, doc! { "failCommands": ["insert"], "closeConnection": true, "appName": "bsonvault" })
        .await;
    vault.import_with(&backup, &target.uri(), None, &ImportOptions { tuning, ..ImportOptions::default() }).await.unwrap();
    assert_same(&a, &b, CompareOptions::default()).await;
}

#[tokio::test]
async fn nothing_expires_before_it_is_counted() {
    let parameters = |name: &str, value: &str| ServerOptions {
        repl_set: Some("ttl".to_owned()),
        parameters: vec![(name.to_owned(), value.to_owned())],
        ..ServerOptions::default()
    };
    let (source, target) = tokio::join!(
        Server::start(parameters("ttlMonitorEnabled", "false")),
        Server::start(parameters("ttlMonitorSleepSecs", "1")),
    );
    let (a, b) = (source.client().await, target.client().await);
    let (from, to) = (a.database("old"), b.database("old"));
    let old = |i: i64| DateTime::from_millis(1_514_764_800_000 + i * 1000);
    from.run_command(
        doc! { "create": "clustered", "clusteredIndex": { "key": { "_id": 1 }, "unique": true }, "expireAfterSeconds": 60 },
    )
    .await
    .unwrap();
    from.run_command(doc! { "create": "series", "timeseries": { "timeField": "t" }, "expireAfterSeconds": 60 }).await.unwrap();
    insert(&from, "indexed", (0..20_000).map(|i| doc! { "_id": i, "t": old(i), "pad": "x".repeat(900) })).await;
    from.run_command(
        doc! { "createIndexes": "indexed", "indexes": [{ "key": { "t": 1 }, "name": "t", "expireAfterSeconds": 60 }] },
    )
    .await
    .unwrap();
    insert(&from, "clustered", (0..2000).map(|i| doc! { "_id": old(i) })).await;
    insert(&from, "series", (0..2000).map(|i| doc! { "t": old(i * 4000), "v": i })).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;

    // The monitor runs several times between the filling and the check.
    let slow = doc! { "failCommands": ["find"], "blockConnection": true, "blockTimeMS": 3000, "appName": "bsonvault" };
    target.fail_command(doc! { "times": 3 }, slow).await;
    let report = vault.import(&backup, &target.uri()).await.unwrap();
    assert!(report.documents > 22_000, "{report:?}");
    // Afterwards they do expire, by the same rules.
    for name in ["indexed", "clustered", "series"] {
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while to.collection::<Document>(name).find_one(doc! {}).await.unwrap().is_some() {
            assert!(std::time::Instant::now() < deadline, "{name} does not expire");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    for database in [&from, &to] {
        for name in ["indexed", "clustered", "series"] {
            database.collection::<Document>(name).delete_many(doc! {}).await.ok();
        }
    }
    let comparison = compare(&a, &b, only("old")).await;
    let not_documents: Vec<_> = comparison.differences.iter().filter(|d| !d.contains("old.series")).collect();
    assert!(not_documents.is_empty(), "{not_documents:?}");
    let options = |database: Database| async move {
        let found: Vec<Document> = database
            .run_cursor_command(doc! { "listCollections": 1, "filter": { "name": "series" } })
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        found[0].get_document("options").unwrap().clone()
    };
    assert_eq!(options(from).await, options(to).await);
}

#[tokio::test]
async fn indexes_that_cannot_be_built_fail_the_import_by_name() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    insert(&a.database("ix"), "c", numbered(50)).await;
    insert(&a.database("ix"), "large", numbered(6000)).await;
    let vault = Vault::new();
    let index = |specification: RawDocumentBuf| RawValue::of(&specification);
    let backup = with_manifest(vault.backup(&source, &[]).await, |manifest| {
        for collection in &mut manifest.collections {
            collection.indexes.extend([
                index(rawdoc! { "v": 2, "key": { "n": 1 }, "name": "not unique", "unique": true }),
                index(rawdoc! { "v": 2, "key": { "pad": 1 }, "name": "good", "ns": "other.name" }),
                index(rawdoc! { "v": 2, "key": { "pad": "2dsphere" }, "name": "no place", "2dsphereIndexVersion": 3 }),
            ]);
        }
    })
    .await;
    let error = vault.import(&backup, &target.uri()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    let text = error.to_string();
    for expected in [
        "4 indexes",
        "\"not unique\" of ix.c",
        "\"not unique\" of ix.large",
        "\"no place\" of ix.c",
        "dup key",
        "\"no place\" of ix.large",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in: {text}");
    }
    assert!(!text.contains("staging"), "{text}");
    assert!(error.hint_text().unwrap().contains("the target is as it was"), "{error:?}");
    assert!(b.database("ix").list_collection_names().await.unwrap().is_empty());

    // The documents without them, and then those that can be built.
    let skip = ImportOptions { indexes: IndexMode::Skip, ..ImportOptions::default() };
    let report = vault.import_with(&backup, &target.uri(), None, &skip).await.unwrap();
    assert_eq!((report.indexes, report.skipped_indexes.len()), (0, 6));
    let only = ImportOptions { indexes: IndexMode::Only, ..ImportOptions::default() };
    for built in [2, 0] {
        let plan = vault.run(&backup, &target.uri(), &only).await.unwrap();
        assert_eq!((plan.indexes, plan.failed_indexes.len()), (built, 4), "{plan:?}");
        assert!(plan.failed_indexes.iter().any(|f| f.reason.as_ref().unwrap().contains("dup key")), "{plan:?}");
    }
    for collection in ["c", "large"] {
        let built = b.database("ix").collection::<Document>(collection).list_index_names().await.unwrap();
        assert_eq!(built, ["_id_", "good"]);
    }
    assert_eq!(b.database("ix").list_collection_names().await.unwrap().len(), 2);
}

#[tokio::test]
async fn indexes_of_old_servers_are_made_as_new_ones_take_them() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    insert(&a.database("old"), "c", (0..5).map(|i| doc! { "_id": i })).await;
    a.database("old")
        .run_command(doc! { "create": "collated", "collation": { "locale": "fr" }, "autoIndexId": true })
        .await
        .unwrap();
    let vault = Vault::new();
    let backup = with_manifest(vault.backup(&source, &[]).await, |manifest| {
        manifest.collections[0].indexes.extend(
            [
                rawdoc! { "v": 1, "key": { "a": true, "b": 0, "c": "", "d": -1, "e": { "x": 1 }, "f": 0.5 }, "name": "values", "ns": "old.c", "background": true, "dropDups": true },
                rawdoc! { "v": 1, "key": { "g": "2dsphere" }, "name": "sphere", "ns": "old.c" },
                rawdoc! { "v": 1, "key": { "h": "geoHaystack", "i": 1 }, "name": "hay", "bucketSize": 1 },
            ]
            .iter()
            .map(|index| RawValue::of(index)),
        );
        let collated = &mut manifest.collections[1];
        collated.indexes.push(RawValue::of(&rawdoc! { "v": 2, "key": { "a": 1 }, "name": "simple" }));
        let mut options = collated.options.bson.clone();
        options.append(bson::raw::cstr!("recordIdsReplicated"), true);
        collated.options = RawValue::of(&options);
    })
    .await;
    let report = vault.import(&backup, &target.uri()).await.unwrap();
    assert_eq!(report.left_out.len(), 1);
    assert!(report.left_out[0].contains("\"hay\" of old.c"), "{report:?}");
    let indexes = |collection: &'static str| {
        let database = b.database("old");
        async move {
            let found = database.run_cursor_command(doc! { "listIndexes": collection }).await.unwrap();
            found.try_collect::<Vec<Document>>().await.unwrap()
        }
    };
    let found = indexes("c").await;
    assert_eq!(
        found[1],
        doc! { "v": 1, "key": { "a": 1, "b": 1, "c": 1, "d": -1, "e": 1, "f": 0.5 }, "name": "values", "background": true }
    );
    assert_eq!(found[2].get("2dsphereIndexVersion"), Some(&Bson::Int32(1)));
    // `listIndexes` does not show the simple collation, but it would show an inherited one.
    assert!(indexes("collated").await[0].contains_key("collation"));
    assert_eq!(indexes("collated").await[1], doc! { "v": 2, "key": { "a": 1 }, "name": "simple" });
}

#[tokio::test]
async fn a_clustered_collection_that_was_made_capped_comes_back_capped() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let from = source.client().await.database("both");
    let clustered = doc! { "create": "c", "clusteredIndex": { "key": { "_id": 1 }, "unique": true } };
    from.run_command(clustered).await.unwrap();
    insert(&from, "c", numbered(20)).await;
    from.run_command(doc! { "convertToCapped": "c", "size": 100_000 }).await.unwrap();
    let vault = Vault::new();
    let report = vault.import(&vault.backup(&source, &[]).await, &target.uri()).await.unwrap();
    let to = target.client().await.database("both");
    assert_eq!(documents(&to, "c").await, documents(&from, "c").await);
    assert!(to.run_command(doc! { "collStats": "c" }).await.unwrap().get_bool("capped").unwrap());
    assert!(report.left_out.len() == 1 && report.left_out[0].contains("\"clusteredIndex\" of both.c"), "{report:?}");
}

#[tokio::test]
async fn a_broken_network_and_lost_replies_leave_neither_gaps_nor_errors() {
    let (source, target) = tokio::join!(Server::standalone(), Server::replica_set("lost"));
    let (a, b) = (source.client().await, target.client().await);
    zoo::fill(&a, &ZooOptions { seed: 8, docs: 60, large: false, ..ZooOptions::default() }).await;
    insert(&a.database("lost"), "c", numbered(2_000)).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    // Reads of the catalog are the driver's to repeat.
    let commands = ["insert", "find", "getMore", "create", "drop", "createIndexes", "collMod", "update"];
    for data in [
        doc! { "closeConnection": true },
        doc! { "errorCode": 189 },
        // Executed, but with an unknown outcome.
        doc! { "writeConcernError": { "code": 91, "errmsg": "shutting down" } },
    ] {
        for command in commands {
            let mut data = data.clone();
            data.extend(doc! { "failCommands": [command], "appName": "bsonvault" });
            target.fail_command(doc! { "times": 2 }, data).await;
            vault.import(&backup, &target.uri()).await.unwrap();
        }
        target.fail_no_more().await;
        assert_same(&a, &b, CompareOptions::default()).await;
    }

    // Real cuts: data in transit is lost in either direction.
    insert(&a.database("lost"), "more", numbered(60_000)).await;
    let backup = vault.backup(&source, &[]).await;
    let options = LinkOptions { mbit: Some(200.0), cut_every: Some(Duration::from_millis(400)), ..LinkOptions::default() };
    let link = Link::to(target.port(), options);
    vault.import(&backup, &target.uri_through(link.port())).await.unwrap();
    assert!(link.cuts() > 2, "{}", link.cuts());
    assert_same(&a, &b, CompareOptions::default()).await;
}

#[tokio::test]
async fn a_document_that_the_target_refuses_is_named() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    insert(&source.client().await.database("d"), "c", numbered(10)).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let fail = doc! { "failCommands": ["insert"], "errorCode": 2, "appName": "bsonvault" };
    target.fail_command(doc! { "times": 1 }, fail).await;
    let error = vault.import(&backup, &target.uri()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    assert!(error.to_string().contains("inserting into d.c") && error.to_string().contains("code 2,"), "{error}");

    // One by one: two documents whose `_id`s are equal under the target collection's collation.
    let backup = with_manifest(backup, |manifest| {
        let collection = &mut manifest.collections[0];
        collection.options = RawValue::of(&rawdoc! { "validator": { "n": { "$lt": 3 } } });
    })
    .await;
    vault.import(&backup, &target.uri()).await.unwrap();
    let (source, vault) = (Server::standalone().await, Vault::new());
    insert(&source.client().await.database("d"), "c", [doc! { "_id": "a" }, doc! { "_id": "A" }]).await;
    let backup = with_manifest(vault.backup(&source, &[]).await, |manifest| {
        let collation = rawdoc! { "locale": "en", "strength": 1 };
        let collection = &mut manifest.collections[0];
        collection.options = RawValue::of(&rawdoc! { "collation": collation });
        collection.indexes.clear();
    })
    .await;
    let error = vault.import(&backup, &target.uri()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    for expected in ["inserting into d.c", "_id of type string", "11000"] {
        assert!(error.to_string().contains(expected), "{expected:?} is not in: {error}");
    }
}

#[tokio::test]
async fn another_writer_is_found_out() {
    // A small collection is read back once all are filled; a large one as soon as it is filled.
    for (documents, phase, filled) in [(10, "checking", 0), (20_000, "filling", 20_000)] {
        another_writer_is_found_out_of(documents, phase, filled).await;
    }
}

async fn another_writer_is_found_out_of(documents: i32, phase: &str, filled: u64) {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    insert(&source.client().await.database("d"), "c", numbered(documents)).await;
    insert(&source.client().await.database("d"), "other", numbered(10)).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let slow = doc! { "failCommands": ["find"], "blockConnection": true, "blockTimeMS": 2000, "appName": "bsonvault" };
    target.fail_command("alwaysOn", slow).await;
    let other = async {
        while vault.cx.progress.view().phase != phase || vault.cx.progress.view().sums().0 < filled {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let database = target.client().await.database("d");
        let names = database.list_collection_names().await.unwrap();
        let staged = names.iter().find(|name| name.starts_with("bsonvault.staging.") && name.ends_with(".0")).unwrap();
        database.collection::<Document>(staged).update_one(doc! { "_id": 3 }, doc! { "$set": { "n": 9 } }).await.unwrap();
    };
    let uri = target.uri();
    let (result, ()) = tokio::join!(vault.import(&backup, &uri), other);
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Mismatch, 3), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&format!("d.c: expected {documents} documents"))
            && text.contains(&format!("found {documents} documents"))
            && !text.contains("d.other"),
        "{text}"
    );
}

#[tokio::test]
async fn an_import_stops_when_it_is_told_to_and_can_be_run_again() {
    let (source, target) = tokio::join!(Server::standalone(), Server::replica_set("stop"));
    let (a, b) = (source.client().await, target.client().await);
    insert(&a.database("stop"), "c", numbered(20_000)).await;
    a.database("stop").run_command(doc! { "createIndexes": "c", "indexes": [{ "key": { "n": 1 }, "name": "n" }] }).await.unwrap();
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    for (command, phase, documents) in [
        ("create", "preparing the target", 0),
        ("insert", "filling", 0),
        ("update", "filling", 20_000),
        ("find", "filling", 20_000),
        ("createIndexes", "filling", 20_000),
    ] {
        let hang = doc! { "failCommands": [command], "blockConnection": true, "blockTimeMS": 6_000, "appName": "bsonvault" };
        target.fail_command("alwaysOn", hang).await;
        let vault = Vault::new();
        let stop = async {
            while vault.cx.progress.view().phase != phase || vault.cx.progress.view().sums().0 < documents {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            // Let it reach the command that hangs.
            tokio::time::sleep(Duration::from_millis(100)).await;
            vault.cx.cancel.cancel();
            std::time::Instant::now()
        };
        let uri = target.uri();
        tokio::pin!(stop);
        let importing = vault.import(&backup, &uri);
        tokio::pin!(importing);
        let begun = tokio::select! {
            done = &mut importing => panic!("{command}: not stopped, but {done:?}"),
            begun = &mut stop => begun,
        };
        let error = importing.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{command}: {error}");
        assert!(error.to_string().contains("the target is as it was"), "{command}: {error}");
        assert_eq!(b.database("stop").list_collection_names().await.unwrap(), Vec::<String>::new(), "{command}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{command} was waited for");
        target.fail_no_more().await;
        // The server may still execute the delayed command; the next import removes its result.
        let held =
            doc! { "aggregate": 1, "pipeline": [{ "$currentOp": {} }, { "$match": { "appName": "bsonvault" } }], "cursor": {} };
        let is_held = async || {
            let reply = target.admin(held.clone()).await.unwrap();
            !reply.get_document("cursor").unwrap().get_array("firstBatch").unwrap().is_empty()
        };
        while is_held().await {
            assert!(begun.elapsed() < Duration::from_secs(60), "{command} is never over");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    vault.import(&backup, &target.uri()).await.unwrap();
    assert_same(&a, &b, CompareOptions::default()).await;
}

#[tokio::test]
async fn a_right_that_is_missing_is_named() {
    let (source, target) =
        tokio::join!(Server::standalone(), Server::start(ServerOptions { auth: true, ..ServerOptions::default() }));
    insert(&source.client().await.database("d"), "c", numbered(10)).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let user = doc! { "createUser": "reader", "pwd": "p", "roles": ["readAnyDatabase"] };
    target.admin(user).await.unwrap();
    let uri = target.uri().replace("root:secret", "reader:p");
    let error = vault.import(&backup, &uri).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(
        error.to_string().contains("insert on collections of d") && error.hint_text().unwrap().contains("grant"),
        "{error:?}"
    );

    // Privileges for most of it are not enough: otherwise, a failure halfway would have removed
    // existing data.
    let standing = target.client().await.database("strict");
    insert(&standing, "c", numbered(3)).await;
    let strict = source.client().await.database("strict");
    strict.run_command(doc! { "create": "c", "validator": { "x": { "$exists": true } } }).await.unwrap();
    let with_rules = vault.backup(&source, &[]).await;
    target.admin(doc! { "createUser": "filler", "pwd": "p", "roles": ["readWriteAnyDatabase"] }).await.unwrap();
    let error = vault.import(&with_rules, &target.uri().replace("root:secret", "filler:p")).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Denied && error.to_string().contains("bypassDocumentValidation on collections of strict"),
        "{error}"
    );
    assert_eq!(documents(&standing, "c").await.len(), 3, "it was dropped before it was known that it can be filled");
    vault.import(&backup, &target.uri()).await.unwrap();
    let zero = Bson::Timestamp(Timestamp { time: 0, increment: 0 });
    assert!(
        documents(&target.client().await.database("d"), "c")
            .await
            .iter()
            .all(|d| Document::try_from(d.as_ref()).unwrap().get("v") != Some(&zero))
    );
}
