//! `archive`: follows the source's oplog, and keeps it, until it is stopped.

use super::output::{self, Outcome};
use super::progress::{Faces, with_progress};
use super::render;
use crate::config::{Config, Flags};
use crate::context::Context;
use crate::engine::archive;
use crate::error::Result;
use crate::repository::Repository;

/// Flags of `archive`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source [env: MONGO_URI_ATLAS]
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// Archive only this database. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "DB")]
    database: Vec<String>,
    /// Take no base backups: somebody else does
    #[arg(long)]
    no_base: bool,
    /// How far back any second can be restored: a number with s, m, h, d or w. Older parts are
    /// removed [env: PITR_KEEP] [default: everything is kept]
    #[arg(long, value_name = "TIME")]
    pitr_keep: Option<String>,
    /// Take a base backup early if replaying would take longer than this [env: PITR_MAX_REPLAY]
    /// [default: 15m]
    #[arg(long, value_name = "TIME")]
    pitr_max_replay: Option<String>,
    /// The member of a replica set to read from [env: BACKUP_READ_PREFERENCE]
    #[arg(help_heading = "Load", long, value_name = "MODE")]
    read_preference: Option<String>,
    /// MiB for all buffers together, 64 or more [env: BACKUP_MEMORY_MB] [default: 256]
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true)]
    memory_mb: Option<String>,
}

impl Args {
    pub(super) fn flags(&self) -> Flags {
        Flags {
            source: self.source.clone(),
            pitr_keep: self.pitr_keep.clone(),
            pitr_max_replay: self.pitr_max_replay.clone(),
            read_preference: self.read_preference.clone(),
            memory_mb: self.memory_mb.clone(),
            ..Flags::default()
        }
    }
}

pub(super) async fn run(args: Args, config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    let (repository, source) = (Repository::open(&config.path)?, config.source()?);
    let mut options = config.archive(args.database);
    if args.no_base {
        options.bases = None;
    }
    let (status, _) = archive::status();
    cx.progress.begin("archiving the source's oplog");
    let report = with_progress(faces, cx, archive::run(&source, &repository, &options, &status, cx)).await?;
    Ok(Outcome::done(render::archive::done(&report), output::fields(&report)?))
}
