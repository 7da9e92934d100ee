//! Responses to calls that succeed.

use std::io::Cursor;

use rocket::http::{ContentType, Status};
use rocket::request::Request;
use rocket::response::{self, Responder, Response};
use serde::Serialize;

use super::dto::{Begun, Done};
use crate::error::{Error, ErrorKind, Result};
use crate::service::{Answered, JobId};

/// The answer to a call that is done, or that began a job.
pub(super) enum Answer<T> {
    /// It is done.
    Done(Done<T>),
    /// It is under way: status 202, with a message and data.
    Accepted(Done<T>),
    /// Its job is under way.
    Begun(JobId),
}

impl<T> Answer<T> {
    /// Data without a message.
    pub(super) fn data(data: T) -> Self {
        Self::Done(Done { success: true, message: None, data })
    }

    /// Data with a message.
    pub(super) fn said(message: impl Into<String>, data: T) -> Self {
        Self::Done(Done { success: true, message: Some(message.into()), data })
    }
}

impl<'r, T: Serialize> Responder<'r, 'static> for Answer<T> {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        match self {
            Self::Done(done) => json(Status::Ok, &done),
            Self::Accepted(done) => json(Status::Accepted, &done),
            Self::Begun(job_id) => {
                let begun = Done { success: true, message: Some("the job has begun".to_owned()), data: Begun { job_id } };
                let mut response = json(Status::Accepted, &begun)?;
                response.set_raw_header("Location", format!("/api/jobs/{job_id}"));
                Ok(response)
            }
        }
    }
}

/// A body that is already written as JSON.
pub(super) struct Text(pub(super) Answered);

impl<'r> Responder<'r, 'static> for Text {
    fn respond_to(self, _: &'r Request<'_>) -> response::Result<'static> {
        let length = self.0.as_ref().len();
        Response::build().header(ContentType::JSON).sized_body(length, Cursor::new(self.0)).ok()
    }
}

/// Writes a JSON body.
pub(super) fn text(body: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(body)
        .map_err(|e| Error::new(ErrorKind::Internal, format!("an answer cannot be written as JSON: {e}")).cause(e))
}

/// A response with this status and a JSON body.
pub(super) fn json(status: Status, body: &impl Serialize) -> response::Result<'static> {
    let bytes = serde_json::to_vec(body).map_err(|e| {
        tracing::error!("an answer cannot be written as JSON: {e}");
        Status::InternalServerError
    })?;
    Response::build().status(status).header(ContentType::JSON).sized_body(bytes.len(), Cursor::new(bytes)).ok()
}
