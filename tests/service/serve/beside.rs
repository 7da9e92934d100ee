//! The command line and the service in one path at the same time.

use serde_json::{Value, json};

use super::{Pair, is_reading};

use crate::support::cli::finish;
use crate::support::service::Service;

#[tokio::test(flavor = "multi_thread")]
async fn one_backup_of_a_source_at_a_time_whoever_takes_it() {
    let pair = Pair::start().await;
    let cli = pair.service();
    let service = Service::start(&cli).await;
    pair.source.slow_down(&["find", "getMore"], 2000).await;

    // The service first: another call gets the job's id, the command line gets the process.
    let id = service.begin_backup().await;
    service.job_when(&id, "reading", is_reading).await;
    let refused = service.post("/api/backups/create", &Value::Null).await;
    assert_eq!((refused.status, &refused.body["error"]["jobId"]), (409, &json!(id)), "{refused:?}");
    let output = cli.run(&["backup", "--json"]).await;
    assert_eq!((output.code, &output.json()["error"]["kind"]), (Some(1), &json!("busy")), "{output:?}");
    pair.source.fail_no_more().await;
    assert_eq!(service.ended(&id).await["state"], "succeeded");

    // The command line first.
    pair.source.slow_down(&["find", "getMore"], 2000).await;
    let child = cli.spawn(&["backup", "--json"]);
    let running = async {
        loop {
            let status = service.get("/api/backups/status").await;
            if let Some(backup) = status.body["data"]["backups"].as_array().unwrap().iter().find(|b| b["state"] == "running") {
                break backup.clone();
            }
        }
    }
    .await;
    let refused = service.post("/api/backups/create?wait=false", &Value::Null).await;
    assert_eq!((refused.status, &refused.body["error"]["kind"]), (409, &json!("busy")), "{refused:?}");
    assert!(refused.body["message"].as_str().unwrap().contains(running["name"].as_str().unwrap()), "{refused:?}");
    pair.source.fail_no_more().await;
    let output = finish(child).await;
    assert_eq!(output.code, Some(0), "{output:?}");

    // Each sees the other's backup.
    let listed = cli.json(&["list"]).await;
    let status = service.get("/api/backups/status").await;
    let names = |entries: &Value| entries.as_array().unwrap().iter().map(|b| b["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&listed["backups"]), names(&status.body["data"]["backups"]));
    assert_eq!(names(&listed["backups"]).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_into_one_database_come_one_after_the_other_and_others_beside_each_other() {
    let pair = Pair::start().await;
    let cli = pair.service();
    let service = Service::start(&cli).await;
    let made = service.ended(&service.begin_backup().await).await;
    let name = made["result"]["backup"]["name"].as_str().unwrap();
    pair.target.slow_down(&["insert"], 2000).await;
    let id = service.begin_import(name).await;
    let body = json!({ "backupPath": name });
    let refused = service.post("/api/backups/import", &body).await;
    assert_eq!((refused.status, &refused.body["error"]["jobId"]), (409, &json!(id)), "{refused:?}");
    let other = service.post("/api/backups/import?wait=false", &json!({ "backupPath": name, "databaseName": "other" })).await;
    assert_eq!(other.status, 202, "{other:?}");
    pair.target.fail_no_more().await;
    for id in [id.as_str(), other.body["data"]["jobId"].as_str().unwrap()] {
        let job = service.ended(id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
    }
    // An imported backup counts as verified, and one that is being imported cannot be deleted.
    let status = service.get("/api/backups/status").await;
    assert_eq!(status.body["data"]["backups"][0]["verified"], true, "{status:?}");
    pair.target.slow_down(&["insert"], 3000).await;
    let id = service.begin_import(name).await;
    service.job_when(&id, "filling", |job| job["progress"]["phase"] == "filling").await;
    let refused = service.delete(&format!("/api/backups/{name}")).await;
    assert_eq!((refused.status, &refused.body["error"]["kind"]), (409, &json!("busy")), "{refused:?}");
    pair.target.fail_no_more().await;
    assert_eq!(service.ended(&id).await["state"], "succeeded");
    assert_eq!(service.delete(&format!("/api/backups/{name}")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_a_backup_elsewhere() {
    let pair = Pair::start().await;
    let cli = pair.service();
    let service = Service::start(&cli).await;
    let made = service.ended(&service.begin_backup().await).await;
    let progress = &made["progress"];
    assert_eq!(
        (&progress["phase"], &progress["documents"], &progress["expectedDocuments"]),
        (&json!("done"), &json!(6000), &json!(6000))
    );
    assert_eq!((&progress["collectionsDone"], progress["collections"].as_array().unwrap().len()), (&json!(6), 6), "{progress}");
    assert!(progress["documentsPerSecond"].as_u64().unwrap() > 0, "{progress}");
    let name = made["result"]["backup"]["name"].as_str().unwrap();
    let path = format!("/api/backups/{name}/download");
    let response = service.request(reqwest::Method::GET, &path).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-tar");
    assert_eq!(response.headers()["content-disposition"], format!("attachment; filename=\"{name}.tar\"").as_str());
    let length = response.content_length().unwrap();
    let body = response.bytes().await.unwrap();
    assert_eq!(body.len() as u64, length);
    let elsewhere = cli.dir().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("it.tar"), &body).unwrap();
    assert!(std::process::Command::new("tar").args(["-xf", "it.tar"]).current_dir(&elsewhere).status().unwrap().success());
    let verified = cli.json(&["verify", name, "--deep", "--path", elsewhere.to_str().unwrap()]).await;
    assert_eq!(verified["documents"], made["result"]["backup"]["documents"], "{verified}");

    // A file that differs from the manifest: nothing is begun.
    let segment = std::fs::read_dir(cli.dir().join("backups").join(name).join("shop")).unwrap().map(|e| e.unwrap().path());
    let segment = segment.into_iter().find(|p| p.to_str().unwrap().ends_with(".bson.zst")).unwrap();
    std::fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(7).unwrap();
    let refused = service.get(&path).await;
    assert_eq!((refused.status, &refused.body["error"]["kind"]), (500, &json!("damaged")), "{refused:?}");
}
