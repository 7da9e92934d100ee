//! Turns entries into operations for the target, spread over lanes so that those on one document
//! stay in order: pure.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher};
use std::sync::Arc;

use uuid::Uuid;

use super::destination::{Destination, Holds, Shared};
use crate::error::{Error, Result};
use crate::format::document::{self, Documents, Writer};
use crate::format::value::{self, Text};
use crate::oplog::{Committed, Entry, Operation, OperationKind, Transactions};

/// What to do to the target, in this order.
#[derive(Debug)]
pub(super) enum Work {
    /// An operation of `applyOps`.
    Operation(Change),
    /// Replaces the document with the same `_id`, including timestamps that servers would replace.
    Whole {
        /// Where.
        place: Shared,
        /// The document.
        document: Vec<u8>,
    },
    /// Deletes all documents.
    Empty(Shared),
}

/// An operation in the form for `applyOps`.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) place: Shared,
    pub(super) kind: OperationKind,
    /// The `_id`: type byte and value.
    pub(super) id: (u8, Vec<u8>),
    /// `{op, ns, o, o2}`
    pub(super) operation: Vec<u8>,
}

/// Turns frames of entries into work for a fixed number of lanes.
#[derive(Debug)]
pub(super) struct Planner {
    places: HashMap<Uuid, Slot>,
    commits: Commits,
    lanes: usize,
}

/// How committed transactions are known.
#[derive(Debug)]
pub enum Commits {
    /// All entries were read before: parts are applied at their own positions, and none is kept.
    Known(Committed),
    /// Later entries are unknown: parts are kept in memory, and applied with the entry that commits
    /// them.
    Awaited(Transactions<Vec<u8>>),
}

#[derive(Debug)]
struct Slot {
    place: Shared,
    /// The `_id` up to which inserts have been read.
    after: Option<(u8, Vec<u8>)>,
}

impl Planner {
    pub(super) fn new(commits: Commits, lanes: usize) -> Self {
        Self { places: HashMap::new(), commits, lanes }
    }

    pub(super) fn direct(&mut self, collection: Uuid, place: Destination) {
        let after = match &place.holds {
            Holds::Capped { after } => after.clone(),
            Holds::Documents | Holds::Buckets => None,
        };
        self.places.insert(collection, Slot { after, place: Arc::new(place) });
    }

    pub(super) fn pass_over(&mut self, collection: Uuid) {
        self.places.remove(&collection);
    }

    /// The work of one frame, by lane.
    pub(super) fn plan(&mut self, frame: &[u8]) -> Result<Vec<Vec<Work>>> {
        let mut lanes: Vec<Vec<Work>> = (0..self.lanes).map(|_| Vec::new()).collect();
        for document in Documents::of(frame) {
            let document = document?;
            let entry = Entry::parse(document)?;
            let counts = match &mut self.commits {
                Commits::Known(committed) => committed.counts(&entry),
                Commits::Awaited(transactions) if entry.part.is_some() => {
                    for part in transactions.take(&entry, vec![document.to_vec()])?.kept {
                        Entry::parse(&part)?.each(&mut |operation| self.add(&operation, &mut lanes))?;
                    }
                    false
                }
                Commits::Awaited(transactions) => transactions.counts(&entry),
            };
            if counts {
                entry.each(&mut |operation| self.add(&operation, &mut lanes))?;
            }
        }
        Ok(lanes)
    }

    fn add(&mut self, operation: &Operation<'_>, lanes: &mut [Vec<Work>]) -> Result<()> {
        let Some(uuid) = operation.collection else {
            return match operation.kind {
                OperationKind::Command | OperationKind::Nothing => Ok(()),
                _ => Err(Error::damaged(format!("an operation on {} has no collection UUID", operation.namespace))),
            };
        };
        let Some(slot) = self.places.get_mut(&uuid) else { return Ok(()) };
        let place = slot.place.clone();
        let ordered = matches!(place.holds, Holds::Capped { .. });
        let mut lane = DefaultHasher::new();
        uuid.hash(&mut lane);
        match operation.kind {
            OperationKind::Nothing => return Ok(()),
            OperationKind::Command => {
                // If the collection was emptied before its last document was written, it was
                // emptied before it was read.
                if operation.command()? == "emptycapped" && slot.after.is_none() {
                    let lane = self.lane(&lane);
                    lanes[lane].push(Work::Empty(place));
                }
                return Ok(());
            }
            _ => {}
        }
        let (kind, id) = operation.id()?;
        if let (OperationKind::Insert, Some(last)) = (operation.kind, &slot.after) {
            if (kind, id) == (last.0, last.1.as_slice()) {
                slot.after = None;
            }
            return Ok(());
        }
        if !ordered && !place.collated {
            value::hash(kind, id, Text::Counts, &mut lane)?;
        }
        let lane = self.lane(&lane);
        let whole = match operation.kind {
            OperationKind::Insert => true,
            OperationKind::Update => document::id(operation.o)?.is_some(),
            _ => false,
        };
        lanes[lane].push(if whole && document::has_empty_timestamp(operation.o)? {
            Work::Whole { place, document: operation.o.to_vec() }
        } else {
            let id = (kind, id.to_vec());
            if whole && place.collated && place.holds == Holds::Documents {
                // A document that was read later may have an `_id` that is equal but not identical,
                // which servers do not change.
                let (deletion, insertion) = instead(operation, &place, kind, &id.1);
                let deletion = Change { operation: deletion, kind: OperationKind::Delete, id: id.clone(), place: place.clone() };
                let insertion = Change { operation: insertion, kind: OperationKind::Insert, id, place };
                lanes[lane].extend([deletion, insertion].map(Work::Operation));
                return Ok(());
            }
            Work::Operation(Change { operation: rewritten(operation, &place), kind: operation.kind, id, place })
        });
        Ok(())
    }

    fn lane(&self, hash: &DefaultHasher) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "the remainder is smaller than a usize")]
        let lane = (hash.finish() % self.lanes as u64) as usize;
        lane
    }
}

/// The operation without the source's UUID: its collection is found by its name in the target.
fn rewritten(operation: &Operation<'_>, place: &Destination) -> Vec<u8> {
    let o2 = operation.o2.filter(|_| operation.kind == OperationKind::Update);
    let mut rewritten = Writer::with_capacity(operation.o.len() + o2.map_or(0, <[u8]>::len) + 320);
    rewritten.string(
        "op",
        match operation.kind {
            OperationKind::Insert => "i",
            OperationKind::Update => "u",
            _ => "d",
        },
    );
    rewritten.string("ns", &place.namespace.to_string());
    rewritten.document("o", operation.o);
    if let Some(o2) = o2 {
        rewritten.document("o2", o2);
        // The document may be gone already because a later entry deletes it. Then the update
        // creates it until it is deleted.
        rewritten.bool("b", true);
    }
    rewritten.finish()
}

/// A deletion of the document with an equal `_id`, and an insertion of the operation's whole
/// document.
fn instead(operation: &Operation<'_>, place: &Destination, kind: u8, id: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut of_id = Writer::default();
    of_id.element(kind, "_id", id);
    let (of_id, o) = (of_id.finish(), operation.o);
    let deletion = Operation { kind: OperationKind::Delete, o: &of_id, o2: None, ..*operation };
    let insertion = Operation { kind: OperationKind::Insert, o, o2: None, ..*operation };
    (rewritten(&deletion, place), rewritten(&insertion, place))
}

#[cfg(test)]
mod tests;
