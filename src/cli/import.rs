//! `import`: bring a backup, or a dump of mongodump's, into the target.

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
    self, DocumentSource, DumpOptions, DumpSource, ImportMode, ImportOptions, IndexMode, PlannedOverwrite,
};
use crate::engine::unpack;
use crate::error::{Error, ErrorKind, Result};
use crate::few::Few;
use crate::format::manifest::{ClusterTime, Collection};
use crate::interop::Opened;
use crate::mongo::MongoUri;
use crate::names::{NamespaceRename, is_latest};
use crate::repository::catalog::Backup;
use crate::sink::users::WantedAccounts;

/// What says something of a backup that is imported, and nothing where none is.
const OF_AN_IMPORT: [&str; 16] = [
    "keep_replaced",
    "backup",
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
    /// The backup: a name that `list` shows, latest for the newest complete one, the path of one, the tar file that a service sent, or what mongodump made: a directory, an archive, a file; - for standard input; plain or gzip, whatever its name
    #[arg(value_name = "BACKUP", required_unless_present_any = ["cleanup", "undo_last", "drop_replaced"])]
    backup: Option<String>,
    /// Import nothing: remove what imports and test restores that died left in the target, and finish what they had begun to publish; what a restore left half filled under its final name only with --yes
    #[arg(long, conflicts_with_all = OF_AN_IMPORT)]
    cleanup: bool,
    /// Import nothing: put back what the last import with --keep-replaced replaced; --yes also where documents were written since
    #[arg(long, conflicts_with_all = OF_AN_IMPORT, conflicts_with = "cleanup")]
    undo_last: bool,
    /// Import nothing: drop all that imports with --keep-replaced have kept in the target
    #[arg(long, conflicts_with_all = OF_AN_IMPORT, conflicts_with_all = ["cleanup", "undo_last"])]
    drop_replaced: bool,
    /// The target [env: MONGO_URI_LOCAL]
    #[arg(long, value_name = "URI")]
    target: Option<String>,
    /// Import this database only; may be given more than once
    #[arg(long, value_name = "DB")]
    database: Vec<String>,
    /// The name that the database gets, if one is imported
    #[arg(long = "as", id = "as_name", value_name = "NAME")]
    as_name: Option<String>,
    /// Import a namespace under another name, views and what they read included; `*` carries over what it stands for; may be given more than once
    #[arg(long, value_name = "FROM=TO")]
    rename: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// What happens to what stands in the target under the same names
    #[arg(long, value_enum, default_value_t = Mode::Replace, value_name = "MODE")]
    mode: Mode,
    /// Drop collections, time series and views of the target's databases that could have come with the backup and are not in it
    #[arg(long, alias = "prune")]
    drop_extra: bool,
    /// Whether indexes are built
    #[arg(long, value_enum, default_value_t = Indexes::Now, value_name = "WHEN")]
    indexes: Indexes,
    /// Of a dump's oplog, replay only what is before this time: SECONDS, SECONDS:ORDINAL, or such as 2026-11-22T21:45:00Z
    #[arg(long, value_name = "TIME")]
    oplog_limit: Option<String>,
    /// Add the users and roles of a dump to those of the target, too; who is there already stays
    #[arg(long)]
    with_users: bool,
    /// Where a dump holds several documents with one `_id`, keep the first of them and say how many were passed over
    #[arg(long)]
    allow_duplicates: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace, merge into and drop what holds documents without asking; needed where there is no terminal to ask on
    #[arg(short, long)]
    yes: bool,
    /// Keep what is replaced or dropped beside the new, under a name that is told, until --undo-last or --drop-replaced
    #[arg(long)]
    keep_replaced: bool,
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
    /// Each gets those documents of the backup whose `_id`s it does not have; not atomic
    Add,
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

pub(super) async fn run(args: Args, config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    let Some(asked) = args.backup.as_deref() else {
        return match (args.undo_last, args.drop_replaced) {
            (true, _) => afterwards::undo_last((args.dry_run, args.yes), config, faces, cx).await,
            (_, true) => afterwards::drop_replaced(args.dry_run, config, faces, cx).await,
            _ => afterwards::cleanup((args.dry_run, args.yes), config, faces, cx).await,
        };
    };
    let options = ImportOptions {
        filter: args.filter.of(&[])?,
        renames: args.rename.iter().map(|text| NamespaceRename::parse(text)).collect::<Result<_>>()?,
        database: args.as_name.clone(),
        mode: match args.mode {
            Mode::Replace => ImportMode::Replace,
            Mode::Fail => ImportMode::Fail,
            Mode::Merge => ImportMode::Merge,
            Mode::Add => ImportMode::Add,
        },
        drop_extra: args.drop_extra,
        indexes: match args.indexes {
            Indexes::Now => IndexMode::Now,
            Indexes::Skip => IndexMode::Skip,
            Indexes::Only => IndexMode::Only,
        },
        allow_duplicates: args.allow_duplicates,
        users: args.with_users.then(WantedAccounts::all),
        keep_replaced: args.keep_replaced,
        allow_same: args.allow_same,
        tuning: config.tuning,
        ..ImportOptions::default()
    };
    let oplog_limit = args.oplog_limit.as_deref().map(ClusterTime::parse).transpose()?;
    let target = config.target()?;
    let silent = faces == Faces::Silent;
    let found = match found(asked, silent, config, cx).await? {
        Some(backup) if oplog_limit.is_some() => {
            let message = format!("--oplog-limit is about dumps, and {} is a backup", backup.location());
            return Err(Error::usage(message).hint("a backup's oplog makes its parts belong together: it is replayed whole"));
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
                return Err(Error::usage("--oplog-limit is about dumps, and this is a backup"));
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

/// How something is brought into the target.
pub(super) struct How {
    pub(super) target: MongoUri,
    pub(super) options: ImportOptions,
    pub(super) dry_run: bool,
    /// Whether what holds documents is overwritten without asking.
    pub(super) yes: bool,
    pub(super) faces: Faces,
}

/// Plans, shows the plan, and does it, unless that is all that is wanted.
pub(super) async fn bring(found: &Found, how: How, config: &Config, cx: &Context) -> Result<Outcome> {
    let How { target, options, dry_run, yes, faces } = how;
    let source = config.configured_source()?;
    let origin: &dyn DocumentSource = match found {
        Found::Backup(backup) | Found::Unpacked(backup, _) => &**backup,
        Found::Dump(dumped) => &**dumped,
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
            && let Err(e) = confirm(loss(&overwrites), yes, cx).await
        {
            plan.close().await;
            return Err(before_any_change(e));
        }
        plan.overwrite_no_more();
    }
    let report = with_progress(faces, cx, import::execute(plan, &options, cx)).await?;
    let failure = report.failure();
    let text = render::import::done(&report);
    // Who asked for every document makes a failure of those that were not added, and shows the report with it.
    if failure.is_some() || report.not_added > 0 {
        return Ok(Outcome { text, json: output::fields(&report)?, failure, ..Outcome::default() });
    }
    Ok(Outcome { text, long: output::long(report, Map::new()), ..Outcome::default() })
}

/// The error of what only looked: an interruption changed nothing.
fn before_any_change(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Interrupted => Error::new(ErrorKind::Interrupted, "interrupted; nothing was changed"),
        _ => error,
    }
}

/// What is lost by an import, if it is allowed.
fn loss(overwrites: &[PlannedOverwrite]) -> Loss {
    let what = match overwrites {
        [_] => "this holds documents and would be overwritten".to_owned(),
        many => format!("these {} hold documents and would be overwritten", many.len()),
    };
    let hint = "give --yes to do it, with --keep-replaced so that it can be undone, or --dry-run to see all of it; with --mode add or --mode fail, or under other names (--as, \
                --rename), nothing is overwritten";
    Loss { what, each: overwrites.iter().map(render::import::overwrite).collect(), hint: hint.to_owned() }
}

/// What is imported.
pub(super) enum Found {
    Backup(Box<Backup>),
    /// One that came in a tar file, and its directory, which is gone with this.
    Unpacked(Box<Backup>, #[expect(dead_code, reason = "it is removed with this")] TempDir),
    Dump(Box<DumpSource>),
}

impl Found {
    fn collections(&self) -> &[Collection] {
        match self {
            Self::Backup(backup) | Self::Unpacked(backup, _) => &backup.manifest.collections,
            Self::Dump(dumped) => dumped.collections(),
        }
    }

    /// The dump in this place. Where it is that of one database, it may be given another name.
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

/// The options with the databases that are chosen. `--database` once gave the only database another name: it is still taken so if
/// it cannot choose any. Never of `latest`, which may hold another database today.
fn of_databases(name: &str, asked: &[String], mut options: ImportOptions, found: &Found, silent: bool) -> Result<ImportOptions> {
    let held: BTreeSet<&str> = found.collections().iter().map(|c| c.database.as_str()).collect();
    let passing: BTreeSet<&str> =
        found.collections().iter().filter(|c| options.filter.takes(&c.namespace())).map(|c| c.database.as_str()).collect();
    let missing: Vec<&String> = asked.iter().filter(|name| !held.contains(name.as_str())).collect();
    match (asked, missing.as_slice(), passing.first()) {
        (_, [], _) => options.filter.databases = asked.to_vec(),
        ([only], [_], Some(from)) if passing.len() == 1 && options.database.is_none() && !is_latest(name) => {
            if !silent {
                output::to_stderr(&format!(
                    "note: there is no database {} in it, so the only one, {}, gets that name; say it with --as {} \
                     (--database chooses)\n",
                    plain(only),
                    plain(from),
                    plain(only)
                ));
            }
            options.database = Some(only.clone());
        }
        (_, [name, ..], _) => {
            let held: Vec<String> = held.iter().map(ToString::to_string).collect::<Few>().into_sentences();
            return Err(Error::usage(format!("it holds no database {name:?}"))
                .hint(format!("--database chooses among {}; --as NAME gives one another name; case counts", held.join(", "))));
        }
    }
    Ok(options)
}

/// The backup of this name or at this path; none where there may be a dump.
async fn found(asked: &str, silent: bool, config: &Config, cx: &Context) -> Result<Option<Backup>> {
    let path = Path::new(asked);
    // A pipe of the shell's is no file.
    if asked == "-" || (!is_latest(asked) && path.exists() && !path.is_dir()) {
        return Ok(None);
    }
    match named::find(asked, Asking { verb: "import", silent }, config, cx).await {
        Ok(backup) => Ok(Some(backup)),
        Err(e) if e.kind() == ErrorKind::NotFound && path.is_dir() => Ok(None),
        Err(e) => Err(e),
    }
}
