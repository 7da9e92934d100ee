//! The REST interface: handlers parse requests, call the service, and map its results. One file per
//! resource.
//!
//! Beside them is what all calls share: access control ([`access`]), request ids and the access log
//! (`request`), bodies and queries, answers (`answer`, `failure`), and response headers
//! (`headers`).

pub mod access;
mod answer;
mod archive;
mod attempts;
mod backups;
mod bodies;
mod body;
mod caught;
mod dispatch;
mod docs;
mod dto;
mod events;
mod failure;
mod headers;
mod health;
mod jobs;
mod launch;
mod listen;
mod metrics;
mod query;
mod request;
mod schedule;
mod seats;
mod stall;
mod sync;
mod tls;

use rocket::config::{Ident, LogLevel};
use rocket::figment::Figment;
use rocket::{Build, Rocket, catchers, routes};

pub use self::access::Access;
pub use self::docs::openapi;
pub use self::launch::serve;
pub use self::listen::{Bounds, Server};
use crate::error::{Error, Result};
use crate::service::MongoBackupService;

/// The program's web server, with every call of the interface over this service.
///
/// `figment` holds the configuration of Rocket. It overrides Rocket's defaults, with two changes to
/// those: the server does not name itself, and takes a client's address from a header only if
/// `ip_header` names it.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if no admin token is configured, or if a
/// value of Rocket's configuration is invalid.
pub fn rocket(service: MongoBackupService, figment: Figment, access: Access) -> Result<Rocket<Build>> {
    let gate = access::Gate::new(access)?;
    let defaults = rocket::Config {
        ident: Ident::none(),
        ip_header: None,
        log_level: LogLevel::Critical,
        cli_colors: false,
        ..rocket::Config::default()
    };
    let figment = Figment::from(defaults).merge(figment);
    let config = rocket::Config::try_from(&figment).map_err(|e| {
        Error::usage(format!("the web server cannot be configured: {e}"))
            .hint("Rocket's configuration guide lists the keys; set them in rocket.toml, or in the environment as ROCKET_NAME")
    })?;
    Ok(rocket::custom(figment)
        .manage(service)
        .manage(gate)
        .attach(request::Requests)
        .attach(body::Unexpected)
        .attach(headers::shield(config.tls_enabled()))
        .attach(headers::ByPath)
        .mount(
            "/",
            routes![
                docs::home,
                docs::contract,
                docs::page,
                health::healthz,
                health::readyz,
                metrics::metrics,
                backups::status,
                backups::create,
                backups::import,
                backups::clean,
                backups::test_connections,
                backups::show,
                backups::verify,
                backups::download,
                backups::delete,
                jobs::list,
                jobs::show,
                jobs::cancel,
                events::events,
                schedule::show,
                schedule::change,
                archive::show,
                archive::start,
                archive::stop,
                archive::timeline,
                sync::show,
                sync::start,
                sync::stop,
                sync::pause,
                sync::resume,
                sync::verify,
                sync::finalize,
                sync::events,
            ],
        )
        .register("/", catchers![caught::caught]))
}
