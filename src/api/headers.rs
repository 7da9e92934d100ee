//! Security and caching headers of every response.

use rocket::fairing::{Fairing, Info, Kind};
use rocket::shield::{Frame, Hsts, NoSniff, Permission, Referrer, Shield};
use rocket::{Request, Response};

/// Loads only from this server; no framing by other pages.
const POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Swagger UI sets inline styles, and its icons are `data:` URLs.
const POLICY_OF_DOCS: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
                              form-action 'none'; frame-ancestors 'none'";

/// Headers that are the same everywhere.
pub(super) fn shield(tls: bool) -> Shield {
    let shield =
        Shield::new().enable(NoSniff::Enable).enable(Frame::Deny).enable(Referrer::NoReferrer).enable(Permission::default());
    if tls { shield.enable(Hsts::default()) } else { shield }
}

/// Headers that depend on the path. Rocket's Shield has one value for all.
pub(super) struct ByPath;

#[rocket::async_trait]
impl Fairing for ByPath {
    fn info(&self) -> Info {
        Info { name: "content policy and caching", kind: Kind::Response }
    }

    async fn on_response<'r>(&self, request: &'r Request<'_>, response: &mut Response<'r>) {
        let path = request.uri().path();
        let is_docs = path == "/api/docs" || path.starts_with("/api/docs/");
        response.set_raw_header("Content-Security-Policy", if is_docs { POLICY_OF_DOCS } else { POLICY });
        response.set_raw_header("Cache-Control", if is_docs { "no-cache" } else { "no-store" });
    }
}
