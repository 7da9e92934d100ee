//! What is made of documents as they are read: digests, bounds of ranges, hashes, names. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use super::shown;
use crate::format::digest::{self, Content, Sequence};
use crate::format::document;
use crate::source::ranges::IdValue;

/// Takes the documents of a range one by one.
pub(super) trait Fold: Send + 'static {
    /// Forgets everything: the range is read again from its start.
    fn begin_again(&mut self);

    /// Takes the next document.
    fn take(&mut self, document: &[u8]);
}

/// The content of a range and, if that matters, its order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) content: Content,
    /// Present if the natural order counts.
    pub(super) order: Option<Sequence>,
}

impl Sum {
    /// Of a range whose order counts, or does not.
    pub(super) fn new(ordered: bool) -> Self {
        Self { content: Content::default(), order: ordered.then(Sequence::default) }
    }

    /// Adds another range. One whose order counts is the only one of its collection.
    pub(super) fn merge(&mut self, other: &Self) {
        self.content.merge(&other.content);
        self.order = other.order.or(self.order);
    }
}

impl Fold for Sum {
    fn begin_again(&mut self) {
        *self = Self::new(self.order.is_some());
    }

    fn take(&mut self, document: &[u8]) {
        self.content.add(document);
        if let Some(order) = &mut self.order {
            order.add(document);
        }
    }
}

/// Every so many `_id`s, one that bounds two parts of a range.
#[derive(Debug)]
pub(super) struct Bounds {
    every: u64,
    seen: u64,
    pub(super) ids: Vec<IdValue>,
}

impl Bounds {
    pub(super) fn every(documents: u64) -> Self {
        Self { every: documents.max(1), seen: 0, ids: Vec::new() }
    }
}

impl Fold for Bounds {
    fn begin_again(&mut self) {
        *self = Self::every(self.every);
    }

    fn take(&mut self, document: &[u8]) {
        self.seen += 1;
        if self.seen.is_multiple_of(self.every) {
            self.ids.extend(IdValue::of(document).filter(IdValue::can_bound));
        }
    }
}

/// The hashes of a few documents, by those of their `_id`s.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    most: usize,
    pub(super) by_id: HashMap<u128, u128>,
    /// There are more documents than fit.
    pub(super) overflows: bool,
}

impl Hashes {
    /// For at most this many.
    pub(super) fn of_at_most(most: usize) -> Self {
        Self { most, ..Self::default() }
    }
}

impl Fold for Hashes {
    fn begin_again(&mut self) {
        *self = Self::of_at_most(self.most);
    }

    fn take(&mut self, document: &[u8]) {
        if self.by_id.len() < self.most {
            self.by_id.insert(id_hash(document), digest::hash(document));
        } else {
            self.overflows = true;
        }
    }
}

/// Documents of one side, compared with the hashes of the other side's.
#[derive(Debug)]
pub(super) struct Against {
    others: Arc<HashMap<u128, u128>>,
    /// The `_id`s that both sides have.
    pub(super) met: HashSet<u128>,
    /// How many of these have other bytes, and their names.
    pub(super) differing: Named,
    /// How many `_id`s the other side does not have, and their names.
    pub(super) alone: Named,
}

impl Against {
    /// Names at most `most` of each.
    pub(super) fn new(others: Arc<HashMap<u128, u128>>, most: usize) -> Self {
        Self { others, met: HashSet::new(), differing: Named::at_most(most), alone: Named::at_most(most) }
    }
}

impl Fold for Against {
    fn begin_again(&mut self) {
        *self = Self::new(self.others.clone(), self.alone.most);
    }

    fn take(&mut self, document: &[u8]) {
        let id = id_hash(document);
        match self.others.get(&id) {
            None => self.alone.push(document),
            Some(other) => {
                self.met.insert(id);
                if *other != digest::hash(document) {
                    self.differing.push(document);
                }
            }
        }
    }
}

/// The names of the documents with certain `_id`s.
#[derive(Debug)]
pub(super) struct Names {
    wanted: Arc<HashSet<u128>>,
    pub(super) found: Named,
}

impl Names {
    pub(super) fn of(wanted: Arc<HashSet<u128>>, most: usize) -> Self {
        Self { wanted, found: Named::at_most(most) }
    }
}

impl Fold for Names {
    fn begin_again(&mut self) {
        *self = Self::of(self.wanted.clone(), self.found.most);
    }

    fn take(&mut self, document: &[u8]) {
        if self.wanted.contains(&id_hash(document)) {
            self.found.push(document);
        }
    }
}

/// A number of documents, and the `_id`s of the first.
#[derive(Debug, Clone, Default)]
pub(super) struct Named {
    most: usize,
    pub(super) count: u64,
    pub(super) ids: Vec<Value>,
}

impl Named {
    fn at_most(most: usize) -> Self {
        Self { most, count: 0, ids: Vec::new() }
    }

    fn push(&mut self, document: &[u8]) {
        self.count += 1;
        if self.ids.len() < self.most {
            let id = document::id(document).ok().flatten();
            self.ids.push(id.map_or(Value::Null, |(kind, value)| shown::id(kind, value)));
        }
    }
}

/// The hash of a document's `_id`. One without an `_id` is known by all of its bytes.
fn id_hash(document: &[u8]) -> u128 {
    match document::id(document) {
        Ok(Some((kind, value))) => digest::hash(&[&[kind], value].concat()),
        _ => digest::hash(document),
    }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;
    use serde_json::json;

    use super::*;

    fn all<F: Fold>(mut fold: F, documents: &[bson::RawDocumentBuf]) -> F {
        // What was taken before a restart is void.
        fold.take(rawdoc! { "_id": "void" }.as_bytes());
        fold.begin_again();
        documents.iter().for_each(|document| fold.take(document.as_bytes()));
        fold
    }

    #[test]
    fn the_order_counts_only_if_it_is_asked_for() {
        let (one, two) = (rawdoc! { "_id": 1 }, rawdoc! { "_id": 2 });
        let (there, back) = ([one.clone(), two.clone()], [two, one]);
        assert_eq!(all(Sum::new(false), &there), all(Sum::new(false), &back));
        let (there, back) = (all(Sum::new(true), &there), all(Sum::new(true), &back));
        assert!(there.content == back.content && there.order != back.order);
    }

    #[test]
    fn bounds_are_equally_far_apart() {
        let documents: Vec<_> = (0..10).map(|n| rawdoc! { "_id": n }).collect();
        let bounds = all(Bounds::every(4), &documents);
        assert_eq!(bounds.ids, [3, 7].map(|n: usize| IdValue::of(documents[n].as_bytes()).unwrap()));
    }

    #[test]
    fn every_difference_is_found_and_only_the_first_are_named() {
        let side = |documents: &[(i32, i32)]| documents.iter().map(|(id, n)| rawdoc! { "_id": *id, "n": *n }).collect::<Vec<_>>();
        let few = side(&[(1, 0), (2, 0), (3, 0)]);
        let many = side(&[(2, 9), (3, 0), (4, 0), (5, 0), (6, 0)]);
        let hashes = all(Hashes::of_at_most(10), &few);
        let against = all(Against::new(Arc::new(hashes.by_id.clone()), 2), &many);
        assert_eq!((against.differing.count, &against.differing.ids), (1, &vec![json!(2)]));
        assert_eq!((against.alone.count, &against.alone.ids), (3, &vec![json!(4), json!(5)]));
        let left: HashSet<u128> = hashes.by_id.into_keys().filter(|id| !against.met.contains(id)).collect();
        let names = all(Names::of(Arc::new(left), 5), &few);
        assert_eq!(names.found.ids, [json!(1)]);
        assert!(all(Hashes::of_at_most(2), &few).overflows);
    }
}
