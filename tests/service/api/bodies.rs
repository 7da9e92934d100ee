//! The body of each documented call, on real servers, compared with a checked-in one. `BLESS=1`
//! rewrites them.

use std::path::PathBuf;

use bson::doc;
use chrono::DateTime;
use rocket::figment::Figment;
use serde_json::{Value, json};

use super::place::Place;

use crate::support::server::Server;

/// A replica set with three small collections in two databases, and a standalone.
pub(crate) struct Pair {
    pub(crate) source: Server,
    pub(crate) target: Server,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let (source, target) = tokio::join!(Server::replica_set("atlas"), Server::standalone());
        let client = source.client().await;
        for (database, collection, number) in [("crm", "people", 2), ("shop", "items", 3), ("shop", "orders", 10)] {
            let documents = (0..number).map(|n| doc! { "_id": n, "n": n % 3, "text": "x".repeat(50) });
            client.database(database).collection(collection).insert_many(documents).await.unwrap();
        }
        let index = doc! { "createIndexes": "orders", "indexes": [{ "key": { "n": 1 }, "name": "by_n" }] };
        client.database("shop").run_command(index).await.unwrap();
        Self { source, target }
    }

    pub(crate) async fn place(&self) -> Place {
        Place::with(&[("MONGO_URI_ATLAS", &self.source.uri()), ("MONGO_URI_LOCAL", &self.target.uri())], Figment::new()).await
    }
}

/// Compares a body with the checked-in one of this name.
fn compare(name: &str, place: &Place, body: &Value) {
    let mut body = body.clone();
    normalise(&mut body, place.directory.path().to_str().unwrap(), "");
    let found = format!("{}\n", serde_json::to_string_pretty(&body).unwrap());
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/api").join(format!("{name}.json"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(found, expected, "{name}: BLESS=1 takes this for what is expected");
}

/// Replaces what differs from run to run.
fn normalise(value: &mut Value, directory: &str, key: &str) {
    const MEASURED: [&str; 20] = [
        "freedBytes",
        "latencyMs",
        "size",
        "storedBytes",
        "milliseconds",
        "documentsPerSecond",
        "bytesPerSecond",
        "bytes",
        "i",
        "increment",
        "readers",
        "segmentBytes",
        "level",
        "headroom",
        "lagSeconds",
        "entries",
        "pieces",
        "operations",
        "batches",
        "ddl",
    ];
    const VERSIONS: [&str; 4] = ["version", "toolVersion", "serverVersion", "featureCompatibilityVersion"];
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| normalise(value, directory, key)),
        Value::Array(values) => values.iter_mut().for_each(|value| normalise(value, directory, key)),
        Value::Number(_) if MEASURED.contains(&key) => *value = json!("<number>"),
        Value::Number(number) if number.as_u64().is_some_and(|n| n > 1_500_000_000) => *value = json!("<time>"),
        Value::String(_) if key == "position" => *value = json!("<position>"),
        Value::String(_) if VERSIONS.contains(&key) => *value = json!("<version>"),
        Value::String(text) => *text = normalised(text, directory),
        _ => {}
    }
}

fn normalised(text: &str, directory: &str) -> String {
    if DateTime::parse_from_rfc3339(text).is_ok() {
        return "<time>".to_owned();
    }
    let mut text = text.replace(directory, "<directory>");
    while let Some(at) = text.find("atlas-backup-2") {
        text.replace_range(at..at + "atlas-backup-2026-11-22T21-45-00-000Z".len(), "<name>");
    }
    while let Some(at) = text.find("127.0.0.1:") {
        let port = text[at + 10..].bytes().take_while(u8::is_ascii_digit).count();
        text.replace_range(at..at + 10 + port, "<host>");
    }
    // Hexadecimal digits, with or without dashes between them.
    let is_part = |c: char| c.is_ascii_hexdigit() || c == '-';
    let mut parts = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find(is_part) {
        let length = rest[at..].find(|c| !is_part(c)).unwrap_or(rest.len() - at);
        let word = &rest[at..at + length];
        parts += &rest[..at];
        parts += match word.len() {
            _ if uuid::Uuid::parse_str(word).is_ok() && word.len() == 36 => "<id>",
            24.. => "<digest>",
            _ => word,
        };
        rest = &rest[at + length..];
    }
    parts + rest
}

#[tokio::test]
async fn each_documented_body_is_what_it_always_was() {
    let pair = Pair::start().await;
    let place = pair.place().await;
    let check = |name: &str, answer: &super::place::Answer, status: u16| {
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        compare(name, &place, &answer.json());
    };

    check("archive-stopped", &place.get("/api/archive").await, 200);
    check("timeline-empty", &place.get("/api/timeline").await, 200);
    check("status-empty", &place.get("/api/backups/status").await, 200);
    let created = place.post("/api/backups/create", "").await;
    check("create", &created, 200);
    let created = created.data();
    let name = created["name"].as_str().unwrap();
    check("status", &place.get("/api/backups/status").await, 200);
    check("backup", &place.get(&format!("/api/backups/{name}")).await, 200);

    let imported = place.post("/api/backups/import", json!({ "backupPath": name })).await;
    check("import", &imported, 200);
    let job = imported.data()["jobId"].as_str().unwrap().to_owned();
    check("job", &place.get(&format!("/api/jobs/{job}")).await, 200);
    check("jobs", &place.get("/api/jobs?limit=1").await, 200);
    let renamed = json!({ "backupPath": created["backupPath"], "databaseName": "shop2", "include": ["shop.*"], "exclude": ["*.items"], "mode": "fail" });
    check("import-renamed", &place.post("/api/backups/import", &renamed).await, 200);
    check("import-refused", &place.post("/api/backups/import", &renamed).await, 409);
    let several = json!({ "backupPath": name, "databaseName": "one" });
    check("import-several-databases", &place.post("/api/backups/import", several).await, 422);
    check("import-two-times", &place.post("/api/backups/import", json!({ "to": "1:1", "undo": "1:1" })).await, 422);
    check("import-no-archive", &place.post("/api/backups/import", json!({ "to": "2026-11-22T21:45:00Z" })).await, 404);
    check("import-not-found", &place.post("/api/backups/import", json!({ "backupPath": "../.." })).await, 404);

    check("verify", &place.post(&format!("/api/backups/{name}/verify"), "").await, 200);
    check("verify-deep", &place.post(&format!("/api/backups/{name}/verify"), json!({ "deep": true })).await, 200);
    check("test-connections", &place.get("/api/backups/test-connections").await, 200);
    check("schedule", &place.get("/api/schedule").await, 200);
    check("clean-out-of-range", &place.post("/api/backups/clean", json!({ "keepCount": 0 })).await, 422);
    check(
        "wrong-token",
        &place.ask(super::place::Ask::new(rocket::http::Method::Get, "/api/schedule").token(Some("x"))).await,
        401,
    );
    check("clean-dry-run", &place.post("/api/backups/clean", json!({ "keepCount": 1, "dryRun": true })).await, 200);
    let newer = place.post("/api/backups/create", "").await.data();
    check("clean", &place.post("/api/backups/clean", json!({ "keepCount": 1 })).await, 200);
    let left = place.get("/api/backups/status").await.data();
    assert_eq!((left["backups"].as_array().unwrap().len(), &left["backups"][0]["name"]), (1, &newer["name"]), "{left}");
    let name = newer["name"].as_str().unwrap();
    check("delete", &place.delete(&format!("/api/backups/{name}")).await, 200);
    // No backup is left, but the last run is still known.
    check("status-deleted", &place.get("/api/backups/status").await, 200);

    // The archive takes a base by itself.
    assert_eq!(place.post("/api/archive/start", "").await.status, 200);
    let until = async |path: &str, is_so: &dyn Fn(&Value) -> bool| {
        for _ in 0..600 {
            if is_so(&place.get(path).await.data()) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("{path}: {:?}", place.get(path).await);
    };
    until("/api/backups/status", &|status| status["backups"][0]["complete"] == true).await;
    pair.source.client().await.database("shop").collection("orders").insert_one(doc! { "_id": 10 }).await.unwrap();
    until("/api/timeline", &|timeline| timeline["minutes"][0].is_object() && timeline["ranges"][0].is_object()).await;
    // Its headroom is known once the oplog is longer than a second.
    pair.source.client().await.database("shop").collection("orders").insert_one(doc! { "_id": 11 }).await.unwrap();
    until("/api/archive", &|archive| archive["headroom"].is_number() && archive["base"].is_null()).await;
    check("archive", &place.get("/api/archive").await, 200);
    check("archive-stop", &place.post("/api/archive/stop", "").await, 200);
    let mut timeline = place.get("/api/timeline").await.json();
    // What the server writes by itself, and when the minute ends, is different each time.
    timeline["data"]["archives"][0]["rawBytes"] = json!("<number>");
    timeline["data"]["minutes"].as_array_mut().unwrap().truncate(1);
    compare("timeline", &place, &timeline);

    let copy = pair.target.client().await.database("shop");
    assert_eq!(copy.collection::<bson::Document>("orders").count_documents(doc! {}).await.unwrap(), 10);
}

#[tokio::test]
async fn each_body_of_the_sync_is_what_it_always_was() {
    let pair = Pair::start().await;
    let (source, target) = (pair.source.uri(), pair.target.uri());
    let environment =
        [("MONGO_URI_ATLAS", &*source), ("MONGO_URI_LOCAL", &*target), ("SYNC_EXCLUDE", "crm.*"), ("SYNC_PROOF", "off")];
    let place = Place::with(&environment, Figment::new()).await;
    let check = |name: &str, answer: &super::place::Answer, status: u16| {
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        compare(name, &place, &answer.json());
    };
    check("sync-none", &place.get("/api/sync").await, 200);
    check("sync-verify-none", &place.post("/api/sync/verify", "").await, 404);
    check("sync-pause-none", &place.post("/api/sync/pause", "").await, 404);
    assert_eq!(place.post("/api/sync/start", json!({ "mode": "fail" })).await.status, 200);
    let until = async |is_so: &dyn Fn(&Value) -> bool| {
        for _ in 0..600 {
            if is_so(&place.get("/api/sync").await.data()) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("{:?}", place.get("/api/sync").await);
    };
    until(&|sync| sync["state"] == "following").await;
    pair.source.client().await.database("shop").collection("orders").insert_one(doc! { "_id": 10 }).await.unwrap();
    until(&|sync| sync["operations"] != 0 && sync["lagSeconds"].is_u64()).await;
    check("sync", &place.get("/api/sync").await, 200);
    check("sync-verify", &place.post("/api/sync/verify", "").await, 200);
    check("sync-pause", &place.post("/api/sync/pause", "").await, 200);
    check("sync-resume", &place.post("/api/sync/resume", "").await, 200);
    check("sync-stop", &place.post("/api/sync/stop", "").await, 200);
    check("sync-final", &place.post("/api/sync/finalize", "").await, 200);
    check("sync-verify-final", &place.post("/api/sync/verify", "").await, 409);
    check("sync-pause-final", &place.post("/api/sync/pause", "").await, 409);
    let copy = pair.target.client().await.database("shop").collection::<bson::Document>("orders");
    assert_eq!(copy.count_documents(doc! {}).await.unwrap(), 11);
}

#[tokio::test]
async fn a_backup_that_is_damaged_is_a_result_and_no_failure() {
    let pair = Pair::start().await;
    let place = pair.place().await;
    let created = place.post("/api/backups/create?wait=true", "").await.data();
    let name = created["name"].as_str().unwrap();
    let shown = place.get(&format!("/api/backups/{name}?segments=true")).await.data();
    let key = shown["collections"][2]["segments"][0]["key"].as_str().or(shown["collections"][2]["segments"][0]["name"].as_str());
    let file = place.backups().join(name).join(key.unwrap_or_else(|| panic!("{shown}")));
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let verified = place.post(&format!("/api/backups/{name}/verify"), "{}").await;
    assert_eq!(verified.status, 200);
    compare("verify-damaged", &place, &verified.json());
    let import = place.post("/api/backups/import", json!({ "backupPath": name })).await;
    let (status, kind, _) = import.failure();
    assert_eq!((status, kind.as_str()), (500, "damaged"), "{import:?}");
    assert!(import.json()["error"]["jobId"].is_string(), "{import:?}");
    let state = place.get("/api/backups/status").await.data();
    assert_eq!(state["backups"][0]["verified"], false);

    // So is one with an unusable manifest.
    std::fs::write(place.backups().join(name).join("manifest.json"), "{}").unwrap();
    let verified = place.post(&format!("/api/backups/{name}/verify"), "{}").await;
    assert_eq!((verified.status, &verified.data()["sound"]), (200, &json!(false)), "{verified:?}");
    assert_eq!(verified.data()["problems"][0]["key"], "manifest.json", "{verified:?}");
    let state = place.get("/api/backups/status").await.data();
    assert_eq!((&state["backups"][0]["state"], &state["backups"][0]["complete"]), (&json!("damaged"), &json!(false)));
}

#[tokio::test]
async fn a_source_that_holds_nothing_is_no_backup() {
    let source = Server::replica_set("atlas").await;
    let place = Place::with(&[("MONGO_URI_ATLAS", &source.uri())], Figment::new()).await;
    let created = place.post("/api/backups/create", "").await;
    let (status, kind, _) = created.failure();
    assert_eq!((status, kind.as_str()), (404, "notFound"), "{created:?}");
    assert_eq!(place.get("/api/backups/status").await.data()["backups"], json!([]));
}

#[tokio::test]
async fn a_backup_whose_import_fails_is_a_success_that_says_so() {
    let mut pair = Pair::start().await;
    pair.target.kill();
    let local = format!("{}&serverSelectionTimeoutMS=300", pair.target.uri());
    let place = Place::with(&[("MONGO_URI_ATLAS", &pair.source.uri()), ("MONGO_URI_LOCAL", &local)], Figment::new()).await;
    let created = place.post("/api/backups/create", "").await;
    assert_eq!(created.status, 200, "{created:?}");
    let (message, data) = (created.json()["message"].as_str().unwrap().to_owned(), created.data());
    assert!(message.starts_with("Manual backup completed successfully, but its import failed: "), "{message}");
    assert_eq!(data["imported"], false);
    assert!(message.ends_with(data["importError"].as_str().unwrap()), "{message}");
    let job = place.get(&format!("/api/jobs/{}", data["jobId"].as_str().unwrap())).await.data();
    assert_eq!(
        (&job["state"], &job["error"]["stage"], &job["error"]["kind"]),
        (&json!("failed"), &json!("import"), &json!("unreachable"))
    );
    assert_eq!(place.get("/api/backups/status").await.data()["backups"][0]["complete"], true);
}

#[tokio::test]
async fn servers_that_do_not_answer_are_told_as_that_and_soon() {
    let atlas = "mongodb://user:secret@127.0.0.1:1/?serverSelectionTimeoutMS=300";
    let place = Place::with(&[("MONGO_URI_ATLAS", atlas), ("MONGO_URI_LOCAL", "mongodb://127.0.0.1:2/")], Figment::new()).await;
    let begun = std::time::Instant::now();
    let state = place.get("/api/backups/test-connections").await;
    assert!(begun.elapsed().as_millis() < 6500, "{:?}", begun.elapsed());
    assert_eq!((&state.data()["atlas"]["connected"], &state.data()["local"]["connected"]), (&json!(false), &json!(false)));
    let created = place.post("/api/backups/create", "").await;
    let (status, kind, _) = created.failure();
    assert_eq!((status, kind.as_str()), (502, "unreachable"), "{created:?}");
    let job = created.json()["error"]["jobId"].as_str().unwrap().to_owned();
    let kept = place.get(&format!("/api/jobs/{job}")).await;
    assert_eq!((&kept.data()["state"], &kept.data()["error"]["stage"]), (&json!("failed"), &json!("backup")));
    for answer in [state, created, kept] {
        assert!(!answer.text.contains("secret"), "{answer:?}");
    }
}
