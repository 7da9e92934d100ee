//! `dump`: a backup that is exported at once, under the flags of mongodump, for scripts that call that by its name.

use std::path::{Path, PathBuf};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::output::{self, Outcome};
use super::progress::Faces;
use super::tools::{self, DEFAULT_URI, Deployment, patterns};
use super::{render, with_progress};
use crate::catalog::{Backup, Catalog};
use crate::config::{Config, Flags};
use crate::engine::backup::{self, BackupOptions};
use crate::engine::export::{self, DEFAULT_LEVEL, Destination, ExportOptions, Format};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{ConsistencyKind, Manifest};
use crate::mongo::{MongoUri, Role};
use crate::names::{Namespace, NamespacePattern};
use crate::pipeline::progress::Progress;
use crate::store::Store;

/// Its flags, and those of other verbs that do the same.
const FLAGS: [(&str, &str); 13] = [
    ("choose another place", "set BACKUP_PATH or --path to a disk with more"),
    ("use `bsonvault backup --allow-empty`", "pass --allow-empty"),
    ("leave --oplog out", "pass --allow-inconsistent"),
    ("--oplog", "--allow-inconsistent"),
    ("--archive", "--format archive"),
    ("--out", "--format dir"),
    ("--archive", "--out -"),
    ("--nsExclude", "--exclude"),
    ("--nsInclude", "--include"),
    ("--uri", "--source"),
    ("--db", "--database"),
    ("-j", "--readers"),
    ("-j", "BACKUP_READERS"),
];

/// Flags of `dump`, under the names that mongodump gives them.
#[derive(Debug, clap::Args)]
#[command(rename_all = "camelCase")]
pub struct Args {
    #[command(flatten)]
    deployment: Deployment,
    /// Dump this database only
    #[arg(short, long, value_name = "NAME")]
    db: Option<String>,
    /// Dump this collection of it only
    #[arg(short, long, value_name = "NAME", requires = "db")]
    collection: Option<String>,
    /// The directory to write to; in a dump that is there, files of the same collections are replaced, and what a database that is dumped whole no longer has is removed
    #[arg(short, long, value_name = "DIR", default_value = "dump", conflicts_with = "archive")]
    out: PathBuf,
    /// Write an archive, to standard output where no file is given; a file that is there is replaced, a device or pipe written to
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    archive: Option<PathBuf>,
    /// Compress with gzip, on all cores
    #[arg(long)]
    gzip: bool,
    /// Fail where the dump cannot be of one moment, and write an oplog, which is empty where none is needed
    #[arg(long, conflicts_with_all = ["db", "collection"])]
    oplog: bool,
    /// Dump only namespaces that match; may be given more than once
    #[arg(long, value_name = "NS")]
    ns_include: Vec<String>,
    /// Leave out namespaces that match; may be given more than once
    #[arg(long, value_name = "NS")]
    ns_exclude: Vec<String>,
    /// Leave out this collection of the database; may be given more than once
    #[arg(long, value_name = "NAME", requires = "db")]
    exclude_collection: Vec<String>,
    /// How many cursors read at a time
    #[arg(short = 'j', long, value_name = "N")]
    num_parallel_collections: Option<usize>,
    /// Say nothing but errors
    #[arg(long)]
    quiet: bool,
}

impl Args {
    pub(super) fn flags(&self) -> Flags {
        let readers = self.num_parallel_collections.map(|n| n.to_string());
        Flags { source: self.deployment.uri(), readers, ..Flags::default() }
    }

    /// Whether nothing is shown but errors.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }
}

pub(super) async fn run(args: Args, config: &Config, json: bool, faces: Faces, stop: &CancellationToken) -> Result<Outcome> {
    let (destination, made) = destination(&args, json)?;
    let dumped = dump(args, &destination, config, faces, stop).await;
    if dumped.is_err() && made {
        // Only if nothing came into it.
        let _is_not_empty = std::fs::remove_dir(destination.to_string());
    }
    dumped.map_err(|e| tools::in_flags_of(&FLAGS, e))
}

async fn dump(args: Args, destination: &Destination, config: &Config, faces: Faces, stop: &CancellationToken) -> Result<Outcome> {
    // 1. What, and whether it can go where it is to go.
    let source = match config.configured_source()? {
        Some(source) => source,
        None => MongoUri::parse(Role::Source, DEFAULT_URI)?,
    };
    let options = BackupOptions {
        databases: args.db.iter().cloned().collect(),
        include: included(&args)?,
        exclude: excluded(&args)?,
        idle_excludes: true,
        discard_unfinished: true,
        allow_inconsistent: !args.oplog,
        tuning: config.tuning,
        ..BackupOptions::default()
    };
    let format = if args.archive.is_some() { Format::Archive } else { Format::Dir };
    export::look(destination, format, true)?;

    // 2. A backup, compressed, beside where the dump will be.
    let place = scratch(destination)?;
    let store = Store::open(&place.path().to_string_lossy())?;
    let progress = Progress::default();
    let taken = with_progress(faces, &progress, backup::run(&source, &store, &options, &progress, stop)).await?;
    refuse_inconsistent(&args, &taken.manifest)?;
    let backup: Backup = Catalog::new(store).find(taken.name.as_str()).await?;

    // 3. The dump. Nothing of it is in its place before all of it is, but for what goes to standard output.
    let how = ExportOptions {
        gzip: args.gzip.then_some(DEFAULT_LEVEL),
        force: true,
        oplog: args.oplog,
        tuning: config.tuning,
        ..ExportOptions::of(format)
    };
    let work = export::run(&backup, &how, destination, &progress, stop);
    let report = with_progress(faces, &progress, work).await?;
    let manifest = &backup.manifest;
    let mut fields = output::fields(&report)?;
    fields.insert("consistency".to_owned(), json!(manifest.consistency));
    fields.insert("leftOut".to_owned(), json!(manifest.left_out));
    // It is gone now.
    fields.remove("backup");
    let text = render::dump(&report, manifest);
    Ok(match (args.quiet, destination) {
        (true, _) => Outcome::done(String::new(), fields),
        (false, Destination::Stdout) => {
            output::to_stderr(&text);
            Outcome::done(String::new(), fields)
        }
        (false, Destination::Path(_)) => Outcome::done(text, fields),
    })
}

/// `--oplog` asks for a dump of one moment.
fn refuse_inconsistent(args: &Args, manifest: &Manifest) -> Result<()> {
    let consistency = &manifest.consistency;
    let why = match (consistency.kind, consistency.exceptions.first()) {
        (ConsistencyKind::None, _) => "it is not a replica set".to_owned(),
        (_, Some(exception)) => format!("{}.{}: {}", exception.database, exception.collection, exception.reason),
        (_, None) => return Ok(()),
    };
    if !args.oplog {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Refused, format!("--oplog: {} cannot be dumped at one moment: {why}", manifest.source.uri))
        .hint("leave --oplog out, and stop what writes meanwhile"))
}

/// Where the dump goes, and whether a directory was made for it.
fn destination(args: &Args, json: bool) -> Result<(Destination, bool)> {
    match &args.archive {
        Some(file) if file.as_os_str() == "-" && json => {
            Err(Error::usage("--json and an archive cannot both be on standard output")
                .hint("give the archive a name: --archive=FILE"))
        }
        Some(file) if file.as_os_str() == "-" => Ok((Destination::Stdout, false)),
        // As mongodump has it.
        Some(file) if file.is_dir() => {
            Ok((Destination::Path(file.join(if args.gzip { "archive.gz" } else { "archive" })), false))
        }
        Some(file) => Ok((Destination::Path(file.clone()), false)),
        None if args.out.as_os_str() == "-" => {
            Err(Error::usage("--out - is not supported").hint("--archive alone writes an archive to standard output"))
        }
        None => {
            let made = !args.out.exists();
            std::fs::create_dir_all(&args.out).map_err(|e| {
                Error::new(ErrorKind::Storage, format!("cannot create {}: {e}", args.out.display()))
                    .hint("choose another directory with --out")
                    .cause(e)
            })?;
            Ok((Destination::Path(args.out.clone()), made))
        }
    }
}

/// A directory for the backup, on the disk that the dump goes to; the system's temporary one where that is standard output or no file.
fn scratch(destination: &Destination) -> Result<tempfile::TempDir> {
    let above = match destination {
        Destination::Path(path) if path.is_dir() => path.clone(),
        Destination::Path(path) if path.is_file() || !path.exists() => {
            match path.canonicalize().as_deref().unwrap_or(path).parent() {
                Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
                _ => Path::new(".").to_owned(),
            }
        }
        Destination::Path(_) | Destination::Stdout => std::env::temp_dir(),
    };
    tempfile::Builder::new().prefix(".bsonvault-dump-").tempdir_in(&above).map_err(|e| {
        Error::new(ErrorKind::Storage, format!("no directory can be made in {}: {e}", above.display()))
            .hint("the backup that the dump is written from is kept there meanwhile; TMPDIR names the place for an archive to standard output")
            .cause(e)
    })
}

fn included(args: &Args) -> Result<Vec<NamespacePattern>> {
    let mut include = patterns(&args.ns_include)?;
    if let (Some(database), Some(collection)) = (&args.db, &args.collection) {
        include.push(NamespacePattern::exactly(&Namespace::new(&**database, &**collection))?);
    }
    Ok(include)
}

fn excluded(args: &Args) -> Result<Vec<NamespacePattern>> {
    let mut exclude = patterns(&args.ns_exclude)?;
    if let Some(database) = &args.db {
        for collection in &args.exclude_collection {
            exclude.push(NamespacePattern::exactly(&Namespace::new(&**database, &**collection))?);
        }
    }
    Ok(exclude)
}
