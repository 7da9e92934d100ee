//! A target that follows a source.

mod first_copy;
mod large;

use std::time::Duration;

use bson::{Document, doc};
use bsonvault::context::Context;
use bsonvault::engine::archive::{self, ArchiveOptions, ArchiveState};
use bsonvault::engine::import::{ImportMode, ImportOptions};
use bsonvault::engine::sync::{self, StatusSender, SyncOptions, SyncReport, SyncState, SyncStatus};
use bsonvault::error::{Error, ErrorKind};
use bsonvault::format::manifest::{ClusterTime, OplogPosition};
use bsonvault::mongo::connect::ConnectOptions;
use bsonvault::mongo::{Connection, MongoUri, Role};
use bsonvault::names::{Namespace, NamespaceRename};
use bsonvault::oplog::apply::gather::{Gatherer, Limits, Stop};
use bsonvault::oplog::apply::moment::{self, Manner, Outcome, Prepared, Writes};
use bsonvault::oplog::apply::{Destination, Holds};
use bsonvault::oplog::catalog::CatalogTracker;
use bsonvault::sink::Target;
use bsonvault::sink::synced::{Held, Move, Synced, SyncedState};
use mongodb::{Client, Database};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::bank::{self, Bank, BankOptions};
use crate::support::compare::CompareOptions;
use crate::support::data::{assert_same, content, fill, insert};
use crate::support::server::{Server, ServerOptions};
use crate::support::vault::{Vault, filter};
use crate::support::zoo::{self, ZooOptions};

/// A sync that runs.
pub(crate) struct Following {
    stop: CancellationToken,
    pub(crate) status: watch::Receiver<SyncStatus>,
    work: JoinHandle<Result<SyncReport, Error>>,
}

impl Following {
    /// Waits until everything up to this time is in the target.
    pub(crate) async fn reaches(&mut self, time: ClusterTime) {
        self.until(|status| status.at.is_some_and(|at| at >= time)).await;
    }

    pub(crate) async fn until(&mut self, is_met: impl Fn(&SyncStatus) -> bool) -> SyncStatus {
        let waiting = async { self.status.wait_for(|status| is_met(status)).await.map(|status| status.clone()) };
        match tokio::time::timeout(Duration::from_secs(60), waiting).await {
            Ok(Ok(status)) => status,
            Ok(Err(_)) => panic!("the sync ended: {:?}", (&mut self.work).await),
            Err(_) => panic!("the sync is {:?}", self.status.borrow().clone()),
        }
    }

    pub(crate) async fn stop(self) -> SyncReport {
        self.stop.cancel();
        self.work.await.unwrap().unwrap()
    }

    /// As if its process was killed: nothing of it is finished.
    async fn kill(self) {
        self.work.abort();
        let _killed = self.work.await;
    }
}

pub(crate) fn follow(vault: &Vault, source: &str, target: &Server, options: &SyncOptions) -> Following {
    let (source, target) = (source.to_owned(), MongoUri::parse(Role::Target, &target.uri()).unwrap());
    let source = MongoUri::parse(Role::Source, &source).unwrap();
    let (repository, options, stop) = (vault.repository(), options.clone(), CancellationToken::new());
    let cx = Context::default().cancelled_by(stop.clone());
    let (sender, status) = StatusSender::new();
    let work = async move { sync::run(&source, &target, &repository, &options, &sender, &cx).await };
    Following { stop, status, work: tokio::spawn(work) }
}

/// The error of a sync that must not begin.
async fn refused(vault: &Vault, source: &str, target: &Server, options: &SyncOptions) -> Error {
    let ended = tokio::time::timeout(Duration::from_secs(60), follow(vault, source, target, options).work).await;
    ended.unwrap().unwrap().unwrap_err()
}

/// Runs a command, and gives its operation time.
async fn run(database: &Database, command: Document) -> ClusterTime {
    let reply = database.run_command(command).await.unwrap();
    ClusterTime::from(reply.get_timestamp("operationTime").unwrap())
}

/// The time of a write that is made now.
pub(crate) async fn now(client: &Client) -> ClusterTime {
    run(&client.database("marks"), doc! { "insert": "marks", "documents": [{}] }).await
}

/// The target has what the source has, and its own state beside that.
async fn assert_followed(source: &Client, target: &Client) {
    assert_same(source, target, CompareOptions { ignore_extra: true, ..CompareOptions::default() }).await;
}

/// Some of everything that may happen to collections and documents.
pub(crate) async fn history(client: &Client, round: i32) {
    let database = client.database("history");
    let name = |what: &str| format!("{what}{round}");
    let command = async |command: Document| {
        run(&database, command).await;
    };
    insert(&database, &name("a"), (0..40).map(|n| doc! { "_id": n, "n": n, "list": [1, 2], "sub": { "x": n } })).await;
    command(doc! { "update": name("a"), "updates": [
        { "q": { "n": { "$lt": 20 } }, "u": { "$inc": { "n": 1 }, "$push": { "list": 7 }, "$set": { "sub.y": round } }, "multi": true },
        { "q": { "_id": 30 }, "u": { "whole": true } },
        { "q": { "_id": 31 }, "u": [{ "$set": { "calc": { "$add": ["$n", 1] } } }, { "$unset": "list" }] },
        { "q": { "_id": "new" }, "u": { "$set": { "made": 1 } }, "upsert": true },
    ] })
    .await;
    command(doc! { "delete": name("a"), "deletes": [{ "q": { "_id": { "$gt": 35 } }, "limit": 0 }] }).await;
    command(doc! { "createIndexes": name("a"), "indexes": [{ "key": { "n": 1 }, "name": "n" }, { "key": { "list": 1 }, "name": "l", "sparse": true }] }).await;
    command(doc! { "create": name("capped"), "capped": true, "size": 100_000, "max": 5 }).await;
    insert(&database, &name("capped"), (0..8).map(|n| doc! { "_id": n })).await;
    command(doc! { "create": name("view"), "viewOn": name("a"), "pipeline": [{ "$match": { "n": 1 } }] }).await;
    command(doc! { "collMod": name("a"), "validator": { "bad": { "$exists": false } } }).await;
    command(doc! { "create": name("gone") }).await;
    insert(&database, &name("gone"), [doc! { "_id": 1 }]).await;
    command(doc! { "drop": name("gone") }).await;
    insert(&database, &name("moved"), [doc! { "_id": 1 }]).await;
    let to = |what: &str| format!("history.{}", name(what));
    run(&client.database("admin"), doc! { "renameCollection": to("moved"), "to": to("there") }).await;
    insert(&database, &name("moved"), [doc! { "_id": 2 }]).await;
    run(&client.database("admin"), doc! { "renameCollection": to("there"), "to": to("moved"), "dropTarget": true }).await;
    command(doc! { "dropIndexes": name("a"), "index": "l" }).await;
    command(doc! { "collMod": name("view"), "viewOn": name("moved"), "pipeline": [] }).await;
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    for side in ["left", "right"] {
        let collection = client.database(side).collection::<Document>("moved");
        collection.insert_one(doc! { "round": round }).session(&mut session).await.unwrap();
    }
    session.commit_transaction().await.unwrap();
    command(
        doc! { "aggregate": name("a"), "pipeline": [{ "$match": { "n": { "$gt": 5 } } }, { "$out": name("out") }], "cursor": {} },
    )
    .await;
    let code = doc! { "_id": format!("f{round}"), "value": bson::JavaScriptCodeWithScope { code: "1".into(), scope: doc! {} } };
    let other = client.database("short");
    insert(&other, "system.js", [code]).await;
    insert(&other, "lived", [doc! { "_id": 1 }]).await;
    run(&other, doc! { "dropDatabase": 1 }).await;
}

#[tokio::test]
async fn a_target_follows_everything_that_happens_in_the_source() {
    let (source, set, alone) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"), Server::standalone());
    let (client, vault) = (source.client().await, Vault::new());
    history(&client, 0).await;
    let mut both = [follow(&vault, &source.uri(), &set, &SyncOptions::default()), {
        let other = SyncOptions { archive: ArchiveOptions::default(), ..SyncOptions::default() };
        follow(&vault, &source.uri(), &alone, &other)
    }];
    for following in &mut both {
        following.until(|status| status.state == SyncState::Following).await;
    }
    for round in 1..4 {
        history(&client, round).await;
    }
    let time = now(&client).await;
    for (following, target) in both.iter_mut().zip([&set, &alone]) {
        following.reaches(time).await;
        assert_followed(&client, &target.client().await).await;
    }
    let [on_set, on_standalone] = both;
    assert!(on_set.status.borrow().moment && !on_standalone.status.borrow().moment);
    let report = on_set.stop().await;
    assert!(report.ddl >= 20 && report.operations > 100 && report.at >= time, "{report:?}");
    on_standalone.stop().await;
}

#[tokio::test]
async fn a_killed_sync_goes_on_where_the_target_is() {
    let (source, set, alone) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"), Server::standalone());
    let client = source.client().await;
    for (target, database) in [(&set, 0), (&alone, 100)] {
        let vault = Vault::new();
        insert(&client.database("history"), "first", [doc! { "_id": database }]).await;
        let mut following = follow(&vault, &source.uri(), target, &SyncOptions::default());
        following.until(|status| status.state == SyncState::Following).await;
        for round in database..database + 4 {
            let writer = client.clone();
            let written = tokio::spawn(async move { history(&writer, round).await });
            tokio::time::sleep(Duration::from_millis(150 + 100 * u64::from(round.unsigned_abs() % 4))).await;
            following.kill().await;
            written.await.unwrap();
            // A process of this machine that does not exist any more does not count; this one does,
            // and what was killed in it ends by itself.
            following = again(&vault, &source, target).await;
        }
        let time = now(&client).await;
        following.reaches(time).await;
        assert_followed(&client, &target.client().await).await;
        following.stop().await;
    }
}

/// Goes on once the one before does not count as alive any more.
async fn again(vault: &Vault, source: &Server, target: &Server) -> Following {
    let state = target.client().await.database("bsonvault").collection::<Document>("sync");
    state.update_one(doc! {}, doc! { "$set": { "holder.expires": bson::DateTime::from_millis(0) } }).await.unwrap();
    follow(vault, &source.uri(), target, &SyncOptions::default())
}

#[tokio::test]
async fn whoever_reads_a_replica_set_at_one_time_sees_one_moment() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, vault) = (source.client().await, Vault::new());
    let bank = Bank::start(&client, BankOptions { ddl: true, ..BankOptions::default() }).await;
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Following && status.batches > 0).await;
    let reader = target.client().await;
    for _ in 0..15 {
        bank.wait_for(5, 5).await;
        let options = mongodb::options::SessionOptions::builder().snapshot(true).build();
        let mut session = reader.start_session().with_options(options).await.unwrap();
        let mut total = 0;
        for side in ["left", "right"] {
            let accounts = reader.database("bank").collection::<Document>(side);
            let mut found = accounts.find(doc! {}).session(&mut session).await.unwrap();
            while let Some(account) = found.next(&mut session).await {
                let balance = account.unwrap().get("balance").cloned().unwrap();
                total += balance.as_i64().or(balance.as_i32().map(i64::from)).unwrap();
            }
        }
        let begun = client.database("bank").collection::<Document>("meta").find_one(doc! {}).await.unwrap().unwrap();
        let accounts = begun.get("accounts").and_then(|n| n.as_i64().or(n.as_i32().map(i64::from))).unwrap();
        assert_eq!(total, 2 * accounts * 1_000);
    }
    bank.stop().await;
    let time = now(&client).await;
    following.reaches(time).await;
    assert_eq!(bank::check(&reader, "bank").await, Vec::<String>::new());
    assert_followed(&client, &reader).await;
    following.stop().await;
}

#[tokio::test]
async fn every_kind_of_collection_and_value_follows() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, vault) = (source.client().await, Vault::new());
    insert(&client.database("first"), "c", [doc! { "_id": 1 }]).await;
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Following).await;
    zoo::fill(&client, &ZooOptions { seed: 7, docs: 200, large: true, ..ZooOptions::default() }).await;
    let time = now(&client).await;
    following.reaches(time).await;
    assert_followed(&client, &target.client().await).await;
    following.stop().await;
}

#[tokio::test]
async fn unique_values_may_change_hands_in_any_order() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, vault) = (source.client().await, Vault::new());
    let database = client.database("unique");
    run(&database, doc! { "create": "c" }).await;
    run(&database, doc! { "createIndexes": "c", "indexes": [{ "key": { "u": 1 }, "name": "u", "unique": true }] }).await;
    insert(&database, "c", (0..50).map(|n| doc! { "_id": n, "u": n })).await;
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Following).await;
    for shift in 0..10 {
        // Each takes the value of the one before it.
        run(&database, doc! { "update": "c", "updates": [{ "q": { "_id": 0 }, "u": { "$set": { "u": -1 } } }] }).await;
        for n in (1..50).rev() {
            let free = if n == 49 { 1000 + shift } else { 2000 + n };
            run(&database, doc! { "update": "c", "updates": [{ "q": { "_id": n }, "u": { "$set": { "u": free } } }] }).await;
        }
        for n in 1..50 {
            run(
                &database,
                doc! { "update": "c", "updates": [{ "q": { "_id": n }, "u": { "$set": { "u": (n + shift) % 50 } } }] },
            )
            .await;
        }
        run(&database, doc! { "delete": "c", "deletes": [{ "q": { "_id": 0 }, "limit": 1 }] }).await;
        run(&database, doc! { "insert": "c", "documents": [{ "_id": 0, "u": shift % 50 }] }).await;
    }
    let time = now(&client).await;
    following.reaches(time).await;
    assert_followed(&client, &target.client().await).await;
    assert!(following.status.borrow().moment);
    following.stop().await;
}

#[tokio::test]
async fn a_target_far_behind_catches_up_and_is_a_moment_again() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, vault) = (source.client().await, Vault::new());
    let database = client.database("far");
    run(&database, doc! { "create": "unique" }).await;
    run(&database, doc! { "createIndexes": "unique", "indexes": [{ "key": { "u": 1 }, "name": "u", "unique": true }] }).await;
    insert(&database, "plain", [doc! { "_id": -1 }]).await;
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Following).await;
    following.stop().await;
    for part in 0..14 {
        let begin = part * 5_000;
        insert(&database, "plain", (begin..begin + 5_000).map(|n| doc! { "_id": n, "n": n })).await;
        let moved =
            doc! { "q": { "_id": { "$gte": begin }, "n": { "$mod": [3, 0] } }, "u": { "$inc": { "n": 1 } }, "multi": true };
        run(&database, doc! { "update": "plain", "updates": [moved] }).await;
        insert(&database, "unique", (0..50).map(|n| doc! { "_id": part * 50 + n, "u": n })).await;
        run(&database, doc! { "delete": "unique", "deletes": [{ "q": {}, "limit": 0 }] }).await;
    }
    insert(&database, "unique", (0..50).map(|n| doc! { "_id": n, "u": n })).await;
    let time = now(&client).await;
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    let hurried = following.until(|status| status.batches > 0 && !status.moment).await;
    assert!(hurried.at.is_none_or(|at| at < time), "{hurried:?}");
    following.reaches(time).await;
    assert_followed(&client, &target.client().await).await;
    let next = now(&client).await;
    following.reaches(next).await;
    following.until(|status| status.moment).await;
    let report = following.stop().await;
    assert!(report.operations > 70_000, "{report:?}");
}

#[tokio::test]
async fn a_source_that_does_not_answer_is_told_and_waited_for() {
    let (mut source, target) = tokio::join!(Server::replica_set("followed"), Server::standalone());
    let (client, vault) = (source.client().await, Vault::new());
    insert(&client.database("d"), "c", [doc! { "_id": 1 }]).await;
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Following).await;
    source.kill();
    let waits = following.until(|status| status.state == SyncState::Waiting).await;
    assert!(waits.problem.unwrap().starts_with("the archive waits: "));
    // It does not say so in turns with something else.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(following.status.borrow().state, SyncState::Waiting);
    source.restart().await;
    source.wait_writable().await;
    let time = now(&source.client().await).await;
    following.reaches(time).await;
    following.until(|status| status.state == SyncState::Following && status.problem.is_none()).await;
    following.stop().await;
}

#[tokio::test]
async fn an_archive_that_is_lost_begins_again_where_the_target_is() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let client = source.client().await;
    history(&client, 0).await;
    let lost = Vault::new();
    let mut following = follow(&lost, &source.uri(), &target, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Following).await;
    // A transaction that is open at the position of the target began before it.
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let open = client.database("open").collection::<Document>("c");
    client.database("open").create_collection("c").await.unwrap();
    open.insert_one(doc! { "_id": 1 }).session(&mut session).await.unwrap();
    let time = now(&client).await;
    following.reaches(time).await;
    following.stop().await;
    drop(lost);
    history(&client, 1).await;
    session.commit_transaction().await.unwrap();
    let vault = Vault::new();
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    let time = now(&client).await;
    following.reaches(time).await;
    assert_followed(&client, &target.client().await).await;
    following.stop().await;
}

#[tokio::test]
async fn a_part_of_the_source_follows_under_other_names() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, vault, copy) = (source.client().await, Vault::new(), target.client().await);
    let shop = client.database("shop");
    insert(&shop, "orders", (0..5).map(|n| doc! { "_id": n })).await;
    insert(&shop, "secret", [doc! { "_id": 1 }]).await;
    let options = SyncOptions {
        filter: filter(&["shop.*"], &["shop.secret*"]),
        renames: vec![NamespaceRename::parse("shop.*=mirror.*").unwrap()],
        ..SyncOptions::default()
    };
    let mut following = follow(&vault, &source.uri(), &target, &options);
    following.until(|status| status.state == SyncState::Following).await;
    insert(&shop, "orders", [doc! { "_id": "later" }]).await;
    insert(&shop, "secret", [doc! { "_id": 2 }]).await;
    insert(&client.database("other"), "c", [doc! { "_id": 2 }]).await;
    run(&shop, doc! { "create": "view", "viewOn": "orders", "pipeline": [] }).await;
    let out = doc! { "aggregate": "orders", "pipeline": [{ "$out": "sums" }], "cursor": {} };
    let time = run(&shop, out).await;
    following.reaches(time).await;
    let mirror = copy.database("mirror");
    for name in ["orders", "sums"] {
        assert_eq!(content(&mirror, name).await, content(&shop, name).await, "{name}");
    }
    assert_eq!(content(&mirror, "orders").await.documents, 6);
    let mut names = copy.list_database_names().await.unwrap();
    names.retain(|name| !["admin", "config", "local"].contains(&name.as_str()));
    assert_eq!(names, ["bsonvault", "mirror"]);
    assert!(!mirror.list_collection_names().await.unwrap().iter().any(|name| name.contains("secret")));

    // What was not followed has no documents in the target: it cannot become part of it.
    run(&client.database("admin"), doc! { "renameCollection": "shop.secret", "to": "shop.open" }).await;
    let held = following.until(|status| status.state == SyncState::Held).await;
    let problem = held.problem.unwrap();
    assert!(problem.contains("shop.open"), "{problem}");
    let view = sync::view(&MongoUri::parse(Role::Target, &target.uri()).unwrap(), &vault.cx).await.unwrap();
    assert_eq!((view.state.as_str(), view.reason.as_deref()), ("held", Some(problem.as_str())));
    following.stop().await;

    // Another selection would be another copy.
    let error = refused(&vault, &source.uri(), &target, &SyncOptions::default()).await;
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("follows include shop.*"), "{error}");
}

#[tokio::test]
async fn what_must_not_be_followed_into_is_refused() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, vault) = (source.client().await, Vault::new());
    fill(&client.database("shop"), "orders", (0..3).map(Into::into)).await;
    let options = SyncOptions { mode: ImportMode::Fail, ..SyncOptions::default() };

    // The source itself.
    let error = refused(&vault, &source.uri(), &source, &options).await;
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("is the"), "{error}");
    // Not even its own state is left there.
    assert!(!client.list_database_names().await.unwrap().contains(&"bsonvault".to_owned()));

    // Other data under the names.
    let copy = target.client().await;
    fill(&copy.database("shop"), "orders", [77.into()]).await;
    let error = refused(&vault, &source.uri(), &target, &options).await;
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("shop.orders"), "{error}");
    assert_eq!(content(&copy.database("shop"), "orders").await.documents, 1);

    // In mode replace, it is replaced; then a second process is refused.
    let replace = SyncOptions { mode: ImportMode::Replace, ..options.clone() };
    let mut following = follow(&vault, &source.uri(), &target, &replace);
    following.until(|status| status.state == SyncState::Following).await;
    assert_followed(&client, &copy).await;
    let error = refused(&vault, &source.uri(), &target, &options).await;
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");

    // Nor is anything imported into what follows, but beside it.
    let backup = vault.backup(&source, &["shop"]).await;
    let error = vault.import(&backup, &target.uri()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("write to shop.orders"), "{error}");
    let beside = vec![NamespaceRename::parse("shop.*=beside.*").unwrap()];
    let beside = ImportOptions { renames: beside, ..ImportOptions::default() };
    vault.run(&backup, &target.uri(), &beside).await.unwrap();
    following.stop().await;

    // Another source.
    let other = Server::replica_set("other").await;
    fill(&other.client().await.database("shop"), "orders", [1.into()]).await;
    let error = refused(&Vault::new(), &other.uri(), &target, &options).await;
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("follows the replica set followed"), "{error}");
}

#[tokio::test]
async fn what_somebody_else_deleted_in_the_target_holds_it() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, vault, uri) = (source.client().await, Vault::new(), MongoUri::parse(Role::Target, &target.uri()).unwrap());
    let shop = client.database("shop");
    insert(&shop, "orders", (0..3).map(|n| doc! { "_id": n, "v": "x".repeat(20) })).await;
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Following).await;
    let copy = target.client().await.database("shop");
    copy.collection::<Document>("orders").delete_one(doc! { "_id": 1 }).await.unwrap();
    run(&shop, doc! { "update": "orders", "updates": [{ "q": { "_id": 1 }, "u": { "$set": { "n": 1 } } }] }).await;
    let held = following.until(|status| status.state == SyncState::Held).await;
    assert!(held.problem.as_ref().is_some_and(|problem| problem.contains("shop.orders")), "{held:?}");
    // A part of a document is not taken for the document.
    assert_eq!(content(&copy, "orders").await.documents, 2);
    following.stop().await;
    let error = sync::finalize(&uri, &vault.cx).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("is held"), "{error}");

    // A collection of the source that is not followed cannot be renamed into the selection later.
    let (other, options) =
        (Server::replica_set("copy").await, SyncOptions { filter: filter(&["shop.orders*"], &[]), ..SyncOptions::default() });
    let mut following = follow(&vault, &source.uri(), &other, &options);
    following.until(|status| status.state == SyncState::Following).await;
    insert(&shop, "secret", [doc! { "_id": 1 }]).await;
    run(&client.database("admin"), doc! { "renameCollection": "shop.secret", "to": "shop.orders2" }).await;
    let held = following.until(|status| status.state == SyncState::Held).await;
    assert!(held.problem.as_ref().is_some_and(|problem| problem.contains("shop.orders2")), "{held:?}");
    following.stop().await;
}

/// A target as a sync holds it, and its state if it is taken anew.
async fn held(uri: &MongoUri, cx: &Context) -> (Target, Held, Synced) {
    let connection = Connection::open(uri, ConnectOptions { pool: 4, selection_timeout: None }).await.unwrap();
    let version = connection.behaves_as().await;
    let target = Target::new(connection, version, cx);
    let begun = Synced {
        replica_set_id: "0".repeat(24),
        replica_set: "rs".to_owned(),
        selection: "everything".to_owned(),
        state: SyncedState::Following,
        at: OplogPosition { time: ClusterTime { t: 7, i: 1 }, term: None, digest: None },
        open_from: None,
        to: None,
        within: None,
        epoch: 0,
        reason: None,
        holder: None,
        told: None,
    };
    let taking = Held::take(&target, &begun);
    let (held, synced) = tokio::time::timeout(Duration::from_secs(20), taking).await.unwrap().unwrap();
    (target, held, synced)
}

/// What an insert of one document makes of a target.
async fn writes(target: &Target, id: i32) -> Writes {
    let uuid = uuid::Uuid::from_u128(1);
    let binary = bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: uuid.as_bytes().to_vec() };
    let entry = bson::rawdoc! {
        "op": "i", "ns": "d.c", "ui": binary, "o": { "_id": id }, "ts": bson::Timestamp { time: 9, increment: 1 }, "t": 1_i64,
    };
    let begun = ClusterTime { t: 7, i: 1 };
    let mut gatherer = Gatherer::new(begun, usize::MAX, Box::new(|_| true));
    let namespace = Namespace::new("d", "c");
    gatherer.direct(uuid, Destination { namespace, holds: Holds::Documents, has_rules: false, collated: false, unique: false });
    let mut tracker = CatalogTracker::new(Vec::new(), begun, |_| true).unwrap();
    let limits = Limits { documents: 10, bytes: 1000, not_before: None, upto: None };
    assert_eq!(gatherer.gather(&mut tracker, entry.as_bytes(), &mut 0, limits).unwrap(), Stop::End);
    match moment::prepare(target, gatherer.take().batch).await.unwrap() {
        Prepared::Writes(writes) => writes,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn whoever_lost_a_target_writes_no_moment_and_blocks_nobody() {
    let server = Server::replica_set("copy").await;
    let (cx, uri) = (Context::default(), MongoUri::parse(Role::Target, &server.uri()).unwrap());
    server.client().await.database("d").run_command(doc! { "create": "c" }).await.unwrap();
    let (target, mut first, synced) = held(&uri, &cx).await;
    let (from, to) = (synced.at.time, OplogPosition { time: ClusterTime { t: 9, i: 1 }, term: Some(1), digest: None });
    // It dies in the middle of a transaction that wrote the position.
    let step = Move::On { from, to, open_from: None };
    let fence = first.advance(&step).unwrap();
    first.session().start_transaction().await.unwrap();
    let database = target.connection.database("bsonvault");
    database.run_raw_command(fence.clone()).session(first.session()).await.unwrap();
    let state = server.client().await.database("bsonvault").collection::<Document>("sync");
    let dead = doc! { "$set": { "holder.expires": bson::DateTime::from_millis(0) } };
    let expire = async || {
        let once = state.update_one(doc! {}, dead.clone());
        drop(tokio::time::timeout(Duration::from_millis(300), async { once.await }).await);
    };
    expire().await;
    // It counts as dead once its hold has expired, since its transaction blocks the renewal.
    let begun = std::time::Instant::now();
    let (other, mut second, taken) = loop {
        let seen = sync::view(&uri, &cx).await.unwrap();
        if !seen.running {
            break held(&uri, &cx).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{seen:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!((taken.epoch, taken.at.time), (synced.epoch + 1, from));
    // The first wakes up: its transaction is gone, and a new one finds another epoch.
    assert!(first.session().commit_transaction().await.is_err());
    let _gone = first.session().abort_transaction().await;
    let late = writes(&target, 1).await;
    let fenced = ("bsonvault", &fence);
    let mut outcome = late.in_transaction(&target, first.session(), Manner::Plain, fenced).await.unwrap();
    for _ in 0..10 {
        if outcome != Outcome::Aborted {
            break;
        }
        outcome = late.in_transaction(&target, first.session(), Manner::Plain, fenced).await.unwrap();
    }
    assert_eq!(outcome, Outcome::Moved);
    assert_eq!(first.move_on(&step).await.unwrap_err().kind(), ErrorKind::Busy);
    let shop = server.client().await.database("d");
    assert_eq!(content(&shop, "c").await.documents, 0);
    // The second writes data and position together.
    let fence = second.advance(&step).unwrap();
    let written = writes(&other, 2).await;
    let done = written.in_transaction(&other, second.session(), Manner::Plain, ("bsonvault", &fence)).await.unwrap();
    assert_eq!((done, content(&shop, "c").await.documents), (Outcome::Done, 1));
    assert_eq!(Synced::read(&target).await.unwrap().unwrap().at.time, to.time);
}

#[tokio::test]
async fn a_target_that_dies_is_waited_for() {
    let source = Server::replica_set("followed").await;
    let (client, vault) = (source.client().await, Vault::new());
    for mut target in [Server::replica_set("copy").await, Server::standalone().await] {
        fill(&client.database("shop"), "orders", (0..3).map(Into::into)).await;
        run(&client.database("shop"), doc! { "drop": "orders" }).await;
        insert(&client.database("shop"), "log", [doc! { "n": 0 }]).await;
        let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
        following.until(|status| status.state == SyncState::Following).await;
        for n in 0..200 {
            insert(&client.database("shop"), "log", [doc! { "n": n }]).await;
            if n == 100 {
                target.kill();
            }
        }
        following.until(|status| status.state == SyncState::Waiting).await;
        target.restart().await;
        let time = now(&client).await;
        following.reaches(time).await;
        assert_followed(&client, &target.client().await).await;
        following.stop().await;
    }
}

#[tokio::test]
async fn a_sync_is_paused_delayed_and_finalized() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, vault, uri) = (source.client().await, Vault::new(), MongoUri::parse(Role::Target, &target.uri()).unwrap());
    let shop = client.database("shop");
    insert(&shop, "orders", [doc! { "_id": 0 }]).await;
    let error = sync::view(&uri, &vault.cx).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let options = SyncOptions { delay: Some(Duration::from_secs(4)), ..SyncOptions::default() };
    let mut following = follow(&vault, &source.uri(), &target, &options);
    following.until(|status| status.state == SyncState::Following).await;
    let copy = target.client().await.database("shop");

    // It stays behind on purpose.
    let begun = std::time::Instant::now();
    let time = run(&shop, doc! { "insert": "orders", "documents": [{ "_id": 1 }] }).await;
    following.reaches(time).await;
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(content(&copy, "orders").await.documents, 2);

    // A pause outlasts the process.
    assert_eq!(sync::pause(&uri, &vault.cx).await.unwrap().state, "paused");
    following.until(|status| status.state == SyncState::Paused).await;
    let busy = sync::finalize(&uri, &vault.cx).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy, "{busy}");
    following.stop().await;
    let time = run(&shop, doc! { "insert": "orders", "documents": [{ "_id": 2 }] }).await;
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Paused).await;
    assert_eq!(content(&copy, "orders").await.documents, 2);
    // It says how far it is behind meanwhile.
    for round in 0.. {
        now(&client).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let view = sync::view(&uri, &vault.cx).await.unwrap();
        assert_eq!((view.state.as_str(), view.running), ("paused", true));
        if view.lag_seconds.is_some_and(|lag| lag >= 2) {
            break;
        }
        assert!(round < 60, "{view:?}");
    }
    assert_eq!(sync::resume(&uri, &vault.cx).await.unwrap().state, "following");
    following.reaches(time).await;
    assert_eq!(content(&copy, "orders").await.documents, 3);

    // While it follows, the target expires nothing by itself.
    let expires = async || {
        target.admin(doc! { "getParameter": 1, "ttlMonitorEnabled": 1 }).await.unwrap().get_bool("ttlMonitorEnabled").unwrap()
    };
    assert!(!expires().await);
    following.stop().await;
    let done = sync::finalize(&uri, &vault.cx).await.unwrap();
    assert!(done.state == "final" && !done.running && done.at.is_some(), "{done:?}");
    assert!(expires().await);
    let error = refused(&vault, &source.uri(), &target, &SyncOptions::default()).await;
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("finalized"), "{error}");
}

#[tokio::test]
async fn a_source_without_an_oplog_to_read_is_refused() {
    let (standalone, target) = tokio::join!(Server::standalone(), Server::start(ServerOptions::default()));
    let error = refused(&Vault::new(), &standalone.uri(), &target, &SyncOptions::default()).await;
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("standalone"), "{error}");
}

/// Lets every index build of the server wait, or goes on.
async fn hold_builds(server: &Server, holds: bool) {
    let mode = if holds { "alwaysOn" } else { "off" };
    server.admin(doc! { "configureFailPoint": "hangAfterStartingIndexBuild", "mode": mode }).await.unwrap();
}

#[tokio::test]
async fn documents_follow_while_indexes_of_large_collections_are_built() {
    let (source, set, alone) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"), Server::standalone());
    let (client, vault) = (source.client().await, Vault::new());
    let database = client.database("large");
    for name in ["kept", "renamed", "dropped", "modified", "undone"] {
        insert(&database, name, (0..10_500).map(|n| doc! { "_id": n, "n": n })).await;
    }
    for target in [&set, &alone] {
        let mut following = follow(&vault, &source.uri(), target, &SyncOptions::default());
        following.until(|status| status.state == SyncState::Following).await;
        hold_builds(target, true).await;
        let index =
            |name: &str| doc! { "createIndexes": name, "indexes": [{ "key": { "n": 1 }, "name": "by_n", "hidden": false }] };
        for name in ["kept", "renamed", "dropped", "modified", "undone"] {
            run(&database, index(name)).await;
        }
        let written =
            run(&database, doc! { "update": "kept", "updates": [{ "q": { "_id": 1 }, "u": { "$set": { "late": true } } }] });
        following.reaches(written.await).await;
        let status = following.until(|status| status.debts == 5).await;
        assert_eq!((status.state, status.debt_problem), (SyncState::Following, None));
        // What changes while its index is being built, or waits for that.
        let mut time = ClusterTime { t: 0, i: 0 };
        for (on, command) in [
            ("admin", doc! { "renameCollection": "large.renamed", "to": "large.again" }),
            ("admin", doc! { "renameCollection": "large.kept", "to": "large.always" }),
            ("large", doc! { "drop": "dropped" }),
            ("large", doc! { "collMod": "modified", "index": { "name": "by_n", "hidden": true } }),
            ("large", doc! { "dropIndexes": "undone", "index": "by_n" }),
            ("admin", doc! { "renameCollection": "large.always", "to": "large.kept" }),
            ("admin", doc! { "renameCollection": "large.again", "to": "large.renamed" }),
        ] {
            time = run(&client.database(on), command).await;
        }
        following.reaches(time).await;
        assert_eq!(following.status.borrow().debts, 3);
        // A process that ends leaves what it was building, and the next one knows.
        following.kill().await;
        let uri = MongoUri::parse(Role::Target, &target.uri()).unwrap();
        let mut following = again(&vault, &source, target).await;
        following.until(|status| status.debts == 3).await;
        following.stop().await;
        let error = sync::finalize(&uri, &Context::default()).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("\"by_n\" of large."), "{error}");
        hold_builds(target, false).await;
        let mut following = follow(&vault, &source.uri(), target, &SyncOptions::default());
        following.until(|status| status.state == SyncState::Following && status.debts == 0).await;
        assert_followed(&client, &target.client().await).await;
        following.stop().await;
        // For the other target.
        for name in ["kept", "renamed", "modified"] {
            run(&database, doc! { "dropIndexes": name, "index": "by_n" }).await;
        }
        insert(&database, "dropped", (0..10_500).map(|n| doc! { "_id": n, "n": n })).await;
    }
}

#[tokio::test]
async fn an_index_that_the_target_refuses_is_told_and_built_later() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, vault) = (source.client().await, Vault::new());
    let database = client.database("refused");
    insert(&database, "c", (0..10).map(|n| doc! { "_id": n, "u": n })).await;
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Following).await;
    let foreign = target.client().await.database("refused").collection::<Document>("c");
    foreign.insert_one(doc! { "_id": "foreign", "u": 1 }).await.unwrap();
    run(&database, doc! { "createIndexes": "c", "indexes": [{ "key": { "u": 1 }, "name": "by_u", "unique": true }] }).await;
    let time = now(&client).await;
    following.reaches(time).await;
    let status = following.until(|status| status.debts == 1).await;
    assert_eq!(status.state, SyncState::Following);
    assert!(status.debt_problem.unwrap().contains("\"by_u\" of refused.c"));
    following.stop().await;
    foreign.delete_one(doc! { "_id": "foreign" }).await.unwrap();
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Following && status.debts == 0).await;
    assert_followed(&client, &target.client().await).await;
    following.stop().await;
}

#[tokio::test]
async fn an_archive_whose_process_ends_is_taken_over() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, vault) = (source.client().await, Vault::new());
    insert(&client.database("first"), "c", [doc! { "_id": 1 }]).await;
    let uri = MongoUri::parse(Role::Source, &source.uri()).unwrap();
    let (repository, stop) = (vault.repository(), CancellationToken::new());
    let cx = Context::default().cancelled_by(stop.clone());
    let (sender, mut status) = archive::status();
    let options = ArchiveOptions::default();
    let archiving = tokio::spawn(async move { archive::run(&uri, &repository, &options, &sender, &cx).await });
    status.wait_for(|status| status.state == ArchiveState::Following).await.unwrap();
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Following).await;
    stop.cancel();
    archiving.await.unwrap().unwrap();
    let time = now(&client).await;
    following.reaches(time).await;
    following.stop().await;
}
