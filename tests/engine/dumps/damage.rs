//! A dump that is truncated or has a flipped bit anywhere is not imported, and the target stays
//! unchanged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bson::{Document, doc};
use bsonvault::context::memory::MemoryBudget;
use bsonvault::engine::import::{ImportOptions, IndexMode};
use bsonvault::error::{Error, ErrorKind};
use bsonvault::format::digest::Content;
use bsonvault::format::document::Documents;
use bsonvault::interop::{Dump, Part, Wanted};
use futures::TryStreamExt as _;
use mongodb::Client;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::import;
use super::maker::Maker;

use crate::support::files::{copy, files, gunzip, sample};
use crate::support::server::Server;

/// Reads all of a dump. Returns its content or the error.
async fn read(place: &Path) -> Result<Content, Error> {
    let stop = CancellationToken::new();
    let dump = Dump::open(place.to_str().unwrap(), &stop).await?;
    let wanted = Wanted { collections: vec![true; dump.collections().len()], oplog: true, users: true };
    let (sender, mut parts) = mpsc::channel(4);
    let budget = MemoryBudget::new(64 << 20);
    let reading = dump.read(&wanted, &budget, &stop, sender);
    let counting = async {
        let mut read = Content::default();
        while let Some(part) = parts.recv().await {
            if let Part::Documents { content, .. } = part {
                read.merge(&content);
            }
        }
        Ok(read)
    };
    tokio::try_join!(reading, counting).map(|((), read)| read)
}

/// Checks that an error is actionable: it is about damage, and names a place.
fn assert_names_the_place(error: &Error, what: &str) {
    assert!([ErrorKind::Damaged, ErrorKind::NotFound].contains(&error.kind()), "{what}: {error}");
    let message = error.to_string();
    assert!(message.contains("byte ") || message.contains("standard input") || message.contains('/'), "{what}: {message}");
}

/// A truncated or changed file in its own directory.
struct Case {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Case {
    fn of(bytes: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive");
        std::fs::write(&path, bytes).unwrap();
        Self { _directory: directory, path }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_cut_or_flipped_anywhere_are_errors_with_their_place() {
    let mut random = StdRng::seed_from_u64(5);
    // The first one is much larger than it looks.
    for (name, many, few) in [("oplog.archive.gz", 60, 20), ("zoo.archive.gz", 150, 150), ("all.archive.gz", 100, 100)] {
        for (bytes, cases) in [(std::fs::read(sample(name)).unwrap(), many), (gunzip(&std::fs::read(sample(name)).unwrap()), few)]
        {
            let whole = read(&Case::of(&bytes).path).await.unwrap();
            assert!(whole.documents > 0);
            let is_gzip = bytes.starts_with(&[0x1f, 0x8b]);
            // In an uncompressed archive, the beginning has no checksum.
            let first = if is_gzip { 0 } else { position(&bytes, &[0xFF; 4]) + 4 };
            for case in 0..cases {
                let at = random.random_range(0..bytes.len());
                let error = read(&Case::of(&bytes[..at]).path).await.expect_err(&format!("{name} cut at {at}"));
                assert_names_the_place(&error, &format!("{name} cut at {at}"));
                let (at, bit) = (random.random_range(first..bytes.len()), case % 8);
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                match read(&Case::of(&flipped).path).await {
                    Err(error) => assert_names_the_place(&error, &format!("{name}, bit {bit} of byte {at}")),
                    // The time and the system in gzip's header are not data, and some bits between
                    // its blocks have no meaning.
                    Ok(read) => assert!(is_gzip && read == whole, "{name}, bit {bit} of byte {at}"),
                }
            }
        }
    }
}

fn position(bytes: &[u8], of: &[u8]) -> usize {
    bytes.windows(of.len()).position(|window| window == of).unwrap()
}

/// Files of directories. Compressed files have a checksum; in others, only broken structure shows.
#[tokio::test(flavor = "multi_thread")]
async fn directories_with_a_file_that_was_cut_or_flipped_are_errors_with_its_name() {
    let mut random = StdRng::seed_from_u64(6);
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("dump");
    copy(&sample("dir-gzip"), &root);
    // Files of the server itself are not read.
    let is_read = |path: &PathBuf| !path.ends_with("prelude.json.gz") && !path.starts_with(root.join("admin"));
    let files: Vec<PathBuf> = files(&root).into_keys().map(|name| root.join(name)).filter(is_read).collect();
    assert!(files.len() > 80);
    let whole = read(&root).await.unwrap();
    for case in 0..400 {
        let path = &files[random.random_range(0..files.len())];
        let bytes = std::fs::read(path).unwrap();
        let at = random.random_range(0..bytes.len());
        let mut changed = bytes.clone();
        let cut = case % 2 == 0;
        if cut {
            changed.truncate(at);
        } else {
            changed[at] ^= 1 << random.random_range(0..8);
        }
        std::fs::write(path, &changed).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match read(&root).await {
            Err(error) => {
                assert_names_the_place(&error, &name);
                assert!(error.to_string().contains(&name), "{name} at {at}: {error}");
            }
            Ok(_) if cut => panic!("{name} cut at {at} is not seen"),
            Ok(read) => assert_eq!(read, whole, "{name} flipped at {at}"),
        }
        std::fs::write(path, &bytes).unwrap();
    }

    // Uncompressed: a cut inside a document.
    let root = directory.path().join("plain");
    copy(&sample("dir"), &root);
    let path = root.join("zoo_bulk/ints.bson");
    let bytes = std::fs::read(&path).unwrap();
    for _ in 0..50 {
        let at = random.random_range(1..bytes.len());
        let documents = Documents::of(&bytes[..at]).filter(|d| d.is_ok()).count();
        std::fs::write(&path, &bytes[..at]).unwrap();
        let on_a_boundary = documents > 0 && Documents::of(&bytes[..at]).all(|d| d.is_ok());
        match read(&root).await {
            Err(error) => assert!(error.to_string().contains("zoo_bulk.ints") && error.to_string().contains("byte "), "{error}"),
            Ok(_) => assert!(on_a_boundary, "cut at {at}"),
        }
    }
}

/// Each collection of the user databases, with its options and documents.
async fn state(client: &Client) -> BTreeMap<String, Vec<Document>> {
    let mut state = BTreeMap::new();
    for name in client.list_database_names().await.unwrap() {
        if ["admin", "config", "local"].contains(&&*name) {
            continue;
        }
        let database = client.database(&name);
        let infos: Vec<Document> =
            database.run_cursor_command(doc! { "listCollections": 1 }).await.unwrap().try_collect().await.unwrap();
        for info in infos {
            let collection = info.get_str("name").unwrap().to_owned();
            // Servers leave it empty after a view or a time series is dropped.
            if collection == "system.views" {
                continue;
            }
            let mut found: Vec<Document> =
                database.collection(&collection).find(doc! {}).await.unwrap().try_collect().await.unwrap();
            found.push(info);
            state.insert(format!("{name}.{collection}"), found);
        }
    }
    state
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_is_as_it_was_after_a_dump_that_is_damaged() {
    let server = Server::replica_set("target").await;
    let client = server.client().await;
    client.database("bank").collection("left").insert_many((0..10).map(|n| doc! { "_id": n, "mine": true })).await.unwrap();
    client.database("zoo").collection("people").insert_one(doc! { "_id": "mine" }).await.unwrap();
    let before = state(&client).await;
    let mut random = StdRng::seed_from_u64(7);
    let quick = ImportOptions { indexes: IndexMode::Skip, ..ImportOptions::default() };
    for (name, cases) in [("oplog.archive.gz", 6), ("zoo.archive.gz", 6)] {
        let bytes = gunzip(&std::fs::read(sample(name)).unwrap());
        for case in 0..cases {
            let mut changed = bytes.clone();
            // Late in it, when most has already been filled.
            let at = random.random_range(bytes.len() / 2..bytes.len());
            if case % 2 == 0 {
                changed.truncate(at);
            } else {
                changed[at] ^= 0x10;
            }
            let error = import(&Case::of(&changed).path, &server.uri(), &quick).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
            let after = state(&client).await;
            let names = |state: &BTreeMap<String, Vec<Document>>| state.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&after), names(&before), "{name}, {at}");
            assert!(after == before, "{name}, {at}");
        }
    }
}

/// Things that people give instead of a dump, and dumps that a transfer has changed.
#[tokio::test]
async fn what_is_no_dump_is_named_with_what_to_do() {
    let root = tempfile::tempdir().unwrap();
    let whole = gunzip(&std::fs::read(sample("zoo.archive.gz")).unwrap());
    let as_text =
        |bytes: &[u8]| bytes.iter().flat_map(|&b| if b == b'\n' { vec![b'\r', b'\n'] } else { vec![b] }).collect::<Vec<u8>>();
    // Only the inside of a document is broken, so the archive is readable up to there.
    let mut inside = Maker::new(&[("d.c", "", "")]);
    inside.segment("d.c", &[doc! { "_id": 1, "a": "x\n" }]).end("d.c");
    assert_eq!(inside.bytes().iter().filter(|&&b| b == b'\n').count(), 1);
    let packed = std::fs::read(sample("zoo.archive.gz")).unwrap();
    let (two, padded) = ([whole.as_slice(), &whole].concat(), [whole.as_slice(), &[0; 512]].concat());
    let cut_after_all = [whole.as_slice(), &[100, 0, 0, 0, 2]].concat();
    for (name, bytes, what, hint) in [
        ("zip", b"PK\x03\x04and so on".to_vec(), "is a zip file, and not a dump", "unpack it"),
        ("json", b"{\"_id\":1}\n".to_vec(), "is text, perhaps JSON", "mongoimport reads JSON"),
        ("text.archive", as_text(&whole), "", "transfer it again as binary"),
        ("inside.archive", as_text(&inside.bytes()), "d.c", "transfer it again as binary"),
        ("text.gz", as_text(&std::fs::read(sample("zoo.archive.gz")).unwrap()), "", "transfer it again as binary"),
        ("two.archive", two, "after the end of all its namespaces: another archive begins", "its own file"),
        ("two.archive.gz", [packed.as_slice(), &packed].concat(), "another archive begins", "its own file"),
        ("padded.archive", padded, "after the end of all its namespaces: a document claims 0 bytes", ""),
        ("cut.archive.gz", packed[..packed.len() - 3].to_vec(), "it ends early: the end of its compression is missing", ""),
        ("none.archive", Vec::new(), "is empty", "may have failed"),
        ("more.archive", cut_after_all, "it ends early, inside something after the end of all its namespaces", ""),
    ] {
        let path = root.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = read(&path).await.unwrap_err();
        let told = error.hint_text().unwrap_or_default();
        assert!(error.to_string().contains(what) && told.contains(hint), "{name}: {error} ({told})");
    }
}
