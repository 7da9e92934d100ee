//! Stores jobs in memory, as long as something holds it. Several instances may share it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, Utc};

use super::store::{Assignment, Conflict, JobStore, KEPT, Lease, Orphan, Owner, conflict};
use crate::context::lock;
use crate::error::Result;
use crate::service::job::{Job, JobId};

/// A store in memory. Clones share it.
#[derive(Clone, Default)]
pub(in crate::service) struct Memory(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    jobs: BTreeMap<JobId, Job>,
    assignments: BTreeMap<JobId, Assignment>,
    leases: BTreeMap<Owner, DateTime<Utc>>,
    settings: BTreeMap<String, Vec<u8>>,
}

impl Memory {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        lock(&self.0)
    }
}

impl JobStore for Memory {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn admit(&self, job: &Job, assignment: &Assignment, now: DateTime<Utc>) -> Result<Option<Conflict>> {
        let Kept { jobs, assignments, leases, .. } = &mut *self.kept();
        leases.retain(|_, expires| *expires > now);
        let others = assignments.iter().map(|(id, other)| (*id, other));
        if let Some(conflict) = conflict(job.id, assignment, others, |owner| leases.contains_key(&owner)) {
            return Ok(Some(conflict));
        }
        jobs.insert(job.id, job.clone());
        assignments.insert(job.id, assignment.clone());
        leases.insert(assignment.owner, Lease::from(assignment.owner, now).expires);
        Ok(None)
    }

    fn put(&self, changed: &[Job], lease: Option<Lease>) -> Result<()> {
        let Kept { jobs, assignments, leases, .. } = &mut *self.kept();
        for job in changed {
            jobs.insert(job.id, job.clone());
            if job.state.is_final() {
                assignments.remove(&job.id);
            }
        }
        while jobs.len() > KEPT {
            let Some(oldest) = jobs.iter().find(|(_, job)| job.state.is_final()).map(|(id, _)| *id) else { break };
            jobs.remove(&oldest);
        }
        leases.extend(lease.map(|lease| (lease.owner, lease.expires)));
        Ok(())
    }

    fn orphans(&self, now: DateTime<Utc>) -> Result<Vec<Orphan>> {
        let Kept { jobs, assignments, leases, .. } = &*self.kept();
        let is_alive = |id| assignments.get(id).and_then(|a| leases.get(&a.owner)).is_some_and(|expires| *expires > now);
        let orphans = jobs.iter().filter(|(id, job)| !job.state.is_final() && !is_alive(id));
        Ok(orphans.map(|(id, job)| Orphan { job: job.clone(), assignment: assignments.get(id).cloned() }).collect())
    }

    fn visit(&self, look: &mut dyn FnMut(Job) -> ControlFlow<()>) -> Result<()> {
        let jobs: Vec<Job> = self.kept().jobs.values().rev().cloned().collect();
        let _seen_enough = jobs.into_iter().try_for_each(look);
        Ok(())
    }

    fn job(&self, id: JobId) -> Result<Option<Job>> {
        Ok(self.kept().jobs.get(&id).cloned())
    }

    fn keep(&self, name: &str, value: &[u8]) -> Result<()> {
        self.kept().settings.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    fn kept(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(Memory::kept(self).settings.get(name).cloned())
    }
}
