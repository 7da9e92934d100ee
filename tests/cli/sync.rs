//! A sync as a process: killed, stopped, and asked how far it is.

use std::process::{Child, Command};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;

use crate::support::cli::{Cli, finish};
use crate::support::data::content;
use crate::support::server::Server;

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
}

/// Waits until the target has this many documents in `shop.orders`.
async fn has(target: &Client, wanted: u64) {
    for _ in 0..300 {
        if content(&target.database("shop"), "orders").await.documents == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the target does not get {wanted} documents");
}

#[tokio::test]
async fn a_killed_sync_goes_on_at_once_and_a_stopped_one_says_where_it_is() {
    let (source, target) = tokio::join!(Server::replica_set("shop"), Server::replica_set("copy"));
    let (client, copy) = (source.client().await, target.client().await);
    let cli = Cli::new().env("MONGO_URI_ATLAS", source.uri()).env("MONGO_URI_LOCAL", target.uri());
    let nothing = cli.run(&["sync", "status"]).await;
    assert!(nothing.code == Some(1) && nothing.stderr.contains("follows nothing"), "{nothing:?}");

    let orders = client.database("shop").collection::<Document>("orders");
    let mut written = 0;
    for _ in 0..3 {
        orders.insert_one(doc! { "n": 0 }).await.unwrap();
        let child = cli.spawn(&["sync"]);
        has(&copy, written + 1).await;
        // It is killed in the middle of a transaction, most likely: that must block nobody.
        for _ in 0..200 {
            orders.insert_one(doc! { "n": 1 }).await.unwrap();
        }
        written += 201;
        signal(&child, "KILL");
        finish(child).await;
    }
    let child = cli.spawn(&["sync", "--json"]);
    has(&copy, written).await;
    let status = cli.json(&["sync", "status"]).await;
    assert_eq!((status["state"].as_str(), status["running"].as_bool()), (Some("following"), Some(true)), "{status}");
    let second = cli.run(&["sync", "--json"]).await;
    assert_eq!(second.json()["error"]["kind"], "busy", "{second:?}");
    signal(&child, "TERM");
    let output = finish(child).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.json()["at"]["t"].as_u64() > Some(0), "{output:?}");

    let compared = cli.json(&["compare"]).await;
    assert_eq!(compared["same"], true, "{compared}");
    assert_eq!(cli.json(&["sync", "finalize"]).await["state"], "final");
    let wrong = cli.run(&["sync", "--delay", "soon"]).await;
    assert!(wrong.code == Some(2) && wrong.stderr.contains("--delay"), "{wrong:?}");
}
