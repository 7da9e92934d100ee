//! Exports of backups with an oplog slice: they hold its entries in the form that is replayed by
//! name.

use bson::{Document, RawDocumentBuf, doc};
use bsonvault::engine::export::{ExportOptions, Format};
use bsonvault::error::ErrorKind;
use bsonvault::format::document::Documents;
use bsonvault::format::manifest::{ClusterTime, ConsistencyKind};
use bsonvault::repository::catalog::Backup;
use mongodb::Database;

use super::exported;
use super::reader::read;

use crate::support::bank::{Bank, BankOptions};
use crate::support::data::{insert, numbered};
use crate::support::server::Server;
use crate::support::vault::{Vault, divided, matching};

/// Takes a backup of `d`. Its capped collection is written to before it can be read, so the backup
/// needs an oplog slice.
async fn taken(vault: &Vault, server: &Server) -> Backup {
    let late = doc! { "failCommands": ["find"], "namespace": "d.events", "blockConnection": true, "blockTimeMS": 2500 };
    server.fail_command("alwaysOn", late).await;
    let report = vault.take(&server.uri(), &divided("d", u64::MAX)).await.unwrap();
    assert_eq!(report.manifest.consistency.kind, ConsistencyKind::Oplog);
    vault.find(&report.name).await
}

/// Repeats this from the time when documents are read, until it is aborted.
fn meanwhile(vault: &Vault, database: &Database, rename: bool) -> tokio::task::JoinHandle<()> {
    let (progress, database) = (vault.cx.progress.clone(), database.clone());
    tokio::spawn(async move {
        while progress.view().phase != "reading" {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        insert(&database, "events", [doc! { "_id": 9999 }]).await;
        database.run_command(doc! { "create": "born" }).await.unwrap();
        database.run_command(doc! { "createIndexes": "large", "indexes": [{ "key": { "x": 1 }, "name": "x" }] }).await.unwrap();
        if rename {
            let rename = doc! { "renameCollection": "d.other", "to": "d.renamed" };
            database.client().database("admin").run_command(rename).await.unwrap();
        }
        for i in 0.. {
            insert(&database, "born", [doc! { "_id": i }]).await;
            insert(&database, "events", [doc! { "_id": 10_000 + i }]).await;
            let large = database.collection::<Document>("large");
            large.update_one(doc! { "_id": i * 7919 % 30_000 }, doc! { "$set": { "x": i } }).await.unwrap();
        }
    })
}

async fn filled(server: &Server) -> Database {
    let database = server.client().await.database("d");
    insert(&database, "large", numbered(30_000)).await;
    database.run_command(doc! { "create": "events", "capped": true, "size": 1 << 20 }).await.unwrap();
    insert(&database, "events", (0..100).map(|i| doc! { "_id": i })).await;
    insert(&database, "other", [doc! { "_id": 1 }]).await;
    database
}

#[tokio::test]
async fn an_oplog_has_what_is_to_be_replayed_and_nothing_that_the_documents_have() {
    let server = Server::replica_set("export").await;
    // It starts with an empty database.
    let bank = Bank::start(&server.client().await, BankOptions { db: "d".to_owned(), ..BankOptions::default() }).await;
    let database = filled(&server).await;
    let vault = Vault::new();
    let changing = meanwhile(&vault, &database, false);
    let backup = taken(&vault, &server).await;
    changing.abort();
    bank.stop().await;

    let directory = tempfile::tempdir().unwrap();
    let (dir, file) = (directory.path().join("dump"), directory.path().join("archive"));
    let report = exported(&vault, &backup, &ExportOptions::of(Format::Dir), &dir).await.unwrap();
    let bytes = std::fs::read(dir.join("oplog.bson")).unwrap();
    let entries: Vec<RawDocumentBuf> =
        Documents::of(&bytes).map(|d| RawDocumentBuf::from_bytes(d.unwrap().to_vec()).unwrap()).collect();
    let oplog = report.oplog.unwrap();
    let slice = backup.manifest.oplog.clone().unwrap();
    assert_eq!(
        (oplog.entries, oplog.to, Some(oplog.from)),
        (entries.len() as u64, slice.to, backup.manifest.consistency.cluster_time)
    );
    assert!(oplog.entries > 100 && oplog.entries < slice.documents, "{oplog:?} {slice:?}");
    let times: Vec<ClusterTime> = entries.iter().map(|e| e.get_timestamp("ts").unwrap().into()).collect();
    assert!(times.is_sorted() && times.last().unwrap() <= &slice.to);
    for (entry, time) in entries.iter().zip(&times) {
        let is_part = entry.get_document("o").is_ok_and(|o| o.get("partialTxn").unwrap().is_some());
        assert!(is_part || *time > oplog.from, "{entry:?}");
        assert_ne!(entry.get_str("op").unwrap(), "n");
    }
    let commands: Vec<String> = entries
        .iter()
        .filter(|e| e.get_str("op").unwrap() == "c")
        .map(|e| e.get_document("o").unwrap().iter().next().unwrap().unwrap().0.as_str().to_owned())
        .collect();
    for wanted in ["create", "applyOps"] {
        assert!(commands.iter().any(|c| c == wanted), "{wanted} is not among {commands:?}");
    }
    assert!(commands.iter().any(|c| c == "createIndexes" || c == "commitIndexBuild"), "{commands:?}");
    assert!(!commands.iter().any(|c| c == "startIndexBuild"));
    // For the capped collection: the entries after the last document that was read, without a gap.
    let events = std::fs::read(dir.join("d/events.bson")).unwrap();
    let last = Documents::of(&events).last().unwrap().unwrap();
    let number = |d: &bson::RawDocument| d.get_i32("_id").unwrap();
    let last = number(bson::RawDocument::from_bytes(last).unwrap());
    let ids: Vec<i32> = entries
        .iter()
        .filter(|e| e.get_str("ns").unwrap() == "d.events" && e.get_str("op").unwrap() == "i")
        .map(|e| number(e.get_document("o").unwrap()))
        .collect();
    let first = if last < 10_000 { 10_000 } else { last + 1 };
    assert_eq!(ids, (first..first + ids.len() as i32).collect::<Vec<_>>());

    // The same in an archive, at its end.
    let whole = exported(&vault, &backup, &ExportOptions::of(Format::Archive), &file).await.unwrap();
    assert_eq!(whole.oplog, report.oplog);
    let archive = read(&std::fs::read(&file).unwrap());
    let body = archive.bodies.last().unwrap();
    assert_eq!((&*body.database, &*body.collection), ("", "oplog"));
    assert!(body.documents == bytes, "another oplog");

    // A part: it holds nothing about other namespaces, even inside transactions.
    let part = directory.path().join("part");
    let filter = matching(&["d.journal", "d.left"]);
    exported(&vault, &backup, &ExportOptions { filter, ..ExportOptions::of(Format::Dir) }, &part).await.unwrap();
    let bytes = std::fs::read(part.join("oplog.bson")).unwrap();
    let mut operations = 0;
    for entry in Documents::of(&bytes) {
        bsonvault::oplog::Entry::parse(entry.unwrap())
            .unwrap()
            .each(&mut |operation| {
                assert!(["d.journal", "d.left"].contains(&operation.namespace), "{}", operation.namespace);
                operations += 1;
                Ok(())
            })
            .unwrap();
    }
    assert!(operations > 10, "{operations}");
}

#[tokio::test]
async fn a_slice_that_renames_is_refused_and_what_it_is_not_about_is_exported() {
    let server = Server::replica_set("renames").await;
    let database = filled(&server).await;
    let vault = Vault::new();
    let changing = meanwhile(&vault, &database, true);
    let backup = taken(&vault, &server).await;
    changing.abort();
    let directory = tempfile::tempdir().unwrap();
    let to = directory.path().join("x");
    let error = exported(&vault, &backup, &ExportOptions::of(Format::Dir), &to).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("d.other was renamed to d.renamed"), "{error}");
    assert!(error.hint_text().unwrap().contains("import it into a server, back that up"), "{error}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let filter = matching(&["d.large"]);
    let report = exported(&vault, &backup, &ExportOptions { filter, ..ExportOptions::of(Format::Dir) }, &to).await.unwrap();
    assert!(report.oplog.unwrap().entries > 10, "{report:?}");
}
