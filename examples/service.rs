//! The service as a library: everything that `bsonvault serve` does, without its server.
//!
//! `service` takes a backup of `MONGO_URI_ATLAS` into `BACKUP_PATH`, imports it into
//! `MONGO_URI_LOCAL`, lists the backups, and removes all but the newest two.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::num::NonZeroU32;

use bsonvault::config::{Config, Flags};
use bsonvault::service::{ImportRequest, JobState, MongoBackupService, connect_dual_db};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(Config::load(".".as_ref(), std::env::vars_os(), &Flags::default())?).await
}

/// Runs the example with this configuration.
pub(crate) async fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    // Both connections and their states.
    let both = connect_dual_db(&config).await;
    for (name, state) in [("source", &both.state.atlas), ("target", &both.state.local)] {
        let what = state.error.as_ref().map_or("answers", |error| &error.message);
        println!("{name}: {} {what}", state.host.as_deref().unwrap_or("-"));
    }
    both.close().await;

    // A backup alone, and its import.
    let service = MongoBackupService::open(config).await?;
    let made = service.create_backup().await?;
    let Some(backup) = &made.result.backup else { return Err(format!("no backup was made: {:?}", made.error).into()) };
    println!("backup {} of {} documents", backup.name, backup.documents);
    let request = ImportRequest { backup_path: backup.name.clone(), ..ImportRequest::default() };
    let imported = service.import_to_local(request).await?;
    match &imported.result.import {
        Some(import) => println!("imported {} documents", import.documents),
        None => println!("not imported: {:?}", imported.error),
    }

    // Both in one job, as the scheduler does it; and the scheduler itself.
    let manual = service.manual_backup().await?;
    println!("another one: {}", manual.state.name());
    service.start_automatic_backup().await?;

    // List the backups, and remove old ones.
    let status = service.get_backup_status().await?;
    println!("{} backups in {}, the next one at {:?}", status.backups.len(), status.backup_path, status.schedule.next_run);
    let cleaned = service.clean_old_backups(NonZeroU32::MIN.saturating_add(1), false).await?;
    println!("{} deleted, {} kept", cleaned.deleted.len(), cleaned.kept.len());

    service.shut_down().await;
    if imported.state == JobState::Succeeded && manual.state == JobState::Succeeded {
        Ok(())
    } else {
        Err("not all of it succeeded".into())
    }
}
