//! Tokens: missing, wrong, read-only, and the rate limit.

use bsonvault::api::{self, Access};
use bsonvault::error::ErrorKind;
use rocket::figment::Figment;
use rocket::http::Method;

use super::place::{ADMIN, Ask, DOWNLOADER, Place, READER, routes};

const PUBLIC: [&str; 5] = ["/", "/healthz", "/readyz", "/api/openapi.json", "/api/docs/index.html"];

#[tokio::test]
async fn every_call_needs_a_token_but_those_that_tell_nothing() {
    let place = Place::new().await;
    let routes = routes(&place.client);
    assert!(routes.len() >= 19, "{routes:?}");
    for (number, (method, path)) in routes.iter().enumerate() {
        let address = format!("192.0.2.{number}");
        for token in [None, Some("wrong"), Some("")] {
            let answer = place.ask(Ask::new(*method, path).token(token).from(&address)).await;
            if PUBLIC.contains(&path.as_str()) {
                // This service has not probed its deployments.
                let expected = if path == "/readyz" { answer.status == 503 } else { answer.status < 400 };
                assert!(expected, "{method} {path}: {answer:?}");
            } else {
                let (status, kind, _) = answer.failure();
                assert_eq!((status, kind.as_str()), (401, "unauthorized"), "{method} {path}");
                assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"));
            }
        }
    }
    for scheme in ["Basic", "Bearer:", "bearer-token", "Digest"] {
        let ask = Ask::new(Method::Get, "/api/schedule").token(None).header("Authorization", format!("{scheme} {ADMIN}"));
        assert_eq!(place.ask(ask.from("198.51.100.1")).await.status, 401, "{scheme}");
    }
}

#[tokio::test]
async fn a_reading_token_reads_and_changes_nothing() {
    let place = Place::new().await;
    for (method, path) in routes(&place.client) {
        let answer = place.ask(Ask::new(method, &path).token(Some(READER))).await;
        if path.ends_with("/download") {
            let (status, _, message) = answer.failure();
            assert_eq!((status, message.as_str()), (403, "this token may read, but not download backups"));
            let asked = place.ask(Ask::new(method, &path).token(Some(DOWNLOADER))).await;
            assert_eq!(asked.failure().0, 404, "it may, and there is no such backup");
        } else if method == Method::Get {
            assert!(![401, 403].contains(&answer.status), "{method} {path}: {answer:?}");
        } else {
            let (status, kind, message) = answer.failure();
            assert_eq!((status, kind.as_str()), (403, "forbidden"), "{method} {path}");
            assert_eq!(message, "this token may read, but not change anything");
        }
    }
    assert_eq!(place.get("/api/jobs").await.data()["jobs"], serde_json::json!([]));
}

#[tokio::test]
async fn without_a_token_not_even_paths_are_told() {
    let place = Place::new().await;
    for path in ["/api/nothing", "/api", "/api/backups/a/b/c"] {
        assert_eq!(place.ask(Ask::new(Method::Get, path).token(None)).await.failure().0, 401, "{path}");
        assert_eq!(place.get(path).await.failure().0, 404, "{path}");
    }
    assert_eq!(place.ask(Ask::new(Method::Get, "/nothing").token(None)).await.failure().0, 404);
}

#[tokio::test]
async fn wrong_tokens_are_limited_by_address_and_good_ones_never() {
    let place = Place::new().await;
    let wrong = |address| Ask::new(Method::Get, "/api/schedule").token(Some("wrong")).from(address);
    for _ in 0..10 {
        assert_eq!(place.ask(wrong("192.0.2.1")).await.status, 401);
    }
    let limited = place.ask(wrong("192.0.2.1")).await;
    assert_eq!((limited.status, limited.failure().1.as_str()), (429, "tooManyRequests"));
    let seconds: u64 = limited.header("Retry-After").unwrap().parse().unwrap();
    assert!((1..=6).contains(&seconds), "{seconds}");
    for _ in 0..30 {
        assert_eq!(place.ask(Ask::new(Method::Get, "/api/schedule").from("192.0.2.1")).await.status, 200);
    }
    assert_eq!(place.ask(wrong("192.0.2.2")).await.status, 401, "another address");
    // A client's claims about its address have no effect.
    for header in ["X-Real-IP", "X-Forwarded-For", "Forwarded"] {
        assert_eq!(place.ask(wrong("192.0.2.1").header(header, "203.0.113.1")).await.status, 429, "{header}");
    }
}

#[tokio::test]
async fn a_proxy_is_believed_where_one_is_configured() {
    let place = Place::with(&[], Figment::new().merge(("ip_header", "X-Real-IP"))).await;
    let wrong = |real: &str| {
        let ask = Ask::new(Method::Get, "/api/schedule").token(Some("wrong")).from("127.0.0.1");
        ask.header("X-Real-IP", real)
    };
    for _ in 0..10 {
        place.ask(wrong("203.0.113.1")).await;
    }
    assert_eq!(place.ask(wrong("203.0.113.1")).await.status, 429);
    assert_eq!(place.ask(wrong("203.0.113.2")).await.status, 401);
}

#[tokio::test]
async fn a_server_that_nobody_could_use_is_not_built() {
    let place = Place::new().await;
    let access = Access { admin: Vec::new(), read: vec![[7; 32]], download: Vec::new() };
    let Err(error) = api::rocket(place.service.clone(), Figment::new(), access) else { panic!("was built") };
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Usage, "no admin token is configured"));
    assert_eq!(error.hint_text(), Some("`bsonvault token` makes one"));
}
