//! `/api/schedule`: shows and changes when backups are taken.

use rocket::{State, get, put};

use super::access::{Admin, Reader};
use super::answer::Answer;
use super::body::Body;
use super::dto::{Done, FailureBody};
use super::failure::Failure;
use super::query::{Nothing, Query};
use crate::service::{MongoBackupService, Schedule, ScheduleChange};

/// Returns the schedule, and the result of the last scheduled backup.
#[utoipa::path(
    tag = "schedule",
    operation_id = "getSchedule",
    responses((status = 200, description = "The schedule", body = Done<Schedule>))
)]
#[get("/api/schedule")]
pub(super) async fn show(
    _by: Reader,
    _query: Query<Nothing>,
    service: &State<MongoBackupService>,
) -> Result<Answer<Schedule>, Failure> {
    Ok(Answer::data(service.schedule()))
}

/// Changes the schedule. Fields that are not given stay.
///
/// The change survives a restart. It ends when the schedule in the configuration changes.
#[utoipa::path(
    tag = "schedule",
    operation_id = "changeSchedule",
    request_body(content = ScheduleChange, content_type = "application/json"),
    responses(
        (status = 200, description = "The new schedule", body = Done<Schedule>),
        (status = 422, description = "The schedule is invalid", body = FailureBody),
        (status = 503, description = "The service is shutting down", body = FailureBody),
    )
)]
#[put("/api/schedule", data = "<body>")]
pub(super) async fn change(
    _by: Admin,
    _query: Query<Nothing>,
    body: Body<ScheduleChange>,
    service: &State<MongoBackupService>,
) -> Result<Answer<Schedule>, Failure> {
    Ok(Answer::said("Schedule changed", service.change_schedule(body.0).await?))
}
