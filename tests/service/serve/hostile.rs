//! Malicious clients while a backup is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bson::doc;
use rand::Rng as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Pair;

use crate::support::server::Server;
use crate::support::service::{ADMIN, Service, client};

const DOCUMENTS: u64 = 300_000;
/// The memory of the service, in MiB.
const BUDGET: u64 = 64;
/// The most files that the service may open.
const FILES: u32 = 600;
/// More connections than it may have files.
const IDLE: usize = 1000;
/// The pause between guesses of a token.
const GUESS: Duration = Duration::from_millis(20);

/// Incompressible megabytes, so that socket buffers cannot hold a download of them.
async fn fill_noise(server: &Server) {
    let noise = server.client().await.database("shop").collection("noise");
    for id in 0..24 {
        let mut bytes = vec![0; 1024 * 1024];
        rand::rng().fill(bytes.as_mut_slice());
        let bytes = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes };
        noise.insert_one(doc! { "_id": id, "bytes": bytes }).await.unwrap();
    }
}

/// Creates the documents within the server, which is many times faster than sending them.
async fn fill(server: &Server) {
    let shop = server.client().await.database("shop");
    let make = [
        doc! { "$limit": 1 },
        doc! { "$project": { "n": { "$range": [0, DOCUMENTS as i32] } } },
        doc! { "$unwind": "$n" },
        doc! { "$project": { "_id": "$n", "customer": { "$concat": ["customer ", { "$toString": "$n" }] }, "paid": true } },
        doc! { "$out": "orders" },
    ];
    let mut made = shop.collection::<bson::Document>("part0").aggregate(make).await.unwrap();
    assert!(!made.advance().await.unwrap());
}

/// Keeps a connection open, sends only `begins`, and reopens it whenever it is closed.
async fn idle(address: String, begins: &'static [u8]) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(&address).await {
            let _closed = stream.write_all(begins).await;
            let mut answer = [0; 1024];
            while let Ok(1..) = stream.read(&mut answer).await {}
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Guesses tokens, each on its own connection, and counts refusals.
async fn guess(address: String, refused: Arc<AtomicU32>) {
    let mut every = tokio::time::interval(GUESS);
    let mut number = 0u32;
    loop {
        every.tick().await;
        number += 1;
        let (address, refused) = (address.clone(), refused.clone());
        tokio::spawn(async move {
            let Ok(mut stream) = TcpStream::connect(&address).await else { return };
            let ask = format!("GET /api/backups/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer guess-{number}\r\n\r\n");
            let _closed = stream.write_all(ask.as_bytes()).await;
            let mut status = [0; 12];
            let answered = tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut status)).await;
            if matches!(answered, Ok(Ok(_))) && [&b"401"[..], b"429"].contains(&&status[9..]) {
                refused.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// Begins a download, and reads nothing of it.
async fn stalled_download(address: String, name: String) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(&address).await {
            let ask = format!("GET /api/backups/{name}/download HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\n\r\n");
            let _closed = stream.write_all(ask.as_bytes()).await;
            tokio::time::sleep(Duration::from_secs(120)).await;
        }
    }
}

/// The job that the schedule began, once it has ended. It polls on new connections, since idle ones
/// are closed if there are too many.
async fn scheduled_when_ended(service: &Service) -> Value {
    let begun = Instant::now();
    loop {
        let asked = client().get(service.url("/api/jobs")).bearer_auth(ADMIN).timeout(Duration::from_secs(10)).send().await;
        if let Ok(answer) = asked
            && let Ok(text) = answer.text().await
        {
            let answer: Value = serde_json::from_str(&text).unwrap();
            let jobs = answer["data"]["jobs"].as_array().unwrap();
            if let Some(job) = jobs.iter().find(|job| job["trigger"] != "manual" && job["finished"].is_string()) {
                return job.clone();
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "no backup by the schedule:\n{}", service.log().join("\n"));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_backup_ends_whatever_clients_do() {
    let own = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: own.maximum, ..own }).unwrap();
    let pair = Pair::start().await;
    let cli = pair.service().env("BACKUP_ENABLED", "true").env("BACKUP_MEMORY_MB", BUDGET.to_string()).files(FILES);
    let service = Service::start(&cli).await;
    let at_rest = service.memory("VmHWM");
    let address = service.address.trim_start_matches("http://").to_owned();
    fill_noise(&pair.source).await;
    let created = service.post("/api/backups/create", &Value::Null).await;
    let name = created.body["data"]["name"].as_str().unwrap_or_else(|| panic!("{created:?}")).to_owned();
    fill(&pair.source).await;
    let every_minute = service.put("/api/schedule", &json!({ "cron": "* * * * *" })).await;
    assert_eq!(every_minute.status, 200, "{every_minute:?}");

    let (mut clients, refused) = (JoinSet::new(), Arc::new(AtomicU32::new(0)));
    for number in 0..IDLE {
        let begins: &[u8] = match number % 8 {
            0..3 => b"",
            3..6 => b"GET /healthz HTTP/1.1\r\nHost:",
            6 => b"POST /api/backups/create HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
            _ => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        };
        clients.spawn(idle(address.clone(), begins));
    }
    for _ in 0..6 {
        clients.spawn(stalled_download(address.clone(), name.clone()));
    }
    clients.spawn(guess(address, refused.clone()));

    let job = scheduled_when_ended(&service).await;
    assert_eq!(job["state"], "succeeded", "{job}\n{}", service.log().join("\n"));
    assert!(job["result"]["backup"]["documents"].as_u64().unwrap() >= DOCUMENTS, "{job}");
    assert!(refused.load(Ordering::Relaxed) > 50, "hardly a guess was answered: {refused:?}");
    let (peak, most) = (service.memory("VmHWM"), 2 * at_rest + (BUDGET << 20));
    assert!(peak <= most, "{peak} bytes were taken, {at_rest} at rest: more than {most}");
}
