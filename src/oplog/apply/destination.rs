//! Where what is applied goes.

use std::sync::Arc;

use crate::format::manifest::{Collection, CollectionKind};
use crate::names::Namespace;

/// Where the documents of one of the source's collections are in the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The collection there; of a time series, that of its buckets.
    pub namespace: Namespace,
    /// What is to be minded.
    pub holds: Holds,
    /// Documents that its rules refuse may be in it.
    pub has_rules: bool,
    /// It compares text by a collation: different values of `_id` may be equal.
    pub collated: bool,
}

/// What a collection holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// Documents in any order.
    Documents,
    /// The buckets of a time series: servers refuse one made up of a change alone.
    Buckets,
    /// Documents in order.
    Capped {
        /// The `_id` of the last document that was read, by type byte and value, if an entry inserts it: inserts up to it have been read.
        after: Option<(u8, Vec<u8>)>,
    },
}

impl Destination {
    /// The place of a collection that is filled under this name.
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
        }
    }
}

/// What a lane shares with the operations in it.
pub(super) type Shared = Arc<Destination>;
