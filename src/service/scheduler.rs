//! Begins backups at their times. When those are is computed elsewhere and kept in the state file; the library's scheduler only wakes this one, once a second, so
//! that a clock that was set and a machine that slept are noticed, too.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio_cron_scheduler::{Job as Wake, JobScheduler};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::job::{Job, JobId, Trigger};
use super::retry::{Ended, Meaning, NotTaken, Retry};
use super::state::State;
use super::status::{LastRun, RunOutcome};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::schedule::Cadence;

/// How often it looks at the clock.
const WAKE: Duration = Duration::from_secs(1);
/// And how often without the library that wakes it.
const WAKE_ANYHOW: Duration = Duration::from_secs(30);
/// A run that begins later than this was missed: the service, or the machine, was not there.
const LATE: TimeDelta = TimeDelta::seconds(60);
/// Where the schedule is kept in the state file.
const KEY: &str = "schedule";

/// When backups are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Plan {
    /// Whether they are.
    pub(super) enabled: bool,
    /// How often.
    #[serde(with = "kept_cadence")]
    pub(super) cadence: Cadence,
}

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    plan: Plan,
    /// What the configuration said when this was kept: where that changes, it counts again.
    configured: Plan,
    /// When intervals began to be counted.
    anchor: DateTime<Utc>,
    /// The next time.
    next: Option<DateTime<Utc>>,
    last: Option<LastRun>,
    /// The last one, until it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<Retry>,
}

/// A time that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    planned: DateTime<Utc>,
    trigger: Trigger,
    /// How often it was tried before.
    failed: u32,
}

impl Kept {
    fn first(configured: Plan, now: DateTime<Utc>) -> Self {
        let mut kept = Self { plan: configured.clone(), configured, anchor: now, next: None, last: None, retry: None };
        kept.aim(now);
        kept
    }

    /// What was kept, under the configuration as it is now.
    fn resumed(mut self, configured: Plan, now: DateTime<Utc>) -> Self {
        if self.configured != configured {
            tracing::info!("the configured schedule has changed, and counts instead of what was set before");
            self.configured = configured.clone();
            self.change(configured, now);
        }
        self
    }

    /// Another plan, from now on.
    fn change(&mut self, plan: Plan, now: DateTime<Utc>) {
        if plan.cadence != self.plan.cadence {
            self.anchor = now;
        }
        // One that was not enabled missed nothing.
        let keeps_time = plan.enabled && self.plan == plan;
        self.plan = plan;
        if !keeps_time {
            self.aim(now);
            self.retry = None;
        }
    }

    fn aim(&mut self, now: DateTime<Utc>) {
        self.next = self.plan.enabled.then(|| self.plan.cadence.next_after(self.anchor, now)).flatten();
    }

    /// What is due now, however many times have passed: it is made up once, and the next one lies ahead.
    fn due(&mut self, now: DateTime<Utc>) -> Option<Due> {
        self.heed_a_clock_that_was_set_back(now);
        let Some(planned) = self.next.filter(|next| *next <= now && self.plan.enabled) else { return self.due_again(now) };
        self.aim(now);
        let trigger = if now - planned > LATE { Trigger::Missed } else { Trigger::Schedule };
        Some(Due { planned, trigger, failed: 0 })
    }

    /// What failed before, and is to be tried again now.
    fn due_again(&mut self, now: DateTime<Utc>) -> Option<Due> {
        let retry = self.retry.as_mut().filter(|retry| retry.next.is_some_and(|next| next <= now))?;
        retry.next = None;
        self.plan.enabled.then_some(Due { planned: retry.planned, trigger: Trigger::Schedule, failed: retry.failed })
    }

    /// What became of one that was due.
    fn tried(&mut self, due: Due, begun: &Result<JobId>, now: DateTime<Utc>) {
        self.retry = match begun {
            Ok(job) => Some(Retry::begun(due.planned, due.failed, *job)),
            Err(e) => {
                self.after_failure(due.planned, due.failed, now).map(|retry| Retry { busy: e.kind() == ErrorKind::Busy, ..retry })
            }
        };
    }

    /// A job ended.
    fn hear(&mut self, ended: &Ended, now: DateTime<Utc>) {
        let Some(retry) = &self.retry else { return };
        let (planned, failed) = (retry.planned, retry.failed);
        match retry.meaning(ended) {
            Meaning::Done => self.retry = None,
            Meaning::Failed => self.retry = self.after_failure(planned, failed, now),
            Meaning::Nothing => {}
        }
    }

    fn after_failure(&self, planned: DateTime<Utc>, failed: u32, now: DateTime<Utc>) -> Option<Retry> {
        let retry = Retry::after_failure(planned, failed.saturating_add(1), now, self.next?, self.interval()?);
        match retry.next {
            Some(next) => tracing::warn!("the backup of {planned} is tried again at {next}"),
            None => tracing::warn!("the backup of {planned} is not tried again before the next one"),
        }
        Some(retry)
    }

    /// The time between the next backup and the one after it.
    fn interval(&self) -> Option<TimeDelta> {
        let next = self.next?;
        Some(self.plan.cadence.next_after(self.anchor, next)? - next)
    }
}

impl Kept {
    /// What was planned by a clock that was ahead would come too late by as much.
    fn heed_a_clock_that_was_set_back(&mut self, now: DateTime<Utc>) {
        let is_ahead = self.anchor > now;
        self.anchor = self.anchor.min(now);
        let should_be = self.plan.cadence.next_after(self.anchor, now);
        if is_ahead || (self.plan.enabled && self.next > should_be) {
            tracing::warn!("the clock was set back: the next backup is due at {should_be:?}");
            self.aim(now);
        }
        let interval = self.interval();
        if let (Some(retry), Some(interval)) = (&mut self.retry, interval) {
            retry.at_most(now, interval);
        }
    }
}

/// Begins a backup, and gives its job.
pub(super) type Begin = Box<dyn Fn(Trigger) -> BoxFuture<'static, Result<JobId>> + Send + Sync>;

/// The scheduler of a service. Cloning shares it.
#[derive(Clone)]
pub(super) struct Scheduler(Arc<Shared>);

struct Shared {
    state: State,
    kept: Mutex<Kept>,
    /// Backups that ended since it was last looked.
    heard: Mutex<Vec<Ended>>,
    /// Of those that change what is kept, one at a time.
    changing: tokio::sync::Mutex<()>,
    waker: tokio::sync::Mutex<Option<(JobScheduler, DropGuard)>>,
}

impl Shared {
    fn new(state: State, kept: Kept) -> Self {
        let kept = Mutex::new(kept);
        Self { state, kept, heard: Mutex::default(), changing: Default::default(), waker: Default::default() }
    }
}

/// What the scheduler shows of itself.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) plan: Plan,
    pub(super) next: Option<DateTime<Utc>>,
    pub(super) last: Option<LastRun>,
    pub(super) not_taken: Option<NotTaken>,
}

impl Scheduler {
    /// The schedule as it was kept, or as it is configured. It does not run yet.
    ///
    /// # Errors
    /// Those of the state file.
    pub(super) async fn open(state: State, configured: Plan) -> Result<Self> {
        let now = clock::now();
        let kept = match state.kept::<Kept>(KEY).await? {
            Some(kept) => kept.resumed(configured, now),
            None => Kept::first(configured, now),
        };
        state.keep(KEY, &kept).await?;
        let shared = Shared::new(state, kept);
        Ok(Self(Arc::new(shared)))
    }

    /// Begins to look at the clock. What was missed is made up for at once.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`].
    pub(super) async fn start(&self, begin: Begin) -> Result<()> {
        let mut waker = self.0.waker.lock().await;
        if waker.is_some() {
            return Ok(());
        }
        let failed = |e| Error::new(ErrorKind::Internal, format!("the scheduler cannot be started: {e}")).cause(e);
        let scheduler = JobScheduler::new().await.map_err(failed)?;
        // The library lets go of this long after its end, if ever; the state file must be free before.
        let (shared, begin) = (Arc::downgrade(&self.0), Arc::new(begin));
        let begin_anyhow = begin.clone();
        let wake = Wake::new_repeated_async(WAKE, move |_, _| {
            let (shared, begin) = (shared.upgrade().map(Self), begin.clone());
            Box::pin(async move {
                if let Some(shared) = shared {
                    shared.wake(clock::now(), &begin).await;
                }
            })
        });
        scheduler.add(wake.map_err(failed)?).await.map_err(failed)?;
        scheduler.start().await.map_err(failed)?;

        // The library's own clock stands still while the machine's, once set back, catches up.
        let stop = CancellationToken::new();
        let (stopped, shared) = (stop.clone(), Arc::downgrade(&self.0));
        tokio::spawn(async move {
            while stopped.run_until_cancelled(tokio::time::sleep(WAKE_ANYHOW)).await.is_some() {
                let Some(shared) = shared.upgrade().map(Self) else { return };
                shared.wake(clock::now(), &begin_anyhow).await;
            }
        });
        *waker = Some((scheduler, stop.drop_guard()));
        Ok(())
    }

    /// Looks at the clock no more. What it began goes on.
    pub(super) async fn stop(&self) {
        if let Some((mut scheduler, _stops)) = self.0.waker.lock().await.take()
            && let Err(e) = scheduler.shutdown().await
        {
            tracing::warn!("the scheduler did not stop in order: {e}");
        }
    }

    /// When backups are taken.
    pub(super) fn shown(&self) -> Shown {
        let kept = self.kept();
        let not_taken = kept.retry.as_ref().and_then(Retry::shown);
        Shown { plan: kept.plan.clone(), next: kept.next, last: kept.last.clone(), not_taken }
    }

    /// Changes when backups are taken, and keeps it.
    ///
    /// # Errors
    /// Those of `change` and of the state file; nothing is changed then.
    pub(super) async fn change(&self, change: impl FnOnce(&Plan) -> Result<Plan>) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let mut kept = self.kept().clone();
        let plan = change(&kept.plan)?;
        kept.change(plan, clock::now());
        self.0.state.keep(KEY, &kept).await?;
        *self.kept() = kept;
        Ok(())
    }

    /// Takes note of a job that ended: one that failed is tried again. Jobs may be told again.
    pub(super) fn hear(&self, job: &Job) {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner).extend(Ended::of(job));
    }

    /// Keeps what it has heard; others keep what is kept already.
    pub(super) async fn keep_what_was_heard(&self, now: DateTime<Utc>) {
        let heard = std::mem::take(&mut *self.0.heard.lock().unwrap_or_else(PoisonError::into_inner));
        let before = self.kept().clone();
        let mut kept = before.clone();
        heard.iter().for_each(|ended| kept.hear(ended, now));
        if kept != before {
            self.replace(kept).await;
        }
    }

    /// Begins what is due. One that is under way already is not overtaken.
    async fn wake(&self, now: DateTime<Utc>, begin: &Begin) {
        let Ok(_changing) = self.0.changing.try_lock() else { return };
        self.keep_what_was_heard(now).await;
        let before = self.kept().clone();
        let mut kept = before.clone();
        let Some(due) = kept.due(now) else {
            // Nothing is due, but the clock may have been set back: the corrected time must be the one that is waited for.
            if kept != before {
                self.replace(kept).await;
            }
            return;
        };
        if due.trigger == Trigger::Missed {
            tracing::warn!("the backup of {} was missed, and is made up for now", due.planned);
        }
        let begun = begin(due.trigger).await;
        if begun.as_ref().is_err_and(|e| e.kind() == ErrorKind::Closing) {
            // The next process finds that it was missed.
            return;
        }
        let outcome = match &begun {
            Ok(_) => RunOutcome::Started,
            Err(e) if e.kind() == ErrorKind::Busy => RunOutcome::Skipped,
            Err(_) => RunOutcome::Failed,
        };
        let reason = begun.as_ref().err().map(ToString::to_string);
        if let Some(reason) = &reason {
            tracing::error!(outcome = ?outcome, "the backup of {} was not begun: {reason}", due.planned);
        }
        kept.tried(due, &begun, now);
        let failed = |e: &Error| e.job_id().and_then(|id| id.parse().ok());
        let job_id = begun.as_ref().map_or_else(failed, |id| Some(*id));
        kept.last = Some(LastRun { planned: due.planned, at: now, outcome, job_id, trigger: Some(due.trigger), reason });
        self.replace(kept).await;
    }

    /// A backup began that somebody asked for.
    pub(super) async fn ran(&self, id: JobId, now: DateTime<Utc>) {
        let _changing = self.0.changing.lock().await;
        let trigger = Some(Trigger::Manual);
        let run = LastRun { planned: now, at: now, outcome: RunOutcome::Started, job_id: Some(id), trigger, reason: None };
        let kept = Kept { last: Some(run), ..self.kept().clone() };
        self.replace(kept).await;
    }

    /// Goes on with this schedule, also if it cannot be written to the state file.
    async fn replace(&self, kept: Kept) {
        if let Err(e) = self.0.state.keep(KEY, &kept).await {
            tracing::error!("the schedule cannot be kept: {e}");
        }
        *self.kept() = kept;
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cadence as it is kept: as it is written in the configuration.
mod kept_cadence {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::schedule::Cadence;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kept {
        Hours(u32),
        Cron { expression: String, zone: String },
    }

    pub(super) fn serialize<S: Serializer>(cadence: &Cadence, to: S) -> Result<S::Ok, S::Error> {
        match cadence {
            Cadence::Every(hours) => Kept::Hours(hours.get()),
            Cadence::Cron { expression, zone } => {
                Kept::Cron { expression: expression.as_str().to_owned(), zone: zone.name().to_owned() }
            }
        }
        .serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Cadence, D::Error> {
        match Kept::deserialize(from)? {
            Kept::Hours(hours) => Cadence::every(hours),
            Kept::Cron { expression, zone } => Cadence::cron(&expression, &zone),
        }
        .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::service::job::{BackupRequest, JobError, JobKind, JobState};

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

    /// A scheduler that was kept at one time of the clock, woken at others, and what it then waits for.
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
            // Each time as in a process of its own, which knows only what was written.
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
        // Kept when the clock was weeks ahead, then put right.
        let seen = woken_at(&every(6), "31T00:00:00", &["01T00:00:00", "01T05:59:59", "01T06:00:00", "01T06:00:01"]).await;
        let (first, second) = (Some(at("01T06:00:00")), Some(at("01T12:00:00")));
        assert_eq!(seen, [(0, first), (0, first), (1, second), (1, second)]);
        let seen = woken_at(&nightly, "31T00:00:00", &["01T00:00:00", "01T02:30:00", "02T02:30:00"]).await;
        assert_eq!(seen, [(0, Some(at("01T02:30:00"))), (1, Some(at("02T02:30:00"))), (2, Some(at("03T02:30:00")))]);
        // It ran while the clock was ahead, too.
        let seen = woken_at(&every(6), "01T00:00:00", &["31T00:00:00", "01T01:00:00", "01T06:00:00"]).await;
        assert_eq!(seen, [(1, Some(at("31T06:00:00"))), (1, first), (2, second)]);
        // Kept when the clock was behind: what was due meanwhile is made up for once.
        for plan in [every(6), nightly] {
            let seen = woken_at(&plan, "01T00:00:00", &["29T01:00:00", "29T01:00:01"]).await;
            assert_eq!(seen.iter().map(|(begun, _)| *begun).collect::<Vec<_>>(), [1, 1]);
            assert!(seen[1].1 > Some(at("29T01:00:00")) && seen[1].1 <= Some(at("30T02:30:00")), "{seen:?}");
        }
    }

    /// What a scheduler does at each of these minutes: how often it began by then, how often the one that is due failed, and when it is tried again.
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
        // Over a restart.
        scheduler = Scheduler::open(state.clone(), every(6)).await.unwrap();
        assert_eq!(seen(&scheduler, 363).await, (3, 3, Some(367)));
        for (minutes, next) in [(367, 375), (375, 391), (391, 423), (423, 487), (487, 577), (577, 667)] {
            assert_eq!(seen(&scheduler, minutes).await.2, Some(next), "at most a quarter of the interval");
        }
        // The next regular time ends it, and begins anew.
        assert_eq!(seen(&scheduler, 667).await, (10, 10, None));
        assert_eq!(seen(&scheduler, 720).await, (11, 1, Some(721)));

        // One that begins, and fails on its way.
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

        // Somebody else's success counts, and so does a change of mind.
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
            outcomes
                .push(last.map(|last| (last.outcome, (last.planned - anchor).num_minutes(), last.job_id, last.reason.is_some())));
        }
        let started = Some((RunOutcome::Started, 60, Some(id), false));
        let skipped = Some((RunOutcome::Skipped, 120, None, true));
        let failed = Some((RunOutcome::Failed, 180, None, true));
        // What comes while the service ends is left to the next one.
        assert_eq!(outcomes, [None, started, started, skipped, failed, failed]);
        assert_eq!(asked.lock().unwrap().1, [Trigger::Schedule, Trigger::Schedule, Trigger::Missed, Trigger::Schedule]);
        let again = Scheduler::open(state, every(1)).await.unwrap().shown();
        assert_eq!((again.last, again.next), (scheduler.shown().last, Some(anchor + TimeDelta::minutes(240))));
    }
}
