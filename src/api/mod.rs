//! The REST interface: handlers parse, call the service, and map what it gives. One file a resource.
//!
//! What every call has in common is beside them: who may call ([`access`]), request ids and the access log (`request`), bodies and queries, what is answered
//! (`answer`, `failure`), and the headers of every response (`headers`).

pub mod access;
mod answer;
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

/// The program's web server, as it runs and as it is tested: every call of the interface over this service.
///
/// `figment` holds what is configured of Rocket; below it lie Rocket's own defaults, but that it does not name itself, and that the address of a client is never taken from a
/// header unless `ip_header` says from which.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) where no admin token is configured, and for values of Rocket's configuration that it cannot use.
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
        Error::usage(format!("the web server cannot be configured: {e}")).hint(
            "Rocket's guide on configuration names its keys; they stand in rocket.toml, or in the environment as ROCKET_NAME",
        )
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
            ],
        )
        .register("/", catchers![caught::caught]))
}
