//! Turns entries into operations for the target, spread over lanes so that those on one document
//! stay in order: pure.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher};
use std::sync::Arc;

use uuid::Uuid;

use super::destination::{Destination, Holds, Shared};
use super::lane::{Arranged, Change, Lane, Work};
use crate::error::{Error, Result};
use crate::format::document::{self, Documents, Writer};
use crate::format::value::{self, Text};
use crate::oplog::{Committed, Entry, Operation, OperationKind, Transactions};

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

/// The work of one frame.
#[derive(Debug)]
pub(super) struct Planned {
    /// By lane.
    pub(super) lanes: Vec<Arranged>,
    /// The number of operations that have an effect, including those that later ones undo.
    pub(super) operations: u64,
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

    /// The work of one frame.
    pub(super) fn plan(&mut self, frame: &[u8]) -> Result<Planned> {
        let mut lanes: Vec<Lane> = (0..self.lanes).map(|_| Lane::default()).collect();
        let mut operations = 0;
        let mut add = |planner: &mut Self, operation: &Operation<'_>| {
            operations += planner.add(operation, &mut lanes)?;
            Ok(())
        };
        for document in Documents::of(frame) {
            let document = document?;
            let entry = Entry::parse(document)?;
            let counts = match &mut self.commits {
                Commits::Known(committed) => committed.counts(&entry),
                Commits::Awaited(transactions) if entry.part.is_some() => {
                    for part in transactions.take(&entry, vec![document.to_vec()])?.kept {
                        Entry::parse(&part)?.each(&mut |operation| add(self, &operation))?;
                    }
                    false
                }
                Commits::Awaited(transactions) => transactions.counts(&entry),
            };
            if counts {
                entry.each(&mut |operation| add(self, &operation))?;
            }
        }
        Ok(Planned { lanes: lanes.into_iter().map(Lane::arrange).collect(), operations })
    }

    /// Returns the number of operations for the target.
    fn add(&mut self, operation: &Operation<'_>, lanes: &mut [Lane]) -> Result<u64> {
        let Some(uuid) = operation.collection else {
            return match operation.kind {
                OperationKind::Command | OperationKind::Nothing => Ok(0),
                _ => Err(Error::damaged(format!("an operation on {} has no collection UUID", operation.namespace))),
            };
        };
        let Some(slot) = self.places.get_mut(&uuid) else { return Ok(0) };
        let place = slot.place.clone();
        let mut hash = DefaultHasher::new();
        uuid.hash(&mut hash);
        match operation.kind {
            OperationKind::Nothing => return Ok(0),
            OperationKind::Command => {
                // If the collection was emptied before its last document was written, it was
                // emptied before it was read.
                if operation.command()? != "emptycapped" || slot.after.is_some() {
                    return Ok(0);
                }
                lanes[self.lane(&hash)].push(Work::Empty(place));
                return Ok(1);
            }
            _ => {}
        }
        let (kind, id) = operation.id()?;
        if let (OperationKind::Insert, Some(last)) = (operation.kind, &slot.after) {
            if (kind, id) == (last.0, last.1.as_slice()) {
                slot.after = None;
            }
            return Ok(0);
        }
        let whole = match operation.kind {
            OperationKind::Insert => true,
            OperationKind::Update => document::id(operation.o)?.is_some(),
            _ => false,
        };
        let o = operation.o.to_vec();
        let o2 = operation.o2.filter(|_| operation.kind == OperationKind::Update).map(<[u8]>::to_vec);
        let id = (kind, id.to_vec());
        let work = match whole && document::has_empty_timestamp(operation.o)? {
            true => Work::Whole { place: place.clone(), id, document: o },
            false => Work::Operation(Change { place: place.clone(), kind: operation.kind, id, o, o2, is_whole: whole }),
        };
        if place.collated || place.unique || matches!(place.holds, Holds::Capped { .. }) {
            let lane = &mut lanes[self.lane(&hash)];
            match work {
                Work::Operation(change) if whole && place.collated && place.holds == Holds::Documents => {
                    let [deletion, insertion] = instead(change);
                    lane.push(Work::Operation(deletion));
                    lane.push(Work::Operation(insertion));
                    return Ok(2);
                }
                work => lane.push(work),
            }
            return Ok(1);
        }
        value::hash(kind, operation.id()?.1, Text::Counts, &mut hash)?;
        let leaves_nothing = whole || operation.kind == OperationKind::Delete;
        lanes[self.lane(&hash)].push_about(hash.finish(), leaves_nothing, work);
        Ok(1)
    }

    fn lane(&self, hash: &DefaultHasher) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "the remainder is smaller than a usize")]
        let lane = (hash.finish() % self.lanes as u64) as usize;
        lane
    }
}

/// A deletion of the document with an equal `_id`, and an insertion of the whole document. A
/// document that was read later may have an `_id` that is equal but not identical, which servers do
/// not change.
fn instead(change: Change) -> [Change; 2] {
    let mut of_id = Writer::default();
    of_id.element(change.id.0, "_id", &change.id.1);
    let deletion = Change {
        place: change.place.clone(),
        kind: OperationKind::Delete,
        id: change.id.clone(),
        o: of_id.finish(),
        o2: None,
        is_whole: false,
    };
    [deletion, Change { kind: OperationKind::Insert, o2: None, ..change }]
}

#[cfg(test)]
mod tests;
