//! The report of an import.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::fill::Proven;
use super::options::{ImportMode, IndexMode};
use super::plan::Plan;
use crate::clock;
use crate::error::{Error, ErrorKind};
use crate::format::digest::Content;
use crate::format::document::Documents;
use crate::format::manifest::{ClusterTime, CollectionKind};
use crate::names::Namespace;
use crate::sink::CollectionSpec;
use crate::sink::kept::{Kept, KeptSet};

/// A finished import: everything in it was read back from the target and found to be what the
/// backup holds. In jobs kept by older versions, fields that these versions did not have are empty
/// or 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
#[schema(as = ImportResult)]
pub struct ImportReport {
    /// The backup's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub backup: String,
    /// The target: scheme, hosts and database of its URI.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(example = "mongodb://db2.example.net:27017/")]
    pub target: String,
    /// What happened to existing collections. Absent in jobs kept by older versions that did not
    /// record it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, example = "replace")]
    pub mode: Option<ImportMode>,
    /// Every collection, time series and view, in the backup's order.
    #[schema(required)]
    pub collections: Vec<ImportedCollection>,
    /// The documents of all of them.
    #[schema(required)]
    pub documents: u64,
    /// How many of these are buckets of time series.
    pub buckets: u64,
    /// Their bytes, uncompressed.
    #[schema(required)]
    pub bytes: u64,
    /// How many indexes were built, without those on `_id`.
    #[schema(required)]
    pub indexes: u64,
    /// Indexes that were not built because the import skipped indexes.
    pub skipped_indexes: Vec<UnbuiltIndex>,
    /// Indexes that could not be built.
    pub failed_indexes: Vec<UnbuiltIndex>,
    /// The oplog slice that was replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed: Option<ReplayReport>,
    /// Documents that were skipped because the dump holds another one with the same `_id` that came
    /// first.
    #[serde(skip_serializing_if = "is_zero")]
    pub passed_over: u64,
    /// Documents that had no `_id` and were given one, as a server does.
    #[serde(skip_serializing_if = "is_zero")]
    pub given_ids: u64,
    /// Documents whose `_id` was not the first field and was moved there, as a server does.
    #[serde(skip_serializing_if = "is_zero")]
    pub moved_ids: u64,
    /// Documents that were added, in mode `add`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added: Option<u64>,
    /// Documents that were not added in mode `add`, because their `_id` exists or they violate a
    /// unique index.
    #[serde(skip_serializing_if = "is_zero")]
    pub not_added: u64,
    /// Documents of capped collections that later ones overwrote: a dump may hold more than the
    /// collection can.
    #[serde(skip_serializing_if = "is_zero")]
    pub overwritten: u64,
    /// Users of a dump that were added to those of the target. Existing ones do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub users: u64,
    /// Roles of a dump that were added to those of the target. Existing ones do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub roles: u64,
    /// Nothing was read back, because the login may not read: the documents are those that a
    /// majority acknowledged.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub not_read_back: bool,
    /// Everything in the backup was read back from the target and matched.
    #[serde(skip)]
    pub is_whole: bool,
    /// Extra collections of the target that were not in the backup, and were dropped.
    pub pruned: Vec<String>,
    /// What was replaced or dropped as extra and is kept under another name, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<Vec<KeptNamespace>>,
    /// In words: what was skipped because the target cannot hold it.
    pub left_out: Vec<String>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// An oplog slice that was replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayReport {
    /// Where it begins.
    pub from: ClusterTime,
    /// The consistency point of the target's data.
    pub to: ClusterTime,
    /// Its entries.
    pub entries: u64,
    /// The operations on documents that were applied.
    pub operations: u64,
}

/// A namespace that an import replaced or dropped as extra, and that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeptNamespace {
    /// Its name before the import.
    pub namespace: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name now. Of a view, only the definition is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_as: Option<String>,
    /// Its documents, by the server's counters; for a time series, its buckets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<u64>,
}

impl KeptNamespace {
    fn of(kept: &Kept) -> Self {
        let kept_as = Some(kept.place.to_string()).filter(|_| kept.holds_documents());
        Self { namespace: kept.namespace.to_string(), kind: kept.kind.clone(), kept_as, documents: kept.documents }
    }
}

/// The indexes of an import.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub(super) built: u64,
    pub(super) skipped: Vec<UnbuiltIndex>,
    pub(super) failed: Vec<UnbuiltIndex>,
}

impl ImportReport {
    /// The error of an import that is no success: a collection that differs when read back, or an
    /// index that could not be built.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        if let Some(wrong) = self.collections.iter().find(|c| !self.not_read_back && !c.digest_matches) {
            return Some(Error::new(ErrorKind::Mismatch, format!("{} is not what the backup holds", wrong.namespace)));
        }
        let what = match self.failed_indexes.as_slice() {
            [] => return None,
            [one] => format!("the index {} of {} could not be built", one.name, one.namespace),
            [first, ..] => {
                let count = self.failed_indexes.len();
                format!("{count} indexes could not be built, the first of them {} of {}", first.name, first.namespace)
            }
        };
        Some(Error::new(ErrorKind::Server, what).hint("the report gives the reason for each"))
    }
}

/// An index that was not built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnbuiltIndex {
    /// Its collection in the target.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why, if it could not be built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One namespace of a finished import. In jobs kept by older versions, type, bytes and indexes may
/// be unknown and empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ImportedCollection {
    /// Its namespace in the target.
    #[schema(required)]
    pub namespace: String,
    /// What it is.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "collection")]
    pub kind: CollectionKind,
    /// Its documents (for a time series, its buckets), counted in the target.
    #[schema(required)]
    pub documents: u64,
    /// What these are: `documents` or `buckets`.
    #[serde(default = "documents")]
    #[schema(example = "documents")]
    pub counted_in: String,
    /// Their bytes, uncompressed. If an oplog slice is replayed, before that.
    pub bytes: u64,
    /// Whether the content read back from the target, before a replay, has the content digest of
    /// the backup.
    #[schema(required)]
    pub digest_matches: bool,
    /// Documents of it that were added to the existing ones. Absent unless documents were added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added: Option<u64>,
    /// The indexes that were built, without the one on `_id`.
    pub indexes: u64,
    /// Its documents that had no `_id` and were given one.
    #[serde(skip_serializing_if = "is_zero")]
    pub given_ids: u64,
    /// Its documents whose `_id` was moved to the front.
    #[serde(skip_serializing_if = "is_zero")]
    pub moved_ids: u64,
}

/// The result of staging.
#[derive(Debug, Default)]
pub(super) struct Staging {
    /// What each collection was found to hold, before a replay.
    pub(super) proven: Proven,
    /// How many documents each has in the end.
    pub(super) documents: Vec<u64>,
    /// In words: options of indexes that the target did not keep.
    pub(super) lost: Vec<String>,
    /// The operations that were replayed.
    pub(super) operations: u64,
    /// Documents that were not added to existing collections, by collection.
    pub(super) not_added: BTreeMap<Namespace, u64>,
    /// What each collection holds after the replay, if that was read.
    pub(super) replayed: Option<Vec<Content>>,
    /// What was replaced and is kept.
    pub(super) kept: Option<KeptSet>,
}

impl Staging {
    /// For an import that needs no replay, as far as staging itself goes.
    pub(super) fn of(proven: Proven) -> Self {
        Self { documents: proven.contents.iter().map(|c| c.documents).collect(), proven, ..Self::default() }
    }
}

pub(super) fn of(plan: &Plan<'_>, staged: Staging, begun: Instant) -> ImportReport {
    let builds = plan.indexes == IndexMode::Now;
    let built = |spec: &CollectionSpec| if builds { spec.indexes.len() as u64 } else { 0 };
    let collections: Vec<ImportedCollection> = plan
        .specs
        .iter()
        .zip(staged.proven.contents.iter().zip(&staged.proven.expected))
        .zip(staged.documents.iter().zip(&staged.proven.came))
        .map(|((spec, (found, expected)), (documents, came))| ImportedCollection {
            namespace: spec.namespace.to_string(),
            kind: spec.kind,
            documents: *documents,
            counted_in: spec.kind.counted_in().to_owned(),
            bytes: found.bytes,
            digest_matches: !plan.in_place && found == expected,
            added: staged.not_added.get(&spec.namespace).map(|not_added| documents.saturating_sub(*not_added)),
            indexes: built(spec),
            given_ids: came.changes.given,
            moved_ids: came.changes.moved,
        })
        .collect();
    let skipped = plan.specs.iter().filter(|_| !builds).flat_map(|b| {
        b.indexes.iter().map(|index| UnbuiltIndex { namespace: b.namespace.to_string(), name: index.name.clone(), reason: None })
    });
    let indexes = Built { built: collections.iter().map(|c| c.indexes).sum(), skipped: skipped.collect(), failed: Vec::new() };
    let left_out = plan.left_out(&staged.lost);
    let replayed = plan.slice.as_ref().map(|slice| ReplayReport {
        from: slice.oplog.from,
        to: slice.oplog.to,
        entries: slice.oplog.documents,
        operations: staged.operations,
    });
    let Proven { passed_over, overwritten, accounts, .. } = staged.proven;
    let count = |documents: &[u8]| Documents::of(documents).count() as u64;
    let (users, roles) = (count(&accounts.users), count(&accounts.roles));
    let kept = staged.kept.map(|set| set.kept.iter().filter(|kept| !kept.was_nothing()).map(KeptNamespace::of).collect());
    ImportReport {
        replayed,
        kept,
        passed_over,
        not_added: staged.not_added.values().sum(),
        overwritten,
        users,
        roles,
        is_whole: plan.is_whole && collections.iter().all(|c| c.digest_matches),
        ..report(plan, collections, indexes, left_out, begun)
    }
}

/// The report of an import that only built indexes.
pub(super) fn of_indexes(plan: &Plan<'_>, indexes: Built, begun: Instant) -> ImportReport {
    report(plan, Vec::new(), indexes, Vec::new(), begun)
}

fn report(
    plan: &Plan<'_>,
    collections: Vec<ImportedCollection>,
    indexes: Built,
    left_out: Vec<String>,
    begun: Instant,
) -> ImportReport {
    ImportReport {
        backup: plan.backup.clone(),
        target: plan.target.connection.uri.to_string(),
        mode: Some(plan.mode),
        documents: collections.iter().map(|c| c.documents).sum(),
        buckets: collections.iter().filter(|c| c.kind == CollectionKind::TimeSeries).map(|c| c.documents).sum(),
        bytes: collections.iter().map(|c| c.bytes).sum(),
        indexes: indexes.built,
        skipped_indexes: indexes.skipped,
        failed_indexes: indexes.failed,
        given_ids: collections.iter().map(|c| c.given_ids).sum(),
        moved_ids: collections.iter().map(|c| c.moved_ids).sum(),
        added: (plan.mode == ImportMode::Add && plan.indexes != IndexMode::Only)
            .then(|| collections.iter().map(|c| c.added.unwrap_or(c.documents)).sum()),
        not_read_back: plan.in_place,
        pruned: plan.prunes.iter().map(|(namespace, _)| namespace.to_string()).collect(),
        left_out,
        milliseconds: clock::millis_since(begun),
        collections,
        ..ImportReport::default()
    }
}

/// The usual unit of documents, which reports kept by older versions do not name.
fn documents() -> String {
    CollectionKind::Collection.counted_in().to_owned()
}

/// For serde, which passes a reference.
fn is_zero(number: &u64) -> bool {
    *number == 0
}
