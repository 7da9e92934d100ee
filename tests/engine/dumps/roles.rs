//! The built-in roles `backup` and `restore` suffice for `dump` and `restore`.

use bson::{Document, doc};
use mongodb::Client;

use crate::support::cli::{Cli, Output, finish};
use crate::support::compare::CompareOptions;
use crate::support::data::assert_same;
use crate::support::server::{Server, ServerOptions};

async fn with_users() -> Server {
    let server = Server::start(ServerOptions { auth: true, ..ServerOptions::default() }).await;
    let admin = server.client().await.database("admin");
    for role in ["backup", "restore"] {
        admin.run_command(doc! { "createUser": role, "pwd": "p", "roles": [role] }).await.unwrap();
    }
    server
}

fn login(server: &Server, role: &str) -> [String; 9] {
    let port = server.port().to_string();
    ["-h", "127.0.0.1", "--port", &port, "-u", role, "-pp", "--authenticationDatabase", "admin"].map(str::to_owned)
}

async fn run(cli: &Cli, server: &Server, verb: &str, rest: &[&str]) -> Output {
    let role = if verb == "dump" { "backup" } else { "restore" };
    let login = login(server, role);
    let args: Vec<&str> = [verb].into_iter().chain(login.iter().map(String::as_str)).chain(rest.iter().copied()).collect();
    cli.run(&args).await
}

async fn fill(client: &Client) {
    let shop = client.database("shop");
    shop.run_command(doc! { "create": "orders", "validator": { "n": { "$lt": 1000 } } }).await.unwrap();
    let orders = shop.collection("orders");
    orders.insert_many((0..3000).map(|n| doc! { "_id": n, "n": n % 1000, "text": "x".repeat(200) })).await.unwrap();
    let indexes = [doc! { "key": { "n": 1 }, "name": "n" }, doc! { "key": { "at": 1 }, "name": "at", "expireAfterSeconds": 60 }];
    shop.run_command(doc! { "createIndexes": "orders", "indexes": indexes.to_vec() }).await.unwrap();
    shop.run_command(doc! { "create": "log", "capped": true, "size": 65536 }).await.unwrap();
    shop.collection("log").insert_many((0..20).map(|n| doc! { "_id": n })).await.unwrap();
    shop.run_command(doc! { "create": "few", "viewOn": "orders", "pipeline": [{ "$match": { "n": 1 } }] }).await.unwrap();
    shop.run_command(doc! { "create": "series", "timeseries": { "timeField": "t" } }).await.unwrap();
    let measured = (0..50_i64).map(|n| doc! { "t": bson::DateTime::from_millis(n * 1000), "v": n });
    shop.collection::<Document>("series").insert_many(measured).await.unwrap();
    client.database("crm").collection("people").insert_one(doc! { "_id": 1 }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_roles_are_enough() {
    let (source, target) = (with_users().await, with_users().await);
    let (from, to, cli) = (source.client().await, target.client().await, Cli::new());
    fill(&from).await;
    let output = run(&cli, &source, "dump", &["--out", "d"]).await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let output = run(&cli, &target, "restore", &["d"]).await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(output.stdout.contains("nothing was read back"), "{}", output.stdout);
    assert_same(&from, &to, CompareOptions::default()).await;

    // Existing data stays unchanged, and the error names the missing privileges.
    to.database("crm").drop().await.unwrap();
    for how in [&["d"][..], &["--drop", "d"]] {
        let output = run(&cli, &target, "restore", how).await;
        assert_eq!(output.code, Some(1), "{how:?}: {}", output.stderr);
        for named in ["shop.orders", "exist already", "find on", "update on"] {
            assert!(output.stderr.contains(named), "{how:?}, {named}: {}", output.stderr);
        }
    }
    assert!(!to.list_database_names().await.unwrap().contains(&"crm".to_owned()));

    // A failure leaves nothing.
    let other = cli.dir().join("d/other");
    std::fs::create_dir(&other).unwrap();
    std::fs::copy(cli.dir().join("d/shop/orders.bson"), other.join("a.bson")).unwrap();
    let unique = r#"{"indexes":[{"v":2,"key":{"n":1},"name":"n","unique":true}]}"#;
    std::fs::write(other.join("a.metadata.json"), unique).unwrap();
    let output = run(&cli, &target, "restore", &["-d", "other", other.to_str().unwrap()]).await;
    assert!(output.code == Some(1) && output.stderr.contains("the target is as it was"), "{}", output.stderr);
    assert!(!to.list_database_names().await.unwrap().contains(&"other".to_owned()));
}

/// Creates the staging that a killed restore leaves.
async fn leave(client: &Client) {
    let crm = client.database("crm");
    crm.run_command(doc! { "create": "people" }).await.unwrap();
    let listed = crm.run_command(doc! { "listCollections": 1, "filter": { "name": "people" } }).await.unwrap();
    let listed = listed.get_document("cursor").unwrap().get_array("firstBatch").unwrap()[0].as_document().unwrap();
    let bson::Bson::Binary(uuid) = listed.get_document("info").unwrap().get("uuid").unwrap() else { panic!("{listed}") };
    let uuid = uuid::Uuid::from_slice(&uuid.bytes).unwrap().to_string();
    let named = doc! { "collections": { "$in": [uuid] }, "views": { "$in": [] }, "beat": 3 };
    crm.run_command(doc! { "create": "bsonvault.filling.x", "validator": named }).await.unwrap();
}

async fn names_of_crm(client: &Client) -> Vec<String> {
    let mut names = client.database("crm").list_collection_names().await.unwrap();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_restore_left_is_named_and_dropped_where_that_is_asked_for() {
    let target = with_users().await;
    let (to, cli) = (target.client().await, Cli::new().env("MONGO_URI_LOCAL", target.uri()));
    leave(&to).await;
    to.database("crm").run_command(doc! { "create": "mine" }).await.unwrap();
    // Cleanup names it, and drops it on request: someone may have continued to use it.
    let cleanup = ["import", "--cleanup", "--json"];
    let planned = [&cleanup[..], &["--yes", "--dry-run"]].concat();
    let (planned, left) = tokio::join!(cli.run(&planned), cli.run(&cleanup));
    let both = serde_json::json!(["crm.people", "crm.bsonvault.filling.x"]);
    assert_eq!((planned.code, &planned.json()["dropped"]), (Some(0), &both), "{planned:?}");
    assert!(left.code == Some(1) && left.json()["error"]["kind"] == "refused" && left.stdout.contains("crm.people"), "{left:?}");
    assert!(left.json()["error"]["hint"].as_str().unwrap().contains("--yes"), "{left:?}");
    assert!(cli.json(&["check"]).await.to_string().contains("half filled by one that crashed: crm.people"));
    assert_eq!(names_of_crm(&to).await, ["bsonvault.filling.x", "mine", "people"]);
    let dropped = cli.json(&["import", "--cleanup", "--yes"]).await;
    assert_eq!((&dropped["dropped"], names_of_crm(&to).await), (&both, vec!["mine".to_owned()]));

    // A restore names it, and drops it on request.
    leave(&to).await;
    let crm = cli.dir().join("d/crm");
    std::fs::create_dir_all(&crm).unwrap();
    std::fs::write(crm.join("people.bson"), doc! { "_id": 7 }.to_vec().unwrap()).unwrap();
    let output = run(&cli, &target, "restore", &["d"]).await;
    assert!(output.code == Some(1) && output.stderr.contains("crm.people"), "{}", output.stderr);
    assert!(output.stderr.contains("half filled") && output.stderr.contains("--drop"), "{}", output.stderr);
    let output = run(&cli, &target, "restore", &["--drop", "d"]).await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    // An unused one is dropped by the next restore.
    to.database("crm").run_command(doc! { "create": "bsonvault.filling.y" }).await.unwrap();
    let output = cli.run(&["restore", &target.uri(), "--drop", "d", "--quiet"]).await;
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
    assert_eq!(names_of_crm(&to).await, ["mine", "people"]);
    assert_eq!(to.database("crm").collection::<Document>("people").count_documents(doc! { "_id": 7 }).await.unwrap(), 1);
}

/// A restore that fills collections of a database keeps out another one until it is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_lives_is_left_alone() {
    let target = with_users().await;
    let (to, cli) = (target.client().await, Cli::new().env("MONGO_URI_LOCAL", target.uri()));
    for (dump, name) in [("d", "people"), ("e", "others")] {
        let crm = cli.dir().join(dump).join("crm");
        std::fs::create_dir_all(&crm).unwrap();
        std::fs::write(crm.join(format!("{name}.bson")), doc! { "_id": 7 }.to_vec().unwrap()).unwrap();
    }
    let slow = doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 6000, "namespace": "crm.people" };
    target.fail_command(doc! { "times": 1 }, slow).await;
    let login = login(&target, "restore");
    let first: Vec<&str> = ["restore"].into_iter().chain(login.iter().map(String::as_str)).chain(["d"]).collect();
    let first = cli.spawn(&first);
    while !names_of_crm(&to).await.iter().any(|name| name.starts_with("bsonvault.filling.")) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let (second, cleaned) =
        tokio::join!(run(&cli, &target, "restore", &["e"]), cli.run(&["import", "--cleanup", "--yes", "--json"]));
    assert!(second.code == Some(1) && second.stderr.contains("another restore is filling collections of crm"), "{second:?}");
    let report = cleaned.json();
    assert_eq!((&report["running"][0]["database"], &report["dropped"]), (&"crm".into(), &serde_json::json!([])), "{cleaned:?}");
    let first = finish(first).await;
    assert_eq!((first.code, names_of_crm(&to).await), (Some(0), vec!["people".to_owned()]), "{first:?}");
    let second = run(&cli, &target, "restore", &["e"]).await;
    assert_eq!((second.code, names_of_crm(&to).await.join(" ").as_str()), (Some(0), "others people"), "{second:?}");
}
