//! `serve`: runs the service until a signal stops it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Map;

use super::output::Outcome;
use crate::api::{self, Access};
use crate::config::{Config, Flags};
use crate::context::Context;
use crate::engine::import::ImportMode;
use crate::error::Result;
use crate::service::MongoBackupService;

const AFTER_HELP: &str = "\
`serve` needs ADMIN_TOKEN_SHA256; `bsonvault token` makes one. BACKUP_INTERVAL_HOURS or BACKUP_CRON
set when backups are taken. AUTO_IMPORT_TO_LOCAL and BACKUP_KEEP_... set what follows a backup.
.env.example lists all settings.";

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The source [env: MONGO_URI_ATLAS]
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// The target [env: MONGO_URI_LOCAL]
    #[arg(long, value_name = "URI")]
    target: Option<String>,
    /// The IP address to listen on [env: ROCKET_ADDRESS] [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    address: Option<String>,
    /// The port to listen on; 0 takes a free one [env: ROCKET_PORT] [default: 8000]
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
    // 1. Check all settings before anything starts.
    let settings = config.service()?;
    config.configured_source()?;
    config.configured_target()?;
    let rocket = config.rocket();
    let access = Access { admin: settings.admin_tokens, read: settings.read_tokens, download: settings.download_tokens };

    tell_auto_import(settings.auto_import, &config);
    tell_sync(&config);

    // 2. Every client takes a file descriptor, and backups take more.
    raise_file_limit();

    // 3. Start the service and the server over it. Neither waits for MongoDB.
    let service = MongoBackupService::open(config).await?;
    let server = api::rocket(service.clone(), rocket, access)?;

    // 4. Serve until a signal arrives.
    api::serve(server, &service, &cx.cancel).await?;
    Ok(Outcome::done(String::new(), Map::new()))
}

/// Logs what each backup will replace: an import that nobody expects destroys data in the target.
fn tell_auto_import(is_on: bool, config: &Config) {
    let off = "AUTO_IMPORT_TO_LOCAL=false turns it off";
    match config.configured_target() {
        _ if !is_on => tracing::info!("auto-import is off: backups are not imported"),
        Ok(Some(target)) if config.sync.enabled => {
            tracing::warn!("auto-import is on, but {target} follows the source and refuses imports into what it follows; {off}")
        }
        Ok(None) => tracing::info!("auto-import is on, but no target is configured: backups are not imported"),
        Ok(Some(target)) => tracing::warn!(
            "auto-import is on: each complete backup replaces the collections of the same names in {target}, with all their \
             documents; {off}"
        ),
        Err(error) => tracing::warn!("auto-import is on, but impossible: {error}; {off}"),
    }
}

/// Logs what the first copy of the sync may replace, for the same reason.
fn tell_sync(config: &Config) {
    if let Ok(Some(target)) = config.configured_target()
        && config.sync.enabled
        && config.sync.mode == ImportMode::Replace
    {
        tracing::warn!(
            "the sync is on: if {target} follows nothing yet, the first copy replaces the collections of the same names there, with all \
             their documents; SYNC_MODE=fail refuses that"
        );
    }
}

/// Raises the limit of open files to what the system allows: the usual limit is a thousand.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!("the limit of open files stays at {:?}: {e}", limit.current);
    }
}
