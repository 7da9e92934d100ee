use super::*;
use crate::clock;
use crate::config::Flags;
use crate::engine::sync::SyncView as TargetView;
use crate::format::manifest::ClusterTime;
use crate::service::endless::Ended;

fn time(t: u32) -> ClusterTime {
    ClusterTime { t, i: 1 }
}

/// At 90 of 100.
fn following() -> SyncStatus {
    SyncStatus {
        state: SyncState::Following,
        at: Some(time(90)),
        archived: Some(time(100)),
        moment: true,
        operations: 7,
        batches: 2,
        ddl: 1,
        written: Some(clock::now()),
        source: Some(("id".into(), "atlas".into())),
        batch_time: Duration::from_millis(30),
        debts: 3,
        debt_problem: Some("[[include]] is in the way".into()),
        headroom: Some(0.5),
        archive_lag_seconds: Some(1),
        ..SyncStatus::default()
    }
}

fn in_state(state: SyncState, problem: &str) -> SyncStatus {
    SyncStatus { state, problem: Some(problem.to_owned()), ..following() }
}

fn asked() -> Asked {
    let directory = tempfile::tempdir().unwrap();
    let environment = [("SYNC_ENABLED", "true"), ("SYNC_DELAY", "2m"), ("SYNC_INCLUDE", "shop.*")];
    let environment = environment.map(|(name, value)| (name.into(), value.into()));
    Asked::from(&Config::load(directory.path(), environment, &Flags::default()).unwrap())
}

fn target(state: &str, process: Option<&str>) -> TargetView {
    TargetView {
        target: "mongodb://copy:1/".into(),
        replica_set_id: "other-id".into(),
        replica_set: "other".into(),
        selection: "everything".into(),
        state: state.into(),
        reason: (state == "held").then(|| "an unknown entry; use [[mode]] replace".into()),
        at: Some(time(70).into()),
        running: process.is_some(),
        process: process.map(str::to_owned),
        lag_seconds: process.map(|_| 3),
        moment: true,
        proven: None,
        debts: process.map(|_| 4),
    }
}

#[test]
fn each_change_of_the_state_is_told_once() {
    let mut hearing = Hearing::default();
    hearing.begin();
    let waits = || in_state(SyncState::Waiting, "away");
    for (status, event) in [
        (SyncStatus::default(), None),
        (in_state(SyncState::Copying, ""), Some(Event::Copies)),
        (following(), Some(Event::Follows)),
        (SyncStatus { moment: false, ..following() }, None),
        (waits(), Some(Event::Waits("away".into()))),
        (waits(), None),
        (following(), Some(Event::Follows)),
        (in_state(SyncState::Paused, ""), Some(Event::Paused)),
        (in_state(SyncState::Held, "unknown"), Some(Event::Held)),
        (in_state(SyncState::Held, "unknown"), None),
    ] {
        assert_eq!(hearing.hear(&status), event, "{status:?}");
    }
    hearing.begin();
    assert_eq!(hearing.hear(&in_state(SyncState::Held, "unknown")), Some(Event::Held), "another run is held anew");
}

#[test]
fn the_state_names_the_reason_and_keeps_what_was_known() {
    let (asked, mut known) = (asked(), Known::default());
    let view = known.view(&asked);
    assert_eq!((view.state, view.enabled, view.running), (SyncState::Stopped, true, false));
    assert_eq!((view.delay_seconds, &*view.selection, view.moment), (120, "include shop.*", None));
    known.life.runs = true;
    known.status.state = SyncState::Starting;
    assert_eq!((known.view(&asked).state, known.view(&asked).running), (SyncState::Starting, true));
    known.run();
    known.take(&following());
    let view = known.view(&asked);
    assert_eq!((view.state, view.lag_seconds, view.moment, view.works()), (SyncState::Following, Some(10), Some(true), true));
    assert_eq!((view.replica_set.as_deref(), view.archive), (Some("atlas"), (Some(0.5), Some(1))));
    assert_eq!((view.debts, view.debt_problem.as_deref()), (Some(3), Some("include is in the way")));

    // It fails, and starts again: it waits, with the reason, and what it did stays.
    known.life.ended = Some(Ended::from(&Error::new(ErrorKind::Unreachable, "no answer").hint("look at it")));
    known.run();
    known.take(&SyncStatus::default());
    let view = known.view(&asked);
    assert_eq!(
        (view.state, view.problem.as_deref(), view.hint.as_deref()),
        (SyncState::Waiting, Some("no answer"), Some("look at it"))
    );
    assert_eq!((view.lag_seconds, view.at.map(|at| at.position), view.operations), (None, Some("90:1".into()), 7));
    known.take(&SyncStatus { operations: 3, batches: 1, ..following() });
    let view = known.view(&asked);
    assert_eq!((view.state, view.problem), (SyncState::Following, None));
    assert_eq!((view.operations, view.batches, view.ddl, view.batch_time), (10, 3, 2, Duration::from_millis(60)));

    // Held: no flag is named.
    known.take(&in_state(SyncState::Held, "unknown; use [[mode]] replace"));
    let view = known.view(&asked);
    assert_eq!(
        (view.state, view.problem.as_deref(), view.lag_seconds),
        (SyncState::Held, Some("unknown; use mode replace"), None)
    );
    assert!(view.running && !view.works());

    // Stopped on request: no reason. Gave up: the reason.
    (known.life.runs, known.life.ended) = (false, None);
    assert_eq!((known.view(&asked).state, known.view(&asked).problem), (SyncState::Stopped, None));
    known.life.ended = Some(Ended::from(&Error::new(ErrorKind::Refused, "another source")));
    assert_eq!((known.view(&asked).state, known.view(&asked).problem.as_deref()), (SyncState::Stopped, Some("another source")));
}

#[test]
fn what_the_target_says_counts_if_this_service_does_not_follow() {
    let (asked, mut known) = (asked(), Known::default());
    for (said, state) in [
        (target("following", None), SyncState::Stopped),
        (target("copying", None), SyncState::Stopped),
        (target("paused", None), SyncState::Paused),
        (target("held", None), SyncState::Held),
        (target("final", None), SyncState::Final),
        (target("following", Some("1 on host")), SyncState::Following),
        (target("copying", Some("1 on host")), SyncState::Copying),
        (target("paused", Some("1 on host")), SyncState::Paused),
    ] {
        let view = known.view(&asked).with(said.clone());
        assert_eq!((view.state, view.running, view.process.clone()), (state, said.running, said.process), "{view:?}");
        assert_eq!((&view.at, view.lag_seconds, &*view.selection), (&said.at, said.lag_seconds, "everything"));
        assert_eq!(view.debts, said.debts);
        assert_eq!(view.problem.is_some(), said.reason.is_some());
        assert!(!view.works() && !view.problem.unwrap_or_default().contains("[["));
    }
    // One that is in the way is the reason to wait, and it follows.
    known.life = Life { runs: true, ended: Some(Ended::from(&Error::new(ErrorKind::Busy, "process 1 on host"))) };
    assert!(known.is_idle());
    let view = known.view(&asked).with(target("following", Some("1 on host")));
    assert_eq!((view.state, view.problem.as_deref()), (SyncState::Following, Some("process 1 on host")));

    // A pause that this service does not know yet, and one that has ended.
    known.life = Life { runs: true, ended: None };
    known.take(&following());
    let view = known.view(&asked).with(target("paused", Some("2 on here")));
    assert_eq!((view.state, view.process, view.at.map(|at| at.position)), (SyncState::Paused, None, Some("90:1".into())));
    known.take(&in_state(SyncState::Paused, ""));
    assert_eq!(known.view(&asked).with(target("following", Some("2 on here"))).state, SyncState::Following);
}

#[test]
fn hints_name_the_settings_of_the_service() {
    let error = Error::new(ErrorKind::Refused, "[[rename]] \"a\": no").hint("see [[rename]], [[exclude]] or [[mode]]");
    let error = in_settings(error);
    assert_eq!(
        (error.to_string().as_str(), error.hint_text()),
        ("SYNC_RENAME \"a\": no", Some("see SYNC_RENAME, SYNC_EXCLUDE or [[mode]]"))
    );
    assert_eq!(in_settings(Error::usage("x")).hint_text(), None);
}

/// A sync between deployments that are not there.
async fn of(directory: &std::path::Path, environment: &[(&str, &str)]) -> Syncing {
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    let config = Config::load(directory, environment, &Flags::default()).unwrap();
    let repository = Repository::open_apart(directory.to_str().unwrap()).await.unwrap();
    let notices = Arc::new(Notices::new(None, Handle::current()).unwrap());
    let parts = || (config.clone(), repository.clone(), Context::default());
    let archive = Arc::new(Archiving::new(parts(), notices.clone(), Handle::current()));
    Syncing::new(parts(), archive, notices, Handle::current())
}

#[tokio::test]
async fn it_starts_again_after_what_passes_and_both_calls_may_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=50";
    let syncing = of(directory.path(), &[("MONGO_URI_ATLAS", nobody), ("MONGO_URI_LOCAL", nobody)]).await;
    let mut watched = syncing.watch();
    syncing.stop().await.unwrap();
    for _ in 0..2 {
        syncing.start(None).await.unwrap();
        let waiting = watched.wait_for(|view| view.state == SyncState::Waiting);
        let waiting = tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap().clone();
        assert!(waiting.problem.is_some() && waiting.running, "{waiting:?}");
    }
    for _ in 0..2 {
        syncing.stop().await.unwrap();
        assert_eq!((syncing.view().state, syncing.view().problem), (SyncState::Stopped, None));
    }
    syncing.start(Some(ImportMode::Replace)).await.unwrap();
    syncing.shut_down(Duration::ZERO).await;
    assert_eq!(syncing.view().state, SyncState::Stopped);
    assert_eq!(syncing.start(None).await.unwrap_err().kind(), ErrorKind::Closing);
}

#[tokio::test]
async fn what_is_not_configured_is_kept_as_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let syncing = of(directory.path(), &[("MONGO_URI_ATLAS", "mongodb://127.0.0.1:1/")]).await;
    assert_eq!(syncing.start(None).await.unwrap_err().kind(), ErrorKind::NotConfigured);
    let view = syncing.look(true).await;
    assert_eq!((view.state, view.problem.as_deref()), (SyncState::Stopped, Some("Local MongoDB URI not configured")));
    for refused in [syncing.pause().await, syncing.resume().await, syncing.finalize().await] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotConfigured);
    }
}
