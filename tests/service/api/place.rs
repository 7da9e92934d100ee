//! A service in its own directory, with its web server as the program builds it, and a client. As
//! in the program, the engine's runtime is separate from the one that answers requests.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Mutex;

use bsonvault::api::{self, Access};
use bsonvault::config::{Config, Flags};
use bsonvault::format::digest::Sha256Hex;
use bsonvault::service::MongoBackupService;
use rocket::figment::Figment;
use rocket::http::{Header, Method};
use rocket::local::asynchronous::Client;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A token that may do everything.
pub(crate) const ADMIN: &str = "an-admin-token";
/// A token that may only read.
pub(crate) const READER: &str = "a-reading-token";
pub(crate) const DOWNLOADER: &str = "a-downloading-token";

pub(crate) struct Place {
    pub(crate) directory: TempDir,
    pub(crate) service: MongoBackupService,
    pub(crate) client: Client,
    contract: Value,
    pub(crate) seen: Mutex<BTreeSet<(String, String, u16)>>,
    engine: Option<Runtime>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
}

/// A request.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) token: Option<&'a str>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) remote: Option<&'a str>,
    pub(crate) body: Option<String>,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(method: Method, path: &'a str) -> Self {
        Self { method, path, token: Some(ADMIN), headers: Vec::new(), remote: None, body: None }
    }

    pub(crate) fn token(self, token: Option<&'a str>) -> Self {
        Self { token, ..self }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn from(self, remote: &'a str) -> Self {
        Self { remote: Some(remote), ..self }
    }

    pub(crate) fn body(self, body: impl ToString) -> Self {
        Self { body: Some(body.to_string()), ..self }
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("not JSON: {e}: {self:?}"))
    }

    /// The data of a successful call.
    pub(crate) fn data(&self) -> Value {
        let body = self.json();
        assert_eq!(body["success"], true, "{self:?}");
        body["data"].clone()
    }

    /// Status, kind and message of a failure. Its body must be complete, and never names a flag.
    pub(crate) fn failure(&self) -> (u16, String, String) {
        let body = self.json();
        // A service that is not ready also sends its state.
        let fields = if body["data"]["ready"].is_boolean() { 4 } else { 3 };
        assert_eq!((&body["success"], body.as_object().unwrap().len()), (&Value::Bool(false), fields), "{self:?}");
        assert_eq!(body["error"]["requestId"].as_str(), self.header("X-Request-Id"), "{self:?}");
        assert!(self.header("X-Request-Id").is_some(), "{self:?}");
        assert!(!self.text.contains(" --") && !self.text.contains("`--"), "{self:?}");
        (self.status, body["error"]["kind"].as_str().unwrap().to_owned(), body["message"].as_str().unwrap().to_owned())
    }
}

pub(crate) fn access() -> Access {
    let hash = |token: &str| -> [u8; 32] {
        let text = Sha256Hex::of(token.as_bytes());
        std::array::from_fn(|i| u8::from_str_radix(&text.as_str()[2 * i..2 * i + 2], 16).unwrap())
    };
    Access { admin: vec![hash("another"), hash(ADMIN)], read: vec![hash(READER)], download: vec![hash(DOWNLOADER)] }
}

pub(crate) fn config(directory: &Path, environment: &[(&str, &str)]) -> Config {
    let path = directory.join("backups");
    let state = directory.join("state.redb");
    let given = [("BACKUP_PATH", path.to_str().unwrap()), ("BACKUP_STATE", state.to_str().unwrap())];
    let environment = given.iter().chain(environment).map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Config::load(directory, environment, &Flags::default()).unwrap()
}

impl Place {
    /// Without any MongoDB.
    pub(crate) async fn new() -> Self {
        Self::with(&[], Figment::new()).await
    }

    /// With these environment variables and this Rocket configuration.
    pub(crate) async fn with(environment: &[(&str, &str)], rocket: Figment) -> Self {
        Self::open(tempfile::tempdir().unwrap(), environment, rocket).await
    }

    pub(crate) async fn open(directory: TempDir, environment: &[(&str, &str)], rocket: Figment) -> Self {
        let config = config(directory.path(), environment);
        let engine = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let service = engine.spawn(MongoBackupService::open(config)).await.unwrap().unwrap();
        let rocket = api::rocket(service.clone(), rocket, access()).unwrap();
        let client = Client::untracked(rocket).await.unwrap();
        let contract = serde_json::to_value(api::openapi()).unwrap();
        Self { directory, service, client, contract, seen: Mutex::default(), engine: Some(engine) }
    }

    /// The directory of the backups.
    pub(crate) fn backups(&self) -> std::path::PathBuf {
        self.directory.path().join("backups")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Ask::new(Method::Get, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl ToString) -> Answer {
        self.ask(Ask::new(Method::Post, path).body(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: impl ToString) -> Answer {
        self.ask(Ask::new(Method::Put, path).body(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(Ask::new(Method::Delete, path)).await
    }

    /// Sends a request, and checks the response against the description of the interface.
    pub(crate) async fn ask(&self, ask: Ask<'_>) -> Answer {
        let mut request = self.client.req(ask.method, ask.path.to_owned());
        if let Some(token) = ask.token {
            request = request.header(Header::new("Authorization", format!("Bearer {token}")));
        }
        for (name, value) in ask.headers {
            request = request.header(Header::new(name, value));
        }
        if let Some(remote) = ask.remote {
            request = request.remote(format!("{remote}:1234").parse().unwrap());
        }
        if let Some(body) = &ask.body {
            request = request.body(body).header(rocket::http::ContentType::JSON);
        }
        let response = request.dispatch().await;
        let status = response.status().code;
        let headers = response.headers().iter().map(|h| (h.name().to_string(), h.value().to_owned())).collect();
        let text = response.into_string().await.unwrap_or_default();
        let answer = Answer { status, headers, text };
        self.compare_with_contract(ask.method, ask.path, &answer);
        answer
    }

    fn compare_with_contract(&self, method: Method, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap();
        let asked: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        let paths = self.contract["paths"].as_object().unwrap();
        let fits = |template: &str| {
            let parts: Vec<&str> = template.split('/').filter(|s| !s.is_empty()).collect();
            let same = |(part, asked): (&&str, &&str)| part.starts_with('{') || part == asked;
            parts.len() == asked.len() && parts.iter().zip(&asked).all(same)
        };
        // Paths without parameters first, as Rocket routes them.
        let mut templates: Vec<&String> = paths.keys().filter(|template| fits(template)).collect();
        templates.sort_by_key(|template| template.matches('{').count());
        let name = method.as_str().to_lowercase();
        let found = templates.iter().find_map(|template| Some((template, paths[*template].get(&name)?)));
        let Some((template, operation)) = found else { return };
        let documented = operation["responses"].get(answer.status.to_string());
        assert!(documented.is_some(), "{method} {template} does not say that it gives {}: {answer:?}", answer.status);
        self.seen.lock().unwrap().insert((name, (*template).clone(), answer.status));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A runtime may not be dropped in an async context.
        if let Some(engine) = self.engine.take() {
            engine.shutdown_background();
        }
    }
}

/// Every call of the interface: its method, and a path that fits it.
pub(crate) fn routes(client: &Client) -> Vec<(Method, String)> {
    let fill = |path: &str| {
        let filled = path.split('/').map(|part| match part {
            "<name>" => "atlas-backup-2026-11-22T21-45-00-000Z",
            "<id>" => "01993b2c-6b7e-7cc3-98c4-dc0c0c07398f",
            "<path..>" => "index.html",
            part => part,
        });
        filled.collect::<Vec<_>>().join("/")
    };
    client.rocket().routes().map(|route| (route.method, fill(route.uri.path()))).collect()
}
