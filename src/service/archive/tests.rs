use super::view::gap as told;
use super::*;
use crate::clock;
use crate::config::Flags;
use crate::error::{Error, ErrorKind};
use crate::format::chain::Gap;
use crate::format::manifest::ClusterTime;
use crate::service::endless::Ended;

fn time(t: u32) -> ClusterTime {
    ClusterTime { t, i: 1 }
}

fn gap(from: u32) -> Gap {
    Gap { from: time(from), to: time(from + 5), reason: "the oplog rolled over".into(), found: clock::now() }
}

/// Follows at 100, with this part of the source's oplog behind it.
fn following(headroom: u32) -> ArchiveStatus {
    ArchiveStatus {
        state: ArchiveState::Following,
        path: "oplog/set".into(),
        replica_set_id: "set".into(),
        started: Some(clock::now()),
        position: Some(time(headroom)),
        source_time: Some((time(100), clock::now())),
        oldest: Some(time(0)),
        ..ArchiveStatus::default()
    }
}

#[test]
fn each_gap_is_told_once_even_if_states_are_skipped() {
    let mut hearing = Hearing::default();
    hearing.begin();
    let gaps = |events: Vec<Event>| events.into_iter().filter(|event| matches!(event, Event::Gap(_))).collect::<Vec<_>>();
    // An old one was found in the archive, and a new one right afterwards.
    let mut status = ArchiveStatus { gaps: vec![gap(10), gap(20)], new_gaps: 1, ..following(90) };
    assert_eq!(gaps(hearing.hear(&status)), [Event::Gap(told(&status.gaps[1], "set"))]);
    assert_eq!(gaps(hearing.hear(&status)), []);
    (status.gaps, status.new_gaps) = ([status.gaps, vec![gap(30), gap(40)]].concat(), 3);
    let new = [2, 3].map(|n: usize| Event::Gap(told(&status.gaps[n], "set")));
    assert_eq!(gaps(hearing.hear(&status)), new);
    // The next run finds all of them in the archive.
    hearing.begin();
    status.new_gaps = 0;
    assert_eq!(gaps(hearing.hear(&status)), []);
    (status.gaps, status.new_gaps) = ([status.gaps, vec![gap(50)]].concat(), 1);
    assert_eq!(gaps(hearing.hear(&status)).len(), 1);
}

#[test]
fn little_headroom_is_told_once_for_each_time_that_it_becomes_little() {
    let mut hearing = Hearing::default();
    let mut little =
        |headroom: u32| hearing.hear(&following(headroom)).into_iter().any(|event| matches!(event, Event::Little(_)));
    assert_eq!([90, 24, 23, 5, 25, 24, 90].map(&mut little), [false, true, false, false, false, true, false]);
    hearing.begin();
    hearing.hear(&following(24));
    hearing.begin();
    assert!(!hearing.hear(&following(23)).iter().any(|event| matches!(event, Event::Little(_))), "told for each run");
}

#[test]
fn that_it_waits_and_follows_again_is_told_when_it_changes() {
    let mut hearing = Hearing::default();
    let waiting = ArchiveStatus { state: ArchiveState::Waiting, problem: Some("away".into()), ..following(90) };
    let follows = Event::Follows("oplog/set".into());
    for (status, events) in [
        (ArchiveStatus::default(), vec![]),
        (following(90), vec![follows]),
        (following(90), vec![]),
        (waiting.clone(), vec![Event::Waits("away".into())]),
        (waiting, vec![]),
        (following(90), vec![Event::Follows("oplog/set".into())]),
    ] {
        assert_eq!(hearing.hear(&status), events);
    }
}

#[test]
fn the_state_names_the_reason_and_keeps_what_was_known() {
    let mut known = Known::default();
    assert_eq!(known.view(true).state, ArchiveState::Stopped);
    known.life.runs = true;
    known.status.state = ArchiveState::Starting;
    assert_eq!((known.view(true).state, known.view(true).is_known()), (ArchiveState::Starting, false));
    known.take(&ArchiveStatus { gaps: vec![gap(1)], ..following(90) });
    let view = known.view(true);
    assert_eq!((view.state, view.lag_seconds, view.headroom), (ArchiveState::Following, Some(10), Some(0.9)));

    // It fails, and starts again: it waits, with the reason, and its gaps stay.
    known.life.ended = Some(Ended::from(&Error::new(ErrorKind::Unreachable, "no answer").hint("look at it")));
    known.take(&ArchiveStatus::default());
    let view = known.view(true);
    assert_eq!(
        (view.state, view.problem.as_deref(), view.hint.as_deref()),
        (ArchiveState::Waiting, Some("no answer"), Some("look at it"))
    );
    assert_eq!((view.gaps.len(), view.lag_seconds, view.headroom), (1, None, None));
    known.take(&following(95));
    assert_eq!((known.view(true).state, known.view(true).problem), (ArchiveState::Following, None));

    // Away while it follows.
    known.take(&ArchiveStatus { state: ArchiveState::Waiting, problem: Some("away".into()), ..following(90) });
    assert_eq!((known.view(true).state, known.view(true).problem.as_deref()), (ArchiveState::Waiting, Some("away")));

    // Stopped on request: no reason. Gave up: the reason.
    (known.life.runs, known.life.ended) = (false, None);
    let view = known.view(true);
    assert_eq!((view.state, view.problem, view.position.map(|p| p.position)), (ArchiveState::Stopped, None, Some("90:1".into())));
    known.life.ended = Some(Ended::from(&Error::new(ErrorKind::Refused, "a standalone")));
    assert_eq!((known.view(true).state, known.view(true).problem.as_deref()), (ArchiveState::Stopped, Some("a standalone")));
}

/// An archiver of a source that is not there.
async fn of(directory: &std::path::Path, source: Option<&str>) -> Archiving {
    let flags = Flags { source: source.map(str::to_owned), ..Flags::default() };
    let config = Config::load(directory, [], &flags).unwrap();
    let repository = Repository::open_apart(directory.to_str().unwrap()).await.unwrap();
    let notices = Arc::new(Notices::new(None, Handle::current()).unwrap());
    Archiving::new((config, repository, Context::default()), notices, Handle::current())
}

async fn until(archiving: &Archiving, state: ArchiveState) -> ArchiveView {
    for _ in 0..1000 {
        let view = archiving.view();
        if view.state == state {
            return view;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never {state:?}: {:?}", archiving.view())
}

#[tokio::test]
async fn it_starts_again_after_what_passes_and_both_calls_may_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let archiving = of(directory.path(), Some("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=50")).await;
    archiving.stop().await.unwrap();
    archiving.start().await.unwrap();
    let view = until(&archiving, ArchiveState::Waiting).await;
    assert!(view.problem.is_some(), "{view:?}");
    archiving.start().await.unwrap();
    assert_eq!(archiving.view().state, ArchiveState::Waiting, "it runs, and is not started anew");
    for _ in 0..2 {
        archiving.stop().await.unwrap();
        assert_eq!((archiving.view().state, archiving.view().problem), (ArchiveState::Stopped, None));
    }
    archiving.start().await.unwrap();
    archiving.shut_down(Duration::ZERO).await;
    assert_eq!(archiving.view().state, ArchiveState::Stopped);
    assert_eq!(archiving.start().await.unwrap_err().kind(), ErrorKind::Closing);
}

#[tokio::test]
async fn what_is_not_configured_is_kept_as_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let archiving = of(directory.path(), None).await;
    assert_eq!(archiving.start().await.unwrap_err().kind(), ErrorKind::NotConfigured);
    let view = archiving.view();
    assert_eq!((view.state, view.problem.as_deref()), (ArchiveState::Stopped, Some("Atlas MongoDB URI not configured")));
}
