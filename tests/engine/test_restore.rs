//! Test restores: their results, their record beside the backup, and that nothing stays in the
//! target, however they end.

use std::path::Path;
use std::time::Duration;

use bson::{Document, doc, rawdoc};
use bsonvault::context::Context;
use bsonvault::engine::test_restore::{self, TestRestoreOptions, TestRestoreReport};
use bsonvault::engine::verify::{self, VerifyOptions};
use bsonvault::error::{Error, ErrorKind};
use bsonvault::format::checks::{Check, CheckKind};
use bsonvault::format::key;
use bsonvault::format::manifest::RawValue;
use bsonvault::mongo::{MongoUri, Role};
use bsonvault::repository::catalog::Backup;
use mongodb::Client;

use crate::support::cli::{Cli, finish};
use crate::support::data::{insert, numbered, snapshot};
use crate::support::on_disk::OnDisk as _;
use crate::support::server::{Server, ServerOptions};
use crate::support::vault::{Vault, with_manifest};
use crate::support::zoo::{self, ZooOptions};

async fn run(backup: &Backup, target: &Server, options: &TestRestoreOptions) -> Result<TestRestoreReport, Error> {
    let uri = MongoUri::parse(Role::Target, &target.uri()).unwrap();
    test_restore::run(backup, &uri, None, options, &Context::default()).await
}

async fn last(backup: &Backup, kind: CheckKind) -> Option<Check> {
    backup.checks().await.of(kind).cloned()
}

/// The databases of test restores on a server.
async fn scratch(client: &Client) -> Vec<String> {
    let names = client.list_database_names().await.unwrap();
    names.into_iter().filter(|n| n.starts_with("bsonvault_drill_") && n != "bsonvault_drill_of_a_user").collect()
}

async fn until_scratch_appears(client: &Client) -> Vec<String> {
    loop {
        let found = scratch(client).await;
        if !found.is_empty() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The user data of a target.
async fn fill_users(client: &Client) {
    insert(&client.database("shop"), "orders", numbered(20)).await;
    insert(&client.database("bsonvault_drill_of_a_user"), "c", numbered(3)).await;
    insert(&client.database("~user"), "c", numbered(3)).await;
}

/// Delays each insert over [`slow_uri`] by this long, or not at all.
async fn slow_inserts(target: &Server, millis: Option<i32>) {
    let slow =
        doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": millis.unwrap_or(1), "appName": "slow" };
    target.fail_command(if millis.is_some() { "alwaysOn" } else { "off" }, slow).await;
}

fn slow_uri(target: &Server) -> String {
    format!("{}&appName=slow", target.uri())
}

fn damage(directory: &Path) {
    let segment = directory.join("d/c.00000.bson.zst");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
}

#[tokio::test]
async fn a_test_restore_of_everything_passes_leaves_nothing_and_is_listed() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    zoo::fill(&a, &ZooOptions { seed: 3, docs: 300, large: false, false_column: true }).await;
    let longest = "n".repeat(255 - 3);
    insert(&a.database("dd"), &longest, numbered(3)).await;
    fill_users(&b).await;
    let before = snapshot(&b).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let manifest = &backup.manifest;

    // A database in the path changes nothing.
    let uri = target.uri().replace("/?", "/shop?");
    let path = vault.directory.path().to_str().unwrap().to_owned();
    let cli = Cli::new().env("MONGO_URI_LOCAL", uri).env("BACKUP_PATH", &path);
    let name = manifest.name.as_str();
    assert_eq!(cli.json(&["list"]).await["backups"][0]["verified"]["state"], "never");
    let done = cli.json(&["verify", name, "--restore"]).await;
    assert_eq!((&done["restore"], &done["documents"]), (&true.into(), &manifest.totals.documents.into()));
    let names: Vec<&str> = done["collections"].as_array().unwrap().iter().map(|c| c["namespace"].as_str().unwrap()).collect();
    assert_eq!(names, manifest.collections.iter().map(|c| c.namespace().to_string()).collect::<Vec<_>>());
    assert!(done["collections"].as_array().unwrap().iter().all(|c| c["digestMatches"] == true));
    assert!(done["indexes"].as_u64().unwrap() > 10, "{done}");
    assert_eq!(snapshot(&b).await, before);

    // The result is beside the backup, but not part of it.
    let entry = cli.json(&["list"]).await["backups"][0]["verified"].clone();
    assert_eq!((&entry["state"], &entry["kind"]), (&"passed".into(), &"restore".into()));
    assert_eq!(entry["checks"][0]["milliseconds"], done["milliseconds"]);
    assert_eq!(entry["checks"][0]["serverVersion"], done["serverVersion"]);
    let verified = cli.json(&["verify", name]).await;
    assert_eq!(verified["notes"].as_array().map(Vec::len), Some(0), "{verified}");
    let directory = Path::new(&path).join(name);
    let sums = std::process::Command::new("sha256sum").args(["-c", "--quiet", "SHA256SUMS"]).current_dir(&directory).status();
    assert!(sums.unwrap().success());
    let text = cli.run(&["list"]).await.stdout;
    assert!(text.contains("passed just now (verify), test restore passed just now ("), "{text}");

    // It moves and vanishes with the directory, whatever its name.
    std::fs::rename(&directory, Path::new(&path).join("another")).unwrap();
    let shown = cli.json(&["show", "another"]).await;
    assert_eq!(shown["verified"]["checks"].as_array().map(Vec::len), Some(2), "{shown}");
    let text = cli.run(&["show", "another"]).await.stdout;
    assert!(text.contains("test restore: passed at ") && text.contains(", into MongoDB "), "{text}");
    let moved = bsonvault::repository::backend::Objects::open(&path).unwrap().below("another");
    moved.delete_all(key::MANIFEST).await.unwrap();
    assert!(!Path::new(&path).join("another").exists());
}

#[tokio::test]
async fn the_source_is_spared_unless_that_is_asked_for() {
    let source = Server::standalone().await;
    let client = source.client().await;
    insert(&client.database("a=b*"), "c=*", numbered(50)).await;
    client.database("a=b*").run_command(doc! { "create": "v", "viewOn": "c=*", "pipeline": [] }).await.unwrap();
    let before = snapshot(&client).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let error = run(&backup, &source, &TestRestoreOptions::default()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("the backup came from"), "{error}");
    assert_eq!(last(&backup, CheckKind::Restore).await, None);
    let report = run(&backup, &source, &TestRestoreOptions { allow_same: true, ..TestRestoreOptions::default() }).await.unwrap();
    assert_eq!(report.collections[0].namespace, "a=b*.c=*");
    assert_eq!(snapshot(&client).await, before);
}

#[tokio::test]
async fn a_damaged_backup_fails_and_that_stands_in_the_list() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    insert(&source.client().await.database("d"), "c", numbered(500)).await;
    let b = target.client().await;
    fill_users(&b).await;
    let before = snapshot(&b).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let path = vault.directory.path().to_str().unwrap().to_owned();
    let cli = Cli::new().env("MONGO_URI_LOCAL", target.uri()).env("BACKUP_PATH", &path);
    let name = backup.manifest.name.as_str();
    damage(&backup.store.directory());
    let output = cli.run(&["verify", name, "--restore", "--json"]).await;
    assert_eq!((output.code, &output.json()["error"]["kind"]), (Some(3), &"mismatch".into()), "{output:?}");
    assert_eq!(snapshot(&b).await, before);
    let check = last(&backup, CheckKind::Restore).await.unwrap();
    assert!(!check.passed && check.problem.unwrap().contains("d/c.00000.bson.zst"));
    let text = cli.run(&["list"]).await.stdout;
    assert!(text.contains("FAILED just now (test restore, "), "{text}");
    // An import reports this, too, and so does a plain verification.
    assert_eq!(cli.run(&["import", name, "--yes"]).await.code, Some(1));
    assert!(!last(&backup, CheckKind::Import).await.unwrap().passed);
    assert_eq!(cli.run(&["verify", name]).await.code, Some(3));
    assert!(!last(&backup, CheckKind::Verify).await.unwrap().passed);
    // A failure that says nothing about the backup is not a result.
    damage(&backup.store.directory());
    cli.json(&["import", name, "--yes"]).await;
    let nowhere = format!("mongodb://127.0.0.1:{}/?serverSelectionTimeoutMS=300", crate::support::server::free_port());
    assert_eq!(cli.run(&["verify", name, "--restore", "--target", &nowhere]).await.code, Some(1));
    let entry = cli.json(&["list"]).await["backups"][0]["verified"].clone();
    assert_eq!((&entry["state"], &entry["kind"]), (&"passed".into(), &"import".into()), "{entry}");
    // Neither is a partial one.
    let finished = last(&backup, CheckKind::Import).await.unwrap().finished;
    insert(&source.client().await.database("e"), "c", numbered(5)).await;
    let two = vault.backup(&source, &[]).await;
    cli.json(&["import", two.manifest.name.as_str(), "--yes", "--include", "d.*"]).await;
    assert_eq!(last(&two, CheckKind::Import).await, None);
    assert_eq!(last(&backup, CheckKind::Import).await.unwrap().finished, finished);
}

#[tokio::test]
async fn a_file_of_checks_that_cannot_be_used_is_no_failure() {
    let source = Server::standalone().await;
    insert(&source.client().await.database("d"), "c", numbered(50)).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let name = backup.manifest.name.as_str();
    let file = backup.store.directory().join(key::CHECKS);
    let cli = Cli::new().env("BACKUP_PATH", vault.directory.path().to_str().unwrap());
    let verify = async |deep| verify::run(&backup, &VerifyOptions { deep }, &Context::default()).await.unwrap();
    verify(true).await;
    let kept = std::fs::read_to_string(&file).unwrap();
    let id = backup.manifest.id.to_string();
    let foreign = kept.replace(&id, "00000000-0000-0000-0000-000000000000");
    for bad in ["", "{", &kept[..kept.len() - 5], &foreign, &"x".repeat(100_000)] {
        std::fs::write(&file, bad).unwrap();
        let output = cli.run(&["list", "--json"]).await;
        assert_eq!(output.json()["backups"][0]["verified"]["state"], "never");
        assert!(output.stderr.contains("are ignored: checks.json"), "{output:?}");
        assert_eq!(cli.run(&["verify", name]).await.code, Some(0));
        assert_eq!(cli.json(&["list"]).await["backups"][0]["verified"]["kind"], "verify");
    }
    // Nor one that cannot be written.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir_all(file.join("in the way")).unwrap();
    let output = cli.run(&["verify", name]).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stderr.contains("the result of the check could not be kept"), "{output:?}");
    std::fs::remove_dir_all(&file).unwrap();
    // Many at the same time: the file is complete, and from one of them.
    futures::future::join_all((0..20).map(|n| verify(n % 2 == 0))).await;
    assert!(backup.checks().await.verdict().unwrap().passed);
    // A backup that is gone meanwhile is not recreated.
    backup.store.delete_all(key::MANIFEST).await.unwrap();
    backup.keep(Check::ended(CheckKind::Verify, backup.manifest.created, 1, None)).await;
    assert!(!backup.store.directory().exists());
}

#[tokio::test]
async fn an_index_that_cannot_be_built_fails_it_and_nothing_stays() {
    let (source, target) = tokio::join!(Server::standalone(), Server::replica_set("drill"));
    let a = source.client().await.database("d");
    insert(&a, "c", numbered(50)).await;
    a.run_command(doc! { "createIndexes": "c", "indexes": [{ "key": { "n": 1 }, "name": "n" }] }).await.unwrap();
    let b = target.client().await;
    fill_users(&b).await;
    let before = snapshot(&b).await;
    let vault = Vault::new();
    let backup = with_manifest(vault.backup(&source, &[]).await, |manifest| {
        let unique = rawdoc! { "v": 2, "key": { "n": 1 }, "name": "n", "unique": true };
        manifest.collections[0].indexes[1] = RawValue::of(&unique);
    })
    .await;
    let error = run(&backup, &target, &TestRestoreOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Server, 1), "{error}");
    assert!(error.to_string().contains("d.c") && !error.to_string().contains("bsonvault_drill"), "{error}");
    assert_eq!(snapshot(&b).await, before);
    let check = last(&backup, CheckKind::Restore).await.unwrap();
    assert!(!check.passed && check.server_version.is_some() && check.problem == Some(error.to_string()), "{check:?}");
}

#[tokio::test]
async fn a_login_that_could_not_drop_them_again_is_refused_before_anything_is_made() {
    let auth = ServerOptions { auth: true, ..ServerOptions::default() };
    let (source, target) = tokio::join!(Server::standalone(), Server::start(auth));
    insert(&source.client().await.database("d"), "c", numbered(5)).await;
    let actions = [
        "find",
        "insert",
        "update",
        "remove",
        "createCollection",
        "dropCollection",
        "listCollections",
        "listIndexes",
        "collMod",
        "renameCollectionSameDB",
        "createIndex",
    ];
    let privilege = doc! { "resource": { "db": "", "collection": "" }, "actions": actions.to_vec() };
    let lists = doc! { "resource": { "cluster": true }, "actions": ["listDatabases"] };
    target.admin(doc! { "createRole": "most", "privileges": [privilege, lists], "roles": [] }).await.unwrap();
    target.admin(doc! { "createUser": "most", "pwd": "p", "roles": ["most"] }).await.unwrap();
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let uri = MongoUri::parse(Role::Target, &target.uri().replace("root:secret", "most:p")).unwrap();
    let options = TestRestoreOptions::default();
    let tried = test_restore::run(&backup, &uri, None, &options, &Context::default()).await;
    let error = tried.unwrap_err();
    assert!(error.kind() == ErrorKind::Denied && error.to_string().contains("dropDatabase on bsonvault_drill_"), "{error}");
    assert_eq!(scratch(&target.client().await).await, Vec::<String>::new());
    assert_eq!(last(&backup, CheckKind::Restore).await, None);
}

#[tokio::test]
async fn what_is_interrupted_is_dropped() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let a = source.client().await;
    for database in ["d", "e"] {
        insert(&a.database(database), "c", numbered(2000)).await;
    }
    let b = target.client().await;
    fill_users(&b).await;
    let before = snapshot(&b).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let path = vault.directory.path().to_str().unwrap().to_owned();
    let cli = Cli::new().env("MONGO_URI_LOCAL", slow_uri(&target)).env("BACKUP_PATH", &path);
    slow_inserts(&target, Some(2000)).await;
    let child = cli.spawn(&["verify", backup.manifest.name.as_str(), "--restore"]);
    until_scratch_appears(&b).await;
    let kill = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = finish(child).await;
    assert_eq!(output.code, Some(130), "{output:?}");
    assert_eq!(scratch(&b).await, Vec::<String>::new());
    assert_eq!(snapshot(&b).await, before);
    assert!(!backup.store.directory().join(key::CHECKS).exists());
}

#[tokio::test]
async fn a_dead_test_restore_is_tidied_up_after_and_a_live_one_is_not() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    insert(&source.client().await.database("d"), "c", numbered(3000)).await;
    let b = target.client().await;
    fill_users(&b).await;
    let before = snapshot(&b).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let path = vault.directory.path().to_str().unwrap().to_owned();
    let cli = Cli::new().env("MONGO_URI_LOCAL", slow_uri(&target)).env("BACKUP_PATH", &path);

    // One that is alive, and slow.
    slow_inserts(&target, Some(15_000)).await;
    let uri = MongoUri::parse(Role::Target, &slow_uri(&target)).unwrap();
    let (options, cx) = (TestRestoreOptions::default(), Context::default());
    let live = test_restore::run(&backup, &uri, None, &options, &cx);
    let others = async {
        let of_the_live_one = until_scratch_appears(&b).await;
        // One that is killed in the middle.
        let mut child = cli.spawn(&["verify", backup.manifest.name.as_str(), "--restore"]);
        while scratch(&b).await.len() < 2 {
            assert!(child.try_wait().unwrap().is_none(), "{:?}", finish(child).await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        child.kill().unwrap();
        finish(child).await;
        assert_eq!(scratch(&b).await.len(), 2);
        // And one that comes after it.
        run(&backup, &target, &TestRestoreOptions::default()).await.unwrap();
        assert_eq!(scratch(&b).await, of_the_live_one);
        slow_inserts(&target, None).await;
    };
    let (report, ()) = tokio::join!(live, others);
    assert_eq!(report.unwrap().documents, 3000);
    assert_eq!(snapshot(&b).await, before);
}

#[tokio::test]
async fn a_test_restore_that_lost_its_databases_ends_and_makes_nothing_anew() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    insert(&source.client().await.database("d"), "c", numbered(3000)).await;
    let b = target.client().await;
    fill_users(&b).await;
    let before = snapshot(&b).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    slow_inserts(&target, Some(6000)).await;
    let thief = async {
        let name = until_scratch_appears(&b).await.remove(0);
        b.database(&name).collection::<Document>("bsonvault.import").delete_one(doc! { "_id": "drill" }).await.unwrap();
    };
    let uri = MongoUri::parse(Role::Target, &slow_uri(&target)).unwrap();
    let (options, cx) = (TestRestoreOptions::default(), Context::default());
    let drill = test_restore::run(&backup, &uri, None, &options, &cx);
    let (result, ()) = tokio::join!(drill, thief);
    let error = result.unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("taken over"), "{error}");
    assert_eq!(last(&backup, CheckKind::Restore).await, None);
    assert_eq!(snapshot(&b).await, before);
}
