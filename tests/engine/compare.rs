//! Comparisons of two deployments: what is found and named, when each side is read, and what is
//! refused.

use std::time::Duration;

use bson::{Document, doc};
use bsonvault::context::Context;
use bsonvault::engine::Tuning;
use bsonvault::engine::compare::{self, CompareOptions, CompareReport, DocumentDifferences, HowDocument, NamedDocument, What};
use bsonvault::error::{Error, ErrorKind};
use bsonvault::mongo::{MongoUri, Role};
use bsonvault::names::{NamespaceFilter, NamespaceRename};
use mongodb::{Client, Database};
use serde_json::json;

use crate::support::data::{insert, numbered};
use crate::support::server::{Server, ServerOptions};
use crate::support::vault::{Vault, filter, of_databases};
use crate::support::zoo::{self, ZooOptions};

async fn compared(source: &Server, target: &Server, options: &CompareOptions) -> Result<CompareReport, Error> {
    by_uri(&source.uri(), &target.uri(), options).await
}

async fn by_uri(source: &str, target: &str, options: &CompareOptions) -> Result<CompareReport, Error> {
    let source = MongoUri::parse(Role::Source, source).unwrap();
    let target = MongoUri::parse(Role::Target, target).unwrap();
    compare::run(&source, &target, options, &Context::default()).await
}

fn all() -> CompareOptions {
    CompareOptions::default()
}

fn on(filter: NamespaceFilter) -> CompareOptions {
    CompareOptions { filter, ..all() }
}

fn renaming(filter: NamespaceFilter, rules: &[&str]) -> CompareOptions {
    CompareOptions { filter, renames: rules.iter().map(|rule| NamespaceRename::parse(rule).unwrap()).collect(), ..all() }
}

/// Ranges of this many bytes, so that small collections have several.
fn divided(range_bytes: u64) -> CompareOptions {
    CompareOptions { tuning: Tuning { range_bytes: Some(range_bytes), ..Tuning::default() }, ..all() }
}

/// Every difference as `NAMESPACE WHAT`, and the name of what has one.
fn told(report: &CompareReport) -> Vec<String> {
    let told = report.differences.iter().map(|difference| {
        let what = match &difference.what {
            What::Missing => "missing".to_owned(),
            What::Extra => "extra".to_owned(),
            What::Type { source, target } => format!("type {source} {target}"),
            What::Option { name, .. } => format!("option {name}"),
            What::Index { name, source, target } => format!("index {name} {} {}", source.is_some(), target.is_some()),
            What::Documents(found) => format!("documents {} {} {}", found.differing, found.missing, found.extra),
            What::Order => "order".to_owned(),
        };
        format!("{} {what}", difference.namespace)
    });
    told.collect()
}

fn documents(report: &CompareReport) -> &DocumentDifferences {
    let found = report.differences.iter().find_map(|difference| match &difference.what {
        What::Documents(found) => Some(found),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no documents differ: {report:?}"))
}

fn named(id: impl Into<serde_json::Value>, what: HowDocument) -> NamedDocument {
    NamedDocument { id: id.into(), what }
}

async fn two_standalones() -> (Server, Server, Client, Client) {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    (source, target, a, b)
}

async fn set(database: &Database, collection: &str, id: impl Into<bson::Bson>, n: i32) {
    let collection = database.collection::<Document>(collection);
    let changed = collection.update_one(doc! { "_id": id.into() }, doc! { "$set": { "n": n } }).await.unwrap();
    assert_eq!(changed.modified_count, 1);
}

#[tokio::test]
async fn one_of_everything_is_the_same_after_it_was_restored_and_one_changed_byte_is_named() {
    let (source, target) = tokio::join!(Server::replica_set("source"), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    zoo::fill(&a, &ZooOptions { seed: 5, docs: 600, large: false, false_column: true }).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    vault.import(&backup, &target.uri()).await.unwrap();

    for options in [all(), divided(20_000)] {
        let report = compared(&source, &target, &options).await.unwrap();
        assert_eq!(told(&report), [""; 0]);
        assert!(report.same && report.namespaces > 50, "{report:?}");
        assert_eq!(report.documents, backup.manifest.totals.documents);
        assert_eq!(report.collections.len(), backup.manifest.collections.len());
        // The digests are those of the backup.
        for (compared, stored) in report.collections.iter().zip(&backup.manifest.collections) {
            assert_eq!(compared.namespace, stored.namespace().to_string());
            if let (Some(one), Some(other)) = (compared.source, compared.target) {
                assert_eq!((one.digest, one.documents), (stored.digest, stored.documents), "{}", compared.namespace);
                assert_eq!(one, other);
            }
        }
        // A replica set is read at one time, a standalone server is not.
        assert!(report.source.at.is_some() && report.source.as_it_was.is_none(), "{:?}", report.source);
        assert_eq!(report.source.exceptions, []);
        assert!(report.target.at.is_none() && report.target.as_it_was.is_some(), "{:?}", report.target);
    }

    // One byte in each of a few kinds of collections.
    let people = b.database("zoo").collection::<Document>("people");
    let one = people.find_one(doc! {}).await.unwrap().unwrap();
    people.update_one(doc! { "_id": one.get("_id").unwrap() }, doc! { "$set": { "changed": 1 } }).await.unwrap();
    let report = compared(&source, &target, &all()).await.unwrap();
    assert_eq!(told(&report), ["zoo.people documents 1 0 0"]);
    let id = one.get("_id").unwrap().clone().into_relaxed_extjson();
    assert_eq!(documents(&report).ids, [named(id, HowDocument::Differs)]);
    assert!(documents(&report).complete && !report.same);
    let people: Vec<_> = report.collections.iter().filter(|c| !c.same).map(|c| c.namespace.as_str()).collect();
    assert_eq!(people, ["zoo.people"]);
}

#[tokio::test]
async fn documents_that_differ_are_found_in_large_ranges_and_small_ones() {
    let (source, target, a, b) = two_standalones().await;
    let of = |n: i32| doc! { "_id": n, "n": 0 };
    for client in [&a, &b] {
        insert(&client.database("d"), "c", (0..30_000).map(of)).await;
        // With a collation, ranges are expressions; and `_id`s of several types.
        let collated = doc! { "create": "collated", "collation": { "locale": "fr", "strength": 1 } };
        client.database("d").run_command(collated).await.unwrap();
        let ids = (0..6_000).map(|n| {
            if n % 2 == 0 {
                doc! { "_id": n, "n": 0 }
            } else {
                doc! { "_id": format!("é{n}"), "n": 0 }
            }
        });
        insert(&client.database("d"), "collated", ids).await;
    }
    let (x, y) = (a.database("d"), b.database("d"));
    for n in [0, 14_999, 29_999] {
        set(&y, "c", n, 1).await;
    }
    let there = y.collection::<Document>("c");
    there.delete_many(doc! { "_id": { "$gte": 7_000, "$lt": 7_002 } }).await.unwrap();
    insert(&y, "c", [doc! { "_id": bson::Bson::MaxKey }, doc! { "_id": "more" }]).await;
    set(&x, "collated", "é4001", 1).await;

    // In one range, in many, and in more than there are documents to divide by.
    for options in [all(), divided(40_000), divided(400_000)] {
        let report = compared(&source, &target, &options).await.unwrap();
        assert_eq!(told(&report), ["d.c documents 3 2 2", "d.collated documents 1 0 0"]);
        let mut found = documents(&report).ids.clone();
        found.sort_by_key(|document| document.id.to_string());
        let expected = [
            named("more", HowDocument::Extra),
            named(0, HowDocument::Differs),
            named(14_999, HowDocument::Differs),
            named(29_999, HowDocument::Differs),
            named(7_000, HowDocument::Missing),
            named(7_001, HowDocument::Missing),
            named(json!({ "$maxKey": 1 }), HowDocument::Extra),
        ];
        assert_eq!(found, expected);
        assert!(documents(&report).complete);
        let sums: Vec<u64> =
            report.collections.iter().flat_map(|c| [c.source.unwrap().documents, c.target.unwrap().documents]).collect();
        assert_eq!(sums, [30_000, 30_000, 6_000, 6_000]);
        assert_eq!(report.documents, 36_000);
    }
}

#[tokio::test]
async fn of_many_documents_that_differ_the_first_are_named_and_all_are_counted() {
    let (source, target, a, b) = two_standalones().await;
    let side = |n: i32| (0..12_000).map(move |id| doc! { "_id": id, "n": n });
    insert(&a.database("d"), "changed", side(0)).await;
    insert(&b.database("d"), "changed", side(1)).await;
    // No `_id` in common, and only one side with documents.
    insert(&a.database("d"), "apart", (0..9_000).map(|n| doc! { "_id": 2 * n })).await;
    insert(&b.database("d"), "apart", (0..9_000).map(|n| doc! { "_id": 2 * n + 1 })).await;
    insert(&a.database("d"), "gone", side(0)).await;
    b.database("d").create_collection("gone").await.unwrap();
    let report = compared(&source, &target, &all()).await.unwrap();
    assert_eq!(told(&report), ["d.apart documents 0 9000 9000", "d.changed documents 12000 0 0", "d.gone documents 0 12000 0"]);
    for difference in &report.differences {
        let What::Documents(found) = &difference.what else { panic!("{difference:?}") };
        assert!(found.complete && found.ids.len() == 100, "{}: {} named", difference.namespace, found.ids.len());
    }
}

#[tokio::test]
async fn kinds_options_indexes_views_and_order_are_compared() {
    let (source, target, a, b) = two_standalones().await;
    let (x, y) = (a.database("d"), b.database("d"));
    for database in [&x, &y] {
        insert(database, "indexed", numbered(3)).await;
        let index = doc! { "createIndexes": "indexed", "indexes": [
            { "key": { "n": 1 }, "name": "n", "expireAfterSeconds": 60 }, { "key": { "pad": 1, "n": 1 }, "name": "both" },
        ] };
        database.run_command(index).await.unwrap();
        let view = doc! { "create": "view", "viewOn": "indexed", "pipeline": [{ "$match": { "n": { "$gt": 1 } } }] };
        database.run_command(view).await.unwrap();
        for capped in ["kept", "turned"] {
            database.run_command(doc! { "create": capped, "capped": true, "size": 100_000 }).await.unwrap();
        }
        insert(database, "kept", (0..5).map(|n| doc! { "_id": n })).await;
        database.run_command(doc! { "create": "valid", "validator": { "a": { "$gt": 0 } } }).await.unwrap();
    }
    insert(&x, "turned", (0..5).map(|n| doc! { "_id": n })).await;
    insert(&y, "turned", (0..5).rev().map(|n| doc! { "_id": n })).await;
    insert(&x, "kind", numbered(3)).await;
    y.run_command(doc! { "create": "kind", "viewOn": "indexed", "pipeline": [] }).await.unwrap();
    insert(&x, "only_here", numbered(1)).await;
    insert(&y, "only_there", numbered(1)).await;
    insert(&b.database("other"), "c", numbered(1)).await;

    let expected =
        ["d.kind type collection view", "d.only_here missing", "d.only_there extra", "d.turned order", "other.c extra"];
    let report = compared(&source, &target, &all()).await.unwrap();
    assert_eq!(told(&report), expected);
    let turned = report.collections.iter().find(|c| c.namespace == "d.turned").unwrap();
    let (one, other) = (turned.source.unwrap(), turned.target.unwrap());
    assert!(one.digest == other.digest && one.order.is_some() && one.order != other.order, "{turned:?}");
    assert_eq!(report.namespaces, 9);

    y.run_command(doc! { "collMod": "indexed", "index": { "name": "n", "expireAfterSeconds": 61 } }).await.unwrap();
    y.run_command(doc! { "dropIndexes": "indexed", "index": "both" }).await.unwrap();
    y.run_command(doc! { "createIndexes": "indexed", "indexes": [{ "key": { "pad": 1 }, "name": "more" }] }).await.unwrap();
    y.run_command(doc! { "collMod": "valid", "validator": { "a": { "$gt": 1 } }, "validationLevel": "moderate" }).await.unwrap();
    y.run_command(doc! { "collMod": "view", "viewOn": "indexed", "pipeline": [{ "$match": { "n": { "$gt": 2 } } }] })
        .await
        .unwrap();
    set(&y, "kept", 3, 1).await;
    let report = compared(&source, &target, &on(of_databases(&["d"]))).await.unwrap();
    assert_eq!(
        told(&report),
        [
            "d.indexed index both true false",
            "d.indexed index more false true",
            "d.indexed index n true true",
            "d.kept documents 1 0 0",
            "d.kind type collection view",
            "d.only_here missing",
            "d.only_there extra",
            "d.turned order",
            "d.valid option validationAction",
            "d.valid option validationLevel",
            "d.valid option validator",
            "d.view option pipeline",
        ]
    );
    let index = report.differences.iter().find_map(|d| match &d.what {
        What::Index { name, source, target } if name == "n" => Some((source.clone().unwrap(), target.clone().unwrap())),
        _ => None,
    });
    let (one, other) = index.unwrap();
    assert_eq!(
        (&one["expireAfterSeconds"], &other["expireAfterSeconds"]),
        (&json!({ "$numberInt": "60" }), &json!({ "$numberInt": "61" }))
    );
}

#[tokio::test]
async fn names_follow_renames_and_filters_choose() {
    let server = Server::replica_set("one").await;
    let client = server.client().await;
    for name in ["shop", "copy"] {
        let database = client.database(name);
        insert(&database, "orders", numbered(20)).await;
        insert(&database, if name == "copy" { "buyers" } else { "customers" }, numbered(5)).await;
        let view = doc! { "create": "view", "viewOn": "orders", "pipeline": [
            { "$lookup": { "from": if name == "copy" { "buyers" } else { "customers" }, "as": "c", "pipeline": [] } },
        ] };
        database.run_command(view).await.unwrap();
    }
    insert(&client.database("copy"), "more", numbered(1)).await;
    let shop = of_databases(&["shop"]);

    // One deployment, two names.
    let rules = ["shop.customers=copy.buyers", "shop.*=copy.*"];
    let report = compared(&server, &server, &renaming(shop.clone(), &rules)).await.unwrap();
    assert_eq!(told(&report), ["shop.more extra"]);
    assert_eq!(report.differences[0].target_namespace, "copy.more");
    let names: Vec<_> = report.collections.iter().map(|c| (c.namespace.as_str(), c.target_namespace.as_str())).collect();
    assert_eq!(names, [("shop.customers", "copy.buyers"), ("shop.orders", "copy.orders"), ("shop.view", "copy.view")]);
    // Both sides are read at their own time.
    assert!(report.source.at.is_some() && report.target.at.is_some());

    // Without the first rule, a view reads something else.
    let report = compared(&server, &server, &renaming(shop.clone(), &rules[1..])).await.unwrap();
    assert_eq!(told(&report), ["shop.buyers extra", "shop.customers missing", "shop.more extra", "shop.view option pipeline"]);

    // Patterns are over the source's names.
    let some = NamespaceFilter { databases: vec!["shop".to_owned()], ..filter(&["shop.o*"], &[]) };
    let report = compared(&server, &server, &renaming(some, &rules[1..])).await.unwrap();
    assert!(report.same && report.namespaces == 1, "{report:?}");
    let without = NamespaceFilter { databases: vec!["shop".to_owned()], ..filter(&[], &["shop.more"]) };
    let report = compared(&server, &server, &renaming(without, &rules)).await.unwrap();
    assert!(report.same, "{report:?}");

    // The databases in both paths.
    let path = |name: &str| server.uri().replace("/?", &format!("/{name}?"));
    let report =
        by_uri(&path("shop"), &path("copy"), &on(filter(&[], &["shop.customers", "shop.more", "shop.view"]))).await.unwrap();
    assert_eq!(told(&report), ["shop.buyers extra"]);
}

#[tokio::test]
async fn what_belongs_to_servers_and_to_this_program_is_not_compared() {
    let (source, target, a, b) = two_standalones().await;
    insert(&a.database("d"), "c", numbered(3)).await;
    insert(&b.database("d"), "c", numbered(3)).await;
    insert(&b.database("bsonvault"), "sync", numbered(3)).await;
    insert(&b.database("d"), "bsonvault.import", numbered(1)).await;
    insert(&b.database("d"), "bsonvault.kept.c", numbered(1)).await;
    insert(&a.database("local"), "c", numbered(1)).await;
    let report = compared(&source, &target, &all()).await.unwrap();
    assert!(report.same && report.namespaces == 1, "{report:?}");
    let left_out: Vec<_> = report.target.left_out.iter().map(|l| format!("{}.{}", l.database, l.collection)).collect();
    assert_eq!(left_out, ["d.bsonvault.import", "d.bsonvault.kept.c", "bsonvault.sync"]);
}

#[tokio::test]
async fn a_replica_set_that_is_written_to_is_read_at_one_time() {
    let (source, target) = tokio::join!(Server::replica_set("source"), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    for client in [&a, &b] {
        insert(&client.database("d"), "c", numbered(4_000)).await;
        insert(&client.database("d"), "later", numbered(10)).await;
    }
    // The reads of the source wait until documents were changed, added and deleted.
    source.slow_down(&["find"], 1_500).await;
    let writes = async {
        tokio::time::sleep(Duration::from_millis(4_000)).await;
        let database = a.database("d");
        set(&database, "c", 7, 99).await;
        set(&database, "later", 9, 99).await;
        insert(&database, "c", [doc! { "_id": "more" }]).await;
        database.collection::<Document>("c").delete_one(doc! { "_id": 100 }).await.unwrap();
    };
    let options =
        CompareOptions { tuning: Tuning { readers: Some(1), range_bytes: Some(200_000), ..Tuning::default() }, ..all() };
    let (report, ()) = tokio::join!(compared(&source, &target, &options), writes);
    let report = report.unwrap();
    assert!(source.fail_no_more().await > 5);
    assert!(report.milliseconds > 6_000, "the writes came too late: {report:?}");
    assert_eq!(told(&report), [""; 0]);
    // Now they are found.
    let report = compared(&source, &target, &all()).await.unwrap();
    assert_eq!(told(&report), ["d.c documents 1 1 1", "d.later documents 1 0 0"]);
}

#[tokio::test]
async fn a_side_whose_history_is_over_is_read_as_it_is_and_that_is_said() {
    let options = ServerOptions {
        repl_set: Some("short".to_owned()),
        parameters: vec![("minSnapshotHistoryWindowInSeconds".to_owned(), "0".to_owned())],
        ..ServerOptions::default()
    };
    let (source, target) = tokio::join!(Server::start(options), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    for client in [&a, &b] {
        insert(&client.database("d"), "c", numbered(3_000)).await;
    }
    source.slow_down(&["find"], 1_500).await;
    let writes = async {
        for n in 0..60 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            insert(&a.database("w"), "c", [doc! { "n": n }]).await;
        }
    };
    let report = async {
        let report = compared(&source, &target, &on(of_databases(&["d"]))).await;
        source.fail_no_more().await;
        report.unwrap()
    };
    let (report, ()) = tokio::join!(report, writes);
    assert!(report.same, "{report:?}");
    let why = report.source.as_it_was.unwrap();
    assert!(report.source.at.is_none() && why.contains("it keeps 0 seconds (minSnapshotHistoryWindowInSeconds)"), "{why}");
}

#[tokio::test]
async fn a_capped_collection_that_is_written_to_is_an_exception() {
    let (source, target) = tokio::join!(Server::replica_set("source"), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    for client in [&a, &b] {
        client.database("d").run_command(doc! { "create": "c", "capped": true, "size": 1_000_000 }).await.unwrap();
        insert(&client.database("d"), "c", numbered(10)).await;
    }
    let report = compared(&source, &target, &all()).await.unwrap();
    assert!(report.same && report.source.exceptions.is_empty(), "{report:?}");
    // It is written to once its read has begun.
    let slow = doc! { "failCommands": ["find"], "appName": "bsonvault", "blockConnection": true, "blockTimeMS": 2_000 };
    let before = source.fail_command("alwaysOn", slow).await;
    let writes = async {
        let entered = doc! { "waitForFailPoint": "failCommand", "timesEntered": before + 1, "maxTimeMS": 30_000 };
        source.admin(entered).await.unwrap();
        insert(&a.database("d"), "c", [doc! { "_id": "more" }]).await;
    };
    let options = all();
    let (report, ()) = tokio::join!(compared(&source, &target, &options), writes);
    source.fail_no_more().await;
    let report = report.unwrap();
    assert_eq!(told(&report), ["d.c documents 0 1 0"]);
    let exceptions: Vec<_> = report.source.exceptions.iter().map(|e| (e.collection.as_str(), e.reason.as_str())).collect();
    assert_eq!(exceptions, [("c", "capped, and written to while it was compared")]);
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused_with_what_to_do() {
    let (source, target, a, b) = two_standalones().await;
    let refused = async |options: CompareOptions| compared(&source, &target, &options).await.unwrap_err();
    let error = refused(all()).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("there is nothing to compare"), "{error}");

    insert(&a.database("d"), "c", numbered(3)).await;
    insert(&a.database("d"), "e", numbered(3)).await;
    insert(&b.database("d"), "c", numbered(3)).await;
    for (options, kind, what) in [
        (
            on(filter(&["d.x*"], &[])),
            ErrorKind::NotFound,
            "the pattern \"d.x*\" matches no namespace of the source or the target",
        ),
        (on(filter(&[], &["nothing.*"])), ErrorKind::NotFound, "the pattern \"nothing.*\" matches"),
        (on(filter(&[], &["d.*"])), ErrorKind::NotFound, "there is nothing to compare"),
        (on(of_databases(&["d", "none"])), ErrorKind::NotFound, "anything of the database \"none\""),
        (on(of_databases(&["admin"])), ErrorKind::Usage, "the database admin belongs to the deployment and is not compared"),
        (renaming(filter(&[], &[]), &["x.*=y.*"]), ErrorKind::NotFound, "\"x.*=y.*\" matches no namespace"),
        (renaming(filter(&[], &[]), &["d.e=d.c"]), ErrorKind::Usage, "d.c and d.e would both be compared with d.c"),
        (renaming(filter(&[], &[]), &["d.e=admin.c"]), ErrorKind::Usage, "the database admin belongs to the server"),
    ] {
        let error = refused(options).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(what), "{what:?} is not in {error}");
        assert!(error.hint_text().is_some(), "{error}");
    }

    let error = compared(&source, &source, &all()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("the same deployment, and d.c would be compared with itself"), "{error}");

    let nobody = "mongodb://127.0.0.1:1/?directConnection=true&serverSelectionTimeoutMS=300";
    for (one, other, name) in [(source.uri(), nobody.to_owned(), "target"), (nobody.to_owned(), target.uri(), "source")] {
        let error = by_uri(&one, &other, &all()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(error.to_string().contains(&format!("the {name} does not answer")), "{error}");
    }
}

#[tokio::test]
async fn a_login_that_may_not_read_the_target_is_told_which_right_it_lacks() {
    let (source, target) =
        tokio::join!(Server::standalone(), Server::start(ServerOptions { auth: true, ..ServerOptions::default() }));
    insert(&source.client().await.database("d"), "c", numbered(3)).await;
    insert(&target.client().await.database("d"), "c", numbered(3)).await;
    target.admin(doc! { "createUser": "other", "pwd": "p", "roles": [{ "role": "read", "db": "other" }] }).await.unwrap();
    let login = |user: &str| format!("mongodb://{user}:p@{}/?directConnection=true&authSource=admin", target.host());
    let error = by_uri(&source.uri(), &login("other"), &on(of_databases(&["d"]))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("the target denies it"), "{error}");
    assert!(error.hint_text().unwrap().contains("`readAnyDatabase`"), "{error:?}");

    // Reading is all it needs.
    target.admin(doc! { "createUser": "reader", "pwd": "p", "roles": [{ "role": "read", "db": "d" }] }).await.unwrap();
    let report = by_uri(&source.uri(), &login("reader"), &on(of_databases(&["d"]))).await.unwrap();
    assert!(report.same, "{report:?}");
}

#[tokio::test]
async fn it_ends_soon_when_it_is_stopped() {
    let (source, target, a, b) = two_standalones().await;
    for client in [&a, &b] {
        insert(&client.database("d"), "c", numbered(50)).await;
    }
    target.slow_down(&["find"], 30_000).await;
    let cx = Context::default();
    let (one, other) = (source.uri(), target.uri());
    let (one, other) = (MongoUri::parse(Role::Source, &one).unwrap(), MongoUri::parse(Role::Target, &other).unwrap());
    let options = all();
    let work = compare::run(&one, &other, &options, &cx);
    let stop = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        cx.cancel.cancel();
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(work, stop).0 }).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);
    target.fail_no_more().await;
}
