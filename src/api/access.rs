//! Access control: bearer tokens of three kinds, known only by their SHA-256.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rocket::http::{Method, Status};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::{Orbit, Rocket};
use subtle::{Choice, ConstantTimeEq as _};

use super::attempts::Attempts;
use super::failure::{Failure, turn_away};
use super::request::{bearer, client, token};
use crate::context::lock;
use crate::error::{Error, Result};
use crate::format::digest::Sha256Hex;

/// Concurrent downloads per token. A backup cannot be deleted while it is downloaded.
const DOWNLOADS: usize = 3;

/// The SHA-256 of all known tokens.
#[derive(Clone, Default)]
pub struct Access {
    /// Tokens that may do everything.
    pub admin: Vec<[u8; 32]>,
    /// Tokens that may read, but not download backups.
    pub read: Vec<[u8; 32]>,
    /// Tokens that may read and download backups.
    pub download: Vec<[u8; 32]>,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    Admin,
    Download,
    Read,
}

/// Checks tokens.
pub(super) struct Gate {
    /// Each as 64 hexadecimal digits.
    admin: Vec<String>,
    read: Vec<String>,
    download: Vec<String>,
    attempts: Attempts,
    /// The number of downloads under way, by the hash of their token.
    downloads: Arc<Mutex<HashMap<String, usize>>>,
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
        Ok(Self {
            admin: written(access.admin),
            read: written(access.read),
            download: written(access.download),
            attempts: Attempts::new(),
            downloads: Arc::default(),
        })
    }

    /// What this token may do. Known and unknown tokens take equally long.
    fn right(&self, token: &str) -> Option<Right> {
        let hash = Sha256Hex::of(token.as_bytes());
        let among = |known: &[String]| {
            known.iter().fold(Choice::from(0), |found, known| found | known.as_bytes().ct_eq(hash.as_str().as_bytes()))
        };
        let (admin, download, read) = (among(&self.admin), among(&self.download), among(&self.read));
        match (bool::from(admin), bool::from(download), bool::from(read)) {
            (true, ..) => Some(Right::Admin),
            (_, true, _) => Some(Right::Download),
            (.., true) => Some(Right::Read),
            _ => None,
        }
    }

    /// A slot for one more download with this token, or `None` if [`DOWNLOADS`] are under way.
    fn download(&self, token: &str) -> Option<DownloadPlace> {
        let hash = Sha256Hex::of(token.as_bytes()).as_str().to_owned();
        let mut downloads = lock(&self.downloads);
        let count = downloads.entry(hash.clone()).or_default();
        (*count < DOWNLOADS).then(|| {
            *count += 1;
            DownloadPlace { hash, downloads: self.downloads.clone() }
        })
    }
}

/// Whether a path needs a token. All of `/api` does, except the OpenAPI document and its page: they
/// hold no data, and browsers open them without a token.
pub(super) fn is_guarded(path: &str) -> bool {
    let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    below("/api") && !below("/api/docs") && path != "/api/openapi.json"
}

/// Whether an `Authorization` header holds a known token.
pub(super) fn is_known(rocket: &Rocket<Orbit>, authorization: Option<&str>) -> bool {
    let gate = rocket.state::<Gate>();
    gate.zip(authorization.and_then(bearer)).is_some_and(|(gate, token)| gate.right(token).is_some())
}

/// Checks the token of a request. Failures count against the client; a known token is never
/// delayed.
pub(super) fn admit(request: &Request<'_>) -> Result<Right, Failure> {
    let Some(gate) = request.rocket().state::<Gate>() else {
        return Err(Failure::from(Error::new(crate::error::ErrorKind::Internal, "no tokens are known")));
    };
    let token = token(request);
    if let Some(right) = token.and_then(|token| gate.right(token)) {
        return Ok(right);
    }
    let client = client(request);
    let what = if token.is_some() { "a token that is not known" } else { "no token" };
    Err(match gate.attempts.failed(client) {
        Ok(()) => Failure::new(Status::Unauthorized, "unauthorized", format!("{what} was given"))
            .hint("send the header Authorization: Bearer TOKEN")
            .header("WWW-Authenticate", "Bearer"),
        Err(wait) => {
            let seconds = wait.as_secs() + 1;
            Failure::new(Status::TooManyRequests, "tooManyRequests", "too many requests without a known token")
                .hint(format!("wait {seconds} s, or send a known token"))
                .header("Retry-After", seconds.to_string())
        }
    })
}

/// A request that may read.
pub(super) struct Reader;

/// A request that may do everything.
pub(super) struct Admin;

/// A request that may download backups.
pub(super) struct Downloader(pub(super) DownloadPlace);

/// A download under way; it ends when this is dropped.
pub(super) struct DownloadPlace {
    hash: String,
    downloads: Arc<Mutex<HashMap<String, usize>>>,
}

impl Drop for DownloadPlace {
    fn drop(&mut self) {
        let mut downloads = lock(&self.downloads);
        if let Some(count) = downloads.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                downloads.remove(&self.hash);
            }
        }
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Downloader {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let right = match admit(request) {
            Ok(right) => right,
            Err(failure) => return turn_away(request, failure),
        };
        if right == Right::Read {
            let failure = Failure::new(Status::Forbidden, "forbidden", "this token may read, but not download backups");
            return turn_away(request, failure.hint("use a token of DOWNLOAD_TOKEN_SHA256, or an admin token"));
        }
        let token = token(request).unwrap_or_default();
        match request.rocket().state::<Gate>().and_then(|gate| gate.download(token)) {
            Some(place) => Outcome::Success(Self(place)),
            None => {
                let message = format!("{DOWNLOADS} downloads are already under way with this token");
                let failure = Failure::new(Status::TooManyRequests, "tooManyRequests", message);
                turn_away(request, failure.hint("wait until one of them ends").header("Retry-After", "60"))
            }
        }
    }
}

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
            Ok(Right::Read | Right::Download) => {
                let what = if request.method() == Method::Get { "do this" } else { "change anything" };
                let failure = Failure::new(Status::Forbidden, "forbidden", format!("this token may read, but not {what}"));
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
    fn every_hash_counts_and_admin_beats_read() {
        let hash = |token: &str| -> [u8; 32] {
            let text = Sha256Hex::of(token.as_bytes());
            std::array::from_fn(|i| u8::from_str_radix(&text.as_str()[2 * i..2 * i + 2], 16).unwrap())
        };
        let access =
            Access { admin: vec![hash("a"), hash("b")], read: vec![hash("r"), hash("b"), hash("d")], download: vec![hash("d")] };
        let gate = Gate::new(access).unwrap();
        let rights = ["a", "b", "r", "d", "x", ""].map(|token| gate.right(token));
        let (admin, read, download) = (Some(Right::Admin), Some(Right::Read), Some(Right::Download));
        assert_eq!(rights, [admin, admin, read, download, None, None]);
        let places: Vec<_> = (0..DOWNLOADS).filter_map(|_| gate.download("d")).collect();
        assert_eq!((places.len(), gate.download("d").is_none(), gate.download("a").is_some()), (DOWNLOADS, true, true));
        drop(places);
        assert!(gate.download("d").is_some() && gate.downloads.lock().unwrap().is_empty());
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
