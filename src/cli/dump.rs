//! `dump`: a backup that is exported at once, under the flags of mongodump, for scripts that call that by its name.

mod place;
mod query;

use std::path::PathBuf;

use serde_json::json;

use super::output::{self, Outcome};
use super::progress::Faces;
use super::tools::{self, DEFAULT_URI, Deployment, Refusal, given, patterns_of};
use super::{render, with_progress};
use crate::config::{Config, Flags};
use crate::context::Context;
use crate::engine::backup::{self, BackupOptions};
use crate::engine::export::{self, DEFAULT_LEVEL, Destination, ExportOptions, Format};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{ConsistencyKind, Manifest};
use crate::mongo::{MongoUri, ReadPreference, Role};
use crate::names::{Namespace, NamespaceFilter, NamespacePattern};
use crate::repository::Repository;
use crate::repository::catalog::{Backup, Catalog};

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
    /// The deployment's connection string
    #[arg(value_name = "URI")]
    connection: Vec<String>,
    #[command(flatten)]
    deployment: Deployment,
    /// Dump this database only
    #[arg(short, long, value_name = "NAME")]
    db: Option<String>,
    /// Dump this collection of it only
    #[arg(short, long, value_name = "NAME")]
    collection: Option<String>,
    /// The directory to write to; in a dump that is there, files of the same collections are replaced, and what a database that is dumped whole no longer has is removed; - writes the documents of one collection to standard output [default: dump]
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write an archive, to standard output where no file is given; a file that is there is replaced, a device or pipe written to
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    archive: Option<PathBuf>,
    /// Compress with gzip, on all cores
    #[arg(long)]
    gzip: bool,
    /// Fail where the dump cannot be of one moment, and write an oplog, which is empty where none is needed
    #[arg(long)]
    oplog: bool,
    /// Dump only namespaces that match; may be given more than once
    #[arg(long, value_name = "NS")]
    ns_include: Vec<String>,
    /// Leave out namespaces that match; may be given more than once
    #[arg(long, value_name = "NS")]
    ns_exclude: Vec<String>,
    /// Leave out this collection of the database; may be given more than once
    #[arg(long, value_name = "NAME")]
    exclude_collection: Vec<String>,
    /// Leave out collections of the database whose names begin so; may be given more than once
    #[arg(long, value_name = "PREFIX")]
    exclude_collections_with_prefix: Vec<String>,
    /// Which member is read: primary, primaryPreferred, secondary, secondaryPreferred, nearest, or a JSON object with mode, tagSets and maxStalenessSeconds
    #[arg(long, value_name = "MODE OR JSON")]
    read_preference: Option<String>,
    /// How many cursors read at a time
    #[arg(short = 'j', long, value_name = "N")]
    num_parallel_collections: Option<usize>,
    /// Of the collection, dump only documents that match this query, in Extended JSON 2
    #[arg(short, long, value_name = "JSON")]
    query: Option<String>,
    /// The same with a query that a file holds
    #[arg(long, value_name = "FILE")]
    query_file: Option<PathBuf>,
    /// Dump what views show, as collections, and nothing else
    #[arg(long)]
    views_as_collections: bool,
    /// Dump the users and roles of the database, too, with their hashed passwords
    #[arg(long)]
    dump_db_users_and_roles: bool,
    #[arg(long, hide = true)]
    force_table_scan: bool,
    #[arg(long, hide = true)]
    repair: bool,
}

impl Args {
    pub(super) fn flags(&self) -> Result<Flags> {
        let (connection, others) = tools::positional(&self.connection)?;
        if !others.is_empty() {
            // It is not quoted: a password with a space in it, for one, ends up here.
            return Err(Error::usage("an argument is neither a flag nor a connection string, which begins with mongodb://")
                .hint(
                    "values with spaces need quotes; an archive's file is given as --archive=FILE, the directory as --out DIR",
                ));
        }
        let readers = self.num_parallel_collections.map(|n| n.to_string());
        let source = self.deployment.uri(connection, given(self.db.as_deref()))?;
        Ok(Flags { source, readers, ..Flags::default() })
    }

    /// Whether nothing is shown but errors.
    pub(super) fn is_quiet(&self) -> bool {
        self.deployment.is_quiet()
    }

    /// How much is to be said.
    pub(super) fn verbosity(&self) -> u32 {
        self.deployment.verbosity()
    }

    fn is_to_stdout(&self) -> bool {
        self.out.as_deref().is_some_and(|out| out.as_os_str() == "-")
    }

    /// The source: what the flags name, what is configured, or the default.
    fn source(&self, config: &Config) -> Result<MongoUri> {
        let source = config.configured_source()?.map_or_else(|| MongoUri::parse(Role::Source, DEFAULT_URI), Ok)?;
        let (connection, _) = tools::positional(&self.connection)?;
        let source = self.deployment.beside(source, connection)?;
        match given(self.read_preference.as_deref()) {
            None => Ok(source),
            Some(text) => Ok(source.preferring(ReadPreference::parse(text).map_err(|e| e.context("--readPreference"))?)),
        }
    }

    /// Refuses what is not there, and what contradicts itself.
    fn refuse(&self, database: Option<&str>) -> Result<()> {
        let collection = given(self.collection.as_deref());
        let excludes = !self.exclude_collection.is_empty() || !self.exclude_collections_with_prefix.is_empty();
        tools::refuse(&[(
            self.repair,
            Refusal("--repair", "a damaged server is mended by the server", "start mongod with --repair, then dump"),
        )])?;
        let needs = |flag: &str, what: &str| Error::usage(format!("{flag} needs {what}")).hint("name it");
        if database.is_none() && (collection.is_some() || excludes) {
            let flag =
                if collection.is_some() { "--collection" } else { "--excludeCollection and --excludeCollectionsWithPrefix" };
            return Err(needs(flag, "a database: --db, or one in the path of the URI"));
        }
        if collection.is_some() && excludes {
            return Err(Error::usage("--collection is one collection: nothing can be left out of it")
                .hint("leave --excludeCollection and --excludeCollectionsWithPrefix out"));
        }
        if self.dump_db_users_and_roles && database.is_none() {
            return Err(needs("--dumpDbUsersAndRoles", "a database: --db, or one in the path of the URI"));
        }
        if self.dump_db_users_and_roles && collection.is_some() {
            return Err(Error::usage("--dumpDbUsersAndRoles is about a database, and one collection is dumped")
                .hint("leave --collection out, or --dumpDbUsersAndRoles"));
        }
        if self.is_to_stdout() && collection.is_none() {
            return Err(needs("--out -", "one collection: --collection").hint("--archive alone writes all to standard output"));
        }
        if (given(self.query.as_deref()).is_some() || self.query_file.is_some()) && collection.is_none() {
            return Err(needs("a query", "one collection: --collection"));
        }
        if self.oplog && self.views_as_collections {
            return Err(
                Error::usage("--oplog is about collections, and --viewsAsCollections dumps none").hint("leave one of them out")
            );
        }
        if self.oplog && database.is_some() {
            return Err(Error::usage(
                "--oplog is about the whole deployment, and one database is dumped: --db, or the one in the path of the URI",
            )
            .hint("leave --oplog out: one database is dumped at one moment, too, if the source is a replica set"));
        }
        Ok(())
    }
}

pub(super) async fn run(args: Args, config: &Config, json: bool, faces: Faces, cx: &Context) -> Result<Outcome> {
    let source = args.source(config)?;
    let database = tools::database(given(args.db.as_deref()), &source)?.map(str::to_owned);
    args.refuse(database.as_deref())?;
    tools::tell_without_effect(&args.deployment, &[("--forceTableScan", args.force_table_scan)]);
    let (destination, made) = place::destination(&args, json)?;
    let dumped = dump(args, (source, database), &destination, config, faces, cx).await;
    if dumped.is_err() && made {
        // Only if nothing came into it.
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
    // 1. What, and whether it can go where it is to go.
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

    // 2. A backup, compressed, beside where the dump will be.
    let place = place::scratch(destination)?;
    let repository = Repository::open(&place.path().to_string_lossy())?;
    let taken = with_progress(faces, cx, backup::run(&source, &repository, &options, cx)).await?;
    refuse_inconsistent(&args, &taken.manifest)?;
    let beside = match database.filter(|_| args.dump_db_users_and_roles) {
        Some(database) => export::accounts(&source, database, cx).await?,
        None => Vec::new(),
    };
    let backup: Backup = Catalog::new(repository, &cx.cpu).find(taken.name.as_str()).await?;

    // 3. The dump. Nothing of it is in its place before all of it is, but for what goes to standard output.
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
    // It is gone now.
    fields.remove("backup");
    let text = render::export::dump(&report, manifest);
    Ok(match (args.is_quiet(), destination) {
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

/// What `--db`, `--collection`, `--nsInclude` and those that leave out want.
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
