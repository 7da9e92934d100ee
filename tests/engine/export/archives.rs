//! Archives, in a file and on standard output.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use bson::{Document, doc};
use bsonvault::engine::export::{ExportOptions, Format};
use bsonvault::format::manifest::CollectionKind;

use super::reader::read;
use super::{TWICE, check_metadata, collection, exported, gzip, raw, taken};

use crate::support::cli::{Cli, finish};
use crate::support::files::gunzip;
use crate::support::vault::{Vault, filter};

#[tokio::test]
async fn an_archive_is_what_its_grammar_says_to_the_last_byte() {
    let vault = Vault::new();
    let backup = taken(&vault, true).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("all.archive");
    let report = exported(&vault, &backup, &ExportOptions::of(Format::Archive), &file).await.unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let totals = backup.manifest.totals;
    assert_eq!((report.collections, report.documents, report.bytes), (totals.collections, totals.documents, totals.raw_bytes));
    assert_eq!((report.written_bytes, report.oplog), (bytes.len() as u64, None));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let archive = read(&bytes);
    let version = backup.manifest.source.server_version.as_str();
    let tool = format!("bsonvault {}", env!("CARGO_PKG_VERSION"));
    let header = doc! { "concurrent_collections": 1, "version": "0.1", "server_version": version, "tool_version": tool };
    assert_eq!(archive.header, header);
    assert_eq!(archive.members.len(), archive.bodies.len());
    assert_eq!(archive.members.len(), backup.manifest.collections.len());
    for ((member, body), c) in archive.members.iter().zip(&archive.bodies).zip(&backup.manifest.collections) {
        assert_eq!(member.keys().collect::<Vec<_>>(), ["db", "collection", "metadata", "size", "type"]);
        let field = |name| member.get_str(name).unwrap();
        let kind = match c.kind {
            CollectionKind::Collection => "collection",
            CollectionKind::View => "view",
            CollectionKind::TimeSeries => "timeseries",
        };
        assert_eq!((field("db"), field("collection"), field("type")), (&*c.database, &*c.name, kind));
        assert_eq!(member.get_i32("size").unwrap(), 0);
        check_metadata(field("metadata"), c, c.kind == CollectionKind::Collection);
        let prefix = if c.kind == CollectionKind::TimeSeries { "system.buckets." } else { "" };
        assert_eq!((&*body.database, &*body.collection), (&*c.database, &*format!("{prefix}{}", c.name)));
        assert!(body.documents == raw(&backup, &c.segments), "other documents in {}", c.name);
        assert_eq!(body.documents.len() as u64, c.bytes);
    }
    let body = |name: &str| archive.bodies.iter().find(|b| b.collection == name).unwrap();
    assert_eq!((&body("empty").segments[..], &body("view").segments[..]), (&[0][..], &[0][..]));
    assert_eq!(body("twice").documents, TWICE);
    assert!(body("many").segments.len() > 2 && body("many").documents.len() > 33 * 1024 * 1024);
    assert_eq!(body("largest").segments, [16 * 1024 * 1024]);
    assert!(collection(&backup, "series").documents > 0 && !body("system.buckets.series").documents.is_empty());

    // With gzip and the least memory, it is the same.
    let packed = directory.path().join("all.archive.gz");
    let mut options = gzip(Format::Archive);
    options.tuning.memory_bytes = 64 * 1024 * 1024;
    let report = exported(&vault, &backup, &options, &packed).await.unwrap();
    let compressed = std::fs::read(&packed).unwrap();
    assert_eq!((report.gzip, report.written_bytes), (true, compressed.len() as u64));
    assert!(gunzip(&compressed) == bytes, "other bytes");

    // Also on standard output, which gets nothing else.
    let cli = Cli::new();
    let path = backup.location();
    let (plain, packed) = (["export", &path, "--out", "-"], ["export", &path, "--out=-", "--format=archive", "--gzip"]);
    for (args, is_gzip) in [(&plain[..], false), (&packed[..], true)] {
        let mut child = cli.spawn(args);
        let mut stdout = child.stdout.take().unwrap();
        let read = tokio::task::spawn_blocking(move || {
            let mut piped = Vec::new();
            stdout.read_to_end(&mut piped).unwrap();
            piped
        });
        let (piped, output) = (read.await.unwrap(), finish(child).await);
        assert_eq!(output.code, Some(0), "{output:?}");
        assert!(output.stderr.contains("\nexport       standard output\n"), "{}", output.stderr);
        let piped = if is_gzip { gunzip(&piped) } else { piped };
        assert!(piped == bytes, "other bytes on standard output: {args:?}");
    }
}

#[tokio::test]
async fn a_part_holds_what_its_patterns_let_through() {
    let vault = Vault::new();
    let backup = taken(&vault, false).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("part");
    let part = |include: &[&str], exclude: &[&str]| ExportOptions {
        filter: filter(include, exclude),
        ..ExportOptions::of(Format::Archive)
    };
    let report = exported(&vault, &backup, &part(&["kinds.*", "oplog.*"], &["*.p*a*n*"]), &file).await.unwrap();
    let archive = read(&std::fs::read(&file).unwrap());
    let names: Vec<&str> = archive.members.iter().map(|m: &Document| m.get_str("collection").unwrap()).collect();
    assert_eq!(names, ["capped", "empty", "series", "twice", "view", "prelude.json"]);
    assert_eq!(report.collections, 6);
    let sum: usize = archive.bodies.iter().map(|b| b.documents.len()).sum();
    assert_eq!(report.bytes, sum as u64);

    let other = directory.path().join("other");
    for (options, message) in [
        (part(&["kinds.Plain"], &[]), "the pattern \"kinds.Plain\" matches no namespace of the backup"),
        (part(&[], &["x.*"]), "the pattern \"x.*\" matches no namespace of the backup"),
        (part(&["kinds.plain"], &["kinds.*"]), "leave nothing of the backup to export"),
    ] {
        let error = exported(&vault, &backup, &options, &other).await.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    // An empty oplog, if one is requested.
    let options = ExportOptions { oplog: true, ..part(&["kinds.view"], &[]) };
    exported(&vault, &backup, &options, &other).await.unwrap();
    let archive = read(&std::fs::read(&other).unwrap());
    let (last, body) = (archive.members.last().unwrap(), archive.bodies.last().unwrap());
    assert_eq!(last, &doc! { "db": "", "collection": "oplog", "metadata": "", "size": 0, "type": "" });
    assert_eq!((&*body.database, &*body.collection, &body.documents[..]), ("", "oplog", &[][..]));
}
