//! Invalid values in bodies, queries and paths. Each has its documented answer, and nothing is
//! lost.

use std::os::unix::fs::symlink;

use rocket::http::Method;
use serde_json::json;

use super::place::{Ask, Place};

const NAME: &str = "atlas-backup-2026-11-22T21-45-00-000Z";

/// A place with one backup, and a target on which nothing listens.
async fn with_backup() -> Place {
    let place =
        Place::with(&[("MONGO_URI_LOCAL", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100")], Default::default()).await;
    let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v2").join(NAME);
    copy(&fixture, &place.backups().join(NAME));
    place
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_count_that_cannot_be_deletes_nothing() {
    let place = with_backup().await;
    for count in ["0", "-1", "1000001", "1e9", "1000000000", "4294967297", "18446744073709551617", "-9223372036854775809"] {
        let (status, kind, message) = place.post("/api/backups/clean", format!(r#"{{"keepCount":{count}}}"#)).await.failure();
        assert_eq!((status, kind.as_str()), (422, "usage"), "{count}");
        assert!(message.contains("from 1 to 1000000"), "{count}: {message}");
    }
    for body in [
        r#"{"keepCount":"x"}"#,
        r#"{"keepCount":"5"}"#,
        r#"{"keepCount":1.5}"#,
        r#"{"keepCount":null}"#,
        r#"{"keepCount":[1]}"#,
        r#"{"keepCount":true}"#,
        "{}",
        "",
        "[]",
        "null",
        "5",
        "{",
        r#"{"keepCount":5}x"#,
        r#"{"keepCount":5,"keepcount":1}"#,
        r#"{"keepCount":5,"keepCount":5}"#,
        r#"{"keepCount":5,"dryRun":"yes"}"#,
        r#"{"keepCount":1e999}"#,
        "\u{0}",
    ] {
        let (status, kind, _) = place.post("/api/backups/clean", body).await.failure();
        assert_eq!((status, kind.as_str()), (400, "badRequest"), "{body}");
    }
    let bytes = place.client.post("/api/backups/clean").header(bearer()).body([0xff, 0xfe, b'{']).dispatch().await;
    assert_eq!(bytes.status().code, 400);
    let left = place.get("/api/backups/status").await.data();
    assert_eq!((left["backups"].as_array().unwrap().len(), &left["backups"][0]["complete"]), (1, &json!(true)));
    assert_eq!(place.post("/api/backups/clean", r#"{"keepCount":1.0,"dryRun":true}"#).await.status, 200);
}

fn bearer() -> rocket::http::Header<'static> {
    rocket::http::Header::new("Authorization", format!("Bearer {}", super::place::ADMIN))
}

#[tokio::test]
async fn a_body_is_json_or_what_curl_says_of_everything_and_has_a_limit() {
    let place = with_backup().await;
    for (kind, status) in [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/merge-patch+json", 200),
        ("application/x-www-form-urlencoded", 200),
        ("text/plain", 415),
        ("multipart/form-data", 415),
        ("nonsense", 415),
    ] {
        let request = place.client.post("/api/backups/clean").header(bearer());
        let request = request.header(rocket::http::Header::new("Content-Type", kind));
        let answer = request.body(r#"{"keepCount":3,"dryRun":true}"#).dispatch().await;
        assert_eq!(answer.status().code, status, "{kind}");
    }
    let fits = format!(r#"{{"keepCount":3,"dryRun":true}}{}"#, " ".repeat(1024 * 1024 - 29));
    assert_eq!(fits.len(), 1024 * 1024);
    assert_eq!(place.post("/api/backups/clean", &fits).await.status, 200);
    let (status, kind, message) = place.post("/api/backups/clean", fits + " ").await.failure();
    assert_eq!((status, kind.as_str(), message.as_str()), (413, "tooLarge", "the body has more than 1048576 bytes"));
}

#[tokio::test]
async fn nothing_outside_the_path_is_a_backup() {
    let place = with_backup().await;
    let outside = place.directory.path().join("outside");
    copy(&place.backups().join(NAME), &outside.join(NAME));
    symlink(outside.join(NAME), place.backups().join("atlas-backup-linked")).unwrap();
    std::fs::write(place.backups().join("atlas-backup-file"), "").unwrap();
    std::fs::create_dir(place.backups().join("atlas-backup-empty")).unwrap();
    let absolute = outside.join(NAME);
    let climbing = place.backups().join("..").join("outside").join(NAME);
    for path in [
        "../..",
        "..",
        ".",
        "",
        "/",
        "/etc",
        "/etc/passwd",
        "../outside/atlas-backup-2026-11-22T21-45-00-000Z",
        "atlas-backup-linked",
        "atlas-backup-file",
        "atlas-backup-empty",
        "atlas-backup-unknown",
        "a\\b",
        "a\u{0}b",
        "é",
        &"x".repeat(10_000),
        "state.redb",
        "%2e%2e",
        absolute.to_str().unwrap(),
        climbing.to_str().unwrap(),
        place.backups().to_str().unwrap(),
    ] {
        let answer = place.post("/api/backups/import", json!({ "backupPath": path })).await;
        assert_eq!(answer.failure(), (404, "notFound".to_owned(), "Database backup not found".to_owned()), "{path:?}");
    }
    for name in [
        "..%2f..",
        "%2e%2e",
        "atlas-backup-linked",
        "atlas-backup-file",
        "atlas-backup-empty",
        "atlas-backup-unknown",
        "%00",
        "%ff",
        "create",
    ] {
        for ask in [
            Ask::new(Method::Get, &format!("/api/backups/{name}")),
            Ask::new(Method::Delete, &format!("/api/backups/{name}")),
            Ask::new(Method::Post, &format!("/api/backups/{name}/verify")),
        ] {
            let method = ask.method;
            let answer = place.ask(ask).await;
            assert_eq!((answer.failure().0, answer.failure().2.as_str()), (404, "Database backup not found"), "{method} {name}");
        }
    }
    assert!(outside.join(NAME).join("manifest.json").exists());
    assert!(place.get(&format!("/api/backups/{NAME}")).await.status == 200);
    let by_path = place.backups().join(NAME);
    let answer = place.post("/api/backups/import", json!({ "backupPath": by_path })).await;
    assert_eq!(answer.failure().0, 502, "it is there, and the target is not");
}

#[tokio::test]
async fn an_import_is_asked_for_in_its_own_words() {
    let place = with_backup().await;
    for body in [
        json!({}),
        json!({ "backupPath": null }),
        json!({ "backupPath": 5 }),
        json!({ "backupPath": [NAME] }),
        json!({ "backupPath": NAME, "mode": "swap" }),
        json!({ "backupPath": NAME, "mode": 1 }),
        json!({ "backupPath": NAME, "include": "shop.*" }),
        json!({ "backupPath": NAME, "include": [1] }),
        json!({ "backupPath": NAME, "databaseName": 7 }),
        json!({ "backupPath": NAME, "target": "mongodb://elsewhere" }),
        json!({ "mode": "fail" }),
        json!({ "to": 1795383900 }),
        json!({ "to": null }),
        json!({ "undo": ["1795383900:7"] }),
        json!([NAME]),
    ] {
        let (status, kind, _) = place.post("/api/backups/import", &body).await.failure();
        assert_eq!((status, kind.as_str()), (400, "badRequest"), "{body}");
    }
    for body in [
        json!({ "backupPath": NAME, "include": ["nodot"] }),
        json!({ "backupPath": NAME, "exclude": [""] }),
        json!({ "backupPath": NAME, "databaseName": "a/b" }),
        json!({ "backupPath": NAME, "databaseName": "" }),
        json!({ "backupPath": NAME, "to": "yesterday" }),
        json!({ "to": "" }),
        json!({ "to": "2026-11-22" }),
        json!({ "to": "1795383900:7", "undo": "1795383900:7" }),
        json!({ "undo": "2026-11-22T21:45:00Z" }),
        json!({ "undo": "before:1795383900:7" }),
        json!({ "undo": "1795383900:7", "include": ["shop.*"] }),
        json!({ "undo": "1795383900:7", "exclude": ["shop.*"] }),
    ] {
        let (status, kind, _) = place.post("/api/backups/import", &body).await.failure();
        assert_eq!((status, kind.as_str()), (422, "usage"), "{body}");
    }
    // Right in form, and no archive has them.
    for body in
        [json!({ "to": "1795383900:7" }), json!({ "undo": "1795383900:7" }), json!({ "backupPath": NAME, "to": "1795383900" })]
    {
        let (status, kind, message) = place.post("/api/backups/import", &body).await.failure();
        assert_eq!((status, kind.as_str()), (404, "notFound"), "{body}: {message}");
    }
    assert_eq!(place.get("/api/jobs").await.data()["jobs"], json!([]), "nothing was begun");
}

#[tokio::test]
async fn an_archive_without_a_source_is_stopped_and_says_why() {
    let place = Place::new().await;
    let archive = place.get("/api/archive").await.data();
    assert_eq!(archive, json!({ "enabled": false, "state": "stopped", "links": 0, "storedBytes": 0, "gaps": [] }));
    let (status, _, message) = place.post("/api/archive/start", "").await.failure();
    assert_eq!((status, message.as_str()), (500, "Atlas MongoDB URI not configured"));
    let archive = place.get("/api/archive").await.data();
    assert_eq!((&archive["state"], &archive["problem"]), (&json!("stopped"), &json!(message)));
    for path in ["/api/archive/start", "/api/archive/stop"] {
        let (status, kind, message) = place.post(path, r#"{"force":true}"#).await.failure();
        assert_eq!((status, kind.as_str()), (400, "badRequest"), "{path}");
        assert!(message.contains("\"force\""), "{message}");
    }
    assert_eq!(place.post("/api/archive/stop", "").await.data()["state"], "stopped");
    let timeline = place.get("/api/timeline").await.data();
    assert_eq!(
        (&timeline["ranges"], &timeline["archives"], &timeline["path"]),
        (&json!([]), &json!([]), &json!(place.backups()))
    );
    place.service.close();
    for path in ["/api/archive/start", "/api/archive/stop"] {
        assert_eq!(place.post(path, "").await.failure().0, 503, "{path}");
    }
}

#[tokio::test]
async fn a_sync_without_deployments_is_stopped_and_says_why() {
    let place = Place::new().await;
    let sync = place.get("/api/sync").await.data();
    let nothing = json!({
        "enabled": false, "state": "stopped", "running": false, "selection": "everything", "delaySeconds": 0,
        "operations": 0, "batches": 0, "ddl": 0,
    });
    assert_eq!(sync, nothing);
    let (status, _, message) = place.post("/api/sync/start", "").await.failure();
    assert_eq!((status, message.as_str()), (500, "Atlas MongoDB URI not configured"));
    let sync = place.get("/api/sync").await.data();
    assert_eq!((&sync["state"], &sync["problem"]), (&json!("stopped"), &json!(message)));
    for verb in ["pause", "resume", "finalize"] {
        let (status, _, message) = place.post(&format!("/api/sync/{verb}"), "").await.failure();
        assert_eq!((status, message.as_str()), (500, "Local MongoDB URI not configured"), "{verb}");
    }
    assert_eq!(place.post("/api/sync/stop", "{}").await.data()["state"], "stopped");
    place.service.close();
    for verb in ["start", "stop", "pause", "resume", "finalize"] {
        assert_eq!(place.post(&format!("/api/sync/{verb}"), "").await.failure().0, 503, "{verb}");
    }
}

/// The command line has `--as`, `--rename`, `--database` and so on for this.
#[tokio::test]
async fn what_is_refused_is_told_by_the_fields_of_requests_and_the_names_of_settings() {
    let place = with_backup().await;
    for (body, told) in [
        (
            json!({ "backupPath": NAME, "include": ["shop.*"], "databaseName": "admin" }),
            "choose another database with databaseName or the command line's rename",
        ),
        (json!({ "backupPath": NAME, "databaseName": "one" }), "or name each by the command line's rename"),
        (json!({ "backupPath": NAME, "exclude": ["*"] }), "database, include and exclude leave nothing of the backup to import"),
        (json!({ "backupPath": NAME }), "is named in MONGO_URI_LOCAL\""),
    ] {
        let answer = place.post("/api/backups/import", &body).await;
        let jobs = place.get("/api/jobs").await;
        assert!(answer.text.contains(told), "{answer:?}");
        for text in [&answer.text, &jobs.text] {
            assert!(!text.contains("--") && !text.contains("[["), "{text}");
        }
    }
    assert!(!place.get("/api/jobs").await.data()["jobs"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn queries_hold_what_is_known_once_and_within_its_range() {
    let place = with_backup().await;
    for query in
        ["wait=maybe", "wait=", "wait", "wait=1", "wait=TRUE", "wait=true&wait=true", "wiat=false", "wait=false&x=1", "=true"]
    {
        for path in ["/api/backups/create".to_owned(), format!("/api/backups/{NAME}/verify")] {
            let (status, kind, _) = place.post(&format!("{path}?{query}"), "").await.failure();
            assert_eq!((status, kind.as_str()), (422, "usage"), "{path}?{query}");
        }
    }
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "limit=1.5",
        "kind=sync",
        "kind=Backup",
        "state=done",
        "page=2",
        "limit=",
    ] {
        assert_eq!(place.get(&format!("/api/jobs?{query}")).await.failure().0, 422, "{query}");
    }
    assert_eq!(place.get("/api/jobs?limit=1000&kind=backup&state=failed").await.data()["jobs"], json!([]));
    assert_eq!(place.get(&format!("/api/backups/{NAME}?segments=perhaps")).await.failure().0, 422);
}

#[tokio::test]
async fn what_is_asked_of_a_verification_may_be_left_out() {
    let place = with_backup().await;
    let path = format!("/api/backups/{NAME}/verify");
    for (body, deep) in [("", false), ("null", false), ("{}", false), (r#"{"deep":true}"#, true)] {
        let found = place.post(&path, body).await.data();
        assert_eq!((&found["sound"], &found["deep"], &found["problems"]), (&json!(true), &json!(deep), &json!([])), "{body}");
    }
    for body in ["[]", "5", "nul", r#"{"deep":null}"#, r#"{"depth":true}"#] {
        assert_eq!(place.post(&path, body).await.failure().0, 400, "{body}");
    }
}

#[tokio::test]
async fn a_backup_is_shown_with_its_segments_where_they_are_asked_for() {
    let place = with_backup().await;
    let short = place.get(&format!("/api/backups/{NAME}")).await.data();
    assert_eq!((&short["name"], &short["verified"]["state"]), (&json!(NAME), &json!("never")));
    assert_eq!(short["path"], json!(place.backups().join(NAME)));
    assert!(short["collections"].as_array().unwrap().iter().all(|c| c.get("segments").is_none()));
    let long = place.get(&format!("/api/backups/{NAME}?segments=true")).await.data();
    assert!(long["collections"].as_array().unwrap().iter().all(|c| c["segments"].is_array()), "{long}");
}

#[tokio::test]
async fn what_is_not_configured_is_told_in_the_words_that_users_know() {
    let place = Place::new().await;
    let answer = place.post("/api/backups/create", "").await;
    assert_eq!(answer.json()["error"]["hint"], "set MONGO_URI_ATLAS", "no flag");
    let (status, kind, message) = answer.failure();
    assert_eq!((status, kind.as_str(), message.as_str()), (500, "usage", "Atlas MongoDB URI not configured"));
    let (status, kind, message) = place.post("/api/backups/import", json!({ "backupPath": NAME })).await.failure();
    assert_eq!((status, kind.as_str(), message.as_str()), (500, "usage", "Local MongoDB URI not configured"));
    let place = Place::with(&[("MONGO_URI_ATLAS", "postgres://user:secret@host/")], Default::default()).await;
    let answer = place.post("/api/backups/create", "").await;
    let (status, _, message) = answer.failure();
    assert!(status == 422 && message.starts_with("Invalid Atlas URI format"), "{answer:?}");
    assert!(!answer.text.contains("secret"), "{answer:?}");
}

#[tokio::test]
async fn the_schedule_is_changed_and_kept() {
    let place = Place::new().await;
    let was = place.get("/api/schedule").await.data();
    assert_eq!((&was["interval"], &was["cron"], &was["enabled"]), (&json!(6), &json!(null), &json!(true)));
    for body in [
        json!({ "interval": 0 }),
        json!({ "interval": 4_000_000_000_u32 }),
        json!({ "cron": "nonsense" }),
        json!({ "cron": "0 0 * * *", "interval": 5 }),
        json!({ "cron": "0 0 * * *", "timezone": "Middle/Earth" }),
        json!({ "timezone": "Europe/Berlin" }),
        json!({ "cron": "" }),
    ] {
        assert_eq!(place.put("/api/schedule", &body).await.failure().0, 422, "{body}");
    }
    for body in [
        json!({ "interval": 1.5 }),
        json!({ "interval": "6" }),
        json!({ "enabled": "no" }),
        json!({ "cron": 5 }),
        json!({ "hours": 6 }),
        json!([]),
    ] {
        assert_eq!(place.put("/api/schedule", &body).await.failure().0, 400, "{body}");
    }
    assert_eq!(place.get("/api/schedule").await.data(), was, "refused, and left as it was");
    let now = place.put("/api/schedule", json!({ "cron": "30 2 * * *", "timezone": "Europe/Berlin" })).await.data();
    assert_eq!((&now["interval"], &now["cron"], &now["timezone"]), (&json!(null), &json!("30 2 * * *"), &json!("Europe/Berlin")));
    assert_eq!(place.get("/api/schedule").await.data(), now);
    let off = place.put("/api/schedule", json!({ "enabled": false })).await.data();
    assert_eq!((&off["enabled"], &off["nextRun"]), (&json!(false), &json!(null)));
}

#[tokio::test]
async fn a_service_that_ends_takes_no_more_work_and_says_so() {
    let place = with_backup().await;
    let ready = place.ask(Ask::new(Method::Get, "/readyz").token(None)).await;
    assert_eq!((ready.failure().1.as_str(), ready.failure().2.as_str()), ("notReady", "not known yet"));
    place.service.close();
    let ready = place.ask(Ask::new(Method::Get, "/readyz").token(None)).await;
    assert_eq!((ready.failure().0, ready.failure().1.as_str()), (503, "closing"));
    assert_eq!(place.ask(Ask::new(Method::Get, "/healthz").token(None)).await.data()["alive"], true);
    let verify = place.post(&format!("/api/backups/{NAME}/verify"), "").await;
    assert_eq!((verify.failure().0, verify.failure().1.as_str()), (503, "closing"));
    assert_eq!(place.get("/api/backups/status").await.status, 200);
}

#[tokio::test]
async fn deployments_that_nobody_configured_are_told_as_that() {
    let place = Place::new().await;
    let state = place.get("/api/backups/test-connections").await.data();
    for (side, message) in [("atlas", "Atlas MongoDB URI not configured"), ("local", "Local MongoDB URI not configured")] {
        assert_eq!((&state[side]["configured"], &state[side]["connected"]), (&json!(false), &json!(false)), "{side}");
        assert_eq!((&state[side]["error"]["kind"], &state[side]["error"]["message"]), (&json!("usage"), &json!(message)));
    }
}
