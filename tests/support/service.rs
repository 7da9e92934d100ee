//! The built binary as a service, and a client of it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use super::cli::Cli;

/// A token that may do everything, and its SHA-256.
pub const ADMIN: &str = "bv_an-admin-token-of-the-tests";
/// A token that may only read.
pub const READER: &str = "bv_a-reading-token-of-the-tests";

/// How long to wait for anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running service. Dropping it kills it.
pub struct Service {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// `http://127.0.0.1:PORT`
    pub address: String,
    /// How long it took to listen.
    pub started_within: Duration,
    client: reqwest::Client,
}

/// A response: status and body.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

/// A command line with the environment that a service needs in addition to URIs: the path `backups`
/// below its directory, and tokens.
pub fn configured() -> Cli {
    let cli = Cli::new();
    let path = cli.dir().join("backups").to_str().unwrap().to_owned();
    cli.env("BACKUP_PATH", path)
        .env("ADMIN_TOKEN_SHA256", sha256(ADMIN))
        .env("READ_TOKEN_SHA256", sha256(READER))
        .env("ROCKET_PORT", "0")
        .env("RUST_LOG", "info,rocket=warn")
}

pub fn sha256(text: &str) -> String {
    bsonvault::format::digest::Sha256Hex::of(text.as_bytes()).to_string()
}

/// A client, with the certificates for TLS.
pub fn client() -> reqwest::Client {
    static READY: OnceLock<()> = OnceLock::new();
    READY.get_or_init(|| {
        let _another_test_did = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

impl Service {
    /// Starts `serve` and waits until it listens.
    pub async fn start(cli: &Cli) -> Self {
        match Self::try_start(cli).await {
            Ok(service) => service,
            Err(log) => panic!("the service did not start:\n{}", log.join("\n")),
        }
    }

    /// Starts `serve`. Returns the log if it ends before it listens.
    pub async fn try_start(cli: &Cli) -> Result<Self, Vec<String>> {
        let begun = Instant::now();
        let mut child = cli.command(&["serve"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = child.stderr.take().unwrap();
        let (lines, (up, listening)) = (log.clone(), tokio::sync::oneshot::channel());
        std::thread::spawn(move || {
            let mut up = Some(up);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on ")
                    && let Some(up) = up.take()
                {
                    let address: String = rest.chars().take_while(|c| !c.is_whitespace() && *c != '"').collect();
                    let _nobody_waits = up.send(address);
                }
                lines.lock().unwrap().push(line);
            }
        });
        match tokio::time::timeout(PATIENCE, listening).await.unwrap() {
            Ok(address) => Ok(Self { child, log, address, started_within: begun.elapsed(), client: client() }),
            Err(_) => {
                child.wait().unwrap();
                Err(log.lock().unwrap().clone())
            }
        }
    }

    /// The process's memory from `/proc/PID/status`, in bytes: `VmRSS`, `VmHWM`.
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// All lines that it has logged.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path)).bearer_auth(ADMIN).timeout(PATIENCE)
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).header("content-type", "application/json").body(body.to_string())).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::PUT, path).header("content-type", "application/json").body(body.to_string())).await
    }

    /// Begins a backup, and returns its job's id.
    pub async fn begin_backup(&self) -> String {
        let begun = self.post("/api/backups/create?wait=false", &Value::Null).await;
        assert_eq!(begun.status, 202, "{begun:?}");
        begun.body["data"]["jobId"].as_str().unwrap().to_owned()
    }

    /// Begins an import, and returns its job's id.
    pub async fn begin_import(&self, name: &str) -> String {
        let begun = self.post("/api/backups/import?wait=false", &serde_json::json!({ "backupPath": name })).await;
        assert_eq!(begun.status, 202, "{begun:?}");
        begun.body["data"]["jobId"].as_str().unwrap().to_owned()
    }

    pub async fn job(&self, id: &str) -> Value {
        let job = self.get(&format!("/api/jobs/{id}")).await;
        assert_eq!(job.status, 200, "{job:?}");
        job.body["data"].clone()
    }

    /// Waits until a job meets a condition, and returns it.
    pub async fn job_when(&self, id: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let job = self.job(id).await;
            if is_so(&job) {
                return job;
            }
            assert!(begun.elapsed() < PATIENCE, "the job is not {what}: {job}\n{}", self.log().join("\n"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn ended(&self, id: &str) -> Value {
        self.job_when(id, "at its end", |job| !["queued", "running"].contains(&job["state"].as_str().unwrap())).await
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// `kill -9`; waits until it is gone.
    pub async fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.wait().await;
        self.log()
    }

    /// Sends SIGTERM, and waits for its exit code.
    pub async fn stop(mut self) -> (Option<i32>, Vec<String>) {
        self.signal("TERM");
        let code = self.wait().await;
        (code, self.log())
    }

    pub async fn wait(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "the service does not end:\n{}", self.log().join("\n"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _it_may_have_ended = self.child.kill();
        let _it_may_have_ended = self.child.wait();
    }
}

pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { status, headers, body }
}
