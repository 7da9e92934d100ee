use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::*;
use crate::config::Flags;
use crate::store::hang::Hang;

const NAME: &str = "atlas-backup-2026-11-22T21-45-00-000Z";

/// A service without any MongoDB over two copies of a backup, `NAME` and `other`.
async fn over_two(directory: &Path) -> MongoBackupService {
    let (backups, state) = (directory.join("backups"), directory.join("state.redb"));
    std::fs::create_dir(&backups).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v2").join(NAME);
    for name in [NAME, "other"] {
        assert!(Command::new("cp").arg("-r").arg(&fixture).arg(backups.join(name)).status().unwrap().success());
    }
    let given = [("BACKUP_PATH", backups.into_os_string()), ("BACKUP_STATE", state.into_os_string())];
    let given = given.into_iter().chain([("BACKUP_SHUTDOWN_GRACE_SECONDS", "0".into())]);
    let environment = given.map(|(name, value)| (OsString::from(name), value));
    MongoBackupService::open(Config::load(directory, environment, &Flags::default()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_backup_that_does_not_answer_is_told_and_keeps_neither_questions_nor_the_end_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let service = over_two(directory.path()).await;
    let hung = directory.path().join("backups").join(NAME);
    let hang = Hang::at(&hung);
    let begun = Instant::now();
    let status = service.get_backup_status().await.unwrap();
    let state = |name: &str| status.backups.iter().find(|b| b.name == name).map(|b| (b.state, b.reason.clone()));
    assert_eq!(state("other"), Some((BackupState::Complete, None)));
    let (state, reason) = state(NAME).unwrap();
    assert_eq!(state, BackupState::Damaged);
    assert!(reason.unwrap().contains("has not answered for"));
    assert!(service.metrics().await.contains("bsonvault_backups{state=\"damaged\"} 1"));
    let of_it = [
        service.find(NAME).await.err(),
        service.delete_backup(NAME).await.err(),
        service.begin_verify(NAME, false).await.err(),
        service.download(NAME).await.err(),
        service.show(NAME, false, |_| Ok(Vec::new())).await.err(),
    ];
    for error in of_it {
        assert_eq!(error.unwrap().kind(), ErrorKind::Storage);
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    drop(hang);

    // A job that works on one when it stops to answer.
    let hang = Hang::at(&directory.path().join("backups/other/shop"));
    let job = service.begin_verify("other", false).await.unwrap();
    let mut view = service.watch(job).await.unwrap();
    view.wait_for(|view| view.job().state == JobState::Running).await.unwrap();
    let begun = Instant::now();
    service.shut_down().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(service.job(job).await.unwrap().state, JobState::Interrupted);
    drop(hang);
}
