//! What the workers of a comparison share: the pairs, the ranges that are left, and what was found.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::folds::{Named, Sum};
use super::half::{Half, Means};
use super::report::{ComparedCollection, ComparedContent, DocumentDifferences, HowDocument, NamedDocument, What};
use super::side::Side;
use crate::context::lock;
use crate::context::progress::Item;
use crate::format::digest::Content;
use crate::format::manifest::CollectionKind;
use crate::source::ranges::Range;

/// How many documents of a collection are named at most.
pub(super) const NAMED: usize = 100;

/// How many documents are named at most in all.
const ALL_NAMED: usize = 10_000;

/// Once enough documents are named, others are still counted until this many were read again.
const COUNTED: u64 = 200_000;

/// A collection that both sides have, while it is compared.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) source: Half,
    pub(super) target: Half,
    pub(super) item: Item,
    pub(super) ranges_left: AtomicUsize,
    /// Whether parts of both can be read by `_id`.
    pub(super) has_order: bool,
    /// Whether it is divided by bounds: see [`has_bounds`](crate::source::ranges::has_bounds).
    pub(super) by_bounds: bool,
    /// Options and indexes that differ.
    pub(super) described: Vec<What>,
    pub(super) found: Mutex<Found>,
}

/// What was found of a pair's documents.
#[derive(Debug, Default)]
pub(super) struct Found {
    source: Sum,
    target: Sum,
    /// Whether a range differed.
    differs: bool,
    documents: DocumentDifferences,
    /// How many documents were read again.
    again: u64,
}

/// A range of a pair.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) pair: usize,
    pub(super) range: Range,
    pub(super) bytes: u64,
}

/// What all workers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) source: Side,
    pub(super) target: Side,
    pub(super) means: Means,
    pub(super) pairs: Vec<Pair>,
    pub(super) queue: Mutex<VecDeque<Unit>>,
    /// How many documents may still be named.
    left: AtomicUsize,
}

impl Shared {
    pub(super) fn new(source: Side, target: Side, means: Means, pairs: Vec<Pair>, mut units: Vec<Unit>) -> Self {
        // The largest first, so that none runs alone at the end.
        units.sort_by_key(|unit| std::cmp::Reverse(unit.bytes));
        Self { source, target, means, pairs, queue: Mutex::new(units.into()), left: AtomicUsize::new(ALL_NAMED) }
    }
}

impl Pair {
    /// Whether the natural order counts: for capped collections on one server each.
    pub(super) fn is_ordered(&self) -> bool {
        self.source.info.is_capped() && self.target.info.is_capped()
    }

    /// Adds a range. True if its documents differ.
    pub(super) fn add(&self, source: &Sum, target: &Sum) -> bool {
        let mut found = lock(&self.found);
        found.source.merge(source);
        found.target.merge(target);
        let differs = source.content != target.content;
        if differs && !found.differs {
            found.differs = true;
            found.documents.complete = true;
        }
        differs
    }

    /// Whether to search on. Not once enough documents are named and much was read again.
    pub(super) fn is_worth_searching(&self, shared: &Shared) -> bool {
        let found = lock(&self.found);
        let most = COUNTED.max(found.source.content.documents / 10);
        let may_name = found.documents.ids.len() < NAMED && shared.left.load(Ordering::Relaxed) > 0;
        may_name || found.again < most
    }

    /// Counts documents that are read again.
    pub(super) fn reads_again(&self, one: &Content, other: &Content) {
        lock(&self.found).again += one.documents + other.documents;
    }

    /// Says why not all that differs is found.
    pub(super) fn leave(&self, why: &str) {
        let mut found = lock(&self.found);
        found.documents.complete = false;
        found.documents.reason.get_or_insert_with(|| why.to_owned());
    }

    /// Adds documents that differ, and names as many as may be named.
    pub(super) fn name(&self, named: Named, what: HowDocument, shared: &Shared) {
        let mut found = lock(&self.found);
        let documents = &mut found.documents;
        let count = match what {
            HowDocument::Differs => &mut documents.differing,
            HowDocument::Missing => &mut documents.missing,
            HowDocument::Extra => &mut documents.extra,
        };
        *count += named.count;
        for id in named.ids {
            let taken = shared.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if documents.ids.len() >= NAMED || taken.is_err() {
                break;
            }
            documents.ids.push(NamedDocument { id, what });
        }
    }

    /// What differs, and what the report says of it.
    pub(super) fn conclude(&self) -> (Vec<What>, ComparedCollection) {
        let mut found = lock(&self.found);
        let mut differences = self.described.clone();
        let has_documents = self.source.info.kind == self.target.info.kind && self.source.info.kind != CollectionKind::View;
        if found.differs {
            let mut documents = std::mem::take(&mut found.documents);
            if documents.complete && documents.differing + documents.missing + documents.extra == 0 {
                documents.reason = Some("they differed when they were read, and no longer when they were searched".to_owned());
            }
            differences.push(What::Documents(documents));
        }
        if found.source.order != found.target.order && !found.differs {
            differences.push(What::Order);
        }
        let content = |sum: &Sum| has_documents.then(|| ComparedContent::of(&sum.content, sum.order));
        let collection = ComparedCollection {
            namespace: self.source.info.namespace.to_string(),
            target_namespace: self.target.info.namespace.to_string(),
            kind: self.source.info.kind,
            same: differences.is_empty(),
            source: content(&found.source),
            target: content(&found.target),
        };
        (differences, collection)
    }
}
