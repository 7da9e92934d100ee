//! `dump` and `restore` with the flags that scripts give to mongodump and mongorestore.

use bson::{Document, doc};
use mongodb::Client;

use super::empty;
use super::expected::differences;

use crate::support::cli::{Cli, Output};
use crate::support::compare::CompareOptions;
use crate::support::data::assert_same;
use crate::support::files::{names, sample};
use crate::support::server::Server;

async fn succeed(cli: &Cli, args: &[&str]) -> Output {
    let output = cli.run(args).await;
    assert_eq!(output.code, Some(0), "{args:?}: {}\n{}", output.stdout, output.stderr);
    output
}

async fn collections(client: &Client, database: &str) -> Vec<String> {
    let mut names = client.database(database).list_collection_names().await.unwrap();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_dumps_and_restores_does_so_under_the_other_name() {
    let (source, target) = (Server::replica_set("source").await, Server::standalone().await);
    let (from, to) = (source.client().await, target.client().await);
    for (database, collection) in [("shop", "orders"), ("shop", "items"), ("log", "lines")] {
        let documents = (0..500).map(|n| doc! { "_id": n, "text": "x".repeat(n as usize % 90) });
        from.database(database).collection(collection).insert_many(documents).await.unwrap();
    }
    from.database("shop").collection::<Document>("nothing").insert_one(doc! {}).await.unwrap();
    from.database("shop").collection::<Document>("nothing").delete_many(doc! {}).await.unwrap();
    let (cli, source, target) = (Cli::new(), source.uri(), target.uri());
    for gzip in [&[][..], &["--gzip"]] {
        // A directory, with the default name.
        let output = succeed(&cli, &[&["dump", "--uri", &source, "--quiet"], gzip].concat()).await;
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
        succeed(&cli, &[&["restore", "--uri", &target, "--drop", "--quiet"], gzip].concat()).await;
        assert_same(&from, &to, CompareOptions::default()).await;
        empty(&to).await;

        // An archive through a pipe.
        let mut dump = cli.command(&[&["dump", "--uri", &source, "--archive", "--oplog"], gzip].concat());
        let mut dump = dump.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
        let mut restore = cli.command(&[&["restore", "--uri", &target, "--archive", "--oplogReplay", "-j", "2"], gzip].concat());
        restore.stdin(dump.stdout.take().unwrap());
        let output = tokio::task::spawn_blocking(move || restore.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(tokio::task::spawn_blocking(move || dump.wait()).await.unwrap().unwrap().success());
        assert_same(&from, &to, CompareOptions::default()).await;
        empty(&to).await;
    }
    // One database after the other into one directory, as scripts do; files of other databases
    // stay.
    succeed(&cli, &["dump", "--uri", &source, "-d", "shop", "-o", "out"]).await;
    succeed(&cli, &["dump", "--uri", &source, "-d", "log", "-o", "out"]).await;
    from.database("log").collection("lines").insert_one(doc! { "_id": "late" }).await.unwrap();
    succeed(&cli, &["dump", "--uri", &source, "--db", "log", "--collection", "lines", "--out", "out"]).await;
    succeed(&cli, &["restore", "--uri", &target, "out"]).await;
    assert_same(&from, &to, CompareOptions::default()).await;
    // Nothing else is left in the working directory.
    assert_eq!(names(cli.dir()), ["dump", "out"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_chooses_and_renames_as_mongorestore_does() {
    let server = Server::standalone().await;
    let (client, cli, uri) = (server.client().await, Cli::new(), server.uri());
    let (dir, archive) = (sample("dir").display().to_string(), format!("--archive={}", sample("all.archive.gz").display()));
    let restore =
        |args: &[&str]| -> Vec<String> { ["restore", "--uri", &uri].iter().chain(args).map(|s| (*s).to_owned()).collect() };
    let run = async |args: &[&str]| cli.run(&restore(args)).await;

    // For an archive, they are a filter. For the directory of one database, the first is its name.
    // For a file, they are both names.
    assert_eq!(run(&[&archive, "-d", "zoo_bulk", "-c", "ints"]).await.code, Some(0));
    assert_eq!(collections(&client, "zoo_bulk").await, ["ints"]);
    assert_eq!(run(&["-d", "other", &format!("{dir}/zoo_bulk")]).await.code, Some(0));
    assert_eq!(collections(&client, "other").await.len(), 8);
    assert_eq!(run(&["-d", "o", "-c", "p", &format!("{dir}/zoo_names/with+space.bson")]).await.code, Some(0));
    assert_eq!(collections(&client, "o").await, ["p"]);
    // They do not select the only database of a dump.
    let one = tempfile::tempdir().unwrap();
    std::fs::create_dir(one.path().join("test")).unwrap();
    std::fs::copy(sample("dir/zoo_bulk/ints.bson"), one.path().join("test/c.bson")).unwrap();
    let root = one.path().to_str().unwrap();
    let output = run(&["-d", "other", "--drop", root]).await;
    assert_eq!(output.code, Some(1), "{}", output.stdout);
    assert_eq!(collections(&client, "other").await.len(), 8);
    // The directory's name is not a valid database name.
    let dotted = one.path().join("2024.05.01");
    std::fs::rename(one.path().join("test"), &dotted).unwrap();
    assert_eq!(run(&["-d", "dotted", dotted.to_str().unwrap()]).await.code, Some(0));
    assert_eq!(run(&["-d", "dotted", "-c", "d", dotted.join("c.bson").to_str().unwrap()]).await.code, Some(0));
    assert_eq!(collections(&client, "dotted").await, ["c", "d"]);
    std::fs::create_dir(dotted.join("old")).unwrap();
    std::fs::copy(sample("dir/zoo_bulk/ints.bson"), dotted.join("old/c.bson")).unwrap();
    let output = run(&["-d", "dotted", dotted.to_str().unwrap()]).await;
    assert!(output.code == Some(2) && output.stderr.contains("it is unclear"), "{}", output.stderr);
    // Patterns, variables, and patterns without a match.
    let rename = ["--nsInclude", "zoo_bulk.*", "--nsFrom", "zoo_$a$.$b$", "--nsTo", "new_$a$.old_$b$", "--nsExclude", "nobody.*"];
    assert_eq!(run(&[&rename[..], &[dir.as_str()]].concat()).await.code, Some(0));
    assert!(collections(&client, "new_bulk").await.contains(&"old_ints".to_owned()));
    // Everything over existing data; and once more without --drop, which changes nothing.
    empty(&client).await;
    client.database("zoo").collection("people").insert_one(doc! { "_id": "old" }).await.unwrap();
    assert_eq!(run(&["--drop", "--dryRun", &dir]).await.code, Some(0));
    assert_eq!(collections(&client, "zoo").await, ["people"]);
    assert_eq!(run(&["--drop", &dir]).await.code, Some(0));
    assert_eq!(differences(&client, &[]).await, Vec::<String>::new());
    // It reports that it cannot do so for existing capped collections, time series and views.
    let names_only = ["--nsInclude", "zoo_names.*"];
    assert_eq!(run(&[&names_only[..], &[dir.as_str()]].concat()).await.code, Some(0));
    let output = run(&[&dir]).await;
    assert!(output.stderr.contains("zoo.capped (capped)") && output.stderr.contains("--drop"), "{}", output.stderr);
    assert!(
        output.stderr.contains("error: without --drop, documents cannot be added to existing collections"),
        "{}",
        output.stderr
    );
    assert_eq!(differences(&client, &[]).await, Vec::<String>::new());
}

/// Nothing is silently ignored: an unsupported flag is refused by name.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_supported_is_refused_by_name() {
    let (cli, dir) = (Cli::new(), sample("dir").display().to_string());
    let none = "mongodb://127.0.0.1:9/";
    for (args, named) in [
        (vec!["dump", "--uri", none, "--query", "{}"], "--collection"),
        (vec!["dump", "--uri", none, "-d", "x", "-c", "y", "-q", "{a: }"], "--query"),
        (vec!["dump", "--uri", none, "--viewsAsCollections", "--oplog"], "--viewsAsCollections"),
        (vec!["dump", "--uri", none, "--dumpDbUsersAndRoles"], "--dumpDbUsersAndRoles"),
        (vec!["dump", "--uri", none, "-d", "x", "--oplog"], "--oplog"),
        (vec!["dump", "--uri", none, "-c", "x"], "--db"),
        (vec!["dump", "--uri", none, "--out", "-"], "--out -"),
        (vec!["restore", "--uri", none, "--preserveUUID", &dir], "--preserveUUID"),
        (vec!["restore", "--uri", none, "--writeConcern", "{w: 3}", &dir], "--writeConcern"),
        (vec!["restore", "--uri", none, "--oplogFile", "x", &dir], "--oplogFile"),
        (vec!["restore", "--uri", none, "--oplogLimit", "yesterday", &dir], "yesterday"),
        (vec!["restore", "--uri", none, "-c", "x", &dir], "--db"),
        (vec!["restore", none, "--archive=x", &dir], "--archive"),
        (vec!["dump", none, "--repair"], "--repair"),
        (vec!["dump", none, "--sslFIPSMode"], "--sslFIPSMode"),
        (vec!["dump", none, "--authenticationMechanism=GSSAPI"], "GSSAPI"),
        (vec!["dump", "mongodb://127.0.0.1:9/shop", "-d", "crm"], "--db"),
        (vec!["dump", "mongodb://127.0.0.1:9/shop", "--oplog"], "--oplog"),
        (vec!["dump", none, "-d", "x", "-c", "y", "--excludeCollection", "z"], "--excludeCollection"),
        (vec!["dump", none, "--excludeCollectionsWithPrefix", "z"], "--db"),
        (vec!["dump", none, "--out", "x", "--archive"], "--archive"),
        (vec!["dump", none, "-d", "x", "-c", "y", "--out", "-", "--gzip"], "--gzip"),
        (vec!["dump", none, "--readPreference", "leader"], "--readPreference"),
        (vec!["restore", "--uri", none, "--oplogReplay", &dir], "--oplogReplay"),
        (vec!["restore", "--uri", none, "-d", "x", "--restoreDbUsersAndRoles", &dir], "--restoreDbUsersAndRoles"),
        (vec!["restore", "--uri", none, "--nsFrom", "a.*", &dir], "--nsFrom"),
        (vec!["restore", "--uri", none, "-"], "standard input"),
        (vec!["restore", "--uri", "mongodb://127.0.0.1:9/a", "-d", "b", &dir], "path"),
        (vec!["dump", "--uri", none, "-h", "x"], "--host"),
        (vec!["dump", "-u", "x"], "--password"),
    ] {
        let output = cli.run(&args).await;
        assert_eq!(output.code, Some(2), "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains(named), "{args:?}: {}", output.stderr);
    }
    // No error shows a secret.
    for args in [
        vec!["dump", "-u", "x", "-psecret", "word"],
        vec!["dump", "mongodb://x:secret@127.0.0.1:9/", "-p", "other"],
        vec!["dump", "mongodb://x:secret@127.0.0.1:9/", "--nonsense"],
        vec!["restore", "mongodb://127.0.0.1:9/", "--sslPEMKeyPassword", "secret", "--dbpath", "x"],
    ] {
        let output = cli.run(&args).await;
        assert_eq!(output.code, Some(2), "{args:?}: {}", output.stderr);
        assert!(!format!("{}{}", output.stdout, output.stderr).contains("secret"), "{args:?}: {}", output.stderr);
    }
}

/// Fills a database for the flags that change the content of a dump or how it is restored.
async fn fill(client: &Client) {
    let shop = client.database("shop");
    let numbered = |many: i32| (0..many).map(|n| doc! { "_id": n, "a": { "b": n } });
    for name in ["orders", "tmp_1", "tmp_2", "tm"] {
        shop.collection(name).insert_many(numbered(10)).await.unwrap();
    }
    shop.run_command(doc! { "create": "log", "capped": true, "size": 65536, "validator": { "_id": { "$gte": 0 } } })
        .await
        .unwrap();
    shop.collection("log").insert_many(numbered(10)).await.unwrap();
    let index = doc! { "key": { "a.b": "hashed" }, "name": "h" };
    shop.run_command(doc! { "createIndexes": "orders", "indexes": [index] }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_of_scripts_do_here_what_they_do_there() {
    let (source, target) = (Server::standalone().await, Server::standalone().await);
    let (from, to) = (source.client().await, target.client().await);
    fill(&from).await;
    let (cli, port) = (Cli::new(), source.port().to_string());
    let target_server = target;
    let (source, target) = (source.uri(), target_server.uri());
    std::fs::write(cli.dir().join("config.yaml"), format!("uri: \"{source}\"\n")).unwrap();

    // A flag without effect is reported once, unless --quiet is given.
    let said = |output: &Output| output.stderr.matches("without effect").count();
    let host = ["dump", "-h127.0.0.1", "--port", &port, "-dshop", "-vv", "--forceTableScan", "--numThreads=2"];
    let output = succeed(&cli, &[&host[..], &["--excludeCollectionsWithPrefix", "tmp", "-ofirst", "--gzip"]].concat()).await;
    assert_eq!((said(&output), output.stderr.contains("--forceTableScan, ")), (1, false), "{}", output.stderr);
    assert!(output.stderr.contains("--forceTableScan") && output.stderr.contains("DEBUG"), "{}", output.stderr);
    assert_eq!(
        names(&cli.dir().join("first/shop")),
        ["log.bson.gz", "log.metadata.json.gz", "orders.bson.gz", "orders.metadata.json.gz", "tm.bson.gz", "tm.metadata.json.gz"]
    );
    let quiet = [
        "dump",
        "--config",
        "config.yaml",
        "-d",
        "crm",
        "-d",
        "shop",
        "-c",
        "orders",
        "--out",
        "one",
        "--quiet",
        "--forceTableScan",
    ];
    assert_eq!(succeed(&cli, &quiet).await.stderr, "");
    succeed(&cli, &["dump", &source, "-dshop", "--excludeCollection", "log", "--excludeCollection=orders", "-oless"]).await;
    let less = names(&cli.dir().join("less/shop")).len();
    assert_eq!(less, 2 * ["tm", "tmp_1", "tmp_2"].len());
    let output = cli.run(&["dump", &source, "--oplog", "-o", "none"]).await;
    assert!(output.code == Some(1) && output.stderr.contains("it is not a replica set"), "{output:?}");
    assert!(!cli.dir().join("none").exists());
    assert!(succeed(&cli, &["dump", "--version"]).await.stdout.contains(env!("CARGO_PKG_VERSION")));

    // The documents of one collection, from one to the other.
    let mut dump = cli.command(&["dump", &source, "-d", "shop", "-c", "orders", "-o", "-"]);
    let mut dump = dump.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut restore =
        cli.command(&["restore", &target, "-d", "shop", "-c", "piped", "-", "--batchSize=10", "--writeConcern", "{w: 1}"]);
    restore.stdin(dump.stdout.take().unwrap());
    let output = tokio::task::spawn_blocking(move || restore.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(tokio::task::spawn_blocking(move || dump.wait()).await.unwrap().unwrap().success());
    assert_eq!(to.database("shop").collection::<Document>("piped").count_documents(doc! {}).await.unwrap(), 10);

    // Flags that change the restore.
    let altered = ["--noOptionsRestore", "--fixDottedHashIndex", "--maintainInsertionOrder", "--keepIndexVersion"];
    succeed(&cli, &[&["restore", &target, "--drop", "first"], &altered[..]].concat()).await;
    let listed = to.database("shop").run_command(doc! { "listCollections": 1, "filter": { "name": "log" } }).await.unwrap();
    let options = listed.get_document("cursor").unwrap().get_array("firstBatch").unwrap()[0].as_document().unwrap();
    assert_eq!(options.get_document("options").unwrap(), &doc! {});
    let indexes = to.database("shop").run_command(doc! { "listIndexes": "orders" }).await.unwrap();
    assert!(!indexes.to_string().contains("hashed") && indexes.to_string().contains("a.b"), "{indexes}");
    assert_eq!(collections(&to, "shop").await, ["log", "orders", "piped", "tm"]);
    to.database("shop").drop().await.unwrap();
    let some = ["--excludeCollection", "log", "--excludeCollectionsWithPrefix", "t", "--noIndexRestore", "first"];
    let output = succeed(&cli, &[&["restore", &target][..], &some].concat()).await;
    assert_eq!(collections(&to, "shop").await, ["orders"], "{}", output.stdout);
    assert_eq!(to.database("shop").collection::<Document>("orders").list_index_names().await.unwrap(), ["_id_"]);

    // In the order of the dump, however late the first command is.
    let pad = "x".repeat(5_000_000);
    let large: Vec<u8> = (0..6).rev().flat_map(|n| doc! { "_id": n, "pad": &pad }.to_vec().unwrap()).collect();
    std::fs::write(cli.dir().join("large.bson"), large).unwrap();
    let late = doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 700, "appName": "bsonvault" };
    target_server.fail_command(doc! { "times": 1 }, late).await;
    let ordered =
        ["-d", "shop", "-c", "large", "--maintainInsertionOrder", "--numInsertionWorkersPerCollection", "4", "large.bson"];
    succeed(&cli, &[&["restore", &target][..], &ordered].concat()).await;
    let stored =
        to.database("shop").run_command(doc! { "find": "large", "sort": { "$natural": 1 }, "projection": { "_id": 1 } }).await;
    let stored = stored.unwrap().get_document("cursor").unwrap().get_array("firstBatch").unwrap().clone();
    let stored: Vec<i32> = stored.iter().map(|d| d.as_document().unwrap().get_i32("_id").unwrap()).collect();
    assert_eq!(stored, [5, 4, 3, 2, 1, 0]);

    // Documents that are not added are an error on request, and are counted otherwise.
    let again = ["restore", &target, "--nsInclude", "shop.tm", "--excludeCollection", "nobody", "first"];
    succeed(&cli, &again).await;
    let output = cli.run(&again).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("0 documents added in 1 collection, 10 existed already"), "{}", output.stdout);
    assert!(!output.stdout.contains("the same"), "nothing is compared with what stands there: {}", output.stdout);
    // A document that is gone meanwhile is restored, and no other is touched.
    to.database("shop").collection::<Document>("tm").find_one_and_delete(doc! {}).await.unwrap();
    let report = cli.json(&again).await;
    assert_eq!((&report["added"], &report["notAdded"], &report["collections"][0]["added"]), (&1.into(), &9.into(), &1.into()));
    let output = cli.run(&[&again[..], &["--stopOnError"]].concat()).await;
    assert!(output.code == Some(1) && output.stderr.contains("10 documents were not added"), "{}", output.stderr);
}

/// With a query, or for views, the dump holds exactly the selected documents, with one consistency
/// point if the source allows that.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_and_views_are_dumped_as_mongodump_does() {
    let (source, target) = (Server::replica_set("source").await, Server::standalone().await);
    let (from, to, cli) = (source.client().await, target.client().await, Cli::new());
    let (source, target) = (source.uri(), target.uri());
    let shop = from.database("shop");
    let documents = (0..3000_i64).map(|n| doc! { "_id": n, "s": { "y": n % 7, "x": 1 }, "at": bson::DateTime::from_millis(n) });
    shop.collection("orders").insert_many(documents).await.unwrap();
    shop.run_command(doc! { "createIndexes": "orders", "indexes": [{ "key": { "at": 1 }, "name": "at_1" }] }).await.unwrap();
    let pipeline = vec![doc! { "$match": { "_id": { "$lt": 5 } } }, doc! { "$project": { "n": "$at" } }];
    shop.run_command(doc! { "create": "first", "viewOn": "orders", "pipeline": pipeline }).await.unwrap();

    let query = r#"{"s": {"y": 3, "x": 1}, "at": {"$gte": {"$date": "1970-01-01T00:00:01Z"}}}"#;
    let output = succeed(&cli, &["dump", &source, "-d", "shop", "-c", "orders", "-q", query, "-o", "some", "--json"]).await;
    let matching = (1000..3000).filter(|n| n % 7 == 3).count() as u64;
    let told = output.json();
    assert_eq!((told["documents"].as_u64(), told["consistency"]["kind"].as_str()), (Some(matching), Some("snapshot")), "{told}");
    succeed(&cli, &["restore", &target, "some"]).await;
    let orders = to.database("shop").collection::<Document>("orders");
    assert_eq!(orders.count_documents(doc! {}).await.unwrap(), matching);
    assert_eq!(orders.count_documents(doc! { "s": { "y": 3_i64, "x": 1 }, "_id": { "$gte": 1000 } }).await.unwrap(), matching);
    assert_eq!(orders.list_index_names().await.unwrap().len(), 2);

    std::fs::write(cli.dir().join("query.json"), r#"{"_id": {"$lt": {"$numberInt": "2"}}}"#).unwrap();
    for (view, query, many) in [("all", &[][..], 5), ("two", &["-c", "first", "--queryFile", "query.json"], 2)] {
        succeed(&cli, &[&["dump", &source, "-dshop", "--viewsAsCollections", "--out", view][..], query].concat()).await;
        let name = format!("views.{view}");
        succeed(&cli, &["restore", &target, "--drop", "--nsFrom", "shop.first", "--nsTo", &name, view]).await;
        assert_eq!(to.database("views").collection::<Document>(view).count_documents(doc! {}).await.unwrap(), many);
    }
    assert_eq!(collections(&to, "views").await, ["all", "two"]);
    // Other files of a database stay if only a part of it is dumped.
    succeed(&cli, &["dump", &source, "-dshop", "--viewsAsCollections", "--out", "some"]).await;
    assert!(cli.dir().join("some/shop/orders.bson").exists());
    let output = cli.run(&["dump", &source, "-dshop", "-c", "first", "-q", "{}"]).await;
    assert!(output.code == Some(2) && output.stderr.contains("it is a view"), "{}", output.stderr);
    let output = cli.run(&["dump", &source, "-dshop", "-c", "orders", "-q", r#"{"$nonsense": 1}"#]).await;
    assert!(output.code == Some(1) && output.stderr.contains("$nonsense"), "{}", output.stderr);
    assert!(!cli.dir().join("dump").exists());
}
