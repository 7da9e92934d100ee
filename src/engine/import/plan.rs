//! The plan of an import.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use uuid::Uuid;

use super::document_source::DocumentSource;
use super::options::{ImportMode, IndexMode};
use super::planned::PlannedPointInTime;
use super::select::Selected;
use super::slice::Slice;
use crate::few::{Few, LISTED};
use crate::format::manifest::{ClusterTime, Collection, CollectionKind};
use crate::mongo::catalog::ListedCollection;
use crate::names::Namespace;
use crate::sink::users::WantedAccounts;
use crate::sink::{CollectionSpec, Standing, Target};

/// A target that may be written to, and what it is to hold.
#[derive(Debug)]
pub struct Plan<'a> {
    pub(super) origin: &'a dyn DocumentSource,
    pub(super) target: Target,
    pub(super) selected: Vec<Selected<'a>>,
    /// One for each of the selected collections, in that order.
    pub(super) specs: Vec<CollectionSpec>,
    /// Whether these are all collections of the backup: those of its listing, or those at the end
    /// of its slice.
    pub(super) is_whole: bool,
    /// What exists in their databases.
    pub(super) standing: BTreeMap<String, Standing>,
    /// The extra collections that `--drop-extra` drops.
    pub(super) prunes: Vec<(Namespace, Option<Uuid>)>,
    /// The oplog slice that is replayed.
    pub(super) slice: Option<Slice>,
    pub(super) mode: ImportMode,
    pub(super) indexes: IndexMode,
    /// Everything is filled under its final name: see [`in_place`](super::in_place).
    pub(super) in_place: bool,
    /// The name of the imported backup or dump.
    pub(super) backup: String,
    /// Which of the dump's users and roles are added to those of the target.
    pub(super) users: Option<WantedAccounts>,
    /// In words: what a backup or dump holds that is not imported, and how ambiguous files were
    /// read.
    pub(super) beside: Vec<String>,
    /// Existing collections with documents that are overwritten. Absent until they are looked at.
    pub(super) overwrites: Option<Vec<PlannedOverwrite>>,
    /// The only namespaces with documents that it may overwrite. None allows all.
    pub(super) only_over: Option<BTreeSet<Namespace>>,
}

/// A plan, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportPlan {
    /// The backup's name.
    pub backup: String,
    /// Scheme, hosts and database of the target.
    pub target: String,
    /// What happens to existing collections.
    pub mode: ImportMode,
    /// Whether indexes are built.
    pub indexes: IndexMode,
    /// Each namespace, in the backup's order.
    pub collections: Vec<PlannedNamespace>,
    /// The oplog slice that is replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oplog: Option<PlannedReplay>,
    /// The point in time that is restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point_in_time: Option<PlannedPointInTime>,
    /// Extra collections that are not in the backup, and are dropped.
    pub prunes: Vec<String>,
    /// Existing collections with documents that are replaced, merged into or dropped. Absent if
    /// they were not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overwrites: Option<Vec<PlannedOverwrite>>,
    /// In words: what is skipped, because the target cannot hold it or it cannot be part of an
    /// import, and other remarks.
    pub left_out: Vec<String>,
}

/// What happens to existing documents of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Overwriting {
    /// The backup's collection replaces the collection.
    Replaced,
    /// The backup's documents replace those with the same `_id`s.
    Merged,
    /// It is not in the backup, and is dropped.
    Dropped,
}

/// A namespace of the target that holds documents and is overwritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedOverwrite {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub namespace: Namespace,
    /// `collection` or `timeseries`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What happens to it.
    pub action: Overwriting,
    /// Its documents now, by the server's counters; for a time series, its buckets. None if the
    /// login may not look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<u64>,
    /// The documents of the backup. Unknown for dumps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_documents: Option<u64>,
}

fn as_text<S: serde::Serializer>(namespace: &Namespace, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(namespace)
}

/// An oplog slice that is to be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedReplay {
    /// Where it begins.
    pub from: ClusterTime,
    /// The consistency point.
    pub to: ClusterTime,
    /// Its entries.
    pub entries: u64,
}

/// One namespace of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedNamespace {
    /// Its namespace in the backup.
    pub from: String,
    /// Its namespace in the target.
    pub to: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: CollectionKind,
    /// Its documents; for a time series, its buckets. Unknown for dumps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<u64>,
    /// What these are: `documents` or `buckets`.
    pub counted_in: &'static str,
    /// Their bytes, uncompressed. Unknown for archives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Its indexes, without the one on `_id`.
    pub indexes: u64,
    /// What exists under its name now: `collection`, `view`, `timeseries`. None if nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

impl Plan<'_> {
    /// The databases that are written to, sorted.
    pub(super) fn databases(&self) -> Vec<String> {
        let databases: BTreeSet<&str> = self.specs.iter().map(|b| b.namespace.database.as_str()).collect();
        databases.into_iter().map(str::to_owned).collect()
    }

    /// What exists under the final name of one of its collections.
    pub(super) fn stands(&self, spec: &CollectionSpec) -> Option<&ListedCollection> {
        self.standing.get(&spec.namespace.database)?.get(&spec.namespace.collection)
    }

    /// The plan, for display.
    #[must_use]
    pub fn summary(&self) -> ImportPlan {
        let is_counted = self.origin.is_counted();
        let collections = self.selected.iter().zip(&self.specs).map(|(selected, spec)| PlannedNamespace {
            from: selected.collection.namespace().to_string(),
            to: spec.namespace.to_string(),
            kind: spec.kind,
            documents: Some(spec.content.documents).filter(|_| is_counted),
            counted_in: spec.kind.counted_in(),
            bytes: Some(spec.content.bytes).filter(|bytes| is_counted || *bytes > 0),
            indexes: spec.indexes.len() as u64,
            replaces: self.stands(spec).map(|c| c.kind.clone()),
        });
        ImportPlan {
            backup: self.backup.clone(),
            target: self.target.connection.uri.to_string(),
            mode: self.mode,
            indexes: self.indexes,
            collections: collections.collect(),
            oplog: self.slice.as_ref().map(|s| PlannedReplay { from: s.oplog.from, to: s.oplog.to, entries: s.oplog.documents }),
            point_in_time: self.slice.as_ref().and_then(|slice| self.origin.planned(slice.oplog.documents)),
            prunes: self.prunes.iter().map(|(namespace, _)| namespace.to_string()).collect(),
            overwrites: self.overwrites.clone(),
            left_out: self.left_out(&[]),
        }
    }

    /// In words: what the target cannot hold, what it did not keep, and what is skipped.
    pub(super) fn left_out(&self, lost: &[String]) -> Vec<String> {
        let mut left_out = Few::up_to(LISTED);
        left_out.extend(self.specs.iter().flat_map(|b| &b.left_out).chain(lost).cloned());
        left_out.into_sentences().into_iter().chain(self.beside.iter().cloned()).collect()
    }

    /// Each collection, time series and view that is imported, as it is in the source at the time
    /// that is imported, and its name in the target.
    pub(in crate::engine) fn copied(&self) -> Vec<(Collection, Namespace)> {
        self.selected.iter().map(|s| (s.collection.clone().into_owned(), s.to.clone())).collect()
    }

    /// The first part of the oldest transaction that is open at the time that is imported.
    pub(in crate::engine) fn open_from(&self) -> Option<ClusterTime> {
        self.slice.as_ref().and_then(|slice| slice.open_from)
    }

    /// From now on, only the collections found by the last look may be overwritten.
    pub fn overwrite_no_more(&mut self) {
        let found = self.overwrites.iter().flatten();
        self.only_over = Some(found.map(|o| o.namespace.clone()).collect());
    }

    /// Closes the connection to the target.
    pub async fn close(self) {
        self.target.connection.close().await;
    }
}

/// The first ten names, for a sentence.
pub(super) fn listed(names: &[String]) -> String {
    const NAMED: usize = 10;
    match names.len().checked_sub(NAMED) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..NAMED].join(", ")),
    }
}
