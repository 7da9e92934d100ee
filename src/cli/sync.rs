//! `sync`: a target follows the source, until it is stopped.

use clap::Subcommand;

use super::filter::Filter;
use super::output::{self, Outcome};
use super::progress::{Faces, with_progress};
use super::render;
use crate::config::{Config, Flags};
use crate::context::Context;
use crate::engine::import::ImportMode;
use crate::engine::sync::{self, SyncOptions};
use crate::error::Result;
use crate::names::NamespaceRename;
use crate::repository::Repository;

/// Flags of `sync`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The source [env: MONGO_URI_ATLAS]
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// The target [env: MONGO_URI_LOCAL]
    #[arg(long, value_name = "URI")]
    target: Option<String>,
    /// Begin with this backup. Without it, with the newest from which the archived oplog reaches
    /// the present; if there is none, the source is copied straight into the target
    #[arg(long, value_name = "BACKUP")]
    from: Option<String>,
    /// If there is no such backup, take one, begin with it, and keep it: then every second since
    /// can be restored, too
    #[arg(long, conflicts_with = "from")]
    keep_backup: bool,
    /// Stay so far behind the source on purpose: a number with s, m, h, d or w [env: SYNC_DELAY]
    #[arg(long, value_name = "TIME")]
    delay: Option<String>,
    /// Prove so often that the target holds what the source holds: a number with s, m, h, d or w,
    /// or `off` [env: SYNC_PROOF] [default: 24h]
    #[arg(long, value_name = "TIME")]
    proof: Option<String>,
    /// What happens to collections that exist in the target when the first copy is made
    #[arg(long, value_enum, default_value_t = Mode::Fail, value_name = "MODE")]
    mode: Mode,
    /// Follow only this database. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "DB")]
    database: Vec<String>,
    /// Follow a namespace under another name. Each * in FROM matches any characters, which replace
    /// the * in TO. Views follow. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "FROM=TO")]
    rename: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// MiB for all buffers together, 64 or more [env: BACKUP_MEMORY_MB] [default: 256]
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true)]
    memory_mb: Option<String>,
}

/// What happens to what exists in the target.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Mode {
    /// Refuse to begin
    Fail,
    /// Replace it
    Replace,
}

/// What to ask of a target that follows.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show how far a target is
    Status(Of),
    /// Pause: the source's oplog is still archived
    Pause(Of),
    /// End a pause
    Resume(Of),
    /// Prove now that the target holds what the source holds, and wait for the result. The process
    /// that follows does it
    Verify(Of),
    /// End it for good: the target is a copy of its own from then on
    Finalize(Of),
}

/// Which target.
#[derive(Debug, clap::Args)]
pub struct Of {
    /// The target [env: MONGO_URI_LOCAL]
    #[arg(long, value_name = "URI")]
    target: Option<String>,
}

impl Args {
    pub(super) fn flags(&self) -> Flags {
        let of = match &self.command {
            Some(
                Command::Status(of) | Command::Pause(of) | Command::Resume(of) | Command::Verify(of) | Command::Finalize(of),
            ) => of.target.clone(),
            None => None,
        };
        Flags {
            source: self.source.clone(),
            target: self.target.clone().or(of),
            memory_mb: self.memory_mb.clone(),
            delay: self.delay.clone(),
            proof: self.proof.clone(),
            ..Flags::default()
        }
    }

    /// Whether it runs until it is stopped.
    pub(super) fn is_endless(&self) -> bool {
        self.command.is_none()
    }
}

pub(super) async fn run(args: Args, config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    let target = config.target()?;
    let view = match &args.command {
        None => return follow(args, config, faces, cx).await,
        Some(Command::Status(_)) => sync::view(&target, cx).await?,
        Some(Command::Pause(_)) => sync::pause(&target, cx).await?,
        Some(Command::Resume(_)) => sync::resume(&target, cx).await?,
        Some(Command::Verify(_)) => {
            let report = with_progress(faces, cx, sync::verify(&target, cx)).await?;
            let outcome = Outcome::done(render::sync::proof(&report), output::fields(&report)?);
            return Ok(Outcome { differs: !report.same, ..outcome });
        }
        Some(Command::Finalize(_)) => sync::finalize(&target, cx).await?,
    };
    Ok(Outcome::done(render::sync::view(&view), output::fields(&view)?))
}

async fn follow(args: Args, config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    let (repository, source, target) = (Repository::open(&config.path)?, config.source()?, config.target()?);
    let renames = args.rename.iter().map(|text| NamespaceRename::parse(text)).collect::<Result<_>>()?;
    let options = SyncOptions {
        filter: args.filter.of(&args.database)?,
        renames,
        from: args.from,
        keep_backup: args.keep_backup,
        mode: match args.mode {
            Mode::Fail => ImportMode::Fail,
            Mode::Replace => ImportMode::Replace,
        },
        delay: config.sync.delay,
        proof: config.sync.proof,
        archive: config.archive(Vec::new()),
        tuning: config.tuning,
    };
    let (status, _) = sync::StatusSender::new();
    let work = sync::run(&source, &target, &repository, &options, &status, cx);
    let report = with_progress(faces, cx, work).await?;
    Ok(Outcome::done(render::sync::done(&report), output::fields(&report)?))
}
