//! The service starts at once whatever else is down, and not at all if it could not do its work.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::support::server::free_port;
use crate::support::service::{Service, answer, client, configured, sha256};

#[tokio::test]
async fn without_any_mongodb_it_is_up_at_once_and_says_what_does_not_answer() {
    let nobody = |port: u16| format!("mongodb://127.0.0.1:{port}/?directConnection=true");
    let cli = configured().env("MONGO_URI_ATLAS", nobody(free_port())).env("MONGO_URI_LOCAL", nobody(free_port()));
    let service = Service::start(&cli).await;
    // Far more than it needs. It must not wait for a server that does not answer.
    assert!(service.started_within < Duration::from_secs(3), "{:?}", service.started_within);

    let alive = answer(client().get(service.url("/healthz"))).await;
    assert_eq!(alive.status, 200, "{alive:?}");
    let tested = service.get("/api/backups/test-connections").await;
    assert_eq!(tested.status, 200, "{tested:?}");
    for side in ["atlas", "local"] {
        let state = &tested.body["data"][side];
        assert_eq!((&state["connected"], &state["configured"]), (&Value::Bool(false), &Value::Bool(true)), "{state}");
        assert_eq!(state["error"]["kind"], "unreachable", "{state}");
    }
    let ready = answer(client().get(service.url("/readyz"))).await;
    assert_eq!(ready.status, 503, "{ready:?}");
    assert_eq!(
        (&ready.body["data"]["atlas"], &ready.body["data"]["local"]),
        (&Value::Bool(false), &Value::Bool(false)),
        "{ready:?}"
    );
    let status = service.get("/api/backups/status").await;
    assert_eq!((status.status, &status.body["data"]["backups"]), (200, &Value::Array(vec![])), "{status:?}");

    let begun = std::time::Instant::now();
    let created = service.post("/api/backups/create", &Value::Null).await;
    assert_eq!(created.status, 502, "{created:?} after {:?}", begun.elapsed());
    assert_eq!(created.body["error"]["kind"], "unreachable", "{created:?}");
}

#[tokio::test]
async fn without_uris_it_says_the_words_that_users_know() {
    let service = Service::start(&configured()).await;
    let created = service.post("/api/backups/create", &Value::Null).await;
    assert_eq!((created.status, &*created.body["message"].to_string()), (500, "\"Atlas MongoDB URI not configured\""));
    let imported = service.post("/api/backups/import", &serde_json::json!({ "backupPath": "x" })).await;
    assert_eq!((imported.status, &*imported.body["message"].to_string()), (500, "\"Local MongoDB URI not configured\""));
    let tested = service.get("/api/backups/test-connections").await;
    assert_eq!(tested.body["data"]["atlas"]["configured"], false, "{tested:?}");
}

#[tokio::test]
async fn what_cannot_serve_does_not_start_and_says_why() {
    let refused = async |cli: &crate::support::cli::Cli, what: &str| {
        let output = cli.run(&["serve"]).await;
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.contains(what), "{what}: {}", output.stderr);
    };
    let without_tokens = crate::support::cli::Cli::new();
    refused(&without_tokens, "no admin token is configured").await;
    refused(&configured().env("ADMIN_TOKEN_SHA256", "abc"), "ADMIN_TOKEN_SHA256").await;
    refused(&configured().env("BACKUP_CRON", "61 * * * *"), "BACKUP_CRON").await;
    refused(&configured().env("BACKUP_INTERVAL_HOURS", "0"), "BACKUP_INTERVAL_HOURS").await;
    refused(&configured().env("ROCKET_PORT", "x"), "port").await;
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    refused(&configured().env("ROCKET_PORT", port), "cannot listen").await;
}

#[tokio::test]
async fn one_service_has_a_path_at_a_time() {
    let cli = configured();
    let service = Service::start(&cli).await;
    let log = Service::try_start(&cli).await.err().unwrap().join("\n");
    assert!(log.contains("is open in another process"), "{log}");
    assert_eq!(answer(client().get(service.url("/healthz"))).await.status, 200);
}

#[tokio::test]
async fn its_own_settings_come_from_the_lower_case_file_and_its_table() {
    let cli = crate::support::cli::Cli::new();
    let toml = format!(
        "[default]\nport = 0\nident = \"other\"\n[default.limits]\njson = \"1 KiB\"\n[default.backup]\nadmin_token_sha256 = \"{}\"\n\
         path = \"here\"\ninterval_hours = 9\n",
        sha256(crate::support::service::ADMIN)
    );
    std::fs::write(cli.dir().join("rocket.toml"), toml).unwrap();
    let cli = cli.env("RUST_LOG", "info");
    let service = Service::start(&cli).await;
    let status = service.get("/api/backups/status").await;
    assert_eq!(status.body["data"]["interval"], 9, "{status:?}");
    assert!(status.body["data"]["backupPath"].as_str().unwrap().ends_with("/here"), "{status:?}");
    let large = serde_json::json!({ "backupPath": "x".repeat(2000) });
    let refused = service.post("/api/backups/import", &large).await;
    assert_eq!(refused.status, 413, "{refused:?}");
    let unknown = answer(service.request(Method::GET, "/api/nothing")).await;
    assert_eq!(unknown.status, 404, "{unknown:?}");
}

#[tokio::test]
async fn a_name_that_is_no_setting_is_refused_and_auto_import_is_told() {
    let cli = configured().env("BACKUP_KEEP_DAYLY", "7");
    for verb in ["serve", "check", "list", "backup"] {
        let output = cli.run(&[verb]).await;
        assert_eq!(output.code, Some(2), "{verb}: {output:?}");
        assert!(output.stderr.contains("BACKUP_KEEP_DAYLY in the environment is not a setting"), "{verb}: {output:?}");
        assert!(output.stderr.contains("BACKUP_KEEP_DAILY instead of BACKUP_KEEP_DAYLY"), "{verb}: {output:?}");
    }
    // `check` reports it in one of its lines, and continues.
    let checked = cli.run(&["check"]).await;
    assert!(checked.stdout.contains("settings") && checked.stdout.contains("path"), "{checked:?}");
    // A name that resembles no setting only gives a warning.
    let cli = configured().env("BACKUP_HOST_NAME", "x");
    std::fs::create_dir_all(cli.dir().join("backups")).unwrap();
    let listed = cli.run(&["list"]).await;
    assert!(listed.code == Some(0) && listed.stderr.contains("BACKUP_HOST_NAME"), "{listed:?}");
    let served = cli.run(&["serve"]).await;
    assert!(served.code == Some(2) && served.stderr.contains("BACKUP_HOST_NAME"), "{served:?}");

    let service = Service::start(&configured().env("MONGO_URI_LOCAL", "mongodb://u:secret@127.0.0.1:1/")).await;
    let log = service.log().join("\n");
    assert!(log.contains("auto-import is on") && log.contains("mongodb://127.0.0.1:1/"), "{log}");
    assert!(log.contains("AUTO_IMPORT_TO_LOCAL=false") && !log.contains("secret"), "{log}");
    let service = Service::start(&configured().env("AUTO_IMPORT_TO_LOCAL", "false")).await;
    assert!(service.log().join("\n").contains("auto-import is off"), "{:?}", service.log());
}
