//! Answers requests that reach no handler, or whose handler panics.

use rocket::catch;
use rocket::http::{Method, Status};
use rocket::request::Request;
use rocket::response::{self, Responder, Response};

use super::access;
use super::failure::{Failure, turned_away};

/// Catches requests that reach no handler, and failures of handlers.
#[catch(default)]
pub(super) fn caught(status: Status, request: &Request<'_>) -> Caught {
    if let Some(failure) = turned_away(request) {
        return Caught::Failure(failure);
    }
    if status != Status::NotFound {
        return Caught::Failure(Failure::of_status(status));
    }
    // Without a token, a client does not learn which paths exist.
    let path: String = request.uri().path().segments().flat_map(|segment| ["/", segment]).collect();
    if access::is_guarded(&path)
        && let Err(failure) = access::admit(request)
    {
        return Caught::Failure(failure);
    }
    match methods(request) {
        methods if methods.is_empty() => Caught::Failure(Failure::of_status(status)),
        methods if request.method() == Method::Options => Caught::Methods(methods),
        methods => Caught::Failure(Failure::of_status(Status::MethodNotAllowed).header("Allow", methods)),
    }
}

/// The answer of a catcher.
pub(super) enum Caught {
    Failure(Failure),
    /// The methods of a path, in reply to OPTIONS.
    Methods(String),
}

impl<'r> Responder<'r, 'static> for Caught {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        match self {
            Self::Failure(failure) => failure.respond_to(request),
            Self::Methods(methods) => Response::build().status(Status::NoContent).raw_header("Allow", methods).ok(),
        }
    }
}

/// The methods that this path takes.
fn methods(request: &Request<'_>) -> String {
    let asked: Vec<&str> = request.uri().path().segments().collect();
    let fits = |path: &str| {
        let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        segments.len() == asked.len()
            && segments.iter().zip(&asked).all(|(route, asked)| route.starts_with('<') || route == asked)
    };
    let mut routes: Vec<_> = request.rocket().routes().filter(|route| fits(route.uri.path())).collect();
    // An exact path wins over one with a parameter.
    if routes.iter().any(|route| !route.uri.path().contains('<')) {
        routes.retain(|route| !route.uri.path().contains('<'));
    }
    let mut methods: Vec<&str> = routes.into_iter().map(|route| route.method.as_str()).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort_unstable();
    methods.dedup();
    methods.join(", ")
}
