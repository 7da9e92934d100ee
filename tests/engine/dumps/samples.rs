//! Imports of the samples, compared with what is known of them. Two were dumped while their source
//! was written to: their invariants must hold.

use bsonvault::engine::import::{DumpOptions, DumpSource, ImportMode, ImportOptions};
use bsonvault::format::manifest::ClusterTime;
use bsonvault::names::Namespace;

use super::expected::differences;
use super::{empty, import, import_with, open, options};

use crate::support::bank;
use crate::support::cli::Cli;
use crate::support::files::{gunzip, sample};
use crate::support::server::Server;
use crate::support::vault::{matching, without};

#[tokio::test(flavor = "multi_thread")]
async fn each_sample_comes_back_as_it_was() {
    let server = Server::replica_set("target").await;
    let client = server.client().await;
    let plain = tempfile::tempdir().unwrap();
    let archive = plain.path().join("looks.like.nothing");
    std::fs::write(&archive, gunzip(&std::fs::read(sample("all.archive.gz")).unwrap())).unwrap();
    for place in [sample("dir"), sample("dir-gzip"), sample("all.archive.gz"), archive] {
        empty(&client).await;
        let report = import(&place, &server.uri(), &ImportOptions::default()).await.unwrap();
        assert_eq!(differences(&client, &[]).await, Vec::<String>::new(), "{}", place.display());
        assert_eq!((report.collections.len(), report.passed_over), (48, 0));
        // Skipped data of the server is named.
        assert!(report.left_out.iter().any(|l| l.starts_with("admin.system.version: ")), "{:?}", report.left_out);
    }
    empty(&client).await;
    import(&sample("zoo.archive.gz"), &server.uri(), &ImportOptions::default()).await.unwrap();
    assert_eq!(differences(&client, &["zoo"]).await, Vec::<String>::new());
    assert!(!client.list_database_names().await.unwrap().contains(&"zoo_bulk".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_replaces_what_stands_there_and_leaves_the_rest() {
    let server = Server::standalone().await;
    let client = server.client().await;
    let uri = server.uri();
    client.database("zoo").collection("people").insert_one(bson::doc! { "_id": "old" }).await.unwrap();
    client.database("zoo").collection("mine").insert_one(bson::doc! { "_id": 1 }).await.unwrap();
    let only = ImportOptions { filter: matching(&["zoo.people"]), ..ImportOptions::default() };
    let refused = import(&sample("dir"), &uri, &ImportOptions { mode: ImportMode::Fail, ..only.clone() }).await.unwrap_err();
    assert!(refused.to_string().contains("in the way"), "{refused}");
    let report = import(&sample("dir"), &uri, &only).await.unwrap();
    assert_eq!(report.collections.len(), 1);
    assert_eq!(client.database("zoo").collection::<bson::Document>("mine").count_documents(bson::doc! {}).await.unwrap(), 1);
    client.database("zoo").collection::<bson::Document>("mine").drop().await.unwrap();
    let rest = ImportOptions { filter: without(&["zoo.people"]), ..ImportOptions::default() };
    import(&sample("all.archive.gz"), &uri, &rest).await.unwrap();
    assert_eq!(differences(&client, &[]).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_comes_by_standard_input_in_little_memory() {
    let server = Server::standalone().await;
    let client = server.client().await;
    let cli = Cli::new().env("MONGO_URI_LOCAL", server.uri()).env("BACKUP_MEMORY_MB", "64");
    let mut command = cli.command(&["import", "-", "--json"]);
    command.stdin(std::fs::File::open(sample("all.archive.gz")).unwrap());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(differences(&client, &[]).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oplog_makes_the_parts_of_a_dump_belong_together() {
    let server = Server::replica_set("target").await;
    let client = server.client().await;
    for name in ["oplog.archive.gz", "oplog-dir-gzip"] {
        empty(&client).await;
        let report = import(&sample(name), &server.uri(), &ImportOptions::default()).await.unwrap();
        assert_eq!(bank::check(&client, "bank").await, Vec::<String>::new(), "{name}");
        let replayed = report.replayed.unwrap();
        assert!(replayed.entries > 0 && replayed.operations > 0, "{replayed:?}");

        // The limit is exclusive. Without the oplog's end, or without all of it, the parts do not
        // fit: the check detects that.
        let dump = DumpOptions { oplog_limit: Some(ClusterTime { t: 1, i: 0 }), ..options() };
        empty(&client).await;
        let report = import_with(&sample(name), dump, &server.uri(), &ImportOptions::default()).await.unwrap();
        assert_eq!(report.replayed, None);
        assert_ne!(bank::check(&client, "bank").await, Vec::<String>::new(), "{name} is right without its oplog");
        let dump = DumpOptions { oplog_limit: Some(replayed.to), ..options() };
        empty(&client).await;
        let report = import_with(&sample(name), dump, &server.uri(), &ImportOptions::default()).await.unwrap();
        assert_eq!(report.replayed.unwrap().entries, replayed.entries - 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_is_known_by_what_it_holds() {
    let names = |dumped: &DumpSource| -> Vec<Namespace> { dumped.collections().iter().map(|c| c.namespace()).collect() };
    // The directory of one database, and the file of one collection.
    let database = open(&sample("dir/zoo_bulk"), options()).await.unwrap();
    assert_eq!(names(&database).len(), 8);
    assert!(names(&database).iter().all(|n| n.database == "zoo_bulk"));
    let file = open(&sample("dir/zoo_names/slash%2Fand%5Cback.bson"), options()).await.unwrap();
    assert_eq!(names(&file), [Namespace::new("zoo_names", "slash/and\\back")]);
    assert_eq!(file.collections()[0].indexes.len(), 2);
    // Limits for a missing oplog, and paths that are not dumps.
    let dump = DumpOptions { oplog_limit: Some(ClusterTime { t: 1, i: 0 }), ..options() };
    assert_eq!(open(&sample("dir"), dump).await.unwrap_err().exit_code(), 2);
    let elsewhere = tempfile::tempdir().unwrap();
    let text = elsewhere.path().join("all.archive");
    std::fs::write(&text, "this is no dump").unwrap();
    for place in [elsewhere.path().to_owned(), text, elsewhere.path().join("missing")] {
        let error = open(&place, options()).await.unwrap_err();
        assert!(error.to_string().contains(place.to_str().unwrap()), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}

/// A sample that is adopted, exported and read again holds the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_and_written_again_is_the_same() {
    let server = Server::replica_set("target").await;
    let client = server.client().await;
    let cli = Cli::new().env("MONGO_URI_LOCAL", server.uri());
    for (name, format) in
        [("all.archive.gz", "archive"), ("dir", "dir"), ("oplog.archive.gz", "archive"), ("oplog-dir-gzip", "dir")]
    {
        let adopted = cli.json(&["adopt", sample(name).to_str().unwrap()]).await;
        let out = cli.dir().join(format!("again-{name}"));
        let exported = cli
            .json(&["export", adopted["name"].as_str().unwrap(), "--format", format, "--gzip", "--out", out.to_str().unwrap()])
            .await;
        assert_eq!(exported["documents"], adopted["documents"], "{name}");
        empty(&client).await;
        import(&out, &server.uri(), &ImportOptions::default()).await.unwrap();
        if name.starts_with("oplog") {
            assert!(exported["oplog"]["entries"].as_u64().unwrap() > 0, "{exported}");
            assert_eq!(bank::check(&client, "bank").await, Vec::<String>::new(), "{name}");
        } else {
            assert_eq!(differences(&client, &[]).await, Vec::<String>::new(), "{name}");
        }
    }
}
