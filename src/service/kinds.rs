//! What each kind of job does: a file for each kind, and a row in [`work`](Worker::work).

mod asked;
pub(super) mod backup;
pub(super) mod import;
pub(super) mod verify;

use std::sync::Arc;

use futures::future::BoxFuture;

use super::inner::Inner;
use super::job::{Job, JobKind};
use super::jobs::{Failure, JobContext, Worker};
use super::task::Task;

impl Worker for Inner {
    fn work(self: Arc<Self>, task: Task, context: JobContext) -> BoxFuture<'static, Result<(), Failure>> {
        match task.kind {
            JobKind::Backup => Box::pin(backup::run(self, task, context)),
            JobKind::Import => Box::pin(import::run(self, task, context)),
            JobKind::Verify => Box::pin(verify::run(self, task, context)),
        }
    }

    fn ended(&self, job: &Arc<Job>) {
        self.tell(job);
    }
}
