//! Backups by the engine into a directory that is gone afterwards, of sources that change at a chosen moment.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bson::{Bson, Document, RawDocumentBuf, doc};
use bsonvault::context::Context;
use bsonvault::engine::Tuning;
use bsonvault::engine::backup::{self, BackupOptions, BackupReport};
use bsonvault::engine::verify::{self, VerifyOptions};
use bsonvault::error::Error;
use bsonvault::format::digest::Content;
use bsonvault::mongo::{MongoUri, Role};
use bsonvault::names::NamespaceFilter;
use bsonvault::repository::Repository;
use bsonvault::repository::catalog::Catalog;
use futures::TryStreamExt as _;
use mongodb::Database;

use super::server::{Server, ServerOptions};

/// A place for backups, and how to take one.
pub struct Vault {
    pub directory: tempfile::TempDir,
    pub cx: Context,
}

impl Vault {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), cx: Context::default() }
    }

    pub fn store(&self) -> Repository {
        Repository::open(self.directory.path().to_str().unwrap()).unwrap()
    }

    pub async fn backup(&self, uri: &str, options: &BackupOptions) -> Result<BackupReport, Error> {
        let uri = MongoUri::parse(Role::Source, uri).unwrap();
        backup::run(&uri, &self.store(), options, &self.cx).await
    }

    /// The documents' digest of each collection, after the backup was found sound to the last document.
    pub async fn contents(&self, report: &BackupReport) -> BTreeMap<String, Content> {
        let backup = Catalog::new(self.store()).find(report.name.as_str()).await.unwrap();
        let verified = verify::run(&backup, &VerifyOptions { deep: true }, &self.cx).await.unwrap();
        assert!(verified.is_sound(), "{:?}", verified.problems);
        backup.manifest.collections.iter().map(|c| (c.namespace().to_string(), c.content())).collect()
    }

    pub fn assert_nothing_left(&self) {
        let left: Vec<_> = walk(self.directory.path());
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

pub fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// What these patterns let through.
pub fn filter(include: &[&str], exclude: &[&str]) -> NamespaceFilter {
    NamespaceFilter::parse(&[], &texts(include), &texts(exclude)).unwrap()
}

/// What any of these patterns matches.
pub fn matching(include: &[&str]) -> NamespaceFilter {
    filter(include, &[])
}

/// All but what any of these patterns matches.
pub fn without(exclude: &[&str]) -> NamespaceFilter {
    filter(&[], exclude)
}

/// All of these databases.
pub fn of_databases(databases: &[&str]) -> NamespaceFilter {
    NamespaceFilter::parse(&texts(databases), &[], &[]).unwrap()
}

pub fn on(database: &str) -> BackupOptions {
    BackupOptions { filter: of_databases(&[database]), ..BackupOptions::default() }
}

/// Small ranges, so that small collections are divided.
pub fn divided(database: &str, range_bytes: u64) -> BackupOptions {
    let tuning = Tuning { readers: Some(3), range_bytes: Some(range_bytes), ..Tuning::default() };
    BackupOptions { tuning, ..on(database) }
}

/// What a plain scan of a collection gives.
pub async fn content(database: &Database, collection: &str) -> Content {
    let mut content = Content::default();
    let mut cursor = database.collection::<RawDocumentBuf>(collection).find(doc! {}).await.unwrap();
    while let Some(document) = cursor.try_next().await.unwrap() {
        content.add(document.as_bytes());
    }
    content
}

pub async fn fill(database: &Database, collection: &str, ids: impl IntoIterator<Item = Bson>) {
    let documents: Vec<Document> = ids.into_iter().map(|id| doc! { "_id": id, "pad": "x".repeat(60) }).collect();
    database.collection::<Document>(collection).insert_many(documents).await.unwrap();
}

/// `n` documents of about 1,000 bytes with ascending numbers.
pub async fn fill_large(database: &Database, collection: &str, n: i32) {
    for part in 0..n / 1000 {
        let documents: Vec<Document> = (0..1000).map(|i| doc! { "_id": part * 1000 + i, "pad": "x".repeat(980) }).collect();
        database.collection::<Document>(collection).insert_many(documents).await.unwrap();
    }
}

/// Takes a backup by this URI, runs `meanwhile` at the moment when a command on this namespace is held up for the first time, for four seconds, and
/// gives the backup's result.
pub async fn at<F: Future<Output = ()>>(
    deployment: (&Server, &str),
    moment: (&str, &str),
    vault: &Vault,
    options: &BackupOptions,
    meanwhile: F,
) -> Result<BackupReport, Error> {
    at_for(Duration::from_secs(4), deployment, moment, vault, options, meanwhile).await
}

/// The same where `meanwhile` may take longer.
pub async fn at_for<F: Future<Output = ()>>(
    held: Duration,
    (server, uri): (&Server, &str),
    (command, namespace): (&str, &str),
    vault: &Vault,
    options: &BackupOptions,
    meanwhile: F,
) -> Result<BackupReport, Error> {
    let milliseconds = i64::try_from(held.as_millis()).unwrap();
    let entered = server
        .admin(doc! {
            "configureFailPoint": "failCommand", "mode": { "times": 1 },
            "data": { "failCommands": [command], "namespace": namespace, "blockConnection": true, "blockTimeMS": milliseconds },
        })
        .await
        .unwrap();
    let before = entries(&entered);
    let backup = vault.backup(uri, options);
    let change = async {
        server.admin(doc! { "waitForFailPoint": "failCommand", "timesEntered": before + 1, "maxTimeMS": 30_000 }).await.unwrap();
        let begin = Instant::now();
        meanwhile.await;
        assert!(begin.elapsed() < held, "what was to happen meanwhile took {:?}: this machine is too slow", begin.elapsed());
    };
    let (result, ()) = tokio::join!(backup, change);
    server.admin(doc! { "configureFailPoint": "failCommand", "mode": "off" }).await.unwrap();
    result
}

/// How often a fail point was entered, as its own reply says.
pub fn entries(reply: &Document) -> i64 {
    reply.get_i32("count").map_or_else(|_| reply.get_i64("count").unwrap(), i64::from)
}

/// A replica set of one, and the URI of a login that may read all of it but the oplog.
pub async fn without_oplog(name: &str, parameters: &[(&str, &str)]) -> (Server, String) {
    let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = ServerOptions { repl_set: Some(name.to_owned()), auth: true, parameters, ..ServerOptions::default() };
    let server = Server::start(options).await;
    let role = doc! { "createRole": "allButOplog", "roles": ["readAnyDatabase"], "privileges": [
        { "resource": { "cluster": true }, "actions": ["getParameter"] },
    ] };
    server.admin(role).await.unwrap();
    server.admin(doc! { "createUser": "reader", "pwd": "p", "roles": ["allButOplog"] }).await.unwrap();
    let uri = format!("mongodb://reader:p@{}/?directConnection=true&authSource=admin", server.host());
    (server, uri)
}
