//! `import`: bring a backup into the target.

use tokio_util::sync::CancellationToken;

use super::output::{self, Outcome};
use super::progress::Faces;
use super::render;
use super::{catalog, with_progress};
use crate::config::{Config, Flags};
use crate::engine::record;
use crate::engine::restore::{self, IndexMode, RestoreMode, RestoreOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::names::{NamespacePattern, NamespaceRename};
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
    /// The database to bring it to, where one database is imported
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Import a namespace under another name, views and what they read included; `*` carries over what it stands for; may be given more than once
    #[arg(long, value_name = "FROM=TO")]
    rename: Vec<String>,
    /// Import only namespaces (DB.COLLECTION of the backup, `*` stands for any characters) that match; may be given more than once
    #[arg(long, value_name = "NS")]
    include: Vec<String>,
    /// Leave out namespaces that match; may be given more than once
    #[arg(long, value_name = "NS")]
    exclude: Vec<String>,
    /// What happens to what stands in the target under the same names
    #[arg(long, value_enum, default_value_t = Mode::Replace, value_name = "MODE")]
    mode: Mode,
    /// Drop collections, time series and views of the target's databases that could have come with the backup and are not in it
    #[arg(long)]
    prune: bool,
    /// Whether indexes are built
    #[arg(long, value_enum, default_value_t = Indexes::Now, value_name = "WHEN")]
    indexes: Indexes,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
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

/// Modes of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Each is replaced, whole or not at all
    Replace,
    /// They refuse the import, before anything is written
    Fail,
    /// Each gets the documents of the backup in place of those with the same `_id`s; not atomic
    Merge,
}

/// When indexes are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Indexes {
    /// Before anything is published; one that cannot be built fails the import
    Now,
    /// Not at all; each is reported
    Skip,
    /// Nothing else is done: those that the target's collections lack are built
    Only,
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
    let patterns = |texts: &[String]| texts.iter().map(|text| NamespacePattern::parse(text)).collect::<Result<Vec<_>>>();
    let options = RestoreOptions {
        include: patterns(&args.include)?,
        exclude: patterns(&args.exclude)?,
        renames: args.rename.iter().map(|text| NamespaceRename::parse(text)).collect::<Result<_>>()?,
        database: args.database,
        mode: match args.mode {
            Mode::Replace => RestoreMode::Replace,
            Mode::Fail => RestoreMode::Fail,
            Mode::Merge => RestoreMode::Merge,
        },
        prune: args.prune,
        indexes: match args.indexes {
            Indexes::Now => IndexMode::Now,
            Indexes::Skip => IndexMode::Skip,
            Indexes::Only => IndexMode::Only,
        },
        allow_same: args.allow_same,
        lease: None,
        tuning: config.tuning,
    };
    let target = config.target()?;
    let source = config.configured_source()?;
    let backup = catalog(config)?.find(&args.backup).await?;
    let plan = restore::plan(&backup, &target, source.as_ref(), &options, stop).await?;
    if args.dry_run {
        let summary = plan.summary();
        plan.close().await;
        let mut fields = output::fields(&summary)?;
        fields.insert("dryRun".to_owned(), true.into());
        return Ok(Outcome::done(render::restore_plan(&summary), fields));
    }
    if faces != Faces::Silent {
        output::to_stderr(&render::restore_plan(&plan.summary()));
    }
    let progress = Progress::default();
    let work = record::import(&backup, plan, &options, &progress, stop);
    let report = with_progress(faces, &progress, work).await?;
    let failure = match report.failed_indexes.len() {
        0 => None,
        1 => Some("an index could not be built".to_owned()),
        many => Some(format!("{many} indexes could not be built")),
    };
    let failure = failure.map(|what| Error::new(ErrorKind::Server, what).hint("the report names each with the reason"));
    Ok(Outcome { text: render::import(&report), json: output::fields(&report)?, failure })
}
