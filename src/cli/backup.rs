//! `backup`: take one, or with `--dry-run` say what would be taken.

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
    /// Back up this database only; may be given more than once
    #[arg(long, value_name = "DB")]
    database: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Go on with a backup that was interrupted, this one or else the newest of this source: what it stored is not read again
    #[arg(long, value_name = "NAME", num_args = 0..=1)]
    resume: Option<Option<String>>,
    /// Say what would be backed up, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Take names and patterns that match nothing, and a backup of nothing, for no error
    #[arg(long)]
    allow_empty: bool,
    /// Go on where the backup could not be of one moment though the source is a replica set
    #[arg(long)]
    allow_inconsistent: bool,
    /// Take the backup though another one of the same source runs into the same path
    #[arg(long)]
    allow_concurrent: bool,
    /// Cursors that read at a time, 1 to 256 [env: BACKUP_READERS] [default: chosen from the machine]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    readers: Option<String>,
    /// zstd's level, -7 (fastest) to 19 (smallest) [env: BACKUP_LEVEL]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    level: Option<String>,
    /// What the backup's frames are made of, zstd or columns: columns are smaller and only bsonvault reads them [env: BACKUP_CODEC] [default: zstd]
    #[arg(long, value_name = "CODEC")]
    codec: Option<String>,
    /// Let zstd look for repetitions far apart in a frame, too [env: BACKUP_LONG_DISTANCE]
    #[arg(long = "long", alias = "long-distance", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    long_distance: Option<String>,
    /// MiB of documents in a frame, 1 to 16: larger ones compress better and take more memory [env: BACKUP_FRAME_MB] [default: 4]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    frame_mb: Option<String>,
    /// Read no more than so many Mbit/s, counted before any compression on the wire, 1 to 1000000 [env: BACKUP_MAX_MBIT]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_mbit: Option<String>,
    /// Read more slowly while the source answers later than it did [env: BACKUP_POLITE]
    #[arg(long, alias = "polite", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    adaptive_throttle: Option<String>,
    /// Read from this member of a replica set: primary, primaryPreferred, secondary, secondaryPreferred, nearest, or a document with mode, tagSets and maxStalenessSeconds [env: BACKUP_READ_PREFERENCE] [default: the URI's, else primary]
    #[arg(long, value_name = "MODE")]
    read_preference: Option<String>,
    /// MiB that all buffers together may take, 64 or more [env: BACKUP_MEMORY_MB] [default: 256]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
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
        // The newest of this source is what is taken without a name, too.
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
        clean::after_backup(&catalog, &report.name, keeping, config.timezone, cx).await
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
