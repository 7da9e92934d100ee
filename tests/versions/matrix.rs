//! Servers of different versions. A backup is restored without a difference on the same and on
//! every newer version. For an older version, everything that it cannot hold is named before
//! anything is written.
//!
//! `BSONVAULT_MATRIX` selects how much of it runs: `part` (the default), `all`, or `none` if the
//! servers are not available.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::Instant;

use bson::{Bson, Document, RawDocumentBuf, doc};
use bsonvault::engine::backup::BackupOptions;
use bsonvault::error::{Error, ErrorKind};
use bsonvault::format::key;
use bsonvault::format::manifest::{ConsistencyKind, Manifest, RawValue};
use bsonvault::repository::catalog::Backup;
use futures::TryStreamExt as _;
use mongodb::{Client, Database};

use crate::support::bank::{self, Bank, BankOptions};
use crate::support::compare::{CompareOptions, Comparison, compare};
use crate::support::server::{Server, ServerOptions};
use crate::support::vault::{self, Vault};
use crate::support::zoo::{self, ZooOptions};

/// Oldest first.
const VERSIONS: [&str; 4] = ["4.4.2", "5.0.4", "6.0.5", "6.0.27"];
/// The pairs of the default run: source and target.
const PART: [(&str, &str); 3] = [("4.4.2", "6.0.5"), ("5.0.4", "6.0.5"), ("6.0.5", "5.0.4")];

/// How much of the matrix runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    None,
    Part,
    All,
}

impl Extent {
    fn asked() -> Self {
        match std::env::var("BSONVAULT_MATRIX").as_deref() {
            Ok("all") => Self::All,
            Ok("part" | "") | Err(_) => Self::Part,
            Ok("none") => {
                // Written directly: the test harness captures printed output.
                let skipped = b"SKIPPED: BSONVAULT_MATRIX=none, so nothing is tested between servers of different versions\n";
                std::io::stderr().write_all(skipped).unwrap();
                Self::None
            }
            Ok(other) => panic!("BSONVAULT_MATRIX is {other:?}: it may be `part`, `all` or `none`"),
        }
    }

    fn pairs(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::None => Vec::new(),
            Self::Part => PART.to_vec(),
            Self::All => VERSIONS.iter().flat_map(|from| VERSIONS.map(|to| (*from, to))).collect(),
        }
    }
}

/// Something in the zoo that not every server supports: what an error must say of it, and the first
/// version that supports it.
struct Kept {
    namespace: &'static str,
    words: &'static str,
    by: &'static str,
    /// The first version on which the zoo has it.
    since: &'static str,
}

const fn kept(namespace: &'static str, words: &'static str, by: &'static str) -> Kept {
    Kept { namespace, words, by, since: by }
}

/// In the order of the manifest, which is sorted by name.
const KEPT: [Kept; 15] = [
    kept("zoo.clustered", "zoo.clustered is a clustered collection, which needs a server of 5.3 or later", "6.0.5"),
    kept("zoo.clustered_ends", "zoo.clustered_ends is a clustered collection, which needs a server of 5.3 or later", "6.0.5"),
    kept(
        "zoo.clustered_strings",
        "zoo.clustered_strings is a clustered collection, which needs a server of 5.3 or later",
        "6.0.5",
    ),
    kept("zoo.clustered_ttl", "zoo.clustered_ttl is a clustered collection, which needs a server of 5.3 or later", "6.0.5"),
    kept("zoo.indexed", "index \"double key\" of zoo.indexed has the key and the collation of another index", "5.0.4"),
    kept("zoo.indexed", "index \"unique sparse\" of zoo.indexed has the key and the collation of another index", "5.0.4"),
    kept("zoo.indexed", "index \"prepared\" of zoo.indexed is to become unique (prepareUnique)", "6.0.5"),
    Kept {
        since: "6.0.5",
        ..kept("zoo.indexed", "index \"either\" of zoo.indexed has the key and the collation of another index", "5.0.4")
    },
    kept("zoo.indexed", "index \"either\" of zoo.indexed has a partial filter with $or", "6.0.5"),
    kept("zoo.preimages", "zoo.preimages keeps pre-images for change streams, which needs a server of 6.0 or later", "6.0.5"),
    kept("zoo.weather", "zoo.weather is a time series", "5.0.4"),
    kept("zoo.weather2", "zoo.weather2 is a time series", "5.0.4"),
    kept("zoo.weather_empty", "zoo.weather_empty is a time series", "5.0.4"),
    kept("zoo.weather_hours", "zoo.weather_hours is a time series", "5.0.4"),
    kept("zoo.types", "zoo.types holds 2 documents with a field name that begins with $", "5.0.4"),
];

async fn taken(vault: &Vault, source: &Server, without: &BTreeSet<&str>) -> Backup {
    let without: Vec<&str> = without.iter().copied().collect();
    let options = BackupOptions { filter: vault::without(&without), ..BackupOptions::default() };
    let report = vault.take(&source.uri(), &options).await.unwrap();
    vault.find(&report.name).await
}

fn place(version: &str) -> usize {
    VERSIONS.iter().position(|known| *known == version).unwrap()
}

async fn compared(a: &Client, b: &Client) -> Comparison {
    let found = compare(a, b, CompareOptions { across_versions: true, ..CompareOptions::default() }).await;
    assert!(found.namespaces > 60 && found.documents > 2000, "{found:?}");
    found
}

/// The things that an error names.
fn named(error: &Error) -> Vec<String> {
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.hint_text().unwrap().contains("nothing has been changed"), "{error:?}");
    let (_, things) =
        error.to_string().split_once("cannot hold all of the backup: ").map(|(a, b)| (a.len(), b.to_owned())).unwrap();
    things.split("; ").map(str::to_owned).collect()
}

/// Everything in a target, for an import that must not change it.
async fn standing(client: &Client) -> Vec<String> {
    let mut found = Vec::new();
    for name in client.list_database_names().await.unwrap() {
        if !["admin", "config", "local"].contains(&name.as_str()) {
            for collection in client.database(&name).list_collection_names().await.unwrap() {
                let documents = client.database(&name).collection::<Document>(&collection).find(doc! {}).await.unwrap();
                found.push(format!("{name}.{collection} {:?}", documents.try_collect::<Vec<_>>().await.unwrap()));
            }
        }
    }
    found
}

/// Runs an import that must be refused because of `expected`, and nothing else.
async fn assert_refused(vault: &Vault, backup: &Backup, target: &Server, expected: &[&str]) {
    let client = target.client().await;
    client.database("zoo").collection("people").insert_one(doc! { "_id": "stays" }).await.unwrap();
    let before = standing(&client).await;
    let things = named(&vault.import(backup, &target.uri()).await.unwrap_err());
    assert_eq!(things.len(), expected.len(), "{things:#?}");
    for (thing, expected) in things.iter().zip(expected) {
        assert!(thing.starts_with(expected), "{thing:?} does not say {expected:?}");
    }
    assert!(!before.is_empty() && standing(&client).await == before, "a refused import wrote something");
    client.database("zoo").drop().await.unwrap();
}

/// Goes from a filled source to one target. Returns the table's entry for it.
async fn go(vault: &Vault, source: &Server, whole: &Backup, from: &str, to: &str) -> String {
    let target = Server::of_version(to).await;
    let (a, b) = (source.client().await, target.client().await);
    let lacks: Vec<&Kept> = KEPT.iter().filter(|k| place(k.by) > place(to) && place(from) >= place(k.since)).collect();
    // Its buckets are compressed. 5.0 accepts but cannot read them.
    let compressed = KEPT.iter().filter(|k| k.words.contains("time series") && to == "5.0.4" && place(from) > place(to));
    let mut lacks: Vec<&Kept> = lacks.into_iter().chain(compressed).collect();
    lacks.sort_by_key(|k| (k.namespace == "zoo.types", k.namespace));
    if lacks.is_empty() {
        vault.import(whole, &target.uri()).await.unwrap();
        let found = compared(&a, &b).await;
        assert_eq!(found.differences, Vec::<String>::new(), "{from} -> {to}");
        return format!("{} namespaces, {} documents, 0 differences", found.namespaces, found.documents);
    }
    let (documents, catalog): (Vec<&Kept>, Vec<&Kept>) = lacks.iter().partition(|k| k.namespace == "zoo.types");
    let words = |of: &[&Kept]| of.iter().map(|k| k.words).collect::<Vec<_>>();
    assert_refused(vault, whole, &target, &words(&catalog)).await;
    let mut without: BTreeSet<&str> = catalog.iter().map(|k| k.namespace).collect();
    if !documents.is_empty() {
        let backup = taken(vault, source, &without).await;
        assert_refused(vault, &backup, &target, &words(&documents)).await;
        without.insert("zoo.types");
    }
    // Everything else is restored there, too.
    let backup = taken(vault, source, &without).await;
    vault.import(&backup, &target.uri()).await.unwrap();
    let found = compared(&a, &b).await;
    let missing: Vec<String> = without.iter().map(|name| format!("missing {name}")).collect();
    assert_eq!(found.differences, missing, "{from} -> {to}");
    format!(
        "{} things refused by name; without them {} namespaces, 0 differences",
        lacks.len(),
        found.namespaces as usize - without.len()
    )
}

#[tokio::test]
async fn every_version_holds_what_it_can_of_every_other() {
    let pairs = Extent::asked().pairs();
    let mut table = Vec::new();
    for from in VERSIONS {
        let targets: Vec<&str> = pairs.iter().filter(|(source, _)| *source == from).map(|(_, to)| *to).collect();
        if targets.is_empty() {
            continue;
        }
        let source = Server::of_version(from).await;
        zoo::fill(&source.client().await, &ZooOptions { seed: 4, docs: 200, large: false, false_column: false }).await;
        let vault = Vault::new();
        let whole = vault.backup(&source, &[]).await;
        for to in targets {
            let begun = Instant::now();
            let outcome = go(&vault, &source, &whole, from, to).await;
            let line = format!("{from:>6} -> {to:<6}  {outcome} ({:.1} s)", begun.elapsed().as_secs_f64());
            eprintln!("{line}");
            table.push(line);
        }
    }
    if Extent::asked() == Extent::All {
        mixed_buckets_go_from_server_to_server().await;
        a_document_that_only_a_newer_server_refuses_fails_the_import().await;
    }
    eprintln!("\nmatrix of server versions, {} pairs:\n{}", table.len(), table.join("\n"));
    assert_eq!(table.len(), pairs.len());
}

async fn run(database: &Database, command: Document) {
    database.run_command(command.clone()).await.unwrap_or_else(|e| panic!("{command}: {e}"));
}

async fn indexes(database: &Database, collection: &str) -> Vec<Document> {
    let listed = database.run_cursor_command(doc! { "listIndexes": collection }).await.unwrap();
    listed.try_collect().await.unwrap()
}

/// Some things are accepted only by the older server.
#[tokio::test]
async fn what_newer_servers_no_longer_take_is_left_out_and_told() {
    let targets: &[&str] = match Extent::asked() {
        Extent::None => return,
        Extent::Part => &["6.0.5"],
        Extent::All => &["4.4.2", "5.0.4", "6.0.5", "6.0.27"],
    };
    let source = Server::of_version("4.4.2").await;
    let database = source.client().await.database("old");
    run(&database, doc! { "create": "capped", "capped": true, "size": 4096 }).await;
    run(
        &database,
        doc! { "createIndexes": "capped", "indexes": [{ "key": { "t": 1 }, "name": "ttl", "expireAfterSeconds": 100 }] },
    )
    .await;
    let indexes_of_c = [
        doc! { "key": { "t": 1 }, "name": "never", "expireAfterSeconds": f64::NAN },
        doc! { "key": { "a": "geoHaystack", "b": 1 }, "name": "hay", "bucketSize": 1 },
    ];
    run(&database, doc! { "createIndexes": "c", "indexes": &indexes_of_c[..] }).await;
    let old = bson::DateTime::from_millis(1_000_000_000_000);
    database.collection::<Document>("c").insert_one(doc! { "_id": 1, "t": old }).await.unwrap();
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    for to in targets {
        let target = Server::of_version(to).await;
        let report = vault.import(&backup, &target.uri()).await.unwrap();
        let database = target.client().await.database("old");
        let (capped, c) = (indexes(&database, "capped").await, indexes(&database, "c").await);
        let expiry = |index: &Document| index.get("expireAfterSeconds").cloned();
        assert!(capped.len() == 2 && capped[1].get_str("name").unwrap() == "ttl", "{to}: {capped:?}");
        let told: Vec<&str> = report.left_out.iter().map(String::as_str).collect();
        let says = |words: &str| told.iter().any(|line| line.contains(words));
        let newer = place(to) > 0;
        assert_eq!(c.len(), if newer { 2 } else { 3 }, "{to}: {c:?}");
        assert_eq!(says("\"hay\" of old.c"), newer, "{to}: {told:?}");
        assert_eq!(says("\"never\" of old.c: it is NaN"), newer, "{to}: {told:?}");
        // 5.0.4 would list 0, and act on it.
        let never = c.iter().find(|index| index.get_str("name").unwrap() == "never").unwrap();
        assert_eq!(expiry(never).is_some(), !newer, "{to}: {c:?}");
        let refuses = place(to) >= place("6.0.5");
        assert_eq!(says("\"ttl\" of old.capped: the target supports no expiry on a capped"), refuses, "{to}: {told:?}");
        assert_eq!(expiry(&capped[1]), (!refuses).then_some(Bson::Int32(100)), "{to}");
        assert_eq!(told.len(), if newer { 2 } else { 0 } + usize::from(refuses), "{to}: {told:?}");
    }
}

/// 5.0 puts measurements of several types into one bucket. Later patches of 6.0 mark such a time
/// series with an option, which other versions keep.
async fn mixed_buckets_go_from_server_to_server() {
    let (first, marking) = tokio::join!(Server::of_version("5.0.4"), Server::of_version("6.0.27"));
    let (third, fourth) = tokio::join!(Server::of_version("6.0.5"), Server::of_version("6.0.27"));
    let database = first.client().await.database("mixed");
    run(&database, doc! { "create": "c", "timeseries": { "timeField": "t" } }).await;
    let values = [Bson::Int32(1), Bson::String("one".to_owned()), Bson::Null];
    let measurements = (0_i64..).zip(values).map(|(i, v)| doc! { "_id": i, "t": bson::DateTime::from_millis(i), "v": v });
    database.collection::<Document>("c").insert_many(measurements).await.unwrap();
    let mut source = first;
    for target in [marking, third, fourth] {
        let vault = Vault::new();
        vault.import(&vault.backup(&source, &[]).await, &target.uri()).await.unwrap();
        let (a, b) = (source.client().await, target.client().await);
        let found = compare(&a, &b, CompareOptions { across_versions: true, ..CompareOptions::default() }).await;
        assert_eq!((found.differences, found.documents), (Vec::new(), 3));
        source = target;
    }
}

/// If a newer server refuses a document, that is not known beforehand: the server reports it when
/// it gets the document.
async fn a_document_that_only_a_newer_server_refuses_fails_the_import() {
    let (source, target) = tokio::join!(Server::of_version("6.0.5"), Server::of_version("6.0.27"));
    let false_column = Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Column, bytes: b"no column".to_vec() });
    let database = source.client().await.database("columns");
    database.collection::<Document>("c").insert_one(doc! { "_id": 1, "v": false_column }).await.unwrap();
    let vault = Vault::new();
    let error = vault.import(&vault.backup(&source, &[]).await, &target.uri()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server, "{error}");
    assert!(error.to_string().contains("inserting into columns.c: Invalid BSON column"), "{error}");
}

/// An older server itself is asked whether it understands a view or a validator.
#[tokio::test]
async fn what_the_target_does_not_understand_is_refused() {
    let targets: &[(&str, usize)] = match Extent::asked() {
        Extent::None => return,
        Extent::Part => &[("5.0.4", 4), ("6.0.5", 1)],
        Extent::All => &[("4.4.2", 8), ("5.0.4", 4), ("6.0.5", 1), ("6.0.27", 1)],
    };
    let source = Server::of_version("6.0.5").await;
    let database = source.client().await.database("asked");
    let view = |name: &str, stage: Document| doc! { "create": name, "viewOn": "nothing", "pipeline": [stage] };
    let expression = |operator: Document| doc! { "$expr": { "$eq": [operator, "$other"] } };
    run(&database, view("a_fill", doc! { "$densify": { "field": "a", "range": { "step": 1, "bounds": "full" } } })).await;
    run(&database, view("b_sorted", doc! { "$project": { "x": { "$sortArray": { "input": "$a", "sortBy": 1 } } } })).await;
    let window = doc! { "$setWindowFields": { "sortBy": { "a": 1 }, "output": {} } };
    run(&database, view("c_windows", window)).await;
    let joined = doc! { "from": "d", "localField": "a", "foreignField": "b", "pipeline": [], "as": "c" };
    run(&database, view("d_joined", doc! { "$lookup": joined })).await;
    let truncated = expression(doc! { "$dateTrunc": { "date": "$d", "unit": "day" } });
    run(&database, doc! { "create": "e_ruled", "validator": truncated }).await;
    run(&database, doc! { "create": "f_ruled", "validator": expression(doc! { "$getField": "a.b" }) }).await;
    // No server refuses it: creating such a view does not need what running it needs.
    run(&database, doc! { "create": "g_plain", "validator": { "a": { "$type": "int" } } }).await;
    run(&database, view("h_text", doc! { "$match": { "$text": { "$search": "word" } } })).await;
    run(&database, view("i_near", doc! { "$geoNear": { "near": [0, 0], "distanceField": "d", "key": "k" } })).await;
    run(&database, view("z_later", doc! { "$limit": 1 })).await;
    // Longer ago than 1970; older servers do not accept such an expiry.
    let ages = doc! { "key": { "t": 1 }, "name": "ages", "expireAfterSeconds": i32::MAX };
    run(&database, doc! { "createIndexes": "g_plain", "indexes": [ages] }).await;
    let vault = Vault::new();
    let whole = vault.backup(&source, &[]).await;
    // A stage that no server understands, like one of a newer version.
    let backup = with_pipeline(whole, doc! { "$laterStage": {} }).await;
    for (to, refused) in targets {
        let target = Server::of_version(to).await;
        let things = named(&vault.import(&backup, &target.uri()).await.unwrap_err());
        assert_eq!(things.len(), *refused, "{to}: {things:#?}");
        let all = things.join("\n");
        for (name, since) in
            [("a_fill", 2), ("b_sorted", 2), ("c_windows", 1), ("d_joined", 1), ("e_ruled", 1), ("f_ruled", 1), ("z_later", 9)]
        {
            assert_eq!(all.contains(&format!("asked.{name} ")), place(to) < since, "{to}: {things:#?}");
        }
        assert_eq!(all.contains("index \"ages\" of asked.g_plain expires after"), place(to) < 2, "{to}: {things:#?}");
        assert!(all.contains("asked.z_later is a view whose pipeline the target does not understand"), "{to}: {all}");
        assert_eq!(standing(&target.client().await).await, Vec::<String>::new());
    }
}

/// The backup with a different pipeline in its view `asked.z_later`.
async fn with_pipeline(backup: Backup, stage: Document) -> Backup {
    let Backup { store, mut manifest } = backup;
    let view = manifest.collections.iter_mut().find(|c| c.name == "z_later").unwrap();
    let options = doc! { "viewOn": "nothing", "pipeline": [stage] };
    view.options = RawValue::of(&RawDocumentBuf::try_from(&options).unwrap());
    let bytes = manifest.to_bytes().unwrap();
    let manifest = Manifest::from_bytes(&bytes).unwrap();
    store.put(key::MANIFEST, vec![bytes.into()]).await.unwrap();
    Backup { store, manifest }
}

/// A server with an older feature compatibility version supports what that version does.
#[tokio::test]
async fn a_lower_feature_compatibility_version_counts() {
    if Extent::asked() == Extent::None {
        return;
    }
    let (source, target) = tokio::join!(Server::of_version("6.0.5"), Server::of_version("6.0.5"));
    let database = source.client().await.database("fcv");
    run(&database, doc! { "create": "images", "changeStreamPreAndPostImages": { "enabled": true } }).await;
    run(&database, doc! { "create": "series", "timeseries": { "timeField": "t" } }).await;
    target.admin(doc! { "setFeatureCompatibilityVersion": "5.0" }).await.unwrap();
    let vault = Vault::new();
    let error = vault.import(&vault.backup(&source, &[]).await, &target.uri()).await.unwrap_err();
    assert!(error.to_string().contains("MongoDB 6.0.5 with the feature compatibility version 5.0, cannot hold"), "{error}");
    assert_eq!(named(&error).len(), 2, "{error}");

    let old = Server::of_version("4.4.2").await;
    old.admin(doc! { "setFeatureCompatibilityVersion": "4.2" }).await.unwrap();
    database.drop().await.unwrap();
    run(&database, doc! { "create": "n".repeat(117) }).await; // 121 bytes
    run(&database, doc! { "create": "n".repeat(116) }).await;
    let new = [
        doc! { "key": { "a": 1 }, "name": "hidden", "hidden": true },
        doc! { "key": { "a": "hashed", "b": 1 }, "name": "compound" },
        doc! { "key": { "a": "hashed" }, "name": "hashed" },
        doc! { "key": { "b": 1 }, "name": "shown", "hidden": false },
    ];
    run(&database, doc! { "createIndexes": "z", "indexes": &new[..] }).await;
    let error = vault.import(&vault.backup(&source, &[]).await, &old.uri()).await.unwrap_err();
    let things = named(&error);
    let long = format!("fcv.{} is longer than the 120 bytes", "n".repeat(117));
    let expected = [long.as_str(), "index \"hidden\" of fcv.z is hidden", "index \"compound\" of fcv.z is compound and hashed"];
    assert_eq!(things.len(), 3, "{things:#?}");
    assert!(things.iter().zip(expected).all(|(thing, expected)| thing.starts_with(expected)), "{things:#?}");

    // Without these, it is restored. If there are many, the first ones are named.
    database.collection::<Document>("z").drop_index("hidden").await.unwrap();
    database.collection::<Document>("z").drop_index("compound").await.unwrap();
    database.collection::<Document>(&"n".repeat(117)).drop().await.unwrap();
    vault.import(&vault.backup(&source, &[]).await, &old.uri()).await.unwrap();
    let (a, b) = (source.client().await, old.client().await);
    let found = compare(&a, &b, CompareOptions { across_versions: true, ..CompareOptions::default() }).await;
    assert_eq!(found.differences, Vec::<String>::new());
    for number in 0..23 {
        let by_id = doc! { "key": { "_id": 1 }, "unique": true };
        run(&database, doc! { "create": format!("clustered{number:02}"), "clusteredIndex": by_id }).await;
    }
    let things = named(&vault.import(&vault.backup(&source, &[]).await, &old.uri()).await.unwrap_err());
    assert_eq!((things.len(), things[20].as_str()), (21, "and 3 more"), "{things:#?}");
}

/// Replica sets of versions without snapshot reads, or with short ones, get a consistency point
/// from their oplog slice.
#[tokio::test]
async fn older_replica_sets_that_are_written_to_come_back_as_of_one_moment() {
    if Extent::asked() == Extent::None {
        return;
    }
    for (from, to) in [("4.4.2", "4.4.2"), ("4.4.2", "6.0.5"), ("5.0.4", "6.0.5"), ("5.0.4", "4.4.2")] {
        let options =
            ServerOptions { version: Some(from.to_owned()), repl_set: Some("older".to_owned()), ..ServerOptions::default() };
        let (source, target) = tokio::join!(Server::start(options), Server::of_version(to));
        let (a, b) = (source.client().await, target.client().await);
        let bank = Bank::start(&a, BankOptions { ddl: true, ..BankOptions::default() }).await;
        bank.wait_for(20, 20).await;
        // As if the snapshot history expired as soon as reading begins, if there is any.
        let lost = doc! { "failCommands": ["find"], "namespace": "bank.left", "errorCode": 239, "appName": "bsonvault" };
        if from != "4.4.2" {
            source.fail_command(doc! { "times": 1 }, lost).await;
        }
        let vault = Vault::new();
        let backup = vault.backup(&source, &[]).await;
        assert_eq!(backup.manifest.consistency.kind, ConsistencyKind::Oplog, "{from}");
        bank.stop().await;
        if from == "5.0.4" && to == "4.4.2" {
            let error = vault.import(&backup, &target.uri()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            assert_eq!(
                named(&error),
                ["the oplog slice has updates written as differences, which need a server of 5.0 or later"]
            );
            assert!(b.database("bank").list_collection_names().await.unwrap().is_empty());
            continue;
        }
        vault.import(&backup, &target.uri()).await.unwrap();
        assert_eq!(bank::check(&b, "bank").await, Vec::<String>::new(), "{from} -> {to}");
    }
}
