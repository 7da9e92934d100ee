//! `serve`: the service, until it is told to stop.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Map;

use super::output::Outcome;
use crate::api::{self, Access};
use crate::config::{Config, Flags};
use crate::context::Context;
use crate::error::Result;
use crate::service::MongoBackupService;

const AFTER_HELP: &str = "\
It needs ADMIN_TOKEN_SHA256, which `bsonvault token` makes. BACKUP_INTERVAL_HOURS or BACKUP_CRON say when backups are taken,
AUTO_IMPORT_TO_LOCAL and BACKUP_KEEP_… what follows. README.md and .env.example list all settings.";

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The source: MongoDB's connection string [env: MONGO_URI_ATLAS]
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// The target [env: MONGO_URI_LOCAL]
    #[arg(long, value_name = "URI")]
    target: Option<String>,
    /// The address to listen on [env: ROCKET_ADDRESS] [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    address: Option<String>,
    /// The port to listen on [env: ROCKET_PORT] [default: 8000]
    #[arg(long, value_name = "PORT")]
    port: Option<String>,
}

impl Args {
    pub(super) fn flags(&self) -> Flags {
        Flags {
            source: self.source.clone(),
            target: self.target.clone(),
            address: self.address.clone(),
            port: self.port.clone(),
            ..Flags::default()
        }
    }
}

pub(super) async fn run(config: Config, cx: &Context) -> Result<Outcome> {
    // 1. Everything that can be wrong with the settings, before anything is begun.
    let settings = config.service()?;
    let rocket = config.rocket();
    let access = Access { admin: settings.admin_tokens, read: settings.read_tokens, download: settings.download_tokens };

    tell_auto_import(settings.auto_import, &config);

    // 2. Every client takes a file, and backups take some beside them.
    raise_file_limit();

    // 3. The service, and the server over it. Neither waits for a MongoDB.
    let service = MongoBackupService::open(config).await?;
    let server = api::rocket(service.clone(), rocket, access)?;

    // 4. Until it is told to stop.
    api::serve(server, &service, &cx.cancel).await?;
    Ok(Outcome::done(String::new(), Map::new()))
}

/// Says what each backup will replace: an import that nobody thought of is the end of what stands in the target.
fn tell_auto_import(is_on: bool, config: &Config) {
    let off = "AUTO_IMPORT_TO_LOCAL=false turns it off";
    match config.configured_target() {
        _ if !is_on => tracing::info!("auto-import is off: backups are not imported"),
        Ok(None) => tracing::info!("auto-import is on, and no target is configured: backups are not imported"),
        Ok(Some(target)) => tracing::warn!(
            "auto-import is on: each complete backup replaces the collections of the same names in {target}, their documents \
             included; {off}"
        ),
        Err(error) => tracing::warn!("auto-import is on, and cannot be done: {error}; {off}"),
    }
}

/// As many files as the system lets this process have: the usual limit is a thousand.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!("no more than {:?} files can be open at a time: {e}", limit.current);
    }
}
