//! The position from which an archive of the source's oplog continues a backup: it is in every
//! backup of a replica set that shows one moment, and at or before every transaction open then.

use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use bsonvault::engine::Tuning;
use bsonvault::engine::backup::{BackupOptions, Documents};
use bsonvault::format::checkpoint::Head;
use bsonvault::format::frame::Codec;
use bsonvault::format::manifest::{Consistency, ConsistencyKind, OplogPosition};
use bsonvault::oplog::Position;
use mongodb::Client;

use crate::support::data::fill;
use crate::support::server::{Server, without_oplog};
use crate::support::vault::{Vault, at, divided, on};

/// The position to replay from, after a check that it names the source's own entry.
async fn proven(client: &Client, consistency: &Consistency) -> OplogPosition {
    let position = consistency.replay_from.unwrap();
    assert!(position.time <= consistency.cluster_time.unwrap(), "{consistency:?}");
    let oplog = client.database("local").collection::<RawDocumentBuf>("oplog.rs");
    let entry = oplog.find_one(doc! { "ts": Timestamp::from(position.time) }).await.unwrap().unwrap();
    assert_eq!(position, Position::of(entry.as_bytes()).unwrap().into());
    assert!(position.term.is_some() && position.digest.is_some(), "{position:?}");
    position
}

#[tokio::test]
async fn a_snapshot_names_an_entry_and_has_version_4_whatever_the_codec() {
    let server = Server::replica_set("named").await;
    let client = server.client().await;
    fill(&client.database("named"), "c", (0..100).map(Bson::Int32)).await;
    let vault = Vault::new();
    for codec in [Codec::Zstd, Codec::Columns] {
        let options = BackupOptions { tuning: Tuning { codec: Some(codec), ..Tuning::default() }, ..on("named") };
        let report = vault.take(&server.uri(), &options).await.unwrap();
        let manifest = vault.sound(&report.name).await.manifest;
        assert_eq!((manifest.format_version, manifest.consistency.kind), (4, ConsistencyKind::Snapshot));
        assert_eq!((&manifest.oplog, manifest.settings.codec), (&None, codec));
        proven(&client, &manifest.consistency).await;
    }
}

#[tokio::test]
async fn a_transaction_that_is_open_at_the_snapshot_time_is_reached() {
    let server = Server::replica_set("reached").await;
    let client = server.client().await;
    let database = client.database("reached");
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
    // Its commit has a later time than the snapshot, which therefore lacks it.
    let commit = async {
        let insert = doc! { "insert": "c", "documents": [{ "_id": 20 }] };
        let later = database.run_command(insert).await.unwrap().get_timestamp("operationTime").unwrap();
        let commit = doc! { "commitTransaction": 1, "commitTimestamp": later, "writeConcern": { "w": "majority" } };
        client.database("admin").run_command(commit).session(&mut session).await.unwrap();
    };
    let options = divided("reached", u64::MAX);
    let report = at((&server, &server.uri()), ("find", "reached.c"), &vault, &options, commit).await.unwrap();
    let consistency = &report.manifest.consistency;
    assert_eq!((consistency.kind, report.manifest.totals.documents), (ConsistencyKind::Snapshot, 20));
    assert!(consistency.cluster_time.unwrap() > prepared.into());
    assert_eq!(proven(&client, consistency).await.time, prepared.into());
}

#[tokio::test]
async fn the_checkpoint_holds_the_position_for_a_backup_that_is_resumed() {
    let server = Server::replica_set("again").await;
    let client = server.client().await;
    fill(&client.database("again"), "c", (0..500).map(Bson::Int32)).await;
    let vault = Vault::new();
    let mut head = None;
    // What the checkpoint says while it runs is what a backup that is resumed goes on with.
    let look = async {
        let backup = crate::support::files::inside(vault.directory.path()).remove(0);
        head = Some(Head::from_bytes(&std::fs::read(backup.join("resume.00000.json")).unwrap()).unwrap());
        fill(&client.database("again"), "c", (500..600).map(Bson::Int32)).await;
    };
    let options = divided("again", u64::MAX);
    let report = at((&server, &server.uri()), ("find", "again.c"), &vault, &options, look).await.unwrap();
    let head = head.unwrap();
    assert_eq!((head.format_version, report.manifest.format_version), (4, 4));
    assert_eq!(head.oplog.unwrap().position(), proven(&client, &report.manifest.consistency).await);
}

#[tokio::test]
async fn without_the_whole_oplog_there_is_none() {
    let ((denied, uri), server) = tokio::join!(without_oplog("none", &[]), Server::replica_set("some"));
    for server in [&denied, &server] {
        fill(&server.client().await.database("none"), "c", (0..100).map(Bson::Int32)).await;
    }
    let filter = RawDocumentBuf::try_from(&doc! { "_id": { "$lt": 10 } }).unwrap();
    let some = BackupOptions { documents: Documents::Matching(filter), ..on("none") };
    for (uri, options) in [(uri, on("none")), (server.uri(), some)] {
        let report = Vault::new().take(&uri, &options).await.unwrap();
        let consistency = report.manifest.consistency;
        assert_eq!((consistency.kind, consistency.replay_from), (ConsistencyKind::Snapshot, None));
        assert_eq!(report.manifest.format_version, 2);
    }
}
