//! Hands requests from the network to Rocket, and sends back its answers.
//!
//! The body is read first, within a limit of time and size, and only if it is needed. Without a
//! known token, next to nothing is read.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt as _};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use rocket::data::Limits;
use rocket::http::{Header, Method, Status};
use rocket::local::asynchronous::{Client, LocalRequest, LocalResponse};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::access;
use super::dto::{FailureBody, FailureError};
use super::request::ID_HEADER;
use super::seats::{Busy, Seat};

/// How long a body may take to arrive.
const ALL_OF_IT: Duration = Duration::from_secs(30);
/// The same without a known token, and the most bytes.
const OF_STRANGERS: (Duration, usize) = (Duration::from_secs(5), 1024);
/// How long, and how many bytes of, an oversized body is read and discarded. A client that still
/// sends when the connection closes does not see the answer.
const DRAINED: (Duration, usize) = (Duration::from_secs(2), 256 * 1024 * 1024);
/// The size of the pieces in which an answer is sent.
const CHUNK: usize = 64 * 1024;

/// The body of an answer.
pub(super) type Body = StreamBody<BoxStream<'static, std::io::Result<Frame<Bytes>>>>;

/// Answers a request. A job that it begins continues if the client disconnects.
pub(super) async fn answer(
    client: Arc<Client>,
    request: Request<Incoming>,
    peer: SocketAddr,
    seat: Arc<Seat>,
) -> Result<Response<Body>, Infallible> {
    let (parts, incoming) = request.into_parts();
    let known = access::is_known(client.rocket(), parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()));
    // A client with a known token keeps its connection. A stranger's may be closed for another one.
    let busy = known.then(|| seat.busy());
    let body = match body(&client, &parts, incoming, known).await {
        Ok(body) => body,
        Err(refusal) => return Ok(refusal),
    };
    // Rocket would take a form's field `_method` as the request's method.
    if is_form(&parts) && !body.trim_ascii_start().starts_with(b"{") && !body.is_empty() {
        let message = "the body is a form, expected JSON".to_owned();
        return Ok(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupportedMediaType", message));
    }
    let busy = busy.unwrap_or_else(|| seat.busy());
    let (head, answered) = oneshot::channel();
    tokio::spawn(carry(client, parts, body, peer, busy, head));
    Ok(answered.await.unwrap_or_else(|_| {
        refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the request failed because of a defect in this program".to_owned(),
        )
    }))
}

/// Reads the body of a request, up to one byte more than the limit. That is enough to see that it
/// is too large.
async fn body(client: &Client, parts: &Parts, mut incoming: Incoming, known: bool) -> Result<Vec<u8>, Response<Body>> {
    let limit = client.rocket().config().limits.get("json").unwrap_or(Limits::JSON).as_u64();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (patience, limit) = match (known, access::is_guarded(parts.uri.path())) {
        (true, _) => (ALL_OF_IT, limit),
        (false, true) => return Ok(Vec::new()),
        (false, false) => (OF_STRANGERS.0, limit.min(OF_STRANGERS.1)),
    };
    let said = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let is_too_large = said.is_some_and(|said| said > limit as u64);
    let mut bytes = Vec::new();
    if !is_too_large {
        match take(&mut incoming, limit, Instant::now() + patience, |part| bytes.extend_from_slice(part)).await {
            Ok(()) => {}
            Err(Cut::Late) => {
                let message = format!("the body did not arrive within {} s", patience.as_secs());
                return Err(refusal(StatusCode::REQUEST_TIMEOUT, "badRequest", message));
            }
            Err(Cut::Broken(e)) => {
                return Err(refusal(StatusCode::BAD_REQUEST, "badRequest", format!("the body cannot be read: {e}")));
            }
        }
    }
    if is_too_large || bytes.len() > limit {
        let _whatever_comes = take(&mut incoming, DRAINED.1, Instant::now() + DRAINED.0, |_| {}).await;
    }
    Ok(bytes)
}

fn is_form(parts: &Parts) -> bool {
    let said = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .trim_start()
        .to_ascii_lowercase();
    said.starts_with("application/x-www-form-urlencoded") || said.starts_with("multipart/form-data")
}

/// Why a body is not complete.
enum Cut {
    Late,
    Broken(hyper::Error),
}

/// Reads a body to its end, or until it exceeds `limit`.
async fn take(incoming: &mut Incoming, limit: usize, until: Instant, mut keep: impl FnMut(&[u8])) -> Result<(), Cut> {
    let mut taken = 0;
    while taken <= limit {
        match timeout_at(until, incoming.frame()).await {
            Err(_) => return Err(Cut::Late),
            Ok(None) => return Ok(()),
            Ok(Some(Err(e))) => return Err(Cut::Broken(e)),
            Ok(Some(Ok(frame))) => {
                if let Some(part) = frame.data_ref() {
                    let part = &part[..part.len().min(limit.saturating_add(1) - taken)];
                    taken += part.len();
                    keep(part);
                }
            }
        }
    }
    Ok(())
}

/// Lets Rocket answer, and forwards the answer piece by piece.
async fn carry(
    client: Arc<Client>,
    parts: Parts,
    body: Vec<u8>,
    peer: SocketAddr,
    busy: Busy,
    head: oneshot::Sender<Response<Body>>,
) {
    let asked = parts.method.as_str();
    let Some(method) = asked.parse::<Method>().ok().filter(|method| method.as_str() == asked) else {
        let message = format!("{} is not a known method", parts.method);
        let _client_left = head.send(refusal(StatusCode::BAD_REQUEST, "badRequest", message));
        return;
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request: LocalRequest<'_> = client.req(method, path.to_owned()).remote(peer).body(body);
    for (name, value) in &parts.headers {
        if let Ok(value) = std::str::from_utf8(value.as_bytes()) {
            request.add_header(Header::new(name.as_str().to_owned(), value.to_owned()));
        }
    }
    let mut response = request.dispatch().await;
    let (sender, mut receiver) = mpsc::channel(1);
    let stream = stream::poll_fn(move |context| receiver.poll_recv(context)).boxed();
    if head.send(with_head(&response, StreamBody::new(stream))).is_err() {
        return;
    }
    let mut chunk = BytesMut::new();
    loop {
        chunk.reserve(CHUNK);
        let piece = match response.read_buf(&mut chunk).await {
            Ok(0) => break,
            Ok(_) => Ok(Frame::data(chunk.split().freeze())),
            Err(e) => Err(e),
        };
        let is_last = piece.is_err();
        if sender.send(piece).await.is_err() || is_last {
            break;
        }
    }
    drop(busy);
}

/// An answer with the status and headers of Rocket's.
fn with_head(response: &LocalResponse<'_>, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(response.status().code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    for header in response.headers().iter() {
        let name = HeaderName::from_bytes(header.name.as_str().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&header.value)) {
            headers.append(name, value);
        }
    }
    let has_length = response.status() != Status::NoContent && !headers.contains_key("transfer-encoding");
    if let Some(length) = response.body().preset_size().filter(|_| has_length) {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    answer
}

/// An answer without Rocket; the connection closes after it.
fn refusal(status: StatusCode, kind: &str, message: String) -> Response<Body> {
    let request_id = uuid::Uuid::new_v4().to_string();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if let (Ok(name), Ok(id)) = (HeaderName::from_bytes(ID_HEADER.as_bytes()), HeaderValue::from_str(&request_id)) {
        headers.insert(name, id);
    }
    let error = FailureError { kind: kind.to_owned(), hint: None, request_id, job_id: None };
    let json = serde_json::to_vec(&FailureBody { success: false, message, error }).unwrap_or_default();
    let body = stream::iter([Ok(Frame::data(Bytes::from(json)))]).boxed();
    let mut response = Response::new(StreamBody::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
