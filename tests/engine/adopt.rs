//! Adopts dumps of the real mongodump as backups: they hold what was dumped, and damaged dumps
//! leave nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bson::{Bson, Document, RawDocument, doc};
use bsonvault::engine::adopt::{self, AdoptOptions, AdoptReport};
use bsonvault::error::{Error, ErrorKind};
use bsonvault::format::document::Documents;
use bsonvault::format::manifest::{Collection, CollectionKind, ConsistencyKind};
use bsonvault::interop::Dump;
use bsonvault::repository::catalog::{Backup, Catalog};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::support::bank;
use crate::support::cli::{Cli, finish};
use crate::support::compare::{CompareOptions, compare};
use crate::support::files::{copy, directories, files, fixture, inside, sample};
use crate::support::server::Server;
use crate::support::vault::{Vault, filter, matching, verified, without};

async fn adopt(vault: &Vault, dump: &Path, options: &AdoptOptions) -> Result<AdoptReport, Error> {
    let dump = Dump::open(dump.to_str().unwrap(), &vault.cx.cancel).await?;
    adopt::run(&dump, &vault.repository(), options, &vault.cx).await
}

async fn refused(vault: &Vault, dump: &Path) -> Error {
    let error = adopt(vault, dump, &AdoptOptions::default()).await.unwrap_err();
    assert_eq!(inside(vault.directory.path()), Vec::<PathBuf>::new(), "left behind after {error}");
    error
}

/// A value as in `expected.json`: canonical Extended JSON with the original key order.
fn text(value: &Bson) -> String {
    match value {
        Bson::Document(fields) => text_of(fields, fields.keys().map(String::as_str)),
        Bson::Array(values) => format!("[{}]", values.iter().map(text).collect::<Vec<_>>().join(", ")),
        Bson::String(_) | Bson::Boolean(_) | Bson::Null => value.clone().into_canonical_extjson().to_string(),
        scalar => scalar.clone().into_canonical_extjson().to_string().replacen(':', ": ", 1),
    }
}

fn text_of<'a>(fields: &Document, keys: impl Iterator<Item = &'a str>) -> String {
    let one = |key| format!("{}: {}", serde_json::Value::from(key), text(fields.get(key).unwrap()));
    format!("{{{}}}", keys.map(one).collect::<Vec<_>>().join(", "))
}

/// The same, but with sorted outermost keys.
fn sorted(document: &RawDocument) -> String {
    let fields = Document::try_from(document).unwrap();
    text_of(&fields, fields.keys().map(String::as_str).collect::<BTreeSet<_>>().into_iter())
}

/// The sum modulo 2^256 of the SHA-256 of each document, in hexadecimal.
async fn sum(backup: &Backup, collection: &Collection) -> String {
    let mut sum = [0_u8; 32];
    for segment in &collection.segments {
        let stored = backup.store.get(&segment.object.key).await.unwrap();
        for document in Documents::of(&zstd::stream::decode_all(&stored[..]).unwrap()) {
            let mut carry = 0;
            for (byte, more) in sum.iter_mut().zip(Sha256::digest(document.unwrap())).rev() {
                let added = u16::from(*byte) + u16::from(more) + carry;
                (*byte, carry) = ((added & 0xff) as u8, added >> 8);
            }
        }
    }
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares a backup with what the samples hold of these databases, or of all.
async fn assert_expected(backup: &Backup, only: Option<&str>) {
    let expected: serde_json::Value = serde_json::from_slice(&std::fs::read(sample("expected.json")).unwrap()).unwrap();
    let mut names = BTreeSet::new();
    for (database, collections) in expected.as_object().unwrap().iter().filter(|(name, _)| only.is_none_or(|only| only == *name))
    {
        for (name, expected) in collections.as_object().unwrap() {
            names.insert(format!("{database}.{name}"));
            let collection = backup.manifest.collections.iter().find(|c| c.database == *database && c.name == *name);
            let collection = collection.unwrap_or_else(|| panic!("{database}.{name} is missing"));
            let namespace = collection.namespace();
            assert_eq!(collection.kind.to_string(), expected["type"].as_str().unwrap(), "{namespace}");
            assert_eq!(sorted(&collection.options.bson), expected["options"].as_str().unwrap(), "{namespace}");
            let indexes: BTreeSet<String> = collection.indexes.iter().map(|index| sorted(&index.bson)).collect();
            let listed = expected["indexes"].as_array().into_iter().flatten();
            assert_eq!(indexes, listed.map(|i| i.as_str().unwrap().to_owned()).collect(), "{namespace}");
            assert_eq!(collection.uuid.is_some(), collection.kind != CollectionKind::View, "{namespace}");
            // For time series, a dump has the buckets.
            if collection.kind == CollectionKind::Collection {
                assert_eq!(collection.documents, expected["count"].as_u64().unwrap(), "{namespace}");
                assert_eq!(sum(backup, collection).await, expected["documents"].as_str().unwrap(), "{namespace}");
            }
        }
    }
    assert_eq!(backup.manifest.collections.iter().map(|c| c.namespace().to_string()).collect::<BTreeSet<_>>(), names);
}

#[tokio::test]
async fn what_was_dumped_is_what_the_backup_holds() {
    let place = Vault::new();
    let mut contents: Vec<BTreeMap<String, _>> = Vec::new();
    for (name, only) in
        [("dir", None), ("dir-gzip", None), ("all.archive.gz", None), ("zoo.archive.gz", Some("zoo")), ("dir/zoo", Some("zoo"))]
    {
        let report = adopt(&place, &sample(name), &AdoptOptions::default()).await.unwrap();
        assert_eq!(report.notes, Vec::<String>::new(), "{name}");
        let backup = place.sound(&report.name).await;
        assert_expected(&backup, only).await;
        let manifest = &backup.manifest;
        assert_eq!(manifest.consistency.kind, ConsistencyKind::None);
        assert_eq!(manifest.source.uri, format!("dump:{}", name.rsplit('/').next().unwrap()));
        assert_eq!((manifest.source.server_version.as_str(), manifest.source.hosts.len()), ("6.0.5", 0));
        let left_out: Vec<_> = manifest.left_out.iter().map(|l| (l.database.as_str(), l.collection.as_str())).collect();
        assert_eq!(left_out, if only.is_none() { vec![("admin", "system.version")] } else { vec![] }, "{name}");
        contents.push(manifest.collections.iter().map(|c| (c.namespace().to_string(), c.content())).collect());
    }
    // The buckets of time series are also the same in every kind of dump.
    assert!(contents[0]["zoo.weather"].documents > 0);
    for other in &contents[1..] {
        assert!(other.iter().all(|(name, content)| contents[0][name] == *content));
    }
}

#[tokio::test]
async fn only_what_is_wanted_is_adopted() {
    let options = AdoptOptions { filter: filter(&["zoo.*", "Zoo2.c"], &["zoo.w*", "*.people"]), ..AdoptOptions::default() };
    let place = Vault::new();
    for name in ["dir-gzip", "all.archive.gz"] {
        let report = adopt(&place, &sample(name), &options).await.unwrap();
        let backup = place.sound(&report.name).await;
        let names: Vec<String> = backup.manifest.collections.iter().map(|c| c.namespace().to_string()).collect();
        assert!(names.contains(&"Zoo2.c".to_owned()) && names.contains(&"zoo.system.js".to_owned()), "{names:?}");
        assert!(names.iter().all(|n| !n.contains("weather") && !n.contains("people") && !n.contains("names.")), "{names:?}");
        assert_eq!(backup.manifest.settings.include, ["zoo.*", "Zoo2.c"]);
    }
    let nowhere = Vault::new();
    for pattern in ["nothing.*", "zoo.nothing"] {
        let options = AdoptOptions { filter: without(&[pattern]), ..AdoptOptions::default() };
        let error = adopt(&nowhere, &sample("dir"), &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(pattern), "{error}");
    }
    let options = AdoptOptions { filter: without(&["*"]), ..AdoptOptions::default() };
    assert_eq!(adopt(&nowhere, &sample("dir"), &options).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(inside(nowhere.directory.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn more_collections_than_the_memory_has_room_for_are_refused_and_adopted_in_parts() {
    let stop = CancellationToken::new();
    let taken = Dump::open(sample("dir-gzip").to_str().unwrap(), &stop).await.unwrap().taken();
    let mut options = AdoptOptions::default();
    options.tuning.memory_bytes = taken * 3 / 2;
    let place = Vault::new();
    let error = adopt(&place, &sample("dir-gzip"), &options).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.hint_text().unwrap().contains("in parts with [[include]]"), "{error}");
    assert_eq!(inside(place.directory.path()), Vec::<PathBuf>::new());
    options.filter = matching(&["zoo.people"]);
    place.sound(&adopt(&place, &sample("dir-gzip"), &options).await.unwrap().name).await;
}

#[tokio::test]
async fn adopted_backups_are_imported_like_others() {
    let (one, other) = tokio::join!(Server::standalone(), Server::standalone());
    let cli = Cli::new();
    for (name, target) in [("dir-gzip", &one), ("all.archive.gz", &other)] {
        let adopted = cli.json(&["adopt", sample(name).to_str().unwrap(), "--path", "b"]).await;
        assert_eq!(adopted["leftOut"].as_array().unwrap().len(), 1, "{adopted}");
        let backup = adopted["name"].as_str().unwrap();
        let imported = cli.json(&["import", backup, "--yes", "--target", &target.uri(), "--path", "b"]).await;
        assert_eq!(imported["documents"], adopted["documents"]);
        assert!(imported["collections"].as_array().unwrap().iter().all(|c| c["digestMatches"] == true), "{imported}");
    }
    let (a, b) = (one.client().await, other.client().await);
    let comparison = compare(&a, &b, CompareOptions::default()).await;
    assert_eq!(comparison.differences, Vec::<String>::new());
    assert!(comparison.namespaces > 45, "{comparison:?}");
    let measurements = a.database("zoo").collection::<Document>("weather").count_documents(doc! {}).await.unwrap();
    assert_eq!(measurements, 3000);
}

#[tokio::test]
async fn an_oplog_leads_to_one_moment() {
    let target = Server::standalone().await;
    let (client, cli) = (target.client().await, Cli::new());
    for name in ["oplog-dir-gzip", "oplog.archive.gz"] {
        let adopted = cli.json(&["adopt", sample(name).to_str().unwrap(), "--path", "b"]).await;
        assert_eq!(adopted["consistency"]["kind"], "oplog");
        assert_eq!(adopted["consistency"]["from"], adopted["consistency"]["clusterTime"]);
        let backup = adopted["name"].as_str().unwrap();
        let verified = cli.json(&["verify", backup, "--deep", "--path", "b"]).await;
        assert_eq!(verified["problems"], serde_json::json!([]));
        cli.json(&["import", backup, "--yes", "--target", &target.uri(), "--path", "b"]).await;
        assert_eq!(bank::check(&client, "bank").await, Vec::<String>::new(), "{name}");
        client.database("bank").drop().await.unwrap();
    }
    // Without the oplog, the parts do not fit. Otherwise, the samples would prove nothing.
    let copy = copied(&sample("oplog-dir-gzip"));
    std::fs::remove_file(copy.path().join("d/oplog.bson")).unwrap();
    let adopted = cli.json(&["adopt", copy.path().join("d").to_str().unwrap(), "--path", "b"]).await;
    assert_eq!(adopted["consistency"]["kind"], "none");
    cli.json(&["import", adopted["name"].as_str().unwrap(), "--yes", "--target", &target.uri(), "--path", "b"]).await;
    assert_ne!(bank::check(&client, "bank").await, Vec::<String>::new());
}

/// A copy of a directory, as `d` in a temporary one.
fn copied(from: &Path) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    copy(from, &place.path().join("d"));
    place
}

/// The same with one file changed.
fn changed(from: &Path, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let place = copied(from);
    let path = place.path().join("d").join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    place
}

#[tokio::test]
async fn an_archive_that_is_cut_or_changed_leaves_nothing() {
    let place = Vault::new();
    let whole = std::fs::read(sample("all.archive.gz")).unwrap();
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("a");
    for cut in [0, 1, 2, 10, 1000, whole.len() / 2, whole.len() - 8, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert_eq!(refused(&place, &path).await.kind(), ErrorKind::Damaged, "cut after {cut}");
    }
    for at in [0, 1, 2, 300, whole.len() / 3, whole.len() / 2, whole.len() - 6, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(refused(&place, &path).await.kind(), ErrorKind::Damaged, "changed at {at}");
    }
    for more in [&b"x"[..], b"\0\0\0\0", &whole] {
        std::fs::write(&path, [&whole, more].concat()).unwrap();
        assert_eq!(refused(&place, &path).await.kind(), ErrorKind::Damaged, "{} bytes more", more.len());
    }
}

#[tokio::test]
async fn a_directory_that_is_cut_or_changed_is_told_by_file_and_offset() {
    let place = Vault::new();
    let (plain, gzip, oplog) = (sample("dir"), sample("dir-gzip"), sample("oplog-dir-gzip"));
    type Change = fn(&mut Vec<u8>);
    let cases: [(&Path, &str, Change, &str); 8] = [
        (&plain, "zoo/people.bson", |b| b.truncate(b.len() - 1), "zoo.people: at byte "),
        (&plain, "zoo/people.bson", |b| b.truncate(2), "zoo.people: at byte 0 of "),
        (&plain, "zoo/people.bson", |b| b[4] = 0x55, "unknown type"),
        (&plain, "zoo/capped.bson", |b| b[23] = 0x7f, "zoo.capped: at byte 21 of "),
        (&gzip, "zoo/people.bson.gz", |b| b.truncate(b.len() - 1), "ends in the middle"),
        (&gzip, "zoo/people.bson.gz", |b| *b.iter_mut().nth_back(5).unwrap() ^= 1, "its gzip is damaged"),
        (&gzip, "zoo/people.metadata.json.gz", |b| b.truncate(30), "people.metadata.json.gz"),
        (&oplog, "oplog.bson", |b| b.truncate(b.len() / 2), "the oplog: at byte "),
    ];
    for (sample, file, change, expected) in cases {
        let copy = changed(sample, file, change);
        let error = refused(&place, &copy.path().join("d")).await;
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        let name = file.rsplit('/').next().unwrap();
        assert!(error.to_string().contains(expected) && error.to_string().contains(name), "{file}: {error}");
    }
}

#[tokio::test]
async fn an_archive_comes_from_standard_input_and_a_stop_ends_the_wait_for_it() {
    let cli = Cli::new();
    let run = |bytes: Option<Vec<u8>>| {
        let mut command = cli.command(&["adopt", "-", "--path", "b", "--json"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writing = bytes.map(|bytes| {
            std::thread::spawn(move || {
                std::io::Write::write_all(&mut stdin, &bytes).unwrap();
                stdin
            })
        });
        (child, writing)
    };
    let archive = std::fs::read(sample("zoo.archive.gz")).unwrap();
    let (child, writing) = run(Some(archive.clone()));
    drop(writing.unwrap().join().unwrap());
    let output = finish(child).await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert_eq!(output.json()["collections"], 17);
    let backups = || directories(&cli.dir().join("b")).len();
    assert_eq!(backups(), 1);

    // The rest never comes.
    let (child, writing) = run(Some(archive[..archive.len() - 1000].to_vec()));
    let open = writing.unwrap().join().unwrap();
    let begun = async {
        while backups() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), begun).await.unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = tokio::time::timeout(Duration::from_secs(20), finish(child)).await.unwrap();
    assert_eq!(output.code, Some(130), "{}", output.stderr);
    assert_eq!(backups(), 1);
    drop(open);
}

#[tokio::test]
async fn a_dump_has_a_date_of_its_own_and_counts_with_dumps_alone() {
    let cli = Cli::new();
    let copy = copied(&sample("dir"));
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_614_400);
    let mut files = vec![copy.path().join("d")];
    while let Some(path) = files.pop() {
        match path.is_dir() {
            true => files.extend(inside(&path)),
            false => std::fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap(),
        }
    }
    let adopt = |dump: PathBuf, more: &'static str| {
        let cli = &cli;
        async move {
            let args = ["adopt", dump.to_str().unwrap()].into_iter().chain(more.split_whitespace()).collect::<Vec<_>>();
            cli.json(&args).await
        }
    };
    let by_files = adopt(copy.path().join("d"), "").await;
    assert_eq!(by_files["created"], "2026-01-05T12:00:00Z");
    let said = adopt(sample("all.archive.gz"), "--created 2026-01-03").await;
    assert_eq!(said["created"], "2026-01-03T00:00:00Z");
    let part = adopt(sample("dir/zoo"), "--created 1767400000").await;
    let with_oplog = adopt(sample("oplog.archive.gz"), "").await;
    let created = with_oplog["created"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!(created.timestamp(), with_oplog["consistency"]["to"]["t"].as_i64().unwrap());

    // The two dumps of everything are counted together, but not with the partial one or the other
    // deployment.
    let cleaned = cli.json(&["clean", "--keep", "1", "--dry-run"]).await;
    let gone: Vec<&str> = cleaned["deleted"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(gone, [said["name"].as_str().unwrap()]);
    let listed = cli.json(&["list"]).await;
    let of =
        |name: &serde_json::Value| listed["backups"].as_array().unwrap().iter().find(|b| b["name"] == *name).unwrap().clone();
    assert_eq!(of(&by_files["name"])["group"], of(&said["name"])["group"]);
    assert_ne!(of(&by_files["name"])["group"], of(&part["name"])["group"]);
    assert_eq!(of(&by_files["name"])["created"], by_files["created"]);
    let future = cli.run(&["adopt", sample("dir").to_str().unwrap(), "--created", "2999-01-01"]).await;
    assert_eq!(future.code, Some(2), "{future:?}");
    assert!(future.stderr.contains("in the future"), "{future:?}");
}

#[tokio::test]
async fn an_older_repository_gets_its_config_with_the_next_backup_and_keeps_its_backups() {
    let place = Vault::new();
    for version in ["v1", "v2", "v3"] {
        for (path, bytes) in files(&fixture(version)) {
            let path = place.directory.path().join(path.replacen("atlas-backup", version, 1));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }
    let repository = place.repository();
    let catalog = Catalog::new(repository.clone(), &place.cx.cpu);
    let older = catalog.names().await.unwrap();
    assert_eq!(older.len(), 3, "{older:?}");
    assert_eq!(repository.config().await.unwrap(), None, "nobody has written yet");

    let report = adopt(&place, &sample("dir"), &AdoptOptions::default()).await.unwrap();
    let config = repository.config().await.unwrap();
    assert!(config.is_some());
    for name in &older {
        assert!(verified(&catalog.find(name.as_str()).await.unwrap(), true).await.is_sound(), "{name}");
    }
    adopt(&place, &sample("dir"), &AdoptOptions::default()).await.unwrap();
    assert_eq!(repository.config().await.unwrap(), config, "it stays the same repository");
    assert_eq!(catalog.names().await.unwrap().len(), 5);
    place.sound(&report.name).await;
}

#[tokio::test]
async fn a_repository_of_a_later_version_is_neither_read_nor_written() {
    let place = Vault::new();
    let report = adopt(&place, &sample("dir"), &AdoptOptions::default()).await.unwrap();
    std::fs::write(place.directory.path().join("repository.json"), r#"{"formatVersion":2}"#).unwrap();
    let before = files(place.directory.path());
    let (catalog, now) = (Catalog::new(place.repository(), &place.cx.cpu), bsonvault::clock::now());
    for ended in [
        adopt(&place, &sample("dir"), &AdoptOptions::default()).await.map(drop),
        catalog.list(now).await.map(drop),
        catalog.latest(now).await.map(drop),
        catalog.find(report.name.as_str()).await.map(drop),
    ] {
        let error = ended.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.to_string().contains("repository.json has format version 2"), "{error}");
    }
    assert_eq!(files(place.directory.path()), before);
}
