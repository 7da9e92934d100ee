//! Entries as what they make of each document in the end: pure.
//!
//! A batch of entries is applied as one. So of each document only its last state counts, and of a
//! document that is inserted and deleted again, nothing.

use std::collections::HashMap;

use uuid::Uuid;

use super::destination::Shared;
use super::difference;
use super::lane::Id;
use crate::error::Result;
use crate::format::document;
use crate::oplog::{Operation, OperationKind};

/// What entries make of documents, by collection of the source.
#[derive(Debug, Default)]
pub struct Batch {
    collections: HashMap<Uuid, Changed>,
    documents: usize,
    bytes: usize,
    operations: u64,
}

/// The documents of one collection.
#[derive(Debug)]
pub(super) struct Changed {
    pub(super) place: Shared,
    pub(super) documents: HashMap<Id, Change>,
}

/// What becomes of one document.
#[derive(Debug)]
pub(super) struct Change {
    /// Whether it existed before the batch.
    pub(super) existed: bool,
    pub(super) becomes: Becomes,
}

/// What a document becomes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Becomes {
    /// This one.
    Whole(Vec<u8>),
    /// It is deleted.
    Gone,
    /// What these updates make of it, in this order.
    Updated(Vec<Vec<u8>>),
    /// An update came that does not fit what it had become: only the server can tell.
    Unclear,
}

impl Batch {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations == 0
    }

    /// The number of documents that it changes.
    #[must_use]
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// About the bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of operations that became part of it.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Whether a part of it can only be worked out by a server.
    pub(super) fn is_unclear(&self) -> bool {
        self.changes().any(|change| change.becomes == Becomes::Unclear)
    }

    pub(super) fn collections(self) -> impl Iterator<Item = Changed> {
        self.collections.into_values()
    }

    fn changes(&self) -> impl Iterator<Item = &Change> {
        self.collections.values().flat_map(|changed| changed.documents.values())
    }

    /// Adds an operation on a document of the collection with this UUID.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if it has no `_id`, or is no
    /// operation on a document.
    pub(super) fn add(&mut self, collection: Uuid, place: &Shared, operation: &Operation<'_>) -> Result<()> {
        let (kind, id) = operation.id()?;
        let id: Id = (kind, id.to_vec());
        let size = operation.o.len() + id.1.len() + 64;
        let changed =
            self.collections.entry(collection).or_insert_with(|| Changed { place: place.clone(), documents: HashMap::new() });
        self.operations += 1;
        self.bytes += size;
        let new = match operation.kind {
            OperationKind::Insert => Becomes::Whole(operation.o.to_vec()),
            OperationKind::Update if document::id(operation.o)?.is_some() => Becomes::Whole(operation.o.to_vec()),
            OperationKind::Update => Becomes::Updated(vec![operation.o.to_vec()]),
            _ => Becomes::Gone,
        };
        match changed.documents.entry(id) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                self.documents += 1;
                entry.insert(Change { existed: operation.kind != OperationKind::Insert, becomes: new });
            }
            std::collections::hash_map::Entry::Occupied(mut entry) => entry.get_mut().becomes.then(new)?,
        }
        Ok(())
    }
}

impl Becomes {
    /// What the document becomes if this happens after it.
    fn then(&mut self, next: Self) -> Result<()> {
        match (&mut *self, next) {
            (Self::Unclear, Self::Updated(_)) => {}
            (Self::Updated(before), Self::Updated(more)) => before.extend(more),
            (Self::Whole(document), Self::Updated(updates)) => match updated(document, &updates)? {
                Some(after) => *document = after,
                None => *self = Self::Unclear,
            },
            (Self::Gone, Self::Updated(_)) => *self = Self::Unclear,
            (_, next) => *self = next,
        }
        Ok(())
    }
}

/// The document after these updates; `None` if one of them does not fit.
///
/// # Errors
/// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if something is no document.
pub(super) fn updated(document: &[u8], updates: &[Vec<u8>]) -> Result<Option<Vec<u8>>> {
    let mut after = None;
    for update in updates {
        match difference::applied(after.as_deref().unwrap_or(document), update)? {
            Some(next) => after = Some(next),
            None => return Ok(None),
        }
    }
    Ok(Some(after.unwrap_or_else(|| document.to_vec())))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bson::{RawDocumentBuf, rawdoc};

    use super::*;
    use crate::names::Namespace;
    use crate::oplog::apply::{Destination, Holds};

    fn place() -> Shared {
        Arc::new(Destination {
            namespace: Namespace::new("d", "c"),
            holds: Holds::Documents,
            has_rules: false,
            collated: false,
            unique: false,
        })
    }

    fn batch(operations: &[(OperationKind, RawDocumentBuf, Option<RawDocumentBuf>)]) -> Vec<(bool, Becomes)> {
        let (mut batch, place, uuid) = (Batch::default(), place(), Uuid::nil());
        for (kind, o, o2) in operations {
            let o2 = o2.as_ref().map(|o2| o2.as_bytes());
            let operation = Operation { kind: *kind, namespace: "d.c", collection: Some(uuid), o: o.as_bytes(), o2 };
            batch.add(uuid, &place, &operation).unwrap();
        }
        assert_eq!(batch.operations(), operations.len() as u64);
        batch.collections().flat_map(|c| c.documents.into_values()).map(|c| (c.existed, c.becomes)).collect()
    }

    fn insert(n: i32) -> (OperationKind, RawDocumentBuf, Option<RawDocumentBuf>) {
        (OperationKind::Insert, rawdoc! { "_id": 1, "n": n }, None)
    }

    fn set(n: i32) -> (OperationKind, RawDocumentBuf, Option<RawDocumentBuf>) {
        (OperationKind::Update, rawdoc! { "$v": 2, "diff": { "u": { "n": n } } }, Some(rawdoc! { "_id": 1 }))
    }

    fn delete() -> (OperationKind, RawDocumentBuf, Option<RawDocumentBuf>) {
        (OperationKind::Delete, rawdoc! { "_id": 1 }, None)
    }

    #[test]
    fn only_the_last_state_of_a_document_is_left() {
        let whole = |n: i32| Becomes::Whole(rawdoc! { "_id": 1, "n": n }.into_bytes());
        assert_eq!(batch(&[insert(1), set(2), set(3)]), [(false, whole(3))]);
        assert_eq!(batch(&[insert(1), delete()]), [(false, Becomes::Gone)]);
        assert_eq!(batch(&[delete(), insert(5)]), [(true, whole(5))]);
        assert_eq!(batch(&[set(2), delete()]), [(true, Becomes::Gone)]);
        let two = vec![set(2).1.into_bytes(), set(3).1.into_bytes()];
        assert_eq!(batch(&[set(2), set(3)]), [(true, Becomes::Updated(two))]);
    }

    #[test]
    fn what_does_not_fit_is_left_to_the_server() {
        assert_eq!(batch(&[delete(), set(2)]), [(true, Becomes::Unclear)]);
        let strange = (OperationKind::Update, rawdoc! { "$v": 1, "$set": { "n": 2 } }, Some(rawdoc! { "_id": 1 }));
        assert_eq!(batch(&[insert(1), strange]), [(false, Becomes::Unclear)]);
    }
}
