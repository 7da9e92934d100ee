//! The destination of an export: which existing files are replaced, and which are not touched.

use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use bsonvault::engine::export::{self, Destination, ExportOptions, Format, look};
use bsonvault::error::ErrorKind;

use super::reader::read;
use super::{collection, exported, gzip, raw, taken};

use crate::support::files::{files, gunzip, names};
use crate::support::vault::{Vault, matching, with_manifest};

fn paths(root: &Path) -> Vec<String> {
    files(root).into_keys().collect()
}

fn over(options: ExportOptions, include: &[&str]) -> ExportOptions {
    ExportOptions { force: true, filter: matching(include), ..options }
}

#[tokio::test]
async fn a_dump_is_replaced_file_by_file_and_loses_nothing_that_was_not_dumped_again() {
    let vault = Vault::new();
    let backup = taken(&vault, false).await;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("dump");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o751)).unwrap();
    let plain = || ExportOptions::of(Format::Dir);

    // One collection after the other.
    exported(&vault, &backup, &over(ExportOptions { oplog: true, ..plain() }, &["kinds.plain"]), &root).await.unwrap();
    let one = ["kinds/plain.bson", "kinds/plain.metadata.json", "oplog.bson", "prelude.json"];
    assert_eq!(paths(&root), one);
    exported(&vault, &backup, &over(plain(), &["kinds.capped", "oplog.*"]), &root).await.unwrap();
    let found = files(&root);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        [
            "kinds/capped.bson",
            "kinds/capped.metadata.json",
            "kinds/plain.bson",
            "kinds/plain.metadata.json",
            "oplog/prelude.json.bson",
            "oplog/prelude.json.metadata.json",
            "prelude.json"
        ]
    );
    assert!(found["kinds/plain.bson"] == raw(&backup, &collection(&backup, "plain").segments));
    assert_eq!(root.metadata().unwrap().permissions().mode() & 0o777, 0o751);

    // In another form: only files of the same collections are replaced or removed.
    let strange = [
        "kinds/plain.bin",
        "kinds/system.buckets.plain.bson",
        "kinds/gone.bson",
        "kinds/gone.metadata.json.gz",
        "kinds/prelude.json.gz",
        "kinds/$admin.system.users.bson",
        "elsewhere/x.bson",
    ];
    std::fs::create_dir(root.join("elsewhere")).unwrap();
    for name in strange {
        std::fs::write(root.join(name), "old").unwrap();
    }
    exported(&vault, &backup, &over(gzip(Format::Dir), &["kinds.plain"]), &root).await.unwrap();
    let found = files(&root);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        [
            "elsewhere/x.bson",
            "kinds/$admin.system.users.bson",
            "kinds/capped.bson",
            "kinds/capped.metadata.json",
            "kinds/gone.bson",
            "kinds/gone.metadata.json.gz",
            "kinds/plain.bson.gz",
            "kinds/plain.metadata.json.gz",
            "oplog/prelude.json.bson",
            "oplog/prelude.json.metadata.json",
            "prelude.json.gz"
        ]
    );
    assert!(gunzip(&found["kinds/plain.bson.gz"]) == raw(&backup, &collection(&backup, "plain").segments));

    // Full databases: files of collections that they no longer have are removed. For a partial
    // backup, nothing is known to be gone.
    let whole = directory.path().join("whole");
    exported(&vault, &backup, &plain(), &whole).await.unwrap();
    let mut expected = files(&whole);
    let backup = with_manifest(backup, |manifest| manifest.settings.exclude = vec!["kinds.gone".to_owned()]).await;
    exported(&vault, &backup, &over(plain(), &[]), &root).await.unwrap();
    assert!(paths(&root).contains(&"kinds/gone.bson".to_owned()));
    let backup = with_manifest(backup, |manifest| manifest.settings.exclude.clear()).await;
    exported(&vault, &backup, &over(plain(), &[]), &root).await.unwrap();
    for stays in ["elsewhere/x.bson", "kinds/$admin.system.users.bson"] {
        expected.insert(stays.to_owned(), b"old".to_vec());
    }
    assert_eq!(paths(&root), expected.keys().cloned().collect::<Vec<_>>());
    assert!(files(&root) == expected, "other bytes");
    assert_eq!(names(directory.path()).len(), 2);
}

#[tokio::test]
async fn what_is_not_of_a_dump_is_refused_by_name_and_stays() {
    let vault = Vault::new();
    let backup = taken(&vault, false).await;
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("dump");
    let options = over(ExportOptions::of(Format::Dir), &[]);
    // Leftovers of a killed export do not matter.
    for left in [".bsonvault-export-1/kinds", ".bsonvault-dump-2"] {
        std::fs::create_dir_all(root.join(left)).unwrap();
    }
    exported(&vault, &backup, &ExportOptions::of(Format::Dir), &root).await.unwrap();
    let found = files(&root);
    for stranger in ["notes.json", "plain.bson", "kinds/notes.json", "kinds/plain.bson.zst", "deep/er/x.bson", "kinds/%d/x.bson"]
    {
        let path = root.join(stranger);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "mine").unwrap();
        let error = exported(&vault, &backup, &options, &root).await.unwrap_err();
        let named: &str = if stranger.matches('/').count() > 1 { stranger.rsplit_once('/').unwrap().0 } else { stranger };
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert!(error.to_string().contains(&format!("holds {named:?}, which does not belong to a dump")), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        std::fs::remove_file(&path).unwrap();
        for above in path.ancestors().skip(1).take_while(|above| *above != root && !above.ends_with("kinds")) {
            std::fs::remove_dir(above).unwrap();
        }
    }
    // Neither a link nor a directory is a collection's file, and a link is not a database.
    let file = root.join("kinds/plain.bson");
    std::fs::remove_file(&file).unwrap();
    symlink("/nowhere", &file).unwrap();
    for _ in 0..2 {
        let error = exported(&vault, &backup, &options, &root).await.unwrap_err().to_string();
        assert!(error.contains("holds \"kinds/plain.bson\", which"), "{error}");
        std::fs::remove_file(&file).or_else(|_| std::fs::remove_dir(&file)).unwrap();
        std::fs::create_dir(&file).unwrap();
    }
    std::fs::remove_dir(&file).unwrap();
    symlink(root.join("kinds"), root.join("link")).unwrap();
    let error = exported(&vault, &backup, &options, &root).await.unwrap_err().to_string();
    assert!(error.contains("holds \"link\", which"), "{error}");
    std::fs::remove_file(root.join("link")).unwrap();
    // It survived all of that, and can be replaced.
    exported(&vault, &backup, &options, &root).await.unwrap();
    assert!(files(&root) == found, "other bytes");
    assert_eq!(names(directory.path()), ["dump"]);
}

#[tokio::test]
async fn a_directory_that_is_there_is_filled_from_inside() {
    let vault = Vault::new();
    let backup = taken(&vault, true).await;
    let directory = tempfile::tempdir().unwrap();
    let (above, root) = (directory.path().join("above"), directory.path().join("above/root"));
    std::fs::create_dir_all(&root).unwrap();
    // As with a mount point: nothing can be created beside it, except by root.
    std::fs::set_permissions(&above, std::fs::Permissions::from_mode(0o500)).unwrap();
    let to = Destination::Path(root.clone());
    look(&to, Format::Dir, false).unwrap();
    let cx = vault.cx.operation();
    let options = ExportOptions { gzip: Some(9), ..ExportOptions::of(Format::Dir) };
    let work = export::run(&backup, &options, &to, &cx);
    let stopping = async {
        while !(cx.progress.view().phase == "writing" && cx.progress.view().sums().1 > 10_000_000) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(names(&above), ["root"]);
        assert!(names(&root)[0].starts_with(".bsonvault-export-"));
        cx.cancel.cancel();
    };
    let (ended, ()) = tokio::join!(work, stopping);
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(names(&root), [""; 0]);
    // Stopped with an existing dump: that stays unchanged.
    exported(&vault, &backup, &ExportOptions::of(Format::Dir), &root).await.unwrap();
    let found = files(&root);
    let options = over(options, &[]);
    assert_eq!(export::run(&backup, &options, &to, &cx).await.unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(files(&root) == found, "other bytes");
    std::fs::set_permissions(&above, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_look_tells_what_would_be_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("file"), "old").unwrap();
    std::fs::create_dir_all(path("full/db")).unwrap();
    std::fs::write(path("full/db/c.bson"), "").unwrap();
    std::fs::create_dir_all(path("other")).unwrap();
    std::fs::write(path("other/x"), "").unwrap();
    std::fs::create_dir(path("empty")).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    symlink("file", path("link")).unwrap();
    symlink("full", path("way")).unwrap();
    let before = files_and_directories(directory.path());
    let look = |name: &str, format, force| look(&Destination::Path(path(name)), format, force);
    for (name, format, force) in [
        ("new", Format::Archive, false),
        ("new", Format::Dir, false),
        ("new/", Format::Dir, true),
        ("file", Format::Archive, true),
        ("empty", Format::Dir, false),
        ("empty/.", Format::Dir, false),
        ("full", Format::Dir, true),
        ("way", Format::Dir, true),
    ] {
        look(name, format, force).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for (name, format, force, message) in [
        ("file", Format::Archive, false, "file exists already"),
        ("file/", Format::Archive, false, "file exists already"),
        ("file", Format::Dir, true, "file exists already, and is not a directory"),
        ("link", Format::Archive, true, "link exists and is not a regular file"),
        ("full", Format::Dir, false, "full exists already, and is not empty"),
        ("full", Format::Archive, true, "full is a directory, and an archive is a file"),
        ("other", Format::Dir, true, "other holds \"x\", which does not belong to a dump"),
        ("dangling", Format::Archive, true, "dangling is a link that leads nowhere"),
        ("dangling", Format::Dir, true, "dangling is a link that leads nowhere"),
        ("no/such", Format::Dir, true, "no does not exist"),
        ("file/x", Format::Dir, true, "file is not a directory"),
        ("file/x/y", Format::Archive, true, "file/x is not a directory"),
    ] {
        let error = look(name, format, force).unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.to_string().ends_with(message), "{name}: {error}");
        assert!(error.hint_text().is_some(), "{error}");
    }
    for name in ["", "/proc/x", "/proc/self/task/.."] {
        let to = Destination::Path(name.into());
        export::look(&to, Format::Dir, true).unwrap_err();
    }
    // A place where nobody can write, not even root.
    let error = export::look(&Destination::Path("/proc/x".into()), Format::Archive, false).unwrap_err();
    assert!(error.kind() == ErrorKind::Storage && error.to_string().starts_with("cannot create /proc/"), "{error}");
    assert!(export::look(&Destination::Stdout, Format::Archive, false).is_ok());
    assert_eq!(export::look(&Destination::Stdout, Format::Dir, false).unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(files_and_directories(directory.path()), before);
}

fn files_and_directories(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.display().to_string());
            if path.symlink_metadata().unwrap().is_dir() {
                directories.push(path);
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn an_archive_is_written_straight_to_what_is_no_file() {
    let vault = Vault::new();
    let backup = taken(&vault, true).await;
    let directory = tempfile::tempdir().unwrap();
    let (file, pipe) = (directory.path().join("file"), directory.path().join("pipe"));
    let options = over(ExportOptions::of(Format::Archive), &[]);
    let report = exported(&vault, &backup, &options, &file).await.unwrap();
    let expected = std::fs::read(&file).unwrap();

    // Devices: for timing, and one that is always full.
    let null = Path::new("/dev/null");
    let error = exported(&vault, &backup, &ExportOptions::of(Format::Archive), null).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Usage && error.to_string().contains("/dev/null exists already"), "{error}");
    assert_eq!(exported(&vault, &backup, &options, null).await.unwrap().written_bytes, report.written_bytes);
    let error = exported(&vault, &backup, &options, Path::new("/dev/full")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Storage && error.to_string().contains("cannot write to /dev/full"), "{error}");
    assert!(!null.metadata().unwrap().is_file());

    // A named pipe with a reader.
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let from = pipe.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        std::fs::File::open(from).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    });
    exported(&vault, &backup, &options, &pipe).await.unwrap();
    let bytes = reader.await.unwrap();
    assert_eq!(read(&bytes).members.len(), backup.manifest.collections.len());
    assert!(bytes == expected, "other bytes");
    let mut left = names(directory.path());
    left.sort();
    assert_eq!(left, ["file", "pipe"]);
}
