//! No output of the service holds a secret.

use serde_json::Value;

use crate::support::server::{Server, ServerOptions, free_port};
use crate::support::service::{ADMIN, READER, Service, answer, client, configured, sha256};

#[tokio::test(flavor = "multi_thread")]
async fn no_log_and_no_answer_holds_a_password_or_a_token() {
    let source = Server::start(ServerOptions { repl_set: Some("atlas".into()), auth: true, ..ServerOptions::default() }).await;
    let secret = "s3cr3t-of-the-source";
    let wrong = |port: u16| format!("mongodb://somebody:{secret}@127.0.0.1:{port}/?directConnection=true&authSource=admin");
    for format in ["human", "json"] {
        let hook = format!("http://user:{secret}@127.0.0.1:{}/{secret}?key={secret}", free_port());
        let cli = configured()
            .env("MONGO_URI_ATLAS", wrong(source.port()))
            .env("MONGO_URI_LOCAL", wrong(free_port()))
            .env("WEBHOOK_URL", hook)
            .env("WEBHOOK_SECRET", secret)
            .env("LOG_FORMAT", format)
            .env("RUST_LOG", "debug");
        let service = Service::start(&cli).await;
        let mut said = Vec::new();
        for path in [
            "/api/backups/status",
            "/api/backups/test-connections",
            "/api/jobs",
            "/api/schedule",
            "/metrics",
            "/readyz",
            "/api/openapi.json",
            "/api/nothing",
        ] {
            said.push(format!("{:?}", service.get(path).await));
        }
        said.push(format!("{:?}", service.post("/api/backups/create", &Value::Null).await));
        let token = format!("bv_{secret}");
        said.push(format!("{:?}", answer(client().get(service.url("/api/jobs")).bearer_auth(&token)).await));
        let id = service.get("/api/jobs?limit=1").await.body["data"]["jobs"][0]["id"].as_str().unwrap().to_owned();
        said.push(service.ended(&id).await.to_string());
        let (code, log) = service.stop().await;
        assert_eq!(code, Some(0), "{log:?}");
        assert!(log.len() > 5, "{log:?}");
        if format == "json" {
            for line in log.iter().filter(|line| !line.starts_with("stopping")) {
                assert!(serde_json::from_str::<Value>(line).is_ok_and(|v| v["level"].is_string()), "{line}");
            }
        }
        said.extend(log);
        let all = said.join("\n");
        for hidden in [secret, ADMIN, READER, sha256(ADMIN).as_str()] {
            assert!(!all.contains(hidden), "{hidden} in {}", all.lines().find(|l| l.contains(hidden)).unwrap());
        }
    }
}
