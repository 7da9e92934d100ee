//! Transactions of the source that are larger than memory, and batches that are larger than a
//! transaction of the target.

use bson::{Bson, Timestamp};
use bsonvault::engine::Tuning;
use mongodb::ClientSession;

use super::*;

/// A source whose transactions have many parts.
async fn source() -> Server {
    let parameters = vec![("maxNumberOfTransactionOperationsInSingleOplogEntry".to_owned(), "20".to_owned())];
    Server::start(ServerOptions { repl_set: Some("followed".to_owned()), parameters, ..ServerOptions::default() }).await
}

/// A sync that keeps 512 KiB of open transactions.
fn frugal() -> SyncOptions {
    SyncOptions { tuning: Tuning { memory_bytes: 4 << 20, ..Tuning::default() }, ..SyncOptions::default() }
}

/// Makes a copy, and follows on with little memory.
async fn begin(vault: &Vault, source: &Server, target: &Server) -> Following {
    let mut following = follow(vault, &source.uri(), target, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Following).await;
    following.stop().await;
    let mut following = follow(vault, &source.uri(), target, &frugal());
    following.until(|status| status.state == SyncState::Following).await;
    following
}

/// Goes on after a kill, with little memory, once the one before does not count as alive any more:
/// a renewal may have been under way.
async fn begin_again(vault: &Vault, source: &Server, target: &Server) -> Following {
    let state = target.client().await.database("bsonvault").collection::<Document>("sync");
    for _ in 0..20 {
        state.update_one(doc! {}, doc! { "$set": { "holder.expires": bson::DateTime::from_millis(0) } }).await.unwrap();
        let following = follow(vault, &source.uri(), target, &frugal());
        while !following.work.is_finished() {
            if following.status.borrow().state == SyncState::Following {
                return following;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let ended = following.work.await.unwrap().unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::Busy, "{ended}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("the target is not free");
}

/// What a transaction changes.
async fn fill_before(client: &Client) {
    let database = client.database("shop");
    run(&database, doc! { "createIndexes": "unique", "indexes": [{ "key": { "u": 1 }, "name": "u", "unique": true }] }).await;
    insert(&database, "unique", (0..60).map(|n| doc! { "_id": n, "u": n })).await;
    insert(&database, "plain", (0..300).map(|n| doc! { "_id": n, "n": n, "text": "x".repeat(1_000) })).await;
}

/// About two megabytes in a transaction: documents that come, change and go, and unique values that
/// change hands; if asked, also a collection that is new, with an index.
async fn write_much(client: &Client, round: i32, is_new: bool) -> ClientSession {
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let of = |name: &str| client.database("shop").collection::<Document>(name);
    let new = of(&format!("new{round}"));
    if is_new {
        new.create_index(mongodb::IndexModel::builder().keys(doc! { "n": 1 }).build()).session(&mut session).await.unwrap();
    }
    let text = "y".repeat(6_000);
    let first = 1_000 * (round + 1);
    let documents = (first..first + 200).map(|n| doc! { "_id": n, "n": n, "text": &text });
    of("plain").insert_many(documents).session(&mut session).await.unwrap();
    of("plain").update_many(doc! { "_id": { "$lt": 100 } }, doc! { "$inc": { "n": 1 } }).session(&mut session).await.unwrap();
    for shift in 0..3 {
        let unique = of("unique");
        unique.update_one(doc! { "_id": 0 }, doc! { "$set": { "u": -1 } }).session(&mut session).await.unwrap();
        for n in 1..60 {
            let (old, new) = (doc! { "_id": n }, (n + 60 * i32::from(shift == 1) - 1) % 120);
            unique
                .update_one(old, doc! { "$set": { "u": new, "shift": shift, "round": round } })
                .session(&mut session)
                .await
                .unwrap();
        }
        let last = if shift == 1 { 119 } else { 59 };
        unique.update_one(doc! { "_id": 0 }, doc! { "$set": { "u": last } }).session(&mut session).await.unwrap();
    }
    of("plain").delete_many(doc! { "_id": { "$gte": 200, "$lt": 250 + round } }).session(&mut session).await.unwrap();
    new.insert_many((0..200).map(|n| doc! { "_id": n, "n": n, "text": &text })).session(&mut session).await.unwrap();
    session
}

/// How often the position of a target was changed like this: by a filter on the target's oplog.
async fn moves(target: &Client, of: Document) -> u64 {
    let mut filter = doc! { "ns": "bsonvault.sync", "op": "u" };
    filter.extend(of);
    target.database("local").collection::<Document>("oplog.rs").count_documents(filter).await.unwrap()
}

fn within(name: &str) -> Document {
    doc! { "$or": [{ format!("o.diff.i.{name}"): { "$exists": true } }, { format!("o.diff.u.{name}"): { "$exists": true } }] }
}

#[tokio::test]
async fn a_transaction_larger_than_memory_is_written_bit_by_bit() {
    let (source, set, alone) = tokio::join!(source(), Server::replica_set("copy"), Server::standalone());
    let client = source.client().await;
    fill_before(&client).await;
    for (target, round) in [(&set, 0), (&alone, 10)] {
        let vault = Vault::new();
        let mut following = begin(&vault, &source, target).await;
        insert(&client.database("shop"), "plain", [doc! { "_id": format!("before {round}") }]).await;
        let mut session = write_much(&client, round, true).await;
        session.commit_transaction().await.unwrap();
        insert(&client.database("shop"), "plain", [doc! { "_id": format!("after {round}") }]).await;
        let time = now(&client).await;
        following.reaches(time).await;
        assert_followed(&client, &target.client().await).await;
        let next = now(&client).await;
        following.reaches(next).await;
        assert_eq!(following.status.borrow().moment, round == 0);
        let report = following.stop().await;
        assert!(report.batches >= 6 && report.operations >= 600 && report.ddl > 0, "{report:?}");
        let state = target.client().await.database("bsonvault").collection::<Document>("sync");
        let state = state.find_one(doc! {}).await.unwrap().unwrap();
        assert!(state.get("within").is_none() && state.get("to").is_none(), "{state}");
    }
    // The first time is that of the first copy, which sets every field.
    assert!(moves(&set.client().await, within("within")).await > 4);
}

#[tokio::test]
async fn what_dies_in_a_large_transaction_goes_on_there() {
    let source = source().await;
    let client = source.client().await;
    fill_before(&client).await;
    for (round, mut target) in (0..).zip([Server::replica_set("copy").await, Server::standalone().await]) {
        let (vault, copy) = (Vault::new(), target.client().await);
        let mut following = begin(&vault, &source, &target).await;
        let state = copy.database("bsonvault").collection::<Document>("sync");
        let mut last = Bson::Null;
        target.slow_down(&["insert", "applyOps"], 300).await;
        let mut session = write_much(&client, round, true).await;
        session.commit_transaction().await.unwrap();
        for _ in 0..2 {
            // Somewhere further on in the transaction.
            let begun = std::time::Instant::now();
            let found = loop {
                let found = state.find_one(doc! {}).await.unwrap().unwrap();
                if found.get("within").is_some_and(|now| *now != last) {
                    break found;
                }
                assert!(begun.elapsed() < Duration::from_secs(60), "{found}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            let now = found.get("within").cloned().unwrap();
            assert!(last.as_timestamp() < now.as_timestamp() && found.get("to").is_some(), "{last} {found}");
            last = now;
            let view = sync::view(&MongoUri::parse(Role::Target, &target.uri()).unwrap(), &vault.cx).await.unwrap();
            assert!(!view.moment, "{view:?}");
            following.kill().await;
            following = begin_again(&vault, &source, &target).await;
        }
        // The target itself dies.
        target.kill();
        target.restart().await;
        let time = now(&client).await;
        following.reaches(time).await;
        assert_followed(&client, &target.client().await).await;
        following.stop().await;
    }
}

#[tokio::test]
async fn a_large_transaction_that_is_aborted_changes_nothing() {
    let (source, target) = tokio::join!(source(), Server::replica_set("copy"));
    let (client, vault) = (source.client().await, Vault::new());
    fill_before(&client).await;
    // A prepared transaction cannot create them.
    for name in ["new0", "new1"] {
        run(&client.database("shop"), doc! { "create": name }).await;
    }
    let mut following = begin(&vault, &source, &target).await;
    let before = moves(&target.client().await, within("within")).await;
    let prepare = async |session: &mut ClientSession| {
        let prepared = client.database("admin").run_command(doc! { "prepareTransaction": 1 }).session(session).await.unwrap();
        prepared.get_timestamp("prepareTimestamp").unwrap()
    };
    // It is in the oplog, and is aborted.
    let mut session = write_much(&client, 0, false).await;
    prepare(&mut session).await;
    let meanwhile = now(&client).await;
    following.reaches(meanwhile).await;
    session.abort_transaction().await.unwrap();
    let time = now(&client).await;
    following.reaches(time).await;
    assert_followed(&client, &target.client().await).await;
    assert_eq!(moves(&target.client().await, within("within")).await, before);

    // It is open for long, while the sync is stopped and begins again, and is committed.
    let mut session = write_much(&client, 1, false).await;
    let prepared = prepare(&mut session).await;
    insert(&client.database("other"), "c", [doc! { "_id": 1 }]).await;
    let meanwhile = now(&client).await;
    following.reaches(meanwhile).await;
    following.stop().await;
    let mut following = follow(&vault, &source.uri(), &target, &frugal());
    insert(&client.database("other"), "c", [doc! { "_id": 2 }]).await;
    let meanwhile = now(&client).await;
    following.reaches(meanwhile).await;
    commit(&client, &mut session, prepared).await;
    let time = now(&client).await;
    following.reaches(time).await;
    assert_followed(&client, &target.client().await).await;
    assert!(moves(&target.client().await, within("within")).await > before);
    following.stop().await;
}

/// Commits a prepared transaction, as a coordinator of shards does.
async fn commit(client: &Client, session: &mut ClientSession, prepared: Timestamp) {
    let command = doc! { "commitTransaction": 1, "commitTimestamp": prepared };
    client.database("admin").run_command(command).session(session).await.unwrap();
}

#[tokio::test]
async fn what_is_too_large_for_the_target_is_halved() {
    let parameters = vec![("transactionSizeLimitBytes".to_owned(), "3000000".to_owned())];
    let target = ServerOptions { repl_set: Some("copy".to_owned()), parameters, ..ServerOptions::default() };
    let (source, target) = tokio::join!(source(), Server::start(target));
    let (client, vault) = (source.client().await, Vault::new());
    let sides = [client.database("shop").collection::<Document>("left"), client.database("shop").collection("right")];
    for side in &sides {
        side.insert_one(doc! { "_id": "first" }).await.unwrap();
    }
    now(&client).await;
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Following).await;
    following.stop().await;
    let copy = target.client().await;
    let before = moves(&copy, within("to")).await;
    // A dozen megabytes in transactions of several parts: each writes as much to both sides.
    for n in 0..40 {
        let mut session = client.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        for side in &sides {
            let some = (0..15).map(|i| doc! { "_id": 100 * n + i, "text": "x".repeat(10_000) });
            side.insert_many(some).session(&mut session).await.unwrap();
        }
        session.commit_transaction().await.unwrap();
    }
    let time = now(&client).await;
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    let reader = copy.clone();
    let looking = tokio::spawn(async move {
        let mut seen = std::collections::BTreeSet::new();
        loop {
            let options = mongodb::options::SessionOptions::builder().snapshot(true).build();
            let mut session = reader.start_session().with_options(options).await.unwrap();
            let mut counts = Vec::new();
            for side in ["left", "right"] {
                let side = reader.database("shop").collection::<Document>(side);
                counts.push(side.count_documents(doc! {}).session(&mut session).await.unwrap());
            }
            assert!(counts[0] == counts[1] && counts[0] % 15 == 1, "{counts:?}");
            seen.insert(counts[0]);
            if counts[0] == 601 {
                return seen.len();
            }
        }
    });
    following.reaches(time).await;
    let seen = tokio::time::timeout(Duration::from_secs(20), looking).await.unwrap().unwrap();
    assert!(seen >= 2, "{seen}");
    assert_followed(&client, &copy).await;
    assert_eq!(moves(&copy, within("to")).await, before);
    assert!(following.status.borrow().moment);

    // A single one that is too large is written entry by entry, between moments.
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    for side in &sides {
        let some = (0..200).map(|n| doc! { "_id": -1 - n, "text": "x".repeat(10_000) });
        side.insert_many(some).session(&mut session).await.unwrap();
    }
    session.commit_transaction().await.unwrap();
    let time = now(&client).await;
    following.reaches(time).await;
    assert_followed(&client, &copy).await;
    assert_eq!(moves(&copy, within("to")).await, before + 1);
    let next = now(&client).await;
    following.reaches(next).await;
    following.until(|status| status.moment).await;
    following.stop().await;
}

#[tokio::test]
async fn what_takes_the_target_too_long_is_written_entry_by_entry() {
    let parameters = vec![("transactionLifetimeLimitSeconds".to_owned(), "1".to_owned())];
    let target = ServerOptions { repl_set: Some("copy".to_owned()), parameters, ..ServerOptions::default() };
    let (source, target) = tokio::join!(source(), Server::start(target));
    let (client, vault) = (source.client().await, Vault::new());
    insert(&client.database("shop"), "c", [doc! { "_id": 0 }]).await;
    let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Following).await;
    target.slow_down(&["insert"], 3_000).await;
    insert(&client.database("shop"), "c", [doc! { "_id": 1 }]).await;
    let time = now(&client).await;
    following.reaches(time).await;
    target.fail_no_more().await;
    assert_followed(&client, &target.client().await).await;
    assert!(moves(&target.client().await, within("to")).await > 0);
    following.stop().await;
}
