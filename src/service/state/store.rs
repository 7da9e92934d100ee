//! Where jobs are kept: a narrow trait, and the rules that whoever implements it follows.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Result;
use crate::service::job::{Job, JobId};
use crate::service::task::Task;

/// How many jobs are kept.
pub(in crate::service) const KEPT: usize = 1000;

/// For how long an instance counts as alive that is not heard of again.
const LEASE: TimeDelta = TimeDelta::seconds(60);

/// An instance of the service, from its beginning to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::service) struct Owner(Uuid);

impl Owner {
    pub(in crate::service) fn new() -> Self {
        Self(Uuid::now_v7())
    }

    pub(super) fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    pub(super) fn of_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

/// Until when an owner counts as alive. It is renewed as long as a job of its works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) struct Lease {
    pub(in crate::service) owner: Owner,
    pub(in crate::service) expires: DateTime<Utc>,
}

impl Lease {
    /// A lease from now on.
    pub(in crate::service) fn from(owner: Owner, now: DateTime<Utc>) -> Self {
        Self { owner, expires: now.checked_add_signed(LEASE).unwrap_or(now) }
    }
}

/// Something that one job at a time has for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::service) enum Claim {
    /// The configured source, to take a backup of.
    Source,
    /// A database of the target, to write to.
    Database(String),
}

/// Who is at a job that has not ended, what it is to do, and what it claims.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::service) struct Assignment {
    pub(in crate::service) owner: Owner,
    pub(in crate::service) task: Task,
    pub(in crate::service) claims: BTreeSet<Claim>,
}

/// What keeps a job from its claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::service) struct Conflict {
    /// What is claimed already.
    pub(in crate::service) claim: Claim,
    /// The job that has it.
    pub(in crate::service) holder: JobId,
}

/// A job that has not ended, and that nobody is at any more.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::service) struct Orphan {
    pub(in crate::service) job: Job,
    /// None of jobs that versions kept which did not say.
    pub(in crate::service) assignment: Option<Assignment>,
}

/// Keeps jobs, who is at them, and settings. Its calls block. What one of them changes is durable when it returns, and all of it or nothing.
///
/// All of them fail with [`ErrorKind::Storage`](crate::error::ErrorKind::Storage) for what the disk does, and with
/// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) for what cannot be read.
pub(in crate::service) trait JobStore: Send + Sync + 'static {
    /// What it is and where, for messages.
    fn place(&self) -> String;

    /// Keeps a job that has not ended with its assignment, and renews its owner's lease. A second time it keeps what the job claims by then.
    ///
    /// Where another owner that is alive has some of what is claimed, that is given, and nothing is kept. What its own other jobs claim is the owner's
    /// to know.
    fn admit(&self, job: &Job, assignment: &Assignment, now: DateTime<Utc>) -> Result<Option<Conflict>>;

    /// Keeps jobs as they are now, and renews a lease. Those that ended have no assignment any more; of those that ended, the oldest
    /// beyond [`KEPT`] go.
    fn put(&self, jobs: &[Job], lease: Option<Lease>) -> Result<()>;

    /// Jobs that have not ended and whose owner is gone, oldest first. An owner is gone when its lease expired, and where nobody else can
    /// have the store open.
    fn orphans(&self, now: DateTime<Utc>) -> Result<Vec<Orphan>>;

    /// Goes through the jobs, newest first, one at a time, until `look` has seen enough.
    fn visit(&self, look: &mut dyn FnMut(Job) -> ControlFlow<()>) -> Result<()>;

    /// One job.
    fn job(&self, id: JobId) -> Result<Option<Job>>;

    /// Keeps a setting.
    fn keep(&self, name: &str, value: &[u8]) -> Result<()>;

    /// A setting that was kept.
    fn kept(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Where that is which was kept before and is lost: it was damaged, and something new was begun.
    fn replaced(&self) -> Option<PathBuf> {
        None
    }
}

/// What keeps a job from what it claims, among the assignments of other jobs.
pub(super) fn conflict<'a>(
    job: JobId,
    assignment: &Assignment,
    others: impl IntoIterator<Item = (JobId, &'a Assignment)>,
    is_alive: impl Fn(Owner) -> bool,
) -> Option<Conflict> {
    others.into_iter().filter(|(id, other)| *id != job && other.owner != assignment.owner && is_alive(other.owner)).find_map(
        |(holder, other)| {
            let claim = other.claims.intersection(&assignment.claims).next()?.clone();
            Some(Conflict { claim, holder })
        },
    )
}
