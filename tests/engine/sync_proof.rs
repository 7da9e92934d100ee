//! A target that follows is proven while it does.

use bson::{Document, doc};
use bsonvault::context::Context;
use bsonvault::engine::compare::{HowDocument, What};
use bsonvault::engine::sync::{self, ProofReport, SyncOptions, SyncState};
use bsonvault::error::{Error, ErrorKind};
use bsonvault::mongo::{MongoUri, Role};
use serde_json::json;

use crate::support::bank::{Bank, BankOptions};
use crate::support::data::insert;
use crate::support::server::Server;
use crate::support::vault::Vault;
use crate::support::zoo::{self, ZooOptions};
use crate::sync::{follow, history, now};

/// Never proven by itself.
fn unproven() -> SyncOptions {
    SyncOptions { proof: None, ..SyncOptions::default() }
}

async fn verify(target: &Server) -> Result<ProofReport, Error> {
    sync::verify(&MongoUri::parse(Role::Target, &target.uri()).unwrap(), &Context::default()).await
}

#[tokio::test]
async fn what_is_written_to_is_proven_and_what_differs_is_found() {
    let (source, set, alone) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"), Server::standalone());
    let (client, vault) = (source.client().await, Vault::new());
    // More than one part, and more than one document in each.
    let filler = "x".repeat(2_000);
    insert(&client.database("many"), "parts", (0..20_000).map(|n| doc! { "_id": n, "n": n, "filler": &filler })).await;
    history(&client, 0).await;
    zoo::fill(&client, &ZooOptions { seed: 11, docs: 60, large: false, ..ZooOptions::default() }).await;
    for target in [&set, &alone] {
        let bank = Bank::start(&client, BankOptions::default()).await;
        let mut following = follow(&vault, &source.uri(), target, &unproven());
        following.until(|status| status.state == SyncState::Following).await;
        let report = verify(target).await.unwrap();
        assert_eq!((report.same, &report.differences, &report.unproven), (true, &vec![], &vec![]));
        assert!(report.documents > 20_000 && report.bytes > 40_000_000 && report.namespaces > 10, "{report:?}");

        // Somebody else writes to the target.
        let foreign = target.client().await.database("many").collection::<Document>("parts");
        foreign.update_one(doc! { "_id": 17 }, doc! { "$set": { "n": -1 } }).await.unwrap();
        foreign.delete_one(doc! { "_id": 19_000 }).await.unwrap();
        foreign.insert_one(doc! { "_id": "foreign" }).await.unwrap();
        let altered = doc! { "collMod": "a0", "validator": {} };
        target.client().await.database("history").run_command(altered).await.unwrap();
        let report = verify(target).await.unwrap();
        bank.stop().await;
        assert!(!report.same && report.unproven.is_empty());
        let [option, documents] = report.differences.as_slice() else { panic!("{report:?}") };
        assert_eq!(option.namespace, "history.a0");
        assert!(matches!(&option.what, What::Option { name, .. } if name == "validator"), "{option:?}");
        let What::Documents(found) = &documents.what else { panic!("{documents:?}") };
        assert_eq!((documents.namespace.as_str(), found.complete), ("many.parts", true));
        let mut ids: Vec<_> = found.ids.iter().map(|one| (one.id.clone(), one.what)).collect();
        ids.sort_by_key(|(_, what)| *what as u8);
        let all =
            [(json!(17), HowDocument::Differs), (json!(19_000), HowDocument::Missing), (json!("foreign"), HowDocument::Extra)];
        assert_eq!(ids, all);
        following.until(|status| status.proof.differences == 2).await;
        following.stop().await;

        // It is no copy, and it is told.
        let uri = MongoUri::parse(Role::Target, &target.uri()).unwrap();
        let error = sync::finalize(&uri, &Context::default()).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("2 differences"), "{error}");
        let view = sync::view(&uri, &Context::default()).await.unwrap();
        assert_eq!(view.proven.map(|proven| (proven.same, proven.differences)), Some((false, 2)));
    }
}

/// Writes a document and a measurement again and again until it is aborted.
async fn write_on(client: mongodb::Client) {
    let database = client.database("busy");
    for n in 0.. {
        let update = doc! { "q": { "_id": n % 7 }, "u": { "$set": { "n": n } }, "upsert": true };
        database.run_command(doc! { "update": "c", "updates": [update] }).await.unwrap();
        insert(&database, "series", [doc! { "at": bson::DateTime::now(), "n": n }]).await;
    }
}

#[tokio::test]
async fn what_is_half_written_is_not_taken_for_a_difference() {
    let (source, set, alone) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"), Server::standalone());
    let (client, vault) = (source.client().await, Vault::new());
    let series = doc! { "create": "series", "timeseries": { "timeField": "at" } };
    client.database("busy").run_command(series).await.unwrap();
    let writing = tokio::spawn(write_on(client.clone()));
    // The time between the position and the data of a standalone, and between the measurements and
    // the position of a set, is long.
    for (target, commands, milliseconds) in [(&alone, "find", 300), (&set, "commitTransaction", 1_500)] {
        let mut following = follow(&vault, &source.uri(), target, &unproven());
        following.until(|status| status.state == SyncState::Following && status.operations > 0).await;
        target.slow_down(&[commands], milliseconds).await;
        let report = verify(target).await.unwrap();
        target.fail_no_more().await;
        assert_eq!((report.same, &report.differences, &report.unproven), (true, &vec![], &vec![]));
        following.stop().await;
    }
    writing.abort();
}

#[tokio::test]
async fn a_target_is_proven_once_a_day_by_itself() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, vault) = (source.client().await, Vault::new());
    insert(&client.database("first"), "c", [doc! { "_id": 1 }]).await;
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    let status = following.until(|status| status.proof.ended.is_some()).await;
    assert_eq!((status.proof.same, status.proof.differences, status.proof.problem), (true, 0, None));
    following.stop().await;
    // The next process knows when that was.
    let known = async || {
        target.client().await.database("bsonvault").collection::<Document>("sync").find_one(doc! { "_id": "proof" }).await
    };
    let ended = known().await.unwrap().unwrap().get_datetime("ended").unwrap().to_owned();
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Following).await;
    let report = verify(&target).await.unwrap();
    assert!(report.same && report.namespaces == 1);
    assert!(known().await.unwrap().unwrap().get_datetime("ended").unwrap() > &ended);
    following.stop().await;
}

#[tokio::test]
async fn what_does_not_follow_is_not_proven() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, vault) = (source.client().await, Vault::new());
    assert_eq!(verify(&target).await.unwrap_err().kind(), ErrorKind::NotFound);
    insert(&client.database("first"), "c", [doc! { "_id": 1 }]).await;
    let mut following = follow(&vault, &source.uri(), &target, &unproven());
    following.until(|status| status.state == SyncState::Following).await;
    let time = now(&client).await;
    following.reaches(time).await;
    let uri = MongoUri::parse(Role::Target, &target.uri()).unwrap();
    sync::pause(&uri, &Context::default()).await.unwrap();
    following.until(|status| status.state == SyncState::Paused).await;
    let error = verify(&target).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("is paused"), "{error}");
    sync::resume(&uri, &Context::default()).await.unwrap();
    following.until(|status| status.state == SyncState::Following).await;
    assert!(verify(&target).await.unwrap().same);
    following.stop().await;
    let error = verify(&target).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("by no process"), "{error}");

    let late = SyncOptions { delay: Some(std::time::Duration::from_secs(300)), ..unproven() };
    let mut following = follow(&vault, &source.uri(), &target, &late);
    following.until(|status| status.state == SyncState::Following).await;
    let error = verify(&target).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("300 s behind"), "{error}");
    following.stop().await;
}
