//! Begins backups at their times. The times are computed elsewhere and stored in the state file.
//! The library's scheduler only wakes this one once a second, so that a clock change or a suspended
//! machine is noticed, too.

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

/// How often it checks the clock.
const WAKE: Duration = Duration::from_secs(1);
/// How often it checks the clock without the library.
const WAKE_ANYHOW: Duration = Duration::from_secs(30);
/// A run that begins later than this was missed: the service or the machine was down.
const LATE: TimeDelta = TimeDelta::seconds(60);
/// The schedule's key in the state file.
const KEY: &str = "schedule";

/// The schedule's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Plan {
    /// Whether the schedule is on.
    pub(super) enabled: bool,
    /// How often.
    #[serde(with = "kept_cadence")]
    pub(super) cadence: Cadence,
}

/// The schedule as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    plan: Plan,
    /// The configuration when this was stored. If the configuration changes, it applies again.
    configured: Plan,
    /// From when intervals are counted.
    anchor: DateTime<Utc>,
    /// The next time.
    next: Option<DateTime<Utc>>,
    last: Option<LastRun>,
    /// The last scheduled backup, until it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<Retry>,
}

/// A backup that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    planned: DateTime<Utc>,
    trigger: Trigger,
    /// How often it failed before.
    failed: u32,
}

impl Kept {
    fn first(configured: Plan, now: DateTime<Utc>) -> Self {
        let mut kept = Self { plan: configured.clone(), configured, anchor: now, next: None, last: None, retry: None };
        kept.aim(now);
        kept
    }

    /// The stored schedule under the present configuration.
    fn resumed(mut self, configured: Plan, now: DateTime<Utc>) -> Self {
        if self.configured != configured {
            tracing::info!("the configured schedule has changed and replaces the stored one");
            self.configured = configured.clone();
            self.change(configured, now);
        }
        self
    }

    /// Applies another plan from now on.
    fn change(&mut self, plan: Plan, now: DateTime<Utc>) {
        if plan.cadence != self.plan.cadence {
            self.anchor = now;
        }
        // A disabled schedule missed nothing.
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

    /// The backup that is due now. Missed times are made up for once, and the next time lies ahead.
    fn due(&mut self, now: DateTime<Utc>) -> Option<Due> {
        self.heed_a_clock_that_was_set_back(now);
        let Some(planned) = self.next.filter(|next| *next <= now && self.plan.enabled) else { return self.due_again(now) };
        self.aim(now);
        let trigger = if now - planned > LATE { Trigger::Missed } else { Trigger::Schedule };
        Some(Due { planned, trigger, failed: 0 })
    }

    /// A failed backup whose next try is due.
    fn due_again(&mut self, now: DateTime<Utc>) -> Option<Due> {
        let retry = self.retry.as_mut().filter(|retry| retry.next.is_some_and(|next| next <= now))?;
        retry.next = None;
        self.plan.enabled.then_some(Due { planned: retry.planned, trigger: Trigger::Schedule, failed: retry.failed })
    }

    /// Records whether a backup that was due began.
    fn tried(&mut self, due: Due, begun: &Result<JobId>, now: DateTime<Utc>) {
        self.retry = match begun {
            Ok(job) => Some(Retry::begun(due.planned, due.failed, *job)),
            Err(e) => {
                self.after_failure(due.planned, due.failed, now).map(|retry| Retry { busy: e.kind() == ErrorKind::Busy, ..retry })
            }
        };
    }

    /// Records a job that ended.
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
            Some(next) => tracing::warn!("the next try for the backup of {planned} is at {next}"),
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
    /// A time that was planned while the clock was ahead would come too late.
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

/// Begins a backup, and returns its job's id.
pub(super) type Begin = Box<dyn Fn(Trigger) -> BoxFuture<'static, Result<JobId>> + Send + Sync>;

/// The scheduler of a service. Clones share it.
#[derive(Clone)]
pub(super) struct Scheduler(Arc<Shared>);

struct Shared {
    state: State,
    kept: Mutex<Kept>,
    /// Backups that ended since the last check.
    heard: Mutex<Vec<Ended>>,
    /// Held while the stored schedule changes.
    changing: tokio::sync::Mutex<()>,
    waker: tokio::sync::Mutex<Option<(JobScheduler, DropGuard)>>,
}

impl Shared {
    fn new(state: State, kept: Kept) -> Self {
        let kept = Mutex::new(kept);
        Self { state, kept, heard: Mutex::default(), changing: Default::default(), waker: Default::default() }
    }
}

/// The visible state of the scheduler.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    pub(super) plan: Plan,
    pub(super) next: Option<DateTime<Utc>>,
    pub(super) last: Option<LastRun>,
    pub(super) not_taken: Option<NotTaken>,
}

impl Scheduler {
    /// Opens the stored schedule, or else the configured one. It does not run yet.
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

    /// Starts to check the clock. Makes up at once for a missed backup.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`].
    pub(super) async fn start(&self, begin: Begin) -> Result<()> {
        let mut waker = self.0.waker.lock().await;
        if waker.is_some() {
            return Ok(());
        }
        let failed = |e| Error::new(ErrorKind::Internal, format!("the scheduler cannot start: {e}")).cause(e);
        let scheduler = JobScheduler::new().await.map_err(failed)?;
        // The library keeps its closures long after its end, if not forever. The state file must be
        // free earlier.
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

        // The library's own clock stands still until a machine's clock that was set back has caught
        // up.
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

    /// Stops checking the clock. Jobs that it began continue.
    pub(super) async fn stop(&self) {
        if let Some((mut scheduler, _stops)) = self.0.waker.lock().await.take()
            && let Err(e) = scheduler.shutdown().await
        {
            tracing::warn!("the scheduler did not stop cleanly: {e}");
        }
    }

    /// The schedule and its state.
    pub(super) fn shown(&self) -> Shown {
        let kept = self.kept();
        let not_taken = kept.retry.as_ref().and_then(Retry::shown);
        Shown { plan: kept.plan.clone(), next: kept.next, last: kept.last.clone(), not_taken }
    }

    /// Changes the schedule, and stores it.
    ///
    /// # Errors
    /// Those of `change` and of the state file. On an error, nothing is changed.
    pub(super) async fn change(&self, change: impl FnOnce(&Plan) -> Result<Plan>) -> Result<()> {
        let _changing = self.0.changing.lock().await;
        let mut kept = self.kept().clone();
        let plan = change(&kept.plan)?;
        kept.change(plan, clock::now());
        self.0.state.keep(KEY, &kept).await?;
        *self.kept() = kept;
        Ok(())
    }

    /// Records a job that ended; a failed one is retried. The same job may be recorded again.
    pub(super) fn hear(&self, job: &Job) {
        lock(&self.0.heard).extend(Ended::of(job));
    }

    /// Applies the recorded ends. Another writer may be storing the schedule now.
    pub(super) async fn keep_what_was_heard(&self, now: DateTime<Utc>) {
        let heard = std::mem::take(&mut *lock(&self.0.heard));
        let before = self.kept().clone();
        let mut kept = before.clone();
        heard.iter().for_each(|ended| kept.hear(ended, now));
        if kept != before {
            self.replace(kept).await;
        }
    }

    /// Begins the backup that is due, unless another change is in progress.
    async fn wake(&self, now: DateTime<Utc>, begin: &Begin) {
        let Ok(_changing) = self.0.changing.try_lock() else { return };
        self.keep_what_was_heard(now).await;
        let before = self.kept().clone();
        let mut kept = before.clone();
        let Some(due) = kept.due(now) else {
            // Nothing is due, but if the clock was set back, the corrected time must be stored.
            if kept != before {
                self.replace(kept).await;
            }
            return;
        };
        if due.trigger == Trigger::Missed {
            tracing::warn!("the backup of {} was missed; making up for it now", due.planned);
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
            tracing::error!(outcome = ?outcome, "the backup of {} did not begin: {reason}", due.planned);
        }
        kept.tried(due, &begun, now);
        let failed = |e: &Error| e.job_id().and_then(|id| id.parse().ok());
        let job_id = begun.as_ref().map_or_else(failed, |id| Some(*id));
        kept.last = Some(LastRun { planned: due.planned, at: now, outcome, job_id, trigger: Some(due.trigger), reason });
        self.replace(kept).await;
    }

    /// Records a backup that a request began.
    pub(super) async fn ran(&self, id: JobId, now: DateTime<Utc>) {
        let _changing = self.0.changing.lock().await;
        let trigger = Some(Trigger::Manual);
        let run = LastRun { planned: now, at: now, outcome: RunOutcome::Started, job_id: Some(id), trigger, reason: None };
        let kept = Kept { last: Some(run), ..self.kept().clone() };
        self.replace(kept).await;
    }

    /// Continues with this schedule, even if it cannot be stored.
    async fn replace(&self, kept: Kept) {
        if let Err(e) = self.0.state.keep(KEY, &kept).await {
            tracing::error!("cannot store the schedule: {e}");
        }
        *self.kept() = kept;
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        lock(&self.0.kept)
    }
}

/// Stores a cadence as it is written in the configuration.
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
