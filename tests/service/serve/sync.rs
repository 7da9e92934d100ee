//! The sync beside the schedule: it follows, is paused, stopped, started and made final, is held,
//! waits for what is away or in the way, and goes on after a restart.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::Pair;
use super::archive::{count, insert, metric_of, until};
use super::notices::message;

use crate::support::cli::Cli;
use crate::support::server::{Server, ServerOptions};
use crate::support::service::Service;

const PATIENCE: Duration = Duration::from_secs(60);

/// A replica set that follows another one.
async fn sets() -> Pair {
    let Pair { source, .. } = Pair::start().await;
    let target = Server::replica_set("copy").await;
    Pair { source, target }
}

fn following(pair: &Pair) -> Cli {
    pair.service().env("SYNC_ENABLED", "true")
}

async fn sync_is(service: &Service, state: &str) -> Value {
    until(service, "/api/sync", state, |sync| sync["state"] == state).await
}

async fn metric(service: &Service, name: &str) -> Option<f64> {
    metric_of(service, &format!("sync_{name}")).await
}

/// Waits until a collection of the target has so many documents.
async fn has(pair: &Pair, service: &Service, collection: &str, wanted: u64) {
    let begun = Instant::now();
    while count(&pair.target, "shop", collection).await != wanted {
        let state = service.get("/api/sync").await;
        assert!(begun.elapsed() < PATIENCE, "never {wanted} in {collection}: {state:?}\n{}", service.log().join("\n"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ask(service: &Service, verb: &str) -> Value {
    let answer = service.post(&format!("/api/sync/{verb}"), &Value::Null).await;
    assert_eq!((answer.status, &answer.body["success"]), (200, &json!(true)), "{verb}: {answer:?}");
    answer.body["data"].clone()
}

/// What a call is refused with: no text of it names a flag.
async fn refused(service: &Service, verb: &str, status: u16, kind: &str) -> String {
    let answer = service.post(&format!("/api/sync/{verb}"), &Value::Null).await;
    assert_eq!((answer.status, &answer.body["error"]["kind"]), (status, &json!(kind)), "{verb}: {answer:?}");
    assert!(!answer.body.to_string().contains("--") && !answer.body.to_string().contains("[["), "{answer:?}");
    answer.body["message"].as_str().unwrap().to_owned()
}

/// The position that the target itself has, and who holds it.
async fn recorded(target: &Server) -> Document {
    let position = target.client().await.database("bsonvault").collection::<Document>("sync");
    position.find_one(doc! {}).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_setting_starts_follows_until_it_is_final() {
    let pair = sets().await;
    let cli = following(&pair).env("SYNC_EXCLUDE", "shop.part5").env("SYNC_RENAME", "shop.part4=shop.four");
    let service = Service::start(&cli).await;
    let client = pair.source.client().await;

    // 1. The first copy, and a write.
    let sync = sync_is(&service, "following").await;
    assert_eq!(
        (&sync["enabled"], &sync["running"], &sync["replicaSet"]),
        (&json!(true), &json!(true), &json!("atlas")),
        "{sync}"
    );
    assert_eq!(sync["selection"], "exclude shop.part5, rename shop.part4=shop.four", "{sync}");
    assert!(sync["target"].as_str().unwrap().contains(&pair.target.port().to_string()), "{sync}");
    insert(&client, "shop", "log", 1).await;
    has(&pair, &service, "log", 1).await;
    assert_eq!((count(&pair.target, "shop", "four").await, count(&pair.target, "shop", "part5").await), (1000, 0));
    let sync = until(&service, "/api/sync", "one moment", |sync| sync["moment"] == true && sync["lagSeconds"].is_u64()).await;
    assert!(
        sync["operations"].as_u64() >= Some(1) && sync["at"]["position"].is_string() && sync["written"].is_string(),
        "{sync}"
    );
    let seen = (metric(&service, "enabled").await, metric(&service, "running").await, metric(&service, "held").await);
    assert_eq!(seen, (Some(1.0), Some(1.0), Some(0.0)));
    assert!(metric(&service, "operations_total").await >= Some(1.0) && metric(&service, "batch_seconds_total").await > Some(0.0));
    // It archives by itself.
    assert!(metric_of(&service, "archive_headroom_ratio").await.is_some());

    // It is proven by itself, and on request.
    until(&service, "/api/sync", "proven", |sync| sync["proven"]["same"] == true && sync["proven"]["differences"] == 0).await;
    assert!(metric(&service, "proven_seconds").await > Some(0.0) && metric(&service, "differences").await == Some(0.0));
    let foreign = pair.target.client().await.database("shop").collection::<Document>("log");
    foreign.insert_one(doc! { "_id": "foreign" }).await.unwrap();
    let report = ask(&service, "verify").await;
    assert_eq!((&report["same"], &report["differences"][0]["namespace"]), (&json!(false), &json!("shop.log")), "{report}");
    assert_eq!(report["differences"][0]["ids"], json!([{ "_id": "foreign", "what": "extra" }]), "{report}");
    until(&service, "/api/sync", "different", |sync| sync["proven"]["differences"] == 1).await;
    assert_eq!((metric(&service, "proven_same").await, metric(&service, "differences").await), (Some(0.0), Some(1.0)));
    let why = refused(&service, "finalize", 409, "refused").await;
    assert!(why.contains("1 difference"), "{why}");
    foreign.delete_one(doc! { "_id": "foreign" }).await.unwrap();
    sync_is(&service, "following").await;
    assert_eq!(ask(&service, "verify").await["same"], true);

    // 2. Nothing else may write to it, and what it does not hold is free.
    let created = service.post("/api/backups/create", &Value::Null).await;
    assert_eq!(created.status, 200, "{created:?}");
    assert_eq!(created.body["data"]["imported"], false, "the default imports into what follows: {created:?}");
    let name = created.body["data"]["name"].clone();
    let import = json!({ "backupPath": name, "include": ["shop.part0"], "mode": "replace" });
    let import = service.post("/api/backups/import", &import).await;
    assert_eq!((import.status, &import.body["error"]["kind"]), (409, &json!("refused")), "{import:?}");
    assert!(import.body["message"].as_str().unwrap().contains("follows the replica set atlas"), "{import:?}");
    assert!(import.body["message"].as_str().unwrap().contains("shop.part0"), "{import:?}");
    let free = service.post("/api/backups/import", &json!({ "backupPath": name, "include": ["shop.part5"] })).await;
    assert_eq!(free.status, 200, "{free:?}");

    // 3. A pause: what is archived is not applied.
    for _ in 0..2 {
        assert_eq!(ask(&service, "pause").await["state"], "paused");
    }
    until(&service, "/api/sync", "paused by itself", |sync| sync["state"] == "paused").await;
    assert_eq!(metric(&service, "running").await, Some(0.0));
    let meanwhile = insert(&client, "shop", "log", 2).await;
    let later =
        |sync: &Value| sync["archived"]["position"].as_str().is_some_and(|at| at >= super::archive::position(meanwhile).as_str());
    let paused = until(&service, "/api/sync", "archived", later).await;
    assert_eq!((&paused["state"], count(&pair.target, "shop", "log").await), (&json!("paused"), 1), "{paused}");
    assert_ne!(ask(&service, "resume").await["state"], "paused");
    has(&pair, &service, "log", 2).await;

    // 4. Stopped and started again, each twice.
    for _ in 0..2 {
        let stopped = ask(&service, "stop").await;
        assert_eq!((&stopped["state"], &stopped["running"]), (&json!("stopped"), &json!(false)), "{stopped}");
    }
    assert!(!recorded(&pair.target).await.contains_key("holder"), "it is not released");
    insert(&client, "shop", "log", 3).await;
    let stopped = service.get("/api/sync").await.body["data"].clone();
    assert_eq!((&stopped["state"], &stopped["replicaSet"]), (&json!("stopped"), &json!("atlas")), "{stopped}");
    for _ in 0..2 {
        assert_ne!(ask(&service, "start").await["state"], "stopped");
    }
    has(&pair, &service, "log", 3).await;

    // 5. It ends with the service, in order, and the next one goes on.
    let (code, log) = service.stop().await;
    assert_eq!(code, Some(0), "{log:?}");
    assert!(!recorded(&pair.target).await.contains_key("holder"), "it is not released: {log:?}");
    insert(&client, "shop", "log", 4).await;
    let service = Service::start(&cli).await;
    has(&pair, &service, "log", 4).await;
    assert!(!service.log().iter().any(|line| line.contains("makes the first copy")), "{:?}", service.log());

    // 6. For good.
    sync_is(&service, "following").await;
    for _ in 0..2 {
        let done = ask(&service, "finalize").await;
        assert_eq!((&done["state"], &done["running"]), (&json!("final"), &json!(false)), "{done}");
    }
    sync_is(&service, "final").await;
    refused(&service, "pause", 409, "refused").await;
    ask(&service, "start").await;
    let is_refused = |sync: &Value| sync["problem"].is_string() && sync["state"] == "final";
    let ended = until(&service, "/api/sync", "refused", is_refused).await;
    assert_eq!(ended["running"], false, "{ended}");
    assert!(ended["problem"].as_str().unwrap().contains("was finalized"), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_starts_it_beside_the_archive_and_says_what_is_replaced() {
    let pair = Pair::start().await;
    let there = pair.target.client().await.database("shop").collection("part0");
    there.insert_one(doc! { "_id": "its own" }).await.unwrap();
    let cli = pair.service().env("PITR_ENABLED", "true");
    let service = Service::start(&cli).await;
    let sync = service.get("/api/sync").await.body["data"].clone();
    assert_eq!((&sync["state"], &sync["enabled"], &sync["running"]), (&json!("stopped"), &json!(false), &json!(false)), "{sync}");
    for verb in ["pause", "resume", "finalize"] {
        assert!(refused(&service, verb, 404, "notFound").await.contains("follows nothing"));
    }

    // What is there is not replaced unless that is said.
    ask(&service, "start").await;
    let refusal = |sync: &Value| sync["state"] == "stopped" && sync["problem"].is_string();
    let sync = until(&service, "/api/sync", "refused", refusal).await;
    assert!(sync["problem"].as_str().unwrap().contains("shop.part0"), "{sync}");
    let hint = sync["hint"].as_str().unwrap();
    assert!(hint.contains("SYNC_RENAME") && hint.contains("mode replace") && !hint.contains("--"), "{sync}");
    assert_eq!(count(&pair.target, "shop", "part0").await, 1);
    let started = service.post("/api/sync/start", &json!({ "mode": "replace" })).await;
    assert_eq!(started.status, 200, "{started:?}");
    sync_is(&service, "following").await;
    insert(&pair.source.client().await, "shop", "log", 1).await;
    has(&pair, &service, "log", 1).await;
    assert_eq!(count(&pair.target, "shop", "part0").await, 1000);
    // The service's own archive writes what the sync reads.
    let archive = service.get("/api/archive").await.body["data"].clone();
    assert_eq!(archive["state"], "following", "{archive}");
    // A standalone shows no moment.
    assert_eq!(service.get("/api/sync").await.body["data"]["moment"], false);

    // After a restart, the setting decides.
    let (code, log) = service.stop().await;
    assert_eq!(code, Some(0), "{log:?}");
    let cli = pair.service();
    let service = Service::start(&cli).await;
    let sync = until(&service, "/api/sync", "asked of the target", |sync| sync["replicaSet"] == "atlas").await;
    assert_eq!((&sync["state"], &sync["running"]), (&json!("stopped"), &json!(false)), "{sync}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_held_is_told_everywhere_and_begins_again_on_request() {
    let pair = sets().await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let cli = following(&pair).env("WEBHOOK_URL", url);
    let service = Service::start(&cli).await;
    sync_is(&service, "following").await;

    // Somebody deletes a document of the target, and the source changes it.
    let (source, target) = (pair.source.client().await, pair.target.client().await);
    let [here, there] = [&source, &target].map(|client| client.database("shop").collection::<Document>("part0"));
    let lost = there.find_one_and_delete(doc! {}).await.unwrap().unwrap();
    here.update_one(doc! { "_id": &lost["_id"] }, doc! { "$set": { "changed": true } }).await.unwrap();
    let (headers, body) = message(&listener).await;
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((headers["x-bsonvault-event"].as_str(), &told["event"]), ("sync.held", &json!("sync.held")), "{told}");
    let sync = sync_is(&service, "held").await;
    for sync in [&told["data"], &sync] {
        assert!(sync["problem"].as_str().is_some_and(|problem| problem.contains("shop.part0")), "{sync}");
        assert_eq!((&sync["state"], &sync["replicaSet"]), (&json!("held"), &json!("atlas")), "{sync}");
    }
    let seen = (metric(&service, "held").await, metric(&service, "running").await, metric(&service, "lag_seconds").await);
    assert_eq!(seen, (Some(1.0), Some(0.0), None));

    // It is not stopped for what cannot be.
    for verb in ["pause", "resume", "finalize"] {
        refused(&service, verb, 409, "refused").await;
    }
    assert_eq!(service.get("/api/sync").await.body["data"]["state"], "held");

    // The document is back: it begins where it stopped.
    there.insert_one(&lost).await.unwrap();
    ask(&service, "start").await;
    sync_is(&service, "following").await;
    let begun = Instant::now();
    while there.find_one(doc! { "_id": &lost["_id"], "changed": true }).await.unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "{:?}", service.get("/api/sync").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(metric(&service, "held").await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_that_follows_is_named_obeys_and_is_taken_over() {
    let pair = sets().await;
    // Both have one archive: another one would not reach back to the position of the target.
    let cli = pair.service();
    let mut child = cli.spawn(&["sync"]);
    let service = Service::start(&cli).await;
    let sync = sync_is(&service, "following").await;
    let process = format!("{} on ", child.id());
    assert!(sync["process"].as_str().is_some_and(|said| said.starts_with(&process)), "{sync}");
    assert_eq!((&sync["running"], &sync["enabled"]), (&json!(true), &json!(false)), "{sync}");

    // One that would follow, too, waits, and says for whom.
    ask(&service, "start").await;
    let in_the_way = |sync: &Value| {
        let says = |field: &str, what: &str| sync[field].as_str().is_some_and(|said| said.contains(what));
        says("problem", "is followed into by process") && says("process", &process)
    };
    let sync = until(&service, "/api/sync", "in the way", in_the_way).await;
    assert_eq!(sync["state"], "following", "{sync}");
    assert_eq!(metric(&service, "running").await, Some(0.0));
    assert_eq!(ask(&service, "pause").await["state"], "paused");
    assert_eq!(ask(&service, "resume").await["state"], "following");
    assert!(refused(&service, "finalize", 409, "busy").await.contains("is followed into by process"));

    // The other one dies.
    child.kill().unwrap();
    child.wait().unwrap();
    until(&service, "/api/sync", "its own", |sync| sync["state"] == "following" && sync["process"].is_null()).await;
    insert(&pair.source.client().await, "shop", "log", 1).await;
    has(&pair, &service, "log", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_away_is_waited_for_and_the_service_answers() {
    let Pair { source, .. } = Pair::start().await;
    let mut target = Server::start(ServerOptions::default()).await;
    target.kill();
    let mut pair = Pair { source, target };
    let cli = following(&pair).env("MONGO_URI_LOCAL", format!("{}&serverSelectionTimeoutMS=300", pair.target.uri()));
    let service = Service::start(&cli).await;
    let sync = until(&service, "/api/sync", "waiting", |sync| sync["state"] == "waiting" && sync["problem"].is_string()).await;
    assert!(sync["problem"].as_str().unwrap().contains(&pair.target.port().to_string()), "{sync}");
    assert!(sync["at"].is_null() && sync["lagSeconds"].is_null(), "{sync}");
    refused(&service, "pause", 502, "unreachable").await;
    pair.target.restart().await;
    sync_is(&service, "following").await;

    // It goes away while it follows, and comes back.
    pair.target.kill();
    insert(&pair.source.client().await, "shop", "log", 1).await;
    sync_is(&service, "waiting").await;
    assert_eq!(metric(&service, "running").await, Some(0.0));
    pair.target.restart().await;
    sync_is(&service, "following").await;
    has(&pair, &service, "log", 1).await;
    let (code, _) = service.stop().await;
    assert_eq!(code, Some(0));
}
