use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::engine::archive::ArchiveState;
use crate::engine::import::ImportReport;
use crate::engine::sync::ProvenView;
use crate::engine::timeline::TimelineGap;
use crate::error::{Error, ErrorKind};
use crate::format::manifest::{ClusterTime, ConsistencyKind};
use crate::repository::catalog::provenance::Grouped;
use crate::service::connections::{ConnectionError, ConnectionState};
use crate::service::job::{JobError, Trigger};
use crate::service::results::BackupResult;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn entry(name: &str, second: i64, state: BackupState) -> BackupEntry {
    BackupEntry {
        name: format!("atlas-backup-{name}"),
        path: format!("/secret/path/{name}"),
        created: Some(at(second)),
        size: 100,
        documents: 7,
        raw_size: 450,
        consistency: None,
        verified: true,
        complete: state == BackupState::Complete,
        state,
        of: Grouped { group: (state == BackupState::Complete).then_some(1), ..Grouped::default() },
        origin: None,
        reason: None,
    }
}

fn connection(connected: bool) -> ConnectionState {
    ConnectionState {
        configured: true,
        connected,
        host: Some("secret-host:27017".into()),
        latency_ms: connected.then_some(12.5),
        version: None,
        topology: None,
        can_snapshot: false,
        can_read_oplog: false,
        checked: at(-10),
        error: (!connected).then(|| ConnectionError { kind: "denied".into(), message: "secret-user".into(), hint: None }),
    }
}

fn seen() -> Seen {
    let backups = vec![
        entry("d", 0, BackupState::Running),
        entry("c", -5, BackupState::Incomplete),
        entry("b", -60, BackupState::Complete),
        entry("a", -90, BackupState::Complete),
    ];
    Seen {
        now: at(0),
        backups: Some(Arc::new(backups)),
        own: Some(1),
        free_bytes: Some(1 << 40),
        jobs: vec![(JobKind::Backup, JobState::Running, 1), (JobKind::Import, JobState::Queued, 2)],
        accepting: true,
        state_file_replaced: false,
        schedule_enabled: true,
        next_run: Some(at(3600)),
        not_taken: None,
        connections: Some(DualState { atlas: connection(true), local: connection(false) }),
        archive: archive(),
        sync: SyncView::default(),
    }
}

fn following() -> SyncView {
    SyncView {
        enabled: true,
        state: SyncState::Following,
        running: true,
        target: Some("mongodb://secret-host/".into()),
        selection: "secret-database".into(),
        at: Some(ClusterTime { t: 1_799_999_980, i: 1 }.into()),
        lag_seconds: Some(70),
        moment: Some(true),
        delay_seconds: 60,
        debts: Some(2),
        proven: Some(ProvenView { ended: at(-1_000), same: false, differences: 4 }),
        operations: 5,
        batches: 3,
        ddl: 1,
        batch_time: Duration::from_millis(1500),
        archive: (Some(0.5), Some(2)),
        ..SyncView::default()
    }
}

fn archive() -> ArchiveView {
    ArchiveView {
        enabled: true,
        state: ArchiveState::Following,
        problem: None,
        hint: None,
        replica_set_id: Some("secret-set".into()),
        path: Some("/secret/path/oplog".into()),
        started: Some(at(-900)),
        position: Some(ClusterTime { t: 1_799_999_990, i: 3 }.into()),
        source_time: None,
        lag_seconds: Some(12),
        headroom: Some(0.75),
        links: 1,
        stored_bytes: 4_000,
        gaps: Vec::new(),
        base: None,
    }
}

/// A backup job of two minutes whose import failed.
fn job() -> Job {
    let mut job = Job::new(JobKind::Backup, Trigger::Schedule, at(-300));
    (job.state, job.started, job.finished) = (JobState::Failed, Some(at(-200)), Some(at(-80)));
    job.backup = Some("atlas-backup-b".into());
    job.result.backup = Some(BackupResult {
        name: "atlas-backup-b".into(),
        path: "/secret/path/b".into(),
        collections: 2,
        documents: 7,
        raw_bytes: 450,
        stored_bytes: 100,
        consistency: ConsistencyKind::Snapshot,
    });
    job.error = Some(JobError::of(JobKind::Import, &Error::new(ErrorKind::Denied, "secret-user may not")));
    job
}

/// Checks the form of the text, and returns all samples by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").expect("ends with EOF");
    let (mut families, mut found) = (BTreeMap::new(), BTreeMap::new());
    let (mut helped, mut family) = (BTreeSet::new(), String::new());
    for line in body.lines() {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        match (word().as_str(), word().as_str(), word(), word()) {
            ("#", "HELP", name, help) => {
                assert!(help.len() > 8 && helped.insert(name.clone()), "{line}");
                family = name;
            }
            ("#", "TYPE", name, kind) => {
                assert_eq!(name, family, "{line}");
                assert!(families.insert(name, kind).is_none(), "{line}");
            }
            ("#", "UNIT", name, unit) => assert!(name == family && name.ends_with(&format!("_{unit}")), "{line}"),
            _ => {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                let name = sample.split('{').next().unwrap();
                assert!(name.starts_with(&family) && name.starts_with("bsonvault_"), "{line} of {family}");
                let endings: &[&str] = match families[&family].as_str() {
                    "counter" => &["_total"],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    "info" => &["_info"],
                    "gauge" => &[""],
                    other => panic!("{other}"),
                };
                assert!(endings.contains(&&name[family.len()..]), "{line}");
                let value: f64 = value.parse().unwrap();
                assert!(value.is_finite(), "{line}");
                assert!(found.insert(sample.to_owned(), value).is_none(), "twice: {line}");
            }
        }
    }
    assert_eq!(helped, families.into_keys().collect());
    found
}

#[test]
fn what_an_operator_alerts_on_is_there() {
    let metrics = Metrics::new(at(-1000));
    metrics.ended(&job());
    let text = metrics.render(&seen());
    let found = samples(&text);
    let value = |sample: &str| *found.get(&format!("bsonvault_{sample}")).unwrap_or_else(|| panic!("no {sample} in\n{text}"));
    assert_eq!(value("newest_backup_age_seconds"), 60.0);
    assert_eq!(value("newest_backup_timestamp_seconds"), 1_799_999_940.0);
    assert_eq!((value("newest_backup_compression_ratio"), value("newest_backup_verified")), (4.5, 1.0));
    assert_eq!((value("backups{state=\"complete\"}"), value("backups{state=\"damaged\"}")), (2.0, 0.0));
    assert_eq!((value("backups_stored_bytes"), value("catalog_readable")), (200.0, 1.0));
    assert_eq!((value("last_succeeded{kind=\"backup\"}"), value("last_succeeded{kind=\"import\"}")), (1.0, 0.0));
    assert_eq!(value("last_success_timestamp_seconds{kind=\"backup\"}"), 1_799_999_920.0);
    assert_eq!(value("last_failure_timestamp_seconds{kind=\"import\"}"), 1_799_999_920.0);
    assert!(!found.contains_key("bsonvault_last_succeeded{kind=\"verify\"}"), "there was none");
    assert_eq!(value("jobs_ended_total{kind=\"backup\",state=\"failed\"}"), 1.0);
    assert_eq!(value("jobs_ended_total{kind=\"verify\",state=\"interrupted\"}"), 0.0, "there before the first");
    assert_eq!(value("job_duration_seconds_bucket{le=\"60.0\",kind=\"backup\"}"), 0.0);
    assert_eq!(value("job_duration_seconds_bucket{le=\"300.0\",kind=\"backup\"}"), 1.0);
    assert_eq!(value("job_duration_seconds_sum{kind=\"backup\"}"), 120.0);
    assert_eq!((value("backup_documents_total"), value("backup_raw_bytes_total")), (7.0, 450.0));
    assert_eq!((value("backup_stored_bytes_total"), value("import_documents_total")), (100.0, 0.0));
    assert_eq!((value("jobs{kind=\"backup\",state=\"running\"}"), value("jobs{kind=\"import\",state=\"queued\"}")), (1.0, 2.0));
    assert_eq!(value("schedule_next_run_timestamp_seconds"), 1_800_003_600.0);
    assert_eq!(value("backup_path_free_bytes"), 1024.0_f64.powi(4));
    assert_eq!((value("connection_up{deployment=\"source\"}"), value("connection_up{deployment=\"target\"}")), (1.0, 0.0));
    assert_eq!(value("connection_latency_seconds{deployment=\"source\"}"), 0.0125);
    assert!(!found.contains_key("bsonvault_connection_latency_seconds{deployment=\"target\"}"));
    assert_eq!(value("process_start_time_seconds"), 1_799_999_000.0);
    assert_eq!(value(&format!("build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1.0);
    assert!(!text.contains("secret") && !text.contains("atlas-backup"), "{text}");
}

#[test]
fn what_is_not_known_is_not_there_and_never_not_a_number() {
    let nothing = Seen {
        backups: None,
        free_bytes: None,
        jobs: Vec::new(),
        accepting: false,
        schedule_enabled: false,
        next_run: None,
        not_taken: None,
        connections: None,
        ..seen()
    };
    let found = samples(&Metrics::new(at(0)).render(&nothing));
    assert_eq!((found["bsonvault_catalog_readable"], found["bsonvault_accepting_jobs"]), (0.0, 0.0));
    let absent = ["backups", "newest_", "connection_", "schedule_next", "last_", "backup_path_"];
    for name in found.keys() {
        assert!(!absent.iter().any(|start| name.starts_with(&format!("bsonvault_{start}"))), "{name}");
    }
    // Readable, but without a complete backup: counted, without an age.
    let empty = entry("e", 0, BackupState::Complete);
    let none = Seen { backups: Some(Arc::default()), ..seen() };
    let found = samples(&Metrics::new(at(0)).render(&none));
    assert_eq!((found["bsonvault_catalog_readable"], found["bsonvault_backups{state=\"complete\"}"]), (1.0, 0.0));
    assert!(!found.keys().any(|name| name.contains("newest")));
    // An empty backup has no ratio, and a clock that was set back gives no negative age.
    let of_nothing = BackupEntry { size: 0, raw_size: 0, created: Some(at(60)), ..empty };
    let found = samples(&Metrics::new(at(0)).render(&Seen { backups: Some(Arc::new(vec![of_nothing])), ..seen() }));
    assert!(!found.contains_key("bsonvault_newest_backup_compression_ratio"));
    assert_eq!(found["bsonvault_newest_backup_age_seconds"], 0.0);
}

#[test]
fn a_backup_of_another_source_or_of_a_part_does_not_make_the_newest_younger() {
    let other = BackupEntry { of: Grouped { group: Some(2), ..Grouped::default() }, ..entry("x", -1, BackupState::Complete) };
    let backups = vec![other.clone(), entry("a", -90, BackupState::Complete)];
    let found = samples(&Metrics::new(at(0)).render(&Seen { backups: Some(Arc::new(backups)), ..seen() }));
    assert_eq!(found["bsonvault_newest_backup_age_seconds"], 90.0);
    assert_eq!(found["bsonvault_backups{state=\"complete\"}"], 2.0, "it is counted all the same");
    for own in [Some(1), None] {
        let found = samples(&Metrics::new(at(0)).render(&Seen { backups: Some(Arc::new(vec![other.clone()])), own, ..seen() }));
        assert!(!found.keys().any(|name| name.contains("newest")), "{own:?}");
    }
}

#[test]
fn an_end_in_another_life_of_the_service_is_a_last_result_and_no_count() {
    let metrics = Metrics::new(at(0));
    metrics.kept(&job());
    let mut interrupted = Job::new(JobKind::Import, Trigger::Manual, at(-60));
    (interrupted.state, interrupted.started, interrupted.finished) = (JobState::Interrupted, Some(at(-50)), Some(at(0)));
    interrupted.error = Some(JobError::of(JobKind::Import, &Error::interrupted()));
    metrics.ended(&interrupted);
    let found = samples(&metrics.render(&seen()));
    assert_eq!(found["bsonvault_last_succeeded{kind=\"backup\"}"], 1.0);
    assert_eq!(found["bsonvault_backup_documents_total"], 0.0);
    assert_eq!(found["bsonvault_last_succeeded{kind=\"import\"}"], 0.0);
    assert_eq!(found["bsonvault_jobs_ended_total{kind=\"import\",state=\"interrupted\"}"], 1.0);
    assert_eq!(found["bsonvault_job_duration_seconds_count{kind=\"import\"}"], 0.0, "how long is not known");
}

#[test]
fn an_import_that_succeeded_is_counted() {
    let metrics = Metrics::new(at(-1000));
    let mut import = Job::new(JobKind::Import, Trigger::Manual, at(-60));
    (import.state, import.started, import.finished) = (JobState::Succeeded, Some(at(-50)), Some(at(-48)));
    import.result.import = Some(ImportReport { documents: 5, bytes: 500, indexes: 1, ..ImportReport::default() });
    metrics.ended(&import);
    let found = samples(&metrics.render(&seen()));
    assert_eq!((found["bsonvault_import_documents_total"], found["bsonvault_import_bytes_total"]), (5.0, 500.0));
    assert_eq!(found["bsonvault_job_duration_seconds_bucket{le=\"5.0\",kind=\"import\"}"], 1.0);
}

#[test]
fn a_backup_that_a_wrong_clock_dated_ahead_is_told_and_is_not_the_newest() {
    let ahead = entry("x", 40 * 86_400, BackupState::Complete);
    let render =
        |backups: Vec<BackupEntry>| samples(&Metrics::new(at(0)).render(&Seen { backups: Some(Arc::new(backups)), ..seen() }));
    let found = render(vec![ahead.clone(), entry("a", -90, BackupState::Complete)]);
    assert_eq!((found["bsonvault_newest_backup_age_seconds"], found["bsonvault_backups_dated_ahead"]), (90.0, 1.0));
    assert!(!render(vec![ahead]).keys().any(|name| name.contains("newest")));
}

#[test]
fn a_scheduled_backup_that_was_not_taken_is_told() {
    let not_taken = Some(NotTaken { failed: 2, next_try: Some(at(120)), busy: false });
    let found = samples(&Metrics::new(at(0)).render(&Seen { not_taken, ..seen() }));
    assert_eq!(found["bsonvault_schedule_failed_attempts"], 2.0);
    assert_eq!(found["bsonvault_schedule_next_try_timestamp_seconds"], 1_800_000_120.0);
    let found = samples(&Metrics::new(at(0)).render(&Seen { not_taken: None, ..seen() }));
    assert_eq!(found["bsonvault_schedule_failed_attempts"], 0.0);
}

#[test]
fn the_archive_is_told_and_what_is_not_known_of_it_is_absent() {
    let render = |archive: ArchiveView| samples(&Metrics::new(at(0)).render(&Seen { archive, ..seen() }));
    let gap = TimelineGap {
        from: ClusterTime { t: 1_799_999_000, i: 1 }.into(),
        to: ClusterTime { t: 1_799_999_100, i: 1 }.into(),
        reason: "secret-reason".into(),
        found: at(-10),
        replica_set_id: "secret-set".into(),
    };
    let found = render(ArchiveView { gaps: vec![gap.clone()], ..archive() });
    assert_eq!((found["bsonvault_archive_enabled"], found["bsonvault_archive_running"]), (1.0, 1.0));
    assert_eq!((found["bsonvault_archive_lag_seconds"], found["bsonvault_archive_headroom_ratio"]), (12.0, 0.75));
    assert_eq!(found["bsonvault_archive_position_seconds"], 1_799_999_990.0);
    assert_eq!((found["bsonvault_archive_gaps"], found["bsonvault_archive_stored_bytes"]), (1.0, 4_000.0));

    // A stopped one still has its gaps and its position.
    let stopped = ArchiveView { state: ArchiveState::Stopped, lag_seconds: None, headroom: None, gaps: vec![gap], ..archive() };
    let found = render(stopped);
    assert_eq!((found["bsonvault_archive_running"], found["bsonvault_archive_gaps"]), (0.0, 1.0));
    assert_eq!(found["bsonvault_archive_position_seconds"], 1_799_999_990.0);
    assert!(!found.contains_key("bsonvault_archive_lag_seconds") && !found.contains_key("bsonvault_archive_headroom_ratio"));

    // Of one that never ran, even the number of gaps is not known.
    let never = ArchiveView { enabled: false, state: ArchiveState::Stopped, started: None, position: None, ..archive() };
    let found = render(ArchiveView { lag_seconds: None, headroom: None, ..never });
    let names: Vec<&String> = found.keys().filter(|name| name.contains("archive_")).collect();
    assert_eq!(names, ["bsonvault_archive_enabled", "bsonvault_archive_running"]);
    assert_eq!((found["bsonvault_archive_enabled"], found["bsonvault_archive_running"]), (0.0, 0.0));
}

#[test]
fn the_sync_is_told_and_what_is_not_known_of_it_is_absent() {
    let text = |sync: SyncView, archive: ArchiveView| Metrics::new(at(0)).render(&Seen { sync, archive, ..seen() });
    let stopped = || ArchiveView { state: ArchiveState::Stopped, lag_seconds: None, headroom: None, ..archive() };
    let page = text(following(), stopped());
    assert!(!page.contains("secret"), "{page}");
    let found = samples(&page);
    let value = |name: &str| found[&format!("bsonvault_sync_{name}")];
    assert_eq!(["enabled", "running", "held", "moment"].map(value), [1.0, 1.0, 0.0, 1.0]);
    assert_eq!(["lag_seconds", "delay_seconds", "position_seconds"].map(value), [70.0, 60.0, 1_799_999_980.0]);
    assert_eq!(value("debts"), 2.0);
    assert_eq!(["proven_seconds", "proven_same", "differences"].map(value), [1_799_999_000.0, 0.0, 4.0]);
    assert_eq!(["operations_total", "batches_total", "ddl_total", "batch_seconds_total"].map(value), [5.0, 3.0, 1.0, 1.5]);
    // It archives by itself.
    assert_eq!((found["bsonvault_archive_headroom_ratio"], found["bsonvault_archive_lag_seconds"]), (0.5, 2.0));
    assert_eq!(found["bsonvault_archive_running"], 0.0);
    let found = samples(&text(following(), archive()));
    assert_eq!((found["bsonvault_archive_headroom_ratio"], found["bsonvault_archive_lag_seconds"]), (0.75, 12.0));

    for (state, held, running) in [
        (SyncState::Copying, 0.0, 1.0),
        (SyncState::Paused, 0.0, 0.0),
        (SyncState::Held, 1.0, 0.0),
        (SyncState::Waiting, 0.0, 0.0),
    ] {
        let found = samples(&text(SyncView { state, ..following() }, archive()));
        assert_eq!((found["bsonvault_sync_held"], found["bsonvault_sync_running"]), (held, running), "{state:?}");
    }
    let found = samples(&text(SyncView::default(), archive()));
    assert!(
        !["lag_seconds", "moment", "position_seconds"].iter().any(|name| found.contains_key(&format!("bsonvault_sync_{name}")))
    );
    assert_eq!((found["bsonvault_sync_enabled"], found["bsonvault_sync_operations_total"]), (0.0, 0.0));
}
