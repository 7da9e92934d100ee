//! The flags of `restore`, and what contradicts itself among them.

use super::promise;
use crate::cli::tools::{self, DEFAULT_URI, Deployment, Refusal, given};
use crate::config::{Config, Flags};
use crate::error::{Error, Result};
use crate::mongo::{MongoUri, Role};

/// How many writers there are at most, whatever is asked for.
const MOST_WRITERS: usize = 256;

/// Flags of `restore`, under the names that mongorestore gives them.
#[derive(Debug, clap::Args)]
#[command(rename_all = "camelCase")]
pub struct Args {
    /// The target's connection string, and the dump: a directory, the .bson file of one collection, or - for its documents on standard input [default: dump]
    #[arg(value_name = "URI, DIRECTORY OR FILE")]
    pub(super) arguments: Vec<String>,
    /// The dump
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) deployment: Deployment,
    /// Restore this database only; a directory of one database is restored under this name
    #[arg(short, long, value_name = "NAME")]
    pub(super) db: Option<String>,
    /// Restore this collection of it only; a .bson file is restored under this name
    #[arg(short, long, value_name = "NAME")]
    pub(super) collection: Option<String>,
    /// Restore from an archive, or from standard input where no file is given
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub(super) archive: Option<String>,
    /// Taken for what it is: whether something is compressed shows in what it holds
    #[arg(long)]
    pub(super) gzip: bool,
    /// Replace each collection that is there, whole; without it, documents are added to what is there
    #[arg(long)]
    pub(super) drop: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Replay the dump's oplog, which happens in any case where it has one; fails where it has none
    #[arg(long)]
    pub(super) oplog_replay: bool,
    /// Of the oplog, replay only what is before this time
    #[arg(long, value_name = "SECONDS[:ORDINAL]")]
    pub(super) oplog_limit: Option<String>,
    /// Restore only namespaces that match; may be given more than once
    #[arg(long, value_name = "NS")]
    pub(super) ns_include: Vec<String>,
    /// Leave out namespaces that match; may be given more than once
    #[arg(long, value_name = "NS")]
    pub(super) ns_exclude: Vec<String>,
    /// Restore namespaces that match under the name in the --nsTo of the same number
    #[arg(long, value_name = "NS")]
    pub(super) ns_from: Vec<String>,
    /// The names of those
    #[arg(long, value_name = "NS")]
    pub(super) ns_to: Vec<String>,
    /// Leave out collections of this name, of any database; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(super) exclude_collection: Vec<String>,
    /// Leave out collections whose names begin so, of any database; may be given more than once
    #[arg(long, value_name = "PREFIX")]
    pub(super) exclude_collections_with_prefix: Vec<String>,
    /// Add the users and roles of this database, too; those of a whole dump are added in any case
    #[arg(long)]
    pub(super) restore_db_users_and_roles: bool,
    /// Do not build indexes
    #[arg(long)]
    pub(super) no_index_restore: bool,
    /// Make collections without their options, such as collation, validator and cap; views and time series keep theirs
    #[arg(long)]
    pub(super) no_options_restore: bool,
    /// Make an ascending index of each hashed one on a field inside another
    #[arg(long)]
    pub(super) fix_dotted_hash_index: bool,
    /// Insert documents in the dump's order, each collection by one writer, and fail as with --stopOnError
    #[arg(long)]
    pub(super) maintain_insertion_order: bool,
    /// Fail where a document is not inserted because another one has its _id or what a unique index holds; without it such documents are passed over, and counted
    #[arg(long)]
    pub(super) stop_on_error: bool,
    /// Take a write concern that is no stronger than what is always waited for: a majority, on disk
    #[arg(long, value_name = "CONCERN")]
    pub(super) write_concern: Option<String>,
    /// How many collections are filled at a time
    #[arg(short = 'j', long, value_name = "N")]
    pub(super) num_parallel_collections: Option<usize>,
    /// How many writers fill one of them
    #[arg(long, value_name = "N")]
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

    /// The target: what the flags name, what is configured, or the default.
    pub(super) fn target(&self, config: &Config) -> Result<MongoUri> {
        let target = config.configured_target()?.map_or_else(|| MongoUri::parse(Role::Target, DEFAULT_URI), Ok)?;
        let (connection, _) = tools::positional(&self.arguments)?;
        self.deployment.beside(target, connection)
    }

    /// Refuses what is not there, and what contradicts itself.
    pub(super) fn refuse(&self, database: Option<&str>) -> Result<()> {
        const OPLOG: &str = "only the oplog that was kept while a dump was taken fits it";
        tools::refuse(&[
            (
                self.preserve_uuid,
                Refusal(
                    "--preserveUUID",
                    "collections get new UUIDs: the old ones stand until the new ones are proven",
                    "leave it out: nothing in the data depends on UUIDs",
                ),
            ),
            (
                self.oplog_file.is_some(),
                Refusal(
                    "--oplogFile",
                    OPLOG,
                    "if the file is that oplog, put it into the dump's directory as oplog.bson, and give --oplogReplay",
                ),
            ),
        ])?;
        promise::refuse_stronger(self.write_concern.as_deref())?;
        let excludes = !self.exclude_collection.is_empty() || !self.exclude_collections_with_prefix.is_empty();
        match (self.collection(), database) {
            (Some(_), None) => Err(Error::usage("--collection needs a database").hint("name it with --db")),
            (Some(_), _) if excludes => Err(Error::usage("--collection is one collection: nothing can be left out of it")
                .hint("leave --excludeCollection and --excludeCollectionsWithPrefix out")),
            (_, None) if self.restore_db_users_and_roles => {
                Err(Error::usage("--restoreDbUsersAndRoles needs a database").hint("name it with --db"))
            }
            _ => Ok(()),
        }
    }

    /// Says once what changes nothing.
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
