//! Hands a request that came over the network to Rocket, and its answer back.
//!
//! The body is read first, within a limit and a time, and only if it will be looked at: for who sends no token that is known, next
//! to nothing is read.

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

/// How long a body may take to come.
const ALL_OF_IT: Duration = Duration::from_secs(30);
/// The same for who sends no token that is known, and the most bytes.
const OF_STRANGERS: (Duration, usize) = (Duration::from_secs(5), 1024);
/// How long, and how much, of a body that is too large is taken and thrown away: a client that still sends when the connection is
/// closed does not see the answer.
const DRAINED: (Duration, usize) = (Duration::from_secs(2), 256 * 1024 * 1024);
/// How much of an answer is in memory at a time.
const CHUNK: usize = 64 * 1024;

/// The body of an answer.
pub(super) type Body = StreamBody<BoxStream<'static, std::io::Result<Frame<Bytes>>>>;

/// Answers a request. What was begun goes on if the client goes away.
pub(super) async fn answer(
    client: Arc<Client>,
    request: Request<Incoming>,
    peer: SocketAddr,
    seat: Arc<Seat>,
) -> Result<Response<Body>, Infallible> {
    let (parts, incoming) = request.into_parts();
    let known = access::is_known(client.rocket(), parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()));
    // Whoever is known is answered whatever else comes; a stranger's connection may be closed for another one.
    let busy = known.then(|| seat.busy());
    let body = match body(&client, &parts, incoming, known).await {
        Ok(body) => body,
        Err(refusal) => return Ok(refusal),
    };
    // Rocket would take a field `_method` of a form for the method of the request.
    if is_form(&parts) && !body.trim_ascii_start().starts_with(b"{") && !body.is_empty() {
        let message = "the body is a form, and not JSON".to_owned();
        return Ok(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupportedMediaType", message));
    }
    let busy = busy.unwrap_or_else(|| seat.busy());
    let (head, answered) = oneshot::channel();
    tokio::spawn(carry(client, parts, body, peer, busy, head));
    Ok(answered.await.unwrap_or_else(|_| {
        refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request failed of a defect of this program".to_owned())
    }))
}

/// The body of a request, as far as it matters: one byte more than the limit is enough to tell that it is too large.
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
                let message = format!("the body did not come within {} s", patience.as_secs());
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

/// Why a body is not whole.
enum Cut {
    Late,
    Broken(hyper::Error),
}

/// Takes a body until its end, or until there was more than `limit` of it.
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

/// Has Rocket answer, and sends on what it answers, piece by piece.
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
        let message = format!("{} is no method that is known here", parts.method);
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

/// The answer, its status and headers taken from Rocket's.
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

/// What is answered without Rocket; the connection ends with it.
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
