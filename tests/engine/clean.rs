//! Retention and deletion: which backups are deleted, which stay and why. Nothing is deleted while
//! it is made or read.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bson::rawdoc;
use bsonvault::clock;
use bsonvault::context::Context;
use bsonvault::engine::clean::{self, CleanOptions, CleanReport, Keeping};
use bsonvault::engine::verify::{self, VerifyOptions};
use bsonvault::error::ErrorKind;
use bsonvault::format::checks::{Check, CheckKind};
use bsonvault::format::key;
use bsonvault::format::manifest::Manifest;
use bsonvault::names::BackupName;
use bsonvault::repository::catalog::{Backup, Catalog};
use bsonvault::repository::retention::{Policy, Rule};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use rand::{RngCore as _, SeedableRng as _};
use serde_json::{Value, json};
use std::num::NonZeroU32;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::archive::{self, Given, Shape};
use crate::support::cli::{Cli, Output, finish};
use crate::support::data::{insert, numbered};
use crate::support::on_disk::OnDisk as _;
use crate::support::server::Server;
use crate::support::vault::{catalog, store};

/// Writes a complete backup of this time with `documents`, named by its time.
async fn write_with(root: &Path, created: DateTime<Utc>, documents: Vec<Vec<u8>>) -> Backup {
    let name = BackupName::at(created);
    let store = store(root).below(name.as_str());
    let given = [Given::new("d", "c", documents)];
    let mut manifest = archive::write(&store, &given, Shape::of(4 << 20, 8 << 20)).await.unwrap();
    (manifest.name, manifest.created, manifest.started, manifest.finished) = (name, created, created, created);
    manifest.id = Uuid::new_v4();
    let bytes = manifest.to_bytes().unwrap();
    store.put(key::MANIFEST, vec![bytes.clone().into()]).await.unwrap();
    Backup { store, manifest: Manifest::from_bytes(&bytes).unwrap() }
}

async fn write(root: &Path, created: DateTime<Utc>) -> Backup {
    write_with(root, created, vec![rawdoc! { "_id": 1 }.into_bytes()]).await
}

/// Writes one with a changed manifest, named by its time.
async fn write_as(root: &Path, created: DateTime<Utc>, change: impl FnOnce(&mut Manifest)) -> String {
    let Backup { store, mut manifest } = write(root, created).await;
    change(&mut manifest);
    store.put(key::MANIFEST, vec![manifest.to_bytes().unwrap().into()]).await.unwrap();
    manifest.name.to_string()
}

fn ago(hours: i64) -> DateTime<Utc> {
    clock::now() - TimeDelta::hours(hours)
}

fn file(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn heartbeat(host: &str, age: i64, more: Value) -> String {
    let now = clock::now() - TimeDelta::seconds(age);
    let mut progress = json!({
        "formatVersion": 2, "host": host, "process": 77, "started": now, "heartbeat": now, "snapshotTime": null,
        "rangesDone": 0, "ranges": 1, "documents": 0, "rawBytes": 0,
    });
    progress.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    progress.to_string()
}

/// The note of a reader whose heartbeat is `age` seconds old.
fn note(host: &str, age: i64) -> String {
    let at = clock::now() - TimeDelta::seconds(age);
    json!({ "host": host, "process": 77, "purpose": "download", "locked": true, "since": at, "heartbeat": at }).to_string()
}

fn readers(backup: &Backup) -> Vec<PathBuf> {
    let found = std::fs::read_dir(backup.store.directory()).unwrap().map(|e| e.unwrap().path());
    found.filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("reader.")).collect()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

fn by_count(n: u32) -> CleanOptions {
    CleanOptions { rule: Rule::Count(NonZeroU32::new(n).unwrap()), all_incomplete: false, zone: Tz::UTC, window: None }
}

async fn clean(catalog: &Catalog, options: &CleanOptions) -> CleanReport {
    let plan = clean::plan(catalog, options, clock::now()).await.unwrap();
    clean::execute(catalog, plan, &CancellationToken::new()).await
}

#[tokio::test]
async fn a_count_is_what_stays_and_the_report_names_everything_with_its_reason() {
    let cli = Cli::new();
    let root = cli.dir().join("backups");
    let mut made = Vec::new();
    for hours in [100, 80, 60, 40] {
        made.push(write(&root, ago(hours)).await.manifest.name.to_string());
    }
    // The oldest is verified; retention by count ignores that.
    let oldest = catalog(&root).find(&made[0]).await.unwrap();
    oldest.keep(Check::ended(CheckKind::Verify, clock::now(), 1, None)).await;
    let old = BackupName::at(ago(30)).to_string();
    let young = BackupName::at(ago(20)).to_string();
    let running = BackupName::at(ago(1)).to_string();
    file(root.join(&old).join("d/c.00000.bson.zst"), vec![7; 1000]);
    file(root.join(&old).join("d/c.00001.bson.zst#1"), vec![7; 500]);
    file(root.join(&young).join("d/c.00000.bson.zst"), "x");
    file(root.join(&running).join("progress.json"), heartbeat("elsewhere", 1, json!({})));
    file(root.join("broken/manifest.json"), "{");
    file(root.join("photos/holiday.jpg"), "x");
    let before = store(&root).measure().await.unwrap().0;

    let plan = cli.json(&["clean", "--keep", "2", "--dry-run"]).await;
    assert_eq!((&plan["dryRun"], names(&plan["deleted"])), (&true.into(), vec![&*old, &made[1], &made[0]]));
    assert_eq!(store(&root).measure().await.unwrap().0, before);

    let done = cli.json(&["clean", "--keep", "2"]).await;
    assert_eq!(done["deleted"], plan["deleted"]);
    assert_eq!((&done["dryRun"], &done["kept"], &done["freedBytes"]), (&false.into(), &plan["kept"], &plan["freedBytes"]));
    assert_eq!(done["freedBytes"], before - store(&root).measure().await.unwrap().0);
    let reasons: Vec<_> = done["kept"].as_array().unwrap().iter().map(|k| (k["name"].as_str().unwrap(), &k["reasons"])).collect();
    assert_eq!(
        reasons,
        [
            (&*running, &json!(["it is being made"])),
            (&*young, &json!(["incomplete for less than a day"])),
            (&*made[3], &json!(["last backup", "newest complete backup"])),
            (&*made[2], &json!(["last backup"])),
            ("broken", &json!(["it is damaged, and no rule removes damaged backups"])),
        ]
    );
    let gone = &done["deleted"][0];
    assert_eq!(
        (&gone["path"], &gone["reason"], &gone["bytes"]),
        (&json!(root.join(&old)), &"incomplete for more than a day".into(), &1500.into())
    );
    assert!(!root.join(&old).exists() && !root.join(&made[0]).exists() && root.join("photos/holiday.jpg").exists());

    // Nobody works on the young one. Without a rule, the flag deletes nothing else.
    let done = cli.json(&["clean", "--incomplete"]).await;
    assert_eq!(names(&done["deleted"]), [&young]);
    let text = cli.run(&["clean", "--keep=1"]).await.stdout;
    assert!(text.contains(&format!("kept     {}: last backup, newest complete backup\n", made[3])), "{text}");
    assert!(text.contains(&format!("deleted  {}: not among the newest that were asked for, ", made[2])), "{text}");
    assert!(text.contains("\n1 backup deleted, "), "{text}");
    assert_eq!(names(&cli.json(&["clean", "--keep", "1"]).await["deleted"]), [""; 0]);
}

#[tokio::test]
async fn a_policy_of_flags_spares_the_newest_verified_backup() {
    let cli = Cli::new();
    let root = cli.dir().join("backups");
    let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
    let verified = write(&root, at("2026-01-01T12:00:00Z")).await;
    verified.keep(Check::ended(CheckKind::Deep, clock::now(), 1, None)).await;
    let failed = write(&root, at("2026-01-02T12:00:00Z")).await;
    failed.keep(Check::ended(CheckKind::Deep, clock::now(), 1, Some("broken".to_owned()))).await;
    let mut made = vec![verified, failed];
    for time in ["2026-01-02T23:00:00Z", "2026-01-03T01:00:00Z", "2026-01-03T23:00:00Z"] {
        made.push(write(&root, at(time)).await);
    }
    let name = |n: usize| made[n].manifest.name.as_str();
    let plan = |args: &'static str| {
        let (cli, args) = (&cli, ["clean", "--dry-run"].into_iter().chain(args.split(' ')).collect::<Vec<_>>());
        async move { cli.json(&args).await }
    };
    let daily = plan("--keep-daily 2").await;
    assert_eq!(names(&daily["deleted"]), [name(3), name(1)]);
    assert_eq!(
        daily["kept"][2],
        json!({
            "name": name(0), "path": made[0].location(), "reasons": ["newest verified backup"], "group": 1,
            "source": {
                "uri": "mongodb://db1.example.net:27017,db2.example.net:27017", "topology": "replicaSet",
                "hosts": ["db1.example.net:27017", "db2.example.net:27017"],
                "replicaSet": "atlas", "id": "65a0c0ffee65a0c0ffee65a0",
            },
            "selection": { "databases": [], "include": [], "exclude": [] },
        })
    );
    assert_eq!(names(&plan("--keep 2 --keep-daily 1").await["deleted"]), [name(2), name(1)]);
    assert_eq!(names(&plan("--keep-weekly 1 --keep-monthly 1 --keep-yearly 1").await["deleted"]), [name(3), name(2), name(1)]);
    assert_eq!(names(&plan("--keep 1").await["deleted"]), [name(3), name(2), name(1), name(0)]);
}

#[tokio::test]
async fn what_is_not_said_or_cannot_be_meant_is_wrong_usage() {
    let cli = Cli::new();
    let root = cli.dir().join("backups");
    for hours in [100, 80] {
        write(&root, ago(hours)).await;
    }
    let refused = |output: Output, message: &str| {
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.contains(message), "{message:?} is not in {output:?}");
    };
    refused(cli.run(&["clean"]).await, "error: nothing says which backups stay\nhint: give --keep N");
    refused(cli.run(&["clean", "--dry-run"]).await, "nothing says");
    for value in ["0", "-1", "x", "1.5", "1000001", "99999999999999999999"] {
        for flag in ["--keep", "--keep-daily", "--keep-weekly", "--keep-monthly", "--keep-yearly"] {
            let message = format!("error: {flag} is {value:?}: expected a whole number from 1 to 1000000");
            refused(cli.run(&["clean", flag, value]).await, &message);
        }
    }
    refused(cli.run(&["clean", "--keep"]).await, "a value is required");
    assert_eq!(catalog(&root).list(clock::now()).await.unwrap().len(), 2);
    assert_eq!(cli.run(&["clean", "--keep", "1000000"]).await.code, Some(0));
}

#[tokio::test]
async fn one_is_deleted_by_its_name_whatever_is_left_of_it_and_nothing_else_is() {
    let root = TempDir::new().unwrap();
    let outside = TempDir::new().unwrap();
    let (catalog, now) = (catalog(root.path()), clock::now());
    let kept = write(root.path(), ago(5)).await;
    let only = write(root.path(), ago(2)).await;
    let far = write(outside.path(), ago(2)).await;
    std::os::unix::fs::symlink(far.store.directory(), root.path().join("link")).unwrap();
    file(root.path().join("broken/manifest.json"), "{");
    file(root.path().join("crashed/progress.json"), heartbeat("elsewhere", 31, json!({})));
    file(root.path().join("photos/holiday.jpg"), "x");
    file(root.path().join("going/progress.json"), heartbeat("elsewhere", 1, json!({ "job": "job-7" })));
    let delete = |name: &str| {
        let (catalog, name) = (catalog.clone(), BackupName::parse(name).unwrap());
        async move { clean::delete_one(&catalog, &name, now).await }
    };
    for name in ["nothing", "link", "photos"] {
        let error = delete(name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().starts_with(&format!("Database backup not found: {name:?} in ")), "{error}");
    }
    let busy = delete("going").await.unwrap_err();
    assert_eq!((busy.kind(), busy.job_id()), (ErrorKind::Busy, Some("job-7")), "{busy}");
    assert!(busy.to_string().ends_with("going is being made by process 77 on elsewhere"), "{busy}");

    let report = delete(only.manifest.name.as_str()).await.unwrap();
    assert_eq!((&report.deleted[0].name, report.freed_bytes > 0), (&only.manifest.name, true), "{report:?}");
    for name in ["broken", "crashed"] {
        assert_eq!(delete(name).await.unwrap().deleted.len(), 1);
    }
    let left: Vec<_> = catalog.list(now).await.unwrap().into_iter().map(|s| s.name).collect();
    assert_eq!(left, [BackupName::parse("going").unwrap(), kept.manifest.name.clone()]);
    assert!(far.store.directory().join("manifest.json").exists());
}

#[tokio::test]
async fn what_is_read_stays_and_the_rest_goes() {
    let root = TempDir::new().unwrap();
    let catalog = catalog(root.path());
    let mut made = Vec::new();
    for hours in [50, 40, 30] {
        made.push(write(root.path(), ago(hours)).await);
    }
    let hold = made[1].read_lock("download").await.unwrap();
    let [ref written] = readers(&made[1])[..] else { panic!("{:?}", readers(&made[1])) };
    let found: Value = serde_json::from_slice(&std::fs::read(written).unwrap()).unwrap();
    let me = std::process::id();
    assert_eq!(
        (&found["purpose"], &found["process"], &found["host"]),
        (&"download".into(), &me.into(), &bsonvault::system::host().into())
    );

    // It is not part of the backup, and others may read at the same time.
    let report = verify::run(&made[1], &VerifyOptions::default(), &Context::default()).await.unwrap();
    assert!(report.is_sound() && report.notes.is_empty(), "{report:?}");
    assert_eq!(readers(&made[1]).len(), 1);

    let busy = clean::delete_one(&catalog, &made[1].manifest.name, clock::now()).await.unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Busy);
    assert!(
        busy.to_string().contains(&format!("is being read: download by process {me} on {}", bsonvault::system::host())),
        "{busy}"
    );
    assert!(busy.hint_text().unwrap().contains("wait"), "{busy:?}");

    let plan = clean::plan(&catalog, &by_count(1), clock::now()).await.unwrap();
    assert_eq!(plan.report().deleted.len(), 1);
    let report = clean::execute(&catalog, plan, &CancellationToken::new()).await;
    assert_eq!((report.deleted.len(), &report.deleted[0].name), (1, &made[0].manifest.name));
    assert!(report.kept[1].reasons[0].contains("is being read: download"), "{report:?}");
    assert!(report.failed.is_empty());

    // A backup that gets a reader, or vanishes, between the plan and its execution.
    let oldest = write(root.path(), ago(60)).await;
    drop(hold);
    assert_eq!(readers(&made[1]), Vec::<PathBuf>::new());
    let plan = clean::plan(&catalog, &by_count(1), clock::now()).await.unwrap();
    assert_eq!(plan.report().deleted.len(), 2);
    let hold = oldest.read_lock("verify").await.unwrap();
    clean::delete_one(&catalog, &made[1].manifest.name, clock::now()).await.unwrap();
    let report = clean::execute(&catalog, plan, &CancellationToken::new()).await;
    assert_eq!((report.deleted.len(), report.freed_bytes, report.failed.len()), (0, 0, 0), "{report:?}");
    assert!(report.kept.iter().any(|k| k.name == oldest.manifest.name && k.reasons[0].contains("is being read: verify")));
    drop(hold);
    assert_eq!(clean(&catalog, &by_count(1)).await.deleted.len(), 1);

    // A reader that comes too late gets an error.
    let late = oldest.read_lock("verify").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::NotFound, "{late}");
    assert!(!oldest.store.directory().exists());
}

#[tokio::test]
async fn a_note_of_another_machine_counts_while_it_is_fresh_and_one_of_a_dead_process_does_not() {
    let root = TempDir::new().unwrap();
    let catalog = catalog(root.path());
    let here = bsonvault::system::host();
    for (host, age, stays) in
        [("elsewhere", 5, true), ("elsewhere", -5, true), ("elsewhere", 31, false), ("elsewhere", -300, false), (&here, 1, false)]
    {
        let backup = write(root.path(), ago(5)).await;
        file(backup.store.directory().join(key::reader(Uuid::new_v4())), note(host, age));
        let result = clean::delete_one(&catalog, &backup.manifest.name, clock::now()).await;
        match result {
            Err(e) if stays => assert!(e.to_string().contains("is being read: download by process 77 on elsewhere"), "{e}"),
            Ok(_) if !stays => {}
            other => panic!("{host} {age}: {other:?}"),
        }
        assert_eq!(backup.store.directory().join("manifest.json").exists(), stays);
    }
    // The next reader cleans up after one that died long ago.
    let backup = write(root.path(), ago(4)).await;
    file(backup.store.directory().join(key::reader(Uuid::new_v4())), note("elsewhere", 4000));
    drop(backup.read_lock("verify").await.unwrap());
    assert_eq!(readers(&backup), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_heartbeat_is_renewed_and_does_not_bring_a_directory_back() {
    let root = TempDir::new().unwrap();
    let backup = write(root.path(), ago(5)).await;
    let hold = backup.read_lock("download").await.unwrap();
    let path = readers(&backup)[0].clone();
    let beat = |path: &Path| serde_json::from_slice::<Value>(&std::fs::read(path).ok()?).ok().map(|v| v["heartbeat"].to_string());
    let first = beat(&path);
    wait("no second heartbeat", || beat(&path).is_some() && beat(&path) != first).await;
    // Someone removed it by hand.
    std::fs::remove_dir_all(backup.store.directory()).unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!backup.store.directory().exists());
    drop(hold);
    assert!(!backup.store.directory().exists());
}

async fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_reader_that_cannot_write_there_reads_all_the_same() {
    let root = TempDir::new().unwrap();
    // A path so long that a backup's files fit, but not a reader's note.
    let mut deep = root.path().to_owned();
    let name = BackupName::at(ago(5));
    while deep.as_os_str().len() + 1 + name.as_str().len() < 4060 {
        let room = 4060 - deep.as_os_str().len() - 2 - name.as_str().len();
        if room == 0 {
            break;
        }
        deep.push("x".repeat(room.min(200)));
    }
    let backup = write(&deep, ago(5)).await;
    let hold = backup.read_lock("verify").await.unwrap();
    assert_eq!(readers(&backup), Vec::<PathBuf>::new());
    let busy = clean::delete_one(&catalog(&deep), &backup.manifest.name, clock::now()).await.unwrap_err();
    assert!(busy.to_string().ends_with("is locked by another process of this machine"), "{busy}");
    drop(hold);
    let report = verify::run(&backup, &VerifyOptions::default(), &Context::default()).await.unwrap();
    assert!(report.is_sound());
    clean::delete_one(&catalog(&deep), &backup.manifest.name, clock::now()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_reader_and_a_deletion_at_the_same_time_one_gives_way() {
    let root = TempDir::new().unwrap();
    let catalog = catalog(root.path());
    let (mut read, mut deleted) = (0, 0);
    for round in 0..120u64 {
        let backup = write(root.path(), ago(5)).await;
        // Of ten rounds, the deletion wins one and the reader one; the others are close.
        let (pause, ahead) = match round % 10 {
            0 => (Duration::from_millis(60), Duration::ZERO),
            5 => (Duration::ZERO, Duration::from_millis(2)),
            _ => (Duration::from_micros(round * 37 % 3000), Duration::from_micros(round * 71 % 3000)),
        };
        let reader = tokio::spawn({
            let backup = backup.clone();
            async move {
                tokio::time::sleep(pause).await;
                let hold = backup.read_lock("verify").await;
                tokio::time::sleep(Duration::from_millis(5)).await;
                let whole =
                    backup.store.size(key::MANIFEST).await.is_ok() && backup.store.size("d/c.00000.bson.zst").await.is_ok();
                let is_held = hold.is_ok();
                drop(hold);
                (is_held, whole)
            }
        });
        tokio::time::sleep(ahead).await;
        let result = clean::delete_one(&catalog, &backup.manifest.name, clock::now()).await;
        match (reader.await.unwrap(), result) {
            ((true, true), Err(e)) if e.kind() == ErrorKind::Busy => read += 1,
            ((false, _), Ok(_)) => deleted += 1,
            // The deletion waited for a lock until the reader was done.
            ((true, true), Ok(_)) => read += 1,
            other => panic!("round {round}: {other:?}"),
        }
        if backup.store.exists().await {
            assert_eq!(readers(&backup), Vec::<PathBuf>::new());
            clean::delete_one(&catalog, &backup.manifest.name, clock::now()).await.unwrap();
        }
    }
    assert!(read > 5 && deleted > 5, "{read} {deleted}");
}

/// A reader on another machine, whose locks are invisible here.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_reader_of_another_machine_and_a_deletion_one_gives_way_too() {
    let root = TempDir::new().unwrap();
    let catalog = catalog(root.path());
    let (mut put_back, mut deleted) = (0, 0);
    for round in 0..120u64 {
        let backup = write(root.path(), ago(5)).await;
        let directory = backup.store.directory().to_owned();
        let begin = AtomicBool::new(false);
        let (is_held, result) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !begin.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                }
                // Half of the readers come as soon as the manifest is gone: the latest possible
                // moment.
                let manifest = directory.join("manifest.json");
                if round % 2 == 0 {
                    std::thread::sleep(Duration::from_micros(round * 13 % 2500));
                } else {
                    while manifest.exists() {
                        std::hint::spin_loop();
                    }
                }
                let path = directory.join(key::reader(Uuid::from_u128(round.into())));
                if std::fs::write(&path, note("elsewhere", 0)).is_err() {
                    return false;
                }
                if !manifest.exists() {
                    let _may_be_gone = std::fs::remove_file(&path);
                    return false;
                }
                // It reads, and finds everything. A deletion in between may be putting the manifest
                // back.
                for _ in 0..200 {
                    assert!(directory.join("d/c.00000.bson.zst").exists(), "deleted under a reader");
                    std::thread::sleep(Duration::from_micros(50));
                }
                let deadline = Instant::now() + Duration::from_secs(5);
                while !manifest.exists() {
                    assert!(Instant::now() < deadline, "the manifest was deleted under a reader");
                }
                std::fs::remove_file(&path).unwrap();
                true
            });
            begin.store(true, Ordering::Release);
            let delete = clean::delete_one(&catalog, &backup.manifest.name, clock::now());
            let result = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(delete));
            (reader.join().unwrap(), result)
        });
        match result {
            Ok(_) => deleted += 1,
            // A file appeared while the directory was being removed.
            Err(e) if e.kind() == ErrorKind::Storage && !is_held => deleted += 1,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Busy, "{e}");
                assert!(Catalog::find(&catalog, backup.manifest.name.as_str()).await.is_ok());
                put_back += 1;
            }
        }
        let _may_be_gone = std::fs::remove_dir_all(&directory);
    }
    assert!(put_back > 5 && deleted > 5, "{put_back} {deleted}");
}

/// Starts `verify` of a backup that takes a while, and pauses it in the middle.
async fn stopped_verify(cli: &Cli, backup: &Backup) -> std::process::Child {
    for _ in 0..20 {
        let mut child = cli.spawn(&["verify", backup.manifest.name.as_str(), "--deep"]);
        wait("no reader", || !readers(backup).is_empty() || child.try_wait().unwrap().is_some()).await;
        signal(&child, "STOP");
        if !readers(backup).is_empty() && child.try_wait().unwrap().is_none() {
            return child;
        }
        signal(&child, "CONT");
        finish(child).await;
    }
    panic!("verify is too quick");
}

fn signal(child: &std::process::Child, name: &str) {
    std::process::Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap();
}

#[tokio::test]
async fn a_verify_that_hangs_keeps_its_backup_and_a_killed_one_does_not() {
    let cli = Cli::new();
    let root = cli.dir().join("backups");
    let mut rng = rand::rngs::StdRng::seed_from_u64(4);
    let documents = (0..48).map(|n| {
        let mut bytes = vec![0; 1 << 20];
        rng.fill_bytes(&mut bytes);
        rawdoc! { "_id": n, "b": bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes } }.into_bytes()
    });
    let backup = write_with(&root, ago(50), documents.collect()).await;
    write(&root, ago(40)).await;
    let name = backup.manifest.name.as_str();

    let child = stopped_verify(&cli, &backup).await;
    // Its heartbeat is old, but its lock shows that it is alive.
    for path in readers(&backup) {
        file(path, note(&bsonvault::system::host(), 600));
    }
    let report = cli.json(&["clean", "--keep", "1"]).await;
    assert_eq!(names(&report["deleted"]), [""; 0], "{report}");
    assert!(report["kept"][1]["reasons"][0].as_str().unwrap().contains("is locked by another process"), "{report}");
    signal(&child, "CONT");
    assert_eq!(finish(child).await.code, Some(0));
    assert_eq!(readers(&backup), Vec::<PathBuf>::new());

    let mut child = stopped_verify(&cli, &backup).await;
    let report = cli.json(&["clean", "--keep", "1"]).await;
    let expected = format!("is being read: verify by process {} on {}", child.id(), bsonvault::system::host());
    assert!(report["kept"][1]["reasons"][0].as_str().unwrap().contains(&expected), "{report}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(readers(&backup).len(), 1);
    assert_eq!(names(&cli.json(&["clean", "--keep", "1"]).await["deleted"]), [name]);
    assert!(!backup.store.directory().exists());
}

#[tokio::test]
async fn an_import_keeps_its_backup_until_it_ends_however_it_ends() {
    let (source, target) = tokio::join!(Server::standalone(), Server::standalone());
    insert(&source.client().await.database("d"), "c", numbered(2000)).await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", source.uri()).env("MONGO_URI_LOCAL", target.uri());
    let made = cli.json(&["backup"]).await;
    let name = made["name"].as_str().unwrap();
    let root = cli.dir().join("backups");
    cli.json(&["backup"]).await;
    let backup = catalog(&root).find(name).await.unwrap();
    let slow = bson::doc! { "failCommands": ["insert"], "appName": "bsonvault", "blockConnection": true, "blockTimeMS": 5000 };
    let imports = [vec!["import", name, "--yes"], vec!["verify", name, "--restore"]];
    for (args, purpose) in imports.iter().zip(["import", "test restore"]) {
        for kill in [false, true] {
            target.fail_command("alwaysOn", slow.clone()).await;
            let mut child = cli.spawn(args);
            wait("no reader", || !readers(&backup).is_empty()).await;
            let kept = cli.json(&["clean", "--keep", "1", "--dry-run"]).await;
            assert!(kept.to_string().contains(&format!("is being read: {purpose} by process {}", child.id())), "{kept}");
            if kill {
                child.kill().unwrap();
                child.wait().unwrap();
                readers(&backup).iter().for_each(|note| std::fs::remove_file(note).unwrap());
            } else {
                signal(&child, "TERM");
                assert_eq!(finish(child).await.code, Some(130));
                assert_eq!(readers(&backup), Vec::<PathBuf>::new());
            }
            target.fail_no_more().await;
            assert_eq!(names(&cli.json(&["clean", "--keep", "1", "--dry-run"]).await["deleted"]), [name]);
        }
    }
}

#[tokio::test]
async fn what_can_be_resumed_gets_a_day_from_when_it_was_last_worked_on() {
    let root = TempDir::new().unwrap();
    let catalog = catalog(root.path());
    let name = BackupName::at(ago(72)).to_string();
    let journal = root.path().join(&name).join("resume.00000.json");
    file(&journal, "{}");
    let options = CleanOptions { rule: Rule::Policy(Policy::default()), all_incomplete: false, zone: Tz::UTC, window: None };
    assert_eq!(clean(&catalog, &options).await.kept[0].reasons, ["incomplete for less than a day"]);
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(25 * 3600);
    std::fs::File::options().write(true).open(&journal).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(clean(&catalog, &options).await.deleted[0].name.as_str(), name);
}

#[tokio::test]
async fn retention_after_a_backup_says_what_it_did_and_never_fails() {
    let root = TempDir::new().unwrap();
    let catalog = catalog(root.path());
    for hours in [50, 40, 30] {
        write(root.path(), ago(hours)).await;
    }
    let (cx, made) = (Context::default(), BackupName::at(ago(30)));
    assert_eq!(clean::after_backup(&catalog, &made, Keeping::Policy(Policy::default()), Tz::UTC, None, &cx).await, None);
    let policy = Policy { last: NonZeroU32::new(2), ..Policy::default() };
    let done = clean::after_backup(&catalog, &made, Keeping::Policy(policy), Tz::UTC, None, &cx).await.unwrap();
    assert_eq!((done.report.deleted.len(), done.report.kept.len(), &done.error), (1, 2, &None));
    let fields = serde_json::to_value(&done).unwrap();
    assert_eq!((fields["deleted"][0]["reason"].as_str(), fields.get("error")), (Some("kept by no rule"), None));

    let nowhere = root.path().join("file");
    let catalog = crate::support::vault::catalog(&nowhere);
    std::fs::write(&nowhere, "").unwrap();
    let failed = clean::after_backup(&catalog, &made, Keeping::Policy(policy), Tz::UTC, None, &cx).await.unwrap();
    assert!(failed.error.unwrap().starts_with("cannot list "), "{failed:?}", failed = failed.report);
}

#[tokio::test]
async fn what_changed_since_the_plan_stays() {
    let root = TempDir::new().unwrap();
    let catalog = catalog(root.path());
    let mut made = Vec::new();
    for hours in [50, 40, 30] {
        made.push(write(root.path(), ago(hours)).await);
    }
    let manifest = |n: usize| made[n].store.directory().join("manifest.json");
    let completed = std::fs::read(manifest(0)).unwrap();
    std::fs::remove_file(manifest(0)).unwrap();
    let plan = clean::plan(&catalog, &by_count(1), clock::now()).await.unwrap();
    assert_eq!(plan.report().deleted.len(), 2);
    // One was resumed and is complete; the other was replaced by another backup.
    std::fs::write(manifest(0), completed).unwrap();
    std::fs::copy(manifest(2), manifest(1)).unwrap();
    let report = clean::execute(&catalog, plan, &CancellationToken::new()).await;
    assert_eq!((report.deleted.len(), report.failed.len()), (0, 0), "{report:?}");
    let reasons: Vec<_> =
        report.kept[1..].iter().map(|k| k.reasons[0].rsplit_once("000Z ").map_or(&*k.reasons[0], |r| r.1)).collect();
    assert!(reasons.iter().any(|r| r.ends_with("was completed meanwhile")), "{reasons:?}");
    assert!(reasons.iter().any(|r| r.ends_with("was replaced by another one meanwhile")), "{reasons:?}");
    assert!(manifest(0).exists() && manifest(1).exists());

    // Cancellation between two deletions of a plan.
    let stop = CancellationToken::new();
    stop.cancel();
    let plan = clean::plan(&catalog, &by_count(1), clock::now()).await.unwrap();
    let report = clean::execute(&catalog, plan, &stop).await;
    assert_eq!((report.deleted.len(), report.kept.len()), (0, 3));
}

#[tokio::test]
async fn a_backup_of_another_source_or_of_a_part_takes_nobodys_place() {
    let cli = Cli::new();
    let root = cli.dir().join("backups");
    let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let some = |a: &'static str, b: &'static str| move |m: &mut Manifest| m.settings.databases = texts(&[a, b]);
    let full = write_as(&root, ago(100), |_| {}).await;
    let moved = write_as(&root, ago(90), |m| (m.source.uri, m.source.hosts) = ("mongodb://new".into(), texts(&["new:1"]))).await;
    let first = write_as(&root, ago(80), some("crm", "shop")).await;
    let second = write_as(&root, ago(70), some("shop", "crm")).await;
    let other = write_as(&root, ago(60), |m| m.source.replica_set_id = Some("0".repeat(24))).await;
    let without = write_as(&root, ago(50), |m| m.settings.exclude = texts(&["*.log"])).await;
    let only = write_as(&root, ago(40), |m| m.settings.include = texts(&["*.log"])).await;
    let unknown = write_as(&root, ago(30), |m| m.source.replica_set_id = None).await;
    let dump = write_as(&root, ago(20), |m| m.source.uri = "dump:all.archive".into()).await;
    file(root.join("broken/manifest.json"), "{");

    // In each group, the newest backup stays. The others are alone in their groups, so they stay.
    for args in [vec!["clean", "--keep", "1", "--dry-run"], vec!["clean", "--keep-daily", "1", "--dry-run"]] {
        assert_eq!(names(&cli.json(&args).await["deleted"]), [&first, &full], "{args:?}");
    }
    let report = cli.json(&["clean", "--keep", "1", "--dry-run"]).await;
    let group = |list: &str, name: &str| {
        report[list].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()["group"].clone()
    };
    assert_eq!((group("deleted", &full), group("deleted", &first)), (group("kept", &moved), group("kept", &second)));
    let kept = [&moved, &second, &other, &without, &only, &unknown, &dump].map(|name| group("kept", name).as_u64().unwrap());
    assert_eq!(std::collections::BTreeSet::from(kept).len(), kept.len(), "{kept:?}");
    assert!(group("kept", "broken").is_null());
    let text = cli.run(&["clean", "--keep", "1", "--dry-run"]).await.stdout;
    for heading in ["of atlas at new:1: everything\n", "and 1 more: crm, shop\n", "everything without *.log\n", "only *.log\n"] {
        assert!(text.contains(heading), "{heading:?} is not in\n{text}");
    }
    assert!(
        text.contains("of dump all.archive: d\n") && text.contains("\nnot complete\nkeep     broken: it is damaged"),
        "{text}"
    );

    // The list shows the same, and its legend is for people.
    let listed = cli.json(&["list"]).await;
    let of = |name: &str| listed["backups"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone();
    assert_eq!((&of(&first)["group"], &of(&first)["selection"]["databases"]), (&of(&second)["group"], &json!(["crm", "shop"])));
    assert_ne!(of(&full)["group"], of(&other)["group"]);
    assert_eq!((&of(&dump)["source"]["uri"], &of("broken")["source"]), (&json!("dump:all.archive"), &Value::Null));
    let text = cli.run(&["list"]).await.stdout;
    assert!(text.contains(" selection") && text.contains("everything without *.log") && !text.contains("Columns:"), "{text}");
    let help = cli.run(&["list", "--help"]).await.stdout;
    for word in ["complete:", "running:", "incomplete:", "damaged:", "created ", "buckets", "snapshot:", "selection "] {
        assert!(help.contains(word), "{word:?} is not in\n{help}");
    }
}

/// A deployment is recognized by its identity, not by its URI, and a backup has the same time in
/// every report.
#[tokio::test]
async fn retention_after_a_backup_of_something_else_leaves_the_others_alone() {
    let (set, alone) = tokio::join!(Server::replica_set("groups"), Server::standalone());
    let database = set.client().await.database("d");
    insert(&database, "c", numbered(3)).await;
    let series = bson::doc! { "create": "t", "timeseries": { "timeField": "at" } };
    database.run_command(series).await.unwrap();
    let measured = |second: i64| bson::doc! { "at": bson::DateTime::from_millis(1_700_000_000_000 + second * 1000), "v": second };
    database.collection("t").insert_many((0..5).map(measured)).await.unwrap();
    insert(&alone.client().await.database("d"), "c", numbered(3)).await;
    let cli = Cli::new().env("MONGO_URI_ATLAS", set.uri()).env("BACKUP_KEEP_LAST", "1");
    let backup = |args: &'static str| {
        let cli = &cli;
        async move { cli.json(&["backup"].into_iter().chain(args.split_whitespace()).collect::<Vec<_>>()).await }
    };
    let none = Vec::<&str>::new();

    let first = backup("").await;
    assert_eq!(names(&backup("--database d").await["retention"]["deleted"]), none);
    let by = |host: &str| format!("mongodb://{host}:{}/", alone.port());
    let by_address = cli.json(&["backup", "--source", &by("127.0.0.1")]).await;
    assert_eq!(names(&by_address["retention"]["deleted"]), none);
    let by_name = cli.json(&["backup", "--source", &by("localhost")]).await;
    assert_eq!(names(&by_name["retention"]["deleted"]), [by_address["name"].as_str().unwrap()], "it is one server");
    let shown = cli.json(&["show", by_name["name"].as_str().unwrap()]).await;
    assert!(shown["source"]["deploymentId"].is_string() && shown["source"]["knownAs"].is_array(), "{shown}");
    assert_eq!(shown["created"], shown["finished"]);

    // The same time, and buckets under that name.
    let (name, time) = (first["name"].as_str().unwrap(), &first["consistency"]["clusterTime"]["t"]);
    let seconds = |value: &Value| json!(value["created"].as_str().unwrap().parse::<DateTime<Utc>>().unwrap().timestamp());
    let shown = cli.json(&["show", name]).await;
    let listed = cli.json(&["list"]).await;
    let entry = listed["backups"].as_array().unwrap().iter().find(|b| b["name"] == name).unwrap();
    assert_eq!([&seconds(&first), &seconds(&shown), &seconds(entry)], [time; 3]);
    assert_eq!(
        (&first["documents"], &first["buckets"], &shown["buckets"], &entry["buckets"]),
        (&json!(4), &json!(1), &json!(1), &json!(1))
    );
    let counted: Vec<_> = shown["collections"].as_array().unwrap().iter().map(|c| (&c["name"], &c["countedIn"])).collect();
    assert_eq!(counted, [(&json!("c"), &json!("documents")), (&json!("t"), &json!("buckets"))]);
    let text = cli.run(&["show", name]).await.stdout;
    assert!(
        text.contains("4 documents (of them 1 bucket of time series) in 2 collections") && text.contains(" 1 bucket "),
        "{text}"
    );
    let text = cli.run(&["backup", "--dry-run"]).await.stdout;
    assert!(text.contains(" 1 bucket "), "{text}");
    let plan = cli.json(&["backup", "--dry-run"]).await;
    assert_eq!(plan["collections"][1]["countedIn"], "buckets");

    // Its own backup comes last, and displaces only the first one.
    let last = backup("").await;
    assert_eq!(names(&last["retention"]["deleted"]), [name]);
    assert_eq!(catalog(&cli.dir().join("backups")).list(clock::now()).await.unwrap().len(), 3);

    // Every report of a copy or import counts buckets, too.
    let name = last["name"].as_str().unwrap();
    let target = by("127.0.0.1");
    for of in [
        &["export", name, "--format", "archive", "--out", "dump.archive"][..],
        &["adopt", "dump.archive", "--path", "adopted"],
        &["import", name, "--target", &target, "--yes"],
    ] {
        assert_eq!(cli.json(of).await["buckets"], 1, "{of:?}");
    }
    let text = cli.run(&["verify", name, "--deep"]).await.stdout;
    assert!(text.contains("of them 1 bucket"), "{text}");
}
