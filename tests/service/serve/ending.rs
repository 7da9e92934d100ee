//! SIGTERM: no new work, a grace period for running jobs, and an orderly end.

use std::time::Duration;

use serde_json::Value;

use super::{Pair, is_reading};

use crate::support::data::{insert, numbered};
use crate::support::service::{Service, answer, client};

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_may_end_and_nothing_new_begins() {
    let pair = Pair::start().await;
    let cli = pair.service().env("BACKUP_SHUTDOWN_GRACE_SECONDS", "100");
    let mut service = Service::start(&cli).await;
    pair.source.slow_down(&["find", "getMore"], 2000).await;
    let id = service.begin_backup().await;
    service.job_when(&id, "reading", is_reading).await;
    service.signal("TERM");
    // It reports the shutdown, and ends.
    loop {
        let refused = service.post("/api/backups/create?wait=false", &Value::Null).await;
        if refused.status == 503 {
            assert_eq!(refused.body["error"]["kind"], "closing", "{refused:?}");
            break;
        }
        // Until the signal arrives, the other backup is the obstacle.
        assert_eq!(refused.status, 409, "{refused:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(service.job(&id).await["state"], "running");
    let ready = answer(client().get(service.url("/readyz"))).await;
    assert_eq!(ready.status, 503, "{ready:?}");
    pair.source.fail_no_more().await;
    assert_eq!(service.wait().await, Some(0), "{}", service.log().join("\n"));

    let service = Service::start(&cli).await;
    let job = service.job(&id).await;
    assert_eq!(job["state"], "succeeded", "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlasts_its_grace_is_stopped_in_order() {
    let pair = Pair::start().await;
    let cli = pair.service().env("BACKUP_SHUTDOWN_GRACE_SECONDS", "0");
    let service = Service::start(&cli).await;
    pair.source.slow_down(&["find", "getMore"], 2000).await;
    let id = service.begin_backup().await;
    service.job_when(&id, "reading", is_reading).await;
    let (code, log) = service.stop().await;
    assert_eq!(code, Some(0), "{}", log.join("\n"));
    pair.source.fail_no_more().await;

    let service = Service::start(&cli).await;
    let job = service.job(&id).await;
    assert_eq!(job["state"], "interrupted", "{job}");
    let status = service.get("/api/backups/status").await;
    assert_eq!(status.body["data"]["backups"], Value::Array(vec![]), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cancelled_leaves_nothing_behind_and_one_whose_client_leaves_goes_on() {
    let pair = Pair::start().await;
    let cli = pair.service();
    let service = Service::start(&cli).await;
    pair.source.slow_down(&["find", "getMore"], 2000).await;

    // Cancelled: the backup is gone, whatever was stored of it.
    let id = service.begin_backup().await;
    service.job_when(&id, "reading", is_reading).await;
    let cancelled = service.delete(&format!("/api/jobs/{id}")).await;
    assert!([200, 202].contains(&cancelled.status), "{cancelled:?}");
    let job = service.ended(&id).await;
    assert_eq!(job["state"], "cancelled", "{job}");
    let left: Vec<_> =
        std::fs::read_dir(cli.dir().join("backups")).unwrap().map(|e| e.unwrap()).filter(|e| e.path().is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
    let again = service.delete(&format!("/api/jobs/{id}")).await;
    assert_eq!(again.status, 409, "{again:?}");

    // The client disconnects in the middle, and the backup is completed.
    let request = service.request(reqwest::Method::POST, "/api/backups/create").timeout(Duration::from_millis(3000));
    assert!(request.send().await.unwrap_err().is_timeout());
    pair.source.fail_no_more().await;
    let jobs = service.get("/api/jobs?kind=backup&limit=1").await;
    let id = jobs.body["data"]["jobs"][0]["id"].as_str().unwrap().to_owned();
    let job = service.ended(&id).await;
    assert_eq!(job["state"], "succeeded", "{job}");

    // A cancelled import leaves the target unchanged.
    pair.target.slow_down(&["insert"], 2000).await;
    let name = job["result"]["backup"]["name"].as_str().unwrap();
    let id = service.begin_import(name).await;
    service.job_when(&id, "filling", |job| job["progress"]["phase"] == "filling").await;
    service.delete(&format!("/api/jobs/{id}")).await;
    let job = service.ended(&id).await;
    pair.target.fail_no_more().await;
    assert_eq!(job["state"], "cancelled", "{job}");
    let databases = pair.target.client().await.list_database_names().await.unwrap();
    assert!(!databases.contains(&"shop".to_owned()), "{databases:?}");
}

/// After much was read, a cancelled backup leaves nothing, and one that the service's end stopped
/// can be resumed.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_backup_is_removed_where_it_is_cancelled_and_resumed_where_the_service_ended() {
    let pair = Pair::start().await;
    let shop = pair.source.client().await.database("shop");
    for number in 0..12 {
        insert(&shop, &format!("large{number}"), numbered(10_000)).await;
    }
    // Few readers: the segments in progress are not stored. With as many readers as a slow source
    // gets, they would be most of the data.
    let cli = pair.service().env("BACKUP_SHUTDOWN_GRACE_SECONDS", "0").env("BACKUP_READERS", "2");
    let service = Service::start(&cli).await;
    pair.source.slow_down(&["find", "getMore"], 500).await;
    let much = |job: &Value| job["progress"]["phase"] == "reading" && job["progress"]["bytes"].as_u64().unwrap() > 90_000_000;
    let directories = || {
        let entries = std::fs::read_dir(cli.dir().join("backups")).unwrap().map(|e| e.unwrap().path());
        entries.filter(|path| path.is_dir()).collect::<Vec<_>>()
    };

    let id = service.begin_backup().await;
    service.job_when(&id, "far on", much).await;
    assert_eq!(directories().len(), 1);
    service.delete(&format!("/api/jobs/{id}")).await;
    assert_eq!(service.ended(&id).await["state"], "cancelled");
    assert_eq!(directories(), Vec::<std::path::PathBuf>::new());

    let id = service.begin_backup().await;
    service.job_when(&id, "far on", much).await;
    let (code, log) = service.stop().await;
    assert_eq!(code, Some(0), "{}", log.join("\n"));
    pair.source.fail_no_more().await;
    let service = Service::start(&cli).await;
    let job = service.job(&id).await;
    assert_eq!(job["state"], "interrupted", "{job}");
    assert!(job["error"]["hint"].as_str().unwrap().contains("`bsonvault backup` with resume "), "{job}");
    let resumed = cli.json(&["backup", "--resume"]).await;
    assert_eq!((&resumed["name"], resumed["documents"].as_u64()), (&job["backup"], Some(126_000)), "{resumed}");
}
