//! `/api/jobs`: what was begun, how far it is, and its end.

use rocket::http::Status;
use rocket::{State, delete, get};

use super::access::{Admin, Reader};
use super::answer::Answer;
use super::dto::{Done, FailureBody, JobList};
use super::failure::Failure;
use super::query::{Nothing, Query, Which};
use crate::service::{Job, JobId, MongoBackupService};

/// The newest jobs, newest first.
#[utoipa::path(
    tag = "jobs",
    operation_id = "listJobs",
    params(Which),
    responses(
        (status = 200, description = "The jobs", body = Done<JobList>),
        (status = 422, description = "A value of the query is not known or out of range", body = FailureBody),
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

/// A job. It is known after a restart of the service, too; the newest thousand are kept.
#[utoipa::path(
    tag = "jobs",
    operation_id = "getJob",
    params(("id" = JobId, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The job", body = Done<Job>),
        (status = 404, description = "There is no such job", body = FailureBody),
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

/// Asks a job to stop. It ends when it has tidied up, and leaves nothing behind; a backup that was complete before, and was being imported, stays.
#[utoipa::path(
    tag = "jobs",
    operation_id = "cancelJob",
    params(("id" = JobId, Path, description = "The job's id")),
    responses(
        (status = 202, description = "It was asked to; this is how it stands now", body = Done<Job>),
        (status = 404, description = "There is no such job", body = FailureBody),
        (status = 409, description = "It has ended already", body = FailureBody),
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

/// The job that a path names. What is no id is no job's.
pub(super) fn identity(id: &str) -> Result<JobId, Failure> {
    id.parse().map_err(|_| {
        Failure::new(Status::NotFound, "notFound", format!("{id:?} is not a job's id, which is a UUID"))
            .hint("GET /api/jobs lists the jobs that are known")
    })
}
