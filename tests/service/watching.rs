//! Monitoring of the service with real servers: readiness and metrics.

use std::path::Path;
use std::time::{Duration, Instant};

use bsonvault::config::{Config, Flags};
use bsonvault::error::ErrorKind;
use bsonvault::service::{JobState, MongoBackupService, Readiness};

use crate::support::data::{insert, numbered};
use crate::support::server::Server;

fn config(directory: &Path, source: &str, target: &str) -> Config {
    let set = [
        ("MONGO_URI_ATLAS", source.to_owned()),
        ("MONGO_URI_LOCAL", target.to_owned()),
        ("BACKUP_PATH", directory.join("backups").display().to_string()),
        ("BACKUP_STATE", directory.join("state.redb").display().to_string()),
    ];
    Config::load(directory, set.into_iter().map(|(name, value)| (name.into(), value.into())), &Flags::default()).unwrap()
}

/// The value of a sample, if it exists.
fn value(metrics: &str, sample: &str) -> Option<f64> {
    assert!(metrics.ends_with("# EOF\n") && !metrics.contains("NaN"), "{metrics}");
    let start = format!("bsonvault_{sample} ");
    metrics.lines().find_map(|line| line.strip_prefix(&start)).map(|value| value.parse().unwrap())
}

async fn until(service: &MongoBackupService, what: &str, wanted: impl Fn(&Readiness) -> bool) -> Readiness {
    let began = Instant::now();
    loop {
        let readiness = service.readiness();
        if wanted(&readiness) {
            return readiness;
        }
        assert!(began.elapsed() < Duration::from_secs(75), "never {what}: {readiness:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_and_its_source_are_seen_and_still_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut source = Server::replica_set("watched").await;
    insert(&source.client().await.database("shop"), "orders", numbered(500)).await;
    // It gives up soon on a source that is gone.
    let uri = format!("{}&serverSelectionTimeoutMS=1000", source.uri());
    let config = config(directory.path(), &uri, "");
    let service = MongoBackupService::open(config.clone()).await.unwrap();

    // 1. Unknown values are absent.
    assert_eq!(service.readiness().reason.as_deref(), Some("not known yet"));
    let metrics = service.metrics().await;
    assert_eq!(value(&metrics, "catalog_readable"), Some(1.0));
    assert_eq!(value(&metrics, "backups{state=\"complete\"}"), Some(0.0));
    assert!(!metrics.contains("newest_backup") && !metrics.contains("connection_up"), "{metrics}");

    // 2. The source is probed without a request.
    service.start_automatic_backup().await.unwrap();
    let readiness = until(&service, "ready", |readiness| readiness.ready).await;
    assert!(readiness.accepting && readiness.atlas == Some(true) && readiness.local == Some(false));

    // 3. A backup.
    let job = service.create_backup().await.unwrap();
    assert_eq!(job.state, JobState::Succeeded, "{job:?}");
    let metrics = service.metrics().await;
    assert_eq!(value(&metrics, "backups{state=\"complete\"}"), Some(1.0));
    assert!((0.0..60.0).contains(&value(&metrics, "newest_backup_age_seconds").unwrap()), "{metrics}");
    assert!(value(&metrics, "newest_backup_compression_ratio").unwrap() > 2.0, "{metrics}");
    assert_eq!(value(&metrics, "backup_documents_total"), Some(500.0));
    assert_eq!(value(&metrics, "jobs_ended_total{kind=\"backup\",state=\"succeeded\"}"), Some(1.0));
    assert_eq!(value(&metrics, "job_duration_seconds_count{kind=\"backup\"}"), Some(1.0));
    assert_eq!(value(&metrics, "last_succeeded{kind=\"backup\"}"), Some(1.0));
    assert_eq!(value(&metrics, "connection_up{deployment=\"source\"}"), Some(1.0));
    assert!(
        value(&metrics, "schedule_next_run_timestamp_seconds").is_some() && value(&metrics, "backup_path_free_bytes").is_some()
    );
    for private in
        ["127.0.0.1", &format!(":{}", source.port()), "shop", "orders", "atlas-backup", directory.path().to_str().unwrap()]
    {
        assert!(!metrics.contains(private), "{private} in\n{metrics}");
    }

    // 4. After a restart, the backup is known, but the counters are not.
    service.shut_down().await;
    assert_eq!(service.readiness().reason.as_deref(), Some("the service is shutting down"));
    drop(service);
    let service = MongoBackupService::open(config).await.unwrap();
    let metrics = service.metrics().await;
    assert_eq!(value(&metrics, "last_succeeded{kind=\"backup\"}"), Some(1.0));
    assert_eq!(value(&metrics, "backups{state=\"complete\"}"), Some(1.0));
    assert_eq!(value(&metrics, "jobs_ended_total{kind=\"backup\",state=\"succeeded\"}"), Some(0.0));

    // 5. Without its source, it is not ready, and a failed backup is visible.
    source.kill();
    let state = service.test_connections().await;
    assert!(!state.atlas.connected);
    let readiness = service.readiness();
    assert_eq!(readiness.reason.as_deref(), Some("the source does not answer"));
    assert_eq!(readiness.atlas, Some(false));
    let job = service.create_backup().await.unwrap();
    assert_eq!(job.state, JobState::Failed);
    let metrics = service.metrics().await;
    assert_eq!(value(&metrics, "last_succeeded{kind=\"backup\"}"), Some(0.0));
    assert_eq!(value(&metrics, "connection_up{deployment=\"source\"}"), Some(0.0));
    assert_eq!(value(&metrics, "backups{state=\"complete\"}"), Some(1.0), "an older one is there still");

    // 6. If the path cannot be read, or is an empty one because a mount is gone, that is reported,
    // and no backup goes there.
    let (path, away) = (directory.path().join("backups"), directory.path().join("away"));
    std::fs::rename(&path, &away).unwrap();
    let gone = async |what: &str| {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let metrics = service.metrics().await;
        assert_eq!(
            (value(&metrics, "catalog_readable"), value(&metrics, "newest_backup_age_seconds")),
            (Some(0.0), None),
            "{what}"
        );
        let error = service.create_backup().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Storage && error.to_string().contains(what), "{error:?}");
    };
    gone("does not exist any more").await;
    std::fs::create_dir(&path).unwrap();
    gone("repository.json is gone").await;
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0, "something was written to the place below the mount");
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "a file").unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let metrics = service.metrics().await;
    assert_eq!((value(&metrics, "catalog_readable"), value(&metrics, "newest_backup_age_seconds")), (Some(0.0), None));
    assert_eq!(value(&metrics, "last_succeeded{kind=\"backup\"}"), Some(0.0));
    service.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_source_the_target_counts() {
    let directory = tempfile::tempdir().unwrap();
    let target = Server::standalone().await;
    let service = MongoBackupService::open(config(directory.path(), "", &target.uri())).await.unwrap();
    service.start_automatic_backup().await.unwrap();
    let readiness = until(&service, "ready", |readiness| readiness.ready).await;
    assert!(readiness.atlas == Some(false) && readiness.local == Some(true));
    service.close();
    assert!(!service.readiness().ready && !service.readiness().accepting);
    service.shut_down().await;
}
