//! Tests against a tiny server, which gives fixed answers and keeps the requests.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::format::digest::Sha256Hex;

const SECRET: &str = "hunter2-key";
const QUICK: Pace =
    Pace { attempt: Duration::from_millis(300), first: Duration::from_millis(4), longest: Duration::from_millis(500) };

/// A received request.
#[derive(Debug, Clone)]
struct Request {
    line: String,
    headers: HashMap<String, String>,
    body: String,
    at: Instant,
}

/// An answer: a status line with headers, or nothing.
type Answer = Option<&'static str>;

/// Answers the first requests in this order, and repeats the last answer.
async fn server(answers: &'static [Answer]) -> (String, Arc<Mutex<Vec<Request>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = requests.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let kept = kept.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut lines = Vec::new();
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line).await.unwrap() == 0 || line == "\r\n" {
                        break;
                    }
                    lines.push(line.trim_end().to_owned());
                }
                let split = |line: &String| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
                let headers: HashMap<_, _> = lines[1..].iter().filter_map(split).collect();
                let mut body = vec![0; headers["content-length"].parse().unwrap()];
                stream.read_exact(&mut body).await.unwrap();
                let request =
                    Request { line: lines[0].clone(), headers, body: String::from_utf8(body).unwrap(), at: Instant::now() };
                let answer = {
                    let mut kept = kept.lock().unwrap();
                    kept.push(request);
                    answers[(kept.len() - 1).min(answers.len() - 1)]
                };
                match answer {
                    Some(head) => {
                        let text = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                        stream.write_all(text.as_bytes()).await.unwrap();
                    }
                    None => std::future::pending().await,
                }
            });
        }
    });
    (host, requests)
}

fn webhook(url: &str, secret: Option<&str>) -> Webhook {
    Webhook::with_pace(&WebhookSettings { url: url.to_owned(), secret: secret.map(str::to_owned) }, QUICK).unwrap()
}

fn event() -> Event {
    let time = DateTime::parse_from_rfc3339("2026-11-23T06:00:00Z").unwrap().to_utc();
    Event { name: "job.succeeded", time, data: json!({ "job": "7", "text": "ä" }) }
}

async fn deliver(webhook: &Webhook) -> Result<()> {
    webhook.deliver(&event(), &CancellationToken::new()).await
}

/// HMAC-SHA256 as RFC 2104 defines it, for keys of one block at most.
fn hmac(key: &str, message: &str) -> String {
    let padded = |with: u8| -> Vec<u8> {
        let mut key = key.as_bytes().to_vec();
        key.resize(64, 0);
        key.iter().map(|byte| byte ^ with).collect()
    };
    let inner = Sha256Hex::of_chunks([padded(0x36).as_slice(), message.as_bytes()]);
    let inner: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&inner.as_str()[2 * at..2 * at + 2], 16).unwrap()).collect();
    Sha256Hex::of_chunks([padded(0x5c).as_slice(), &inner]).to_string()
}

#[tokio::test]
async fn a_message_is_signed_and_sent_again_until_it_is_taken() {
    let (host, requests) =
        server(&[Some("500 Oh"), Some("503 Oh"), Some("429 Oh"), Some("408 Oh"), None, Some("204 Thanks")]).await;
    deliver(&webhook(&format!("http://{host}/path/x?q=1"), Some(SECRET))).await.unwrap();
    let requests = requests.lock().unwrap().clone();
    assert_eq!(requests.len(), 6);
    for request in &requests {
        let header = |name: &str| request.headers[name].as_str();
        assert_eq!(request.line, "POST /path/x?q=1 HTTP/1.1");
        assert_eq!((header("content-type"), header("x-bsonvault-event")), ("application/json", "job.succeeded"));
        assert!(header("user-agent").starts_with("bsonvault/"), "{request:?}");
        assert_eq!(header("x-bsonvault-delivery"), requests[0].headers["x-bsonvault-delivery"]);
        let now = clock::now().timestamp();
        assert!((now - 30..=now).contains(&header("x-bsonvault-timestamp").parse::<i64>().unwrap()), "{request:?}");
        let signed = hmac(SECRET, &format!("{}.{}", header("x-bsonvault-timestamp"), request.body));
        assert_eq!(header("x-bsonvault-signature"), format!("sha256={signed}"));
        let body: Value = serde_json::from_str(&request.body).unwrap();
        let expected = json!({ "event": "job.succeeded", "delivery": header("x-bsonvault-delivery"), "time": "2026-11-23T06:00:00Z",
            "data": { "job": "7", "text": "ä" } });
        assert_eq!(body, expected);
    }
    // Each pause is at least half of its length.
    for (at, pair) in requests.windows(2).enumerate() {
        assert!(pair[1].at - pair[0].at >= QUICK.first * 2_u32.pow(at.try_into().unwrap()) / 2, "{at}");
    }
}

#[test]
fn the_signature_is_that_of_the_standard() {
    // RFC 4231, test case 2, whose message is cut where the timestamp ends.
    assert_eq!(hmac("Jefe", "what do ya want for nothing?"), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_eq!(signature("Jefe", 7, b"x").unwrap(), format!("sha256={}", hmac("Jefe", "7.x")));
}

#[tokio::test]
async fn without_a_secret_nothing_is_signed() {
    let (host, requests) = server(&[Some("200 OK")]).await;
    deliver(&webhook(&format!("http://{host}"), None)).await.unwrap();
    deliver(&webhook(&format!("http://{host}"), None)).await.unwrap();
    let requests = requests.lock().unwrap();
    assert!(!requests[0].headers.contains_key("x-bsonvault-signature"));
    assert_ne!(requests[0].headers["x-bsonvault-delivery"], requests[1].headers["x-bsonvault-delivery"]);
}

#[tokio::test]
async fn it_is_given_up_after_six_attempts() {
    let (host, requests) = server(&[Some("502 Bad Gateway")]).await;
    let error = deliver(&webhook(&format!("http://{host}/x"), None)).await.unwrap_err();
    let expected = format!("given up after 6 attempts: the webhook at http://{host} answered 502 Bad Gateway");
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Server, expected));
    assert_eq!(requests.lock().unwrap().len(), 6);
}

#[tokio::test]
async fn other_refusals_and_redirects_fail_at_once() {
    for answer in ["400 Bad Request", "401 Unauthorized", "404 Not Found", "410 Gone"] {
        let (host, requests) = server(vec![Some(answer)].leak()).await;
        let error = deliver(&webhook(&format!("http://{host}/x"), None)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("the webhook at http://{host} answered {answer}"));
        assert_eq!(requests.lock().unwrap().len(), 1);
    }
    let (other, reached) = server(&[Some("200 OK")]).await;
    for status in [301, 302, 307, 308] {
        let (host, requests) = server(vec![Some(&*format!("{status} To\r\nlocation: http://{other}/").leak())].leak()).await;
        let error = deliver(&webhook(&format!("http://{host}/x"), None)).await.unwrap_err();
        assert!(error.hint_text().unwrap().starts_with("redirects are not followed"), "{error:?}");
        assert_eq!(requests.lock().unwrap().len(), 1);
    }
    assert_eq!(reached.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_pause_that_is_asked_for_is_made_up_to_the_longest() {
    let (host, requests) = server(&[Some("429 Later\r\nretry-after: 3600"), Some("200 OK")]).await;
    deliver(&webhook(&format!("http://{host}"), None)).await.unwrap();
    let requests = requests.lock().unwrap();
    let pause = requests[1].at - requests[0].at;
    assert!(pause >= QUICK.longest && pause < QUICK.longest * 20, "{pause:?}");
    let now = DateTime::parse_from_rfc3339("2026-11-23T06:00:00Z").unwrap().to_utc();
    assert_eq!(retry_after("Mon, 23 Nov 2026 06:00:30 GMT", now), Some(Duration::from_secs(30)));
    assert_eq!(retry_after(" 5 ", now), Some(Duration::from_secs(5)));
    for nothing in ["Mon, 23 Nov 2026 05:00:00 GMT", "soon", "-1", ""] {
        assert_eq!(retry_after(nothing, now), None, "{nothing}");
    }
    assert_eq!((PACE.longest, PACE.attempt, ATTEMPTS), (Duration::from_secs(60), Duration::from_secs(10), 6));
}

#[tokio::test]
async fn stopping_ends_the_pauses_and_not_the_first_attempt() {
    let slow = Pace { first: Duration::from_secs(3600), ..QUICK };
    let (host, requests) = server(&[Some("500 Oh")]).await;
    let webhook = Webhook::with_pace(&WebhookSettings { url: format!("http://{host}"), secret: None }, slow).unwrap();
    let stop = CancellationToken::new();
    let sent = tokio::spawn({
        let (webhook, stop) = (webhook.clone(), stop.clone());
        async move { webhook.deliver(&event(), &stop).await }
    });
    while requests.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    let error = tokio::time::timeout(Duration::from_secs(20), sent).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_eq!(error.to_string(), format!("the webhook at http://{host} answered 500 Internal Server Error: interrupted"));
    // A stopping service still sends it, once.
    assert!(webhook.deliver(&event(), &stop).await.is_err());
    assert_eq!(requests.lock().unwrap().len(), 2);
}

/// The log of this process.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nothing_of_the_url_is_told_but_scheme_and_host() {
    let logged = Logged::default();
    let writer = logged.clone();
    let filter = "off,reqwest=trace,hyper=trace,hyper_util=trace,rustls=trace,bsonvault::service=trace";
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || writer.clone()).init();
    let (host, requests) = server(&[Some("500 Oh"), Some("404 No")]).await;
    let (silent, _kept) = server(&[None]).await;
    let mut told = Vec::new();
    for (scheme, host) in [
        ("http", host.as_str()),
        ("http", silent.as_str()),
        ("https", host.as_str()),
        ("http", "127.0.0.1:1"),
        ("http", "nowhere.invalid"),
    ] {
        let pace = if host == silent { Pace { attempt: Duration::from_millis(50), ..QUICK } } else { QUICK };
        let url = format!("{scheme}://user:hunter2@{host}/hunter2/x?token=hunter2#hunter2");
        let webhook = Webhook::with_pace(&WebhookSettings { url, secret: Some(SECRET.to_owned()) }, pace).unwrap();
        let error = deliver(&webhook).await.unwrap_err();
        assert!(error.to_string().contains(&format!("the webhook at {scheme}://{host} ")), "{error}");
        told.push(format!("{webhook:?} {error} {error:?}"));
    }
    let kept = requests.lock().unwrap()[0].clone();
    assert_eq!(kept.line, "POST /hunter2/x?token=hunter2 HTTP/1.1");
    assert!(kept.headers["authorization"].starts_with("Basic "), "the login goes to the host it is for");
    let login = kept.headers["authorization"].trim_start_matches("Basic ").to_owned();
    let logged = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("reqwest") && logged.contains("answered 500"), "{logged}");
    for told in told.iter().chain([&logged]) {
        assert!(!told.contains("hunter2") && !told.contains(&login), "{told}");
    }
}
