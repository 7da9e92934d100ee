//! The context of a job's work, and the trait that does the work.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::live::{JobView, Live, LiveJobs};
use crate::clock;
use crate::context::lock;
use crate::context::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::service::job::{Job, JobId, JobKind};
use crate::service::state::{Claim, Lease, Owner, State};
use crate::service::task::Task;

/// How often to retry a claim that a job of another instance holds.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The phase of a job that did all of its work.
const DONE: &str = "done";

/// Does the work of jobs.
pub(in crate::service) trait Worker: Send + Sync {
    /// Does a task, as a task of the engine's runtime.
    fn work(self: Arc<Self>, task: Task, context: JobContext) -> BoxFuture<'static, Result<(), Failure>>;

    /// Called with every job that ended, before its waiters learn of it.
    fn ended(&self, job: &Arc<Job>);
}

/// Why a job did not do all of its work, and which part failed.
#[derive(Debug)]
pub(in crate::service) struct Failure {
    pub(in crate::service) stage: JobKind,
    pub(in crate::service) error: Error,
}

impl Failure {
    /// Turns errors into failures of this part.
    pub(in crate::service) fn at(stage: JobKind) -> impl Fn(Error) -> Self {
        move |error| Self { stage, error }
    }
}

/// What all jobs of an instance share.
pub(super) struct Shared {
    pub(super) state: State,
    pub(super) owner: Owner,
    pub(super) live: Mutex<LiveJobs>,
    /// One job of each kind works at a time.
    pub(super) lanes: [Semaphore; JobKind::ALL.len()],
    pub(super) tracker: TaskTracker,
    pub(super) closing: CancellationToken,
    pub(super) stop: CancellationToken,
    pub(super) engine: Handle,
}

impl Shared {
    /// # Errors
    /// [`ErrorKind::Closing`] if no more work is accepted.
    pub(super) fn refuse_if_closing(&self) -> Result<()> {
        if !self.closing.is_cancelled() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Closing, "the service is shutting down and takes no more work")
            .hint("try again once it runs again"))
    }
}

/// The context of a job's work.
#[derive(Clone)]
pub(in crate::service) struct JobContext {
    /// The job's id.
    pub(in crate::service) id: JobId,
    /// Its progress.
    pub(in crate::service) progress: Progress,
    /// Stops it.
    pub(in crate::service) stop: CancellationToken,
    pub(super) live: Arc<Live>,
    pub(super) shared: Arc<Shared>,
}

impl JobContext {
    /// Changes the job's record.
    pub(in crate::service) fn update(&self, change: impl FnOnce(&mut Job)) {
        let job = {
            let mut job = lock(&self.live.job);
            change(&mut job);
            job.clone()
        };
        self.live.view.send_replace(JobView::new(job));
    }

    /// Stores the job's present state, and renews its owner's lease, so that a kill does not lose
    /// them. If that fails, only the stored progress is out of date.
    pub(in crate::service) async fn keep(&self) {
        let (job, lease) = (lock(&self.live.job).clone(), Lease::from(self.shared.owner, clock::now()));
        if let Err(e) = self.shared.state.put(vec![job], Some(lease)).await {
            tracing::warn!("cannot store the job's progress: {e}");
        }
    }

    /// Marks all of the work as done.
    pub(in crate::service) fn done(&self) {
        self.progress.begin(DONE);
    }

    /// Whether a request stopped it, rather than a shutdown.
    pub(in crate::service) fn is_cancelled(&self) -> bool {
        self.live.cancelled.load(Ordering::SeqCst)
    }

    /// Claims more, and waits for jobs that hold it.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`] if the job is stopped meanwhile.
    pub(in crate::service) async fn claim(&self, more: BTreeSet<Claim>) -> Result<()> {
        loop {
            let holder = lock(&self.shared.live).claim(self.id, &more);
            let Some(holder) = holder else { break };
            let mut view = holder.view.subscribe();
            let ended = view.wait_for(|view| view.job().state.is_final());
            if self.stop.run_until_cancelled(ended).await.is_none() {
                return Err(Error::interrupted());
            }
        }
        let assignment = {
            let mut assignment = lock(&self.live.assignment);
            assignment.claims.extend(more);
            assignment.clone()
        };
        loop {
            let job = lock(&self.live.job).clone();
            match self.shared.state.admit(job, assignment.clone()).await {
                Ok(None) => return Ok(()),
                Ok(Some(_)) => {
                    if self.stop.run_until_cancelled(tokio::time::sleep(ASK_AGAIN)).await.is_none() {
                        return Err(Error::interrupted());
                    }
                }
                // Within this instance, it is claimed.
                Err(e) => {
                    tracing::warn!("cannot store the job's claims: {e}");
                    return Ok(());
                }
            }
        }
    }
}
