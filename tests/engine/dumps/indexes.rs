//! Indexes in dumps of every age: in an old server's list, and with values that newer servers
//! refuse.

use std::path::Path;

use bson::{Document, RawDocumentBuf, doc, rawdoc};
use futures::TryStreamExt as _;
use mongodb::Client;
use serde_json::Value;

use super::maker::Maker;

use crate::support::cli::Cli;
use crate::support::server::Server;

fn bytes(documents: &[RawDocumentBuf]) -> Vec<u8> {
    documents.iter().flat_map(|d| d.as_bytes().to_vec()).collect()
}

/// The list of a 2.4 server for `shop.users`, and for a dropped collection.
fn listed() -> Vec<RawDocumentBuf> {
    vec![
        rawdoc! { "v": 1, "key": { "_id": 1 }, "ns": "shop.users", "name": "_id_" },
        rawdoc! { "v": 1, "unique": true, "key": { "mail": 1 }, "ns": "shop.users", "name": "mail_1", "background": true },
        rawdoc! { "v": 1, "key": { "at": -1 }, "ns": "shop.users", "name": "at_-1", "expireAfterSeconds": 3600 },
        rawdoc! { "v": 1, "key": { "_id": 1 }, "ns": "shop.gone", "name": "_id_" },
    ]
}

async fn names(client: &Client, database: &str, collection: &str) -> Vec<String> {
    let listing = client.database(database).run_cursor_command(doc! { "listIndexes": collection }).await.unwrap();
    let listed: Vec<Document> = listing.try_collect().await.unwrap();
    let mut names: Vec<String> = listed.iter().map(|index| index.get_str("name").unwrap().to_owned()).collect();
    names.sort();
    names
}

fn warnings(report: &Value) -> String {
    report["leftOut"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_come_from_an_old_servers_list_where_there_is_no_metadata() {
    let root = tempfile::tempdir().unwrap();
    let shop = root.path().join("shop");
    std::fs::create_dir(&shop).unwrap();
    let users: Vec<RawDocumentBuf> = (0..9).map(|n| rawdoc! { "_id": n, "mail": format!("u{n}@x") }).collect();
    std::fs::write(shop.join("users.bson"), bytes(&users)).unwrap();
    std::fs::write(shop.join("system.indexes.bson"), bytes(&listed())).unwrap();
    // The same as an archive.
    let mut maker = Maker::new(&[("shop.users", "", ""), ("shop.system.indexes", "", "")]);
    let documents = |raw: &[RawDocumentBuf]| raw.iter().map(|d| Document::try_from(&**d).unwrap()).collect::<Vec<_>>();
    maker.segment("shop.users", &documents(&users)).end("shop.users");
    maker.segment("shop.system.indexes", &documents(&listed())).end("shop.system.indexes");
    let archive = root.path().join("users.archive");
    std::fs::write(&archive, maker.bytes()).unwrap();

    let server = Server::standalone().await;
    let client = server.client().await;
    let cli = Cli::new().env("MONGO_URI_LOCAL", server.uri());
    let expected = ["_id_", "at_-1", "mail_1"];
    let place = |path: &Path| path.to_str().unwrap().to_owned();
    let adopted = cli.json(&["adopt", &place(&shop)]).await["name"].as_str().unwrap().to_owned();
    let ways: [(&str, Vec<String>); 6] = [
        ("shop", vec!["import".into(), place(&shop), "--yes".into()]),
        ("shop", vec!["restore".into(), "--uri".into(), server.uri(), "--drop".into(), "-d".into(), "shop".into(), place(&shop)]),
        ("other", vec!["import".into(), place(&shop), "--database".into(), "other".into()]),
        ("one", vec!["import".into(), place(&shop.join("users.bson")), "--database".into(), "one".into()]),
        ("packed", vec!["import".into(), place(&archive), "--database".into(), "packed".into()]),
        ("adopted", vec!["import".into(), adopted, "--database".into(), "adopted".into()]),
    ];
    for (database, way) in &ways {
        cli.json(way).await;
        assert_eq!(names(&client, database, "users").await, expected, "{way:?}");
        let twice = client.database(database).collection("users").insert_one(doc! { "_id": 99, "mail": "u1@x" }).await;
        assert!(twice.is_err(), "{way:?}: the unique index is not there");
    }
    let report = cli.json(&["import", &place(&shop), "--dry-run"]).await;
    assert!(warnings(&report).contains("does not hold: gone"), "{report}");
    // From standard input, it would be known too late.
    let mut command = cli.command(&["import", "-"]);
    command.stdin(std::fs::File::open(&archive).unwrap());
    let refused = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("put the archive into a file"), "{said}");

    // Without the list, nothing is known, and a warning says so.
    std::fs::remove_file(shop.join("system.indexes.bson")).unwrap();
    let report = cli.json(&["import", &place(&shop), "--yes"]).await;
    assert!(warnings(&report).contains("shop.users has no metadata: its options and indexes are not known"), "{report}");
    assert_eq!(names(&client, "shop", "users").await, ["_id_"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn specifications_of_old_servers_are_made_such_as_servers_take() {
    let root = tempfile::tempdir().unwrap();
    let shop = root.path().join("shop");
    std::fs::create_dir(&shop).unwrap();
    std::fs::write(shop.join("c.bson"), bytes(&[rawdoc! { "_id": 1, "a": 1, "b": 1, "c": 1 }])).unwrap();
    let metadata = r#"{"options":{},"indexes":[
        {"v":0,"key":{"_id":1},"name":"_id_","ns":"shop.c","unique":true,"sparse":null},
        {"v":0,"key":{"a":1},"name":"a_1","unique":null,"background":null},
        {"v":1,"key":{"b":true},"name":"b_true","unique":"yes","sparse":0},
        {"v":1,"key":{"b":1},"name":"b_1","unique":1},
        {"v":null,"key":{"c":0},"name":"c_0","expireAfterSeconds":"60"},
        {"v":1,"key":{"c":1.0},"name":"c_1","dropDups":true},
        {"v":1,"key":{"d":-1}}]}"#;
    std::fs::write(shop.join("c.metadata.json"), metadata).unwrap();
    for version in ["6.0.5", "4.4.2"] {
        let server = Server::of_version(version).await;
        let client = server.client().await;
        let cli = Cli::new().env("MONGO_URI_LOCAL", server.uri());
        let report = cli.json(&["import", root.path().to_str().unwrap()]).await;
        assert_eq!(names(&client, "shop", "c").await, ["_id_", "a_1", "b_true", "c_0", "d_-1"], "{version}");
        let told = warnings(&report);
        for words in ["\\\"b_1\\\"", "\\\"c_1\\\"", "and build it once", "it had no name", "is of type null, and taken as false"]
        {
            assert!(told.contains(words), "{version}: {words}: {told}");
        }
        let twice = client.database("shop").collection("c").insert_one(doc! { "b": 1 }).await;
        assert!(twice.is_err(), "{version}: the unique index is not there");
        assert!(client.database("shop").collection("c").insert_one(doc! { "a": 1, "b": 2 }).await.is_ok(), "{version}");
    }
}
