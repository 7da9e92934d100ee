//! Imports are atomic per collection. Whatever fails, and whenever, every collection of the target
//! is the old one or the new one. The next import succeeds and leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use bson::{DateTime, Document, doc, rawdoc};
use bsonvault::engine::import::{ImportMode, ImportOptions, IndexMode};
use bsonvault::error::ErrorKind;
use bsonvault::format::manifest::RawValue;
use bsonvault::repository::catalog::Backup;
use futures::TryStreamExt as _;
use mongodb::{Client, Database};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::cli::Cli;
use crate::support::compare::CompareOptions;
use crate::support::data::{assert_same, documents, insert, numbered, only};
use crate::support::on_disk::OnDisk as _;
use crate::support::server::{ReplicaSet, Server, ServerOptions};
use crate::support::vault::{Vault, matching, with_manifest};
use crate::support::zoo::{self, ZooOptions};

/// Every command that an import may send, to make each fail.
const COMMANDS: [&str; 17] = [
    "find",
    "getMore",
    "insert",
    "update",
    "delete",
    "findAndModify",
    "create",
    "drop",
    "dropIndexes",
    "createIndexes",
    "listCollections",
    "listIndexes",
    "listDatabases",
    "renameCollection",
    "applyOps",
    "collMod",
    "count",
];

/// Short, so that leftovers of a dead import can be taken over at once.
const LEASE: Duration = Duration::from_millis(60);

fn quick() -> ImportOptions {
    ImportOptions { lease: Some(LEASE), ..ImportOptions::default() }
}

/// Each collection, time series and view of a database with its content, in a form that shows any
/// change except in UUIDs.
async fn states(database: &Database) -> BTreeMap<String, String> {
    let infos: Vec<Document> =
        database.run_cursor_command(doc! { "listCollections": 1 }).await.unwrap().try_collect().await.unwrap();
    let mut states = BTreeMap::new();
    for info in infos {
        let name = info.get_str("name").unwrap().to_owned();
        if name.starts_with("system.") && name != "system.js" {
            continue;
        }
        let mut state = format!("{} {}", info.get_str("type").unwrap(), info.get_document("options").unwrap());
        if !name.starts_with("bsonvault.") && !info.get_str("type").is_ok_and(|kind| kind == "view") {
            let indexes = doc! { "listIndexes": &name };
            let mut indexes: Vec<String> = match database.run_cursor_command(indexes).await {
                Ok(found) => found.try_collect::<Vec<Document>>().await.unwrap().iter().map(ToString::to_string).collect(),
                // A time series whose buckets are on their way.
                Err(e) => vec![e.to_string()],
            };
            indexes.sort();
            let mut documents: Vec<Vec<u8>> = documents(database, &name).await.iter().map(|d| d.as_bytes().to_vec()).collect();
            if name == "series" {
                // Servers return the fields of measurements in any order.
                for document in &mut documents {
                    let fields: BTreeMap<String, bson::Bson> = bson::deserialize_from_slice(document).unwrap();
                    *document = format!("{fields:?}").into_bytes();
                }
            }
            documents.sort();
            let mut hasher = std::hash::DefaultHasher::new();
            documents.hash(&mut hasher);
            state += &format!(" {indexes:?} {} documents {:x}", documents.len(), hasher.finish());
        }
        states.insert(name, state);
    }
    states
}

/// Checks that every collection is the old one or the new one, and that nothing else exists except
/// the import's own records.
fn assert_old_or_new(
    found: &BTreeMap<String, String>,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
    when: &str,
) {
    for name in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
        let state = found.get(name);
        // A time series, or a collection that replaces another kind, cannot be swapped in one step:
        // the old one is dropped, and the record tells what comes.
        let gone_on_the_way = state.is_none() && (["series", "system.js"].contains(&name.as_str()) || name.starts_with("kind"));
        assert!(
            state == old.get(name) || state == new.get(name) || gone_on_the_way,
            "{when}: {name} is neither the old one nor the new one: {state:?}\nold {:?}\nnew {:?}",
            old.get(name),
            new.get(name)
        );
    }
}

fn own(found: &BTreeMap<String, String>) -> Vec<&String> {
    found.keys().filter(|name| name.starts_with("bsonvault.")).collect()
}

/// A database with one of each kind, all of which differ by `version`.
async fn fill(database: &Database, version: i32) {
    insert(database, "plain", (0..20 + version).map(|i| doc! { "_id": i, "version": version })).await;
    let index = doc! { "key": { "version": version }, "name": format!("version{version}") };
    database.run_command(doc! { "createIndexes": "plain", "indexes": [index] }).await.unwrap();
    insert(database, "other", (0..5).map(|i| doc! { "_id": i, "version": version })).await;
    let series = doc! { "create": "series", "timeseries": { "timeField": "t", "metaField": "m" } };
    database.run_command(series).await.unwrap();
    insert(
        database,
        "series",
        (0..9i64).map(|i| doc! { "_id": i, "t": DateTime::from_millis(i * 60_000), "m": version, "v": i }),
    )
    .await;
    let pipeline = [doc! { "$match": { "version": version } }];
    database.run_command(doc! { "create": "view", "viewOn": "plain", "pipeline": pipeline.to_vec() }).await.unwrap();
    // A collection in one version is a view in the other.
    if version == 1 {
        insert(database, "kind1", [doc! { "_id": 1 }]).await;
        database.run_command(doc! { "create": "kind2", "viewOn": "plain", "pipeline": [] }).await.unwrap();
    } else {
        insert(database, "kind2", [doc! { "_id": 1 }]).await;
        database.run_command(doc! { "create": "kind1", "viewOn": "plain", "pipeline": [] }).await.unwrap();
    }
    insert(database, "system.js", [doc! { "_id": "f", "value": version }, doc! { "_id": format!("only{version}"), "value": 1 }])
        .await;
}

async fn fill_anew(database: &Database, version: i32) {
    for name in states(database).await.keys().filter(|name| *name != "system.js") {
        database.collection::<Document>(name).drop().await.unwrap();
    }
    database.collection::<Document>("system.js").delete_many(doc! {}).await.unwrap();
    fill(database, version).await;
}

/// A server with the old database, a backup of the new one, and the state of each.
struct Scene {
    target: Server,
    client: Client,
    vault: Vault,
    backup: Backup,
    old: BTreeMap<String, String>,
    new: BTreeMap<String, String>,
}

impl Scene {
    async fn set(options: ServerOptions) -> Self {
        let (source, target) = tokio::join!(Server::standalone(), Server::start(options));
        let (from, client) = (source.client().await.database("d"), target.client().await);
        fill(&from, 2).await;
        let vault = Vault::new();
        let backup = vault.backup(&source, &[]).await;
        let new = states(&from).await;
        fill(&client.database("d"), 1).await;
        let old = states(&client.database("d")).await;
        assert!(old.keys().eq(new.keys()) && old.iter().all(|(name, state)| new[name] != *state));
        Self { target, client, vault, backup, old, new }
    }

    async fn states(&self) -> BTreeMap<String, String> {
        states(&self.client.database("d")).await
    }

    async fn import_and_check(&self, when: &str) {
        self.vault.run(&self.backup, &self.target.uri(), &quick()).await.unwrap_or_else(|e| panic!("{when}: {e}"));
        assert_eq!(self.states().await, self.new, "{when}");
    }
}

#[tokio::test]
async fn whichever_command_fails_every_collection_is_the_old_one_or_the_new_one() {
    let scene = Scene::set(ServerOptions::default()).await;
    let (mut published, mut untouched) = (0, 0);
    for n in 0.. {
        let when = format!("failing from command {n} on");
        let fail = doc! { "failCommands": COMMANDS.to_vec(), "errorCode": 8, "appName": "bsonvault" };
        scene.target.fail_command(doc! { "skip": n }, fail).await;
        let result = scene.vault.run(&scene.backup, &scene.target.uri(), &quick()).await;
        scene.target.fail_no_more().await;
        let found = scene.states().await;
        assert_old_or_new(&found, &scene.old, &scene.new, &when);
        let error = match result {
            Ok(_) if found == scene.new => break,
            // All is done except releasing the lease, which then expires.
            Ok(_) => {
                assert_eq!(own(&found), ["bsonvault.import"], "{when}");
                scene.import_and_check(&when).await;
                fill_anew(&scene.client.database("d"), 1).await;
                continue;
            }
            Err(error) => error,
        };
        if error.hint_text().is_some_and(|hint| hint.contains("publishing had begun")) {
            published += 1;
        } else {
            untouched += 1;
            let mut rest = found.clone();
            rest.retain(|name, _| !name.starts_with("bsonvault."));
            assert_eq!(rest, scene.old, "{when}: {error}");
        }
        scene.import_and_check(&when).await;
        fill_anew(&scene.client.database("d"), 1).await;
    }
    assert!(published >= 8 && untouched >= 25, "{published} {untouched}");
}

#[tokio::test]
async fn whichever_reply_is_lost_the_import_succeeds() {
    let scene = Scene::set(ServerOptions { repl_set: Some("lost".to_owned()), ..ServerOptions::default() }).await;
    for command in [
        "renameCollection",
        "applyOps",
        "create",
        "drop",
        "collMod",
        "findAndModify",
        "insert",
        "update",
        "createIndexes",
        "delete",
    ] {
        for (times, data) in [
            // The connection breaks before the command is executed, so its outcome is unknown.
            (1, doc! { "failCommands": [command], "closeConnection": true, "appName": "bsonvault" }),
            (3, doc! { "failCommands": [command], "closeConnection": true, "appName": "bsonvault" }),
            // The command is executed, but the reply says to try again.
            (
                1,
                doc! { "failCommands": [command], "writeConcernError": { "code": 91, "errmsg": "shutting down" }, "appName": "bsonvault" },
            ),
            (
                3,
                doc! { "failCommands": [command], "writeConcernError": { "code": 91, "errmsg": "shutting down" }, "appName": "bsonvault" },
            ),
        ] {
            scene.target.fail_command(doc! { "times": times }, data).await;
            scene.import_and_check(&format!("{command}, {times} times")).await;
            fill_anew(&scene.client.database("d"), 1).await;
        }
    }
}

#[tokio::test]
async fn killed_at_any_moment_an_import_leaves_every_collection_old_or_new() {
    let (source, target) = tokio::join!(Server::standalone(), Server::replica_set("kill"));
    let (a, b) = (source.client().await, target.client().await);
    zoo::fill(&a, &ZooOptions { seed: 9, docs: 3000, large: false, false_column: true }).await;
    insert(&a.database("zoo"), "many", numbered(30_000)).await;
    let vault = Vault::new();
    let new = vault.backup(&source, &["zoo"]).await;
    insert(&a.database("zoo"), "many", (100_000..100_010).map(|i| doc! { "_id": i })).await;
    let cli = Cli::new();
    let path = new.store.directory().to_str().unwrap().to_owned();
    let uri = target.uri();
    let arguments = ["import", path.as_str(), "--yes", "--target", uri.as_str()];
    // How long it takes at most with nothing to replace, and the resulting state.
    let begun = std::time::Instant::now();
    cli.json(&arguments).await;
    let whole = begun.elapsed();
    let database = b.database("zoo");
    let after = states(&database).await;
    let mut random = StdRng::seed_from_u64(13);
    for round in 0..10 {
        // Something old under every name, and nothing else.
        for name in after.keys() {
            database.collection::<Document>(name).drop().await.ok();
        }
        for name in after.keys().filter(|name| *name != "system.js") {
            insert(&database, name, [doc! { "_id": "old" }]).await;
        }
        let before = states(&database).await;
        let mut child =
            cli.command(&arguments).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        tokio::time::sleep(whole.mul_f64(random.random_range(0.05..1.0))).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let found = states(&database).await;
        for (name, state) in &before {
            let now = found.get(name);
            let swaps_in_one_step = after[name].starts_with("collection");
            assert!(
                now == Some(state) || now == after.get(name) || (now.is_none() && !swaps_in_one_step),
                "round {round}: {name} is neither the old one nor the new one: {now:?}"
            );
        }
        let report = cli.json(&arguments).await;
        assert_eq!(report["documents"].as_u64(), Some(new.manifest.totals.documents));
        assert_eq!(states(&database).await, after, "round {round}");
    }
}

/// Cleanup removes leftovers of a killed import or test restore, and finishes what it had decided,
/// without another import. Live ones are left alone.
#[tokio::test(flavor = "multi_thread")]
async fn what_dead_imports_and_test_restores_left_is_cleaned_up() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    for database in ["one", "two"] {
        insert(&a.database(database), "c", numbered(500)).await;
    }
    a.database("one").create_collection("series").timeseries(series()).await.unwrap();
    insert(&a.database("one"), "series", (0..20).map(|i| doc! { "t": DateTime::from_millis(i * 1000), "v": i })).await;
    insert(&b.database("one"), "c", [doc! { "_id": "old" }]).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let path = backup.store.directory().to_str().unwrap().to_owned();
    let cli = Cli::new().env("MONGO_URI_LOCAL", target.uri());
    let standing = async || {
        let mut standing = Vec::new();
        for name in b.list_database_names().await.unwrap() {
            if !["admin", "config", "local"].contains(&name.as_str()) {
                let names = b.database(&name).list_collection_names().await.unwrap();
                standing.extend(names.into_iter().filter(|n| !n.starts_with("system.")).map(|n| format!("{name}.{n}")));
            }
        }
        standing.sort();
        standing
    };
    let before = standing().await;
    let after = ["one.c", "one.series", "two.c"];

    // Killed while it fills, while it publishes, and a test restore. For each, live ones are first
    // left alone.
    let kinds: [(&str, &[&str]); 3] = [
        ("insert", &["import", &path, "--yes"]),
        ("renameCollection", &["import", &path, "--yes"]),
        ("insert", &["verify", &path, "--restore"]),
    ];
    for (round, (held_up, arguments)) in kinds.into_iter().enumerate() {
        let slow = doc! { "failCommands": [held_up], "blockConnection": true, "blockTimeMS": 3000, "appName": "bsonvault" };
        target.fail_command("alwaysOn", slow).await;
        let mut child = cli.spawn(arguments);
        let record = b.database("one").collection::<Document>("bsonvault.import");
        let has_begun = async || match held_up {
            "insert" => standing().await.iter().any(|name| name.contains(".bsonvault.staging.")),
            _ => record.count_documents(doc! { "steps": { "$exists": true } }).await.unwrap() > 0,
        };
        while !has_begun().await {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if round == 2 {
            let report = cli.json(&["import", "--cleanup"]).await;
            let running = report["running"].as_array().unwrap();
            assert_eq!((running.len(), &running[0]["process"]), (2, &child.id().into()), "{report}");
            assert_eq!(report["dropped"], serde_json::json!([]));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        target.fail_no_more().await;
        let checked = cli.json(&["check"]).await.to_string();
        assert!(checked.contains("is running in") || checked.contains("--cleanup"), "{checked}");
        let left = standing().await;
        let dry = cli.json(&["import", "--cleanup", "--dry-run"]).await;
        // The delayed command may still be executed.
        let still = standing().await;
        assert!(dry["dryRun"] == true && left.iter().all(|name| still.contains(name)), "{left:?} {still:?}");

        let report = cli.json(&["import", "--cleanup"]).await;
        assert_eq!((&report["running"], &report["failed"]), (&serde_json::json!([]), &serde_json::json!([])), "{report}");
        match round {
            0 => assert_eq!(standing().await, before, "{report}"),
            1 => assert_eq!(report["finished"], serde_json::json!(after), "{report}"),
            _ => assert_eq!(report["scratchDatabases"].as_array().unwrap().len(), 2, "{report}"),
        }
        if round > 0 {
            assert_eq!(standing().await, after, "{report}");
            assert_eq!(documents(&b.database("one"), "c").await.len(), 500);
        }
        let again = cli.run(&["import", "--cleanup"]).await;
        assert!(again.code == Some(0) && again.stdout.contains("nothing was left"), "{again:?}");
    }
    // Arguments without a use are refused.
    assert_eq!(cli.run(&["import", "--cleanup", &path]).await.code, Some(2));
    assert_eq!(cli.run(&["import", "--cleanup", "--drop-extra"]).await.code, Some(2));
}

fn series() -> mongodb::options::TimeseriesOptions {
    mongodb::options::TimeseriesOptions::builder().time_field("t").build()
}

#[tokio::test]
async fn readers_see_the_old_collection_or_the_new_one() {
    let (source, target) = tokio::join!(Server::standalone(), Server::replica_set("readers"));
    let (from, to) = (source.client().await.database("d"), target.client().await.database("d"));
    insert(&from, "c", numbered(20_000)).await;
    insert(&to, "c", numbered(7)).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let uri = target.uri();
    let importing = vault.import(&backup, &uri);
    tokio::pin!(importing);
    let mut seen = BTreeMap::new();
    let done = loop {
        let count = async { to.collection::<Document>("c").count_documents(doc! {}).await };
        tokio::select! {
            done = &mut importing => break done,
            count = count => match count {
                Ok(count) => *seen.entry(count).or_insert(0) += 1,
                // The server ends a read of the old one when it is replaced: QueryPlanKilled.
                Err(e) => assert!(matches!(&*e.kind, mongodb::error::ErrorKind::Command(e) if e.code == 175), "{e}"),
            }
        }
    };
    done.unwrap();
    assert!(seen.keys().all(|count| [7, 20_000].contains(count)) && seen[&7] > 10, "{seen:?}");
}

#[tokio::test]
async fn two_imports_never_write_to_one_database() {
    let (source, target) = tokio::join!(Server::standalone(), Server::replica_set("lease"));
    let (a, b) = (source.client().await, target.client().await);
    for database in ["one", "two"] {
        insert(&a.database(database), "c", numbered(2000)).await;
    }
    let (first, second) = (Vault::new(), Vault::new());
    let both = first.backup(&source, &[]).await;
    let two = second.backup(&source, &["two"]).await;
    let slow = doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 15_000, "appName": "bsonvault" };
    target.fail_command(doc! { "times": 1 }, slow).await;
    let uri = target.uri();
    let later = async {
        while first.cx.progress.view().phase != "filling" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        second.import(&two, &uri).await
    };
    let (held, refused) = tokio::join!(first.import(&both, &uri), later);
    held.unwrap();
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("another import writes to two: atlas-backup-"), "{error}");
    assert_same(&a, &b, only("one")).await;
    assert_same(&a, &b, only("two")).await;
    // Once it is gone, nothing is in the way.
    second.import(&two, &uri).await.unwrap();
    assert!(own(&states(&b.database("two")).await).is_empty());
}

#[tokio::test]
async fn an_import_that_lost_its_lease_changes_nothing() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    insert(&source.client().await.database("d"), "c", numbered(2000)).await;
    let to = target.client().await.database("d");
    insert(&to, "c", numbered(3)).await;
    let before = states(&to).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let slow = doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 3000, "appName": "bsonvault" };
    target.fail_command(doc! { "times": 1 }, slow).await;
    let thief = async {
        while vault.cx.progress.view().phase != "filling" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let far = DateTime::from_millis(DateTime::now().timestamp_millis() + 600_000);
        let taken = doc! { "$set": { "id": "another", "expires": far } };
        to.collection::<Document>("bsonvault.import").update_one(doc! { "_id": "lease" }, taken).await.unwrap();
    };
    let uri = target.uri();
    let (result, ()) = tokio::join!(vault.import(&backup, &uri), thief);
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains("another import has taken over"), "{error}");
    assert_eq!(states(&to).await["c"], before["c"]);
    // The thief keeps its lease.
    let lease = to.collection::<Document>("bsonvault.import").find_one(doc! { "_id": "lease" }).await.unwrap().unwrap();
    assert_eq!(lease.get_str("id").unwrap(), "another");
}

#[tokio::test]
async fn after_a_crash_of_the_target_nothing_stays_of_a_dead_import() {
    let mut scene = Scene::set(ServerOptions::default()).await;
    let lease = doc! { "_id": "lease", "id": "dead", "home": "d", "expires": DateTime::from_millis(0) };
    let staged = [doc! { "_id": 1 }];
    insert(&scene.client.database("d"), "bsonvault.import", [lease]).await;
    insert(&scene.client.database("d"), "bsonvault.staging.dead.0", staged).await;
    // Journaled; the counters of collections are not.
    scene
        .client
        .database("d")
        .run_command(doc! { "insert": "flush", "documents": [{}], "writeConcern": { "j": true } })
        .await
        .unwrap();
    scene.target.kill();
    scene.target.restart().await;
    scene.client = scene.target.client().await;
    scene.client.database("d").collection::<Document>("flush").drop().await.unwrap();
    for _ in 0..2 {
        scene.import_and_check("after a crash").await;
    }
}

#[tokio::test]
async fn a_primary_that_dies_in_the_middle_loses_nothing() {
    let (source, mut set) = tokio::join!(Server::standalone(), ReplicaSet::start(3));
    let a = source.client().await;
    insert(&a.database("d"), "c", numbered(40_000)).await;
    a.database("d").run_command(doc! { "createIndexes": "c", "indexes": [{ "key": { "n": 1 }, "name": "n" }] }).await.unwrap();
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let uri = set.uri();
    let primary = set.primary().await;
    let member = &mut set.members[primary];
    let killer = async {
        while vault.cx.progress.view().phase != "filling" || vault.cx.progress.view().sums().0 < 5000 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        member.kill();
    };
    let (result, ()) = tokio::join!(vault.import(&backup, &uri), killer);
    result.unwrap();
    let b = set.client().await;
    assert_same(&a, &b, only("d")).await;
    assert!(own(&states(&b.database("d")).await).is_empty());
}

#[tokio::test]
async fn without_the_right_to_rename_buckets_a_time_series_is_copied() {
    let auth = ServerOptions { auth: true, ..ServerOptions::default() };
    let (source, target) = tokio::join!(Server::standalone(), Server::start(auth));
    let (a, b) = (source.client().await, target.client().await);
    zoo::fill(&a, &ZooOptions { seed: 4, docs: 500, large: false, false_column: true }).await;
    let roles = ["readWriteAnyDatabase", "dbAdminAnyDatabase"];
    target.admin(doc! { "createUser": "importer", "pwd": "p", "roles": roles.to_vec() }).await.unwrap();
    let vault = Vault::new();
    let backup = vault.backup(&source, &["zoo"]).await;
    let uri = target.uri().replace("root:secret", "importer:p");
    for _ in 0..2 {
        vault.import(&backup, &uri).await.unwrap();
        assert_same(&a, &b, only("zoo")).await;
        assert!(own(&states(&b.database("zoo")).await).is_empty());
    }
}

#[tokio::test]
async fn the_longest_names_have_room_beside_them() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    let database = "d".repeat(30);
    let name = "n".repeat(255 - 31);
    insert(&a.database(&database), &name, numbered(3)).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    for _ in 0..2 {
        vault.import(&backup, &target.uri()).await.unwrap();
        assert_same(&a, &b, CompareOptions::default()).await;
    }
    // A mode that refuses existing collections does so before anything is written.
    let fail = ImportOptions { mode: ImportMode::Fail, ..ImportOptions::default() };
    let error = vault.run(&backup, &target.uri(), &fail).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains(&name), "{error}");
}

#[tokio::test]
async fn what_was_decided_is_finished_however_many_imports_fail_to() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let (a, b) = (source.client().await, target.client().await);
    for database in ["one", "two"] {
        fill(&a.database(database), 2).await;
        insert(&a.database(database), "small", numbered(1)).await;
        fill(&b.database(database), 1).await;
    }
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let small = ImportOptions { filter: matching(&["two.small"]), ..quick() };
    let fail = doc! { "failCommands": ["renameCollection"], "errorCode": 8, "appName": "bsonvault" };
    target.fail_command("alwaysOn", fail).await;
    let error = vault.run(&backup, &target.uri(), &quick()).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("publishing had begun"), "{error:?}");
    // These concern only one of the databases, and what they cannot finish stays.
    for _ in 0..2 {
        let error = vault.run(&backup, &target.uri(), &small).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Server, "{error}");
    }
    target.fail_no_more().await;
    vault.run(&backup, &target.uri(), &small).await.unwrap();
    for database in ["one", "two"] {
        assert_eq!(states(&b.database(database)).await, states(&a.database(database)).await, "{database}");
    }
}

#[tokio::test]
async fn a_time_series_is_whole_though_the_reply_of_any_create_is_lost() {
    let scene = Scene::set(ServerOptions::default()).await;
    for n in 0..9 {
        let data = doc! { "failCommands": ["create"], "writeConcernError": { "code": 91, "errmsg": "shutting down" }, "appName": "bsonvault" };
        scene.target.fail_command(doc! { "skip": n }, data).await;
        let passing = async {
            tokio::time::sleep(Duration::from_millis(900)).await;
            scene.target.fail_no_more().await;
        };
        let when = format!("from create {n} on");
        tokio::join!(scene.import_and_check(&when), passing);
        fill_anew(&scene.client.database("d"), 1).await;
    }
}

#[tokio::test]
async fn an_import_whose_staging_is_gone_does_not_report_success() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    insert(&source.client().await.database("d"), "c", numbered(200)).await;
    let to = target.client().await.database("d");
    insert(&to, "c", numbered(3)).await;
    let before = states(&to).await;
    let vault = Vault::new();
    let backup = vault.backup(&source, &[]).await;
    let slow = doc! { "failCommands": ["update"], "blockConnection": true, "blockTimeMS": 1000, "appName": "bsonvault" };
    target.fail_command("alwaysOn", slow).await;
    let thief = async {
        while vault.cx.progress.view().phase != "confirming" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for name in to.list_collection_names().await.unwrap().iter().filter(|name| name.starts_with("bsonvault.staging")) {
            to.collection::<Document>(name).drop().await.unwrap();
        }
    };
    let uri = target.uri();
    let (result, ()) = tokio::join!(vault.import(&backup, &uri), thief);
    let error = result.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Refused && error.to_string().contains("staging collection of d.c was dropped or renamed"),
        "{error}"
    );
    assert_eq!(states(&to).await, before);
}

#[tokio::test]
async fn an_index_that_refuses_a_document_is_named_and_everything_stays_as_it_was() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    let shop = source.client().await.database("shop");
    // Few enough for their indexes to be created first: some are written then, and others are
    // refused.
    insert(&shop, "orders", (0..40).map(|n| doc! { "_id": n, "k": n % 30, "kept": n })).await;
    let indexes = [doc! { "key": { "kept": 1 }, "name": "kept" }, doc! { "key": { "k": 1 }, "name": "k" }];
    shop.run_command(doc! { "createIndexes": "orders", "indexes": indexes.to_vec() }).await.unwrap();
    let old = target.client().await.database("shop");
    insert(&old, "orders", [doc! { "_id": "old" }]).await;
    let vault = Vault::new();
    let backup = with_manifest(vault.backup(&source, &[]).await, |manifest| {
        manifest.collections[0].indexes[2] = RawValue::of(&rawdoc! { "v": 2, "key": { "k": 1 }, "name": "k", "unique": true });
    })
    .await;
    let error = vault.import(&backup, &target.uri()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server, "{error}");
    assert!(error.to_string().contains("building index \"k\" of shop.orders"), "{error}");
    assert!(error.hint_text().unwrap().contains("[[indexes]] skip"), "{error:?}");
    assert_eq!(documents(&old, "orders").await.len(), 1);
    assert_eq!(old.list_collection_names().await.unwrap(), ["orders"]);

    let options = ImportOptions { indexes: IndexMode::Skip, ..ImportOptions::default() };
    assert_eq!(vault.run(&backup, &target.uri(), &options).await.unwrap().documents, 40);
    assert_eq!(documents(&old, "orders").await.len(), 40);
}
