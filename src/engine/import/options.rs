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
    /// The name for the single imported database. By default, the database in the target URI's
    /// path; if there is none, its own name.
    pub database: Option<String>,
    /// Namespaces that get another name. If several rules match, the first counts.
    pub renames: Vec<NamespaceRename>,
    /// The namespaces of the backup to import, by their names there.
    pub filter: NamespaceFilter,
    /// What happens to existing collections of the target.
    pub mode: ImportMode,
    /// Drop extra: drop collections of the target's databases that could have come from the backup,
    /// but are not in it.
    pub drop_extra: bool,
    /// Whether indexes are built.
    pub indexes: IndexMode,
    /// If a dump holds several documents with one `_id`, keep the first and skip the others, even
    /// if no oplog makes up for it.
    pub allow_duplicates: bool,
    /// Which users and roles of a dump to add to those of the target, once everything else is
    /// published.
    pub users: Option<WantedAccounts>,
    /// Keep what is replaced or dropped as extra under another name in the target, so that the
    /// import can be undone.
    pub keep_replaced: bool,
    /// If the login may neither read nor rename, fill collections that do not exist yet under their
    /// final names.
    pub in_place: bool,
    /// What to change compared with the backup.
    pub alterations: Alterations,
    /// Allow a target that is the deployment that the backup came from, or the configured source.
    pub allow_same: bool,
    /// It is the first copy of what follows: the database in the target URI's path changes no name,
    /// and an exclude pattern may match nothing.
    pub is_first_copy: bool,
    /// How long an unrenewed lease of a target's database lasts. By default
    /// [`EXPIRY`](crate::sink::lease::EXPIRY).
    pub lease: Option<Duration>,
    /// How much of the machine it may use.
    pub tuning: Tuning,
}

/// What happens to existing collections of the target with names of the backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImportMode {
    /// Replace each, completely or not at all.
    #[default]
    Replace,
    /// Refuse the import.
    Fail,
    /// Replace documents with the same `_id`s and add the others. This is not atomic.
    Merge,
    /// Add those documents whose `_id`s do not exist there and that violate no unique index. This
    /// is not atomic.
    Add,
}

/// Whether indexes are built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IndexMode {
    /// Build all, before anything is published.
    #[default]
    Now,
    /// Build none; report each.
    Skip,
    /// Only build the indexes that are missing in the target.
    Only,
}
