//! `dump`: takes a backup and exports it at once, with mongodump's flags. It replaces mongodump in
//! scripts.

mod args;
mod place;
mod query;

use serde_json::json;

pub use self::args::Args;
use super::output::{self, Outcome};
use super::progress::{Faces, with_progress};
use super::render;
use super::tools::{self, given, patterns_of};
use crate::config::Config;
use crate::context::Context;
use crate::engine::backup::{self, BackupOptions};
use crate::engine::export::{self, DEFAULT_LEVEL, Destination, ExportOptions, Format};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{ConsistencyKind, Manifest};
use crate::mongo::MongoUri;
use crate::names::{Namespace, NamespaceFilter, NamespacePattern};
use crate::repository::Repository;
use crate::repository::catalog::{Backup, Catalog};

/// Its flags and wording, each with that of other verbs, which it replaces in hints.
const FLAGS: [(&str, &str); 13] = [
    ("choose another place", "set BACKUP_PATH or --path to a disk with more"),
    ("use `bsonvault backup --allow-empty`", "pass --allow-empty"),
    ("leave out --oplog", "pass --allow-inconsistent"),
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

pub(super) async fn run(args: Args, config: &Config, json: bool, faces: Faces, cx: &Context) -> Result<Outcome> {
    let source = args.source(config)?;
    let database = tools::database(given(args.db.as_deref()), &source)?.map(str::to_owned);
    args.refuse(database.as_deref())?;
    tools::tell_without_effect(&args.deployment, &[("--forceTableScan", args.force_table_scan)]);
    let (destination, made) = place::destination(&args, json)?;
    let dumped = dump(args, (source, database), &destination, config, faces, cx).await;
    if dumped.is_err() && made {
        // This removes it only if it is empty.
        let _is_not_empty = std::fs::remove_dir(destination.to_string());
    }
    dumped.map_err(|e| tools::in_flags_of(&FLAGS, e).reworded("nothing of the backup is left", "nothing is left of the dump"))
}

async fn dump(
    args: Args,
    (source, database): (MongoUri, Option<String>),
    destination: &Destination,
    config: &Config,
    faces: Faces,
    cx: &Context,
) -> Result<Outcome> {
    // 1. Find out what is dumped, and whether the destination can be written.
    let database = database.as_deref();
    let options = BackupOptions {
        filter: filter(&args, database)?,
        idle_excludes: true,
        documents: query::documents(&args)?,
        discard_unfinished: true,
        allow_inconsistent: !args.oplog,
        tuning: config.tuning,
        ..BackupOptions::default()
    };
    let format = if args.archive.is_some() { Format::Archive } else { Format::Dir };
    if !args.is_to_stdout() {
        export::look(destination, format, true)?;
    }

    // 2. Take a compressed backup, next to the destination.
    let place = place::scratch(destination)?;
    let repository = Repository::open(&place.path().to_string_lossy())?;
    let taken = with_progress(faces, cx, backup::run(&source, &repository, &options, cx)).await?;
    refuse_inconsistent(&args, &taken.manifest)?;
    let beside = match database.filter(|_| args.dump_db_users_and_roles) {
        Some(database) => export::accounts(&source, database, cx).await?,
        None => Vec::new(),
    };
    let backup: Backup = Catalog::new(repository, &cx.cpu).find(taken.name.as_str()).await?;

    // 3. Write the dump. It appears in its place only when complete, except on standard output.
    let how = ExportOptions {
        gzip: args.gzip.then_some(DEFAULT_LEVEL),
        force: true,
        oplog: args.oplog,
        beside,
        tuning: config.tuning,
        ..ExportOptions::of(format)
    };
    let aside = args.is_to_stdout().then(|| place::scratch(destination)).transpose()?;
    let into = aside.as_ref().map_or_else(|| destination.clone(), |aside| Destination::Path(aside.path().to_owned()));
    let work = export::run(&backup, &how, &into, cx);
    let mut report = with_progress(faces, cx, work).await?;
    if let Some(aside) = &aside {
        place::pour_out(aside.path()).await?;
        report.location = destination.to_string();
    }
    let manifest = &backup.manifest;
    let mut fields = output::fields(&report)?;
    fields.insert("consistency".to_owned(), json!(manifest.consistency));
    fields.insert("leftOut".to_owned(), json!(manifest.left_out));
    // The backup no longer exists.
    fields.remove("backup");
    let text = render::export::dump(&report, manifest);
    Ok(match (args.deployment.is_quiet(), destination) {
        (true, _) => Outcome::done(String::new(), fields),
        (false, Destination::Stdout) => {
            output::to_stderr(&text);
            Outcome::done(String::new(), fields)
        }
        (false, Destination::Path(_)) => Outcome::done(text, fields),
    })
}

/// `--oplog` asks for a dump with one consistency point.
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
    Err(Error::new(
        ErrorKind::Refused,
        format!("--oplog: {} cannot be dumped at one consistency point: {why}", manifest.source.uri),
    )
    .hint("leave out --oplog, and stop all writes during the dump"))
}

/// The filter of `--db`, `--collection`, `--nsInclude` and the flags that exclude.
fn filter(args: &Args, database: Option<&str>) -> Result<NamespaceFilter> {
    let databases: Vec<String> = database.map(str::to_owned).into_iter().collect();
    let mut filter = NamespaceFilter::parse(&databases, &args.ns_include, &args.ns_exclude)?;
    let Some(database) = database else { return Ok(filter) };
    if let Some(collection) = given(args.collection.as_deref()) {
        filter.include.push(NamespacePattern::exactly(&Namespace::new(database, collection))?);
    }
    filter.exclude.extend(patterns_of(database, &args.exclude_collection, &args.exclude_collections_with_prefix)?);
    Ok(filter)
}
