//! Request ids, client addresses, tokens, and the access log.

use std::net::IpAddr;
use std::time::Instant;

use rocket::fairing::{Fairing, Info, Kind};
use rocket::{Data, Request, Response};
use uuid::Uuid;

/// The header that carries a request's id.
pub(super) const ID_HEADER: &str = "X-Request-Id";
/// The longest id that is accepted from a client.
const LONGEST_ID: usize = 64;
/// The longest token that is accepted.
const LONGEST_TOKEN: usize = 1024;

/// What is known when a request arrives.
pub(super) struct Arrival {
    /// Its id: the client's if it is valid, else a new one.
    pub(super) id: String,
    at: Instant,
}

impl Arrival {
    /// The arrival of this request.
    pub(super) fn of<'r>(request: &'r Request<'_>) -> &'r Self {
        request.local_cache(|| {
            let given = request.headers().get_one(ID_HEADER).filter(|id| is_safe(id));
            Self { id: given.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned), at: Instant::now() }
        })
    }
}

/// Whether an id is safe in headers and logs.
fn is_safe(id: &str) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
}

/// The client's address, for logs and limits: the peer's, or the one that a trusted proxy names if
/// `ip_header` is configured.
pub(super) fn client(request: &Request<'_>) -> Option<IpAddr> {
    request.client_ip()
}

/// The token of a request.
pub(super) fn token<'r>(request: &'r Request<'_>) -> Option<&'r str> {
    request.headers().get_one("Authorization").and_then(bearer)
}

/// The token in an `Authorization` header.
pub(super) fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && (1..=LONGEST_TOKEN).contains(&token.len())).then_some(token)
}

/// Gives every request an id, and logs each answer. A stream is logged when it begins.
pub(super) struct Requests;

#[rocket::async_trait]
impl Fairing for Requests {
    fn info(&self) -> Info {
        Info { name: "request ids and access log", kind: Kind::Request | Kind::Response }
    }

    async fn on_request(&self, request: &mut Request<'_>, _: &mut Data<'_>) {
        Arrival::of(request);
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, response: &mut Response<'r>) {
        let arrival = Arrival::of(request);
        response.set_raw_header(ID_HEADER, arrival.id.clone());
        // The query is not logged: it should hold no secrets, but people put them there.
        let (status, path) = (response.status().code, request.uri().path());
        let ms = u64::try_from(arrival.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let client = client(request).map(tracing::field::display);
        let (id, method) = (&arrival.id, request.method());
        match status {
            // A rejected token is logged once, as a warning.
            401 => {
                let what = if token(request).is_some() { "a token that is not known" } else { "no token" };
                tracing::warn!(requestId = id, %method, %path, status, ms, client, "turned away: {what}");
            }
            _ => tracing::info!(requestId = id, %method, %path, status, ms, client, "answered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer_in_any_case_and_nothing_else() {
        assert_eq!((bearer("Bearer a"), bearer("bearer  a ")), (Some("a"), Some("a")));
        for bad in ["", "Bearer", "Bearer ", "Basic a", "a", "Bearera"] {
            assert_eq!(bearer(bad), None, "{bad}");
        }
        assert_eq!(bearer(&format!("Bearer {}", "x".repeat(LONGEST_TOKEN + 1))), None);
    }

    #[test]
    fn only_ids_that_are_short_and_plain_are_taken() {
        for id in ["a", "4711", "trace-1.2_3:4", &"x".repeat(64)] {
            assert!(is_safe(id), "{id}");
        }
        for id in ["", " ", "a b", "a\nb", "a\"b", "é", "<b>", &"x".repeat(65)] {
            assert!(!is_safe(id), "{id}");
        }
    }
}
