//! Bodies of requests: JSON, of a limited size, of exactly the fields that are known.

use std::time::Duration;

use rocket::data::{Data, FromData, Limits, Outcome, ToByteUnit as _};
use rocket::http::Status;
use rocket::outcome::Outcome as Either;
use rocket::request::Request;
use rocket::tokio::io::{AsyncReadExt as _, copy, sink};
use rocket::tokio::time::timeout;
use serde::de::DeserializeOwned;

use super::failure::{Failure, turn_away};

/// How long, and how much, of a body that is too large is taken and thrown away: a client that still sends when the connection is closed does not see the answer.
const PATIENCE: Duration = Duration::from_secs(2);
const DRAINED: u64 = 256 * 1024 * 1024;
/// How long any other may take to come.
const ALL_OF_IT: Duration = Duration::from_secs(30);

/// A body that must be there, whatever its content type says: it is JSON, or the request is bad.
pub(super) struct Body<T>(pub(super) T);

/// A body that may be left out.
pub(super) struct Optional<T>(pub(super) T);

#[rocket::async_trait]
impl<'r, T: DeserializeOwned + Send> FromData<'r> for Body<T> {
    type Error = ();

    async fn from_data(request: &'r Request<'_>, data: Data<'r>) -> Outcome<'r, Self> {
        match read(request, data).await.and_then(|bytes| parse(&bytes)) {
            Ok(body) => Either::Success(Self(body)),
            Err(failure) => turn_away(request, failure),
        }
    }
}

#[rocket::async_trait]
impl<'r, T: DeserializeOwned + Default + Send> FromData<'r> for Optional<T> {
    type Error = ();

    async fn from_data(request: &'r Request<'_>, data: Data<'r>) -> Outcome<'r, Self> {
        let parsed = read(request, data).await.and_then(|bytes| match bytes.trim_ascii() {
            b"" | b"null" => Ok(T::default()),
            _ => parse(&bytes),
        });
        match parsed {
            Ok(body) => Either::Success(Self(body)),
            Err(failure) => turn_away(request, failure),
        }
    }
}

async fn read(request: &Request<'_>, data: Data<'_>) -> Result<Vec<u8>, Failure> {
    let limit = request.limits().get("json").unwrap_or(Limits::JSON).as_u64();
    let said = request.headers().get_one("Content-Length").and_then(|length| length.parse::<u64>().ok());
    let mut stream = data.open(DRAINED.bytes());
    let mut bytes = Vec::new();
    let too_large = said.is_some_and(|length| length > limit) || {
        let read = timeout(ALL_OF_IT, (&mut stream).take(limit + 1).read_to_end(&mut bytes)).await;
        let read = read.map_err(|_| {
            let message = format!("the body did not come within {} s", ALL_OF_IT.as_secs());
            Failure::new(Status::BadRequest, "badRequest", message)
        })?;
        read.map_err(|e| Failure::new(Status::BadRequest, "badRequest", format!("the body cannot be read: {e}")))?;
        bytes.len() as u64 > limit
    };
    if !too_large {
        return Ok(bytes);
    }
    let _whatever_comes = timeout(PATIENCE, copy(&mut stream, &mut sink())).await;
    Err(Failure::new(Status::PayloadTooLarge, "tooLarge", format!("the body has more than {limit} bytes")))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let bad = |what: String| {
        Failure::new(Status::BadRequest, "badRequest", format!("the body is not what is expected: {what}"))
            .hint("GET /api/openapi.json describes it")
    };
    // Lists would be taken for the fields in their order.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(bad("it is no JSON object".to_owned()));
    }
    serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))
}
