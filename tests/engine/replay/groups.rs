//! Many inserts and deletes of a collection at once, which have commands of their own.

use std::time::Duration;

use bson::{Document, doc};
use bsonvault::error::ErrorKind;
use bsonvault::oplog::apply::{Destination, Holds};
use mongodb::Client;

use super::changes;
use super::faults::{all, applier, create, delete, insert, place, replayed, set};
use crate::support::link::{Link, LinkOptions};
use crate::support::server::{Server, ServerOptions};

fn inserts(ids: std::ops::Range<i32>, x: i32) -> Vec<u8> {
    ids.flat_map(|id| insert(&doc! { "_id": id, "x": x })).collect()
}

fn deletes(ids: std::ops::Range<i32>) -> Vec<u8> {
    ids.flat_map(delete).collect()
}

/// How many commands of this name the server has run.
async fn runs(server: &Server, command: &str) -> i64 {
    let status = server.admin(doc! { "serverStatus": 1 }).await.unwrap();
    let commands = status.get_document("metrics").unwrap().get_document("commands").unwrap();
    commands.get_document(command).unwrap().get_i64("total").unwrap()
}

/// The documents in the order of their `_id`s.
async fn sorted(client: &Client) -> Vec<Document> {
    let mut found: Vec<Document> = all(client, "c").await.iter().map(|d| Document::try_from(&**d).unwrap()).collect();
    found.sort_by_key(|document| document.get_i32("_id").unwrap());
    found
}

#[tokio::test]
async fn they_come_over_what_is_there() {
    for server in [Server::standalone().await, Server::replica_set("groups").await] {
        let client = server.client().await;
        create(&client, "c", doc! {}).await;
        // Some documents were read later.
        let read = (0..30).chain(100..130).map(|id| doc! { "_id": id, "x": 5, "later": id });
        client.database("r").collection::<Document>("c").insert_many(read).await.unwrap();
        let before = [runs(&server, "insert").await, runs(&server, "delete").await, runs(&server, "applyOps").await];
        let changed = (20..40).flat_map(|id| set(id, "y", id)).collect();
        let frames = vec![inserts(0..100, 1), changed, [deletes(90..140), inserts(95..98, 2)].concat()];
        for _ in 0..2 {
            let applied = replayed(&server.uri(), place("c", Holds::Documents), frames.clone()).await.unwrap();
            assert_eq!(applied.operations, 173);
            let expected: Vec<Document> = (0..90)
                .map(|id| match id {
                    20..40 => doc! { "_id": id, "x": 1, "y": id },
                    _ => doc! { "_id": id, "x": 1 },
                })
                .chain((95..98).map(|id| doc! { "_id": id, "x": 2 }))
                .collect();
            assert_eq!(sorted(&client).await, expected);
        }
        if changes::version(&client).await < 6 {
            continue;
        }
        let after = [runs(&server, "insert").await, runs(&server, "delete").await, runs(&server, "applyOps").await];
        assert!(after.iter().zip(before).all(|(after, before)| *after > before), "{before:?}, {after:?}");
    }
}

#[tokio::test]
async fn a_collection_that_is_dropped_meanwhile_is_not_made_anew() {
    let server = Server::replica_set("dropped").await;
    let client = server.client().await;
    create(&client, "c", doc! {}).await;
    let mut applier = applier(&server.uri(), place("c", Holds::Documents), 2).await;
    applier.take(inserts(0..100, 1)).await.unwrap();
    applier.make_durable().await.unwrap();
    client.database("r").collection::<Document>("c").drop().await.unwrap();
    let error = match applier.take(inserts(100..200, 1)).await {
        Ok(()) => applier.make_durable().await.unwrap_err(),
        Err(e) => e,
    };
    assert!(error.kind() == ErrorKind::Server && error.to_string().contains("r.c"), "{error}");
    assert!(client.database("r").list_collection_names().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_one_of_them_refuses_is_named() {
    let server = Server::standalone().await;
    let client = server.client().await;
    create(&client, "c", doc! { "validator": { "x": { "$lt": 5 } } }).await;
    let frame = || [inserts(0..50, 1), insert(&doc! { "_id": "secret", "x": 5 })].concat();
    let error = replayed(&server.uri(), place("c", Holds::Documents), vec![frame()]).await.unwrap_err().to_string();
    assert!(error.contains("r.c: an insert") && error.contains("string") && !error.contains("secret"), "{error}");
    let ruled = Destination { has_rules: true, ..place("c", Holds::Documents) };
    replayed(&server.uri(), ruled, vec![frame()]).await.unwrap();
    assert_eq!(all(&client, "c").await.len(), 51);
}

#[tokio::test]
async fn one_whose_reply_is_lost_does_not_undo_later_ones() {
    let server = Server::standalone().await;
    let client = server.client().await;
    create(&client, "c", doc! {}).await;
    let link = Link::to(server.port(), LinkOptions::default());
    let mut applier = applier(&server.uri_through(link.port()), place("c", Holds::Documents), 1).await;
    // The server delays the first one, and the connection breaks before it has begun.
    let block = doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 3000 };
    server.fail_command(doc! { "times": 1 }, block).await;
    applier.take(inserts(0..50, 1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    link.cut();
    applier.take(deletes(0..40)).await.unwrap();
    applier.make_durable().await.unwrap();
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!(sorted(&client).await, (40..50).map(|id| doc! { "_id": id, "x": 1 }).collect::<Vec<_>>());
    // Replies are lost after the work was done, too.
    let lose = doc! { "failCommands": ["insert", "delete"], "writeConcernError": { "code": 91, "errmsg": "lost" } };
    server.fail_command(doc! { "times": 2 }, lose).await;
    applier.take(inserts(100..150, 2)).await.unwrap();
    applier.take(deletes(40..50)).await.unwrap();
    applier.make_durable().await.unwrap();
    assert_eq!(sorted(&client).await, (100..150).map(|id| doc! { "_id": id, "x": 2 }).collect::<Vec<_>>());
}

#[tokio::test]
async fn one_that_is_refused_as_a_whole_is_done_without_it() {
    let server = Server::standalone().await;
    let client = server.client().await;
    create(&client, "c", doc! {}).await;
    let mut applier = applier(&server.uri(), place("c", Holds::Documents), 1).await;
    for (n, command) in (0..).zip(["insert", "delete"]) {
        server.fail_command(doc! { "times": 1 }, doc! { "failCommands": [command], "errorCode": 13 }).await;
        applier.take(inserts(0..50, n)).await.unwrap();
        applier.take(deletes(0..40)).await.unwrap();
        applier.make_durable().await.unwrap();
        assert_eq!(sorted(&client).await, (40..50).map(|id| doc! { "_id": id, "x": n }).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_login_that_may_not_list_does_without_them() {
    let server = Server::start(ServerOptions { auth: true, ..ServerOptions::default() }).await;
    let client = server.client().await;
    if changes::version(&client).await < 5 {
        return;
    }
    create(&client, "c", doc! {}).await;
    let privileges = vec![
        doc! { "resource": { "cluster": true }, "actions": ["applyOps"] },
        doc! { "resource": { "db": "r", "collection": "c" }, "actions": ["insert", "update", "remove", "find"] },
    ];
    server.admin(doc! { "createRole": "few", "privileges": privileges, "roles": [] }).await.unwrap();
    server.admin(doc! { "createUser": "few", "pwd": "secret", "roles": ["few"] }).await.unwrap();
    let uri = format!("mongodb://few:secret@{}/?directConnection=true&authSource=admin", server.host());
    let before = runs(&server, "insert").await;
    replayed(&uri, place("c", Holds::Documents), vec![inserts(0..100, 1), deletes(50..100)]).await.unwrap();
    assert_eq!((sorted(&client).await.len(), runs(&server, "insert").await), (50, before));
}
