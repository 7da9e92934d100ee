//! `dump` and `restore`: what scripts say to mongodump and mongorestore.

use bson::{Document, doc};
use mongodb::Client;

use super::expected::differences;
use super::support::cli::{Cli, Output};
use super::support::compare::CompareOptions;
use super::support::server::Server;
use super::support::vault::assert_same;
use super::{empty, sample};

async fn succeed(cli: &Cli, args: &[&str]) -> Output {
    let output = cli.run(args).await;
    assert_eq!(output.code, Some(0), "{args:?}: {}\n{}", output.stdout, output.stderr);
    output
}

async fn names(client: &Client, database: &str) -> Vec<String> {
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
        // A directory, and the default name of it.
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
    // One database after the other into one directory, as scripts do; what was there of another stays.
    succeed(&cli, &["dump", "--uri", &source, "-d", "shop", "-o", "out"]).await;
    succeed(&cli, &["dump", "--uri", &source, "-d", "log", "-o", "out"]).await;
    from.database("log").collection("lines").insert_one(doc! { "_id": "late" }).await.unwrap();
    succeed(&cli, &["dump", "--uri", &source, "--db", "log", "--collection", "lines", "--out", "out"]).await;
    succeed(&cli, &["restore", "--uri", &target, "out"]).await;
    assert_same(&from, &to, CompareOptions::default()).await;
    // And nothing else is left where it ran.
    let mut left: Vec<_> = std::fs::read_dir(cli.dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["dump", "out"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_chooses_and_renames_as_mongorestore_does() {
    let server = Server::standalone().await;
    let (client, cli, uri) = (server.client().await, Cli::new(), server.uri());
    let (dir, archive) = (sample("dir").display().to_string(), format!("--archive={}", sample("all.archive.gz").display()));
    let restore =
        |args: &[&str]| -> Vec<String> { ["restore", "--uri", &uri].iter().chain(args).map(|s| (*s).to_owned()).collect() };
    let run = async |args: &[&str]| cli.run(&restore(args)).await;

    // An archive: a filter. The directory of one database: its name. A file: both names.
    assert_eq!(run(&[&archive, "-d", "zoo_bulk", "-c", "ints"]).await.code, Some(0));
    assert_eq!(names(&client, "zoo_bulk").await, ["ints"]);
    assert_eq!(run(&["-d", "other", &format!("{dir}/zoo_bulk")]).await.code, Some(0));
    assert_eq!(names(&client, "other").await.len(), 8);
    assert_eq!(run(&["-d", "o", "-c", "p", &format!("{dir}/zoo_names/with+space.bson")]).await.code, Some(0));
    assert_eq!(names(&client, "o").await, ["p"]);
    // Not the one database that a dump happens to hold.
    let one = tempfile::tempdir().unwrap();
    std::fs::create_dir(one.path().join("test")).unwrap();
    std::fs::copy(sample("dir/zoo_bulk/ints.bson"), one.path().join("test/c.bson")).unwrap();
    let root = one.path().to_str().unwrap();
    let output = run(&["-d", "other", "--drop", root]).await;
    assert_eq!(output.code, Some(1), "{}", output.stdout);
    assert_eq!(names(&client, "other").await.len(), 8);
    // Where the directory's name cannot be a database's.
    let dotted = one.path().join("2024.05.01");
    std::fs::rename(one.path().join("test"), &dotted).unwrap();
    assert_eq!(run(&["-d", "dotted", dotted.to_str().unwrap()]).await.code, Some(0));
    assert_eq!(run(&["-d", "dotted", "-c", "d", dotted.join("c.bson").to_str().unwrap()]).await.code, Some(0));
    assert_eq!(names(&client, "dotted").await, ["c", "d"]);
    std::fs::create_dir(dotted.join("old")).unwrap();
    std::fs::copy(sample("dir/zoo_bulk/ints.bson"), dotted.join("old/c.bson")).unwrap();
    let output = run(&["-d", "dotted", dotted.to_str().unwrap()]).await;
    assert!(output.code == Some(2) && output.stderr.contains("cannot be told"), "{}", output.stderr);
    // Patterns, variables, what matches nothing.
    let rename = ["--nsInclude", "zoo_bulk.*", "--nsFrom", "zoo_$a$.$b$", "--nsTo", "new_$a$.old_$b$", "--nsExclude", "nobody.*"];
    assert_eq!(run(&[&rename[..], &[dir.as_str()]].concat()).await.code, Some(0));
    assert!(names(&client, "new_bulk").await.contains(&"old_ints".to_owned()));
    // Everything, over what is there; and once more without --drop, which changes nothing.
    empty(&client).await;
    client.database("zoo").collection("people").insert_one(doc! { "_id": "old" }).await.unwrap();
    assert_eq!(run(&["--drop", "--dryRun", &dir]).await.code, Some(0));
    assert_eq!(names(&client, "zoo").await, ["people"]);
    assert_eq!(run(&["--drop", &dir]).await.code, Some(0));
    assert_eq!(differences(&client, &[]).await, Vec::<String>::new());
    // Of capped collections, time series and views that are there, it says that it cannot.
    let names_only = ["--nsInclude", "zoo_names.*"];
    assert_eq!(run(&[&names_only[..], &[dir.as_str()]].concat()).await.code, Some(0));
    let output = run(&[&dir]).await;
    assert!(output.stderr.contains("zoo.capped (capped)") && output.stderr.contains("--drop"), "{}", output.stderr);
    assert_eq!(differences(&client, &[]).await, Vec::<String>::new());
}

/// Nothing is ignored: it is refused by its name.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_supported_is_refused_by_name() {
    let (cli, dir) = (Cli::new(), sample("dir").display().to_string());
    let none = "mongodb://127.0.0.1:9/";
    for (args, named) in [
        (vec!["dump", "--uri", none, "--query", "{}"], "--query"),
        (vec!["dump", "--uri", none, "--viewsAsCollections"], "--viewsAsCollections"),
        (vec!["dump", "--uri", none, "--dumpDbUsersAndRoles"], "--dumpDbUsersAndRoles"),
        (vec!["dump", "--uri", none, "-d", "x", "--oplog"], "--oplog"),
        (vec!["dump", "--uri", none, "-c", "x"], "--db"),
        (vec!["dump", "--uri", none, "--out", "-"], "--out -"),
        (vec!["restore", "--uri", none, "--preserveUUID", &dir], "--preserveUUID"),
        (vec!["restore", "--uri", none, "--writeConcern", "{w:1}", &dir], "--writeConcern"),
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
}
