//! The destination of applied entries.

use std::sync::Arc;

use crate::format::manifest::{Collection, CollectionKind};
use crate::names::Namespace;

/// Where the documents of a source collection are in the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The collection there; for a time series, that of its buckets.
    pub namespace: Namespace,
    /// What it holds, which affects how entries are applied.
    pub holds: Holds,
    /// Whether it may hold documents that its rules refuse.
    pub has_rules: bool,
    /// Whether a collation compares text: different values of `_id` may be equal.
    pub collated: bool,
    /// Whether it has a unique index beside that on `_id`: then the order in which different
    /// documents are written matters.
    pub unique: bool,
}

/// What a collection holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// Documents in any order.
    Documents,
    /// The buckets of a time series: servers refuse one that is created from an update alone.
    Buckets,
    /// Documents in order.
    Capped {
        /// The `_id` of the last document read, as type byte and value, if an entry inserts it:
        /// inserts up to it have been read.
        after: Option<(u8, Vec<u8>)>,
    },
}

impl Destination {
    /// Whether its name is one of those that servers give a meaning to, as `system.js`.
    pub(super) fn is_of_the_system(&self) -> bool {
        self.namespace.collection.starts_with("system.")
    }

    /// The destination of a collection that is filled under this name.
    #[must_use]
    pub fn of(collection: &Collection, name: &Namespace, after: Option<(u8, Vec<u8>)>) -> Self {
        let options = &collection.options.bson;
        let capped = options.get("capped").ok().flatten().is_some_and(|c| c.as_bool() != Some(false));
        let holds = match collection.kind {
            CollectionKind::TimeSeries => Holds::Buckets,
            _ if capped => Holds::Capped { after },
            _ => Holds::Documents,
        };
        let has = |option: &str| options.get(option).is_ok_and(|value| value.is_some());
        Self {
            namespace: if collection.kind == CollectionKind::TimeSeries { name.buckets() } else { name.clone() },
            holds,
            has_rules: has("validator") || has("encryptedFields"),
            collated: has("collation"),
            unique: collection.indexes.iter().any(|index| index.bson.get_bool("unique").unwrap_or(false)),
        }
    }
}

/// The destination as the operations of a lane share it.
pub(super) type Shared = Arc<Destination>;
