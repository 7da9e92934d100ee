//! The flags of `dump`, and checks for flags that contradict each other.

use std::path::PathBuf;

use crate::cli::tools::{self, DEFAULT_URI, Deployment, Refusal, given};
use crate::config::{Config, Flags};
use crate::error::{Error, Result};
use crate::mongo::{MongoUri, ReadPreference, Role};

/// Flags of `dump`, under the names that mongodump gives them.
#[derive(Debug, clap::Args)]
#[command(rename_all = "camelCase")]
pub struct Args {
    /// The source's connection string
    #[arg(value_name = "URI")]
    pub(super) connection: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) deployment: Deployment,
    /// Dump only this database
    #[arg(help_heading = "Selection", short, long, value_name = "NAME")]
    pub(super) db: Option<String>,
    /// Dump only this collection of --db
    #[arg(help_heading = "Selection", short, long, value_name = "NAME")]
    pub(super) collection: Option<String>,
    /// The directory to write to. In an existing dump, files of the same collections are replaced,
    /// and files of collections that a fully dumped database no longer has are removed. - writes
    /// the documents of one collection to standard output [default: dump]
    #[arg(help_heading = "Output", short, long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Write an archive to FILE, or to standard output. An existing file is replaced; a device or
    /// pipe is written to
    #[arg(help_heading = "Output", long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub(super) archive: Option<PathBuf>,
    /// Compress with gzip, on all cores
    #[arg(help_heading = "Output", long)]
    pub(super) gzip: bool,
    /// Fail unless the dump has one consistency point. Write an oplog.bson, which is empty if none
    /// is needed
    #[arg(help_heading = "Output", long)]
    pub(super) oplog: bool,
    /// Dump only namespaces that match. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "NS")]
    pub(super) ns_include: Vec<String>,
    /// Skip namespaces that match. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "NS")]
    pub(super) ns_exclude: Vec<String>,
    /// Skip this collection of --db. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "NAME")]
    pub(super) exclude_collection: Vec<String>,
    /// Skip collections of --db whose names begin with PREFIX. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "PREFIX")]
    pub(super) exclude_collections_with_prefix: Vec<String>,
    /// The member to read from: primary, primaryPreferred, secondary, secondaryPreferred, nearest,
    /// or JSON with mode, tagSets and maxStalenessSeconds
    #[arg(help_heading = "Load", long, value_name = "MODE OR JSON")]
    pub(super) read_preference: Option<String>,
    /// Cursors that read at the same time
    #[arg(help_heading = "Load", short = 'j', long, value_name = "N")]
    pub(super) num_parallel_collections: Option<usize>,
    /// Dump only documents of --collection that match this query (Extended JSON 2)
    #[arg(help_heading = "Selection", short, long, value_name = "JSON")]
    pub(super) query: Option<String>,
    /// Read --query from a file
    #[arg(help_heading = "Selection", long, value_name = "FILE")]
    pub(super) query_file: Option<PathBuf>,
    /// Dump what views show, as collections, and nothing else
    #[arg(help_heading = "Selection", long)]
    pub(super) views_as_collections: bool,
    /// Dump the users and roles of --db too, with their hashed passwords
    #[arg(help_heading = "Selection", long)]
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
            // The message does not quote it: it may be part of a password with a space.
            return Err(Error::usage("an argument is neither a flag nor a connection string, which begins with mongodb://")
                .hint("quote values with spaces; --archive=FILE names an archive's file, --out DIR the directory"));
        }
        let readers = self.num_parallel_collections.map(|n| n.to_string());
        let source = self.deployment.uri(connection, given(self.db.as_deref()))?;
        Ok(Flags { source, readers, ..Flags::default() })
    }

    pub(super) fn is_to_stdout(&self) -> bool {
        self.out.as_deref().is_some_and(|out| out.as_os_str() == "-")
    }

    /// The source: of the flags, else the configured one, else the default.
    pub(super) fn source(&self, config: &Config) -> Result<MongoUri> {
        let source = config.configured_source()?.map_or_else(|| MongoUri::parse(Role::Source, DEFAULT_URI), Ok)?;
        let (connection, _) = tools::positional(&self.connection)?;
        let source = self.deployment.beside(source, connection)?;
        match given(self.read_preference.as_deref()) {
            None => Ok(source),
            Some(text) => Ok(source.preferring(ReadPreference::parse(text).map_err(|e| e.context("--readPreference"))?)),
        }
    }

    /// Refuses flags that are not supported or that contradict each other.
    pub(super) fn refuse(&self, database: Option<&str>) -> Result<()> {
        let collection = given(self.collection.as_deref());
        let excludes = !self.exclude_collection.is_empty() || !self.exclude_collections_with_prefix.is_empty();
        tools::refuse(&[(
            self.repair,
            Refusal("--repair", "only the server can repair its data files", "start mongod with --repair, then dump"),
        )])?;
        let needs = |flag: &str, what: &str| Error::usage(format!("{flag} needs {what}")).hint("add it");
        if database.is_none() && (collection.is_some() || excludes) {
            let flag =
                if collection.is_some() { "--collection" } else { "--excludeCollection and --excludeCollectionsWithPrefix" };
            return Err(needs(flag, "a database: --db, or one in the path of the URI"));
        }
        if collection.is_some() && excludes {
            return Err(Error::usage("--collection selects one collection, so none can be excluded")
                .hint("leave out --excludeCollection and --excludeCollectionsWithPrefix"));
        }
        if self.dump_db_users_and_roles && database.is_none() {
            return Err(needs("--dumpDbUsersAndRoles", "a database: --db, or one in the path of the URI"));
        }
        if self.dump_db_users_and_roles && collection.is_some() {
            return Err(Error::usage("--dumpDbUsersAndRoles is for a whole database, and --collection selects one collection")
                .hint("leave out --collection or --dumpDbUsersAndRoles"));
        }
        if self.is_to_stdout() && collection.is_none() {
            return Err(needs("--out -", "one collection: --collection")
                .hint("add it; --archive alone writes everything to standard output"));
        }
        if (given(self.query.as_deref()).is_some() || self.query_file.is_some()) && collection.is_none() {
            return Err(needs("a query", "one collection: --collection"));
        }
        if self.oplog && self.views_as_collections {
            return Err(
                Error::usage("--oplog is for collections, and --viewsAsCollections dumps none").hint("leave out one of them")
            );
        }
        if self.oplog && database.is_some() {
            return Err(Error::usage(
                "--oplog is for the whole deployment, and --db or the path of the URI selects one database",
            )
            .hint("leave out --oplog: on a replica set, a dump of one database has a consistency point anyway"));
        }
        Ok(())
    }
}
