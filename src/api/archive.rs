//! `/api/archive` and `/api/timeline`: the archive of the source's oplog, and which times can be
//! restored.

use rocket::{State, get, post};

use super::access::{Admin, Reader};
use super::answer::Answer;
use super::bodies::NoOptions;
use super::body::Optional;
use super::dto::{Done, FailureBody};
use super::failure::Failure;
use super::query::{Nothing, Query};
use crate::engine::timeline::Timeline;
use crate::service::{ArchiveView, MongoBackupService};

type Answered<T> = Result<Answer<T>, Failure>;

/// Returns what the archive of the source's oplog does, and how far it is.
#[utoipa::path(
    tag = "archive",
    operation_id = "getArchive",
    responses((status = 200, description = "The archive, running or not", body = Done<ArchiveView>))
)]
#[get("/api/archive")]
pub(super) async fn show(_by: Reader, _query: Query<Nothing>, service: &State<MongoBackupService>) -> Answered<ArchiveView> {
    Ok(Answer::data(service.archive()))
}

/// Starts the archive of the source's oplog, unless it runs.
///
/// The answer does not wait until it follows the source. After a restart of the service,
/// `PITR_ENABLED` decides whether it runs.
#[utoipa::path(
    tag = "archive",
    operation_id = "startArchive",
    request_body(content = Option<NoOptions>, content_type = "application/json"),
    responses(
        (status = 200, description = "It runs, and follows the source soon", body = Done<ArchiveView>),
        (status = 422, description = "A name of the query is unknown, or the configured URI is invalid", body = FailureBody),
        (status = 503, description = "The service is shutting down", body = FailureBody),
    )
)]
#[post("/api/archive/start", data = "<_body>")]
pub(super) async fn start(
    _by: Admin,
    _query: Query<Nothing>,
    _body: Optional<NoOptions>,
    service: &State<MongoBackupService>,
) -> Answered<ArchiveView> {
    Ok(Answer::said("The archive runs", service.start_archive().await?))
}

/// Stops the archive of the source's oplog, unless it is stopped.
///
/// It ends in order: the answer comes when everything that the source had is durable. What the
/// source writes from then on is archived once it is started again, if the source still has it.
/// After a restart of the service, `PITR_ENABLED` decides whether it runs.
#[utoipa::path(
    tag = "archive",
    operation_id = "stopArchive",
    request_body(content = Option<NoOptions>, content_type = "application/json"),
    responses(
        (status = 200, description = "It is stopped", body = Done<ArchiveView>),
        (status = 409, description = "It has not ended within a minute, because the source or the storage does not answer", body = FailureBody),
        (status = 503, description = "The service is shutting down", body = FailureBody),
    )
)]
#[post("/api/archive/stop", data = "<_body>")]
pub(super) async fn stop(
    _by: Admin,
    _query: Query<Nothing>,
    _body: Optional<NoOptions>,
    service: &State<MongoBackupService>,
) -> Answered<ArchiveView> {
    Ok(Answer::said("The archive is stopped", service.stop_archive().await?))
}

/// Returns which times can be restored, and what happened in them.
///
/// All archives below the backup path are read, one request at a time. Damage is in the answer.
#[utoipa::path(
    tag = "archive",
    operation_id = "getTimeline",
    responses(
        (status = 200, description = "The times, gaps, commands and bursts of deletes", body = Done<Timeline>),
        (status = 409, description = "The service is shutting down", body = FailureBody),
    )
)]
#[get("/api/timeline")]
pub(super) async fn timeline(_by: Reader, _query: Query<Nothing>, service: &State<MongoBackupService>) -> Answered<Timeline> {
    Ok(Answer::data(service.timeline().await?))
}
