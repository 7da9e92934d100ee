//! The scheduler on the real clock: a due time, a missed time, and a schedule that survives its
//! process.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::Pair;

use crate::support::service::Service;

async fn job_by_schedule(service: &Service, within: Duration) -> Value {
    let begun = Instant::now();
    loop {
        let jobs = service.get("/api/jobs").await;
        let jobs = jobs.body["data"]["jobs"].as_array().unwrap().clone();
        if let Some(job) = jobs.into_iter().find(|job| job["trigger"] != "manual") {
            return job;
        }
        assert!(begun.elapsed() < within, "no job began:\n{}", service.log().join("\n"));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_comes_while_it_is_down_is_made_up_once_with_the_import_after_it() {
    let pair = Pair::start().await;
    let cli = pair.service().env("BACKUP_ENABLED", "true").env("AUTO_IMPORT_TO_LOCAL", "true");
    let service = Service::start(&cli).await;
    let shown = service.get("/api/schedule").await;
    assert_eq!((&shown.body["data"]["interval"], &shown.body["data"]["cron"]), (&json!(6), &Value::Null), "{shown:?}");
    // Changed while it runs, and stored.
    let changed = service.put("/api/schedule", &json!({ "cron": "* * * * *", "timezone": "Europe/Berlin" })).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let next: DateTime<Utc> = changed.body["data"]["nextRun"].as_str().unwrap().parse().unwrap();
    let (code, _) = service.stop().await;
    assert_eq!(code, Some(0));

    // The service is down when the time comes.
    while bsonvault::clock::now() <= next {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let service = Service::start(&cli).await;
    let job = job_by_schedule(&service, Duration::from_secs(20)).await;
    let ended = service.ended(job["id"].as_str().unwrap()).await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert!(ended["result"]["import"]["documents"].as_u64().unwrap() > 0, "{ended}");
    let shown = service.get("/api/schedule").await;
    let schedule = &shown.body["data"];
    assert_eq!((&schedule["cron"], &schedule["timezone"]), (&json!("* * * * *"), &json!("Europe/Berlin")));
    assert_eq!(schedule["lastRun"]["jobId"], job["id"], "{schedule}");
    let planned: DateTime<Utc> = schedule["lastRun"]["planned"].as_str().unwrap().parse().unwrap();
    assert_eq!(planned, next);
    assert!(schedule["nextRun"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap() > next);

    // An invalid schedule is refused, and changes nothing.
    for bad in [
        json!({ "interval": 0 }),
        json!({ "cron": "61 * * * *" }),
        json!({ "interval": 5, "cron": "* * * * *" }),
        json!({ "cron": "0 0 30 2 *" }),
        json!({ "timezone": "Mars/Olympus" }),
    ] {
        let refused = service.put("/api/schedule", &bad).await;
        assert_eq!(refused.status, 422, "{bad}: {refused:?}");
    }
    let off = service.put("/api/schedule", &json!({ "enabled": false })).await;
    assert_eq!((&off.body["data"]["nextRun"], &off.body["data"]["cron"]), (&Value::Null, &json!("* * * * *")), "{off:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_fails_leaves_a_backup_and_says_which_half_failed() {
    let mut pair = Pair::start().await;
    let cli = pair.service().env("AUTO_IMPORT_TO_LOCAL", "true");
    let service = Service::start(&cli).await;
    pair.target.kill();
    let created = service.post("/api/backups/create", &Value::Null).await;
    assert_eq!((created.status, &created.body["data"]["imported"]), (200, &json!(false)), "{created:?}");
    assert!(created.body["message"].as_str().unwrap().contains("import failed"), "{created:?}");
    let jobs = service.get("/api/jobs").await;
    let job = &jobs.body["data"]["jobs"][0];
    assert_eq!((&job["state"], &job["error"]["stage"]), (&json!("failed"), &json!("import")), "{job}");
    assert_eq!(job["error"]["kind"], "unreachable", "{job}");
    assert!(job["result"]["backup"]["documents"].as_u64().unwrap() > 0, "{job}");
    let status = service.get("/api/backups/status").await;
    assert_eq!(status.body["data"]["backups"][0]["complete"], true, "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_what_was_done_and_the_last_run_is_whoever_asked_for_it() {
    let pair = Pair::start().await;
    let cli = pair.service().env("BACKUP_ENABLED", "true").env("BACKUP_KEEP_LAST", "1").env("AUTO_IMPORT_TO_LOCAL", "true");
    let service = Service::start(&cli).await;
    let first = service.ended(&service.begin_backup().await).await;
    assert_eq!((&first["result"]["imported"], &first["trigger"]), (&json!(true), &json!("manual")), "{first}");
    let target = pair.target.host();
    assert!(first["result"]["import"]["target"].as_str().unwrap().contains(&target), "{first}");
    let second = service.ended(&service.begin_backup().await).await;
    let status = service.get("/api/backups/status").await;
    let last = &status.body["data"]["lastRun"];
    assert_eq!(
        (&last["jobId"], &last["trigger"], &last["outcome"]),
        (&second["id"], &json!("manual"), &json!("started")),
        "{last}"
    );

    // `latest` stands for its backup everywhere, except in a deletion.
    let (old, new) = (first["backup"].as_str().unwrap(), second["backup"].as_str().unwrap());
    let shown = service.get("/api/backups/latest").await;
    assert_eq!((shown.status, &shown.body["data"]["name"]), (200, &json!(new)), "{shown:?}");
    let download = service.get("/api/backups/latest/download").await;
    assert!(download.headers["content-disposition"].to_str().unwrap().contains(new), "{download:?}");
    let verified = service.post("/api/backups/latest/verify", &json!({})).await;
    assert_eq!((verified.status, &verified.body["data"]["name"]), (200, &json!(new)), "{verified:?}");
    let imported = service.ended(&service.begin_import("latest").await).await;
    assert_eq!((&imported["backup"], &imported["result"]["imported"]), (&json!(new), &json!(true)), "{imported}");
    let kept = service.delete("/api/backups/latest").await;
    assert!(kept.status == 422 && kept.body["error"]["hint"].as_str().unwrap().contains(new), "{kept:?}");

    let log = service.log().join("\n");
    for told in [
        "the next backup is due at",
        "every 6 hours",
        "the last 1; a new backup deletes the others",
        "in the state file",
        &format!("took the backup {new}: 6,000 documents in 6 collections"),
        &format!("retention deleted the backup {old}"),
        &format!("imported the backup {new} into mongodb://{target}/"),
        "shop.part0, shop.part1",
        &format!("verified the backup {new}: it is sound"),
    ] {
        assert!(log.contains(told), "{told}: {log}");
    }
    // It survives a restart.
    assert_eq!(service.stop().await.0, Some(0));
    let again = Service::start(&cli).await;
    let shown = again.get("/api/schedule").await;
    assert_eq!(shown.body["data"]["lastRun"]["jobId"], second["id"], "{shown:?}");
}
