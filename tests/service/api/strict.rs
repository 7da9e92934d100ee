//! Every call refuses what it does not understand, before it does anything.

use bson::{Document, doc};
use rocket::http::Method;
use serde_json::{Value, json};

use super::bodies::Pair;
use super::place::{Ask, Place, routes};

#[tokio::test]
async fn no_call_takes_a_query_that_it_does_not_know_or_a_body_that_it_does_not_ask_for() {
    let place = Place::new().await;
    for (method, path) in routes(&place.client) {
        let answer = place.ask(Ask::new(method, &format!("{path}?nonsense=1"))).await;
        let (status, kind, message) = answer.failure();
        assert_eq!((status, kind.as_str()), (422, "usage"), "{method} {path}: {answer:?}");
        assert!(message.contains("\"nonsense\""), "{method} {path}: {message}");
        if matches!(method, Method::Get | Method::Delete) {
            for body in ["{}", "null", r#"{"wait":false}"#, "x=1", &" ".repeat(600)] {
                let answer = place.ask(Ask::new(method, &path).body(body)).await;
                let (status, kind, message) = answer.failure();
                assert_eq!((status, kind.as_str()), (400, "badRequest"), "{method} {path}: {answer:?}");
                assert!(message.contains("takes none"), "{method} {path}: {message}");
            }
        }
    }
    // Without a token, not even that is revealed.
    assert_eq!(place.ask(Ask::new(Method::Get, "/api/backups/status?nonsense=1").token(None)).await.status, 401);
    for blank in ["", " \n"] {
        assert_eq!(place.ask(Ask::new(Method::Get, "/healthz").body(blank)).await.status, 200);
    }
}

#[tokio::test]
async fn a_slip_in_a_query_is_told_with_what_was_meant() {
    let place = Place::new().await;
    let answer = place.post("/api/backups/create?wiat=false", "").await;
    assert!(hint(&answer.json()).contains("wait was probably meant"), "{answer:?}");
    let answer = place.get("/api/jobs?lmit=5").await;
    assert!(hint(&answer.json()).contains("limit was probably meant"), "{answer:?}");
    let answer = place.get("/metrics?wait=1").await;
    assert!(hint(&answer.json()).contains("takes no query"), "{answer:?}");
}

fn hint(body: &Value) -> String {
    body["error"]["hint"].as_str().unwrap_or_default().to_owned()
}

/// A source and a target on which nothing listens. Requests that get as far as a job leave one.
async fn unreachable() -> Place {
    let nobody = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100";
    Place::with(&[("MONGO_URI_ATLAS", nobody), ("MONGO_URI_LOCAL", nobody)], Default::default()).await
}

#[tokio::test]
async fn a_backup_is_asked_for_in_its_own_words() {
    let place = unreachable().await;
    for (body, told, meant) in [
        (r#"{"database":"crm"}"#, "\"database\"", "databases was probably meant"),
        (r#"{"Databases":["crm"]}"#, "\"Databases\"", "databases was probably meant"),
        (r#"{"databases":["crm"],"dryRun":true}"#, "\"dryRun\"", "takes databases, include, exclude, import, keep"),
        (r#"{"databases":["crm"],"databases":["shop"]}"#, "databases is given more than once", ""),
        (r#"{"import":true,"import":false}"#, "import is given more than once", ""),
        (r#"{"databases":null}"#, "databases is null", "leave out"),
        (r#"{"keep":null}"#, "keep is null", ""),
        (r#"{"databases":"crm"}"#, "databases: invalid type", ""),
        (r#"{"include":["shop.*"],"databases":[1]}"#, "databases: invalid type", ""),
        (r#"{"databases":[null]}"#, "databases: invalid type", ""),
        (r#"{"databases":{"crm":true}}"#, "databases: invalid type", ""),
        (r#"{"include":true}"#, "include: invalid type", ""),
        (r#"{"exclude":5}"#, "exclude: invalid type", ""),
        (r#"{"import":"false"}"#, "import: invalid type", ""),
        (r#"{"import":0}"#, "import: invalid type", ""),
        (r#"{"keep":"3"}"#, "keep: invalid type", "describes it"),
        (r#"{"keep":1.5}"#, "keep: invalid value", ""),
        (r#"{"keep":[3]}"#, "keep: invalid type", ""),
        ("[]", "not a JSON object", ""),
        ("true", "not a JSON object", ""),
        ("\"crm\"", "not a JSON object", ""),
        ("{", "EOF", ""),
        (r#"{"import":false}{}"#, "trailing", ""),
    ] {
        let answer = place.post("/api/backups/create", body).await;
        let (status, kind, message) = answer.failure();
        assert_eq!((status, kind.as_str()), (400, "badRequest"), "{body}: {answer:?}");
        assert!(message.contains(told), "{body}: {message}");
        assert!(hint(&answer.json()).contains(meant), "{body}: {answer:?}");
    }
    for (body, told) in [
        (json!({ "databases": [] }), "databases is empty"),
        (json!({ "include": [] }), "include is empty"),
        (json!({ "exclude": [] }), "exclude is empty"),
        (json!({ "databases": [""] }), "cannot be the name of a database"),
        (json!({ "databases": ["crm", "a/b"] }), "cannot be the name of a database"),
        (json!({ "databases": ["admin"] }), "admin"),
        (json!({ "include": ["crm"] }), "neither a dot"),
        (json!({ "exclude": [""] }), "neither a dot"),
        (json!({ "keep": 0 }), "keep is 0"),
        (json!({ "keep": -1 }), "keep is -1"),
        (json!({ "keep": 1_000_001 }), "from 1 to 1000000"),
        (json!({ "keep": 1e30 }), "from 1 to 1000000"),
    ] {
        let answer = place.post("/api/backups/create", &body).await;
        let (status, kind, message) = answer.failure();
        assert_eq!((status, kind.as_str()), (422, "usage"), "{body}: {answer:?}");
        assert!(message.contains(told), "{body}: {message}");
    }
    for kind in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "application/xml"] {
        let body = if kind.contains("form-urlencoded") { "database=crm" } else { r#"{"databases":["crm"]}"# };
        let request = place.client.post("/api/backups/create").header(rocket::http::Header::new("Content-Type", kind));
        let token = rocket::http::Header::new("Authorization", format!("Bearer {}", super::place::ADMIN));
        let answer = request.header(token).body(body).dispatch().await;
        assert_eq!(answer.status().code, 415, "{kind}");
    }
    assert_eq!(place.get("/api/jobs").await.data()["jobs"], json!([]), "nothing was begun");

    // A valid request gets as far as the source.
    for body in ["", "null", "{}", r#"{"keep":3.0}"#, r#"{"keep":true,"databases":["crm"],"import":true}"#] {
        assert_eq!(place.post("/api/backups/create", body).await.failure().0, 502, "{body}");
    }
}

#[tokio::test]
async fn an_import_that_cannot_be_is_refused_before_the_backup() {
    let nobody = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100";
    let place = Place::with(&[("MONGO_URI_ATLAS", nobody)], Default::default()).await;
    let answer = place.post("/api/backups/create", json!({ "import": true })).await;
    assert_eq!((answer.failure().0, answer.failure().2.as_str()), (500, "Local MongoDB URI not configured"), "{answer:?}");
    assert_eq!(place.get("/api/jobs").await.data()["jobs"], json!([]));
}

#[tokio::test]
async fn other_bodies_are_as_strict() {
    let place = unreachable().await;
    let name = "atlas-backup-2026-11-22T21-45-00-000Z";
    for (method, path, body, told) in [
        (Method::Post, "/api/backups/import", json!({ "backupPath": name, "includes": ["a.b"] }), "include was probably meant"),
        (Method::Post, "/api/backups/import", json!({ "backupPath": name, "include": null }), "leave out"),
        (Method::Post, "/api/backups/import", json!({ "backupPath": name, "mode": null }), "leave out"),
        (Method::Post, "/api/backups/clean", json!({ "keepcount": 3 }), "keepCount was probably meant"),
        (Method::Post, "/api/backups/clean", json!({ "keepCount": 3, "dryrun": true }), "dryRun was probably meant"),
        (Method::Post, &format!("/api/backups/{name}/verify"), json!({ "Deep": true }), "deep was probably meant"),
        (Method::Post, "/api/sync/start", json!({ "Mode": "fail" }), "mode was probably meant"),
        (Method::Post, "/api/sync/start", json!({ "mode": null }), "leave out"),
        (Method::Post, "/api/sync/start", json!({ "mode": "merge" }), "describes it"),
        (Method::Post, "/api/sync/start", json!(["fail"]), "describes it"),
        (Method::Post, "/api/sync/stop", json!({ "mode": "fail" }), "takes no fields"),
        (Method::Post, "/api/sync/pause", json!({ "for": "1h" }), "takes no fields"),
        (Method::Post, "/api/sync/resume", json!({ "mode": "fail" }), "takes no fields"),
        (Method::Post, "/api/sync/finalize", json!({ "force": true }), "takes no fields"),
        (Method::Put, "/api/schedule", json!({ "intervall": 6 }), "interval was probably meant"),
    ] {
        let answer = place.ask(Ask::new(method, path).body(&body)).await;
        assert_eq!((answer.failure().0, answer.failure().1.as_str()), (400, "badRequest"), "{body}: {answer:?}");
        assert!(hint(&answer.json()).contains(told), "{body}: {answer:?}");
    }
    assert_eq!(place.get("/api/sync").await.data()["state"], "stopped", "it was started");
    let twice = place.put("/api/schedule", r#"{"enabled":false,"enabled":true}"#).await;
    assert_eq!(twice.failure().0, 400, "{twice:?}");
    let empty = place.post("/api/backups/import", json!({ "backupPath": name, "include": [] })).await;
    assert_eq!(empty.failure().0, 422, "{empty:?}");
    // A client that sends back a shown schedule sends nulls.
    assert_eq!(place.put("/api/schedule", json!({ "interval": 7, "cron": null })).await.data()["interval"], 7);
}

#[tokio::test]
async fn a_backup_holds_what_is_asked_for_and_leaves_the_rest_alone() {
    let pair = Pair::start().await;
    let environment =
        [("MONGO_URI_ATLAS", pair.source.uri()), ("MONGO_URI_LOCAL", pair.target.uri()), ("BACKUP_KEEP_LAST", "1".to_owned())];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let place = Place::with(&environment, Default::default()).await;
    let names = async || -> Vec<String> {
        let backups = place.get("/api/backups/status").await.data()["backups"].clone();
        backups.as_array().unwrap().iter().map(|b| b["name"].as_str().unwrap().to_owned()).collect()
    };
    let create = async |body: Value| place.post("/api/backups/create", body).await.data();
    let target = pair.target.client().await;
    let count = async |database: &str, name: &str| {
        target.database(database).collection::<Document>(name).count_documents(doc! {}).await.unwrap()
    };

    // A part, not imported, and nothing deleted.
    let full = create(json!({ "import": false })).await;
    assert_eq!((&full["imported"], &full["collections"]), (&json!(false), &json!(3)), "{full}");
    let part = create(json!({ "databases": ["crm"], "import": false, "keep": true })).await;
    assert_eq!((&part["collections"], &part["documents"], &part["deleted"]), (&json!(1), &json!(2), &json!([])), "{part}");
    assert_eq!((count("crm", "people").await, count("shop", "orders").await), (0, 0));
    let job = place.get(&format!("/api/jobs/{}", part["jobId"].as_str().unwrap())).await.data();
    assert_eq!(job["create"], json!({ "databases": ["crm"], "import": false, "keep": true }), "{job}");

    // Patterns, imported: only the selected collections are replaced. A count covers only the same
    // selection.
    let orders = json!({ "include": ["shop.*"], "exclude": ["*.items"], "import": true, "keep": 1 });
    let first = create(orders.clone()).await;
    assert_eq!((&first["imported"], &first["collections"], &first["deleted"]), (&json!(true), &json!(1), &json!([])), "{first}");
    assert_eq!((count("shop", "orders").await, count("shop", "items").await, count("crm", "people").await), (10, 0, 0));
    let second = create(orders).await;
    assert_eq!(second["deleted"], json!([first["name"]]), "{second}");
    let left = names().await;
    assert_eq!(left.len(), 3, "{left:?}");
    for kept in [&full, &part, &second] {
        assert!(left.iter().any(|name| kept["name"] == name.as_str()), "{left:?} without {kept}");
    }

    // A missing database is an error, and leaves nothing.
    let nothing = place.post("/api/backups/create", json!({ "databases": ["cmr"] })).await;
    assert_eq!((nothing.failure().0, nothing.failure().1.as_str()), (404, "notFound"), "{nothing:?}");
    assert_eq!(names().await, left);
}
