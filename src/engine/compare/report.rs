//! The result of a comparison.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::format::digest::{Content, ContentDigest, Sequence};
use crate::format::manifest::{ClusterTime, CollectionKind, ConsistencyException, LeftOut, Topology};

/// The result of a comparison. Nothing is left out of it silently.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CompareReport {
    /// The source.
    pub source: ComparedSide,
    /// The target.
    pub target: ComparedSide,
    /// Whether there is no difference.
    pub same: bool,
    /// How many collections, time series and views were looked at. One that is on both sides counts
    /// once.
    pub namespaces: u64,
    /// How many documents of the source were read and compared. Those of time series are buckets.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What both sides have, by its name in the source.
    pub collections: Vec<ComparedCollection>,
    /// Every difference, by namespace.
    pub differences: Vec<Difference>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// One of the two deployments, and when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComparedSide {
    /// Scheme, hosts and database.
    pub uri: String,
    /// Its version.
    pub server_version: String,
    /// Its kind.
    pub topology: Topology,
    /// The time at which all of it was read. `None` if it was read as it was, each part at its own
    /// time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<ClusterTime>,
    /// Why it was not read at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_it_was: Option<String>,
    /// The collections that were not read at that time, and why.
    pub exceptions: Vec<ConsistencyException>,
    /// What exists there and was not compared, and why.
    pub left_out: Vec<LeftOut>,
}

/// A collection, time series or view that both sides have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComparedCollection {
    /// Its name in the source.
    pub namespace: String,
    /// Its name in the target.
    pub target_namespace: String,
    /// Its kind in the source.
    #[serde(rename = "type")]
    pub kind: CollectionKind,
    /// Whether there is no difference.
    pub same: bool,
    /// The documents of the source; `None` for a view, and if the kinds differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<ComparedContent>,
    /// Those of the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<ComparedContent>,
}

/// The documents of one side. Those of a time series are its buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComparedContent {
    /// How many there are.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their content digest, which does not depend on their order.
    pub digest: ContentDigest,
    /// The digest of their natural order, for a capped collection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<ContentDigest>,
}

impl ComparedContent {
    pub(super) fn of(content: &Content, order: Option<Sequence>) -> Self {
        Self {
            documents: content.documents,
            bytes: content.bytes,
            digest: content.digest(),
            order: order.map(|order| order.digest()),
        }
    }
}

/// A difference between the two sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The name in the source, or the name that it would have there.
    pub namespace: String,
    /// The name in the target.
    pub target_namespace: String,
    /// What differs.
    #[serde(flatten)]
    pub what: What,
}

/// What differs. In JSON, `what` is the name of the variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "what")]
pub enum What {
    /// The target does not have it.
    Missing,
    /// Only the target has it.
    Extra,
    /// They are of two kinds. Nothing else is compared then.
    Type {
        /// The kind in the source.
        source: CollectionKind,
        /// The kind in the target.
        target: CollectionKind,
    },
    /// An option of the collection, time series or view.
    Option {
        /// Its name.
        name: String,
        /// Its value in the source, in Extended JSON; `None` if it is not set.
        source: Option<Value>,
        /// Its value in the target.
        target: Option<Value>,
    },
    /// An index.
    Index {
        /// Its name.
        name: String,
        /// Its options in the source, in Extended JSON; `None` if it is not there.
        source: Option<Value>,
        /// Its options in the target.
        target: Option<Value>,
    },
    /// Documents.
    Documents(DocumentDifferences),
    /// The natural order of a capped collection.
    Order,
}

/// The documents that differ.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DocumentDifferences {
    /// How many documents have an `_id` that both sides have, and other bytes.
    pub differing: u64,
    /// How many the target does not have.
    pub missing: u64,
    /// How many only the target has.
    pub extra: u64,
    /// Whether these are all. If not, there are more, which were not searched for.
    pub complete: bool,
    /// Why not all were searched for, or why none was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The first of them.
    pub ids: Vec<NamedDocument>,
}

/// A document that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedDocument {
    /// Its `_id`, in Extended JSON.
    #[serde(rename = "_id")]
    pub id: Value,
    /// How it differs.
    pub what: HowDocument,
}

/// How a document differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HowDocument {
    /// Both sides have one with this `_id`, and its bytes differ.
    Differs,
    /// The target does not have it.
    Missing,
    /// Only the target has it.
    Extra,
}
