//! Jobs over the interface: begun, refused beside another, cancelled, found again.

use std::time::{Duration, Instant};

use bson::{RawDocumentBuf, doc, rawdoc};
use bsonvault::service::MongoBackupService;
use rocket::figment::Figment;
use serde_json::{Value, json};

use super::bodies::Pair;
use super::place::Place;

use crate::support::cli::Cli;
use crate::support::server::Server;

const UNKNOWN: &str = "01993b2c-6b7e-7cc3-98c4-dc0c0c07398f";

/// Delays every read of documents.
pub(crate) async fn slow(server: &Server, milliseconds: i32) {
    let slow = doc! { "failCommands": ["find", "getMore"], "namespace": "shop.orders", "blockConnection": true, "blockTimeMS": milliseconds };
    server.fail_command("alwaysOn", slow).await;
}

/// Waits until a job meets a condition, and returns it.
pub(crate) async fn when(place: &Place, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let job = place.get(&format!("/api/jobs/{id}")).await.data();
        if is_so(&job) {
            return job;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{job}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Begins a job without waiting, and returns its id.
pub(crate) async fn begin(place: &Place, path: &str, body: &str) -> String {
    let begun = place.post(path, body).await;
    assert_eq!(begun.status, 202, "{begun:?}");
    let id = begun.data()["jobId"].as_str().unwrap().to_owned();
    assert_eq!(begun.header("Location"), Some(format!("/api/jobs/{id}").as_str()));
    id
}

#[tokio::test]
async fn one_backup_of_a_source_runs_at_a_time_and_can_be_cancelled() {
    let pair = Pair::start().await;
    let place = pair.place().await;
    slow(&pair.source, 3000).await;
    let id = begin(&place, "/api/backups/create?wait=false", "").await;
    let second = place.post("/api/backups/create", "").await;
    let (status, kind, _) = second.failure();
    assert_eq!((status, kind.as_str(), second.json()["error"]["jobId"].as_str()), (409, "busy", Some(id.as_str())));
    let running = place.get("/api/backups/status").await.data()["running"].clone();
    assert_eq!((running.as_array().unwrap().len(), &running[0]["jobId"]), (1, &json!(id)));
    when(&place, &id, |job| job["backup"].is_string()).await;

    let cancelled = place.delete(&format!("/api/jobs/{id}")).await;
    assert_eq!((cancelled.status, &cancelled.data()["id"]), (202, &json!(id)));
    pair.source.fail_no_more().await;
    let job = when(&place, &id, |job| !["queued", "running"].contains(&job["state"].as_str().unwrap())).await;
    assert_eq!((&job["state"], &job["error"]["kind"]), (&json!("cancelled"), &json!("interrupted")));
    let again = place.delete(&format!("/api/jobs/{id}")).await;
    assert_eq!((again.failure().0, again.failure().1.as_str()), (409, "refused"));
    assert_eq!(place.get("/api/backups/status").await.data()["backups"], json!([]), "nothing is left");
    assert_eq!(place.post("/api/backups/create", "").await.status, 200, "and the next one runs");
}

#[tokio::test]
async fn who_waits_for_a_job_that_is_cancelled_is_told() {
    let pair = Pair::start().await;
    let place = pair.place().await;
    slow(&pair.source, 2000).await;
    let waiting = place.post("/api/backups/create", "");
    let cancel = async {
        let begun = Instant::now();
        let id = loop {
            let running = place.get("/api/backups/status").await.data()["running"].clone();
            if let Some(id) = running[0]["jobId"].as_str() {
                break id.to_owned();
            }
            assert!(begun.elapsed() < Duration::from_secs(60));
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(place.delete(&format!("/api/jobs/{id}")).await.status, 202);
        pair.source.fail_no_more().await;
        id
    };
    let (answer, id) = tokio::join!(waiting, cancel);
    let (status, kind, _) = answer.failure();
    assert_eq!((status, kind.as_str(), answer.json()["error"]["jobId"].as_str()), (409, "interrupted", Some(id.as_str())));
}

#[tokio::test]
async fn imports_and_verifications_can_be_begun_and_followed() {
    let pair = Pair::start().await;
    let place = pair.place().await;
    let name = place.post("/api/backups/create", "").await.data()["name"].as_str().unwrap().to_owned();
    let import = begin(&place, "/api/backups/import?wait=false", &json!({ "backupPath": name }).to_string()).await;
    let verify = begin(&place, &format!("/api/backups/{name}/verify?wait=false"), "").await;
    for (id, kind) in [(&import, "import"), (&verify, "verify")] {
        let job = when(&place, id, |job| job["finished"].is_string()).await;
        assert_eq!((&job["kind"], &job["state"], &job["backup"]), (&json!(kind), &json!("succeeded"), &json!(name)), "{job}");
    }
    let imports = place.get("/api/jobs?kind=import&state=succeeded").await.data();
    assert_eq!(imports["jobs"].as_array().unwrap().len(), 1);
    let all = place.get("/api/jobs").await.data()["jobs"].clone();
    let kinds: Vec<_> = all.as_array().unwrap().iter().map(|job| job["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["verify", "import", "backup"], "newest first");
    assert_eq!(place.get("/api/jobs?limit=2").await.data()["jobs"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn jobs_that_there_are_not_are_not_found() {
    let place = Place::new().await;
    for id in [UNKNOWN, "not-a-uuid", "1", "%20", "..%2f", "%00"] {
        for path in [format!("/api/jobs/{id}"), format!("/api/jobs/{id}/events")] {
            let answer = place.get(&path).await;
            assert_eq!((answer.failure().0, answer.failure().1.as_str()), (404, "notFound"), "{path}");
        }
        assert_eq!(place.delete(&format!("/api/jobs/{id}")).await.failure().0, 404, "{id}");
    }
}

#[tokio::test]
async fn whoever_goes_away_while_a_job_begins_leaves_nothing_locked() {
    let pair = Pair::start().await;
    let place = pair.place().await;
    // Each future is dropped a little later than the one before, so that some drops hit the middle.
    for step in 0..40 {
        let service: MongoBackupService = place.service.clone();
        let begun = tokio::time::timeout(Duration::from_micros(100 * step), service.manual_backup()).await;
        drop(begun);
    }
    let begun = Instant::now();
    while !place.get("/api/backups/status").await.data()["running"].as_array().unwrap().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "a job never ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A late job may still be running; it ends, too.
    let mut created = place.post("/api/backups/create", "").await;
    while created.status == 409 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the source stays claimed: {created:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        created = place.post("/api/backups/create", "").await;
    }
    assert_eq!(created.status, 200, "{created:?}");
}

/// As the command line reports it.
#[tokio::test]
async fn what_becomes_of_documents_without_an_id_is_told() {
    let target = Server::standalone().await;
    let place = Place::with(&[("MONGO_URI_LOCAL", &target.uri())], Figment::new()).await;
    let cli = Cli::new();
    let adopt = async |documents: &[RawDocumentBuf]| {
        let shop = cli.dir().join("d/shop");
        std::fs::create_dir_all(&shop).unwrap();
        std::fs::write(shop.join("c.bson"), documents.iter().flat_map(|d| d.as_bytes().to_vec()).collect::<Vec<u8>>()).unwrap();
        let adopted = cli.json(&["adopt", "d", "--path", place.backups().to_str().unwrap()]).await;
        adopted["name"].as_str().unwrap().to_owned()
    };
    let name = adopt(&[rawdoc! { "a": 1 }, rawdoc! { "a": 2, "_id": 5 }, rawdoc! {}]).await;
    let told = |of: &Value| json!([of["givenIds"], of["movedIds"], of["overwritten"]]);
    let body = json!({ "backupPath": name });
    let imported = place.post("/api/backups/import", &body).await.data();
    assert_eq!(told(&imported), json!([2, 1, null]), "{imported}");
    let job = place.get(&format!("/api/jobs/{}", imported["jobId"].as_str().unwrap())).await.data();
    assert_eq!(told(&job["result"]["import"]), json!([2, 1, null]), "{job}");

    let name = adopt(&[rawdoc! { "_id": [] }, rawdoc! { "_id": 1 }]).await;
    let verified = place.post(&format!("/api/backups/{name}/verify"), json!({ "deep": true })).await.data();
    let refused = json!([{ "namespace": "shop.c", "reason": "an _id that is an array", "documents": 1 }]);
    assert_eq!(verified["notImportable"], refused, "{verified}");
    let job = place.get(&format!("/api/jobs/{}", verified["jobId"].as_str().unwrap())).await.data();
    assert_eq!(job["result"]["verify"]["notImportable"], refused, "{job}");
}
