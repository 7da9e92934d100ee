//! `check` against real servers: its table of privileges matches what the server allows.

mod uris;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::error::ErrorKind;
use serde_json::Value;

use crate::support::cli::{Cli, Output, finish};
use crate::support::server::{ReplicaSet, Server, ServerOptions, free_port};

const PASSWORD: &str = "hunter2-check";
const UNAUTHORIZED: i32 = 13;

fn uri(server: &Server, user: &str) -> String {
    format!("mongodb://{user}:{PASSWORD}@{}/?directConnection=true&authSource=admin", server.host())
}

async fn fill(server: &Server) {
    let shop = server.client().await.database("shop");
    shop.run_command(doc! { "insert": "orders", "documents": [{ "a": 1 }] }).await.unwrap();
    shop.run_command(doc! { "create": "log", "capped": true, "size": 4096 }).await.unwrap();
    shop.run_command(doc! { "create": "ticks", "timeseries": { "timeField": "t" } }).await.unwrap();
}

/// Whether the server allows this login to run it. Failures for other reasons count as allowed.
async fn allowed(client: &Client, database: &str, command: Document) -> bool {
    match client.database(database).run_command(command.clone()).await {
        Err(e) => match *e.kind {
            ErrorKind::Command(ref c) => c.code != UNAUTHORIZED,
            _ => panic!("{command}: {e}"),
        },
        Ok(_) => true,
    }
}

/// The server commands that a feature needs.
fn commands(side: &str, feature: &str) -> Vec<(&'static str, Document)> {
    let shop = |commands: Vec<Document>| commands.into_iter().map(|c| ("shop", c)).collect();
    match (side, feature) {
        (_, "list collections and indexes") => shop(vec![doc! { "listCollections": 1 }, doc! { "listIndexes": "orders" }]),
        ("source", "list databases") => vec![("admin", doc! { "listDatabases": 1, "authorizedDatabases": false })],
        ("source", "read documents") => shop(vec![doc! { "find": "orders" }, doc! { "find": "log" }]),
        ("source", "read time series") => shop(vec![doc! { "find": "system.buckets.ticks" }]),
        ("source", "sizes for planning") => shop(vec![doc! { "collStats": "orders" }]),
        ("source", "keep an oplog slice" | "archive the oplog") => {
            vec![("local", doc! { "find": "oplog.rs", "limit": 1 }), ("config", doc! { "find": "transactions", "limit": 1 })]
        }
        ("source", "recognize the replica set") => vec![("admin", doc! { "replSetGetConfig": 1 })],
        ("target", "keep the lease of an import") => {
            let update = doc! { "q": {}, "u": { "$set": { "a": 1 } }, "upsert": true };
            let delete = doc! { "q": {}, "limit": 0 };
            shop(vec![
                doc! { "update": "lease", "updates": [update] },
                doc! { "find": "lease" },
                doc! { "insert": "lease", "documents": [{}] },
                doc! { "delete": "lease", "deletes": [delete] },
            ])
        }
        ("target", "publish collections") => {
            let rename = doc! { "renameCollection": "shop.staged", "to": "shop.gone", "dropTarget": true };
            vec![("admin", rename), ("shop", doc! { "drop": "gone" })]
        }
        ("target", "replay an oplog slice") => {
            let insert = doc! { "op": "i", "ns": "shop.new", "o": { "_id": "replayed" } };
            vec![("admin", doc! { "applyOps": [insert] })]
        }
        ("target", "create collections") => shop(vec![doc! { "create": "new" }]),
        ("target", "insert documents") => shop(vec![doc! { "insert": "new", "documents": [{}] }]),
        ("target", "create indexes") => {
            shop(vec![doc! { "createIndexes": "new", "indexes": [{ "key": { "a": 1 }, "name": "a" }] }])
        }
        ("target", "read back documents") => shop(vec![doc! { "find": "new" }]),
        ("target", "insert despite a validator") => {
            shop(vec![doc! { "insert": "new", "documents": [{}], "bypassDocumentValidation": true }])
        }
        ("target", "change options") => shop(vec![doc! { "collMod": "orders" }]),
        ("target", "write time series") => {
            // If the login has the privilege, the buckets' own validator refuses an empty bucket.
            shop(vec![doc! { "insert": "system.buckets.ticks", "documents": [{}] }, doc! { "find": "system.buckets.ticks" }])
        }
        ("target", "keep the position of a sync") => {
            let update = doc! { "q": {}, "u": { "$set": { "a": 1 } }, "upsert": true };
            let delete = doc! { "q": {}, "limit": 0 };
            let commands = [
                doc! { "update": "sync", "updates": [update] },
                doc! { "find": "sync" },
                doc! { "insert": "sync", "documents": [{}] },
                doc! { "delete": "sync", "deletes": [delete] },
                doc! { "create": "sync.collections" },
                doc! { "drop": "sync.collections" },
            ];
            commands.into_iter().map(|command| ("bsonvault", command)).collect()
        }
        ("target", "follow changes of collections") => shop(vec![
            doc! { "collMod": "orders" },
            doc! { "collStats": "orders" },
            doc! { "dropIndexes": "orders", "index": "none" },
        ]),
        ("target", "stop the expiry of documents") => {
            vec![("admin", doc! { "setParameter": 1, "ttlMonitorEnabled": true })]
        }
        other => panic!("a feature that this test does not know: {other:?}"),
    }
}

fn row<'a>(report: &'a Value, side: &str, feature: &str) -> &'a Value {
    let rows = report["rights"].as_array().unwrap();
    rows.iter().find(|r| r["side"] == side && r["feature"] == feature).unwrap_or_else(|| panic!("no row {side} {feature}"))
}

#[tokio::test]
async fn the_table_says_what_the_server_allows() {
    let server = Server::start(ServerOptions { repl_set: Some("rs".into()), auth: true, ..ServerOptions::default() }).await;
    fill(&server).await;
    let roles = [
        ("read", "shop"),
        ("readWrite", "shop"),
        ("dbOwner", "shop"),
        ("readAnyDatabase", "admin"),
        ("readWriteAnyDatabase", "admin"),
        ("dbAdminAnyDatabase", "admin"),
        ("backup", "admin"),
        ("restore", "admin"),
        ("clusterMonitor", "admin"),
        ("hostManager", "admin"),
        ("root", "admin"),
    ];
    for (role, database) in roles {
        let name = format!("a-{role}");
        let user = doc! { "createUser": &name, "pwd": PASSWORD, "roles": [{ "role": role, "db": database }] };
        server.admin(user).await.unwrap();
        let uri = uri(&server, &name);
        let cli = Cli::new().env("MONGO_URI_ATLAS", &uri).env("MONGO_URI_LOCAL", &uri);
        let output = cli.run(&["check", "--json"]).await;
        assert!(!output.stdout.contains(PASSWORD) && !output.stderr.contains(PASSWORD), "{output:?}");
        let report = output.json();
        let client = Client::with_uri_str(&uri).await.unwrap();
        let rows = report["rights"].as_array().unwrap();
        assert_eq!(rows.len(), 22, "{report}");
        for row in rows {
            let (side, feature) = (row["side"].as_str().unwrap(), row["feature"].as_str().unwrap());
            // The server also requires the privileges for what is replayed, which have rows of
            // their own.
            let may_insert = rows.iter().any(|r| r["feature"] == "insert documents" && r["granted"] == true);
            if feature == "replay an oplog slice" && !may_insert {
                continue;
            }
            let mut all = true;
            for (database, command) in commands(side, feature) {
                all &= allowed(&client, database, command).await;
            }
            assert_eq!(row["granted"], all, "{role}: {row}");
            assert_eq!(row["missing"].as_array().unwrap().is_empty(), all, "{role}: {row}");
        }
        let required_is_missing = rows.iter().any(|r| r["required"] == true && r["granted"] == false);
        assert_eq!(output.code, Some(i32::from(required_is_missing)), "{role}: {report}");
        assert_eq!(report["success"], !required_is_missing);
    }
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_with_the_role_to_grant() {
    let server = Server::start(ServerOptions { repl_set: Some("rs".into()), auth: true, ..ServerOptions::default() }).await;
    fill(&server).await;
    let user = doc! { "createUser": "reader", "pwd": PASSWORD, "roles": [{ "role": "read", "db": "shop" }] };
    server.admin(user).await.unwrap();
    let cli = Cli::new().env("MONGO_URI_ATLAS", uri(&server, "reader"));

    let output = cli.run(&["check"]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    let line = "FAILED   source rights: read time series: reader@admin lacks find on shop.system.buckets.ticks\n         -> grant readAnyDatabase or backup";
    assert!(output.stdout.contains(line), "{}", output.stdout);
    assert!(output.stderr.starts_with("error: 1 check failed: source rights"), "{}", output.stderr);

    let report = cli.run(&["check", "--json"]).await.json();
    assert_eq!(report["error"]["kind"], "denied");
    assert_eq!(row(&report, "source", "read time series")["missing"][0], "find");
    assert_eq!(row(&report, "source", "read documents")["granted"], true);
    let oplog = row(&report, "source", "keep an oplog slice");
    assert_eq!((&oplog["granted"], &oplog["required"], &oplog["missing"][0]), (&false.into(), &false.into(), &"find".into()));
    let archive = row(&report, "source", "archive the oplog");
    assert_eq!((&archive["granted"], &archive["required"]), (&false.into(), &false.into()), "{archive}");
    let consistency = |report: &Value| {
        let lines = report["lines"].as_array().unwrap();
        lines.iter().find(|l| l["subject"] == "consistency").unwrap()["message"].as_str().unwrap().to_owned()
    };
    assert!(consistency(&report).contains("this login cannot read the oplog"), "{report}");
    assert_eq!(report["rights"].as_array().unwrap().len(), 8, "{report}");
    // The privileges that a backup of this source would need at the target are required there.
    let shop = server.client().await.database("shop");
    shop.run_command(doc! { "create": "strict", "validator": { "a": 1 } }).await.unwrap();
    let both = Cli::new().env("MONGO_URI_ATLAS", server.uri()).env("MONGO_URI_LOCAL", uri(&server, "reader"));
    let report = both.run(&["check", "--json"]).await.json();
    assert!(consistency(&report).contains("an oplog slice is kept if that is not enough"), "{report}");
    assert_eq!(row(&report, "target", "insert despite a validator")["required"], true);
    assert_eq!(row(&report, "target", "write time series")["required"], true);
    assert_eq!(row(&report, "target", "change options")["required"], false);

    // One login works, the other does not: a wrong password is reported, but not shown.
    let cli = cli.env("MONGO_URI_LOCAL", uri(&server, "nobody"));
    let report = cli.run(&["check", "--json"]).await;
    assert!(report.stdout.contains("refuses the login") && !report.stdout.contains(PASSWORD), "{}", report.stdout);
    // No login at all.
    let anonymous = Cli::new().env("MONGO_URI_ATLAS", format!("mongodb://{}/?directConnection=true", server.host()));
    let report = anonymous.run(&["check"]).await;
    assert_eq!(report.code, Some(1));
    assert!(report.stdout.contains("has access control and the URI has no user"), "{}", report.stdout);
    let refused = anonymous.run(&["backup"]).await;
    let told = "requires authentication, and the URI names no user";
    assert!(refused.code == Some(1) && refused.stderr.contains(told), "{refused:?}");
    assert!(refused.stderr.contains("USER:PASSWORD@") && !refused.stderr.contains("grant"), "{refused:?}");

    // A custom role covers buckets only if it names them, as the hint says.
    let all =
        doc! { "resource": { "db": "", "collection": "" }, "actions": ["find", "listCollections", "listIndexes", "collStats"] };
    let listing = doc! { "resource": { "cluster": true }, "actions": ["listDatabases"] };
    server.admin(doc! { "createRole": "own", "privileges": [all, listing], "roles": [] }).await.unwrap();
    server.admin(doc! { "createUser": "own", "pwd": PASSWORD, "roles": ["own"] }).await.unwrap();
    let own = Cli::new().env("MONGO_URI_ATLAS", uri(&server, "own"));
    let refused = own.run(&["backup"]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("in the buckets of a time series"), "{refused:?}");
    assert!(refused.stderr.contains("{db: DATABASE, system_buckets: \"\"}"), "{refused:?}");
    let buckets = doc! { "resource": { "db": "shop", "system_buckets": "" }, "actions": ["find"] };
    server.admin(doc! { "grantPrivilegesToRole": "own", "privileges": [buckets] }).await.unwrap();
    let taken = own.run(&["backup"]).await;
    assert_eq!(taken.code, Some(0), "{taken:?}");
    let import = anonymous.env("MONGO_URI_LOCAL", format!("mongodb://{}/?directConnection=true", server.host()));
    let path = own.dir().join("backups").display().to_string();
    let refused = import.run(&["import", "latest", "--path", &path, "--allow-same", "--yes"]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains(told), "{refused:?}");
}

#[tokio::test]
async fn without_access_control_everything_is_allowed_and_the_other_side_is_checked_all_the_same() {
    let server = Server::standalone().await;
    fill(&server).await;
    let cli = Cli::new()
        .env("MONGO_URI_ATLAS", server.uri())
        .env("MONGO_URI_LOCAL", format!("mongodb://127.0.0.1:{}/?directConnection=true", free_port()));
    let begin = std::time::Instant::now();
    let output = cli.run(&["check", "--json"]).await;
    assert!(begin.elapsed().as_secs() < 15, "{:?}", begin.elapsed());
    assert_eq!(output.code, Some(1));
    let report = output.json();
    assert_eq!(report["error"]["kind"], "unreachable");
    let line = |subject: &str| {
        let lines = report["lines"].as_array().unwrap();
        lines.iter().find(|l| l["subject"] == subject).unwrap_or_else(|| panic!("no line on {subject}: {report}")).clone()
    };
    assert_eq!(line("source")["status"], "ok");
    assert_eq!(line("source rights")["message"], "the server has no access control: everything is allowed");
    assert_eq!(line("consistency")["status"], "warning");
    assert_eq!(line("target")["status"], "failed");
    assert_eq!(line("path")["status"], "ok");
    assert!(report["rights"].as_array().unwrap().iter().all(|r| r["granted"] == true && r["side"] == "source"));
    // It checked whether it could write, and left nothing.
    assert_eq!(std::fs::read_dir(cli.dir()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_not_configured_is_told() {
    let output = Cli::new().run(&["check", "--json"]).await;
    assert_eq!(output.code, Some(2));
    let report = output.json();
    assert_eq!(report["lines"][0]["message"], "Atlas MongoDB URI not configured");
    assert_eq!(report["lines"][1]["message"], "Local MongoDB URI not configured");
    assert_eq!(report["success"], false);
}

/// How many documents a member has returned to anyone.
async fn returned(member: &Server) -> i64 {
    let status = member.admin(doc! { "serverStatus": 1 }).await.unwrap();
    status.get_document("metrics").unwrap().get_document("document").unwrap().get_i64("returned").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_preference_chooses_the_member_that_is_read() {
    const DOCUMENTS: i32 = 300;
    let mut set = ReplicaSet::start(3).await;
    let primary = set.primary().await;
    let documents: Vec<Document> = (0..DOCUMENTS).map(|i| doc! { "_id": i, "pad": "x".repeat(10_000) }).collect();
    let insert = doc! { "insert": "orders", "documents": documents, "writeConcern": { "w": 3 } };
    set.client().await.database("shop").run_command(insert).await.unwrap();
    let cli = Cli::new();
    let uri = set.uri();

    // Reads avoid the primary, and `check` names the members to read from.
    let before = returned(&set.members[primary]).await;
    let taken = cli.json(&["backup", "--source", &uri, "--read-preference", "secondary"]).await;
    assert_eq!((&taken["documents"], &taken["consistency"]["kind"]), (&DOCUMENTS.into(), &"snapshot".into()));
    let given = returned(&set.members[primary]).await - before;
    assert!(given < 50, "the primary gave {given} documents");
    let checked = cli.run(&["check", "--source", &format!("{uri}&readPreference=secondary"), "--json"]).await.json();
    let lines = checked["checks"].as_array().or(checked["lines"].as_array()).unwrap();
    let member = lines.iter().find(|line| line["subject"] == "source member").unwrap();
    assert!(member["message"].as_str().unwrap().contains("a secondary (readPreference=secondary)"), "{member}");

    // A read preference that no member fits is reported with the available members, and nothing is
    // stored.
    let refused = |output: &Output, code: i32, what: &str| {
        assert_eq!(output.code, Some(code), "{output:?}");
        assert!(output.stderr.contains(what), "{output:?}");
    };
    let none = format!("{uri}&readPreference=secondary&readPreferenceTags=dc:none&serverSelectionTimeoutMS=500");
    refused(&cli.run(&["backup", "--source", &none]).await, 1, "is a secondary");
    let direct = set.members[primary].uri();
    let is_primary = "the directly connected member is the primary";
    refused(&cli.run(&["backup", "--source", &format!("{direct}&readPreference=secondary")]).await, 1, is_primary);
    refused(&cli.run(&["backup", "--source", &uri, "--read-preference", "second"]).await, 2, "secondaryPreferred");

    // The member dies in the middle, and reading continues from another one.
    let backup = ["backup", "--source", &uri, "--read-preference", "secondary", "--max-mbit", "8", "--json"];
    let (before, running) = (member_reads(&set).await, cli.spawn(&backup));
    let read = loop {
        let now = member_reads(&set).await;
        if let Some(read) = (0..3).find(|i| *i != primary && now[*i] > before[*i] + 50) {
            break read;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    set.members[read].kill();
    let ended = finish(running).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.json()["documents"], DOCUMENTS);

    // Without a primary, reads go to the remaining member.
    set.members[primary].kill();
    let left = &set.members[3 - primary - read];
    for source in [format!("{uri}&readPreference=secondaryPreferred"), left.uri()] {
        assert_eq!(cli.json(&["backup", "--source", &source]).await["documents"], DOCUMENTS);
    }
}

async fn member_reads(set: &ReplicaSet) -> Vec<i64> {
    futures::future::join_all(set.members.iter().map(returned)).await
}
