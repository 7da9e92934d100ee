//! The contract as OpenAPI, generated from the handlers, and a page to try it. Neither needs a token: they hold no data, and a browser that opens them sends none.

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
use super::{backups, events, health, jobs, metrics, schedule};

/// Where the page is.
const PAGE: &str = "/api/docs/";
/// Where the contract is.
const CONTRACT: &str = "/api/openapi.json";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "bsonvault",
        description = "Consistent, compressed, checksummed backups of MongoDB deployments, and their way back.\n\nEvery call but the health checks and this description needs a \
                       token: `Authorization: Bearer TOKEN`. One that may only read is enough for GET. Tokens that are not known are limited to ten a minute for each client.\n\n\
                       Bodies are JSON objects of 1 MiB at most unless configured otherwise. They hold known fields only, each once; queries hold known names only, each once, \
                       and a call that takes no body or no query takes none. All else is refused before anything is done."
    ),
    paths(
        backups::status, backups::create, backups::import, backups::clean, backups::test_connections, backups::show, backups::verify,
        backups::download, backups::delete,
        jobs::list, jobs::show, jobs::cancel, events::events,
        schedule::show, schedule::change,
        health::healthz, health::readyz, metrics::metrics,
        home, contract,
    ),
    components(schemas(FailureBody)),
    security(("bearer" = [])),
    tags(
        (name = "backups", description = "Taking, importing, verifying, removing backups"),
        (name = "jobs", description = "What was begun, how far it is, and its end"),
        (name = "schedule", description = "When backups are taken"),
        (name = "health", description = "For what watches over the service"),
        (name = "docs", description = "This description"),
    ),
    modifiers(&Common)
)]
struct Contract;

/// The contract.
#[must_use]
pub fn openapi() -> OpenApi {
    Contract::openapi()
}

/// Operations whose body may be left out.
const OPTIONAL_BODIES: [&str; 2] = ["createBackup", "verifyBackup"];

/// What all operations have in common, by what they are: added here so that no handler can forget it.
struct Common;

impl Modify for Common {
    fn modify(&self, contract: &mut OpenApi) {
        let scheme =
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A token that `bsonvault token` made")).build();
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
        "The service is not configured for this, the backup is damaged or what was imported does not match it, the storage failed, or the program has a defect",
    )];
    if operation.security.is_none() {
        common.push(("401", "No token, or one that is not known"));
        common.push(("429", "Too many tokens that are not known, by this client; or too much at a time"));
        if writes {
            common.push(("403", "The token may only read"));
        }
    }
    common.push(("422", "A name or a value of the query is not known, or it has one twice"));
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        let is_optional = operation.operation_id.as_deref().is_some_and(|id| OPTIONAL_BODIES.contains(&id));
        body.required = Some(if is_optional { Required::False } else { Required::True });
        common.push((
            "400",
            "The body is not JSON or not what is expected: a field that is not known, comes twice, is null or of another type",
        ));
        common.push(("413", "The body is too large"));
        common.push(("415", "The body says that it is of another type than JSON"));
    } else {
        common.push(("400", "A body was sent, and this call takes none"));
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

/// Leads to the page that describes the interface.
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

/// This description.
#[utoipa::path(
    tag = "docs",
    operation_id = "getContract",
    security(()),
    responses((status = 200, description = "OpenAPI", body = Object))
)]
#[get("/api/openapi.json")]
pub(super) fn contract(_query: Query<Nothing>) -> Json<&'static OpenApi> {
    static WRITTEN: LazyLock<OpenApi> = LazyLock::new(openapi);
    Json(&WRITTEN)
}

/// The page, Swagger UI, and what it loads: all of it from here.
#[get("/api/docs/<path..>")]
pub(super) fn page(path: PathBuf, _query: Query<Nothing>, uri: &Origin<'_>) -> Result<Page, Failure> {
    if uri.path() == PAGE.trim_end_matches('/') {
        return Ok(Page::Elsewhere(Box::new(Redirect::to(PAGE))));
    }
    // The page itself, and nothing that would load what is not here.
    let config = Config::new([CONTRACT]).use_base_layout().validator_url("none").try_it_out_enabled(true).filter(true);
    let file = path.to_str().and_then(|path| utoipa_swagger_ui::serve(path, Arc::new(config)).ok().flatten());
    file.map(Page::File).ok_or_else(|| Failure::new(Status::NotFound, "notFound", "there is nothing at this path"))
}

/// What there is below the page's path.
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
