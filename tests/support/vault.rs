//! Backups and imports through the library, and what a server holds afterwards.

use bson::{Document, RawDocumentBuf, doc};
use bsonvault::context::Context;
use bsonvault::engine::backup::{self, BackupOptions};
use bsonvault::engine::import::{self, ImportOptions, ImportReport};
use bsonvault::error::Error;
use bsonvault::format::key;
use bsonvault::format::manifest::Manifest;
use bsonvault::mongo::{MongoUri, Role};
use bsonvault::repository::Repository;
use bsonvault::repository::catalog::{Backup, Catalog};
use futures::TryStreamExt as _;
use mongodb::{Client, Database};

use super::compare::{CompareOptions, compare};
use super::server::Server;

/// A place for backups, and how to bring them back.
pub struct Vault {
    pub directory: tempfile::TempDir,
    pub cx: Context,
}

impl Vault {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), cx: Context::default() }
    }

    pub async fn backup(&self, source: &Server, databases: &[&str]) -> Backup {
        let store = Repository::open(self.directory.path().to_str().unwrap()).unwrap();
        let uri = MongoUri::parse(Role::Source, &source.uri()).unwrap();
        let options = BackupOptions { filter: super::backups::of_databases(databases), ..BackupOptions::default() };
        let report = backup::run(&uri, &store, &options, &self.cx).await.unwrap();
        Catalog::new(store).find(report.name.as_str()).await.unwrap()
    }

    pub async fn import(&self, backup: &Backup, target: &str) -> Result<ImportReport, Error> {
        self.import_with(backup, target, None, &ImportOptions::default()).await
    }

    pub async fn run(&self, backup: &Backup, target: &str, options: &ImportOptions) -> Result<ImportReport, Error> {
        let target = MongoUri::parse(Role::Target, target).unwrap();
        import::run(backup, &target, None, options, &self.cx).await
    }

    pub async fn import_with(
        &self,
        backup: &Backup,
        target: &str,
        source: Option<&str>,
        options: &ImportOptions,
    ) -> Result<ImportReport, Error> {
        let target = MongoUri::parse(Role::Target, target).unwrap();
        let source = source.map(|source| MongoUri::parse(Role::Source, source).unwrap());
        let report = import::run(backup, &target, source.as_ref(), options, &self.cx).await?;
        assert!(report.collections.iter().all(|c| c.digest_matches), "{report:?}");
        assert_eq!(report.documents, backup.manifest.totals.documents);
        Ok(report)
    }
}

/// The backup with another manifest, which is valid in itself.
pub async fn with_manifest(backup: Backup, change: impl FnOnce(&mut Manifest)) -> Backup {
    let Backup { store, mut manifest } = backup;
    change(&mut manifest);
    let bytes = manifest.to_bytes().unwrap();
    let manifest = Manifest::from_bytes(&bytes).unwrap();
    store.put(key::MANIFEST, vec![bytes.into()]).await.unwrap();
    Backup { store, manifest }
}

pub async fn assert_same(a: &Client, b: &Client, options: CompareOptions) {
    let comparison = compare(a, b, options).await;
    assert_eq!(comparison.differences, Vec::<String>::new());
    assert!(comparison.namespaces > 0);
}

pub fn only(database: &str) -> CompareOptions {
    CompareOptions { databases: Some(vec![database.to_owned()]), ..CompareOptions::default() }
}

/// Everything a server holds, in a form that shows any change.
pub async fn snapshot(client: &Client) -> Vec<String> {
    let mut lines = Vec::new();
    for name in client.list_database_names().await.unwrap() {
        let database = client.database(&name);
        if ["admin", "config", "local"].contains(&name.as_str()) {
            continue;
        }
        let mut infos: Vec<Document> =
            database.run_cursor_command(doc! { "listCollections": 1 }).await.unwrap().try_collect().await.unwrap();
        infos.sort_by_key(|i| i.get_str("name").unwrap().to_owned());
        for info in infos {
            let collection = info.get_str("name").unwrap();
            lines.push(format!("{name} {info}"));
            lines.extend(documents(&database, collection).await.iter().map(|d| format!("{name}.{collection} {d:?}")));
        }
    }
    assert!(!lines.is_empty());
    lines
}

pub async fn documents(database: &Database, collection: &str) -> Vec<RawDocumentBuf> {
    let found = database.collection::<RawDocumentBuf>(collection).find(doc! {}).await.unwrap();
    found.try_collect().await.unwrap()
}

pub async fn insert(database: &Database, collection: &str, documents: impl IntoIterator<Item = Document>) {
    let documents: Vec<Document> = documents.into_iter().collect();
    for part in documents.chunks(5000) {
        database.collection::<Document>(collection).insert_many(part).await.unwrap();
    }
}

pub fn numbered(n: i32) -> impl Iterator<Item = Document> {
    (0..n).map(|i| doc! { "_id": i, "n": i % 7, "pad": "x".repeat(900) })
}
