//! Documents without an `_id`, with an `_id` that is not the first field, and with duplicate
//! `_id`s: they become what a server makes of them, and the first duplicate stays.

use std::path::Path;

use bson::{Document, RawDocumentBuf, doc, rawdoc};
use bsonvault::engine::Tuning;
use bsonvault::engine::import::{ImportMode, ImportOptions};
use bsonvault::format::document::Documents;
use futures::TryStreamExt as _;
use mongodb::Client;
use serde_json::Value;

use super::import;

use crate::support::cli::Cli;
use crate::support::server::Server;
use crate::support::vault::without;

const PLAIN: &str = r#"{"options":{},"indexes":[{"v":2,"key":{"_id":1},"name":"_id_"}]}"#;
const CAPPED: &str = r#"{"options":{"capped":true,"size":100000,"max":4},"indexes":[]}"#;
const COLLATED: &str = r#"{"options":{"collation":{"locale":"en","strength":2}},"indexes":[{"v":2,"key":{"_id":1},"name":"_id_","collation":{"locale":"en","strength":2}}]}"#;

/// Writes `shop/NAME.bson` and its metadata below this path.
fn write(root: &Path, name: &str, metadata: &str, documents: &[RawDocumentBuf]) -> Vec<u8> {
    let directory = root.join("shop");
    std::fs::create_dir_all(&directory).unwrap();
    let bytes: Vec<u8> = documents.iter().flat_map(|d| d.as_bytes().to_vec()).collect();
    std::fs::write(directory.join(format!("{name}.bson")), &bytes).unwrap();
    std::fs::write(directory.join(format!("{name}.metadata.json")), metadata).unwrap();
    bytes
}

async fn found(client: &Client, name: &str) -> Vec<RawDocumentBuf> {
    let collection = client.database("shop").collection::<RawDocumentBuf>(name);
    collection.find(doc! {}).sort(doc! { "$natural": 1 }).await.unwrap().try_collect().await.unwrap()
}

/// Documents as in the file, without the `_id`s that they got.
fn without_ids(documents: &[RawDocumentBuf]) -> Vec<Document> {
    let read = documents.iter().map(|d| Document::try_from(&**d).unwrap());
    read.map(|mut d| {
        assert!(d.keys().next().is_some_and(|first| first == "_id"), "{d}");
        d.remove("_id");
        d
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_without_an_id_get_one_each_and_are_proven() {
    let root = tempfile::tempdir().unwrap();
    let bare: Vec<RawDocumentBuf> = (0..5).map(|n| rawdoc! { "a": n, "in": { "_id": n } }).collect();
    let mixed = [rawdoc! { "a": 1 }, rawdoc! { "_id": 7, "a": 2 }, rawdoc! { "a": 3, "_id": 8 }, rawdoc! {}];
    let bytes = write(root.path(), "bare", PLAIN, &bare);
    write(root.path(), "mixed", PLAIN, &mixed);
    write(root.path(), "ring", CAPPED, &(0..6).map(|n| rawdoc! { "a": n }).collect::<Vec<_>>());
    let server = Server::standalone().await;
    let client = server.client().await;

    let cli = Cli::new().env("MONGO_URI_LOCAL", server.uri());
    let report = cli.json(&["import", root.path().to_str().unwrap()]).await;
    assert_eq!((&report["givenIds"], &report["movedIds"]), (&Value::from(13), &Value::from(1)), "{report}");
    assert_eq!(report["overwritten"], 2);
    let bare_now = found(&client, "bare").await;
    let expected: Vec<Document> = bare.iter().map(|d| Document::try_from(&**d).unwrap()).collect();
    assert_eq!(without_ids(&bare_now), expected);
    let mixed_now = found(&client, "mixed").await;
    assert_eq!(mixed_now[1..3], [rawdoc! { "_id": 7, "a": 2 }, rawdoc! { "_id": 8, "a": 3 }]);
    assert_eq!(without_ids(&found(&client, "ring").await), (2..6).map(|n| doc! { "a": n }).collect::<Vec<_>>());

    // A second import in merge mode: documents with an `_id` are replaced, the others are new.
    let merge = ImportOptions { mode: ImportMode::Merge, filter: without(&["shop.ring"]), ..ImportOptions::default() };
    import(root.path(), &server.uri(), &merge).await.unwrap();
    let counts = (found(&client, "bare").await.len(), found(&client, "mixed").await.len());
    assert_eq!(counts, (10, 6));

    // An adopted backup holds the bytes of the file, is restored, and is exported unchanged.
    let adopted = cli.json(&["adopt", root.path().to_str().unwrap()]).await;
    let name = adopted["name"].as_str().unwrap();
    let drill = cli.json(&["verify", name, "--restore"]).await;
    assert_eq!(drill["collections"][0]["givenIds"], 5, "{drill}");
    let report = cli.json(&["import", name, "--yes"]).await;
    assert_eq!((&report["givenIds"], &report["movedIds"], &report["overwritten"]), (&13.into(), &1.into(), &2.into()));
    assert_eq!(without_ids(&found(&client, "bare").await), expected);
    let out = root.path().join("out");
    cli.json(&["export", name, "--format", "dir", "--out", out.to_str().unwrap()]).await;
    assert_eq!(std::fs::read(out.join("shop/bare.bson")).unwrap(), bytes);
}

/// The server executes a command, but its reply is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_sent_again_does_not_give_new_ids() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "bare", PLAIN, &(0..500).map(|n| rawdoc! { "a": n }).collect::<Vec<_>>());
    let server = Server::replica_set("target").await;
    let lost = doc! { "failCommands": ["insert"], "writeConcernError": { "code": 91, "errmsg": "shutting down" } };
    server.fail_command(doc! { "times": 3 }, lost).await;
    let report = import(root.path(), &server.uri(), &ImportOptions::default()).await.unwrap();
    assert_eq!((report.documents, report.given_ids), (500, 500));
    assert_eq!(found(&server.client().await, "bare").await.len(), 500);
}

/// More than a frame, several writers, and `_id`s that are equal by type or by collation: the first
/// one in the file stays.
#[tokio::test(flavor = "multi_thread")]
async fn of_documents_with_one_id_the_first_of_the_dump_stays() {
    let root = tempfile::tempdir().unwrap();
    let pad = "x".repeat(20_000);
    // Each `_id` four times, either a few documents or several frames apart.
    let numbers: Vec<RawDocumentBuf> = (0..1600)
        .map(|n| match n % 400 {
            id if n < 400 => rawdoc! { "_id": id, "n": n, "pad": pad.as_str() },
            id if n < 800 => rawdoc! { "n": n, "_id": f64::from(id), "pad": pad.as_str() },
            id => rawdoc! { "_id": i64::from(id), "n": n, "pad": pad.as_str() },
        })
        .collect();
    write(root.path(), "numbers", PLAIN, &numbers);
    let empty = bson::Timestamp { time: 0, increment: 0 };
    let texts: Vec<RawDocumentBuf> = (0..600)
        .map(|n| match n % 300 {
            id if n < 300 => rawdoc! { "_id": format!("key{id}"), "at": empty, "n": n, "pad": pad.as_str() },
            id => rawdoc! { "_id": format!("KEY{id}"), "n": n, "pad": pad.as_str() },
        })
        .collect();
    write(root.path(), "texts", COLLATED, &texts);
    let server = Server::standalone().await;
    let client = server.client().await;
    let tuning = Tuning { memory_bytes: 256 << 20, writers: Some(8), ..Tuning::default() };
    let options = ImportOptions { allow_duplicates: true, tuning, ..ImportOptions::default() };
    let cli = Cli::new().env("MONGO_URI_LOCAL", server.uri());
    let adopted = cli.json(&["adopt", root.path().to_str().unwrap(), "--memory-mb", "64"]).await;
    let name = adopted["name"].as_str().unwrap().to_owned();
    for (round, way) in ["import", "import", "adopted", "add"].into_iter().enumerate() {
        // The first command is delayed, the others are not.
        let late = doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 400 };
        server.fail_command(doc! { "times": 1 }, late).await;
        match way {
            "adopted" => _ = cli.json(&["import", &name, "--yes", "--allow-duplicates", "--writers", "8"]).await,
            "add" => {
                client.database("shop").collection::<Document>("numbers").delete_many(doc! {}).await.unwrap();
                client.database("shop").collection::<Document>("texts").drop().await.unwrap();
                let add = ImportOptions { mode: ImportMode::Add, ..options.clone() };
                assert_eq!(import(root.path(), &server.uri(), &add).await.unwrap().passed_over, 1200 + 300);
            }
            _ => assert_eq!(import(root.path(), &server.uri(), &options).await.unwrap().passed_over, 1500),
        }
        for (collection, first) in [("numbers", 400), ("texts", 300)] {
            let mut stayed: Vec<i32> = found(&client, collection).await.iter().map(|d| d.get_i32("n").unwrap()).collect();
            stayed.sort_unstable();
            assert_eq!(stayed, (0..first).collect::<Vec<_>>(), "{collection}, {way}, {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_server_takes_is_named_by_its_reason() {
    let server = Server::standalone().await;
    let cli = Cli::new().env("MONGO_URI_LOCAL", server.uri());
    let deep = (0..190).fold(rawdoc! {}, |inner, _| rawdoc! { "d": inner });
    for (document, reason) in [
        (rawdoc! { "a": 1, "_id": [1] }, "an _id that is an array"),
        (rawdoc! { "_id": { "$a": 1 } }, "an _id with a field name that begins with $"),
        (rawdoc! { "_id": 1, "d": deep }, "more than 180 levels of nesting"),
    ] {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "c", PLAIN, &[rawdoc! { "_id": 2 }, document]);
        let refused = cli.run(&["import", root.path().to_str().unwrap()]).await;
        let said = refused.stderr;
        assert_eq!(refused.code, Some(1));
        assert!(said.contains("shop.c") && said.contains(&format!("no server accepts a document with {reason}")), "{said}");
    }
    // Two with one `_id`, in one command or in several: the hint is the same.
    let pad = "x".repeat(5_000_000);
    for documents in [
        vec![rawdoc! { "_id": 1, "a": 1 }, rawdoc! { "a": 2, "_id": 1 }],
        (0..3).map(|n| rawdoc! { "a": n, "_id": 1, "pad": pad.as_str() }).collect(),
    ] {
        let root = tempfile::tempdir().unwrap();
        let bytes = write(root.path(), "c", PLAIN, &documents);
        assert_eq!(Documents::of(&bytes).count(), documents.len());
        let refused = cli.run(&["import", root.path().to_str().unwrap()]).await;
        let said = refused.stderr;
        assert!(refused.code == Some(1) && said.contains("--allow-duplicates keeps the first"), "{said}");
    }
}

/// A backup of them is intact, and says that they cannot be restored.
#[tokio::test]
async fn what_no_server_takes_is_counted_where_it_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let odd = [
        rawdoc! { "_id": [] },
        rawdoc! { "a": 1, "_id": [1] },
        rawdoc! { "a": 1 },
        rawdoc! { "a": 1, "_id": 5 },
        rawdoc! { "_id": 9 },
    ];
    write(root.path(), "odd", PLAIN, &odd);
    let cli = Cli::new();
    let adopted = cli.json(&["adopt", root.path().to_str().unwrap()]).await;
    let verified = cli.json(&["verify", adopted["name"].as_str().unwrap(), "--deep"]).await;
    for report in [adopted, verified] {
        let told = serde_json::json!([{ "namespace": "shop.odd", "reason": "an _id that is an array", "documents": 2 }]);
        assert_eq!(report["notImportable"], told, "{report}");
        let notes = report["notes"].to_string();
        assert!(
            notes.contains("1 document without an _id") && notes.contains("1 document with an _id that is not the first"),
            "{notes}"
        );
    }
}
