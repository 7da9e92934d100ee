//! `import`: bring a backup into the target.

use tokio_util::sync::CancellationToken;

use super::output::{self, Outcome};
use super::progress::Faces;
use super::render;
use super::{catalog, with_progress};
use crate::config::{Config, Flags};
use crate::engine::restore::{self, RestoreOptions};
use crate::error::Result;
use crate::pipeline::progress::Progress;

/// Flags of `import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backup: a name that `list` shows, or the path of one
    #[arg(value_name = "BACKUP")]
    backup: String,
    /// The target [env: MONGO_URI_LOCAL]
    #[arg(long, value_name = "URI")]
    target: Option<String>,
    /// The database to bring it to, where the backup holds one database
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Go on though the target is the deployment that the backup came from, or the configured source
    #[arg(long)]
    allow_same: bool,
    /// Writers that insert at a time, 1 to 256 [env: BACKUP_WRITERS] [default: chosen from the machine]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    writers: Option<String>,
    /// MiB that all buffers together may take, 64 or more [env: BACKUP_MEMORY_MB] [default: 256]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    memory_mb: Option<String>,
}

impl Args {
    pub(super) fn flags(&self) -> Flags {
        Flags {
            target: self.target.clone(),
            writers: self.writers.clone(),
            memory_mb: self.memory_mb.clone(),
            ..Flags::default()
        }
    }
}

pub(super) async fn run(args: Args, config: &Config, faces: Faces, stop: &CancellationToken) -> Result<Outcome> {
    let options = RestoreOptions { database: args.database, allow_same: args.allow_same, tuning: config.tuning };
    let target = config.target()?;
    let source = config.configured_source()?;
    let backup = catalog(config)?.find(&args.backup).await?;
    let progress = Progress::default();
    let work = restore::run(&backup, &target, source.as_ref(), &options, &progress, stop);
    let report = with_progress(faces, &progress, work).await?;
    Ok(Outcome::done(render::import(&report), output::fields(&report)?))
}
