//! What `clean`, `list` and `verify` say of archives, and what `clean` removes of them.

use bsonvault::clock;
use bsonvault::context::Context;
use bsonvault::engine::import::PointInTime;
use bsonvault::engine::moment::Moment;
use bsonvault::format::reader::Reader;
use serde_json::Value;

use super::{Made, made};
use crate::support::cli::{Cli, Output};
use crate::support::vault::with_manifest;

async fn run(made: &Made, keep: &str, args: &[&str]) -> Output {
    let path = made.vault.directory.path().to_str().unwrap();
    let args: Vec<&str> = args.iter().copied().chain(["--path", path]).collect();
    Cli::new().env("PITR_KEEP", keep).run(&args).await
}

async fn json(made: &Made, keep: &str, args: &[&str]) -> Value {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let output = run(made, keep, &args).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    output.json()
}

fn names(values: &Value) -> Vec<&str> {
    values.as_array().unwrap().iter().map(|value| value["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn backups_that_a_window_needs_stay_and_links_out_of_it_go() {
    let made = made().await;
    let [first, second] = made.bases.each_ref().map(|name| name.as_str());
    let links = made.links().await;

    // A long window begins with the first base.
    let planned = json(&made, "1d", &["clean", "--keep", "1", "--dry-run"]).await;
    assert_eq!((names(&planned["kept"]), planned["deleted"].as_array().unwrap().len()), (vec![second, first], 0));
    let why: Vec<&str> = planned["kept"][1]["reasons"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert_eq!(why, ["the archive's window begins with it"]);
    assert_eq!(planned["archives"][0]["links"].as_array().unwrap().len(), 0);
    // Without a window, no backup stays for an archive, and nothing of that is removed.
    let planned = json(&made, "", &["clean", "--keep", "1", "--dry-run"]).await;
    assert_eq!((names(&planned["deleted"]), names(&planned["archives"][0]["links"])), (vec![first], vec![]));
    // A window alone deletes no backup.
    let planned = json(&made, "1s", &["clean", "--dry-run"]).await;
    assert_eq!((names(&planned["deleted"]).len(), names(&planned["archives"][0]["links"]).len()), (0, links.len() - 1));

    // A short one begins with the second base, which needs the last link at most.
    let planned = json(&made, "1s", &["clean", "--keep", "1", "--dry-run"]).await;
    assert_eq!((names(&planned["deleted"]), names(&planned["archives"][0]["links"]).len()), (vec![first], links.len() - 1));
    assert_eq!(made.links().await, links);

    // Nothing goes while it is read, here or elsewhere, or written.
    let reading = made.place.read_lock("import").await.unwrap();
    let busy = json(&made, "1s", &["clean"]).await;
    let note = busy["archives"][0]["notes"][0].as_str().unwrap();
    assert!(note.contains("is being read: import by process"), "{note}");
    drop(reading);
    let now = clock::now();
    let (host, purpose) = ("elsewhere".to_owned(), "verify".to_owned());
    let reader = Reader { host, process: 7, purpose, locked: true, since: now, heartbeat: now };
    let path = made.directory().join("reader.5b0e6f1c-6a51-4c55-9d0e-3f8a3a1b7c11.json");
    std::fs::write(&path, serde_json::to_vec(&reader).unwrap()).unwrap();
    let busy = json(&made, "1s", &["clean"]).await;
    assert!(busy["archives"][0]["notes"][0].as_str().unwrap().contains("verify by process 7 on elsewhere"), "{busy}");
    std::fs::remove_file(path).unwrap();
    let writing = made.place.lock().await.unwrap();
    let archiver = made.place.archiver().await.unwrap().unwrap();
    made.place.set_archiver(&bsonvault::format::chain::Archiver { ended: false, ..archiver.clone() }).await.unwrap();
    let busy = json(&made, "1s", &["clean"]).await;
    assert!(busy["archives"][0]["notes"][0].as_str().unwrap().contains("an archiver is at work"), "{busy}");
    drop(writing);
    made.place.set_archiver(&archiver).await.unwrap();
    assert_eq!(made.links().await, links);

    // What a crash left goes, too.
    let left = made.directory().join("2026-01-01T00-00-00Z");
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join("oplog.00000.bson.zst"), [0; 1_000]).unwrap();
    let done = json(&made, "1s", &["clean", "--keep", "1"]).await;
    let archive = &done["archives"][0];
    assert_eq!((names(&done["deleted"]), names(&archive["links"]).len()), (vec![first], links.len() - 1));
    assert!(archive["leftovers"][0].as_str().unwrap().contains("2026-01-01T00-00-00Z"), "{archive}");
    assert!(archive["freedBytes"].as_u64().unwrap() > 1_000 && !left.exists());
    assert_eq!(made.links().await, links[links.len() - 1..]);

    // What is left is whole, and leads from the second base to the end.
    let report = made.verified(true).await;
    assert!(report.is_sound() && report.notes.is_empty() && report.links == 1, "{report:?}");
    let cx = Context::default();
    let point = PointInTime::open(&made.vault.repository(), None, Moment::At(made.end), &cx).await.unwrap();
    assert_eq!(point.base().as_str(), second);
    drop(point);
    let again = json(&made, "1s", &["clean", "--keep", "1"]).await;
    assert_eq!((&again["deleted"], &again["archives"][0]["links"]), (&Value::Array(vec![]), &Value::Array(vec![])));
}

#[tokio::test]
async fn without_its_backups_an_archive_stays_and_a_note_says_so() {
    let made = made().await;
    // The newest backup does not say from where on it needs the oplog.
    let newest = made.vault.find(&made.bases[1]).await;
    with_manifest(newest, |manifest| manifest.consistency.replay_from = None).await;
    let planned = json(&made, "", &["clean", "--keep", "1", "--dry-run"]).await;
    let note = planned["archives"][0]["notes"][0].as_str().unwrap();
    assert!(note.contains("no backup is left that it can be replayed on"), "{note}");
    // With a window, the other one stays.
    let planned = json(&made, "1s", &["clean", "--keep", "1", "--dry-run"]).await;
    assert_eq!((names(&planned["deleted"]), &planned["archives"][0]["notes"]), (vec![], &Value::Array(vec![])));
    // Incomplete backups alone, and nothing of archives.
    let planned = json(&made, "1s", &["clean", "--incomplete", "--dry-run"]).await;
    assert_eq!(names(&planned["archives"][0]["links"]), Vec::<&str>::new());

    // `chain.json` says of what an archive is. Without it, no backup is deleted with a window.
    let (chain, kept) = (made.directory().join("chain.json"), made.directory().join("kept.json"));
    std::fs::rename(&chain, &kept).unwrap();
    let failed = run(&made, "1d", &["clean", "--keep", "1"]).await;
    assert!(failed.code != Some(0) && failed.stderr.contains("chain.json"), "{failed:?}");
    let listed = run(&made, "", &["list"]).await;
    assert!(listed.stdout.contains("DAMAGED: chain.json is missing"), "{listed:?}");
    std::fs::rename(kept, chain).unwrap();
}

#[tokio::test]
async fn list_and_verify_tell_of_archives() {
    let made = made().await;
    let id = made.place.id();
    let listed = run(&made, "", &["list"]).await;
    let line = listed.stdout.lines().find(|line| line.starts_with("archived oplog of made from ")).unwrap();
    assert!(line.contains("not being written") && !line.contains("DAMAGED"), "{line}");
    let listed = json(&made, "", &["list"]).await;
    assert_eq!((listed["backups"].as_array().unwrap().len(), &listed["archives"][0]["replicaSetId"]), (2, &id.into()));

    // Everything, one backup, all archives, one of them by its name or its path.
    let all = json(&made, "", &["verify"]).await;
    assert_eq!((&all["name"], &all["archives"][0]["replicaSetId"]), (&made.bases[1].as_str().into(), &id.into()));
    let one = json(&made, "", &["verify", made.bases[0].as_str()]).await;
    assert_eq!((&one["name"], &one["archives"]), (&made.bases[0].as_str().into(), &Value::Null));
    let directory = made.directory();
    for form in ["oplog", &format!("oplog/{id}"), &format!("oplog/{id}/"), directory.to_str().unwrap()] {
        let of_archives = json(&made, "", &["verify", form, "--deep"]).await;
        assert_eq!((&of_archives["name"], &of_archives["archives"][0]["problems"]), (&Value::Null, &Value::Array(vec![])));
    }
    let text = run(&made, "", &["verify", "oplog"]).await.stdout;
    assert!(text.contains("links, ") && text.contains("intact: every file is as it was written, and none is missing"), "{text}");
    let restored = run(&made, "", &["verify", "oplog", "--restore", "--target", "mongodb://127.0.0.1:1"]).await;
    assert!(restored.code == Some(2) && restored.stderr.contains("this is an archived oplog"), "{restored:?}");

    // Damage of either makes it fail. An archive alone is verified, too.
    let sums = directory.join(&made.links().await[0]).join("SHA256SUMS");
    std::fs::write(&sums, b"nothing").unwrap();
    let failed = run(&made, "", &["verify", "--json"]).await;
    let problem = &failed.json()["archives"][0]["problems"][0];
    assert!(failed.code == Some(3) && problem["key"].as_str().unwrap().ends_with("/SHA256SUMS"), "{failed:?}");
    for base in &made.bases {
        std::fs::remove_dir_all(made.vault.directory.path().join(base.as_str())).unwrap();
    }
    let alone = run(&made, "", &["verify", "--json"]).await;
    assert_eq!((alone.code, &alone.json()["name"]), (Some(3), &Value::Null));
    let listed = run(&made, "", &["list"]).await;
    assert!(listed.code == Some(0) && listed.stdout.contains("no backups in"), "{listed:?}");
    std::fs::remove_dir_all(directory).unwrap();
    let nothing = run(&made, "", &["verify"]).await;
    assert!(nothing.code == Some(1) && nothing.stderr.contains("has no complete backup"), "{nothing:?}");
    let nothing = run(&made, "", &["verify", "oplog"]).await;
    assert!(nothing.code == Some(1) && nothing.stderr.contains("has no archive of an oplog"), "{nothing:?}");
}
