//! Jobs that have not ended: what is known of each, and what each claims from others of this instance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::service::job::{Job, JobId};
use crate::service::state::{Assignment, Claim, Conflict};

/// Jobs that may wait or work at a time.
pub(super) const UNFINISHED: usize = 100;
/// Collections that an event tells of.
const COLLECTIONS_IN_EVENT: usize = 50;

/// A job as it is now.
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

    /// The job as JSON for an event: of its collections those that are being worked on. Made once, however many ask for it.
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
    /// Who is at it, what it is to do, and what it claims.
    pub(super) assignment: Mutex<Assignment>,
    pub(super) view: watch::Sender<JobView>,
    pub(super) stop: CancellationToken,
    /// Whether somebody asked for it to be stopped.
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

/// The jobs of this instance that have not ended, and what they claim.
#[derive(Default)]
pub(super) struct LiveJobs {
    pub(super) jobs: BTreeMap<JobId, Arc<Live>>,
    claims: BTreeMap<Claim, JobId>,
}

impl LiveJobs {
    /// Takes a job in, with all that it claims or not at all.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another one has some of it; [`ErrorKind::TooMany`] if [`UNFINISHED`] wait or work already.
    pub(super) fn admit(&mut self, id: JobId, job: &Arc<Live>) -> Result<()> {
        let claims = lock(&job.assignment).claims.clone();
        if let Some(conflict) = self.conflict(id, &claims) {
            return Err(busy(&conflict));
        }
        // A backup is never kept out by what others queue: there is one of its kind at a time.
        if self.jobs.len() >= UNFINISHED && !claims.contains(&Claim::Source) {
            return Err(Error::new(ErrorKind::TooMany, format!("{UNFINISHED} jobs wait or work already"))
                .hint("wait until some of them end, or cancel them: GET /api/jobs lists them"));
        }
        self.claims.extend(claims.into_iter().map(|claim| (claim, id)));
        self.jobs.insert(id, job.clone());
        Ok(())
    }

    /// Claims more for a job, all of it or nothing. Gives the job that has some of it, where one does.
    pub(super) fn claim(&mut self, id: JobId, more: &BTreeSet<Claim>) -> Option<Arc<Live>> {
        let holder = self.conflict(id, more).and_then(|conflict| self.jobs.get(&conflict.holder).cloned());
        if holder.is_none() {
            self.claims.extend(more.iter().map(|claim| (claim.clone(), id)));
        }
        holder
    }

    /// Gives back what a job claimed.
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

/// The error of a job that claims what another one has.
pub(super) fn busy(conflict: &Conflict) -> Error {
    let Conflict { claim, holder } = conflict;
    let message = match claim {
        Claim::Source => format!("a backup of this source is running already: job {holder}"),
        Claim::Database(database) => format!("an import into the database {database:?} is running already: job {holder}"),
    };
    Error::new(ErrorKind::Busy, message).hint("wait until it ends, or cancel it").job(holder.to_string())
}
