//! Who may call: bearer tokens, known by their SHA-256 only, of two kinds.

use rocket::http::{Method, Status};
use rocket::request::{FromRequest, Outcome, Request};
use subtle::{Choice, ConstantTimeEq as _};

use super::attempts::Attempts;
use super::failure::{Failure, turn_away};
use super::request::{Arrival, client};
use crate::error::{Error, Result};
use crate::format::digest::Sha256Hex;

/// The longest token that is looked at.
const LONGEST_TOKEN: usize = 1024;

/// The SHA-256 of the tokens that are known.
#[derive(Clone, Default)]
pub struct Access {
    /// Of those that may do everything.
    pub admin: Vec<[u8; 32]>,
    /// Of those that may only read.
    pub read: Vec<[u8; 32]>,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    Admin,
    Read,
}

/// Who asks for a token.
pub(super) struct Gate {
    /// As they are written: 64 digits each.
    admin: Vec<String>,
    read: Vec<String>,
    attempts: Attempts,
}

impl Gate {
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) without an admin token.
    pub(super) fn new(access: Access) -> Result<Self> {
        if access.admin.is_empty() {
            return Err(Error::usage("no admin token is configured").hint("`bsonvault token` makes one"));
        }
        let written =
            |hashes: Vec<[u8; 32]>| hashes.iter().map(|hash| hash.iter().map(|b| format!("{b:02x}")).collect()).collect();
        Ok(Self { admin: written(access.admin), read: written(access.read), attempts: Attempts::new() })
    }

    /// What this token may do. It takes as long for one that is known as for one that is not.
    fn right(&self, token: &str) -> Option<Right> {
        let hash = Sha256Hex::of(token.as_bytes());
        let among = |known: &[String]| {
            known.iter().fold(Choice::from(0), |found, known| found | known.as_bytes().ct_eq(hash.as_str().as_bytes()))
        };
        let (admin, read) = (among(&self.admin), among(&self.read));
        match (bool::from(admin), bool::from(read)) {
            (true, _) => Some(Right::Admin),
            (false, true) => Some(Right::Read),
            (false, false) => None,
        }
    }
}

/// Whether a path needs a token: all of `/api` but the contract and its page, which hold no data and are opened by browsers, that send none.
pub(super) fn is_guarded(path: &str) -> bool {
    let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    below("/api") && !below("/api/docs") && path != "/api/openapi.json"
}

/// Looks at the token of a request. Failures count against the client; a good token is never kept waiting.
pub(super) fn admit(request: &Request<'_>) -> Result<Right, Failure> {
    let Some(gate) = request.rocket().state::<Gate>() else {
        return Err(Failure::from(Error::new(crate::error::ErrorKind::Internal, "no tokens are known")));
    };
    let token = request.headers().get_one("Authorization").and_then(bearer);
    if let Some(right) = token.and_then(|token| gate.right(token)) {
        return Ok(right);
    }
    let client = client(request);
    let what = if token.is_some() { "a token that is not known" } else { "no token" };
    tracing::warn!(requestId = Arrival::of(request).id, client = client.map(tracing::field::display), "turned away: {what}");
    Err(match gate.attempts.failed(client) {
        Ok(()) => Failure::new(Status::Unauthorized, "unauthorized", format!("{what} was given"))
            .hint("send the header Authorization: Bearer TOKEN")
            .header("WWW-Authenticate", "Bearer"),
        Err(wait) => {
            let seconds = wait.as_secs() + 1;
            Failure::new(Status::TooManyRequests, "tooManyRequests", "too many requests without a token that is known")
                .hint(format!("wait {seconds} s, or send a token that is known"))
                .header("Retry-After", seconds.to_string())
        }
    })
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && (1..=LONGEST_TOKEN).contains(&token.len())).then_some(token)
}

/// A request of somebody who may read.
pub(super) struct Reader;

/// A request of somebody who may do everything.
pub(super) struct Admin;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Reader {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        match admit(request) {
            Ok(_) => Outcome::Success(Self),
            Err(failure) => turn_away(request, failure),
        }
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Admin {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        match admit(request) {
            Ok(Right::Admin) => Outcome::Success(Self),
            Ok(Right::Read) => {
                let what = if request.method() == Method::Get { "do this" } else { "change anything" };
                let failure = Failure::new(Status::Forbidden, "forbidden", format!("this token may read, and not {what}"));
                turn_away(request, failure.hint("use an admin token"))
            }
            Err(failure) => turn_away(request, failure),
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
    fn every_hash_counts_and_admin_beats_read() {
        let hash = |token: &str| -> [u8; 32] {
            let text = Sha256Hex::of(token.as_bytes());
            std::array::from_fn(|i| u8::from_str_radix(&text.as_str()[2 * i..2 * i + 2], 16).unwrap())
        };
        let access = Access { admin: vec![hash("a"), hash("b")], read: vec![hash("r"), hash("b")] };
        let gate = Gate::new(access).unwrap();
        let rights = ["a", "b", "r", "x", ""].map(|token| gate.right(token));
        assert_eq!(rights, [Some(Right::Admin), Some(Right::Admin), Some(Right::Read), None, None]);
    }

    #[test]
    fn all_of_the_interface_needs_a_token_but_its_description() {
        for path in ["/api", "/api/", "/api/jobs", "/api/docsx", "/api/openapi.json/", "/api/nothing"] {
            assert!(is_guarded(path), "{path}");
        }
        for path in ["/", "/healthz", "/api/docs", "/api/docs/", "/api/docs/index.html", "/api/openapi.json", "/apix"] {
            assert!(!is_guarded(path), "{path}");
        }
    }
}
