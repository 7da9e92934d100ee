//! Backups and imports through the library, in a temporary directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bson::doc;
use bsonvault::context::Context;
use bsonvault::context::cpu::CpuPool;
use bsonvault::engine::Tuning;
use bsonvault::engine::backup::{self, BackupOptions, BackupReport};
use bsonvault::engine::import::{self, ImportOptions, ImportReport};
use bsonvault::engine::verify::{self, VerifyOptions, VerifyReport};
use bsonvault::error::Error;
use bsonvault::format::digest::Content;
use bsonvault::format::key;
use bsonvault::format::manifest::Manifest;
use bsonvault::mongo::{MongoUri, Role};
use bsonvault::names::{BackupName, NamespaceFilter};
use bsonvault::repository::Repository;
use bsonvault::repository::backend::Objects;
use bsonvault::repository::catalog::{Backup, Catalog};

use super::files::inside;
use super::server::Server;

/// A directory for backups, with methods to take and restore them.
pub struct Vault {
    pub directory: tempfile::TempDir,
    pub cx: Context,
}

impl Vault {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), cx: Context::default() }
    }

    pub fn repository(&self) -> Repository {
        repository(self.directory.path())
    }

    /// Takes a backup of the source of a connection string.
    pub async fn take(&self, source: &str, options: &BackupOptions) -> Result<BackupReport, Error> {
        let source = MongoUri::parse(Role::Source, source).unwrap();
        backup::run(&source, &self.repository(), options, &self.cx).await
    }

    /// Takes a backup of some databases, or of all of them if none is named.
    pub async fn backup(&self, source: &Server, databases: &[&str]) -> Backup {
        let options = BackupOptions { filter: of_databases(databases), ..BackupOptions::default() };
        let report = self.take(&source.uri(), &options).await.unwrap();
        self.find(&report.name).await
    }

    pub async fn find(&self, name: &BackupName) -> Backup {
        catalog(self.directory.path()).find(name.as_str()).await.unwrap()
    }

    /// The backup, after it was deeply verified.
    pub async fn sound(&self, name: &BackupName) -> Backup {
        let backup = self.find(name).await;
        let report = verified(&backup, true).await;
        assert!(report.is_sound(), "{:?}", report.problems);
        backup
    }

    /// The content digest of each collection of an intact backup.
    pub async fn contents(&self, report: &BackupReport) -> BTreeMap<String, Content> {
        let backup = self.sound(&report.name).await;
        backup.manifest.collections.iter().map(|c| (c.namespace().to_string(), c.content())).collect()
    }

    pub fn assert_nothing_left(&self) {
        assert_eq!(inside(self.directory.path()), Vec::<std::path::PathBuf>::new(), "left behind");
    }

    /// Runs an import with these options.
    pub async fn run(&self, backup: &Backup, target: &str, options: &ImportOptions) -> Result<ImportReport, Error> {
        let target = MongoUri::parse(Role::Target, target).unwrap();
        import::run(backup, &target, None, options, &self.cx).await
    }

    /// Imports all of it, and checks that everything came.
    pub async fn import(&self, backup: &Backup, target: &str) -> Result<ImportReport, Error> {
        self.import_with(backup, target, None, &ImportOptions::default()).await
    }

    /// The same with options that skip nothing, and with a source that must not be the target.
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
        // The replay adds and removes documents.
        if backup.manifest.oplog.is_none() {
            assert_eq!(report.documents, backup.manifest.totals.documents);
        }
        Ok(report)
    }
}

pub fn repository(root: &Path) -> Repository {
    Repository::open(root.to_str().unwrap()).unwrap()
}

/// The objects of a directory: of a repository or of one backup.
pub fn store(root: &Path) -> Objects {
    Objects::open(root.to_str().unwrap()).unwrap()
}

pub fn catalog(root: &Path) -> Catalog {
    Catalog::new(repository(root), &CpuPool::of_this_machine())
}

pub async fn verified(backup: &Backup, deep: bool) -> VerifyReport {
    verify::prove(backup, &VerifyOptions { deep }, &Context::default()).await.unwrap()
}

/// The backup with a different, valid manifest.
pub async fn with_manifest(backup: Backup, change: impl FnOnce(&mut Manifest)) -> Backup {
    let Backup { store, mut manifest } = backup;
    change(&mut manifest);
    let bytes = manifest.to_bytes().unwrap();
    let manifest = Manifest::from_bytes(&bytes).unwrap();
    store.put(key::MANIFEST, vec![bytes.into()]).await.unwrap();
    Backup { store, manifest }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// A filter with these patterns.
pub fn filter(include: &[&str], exclude: &[&str]) -> NamespaceFilter {
    NamespaceFilter::parse(&[], &texts(include), &texts(exclude)).unwrap()
}

/// A filter for namespaces that match any of these patterns.
pub fn matching(include: &[&str]) -> NamespaceFilter {
    filter(include, &[])
}

/// A filter for namespaces that match none of these patterns.
pub fn without(exclude: &[&str]) -> NamespaceFilter {
    filter(&[], exclude)
}

/// A filter for these databases.
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

/// Takes a backup of this URI. Delays the first command on this namespace for four seconds, runs
/// `meanwhile` then, and returns the backup's result.
pub async fn at<F: Future<Output = ()>>(
    deployment: (&Server, &str),
    moment: (&str, &str),
    vault: &Vault,
    options: &BackupOptions,
    meanwhile: F,
) -> Result<BackupReport, Error> {
    at_for(Duration::from_secs(4), deployment, moment, vault, options, meanwhile).await
}

/// The same, but `meanwhile` may take longer.
pub async fn at_for<F: Future<Output = ()>>(
    held: Duration,
    (server, uri): (&Server, &str),
    (command, namespace): (&str, &str),
    vault: &Vault,
    options: &BackupOptions,
    meanwhile: F,
) -> Result<BackupReport, Error> {
    let milliseconds = i64::try_from(held.as_millis()).unwrap();
    let hold = doc! { "failCommands": [command], "namespace": namespace, "blockConnection": true, "blockTimeMS": milliseconds };
    let before = server.fail_command(doc! { "times": 1 }, hold).await;
    let backup = vault.take(uri, options);
    let change = async {
        server.admin(doc! { "waitForFailPoint": "failCommand", "timesEntered": before + 1, "maxTimeMS": 30_000 }).await.unwrap();
        let begin = Instant::now();
        meanwhile.await;
        assert!(begin.elapsed() < held, "what was to happen meanwhile took {:?}: this machine is too slow", begin.elapsed());
    };
    let (result, ()) = tokio::join!(backup, change);
    server.fail_no_more().await;
    result
}
