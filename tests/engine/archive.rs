//! The archive of an oplog, and restores of any time from it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bson::{Bson, Document, doc};
use bsonvault::context::Context;
use bsonvault::engine::archive::{self, ArchiveOptions, ArchiveReport};
use bsonvault::engine::backup::BackupOptions;
use bsonvault::engine::import::{self, ImportOptions, PointInTime};
use bsonvault::engine::moment::Moment;
use bsonvault::engine::oplog_search::{self, SearchOptions};
use bsonvault::engine::timeline::{self, Timeline};
use bsonvault::error::{Error, ErrorKind};
use bsonvault::format::manifest::{ClusterTime, ConsistencyKind};
use bsonvault::mongo::{MongoUri, Role};
use bsonvault::names::{Namespace, NamespacePattern};
use mongodb::{Client, Database};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::data::{content, documents, fill, insert};
use crate::support::server::{ReplicaSet, Server, ServerOptions, without_oplog};
use crate::support::vault::{Vault, at, divided, on};

/// An archive that is being written.
struct Archiving {
    stop: CancellationToken,
    work: JoinHandle<Result<ArchiveReport, Error>>,
}

impl Archiving {
    async fn stop(self) -> ArchiveReport {
        self.stop.cancel();
        self.work.await.unwrap().unwrap()
    }

    /// As if its process was killed: nothing of it is finished.
    async fn kill(self) {
        self.work.abort();
        let _killed = self.work.await;
    }
}

/// Short links, and no base by itself.
fn short() -> ArchiveOptions {
    ArchiveOptions { roll: Duration::from_secs(2), bases: None, ..ArchiveOptions::default() }
}

fn begin(vault: &Vault, uri: &str, options: &ArchiveOptions) -> Archiving {
    let (source, repository, options) = (MongoUri::parse(Role::Source, uri).unwrap(), vault.repository(), options.clone());
    let stop = CancellationToken::new();
    let cx = Context::default().cancelled_by(stop.clone());
    let work = async move {
        let (status, _) = archive::status();
        archive::run(&source, &repository, &options, &status, &cx).await
    };
    Archiving { stop, work: tokio::spawn(work) }
}

async fn look(vault: &Vault) -> Timeline {
    timeline::look(&vault.repository(), true, &vault.cx).await.unwrap()
}

/// Waits until the archive has everything up to this time.
async fn reached(vault: &Vault, time: ClusterTime) {
    for _ in 0..300 {
        let chains = vault.repository().chains().await.unwrap();
        for place in chains {
            let archiver = place.archiver().await.ok().flatten();
            if archiver.and_then(|archiver| archiver.position).is_some_and(|position| position >= time) {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the archive does not reach {time}");
}

/// Waits until the archive follows: a backup that is taken then can be its base.
async fn begun(vault: &Vault, client: &Client) {
    let time = run(&client.database("kept"), doc! { "insert": "begun", "documents": [{}] }).await;
    reached(vault, time).await;
}

/// Runs a command, and gives its operation time.
async fn run(database: &Database, command: Document) -> ClusterTime {
    let reply = database.run_command(command).await.unwrap();
    ClusterTime::from(reply.get_timestamp("operationTime").unwrap())
}

/// The contents of a database's collections, by their names.
async fn contents(database: &Database) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for name in database.list_collection_names().await.unwrap() {
        if !name.starts_with("system.") {
            let held = content(database, &name).await;
            found.insert(name, format!("{} {}", held.documents, held.digest()));
        }
    }
    found
}

async fn restore(vault: &Vault, target: &Server, base: Option<&str>, moment: &str) -> Result<import::ImportReport, Error> {
    restore_with(vault, target, base, moment, &ImportOptions::default()).await
}

async fn restore_with(
    vault: &Vault,
    target: &Server,
    base: Option<&str>,
    moment: &str,
    options: &ImportOptions,
) -> Result<import::ImportReport, Error> {
    let origin = PointInTime::open(&vault.repository(), base, Moment::parse(moment).unwrap(), &vault.cx).await?;
    let target = MongoUri::parse(Role::Target, &target.uri()).unwrap();
    import::run(&origin, &target, None, options, &vault.cx).await
}

fn text(time: ClusterTime) -> String {
    format!("{}:{}", time.t, time.i)
}

/// A history of a database: what it held at some times.
async fn history(client: &Client, name: &str, rounds: std::ops::Range<i32>) -> Vec<(ClusterTime, BTreeMap<String, String>)> {
    let database = client.database(name);
    let mut moments = Vec::new();
    for round in rounds {
        let id = round * 10;
        let time = match round % 8 {
            0 => {
                run(&database, doc! { "insert": "a", "documents": [{ "_id": id, "v": "x".repeat(50) }, { "_id": id + 1 }] }).await
            }
            1 => {
                run(&database, doc! { "update": "a", "updates": [{ "q": {}, "u": { "$inc": { "n": 1 } }, "multi": true }] }).await
            }
            2 => run(&database, doc! { "delete": "a", "deletes": [{ "q": { "_id": id - 20 }, "limit": 1 }] }).await,
            3 => {
                run(&database, doc! { "insert": format!("b{round}"), "documents": [{ "_id": id }] }).await;
                let from = format!("{name}.b{round}");
                run(
                    &client.database("admin"),
                    doc! { "renameCollection": from, "to": format!("{name}.moved"), "dropTarget": true },
                )
                .await
            }
            4 => {
                let mut session = client.start_session().await.unwrap();
                session.start_transaction().await.unwrap();
                for collection in ["a", "moved"] {
                    let target = database.collection::<Document>(collection);
                    target.insert_one(doc! { "_id": format!("t{round}") }).session(&mut session).await.unwrap();
                }
                session.commit_transaction().await.unwrap();
                run(&database, doc! { "insert": "a", "documents": [{ "_id": format!("u{round}") }] }).await
            }
            5 => {
                let index = doc! { "key": { format!("f{round}"): 1 }, "name": format!("f{round}") };
                run(&database, doc! { "createIndexes": "a", "indexes": [index] }).await
            }
            6 => run(&database, doc! { "insert": "c", "documents": [{ "_id": id }] }).await,
            _ => run(&database, doc! { "drop": "c" }).await,
        };
        moments.push((time, contents(&database).await));
        if round % 4 == 0 {
            tokio::time::sleep(Duration::from_millis(450)).await;
        }
    }
    moments
}

#[tokio::test]
async fn any_time_is_restored_across_links_pieces_restarts_and_kills() {
    let (server, target) = tokio::join!(Server::replica_set("any"), Server::standalone());
    let client = server.client().await;
    let vault = Vault::new();
    let archiving = begin(&vault, &server.uri(), &short());
    let mut moments = history(&client, "any", 0..16).await;
    archiving.kill().await;
    let archiving = begin(&vault, &server.uri(), &short());
    let base = vault.take(&server.uri(), &on("any")).await.unwrap();
    moments.extend(history(&client, "any", 16..40).await);
    archiving.kill().await;
    let archiving = begin(&vault, &server.uri(), &short());
    moments.extend(history(&client, "any", 40..56).await);
    let report = archiving.stop().await;
    let last = moments.last().unwrap().0;
    assert!(report.reached >= last && report.gaps == 0, "{report:?}");

    let found = look(&vault).await;
    let [summary] = &found.archives[..] else { panic!("{found:?}") };
    assert!(summary.links >= 3 && summary.pieces > 0 && summary.problems.is_empty() && !summary.running, "{summary:?}");
    assert_eq!((found.ranges.len(), &found.ranges[0].base), (1, &base.name.to_string()));
    assert!(found.ddl.iter().any(|ddl| ddl.command == "renameCollection") && !found.minutes.is_empty());

    // Every third of them, and those before the base are refused.
    let moment = base.manifest.consistency.cluster_time.unwrap();
    let back = target.client().await.database("any");
    let mut restored = 0;
    for (time, expected) in moments.iter().step_by(3) {
        let done = restore(&vault, &target, None, &text(*time)).await;
        if *time < moment {
            let error = done.unwrap_err();
            assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("before the first backup"), "{error}");
            continue;
        }
        assert_eq!(done.unwrap().backup, base.name.to_string());
        assert_eq!(contents(&back).await, *expected, "{time}");
        back.drop().await.unwrap();
        restored += 1;
    }
    assert!(restored >= 8, "{restored}");
    // Beyond its end, nothing is promised.
    let error = restore(&vault, &target, None, &text(ClusterTime { t: last.t + 3600, i: 1 })).await.unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("ends at"), "{error}");
    assert_eq!(contents(&back).await, BTreeMap::new());
}

#[tokio::test]
async fn what_an_operation_destroyed_comes_back_as_it_was_right_before() {
    let (server, target) = tokio::join!(Server::replica_set("undone"), Server::standalone());
    let client = server.client().await;
    let database = client.database("undone");
    let vault = Vault::new();
    fill(&database, "orders", (0..500).map(Bson::Int32)).await;
    let archiving = begin(&vault, &server.uri(), &ArchiveOptions::default());
    fill(&database, "items", (0..50).map(Bson::Int32)).await;
    // The archive takes a base by itself.
    for _ in 0..100 {
        if !look(&vault).await.ranges.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fill(&database, "orders", (500..600).map(Bson::Int32)).await;
    fill(&client.database("whole"), "one", (0..7).map(Bson::Int32)).await;
    let before = (contents(&database).await, contents(&client.database("whole")).await);
    run(&database, doc! { "drop": "items" }).await;
    run(&database, doc! { "delete": "orders", "deletes": [{ "q": { "_id": { "$gte": 100 } }, "limit": 0 }] }).await;
    run(&client.database("whole"), doc! { "dropDatabase": 1 }).await;
    fill(&database, "items", (900..901).map(Bson::Int32)).await;
    archiving.stop().await;

    let search = async |namespace: &str, op: &str| {
        let options = SearchOptions {
            namespaces: vec![NamespacePattern::parse(namespace).unwrap()],
            operations: vec![op.to_owned()],
            limit: 1000,
            ..SearchOptions::default()
        };
        oplog_search::search(&vault.repository(), &options, &vault.cx).await.unwrap().entries
    };
    let dropped = search("undone.items", "drop").await;
    assert_eq!((dropped.len(), dropped[0].documents), (1, Some(50)));
    let deleted = search("undone.orders", "delete").await;
    assert_eq!((deleted.len(), &deleted[0].id), (500, &Some(100.into())));
    let whole = search("whole*", "dropDatabase").await;

    let back = target.client().await;
    for (entry, namespace) in [(&dropped[0], "undone.items"), (&deleted[0], "undone.orders"), (&whole[0], "whole.one")] {
        let Moment::At(time) = Moment::parse(&entry.time).unwrap() else { panic!("{entry:?}") };
        let accident = oplog_search::accident(&vault.repository(), time, &vault.cx).await.unwrap();
        let (database, collection) = namespace.split_once('.').unwrap();
        assert_eq!(accident.namespaces, [Namespace::new(database, collection)], "{entry:?}");
        let filter = crate::support::vault::matching(&[namespace]);
        let options = ImportOptions { filter, ..ImportOptions::default() };
        let moment = format!("before:{}", text(accident.before));
        restore_with(&vault, &target, None, &moment, &options).await.unwrap();
    }
    assert_eq!((contents(&back.database("undone")).await, contents(&back.database("whole")).await), before);
    let error = oplog_search::accident(&vault.repository(), ClusterTime { t: 5, i: 1 }, &vault.cx).await.unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("no archive"), "{error}");
}

#[tokio::test]
async fn a_part_of_the_oplog_that_was_never_archived_is_told_and_never_bridged() {
    let small = ServerOptions {
        repl_set: Some("gap".to_owned()),
        // Only what a checkpoint holds is ever overwritten.
        extra_args: ["--oplogSize", "2", "--syncdelay", "1"].map(str::to_owned).into(),
        ..ServerOptions::default()
    };
    let (server, target) = tokio::join!(Server::start(small), Server::standalone());
    let client = server.client().await;
    let vault = Vault::new();
    let database = client.database("gap");
    let archiving = begin(&vault, &server.uri(), &short());
    fill(&database, "c", (0..100).map(Bson::Int32)).await;
    begun(&vault, &client).await;
    vault.take(&server.uri(), &on("gap")).await.unwrap();
    let near = run(&database, doc! { "insert": "c", "documents": [{ "_id": "near" }] }).await;
    let expected_near = contents(&database).await;
    let end = archiving.stop().await.reached;

    // The source's oplog is overwritten.
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    for round in 0.. {
        assert!(round < 400, "the oplog is never overwritten");
        let oldest = oplog.find_one(doc! {}).await.unwrap().unwrap();
        if ClusterTime::from(oldest.get_timestamp("ts").unwrap()) > end {
            break;
        }
        insert(&client.database("filler"), "f", (0..20).map(|_| doc! { "v": "x".repeat(100_000) })).await;
        client.database("filler").drop().await.unwrap();
    }

    // It is told at once, and a base is taken by itself.
    let started = std::time::Instant::now();
    let archiving = begin(&vault, &server.uri(), &ArchiveOptions { bases: ArchiveOptions::default().bases, ..short() });
    let found = loop {
        let found = look(&vault).await;
        if !found.gaps.is_empty() && found.ranges.len() == 2 {
            break found;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{found:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let [gap] = &found.gaps[..] else { panic!("{:?}", found.gaps) };
    assert!(gap.reason.contains("no longer reaches back") && gap.from.position == text(end), "{gap:?}");
    let far = run(&database, doc! { "insert": "c", "documents": [{ "_id": "far" }] }).await;
    let expected_far = contents(&database).await;
    // What was told stays so once it is part of links.
    let enough = found.archives[0].links + 2;
    let mut rolled = found.clone();
    for id in 0..100 {
        if rolled.archives[0].links >= enough {
            break;
        }
        run(&client.database("later"), doc! { "insert": "c", "documents": [{ "_id": id }] }).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        rolled = look(&vault).await;
    }
    let summary = &rolled.archives[0];
    assert!(summary.links >= enough && summary.problems.is_empty(), "{summary:?}");
    assert_eq!(rolled.gaps, found.gaps);
    let report = archiving.stop().await;
    assert_eq!(report.gaps, 1);

    let middle = ClusterTime { t: end.t, i: end.i + 1 };
    for moment in [text(middle), format!("before:{}", gap.to.position)] {
        let error = restore(&vault, &target, None, &moment).await.unwrap_err();
        let told = error.to_string();
        assert!(error.kind() == ErrorKind::Gap && told.contains("gap") && told.contains("no longer reaches back"), "{told}");
    }
    // A base before the gap leads to nothing after it.
    let error = restore(&vault, &target, Some(&found.ranges[0].base), &text(far)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Gap, "{error}");
    let back = target.client().await.database("gap");
    for (time, expected) in [(near, expected_near), (far, expected_far)] {
        restore(&vault, &target, None, &text(time)).await.unwrap();
        assert_eq!(contents(&back).await, expected, "{time}");
    }
}

#[tokio::test]
async fn a_source_that_was_put_back_to_an_older_state_is_not_followed_as_if_nothing_had_happened() {
    let mut server = Server::replica_set("older").await;
    let vault = Vault::new();
    let client = server.client().await;
    fill(&client.database("older"), "c", (0..10).map(Bson::Int32)).await;
    server.stop();
    let copy = tempfile::tempdir().unwrap();
    copy_all(&server.data(), copy.path());
    server.restart().await;
    server.wait_writable().await;
    let client = server.client().await;
    let archiving = begin(&vault, &server.uri(), &short());
    let time = run(&client.database("older"), doc! { "insert": "c", "documents": [{ "_id": "lost" }] }).await;
    reached(&vault, time).await;
    archiving.stop().await;

    server.stop();
    std::fs::remove_dir_all(server.data()).unwrap();
    copy_all(copy.path(), &server.data());
    server.restart().await;
    server.wait_writable().await;
    let client = server.client().await;
    let archiving = begin(&vault, &server.uri(), &short());
    let time = run(&client.database("older"), doc! { "insert": "c", "documents": [{ "_id": "new" }] }).await;
    reached(&vault, time).await;
    archiving.stop().await;
    let found = look(&vault).await;
    let [gap] = &found.gaps[..] else { panic!("{:?}", found.gaps) };
    assert!(gap.reason.contains("its history was changed"), "{gap:?}");
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        match path.is_dir() {
            true => copy_all(&path, &to.join(name)),
            false => drop(std::fs::copy(&path, to.join(name)).unwrap()),
        }
    }
}

#[tokio::test]
async fn one_process_archives_an_oplog_and_a_source_without_one_is_refused() {
    let (server, standalone) = tokio::join!(Server::replica_set("once"), Server::standalone());
    let vault = Vault::new();
    let archiving = begin(&vault, &server.uri(), &short());
    let time = run(&server.client().await.database("once"), doc! { "insert": "c", "documents": [{ "_id": 1 }] }).await;
    reached(&vault, time).await;
    let error = begin(&vault, &server.uri(), &short()).work.await.unwrap().unwrap_err();
    assert!(error.kind() == ErrorKind::Busy && error.to_string().contains("another archiver"), "{error}");
    archiving.stop().await;

    let error = begin(&vault, &standalone.uri(), &short()).work.await.unwrap().unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("standalone"), "{error}");
    // Other databases than before would be a hole in what the archive is of.
    let others = ArchiveOptions { databases: vec!["once".to_owned()], ..short() };
    let error = begin(&vault, &server.uri(), &others).work.await.unwrap().unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("all databases"), "{error}");
    let (_denied, uri) = without_oplog("blind", &[]).await;
    let error = begin(&Vault::new(), &uri, &short()).work.await.unwrap().unwrap_err();
    assert!(error.kind() == ErrorKind::Denied && error.hint_text().unwrap().contains("grant"), "{error}");
}

#[tokio::test]
async fn what_is_of_one_database_alone_restores_that_database() {
    let (server, target) = tokio::join!(Server::replica_set("part"), Server::standalone());
    let client = server.client().await;
    let vault = Vault::new();
    let options = ArchiveOptions { databases: vec!["kept".to_owned()], ..short() };
    let archiving = begin(&vault, &server.uri(), &options);
    fill(&client.database("kept"), "c", (0..10).map(Bson::Int32)).await;
    fill(&client.database("other"), "c", (0..10).map(Bson::Int32)).await;
    begun(&vault, &client).await;
    vault.take(&server.uri(), &on("kept")).await.unwrap();
    let time = run(&client.database("kept"), doc! { "insert": "c", "documents": [{ "_id": 11 }] }).await;
    fill(&client.database("other"), "d", (0..1000).map(Bson::Int32)).await;
    archiving.stop().await;
    let found = look(&vault).await;
    assert!(found.archives[0].entries < 100, "{found:?}");
    restore(&vault, &target, None, &text(time)).await.unwrap();
    let back = target.client().await;
    assert_eq!(documents(&back.database("kept"), "c").await.len(), 11);

    // A base of everything restores only what the archive is about: the rest would be older.
    let archiving = begin(&vault, &server.uri(), &options);
    let whole = vault.take(&server.uri(), &BackupOptions::default()).await.unwrap();
    let time = run(&client.database("kept"), doc! { "insert": "c", "documents": [{ "_id": 12 }] }).await;
    archiving.stop().await;
    let report = restore(&vault, &target, Some(whole.name.as_str()), &text(time)).await.unwrap();
    assert!(report.collections.iter().all(|c| c.namespace.starts_with("kept.")), "{report:?}");
    assert_eq!(back.database("other").list_collection_names().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_backup_takes_its_slice_from_the_archive_that_is_written_beside_it() {
    let (server, target) = tokio::join!(Server::replica_set("beside"), Server::standalone());
    let client = server.client().await;
    let database = client.database("beside");
    fill(&database, "c", (0..500).map(Bson::Int32)).await;
    run(&database, doc! { "create": "capped", "capped": true, "size": 100_000 }).await;
    fill(&database, "capped", (0..10).map(Bson::Int32)).await;
    let vault = Vault::new();
    let archiving = begin(&vault, &server.uri(), &short());
    let time = run(&database, doc! { "insert": "c", "documents": [{ "_id": "first" }] }).await;
    reached(&vault, time).await;
    // A capped collection that is written to meanwhile makes the slice necessary.
    let meanwhile = async {
        fill(&database, "capped", (10..20).map(Bson::Int32)).await;
        fill(&database, "c", (600..700).map(Bson::Int32)).await;
    };
    let options = divided("beside", u64::MAX);
    server.admin(doc! { "setParameter": 1, "logComponentVerbosity": { "command": { "verbosity": 1 } } }).await.unwrap();
    let report = at((&server, &server.uri()), ("find", "beside.capped"), &vault, &options, meanwhile).await.unwrap();
    assert_eq!(report.manifest.consistency.kind, ConsistencyKind::Oplog);
    let expected = contents(&database).await;
    archiving.stop().await;
    // A slice leaves out no-ops at the source. Only the archive, which does not, has read it.
    let log = server.log();
    let reads = |of_a_slice: bool| {
        let is_read = |line: &&str| line.contains(r#""find":"oplog.rs""#) && line.contains(r#""$gte""#);
        log.lines().filter(is_read).filter(|line| line.contains(r#""$ne":"n""#) == of_a_slice).count()
    };
    assert!(reads(false) > 0 && reads(true) == 0, "{} and {}", reads(false), reads(true));
    let backup = vault.sound(&report.name).await;
    vault.import(&backup, &target.uri()).await.unwrap();
    assert_eq!(contents(&target.client().await.database("beside")).await, expected);
}

#[tokio::test]
async fn a_primary_that_is_killed_costs_nothing() {
    let (mut cluster, target) = tokio::join!(ReplicaSet::start(3), Server::standalone());
    let vault = Vault::new();
    let client = cluster.client().await;
    let majority = doc! { "w": "majority" };
    let database = client.database("killed");
    let archiving = begin(&vault, &cluster.uri(), &short());
    let write = async |id: i32| {
        let command = doc! { "insert": "c", "documents": [{ "_id": id }], "writeConcern": majority.clone() };
        for _ in 0..100 {
            match database.run_command(command.clone()).await {
                Ok(reply) => return ClusterTime::from(reply.get_timestamp("operationTime").unwrap()),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        panic!("no primary");
    };
    reached(&vault, write(0).await).await;
    vault.take(&cluster.uri(), &on("killed")).await.unwrap();
    for id in 1..20 {
        write(id).await;
    }
    let primary = cluster.primary().await;
    cluster.members[primary].kill();
    let mut last = ClusterTime::default();
    for id in 20..40 {
        last = write(id).await;
    }
    reached(&vault, last).await;
    assert_eq!(archiving.stop().await.gaps, 0);
    restore(&vault, &target, None, &text(last)).await.unwrap();
    let back = target.client().await;
    assert_eq!(documents(&back.database("killed"), "c").await.len(), 40);
}

#[tokio::test]
async fn a_login_that_may_only_take_backups_may_archive_too() {
    let options = ServerOptions { repl_set: Some("few".to_owned()), auth: true, ..ServerOptions::default() };
    let (server, target) = tokio::join!(Server::start(options), Server::standalone());
    let user = doc! { "createUser": "keeper", "pwd": "secret", "roles": [{ "role": "backup", "db": "admin" }] };
    server.admin(user).await.unwrap();
    let uri = server.uri().replace("root:", "keeper:");
    let client = server.client().await;
    let vault = Vault::new();
    fill(&client.database("few"), "c", (0..10).map(Bson::Int32)).await;
    let archiving = begin(&vault, &uri, &short());
    begun(&vault, &client).await;
    vault.take(&uri, &on("few")).await.unwrap();
    let time = run(&client.database("few"), doc! { "insert": "c", "documents": [{ "_id": 10 }] }).await;
    archiving.stop().await;
    restore(&vault, &target, None, &text(time)).await.unwrap();
    assert_eq!(documents(&target.client().await.database("few"), "c").await.len(), 11);
}

#[tokio::test]
async fn links_out_of_the_window_go_while_the_archive_is_written_and_it_goes_on() {
    let (server, target) = tokio::join!(Server::replica_set("window"), Server::standalone());
    let client = server.client().await;
    let database = client.database("window");
    let vault = Vault::new();
    let keep = Some(chrono::TimeDelta::seconds(5));
    let archiving = begin(&vault, &server.uri(), &ArchiveOptions { keep, ..short() });
    begun(&vault, &client).await;
    let mut time = ClusterTime::default();
    for id in 0..70 {
        time = run(&database, doc! { "insert": "c", "documents": [{ "_id": id }] }).await;
        if id % 20 == 10 {
            vault.take(&server.uri(), &on("window")).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    reached(&vault, time).await;
    let report = archiving.stop().await;
    assert_eq!(report.gaps, 0);
    let found = look(&vault).await;
    let [summary] = &found.archives[..] else { panic!("{found:?}") };
    // Of about nine links, those stay that the window and its first base need; the rest is rolled.
    assert!((1..=6).contains(&summary.links) && summary.pieces < 12 && summary.problems.is_empty(), "{summary:?}");
    restore(&vault, &target, None, &text(time)).await.unwrap();
    assert_eq!(documents(&target.client().await.database("window"), "c").await.len(), 70);
}
