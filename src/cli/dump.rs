//! `dump`: a backup that is exported at once, under the flags of mongodump, for scripts that call that by its name.

use std::path::{Path, PathBuf};

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::output::{self, Outcome};
use super::progress::Faces;
use super::restore::{DEFAULT_URI, patterns};
use super::{render, with_progress};
use crate::catalog::{Backup, Catalog};
use crate::config::{Config, Flags};
use crate::engine::backup::{self, BackupOptions};
use crate::engine::export::{self, DEFAULT_LEVEL, Destination, ExportOptions, Format};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::ConsistencyKind;
use crate::mongo::{MongoUri, Role};
use crate::names::{Namespace, NamespacePattern};
use crate::pipeline::progress::Progress;
use crate::store::Store;

/// Flags of `dump`, under the names that mongodump gives them.
#[derive(Debug, clap::Args)]
#[command(rename_all = "camelCase")]
pub struct Args {
    /// The source [env: MONGO_URI_ATLAS] [default: mongodb://localhost:27017]
    #[arg(long, value_name = "URI")]
    uri: Option<String>,
    /// Dump this database only
    #[arg(short, long, value_name = "NAME")]
    db: Option<String>,
    /// Dump this collection of it only
    #[arg(short, long, value_name = "NAME", requires = "db")]
    collection: Option<String>,
    /// The directory to write to; databases of a dump that is there are replaced
    #[arg(short, long, value_name = "DIR", default_value = "dump", conflicts_with = "archive")]
    out: PathBuf,
    /// Write an archive, to standard output where no file is given; a file that is there is replaced
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
        Flags { source: self.uri.clone(), readers, ..Flags::default() }
    }

    /// Whether nothing is shown but errors.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }
}

pub(super) async fn run(args: Args, config: &Config, json: bool, faces: Faces, stop: &CancellationToken) -> Result<Outcome> {
    // 1. What, and where to.
    let source = match config.configured_source()? {
        Some(source) => source,
        None => MongoUri::parse(Role::Source, DEFAULT_URI)?,
    };
    let destination = destination(&args, json)?;
    let options = BackupOptions {
        databases: args.db.iter().cloned().collect(),
        include: included(&args)?,
        exclude: excluded(&args)?,
        allow_inconsistent: !args.oplog,
        tuning: config.tuning,
        ..BackupOptions::default()
    };

    // 2. A backup, compressed, beside where the dump will be.
    let place = scratch(&destination)?;
    let store = Store::open(&place.path().to_string_lossy())?;
    let progress = Progress::default();
    let taken = with_progress(faces, &progress, backup::run(&source, &store, &options, &progress, stop)).await;
    let backup: Backup = Catalog::new(store).find(taken?.name.as_str()).await?;
    let consistency = &backup.manifest.consistency;
    if args.oplog && consistency.kind == ConsistencyKind::None {
        return Err(Error::new(
            ErrorKind::Refused,
            format!("--oplog: {source} is not a replica set, and cannot be read at one moment"),
        )
        .hint("leave --oplog out, and stop what writes meanwhile"));
    }

    // 3. The dump. Nothing of it is in its place before all of it is, but for what goes to standard output.
    let how = ExportOptions {
        gzip: args.gzip.then_some(DEFAULT_LEVEL),
        force: true,
        oplog: args.oplog,
        tuning: config.tuning,
        ..ExportOptions::of(if args.archive.is_some() { Format::Archive } else { Format::Dir })
    };
    let work = export::run(&backup, &how, &destination, &progress, stop);
    let report = with_progress(faces, &progress, work).await?;
    let mut text = render::export(&report);
    if consistency.kind == ConsistencyKind::None {
        text +=
            "warning: its parts were read one after the other while the source went on; a replica set is read at one moment\n";
    }
    let mut fields = output::fields(&report)?;
    fields.insert("consistency".to_owned(), json!(consistency));
    // It is gone now.
    fields.remove("backup");
    Ok(match (args.quiet, &destination) {
        (true, _) => Outcome::done(String::new(), fields),
        (false, Destination::Stdout) => {
            output::to_stderr(&text);
            Outcome::done(String::new(), fields)
        }
        (false, Destination::Path(_)) => Outcome::done(text, fields),
    })
}

fn destination(args: &Args, json: bool) -> Result<Destination> {
    match &args.archive {
        Some(file) if file.as_os_str() == "-" && json => {
            Err(Error::usage("--json and an archive cannot both be on standard output")
                .hint("give the archive a name: --archive=FILE"))
        }
        Some(file) if file.as_os_str() == "-" => Ok(Destination::Stdout),
        // As mongodump has it.
        Some(file) if file.is_dir() => Ok(Destination::Path(file.join(if args.gzip { "archive.gz" } else { "archive" }))),
        Some(file) => Ok(Destination::Path(file.clone())),
        None if args.out.as_os_str() == "-" => {
            Err(Error::usage("--out - is not supported").hint("--archive alone writes an archive to standard output"))
        }
        None => {
            std::fs::create_dir_all(&args.out).map_err(|e| {
                Error::new(ErrorKind::Storage, format!("cannot create {}: {e}", args.out.display()))
                    .hint("choose another directory with --out")
                    .cause(e)
            })?;
            Ok(Destination::Path(args.out.clone()))
        }
    }
}

/// A directory for the backup, on the disk that the dump goes to; the system's temporary one where that is standard output.
fn scratch(destination: &Destination) -> Result<tempfile::TempDir> {
    let above = match destination {
        Destination::Stdout => std::env::temp_dir(),
        Destination::Path(path) => match path.parent() {
            Some(above) if !above.as_os_str().is_empty() => above.to_owned(),
            _ => Path::new(".").to_owned(),
        },
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
