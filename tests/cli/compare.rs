//! `compare` as a process: exit codes, JSON, and what people read.

use bson::{Document, doc};
use serde_json::json;

use crate::support::cli::Cli;
use crate::support::data::{insert, numbered};
use crate::support::server::Server;

#[tokio::test]
async fn the_exit_code_tells_the_same_from_a_difference_and_from_a_failure() {
    let (source, target) = tokio::join!(Server::replica_set("source"), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    for client in [&a, &b] {
        insert(&client.database("shop"), "orders", numbered(300)).await;
    }
    let cli = Cli::new().env("MONGO_URI_ATLAS", source.uri()).env("MONGO_URI_LOCAL", target.uri());

    let json = cli.json(&["compare"]).await;
    assert_eq!((&json["success"], &json["same"], &json["namespaces"]), (&json!(true), &json!(true), &json!(1)));
    assert_eq!((&json["documents"], &json["differences"]), (&json!(300), &json!([])));
    assert_eq!(json["collections"][0]["source"], json["collections"][0]["target"]);
    assert!(json["source"]["at"]["t"].is_u64() && json["target"]["asItWas"].is_string(), "{json}");
    let text = cli.run(&["compare"]).await;
    assert_eq!(text.code, Some(0), "{text:?}");
    assert!(text.stdout.contains("the same: 1 namespace, 300 documents, "), "{text:?}");
    assert!(text.stderr.contains("comparing"), "no progress: {text:?}");

    let orders = b.database("shop").collection::<Document>("orders");
    orders.update_one(doc! { "_id": 77 }, doc! { "$set": { "n": 99 } }).await.unwrap();
    orders.delete_one(doc! { "_id": 78 }).await.unwrap();
    insert(&b.database("shop"), "more", numbered(1)).await;
    let different = cli.run(&["compare", "--json"]).await;
    assert_eq!(different.code, Some(3), "{different:?}");
    let json = different.json();
    assert_eq!((&json["success"], &json["same"]), (&json!(true), &json!(false)));
    assert_eq!(
        json["differences"],
        json!([
            { "namespace": "shop.more", "targetNamespace": "shop.more", "what": "extra" },
            {
                "namespace": "shop.orders", "targetNamespace": "shop.orders", "what": "documents",
                "differing": 1, "missing": 1, "extra": 0, "complete": true,
                "ids": [{ "_id": 77, "what": "differs" }, { "_id": 78, "what": "missing" }],
            },
        ])
    );
    let text = cli.run(&["compare", "--include", "shop.*", "--database", "shop"]).await;
    assert_eq!(text.code, Some(3), "{text:?}");
    for line in [
        "extra     shop.more\n",
        "differs   shop.orders: documents: 1 differs, 1 missing\n  differs _id 77\n  missing _id 78\n",
        "2 differences: 2 namespaces, 300 documents, ",
    ] {
        assert!(text.stdout.contains(line), "{line:?} is not in {}", text.stdout);
    }
    assert!(!text.stderr.contains("error: "), "{text:?}");

    // Without them nothing is left.
    let nothing = cli.run(&["compare", "--exclude", "shop.orders", "--exclude", "shop.more", "--json"]).await;
    assert_eq!((nothing.code, &nothing.json()["success"]), (Some(1), &json!(false)), "{nothing:?}");
    assert_eq!(nothing.json()["error"]["kind"], json!("notFound"));
}

#[tokio::test]
async fn what_is_wrong_is_said_before_anything_is_read() {
    let server = Server::standalone().await;
    insert(&server.client().await.database("shop"), "orders", numbered(3)).await;
    let cli = Cli::new();
    let refused = async |args: &[&str], code: i32, message: &str, hint: &str| {
        let output = cli.run(&[&["compare"], args].concat()).await;
        assert_eq!((output.code, output.stdout.as_str()), (Some(code), ""), "{output:?}");
        assert!(output.stderr.contains(message) && output.stderr.contains(hint), "{output:?}");
    };
    let uri = server.uri();
    refused(&[], 2, "Atlas MongoDB URI not configured", "--source").await;
    refused(&["--source", &uri], 2, "Local MongoDB URI not configured", "--target").await;
    let both = ["--source", &uri, "--target", &uri];
    refused(&both, 2, "shop.orders would be compared with itself", "--rename").await;
    refused(&[&both[..], &["--rename", "shop.orders"]].concat(), 2, "--rename \"shop.orders\": expected one '='", "FROM=TO")
        .await;
    refused(&[&both[..], &["--include", "shop"]].concat(), 2, "neither a dot nor a '*'", "shop.*").await;
    refused(&[&both[..], &["--include", "none.*"]].concat(), 1, "matches no namespace of the source or the target", "case").await;

    // One deployment, under two names.
    let copy = [&both[..], &["--rename", "shop.*=copy.*", "--json"]].concat();
    let output = cli.run(&[&["compare"], &copy[..]].concat()).await;
    assert_eq!(output.code, Some(3), "{output:?}");
    assert_eq!(output.json()["differences"][0]["what"], json!("missing"));
}
