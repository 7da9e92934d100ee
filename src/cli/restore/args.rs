//! The flags of `restore`, and checks for flags that contradict each other.

use super::promise;
use crate::cli::tools::{self, DEFAULT_URI, Deployment, Refusal, given};
use crate::config::{Config, Flags};
use crate::error::{Error, Result};
use crate::mongo::{MongoUri, Role};

/// The most writers, whatever is asked for.
const MOST_WRITERS: usize = 256;

/// Flags of `restore`, under the names that mongorestore gives them.
#[derive(Debug, clap::Args)]
#[command(rename_all = "camelCase")]
pub struct Args {
    /// The target's connection string, and the dump: a directory, the .bson file of one collection,
    /// or - for its documents on standard input [default: dump]
    #[arg(value_name = "URI, DIRECTORY OR FILE")]
    pub(super) arguments: Vec<String>,
    /// The dump's directory
    #[arg(help_heading = "Input", long, value_name = "DIR")]
    pub(super) dir: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) deployment: Deployment,
    /// Restore only this database. The directory of one database is restored under this name
    #[arg(help_heading = "Selection", short, long, value_name = "NAME")]
    pub(super) db: Option<String>,
    /// Restore only this collection of --db. A .bson file is restored under this name
    #[arg(help_heading = "Selection", short, long, value_name = "NAME")]
    pub(super) collection: Option<String>,
    /// Restore from the archive FILE, or from standard input
    #[arg(help_heading = "Input", long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub(super) archive: Option<String>,
    /// Accepted for compatibility; compression is recognized by content
    #[arg(help_heading = "Input", long)]
    pub(super) gzip: bool,
    /// Replace existing collections, atomically per collection. Without it, documents are added to
    /// them
    #[arg(help_heading = "Safety", long)]
    pub(super) drop: bool,
    /// Show what would be done, and write nothing
    #[arg(help_heading = "Safety", long)]
    pub(super) dry_run: bool,
    /// Fail if the dump has no oplog. An oplog is always replayed
    #[arg(help_heading = "Input", long)]
    pub(super) oplog_replay: bool,
    /// Replay only oplog entries before this time
    #[arg(help_heading = "Input", long, value_name = "SECONDS[:ORDINAL]")]
    pub(super) oplog_limit: Option<String>,
    /// Restore only namespaces that match. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "NS")]
    pub(super) ns_include: Vec<String>,
    /// Skip namespaces that match. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "NS")]
    pub(super) ns_exclude: Vec<String>,
    /// Restore namespaces that match under another name. The nth --nsFrom goes with the nth --nsTo
    #[arg(help_heading = "Selection", long, value_name = "NS")]
    pub(super) ns_from: Vec<String>,
    /// The new name for the --nsFrom of the same position
    #[arg(help_heading = "Selection", long, value_name = "NS")]
    pub(super) ns_to: Vec<String>,
    /// Skip collections of this name in every database. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "NAME")]
    pub(super) exclude_collection: Vec<String>,
    /// Skip collections whose names begin with PREFIX in every database. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "PREFIX")]
    pub(super) exclude_collections_with_prefix: Vec<String>,
    /// Add the users and roles of --db. Those of a whole dump are always added
    #[arg(help_heading = "Selection", long)]
    pub(super) restore_db_users_and_roles: bool,
    /// Build no indexes
    #[arg(help_heading = "Restoring", long)]
    pub(super) no_index_restore: bool,
    /// Create collections without options such as collation, validator and cap. Views and time
    /// series keep theirs
    #[arg(help_heading = "Restoring", long)]
    pub(super) no_options_restore: bool,
    /// Replace each hashed index on a nested field by an ascending one
    #[arg(help_heading = "Restoring", long)]
    pub(super) fix_dotted_hash_index: bool,
    /// Insert documents in the dump's order, with one writer per collection. Implies --stopOnError
    #[arg(help_heading = "Restoring", long)]
    pub(super) maintain_insertion_order: bool,
    /// Fail if a document is not inserted because its _id or a unique key already exists. Without
    /// it, such documents are skipped and counted
    #[arg(help_heading = "Restoring", long)]
    pub(super) stop_on_error: bool,
    /// Accepted if it is not stronger than what is always used: a majority, on disk
    #[arg(help_heading = "Restoring", long, value_name = "CONCERN")]
    pub(super) write_concern: Option<String>,
    /// Collections that are filled at the same time
    #[arg(help_heading = "Load", short = 'j', long, value_name = "N")]
    pub(super) num_parallel_collections: Option<usize>,
    /// Writers per collection
    #[arg(help_heading = "Load", long, value_name = "N")]
    pub(super) num_insertion_workers_per_collection: Option<usize>,
    #[arg(long, hide = true)]
    pub(super) bypass_document_validation: bool,
    #[arg(long, hide = true)]
    pub(super) objcheck: bool,
    #[arg(long, hide = true)]
    pub(super) convert_legacy_indexes: bool,
    #[arg(long, hide = true)]
    pub(super) keep_index_version: bool,
    #[arg(long, value_name = "N", hide = true)]
    pub(super) batch_size: Option<String>,
    #[arg(long, value_name = "NAME", hide = true)]
    pub(super) temp_users_coll: Option<String>,
    #[arg(long, value_name = "NAME", hide = true)]
    pub(super) temp_roles_coll: Option<String>,
    #[arg(long = "preserveUUID", hide = true)]
    pub(super) preserve_uuid: bool,
    #[arg(long, value_name = "FILE", hide = true)]
    pub(super) oplog_file: Option<String>,
}

impl Args {
    pub(in crate::cli) fn flags(&self) -> Result<Flags> {
        let writers = match (self.num_parallel_collections, self.num_insertion_workers_per_collection) {
            (None, None) => None,
            (collections, each) => Some(collections.unwrap_or(4).saturating_mul(each.unwrap_or(1)).min(MOST_WRITERS).to_string()),
        };
        let (connection, _) = tools::positional(&self.arguments)?;
        let target = self.deployment.uri(connection, given(self.db.as_deref()))?;
        Ok(Flags { target, writers, ..Flags::default() })
    }

    pub(super) fn collection(&self) -> Option<&str> {
        given(self.collection.as_deref())
    }

    pub(super) fn stops_on_error(&self) -> bool {
        self.stop_on_error || self.maintain_insertion_order
    }

    /// The target: of the flags, else the configured one, else the default.
    pub(super) fn target(&self, config: &Config) -> Result<MongoUri> {
        let target = config.configured_target()?.map_or_else(|| MongoUri::parse(Role::Target, DEFAULT_URI), Ok)?;
        let (connection, _) = tools::positional(&self.arguments)?;
        self.deployment.beside(target, connection)
    }

    /// Refuses flags that are not supported or that contradict each other.
    pub(super) fn refuse(&self, database: Option<&str>) -> Result<()> {
        const OPLOG: &str = "a dump can be restored only with the oplog that was kept while it was taken";
        tools::refuse(&[
            (
                self.preserve_uuid,
                Refusal(
                    "--preserveUUID",
                    "restored collections get new UUIDs: the old collections stay until the new ones are verified",
                    "leave it out: nothing in the data depends on UUIDs",
                ),
            ),
            (
                self.oplog_file.is_some(),
                Refusal(
                    "--oplogFile",
                    OPLOG,
                    "if the file is that oplog, put it into the dump's directory as oplog.bson, and pass --oplogReplay",
                ),
            ),
        ])?;
        promise::refuse_stronger(self.write_concern.as_deref())?;
        let excludes = !self.exclude_collection.is_empty() || !self.exclude_collections_with_prefix.is_empty();
        match (self.collection(), database) {
            (Some(_), None) => Err(Error::usage("--collection needs a database").hint("name it with --db")),
            (Some(_), _) if excludes => Err(Error::usage("--collection selects one collection, so none can be excluded")
                .hint("leave out --excludeCollection and --excludeCollectionsWithPrefix")),
            (_, None) if self.restore_db_users_and_roles => {
                Err(Error::usage("--restoreDbUsersAndRoles needs a database").hint("name it with --db"))
            }
            _ => Ok(()),
        }
    }

    /// Prints once which given flags have no effect.
    pub(super) fn tell_without_effect(&self) {
        tools::tell_without_effect(
            &self.deployment,
            &[
                ("--objcheck", self.objcheck),
                ("--bypassDocumentValidation", self.bypass_document_validation),
                ("--convertLegacyIndexes", self.convert_legacy_indexes),
                ("--keepIndexVersion", self.keep_index_version),
                ("--batchSize", self.batch_size.is_some()),
                ("--writeConcern", given(self.write_concern.as_deref()).is_some()),
                ("--tempUsersColl", self.temp_users_coll.is_some()),
                ("--tempRolesColl", self.temp_roles_coll.is_some()),
            ],
        );
    }
}
