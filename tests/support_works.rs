//! The tests' own support, shown to see what it must see: a comparison that finds nothing would prove nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::allow_attributes, reason = "a test fails by panicking")]

mod support;

use bson::doc;
use support::server::{ReplicaSet, Server, ServerOptions};

#[tokio::test]
async fn a_server_keeps_its_data_when_killed_and_restarted() {
    let mut server = Server::replica_set("rs").await;
    let things = server.client().await.database("d").collection("c");
    things.insert_one(doc! {"_id": 1}).await.unwrap();
    server.kill();
    assert!(!server.is_running());
    server.restart().await;
    server.wait_writable().await;
    assert_eq!(server.client().await.database("d").collection::<bson::Document>("c").count_documents(doc! {}).await.unwrap(), 1);
    server.stop();
    server.restart().await;
    server.wait_writable().await;
    server.step_down(1).await;
    server.wait_writable().await;
}

#[tokio::test]
async fn access_control_lets_only_the_user_in() {
    for repl_set in [None, Some("rs".to_owned())] {
        let server = Server::start(ServerOptions { auth: true, repl_set, ..ServerOptions::default() }).await;
        server.client().await.list_database_names().await.unwrap();
        let anyone = mongodb::Client::with_uri_str(format!("mongodb://{}/?directConnection=true", server.host())).await.unwrap();
        anyone.list_database_names().await.unwrap_err();
    }
}

#[tokio::test]
async fn a_set_elects_another_primary() {
    let mut set = ReplicaSet::start(3).await;
    let first = set.primary().await;
    set.members[first].kill();
    let second = set.primary().await;
    assert_ne!(first, second);
    set.members[first].restart().await;
    set.wait_healthy().await;
}
