//! Failures as responses: errors of the service, failed jobs, bad requests, and Rocket's own
//! errors.

use std::sync::Mutex;

use rocket::http::Status;
use rocket::outcome::Outcome;
use rocket::request::Request;
use rocket::response::{self, Responder};

use super::answer::json;
use super::dto::{FailureBody, FailureError};
use super::request::{Arrival, ID_HEADER};
use crate::context::lock;
use crate::error::{Error, ErrorKind, Face};
use crate::service::{Job, JobState};

/// A failed request.
#[derive(Debug, Clone)]
pub(super) struct Failure(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: Status,
    kind: String,
    message: String,
    hint: Option<String>,
    job: Option<String>,
    header: Option<(&'static str, String)>,
}

impl Failure {
    pub(super) fn new(status: Status, kind: &str, message: impl Into<String>) -> Self {
        let (kind, message) = (kind.to_owned(), message.into());
        Self(Box::new(Inner { status, kind, message, hint: None, job: None, header: None }))
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.header = Some((name, value.into()));
        self
    }

    /// The failure of a job that did not succeed.
    pub(super) fn of_job(job: &Job) -> Self {
        let ended = |kind, message: String| Error::new(kind, message);
        let error = match &job.error {
            Some(error) => {
                let kind = ErrorKind::of_name(&error.kind).unwrap_or(ErrorKind::Internal);
                let told = ended(kind, error.message.clone());
                error.hint.iter().fold(told, |told, hint| told.hint(hint))
            }
            None => ended(ErrorKind::Internal, format!("job {} ended as {} for an unknown reason", job.id, job.state.name())),
        };
        // If another job was in the way, the client needs that job's id.
        let about = job.error.as_ref().and_then(|error| error.running.clone());
        let mut failure = Self::from(error.job(about.unwrap_or_else(|| job.id.to_string())));
        if job.state == JobState::Interrupted {
            failure.0.status = Status::ServiceUnavailable;
        }
        failure
    }

    /// An error from Rocket, or one that is only a status.
    pub(super) fn of_status(status: Status) -> Self {
        let (kind, message) = match status.code {
            400 => ("badRequest", "the request cannot be understood"),
            401 => ("unauthorized", "a token is needed: Authorization: Bearer TOKEN"),
            403 => ("forbidden", "this is not allowed"),
            404 => ("notFound", "nothing exists at this path"),
            405 => ("methodNotAllowed", "this path does not take this method"),
            406 => ("notAcceptable", "this path gives JSON"),
            413 => ("tooLarge", "the body is too large"),
            415 => ("unsupportedMediaType", "the body is not JSON"),
            422 => ("usage", "a value is out of range"),
            429 => ("tooManyRequests", "too many requests"),
            503 => ("closing", "the service is shutting down"),
            500..=599 => ("internal", "the request failed because of a defect in this program"),
            _ => ("badRequest", status.reason().unwrap_or("the request cannot be answered")),
        };
        Self::new(status, kind, message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Usage => Status::UnprocessableEntity,
            ErrorKind::NotFound => Status::NotFound,
            ErrorKind::Unreachable | ErrorKind::Denied | ErrorKind::Server | ErrorKind::SnapshotLost => Status::BadGateway,
            ErrorKind::Refused | ErrorKind::Gap | ErrorKind::Busy | ErrorKind::Interrupted => Status::Conflict,
            ErrorKind::Closing => Status::ServiceUnavailable,
            ErrorKind::TooMany => Status::TooManyRequests,
            ErrorKind::NotConfigured | ErrorKind::Damaged | ErrorKind::Mismatch | ErrorKind::Storage | ErrorKind::Internal => {
                Status::InternalServerError
            }
        };
        let (message, hint) = error.told(Face::Service);
        Self(Box::new(Inner {
            status,
            kind: error.kind().name().to_owned(),
            message,
            hint,
            job: error.job_id().map(str::to_owned),
            header: (error.kind() == ErrorKind::TooMany).then(|| ("Retry-After", "60".to_owned())),
        }))
    }
}

impl<'r> Responder<'r, 'static> for Failure {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        let Inner { status, kind, message, hint, job, header } = *self.0;
        let id = &Arrival::of(request).id;
        if status.class().is_server_error() {
            tracing::error!(requestId = id, status = status.code, kind, "{message}");
        }
        let body =
            FailureBody { success: false, message, error: FailureError { kind, hint, request_id: id.clone(), job_id: job } };
        let mut response = json(status, &body)?;
        // Unparsable requests bypass the fairings.
        response.set_raw_header(ID_HEADER, id.clone());
        if let Some((name, value)) = header {
            response.set_raw_header(name, value);
        }
        Ok(response)
    }
}

/// Why a guard rejected a request, for the catcher.
struct TurnedAway(Mutex<Option<Failure>>);

/// Why a guard rejected this request, if one did.
pub(super) fn turned_away(request: &Request<'_>) -> Option<Failure> {
    let kept = request.local_cache(|| TurnedAway(Mutex::default()));
    lock(&kept.0).take()
}

/// Rejects a request before its handler runs.
pub(super) fn turn_away<S, F>(request: &Request<'_>, failure: Failure) -> Outcome<S, (Status, ()), F> {
    let status = failure.0.status;
    let kept = request.local_cache(|| TurnedAway(Mutex::default()));
    *lock(&kept.0) = Some(failure);
    Outcome::Error((status, ()))
}
