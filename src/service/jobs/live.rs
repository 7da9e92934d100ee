//! Unfinished jobs: their state, and their claims within this instance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::service::job::{Job, JobId};
use crate::service::state::{Assignment, Claim, Conflict};

/// The most jobs that may wait or work at the same time.
pub(super) const UNFINISHED: usize = 100;
/// The most collections in an event.
const COLLECTIONS_IN_EVENT: usize = 50;

/// A job's present state.
#[derive(Debug, Clone)]
pub struct JobView {
    job: Arc<Job>,
    event: Arc<OnceLock<Arc<str>>>,
}

impl JobView {
    pub(super) fn new(job: Job) -> Self {
        Self { job: Arc::new(job), event: Arc::default() }
    }

    /// The job, with every collection.
    #[must_use]
    pub fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// The job as JSON for an event, with only the collections in progress. Created once, for all
    /// callers.
    #[must_use]
    pub fn event(&self) -> Arc<str> {
        self.event
            .get_or_init(|| {
                let mut job = Job::clone(&self.job);
                job.progress.collections.retain(|c| !c.finished);
                job.progress.collections.truncate(COLLECTIONS_IN_EVENT);
                serde_json::to_string(&job).unwrap_or_default().into()
            })
            .clone()
    }
}

/// A job that has not ended.
pub(super) struct Live {
    pub(super) job: Mutex<Job>,
    /// Its owner, its task and its claims.
    pub(super) assignment: Mutex<Assignment>,
    pub(super) view: watch::Sender<JobView>,
    pub(super) stop: CancellationToken,
    /// Whether a request asked it to stop.
    pub(super) cancelled: AtomicBool,
}

impl Live {
    pub(super) fn new(job: Job, assignment: Assignment, stop: CancellationToken) -> Self {
        Self {
            view: watch::Sender::new(JobView::new(job.clone())),
            job: Mutex::new(job),
            assignment: Mutex::new(assignment),
            stop,
            cancelled: AtomicBool::new(false),
        }
    }
}

/// The unfinished jobs of this instance, and their claims.
#[derive(Default)]
pub(super) struct LiveJobs {
    pub(super) jobs: BTreeMap<JobId, Arc<Live>>,
    claims: BTreeMap<Claim, JobId>,
}

impl LiveJobs {
    /// Admits a job with all of its claims, or not at all.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another job holds one of them; [`ErrorKind::TooMany`] if
    /// [`UNFINISHED`] jobs wait or work.
    pub(super) fn admit(&mut self, id: JobId, job: &Arc<Live>) -> Result<()> {
        let claims = lock(&job.assignment).claims.clone();
        if let Some(conflict) = self.conflict(id, &claims) {
            return Err(busy(&conflict));
        }
        // Queued jobs never keep out a backup, and only one backup can be there.
        if self.jobs.len() >= UNFINISHED && !claims.contains(&Claim::Source) {
            return Err(Error::new(ErrorKind::TooMany, format!("{UNFINISHED} jobs are already waiting or working"))
                .hint("wait until some of them end, or cancel them: GET /api/jobs lists them"));
        }
        self.claims.extend(claims.into_iter().map(|claim| (claim, id)));
        self.jobs.insert(id, job.clone());
        Ok(())
    }

    /// Claims more for a job, all or nothing. If another job holds some of it, returns that job.
    pub(super) fn claim(&mut self, id: JobId, more: &BTreeSet<Claim>) -> Option<Arc<Live>> {
        let holder = self.conflict(id, more).and_then(|conflict| self.jobs.get(&conflict.holder).cloned());
        if holder.is_none() {
            self.claims.extend(more.iter().map(|claim| (claim.clone(), id)));
        }
        holder
    }

    /// Releases a job's claims.
    pub(super) fn release(&mut self, id: JobId) {
        self.claims.retain(|_, holder| *holder != id);
    }

    fn conflict(&self, id: JobId, claims: &BTreeSet<Claim>) -> Option<Conflict> {
        claims.iter().find_map(|claim| {
            let holder = *self.claims.get(claim).filter(|holder| **holder != id)?;
            Some(Conflict { claim: claim.clone(), holder })
        })
    }
}

/// The error for a claim that another job holds.
pub(super) fn busy(conflict: &Conflict) -> Error {
    let Conflict { claim, holder } = conflict;
    let message = match claim {
        Claim::Source => format!("a backup of this source is running already: job {holder}"),
        Claim::Database(database) => format!("an import into the database {database:?} is running already: job {holder}"),
    };
    Error::new(ErrorKind::Busy, message).hint("wait until it ends, or cancel it").job(holder.to_string())
}
