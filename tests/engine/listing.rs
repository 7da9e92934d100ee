//! The listing of a source: it belongs to its time.

use std::time::{Duration, Instant};

use bson::{Bson, doc};
use bsonvault::mongo::connect::ConnectOptions;
use bsonvault::mongo::{Connection, MongoUri, Role};
use bsonvault::source::discover::{Selection, list_at_one_time};

use crate::support::data::fill;
use crate::support::server::Server;
use crate::support::vault::of_databases;

/// A fail point that stops a creation after it got its time in the oplog, and before others see it.
const RESERVED: &str = "hangAndFailAfterCreateCollectionReservesOpTime";

#[tokio::test]
async fn a_listing_is_of_a_time_only_once_everything_up_to_that_time_can_be_seen() {
    let server = Server::replica_set("hole").await;
    let client = server.client().await;
    fill(&client.database("hole"), "c", (0..3).map(Bson::Int32)).await;
    let connection = Connection::open(&MongoUri::parse(Role::Source, &server.uri()).unwrap(), ConnectOptions::default()).await;
    let connection = connection.unwrap();
    let selection = Selection { filter: of_databases(&["hole"]), ..Selection::default() };

    let mode = |mode: Bson| doc! { "configureFailPoint": RESERVED, "mode": mode, "data": { "nss": "hole.late" } };
    server.admin(mode("alwaysOn".into())).await.unwrap();
    let creating = tokio::spawn({
        let database = client.database("hole");
        async move { database.run_command(doc! { "create": "late" }).await }
    });
    server.admin(doc! { "waitForFailPoint": RESERVED, "timesEntered": 1, "maxTimeMS": 30_000 }).await.unwrap();
    // This has a later time than the creation, and can be seen. No majority can have it yet.
    let insert = doc! { "insert": "c", "documents": [{ "_id": 3 }], "writeConcern": { "w": 1 } };
    client.database("hole").run_command(insert).await.unwrap();
    let begun = Instant::now();
    let listing = async { (list_at_one_time(&connection, &selection, true).await, begun.elapsed()) };
    let ((listing, took), ()) = tokio::join!(listing, async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        server.admin(mode("off".into())).await.unwrap();
    });
    assert!(took >= Duration::from_millis(1_500), "{took:?}");
    assert_eq!(listing.unwrap().collections.len(), 1);
    assert!(creating.await.unwrap().is_err());
    connection.close().await;
}

#[tokio::test]
async fn the_listing_of_a_source_that_holds_nothing_has_a_time() {
    let server = Server::replica_set("nothing").await;
    let uri = MongoUri::parse(Role::Source, &server.uri()).unwrap();
    let connection = Connection::open(&uri, ConnectOptions::default()).await.unwrap();
    let selection = Selection { allow_empty: true, ..Selection::default() };
    let listing = list_at_one_time(&connection, &selection, true).await.unwrap();
    assert!(listing.collections.is_empty() && listing.time.is_some(), "{listing:?}");
    connection.close().await;
}
