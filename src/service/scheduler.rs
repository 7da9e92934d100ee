//! Begins backups at their times. When those are is computed elsewhere and kept in the state file; the library's scheduler only wakes this one, once a second, so
//! that a clock that was set and a machine that slept are noticed, too.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio_cron_scheduler::{Job as Wake, JobScheduler};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::job::{Job, JobId, Trigger};
use super::last::{LastRun, RunOutcome};
use super::retry::{Ended, Meaning, NotTaken, Retry};
use super::state::State;
use crate::clock;
use crate::context::lock;
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
        lock(&self.0.heard).extend(Ended::of(job));
    }

    /// Keeps what it has heard; others keep what is kept already.
    pub(super) async fn keep_what_was_heard(&self, now: DateTime<Utc>) {
        let heard = std::mem::take(&mut *lock(&self.0.heard));
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
        lock(&self.0.kept)
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
