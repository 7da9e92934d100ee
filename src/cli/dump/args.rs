//! The flags of `dump`, and what contradicts itself among them.

use std::path::PathBuf;

use crate::cli::tools::{self, DEFAULT_URI, Deployment, Refusal, given};
use crate::config::{Config, Flags};
use crate::error::{Error, Result};
use crate::mongo::{MongoUri, ReadPreference, Role};

/// Flags of `dump`, under the names that mongodump gives them.
#[derive(Debug, clap::Args)]
#[command(rename_all = "camelCase")]
pub struct Args {
    /// The deployment's connection string
    #[arg(value_name = "URI")]
    pub(super) connection: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) deployment: Deployment,
    /// Dump this database only
    #[arg(short, long, value_name = "NAME")]
    pub(super) db: Option<String>,
    /// Dump this collection of it only
    #[arg(short, long, value_name = "NAME")]
    pub(super) collection: Option<String>,
    /// The directory to write to; in a dump that is there, files of the same collections are replaced, and what a database that is dumped whole no longer has is removed; - writes the documents of one collection to standard output [default: dump]
    #[arg(short, long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Write an archive, to standard output where no file is given; a file that is there is replaced, a device or pipe written to
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub(super) archive: Option<PathBuf>,
    /// Compress with gzip, on all cores
    #[arg(long)]
    pub(super) gzip: bool,
    /// Fail where the dump cannot be of one moment, and write an oplog, which is empty where none is needed
    #[arg(long)]
    pub(super) oplog: bool,
    /// Dump only namespaces that match; may be given more than once
    #[arg(long, value_name = "NS")]
    pub(super) ns_include: Vec<String>,
    /// Leave out namespaces that match; may be given more than once
    #[arg(long, value_name = "NS")]
    pub(super) ns_exclude: Vec<String>,
    /// Leave out this collection of the database; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(super) exclude_collection: Vec<String>,
    /// Leave out collections of the database whose names begin so; may be given more than once
    #[arg(long, value_name = "PREFIX")]
    pub(super) exclude_collections_with_prefix: Vec<String>,
    /// Which member is read: primary, primaryPreferred, secondary, secondaryPreferred, nearest, or a JSON object with mode, tagSets and maxStalenessSeconds
    #[arg(long, value_name = "MODE OR JSON")]
    pub(super) read_preference: Option<String>,
    /// How many cursors read at a time
    #[arg(short = 'j', long, value_name = "N")]
    pub(super) num_parallel_collections: Option<usize>,
    /// Of the collection, dump only documents that match this query, in Extended JSON 2
    #[arg(short, long, value_name = "JSON")]
    pub(super) query: Option<String>,
    /// The same with a query that a file holds
    #[arg(long, value_name = "FILE")]
    pub(super) query_file: Option<PathBuf>,
    /// Dump what views show, as collections, and nothing else
    #[arg(long)]
    pub(super) views_as_collections: bool,
    /// Dump the users and roles of the database, too, with their hashed passwords
    #[arg(long)]
    pub(super) dump_db_users_and_roles: bool,
    #[arg(long, hide = true)]
    pub(super) force_table_scan: bool,
    #[arg(long, hide = true)]
    pub(super) repair: bool,
}

impl Args {
    pub(in crate::cli) fn flags(&self) -> Result<Flags> {
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

    pub(super) fn is_to_stdout(&self) -> bool {
        self.out.as_deref().is_some_and(|out| out.as_os_str() == "-")
    }

    /// The source: what the flags name, what is configured, or the default.
    pub(super) fn source(&self, config: &Config) -> Result<MongoUri> {
        let source = config.configured_source()?.map_or_else(|| MongoUri::parse(Role::Source, DEFAULT_URI), Ok)?;
        let (connection, _) = tools::positional(&self.connection)?;
        let source = self.deployment.beside(source, connection)?;
        match given(self.read_preference.as_deref()) {
            None => Ok(source),
            Some(text) => Ok(source.preferring(ReadPreference::parse(text).map_err(|e| e.context("--readPreference"))?)),
        }
    }

    /// Refuses what is not there, and what contradicts itself.
    pub(super) fn refuse(&self, database: Option<&str>) -> Result<()> {
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
