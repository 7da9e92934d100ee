//! `/healthz` and `/readyz`: for supervisors of the process. They need no token, and reveal nothing
//! else.

use rocket::http::Status;
use rocket::request::Request;
use rocket::response::{self, Responder};
use rocket::{State, get};

use super::answer::{Answer, json};
use super::dto::{Alive, Done, FailureBody, FailureError, NotReady};
use super::query::{Nothing, Query};
use super::request::Arrival;
use crate::service::{MongoBackupService, Readiness};

/// Returns 200 if the process is alive.
#[utoipa::path(
    tag = "health",
    operation_id = "isAlive",
    security(()),
    responses((status = 200, description = "The process is alive", body = Done<Alive>))
)]
#[get("/healthz")]
pub(super) async fn healthz(_query: Query<Nothing>) -> Answer<Alive> {
    Answer::data(Alive { alive: true })
}

/// Returns 200 if the service takes work and can do it.
#[utoipa::path(
    tag = "health",
    operation_id = "isReady",
    security(()),
    responses(
        (status = 200, description = "The service is ready", body = Done<Readiness>),
        (status = 503, description = "The service is not ready; the message tells why", body = NotReady),
    )
)]
#[get("/readyz")]
pub(super) async fn readyz(_query: Query<Nothing>, service: &State<MongoBackupService>) -> Result<Answer<Readiness>, Unready> {
    let readiness = service.readiness();
    if readiness.ready { Ok(Answer::data(readiness)) } else { Err(Unready(readiness)) }
}

/// A service that is not ready, with its state.
pub(super) struct Unready(Readiness);

impl<'r> Responder<'r, 'static> for Unready {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let kind = if self.0.accepting { "notReady" } else { "closing" };
        let message = self.0.reason.clone().unwrap_or_else(|| "the service is not ready".to_owned());
        let error = FailureError { kind: kind.to_owned(), hint: None, request_id: Arrival::of(request).id.clone(), job_id: None };
        let failure = FailureBody { success: false, message, error };
        json(Status::ServiceUnavailable, &NotReady { failure, data: self.0 })
    }
}
