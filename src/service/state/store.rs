//! The store for jobs: a narrow trait, and the rules for its implementations.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Result;
use crate::service::job::{Job, JobId};
use crate::service::task::Task;

/// How many jobs are stored.
pub(in crate::service) const KEPT: usize = 1000;

/// How long an instance counts as alive after its last sign of life.
const LEASE: TimeDelta = TimeDelta::seconds(60);

/// An instance of the service, from its start to its end.
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

/// Until when an owner counts as alive. It is renewed while one of the owner's jobs works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::service) struct Lease {
    pub(in crate::service) owner: Owner,
    pub(in crate::service) expires: DateTime<Utc>,
}

impl Lease {
    /// A lease that begins now.
    pub(in crate::service) fn from(owner: Owner, now: DateTime<Utc>) -> Self {
        Self { owner, expires: now.checked_add_signed(LEASE).unwrap_or(now) }
    }
}

/// Something that only one job at a time may hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::service) enum Claim {
    /// The configured source, to back up.
    Source,
    /// A database of the target, to write to.
    Database(String),
}

/// An unfinished job's owner, task and claims.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::service) struct Assignment {
    pub(in crate::service) owner: Owner,
    pub(in crate::service) task: Task,
    pub(in crate::service) claims: BTreeSet<Claim>,
}

/// Why a job cannot have its claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::service) struct Conflict {
    /// The claim that is taken.
    pub(in crate::service) claim: Claim,
    /// The job that holds it.
    pub(in crate::service) holder: JobId,
}

/// An unfinished job whose owner is gone.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::service) struct Orphan {
    pub(in crate::service) job: Job,
    /// `None` for jobs of versions that did not store it.
    pub(in crate::service) assignment: Option<Assignment>,
}

/// Stores jobs, their assignments, and settings. Calls block. Each change is atomic, and durable
/// when its call returns.
///
/// All calls fail with [`ErrorKind::Storage`](crate::error::ErrorKind::Storage) on disk errors, and
/// with [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if the content cannot be read.
pub(in crate::service) trait JobStore: Send + Sync + 'static {
    /// What it is and where, for messages.
    fn place(&self) -> String;

    /// Stores an unfinished job with its assignment, and renews its owner's lease. A second call
    /// stores the job's new claims.
    ///
    /// If another live owner holds some of the claims, returns the conflict and stores nothing.
    /// Conflicts between jobs of the same owner are for the owner to detect.
    fn admit(&self, job: &Job, assignment: &Assignment, now: DateTime<Utc>) -> Result<Option<Conflict>>;

    /// Stores the present state of jobs, and renews a lease. Removes the assignments of jobs that
    /// have ended, and the oldest ended jobs beyond [`KEPT`].
    fn put(&self, jobs: &[Job], lease: Option<Lease>) -> Result<()>;

    /// Unfinished jobs whose owner is gone, oldest first. An owner is gone if its lease has
    /// expired, or if nobody else can have the store open.
    fn orphans(&self, now: DateTime<Utc>) -> Result<Vec<Orphan>>;

    /// Visits the jobs, newest first, one at a time, until `look` breaks.
    fn visit(&self, look: &mut dyn FnMut(Job) -> ControlFlow<()>) -> Result<()>;

    /// One job.
    fn job(&self, id: JobId) -> Result<Option<Job>>;

    /// Stores a setting.
    fn keep(&self, name: &str, value: &[u8]) -> Result<()>;

    /// A stored setting.
    fn kept(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// The path of a former store that was damaged and replaced by a new one.
    fn replaced(&self) -> Option<PathBuf> {
        None
    }
}

/// The first conflict between a job's claims and the assignments of other jobs.
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
