//! The OpenAPI document, generated from the handlers, and a page to try it. Neither needs a token:
//! they hold no data, and browsers open them without one.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use rocket::http::uri::Origin;
use rocket::http::{ContentType, Status};
use rocket::response::{self, Redirect, Responder, Response};
use rocket::serde::json::Json;
use rocket::{Request, get};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, OpenApi, Ref, RefOr, Required, Response as Documented, ResponseBuilder};
use utoipa::{Modify, OpenApi as _};
use utoipa_swagger_ui::{Config, SwaggerFile};

use super::dto::FailureBody;
use super::failure::Failure;
use super::query::{Nothing, Query};
use super::{archive, backups, events, health, jobs, metrics, schedule, sync};

/// The path of the page.
const PAGE: &str = "/api/docs/";
/// The path of the OpenAPI document.
const CONTRACT: &str = "/api/openapi.json";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "bsonvault",
        description = "Takes, verifies and restores consistent, compressed, checksummed backups of MongoDB deployments.\n\nEvery call needs a token, except the health checks and this description: \
                       `Authorization: Bearer TOKEN`. A read token is enough for GET, except downloads. Each client may send ten unknown tokens a minute.\n\n\
                       Bodies are JSON objects, by default of 1 MiB at most. Bodies may hold only known fields, each once; queries may hold only known names, each once. \
                       The service refuses everything else before it does anything: for example a body on a call that takes none."
    ),
    paths(
        backups::status, backups::create, backups::import, backups::clean, backups::test_connections, backups::show, backups::verify,
        backups::download, backups::delete,
        jobs::list, jobs::show, jobs::cancel, events::events,
        schedule::show, schedule::change,
        archive::show, archive::start, archive::stop, archive::timeline,
        sync::show, sync::start, sync::stop, sync::pause, sync::resume, sync::verify, sync::finalize, sync::events,
        health::healthz, health::readyz, metrics::metrics,
        home, contract,
    ),
    components(schemas(FailureBody)),
    security(("bearer" = [])),
    tags(
        (name = "backups", description = "Take, import, verify, download and remove backups"),
        (name = "jobs", description = "Jobs, their progress and their results"),
        (name = "schedule", description = "When the service takes backups"),
        (name = "archive", description = "The archive of the source's oplog, and which times can be restored"),
        (name = "sync", description = "The target that follows the source"),
        (name = "health", description = "Health checks and metrics"),
        (name = "docs", description = "This description"),
    ),
    modifiers(&Common)
)]
struct Contract;

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> OpenApi {
    Contract::openapi()
}

/// Operations whose body is optional.
const OPTIONAL_BODIES: [&str; 10] = [
    "createBackup",
    "verifyBackup",
    "startArchive",
    "stopArchive",
    "startSync",
    "stopSync",
    "pauseSync",
    "resumeSync",
    "verifySync",
    "finalizeSync",
];

/// Adds what all operations share, so that no handler can forget it.
struct Common;

impl Modify for Common {
    fn modify(&self, contract: &mut OpenApi) {
        let scheme =
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A token from `bsonvault token`")).build();
        contract.components.get_or_insert_default().add_security_scheme("bearer", SecurityScheme::Http(scheme));
        for item in contract.paths.paths.values_mut() {
            let methods = [(&mut item.get, false), (&mut item.put, true), (&mut item.post, true), (&mut item.delete, true)];
            for (operation, writes) in methods {
                if let Some(operation) = operation {
                    complete(operation, writes);
                }
            }
        }
    }
}

fn complete(operation: &mut Operation, writes: bool) {
    let mut common = vec![(
        "500",
        "The service is not configured for this, the backup is damaged, the imported data does not match it, the storage failed, or the program has a defect",
    )];
    if operation.security.is_none() {
        common.push(("401", "The token is missing or unknown"));
        common.push(("429", "This client sent too many unknown tokens, or too much runs at the same time"));
        if writes {
            common.push(("403", "The token may only read"));
        }
    }
    common.push(("422", "A name or value of the query is unknown, or a name is repeated"));
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        let is_optional = operation.operation_id.as_deref().is_some_and(|id| OPTIONAL_BODIES.contains(&id));
        body.required = Some(if is_optional { Required::False } else { Required::True });
        common.push(("400", "The body is not JSON, or a field is unknown, repeated, null or of another type"));
        common.push(("413", "The body is too large"));
        common.push(("415", "The body's type is not JSON"));
    } else {
        common.push(("400", "A body was sent, but this call takes none"));
    }
    for (status, description) in common {
        operation.responses.responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(failure(status, description)));
    }
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            let id = HeaderBuilder::new().description(Some("The request's id, as in the log"));
            response.headers.insert("X-Request-Id".to_owned(), id.build().into());
        }
    }
}

fn failure(status: &str, description: &str) -> Documented {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("FailureBody"))).build();
    let response = ResponseBuilder::new().description(description).content("application/json", body);
    let header = |description: &str| HeaderBuilder::new().description(Some(description)).build();
    match status {
        "401" => response.header("WWW-Authenticate", header("`Bearer`")),
        "429" => response.header("Retry-After", header("Seconds to wait")),
        _ => response,
    }
    .build()
}

/// Redirects to the page that describes the interface.
#[utoipa::path(
    tag = "docs",
    operation_id = "home",
    security(()),
    responses((status = 303, description = "To `/api/docs/`", headers(("Location" = String, description = "`/api/docs/`"))))
)]
#[get("/")]
pub(super) fn home(_query: Query<Nothing>) -> Redirect {
    Redirect::to(PAGE)
}

/// Returns this description.
#[utoipa::path(
    tag = "docs",
    operation_id = "getContract",
    security(()),
    responses((status = 200, description = "The OpenAPI document", body = Object))
)]
#[get("/api/openapi.json")]
pub(super) fn contract(_query: Query<Nothing>) -> Json<&'static OpenApi> {
    static WRITTEN: LazyLock<OpenApi> = LazyLock::new(openapi);
    Json(&WRITTEN)
}

/// Swagger UI and its files, all served from this program.
#[get("/api/docs/<path..>")]
pub(super) fn page(path: PathBuf, _query: Query<Nothing>, uri: &Origin<'_>) -> Result<Page, Failure> {
    if uri.path() == PAGE.trim_end_matches('/') {
        return Ok(Page::Elsewhere(Box::new(Redirect::to(PAGE))));
    }
    // A page that loads nothing from elsewhere.
    let config = Config::new([CONTRACT]).use_base_layout().validator_url("none").try_it_out_enabled(true).filter(true);
    let file = path.to_str().and_then(|path| utoipa_swagger_ui::serve(path, Arc::new(config)).ok().flatten());
    file.map(Page::File).ok_or_else(|| Failure::new(Status::NotFound, "notFound", "nothing exists at this path"))
}

/// The response to a path below the page's.
pub(super) enum Page {
    File(SwaggerFile<'static>),
    Elsewhere(Box<Redirect>),
}

impl<'r> Responder<'r, 'static> for Page {
    fn respond_to(self, request: &'r Request<'_>) -> response::Result<'static> {
        match self {
            Self::Elsewhere(redirect) => redirect.respond_to(request),
            Self::File(file) => {
                let kind = ContentType::parse_flexible(&file.content_type).unwrap_or(ContentType::Binary);
                let mut response =
                    Response::build().header(kind).sized_body(file.bytes.len(), Cursor::new(file.bytes)).finalize();
                if file.gzpipped {
                    response.set_raw_header("Content-Encoding", "gzip");
                }
                Ok(response)
            }
        }
    }
}
