//! A backup as one tar stream: how the system's tar reads it, and what must never pass for a
//! complete backup.

use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bsonvault::clock;
use bsonvault::context::Context;
use bsonvault::engine::clean;
use bsonvault::engine::download::Download;
use bsonvault::engine::export::{self, Destination, ExportOptions, Format};
use bsonvault::engine::verify::{self, VerifyOptions};
use bsonvault::error::ErrorKind;
use bsonvault::format::key;
use bsonvault::names::BackupName;
use bsonvault::repository::catalog::{Backup, State};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

use crate::support::cli::{Cli, Output};
use crate::support::files::{copy, files, fixture};
use crate::support::server::Server;
use crate::support::vault::{catalog, store, verified};

const NAME: &str = "atlas-backup-2026-11-22T21-45-00-000Z";
const SEGMENT: &str = "shop/orders.00000.bson.zst";

/// A copy of the fixture, with its file of checks.
async fn copied() -> (TempDir, Backup) {
    let directory = tempfile::tempdir().unwrap();
    copy(&fixture("v2").join(NAME), &directory.path().join(NAME));
    let backup = find(directory.path()).await;
    (directory, backup)
}

async fn find(directory: &Path) -> Backup {
    catalog(directory).find(NAME).await.unwrap()
}

/// Reads all of it, in pieces of odd sizes.
async fn read(mut download: Download) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 4099];
    loop {
        match download.read(&mut piece).await.unwrap() {
            0 => break,
            count => bytes.extend(&piece[..count]),
        }
    }
    assert_eq!(bytes.len() as u64, download.length());
    assert_eq!(download.read(&mut piece).await.unwrap(), 0, "an end is an end");
    bytes
}

async fn tar_of(backup: &Backup) -> Vec<u8> {
    read(Download::open(backup.clone(), ()).await.unwrap()).await
}

/// Runs the system's tar on a stream. Returns whether it succeeded, and its output.
fn tar(bytes: &[u8], arguments: &[&str]) -> (bool, String) {
    let mut child =
        Command::new("tar").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A tar that fails early stops reading.
    let _broken_pipe = child.stdin.take().unwrap().write_all(bytes);
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success() && output.stderr.is_empty(), said)
}

fn untar(bytes: &[u8]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (content, said) = tar(bytes, &["-xpf", "-", "-C", directory.path().to_str().unwrap()]);
    assert!(content, "{said}");
    directory
}

#[tokio::test]
async fn what_tar_makes_of_it_is_the_backup_whole_and_sound() {
    let (directory, backup) = copied().await;
    std::fs::write(directory.path().join(NAME).join("stray.txt"), "not the backup's").unwrap();
    let checked = verified(&backup, true).await;
    assert!(checked.is_sound(), "{checked:?}");
    std::fs::write(directory.path().join(NAME).join(key::CHECKS), "{\"formatVersion\": 1}").unwrap();

    let download = Download::open(backup.clone(), ()).await.unwrap();
    assert_eq!(download.name(), format!("{NAME}.tar"));
    let bytes = read(download).await;
    assert_eq!(bytes, tar_of(&backup).await, "it is the same each time");

    // All files of the backup, and no others.
    let unpacked = untar(&bytes);
    let mut expected = files(directory.path());
    expected.retain(|path, _| !path.ends_with("stray.txt"));
    assert_eq!(files(unpacked.path()), expected);
    let report = verified(&find(unpacked.path()).await, true).await;
    assert!(report.is_sound() && report.documents > 0, "{report:?}");
    assert_eq!(report.notes, ["shop.odd/näme #1 100%: 1 document without an _id: an import gives each one"]);

    // With the modes of a stored backup, and with its time.
    for (path, mode) in [("", 0o700), ("shop", 0o700), (SEGMENT, 0o600), (key::MANIFEST, 0o600)] {
        let found = std::fs::metadata(unpacked.path().join(NAME).join(path)).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, mode, "{path}");
        assert_eq!(found.mtime(), backup.manifest.created.timestamp(), "{path}");
    }
    let (_, listing) = tar(&bytes, &["--numeric-owner", "-tvf", "-"]);
    assert!(listing.lines().all(|line| line.contains(" 0/0 ")), "{listing}");
    assert!(listing.lines().last().unwrap().ends_with("/manifest.json"), "{listing}");
}

#[tokio::test]
async fn wherever_it_breaks_off_what_was_received_is_no_backup() {
    let (_directory, backup) = copied().await;
    let bytes = tar_of(&backup).await;
    let manifest = backup.store.size(key::MANIFEST).await.unwrap() as usize;
    // The last byte of the manifest is before its padding and the two final blocks.
    let end = bytes.len() - 1024 - (manifest.next_multiple_of(512) - manifest);
    let cuts = (0..end).step_by(end / 40).chain([end - manifest - 512, end - manifest, end - 1]);
    for cut in cuts {
        let directory = tempfile::tempdir().unwrap();
        // tar does not even report all of these.
        tar(&bytes[..cut], &["-xf", "-", "-C", directory.path().to_str().unwrap()]);
        let catalog = catalog(directory.path());
        for summary in catalog.list(clock::now()).await.unwrap() {
            assert!(!matches!(summary.state, State::Complete(_)), "whole after {cut} of {} bytes", bytes.len());
        }
    }
}

#[tokio::test]
async fn its_length_is_exact_for_every_size_and_name() {
    let long = "x".repeat(238);
    // NAME/ takes 38 bytes: with 62 more, the path has 100.
    let (fits, does_not) = (format!("d/{}", "f".repeat(60)), format!("d/{}", "f".repeat(61)));
    let deep = format!("{long}/{long}.00000.bson.zst");
    let odd = "d\u{e4}ta/\u{1f980} %23.00000.bson.zst".to_owned();
    let keys = ["a", &fits, &does_not, &format!("{long}/b"), &deep, &odd];
    let sizes = [0, 1, 511, 512, 513, 1023, 1024, 262_143, 262_144, 262_145, 524_288, 786_944, 1_000_000];
    let (_fixture, fixture) = copied().await;
    for (number, (key, size)) in keys.iter().flat_map(|key| sizes.map(|size| (key, size))).enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory.path().join(NAME));
        let mut manifest = fixture.manifest.clone();
        manifest.oplog = None;
        manifest.collections.truncate(1);
        manifest.collections[0].segments.truncate(1);
        let object = &mut manifest.collections[0].segments[0].object;
        (object.key, object.bytes) = ((*key).to_owned(), size);
        let content: Vec<u8> = (0..size).map(|at| (at * 7 + number as u64) as u8).collect();
        store.put(key, vec![content.into()]).await.unwrap();
        let metadata = manifest.collections[0].metadata.clone();
        store.put(&metadata.key, vec![vec![1; metadata.bytes as usize].into()]).await.unwrap();
        store.put(key::SHA256SUMS, vec![manifest.sums().into()]).await.unwrap();
        // Its manifest also takes each remainder of a block.
        store.put(key::MANIFEST, vec![vec![b' '; 1000 + number * 13].into()]).await.unwrap();
        let bytes = tar_of(&Backup { store, manifest }).await;
        assert_eq!(bytes.len() % 512, 0);
        assert_eq!(files(untar(&bytes).path()), files(directory.path()), "{key} of {size}");
    }
}

#[tokio::test]
async fn what_is_no_plain_file_of_its_size_is_refused_before_the_first_byte() {
    type Change = fn(&Path);
    let changes: [(&str, ErrorKind, Change); 8] = [
        ("a link to itself elsewhere", ErrorKind::Damaged, |backup| {
            std::fs::rename(backup.join(SEGMENT), backup.join("elsewhere")).unwrap();
            std::os::unix::fs::symlink("../elsewhere", backup.join(SEGMENT)).unwrap();
        }),
        ("a directory that is a link", ErrorKind::Damaged, |backup| {
            std::fs::rename(backup.join("shop"), backup.join("elsewhere")).unwrap();
            std::os::unix::fs::symlink("elsewhere", backup.join("shop")).unwrap();
        }),
        ("a manifest that is a link", ErrorKind::Damaged, |backup| {
            std::fs::rename(backup.join(key::MANIFEST), backup.join("elsewhere")).unwrap();
            std::os::unix::fs::symlink("elsewhere", backup.join(key::MANIFEST)).unwrap();
        }),
        ("checks that lead out", ErrorKind::Damaged, |backup| {
            std::os::unix::fs::symlink("/etc/hostname", backup.join(key::CHECKS)).unwrap();
        }),
        ("a pipe", ErrorKind::Damaged, |backup| {
            std::fs::remove_file(backup.join(SEGMENT)).unwrap();
            assert!(Command::new("mkfifo").arg(backup.join(SEGMENT)).status().unwrap().success());
        }),
        ("a directory", ErrorKind::Damaged, |backup| {
            std::fs::remove_file(backup.join(SEGMENT)).unwrap();
            std::fs::create_dir(backup.join(SEGMENT)).unwrap();
        }),
        ("one byte more", ErrorKind::Damaged, |backup| {
            let mut sums = std::fs::OpenOptions::new().append(true).open(backup.join(key::SHA256SUMS)).unwrap();
            sums.write_all(b"\n").unwrap();
        }),
        ("nothing", ErrorKind::NotFound, |backup| std::fs::remove_file(backup.join(SEGMENT)).unwrap()),
    ];
    for (what, kind, change) in changes {
        let (directory, backup) = copied().await;
        change(&directory.path().join(NAME));
        let opened = tokio::time::timeout(std::time::Duration::from_secs(5), Download::open(backup, ())).await.unwrap();
        let Err(error) = opened else { panic!("{what} was taken") };
        assert_eq!(error.kind(), kind, "{what}: {error}");
    }
    // The backup itself as a link.
    let (directory, backup) = copied().await;
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(NAME, &link).unwrap();
    let backup = Backup { store: store(&link), ..backup };
    let Err(error) = Download::open(backup, ()).await else { panic!("a link was taken for a backup") };
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
}

/// Replaces a file by something else; the original stays beside it.
fn put_instead(what: &str, path: &Path) {
    let beside = path.with_extension("beside");
    std::fs::rename(path, &beside).unwrap();
    match what {
        "a symbolic link" => std::os::unix::fs::symlink(&beside, path).unwrap(),
        "a pipe" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "a socket" => drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        _ => std::fs::create_dir(path).unwrap(),
    }
}

const OTHERS: [&str; 4] = ["a symbolic link", "a pipe", "a socket", "a directory"];

/// Fails if something hangs.
async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(20), what).await.unwrap()
}

#[tokio::test]
async fn all_that_read_a_backup_take_the_same_for_damage_and_wait_for_none_of_it() {
    let cx = Context::default();
    let directories = [("shop", "a symbolic link")];
    let files = [key::MANIFEST, key::SHA256SUMS, SEGMENT].into_iter().flat_map(|key| OTHERS.map(|what| (key, what)));
    for (key, what) in directories.into_iter().chain(files) {
        let (directory, backup) = copied().await;
        let place = directory.path().join(NAME).join(key);
        put_instead(what, &place);
        let told = format!("cannot read {}: it is {what}", place.display());

        let verified = in_time(verify::prove(&backup, &VerifyOptions { deep: false }, &cx)).await.unwrap();
        let is_told = |message: &str| message.contains(&told) || (what == "a directory" && message.contains(key));
        assert!(verified.problems.iter().any(|p| is_told(&p.message)), "{told}: {verified:?}");
        let Err(error) = in_time(Download::open(backup.clone(), ())).await else { panic!("{told}") };
        assert!(error.kind() == ErrorKind::Damaged && error.to_string().contains(&told), "{error}");
        if ["shop", SEGMENT].contains(&key) {
            let to = Destination::Path(directory.path().join("export"));
            let options = ExportOptions::of(Format::Archive);
            let work = export::run(&backup, &options, &to, &cx);
            let error = in_time(work).await.unwrap_err();
            assert!(is_told(&error.to_string()), "{error}");
        }
        if key == key::MANIFEST {
            let catalog = catalog(directory.path());
            let error = in_time(catalog.find(NAME)).await.unwrap_err();
            assert!(error.kind() == ErrorKind::Damaged && error.to_string().contains(&told), "{error}");
        }
    }
}

#[tokio::test]
async fn whatever_stands_in_place_of_repository_json_backups_are_read_and_none_is_written() {
    for what in [&OTHERS[..], &["garbage"]].concat() {
        let (directory, _) = copied().await;
        let place = directory.path().join("repository.json");
        std::fs::write(&place, "{").unwrap();
        if what != "garbage" {
            put_instead(what, &place);
        }
        let catalog = catalog(directory.path());
        assert_eq!(in_time(catalog.list(clock::now())).await.unwrap().len(), 1, "{what}");
        in_time(catalog.find(NAME)).await.unwrap();
        let error = in_time(catalog.repository().identify()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error}");
        assert!(error.to_string().contains("repository.json"), "{error}");
    }
}

#[tokio::test]
async fn whatever_stands_in_place_of_its_files_a_backup_is_listed_and_deleted_and_hides_no_other() {
    let reader = key::reader(uuid::Uuid::nil());
    for key in [key::MANIFEST, key::PROGRESS, key::CHECKS, &reader, &key::checkpoint(0)] {
        for what in OTHERS {
            let (directory, _) = copied().await;
            let (place, other) = (directory.path().join(NAME), directory.path().join("other"));
            assert!(Command::new("cp").arg("-r").arg(&place).arg(&other).status().unwrap().success());
            if key == key::PROGRESS {
                // Its checks do not matter without a manifest.
                std::fs::remove_file(place.join(key::MANIFEST)).unwrap();
            }
            if key != key::MANIFEST {
                std::fs::write(place.join(key), "{}").unwrap();
            }
            put_instead(what, &place.join(key));
            let catalog = catalog(directory.path());
            let found = in_time(catalog.list(clock::now())).await.unwrap();
            let label = |name: &str| found.iter().find(|s| s.name.as_str() == name).map(|s| s.state.label());
            let expected = if key == key::MANIFEST {
                "damaged"
            } else if key == key::PROGRESS {
                "incomplete"
            } else {
                "complete"
            };
            assert_eq!((label(NAME), label("other")), (Some(expected), Some("complete")), "{key} is {what}");
            assert_eq!(in_time(catalog.running(clock::now())).await.unwrap().len(), 0);
            in_time(clean::delete_one(&catalog, &BackupName::parse(NAME).unwrap(), clock::now())).await.unwrap();
            assert!(!place.exists() && other.exists());
        }
    }
}

#[tokio::test]
async fn a_whole_backup_and_the_path_of_all_may_be_links() {
    let (directory, _) = copied().await;
    let links = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(directory.path().join(NAME), links.path().join("mine")).unwrap();
    std::os::unix::fs::symlink(directory.path(), links.path().join("all")).unwrap();
    let all = catalog(&links.path().join("all"));
    assert_eq!(all.list(clock::now()).await.unwrap().len(), 1);
    let by_path = links.path().join("mine");
    for backup in [all.find(NAME).await, catalog(links.path()).find("mine").await, all.find(by_path.to_str().unwrap()).await] {
        let backup = backup.unwrap();
        let checked = verified(&backup, false).await;
        assert!(checked.is_sound(), "{checked:?}");
        assert_eq!(files(untar(&tar_of(&backup).await).path()).len(), files(directory.path()).len());
    }
}

/// A backup whose first segment takes several pieces.
async fn large() -> (TempDir, Backup) {
    let (directory, mut backup) = copied().await;
    let large = &mut backup.manifest.collections.iter_mut().find_map(|c| c.segments.first_mut()).unwrap().object;
    large.bytes = 3_000_000;
    let key = large.key.clone();
    let sums = backup.manifest.sums();
    backup.store.put(&key, vec![vec![7; 3_000_000].into()]).await.unwrap();
    backup.store.put(key::SHA256SUMS, vec![sums.into()]).await.unwrap();
    std::fs::rename(directory.path().join(NAME).join(&key), directory.path().join(NAME).join("large")).unwrap();
    std::fs::hard_link(directory.path().join(NAME).join("large"), directory.path().join(NAME).join(&key)).unwrap();
    (directory, backup)
}

#[tokio::test]
async fn a_file_that_shrinks_or_goes_while_it_streams_breaks_the_stream_off() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 4] = [
        ("shrinks", |backup| {
            let file = std::fs::OpenOptions::new().write(true).open(backup.join("large")).unwrap();
            file.set_len(1_500_000).unwrap();
        }),
        ("grows before its turn", |backup| {
            let file = std::fs::OpenOptions::new().write(true).open(backup.join(key::SHA256SUMS)).unwrap();
            file.write_at(b"x", 100_000).unwrap();
        }),
        ("goes before its turn", |backup| std::fs::remove_file(backup.join(key::MANIFEST)).unwrap()),
        ("becomes a link before its turn", |backup| {
            std::fs::rename(backup.join(key::MANIFEST), backup.join("elsewhere")).unwrap();
            std::os::unix::fs::symlink("elsewhere", backup.join(key::MANIFEST)).unwrap();
        }),
    ];
    for (what, change) in changes {
        let (directory, backup) = large().await;
        let mut download = Download::open(backup, ()).await.unwrap();
        let mut received = vec![0; 1_000_000];
        download.read_exact(&mut received).await.unwrap();
        change(&directory.path().join(NAME));
        let error = download.read_to_end(&mut received).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{what}: {error}");
        assert!((received.len() as u64) < download.length(), "{what}");
        let again = download.read(&mut [0; 10]).await;
        assert!(again.is_err(), "{what}: an error became an end");
        let unpacked = tempfile::tempdir().unwrap();
        tar(&received, &["-xf", "-", "-C", unpacked.path().to_str().unwrap()]);
        let catalog = catalog(unpacked.path());
        let state = catalog.summary(BackupName::parse(NAME).unwrap(), clock::now()).await.unwrap().state;
        assert!(matches!(state, State::Incomplete), "{what}: {state:?}");
    }
}

#[tokio::test]
async fn it_holds_what_it_is_given_to_its_end_and_cannot_be_sought() {
    let (_directory, backup) = copied().await;
    let hold = Arc::new(());
    let mut download = Download::open(backup, hold.clone()).await.unwrap();
    download.read_exact(&mut [0; 1000]).await.unwrap();
    assert_eq!(download.seek(std::io::SeekFrom::Start(0)).await.unwrap_err().kind(), std::io::ErrorKind::NotSeekable);
    download.read_exact(&mut [0; 1000]).await.unwrap();
    assert_eq!(Arc::strong_count(&hold), 2);
    drop(download);
    assert_eq!(Arc::strong_count(&hold), 1);
    fn is_a_body<T: tokio::io::AsyncRead + tokio::io::AsyncSeek + Send + Unpin + 'static>(_: &T) {}
    let (_directory, backup) = copied().await;
    is_a_body(&Download::open(backup, Arc::new(())).await.unwrap());
}

fn with_input(cli: &Cli, args: &[&str], file: &Path) -> Output {
    Output::from(cli.command(args).stdin(std::fs::File::open(file).unwrap()).output().unwrap())
}

#[tokio::test]
async fn a_download_becomes_a_backup_again_as_it_is_or_not_at_all() {
    let (_kept, backup) = copied().await;
    let bytes = tar_of(&backup).await;
    let cli = Cli::new();
    let (file, backups) = (cli.dir().join("x.tar"), cli.dir().join("backups"));
    let left = || std::fs::read_dir(&backups).map_or(0, |entries| entries.count());

    // 1. A stream that is truncated, changed or something else leaves nothing.
    let at = bytes.windows(4).position(|four| four == b"\x28\xB5\x2F\xFD").unwrap() + 20;
    let mut changed = bytes.clone();
    changed[at] ^= 1;
    for (content, code, told) in
        [(&bytes[..bytes.len() / 2], 1, "is cut"), (&bytes[..bytes.len() - 3000], 1, "is cut"), (&changed, 3, "damaged")]
    {
        std::fs::write(&file, content).unwrap();
        let refused = cli.run(&["adopt", "x.tar"]).await;
        assert!(refused.code == Some(code) && refused.stderr.contains(told), "{told}: {refused:?}");
        assert_eq!(left(), 0, "{told}");
    }

    // 2. A complete one, also gzipped, and from standard input.
    std::fs::write(&file, &bytes).unwrap();
    let adopted = cli.json(&["adopt", "x.tar"]).await;
    assert_eq!((&adopted["name"], &adopted["unpacked"]), (&NAME.into(), &true.into()), "{adopted}");
    assert_eq!(cli.run(&["verify", "latest", "--deep"]).await.code, Some(0));
    let again = cli.run(&["adopt", "x.tar"]).await;
    assert!(again.code == Some(1) && again.stderr.contains("exists already"), "{again:?}");
    assert_eq!(left(), 1);
    std::fs::remove_dir_all(backups.join(NAME)).unwrap();
    assert!(Command::new("gzip").arg(&file).status().unwrap().success());
    assert_eq!(with_input(&cli, &["adopt", "-"], &cli.dir().join("x.tar.gz")).code, Some(0));
    assert_eq!(cli.run(&["verify", NAME]).await.code, Some(0));

    // 3. Other verbs tell what to do with it.
    for args in [&["verify", "x.tar.gz"][..], &["show", "x.tar.gz"], &["restore", "x.tar.gz"]] {
        let told = cli.run(args).await;
        assert!(told.code != Some(0) && told.stderr.contains("`bsonvault import FILE`"), "{told:?}");
    }
}

#[tokio::test]
async fn latest_and_a_download_are_imported_and_databases_are_chosen() {
    let server = Server::standalone().await;
    let client = server.client().await;
    for (database, documents) in [("a", 3), ("b", 2)] {
        let documents: Vec<bson::Document> = (0..documents).map(|i| bson::doc! { "_id": i }).collect();
        client.database(database).collection("c").insert_many(documents).await.unwrap();
    }
    let cli = Cli::new().env("MONGO_URI_ATLAS", server.uri()).env("MONGO_URI_LOCAL", server.uri());
    let taken = cli.json(&["backup"]).await;
    let name = taken["name"].as_str().unwrap();
    std::fs::rename(cli.dir().join("backups"), cli.dir().join("taken")).unwrap();
    let taken = catalog(&cli.dir().join("taken"));
    let backup = taken.find(name).await.unwrap();
    let held: std::collections::BTreeSet<String> = backup.manifest.collections.iter().map(|c| c.database.clone()).collect();
    let count = |database: &str| backup.manifest.collections.iter().filter(|c| c.database == database).count();
    let there = async || -> Vec<String> {
        let names = client.list_database_names().await.unwrap();
        names.into_iter().filter(|name| !["admin", "config", "local"].contains(&name.as_str())).collect()
    };

    // 1. There is no latest backup, and nothing may have that name.
    let none = cli.run(&["import", "latest"]).await;
    assert!(none.code == Some(1) && none.stderr.contains("no complete backup"), "{none:?}");
    assert!(BackupName::parse("Latest").is_err());

    // 2. A download is imported from its file and from standard input, and leaves nothing beside
    // it.
    let file = cli.dir().join("x.tar");
    std::fs::write(&file, tar_of(&backup).await).unwrap();
    let report = cli.json(&["import", "x.tar", "--yes", "--allow-same"]).await;
    assert_eq!((&report["backup"], report["documents"].as_u64()), (&name.into(), Some(backup.manifest.totals.documents)));
    let piped = with_input(&cli, &["import", "-", "--yes", "--json", "--allow-same"], &file);
    assert_eq!((piped.code, &piped.json()["documents"]), (Some(0), &report["documents"]), "{piped:?}");
    let uri = server.uri();
    let listed = cli.run(&["restore", "--uri", &uri, name]).await;
    assert!(listed.code == Some(1) && listed.stderr.contains("does not exist"), "no such backup here: {listed:?}");

    // 3. Of two backups, `latest` is the newer one; the output names it, and the number of sources.
    assert_eq!(cli.run(&["adopt", "x.tar"]).await.code, Some(0));
    std::fs::create_dir_all(cli.dir().join("d/old")).unwrap();
    std::fs::write(cli.dir().join("d/old/c.bson"), bson::rawdoc! { "_id": 1 }.as_bytes()).unwrap();
    let older = cli.json(&["adopt", "d", "--created", "2020-01-01"]).await;
    let shown = cli.run(&["show", "latest"]).await;
    assert!(shown.stdout.contains(name), "{shown:?}");
    assert!(shown.stderr.contains(&format!("latest is {name}")) && shown.stderr.contains("2 sources"), "{shown:?}");
    assert_eq!(cli.json(&["show", "LATEST"]).await["name"], name);
    let imported = cli.json(&["import", "latest", "--yes", "--allow-same"]).await;
    assert_eq!(imported["backup"], name);
    let exported = cli.json(&["export", "latest", "--out", "out", "--format", "dir"]).await;
    assert_eq!(exported["backup"], name, "{exported}");
    for args in [&["restore", "--uri", &uri, name][..], &["restore", "--uri", &uri, "latest"]] {
        let told = cli.run(args).await;
        let meant = format!("`bsonvault import {}`", args[3]);
        assert!(told.code == Some(2) && told.stderr.contains(&meant), "{told:?}");
    }
    let told = cli.run(&["adopt", older["name"].as_str().unwrap()]).await;
    assert!(told.code == Some(2) && told.stderr.contains("is a backup already"), "{told:?}");

    // 4. A connection string is not a backup, and its password is not shown.
    for verb in ["import", "show", "verify", "export", "adopt"] {
        let more: &[&str] = if verb == "export" { &["--out", "o", "--format", "dir"] } else { &[] };
        let told = cli.run(&[&[verb, "mongodb://u:hunter2@h/"], more].concat()).await;
        assert!(told.code == Some(2) && told.stderr.contains("connection string"), "{told:?}");
        assert!(!told.stderr.contains("hunter2"), "{told:?}");
    }

    // 5. --database selects, --as renames. If there is only one database, --database may still
    // rename it, with a note.
    for name in there().await {
        client.database(&name).drop().await.unwrap();
    }
    let first = held.first().unwrap();
    let one = cli.json(&["import", "latest", "--allow-same", "--database", first]).await;
    assert_eq!((one["collections"].as_array().unwrap().len(), there().await), (count(first), vec![first.clone()]), "{one}");
    cli.json(&["import", "latest", "--allow-same", "--database", first, "--as", "copy"]).await;
    let mut both = vec![first.clone(), "copy".to_owned()];
    both.sort();
    assert_eq!(there().await, both);
    let old = cli.run(&["import", older["name"].as_str().unwrap(), "--allow-same", "--database", "new"]).await;
    assert!(old.code == Some(0) && old.stderr.contains("--as new"), "{old:?}");
    assert!(there().await.contains(&"new".to_owned()));
    // Into what the source itself holds, it must be meant.
    let into = ["import", older["name"].as_str().unwrap(), "--allow-same", "--database", "newer", "--mode", "add"];
    let refused = cli.run(&into).await;
    assert!(refused.code == Some(2) && refused.stderr.contains("holds no database"), "{refused:?}");
    // Nobody knows the content of `latest` by heart.
    let unknown = cli.run(&["import", "latest", "--database", "new", "--include", "a.*"]).await;
    assert!(unknown.code == Some(2) && unknown.stderr.contains("holds no database"), "{unknown:?}");
    let missing = cli.run(&["import", older["name"].as_str().unwrap(), "--database", "a", "--database", "b"]).await;
    assert!(missing.code == Some(2) && missing.stderr.contains("holds no database"), "{missing:?}");
    // The database in the URI's path is for programs that name none.
    let in_path = format!("{}other", server.uri().split_once('?').map_or(uri.as_str(), |(before, _)| before));
    cli.json(&["import", "latest", "--yes", "--allow-same", "--target", &in_path, "--database", first]).await;
    assert!(!there().await.contains(&"other".to_owned()));
}
