//! Users and roles of a dump, which are restored on request.

use bson::{Document, doc};
use bsonvault::engine::import::ImportOptions;
use bsonvault::format::document::Documents;
use bsonvault::sink::users::WantedAccounts;
use futures::TryStreamExt as _;
use mongodb::Client;

use super::import;
use super::maker::Maker;

use crate::support::cli::Cli;
use crate::support::files::{names, sample};
use crate::support::server::{Server, ServerOptions};

async fn accounts_of(client: &Client, of: &str) -> Vec<String> {
    let command = if of == "users" {
        doc! { "usersInfo": { "forAllDBs": true } }
    } else {
        doc! { "rolesInfo": 1 }
    };
    let reply = client.database(if of == "users" { "admin" } else { "shop" }).run_command(command).await.unwrap();
    let found = reply.get_array(of).unwrap().iter().map(|u| u.as_document().unwrap());
    found.map(|u| u.get_str(if of == "users" { "user" } else { "role" }).unwrap().to_owned()).collect()
}

async fn documents(client: &Client, name: &str) -> Vec<Document> {
    client.database("admin").collection(name).find(doc! {}).await.unwrap().try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_roles_are_merged_where_that_is_asked_for() {
    // Users as a server itself stores them.
    let source = Server::standalone().await;
    let from = source.client().await;
    from.database("shop").run_command(doc! { "createRole": "clerk", "privileges": [], "roles": ["read"] }).await.unwrap();
    from.database("shop").run_command(doc! { "createUser": "ann", "pwd": "secret", "roles": ["clerk"] }).await.unwrap();
    from.database("shop").run_command(doc! { "createUser": "bob", "pwd": "new", "roles": ["read"] }).await.unwrap();
    from.database("other").run_command(doc! { "createUser": "carl", "pwd": "x", "roles": ["read"] }).await.unwrap();
    let (users, roles) = (documents(&from, "system.users").await, documents(&from, "system.roles").await);
    assert_eq!((users.len(), roles.len()), (3, 1));

    let plain = r#"{"indexes":[]}"#;
    let mut maker = Maker::new(&[
        ("admin.system.users", plain, "collection"),
        ("admin.system.roles", plain, "collection"),
        ("shop.c", plain, "collection"),
    ]);
    maker.segment("admin.system.users", &users).end("admin.system.users");
    maker.segment("admin.system.roles", &roles).end("admin.system.roles");
    maker.segment("shop.c", &[doc! { "_id": 1 }]).end("shop.c");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("full.archive");
    std::fs::write(&path, maker.bytes()).unwrap();

    let target = Server::start(ServerOptions { auth: true, ..ServerOptions::default() }).await;
    let to = target.client().await;
    to.database("shop").run_command(doc! { "createUser": "bob", "pwd": "old", "roles": ["dbOwner"] }).await.unwrap();
    let report = import(&path, &target.uri(), &ImportOptions::default()).await.unwrap();
    assert_eq!((report.users, accounts_of(&to, "users").await.contains(&"ann".to_owned())), (0, false));

    let report = import(&path, &target.uri(), &ImportOptions { users: Some(WantedAccounts::all()), ..ImportOptions::default() })
        .await
        .unwrap();
    assert_eq!((report.users, report.roles), (3, 1));
    let mut found = accounts_of(&to, "users").await;
    found.sort();
    // Users that the dump does not have stay, and so do existing ones.
    assert_eq!(found, ["ann", "bob", "carl", "root"]);
    assert_eq!(accounts_of(&to, "roles").await, ["clerk"]);
    let bob = to.database("shop").run_command(doc! { "usersInfo": "bob" }).await.unwrap();
    let roles = bob.get_array("users").unwrap()[0].as_document().unwrap().get_array("roles").unwrap().clone();
    assert_eq!(roles[0].as_document().unwrap().get_str("role").unwrap(), "dbOwner");
    // The restore leaves no traces.
    let left = to.database("admin").list_collection_names().await.unwrap();
    assert!(left.iter().all(|name| name.starts_with("system.")), "{left:?}");

    // A database in the path of the URI selects like --db.
    let in_path = target.uri().replace("/?", "/shop?");
    let in_path = if in_path.contains("authSource") { in_path } else { format!("{in_path}&authSource=admin") };
    to.database("shop").run_command(doc! { "dropUser": "ann" }).await.unwrap();
    let cli = Cli::new();
    let archive = format!("--archive={}", path.display());
    let output = cli.run(&["restore", "--uri", &in_path, "--drop", &archive]).await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(!accounts_of(&to, "users").await.contains(&"ann".to_owned()));
    to.database("shop").run_command(doc! { "createUser": "ann", "pwd": "x", "roles": [] }).await.unwrap();

    // With the flags of mongorestore: a full restore includes users, unless they are excluded; a
    // restore of one database needs a flag for its users.
    let (uri, no_users) = (target.uri(), ["--nsExclude", "admin.*"]);
    for (args, comes) in [
        (vec![], true),
        (no_users.to_vec(), false),
        (vec!["-d", "shop"], false),
        (vec!["-d", "shop", "--restoreDbUsersAndRoles"], true),
    ] {
        to.database("shop").run_command(doc! { "dropUser": "ann" }).await.unwrap();
        let _absent = to.database("other").run_command(doc! { "dropUser": "carl" }).await;
        let output = cli.run(&[&["restore", "--uri", &uri, "--drop", &archive][..], &args].concat()).await;
        assert_eq!(output.code, Some(0), "{args:?}: {}", output.stderr);
        let found = accounts_of(&to, "users").await;
        assert_eq!(found.contains(&"ann".to_owned()), comes, "{args:?}");
        // A user of another database.
        assert_eq!(found.contains(&"carl".to_owned()), comes && args.is_empty(), "{args:?}");
        if !comes {
            to.database("shop").run_command(doc! { "createUser": "ann", "pwd": "x", "roles": [] }).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_roles_of_a_database_come_with_its_dump() {
    let (source, target) = (Server::standalone().await, Server::standalone().await);
    let (from, to, cli) = (source.client().await, target.client().await, Cli::new());
    for (database, user) in [("shop", "ann"), ("other", "carl")] {
        from.database(database).run_command(doc! { "createRole": "clerk", "privileges": [], "roles": ["read"] }).await.unwrap();
        from.database(database).run_command(doc! { "createUser": user, "pwd": "x", "roles": ["clerk"] }).await.unwrap();
        from.database(database).collection("c").insert_one(doc! { "_id": 1 }).await.unwrap();
    }
    let (source, target) = (source.uri(), target.uri());
    let dump = ["dump", "--uri", &source, "-d", "shop", "--dumpDbUsersAndRoles"];
    // Over an existing dump, also with other compression.
    for (into, of) in [("-od", "d/shop"), ("--archive=a", "--archive=a"), ("-od --gzip", "d")] {
        let into: Vec<&str> = dump.into_iter().chain(into.split(' ')).collect();
        assert_eq!(cli.run(&into).await.code, Some(0), "{into:?}");
        for plain in ["users", "roles"].iter().filter(|_| of == "d/shop") {
            let of_shop = std::fs::read(cli.dir().join(format!("d/shop/$admin.system.{plain}.bson"))).unwrap();
            assert_eq!(Documents::of(&of_shop).count(), 1, "{plain}: no other database's");
        }
        let output = cli.run(&["restore", "--uri", &target, "--drop", "-d", "shop", "--restoreDbUsersAndRoles", of]).await;
        assert_eq!(output.code, Some(0), "{of}: {}", output.stderr);
        assert_eq!(
            (accounts_of(&to, "users").await, accounts_of(&to, "roles").await),
            (vec!["ann".to_owned()], vec!["clerk".to_owned()])
        );
        to.database("shop").run_command(doc! { "dropUser": "ann" }).await.unwrap();
        to.database("shop").run_command(doc! { "dropRole": "clerk" }).await.unwrap();
    }
    // Users come before any other collection: mongorestore looks for them there.
    let archive = std::fs::read(cli.dir().join("a")).unwrap();
    let first = |name: &str| archive.windows(name.len()).position(|bytes| bytes == name.as_bytes()).unwrap();
    assert!(first("$admin.system.version") < first("\0c\0"));
    let files = names(&cli.dir().join("d/shop"));
    let accounts = ["$admin.system.roles.bson.gz", "$admin.system.users.bson.gz", "$admin.system.version.bson.gz"];
    assert_eq!((&files[..3], files.len()), (&accounts.map(str::to_owned)[..], 5));
    let one = cli.run(&[&dump[..], &["-c", "c", "-oe"]].concat()).await;
    assert!(one.code == Some(2) && one.stderr.contains("--collection"), "{one:?}");
}

/// A dump that can be read only once, through a pipe, with an oplog after the users.
#[tokio::test(flavor = "multi_thread")]
async fn users_come_by_standard_input_with_an_oplog() {
    let source = Server::standalone().await;
    let from = source.client().await;
    from.database("shop").run_command(doc! { "createUser": "ann", "pwd": "secret", "roles": ["read"] }).await.unwrap();
    let users = documents(&from, "system.users").await;
    let mut maker =
        Maker::new(&[("admin.system.users", r#"{"indexes":[]}"#, ""), ("shop.c", r#"{"indexes":[]}"#, ""), (".oplog", "", "")]);
    maker.segment("admin.system.users", &users).end("admin.system.users");
    maker.segment("shop.c", &[doc! { "_id": 1 }]).end("shop.c");
    let entry = doc! { "op": "i", "ns": "shop.c", "ui": bson::Uuid::new(), "o": { "_id": 2 },
    "ts": bson::Timestamp { time: 1_790_000_000, increment: 1 }, "t": 1_i64, "v": 2_i64 };
    maker.segment(".oplog", &[entry]).end(".oplog");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("archive");
    std::fs::write(&path, maker.bytes()).unwrap();
    let target = Server::replica_set("target").await;
    let cli = Cli::new().env("TMPDIR", directory.path().to_str().unwrap());
    let mut command = cli.command(&["restore", "--uri", &target.uri(), "--archive"]);
    command.stdin(std::fs::File::open(&path).unwrap());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let to = target.client().await;
    assert_eq!(accounts_of(&to, "users").await, ["ann"]);
    assert_eq!(to.database("shop").collection::<Document>("c").count_documents(doc! {}).await.unwrap(), 2);
    // The temporary copy is gone.
    assert_eq!(names(directory.path()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_not_asked_of_a_dump_that_has_none() {
    let server = Server::standalone().await;
    let options = ImportOptions { users: Some(WantedAccounts::all()), ..ImportOptions::default() };
    let error = import(&sample("dir"), &server.uri(), &options).await.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("no users"), "{error}");
}
