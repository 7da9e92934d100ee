//! Runs jobs: admission, queues, progress, results, and what is stored of them.
//!
//! A job is on disk before anyone learns its id, and its end is on disk before anyone learns of
//! that. Jobs belong to the service, not to their callers: a client that disconnects changes
//! nothing.

mod context;
mod live;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;

use self::context::Shared;
pub(super) use self::context::{Failure, JobContext, Worker};
pub use self::live::JobView;
use self::live::{Live, LiveJobs, busy};
use super::job::{Job, JobError, JobId, JobKind, JobState};
use super::state::{Assignment, Claim, Orphan, Owner, State};
use super::task::Task;
use crate::clock;
use crate::context::lock;
use crate::context::progress::Progress;
use crate::error::{Error, ErrorKind, Result};

/// How long a shutdown waits for short operations in progress.
const LAST_QUESTIONS: Duration = Duration::from_secs(10);
/// How long a shutdown waits for stopped jobs to clean up. Supervisors kill services soon after.
const LAST_JOBS: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(30) };

/// The jobs of a service. Clones share them.
#[derive(Clone)]
pub(super) struct Jobs(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    worker: OnceLock<Weak<dyn Worker>>,
}

impl Jobs {
    /// Opens the stored jobs, which run on this runtime. Unfinished jobs without a live owner count
    /// as interrupted; also returns those.
    ///
    /// # Errors
    /// Those of the state file.
    pub(super) async fn open(state: State, engine: Handle) -> Result<(Self, Vec<Job>)> {
        let interrupted: Vec<Job> = state.orphans().await?.into_iter().map(interrupted).collect();
        // In one transaction: several would each wait for the disk.
        state.put(interrupted.clone(), None).await?;
        let shared = Shared {
            state,
            owner: Owner::new(),
            live: Mutex::new(LiveJobs::default()),
            lanes: JobKind::ALL.map(|_| Semaphore::new(1)),
            tracker: TaskTracker::new(),
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
            engine,
        };
        Ok((Self(Arc::new(Inner { shared: Arc::new(shared), worker: OnceLock::new() })), interrupted))
    }

    /// Sets the worker. The first call wins. The worker lives until all of its jobs have ended.
    pub(super) fn served_by(&self, worker: Weak<dyn Worker>) {
        let _first_wins = self.0.worker.set(worker);
    }

    fn worker(&self) -> Option<Arc<dyn Worker>> {
        self.0.worker.get()?.upgrade()
    }

    /// Begins a job, or queues it if another one of its kind is at work.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another job holds one of its claims; [`ErrorKind::TooMany`] if too
    /// many jobs wait or work; [`ErrorKind::Closing`]; those of the state file.
    pub(super) async fn submit(&self, job: Job, task: Task, claims: BTreeSet<Claim>) -> Result<JobId> {
        let (id, kind, shared) = (job.id, task.kind, &self.0.shared);
        // Held until the job itself is tracked, so that a shutdown in between waits for it.
        let _tracked = shared.tracker.token();
        let worker = self.worker().ok_or_else(|| Error::new(ErrorKind::Internal, "no worker is set for jobs"))?;
        let assignment = Assignment { owner: shared.owner, task: task.clone(), claims };
        let live = Arc::new(Live::new(job.clone(), assignment.clone(), shared.stop.child_token()));
        {
            let mut jobs = lock(&shared.live);
            shared.refuse_if_closing()?;
            jobs.admit(id, &live)?;
        }
        let kept = shared.state.admit(job, assignment).await;
        if let Err(e) = kept.and_then(|conflict| conflict.map_or(Ok(()), |conflict| Err(busy(&conflict)))) {
            let mut jobs = lock(&shared.live);
            jobs.release(id);
            jobs.jobs.remove(&id);
            return Err(e);
        }
        let span = tracing::info_span!("job", %id, kind = kind.name());
        let context = JobContext { id, progress: Progress::default(), stop: live.stop.clone(), live, shared: shared.clone() };
        shared.tracker.spawn_on(run::run(context, task, worker).instrument(span), &shared.engine);
        Ok(id)
    }

    /// Stores a job that could not begin as failed, and announces its end. Returns the error with
    /// the job's id. If the job cannot be stored, that is logged, and its end is announced anyway.
    pub(super) async fn fail(&self, mut job: Job, error: Error) -> Error {
        (job.state, job.finished) = (JobState::Failed, Some(clock::now()));
        job.error = Some(JobError::of(job.kind, &error));
        if let Err(e) = self.0.shared.state.put(vec![job.clone()], None).await {
            tracing::error!("cannot store a failed job: {e}");
        }
        let job = Arc::new(job);
        if let Some(worker) = self.worker() {
            worker.ended(&job);
        }
        error.job(job.id.to_string())
    }

    /// Visits the jobs that have ended, newest first, one at a time.
    ///
    /// # Errors
    /// Those of the state file.
    pub(super) async fn visit_ended(&self, look: impl Fn(&Job) + Send + 'static) -> Result<()> {
        let visitor = move |job: Job| {
            if job.state.is_final() {
                look(&job);
            }
            ControlFlow::Continue(())
        };
        self.0.shared.state.visit(visitor).await
    }

    /// A job, whether or not it has ended.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; those of the state file.
    pub(super) async fn job(&self, id: JobId) -> Result<Arc<Job>> {
        let live = lock(&self.0.shared.live).jobs.get(&id).cloned();
        match live {
            Some(live) => Ok(live.view.borrow().job().clone()),
            None => self.0.shared.state.job(id).await?.map(Arc::new).ok_or_else(|| not_found(id)),
        }
    }

    /// The newest jobs that match, newest first, in short: without details of their collections.
    ///
    /// # Errors
    /// Those of the state file.
    pub(super) async fn list(&self, limit: usize, wanted: impl Fn(&Job) -> bool + Send + 'static) -> Result<Vec<Arc<Job>>> {
        let live: BTreeMap<JobId, Job> =
            lock(&self.0.shared.live).jobs.iter().map(|(id, live)| (*id, live.view.borrow().job().in_short())).collect();
        let wanted = move |kept: Job| {
            let job = live.get(&kept.id).cloned().unwrap_or_else(|| kept.in_short());
            wanted(&job).then_some(job)
        };
        Ok(self.0.shared.state.newest(limit, wanted).await?.into_iter().map(Arc::new).collect())
    }

    /// Follows a job: its present state, and every change up to its end.
    ///
    /// # Errors
    /// As for [`job`](Self::job).
    pub(super) async fn watch(&self, id: JobId) -> Result<watch::Receiver<JobView>> {
        let live = lock(&self.0.shared.live).jobs.get(&id).map(|live| live.view.subscribe());
        match live {
            Some(receiver) => Ok(receiver),
            None => {
                let job = self.0.shared.state.job(id).await?.ok_or_else(|| not_found(id))?;
                Ok(watch::Sender::new(JobView::new(job)).subscribe())
            }
        }
    }

    /// Waits until a job has ended, and returns it.
    ///
    /// # Errors
    /// As for [`job`](Self::job).
    pub(super) async fn wait(&self, id: JobId) -> Result<Arc<Job>> {
        let mut view = self.watch(id).await?;
        // The channel's borrow ends before the next await: callers may be on any thread.
        let ended = view.wait_for(|view| view.job().state.is_final()).await.map(|view| view.job().clone());
        match ended {
            Ok(job) => Ok(job),
            // The last view of a job that ended is always its end.
            Err(_) => self.job(id).await,
        }
    }

    /// Asks a job to stop, and returns its present state. The job ends once it has cleaned up.
    ///
    /// # Errors
    /// As for [`job`](Self::job); [`ErrorKind::Refused`] if it has already ended.
    pub(super) async fn cancel(&self, id: JobId) -> Result<Arc<Job>> {
        let live = lock(&self.0.shared.live).jobs.get(&id).cloned();
        match live {
            Some(live) if !live.view.borrow().job().state.is_final() => {
                live.cancelled.store(true, Ordering::SeqCst);
                live.stop.cancel();
                Ok(live.view.borrow().job().clone())
            }
            _ => {
                let job = self.job(id).await?;
                Err(Error::new(ErrorKind::Refused, format!("job {id} has ended already: {}", job.state.name())))
            }
        }
    }

    /// How many jobs of each kind wait, and how many work.
    pub(super) fn count(&self) -> Vec<(JobKind, JobState, u64)> {
        let live = lock(&self.0.shared.live);
        let mut counts = Vec::new();
        for kind in JobKind::ALL {
            for state in [JobState::Queued, JobState::Running] {
                let is_such = |live: &&Arc<Live>| {
                    let job = lock(&live.job);
                    job.kind == kind && job.state == state
                };
                counts.push((kind, state, live.jobs.values().filter(is_such).count() as u64));
            }
        }
        counts
    }

    /// The jobs that have not ended, in their present state.
    pub(super) fn unfinished(&self) -> Vec<Arc<Job>> {
        lock(&self.0.shared.live)
            .jobs
            .values()
            .map(|live| live.view.borrow().job().clone())
            .filter(|j| !j.state.is_final())
            .collect()
    }

    /// Continues only if the service accepts work. A shutdown waits until the returned token is
    /// dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Closing`].
    pub(super) fn enter(&self) -> Result<TaskTrackerToken> {
        let entered = self.0.shared.tracker.token();
        self.0.shared.refuse_if_closing()?;
        Ok(entered)
    }

    /// Whether jobs are accepted.
    pub(super) fn is_open(&self) -> bool {
        !self.0.shared.closing.is_cancelled()
    }

    /// Accepts no more jobs, and ends waiting ones.
    pub(super) fn close(&self) {
        self.0.shared.closing.cancel();
        self.0.shared.tracker.close();
    }

    /// Shuts down: accepts no more jobs, gives running jobs this grace period, then stops them, and
    /// returns when all have cleaned up. Jobs that wait for an unresponsive disk are left behind;
    /// they count as interrupted when the service starts again.
    pub(super) async fn shut_down(&self, grace: Duration) {
        self.close();
        let waiting = self.unfinished().len();
        if waiting > 0 {
            tracing::info!("waiting up to {} s for {waiting} jobs to end", grace.as_secs());
        }
        // Without jobs, only short operations are in progress.
        let grace = if waiting > 0 { grace } else { grace.min(LAST_QUESTIONS) };
        if tokio::time::timeout(grace, self.0.shared.tracker.wait()).await.is_ok() {
            return;
        }
        if waiting > 0 {
            tracing::warn!("stopping what has not ended within {} s", grace.as_secs());
        }
        self.0.shared.stop.cancel();
        let last = if waiting > 0 { LAST_JOBS } else { Duration::ZERO };
        if tokio::time::timeout(last, self.0.shared.tracker.wait()).await.is_err() {
            tracing::error!(
                "left behind what did not end on request, including {} jobs: the disk of the backups does not answer, or cleaning \
                 up takes too long",
                self.unfinished().len()
            );
        }
    }
}

/// The final state of a job without a live owner.
fn interrupted(orphan: Orphan) -> Job {
    let mut job = orphan.job;
    job.state = JobState::Interrupted;
    job.finished = Some(clock::now());
    let error = Error::new(
        ErrorKind::Interrupted,
        "the service ended before the job did: it was killed, or the machine lost power",
    )
    .hint(
        "no data is at risk: an unfinished backup does not count, and the next import finishes or removes an unfinished import",
    );
    // A job with a completed backup was importing it.
    let stage = if job.result.backup.is_some() { JobKind::Import } else { job.kind };
    job.error = Some(JobError::of(stage, &error));
    job
}

fn not_found(id: JobId) -> Error {
    Error::new(ErrorKind::NotFound, format!("job {id} does not exist"))
        .hint("GET /api/jobs lists the existing jobs; the newest thousand are kept")
}

#[cfg(test)]
mod tests;
