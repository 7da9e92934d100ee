//! `import`: restores a backup, or a dump from mongodump, into the target.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Map;
use tempfile::TempDir;

use super::afterwards;
use super::confirm::{Loss, confirm};
use super::filter::Filter;
use super::named::{self, Asking};
use super::output::{self, Outcome};
use super::progress::{Faces, with_progress};
use super::render::{self, plain};
use crate::config::{Config, Flags};
use crate::context::Context;
use crate::engine::import::{
    self, DocumentSource, DumpOptions, DumpSource, ImportMode, ImportOptions, IndexMode, PlannedOverwrite, PointInTime,
};
use crate::engine::moment::Moment;
use crate::engine::unpack;
use crate::engine::wanted::Wanted;
use crate::error::{Error, ErrorKind, Result};
use crate::few::Few;
use crate::format::manifest::{ClusterTime, Collection};
use crate::interop::Opened;
use crate::mongo::MongoUri;
use crate::names::{NamespaceRename, is_latest};
use crate::repository::Repository;
use crate::repository::catalog::Backup;
use crate::sink::users::WantedAccounts;

/// The flags that make sense only if a backup is imported.
const OF_AN_IMPORT: [&str; 18] = [
    "keep_replaced",
    "backup",
    "to",
    "undo",
    "database",
    "as_name",
    "rename",
    "include",
    "exclude",
    "mode",
    "drop_extra",
    "indexes",
    "oplog_limit",
    "with_users",
    "allow_duplicates",
    "allow_same",
    "writers",
    "memory_mb",
];

/// Flags of `import`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backup: a name that `list` shows, `latest` for the newest complete one, a path, or a tar
    /// file from the service. Or a dump from mongodump: a directory, an archive or a file, plain or
    /// gzip; - is standard input
    #[arg(value_name = "BACKUP", required_unless_present_any = ["cleanup", "undo_last", "drop_replaced", "to", "undo"])]
    backup: Option<String>,
    /// Restore a point in time from a backup and the archived oplog: 2026-11-28T14:03:22Z (all of
    /// that second), SECONDS:ORDINAL, or before:SECONDS:ORDINAL. BACKUP may be left out: then the
    /// newest one that leads there is taken
    #[arg(help_heading = "Point in time", long, value_name = "TIME", conflicts_with = "oplog_limit")]
    to: Option<String>,
    /// Bring back the collections that the operation at this time touched, as they were right
    /// before it. `oplog-search` prints the times of operations
    #[arg(help_heading = "Point in time", long, value_name = "SECONDS:ORDINAL", conflicts_with_all = ["to", "oplog_limit", "include", "exclude", "database"])]
    undo: Option<String>,
    /// Remove what crashed imports and test restores left in the target, and finish what they had
    /// begun to publish. Collections that a crashed `restore` left half filled are removed only
    /// with --yes
    #[arg(help_heading = "Instead of an import", long, conflicts_with_all = OF_AN_IMPORT)]
    cleanup: bool,
    /// Put back what the last import with --keep-replaced replaced. --yes does so even if documents
    /// were written since
    #[arg(help_heading = "Instead of an import", long, conflicts_with_all = OF_AN_IMPORT, conflicts_with = "cleanup")]
    undo_last: bool,
    /// Drop everything that imports with --keep-replaced kept in the target
    #[arg(help_heading = "Instead of an import", long, conflicts_with_all = OF_AN_IMPORT, conflicts_with_all = ["cleanup", "undo_last"])]
    drop_replaced: bool,
    /// The target [env: MONGO_URI_LOCAL]
    #[arg(long, value_name = "URI")]
    target: Option<String>,
    /// Import only this database. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "DB")]
    database: Vec<String>,
    /// The name that a single imported database gets
    #[arg(help_heading = "Selection", long = "as", id = "as_name", value_name = "NAME")]
    as_name: Option<String>,
    /// Import a namespace under another name. Each * in FROM matches any characters, which replace
    /// the * in TO. Views follow. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "FROM=TO")]
    rename: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// What happens to collections that already exist in the target
    #[arg(long, value_enum, default_value_t = Mode::Replace, value_name = "MODE")]
    mode: Mode,
    /// Drop collections, time series and views that are in the target's databases and not in the
    /// backup, though it could hold them
    #[arg(long, alias = "prune")]
    drop_extra: bool,
    /// Whether indexes are built
    #[arg(long, value_enum, default_value_t = Indexes::Now, value_name = "WHEN")]
    indexes: Indexes,
    /// For a dump: replay only oplog entries before this time: SECONDS, SECONDS:ORDINAL or
    /// 2026-11-22T21:45:00Z
    #[arg(help_heading = "Dumps of mongodump", long, value_name = "TIME")]
    oplog_limit: Option<String>,
    /// For a dump: add its users and roles to the target. Existing ones stay unchanged
    #[arg(help_heading = "Dumps of mongodump", long)]
    with_users: bool,
    /// For a dump: if several documents have the same _id, keep the first and count the others
    #[arg(help_heading = "Dumps of mongodump", long)]
    allow_duplicates: bool,
    /// Show what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Don't ask before documents are replaced, merged or dropped. Required if there is no terminal
    /// to ask on
    #[arg(help_heading = "Safety", short, long)]
    yes: bool,
    /// Keep what is replaced or dropped under another name, so that --undo-last can put it back
    #[arg(help_heading = "Safety", long)]
    keep_replaced: bool,
    /// Go on if the target is the deployment that the backup came from, or the configured source
    #[arg(help_heading = "Safety", long)]
    allow_same: bool,
    /// Writers that insert at the same time, 1 to 256 [env: BACKUP_WRITERS] [default: adapts]
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true)]
    writers: Option<String>,
    /// MiB for all buffers together, 64 or more [env: BACKUP_MEMORY_MB] [default: 256]
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true)]
    memory_mb: Option<String>,
}

/// Modes of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Replace each collection atomically
    Replace,
    /// Refuse the import if one exists, before anything is written
    Fail,
    /// Replace documents with the same _id, add the others, keep the rest. Not atomic
    Merge,
    /// Add documents whose _id does not exist, keep the rest. Not atomic
    Add,
}

/// When indexes are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Indexes {
    /// Before publishing. An index that cannot be built fails the import
    Now,
    /// Build none, and report each
    Skip,
    /// Import nothing, and build the missing indexes of existing collections
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

    /// How to import.
    fn options(&self, config: &Config) -> Result<ImportOptions> {
        Ok(ImportOptions {
            filter: self.filter.of(&[])?,
            renames: self.rename.iter().map(|text| NamespaceRename::parse(text)).collect::<Result<_>>()?,
            database: self.as_name.clone(),
            mode: match self.mode {
                Mode::Replace => ImportMode::Replace,
                Mode::Fail => ImportMode::Fail,
                Mode::Merge => ImportMode::Merge,
                Mode::Add => ImportMode::Add,
            },
            drop_extra: self.drop_extra,
            indexes: match self.indexes {
                Indexes::Now => IndexMode::Now,
                Indexes::Skip => IndexMode::Skip,
                Indexes::Only => IndexMode::Only,
            },
            allow_duplicates: self.allow_duplicates,
            users: self.with_users.then(WantedAccounts::all),
            keep_replaced: self.keep_replaced,
            allow_same: self.allow_same,
            tuning: config.tuning,
            ..ImportOptions::default()
        })
    }
}

pub(super) async fn run(args: Args, config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    if args.to.is_some() || args.undo.is_some() {
        return point_in_time(args, config, faces, cx).await;
    }
    let Some(asked) = args.backup.as_deref() else {
        return match (args.undo_last, args.drop_replaced) {
            (true, _) => afterwards::undo_last((args.dry_run, args.yes), config, faces, cx).await,
            (_, true) => afterwards::drop_replaced((args.dry_run, args.yes), config, faces, cx).await,
            _ => afterwards::cleanup((args.dry_run, args.yes), config, faces, cx).await,
        };
    };
    let options = args.options(config)?;
    let oplog_limit = args.oplog_limit.as_deref().map(ClusterTime::parse).transpose()?;
    let target = config.target()?;
    let silent = faces == Faces::Silent;
    let found = match found(asked, silent, config, cx).await? {
        Some(backup) if oplog_limit.is_some() => {
            let message = format!("--oplog-limit is for dumps, and {} is a backup", backup.location());
            return Err(Error::usage(message).hint("leave it out: the oplog slice of a backup is always replayed whole"));
        }
        Some(backup) => Found::Backup(Box::new(backup)),
        None => match Opened::look(asked, config.tuning.memory_bytes, &cx.cancel).await.map_err(before_any_change)? {
            Opened::Dump(dump) => {
                let how = DumpOptions { oplog_limit, ..dump_options(config) };
                let looking = DumpSource::of(*dump, how, cx);
                let looked = with_progress(faces, cx, looking).await;
                Found::Dump(Box::new(looked.map_err(before_any_change)?))
            }
            Opened::Backup(_) if oplog_limit.is_some() => {
                return Err(Error::usage("--oplog-limit is for dumps, and this is a backup"));
            }
            Opened::Backup(packed) => {
                let (backup, directory) =
                    unpack::aside(packed, config.tuning.memory_bytes, cx).await.map_err(before_any_change)?;
                Found::Unpacked(Box::new(backup), directory)
            }
        },
    };
    let options = of_databases(asked, &args.database, options, &found, silent)?;
    let how = How { target, options, dry_run: args.dry_run, yes: args.yes, faces };
    bring(&found, how, config, cx).await
}

/// Restores a point in time.
async fn point_in_time(args: Args, config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    let mut options = args.options(config)?;
    let repository = Repository::open(&config.path)?;
    let target = config.target()?;
    let wanted = match (&args.to, &args.undo) {
        (Some(to), _) => Wanted::To(Moment::parse(to)?),
        (None, undo) => Wanted::undo(undo.as_deref().unwrap_or_default())?,
    };
    let looking = wanted.find(&repository, args.backup.as_deref(), &mut options.filter, cx);
    let origin = Box::pin(with_progress(faces, cx, looking)).await.map_err(before_any_change)?;
    options.filter.databases.extend(args.database.iter().cloned());
    let how = How { target, options, dry_run: args.dry_run, yes: args.yes, faces };
    bring(&Found::PointInTime(Box::new(origin)), how, config, cx).await
}

/// How something is imported.
pub(super) struct How {
    pub(super) target: MongoUri,
    pub(super) options: ImportOptions,
    pub(super) dry_run: bool,
    /// Whether namespaces that hold documents are overwritten without asking.
    pub(super) yes: bool,
    pub(super) faces: Faces,
}

/// Plans the import and shows the plan. Unless it is a dry run, imports then.
pub(super) async fn bring(found: &Found, how: How, config: &Config, cx: &Context) -> Result<Outcome> {
    let How { target, options, dry_run, yes, faces } = how;
    let source = config.configured_source()?;
    let origin: &dyn DocumentSource = match found {
        Found::Backup(backup) | Found::Unpacked(backup, _) => &**backup,
        Found::Dump(dumped) => &**dumped,
        Found::PointInTime(origin) => &**origin,
    };
    let mut plan = import::plan(origin, &target, source.as_ref(), &options, cx).await.map_err(before_any_change)?;
    let overwrites = match plan.look_at_overwrites().await {
        Ok(overwrites) => overwrites.to_vec(),
        Err(e) => {
            plan.close().await;
            return Err(before_any_change(e));
        }
    };
    if dry_run {
        let summary = plan.summary();
        plan.close().await;
        let text = render::import::plan(&summary);
        let more = Map::from_iter([("dryRun".to_owned(), true.into())]);
        return Ok(Outcome { text, long: output::long(summary, more), ..Outcome::default() });
    }
    if faces != Faces::Silent {
        output::to_stderr(&render::import::plan(&plan.summary()));
    }
    if !yes {
        if !overwrites.is_empty()
            && let Err(e) = confirm(loss(&target, &options, &overwrites), yes, cx).await
        {
            plan.close().await;
            return Err(before_any_change(e));
        }
        plan.overwrite_no_more();
    }
    let report = with_progress(faces, cx, import::execute(plan, &options, cx)).await?;
    let failure = report.failure();
    let text = render::import::done(&report);
    // `restore --stopOnError` turns documents that were not added into a failure, with this report.
    if failure.is_some() || report.not_added > 0 {
        return Ok(Outcome { text, json: output::fields(&report)?, failure, ..Outcome::default() });
    }
    Ok(Outcome { text, long: output::long(report, Map::new()), ..Outcome::default() })
}

/// The error of work that only reads the target. If it is interrupted, nothing was changed.
fn before_any_change(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Interrupted => Error::new(ErrorKind::Interrupted, "interrupted; nothing was changed"),
        _ => error,
    }
}

/// What an import would overwrite, and where.
fn loss(target: &MongoUri, options: &ImportOptions, overwrites: &[PlannedOverwrite]) -> Loss {
    let can_be_kept = matches!(options.mode, ImportMode::Replace | ImportMode::Fail);
    let undo = if options.keep_replaced { "" } else { ", and that cannot be undone" };
    let what = match overwrites {
        [_] => format!("this holds documents in {target} and would be overwritten{undo}"),
        many => format!("these {} hold documents in {target} and would be overwritten{undo}", many.len()),
    };
    let keep = if can_be_kept { ", and --keep-replaced to be able to undo it" } else { "; what is merged cannot be undone" };
    let hint = format!(
        "pass --yes to overwrite{keep}; --dry-run shows the whole plan; --mode add, --mode fail or other names (--as, \
         --rename) overwrite nothing"
    );
    Loss { what, each: overwrites.iter().map(render::import::overwrite).collect(), hint }
}

/// What is imported.
pub(super) enum Found {
    Backup(Box<Backup>),
    /// A backup from a tar file, and its directory, which is removed when this is dropped.
    Unpacked(Box<Backup>, #[expect(dead_code, reason = "it is removed when this is dropped")] TempDir),
    Dump(Box<DumpSource>),
    PointInTime(Box<PointInTime>),
}

impl Found {
    fn collections(&self) -> &[Collection] {
        match self {
            Self::Backup(backup) | Self::Unpacked(backup, _) => &backup.manifest.collections,
            Self::Dump(dumped) => dumped.collections(),
            Self::PointInTime(origin) => &origin.backup().manifest.collections,
        }
    }

    /// The dump at this place. If it holds one database, that can get another name.
    pub(super) async fn dump(
        place: &str,
        (database, oplog_limit): (Option<String>, Option<ClusterTime>),
        config: &Config,
        faces: Faces,
        cx: &Context,
    ) -> Result<Self> {
        let options = DumpOptions { database, oplog_limit, ..dump_options(config) };
        let looking = DumpSource::open(place, options, cx);
        let looked = with_progress(faces, cx, looking).await;
        Ok(Self::Dump(Box::new(looked.map_err(before_any_change)?)))
    }
}

fn dump_options(config: &Config) -> DumpOptions {
    DumpOptions { database: None, oplog_limit: None, memory_bytes: config.tuning.memory_bytes }
}

/// The options with the chosen databases. `--database` once gave the only database another name. It
/// still does if it matches none, but not with `latest`, which may hold another database today, and
/// not with `--allow-same` in another mode than replace.
fn of_databases(name: &str, asked: &[String], mut options: ImportOptions, found: &Found, silent: bool) -> Result<ImportOptions> {
    let held: BTreeSet<&str> = found.collections().iter().map(|c| c.database.as_str()).collect();
    let passing: BTreeSet<&str> =
        found.collections().iter().filter(|c| options.filter.takes(&c.namespace())).map(|c| c.database.as_str()).collect();
    let missing: Vec<&String> = asked.iter().filter(|name| !held.contains(name.as_str())).collect();
    match (asked, missing.as_slice(), passing.first()) {
        (_, [], _) => options.filter.databases = asked.to_vec(),
        // Not into existing collections of the source itself.
        ([only], [_], Some(from))
            if passing.len() == 1
                && options.database.is_none()
                && !is_latest(name)
                && !(options.allow_same && options.mode != ImportMode::Replace) =>
        {
            if !silent {
                output::to_stderr(&format!(
                    "note: the backup has no database {}, so its only one, {}, gets that name; use --as {} for that, --database \
                     selects\n",
                    plain(only),
                    plain(from),
                    plain(only)
                ));
            }
            options.database = Some(only.clone());
        }
        (_, [name, ..], _) => {
            let held: Vec<String> = held.iter().map(ToString::to_string).collect::<Few>().into_sentences();
            return Err(Error::usage(format!("the backup holds no database {name:?}")).hint(format!(
                "--database selects from {} (case-sensitive); --as NAME gives one another name",
                held.join(", ")
            )));
        }
    }
    Ok(options)
}

/// The backup of this name or at this path. `None` if it may be a dump.
async fn found(asked: &str, silent: bool, config: &Config, cx: &Context) -> Result<Option<Backup>> {
    let path = Path::new(asked);
    // A pipe of the shell exists and is no regular file.
    if asked == "-" || (!is_latest(asked) && path.exists() && !path.is_dir()) {
        return Ok(None);
    }
    match named::find(asked, Asking { verb: "import", silent }, config, cx).await {
        Ok(backup) => Ok(Some(backup)),
        Err(e) if e.kind() == ErrorKind::NotFound && path.is_dir() => Ok(None),
        Err(e) => Err(e),
    }
}
