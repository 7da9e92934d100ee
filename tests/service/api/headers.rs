//! Every response has an id and security headers, and errors are JSON.

use rocket::figment::Figment;
use rocket::http::Method;

use super::place::{Ask, Place, routes};

#[tokio::test]
async fn every_answer_has_its_id_and_what_protects_the_browser() {
    let place = Place::new().await;
    let mut paths = routes(&place.client);
    paths.extend([(Method::Get, "/nothing".to_owned()), (Method::Get, "/api/nothing".to_owned())]);
    for (method, path) in paths {
        let answer = place.ask(Ask::new(method, &path)).await;
        let one = |name: &str, value: &str| {
            let values: Vec<_> = answer.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).collect();
            assert!(values.len() == 1 && values[0].1.contains(value), "{method} {path}: {name}: {values:?}");
        };
        one("X-Request-Id", "");
        one("X-Content-Type-Options", "nosniff");
        one("X-Frame-Options", "DENY");
        one("Referrer-Policy", "no-referrer");
        one("Content-Security-Policy", "default-src 'self'");
        one("Cache-Control", if path.starts_with("/api/docs") { "no-cache" } else { "no-store" });
        assert_eq!(answer.header("Server"), None);
        assert_eq!(answer.header("Strict-Transport-Security"), None, "not without TLS");
        let policy = answer.header("Content-Security-Policy").unwrap();
        assert_eq!(policy.contains("unsafe-inline"), path.starts_with("/api/docs"), "{path}: {policy}");
        assert!(!policy.contains("http"), "{policy}");
        if answer.status >= 400 {
            answer.failure();
        }
    }
}

#[tokio::test]
async fn a_request_keeps_its_id_where_that_can_be_used() {
    let place = Place::new().await;
    let with = |id: &str| Ask::new(Method::Get, "/api/nothing").header("X-Request-Id", id);
    let kept = place.ask(with("trace-1.2_3:4")).await;
    assert_eq!(kept.header("X-Request-Id"), Some("trace-1.2_3:4"));
    kept.failure();
    for bad in ["", "a b", "<script>", &"x".repeat(65), "é"] {
        let answer = place.ask(with(bad)).await;
        let id = answer.header("X-Request-Id").unwrap();
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{bad}: {id}");
    }
    let other = place.get("/api/nothing").await;
    assert_ne!(other.header("X-Request-Id"), place.get("/api/nothing").await.header("X-Request-Id"));
}

#[tokio::test]
async fn other_methods_are_told_which_there_are() {
    let place = Place::new().await;
    for (method, path, allow) in [
        (Method::Post, "/api/backups/status", "GET, HEAD"),
        (Method::Post, "/api/backups/some", "DELETE, GET, HEAD"),
        (Method::Put, "/api/backups/create", "POST"),
        (Method::Get, "/api/backups/a/verify", "POST"),
        (Method::Patch, "/api/schedule", "GET, HEAD, PUT"),
        (Method::Delete, "/healthz", "GET, HEAD"),
    ] {
        let answer = place.ask(Ask::new(method, path)).await;
        assert_eq!((answer.failure().0, answer.header("Allow")), (405, Some(allow)), "{method} {path}");
    }
    let options = place.ask(Ask::new(Method::Options, "/api/schedule")).await;
    assert_eq!((options.status, options.header("Allow"), options.text.as_str()), (204, Some("GET, HEAD, PUT"), ""));
    let head = place.ask(Ask::new(Method::Head, "/api/schedule")).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(head.header("Content-Type"), Some("application/json"));
    assert_eq!(place.ask(Ask::new(Method::Head, "/api/schedule").token(None)).await.status, 401);
}

#[tokio::test]
async fn the_configuration_of_the_server_is_looked_at() {
    let place = Place::new().await;
    let figment = Figment::new().merge(("port", "many"));
    let Err(error) = bsonvault::api::rocket(place.service.clone(), figment, super::place::access()) else { panic!("was built") };
    assert!(error.to_string().contains("port"), "{error}");
}
