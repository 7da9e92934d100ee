//! The description of the interface, and the page that shows it.

use std::collections::BTreeSet;

use rocket::http::Method;
use serde_json::{Value, json};

use super::place::{Ask, Place};

#[tokio::test]
async fn every_call_is_described_and_nothing_else_is() {
    let place = Place::new().await;
    let contract = place.ask(Ask::new(Method::Get, "/api/openapi.json").token(None)).await.json();
    let described: BTreeSet<(String, String)> = operations(&contract).map(|(method, path, _)| (method, path)).collect();
    let routes = place.client.rocket().routes().filter(|route| route.uri.path() != "/api/docs/<path..>");
    let routed: BTreeSet<(String, String)> = routes
        .map(|route| (route.method.as_str().to_lowercase(), route.uri.path().replace('<', "{").replace('>', "}")))
        .collect();
    assert_eq!(described, routed);
}

fn operations(contract: &Value) -> impl Iterator<Item = (String, String, &Value)> {
    contract["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, operation)| (method.clone(), path.clone(), operation))
    })
}

#[tokio::test]
async fn the_description_is_complete_enough_for_a_generated_client() {
    let place = Place::new().await;
    let contract = place.get("/api/openapi.json").await.json();
    assert_eq!(contract["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&contract) {
        let what = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{what}: its id is another one's, too");
        assert_eq!(operation["tags"].as_array().map(Vec::len), Some(1), "{what}");
        assert!(operation["summary"].as_str().is_some_and(|s| s.len() > 5), "{what}");
        let has = |status: &str| operation["responses"].get(status).is_some();
        let is_public = operation.get("security").is_some();
        assert_eq!((has("401"), has("429")), (!is_public, !is_public), "{what}");
        assert_eq!(has("403"), !is_public && (method != "get" || path.ends_with("/download")), "{what}");
        let takes_body = operation.get("requestBody").is_some();
        assert_eq!((has("413"), has("415")), (takes_body, takes_body), "{what}");
        assert!(has("400") && has("422"), "{what}: a body or a query that it does not know");
        assert!(has("500"), "{what}");
        for parameter in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
            let given = operation["parameters"].as_array().unwrap().iter();
            assert!(
                given.clone().any(|p| p["name"] == parameter && p["in"] == "path" && p["required"] == true),
                "{what}: {parameter}"
            );
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "query") {
            assert_eq!(parameter["required"], json!(false), "{what}: {parameter}");
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(response["description"].as_str().is_some_and(|d| !d.is_empty()), "{what}: {status}");
            assert!(response.get("content").is_some() || status == "303", "{what}: {status} has no body");
        }
    }
    for (name, fields) in [
        ("BackupRequest", "databases exclude import include keep"),
        ("ImportRequest", "backupPath databaseName exclude include mode to undo"),
        ("CleanRequest", "dryRun keepCount"),
        ("VerifyRequest", "deep"),
        ("ScheduleChange", "cron enabled interval timezone"),
        ("SyncRequest", "mode"),
    ] {
        let schema = &contract["components"]["schemas"][name];
        assert_eq!(schema["additionalProperties"], json!(false), "{name}");
        // The field lists that requests are checked against are written by hand.
        let described: BTreeSet<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(described, fields.split(' ').collect(), "{name}");
    }
    let bodies = [("create", false), ("import", true), ("clean", true), ("{name}/verify", false)];
    for (call, required) in bodies {
        let body = &contract["paths"][format!("/api/backups/{call}")]["post"]["requestBody"];
        assert_eq!(body["required"], required, "{call}: {body}");
    }
    let mut references = Vec::new();
    collect(&contract, &mut references);
    assert!(references.len() > 30, "{references:?}");
    for reference in references {
        assert!(contract.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference} leads nowhere");
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect(value, references));
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}

#[tokio::test]
async fn the_page_is_served_from_here_alone() {
    let place = Place::new().await;
    for path in ["/", "/api/docs"] {
        let answer = place.ask(Ask::new(Method::Get, path).token(None)).await;
        assert_eq!((answer.status, answer.header("Location")), (303, Some("/api/docs/")), "{path}");
    }
    let page = place.ask(Ask::new(Method::Get, "/api/docs/").token(None)).await;
    assert!(page.status == 200 && page.header("Content-Type").unwrap().starts_with("text/html"), "{page:?}");
    let mut loaded = Vec::new();
    for attribute in ["src=\"", "href=\""] {
        loaded.extend(page.text.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
    }
    assert!(loaded.len() >= 5, "{loaded:?}");
    for asset in loaded {
        assert!(!asset.contains("//"), "{asset} is elsewhere");
        let path = format!("/api/docs/{}", asset.trim_start_matches("./"));
        let served = place.ask(Ask::new(Method::Get, &path).token(None)).await;
        assert_eq!(served.status, 200, "{path}");
    }
    let start = place.ask(Ask::new(Method::Get, "/api/docs/swagger-initializer.js").token(None)).await.text;
    assert!(start.contains("\"/api/openapi.json\"") && !start.contains("://"), "{start}");
    assert!(start.contains("\"validatorUrl\": \"none\"") && start.contains("BaseLayout"), "{start}");
    assert!(!page.text.contains("<style") && !page.text.contains("onload="), "{}", page.text);
    for path in ["/api/docs/nothing.js", "/api/docs/../openapi.json.bak", "/api/docs/a/b"] {
        assert_eq!(place.ask(Ask::new(Method::Get, path).token(None)).await.failure().0, 404, "{path}");
    }
}

#[tokio::test]
async fn metrics_are_read_with_a_reading_token() {
    let place = Place::new().await;
    let answer = place.ask(Ask::new(Method::Get, "/metrics").token(Some(super::place::READER))).await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("Content-Type").unwrap().starts_with("application/openmetrics-text"), "{answer:?}");
    assert!(answer.text.ends_with("# EOF\n"), "{answer:?}");
}
