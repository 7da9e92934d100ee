//! The first copy, straight from the source: under load, killed, and with a target that goes away.

use bsonvault::engine::Tuning;
use bsonvault::repository::catalog::Catalog;

use super::*;

/// Reads in many parts, and so slowly that much happens meanwhile.
fn slowly() -> SyncOptions {
    let tuning = Tuning { readers: Some(3), range_bytes: Some(128 * 1024), max_bits: Some(8 * 700_000), ..Tuning::default() };
    SyncOptions { tuning, ..SyncOptions::default() }
}

/// About 2 MB in many parts, a capped collection, and a time series.
async fn fill_source(client: &Client) {
    let database = client.database("large");
    insert(&database, "c", (0..4_000).map(|n| doc! { "_id": n, "n": n, "text": "x".repeat(500) })).await;
    run(&database, doc! { "createIndexes": "c", "indexes": [{ "key": { "n": 1 }, "name": "n", "unique": true }] }).await;
    run(&database, doc! { "create": "capped", "capped": true, "size": 8_192 }).await;
    insert(&database, "capped", (0..300).map(|n| doc! { "_id": n })).await;
    run(&database, doc! { "create": "series", "timeseries": { "timeField": "t", "metaField": "m" } }).await;
    insert(&database, "series", (0..200).map(measurement)).await;
}

fn measurement(n: i64) -> Document {
    doc! { "t": bson::DateTime::from_millis(1_700_000_000_000 + n * 7_200_000), "m": n % 3, "v": n }
}

/// Changes documents of every part of it.
async fn change_source(client: &Client, round: i32) {
    let database = client.database("large");
    let some = doc! { "$mod": [40, round % 40] };
    run(&database, doc! { "update": "c", "updates": [{ "q": { "_id": some.clone() }, "u": { "$inc": { "n": 10_000_000 }, "$set": { "r": round } }, "multi": true }] }).await;
    run(&database, doc! { "delete": "c", "deletes": [{ "q": { "_id": { "$mod": [97, round % 97] } }, "limit": 0 }] }).await;
    insert(&database, "c", (0..5).map(|n| doc! { "_id": format!("{round} {n}"), "n": -round * 10 - n - 1 })).await;
    insert(&database, "capped", [doc! { "_id": 1_000 + round }]).await;
    insert(&database, "series", [measurement(i64::from(1_000 + round))]).await;
}

/// Nothing of the copy is left beside what it made.
async fn assert_nothing_staged(client: &Client) {
    for database in client.list_database_names().await.unwrap() {
        let names = client.database(&database).list_collection_names().await.unwrap();
        let left: Vec<_> = names.iter().filter(|name| name.contains("staging") || *name == "sync.copy").collect();
        assert!(left.is_empty(), "{database}: {left:?}");
    }
}

/// The parts that are recorded, by their `_id`s.
async fn recorded(client: &Client) -> Vec<String> {
    let copy = client.database("bsonvault").collection::<Document>("sync.copy");
    let found: Vec<Document> =
        futures::TryStreamExt::try_collect(copy.find(doc! { "kind": "range" }).await.unwrap()).await.unwrap();
    found.iter().map(|range| range.get_str("_id").unwrap().to_owned()).collect()
}

/// Follows again after a kill, once the one before does not count as alive any more.
async fn go_on(vault: &Vault, source: &Server, target: &Server, options: &SyncOptions) -> Following {
    let state = target.client().await.database("bsonvault").collection::<Document>("sync");
    state.update_one(doc! {}, doc! { "$set": { "holder.expires": bson::DateTime::from_millis(0) } }).await.unwrap();
    follow(vault, &source.uri(), target, options)
}

#[tokio::test]
async fn a_first_copy_is_exact_while_everything_changes() {
    let (source, set, alone) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"), Server::standalone());
    let client = source.client().await;
    fill_source(&client).await;
    zoo::fill(&client, &ZooOptions { seed: 11, docs: 60, ..ZooOptions::default() }).await;
    let mut round = 0;
    for target in [&set, &alone] {
        let vault = Vault::new();
        let bank = Bank::start(&client, BankOptions { ddl: true, ..BankOptions::default() }).await;
        let mut following = follow(&vault, &source.uri(), target, &slowly());
        let (mut parts, begun) = (0, round);
        while following.status.borrow().state != SyncState::Following {
            assert!(!following.work.is_finished(), "{:?}", following.work.await);
            change_source(&client, round).await;
            history(&client, round).await;
            parts = parts.max(recorded(&target.client().await).await.len());
            round += 1;
            // The source can be listed only if it is left alone for a moment.
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        assert!(parts > 10 && round > begun + 1, "{parts} parts and {round} rounds: it was too fast to show anything");
        bank.stop().await;
        let time = now(&client).await;
        following.reaches(time).await;
        let copy = target.client().await;
        assert_followed(&client, &copy).await;
        assert_eq!(bank::check(&copy, "bank").await, Vec::<String>::new());
        assert_nothing_staged(&copy).await;
        following.stop().await;
        // Nobody asked for a backup.
        assert_eq!(vault.repository().chains().await.unwrap().len(), 1);
        let listed = Catalog::new(vault.repository(), &vault.cx.cpu).list(chrono::Utc::now()).await.unwrap();
        assert!(listed.is_empty(), "{listed:?}");
        client.database("bank").drop().await.unwrap();
    }
}

#[tokio::test]
async fn a_first_copy_that_is_killed_goes_on_with_what_is_there() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, copy, vault) = (source.client().await, target.client().await, Vault::new());
    fill_source(&client).await;
    let (mut before, mut kills, mut kept) = (Vec::new(), 0, 0);
    let mut following = follow(&vault, &source.uri(), &target, &slowly());
    loop {
        let so_long = Duration::from_millis(400 + 170 * (kills % 5));
        let ended = following.status.wait_for(|status| status.state == SyncState::Following);
        if tokio::time::timeout(so_long, ended).await.is_ok_and(|ended| ended.is_ok()) {
            break;
        }
        following.kill().await;
        change_source(&client, kills as i32).await;
        kills += 1;
        let there = recorded(&copy).await;
        // Only what has an order of its own is read again.
        let lost: Vec<&String> = before.iter().filter(|part| !there.contains(part)).collect();
        assert!(lost.len() <= 1 || there.is_empty(), "{lost:?} of {before:?}");
        kept += u64::from(!before.is_empty() && !there.is_empty());
        before = there;
        assert!(kills < 60, "it never ends: {before:?}");
        following = go_on(&vault, &source, &target, &slowly()).await;
    }
    assert!(kills > 2 && kept > 0, "{kills} kills, {kept} of them in the middle");
    change_source(&client, 77).await;
    let time = now(&client).await;
    following.reaches(time).await;
    assert_followed(&client, &copy).await;
    assert_nothing_staged(&copy).await;
    following.stop().await;
}

#[tokio::test]
async fn a_first_copy_that_is_killed_while_it_is_published_is_published() {
    let source = Server::replica_set("followed").await;
    let client = source.client().await;
    history(&client, 0).await;
    run(&client.database("history"), doc! { "create": "series", "timeseries": { "timeField": "t", "metaField": "m" } }).await;
    insert(&client.database("history"), "series", (0..20).map(measurement)).await;
    let target = Server::replica_set("copy").await;
    let copy = target.client().await;
    // Each rename takes a while, so that some are made and some are not.
    for (round, so_many) in [(1, 0_u32), (2, 2), (3, 5), (4, 1_000)] {
        let vault = Vault::new();
        target.slow_down(&["renameCollection"], 250).await;
        let mut following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
        let is_ahead = async || {
            let state = copy.database("bsonvault").collection::<Document>("sync");
            let state = state.find_one(doc! {}).await.unwrap();
            let published = copy.database("history").list_collection_names().await.unwrap();
            let published =
                published.iter().filter(|name| !name.starts_with("bsonvault") && !name.starts_with("system.")).count();
            let at = state.as_ref().and_then(|state| state.get_timestamp("at").ok()).map_or(0, |at| at.time);
            let is_over = state.is_some_and(|state| !matches!(state.get_str("state"), Ok("copying")));
            is_over || (at > 0 && published >= so_many as usize)
        };
        while !is_ahead().await {
            assert!(!following.work.is_finished(), "{:?}", following.work.await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        following.kill().await;
        target.fail_no_more().await;
        history(&client, round).await;
        following = go_on(&vault, &source, &target, &SyncOptions::default()).await;
        let time = now(&client).await;
        following.reaches(time).await;
        assert_followed(&client, &copy).await;
        assert_nothing_staged(&copy).await;
        following.stop().await;
        for database in ["bsonvault", "history", "left", "right", "marks", "short"] {
            copy.database(database).drop().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_first_copy_that_is_killed_after_it_was_read_back_is_replayed_again() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, copy, vault) = (source.client().await, target.client().await, Vault::new());
    fill_source(&client).await;
    let database = client.database("large");
    let clustered = doc! { "key": { "_id": 1 }, "unique": true, "name": "by id" };
    run(&database, doc! { "create": "clustered", "clusteredIndex": clustered }).await;
    run(&database, doc! { "createIndexes": "clustered", "indexes": [{ "key": { "n": 1 }, "name": "n" }] }).await;
    insert(&database, "clustered", (0..50).map(|n| doc! { "_id": n, "n": n })).await;
    target.slow_down(&["createIndexes"], 3_000).await;
    let following = follow(&vault, &source.uri(), &target, &SyncOptions::default());
    let parts = copy.database("bsonvault").collection::<Document>("sync.copy");
    while parts.find_one(doc! { "kind": "collection", "proven": true }).await.unwrap().is_none() {
        assert!(!following.work.is_finished(), "{:?}", following.work.await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_ne!(following.status.borrow().state, SyncState::Following, "it was too fast to be killed");
    following.kill().await;
    target.fail_no_more().await;
    change_source(&client, 5).await;
    let mut following = go_on(&vault, &source, &target, &SyncOptions::default()).await;
    let time = now(&client).await;
    following.reaches(time).await;
    assert_followed(&client, &copy).await;
    assert_nothing_staged(&copy).await;
    following.stop().await;
}

#[tokio::test]
async fn a_first_copy_waits_for_a_target_that_is_restarted() {
    let (source, mut target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, vault) = (source.client().await, Vault::new());
    fill_source(&client).await;
    let mut following = follow(&vault, &source.uri(), &target, &slowly());
    for round in 0..2 {
        let before = recorded(&target.client().await).await.len();
        while recorded(&target.client().await).await.len() < before + 3 {
            assert!(!following.work.is_finished(), "{:?}", following.work.await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        target.kill();
        change_source(&client, round).await;
        following.until(|status| status.state == SyncState::Waiting).await;
        target.restart().await;
        target.wait_writable().await;
        following.until(|status| status.state == SyncState::Copying).await;
    }
    let time = now(&client).await;
    following.reaches(time).await;
    assert_followed(&client, &target.client().await).await;
    assert_nothing_staged(&target.client().await).await;
    following.stop().await;
}

#[tokio::test]
async fn a_backup_is_kept_if_it_is_asked_for() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, vault) = (source.client().await, Vault::new());
    fill_source(&client).await;
    let options = SyncOptions { keep_backup: true, ..SyncOptions::default() };
    let mut following = follow(&vault, &source.uri(), &target, &options);
    change_source(&client, 3).await;
    let time = now(&client).await;
    following.reaches(time).await;
    assert_followed(&client, &target.client().await).await;
    following.stop().await;
    let listed = Catalog::new(vault.repository(), &vault.cx.cpu).list(chrono::Utc::now()).await.unwrap();
    assert_eq!(listed.len(), 1);
    vault.sound(&listed[0].name).await;

    // Another target begins with it, without a word to the source: only the oplog is read.
    let other = Server::standalone().await;
    let begun = source.admin(doc! { "serverStatus": 1 }).await.unwrap();
    let mut following = follow(&vault, &source.uri(), &other, &SyncOptions::default());
    following.until(|status| status.state == SyncState::Following).await;
    let ended = source.admin(doc! { "serverStatus": 1 }).await.unwrap();
    let scanned = |status: &Document| {
        let scanned = status.get_document("metrics").and_then(|m| m.get_document("queryExecutor")).unwrap();
        scanned.get_i64("scannedObjects").unwrap()
    };
    assert!(scanned(&ended) - scanned(&begun) < 2_000, "{} were read", scanned(&ended) - scanned(&begun));
    let time = now(&client).await;
    following.reaches(time).await;
    assert_followed(&client, &other.client().await).await;
    following.stop().await;
}

#[tokio::test]
async fn what_is_in_the_way_is_found_before_anything_is_copied() {
    let (source, target) = tokio::join!(Server::replica_set("followed"), Server::replica_set("copy"));
    let (client, copy, vault) = (source.client().await, target.client().await, Vault::new());
    fill_source(&client).await;
    insert(&copy.database("large"), "series", [doc! { "_id": "mine" }]).await;
    let options = SyncOptions { mode: ImportMode::Fail, ..slowly() };
    let error = refused(&vault, &source.uri(), &target, &options).await;
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("large.series"), "{error}");
    assert_nothing_staged(&copy).await;
    // In its place, once that is asked for.
    let replace = SyncOptions { mode: ImportMode::Replace, ..slowly() };
    let mut following = follow(&vault, &source.uri(), &target, &replace);
    let time = now(&client).await;
    following.reaches(time).await;
    assert_followed(&client, &copy).await;
    following.stop().await;
}
