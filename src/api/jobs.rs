//! `/api/jobs`: jobs, their progress and their results.

use rocket::http::Status;
use rocket::{State, delete, get};

use super::access::{Admin, Reader};
use super::answer::Answer;
use super::dto::{Done, FailureBody, JobList};
use super::failure::Failure;
use super::query::{Nothing, Query, Which};
use crate::service::{Job, JobId, MongoBackupService};

/// Lists the newest jobs, newest first.
#[utoipa::path(
    tag = "jobs",
    operation_id = "listJobs",
    params(Which),
    responses(
        (status = 200, description = "The jobs", body = Done<JobList>),
        (status = 422, description = "A value of the query is unknown or out of range", body = FailureBody),
    )
)]
#[get("/api/jobs")]
pub(super) async fn list(
    _by: Reader,
    query: Query<Which>,
    service: &State<MongoBackupService>,
) -> Result<Answer<JobList>, Failure> {
    let limit = usize::try_from(query.0.limit).unwrap_or(usize::MAX);
    let jobs = service.jobs(limit, query.0.kind, query.0.state).await?;
    Ok(Answer::data(JobList { jobs: jobs.iter().map(|job| Job::clone(job)).collect() }))
}

/// Returns a job.
///
/// Jobs survive a restart of the service. It keeps the newest thousand.
#[utoipa::path(
    tag = "jobs",
    operation_id = "getJob",
    params(("id" = JobId, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The job", body = Done<Job>),
        (status = 404, description = "The job does not exist", body = FailureBody),
    )
)]
#[get("/api/jobs/<id>")]
pub(super) async fn show(
    _by: Reader,
    id: &str,
    _query: Query<Nothing>,
    service: &State<MongoBackupService>,
) -> Result<Answer<Job>, Failure> {
    Ok(Answer::data(Job::clone(&*service.job(identity(id)?).await?)))
}

/// Cancels a job.
///
/// The job cleans up, ends and leaves nothing behind. If it is importing a backup that it has just
/// completed, that backup stays.
#[utoipa::path(
    tag = "jobs",
    operation_id = "cancelJob",
    params(("id" = JobId, Path, description = "The job's id")),
    responses(
        (status = 202, description = "The job was asked to stop; this is its present state", body = Done<Job>),
        (status = 404, description = "The job does not exist", body = FailureBody),
        (status = 409, description = "The job has already ended", body = FailureBody),
    )
)]
#[delete("/api/jobs/<id>")]
pub(super) async fn cancel(
    _by: Admin,
    id: &str,
    _query: Query<Nothing>,
    service: &State<MongoBackupService>,
) -> Result<Answer<Job>, Failure> {
    let job = Job::clone(&*service.cancel(identity(id)?).await?);
    Ok(Answer::Accepted(Done { success: true, message: Some("the job was asked to stop".to_owned()), data: job }))
}

/// The job that a path names. An id that is not a UUID is not found.
pub(super) fn identity(id: &str) -> Result<JobId, Failure> {
    id.parse().map_err(|_| {
        Failure::new(Status::NotFound, "notFound", format!("{id:?} is not a job id, expected a UUID"))
            .hint("GET /api/jobs lists the known jobs")
    })
}
