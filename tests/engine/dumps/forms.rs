//! Dumps of every form and age: a path's content decides what it is. Also missing parts, and
//! impossible ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bson::{Document, doc};
use bsonvault::context::memory::MemoryBudget;
use bsonvault::error::{Error, ErrorKind};
use bsonvault::format::manifest::{CollectionKind, Topology};
use bsonvault::interop::{COPIES, Dump, Of, Part, Wanted};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A directory that is written file by file.
struct Files(tempfile::TempDir);

impl Files {
    fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let files_in = Self(tempfile::tempdir().unwrap());
        for (name, bytes) in files {
            let path = files_in.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        files_in
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("dump").join(name)
    }

    async fn look(&self) -> Result<Dump, Error> {
        look(&self.path("")).await
    }

    async fn refused(&self, kind: ErrorKind, says: &[&str]) {
        let error = self.look().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(says.iter().all(|part| error.to_string().contains(part)), "{error}");
    }
}

async fn look(path: &Path) -> Result<Dump, Error> {
    Dump::open(path.to_str().unwrap(), &CancellationToken::new()).await
}

/// The content of a dump, by namespace.
async fn read(dump: &Dump) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let wanted = Wanted { collections: vec![true; dump.collections().len()], oplog: true, users: true };
    read_only(dump, &wanted, &MemoryBudget::new(64 << 20)).await
}

async fn read_only(dump: &Dump, wanted: &Wanted, budget: &MemoryBudget) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let (parts, mut incoming) = mpsc::channel(1);
    let taken = async {
        let (mut all, mut ended) = (BTreeMap::<String, Vec<u8>>::new(), Vec::new());
        while let Some(part) = incoming.recv().await {
            let name = |of| match of {
                Of::Collection(number) => dump.collections()[number].namespace().to_string(),
                of => format!("{of:?}"),
            };
            match part {
                Part::Documents { of, frame, content, .. } => {
                    assert!(content.bytes == frame.len() as u64 && !ended.contains(&of), "{of:?}");
                    all.entry(name(of)).or_default().extend(frame);
                }
                Part::End(of) => {
                    assert!(!ended.contains(&of), "{of:?} ended twice");
                    ended.push(of);
                    all.entry(name(of)).or_default();
                }
            }
        }
        all
    };
    let stop = CancellationToken::new();
    let (read, all) = tokio::join!(dump.read(wanted, budget, &stop, parts), taken);
    read.map(|()| all)
}

fn bytes(documents: &[Document]) -> Vec<u8> {
    documents.iter().flat_map(|d| d.to_vec().unwrap()).collect()
}

fn metadata(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn plain() -> Vec<u8> {
    metadata(r#"{"indexes":[]}"#)
}

/// Gzip of one member, stored as it is: the header, a block of at most 65,535 bytes, CRC and
/// length.
fn gzip(content: &[u8]) -> Vec<u8> {
    let mut crc = !0_u32;
    for byte in content {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    let length = u16::try_from(content.len()).unwrap();
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    member.extend(length.to_le_bytes().into_iter().chain((!length).to_le_bytes()));
    member.extend(content);
    member.extend((!crc).to_le_bytes().into_iter().chain(u32::from(length).to_le_bytes()));
    member
}

#[tokio::test]
async fn names_and_compression_are_told_by_content_and_not_by_endings() {
    let (one, two) = (bytes(&[doc! { "_id": 1 }]), bytes(&[doc! { "_id": 2, "x": "y" }]));
    let members = [gzip(&one), gzip(&two)].concat();
    let long = "l".repeat(235) + "$x";
    let cut = bsonvault::format::key::escape_collection(&long);
    let files = Files::new(&[
        ("d/a%20b%2Fc.bson", gzip(&one)),
        ("d/a%20b%2Fc.metadata.json.gz", plain()),
        ("d/not%zzescaped.bson.gz", one.clone()),
        ("d/not%zzescaped.metadata.json", gzip(&plain())),
        ("d/members.bson.gz", members),
        ("d/members.metadata.json", plain()),
        ("d/old.bin", two.clone()),
        ("d/old.metadata.json", plain()),
        ("d/x.bson.bson", one.clone()),
        ("d/x.bson.metadata.json", plain()),
        (&format!("d/{}.bson", "k".repeat(200)), Vec::new()),
        (&format!("d/{}.metadata.json", "k".repeat(200)), plain()),
        ("prelude.json", br#"{"ServerVersion":"7.0.16","ToolVersion":"100.12.0"}"#.to_vec()),
        ("oplog.bson", gzip(&two)),
    ]);
    std::os::unix::fs::symlink("old.bin", files.path("d/linked.bson")).unwrap();
    std::fs::write(files.path("d/linked.metadata.json"), plain()).unwrap();
    assert!(cut.len() == 238 && cut.contains("%24"));
    let dump = files.look().await.unwrap();
    assert_eq!(dump.notes(), Vec::<String>::new());
    assert_eq!((dump.source().server_version.as_str(), dump.source().topology), ("7.0.16", Topology::ReplicaSet));
    assert_eq!(dump.source().uri, "dump:dump");
    for _ in 0..2 {
        let all = read(&dump).await.unwrap();
        let expected = [
            ("Oplog".to_owned(), two.clone()),
            ("d.a b/c".to_owned(), one.clone()),
            (format!("d.{}", "k".repeat(200)), Vec::new()),
            ("d.linked".to_owned(), two.clone()),
            ("d.members".to_owned(), [one.clone(), two.clone()].concat()),
            ("d.not%zzescaped".to_owned(), one.clone()),
            ("d.old".to_owned(), two.clone()),
            ("d.x.bson".to_owned(), one.clone()),
        ];
        assert_eq!(all, expected.into_iter().collect());
    }
}

#[tokio::test]
async fn names_that_were_cut_short_are_those_of_the_metadata() {
    let name = "ü".repeat(90);
    let series = "ä".repeat(70) + &"s".repeat(60);
    let stem = bsonvault::format::key::escape_collection(&name);
    let buckets = bsonvault::format::key::escape_collection(&format!("system.buckets.{series}"));
    let own = bsonvault::format::key::escape_collection(&series);
    assert_eq!((stem.len(), buckets.len()), (238, 238));
    let one = bytes(&[doc! { "_id": 1 }]);
    let of_series = format!(
        r#"{{"options":{{"timeseries":{{"timeField":"t"}}}},"indexes":[],"collectionName":"{series}","type":"timeseries"}}"#
    );
    let documents = (format!("d/{stem}.bson"), one.clone());
    let more = [
        (format!("d/{stem}.metadata.json"), metadata(&format!(r#"{{"indexes":[],"collectionName":"{name}"}}"#))),
        (format!("d/{buckets}.bson"), one.clone()),
        (format!("d/{own}.metadata.json"), metadata(&of_series)),
    ];
    let all: Vec<(&str, Vec<u8>)> = std::iter::once(&documents).chain(&more).map(|(n, b)| (n.as_str(), b.clone())).collect();
    let dump = Files::new(&all).look().await.unwrap();
    let kinds: Vec<_> = dump.collections().iter().map(|c| (c.name.as_str(), c.kind)).collect();
    assert_eq!(kinds, [(series.as_str(), CollectionKind::TimeSeries), (name.as_str(), CollectionKind::Collection)]);
    Files::new(&all[..1]).refused(ErrorKind::Damaged, &["cut short", &stem]).await;
    let nameless = (all[1].0, plain());
    Files::new(&[all[0].clone(), nameless]).refused(ErrorKind::Damaged, &["cut short", &stem]).await;
}

#[tokio::test]
async fn what_is_missing_or_strange_is_noted_and_what_belongs_to_servers_left_out() {
    let one = bytes(&[doc! { "_id": 1 }]);
    let files = Files::new(&[
        ("d/without.bson", one.clone()),
        ("d/blank.bson", one.clone()),
        ("d/blank.metadata.json", Vec::new()),
        (
            "d/alone.metadata.json",
            metadata(
                r#"{"options":{"capped":true,"size":4096,"create":"alone"},"indexes":[],"uuid":"28c261ac153b4c17935f48597ccff47f"}"#,
            ),
        ),
        ("d/view.metadata.json", metadata(r#"{"options":{"viewOn":"a","pipeline":[]},"indexes":[]}"#)),
        ("d/system.profile.bson", one.clone()),
        ("d/system.indexes.bson", one.clone()),
        ("d/with%24dollar.bson", one.clone()),
        ("d/bsonvault.import.bson", one.clone()),
        ("d/notes.txt", Vec::new()),
        ("d/deeper/x.bson", one.clone()),
        ("local/oplog.rs.bson", one.clone()),
        ("config/chunks.bson", one.clone()),
        ("empty/readme", Vec::new()),
    ]);
    let dump = files.look().await.unwrap();
    let kinds: Vec<_> = dump.collections().iter().map(|c| (c.name.as_str(), c.kind)).collect();
    let plain = CollectionKind::Collection;
    assert_eq!(kinds, [("alone", plain), ("blank", plain), ("view", CollectionKind::View), ("without", plain)]);
    let alone = &dump.collections()[0];
    assert_eq!(Document::try_from(&*alone.options.bson).unwrap(), doc! { "capped": true, "size": 4096 });
    assert_eq!(alone.uuid.unwrap().simple().to_string(), "28c261ac153b4c17935f48597ccff47f");
    assert_eq!((dump.source().server_version.as_str(), dump.source().topology), ("unknown", Topology::Standalone));
    let left_out: Vec<_> = dump.left_out().iter().map(|l| format!("{}.{}", l.database, l.collection)).collect();
    assert_eq!(
        left_out,
        ["config.chunks", "d.bsonvault.import", "d.system.indexes", "d.system.profile", "d.with$dollar", "local.oplog.rs"]
    );
    let notes = dump.notes().join("\n");
    for noted in ["d.without has no metadata", "d.blank has no metadata", "alone.bson is missing", "notes.txt", "deeper", "empty"]
    {
        assert!(notes.contains(noted), "{noted} is not in\n{notes}");
    }
    assert_eq!(dump.notes().len(), 6, "{notes}");
    assert_eq!(read(&dump).await.unwrap().into_iter().filter(|(_, b)| !b.is_empty()).count(), 2);
    // A directory with both collections and directories of collections is ambiguous.
    std::fs::write(files.path("stray.bson"), &one).unwrap();
    files.refused(ErrorKind::Usage, &["stray.bson", "it is unclear"]).await;
}

#[tokio::test]
async fn users_and_roles_are_told_apart() {
    let (a, b) = (bytes(&[doc! { "_id": "a" }]), bytes(&[doc! { "_id": "b" }]));
    let of_databases = [
        ("d/$admin.system.users.bson", a.clone()),
        ("e/$admin.system.users.bson", b.clone()),
        ("e/$admin.system.roles.bson", b.clone()),
        ("e/c.bson", a.clone()),
        ("e/c.metadata.json", plain()),
    ];
    let dump = Files::new(&of_databases);
    let dump = (dump.look().await.unwrap(), dump);
    let all = read(&dump.0).await.unwrap();
    assert_eq!((all["Users"].len(), all["Roles"].len(), all["e.c"].len()), (a.len() + b.len(), b.len(), a.len()));
    assert!(dump.0.has_users() && !dump.0.has_oplog());
    let mut of_all = of_databases.to_vec();
    of_all.push(("admin/system.users.bson", b.clone()));
    let files = Files::new(&of_all);
    let dump = files.look().await.unwrap();
    let all = read(&dump).await.unwrap();
    assert_eq!((all.get("Users"), all.get("Roles"), dump.left_out().len()), (Some(&b), None, 3));
    let wanted = Wanted { collections: vec![false], oplog: true, users: false };
    assert_eq!(read_only(&dump, &wanted, &MemoryBudget::new(1 << 20)).await.unwrap(), BTreeMap::new());
}

/// Files, and the expected error.
type Case<'a> = (&'a [(&'a str, Vec<u8>)], ErrorKind, &'a [&'a str]);

#[tokio::test]
async fn what_cannot_be_one_dump_is_refused_by_name() {
    let one = bytes(&[doc! { "_id": 1 }]);
    let series = metadata(r#"{"options":{"timeseries":{"timeField":"t"}},"indexes":[],"type":"timeseries"}"#);
    let cases: [Case<'_>; 11] = [
        (&[("d/x.bson", one.clone()), ("d/x.bson.gz", gzip(&one))], ErrorKind::Damaged, &["x.bson and ", "x.bson.gz"]),
        (&[("d/x.metadata.json", plain()), ("d/x.metadata.json.gz", plain())], ErrorKind::Damaged, &["x.metadata.json.gz"]),
        (&[("d/a+b.bson", one.clone()), ("d/a%20b.bson", one.clone())], ErrorKind::Damaged, &["d.a b twice"]),
        (&[("d/system.buckets.s.bson", one.clone())], ErrorKind::Damaged, &["d.system.buckets.s", "buckets without"]),
        (
            &[("d/system.buckets.s.bson", one.clone()), ("d/s.metadata.json", plain())],
            ErrorKind::Damaged,
            &["s.bson", "s.metadata.json"],
        ),
        (
            &[("d/system.buckets.s.bson", one.clone()), ("d/s.bson", one.clone()), ("d/s.metadata.json", series)],
            ErrorKind::Damaged,
            &["d.s has documents of its own"],
        ),
        (
            &[
                ("d/v.bson", one.clone()),
                ("d/v.metadata.json", metadata(r#"{"options":{"viewOn":"a","pipeline":[]},"indexes":[]}"#)),
            ],
            ErrorKind::Damaged,
            &["the view d.v has documents"],
        ),
        (&[("d/x.bson.zst", one.clone()), ("d/x.metadata.json", plain())], ErrorKind::Damaged, &["x.bson.zst", "gzip"]),
        (&[("a.b/x.bson", one.clone())], ErrorKind::Usage, &["a.b holds collections"]),
        (&[("d/readme", one.clone())], ErrorKind::NotFound, &["holds no part of a dump"]),
        (
            &[("manifest.json", one.clone()), ("SHA256SUMS", one.clone()), ("d/x.metadata.json", plain())],
            ErrorKind::Usage,
            &["is a backup"],
        ),
    ];
    for (files, kind, says) in cases {
        Files::new(files).refused(kind, says).await;
    }
    let files = Files::new(&[("d/x.metadata.json", plain())]);
    pipe(&files.path("d/x.bson"));
    files.refused(ErrorKind::Storage, &["x.bson", "not a regular file"]).await;
    let dangling = Files::new(&[("d/x.metadata.json", plain())]);
    std::os::unix::fs::symlink("/nowhere/at/all", dangling.path("d/x.bson")).unwrap();
    dangling.refused(ErrorKind::NotFound, &["x.bson"]).await;
}

/// Creates a pipe to which nobody writes.
fn pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[tokio::test]
async fn one_database_or_one_file_is_enough() {
    let (one, two) = (bytes(&[doc! { "_id": 1 }]), bytes(&[doc! { "_id": 2, "x": "y" }]));
    let files = Files::new(&[
        ("shop/orders.bson", one.clone()),
        ("shop/orders.metadata.json", metadata(r#"{"options":{"capped":true,"size":4096},"indexes":[]}"#)),
        ("shop/oplog.bson", two.clone()),
        ("shop/oplog.metadata.json", plain()),
        ("shop/other", gzip(&two)),
        ("shop/prelude.json", br#"{"ServerVersion":"8.0.1"}"#.to_vec()),
    ]);
    let dump = look(&files.path("shop")).await.unwrap();
    assert_eq!((dump.collections().len(), dump.has_oplog(), dump.source().server_version.as_str()), (2, false, "8.0.1"));
    assert_eq!(read(&dump).await.unwrap()["shop.oplog"], two);
    let dump = look(&files.path("shop/orders.bson")).await.unwrap();
    assert_eq!(read(&dump).await.unwrap(), BTreeMap::from([("shop.orders".to_owned(), one)]));
    assert!(dump.collections()[0].options.bson.get_bool("capped").unwrap());
    let dump = look(&files.path("shop/other")).await.unwrap();
    assert_eq!((read(&dump).await.unwrap(), dump.notes().len()), (BTreeMap::from([("shop.other".to_owned(), two)]), 1));
    let error = look(&files.path("shop/orders.metadata.json")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Damaged && error.hint_text().is_some(), "{error}");
}

#[tokio::test]
async fn large_documents_and_small_budgets_do_not_stop_each_other() {
    let documents =
        |count: i32, size: usize| bytes(&(0..count).map(|n| doc! { "_id": n, "x": "y".repeat(size) }).collect::<Vec<_>>());
    let (small, large, huge) = (documents(9000, 1000), documents(3, 5 << 20), documents(2, (16 << 20) - 100));
    let mut files = vec![
        ("d/huge.bson".to_owned(), huge.clone()),
        ("d/large.bson".to_owned(), large),
        ("d/small.bson".to_owned(), small.clone()),
    ];
    files.extend(["huge", "large", "small"].map(|name| (format!("d/{name}.metadata.json"), plain())));
    let files: Vec<(&str, Vec<u8>)> = files.iter().map(|(n, b)| (n.as_str(), b.clone())).collect();
    let files = Files::new(&files);
    let dump = files.look().await.unwrap();
    let wanted = Wanted { collections: vec![true; 3], oplog: false, users: false };
    let all = read_only(&dump, &wanted, &MemoryBudget::new(COPIES * 4096)).await.unwrap();
    assert!(all["d.small"] == small && all["d.huge"] == huge && all["d.large"].len() > 15 << 20);

    // A receiver that stops early ends it without an error.
    let (parts, incoming) = mpsc::channel(1);
    drop(incoming);
    dump.read(&wanted, &MemoryBudget::new(1 << 30), &CancellationToken::new(), parts).await.unwrap();
    let (parts, _waiting) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let budget = MemoryBudget::new(1 << 30);
    let stopped = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        stop.cancel();
    };
    let (read, ()) = tokio::join!(dump.read(&wanted, &budget, &stop, parts), stopped);
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Interrupted);
}
