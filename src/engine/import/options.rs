//! What to import, and how.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::Tuning;
use crate::names::{NamespaceFilter, NamespaceRename};
use crate::sink::Alterations;
use crate::sink::users::WantedAccounts;

/// What to import, and how.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The name that the one database gets which is imported; where it is not given, the database in the target URI's path; where there is none, its
    /// own.
    pub database: Option<String>,
    /// Namespaces that get another name; of several that match, the first counts.
    pub renames: Vec<NamespaceRename>,
    /// Of the backup, these namespaces, by the names that they have there.
    pub filter: NamespaceFilter,
    /// What happens to what stands in the target.
    pub mode: ImportMode,
    /// What stands in the target's databases and could have come with the backup, but is not in it, is dropped.
    pub drop_extra: bool,
    /// Whether indexes are built.
    pub indexes: IndexMode,
    /// Where a dump holds several documents with one `_id`, the first that comes stays and the others are passed over, also where no oplog makes up for it.
    pub allow_duplicates: bool,
    /// The users and roles of a dump that are added to those of the target, once everything else is published.
    pub users: Option<WantedAccounts>,
    /// What is replaced or pruned stays in the target under another name, so that the import can be undone.
    pub keep_replaced: bool,
    /// Where the login may neither read nor rename, collections that are not there yet are filled under their final names.
    pub in_place: bool,
    /// What is to be otherwise than in the backup.
    pub alterations: Alterations,
    /// The target may be the deployment that the backup came from, or the configured source.
    pub allow_same: bool,
    /// How long the lease of a target's database holds that is not renewed; [`EXPIRY`](crate::sink::lease::EXPIRY) where it is not given.
    pub lease: Option<Duration>,
    /// How much of the machine it may use.
    pub tuning: Tuning,
}

/// What happens to collections that stand in the target under names of the backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImportMode {
    /// Each is replaced, whole or not at all.
    #[default]
    Replace,
    /// They refuse the import.
    Fail,
    /// Each gets the documents of the backup in place of those with the same `_id`s. This is not atomic.
    Merge,
    /// Each gets those documents of the backup whose `_id`s it does not have, and which its unique indexes take. This is not atomic.
    Add,
}

/// Whether indexes are built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexMode {
    /// All are, before anything is published.
    #[default]
    Now,
    /// None is; each is reported.
    Skip,
    /// Nothing else is: those that are missing in the target are built there.
    Only,
}
