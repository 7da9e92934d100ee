use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::state::State;
use super::*;
use crate::config::Flags;
use crate::repository::backend::hang::Hang;

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

    // A job that works on a backup when that stops responding.
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

#[tokio::test]
async fn a_scheduled_backup_that_cannot_be_begun_is_a_failed_job_that_is_told_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let (backups, path) = (directory.path().join("backups"), directory.path().join("state.redb"));
    let given = [("BACKUP_PATH", backups.into_os_string()), ("BACKUP_STATE", path.clone().into_os_string())];
    let given = given.into_iter().chain([("BACKUP_ENABLED", "true".into()), ("BACKUP_INTERVAL_HOURS", "6".into())]);
    let environment: Vec<_> = given.map(|(name, value)| (OsString::from(name), value)).collect();
    let config = || Config::load(directory.path(), environment.clone(), &Flags::default()).unwrap();
    // As stored by a service that ended hours ago. No source is configured.
    let plan = serde_json::json!({ "enabled": true, "cadence": { "hours": 6 } });
    let (anchor, next) = (clock::now() - chrono::TimeDelta::hours(7), clock::now() - chrono::TimeDelta::hours(1));
    let kept = serde_json::json!({ "plan": plan, "configured": plan, "anchor": anchor, "next": next, "last": null });
    State::open(&path).await.unwrap().keep("schedule", &kept).await.unwrap();

    let service = MongoBackupService::open(config()).await.unwrap();
    service.start_automatic_backup().await.unwrap();
    let begun = Instant::now();
    while service.schedule().not_taken.is_none() {
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing was tried");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let failed = service.jobs(10, Some(JobKind::Backup), Some(JobState::Failed)).await.unwrap();
    assert_eq!((failed.len(), failed[0].trigger), (1, Trigger::Missed));
    assert_eq!(failed[0].error.as_ref().unwrap().kind, "usage");
    let schedule = service.schedule();
    assert_eq!(schedule.last_run.unwrap().job_id, Some(failed[0].id));
    let not_taken = schedule.not_taken.unwrap();
    assert_eq!((not_taken.failed, not_taken.busy), (1, false));
    assert!(not_taken.next_try.unwrap() < clock::now() + chrono::TimeDelta::minutes(2));
    let metrics = service.metrics().await;
    for line in [
        "bsonvault_jobs_ended_total{kind=\"backup\",state=\"failed\"} 1",
        "bsonvault_last_succeeded{kind=\"backup\"} 0",
        "bsonvault_schedule_failed_attempts 1",
        "bsonvault_schedule_next_try_timestamp_seconds ",
        "bsonvault_last_failure_timestamp_seconds{kind=\"backup\"} ",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    service.shut_down().await;
    drop(service);
    let again = MongoBackupService::open(config()).await.unwrap();
    assert_eq!(again.schedule().not_taken, Some(not_taken));
    assert!(!again.readiness().ready);
}
