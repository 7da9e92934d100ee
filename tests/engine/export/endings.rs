//! Refused exports, and exports that end early: nothing of them stays.

use std::io::Read as _;
use std::time::Duration;

use bsonvault::engine::export::{self, Destination, ExportOptions, Format};
use bsonvault::error::ErrorKind;

use super::{collection, exported, taken};

use crate::support::cli::{Cli, Output, finish};
use crate::support::files::names;
use crate::support::on_disk::OnDisk as _;
use crate::support::vault::Vault;

fn refused(output: &Output, code: i32, message: &str) {
    assert_eq!(output.code, Some(code), "{output:?}");
    assert!(output.stderr.contains(message), "{message:?} is not in {output:?}");
    assert_eq!(output.stdout, "");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    let vault = Vault::new();
    let backup = taken(&vault, false).await;
    let cli = Cli::new();
    let path = backup.location();
    let run = async |args: &[&str]| cli.run(&[&["export", &path], args].concat()).await;
    refused(&run(&[]).await, 2, "--out <PATH>");
    refused(&run(&["--out", "x"]).await, 2, "error: --format is missing\nhint: --format dir");
    refused(&run(&["--out", "-", "--format", "dir"]).await, 2, "--format dir cannot be written to standard output");
    let json = run(&["--out", "-", "--json"]).await;
    assert_eq!(
        (json.code, &json.json()["message"]),
        (Some(2), &"--json and an archive cannot both be on standard output".into())
    );
    refused(&run(&["--out", "x", "--format", "dir", "--level", "3"]).await, 2, "--gzip");
    for level in ["0", "10", "-1", "x"] {
        let output = run(&["--out", "x", "--format", "dir", "--gzip", "--level", level]).await;
        refused(&output, 2, &format!("--level is \"{level}\": expected a whole number from 1 to 9"));
    }
    refused(&cli.run(&["export", "atlas-backup-none", "--out", "-"]).await, 1, "Database backup not found");
    std::fs::write(cli.dir().join("file"), "old").unwrap();
    std::fs::create_dir(cli.dir().join("directory")).unwrap();
    refused(&run(&["--out", "file", "--format", "archive"]).await, 2, "file exists already\nhint: choose another name, or");
    refused(&run(&["--out", "directory", "--format", "archive", "--force"]).await, 2, "directory is a directory");
    refused(&run(&["--out", "/dev/null", "--format", "archive"]).await, 2, "/dev/null exists already\n");
    assert_eq!(
        (names(cli.dir()), std::fs::read(cli.dir().join("file")).unwrap()),
        (vec!["directory".into(), "file".into()], b"old".to_vec())
    );

    // With --force, it is replaced.
    let json = cli.json(&["export", &path, "--out", "file", "--format", "archive", "--force", "--gzip", "--level", "9"]).await;
    let totals = backup.manifest.totals;
    assert_eq!((&json["documents"], &json["bytes"]), (&totals.documents.into(), &totals.raw_bytes.into()), "{json}");
    assert_eq!((&json["format"], &json["gzip"], &json["location"]), (&"archive".into(), &true.into(), &"file".into()));
    assert_eq!(json["writtenBytes"], std::fs::metadata(cli.dir().join("file")).unwrap().len());
    assert_eq!((&json["collections"], json.get("oplog")), (&totals.collections.into(), None));
    assert_eq!(json["backup"], backup.manifest.name.as_str());
    // The working directory itself, which is empty.
    let output = cli.run(&["export", &path, "--out", "directory/.", "--format", "dir"]).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(names(&cli.dir().join("directory")).contains(&"prelude.json".to_owned()));
    assert_eq!(names(cli.dir()), ["directory", "file"]);
    // No reader of the backup is left.
    assert!(!names(&backup.store.directory()).iter().any(|name| name.starts_with("reader.")));
}

#[tokio::test]
async fn what_is_damaged_is_no_export() {
    let vault = Vault::new();
    let backup = taken(&vault, true).await;
    let directory = tempfile::tempdir().unwrap();
    let segments = &collection(&backup, "many").segments;
    let key = &segments.last().unwrap().object.key;
    let file = backup.store.directory().join(key);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    for format in [Format::Archive, Format::Dir] {
        for gzip in [None, Some(1)] {
            let options = ExportOptions { gzip, ..ExportOptions::of(format) };
            let error = exported(&vault, &backup, &options, &directory.path().join("x")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged);
            assert!(error.to_string().contains(&format!("{key} was changed")), "{error}");
            assert_eq!(names(directory.path()), [""; 0]);
        }
    }
    // The former content still exists.
    std::fs::write(directory.path().join("x"), "old").unwrap();
    let options = ExportOptions { force: true, ..ExportOptions::of(Format::Archive) };
    exported(&vault, &backup, &options, &directory.path().join("x")).await.unwrap_err();
    assert_eq!(
        (names(directory.path()), std::fs::read(directory.path().join("x")).unwrap()),
        (vec!["x".into()], b"old".to_vec())
    );
}

#[tokio::test]
async fn what_is_stopped_leaves_nothing() {
    let vault = Vault::new();
    let backup = taken(&vault, true).await;
    let directory = tempfile::tempdir().unwrap();
    let to = Destination::Path(directory.path().join("x"));
    for format in [Format::Archive, Format::Dir] {
        let cx = vault.cx.operation();
        let options = ExportOptions { gzip: Some(9), ..ExportOptions::of(format) };
        let work = export::run(&backup, &options, &to, &cx);
        let stopping = async {
            // In the middle, after some output.
            while !(cx.progress.view().phase == "writing" && cx.progress.view().sums().1 > 10_000_000) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(names(directory.path()).len(), 1);
            cx.cancel.cancel();
        };
        let (ended, ()) = tokio::join!(work, stopping);
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);
        assert_eq!(names(directory.path()), [""; 0]);
    }

    // With a signal to the process.
    let cli = Cli::new();
    let mut child = cli.spawn(&["export", &backup.location(), "--format", "dir", "--gzip", "--level", "9", "--out", "x"]);
    while names(cli.dir()).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was stopped");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = finish(child).await;
    assert_eq!(output.code, Some(130), "{output:?}");
    assert_eq!(names(cli.dir()), [""; 0]);
}

#[tokio::test]
async fn a_reader_that_goes_away_or_does_not_read_is_no_reason_to_hang() {
    let vault = Vault::new();
    let backup = taken(&vault, true).await;
    let cli = Cli::new();
    let args = ["export", &backup.location(), "--out", "-"];
    let mut child = cli.spawn(&args);
    let mut first = [0; 4];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(first, [0x6D, 0xE2, 0x99, 0x81]);
    drop(stdout);
    let output = finish(child).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("error: cannot write to standard output: Broken pipe"), "{}", output.stderr);
    assert!(!output.stderr.contains("panicked"), "{}", output.stderr);

    // Stopped while nobody reads its output.
    let mut child = cli.spawn(&args);
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = finish(child).await;
    assert_eq!(output.code, Some(130), "{output:?}");
    drop(stdout);
    assert!(!names(&backup.store.directory()).iter().any(|name| name.starts_with("reader.")));
}
