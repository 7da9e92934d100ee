//! Who may call: bearer tokens, known by their SHA-256 only, of two kinds.

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

/// Downloads at a time with one token. Each keeps its backup from being deleted.
const DOWNLOADS: usize = 3;

/// The SHA-256 of the tokens that are known.
#[derive(Clone, Default)]
pub struct Access {
    /// Of those that may do everything.
    pub admin: Vec<[u8; 32]>,
    /// Of those that may only read, and not download backups.
    pub read: Vec<[u8; 32]>,
    /// Of those that may read and download backups.
    pub download: Vec<[u8; 32]>,
}

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    Admin,
    Download,
    Read,
}

/// Who asks for a token.
pub(super) struct Gate {
    /// As they are written: 64 digits each.
    admin: Vec<String>,
    read: Vec<String>,
    download: Vec<String>,
    attempts: Attempts,
    /// By the hash of a token, what is downloaded with it now.
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

    /// What this token may do. It takes as long for one that is known as for one that is not.
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

    /// A place for one more download with this token; none if [`DOWNLOADS`] are under way.
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

/// Whether a path needs a token: all of `/api` but the contract and its page, which hold no data and are opened by browsers, that send none.
pub(super) fn is_guarded(path: &str) -> bool {
    let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    below("/api") && !below("/api/docs") && path != "/api/openapi.json"
}

/// Whether a header `Authorization` has a token that is known.
pub(super) fn is_known(rocket: &Rocket<Orbit>, authorization: Option<&str>) -> bool {
    let gate = rocket.state::<Gate>();
    gate.zip(authorization.and_then(bearer)).is_some_and(|(gate, token)| gate.right(token).is_some())
}

/// Looks at the token of a request. Failures count against the client; a good token is never kept waiting.
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
            Failure::new(Status::TooManyRequests, "tooManyRequests", "too many requests without a token that is known")
                .hint(format!("wait {seconds} s, or send a token that is known"))
                .header("Retry-After", seconds.to_string())
        }
    })
}

/// A request of somebody who may read.
pub(super) struct Reader;

/// A request of somebody who may do everything.
pub(super) struct Admin;

/// A request of somebody who may download backups.
pub(super) struct Downloader(pub(super) DownloadPlace);

/// A download that is under way, until this is dropped.
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
            let failure = Failure::new(Status::Forbidden, "forbidden", "this token may read, and not download backups");
            return turn_away(request, failure.hint("use a token of DOWNLOAD_TOKEN_SHA256, or an admin token"));
        }
        let token = token(request).unwrap_or_default();
        match request.rocket().state::<Gate>().and_then(|gate| gate.download(token)) {
            Some(place) => Outcome::Success(Self(place)),
            None => {
                let message = format!("{DOWNLOADS} downloads are under way with this token already");
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
