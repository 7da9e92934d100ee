//! Power cuts: ten in a row, in the middle of backups and imports.

use std::time::Duration;

use bson::doc;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::{Pair, is_reading};

use crate::support::compare::{CompareOptions, compare};
use crate::support::data::snapshot;
use crate::support::service::Service;

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_in_a_row_leave_nothing_that_is_not_true() {
    let pair = Pair::start().await;
    let cli = pair.service().env("BACKUP_READERS", "2");
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let mut service = Service::start(&cli).await;
    let first = service.ended(&service.begin_backup().await).await;
    assert_eq!(first["state"], "succeeded", "{first}");
    let name = first["result"]["backup"]["name"].as_str().unwrap().to_owned();
    // The data in the target differs from the data to import.
    let old = pair.target.client().await.database("shop");
    old.collection("part0").insert_one(doc! { "_id": 1, "old": true }).await.unwrap();
    let before = snapshot(&pair.target.client().await).await;

    for round in 0..10 {
        // 1. In the middle of a backup, or of an import.
        let is_backup = round % 2 == 0;
        let id = if is_backup {
            pair.source.slow_down(&["find", "getMore"], 1000).await;
            let id = service.begin_backup().await;
            service.job_when(&id, "reading", is_reading).await;
            id
        } else {
            pair.target.slow_down(&["insert"], 5000).await;
            let id = service.begin_import(&name).await;
            service.job_when(&id, "filling", |job| job["progress"]["phase"] == "filling").await;
            id
        };
        tokio::time::sleep(Duration::from_millis(random.random_range(0..1200))).await;
        service.kill().await;
        pair.source.fail_no_more().await;
        pair.target.fail_no_more().await;

        // 2. The job is interrupted, no partial backup is listed, and the target is intact.
        service = Service::start(&cli).await;
        let job = service.job(&id).await;
        assert_eq!(job["state"], "interrupted", "round {round}: {job}");
        assert!(job["finished"].is_string() && job["error"]["kind"] == "interrupted", "{job}");
        let status = service.get("/api/backups/status").await;
        let complete = |status: &Value| {
            let backups = status["data"]["backups"].as_array().unwrap().clone();
            backups.into_iter().filter(|b| b["complete"] == true).map(|b| b["name"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(complete(&status.body), [json!(name)], "round {round}");
        let running = status.body["data"]["backups"].as_array().unwrap().iter().any(|b| b["state"] == "running");
        assert!(!running, "round {round}: {status:?}");
        let now = snapshot(&pair.target.client().await).await;
        let visible = |lines: &[String]| lines.iter().filter(|l| !l.contains("bsonvault.")).cloned().collect::<Vec<_>>();
        assert_eq!(visible(&now), visible(&before), "round {round}");
    }

    // 3. The next runs succeed, and leave no traces of all that.
    let backup = service.ended(&service.begin_backup().await).await;
    assert_eq!(backup["state"], "succeeded", "{backup}");
    let import = service.ended(&service.begin_import(&name).await).await;
    assert_eq!(import["state"], "succeeded", "{import}");
    let same = compare(&pair.source.client().await, &pair.target.client().await, CompareOptions::default()).await;
    assert_eq!(same.differences, Vec::<String>::new());
    let jobs = service.get("/api/jobs?state=interrupted").await;
    assert_eq!(jobs.body["data"]["jobs"].as_array().unwrap().len(), 10, "{jobs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_import_after_a_backup_leaves_the_backup_and_says_so() {
    let pair = Pair::start().await;
    let cli = pair.service().env("AUTO_IMPORT_TO_LOCAL", "true");
    let service = Service::start(&cli).await;
    pair.target.slow_down(&["insert"], 3000).await;
    let id = service.begin_backup().await;
    service.job_when(&id, "filling", |job| job["progress"]["phase"] == "filling").await;
    service.kill().await;
    pair.target.fail_no_more().await;
    let service = Service::start(&cli).await;
    let job = service.job(&id).await;
    assert_eq!((&job["state"], &job["error"]["stage"]), (&json!("interrupted"), &json!("import")), "{job}");
    let status = service.get("/api/backups/status").await;
    let backup = &status.body["data"]["backups"][0];
    assert_eq!((&backup["complete"], &backup["name"]), (&json!(true), &job["result"]["backup"]["name"]), "{status:?}");
    let metrics = service.get("/metrics").await.body.as_str().unwrap().to_owned();
    let last =
        |kind: &str| metrics.lines().find(|l| l.starts_with("bsonvault_last_succeeded{") && l.contains(kind)).unwrap().to_owned();
    assert!(last("backup").ends_with(" 1.0") && last("import").ends_with(" 0.0"), "{metrics}");
}
