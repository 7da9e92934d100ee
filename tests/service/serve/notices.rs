//! The webhook gets a message for every job that ended, including killed ones.

use std::collections::HashMap;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::{Pair, is_reading};

use crate::support::service::Service;

const SECRET: &str = "shared with the receiver";

/// Receives one message, and returns its headers and body.
pub(super) async fn message(listener: &TcpListener) -> (HashMap<String, String>, String) {
    let (stream, _) = tokio::time::timeout(Duration::from_secs(60), listener.accept()).await.unwrap().unwrap();
    let mut stream = BufReader::new(stream);
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) => _ = headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None if line.trim_end().is_empty() => break,
            None => assert!(line.starts_with("POST /hook HTTP/1.1"), "{line}"),
        }
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await.unwrap();
    (headers, String::from_utf8(body).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_end_of_a_job_is_told_and_signed() {
    let pair = Pair::start().await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let cli = pair.service().env("WEBHOOK_URL", url).env("WEBHOOK_SECRET", SECRET);
    let service = Service::start(&cli).await;

    let succeeded = service.begin_backup().await;
    let told = |event: &'static str, id: String| {
        let listener = &listener;
        async move {
            let (headers, body) = message(listener).await;
            let json: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((headers["x-bsonvault-event"].as_str(), &json["event"]), (event, &Value::from(event)), "{json}");
            assert_eq!(
                (&json["data"]["id"], json["delivery"].as_str()),
                (&Value::from(id), Some(&*headers["x-bsonvault-delivery"]))
            );
            let mut hmac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
            hmac.update(format!("{}.{body}", headers["x-bsonvault-timestamp"]).as_bytes());
            let signature: String = hmac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(headers["x-bsonvault-signature"], format!("sha256={signature}"));
            json
        }
    };
    let json = told("job.succeeded", succeeded).await;
    assert_eq!(json["data"]["result"]["backup"]["documents"], 6000, "{json}");

    pair.source.slow_down(&["find", "getMore"], 2000).await;
    let cancelled = service.begin_backup().await;
    service.job_when(&cancelled, "reading", is_reading).await;
    service.delete(&format!("/api/jobs/{cancelled}")).await;
    told("job.cancelled", cancelled).await;

    let interrupted = service.begin_backup().await;
    service.job_when(&interrupted, "reading", is_reading).await;
    service.kill().await;
    pair.source.fail_no_more().await;
    let service = Service::start(&cli).await;
    told("job.interrupted", interrupted).await;

    let backups = service.get("/api/backups/status").await.body["data"]["backups"].clone();
    let complete = backups.as_array().unwrap().iter().find(|b| b["complete"] == true).unwrap();
    let segment = std::path::Path::new(complete["path"].as_str().unwrap()).join("shop");
    let segment = std::fs::read_dir(segment).unwrap().map(|e| e.unwrap().path()).find(|p| p.to_str().unwrap().ends_with(".zst"));
    std::fs::write(segment.unwrap(), "other bytes").unwrap();
    let failed = service.begin_import(complete["name"].as_str().unwrap()).await;
    let json = told("job.failed", failed).await;
    assert_eq!(json["data"]["error"]["kind"], "damaged", "{json}");
}
