//! `/healthz` and `/readyz`: for what watches over the process. They need no token, and tell nobody anything else.

use rocket::http::Status;
use rocket::{State, get};

use super::answer::Answer;
use super::dto::{Alive, Done, FailureBody, Ready};
use super::failure::Failure;
use crate::service::MongoBackupService;

/// Whether the process is alive.
#[utoipa::path(
    tag = "health",
    operation_id = "isAlive",
    security(()),
    responses((status = 200, description = "It is", body = Done<Alive>))
)]
#[get("/healthz")]
pub(super) async fn healthz() -> Answer<Alive> {
    Answer::data(Alive { alive: true })
}

/// Whether the service takes work and could do it.
#[utoipa::path(
    tag = "health",
    operation_id = "isReady",
    security(()),
    responses(
        (status = 200, description = "It does", body = Done<Ready>),
        (status = 503, description = "It does not: the message says why", body = FailureBody),
    )
)]
#[get("/readyz")]
pub(super) async fn readyz(service: &State<MongoBackupService>) -> Result<Answer<Ready>, Failure> {
    let readiness = service.readiness();
    if !readiness.ready {
        let kind = if readiness.accepting { "notReady" } else { "closing" };
        let reason = readiness.reason.unwrap_or_else(|| "the service is not ready".to_owned());
        return Err(Failure::new(Status::ServiceUnavailable, kind, reason));
    }
    Ok(Answer::data(Ready {
        ready: readiness.ready,
        accepting: readiness.accepting,
        atlas: readiness.atlas.map(|state| state.connected),
        local: readiness.local.map(|state| state.connected),
        reason: readiness.reason,
    }))
}
