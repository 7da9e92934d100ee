//! Verify jobs: check that a backup is as it was written.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::engine::verify::{self, HINT, VerifyOptions, VerifyReport};
use crate::error::{Error, ErrorKind, Result};
use crate::names::BackupName;
use crate::service::inner::Inner;
use crate::service::job::{Job, JobId, JobKind, Trigger};
use crate::service::jobs::{Failure, JobContext};
use crate::service::task::Task;
use crate::service::told;

/// What to verify, and how. The manifest is read again when the job starts, since many jobs may
/// wait.
#[derive(Serialize, Deserialize)]
struct Parameters {
    backup: BackupName,
    deep: bool,
}

/// Begins a verify job.
///
/// # Errors
/// [`ErrorKind::NotFound`]; [`ErrorKind::Refused`] if the backup is incomplete; those of
/// [`Jobs::submit`](crate::service::jobs::Jobs::submit).
pub(in crate::service) async fn begin(service: Arc<Inner>, name: String, deep: bool) -> Result<JobId> {
    let _entered = service.jobs.enter()?;
    let name = service.resolve(&name).await?;
    // An unusable manifest is a finding of the verification, not an error here.
    match service.find(name.as_str()).await {
        Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
        _ => {}
    }
    let mut job = Job::new(JobKind::Verify, Trigger::Manual, clock::now());
    job.backup = Some(name.to_string());
    let task = Task::new(JobKind::Verify, &Parameters { backup: name, deep })?;
    service.jobs.submit(job, task, BTreeSet::new()).await
}

/// Runs a verify job.
pub(super) async fn run(service: Arc<Inner>, task: Task, context: JobContext) -> Result<(), Failure> {
    let Parameters { backup: name, deep } = task.parameters().map_err(Failure::at(JobKind::Verify))?;
    context.progress.begin("verifying");
    let backup = match service.find(name.as_str()).await {
        Ok(backup) => backup,
        Err(error) => {
            service.listing.forget();
            // The unusable manifest is the finding.
            if error.kind() == ErrorKind::Damaged {
                context.update(|job| job.result.verify = Some(VerifyReport::unusable(name.as_str(), deep, &error)));
            }
            return Err(Failure::at(JobKind::Verify)(error));
        }
    };
    let report = verify::run(&backup, &VerifyOptions { deep }, &service.works_with(&context)).await;
    service.listing.forget();
    let report = report.map_err(Failure::at(JobKind::Verify))?;
    told::verified(&report);
    let first = report.problems.first().map(|first| Error::new(ErrorKind::Mismatch, &first.message).hint(HINT));
    let failure = report.failure().and_then(|error| Some(first?.context(error)));
    context.update(|job| job.result.verify = Some(report));
    failure.map_or(Ok(()), |error| Err(Failure::at(JobKind::Verify)(error)))
}
