//! `backup`: takes a backup, or with `--dry-run` shows what would be backed up.

use serde_json::json;

use super::filter::Filter;
use super::output::{self, Outcome};
use super::progress::{Faces, with_progress};
use super::render;
use crate::config::{Config, Flags};
use crate::context::Context;
use crate::engine::backup::{self, BackupOptions};
use crate::engine::clean::{self, Keeping};
use crate::error::{Face, Result};
use crate::names::{BackupName, is_latest};
use crate::repository::Repository;
use crate::repository::catalog::Catalog;

/// Flags of `backup`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source [env: MONGO_URI_ATLAS]
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// Back up only this database. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "DB")]
    database: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Go on with an interrupted backup: NAME, or the newest one of this source. What is stored is
    /// not read again
    #[arg(long, value_name = "NAME", num_args = 0..=1)]
    resume: Option<Option<String>>,
    /// Show what would be backed up, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Don't fail if nothing matches
    #[arg(help_heading = "Safety", long)]
    allow_empty: bool,
    /// Go on if a replica set or sharded cluster cannot be backed up at one consistency point
    #[arg(help_heading = "Safety", long)]
    allow_inconsistent: bool,
    /// Go on if another backup of the same source is running into the same path
    #[arg(help_heading = "Safety", long)]
    allow_concurrent: bool,
    /// Cursors that read at the same time, 1 to 256 [env: BACKUP_READERS] [default: adapts]
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true)]
    readers: Option<String>,
    /// zstd's level, -7 (fastest) to 19 (smallest) [env: BACKUP_LEVEL] [default: adapts]
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true)]
    level: Option<String>,
    /// How frames are encoded: `zstd`, or `columns`, which is smaller if documents are alike and
    /// which only bsonvault reads [env: BACKUP_CODEC] [default: zstd]
    #[arg(help_heading = "Load", long, value_name = "CODEC")]
    codec: Option<String>,
    /// Let zstd look for repetitions in a whole frame [env: BACKUP_LONG_DISTANCE]
    #[arg(help_heading = "Load", long = "long", alias = "long-distance", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    long_distance: Option<String>,
    /// MiB of documents in a frame, 1 to 16. Larger frames compress better and take more memory
    /// [env: BACKUP_FRAME_MB] [default: 4]
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true)]
    frame_mb: Option<String>,
    /// The most Mbit/s to read, 1 to 1000000, counted before compression on the wire [env:
    /// BACKUP_MAX_MBIT]
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true)]
    max_mbit: Option<String>,
    /// Read more slowly while the source's latency is higher than before [env: BACKUP_POLITE]
    #[arg(help_heading = "Load", long, alias = "polite", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    adaptive_throttle: Option<String>,
    /// The member of a replica set to read from: primary, primaryPreferred, secondary,
    /// secondaryPreferred, nearest, or a document with mode, tagSets and maxStalenessSeconds [env:
    /// BACKUP_READ_PREFERENCE] [default: the URI's, else primary]
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
            readers: self.readers.clone(),
            level: self.level.clone(),
            codec: self.codec.clone(),
            long_distance: self.long_distance.clone(),
            frame_mb: self.frame_mb.clone(),
            max_mbit: self.max_mbit.clone(),
            adaptive_throttle: self.adaptive_throttle.clone(),
            read_preference: self.read_preference.clone(),
            memory_mb: self.memory_mb.clone(),
            ..Flags::default()
        }
    }
}

pub(super) async fn run(args: Args, config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    let options = BackupOptions {
        filter: args.filter.of(&args.database)?,
        allow_empty: args.allow_empty,
        allow_inconsistent: args.allow_inconsistent,
        allow_concurrent: args.allow_concurrent,
        tuning: config.tuning,
        ..BackupOptions::default()
    };
    let repository = Repository::open(&config.path)?;
    let source = config.source()?;
    let resumed = match &args.resume {
        // Without a name, it is the newest of this source, too.
        Some(Some(name)) if is_latest(name) => Some(None),
        Some(Some(name)) => Some(Some(BackupName::parse(name)?)),
        Some(None) => Some(None),
        None => None,
    };
    if args.dry_run {
        let plan = match &resumed {
            Some(name) => cx.unless_cancelled(backup::plan_resume(&source, &repository, name.as_ref(), &options, cx)).await?,
            None => cx.unless_cancelled(backup::plan(&source, &options, cx)).await?,
        };
        let mut fields = output::fields(&plan)?;
        fields.insert("dryRun".to_owned(), true.into());
        return Ok(Outcome::done(render::backup::plan(&plan), fields));
    }
    let work = async {
        match &resumed {
            Some(name) => backup::resume(&source, &repository, name.as_ref(), &options, cx).await,
            None => backup::run(&source, &repository, &options, cx).await,
        }
    };
    let report = with_progress(faces, cx, work).await?;
    let retention = {
        let (catalog, keeping) = (Catalog::new(repository, &cx.cpu), Keeping::Policy(config.retention));
        clean::after_backup(&catalog, &report.name, keeping, config.timezone, config.pitr.window(), cx).await
    };
    let manifest = &report.manifest;
    let mut fields = output::made(&report.location, manifest);
    fields["seconds"] = json!(render::backup::seconds(manifest));
    let mut text = render::backup::taken(&report.location, manifest);
    if let Some(mut retention) = retention {
        retention.report.say(Face::CommandLine);
        fields["retention"] = json!(retention);
        text += &render::clean::after_backup(&retention);
    }
    Ok(Outcome::done(text, output::fields(&fields)?))
}
