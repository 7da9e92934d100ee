//! Tests that need a real connection: endless bodies, TLS, clients that disconnect.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bsonvault::api::{Bounds, Server};
use rocket::figment::Figment;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::bodies::Pair;
use super::jobs::{slow, when};
use super::place::{ADMIN, Place, access};

/// The same service on a real port.
struct Listening {
    address: SocketAddr,
    _stops: DropGuard,
}

impl Listening {
    async fn start(place: &Place, figment: Figment) -> Self {
        Self::bounded(place, figment, Bounds::of_this_process()).await
    }

    async fn bounded(place: &Place, figment: Figment, bounds: Bounds) -> Self {
        let rocket = bsonvault::api::rocket(place.service.clone(), figment.merge(("port", 0)), access()).unwrap();
        let server = Server::bind(rocket, bounds).await.unwrap();
        let (address, stop) = (server.address(), CancellationToken::new());
        tokio::spawn(server.run(stop.clone()));
        Self { address, _stops: stop.drop_guard() }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// The response until the connection closes, or until a timeout.
async fn answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while let Ok(Ok(read @ 1..)) = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut part)).await {
        bytes.extend_from_slice(&part[..read]);
        if bytes.ends_with(b"}") {
            break;
        }
    }
    String::from_utf8(bytes).unwrap()
}

const MEGABYTE: usize = 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_are_refused_at_once_and_not_kept() {
    let place = Place::new().await;
    let listening = Listening::start(&place, Figment::new()).await;
    let head = format!("POST /api/backups/clean HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\n");
    let before = resident();
    let begun = Instant::now();

    // With an announced length.
    let mut stream = listening.connect().await;
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n", 100 * MEGABYTE).as_bytes()).await.unwrap();
    let sent = send(&mut stream, &vec![b' '; MEGABYTE]).await;
    let told = answer(&mut stream).await;
    assert!(told.starts_with("HTTP/1.1 413 "), "after {sent} MB: {told}");

    // Without one.
    let mut stream = listening.connect().await;
    stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await.unwrap();
    let mut chunk = format!("{MEGABYTE:x}\r\n").into_bytes();
    chunk.extend(vec![b' '; MEGABYTE]);
    chunk.extend(b"\r\n");
    send(&mut stream, &chunk).await;
    let _closed = stream.write_all(b"0\r\n\r\n").await;
    let told = answer(&mut stream).await;
    assert!(told.starts_with("HTTP/1.1 413 ") && told.contains("\"tooLarge\""), "{told}");

    // With `Expect: 100-continue`.
    let mut stream = listening.connect().await;
    let asks = format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", 100 * MEGABYTE);
    stream.write_all(asks.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    send(&mut stream, &vec![b' '; MEGABYTE]).await;
    let told = answer(&mut stream).await;
    assert!(told.starts_with("HTTP/1.1 413 "), "{told}");

    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let grown = resident().saturating_sub(before);
    assert!(grown < 90 * MEGABYTE, "{grown} bytes were kept");
}

/// Sends this a hundred times, as far as the other end accepts it.
async fn send(stream: &mut TcpStream, chunk: &[u8]) -> usize {
    for sent in 0..100 {
        if stream.write_all(chunk).await.is_err() {
            return sent;
        }
    }
    100
}

/// This process's own resident memory in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_stops_nothing() {
    let pair = Pair::start().await;
    let place = pair.place().await;
    let listening = Listening::start(&place, Figment::new()).await;
    slow(&pair.source, 1500).await;
    let mut stream = listening.connect().await;
    let ask =
        format!("POST /api/backups/create HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let begun = Instant::now();
    let id = loop {
        let running = place.get("/api/backups/status").await.data()["running"].clone();
        if let Some(id) = running[0]["jobId"].as_str() {
            break id.to_owned();
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    drop(stream);
    pair.source.fail_no_more().await;
    let job = when(&place, &id, |job| job["finished"].is_string()).await;
    assert_eq!(job["state"], "succeeded", "{job}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_answered_in_json() {
    let place = Place::new().await;
    let listening = Listening::start(&place, Figment::new()).await;
    let mut stream = listening.connect().await;
    stream.write_all(b"GET /api/jobs/{} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n\r\n").await.unwrap();
    let told = answer(&mut stream).await;
    let status: u16 = told.split(' ').nth(1).unwrap().parse().unwrap();
    assert!([400, 401, 404].contains(&status), "{told}");
    assert!(told.contains("\"success\":false") && told.to_lowercase().contains("x-request-id: "), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_certificate_it_speaks_tls_and_asks_browsers_to_stay_with_it() {
    let place = Place::new().await;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls");
    let figment = Figment::new().merge(("tls.certs", fixtures.join("cert.pem"))).merge(("tls.key", fixtures.join("key.pem")));
    let listening = Listening::start(&place, figment).await;
    let _another_test_did = rustls::crypto::ring::default_provider().install_default();
    let certificate = reqwest::Certificate::from_pem(&std::fs::read(fixtures.join("cert.pem")).unwrap()).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([certificate]).build().unwrap();
    let port = listening.address.port();
    let response = client.get(format!("https://localhost:{port}/api/schedule")).bearer_auth(ADMIN).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    let headers = response.headers();
    assert!(headers["strict-transport-security"].to_str().unwrap().starts_with("max-age="), "{headers:?}");
    assert!(client.get(format!("http://localhost:{port}/healthz")).send().await.is_err(), "and nothing else");
}

/// Whether the other end closes the connection within this time, whatever it sends before.
async fn closes_within(stream: &mut TcpStream, time: Duration) -> bool {
    let mut bytes = Vec::new();
    tokio::time::timeout(time, stream.read_to_end(&mut bytes)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_ask_nothing_keep_nobody_out() {
    let place = Place::new().await;
    let bounds = Bounds { connections: 8, ..Bounds::of_this_process() };
    let listening = Listening::bounded(&place, Figment::new(), bounds).await;
    let mut idle = Vec::new();
    for n in 0..40 {
        let mut stream = listening.connect().await;
        // Nothing, half a request, and a missing body of an unknown client.
        let half: &[u8] = match n % 3 {
            0 => b"",
            1 => b"GET /healthz HTTP/1.1\r\nHost:",
            _ => b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
        };
        stream.write_all(half).await.unwrap();
        idle.push(stream);
        if n % 10 == 9 {
            let begun = Instant::now();
            let mut stream = listening.connect().await;
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 "));
            assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        }
    }
    assert!(closes_within(&mut idle[0], Duration::from_secs(5)).await, "the one that was idle for the longest time left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_ask_or_does_not_read_is_cut_off() {
    let place = Place::new().await;
    let soon = Duration::from_millis(400);
    let bounds = Bounds { headers: soon, stalled: soon, ..Bounds::of_this_process() };
    let listening = Listening::bounded(&place, Figment::new(), bounds).await;

    // Headers that do not arrive, at first and after a response.
    for begins in ["", "GET /healthz HTTP/1.1\r\nHo", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = listening.connect().await;
        stream.write_all(begins.as_bytes()).await.unwrap();
        assert!(closes_within(&mut stream, Duration::from_secs(5)).await, "{begins:?}");
    }

    // Responses that are not read: more than the system buffers for a socket.
    let mut stream = listening.connect().await;
    let ask = "GET /api/docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut cut = false;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cut = stream.write_all(ask.as_bytes()).await.is_err();
        if cut {
            break;
        }
    }
    assert!(cut, "the connection stood though nothing of it was read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_known_is_answered_before_anything_of_a_body_is_read() {
    let place = Place::new().await;
    let listening = Listening::start(&place, Figment::new()).await;
    for length in [5, 13, 100 * MEGABYTE] {
        let mut stream = listening.connect().await;
        let head = format!("POST /api/backups/create HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        let begun = Instant::now();
        stream.write_all(head.as_bytes()).await.unwrap();
        let told = answer(&mut stream).await;
        assert!(told.starts_with("HTTP/1.1 401 "), "{told}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }

    // An unknown method is the client's fault.
    let mut stream = listening.connect().await;
    stream.write_all(b"QUERY /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 400 "));

    // Endless headers.
    let mut stream = listening.connect().await;
    let head = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(200 * 1024));
    let _closed = stream.write_all(head.as_bytes()).await;
    let told = answer(&mut stream).await;
    assert!(told.is_empty() || told.starts_with("HTTP/1.1 431 "), "{told}");

    // HTTP/2 by prior knowledge: the response holds no frame.
    let mut stream = listening.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes)).await;
    assert!(read.is_ok() && (bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 ")), "{bytes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_waits_for_no_connection_that_asks_nothing() {
    let place = Place::new().await;
    let rocket = bsonvault::api::rocket(place.service.clone(), Figment::new().merge(("port", 0)), access()).unwrap();
    let server = Server::bind(rocket, Bounds::of_this_process()).await.unwrap();
    let (address, stop) = (server.address(), CancellationToken::new());
    let running = tokio::spawn(server.run(stop.clone()));
    let mut open = Vec::new();
    for begins in ["", "GET /healthz HTTP/1.1\r\nHo", "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(begins.as_bytes()).await.unwrap();
        open.push(stream);
    }
    assert!(answer(&mut open[2]).await.starts_with("HTTP/1.1 200 "));
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), running).await.expect("it waits for them").unwrap();
}
