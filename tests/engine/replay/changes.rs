//! Every possible change of a catalog, one by one.

use bson::{Document, doc};
use mongodb::{Client, Database};

pub(crate) async fn version(client: &Client) -> i32 {
    let build = client.database("admin").run_command(doc! { "buildInfo": 1 }).await.unwrap();
    build.get_array("versionArray").unwrap()[0].as_i32().unwrap()
}

/// The catalog when it is listed.
pub(crate) async fn before(client: &Client) {
    let db = client.database("cat");
    for name in ["kept", "log", "dropped", "reborn", "target", "source", "modified", "indexed", "building", "to_cap"] {
        db.collection(name).insert_many([doc! { "_id": 1, "x": 1 }, doc! { "_id": 2, "x": 1 }]).await.unwrap();
    }
    run(
        &db,
        doc! { "createIndexes": "indexed", "indexes": [
        { "key": { "a": 1 }, "name": "a" }, { "key": { "b": 1 }, "name": "b" }, { "key": { "c": 1 }, "name": "c" },
        { "key": { "d": 1 }, "name": "d", "expireAfterSeconds": 100 }] },
    )
    .await;
    run(&db, doc! { "create": "ordered", "capped": true, "size": 1 << 20 }).await;
    for view in ["v_kept", "v_changed", "v_dropped"] {
        run(&db, doc! { "create": view, "viewOn": "kept", "pipeline": [] }).await;
    }
    if version(client).await >= 5 {
        for name in ["ts_kept", "ts_dropped"] {
            run(&db, doc! { "create": name, "timeseries": { "timeField": "t", "metaField": "m" }, "expireAfterSeconds": 1_000_000_000 }).await;
            run(&db, doc! { "createIndexes": name, "indexes": [{ "key": { "m": 1, "t": -1 }, "name": "mt" }] }).await;
        }
    }
    client.database("gone").collection("a").insert_one(doc! { "_id": 1 }).await.unwrap();
}

/// The changes meanwhile.
pub(crate) async fn meanwhile(client: &Client) {
    let (db, admin) = (client.database("cat"), client.database("admin"));
    let version = version(client).await;
    let number = std::sync::atomic::AtomicI32::new(0);
    let one = |name: &str| {
        let collection = db.collection::<Document>(name);
        let id = format!("more {}", number.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        async move { collection.insert_one(doc! { "_id": id }).await.unwrap() }
    };
    // Names.
    run(&admin, doc! { "renameCollection": "cat.log", "to": "cat.log_old" }).await;
    one("log").await;
    one("log_old").await;
    db.collection::<Document>("dropped").drop().await.unwrap();
    db.collection::<Document>("reborn").drop().await.unwrap();
    run(&db, doc! { "create": "reborn", "collation": { "locale": "de" }, "validator": { "x": 1 } }).await;
    run(&admin, doc! { "renameCollection": "cat.source", "to": "cat.target", "dropTarget": true }).await;
    one("target").await;
    run(&admin, doc! { "renameCollection": "cat.target", "to": "elsewhere.target" }).await;
    for _ in 0..2 {
        let out = doc! { "aggregate": "kept", "pipeline": [{ "$out": "out" }], "cursor": {} };
        run(&db, out).await;
        run(&db, doc! { "createIndexes": "out", "indexes": [{ "key": { "x": 1 }, "name": "x" }] }).await;
    }
    run(&db, doc! { "convertToCapped": "to_cap", "size": 1 << 16 }).await;
    run(&db, doc! { "cloneCollectionAsCapped": "kept", "toCollection": "cloned", "size": 1 << 16 }).await;
    one("ordered").await;
    run(&admin, doc! { "renameCollection": "cat.ordered", "to": "cat.ordered_too" }).await;
    one("ordered_too").await;
    client.database("gone").drop().await.unwrap();
    client.database("come").collection("a").insert_one(doc! { "_id": 1 }).await.unwrap();
    client.database("both").collection("a").insert_one(doc! { "_id": 1 }).await.unwrap();
    client.database("both").drop().await.unwrap();
    client.database("both").collection("b").insert_one(doc! { "_id": 1 }).await.unwrap();
    // A temporary collection that never gets its final name.
    run(&db, doc! { "applyOps": [{ "op": "c", "ns": "cat.$cmd", "o": { "create": "passing", "temp": true } }] }).await;
    run(&db, doc! { "create": "tailed", "capped": true, "size": 4096, "max": 3 }).await;
    for i in 0..7 {
        db.collection::<Document>("tailed").insert_one(doc! { "_id": i }).await.unwrap();
    }

    // Indexes.
    run(&db, doc! { "createIndexes": "new", "indexes": [{ "key": { "x": 1 }, "name": "x", "unique": true }] }).await;
    run(&db, doc! { "createIndexes": "building", "indexes": [
        { "key": { "x": 1 }, "name": "x", "partialFilterExpression": { "x": { "$gt": 0 } } }, { "key": { "t": "text" }, "name": "t" },
        { "key": { "g": "2dsphere" }, "name": "g" }, { "key": { "$**": 1 }, "name": "all" },
        { "key": { "k": 1 }, "name": "k", "collation": { "locale": "fr" } }] }).await;
    let failing = doc! { "createIndexes": "kept", "indexes": [{ "key": { "x": 1 }, "name": "u", "unique": true }, { "key": { "y": 1 }, "name": "y" }] };
    db.run_command(failing).await.unwrap_err();
    run(&db, doc! { "dropIndexes": "indexed", "index": "a" }).await;
    run(&db, doc! { "dropIndexes": "indexed", "index": { "b": 1 } }).await;
    run(
        &db,
        doc! { "createIndexes": "kept", "indexes": [{ "key": { "y": 1 }, "name": "y" }, { "key": { "z": 1 }, "name": "z" }] },
    )
    .await;
    run(&db, doc! { "dropIndexes": "kept", "index": "*" }).await;
    run(&db, doc! { "collMod": "indexed", "index": { "name": "d", "expireAfterSeconds": 200 } }).await;
    run(&db, doc! { "collMod": "indexed", "index": { "keyPattern": { "c": 1 }, "hidden": true } }).await;
    run(&db, doc! { "collMod": "building", "index": { "name": "x", "hidden": true } }).await;
    run(&db, doc! { "collMod": "building", "index": { "name": "x", "hidden": false } }).await;

    // Options.
    run(&db, doc! { "collMod": "modified", "validator": { "x": { "$gt": 0 } } }).await;
    run(&db, doc! { "collMod": "modified", "validationLevel": "moderate" }).await;
    run(&db, doc! { "collMod": "reborn", "validator": {}, "validationAction": "warn" }).await;
    run(&db, doc! { "collMod": "kept", "recordPreImages": true }).await;
    run(&db, doc! { "collMod": "log", "recordPreImages": true }).await;
    run(&db, doc! { "collMod": "log", "recordPreImages": false }).await;

    // Views.
    run(
        &db,
        doc! { "create": "v_new", "viewOn": "kept", "pipeline": [{ "$match": { "x": 1 } }], "collation": { "locale": "fr" } },
    )
    .await;
    run(&db, doc! { "collMod": "v_changed", "viewOn": "log", "pipeline": [{ "$match": { "x": 2 } }] }).await;
    db.collection::<Document>("v_dropped").drop().await.unwrap();
    run(&db, doc! { "create": "dropped", "viewOn": "v_kept", "pipeline": [] }).await;

    // Transactions that create collections.
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    db.collection::<Document>("in_transaction").insert_one(doc! { "_id": 1 }).session(&mut session).await.unwrap();
    let index = doc! { "createIndexes": "in_transaction_too", "indexes": [{ "key": { "x": 1 }, "name": "x" }] };
    db.run_command(index).session(&mut session).await.unwrap();
    session.commit_transaction().await.unwrap();

    if version >= 5 {
        db.collection::<Document>("ts_dropped").drop().await.unwrap();
        run(&db, doc! { "create": "ts_new", "timeseries": { "timeField": "t", "metaField": "m", "granularity": "minutes" } })
            .await;
        let measurements = |n: i64| {
            let at = move |i: i64| bson::DateTime::from_millis(1_700_000_000_000 + (n * 100 + i) * 1000);
            (0..20).map(move |i| doc! { "t": at(i), "m": i % 2, "v": i })
        };
        for name in ["ts_new", "ts_kept"] {
            for n in 0..3 {
                db.collection::<Document>(name).insert_many(measurements(n)).await.unwrap();
            }
            run(&db, doc! { "createIndexes": name, "indexes": [{ "key": { "t": 1 }, "name": "t" }, { "key": { "m.a": -1, "t": 1 }, "name": "m.a" }] }).await;
        }
        run(&db, doc! { "collMod": "ts_kept", "timeseries": { "granularity": "hours" } }).await;
        run(&db, doc! { "collMod": "ts_kept", "expireAfterSeconds": 1_500_000_000_i64 }).await;
        run(&db, doc! { "collMod": "ts_new", "expireAfterSeconds": 1_500_000_000_i64 }).await;
        run(&db, doc! { "collMod": "ts_new", "expireAfterSeconds": "off" }).await;
        run(&db, doc! { "dropIndexes": "ts_kept", "index": "mt" }).await;
    }
    if version >= 6 {
        run(
            &db,
            doc! { "createIndexes": "ts_new", "indexes": [
            { "key": { "v": -1, "m": 1 }, "name": "v" }, { "key": { "w": "2dsphere" }, "name": "w" },
            { "key": { "v": 1 }, "name": "partial", "partialFilterExpression": { "v": { "$gt": 5 } } }] },
        )
        .await;
        run(&db, doc! { "collMod": "ts_new", "index": { "name": "t", "hidden": true } }).await;
        run(&db, doc! { "create": "clustered", "clusteredIndex": { "key": { "_id": 1 }, "unique": true, "name": "mine" }, "expireAfterSeconds": 1_000_000_000 }).await;
        one("clustered").await;
        run(&db, doc! { "collMod": "clustered", "expireAfterSeconds": 1_500_000_000_i64 }).await;
        run(&db, doc! { "collMod": "modified", "changeStreamPreAndPostImages": { "enabled": true } }).await;
        run(&db, doc! { "create": "images", "changeStreamPreAndPostImages": { "enabled": true } }).await;
        run(&db, doc! { "collMod": "images", "changeStreamPreAndPostImages": { "enabled": false } }).await;
        run(&db, doc! { "collMod": "ordered_too", "cappedSize": 1 << 21, "cappedMax": 1000 }).await;
        run(&db, doc! { "collMod": "new", "index": { "name": "x", "prepareUnique": true } }).await;
        run(&db, doc! { "createIndexes": "log_old", "indexes": [{ "key": { "u": 1 }, "name": "u", "prepareUnique": true }, { "key": { "p": 1 }, "name": "p" }] }).await;
        run(&db, doc! { "collMod": "log_old", "index": { "name": "p", "expireAfterSeconds": 500 } }).await;
        run(&db, doc! { "createIndexes": "out", "indexes": [{ "key": { "w": 1 }, "name": "w" }] }).await;
        run(&db, doc! { "collMod": "out", "index": { "name": "w", "prepareUnique": true } }).await;
    }
}

async fn run(db: &Database, command: Document) {
    let shown = command.to_string();
    db.run_command(command).await.unwrap_or_else(|e| panic!("{shown}: {e}"));
}
