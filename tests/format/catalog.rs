//! The list of backups, and how to find one.

use bson::rawdoc;
use bsonvault::error::ErrorKind;
use bsonvault::format::heartbeat::Heartbeat;
use bsonvault::format::key;
use bsonvault::repository::catalog::State;
use chrono::{DateTime, TimeDelta, Utc};
use tempfile::{TempDir, tempdir};

use crate::support::archive::{self, Given, Shape, started};
use crate::support::vault::{catalog, store};

async fn write(root: &TempDir, name: &str) {
    let store = store(&root.path().join(name));
    let documents = vec![rawdoc! { "_id": 1 }.into_bytes()];
    archive::write(&store, &[Given::new("d", "c", documents)], Shape::of(60, 1000)).await.unwrap();
}

fn file(root: &TempDir, path: &str, bytes: impl AsRef<[u8]>) {
    let path = root.path().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn progress(heartbeat: DateTime<Utc>) -> Vec<u8> {
    let progress = Heartbeat {
        format_version: 1,
        host: "db1".to_owned(),
        process: 77,
        source: Vec::new(),
        job: None,
        undecided: false,
        locked: false,
        started: started() + TimeDelta::hours(2),
        heartbeat,
        snapshot_time: None,
        oplog_time: None,
        ranges_done: 0,
        ranges: 1,
        documents: 0,
        raw_bytes: 0,
    };
    serde_json::to_vec(&progress).unwrap()
}

#[tokio::test]
async fn each_directory_is_listed_as_what_it_is_newest_first() {
    let root = tempdir().unwrap();
    let now = started() + TimeDelta::hours(3);
    write(&root, "atlas-backup-2026-11-22T21-45-00-000Z").await;
    write(&root, "copy-with-another-name").await;
    write(&root, "damaged").await;
    file(&root, "damaged/manifest.json", "{}");
    file(&root, "atlas-backup-2026-11-23T01-00-00-000Z/progress.json", progress(now - TimeDelta::seconds(3)));
    file(&root, "atlas-backup-2026-11-23T00-30-00-000Z/progress.json", progress(now - TimeDelta::seconds(300)));
    file(&root, "atlas-backup-2026-11-20T00-00-00-000Z/d/c.00000.bson.zst", "x");
    file(&root, "atlas-backup-2026-11-19T00-00-00-000Z/d/c.metadata.json", "x");
    file(&root, "atlas-backup-2026-11-18T00-00-00-000Z/progress.json", "{");
    // Files that are no backup.
    file(&root, "photos/holiday.jpg", "x");
    file(&root, "not a name/manifest.json", "x");
    file(&root, "loose.bson.zst", "x");
    // A dump from mongodump, which `clean` must leave alone.
    file(&root, "dump/d/c.bson", "x");
    file(&root, "dump/d/c.metadata.json", "x");
    std::fs::create_dir(root.path().join("empty")).unwrap();

    let found = catalog(root.path()).list(now).await.unwrap();
    let listed: Vec<_> = found.iter().map(|s| (s.name.as_str(), s.state.label())).collect();
    assert_eq!(
        listed,
        [
            ("atlas-backup-2026-11-23T00-30-00-000Z", "incomplete"),
            ("atlas-backup-2026-11-23T01-00-00-000Z", "running"),
            ("copy-with-another-name", "complete"),
            ("atlas-backup-2026-11-22T21-45-00-000Z", "complete"),
            ("atlas-backup-2026-11-20T00-00-00-000Z", "incomplete"),
            ("atlas-backup-2026-11-19T00-00-00-000Z", "incomplete"),
            ("atlas-backup-2026-11-18T00-00-00-000Z", "incomplete"),
            ("damaged", "damaged"),
        ]
    );
    assert_eq!(found[2].location, root.path().join("copy-with-another-name").display().to_string());
    let State::Complete(manifest) = &found[2].state else { panic!("{:?}", found[2]) };
    assert_eq!(manifest.name.as_str(), "atlas-backup-2026-11-22T21-45-00-000Z");
    let State::Damaged(message) = &found[7].state else { panic!("{:?}", found[7]) };
    assert!(message.starts_with("manifest.json cannot be read: "), "{message}");
}

#[tokio::test]
async fn a_store_that_does_not_exist_yet_has_no_backups() {
    let root = tempdir().unwrap();
    let catalog = catalog(&root.path().join("later"));
    assert!(catalog.list(started()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_backup_is_found_by_name_and_by_path() {
    let root = tempdir().unwrap();
    write(&root, "one").await;
    let catalog = catalog(root.path());
    let path = root.path().join("one").display().to_string();
    for asked in ["one", path.as_str(), &format!("{path}/"), &format!("{path}/../one")] {
        let backup = catalog.find(asked).await.unwrap();
        assert_eq!(std::fs::canonicalize(backup.location()).unwrap(), std::fs::canonicalize(&path).unwrap());
        assert_eq!(backup.manifest.totals.documents, 1);
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_the_words_that_users_know() {
    let root = tempdir().unwrap();
    file(&root, "photos/holiday.jpg", "x");
    let here = root.path().display().to_string();
    let catalog = catalog(root.path());
    for asked in [
        "nothing",
        "photos",
        "no name",
        "é",
        "",
        &format!("{here}/nothing"),
        &format!("{here}/photos"),
        &format!("{here}/photos/holiday.jpg"),
    ] {
        let error = catalog.find(asked).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{asked}: {error}");
        assert!(error.to_string().starts_with("Database backup not found: "), "{error}");
        assert!(error.to_string().contains(&here), "{error}");
        assert!(error.hint_text().is_some());
    }
}

#[tokio::test]
async fn a_backup_that_was_never_completed_is_refused() {
    let root = tempdir().unwrap();
    file(&root, "crashed/d/c.00000.bson.zst", "x");
    file(&root, "going/progress.json", progress(started()));
    let catalog = catalog(root.path());
    let error = catalog.find("crashed").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let message = "crashed has no manifest.json, so it was never completed: it is still running, or a crash left it";
    assert!(error.to_string().ends_with(message), "{error}");
    let error = catalog.find("going").await.unwrap_err();
    assert!(error.to_string().ends_with("; process 77 on db1 last worked on it at 2026-11-22T21:45:00Z"), "{error}");
}

#[tokio::test]
async fn a_manifest_that_cannot_be_used_says_why_and_where() {
    let root = tempdir().unwrap();
    write(&root, "newer").await;
    let manifest = std::fs::read_to_string(root.path().join("newer/manifest.json")).unwrap();
    file(&root, "newer/manifest.json", manifest.replacen("\"formatVersion\": 2,", "\"formatVersion\": 5,", 1));
    let error = catalog(root.path()).find("newer").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    let here = root.path().join("newer").display().to_string();
    assert_eq!(error.to_string(), format!("backup {here}: the backup is of format version 5, and this program reads up to 4"));
    assert!(error.hint_text().unwrap().contains("newer"));

    std::fs::remove_file(root.path().join("newer").join(key::MANIFEST)).unwrap();
    let large = std::fs::File::create(root.path().join("newer").join(key::MANIFEST)).unwrap();
    large.set_len(1 << 40).unwrap();
    let error = catalog(root.path()).find("newer").await.unwrap_err();
    assert!(error.to_string().contains("more than the limit"), "{error}");
}
