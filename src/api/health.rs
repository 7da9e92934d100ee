//! `/healthz` and `/readyz`: for what watches over the process. They need no token, and tell nobody anything else.

use rocket::http::Status;
use rocket::request::Request;
use rocket::response::{self, Responder};
use rocket::{State, get};

use super::answer::{Answer, json};
use super::dto::{Alive, Done, FailureError, NotReady, Ready};
use super::query::{Nothing, Query};
use super::request::Arrival;
use crate::service::MongoBackupService;

/// Whether the process is alive.
#[utoipa::path(
    tag = "health",
    operation_id = "isAlive",
    security(()),
    responses((status = 200, description = "It is", body = Done<Alive>))
)]
#[get("/healthz")]
pub(super) async fn healthz(_query: Query<Nothing>) -> Answer<Alive> {
    Answer::data(Alive { alive: true })
}

/// Whether the service takes work and could do it.
#[utoipa::path(
    tag = "health",
    operation_id = "isReady",
    security(()),
    responses(
        (status = 200, description = "It does", body = Done<Ready>),
        (status = 503, description = "It does not: the message says why", body = NotReady),
    )
)]
#[get("/readyz")]
pub(super) async fn readyz(_query: Query<Nothing>, service: &State<MongoBackupService>) -> Result<Answer<Ready>, Unready> {
    let readiness = service.readiness();
    let ready = Ready {
        ready: readiness.ready,
        accepting: readiness.accepting,
        atlas: readiness.atlas.map(|state| state.connected),
        local: readiness.local.map(|state| state.connected),
        warning: readiness.warning,
        reason: readiness.reason,
    };
    if ready.ready { Ok(Answer::data(ready)) } else { Err(Unready(ready)) }
}

/// A service that is not ready, with what it knows.
pub(super) struct Unready(Ready);

impl<'r> Responder<'r, 'static> for Unready {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let kind = if self.0.accepting { "notReady" } else { "closing" };
        let body = NotReady {
            success: false,
            message: self.0.reason.clone().unwrap_or_else(|| "the service is not ready".to_owned()),
            error: FailureError { kind: kind.to_owned(), hint: None, request_id: Arrival::of(request).id.clone(), job_id: None },
            data: self.0,
        };
        json(Status::ServiceUnavailable, &body)
    }
}
