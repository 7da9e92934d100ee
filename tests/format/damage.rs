//! Any damage to a stored backup is found.

use std::path::Path;

use bson::rawdoc;
use bsonvault::context::Context;
use bsonvault::context::cpu::CpuPool;
use bsonvault::engine::verify::{self, VerifyOptions, VerifyReport};
use bsonvault::error::ErrorKind;
use bsonvault::format::digest::{ContentDigest, Sha256Hex};
use bsonvault::format::key;
use bsonvault::format::manifest::Manifest;
use bsonvault::repository::Repository;
use bsonvault::repository::catalog::{Backup, Catalog};
use bytes::Bytes;
use tempfile::TempDir;

use crate::support::archive::{self, Given, Shape};
use crate::support::vault::{store, verified};

struct Kept {
    directory: TempDir,
    backup: Backup,
}

impl Kept {
    async fn of(given: &[Given], shape: Shape) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let manifest = archive::write(&store, given, shape).await.unwrap();
        Self { directory, backup: Backup { store, manifest } }
    }

    async fn verify(&self, deep: bool) -> VerifyReport {
        verified(&self.backup, deep).await
    }

    fn path(&self, key: &str) -> std::path::PathBuf {
        self.directory.path().join(key)
    }

    /// The problems if the object's content is `bytes`.
    async fn with(&self, key: &str, bytes: &[u8]) -> Vec<String> {
        std::fs::write(self.path(key), bytes).unwrap();
        self.verify(false).await.problems.into_iter().map(|p| p.key).collect()
    }
}

fn documents(count: i32) -> Vec<Vec<u8>> {
    (0..count).map(|n| rawdoc! { "_id": n, "text": format!("document {n} of {count}") }.into_bytes()).collect()
}

async fn small() -> Kept {
    Kept::of(&[Given::new("d", "c", documents(3))], Shape::of(60, 1000)).await
}

async fn every_change_is_found(key: &str) {
    let kept = small().await;
    let whole = std::fs::read(kept.path(key)).unwrap();
    assert!(kept.with(key, &whole).await.is_empty());
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        assert_eq!(kept.with(key, &changed).await, [key], "bit {} of byte {at} of {key} was flipped", at % 8);
    }
    for length in 0..whole.len() {
        assert_eq!(kept.with(key, &whole[..length]).await, [key], "{key} was cut to {length} bytes");
    }
    let longer = [whole.as_slice(), b"\n"].concat();
    assert_eq!(kept.with(key, &longer).await, [key], "a byte was added to {key}");
    assert!(kept.with(key, &whole).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_a_segment_is_found() {
    every_change_is_found("d/c.00000.bson.zst").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_a_metadata_file_is_found() {
    every_change_is_found("d/c.metadata.json").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_the_checksums_is_found() {
    every_change_is_found(key::SHA256SUMS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_the_manifest_is_found() {
    every_change_is_found(key::MANIFEST).await;
}

#[tokio::test]
async fn every_bit_of_the_manifest_counts() {
    let kept = small().await;
    let whole = std::fs::read(kept.path(key::MANIFEST)).unwrap();
    assert_eq!(Manifest::from_bytes(&whole).unwrap(), kept.backup.manifest);
    let mut changed = whole.clone();
    for at in 0..whole.len() {
        for bit in 0..8 {
            changed[at] ^= 1 << bit;
            let error = Manifest::from_bytes(&changed).expect_err("a flipped bit was not found");
            assert_eq!(error.kind(), ErrorKind::Damaged);
            changed[at] = whole[at];
        }
    }
}

#[tokio::test]
async fn a_sound_backup_has_no_problem_and_is_counted_whole() {
    let kept = Kept::of(&[Given::new("d", "a", documents(50)), Given::new("e", "b", Vec::new())], Shape::of(300, 300)).await;
    assert!(kept.backup.manifest.collections[0].segments.len() > 2);
    let stored: u64 = kept.backup.manifest.objects().map(|o| o.bytes).sum();
    for deep in [false, true] {
        let report = kept.verify(deep).await;
        assert!(report.is_sound() && report.notes.is_empty(), "{report:?}");
        assert_eq!(report.objects, kept.backup.manifest.objects().count() as u64);
        assert_eq!(report.stored_bytes, stored);
        assert_eq!(report.documents, if deep { 50 } else { 0 });
    }
}

#[tokio::test]
async fn everything_that_is_wrong_is_reported_at_once() {
    let kept = Kept::of(&[Given::new("d", "a", documents(60)), Given::new("e", "b", documents(1))], Shape::of(300, 300)).await;
    let cut = std::fs::read(kept.path("d/a.00000.bson.zst")).unwrap();
    std::fs::write(kept.path("d/a.00000.bson.zst"), &cut[..50]).unwrap();
    let mut flipped = std::fs::read(kept.path("d/a.00002.bson.zst")).unwrap();
    flipped[20] ^= 4;
    std::fs::write(kept.path("d/a.00002.bson.zst"), flipped).unwrap();
    std::fs::remove_file(kept.path("e/b.00000.bson.zst")).unwrap();
    std::fs::remove_file(kept.path(key::SHA256SUMS)).unwrap();
    // An object that exists, but cannot be read.
    std::fs::remove_file(kept.path("e/b.metadata.json")).unwrap();
    std::os::unix::fs::symlink("b.metadata.json", kept.path("e/b.metadata.json")).unwrap();
    for deep in [false, true] {
        let report = kept.verify(deep).await;
        let wrong: Vec<_> = report.problems.iter().map(|p| (p.key.as_str(), p.message.as_str())).collect();
        let expected = [
            (key::SHA256SUMS, "SHA256SUMS is missing, "),
            ("d/a.00000.bson.zst", "d/a.00000.bson.zst has 50 bytes, expected "),
            ("d/a.00002.bson.zst", "d/a.00002.bson.zst was changed: its SHA-256 is "),
            ("e/b.metadata.json", "e/b.metadata.json: cannot read "),
            ("e/b.00000.bson.zst", "e/b.00000.bson.zst is missing, "),
        ];
        assert_eq!(wrong.len(), expected.len(), "{wrong:#?}");
        for ((key, message), (expected_key, start)) in wrong.iter().zip(expected) {
            assert!(*key == expected_key && message.starts_with(start), "{key}: {message}");
        }
    }
}

#[tokio::test]
async fn what_does_not_belong_is_a_note_and_no_problem() {
    let kept = small().await;
    std::fs::write(kept.path("d/notes.txt"), "mine").unwrap();
    std::fs::write(kept.path(key::PROGRESS), "{}").unwrap();
    let report = kept.verify(true).await;
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.notes, ["d/notes.txt (4 bytes) does not belong to the backup"]);
}

#[tokio::test]
async fn a_broken_document_under_right_digests_is_found_by_decoding() {
    let mut documents = documents(5);
    let broken = documents[3].len() - 2;
    documents[3][broken] = b'x'; // the NUL of its last string
    let kept = Kept::of(&[Given::new("d", "c", documents)], Shape::of(100, 10_000)).await;
    assert!(kept.verify(false).await.is_sound());
    let report = kept.verify(true).await;
    assert_eq!(report.problems.len(), 1, "{report:?}");
    assert_eq!(report.problems[0].message, "document 3 of d/c.00000.bson.zst: a BSON document has a string without its NUL");
    assert_eq!(report.documents, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_the_oplog_slice_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let store = store(directory.path());
    let entry = rawdoc! { "op": "i", "ns": "d.c", "o": { "_id": 1 }, "ts": bson::Timestamp::from(archive::LISTED) }.into_bytes();
    let shape = Shape::of(60, 1000);
    let manifest = archive::write_with_oplog(&store, &[Given::new("d", "c", documents(3))], &[entry], shape).await.unwrap();
    let kept = Kept { directory, backup: Backup { store, manifest } };
    let key = "oplog.00000.bson.zst";
    let whole = std::fs::read(kept.path(key)).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        assert_eq!(kept.with(key, &changed).await, [key], "bit {} of byte {at} was flipped", at % 8);
        assert_eq!(kept.with(key, &whole[..at]).await, [key], "cut to {at} bytes");
    }
    assert!(kept.with(key, &whole).await.is_empty());
    assert!(kept.verify(true).await.is_sound());
}

#[tokio::test]
async fn an_entry_that_cannot_be_of_the_slice_is_found_by_decoding() {
    let time = |t: u32| bson::Timestamp { time: archive::LISTED.t + t, increment: 7 };
    let entry = |t: u32| rawdoc! { "op": "i", "ns": "d.c", "o": { "_id": 1 }, "ts": time(t) }.into_bytes();
    let nameless = rawdoc! { "ns": "d.c", "ts": time(1) }.into_bytes();
    for (entries, message) in [
        (
            vec![entry(0), entry(2)],
            "document 1 of oplog.00000.bson.zst: the entry of 2026-11-22T21:45:02Z (1795383902, 7) is outside of the slice",
        ),
        (
            vec![entry(1), entry(1)],
            "document 1 of oplog.00000.bson.zst: the entry of 2026-11-22T21:45:01Z (1795383901, 7) stands after that of \
                                    2026-11-22T21:45:01Z (1795383901, 7)",
        ),
        (vec![nameless], "document 0 of oplog.00000.bson.zst: an oplog entry has no `ts` or no `op`"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let manifest = archive::write_with_oplog(&store, &[], &entries, Shape::of(1000, 1000)).await.unwrap();
        let kept = Kept { directory, backup: Backup { store, manifest } };
        assert!(kept.verify(false).await.is_sound());
        let problems: Vec<String> = kept.verify(true).await.problems.into_iter().map(|p| p.message).collect();
        assert_eq!(problems, [message]);
    }
}

#[tokio::test]
async fn a_metadata_file_that_is_no_json_under_right_digests_is_found_by_decoding() {
    let mut kept = small().await;
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    for (text, message) in
        [(deep.as_str(), None), ("{\"indexes\":[}", Some("d/c.metadata.json is not JSON: expected value at line 1 column 13"))]
    {
        let manifest = &mut kept.backup.manifest;
        let object = &mut manifest.collections[0].metadata;
        (object.bytes, object.sha256) = (text.len() as u64, Sha256Hex::of(text.as_bytes()));
        manifest.checksums = Sha256Hex::of(manifest.sums().as_bytes());
        let bytes = manifest.to_bytes().unwrap();
        *manifest = Manifest::from_bytes(&bytes).unwrap();
        for (key, bytes) in
            [(key::MANIFEST, bytes), (key::SHA256SUMS, manifest.sums().into_bytes()), ("d/c.metadata.json", text.into())]
        {
            std::fs::write(kept.directory.path().join(key), bytes).unwrap();
        }
        assert!(kept.verify(false).await.is_sound());
        let problems: Vec<String> = kept.verify(true).await.problems.into_iter().map(|p| p.message).collect();
        assert_eq!(problems.first().map(String::as_str), message);
    }
}

#[tokio::test]
async fn digests_and_counts_are_taken_again_by_decoding() {
    for change in [|d: &mut (u128, u64)| d.0 ^= 1, |d: &mut (u128, u64)| d.1 -= 1] {
        let mut kept = small().await;
        let manifest = &mut kept.backup.manifest;
        let mut values = (manifest.collections[0].digest.0, manifest.collections[0].documents);
        change(&mut values);
        let collection = &mut manifest.collections[0];
        (collection.digest, collection.documents) = (ContentDigest(values.0), values.1);
        (collection.segments[0].digest, collection.segments[0].documents) = (ContentDigest(values.0), values.1);
        manifest.totals.documents = values.1;
        let bytes = manifest.to_bytes().unwrap();
        *manifest = Manifest::from_bytes(&bytes).unwrap();
        kept.backup.store.put(key::MANIFEST, vec![Bytes::from(bytes)]).await.unwrap();
        assert!(kept.verify(false).await.is_sound());
        let report = kept.verify(true).await;
        assert_eq!(report.problems.len(), 1, "{report:?}");
        let message = &report.problems[0].message;
        assert!(message.starts_with("d/c.00000.bson.zst: holds 3 documents of ") && message.contains(", expected "), "{message}");
    }
}

#[tokio::test]
async fn a_manifest_that_was_replaced_since_it_was_read_is_found() {
    let kept = small().await;
    let mut other = kept.backup.manifest.clone();
    other.source.server_version = "7.0.0".to_owned();
    kept.backup.store.put(key::MANIFEST, vec![Bytes::from(other.to_bytes().unwrap())]).await.unwrap();
    let report = kept.verify(false).await;
    assert_eq!(report.problems[0].message, "manifest.json was replaced by another one since it was read");
}

#[tokio::test]
async fn a_verification_stops_when_it_is_told_to() {
    let kept = small().await;
    let cx = Context::default();
    cx.cancel.cancel();
    let error = verify::prove(&kept.backup, &VerifyOptions { deep: true }, &cx).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
}

#[tokio::test]
async fn a_renamed_backup_is_sound_under_its_new_name() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    archive::write(&store.below("one"), &[Given::new("d", "c", documents(3))], Shape::of(60, 1000)).await.unwrap();
    std::fs::rename(root.path().join("one"), root.path().join("two")).unwrap();
    let backup = Catalog::new(Repository::of(store), &CpuPool::new(1)).find("two").await.unwrap();
    let report = verified(&backup, true).await;
    assert!(report.is_sound());
    assert!(Path::new(&report.path).ends_with("two") && report.name.starts_with("atlas-backup-"));
}
