use std::num::NonZeroU32;

use super::*;
use crate::service::job::{JobError, JobKind, JobState};
use crate::service::requests::BackupRequest;

fn every(hours: u32) -> Plan {
    Plan { enabled: true, cadence: Cadence::Every(NonZeroU32::new(hours).unwrap()) }
}

fn at(text: &str) -> DateTime<Utc> {
    format!("2026-03-{text}Z").parse().unwrap()
}

#[test]
fn the_first_run_comes_one_interval_after_the_first_start_and_the_rhythm_outlives_restarts() {
    let mut kept = Kept::first(every(7), at("01T00:00:30"));
    assert_eq!(kept.next, Some(at("01T07:00:30")));
    assert_eq!(kept.due(at("01T07:00:29")), None);
    let due = kept.due(at("01T07:00:31")).unwrap();
    assert_eq!((due.planned, due.trigger), (at("01T07:00:30"), Trigger::Schedule));
    let mut kept = kept.resumed(every(7), at("01T09:00:00"));
    assert_eq!((kept.next, kept.due(at("01T09:00:00"))), (Some(at("01T14:00:30")), None));
}

#[test]
fn however_many_were_missed_one_is_made_up_for() {
    let kept = Kept::first(every(1), at("01T00:00:00"));
    let mut kept = kept.resumed(every(1), at("03T10:30:00"));
    let due = kept.due(at("03T10:30:00")).unwrap();
    assert_eq!((due.planned, due.trigger), (at("01T01:00:00"), Trigger::Missed));
    assert_eq!((kept.due(at("03T10:30:01")), kept.next), (None, Some(at("03T11:00:00"))));
}

#[test]
fn what_was_changed_is_kept_until_the_configuration_changes() {
    let mut kept = Kept::first(every(6), at("01T00:00:00"));
    kept.change(every(2), at("01T01:00:00"));
    assert_eq!(kept.next, Some(at("01T03:00:00")));
    let kept = kept.resumed(every(6), at("01T01:10:00"));
    assert_eq!((kept.plan.clone(), kept.next), (every(2), Some(at("01T03:00:00"))));
    let kept = kept.resumed(every(12), at("01T01:20:00"));
    assert_eq!((kept.plan, kept.next), (every(12), Some(at("01T13:20:00"))));
}

#[test]
fn a_clock_that_is_set_back_delays_nothing() {
    let mut kept = Kept::first(every(6), at("20T00:00:00"));
    assert_eq!((kept.due(at("01T00:00:00")), kept.next), (None, Some(at("01T06:00:00"))));
    let nightly = Plan { enabled: true, cadence: Cadence::cron("30 2 * * *", "UTC").unwrap() };
    let mut kept = Kept::first(nightly, at("01T00:00:00"));
    assert!(kept.due(at("20T02:30:00")).is_some());
    assert_eq!((kept.due(at("05T00:00:00")), kept.next), (None, Some(at("05T02:30:00"))));
    assert!(kept.due(at("05T02:30:00")).is_some());
}

#[test]
fn what_is_kept_is_read_as_it_was() {
    for cadence in [Cadence::every(7).unwrap(), Cadence::cron("30 2 * * MON", "Europe/Berlin").unwrap()] {
        let kept = Kept::first(Plan { enabled: true, cadence }, at("01T00:00:00"));
        let bytes = serde_json::to_vec(&kept).unwrap();
        assert_eq!(serde_json::from_slice::<Kept>(&bytes).unwrap(), kept);
    }
}

#[test]
fn one_that_was_off_missed_nothing() {
    let mut kept = Kept::first(every(1), at("01T00:00:00"));
    kept.change(Plan { enabled: false, ..every(1) }, at("01T00:10:00"));
    assert_eq!((kept.next, kept.due(at("01T05:00:00"))), (None, None));
    kept.change(every(1), at("01T05:10:00"));
    assert_eq!((kept.next, kept.due(at("01T05:20:00"))), (Some(at("01T06:00:00")), None));
}

/// Stores a scheduler at one time, wakes it at others, and returns what it then waits for.
async fn woken_at(plan: &Plan, kept_at: &str, wakes: &[&str]) -> Vec<(usize, Option<DateTime<Utc>>)> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let state = State::open(&path).await.unwrap();
    state.keep(KEY, &Kept::first(plan.clone(), at(kept_at))).await.unwrap();
    let begun = Arc::new(Mutex::new(0));
    let begin: Begin = Box::new({
        let begun = begun.clone();
        move |_| {
            *begun.lock().unwrap() += 1;
            Box::pin(async { Ok(JobId::new()) })
        }
    });
    let mut seen = Vec::new();
    for time in wakes {
        // Each time as in a new process, which knows only what was stored.
        let kept = state.kept::<Kept>(KEY).await.unwrap().unwrap();
        let scheduler = Scheduler(Arc::new(Shared::new(state.clone(), kept)));
        scheduler.wake(at(time), &begin).await;
        seen.push((*begun.lock().unwrap(), scheduler.shown().next));
    }
    seen
}

#[tokio::test]
async fn a_clock_that_was_wrong_delays_no_backup_also_over_restarts() {
    let nightly = Plan { enabled: true, cadence: Cadence::cron("30 2 * * *", "UTC").unwrap() };
    // Stored while the clock was weeks ahead; then the clock was corrected.
    let seen = woken_at(&every(6), "31T00:00:00", &["01T00:00:00", "01T05:59:59", "01T06:00:00", "01T06:00:01"]).await;
    let (first, second) = (Some(at("01T06:00:00")), Some(at("01T12:00:00")));
    assert_eq!(seen, [(0, first), (0, first), (1, second), (1, second)]);
    let seen = woken_at(&nightly, "31T00:00:00", &["01T00:00:00", "01T02:30:00", "02T02:30:00"]).await;
    assert_eq!(seen, [(0, Some(at("01T02:30:00"))), (1, Some(at("02T02:30:00"))), (2, Some(at("03T02:30:00")))]);
    // It also ran while the clock was ahead.
    let seen = woken_at(&every(6), "01T00:00:00", &["31T00:00:00", "01T01:00:00", "01T06:00:00"]).await;
    assert_eq!(seen, [(1, Some(at("31T06:00:00"))), (1, first), (2, second)]);
    // Stored while the clock was behind: what was due meanwhile is made up for once.
    for plan in [every(6), nightly] {
        let seen = woken_at(&plan, "01T00:00:00", &["29T01:00:00", "29T01:00:01"]).await;
        assert_eq!(seen.iter().map(|(begun, _)| *begun).collect::<Vec<_>>(), [1, 1]);
        assert!(seen[1].1 > Some(at("29T01:00:00")) && seen[1].1 <= Some(at("30T02:30:00")), "{seen:?}");
    }
}

/// Wakes a scheduler at each of these minutes. Returns how often it began a backup, how often the
/// due one failed, and when its next try is.
#[tokio::test]
async fn what_was_not_taken_is_tried_again_more_and_more_rarely_until_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(&directory.path().join("state")).await.unwrap();
    let mut scheduler = Scheduler::open(state.clone(), every(6)).await.unwrap();
    let anchor = scheduler.kept().anchor;
    let after = |minutes: i64| anchor + TimeDelta::minutes(minutes);
    let begun = Arc::new(Mutex::new(Vec::<(Trigger, Job)>::new()));
    let fails = Arc::new(Mutex::new(true));
    let begin: Begin = Box::new({
        let (begun, fails) = (begun.clone(), fails.clone());
        move |trigger| {
            let job = Job::new(JobKind::Backup, trigger, clock::now());
            let id = job.id;
            begun.lock().unwrap().push((trigger, job));
            let fails = *fails.lock().unwrap();
            let failed = Error::new(ErrorKind::Storage, "no space").job(id.to_string());
            Box::pin(async move { if fails { Err(failed) } else { Ok(id) } })
        }
    });
    let seen = async |scheduler: &Scheduler, minutes: i64| {
        scheduler.wake(after(minutes), &begin).await;
        let shown = scheduler.shown().not_taken;
        let next = shown.and_then(|not| not.next_try).map(|next| (next - anchor).num_minutes());
        (begun.lock().unwrap().len(), shown.map_or(0, |not| not.failed), next)
    };
    assert_eq!(seen(&scheduler, 359).await, (0, 0, None));
    assert_eq!(seen(&scheduler, 360).await, (1, 1, Some(361)));
    assert_eq!(scheduler.shown().last.unwrap().job_id, Some(begun.lock().unwrap()[0].1.id), "no job tells of it");
    assert_eq!(seen(&scheduler, 361).await, (2, 2, Some(363)));
    assert_eq!(seen(&scheduler, 362).await, (2, 2, Some(363)));
    // Across a restart.
    scheduler = Scheduler::open(state.clone(), every(6)).await.unwrap();
    assert_eq!(seen(&scheduler, 363).await, (3, 3, Some(367)));
    for (minutes, next) in [(367, 375), (375, 391), (391, 423), (423, 487), (487, 577), (577, 667)] {
        assert_eq!(seen(&scheduler, minutes).await.2, Some(next), "at most a quarter of the interval");
    }
    // The next regular time ends the retries, and starts anew.
    assert_eq!(seen(&scheduler, 667).await, (10, 10, None));
    assert_eq!(seen(&scheduler, 720).await, (11, 1, Some(721)));

    // A backup that begins, and fails later.
    *fails.lock().unwrap() = false;
    assert_eq!(seen(&scheduler, 721).await, (12, 1, None));
    let ended = |at: usize, state: JobState| {
        let mut job = begun.lock().unwrap()[at].1.clone();
        (job.state, job.finished) = (state, Some(clock::now()));
        let error = Error::new(ErrorKind::Unreachable, "gone");
        job.error = (state != JobState::Succeeded).then(|| JobError::of(JobKind::Backup, &error));
        job
    };
    assert_eq!(seen(&scheduler, 730).await, (12, 1, None));
    scheduler.hear(&ended(11, JobState::Interrupted));
    assert_eq!(seen(&scheduler, 731).await, (12, 2, Some(733)));
    assert_eq!(seen(&scheduler, 733).await, (13, 2, None));
    let mut part = ended(12, JobState::Succeeded);
    (part.id, part.create) = (JobId::new(), Some(BackupRequest { databases: Some(vec![]), ..BackupRequest::default() }));
    scheduler.hear(&part);
    assert_eq!(seen(&scheduler, 734).await, (13, 2, None));
    scheduler.hear(&ended(12, JobState::Succeeded));
    assert_eq!(seen(&scheduler, 735).await, (13, 0, None));

    // A success on request counts, and so does turning the schedule off.
    *fails.lock().unwrap() = true;
    assert_eq!(seen(&scheduler, 1080).await, (14, 1, Some(1081)));
    let mut by_hand = ended(0, JobState::Succeeded);
    (by_hand.id, by_hand.created) = (JobId::new(), after(1081));
    scheduler.hear(&by_hand);
    assert_eq!(seen(&scheduler, 1081).await, (14, 0, None));
    assert_eq!(seen(&scheduler, 1440).await, (15, 1, Some(1441)));
    scheduler.change(|plan| Ok(Plan { enabled: false, ..plan.clone() })).await.unwrap();
    assert_eq!(seen(&scheduler, 1441).await, (15, 0, None));
    assert!(begun.lock().unwrap().iter().all(|(trigger, _)| *trigger == Trigger::Schedule));
}

#[tokio::test]
async fn what_became_of_each_time_is_kept_and_what_runs_is_not_overtaken() {
    let directory = tempfile::tempdir().unwrap();
    let state = State::open(&directory.path().join("state")).await.unwrap();
    let scheduler = Scheduler::open(state.clone(), every(1)).await.unwrap();
    let anchor = scheduler.kept().anchor;
    let id = JobId::new();
    let answers = [
        Ok(id),
        Err(Error::new(ErrorKind::Busy, "a backup of this source is running already")),
        Err(Error::new(ErrorKind::NotConfigured, "Atlas MongoDB URI not configured")),
        Err(Error::new(ErrorKind::Closing, "the service is shutting down")),
    ];
    let asked = Arc::new(Mutex::new((answers.into_iter(), Vec::new())));
    let begin: Begin = Box::new({
        let asked = asked.clone();
        move |trigger| {
            let mut asked = asked.lock().unwrap();
            asked.1.push(trigger);
            let answer = asked.0.next().unwrap();
            Box::pin(async move { answer })
        }
    });
    let mut outcomes = Vec::new();
    for minutes in [59, 60, 61, 120, 183, 240] {
        scheduler.wake(anchor + TimeDelta::minutes(minutes), &begin).await;
        let last = scheduler.shown().last;
        outcomes.push(last.map(|last| (last.outcome, (last.planned - anchor).num_minutes(), last.job_id, last.reason.is_some())));
    }
    let started = Some((RunOutcome::Started, 60, Some(id), false));
    let skipped = Some((RunOutcome::Skipped, 120, None, true));
    let failed = Some((RunOutcome::Failed, 180, None, true));
    // A time that comes during a shutdown is left to the next process.
    assert_eq!(outcomes, [None, started, started, skipped, failed, failed]);
    assert_eq!(asked.lock().unwrap().1, [Trigger::Schedule, Trigger::Schedule, Trigger::Missed, Trigger::Schedule]);
    let again = Scheduler::open(state, every(1)).await.unwrap().shown();
    assert_eq!((again.last, again.next), (scheduler.shown().last, Some(anchor + TimeDelta::minutes(240))));
}
