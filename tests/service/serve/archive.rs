//! The archive of the oplog beside the schedule: it runs, is stopped and started, tells of gaps,
//! and any time in it is imported by a job.

use std::time::{Duration, Instant};

use bson::{Document, Timestamp, doc};
use mongodb::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::Pair;
use super::notices::message;

use crate::support::server::{Server, ServerOptions};
use crate::support::service::{READER, Service, answer, client as client_of_rest};

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until the data of a call meets a condition.
pub(super) async fn until(service: &Service, path: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let answer = service.get(path).await;
        assert_eq!((answer.status, &answer.body["success"]), (200, &json!(true)), "{answer:?}");
        if is_so(&answer.body["data"]) {
            return answer.body["data"].clone();
        }
        assert!(begun.elapsed() < PATIENCE, "never {what}: {answer:?}\n{}", service.log().join("\n"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn follows(archive: &Value) -> bool {
    archive["state"] == "following"
}

/// Inserts a document, and returns its time.
pub(super) async fn insert(client: &Client, database: &str, collection: &str, id: i32) -> Timestamp {
    let done = client.database(database).run_command(doc! { "insert": collection, "documents": [{ "_id": id }] }).await;
    done.unwrap().get_timestamp("operationTime").unwrap()
}

pub(super) fn position(time: Timestamp) -> String {
    format!("{}:{}", time.time, time.increment)
}

/// Waits until everything up to this time is durable.
async fn archived(service: &Service, time: Timestamp) -> Value {
    let reached = |archive: &Value| {
        let position = archive["position"]["position"].as_str().unwrap_or("0:0").split_once(':');
        position.is_some_and(|(t, i)| (t.parse::<u32>().unwrap(), i.parse::<u32>().unwrap()) >= (time.time, time.increment))
    };
    until(service, "/api/archive", "archived", reached).await
}

pub(super) async fn count(server: &Server, database: &str, collection: &str) -> u64 {
    server.client().await.database(database).collection::<Document>(collection).count_documents(doc! {}).await.unwrap()
}

async fn metric(service: &Service, name: &str) -> Option<f64> {
    metric_of(service, &format!("archive_{name}")).await
}

/// The value of a metric.
pub(super) async fn metric_of(service: &Service, name: &str) -> Option<f64> {
    let page = service.get("/metrics").await.body;
    let start = format!("bsonvault_{name} ");
    page.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&start)).map(|value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_setting_starts_archives_and_any_time_of_it_is_imported() {
    let pair = Pair::start().await;
    let cli = pair.service().env("PITR_ENABLED", "true");
    let service = Service::start(&cli).await;
    let client = pair.source.client().await;

    // 1. It follows the source, and takes a base by itself.
    let archive = until(&service, "/api/archive", "following", follows).await;
    assert_eq!((&archive["enabled"], &archive["gaps"]), (&json!(true), &json!([])), "{archive}");
    assert!(archive["path"].as_str().unwrap().ends_with(archive["replicaSetId"].as_str().unwrap()), "{archive}");
    let is_restorable = |timeline: &Value| timeline["ranges"].as_array().is_some_and(|ranges| !ranges.is_empty());
    let timeline = until(&service, "/api/timeline", "restorable", is_restorable).await;
    let base = timeline["ranges"][0]["base"].clone();

    // 2. Writes, a drop, and writes.
    insert(&client, "shop", "log", 1).await;
    let there = insert(&client, "shop", "log", 2).await;
    insert(&client, "shop", "log", 3).await;
    client.database("shop").collection::<Document>("part3").drop().await.unwrap();
    let after = insert(&client, "shop", "log", 4).await;
    let archive = archived(&service, after).await;
    assert!(archive["lagSeconds"].is_u64() && archive["headroom"].as_f64().is_some_and(|h| h > 0.25 && h <= 1.0), "{archive}");
    let seen = (metric(&service, "enabled").await, metric(&service, "running").await, metric(&service, "gaps").await);
    assert_eq!(seen, (Some(1.0), Some(1.0), Some(0.0)));
    assert!(metric(&service, "position_seconds").await.unwrap() >= f64::from(after.time));
    for name in ["lag_seconds", "headroom_ratio", "stored_bytes"] {
        assert!(metric(&service, name).await.is_some(), "{name}");
    }

    // 3. That time, and the operation undone under another name.
    let request = json!({ "to": position(there) });
    let imported = service.post("/api/backups/import", &request).await;
    assert_eq!((imported.status, &imported.body["data"]["name"]), (200, &base), "{imported:?}");
    assert_eq!((count(&pair.target, "shop", "log").await, count(&pair.target, "shop", "part3").await), (2, 1000));
    let job = service.job(imported.body["data"]["jobId"].as_str().unwrap()).await;
    assert_eq!((&job["import"], &job["backup"]), (&request, &base), "{job}");
    let timeline = service.get("/api/timeline").await.body["data"].clone();
    let drop = timeline["ddl"].as_array().unwrap().iter().find(|ddl| ddl["command"] == "drop").unwrap().clone();
    let request = json!({ "undo": drop["position"], "databaseName": "undone", "backupPath": base });
    let undone = service.post("/api/backups/import", &request).await;
    assert_eq!(undone.status, 200, "{undone:?}");
    assert_eq!((count(&pair.target, "undone", "part3").await, count(&pair.target, "undone", "log").await), (1000, 0));

    // 4. Times that nothing leads to.
    for (request, status, kind) in [
        (json!({ "to": "before:1:1" }), 404, "notFound"),
        (json!({ "to": "4294967294:1", "backupPath": "latest" }), 404, "notFound"),
        (json!({ "undo": "1:1" }), 404, "notFound"),
        (json!({ "to": position(there), "backupPath": "../.." }), 404, "notFound"),
    ] {
        let refused = service.post("/api/backups/import", &request).await;
        assert_eq!((refused.status, &refused.body["error"]["kind"]), (status, &json!(kind)), "{request}: {refused:?}");
    }

    // 5. Stopped and started again, each twice.
    for _ in 0..2 {
        let stopped = service.post("/api/archive/stop", &Value::Null).await;
        assert_eq!((stopped.status, &stopped.body["data"]["state"]), (200, &json!("stopped")), "{stopped:?}");
    }
    assert_eq!((metric(&service, "running").await, metric(&service, "lag_seconds").await), (Some(0.0), None));
    let meanwhile = insert(&client, "shop", "log", 5).await;
    let reader = client_of_rest().post(service.url("/api/archive/start")).bearer_auth(READER);
    assert_eq!(answer(reader).await.status, 403);
    assert_eq!(service.get("/api/archive").await.body["data"]["state"], "stopped");
    for _ in 0..2 {
        let started = service.post("/api/archive/start", &json!({})).await;
        assert_eq!(started.status, 200, "{started:?}");
        assert_ne!(started.body["data"]["state"], "stopped", "{started:?}");
    }
    let archive = archived(&service, meanwhile).await;
    assert_eq!(archive["gaps"], json!([]));

    // 6. It ends with the service, in order. The next one has it off.
    let last = insert(&client, "shop", "log", 6).await;
    let (code, log) = service.stop().await;
    assert_eq!(code, Some(0), "{log:?}");
    let cli = cli.env("PITR_ENABLED", "false");
    let service = Service::start(&cli).await;
    let archive = service.get("/api/archive").await.body["data"].clone();
    assert_eq!((&archive["state"], &archive["enabled"]), (&json!("stopped"), &json!(false)), "{archive}");
    let timeline = service.get("/api/timeline").await.body["data"].clone();
    assert_eq!(timeline["archives"][0]["running"], false, "{timeline}");
    let imported = service.post("/api/backups/import", &json!({ "to": position(last) })).await;
    assert_eq!(imported.status, 200, "{imported:?}");
    assert_eq!(count(&pair.target, "shop", "log").await, 6);
}

/// The time of the oldest entry of a server's oplog.
async fn oldest(client: &Client) -> Timestamp {
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    oplog.find_one(doc! {}).await.unwrap().unwrap().get_timestamp("ts").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_told_to_the_webhook_and_everywhere_else() {
    let mut options = ServerOptions { repl_set: Some("rolled".to_owned()), ..ServerOptions::default() };
    options.extra_args = ["--oplogSize", "1", "--syncdelay", "1"].map(str::to_owned).to_vec();
    let (source, target) = tokio::join!(Server::start(options), Server::standalone());
    let client = source.client().await;
    insert(&client, "shop", "log", 1).await;
    let pair = Pair { source, target };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let cli = pair.service().env("WEBHOOK_URL", url);
    let service = Service::start(&cli).await;

    // A request starts it, too.
    assert_eq!(service.get("/api/archive").await.body["data"]["state"], "stopped");
    service.post("/api/archive/start", &Value::Null).await;
    until(&service, "/api/archive", "following", follows).await;
    let stopped = service.post("/api/archive/stop", &Value::Null).await.body["data"].clone();
    let reached = stopped["position"]["position"].as_str().unwrap().split_once(':').unwrap();
    let reached = Timestamp { time: reached.0.parse().unwrap(), increment: reached.1.parse().unwrap() };

    // The oplog rolls over while it is stopped.
    let elsewhere = client.database("elsewhere").collection::<Document>("c");
    let mut inside = reached;
    let begun = Instant::now();
    while oldest(&client).await <= inside {
        elsewhere.insert_many((0..500).map(|_| doc! { "pad": "x".repeat(1000) })).await.unwrap();
        if inside == reached {
            inside = insert(&client, "shop", "log", 2).await;
        }
        assert!(begun.elapsed() < PATIENCE, "the oplog does not roll over");
    }
    service.post("/api/archive/start", &Value::Null).await;
    let (headers, body) = message(&listener).await;
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((headers["x-bsonvault-event"].as_str(), &told["event"]), ("archive.gap", &json!("archive.gap")), "{told}");
    let gap = &told["data"];
    assert_eq!((&gap["from"], &gap["replicaSetId"]), (&stopped["position"], &stopped["replicaSetId"]), "{told}");
    assert!(gap["reason"].as_str().unwrap().contains("oplog") && gap["to"]["position"].is_string(), "{told}");
    assert_eq!(told["time"], gap["found"], "{told}");

    let archive = until(&service, "/api/archive", "following", follows).await;
    assert_eq!(archive["gaps"], json!([gap]), "{archive}");
    assert_eq!(service.get("/api/timeline").await.body["data"]["gaps"], json!([gap]));
    assert_eq!(metric(&service, "gaps").await, Some(1.0));
    assert!(service.log().iter().any(|line| line.contains("a gap in the archive")), "{:?}", service.log());
    let refused = service.post("/api/backups/import", &json!({ "to": position(inside) })).await;
    assert_eq!((refused.status, &refused.body["error"]["kind"]), (409, &json!("gap")), "{refused:?}");
    assert!(refused.body["error"]["jobId"].is_null(), "a job was begun for it: {refused:?}");

    // The next run knows it, and does not tell it again.
    service.post("/api/archive/stop", &Value::Null).await;
    service.post("/api/archive/start", &Value::Null).await;
    until(&service, "/api/archive", "following", follows).await;
    let again = tokio::time::timeout(Duration::from_secs(1), listener.accept()).await;
    assert!(again.is_err(), "it is told again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_oplog_is_refused_with_the_reason_and_the_service_runs() {
    let pair = Pair::start().await;
    let cli = pair.service().env("PITR_ENABLED", "true").env("MONGO_URI_ATLAS", pair.target.uri());
    let service = Service::start(&cli).await;
    let archive =
        until(&service, "/api/archive", "stopped for a reason", |a| a["state"] == "stopped" && a["problem"].is_string());
    let archive = archive.await;
    assert!(archive["problem"].as_str().unwrap().contains("standalone"), "{archive}");
    assert!(archive["hint"].as_str().unwrap().contains("--replSet"), "{archive}");
    assert_eq!((metric(&service, "enabled").await, metric(&service, "running").await), (Some(1.0), Some(0.0)));
    assert_eq!(metric(&service, "gaps").await, None);
    let (code, _) = service.stop().await;
    assert_eq!(code, Some(0));
}
