//! What an import does to existing data in the target: modes, drop extra, names, filters, indexes,
//! and privileges.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::raw::cstr;
use bson::{Bson, DateTime, Document, RawDocumentBuf, Timestamp, doc};
use bsonvault::engine::import::{ImportMode, ImportOptions, ImportReport, IndexMode};
use bsonvault::error::{Error, ErrorKind};
use bsonvault::format::manifest::LeftOut;
use bsonvault::names::NamespaceRename;
use bsonvault::repository::catalog::Backup;
use mongodb::Database;

use crate::support::cli::Cli;
use crate::support::data::{documents, insert, numbered, snapshot};
use crate::support::on_disk::OnDisk as _;
use crate::support::server::{Server, ServerOptions};
use crate::support::vault::{Vault, matching, with_manifest, without};

const QUICK: Duration = Duration::from_millis(60);

fn options(change: impl FnOnce(&mut ImportOptions)) -> ImportOptions {
    let mut options = ImportOptions { lease: Some(QUICK), ..ImportOptions::default() };
    change(&mut options);
    options
}

fn mode(mode: ImportMode) -> ImportOptions {
    options(|o| o.mode = mode)
}

fn renames(texts: &[&str]) -> Vec<NamespaceRename> {
    texts.iter().map(|text| NamespaceRename::parse(text).unwrap()).collect()
}

fn refused(result: Result<ImportReport, Error>, kind: ErrorKind, words: &[&str]) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.to_string().contains(word), "{word:?} is not in: {error}");
    }
    assert!(!error.to_string().contains("bsonvault.staging"), "{error}");
    error
}

async fn names(database: &Database) -> Vec<String> {
    let mut names = database.list_collection_names().await.unwrap();
    names.retain(|name| !name.starts_with("system."));
    names.sort();
    names
}

async fn indexes(database: &Database, collection: &str) -> Vec<String> {
    let mut names = database.collection::<Document>(collection).list_index_names().await.unwrap();
    names.sort();
    names
}

async fn index(database: &Database, collection: &str, index: Document) {
    database.run_command(doc! { "createIndexes": collection, "indexes": [index] }).await.unwrap();
}

async fn view(database: &Database, name: &str, on: &str, pipeline: Vec<Document>) {
    database.run_command(doc! { "create": name, "viewOn": on, "pipeline": pipeline }).await.unwrap();
}

async fn series(database: &Database, name: &str, points: i64) {
    database.run_command(doc! { "create": name, "timeseries": { "timeField": "t", "metaField": "m" } }).await.unwrap();
    insert(database, name, (0..points).map(|i| doc! { "t": DateTime::from_millis(i * 60_000), "m": 1, "v": i })).await;
}

fn path(backup: &Backup) -> String {
    backup.store.directory().to_str().unwrap().to_owned()
}

#[tokio::test]
async fn fail_names_what_stands_and_writes_nothing() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await.database("d"), target.client().await);
    insert(&a, "c", numbered(20)).await;
    insert(&a, "free", numbered(3)).await;
    view(&a, "v", "c", Vec::new()).await;
    insert(&b.database("d"), "v", [doc! { "_id": 1 }]).await;
    insert(&b.database("d"), "other", [doc! { "_id": 1 }]).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let before = snapshot(&b).await;
    let error = refused(vault.run(&backup, &target.uri(), &mode(ImportMode::Fail)).await, ErrorKind::Refused, &["d.v"]);
    assert!(!error.to_string().contains("d.free") && error.hint_text().unwrap().contains("[[rename]]"), "{error}");
    assert_eq!(snapshot(&b).await, before);
    // With nothing in the way, it is an ordinary import.
    let without = options(|o| (o.mode, o.filter) = (ImportMode::Fail, without(&["d.v"])));
    vault.run(&backup, &target.uri(), &without).await.unwrap();
    assert_eq!(names(&b.database("d")).await, ["c", "free", "other", "v"]);
    assert_eq!(documents(&b.database("d"), "v").await.len(), 1);
}

#[tokio::test]
async fn what_is_made_while_an_import_runs_is_left_alone_where_nothing_may_be_replaced() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    insert(&source.client().await.database("d"), "c", numbered(2000)).await;
    let to = target.client().await.database("d");
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let uri = target.uri();
    for (mode, words) in [(ImportMode::Fail, "in the way"), (ImportMode::Merge, "capped")] {
        let slow = doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 5000, "appName": "bsonvault" };
        target.fail_command(doc! { "times": 1 }, slow).await;
        let made = async {
            while !names(&to).await.iter().any(|name| name.starts_with("bsonvault.staging")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            to.run_command(doc! { "create": "c", "capped": true, "size": 4096 }).await.unwrap();
        };
        let long = options(|o| (o.mode, o.lease) = (mode, None));
        let (result, ()) = tokio::join!(vault.run(&backup, &uri, &long), made);
        refused(result, ErrorKind::Refused, &["d.c", words]);
        assert_eq!(names(&to).await, ["c"]);
        assert_eq!(documents(&to, "c").await.len(), 0);
        to.drop().await.unwrap();
    }
}

/// Inserts a document unchanged: plain inserts replace empty timestamps.
async fn put(database: &Database, collection: &str, document: Document) {
    let id = document.get("_id").unwrap().clone();
    let update = doc! { "q": { "_id": { "$eq": id } }, "u": [{ "$replaceWith": { "$literal": document } }], "upsert": true };
    let reply = database.run_command(doc! { "update": collection, "updates": [update] }).await.unwrap();
    assert!(!reply.contains_key("writeErrors"), "{reply}");
}

fn odd_ids() -> Vec<Bson> {
    vec![
        Bson::Null,
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Boolean(true),
        Bson::Double(f64::NAN),
        Bson::Decimal128("1.50".parse().unwrap()),
        Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![7; 16] }),
        Bson::Timestamp(Timestamp { time: 0, increment: 0 }),
        Bson::JavaScriptCode("f()".to_owned()),
        Bson::Document(
            doc! { "a.b": { "in.not": 1 }, "r": Bson::RegularExpression(bson::Regex { pattern: cstr!("x").into(), options: cstr!("i").into() }) },
        ),
        Bson::Document(doc! {}),
        Bson::String("$where".to_owned()),
    ]
}

#[tokio::test]
async fn merge_puts_documents_in_place_of_their_likes_and_leaves_all_else() {
    let (source, target) = tokio::join!(Server::standalone(), Server::replica_set("merge"));
    let (a, b) = (source.client().await.database("d"), target.client().await.database("d"));
    let rules = || doc! { "validator": { "n": { "$lt": 100 } }, "validationLevel": "moderate" };
    for database in [&a, &b] {
        let mut create = doc! { "create": "c" };
        create.extend(rules());
        database.run_command(create).await.unwrap();
    }
    // Both sides have 0 to 9 with different content; documents that violate the validator came
    // before it.
    let bypassing = |n: i32, pad: &str| {
        let documents: Vec<Document> = (n..n + 20).map(|i| doc! { "_id": i, "n": 200, "side": pad }).collect();
        doc! { "insert": "c", "documents": documents, "bypassDocumentValidation": true }
    };
    a.run_command(bypassing(10, "new")).await.unwrap();
    b.run_command(bypassing(0, "old")).await.unwrap();
    for (number, id) in odd_ids().into_iter().enumerate() {
        let number = i32::try_from(number).unwrap();
        let empty = Bson::Timestamp(Timestamp { time: 0, increment: 0 });
        put(&a, "odd", doc! { "_id": id.clone(), "n": number, "at": empty.clone(), "side": "new" }).await;
        // Half of them already exist with other fields, and so do documents that the backup lacks.
        if number % 2 == 0 {
            put(&b, "odd", doc! { "side": "old", "_id": id, "gone": [1, 2], "at": empty }).await;
        }
    }
    insert(&a, "odd", [doc! { "_id": "dollar", "$x": 1, "y": { "$z": 1, "a.b": 2 } }, doc! { "$first": 1, "_id": "first" }])
        .await;
    insert(&b, "odd", [doc! { "_id": "dollar", "x": 1 }, doc! { "_id": "stays" }]).await;
    insert(&a, "created", numbered(3)).await;
    // A document of the largest size.
    let overhead = bson::serialize_to_vec(&doc! { "_id": 1, "s": "" }).unwrap().len();
    let largest = "y".repeat(16 * 1024 * 1024 - overhead);
    insert(&a, "large", [doc! { "_id": 1, "s": largest }]).await;
    insert(&b, "large", [doc! { "_id": 1, "s": "small" }, doc! { "_id": 2 }]).await;
    index(&a, "large", doc! { "key": { "n": 1 }, "name": "n", "sparse": true }).await;
    index(&b, "large", doc! { "key": { "m": 1 }, "name": "m" }).await;
    view(&a, "v", "c", Vec::new()).await;
    view(&b, "v", "c", Vec::new()).await;

    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    // The second time, there is nothing to change.
    for _ in 0..2 {
        let report = vault.run(&backup, &target.uri(), &mode(ImportMode::Merge)).await.unwrap();
        assert_eq!(report.documents, backup.manifest.totals.documents);
        assert_eq!(names(&b).await, ["c", "created", "large", "odd", "v"]);
        assert_eq!(indexes(&b, "large").await, ["_id_", "m", "n"]);
        for name in ["c", "odd", "created", "large"] {
            let there = documents(&b, name).await;
            for wanted in documents(&a, name).await {
                assert!(there.contains(&wanted), "{name}: {:?}", wanted.get("_id"));
            }
        }
        let count = async |name: &str| documents(&b, name).await.len();
        assert_eq!((count("c").await, count("odd").await, count("large").await), (30, odd_ids().len() + 3, 2));
        let old = b.collection::<Document>("c").count_documents(doc! { "side": "old" }).await.unwrap();
        assert_eq!(old, 10);
    }
}

#[tokio::test]
async fn merge_refuses_what_it_cannot_merge_into_before_it_writes() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await.database("d"), target.client().await);
    let d = b.database("d");
    for (database, differs) in [(&a, false), (&d, true)] {
        let collation = doc! { "locale": if differs { "fr" } else { "de" } };
        database.run_command(doc! { "create": "options", "collation": collation }).await.unwrap();
        insert(database, "named", [doc! { "_id": 1 }]).await;
        index(database, "named", doc! { "key": { if differs { "x" } else { "y" }: 1 }, "name": "i" }).await;
        insert(database, "keyed", [doc! { "_id": 1 }]).await;
        index(database, "keyed", doc! { "key": { "k": 1 }, "name": if differs { "k" } else { "l" } }).await;
        database.run_command(doc! { "create": "capped", "capped": true, "size": 4096 }).await.unwrap();
        series(database, "series", 3).await;
        view(database, "view", if differs { "named" } else { "keyed" }, Vec::new()).await;
        if differs {
            view(database, "kind", "named", Vec::new()).await;
        } else {
            insert(database, "kind", [doc! { "_id": 1 }]).await;
        }
        insert(database, "good", [doc! { "_id": i32::from(differs) }]).await;
        // Two with one key, which both sides have.
        index(database, "good", doc! { "key": { "k": 1 }, "name": "k" }).await;
        index(database, "good", doc! { "key": { "k": 1 }, "name": "sparse", "sparse": true }).await;
    }
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let before = snapshot(&b).await;
    let error = refused(
        vault.run(&backup, &target.uri(), &mode(ImportMode::Merge)).await,
        ErrorKind::Refused,
        &[
            "d.options (option \"collation\" differs)",
            "d.named (index \"i\" differs)",
            "d.keyed (index \"l\" differs)",
            "d.capped (capped)",
            "d.series (a time series)",
            "d.view (a different view)",
            "d.kind (a view",
        ],
    );
    assert!(!error.to_string().contains("d.good"), "{error}");
    assert_eq!(snapshot(&b).await, before);
}

#[tokio::test]
async fn a_merge_that_a_unique_index_refuses_is_given_up_and_in_nobodys_way() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await.database("d"), target.client().await.database("d"));
    insert(&a, "c", (0..5).map(|i| doc! { "_id": i, "u": i })).await;
    insert(&a, "fine", numbered(5)).await;
    // One of them takes a special path, on which the old document is gone for a moment.
    insert(&a, "dollar", [doc! { "_id": 1, "$x": 1, "u": 1 }]).await;
    for name in ["c", "dollar"] {
        insert(&b, name, [doc! { "_id": "other", "u": 1 }, doc! { "_id": 1, "u": "mine" }]).await;
        index(&b, name, doc! { "key": { "u": 1 }, "name": "u", "unique": true }).await;
    }
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let result = vault.run(&backup, &target.uri(), &mode(ImportMode::Merge)).await;
    let error = refused(result, ErrorKind::Server, &["merging into d.c", "merging into d.dollar", "11000"]);
    assert!(error.hint_text().unwrap().contains("everything else is imported"), "{error:?}");
    assert_eq!(names(&b).await, ["c", "dollar", "fine"]);
    assert_eq!(documents(&b, "fine").await.len(), 5);
    let kept = b.collection::<Document>("dollar").find_one(doc! { "_id": 1 }).await.unwrap();
    assert_eq!(kept, Some(doc! { "_id": 1, "u": "mine" }));
    // Nothing of it is in the way of the next one.
    vault.run(&backup, &target.uri(), &options(|_| {})).await.unwrap();
    assert_eq!(documents(&b, "c").await.len(), 5);
}

#[tokio::test]
async fn a_merge_that_was_killed_is_finished_by_the_next_import() {
    let (source, target) = tokio::join!(Server::standalone(), Server::replica_set("killed"));
    let (a, b) = (source.client().await.database("d"), target.client().await.database("d"));
    insert(&a, "c", (0..30_000).map(|i| doc! { "_id": i, "side": "new" })).await;
    index(&a, "c", doc! { "key": { "side": 1 }, "name": "side" }).await;
    insert(&a, "other", numbered(5)).await;
    insert(&b, "c", (-10..10_000).map(|i| doc! { "_id": i, "side": "old" })).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    // Its second command of documents is delayed, and it is killed there. The updates before it
    // make data durable.
    let slow = doc! { "failCommands": ["update"], "blockConnection": true, "blockTimeMS": 3000, "appName": "bsonvault" };
    target.fail_command(doc! { "skip": 3 }, slow).await;
    let (cli, uri, path) = (Cli::new(), target.uri(), path(&backup));
    let mut child = cli.spawn(&["import", &path, "--yes", "--target", &uri, "--mode", "merge"]);
    let merged = async || b.collection::<Document>("c").count_documents(doc! { "side": "new" }).await.unwrap();
    while merged().await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    target.fail_no_more().await;
    assert!(merged().await < 30_000);
    // Any import into that database finishes it, whatever else it does.
    let other = options(|o| (o.filter, o.lease) = (matching(&["d.other"]), None));
    vault.run(&backup, &uri, &other).await.unwrap();
    assert_eq!(merged().await, 30_000);
    assert_eq!(documents(&b, "c").await.len(), 30_010);
    assert_eq!(indexes(&b, "c").await, ["_id_", "side"]);
    assert_eq!(names(&b).await, ["c", "other"]);
}

#[tokio::test]
async fn records_are_written_where_updates_may_hold_no_operators_and_earlier_ones_are_finished() {
    let server = Server::of_version("4.4.2").await;
    let d = server.client().await.database("d");
    insert(&d, "c", numbered(5)).await;
    let pipeline = || vec![doc! { "$match": { "n": { "$gt": 2 } } }];
    view(&d, "v", "c", pipeline()).await;
    let vault = Vault::new();
    let backup = vault.backup(&server, &[]).await;
    d.drop().await.unwrap();
    insert(&d, "c", [doc! { "_id": "old" }]).await;
    // A decision that an earlier version recorded and did not finish, in its form; and steps that
    // were never decided.
    let earlier = doc! { "_id": { "import": "0123456789ab", "step": 0_i64 }, "kind": "view", "replaces": true, "database": "d", "to": "earlier", "options": { "viewOn": "c", "pipeline": pipeline() } };
    let undecided = doc! { "_id": { "import": "ba9876543210", "step": 0_i64 }, "kind": "drop", "database": "d", "to": "c" };
    let header = doc! { "_id": { "import": "0123456789ab" }, "steps": 1_i64 };
    insert(&d, "bsonvault.import", [earlier, undecided, header]).await;
    insert(&d, "bsonvault.staging.ba9876543210.0", numbered(1)).await;
    let same = options(|o| o.allow_same = true);
    for _ in 0..2 {
        vault.run(&backup, &server.uri(), &same).await.unwrap();
        assert_eq!(names(&d).await, ["c", "earlier", "v"]);
        assert_eq!((documents(&d, "c").await.len(), documents(&d, "v").await.len()), (5, 2));
    }
    // If a target refuses the record for good, nothing is decided, and nothing stays there.
    let before = snapshot(&server.client().await).await;
    let refusing =
        doc! { "failCommands": ["insert"], "errorCode": 8000, "namespace": "d.bsonvault.import", "appName": "bsonvault" };
    server.fail_command("alwaysOn", refusing).await;
    let error = refused(vault.run(&backup, &server.uri(), &same).await, ErrorKind::Server, &["writing the record"]);
    assert!(error.hint_text().unwrap().contains("the target is as it was"), "{error:?}");
    assert_eq!(snapshot(&server.client().await).await, before);
}

/// Documents with names that servers before 5.0 refuse in everything that an update writes.
fn with_operator_names() -> Vec<Document> {
    let reference = |fields: Document| doc! { "_id": fields, "side": "new", "x": { "$y": 1 } };
    let mut documents = vec![
        doc! { "_id": 0, "side": "new", "a": { "$match": { "n": 2 } } },
        doc! { "_id": 1, "side": "new", "a": [{ "$set": 1 }, { "b.c": { "$x": "$$ROOT" } }] },
        doc! { "_id": 2, "side": "new", "a": { "$id": 5 } },
        doc! { "_id": 3, "side": "new", "a": { "$ref": "c", "x": 1 } },
        doc! { "_id": 4, "side": "new", "a": { "$ref": "c", "$id": 1 }, "": { "": 1 } },
        doc! { "_id": 5, "side": "new", "b.c": 1 },
        reference(doc! { "$ref": "c", "$id": 1 }),
    ];
    documents.extend((10..1300).map(|i| doc! { "_id": i, "side": "new", "a": { "$n": i } }));
    documents
}

/// Servers of 4.4 accept this by no single command: they replace the timestamp in an insert, and
/// refuse the name in an update.
async fn put_empty_timestamp_beside_operator(database: &Database, collection: &str, id: i32) {
    insert(database, collection, [doc! { "_id": id, "at": 1, "a": { "$x": 1 }, "side": "new" }]).await;
    let empty = Bson::Timestamp(Timestamp { time: 0, increment: 0 });
    let set = doc! { "q": { "_id": id }, "u": { "$set": { "at": empty } } };
    database.run_command(doc! { "update": collection, "updates": [set] }).await.unwrap();
}

#[tokio::test]
async fn documents_go_where_updates_may_hold_no_operators() {
    let server = Server::of_version("4.4.2").await;
    let (client, d) = (server.client().await, server.client().await.database("d"));
    insert(&d, "c", with_operator_names()).await;
    put_empty_timestamp_beside_operator(&d, "c", 7).await;
    d.run_command(doc! { "create": "capped", "capped": true, "size": 100_000 }).await.unwrap();
    insert(&d, "capped", [doc! { "_id": 1 }]).await;
    put_empty_timestamp_beside_operator(&d, "capped", 2).await;
    insert(&d, "capped", [doc! { "_id": 3 }]).await;
    insert(&d, "u", [doc! { "_id": 1, "u": 1, "a": { "$x": 1 } }, doc! { "_id": 2, "u": 2, "a": { "$x": 1 } }]).await;
    insert(&d, "other", numbered(1)).await;
    let vault = Vault::new();
    let backup = vault.backup(&server, &[]).await;
    let (wanted, capped) = (documents(&d, "c").await, documents(&d, "capped").await);
    let of_mode =
        |which: ImportMode, of: &'static str| options(|o| (o.allow_same, o.mode, o.filter) = (true, which, matching(&[of])));
    d.drop().await.unwrap();
    let whole = options(|o| o.allow_same = true);
    vault.run(&backup, &server.uri(), &whole).await.unwrap();
    assert_eq!(documents(&d, "capped").await, capped);
    let hidden = async || d.list_collection_names().await.unwrap().iter().filter(|n| n.starts_with("bsonvault")).count();

    // Merged over others, with any lost reply, and again.
    for command in ["", "insert", "delete", "update", "find"] {
        d.collection::<Document>("c").drop().await.unwrap();
        insert(&d, "c", (0..600).map(|i| doc! { "_id": i, "side": "old", "pad": [1, 2] })).await;
        insert(&d, "c", [doc! { "_id": "stays" }]).await;
        if !command.is_empty() {
            let lost = doc! { "failCommands": [command], "closeConnection": true, "namespace": "d.c", "appName": "bsonvault" };
            server.fail_command(doc! { "times": 2 }, lost).await;
        }
        for _ in 0..2 {
            vault.run(&backup, &server.uri(), &of_mode(ImportMode::Merge, "d.c")).await.unwrap();
            let there = documents(&d, "c").await;
            assert!(wanted.iter().all(|document| there.contains(document)), "{command}");
            assert_eq!((there.len(), hidden().await), (wanted.len() + 4, 0), "{command}");
        }
    }
    // Added beside others.
    d.collection::<Document>("c").drop().await.unwrap();
    insert(&d, "c", [doc! { "_id": 0, "side": "old" }, doc! { "_id": 7, "side": "old" }]).await;
    let report = vault.run(&backup, &server.uri(), &of_mode(ImportMode::Add, "d.c")).await.unwrap();
    assert_eq!((report.not_added, documents(&d, "c").await.len()), (2, wanted.len()));

    // Killed when the old ones are gone and the new ones do not yet exist; then a new one is
    // refused.
    let old = || [doc! { "_id": 1, "u": "mine" }, doc! { "_id": 2, "u": "too" }];
    let u = d.collection::<Document>("u");
    for refuses in [false, true] {
        u.drop().await.unwrap();
        insert(&d, "u", old()).await;
        index(&d, "u", doc! { "key": { "u": 1 }, "name": "u", "unique": true }).await;
        let slow = doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 3000, "namespace": "d.u", "appName": "bsonvault" };
        server.fail_command(doc! { "times": 1 }, slow).await;
        let (cli, uri, path) = (Cli::new(), server.uri(), path(&backup));
        let merge = ["import", &path, "--target", &uri, "--mode", "merge", "--include", "d.u", "--allow-same", "--yes"];
        let mut child = cli.spawn(&merge);
        while u.count_documents(doc! {}).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Before the delayed command is executed late, which may happen.
        if refuses {
            insert(&d, "u", [doc! { "_id": "other", "u": 2 }]).await;
        }
        server.fail_no_more().await;
        let next = options(|o| (o.allow_same, o.filter, o.lease) = (true, matching(&["d.other"]), None));
        vault.run(&backup, &server.uri(), &next).await.unwrap();
        let mut there: Vec<Document> =
            documents(&d, "u").await.iter().map(|found| Document::try_from(found.clone()).unwrap()).collect();
        there.retain(|found| found.get_str("_id").is_err());
        let new = [doc! { "_id": 1, "u": 1, "a": { "$x": 1 } }, doc! { "_id": 2, "u": 2, "a": { "$x": 1 } }];
        // The second one is refused; the first one may have been inserted late.
        let [first, second] = if refuses { old() } else { new.clone() };
        assert!(there.len() == 2 && there.contains(&second), "refuses: {refuses}: {there:?}");
        assert!(there.contains(&first) || (refuses && there.contains(&new[0])), "refuses: {refuses}: {there:?}");
        assert_eq!(hidden().await, 0);
    }
    drop(client);
}

#[tokio::test]
async fn refusals_whose_text_is_cut_inside_a_character_are_read() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await.database("d"), target.client().await.database("d"));
    // Servers cut a key at 150 bytes, here in the middle of a character.
    let title = |i: i32| format!("No. {}: {}{i}", i % 8, "\u{8a9e}".repeat(60));
    insert(&a, "c", (0..40).map(|i| doc! { "_id": i, "t": title(i) })).await;
    insert(&a, "ids", (0..40).map(|i| doc! { "_id": title(i) })).await;
    insert(&b, "c", (0..10).map(|i| doc! { "_id": 1000 + i, "t": title(i) })).await;
    insert(&b, "ids", (0..10).map(|i| doc! { "_id": title(i), "mine": 1 })).await;
    for database in [&a, &b] {
        index(database, "c", doc! { "key": { "t": 1 }, "name": "t", "unique": true }).await;
    }
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let report = vault.run(&backup, &target.uri(), &mode(ImportMode::Add)).await.unwrap();
    assert_eq!(report.not_added, 20);
    assert_eq!((documents(&b, "c").await.len(), documents(&b, "ids").await.len()), (40, 40));
    let result = vault.run(&backup, &target.uri(), &mode(ImportMode::Merge)).await;
    refused(result, ErrorKind::Server, &["merging into d.c", "11000", "\\x"]);
    // An index that cannot be built has such an error, too: its command fails.
    b.collection::<Document>("c").drop().await.unwrap();
    insert(&b, "c", [1, 2].map(|i| doc! { "_id": i, "t": title(3) })).await;
    let only = options(|o| (o.indexes, o.filter) = (IndexMode::Only, matching(&["d.c"])));
    let report = vault.run(&backup, &target.uri(), &only).await.unwrap();
    let reason = report.failed_indexes[0].reason.clone().unwrap();
    assert!(reason.contains("11000") && reason.contains("\\x"), "{reason}");
}

/// The command with these bytes in place of `@@@`, which no type of the driver can hold.
fn of_bytes(command: Document, bytes: &[u8; 3]) -> RawDocumentBuf {
    let mut all = bson::serialize_to_vec(&command).unwrap();
    let at = all.windows(3).position(|three| three == b"@@@").unwrap();
    all[at..at + 3].copy_from_slice(bytes);
    RawDocumentBuf::from_bytes(all).unwrap()
}

#[tokio::test]
async fn names_of_other_bytes_are_told_apart() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await.database("d"), target.client().await.database("d"));
    insert(&a, "c", numbered(3)).await;
    for (name, key) in [(b"i\xE8i", "x"), (b"i\xE9i", "y")] {
        let create = doc! { "createIndexes": "c", "indexes": [{ "key": { key: 1 }, "name": "@@@" }] };
        a.run_raw_command(of_bytes(create, name)).await.unwrap();
    }
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    for which in [IndexMode::Now, IndexMode::Skip, IndexMode::Only, IndexMode::Only] {
        vault.run(&backup, &target.uri(), &options(|o| o.indexes = which)).await.unwrap();
    }
    let listed = async |database: &Database| -> Vec<RawDocumentBuf> {
        let listing =
            database.run_raw_cursor_command(RawDocumentBuf::try_from(&doc! { "listIndexes": "c" }).unwrap()).batch().await;
        let batches: Vec<_> = futures::TryStreamExt::try_collect(listing.unwrap()).await.unwrap();
        let documents = batches.iter().flat_map(|batch| batch.doc_slices().unwrap().into_iter());
        documents.map(|document| document.unwrap().as_document().unwrap().to_owned()).collect()
    };
    assert_eq!((listed(&b).await.len(), listed(&b).await), (3, listed(&a).await));
    // Such a name cannot select a collection. It is reported, and can be excluded.
    for name in [b"n\xE8n", b"n\xE9n"] {
        let create = doc! { "applyOps": [{ "op": "c", "ns": "d.$cmd", "o": { "create": "@@@" } }] };
        a.client().database("admin").run_raw_command(of_bytes(create, name)).await.unwrap();
    }
    let cli = Cli::new();
    let output = cli.run(&["backup", "--source", &source.uri()]).await;
    assert!(output.stderr.contains("d.n\\xE8n, d.n\\xE9n") && output.stderr.contains("--exclude"), "{output:?}");
    let output = cli.run(&["backup", "--source", &source.uri(), "--exclude", "d.n*"]).await;
    assert_eq!(output.code, Some(0), "{output:?}");
}

#[tokio::test]
async fn indexes_of_a_time_series_are_made_as_they_are_listed() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await.database("d"), target.client().await.database("d"));
    a.run_command(doc! { "create": "s", "timeseries": { "timeField": "t", "metaField": "m" } }).await.unwrap();
    let point =
        |i: i64| doc! { "t": DateTime::from_millis(i * 1000), "m": { "a": i }, "at": { "type": "Point", "coordinates": [i, 1] } };
    insert(&a, "s", (0..20).map(point)).await;
    index(&a, "s", doc! { "key": { "at": "2dsphere" }, "name": "at" }).await;
    index(&a, "s", doc! { "key": { "m.a": 1, "at": "2dsphere" }, "name": "compound" }).await;
    index(&a, "s", doc! { "key": { "m.at": "2dsphere" }, "name": "meta" }).await;
    index(&a, "s", doc! { "key": { "at": "2dsphere", "m.a": 1 }, "name": "asked", "2dsphereIndexVersion": 3 }).await;
    let listed = async |database: &Database| -> Vec<String> {
        let listing = database.run_command(doc! { "listIndexes": "s" }).await.unwrap();
        let all = listing.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
        let mut all: Vec<String> = all.iter().map(ToString::to_string).collect();
        all.sort();
        all
    };
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    vault.import(&backup, &target.uri()).await.unwrap();
    assert_eq!(listed(&b).await, listed(&a).await);
    let indexed = |which: IndexMode| options(|o| o.indexes = which);
    vault.run(&backup, &target.uri(), &indexed(IndexMode::Skip)).await.unwrap();
    for built in [4, 0] {
        let report = vault.run(&backup, &target.uri(), &indexed(IndexMode::Only)).await.unwrap();
        assert_eq!((report.indexes, report.failed_indexes.len()), (built, 0), "{report:?}");
        assert_eq!(listed(&b).await, listed(&a).await);
    }
}

#[tokio::test]
async fn prune_drops_what_could_have_come_and_did_not_and_nothing_else() {
    let (source, target) = tokio::join!(Server::standalone(), Server::replica_set("prune"));
    let (a, b) = (source.client().await, target.client().await);
    for (database, name) in [("shop", "c"), ("shop", "log_1"), ("other", "c")] {
        insert(&a.database(database), name, numbered(3)).await;
    }
    let shop = b.database("shop");
    for name in ["c", "gone", "log_2", "kept"] {
        insert(&shop, name, [doc! { "_id": 1 }]).await;
    }
    view(&shop, "gone_view", "c", Vec::new()).await;
    series(&shop, "gone_series", 3).await;
    insert(&shop, "system.js", [doc! { "_id": "f", "value": 1 }]).await;
    insert(&b.database("other"), "gone", [doc! { "_id": 1 }]).await;
    insert(&b.database("elsewhere"), "c", [doc! { "_id": 1 }]).await;
    let vault = Vault::new();
    let all = vault.backup(&source, &[]).await;

    // The backup itself was partial by request.
    let asked = with_manifest(vault.backup(&source, &[]).await, |manifest| {
        manifest.settings.exclude = vec!["*.gone*".to_owned()];
        // Or it could not include something.
        let reason = "dropped while the backup ran".to_owned();
        manifest.left_out = vec![LeftOut { database: "shop".to_owned(), collection: "kept".to_owned(), uuid: None, reason }];
    })
    .await;
    let without_logs = options(|o| (o.drop_extra, o.filter) = (true, without(&["shop.log_*"])));
    let report = vault.run(&asked, &target.uri(), &without_logs).await.unwrap();
    assert_eq!(report.pruned, Vec::<String>::new());
    assert_eq!(names(&shop).await, ["c", "gone", "gone_series", "gone_view", "kept", "log_2"]);

    // The plan lists it first, and a dry run stops there.
    let (cli, uri, path) = (Cli::new(), target.uri(), path(&all));
    let before = snapshot(&b).await;
    let arguments =
        ["import", &path, "--yes", "--target", &uri, "--drop-extra", "--include", "shop.*", "--exclude", "shop.log_*"];
    let plan = cli.json(&[&arguments[..], &["--dry-run"]].concat()).await;
    let named = ["shop.gone", "shop.gone_series", "shop.gone_view", "shop.kept"];
    assert_eq!(plan["prunes"], serde_json::json!(named));
    assert_eq!(snapshot(&b).await, before);
    let output = cli.run(&arguments).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(named.iter().all(|name| output.stderr.contains(&format!("dropped: {name} "))), "{}", output.stderr);
    assert_eq!(names(&shop).await, ["c", "log_2"]);
    assert_eq!(documents(&shop, "system.js").await.len(), 1);
    assert_eq!(names(&b.database("other")).await, ["c", "gone"]);
    assert_eq!(names(&b.database("elsewhere")).await, ["c"]);
    let buckets = shop.list_collection_names().await.unwrap();
    assert!(!buckets.iter().any(|name| name.contains("gone_series")), "{buckets:?}");

    // Under another name, only existing data under that name matters.
    insert(&b.database("copy"), "gone", [doc! { "_id": 1 }]).await;
    insert(&shop, "gone", [doc! { "_id": 1 }]).await;
    let renamed = options(|o| (o.drop_extra, o.renames, o.filter) = (true, renames(&["shop.*=copy.*"]), matching(&["shop.*"])));
    let report = vault.run(&all, &target.uri(), &renamed).await.unwrap();
    assert_eq!(report.pruned, ["copy.gone"]);
    assert_eq!(names(&b.database("copy")).await, ["c", "log_1"]);
    assert_eq!(names(&shop).await, ["c", "gone", "log_2"]);
    // If only indexes are built, drop extra is impossible.
    let both = options(|o| (o.drop_extra, o.indexes) = (true, IndexMode::Only));
    refused(vault.run(&all, &target.uri(), &both).await, ErrorKind::Usage, &["drop-extra"]);
}

#[tokio::test]
async fn renamed_collections_take_their_views_along() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    let shop = a.database("shop");
    insert(&shop, "orders", (0..6).map(|i| doc! { "_id": i, "item": i % 2 })).await;
    insert(&shop, "items", (0..2).map(|i| doc! { "_id": i, "name": format!("item {i}") })).await;
    insert(&a.database("other"), "c", numbered(2)).await;
    let joins = vec![
        doc! { "$lookup": { "from": "items", "localField": "item", "foreignField": "_id", "as": "items" } },
        doc! { "$graphLookup": { "from": "items", "startWith": "$item", "connectFromField": "item", "connectToField": "_id", "as": "graph" } },
        doc! { "$unionWith": { "coll": "items", "pipeline": [{ "$unionWith": "orders" }] } },
        doc! { "$facet": { "all": [{ "$lookup": { "from": "items", "pipeline": [{ "$match": { "_id": 1 } }], "as": "x" } }, { "$sort": { "_id": 1, "name": 1 } }] } },
    ];
    view(&shop, "joined", "orders", joins).await;
    view(&shop, "of_view", "joined", vec![doc! { "$project": { "all": 1 } }]).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;

    let rules = renames(&["shop.orders=copy.orders_old", "shop.*=copy.x_*"]);
    let report = vault.run(&backup, &target.uri(), &options(|o| o.renames = rules)).await.unwrap();
    assert_eq!(report.collections.len(), 5);
    let copy = b.database("copy");
    assert_eq!(names(&copy).await, ["orders_old", "x_items", "x_joined", "x_of_view"]);
    assert_eq!(names(&b.database("other")).await, ["c"]);
    let read = async |database: &Database, name: &str| -> Vec<RawDocumentBuf> { documents(database, name).await };
    let wanted = read(&shop, "of_view").await;
    assert!(format!("{:?}", Document::try_from(wanted[0].clone()).unwrap()).contains("item 1"), "{wanted:?}");
    assert_eq!(read(&copy, "x_of_view").await, wanted);

    // Two into one, a view apart from its source, and names that no server accepts.
    for (rules, kind, words) in [
        (&["shop.orders=shop.items"][..], ErrorKind::Usage, &["shop.orders", "shop.items", "both"][..]),
        (&["shop.joined=else.joined"], ErrorKind::Refused, &["shop.joined", "orders"]),
        (&["shop.orders=admin.orders"], ErrorKind::Refused, &["admin.orders"]),
        (&["shop.orders=shop.system.users"], ErrorKind::Usage, &["shop.system.users"]),
        (&["shop.orders=shop.a$b"], ErrorKind::Usage, &["shop.a$b"]),
        (&["shop.orders=s p.orders"], ErrorKind::Usage, &["s p"]),
        (&["shop.orders=shop.bsonvault.staging.x"], ErrorKind::Usage, &["staging"]),
        (&["shop.nothing=shop.x"], ErrorKind::NotFound, &["shop.nothing"]),
    ] {
        let result = vault.run(&backup, &target.uri(), &options(|o| o.renames = renames(rules))).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), kind, "{rules:?}: {error}");
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{rules:?}: {error}");
    }
    let long = format!("shop.orders=shop.{}", "x".repeat(260));
    let result = vault.run(&backup, &target.uri(), &options(|o| o.renames = renames(&[long.as_str()]))).await;
    refused(result, ErrorKind::Refused, &["255"]);
    assert!(!b.list_database_names().await.unwrap().iter().any(|name| name == "shop"));
}

#[tokio::test]
async fn names_filters_and_modes_go_together() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    for name in ["c", "log_1", "log_2", "secret"] {
        insert(&a.database("shop"), name, (0..4).map(|i| doc! { "_id": i, "side": "new" })).await;
    }
    insert(&a.database("other"), "c", numbered(2)).await;
    insert(&b.database("copy"), "logs_1", [doc! { "_id": 0, "side": "old" }, doc! { "_id": "old" }]).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let (cli, uri, path) = (Cli::new(), target.uri(), path(&backup));
    let arguments = [
        "import",
        &path,
        "--yes",
        "--target",
        &uri,
        "--include",
        "shop.*",
        "--exclude",
        "*.secret",
        "--database",
        "copy",
        "--rename",
        "shop.log_*=copy.logs_*",
        "--mode",
        "merge",
    ];
    let before = snapshot(&b).await;
    let plan = cli.json(&[&arguments[..], &["--dry-run"]].concat()).await;
    assert_eq!((&plan["dryRun"], &plan["mode"], &plan["success"]), (&true.into(), &"merge".into(), &true.into()), "{plan}");
    let planned: Vec<(&str, &str, Option<&str>)> = plan["collections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["from"].as_str().unwrap(), c["to"].as_str().unwrap(), c["replaces"].as_str()))
        .collect();
    let expected =
        [("shop.c", "copy.c", None), ("shop.log_1", "copy.logs_1", Some("collection")), ("shop.log_2", "copy.logs_2", None)];
    assert_eq!(planned, expected);
    let shown = cli.run(&[&arguments[..], &["--dry-run"]].concat()).await;
    assert!(shown.stdout.contains("copy.logs_1") && shown.stdout.contains("not atomic"), "{}", shown.stdout);
    assert_eq!(snapshot(&b).await, before);

    let report = cli.json(&arguments).await;
    assert_eq!(report["documents"], 12, "{report}");
    assert_eq!(names(&b.database("copy")).await, ["c", "logs_1", "logs_2"]);
    assert_eq!(documents(&b.database("copy"), "logs_1").await.len(), 5);
    let databases = b.list_database_names().await.unwrap();
    assert!(!databases.iter().any(|name| ["shop", "other"].contains(&name.as_str())), "{databases:?}");
    // One name does not fit two databases.
    let result = cli.run(&["import", &path, "--target", &uri, "--database", "copy"]).await;
    assert_eq!(result.code, Some(2), "{result:?}");
}

#[tokio::test]
async fn indexes_can_be_skipped_and_built_later() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await.database("d"), target.client().await.database("d"));
    for name in ["c", "e"] {
        insert(&a, name, (0..50).map(|i| doc! { "_id": i, "n": i, "u": i })).await;
        index(&a, name, doc! { "key": { "n": 1 }, "name": "n" }).await;
        index(&a, name, doc! { "key": { "u": 1 }, "name": "u", "unique": true }).await;
    }
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let (cli, uri, path) = (Cli::new(), target.uri(), path(&backup));
    let report = cli.json(&["import", &path, "--yes", "--target", &uri, "--indexes", "skip"]).await;
    assert_eq!((report["indexes"].as_u64(), report["skippedIndexes"].as_array().unwrap().len()), (Some(0), 4), "{report}");
    assert_eq!(indexes(&b, "c").await, ["_id_"]);
    // Meanwhile, a document appeared that one of them forbids, and another index.
    insert(&b, "c", [doc! { "_id": "twice", "u": 1 }]).await;
    index(&b, "c", doc! { "key": { "mine": 1 }, "name": "mine" }).await;
    let failed = cli.run(&["import", &path, "--target", &uri, "--indexes", "only", "--json"]).await;
    let report = failed.json();
    assert_eq!((failed.code, &report["success"]), (Some(1), &false.into()), "{report}");
    assert_eq!(report["failedIndexes"][0]["name"], "u", "{report}");
    assert!(report["failedIndexes"][0]["reason"].as_str().unwrap().contains("duplicate key"), "{report}");
    assert_eq!(
        (indexes(&b, "c").await, indexes(&b, "e").await),
        (vec!["_id_".into(), "mine".into(), "n".into()], vec!["_id_".into(), "n".into(), "u".into()])
    );
    assert_eq!(documents(&b, "c").await.len(), 51);
    b.collection::<Document>("c").delete_one(doc! { "_id": "twice" }).await.unwrap();
    let report = cli.json(&["import", &path, "--target", &uri, "--indexes", "only"]).await;
    assert_eq!(report["indexes"], 1, "{report}");
    assert_eq!(indexes(&b, "c").await, ["_id_", "mine", "n", "u"]);
    assert_eq!(names(&b).await, ["c", "e"]);
    // A missing collection gets no indexes, and is not created.
    b.collection::<Document>("e").drop().await.unwrap();
    let report = vault.run(&backup, &uri, &options(|o| o.indexes = IndexMode::Only)).await.unwrap();
    assert_eq!(report.failed_indexes.len(), 2);
    assert_eq!(names(&b).await, ["c"]);
}

#[tokio::test]
async fn a_login_for_one_database_imports_into_it_and_is_told_what_else_it_may_not() {
    let auth = ServerOptions { auth: true, ..ServerOptions::default() };
    let (source, target) = tokio::join!(Server::standalone(), Server::start(auth));
    let (a, b) = (source.client().await, target.client().await);
    for database in ["one", "two"] {
        insert(&a.database(database), "c", numbered(30)).await;
        index(&a.database(database), "c", doc! { "key": { "n": 1 }, "name": "n" }).await;
    }
    a.database("one").run_command(doc! { "create": "strict", "validator": { "n": 1 } }).await.unwrap();
    view(&a.database("one"), "v", "c", Vec::new()).await;
    insert(&b.database("one"), "c", [doc! { "_id": "old" }]).await;
    insert(&b.database("one"), "gone", [doc! { "_id": "old" }]).await;
    let roles = ["readWrite", "dbAdmin"].map(|role| doc! { "role": role, "db": "one" });
    target.admin(doc! { "createUser": "one", "pwd": "p", "roles": roles.to_vec() }).await.unwrap();
    let vault = Vault::new();
    let (both, one) = (vault.backup(&source, &[]).await, vault.backup(&source, &["one"]).await);
    let uri = target.uri().replace("root:secret", "one:p");
    let held = async || {
        (names(&b.database("one")).await, documents(&b.database("one"), "c").await, b.list_database_names().await.unwrap())
    };
    let before = held().await;
    let error = refused(
        vault.run(&both, &uri, &options(|_| {})).await,
        ErrorKind::Denied,
        &["collections of two", "nothing was changed"],
    );
    assert!(error.hint_text().unwrap().contains("`readWrite` and `dbAdmin`"), "{error:?}");
    assert_eq!(held().await, before);
    for mode in [ImportMode::Replace, ImportMode::Merge] {
        vault.run(&one, &uri, &options(|o| (o.mode, o.drop_extra) = (mode, true))).await.unwrap();
        assert_eq!(names(&b.database("one")).await, ["c", "strict", "v"]);
        assert_eq!(documents(&b.database("one"), "c").await, documents(&a.database("one"), "c").await);
    }
    // Time series are filled through their buckets, which needs more privileges.
    series(&a.database("one"), "series", 3).await;
    let with_series = vault.backup(&source, &["one"]).await;
    let before = held().await;
    refused(vault.run(&with_series, &uri, &options(|_| {})).await, ErrorKind::Denied, &["collections of one"]);
    assert_eq!(held().await, before);
}

/// Documents are overwritten only after consent: on a terminal, or by `--yes`.
#[tokio::test(flavor = "multi_thread")]
async fn what_holds_documents_is_not_overwritten_unasked() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await.database("d"), target.client().await);
    insert(&a, "c", numbered(5)).await;
    insert(&a, "e", numbered(2)).await;
    a.create_collection("v").view_on("c").pipeline([doc! { "$match": { "n": 1 } }]).await.unwrap();
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let (cli, path, d) = (Cli::new().env("MONGO_URI_LOCAL", target.uri()), path(&backup), b.database("d"));

    // Nothing is asked if there is nothing, an empty collection, or a view.
    cli.json(&["import", &path]).await;
    d.collection::<Document>("c").delete_many(doc! {}).await.unwrap();
    d.collection::<Document>("e").drop().await.unwrap();
    cli.json(&["import", &path]).await;

    // With documents, nothing is written, and the error names the collections and their counts.
    insert(&d, "c", [doc! { "_id": "mine" }]).await;
    insert(&d, "gone", [doc! { "_id": "mine" }]).await;
    let before = snapshot(&b).await;
    let cases: [(&[&str], &[&str]); 3] = [
        (&[], &["d.c (6 documents; replaced by 5 documents", "d.e (2 documents"]),
        (&["--mode", "merge"], &["d.c (6 documents; merged with 5 documents"]),
        (&["--drop-extra", "--mode", "add"], &["d.gone (1 document; not in the backup, dropped)"]),
    ];
    for (more, named) in cases {
        let refused = cli.run(&[&["import", path.as_str()], more].concat()).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(named.iter().all(|name| refused.stderr.contains(name)), "{}", refused.stderr);
        assert!(["--yes", "--mode", "--dry-run"].iter().all(|flag| refused.stderr.contains(flag)), "{}", refused.stderr);
        assert_eq!(snapshot(&b).await, before, "{more:?}");
    }
    let plan = cli.json(&["import", &path, "--drop-extra", "--dry-run"]).await;
    let gone = serde_json::json!({ "namespace": "d.gone", "type": "collection", "action": "dropped", "documents": 1 });
    assert_eq!((plan["overwrites"].as_array().unwrap().len(), &plan["overwrites"][2]), (3, &gone), "{plan}");

    // On a terminal, it asks.
    let on_a_terminal = async |answer: &str| {
        let mut command = cli.command(&["import", &path]);
        let program = command.get_program().to_owned();
        let script = "import os, pty, sys\npid, fd = pty.fork()\nif pid == 0: os.execv(sys.argv[2], sys.argv[2:])\nseen = b''\n\
                      while True:\n  try: more = os.read(fd, 1024)\n  except OSError: break\n  if not more: break\n  seen += more\n  \
                      if b'[y/N]' in seen and sys.argv[1]: os.write(fd, sys.argv[1].encode()); sys.argv[1] = ''\n\
                      sys.stdout.buffer.write(seen)\nsys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))";
        let mut python = std::process::Command::new("python3");
        python.args(["-c", script, answer]).arg(&program).args(command.get_args());
        python.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command = python;
        command.current_dir(cli.dir());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, shown) = on_a_terminal("n\n").await;
    assert!(code == Some(1) && shown.contains("d.c (6 documents") && shown.contains("not confirmed"), "{code:?} {shown}");
    assert_eq!(snapshot(&b).await, before);
    let (code, shown) = on_a_terminal("y\n").await;
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!((documents(&d, "c").await.len(), documents(&d, "gone").await.len()), (5, 1));

    // `--yes` is consent. Mode add needs none, since it removes nothing.
    cli.json(&["import", &path, "--mode", "add"]).await;
    cli.json(&["import", &path, "-y", "--drop-extra"]).await;
    assert_eq!(names(&d).await, ["c", "e", "v"]);

    // Documents that appear after the check are not lost.
    d.collection::<Document>("c").delete_many(doc! {}).await.unwrap();
    d.collection::<Document>("e").delete_many(doc! {}).await.unwrap();
    let slow = doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 1000, "appName": "bsonvault" };
    target.fail_command(doc! { "times": 1 }, slow).await;
    let child = cli.spawn(&["import", &path]);
    while !d.list_collection_names().await.unwrap().iter().any(|name| name.starts_with("bsonvault.staging.")) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    insert(&d, "c", [doc! { "_id": "late" }]).await;
    let refused = crate::support::cli::finish(child).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("were written to the target"), "{refused:?}");
    assert_eq!(documents(&d, "c").await.len(), 1);
}

/// Everything except the order of views, which is the order of their creation.
async fn shown(client: &mongodb::Client) -> Vec<String> {
    let mut lines = snapshot(client).await;
    lines.sort();
    lines
}

/// A login that may not use `applyOps` copies time series. Undoing takes the copy for what it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_series_that_was_copied_is_undone_without_a_loss() {
    let auth = ServerOptions { auth: true, ..ServerOptions::default() };
    let (source, target) = tokio::join!(Server::standalone(), Server::start(auth));
    let (a, b) = (source.client().await.database("one"), target.client().await.database("one"));
    series(&a, "weather", 30).await;
    series(&b, "weather", 7).await;
    let own = doc! { "createRole": "buckets", "roles": [], "privileges": [{
        "resource": { "db": "one", "system_buckets": "" }, "actions": ["find", "insert", "dropCollection"],
    }] };
    target.admin(own).await.unwrap();
    let mut roles: Vec<_> = ["readWrite", "dbAdmin"].iter().map(|role| doc! { "role": *role, "db": "one" }).collect();
    roles.push(doc! { "role": "buckets", "db": "admin" });
    target.admin(doc! { "createUser": "one", "pwd": "p", "roles": roles }).await.unwrap();
    let vault = Vault::new();
    let backup = vault.backup(&source, &["one"]).await;
    let (cli, path) = (Cli::new().env("MONGO_URI_LOCAL", target.uri().replace("root:secret", "one:p")), path(&backup));
    let before = documents(&b, "weather").await;
    cli.json(&["import", &path, "--keep-replaced", "--yes"]).await;
    assert_eq!(documents(&b, "weather").await.len(), 30);
    let undone = cli.json(&["import", "--undo-last"]).await;
    assert_eq!(undone["lost"].as_array().map(Vec::len), Some(0), "{undone}");
    assert_eq!(documents(&b, "weather").await, before);
}

/// Undo restores what an import replaced and kept: UUID, indexes, options, kind.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_is_put_back_whole() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    let (from, to) = (a.database("d"), b.database("d"));
    let series = |meta: &str| mongodb::options::TimeseriesOptions::builder().time_field("t").meta_field(meta.to_owned()).build();
    let measured = |v: &str| {
        let v = v.to_owned();
        (0..30).map(move |i| doc! { "t": DateTime::from_millis(i * 1000), "m": 1, "v": &v })
    };
    // Each kind replaces each other kind, and some exist only on one side.
    insert(&from, "c", numbered(40)).await;
    insert(&from, "made", numbered(3)).await;
    insert(&from, "was_view", numbered(1)).await;
    insert(&from, "was_series", numbered(1)).await;
    insert(&from, "system.js", [doc! { "_id": "f", "value": "new" }]).await;
    insert(&a.database("e"), "capped", numbered(9)).await;
    from.create_collection("v").view_on("c").pipeline([doc! { "$match": { "n": 1 } }]).await.unwrap();
    from.create_collection("made_view").view_on("c").await.unwrap();
    for name in ["series", "was_collection"] {
        from.create_collection(name).timeseries(series("m")).await.unwrap();
        insert(&from, name, measured("new")).await;
    }
    insert(&to, "c", [doc! { "_id": "old", "u": 1 }]).await;
    index(&to, "c", doc! { "key": { "u": 1 }, "name": "u", "unique": true }).await;
    insert(&to, "was_collection", [doc! { "_id": "old" }]).await;
    insert(&to, "pruned", [doc! { "_id": "old" }]).await;
    insert(&to, "system.js", [doc! { "_id": "f", "value": "old" }]).await;
    b.database("e").create_collection("capped").capped(true).size(4096).max(2).await.unwrap();
    insert(&b.database("e"), "capped", numbered(2)).await;
    to.create_collection("v").view_on("c").pipeline([doc! { "$match": { "u": 1 } }]).await.unwrap();
    to.create_collection("was_view").view_on("c").pipeline([doc! { "$limit": 1 }]).await.unwrap();
    for name in ["series", "was_series", "pruned_series"] {
        to.create_collection(name)
            .timeseries(series("m"))
            .expire_after_seconds(Duration::from_secs(1_000_000_000))
            .await
            .unwrap();
        insert(&to, name, measured("old")).await;
    }
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let (cli, path) = (Cli::new().env("MONGO_URI_LOCAL", target.uri()), path(&backup));
    let import = ["import", &path, "--drop-extra", "--keep-replaced", "--yes"];
    let undo = ["import", "--undo-last"];
    let before = shown(&b).await;

    // Nothing to undo, and options that cannot be combined with keeping.
    for verb in ["--undo-last", "--drop-replaced"] {
        let none = cli.run(&["import", verb]).await;
        assert!(none.code == Some(1) && none.stderr.contains("nothing to undo"), "{none:?}");
    }
    for more in [["--mode", "merge"], ["--mode", "add"], ["--indexes", "only"]] {
        assert_eq!(cli.run(&[&import[..1], &[&path, "--keep-replaced"], &more].concat()).await.code, Some(2), "{more:?}");
    }
    assert_eq!(cli.run(&["import", "--undo-last", &path]).await.code, Some(2));

    // Kept under names that the report lists, not part of a backup; then restored.
    let report = cli.json(&import).await;
    let kept: BTreeMap<&str, Option<&str>> =
        report["kept"].as_array().unwrap().iter().map(|k| (k["namespace"].as_str().unwrap(), k["keptAs"].as_str())).collect();
    assert_eq!((kept.len(), kept["d.v"], kept["d.was_view"]), (10, None, None), "{report}");
    let imported = shown(&b).await;
    let (_, place) = kept["d.c"].unwrap().split_once('.').unwrap();
    assert_eq!(indexes(&to, place).await, ["_id_", "u"]);
    let held = cli.json(&["backup", "--source", &target.uri()]).await;
    assert!(!held["collections"].to_string().contains("bsonvault.kept"), "{held}");
    assert!(cli.json(&["check"]).await.to_string().contains("1 import can be undone; collections kept for that: 8"));
    let dry = cli.json(&[&undo[..], &["--dry-run"]].concat()).await;
    assert_eq!((&dry["lost"], dry["restored"].as_array().unwrap().len()), (&serde_json::json!([]), 10), "{dry}");
    assert_eq!(shown(&b).await, imported);
    cli.json(&undo).await;
    assert_eq!(shown(&b).await, before);

    // The output names what would be lost, which requires `--yes`.
    let report = cli.json(&import).await;
    let place = |name: &str| {
        let kept = report["kept"].as_array().unwrap().iter().find(|k| k["namespace"] == name).unwrap();
        kept["keptAs"].as_str().unwrap().split_once('.').unwrap().1.to_owned()
    };
    insert(&to, "c", [doc! { "_id": "later" }]).await;
    to.collection::<Document>(&place("d.pruned")).drop().await.unwrap();
    // As many documents as before, but different ones.
    to.collection::<Document>("was_view").update_one(doc! {}, doc! { "$set": { "n": 99 } }).await.unwrap();
    insert(&to, &place("d.was_collection"), [doc! { "_id": "later" }]).await;
    // A collection that the import created is gone, and something else is in its place.
    to.collection::<Document>("made_view").drop().await.unwrap();
    insert(&to, "made_view", [doc! { "_id": "mine" }]).await;
    // Someone has restored it by hand.
    b.database("e").collection::<Document>("capped").drop().await.unwrap();
    let back = doc! { "renameCollection": format!("e.{}", place("e.capped")), "to": "e.capped" };
    b.database("admin").run_command(back).await.unwrap();
    let changed = shown(&b).await;
    let refused = cli.run(&undo).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    for part in [
        "d.c was written to since the import",
        "the kept version of d.pruned is gone",
        "d.was_view was written to since the import, which would be lost: 1 document then, 1 document now",
        "was_collection was written to since it was kept: 1 document then, 2 documents now",
        "d.made_view is not the collection that the import created: it stays (1 document now)",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert!(!refused.stderr.contains("e.capped"), "{}", refused.stderr);
    assert_eq!(shown(&b).await, changed);
    cli.json(&[&undo[..], &["--yes"]].concat()).await;
    assert!(!names(&to).await.contains(&"pruned".to_owned()));
    assert_eq!((documents(&to, "c").await.len(), documents(&to, "made_view").await.len()), (1, 1));
    assert_eq!(documents(&b.database("e"), "capped").await.len(), 2);

    // If an undo is killed halfway, it is finished later. The last import is undone first.
    let first = shown(&b).await;
    for arguments in [&import[..], &undo] {
        let slow =
            doc! { "failCommands": ["renameCollection"], "blockConnection": true, "blockTimeMS": 3000, "appName": "bsonvault" };
        target.fail_command(doc! { "skip": 2 }, slow).await;
        let mut child = cli.spawn(arguments);
        let record = to.collection::<Document>("bsonvault.import");
        while record.count_documents(doc! { "steps": { "$exists": true } }).await.unwrap() == 0 {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        target.fail_no_more().await;
        cli.json(&["import", "--cleanup"]).await;
        match arguments.len() {
            2 => assert_eq!(shown(&b).await, first),
            _ => assert_eq!(documents(&to, "c").await.len(), 40),
        }
    }
    // Data that appears under a name between the two renames is not lost.
    let slow =
        doc! { "failCommands": ["renameCollection"], "blockConnection": true, "blockTimeMS": 1000, "appName": "bsonvault" };
    target.fail_command("alwaysOn", slow).await;
    let child = cli.spawn(&import);
    let c = to.collection::<Document>("c");
    let is_gone = async || !names(&to).await.contains(&"c".to_owned());
    while !is_gone().await {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    c.insert_one(doc! { "_id": "between" }).await.unwrap();
    let imported = crate::support::cli::finish(child).await;
    target.fail_no_more().await;
    assert_eq!((imported.code, documents(&to, "c").await.len()), (Some(0), 40), "{imported:?}");
    let mut between = Vec::new();
    for name in to.list_collection_names().await.unwrap().iter().filter(|name| name.starts_with("bsonvault.kept.")) {
        let found = to.collection::<Document>(name).count_documents(doc! { "_id": "between" }).await.unwrap();
        between.extend((found > 0).then_some(name.clone()));
    }
    assert_eq!(between.len(), 1, "{between:?}");
    // The last one is undone first.
    insert(&to, "c", [doc! { "_id": "before the second" }]).await;
    cli.json(&import).await;
    cli.json(&undo).await;
    assert_eq!(documents(&to, "c").await.len(), 41);
    cli.json(&import).await;
    let refused = cli.run(&["import", "--drop-replaced"]).await;
    assert!(refused.code == Some(2) && refused.stderr.contains("kept of imports would be dropped"), "{refused:?}");
    assert!(names(&to).await.iter().any(|name| name.contains("bsonvault")));
    let dropped = cli.json(&["import", "--drop-replaced", "--yes"]).await;
    assert_eq!(dropped["backups"].as_array().unwrap().len(), 2, "{dropped}");
    assert_eq!(names(&to).await.iter().filter(|name| name.contains("bsonvault")).count(), 0);
}
