//! The work of one lane in one frame: pure.
//!
//! What later work of the frame makes unnecessary is left out. What may be done before everything
//! else is told apart, since servers do many inserts or deletes in one command much faster than
//! `applyOps` does them.

use std::collections::HashMap;
use std::sync::Arc;

use super::destination::{Destination, Holds, Shared};
use super::difference;
use crate::format::document::{self, Elements, Writer};
use crate::format::kind;
use crate::oplog::OperationKind;

/// A group of fewer than this many operations is not worth a command of its own.
const GROUP: usize = 16;

/// Larger documents are changed by the server.
const FOLDED_BYTES: usize = 256 * 1024;

/// The type byte and value of an `_id`.
pub(super) type Id = (u8, Vec<u8>);

/// What to do to the target, in this order.
#[derive(Debug)]
pub(super) enum Work {
    /// An operation of `applyOps`.
    Operation(Change),
    /// Replaces the document with the same `_id`, including timestamps that servers would replace.
    Whole {
        /// Where.
        place: Shared,
        /// The `_id`.
        id: Id,
        /// The document.
        document: Vec<u8>,
    },
    /// Deletes all documents.
    Empty(Shared),
}

impl Work {
    /// The document it is about.
    fn about(&self) -> Option<(&Shared, &Id)> {
        match self {
            Self::Operation(change) => Some((&change.place, &change.id)),
            Self::Whole { place, id, .. } => Some((place, id)),
            Self::Empty(_) => None,
        }
    }

    /// Whether it is about the same document as other work, and names it by the same bytes.
    fn is_about_that_of(&self, other: &Self) -> bool {
        match (self.about(), other.about()) {
            (Some((place, id)), Some((other_place, other_id))) => Arc::ptr_eq(place, other_place) && id == other_id,
            _ => false,
        }
    }
}

/// An operation: an insert, an update or a delete.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) place: Shared,
    pub(super) kind: OperationKind,
    pub(super) id: Id,
    pub(super) o: Vec<u8>,
    /// Of an update.
    pub(super) o2: Option<Vec<u8>>,
    /// Whether `o` is the whole document.
    pub(super) is_whole: bool,
}

impl Change {
    /// In the form for `applyOps`, without the source's UUID: its collection is found by its name
    /// in the target.
    pub(super) fn operation(&self) -> Vec<u8> {
        let place = &self.place.namespace;
        let mut operation = Writer::with_capacity(self.size());
        operation.string(
            "op",
            match self.kind {
                OperationKind::Insert => "i",
                OperationKind::Update => "u",
                _ => "d",
            },
        );
        operation.string("ns", &place.to_string());
        operation.document("o", &self.o);
        if let Some(o2) = &self.o2 {
            operation.document("o2", o2);
            // The document may be gone already because a later entry deletes it. Then the update
            // creates it until it is deleted.
            operation.bool("b", true);
        }
        operation.finish()
    }

    /// At least the bytes of that.
    pub(super) fn size(&self) -> usize {
        let place = &self.place.namespace;
        let o2 = self.o2.as_ref().map_or(0, |o2| o2.len() + 8);
        self.o.len() + o2 + place.database.len() + place.collection.len() + 48
    }
}

/// The work of a lane, in this order.
#[derive(Debug, Default)]
pub(super) struct Arranged {
    /// Inserts into collections, each of documents that nothing before is about.
    pub(super) inserts: Vec<Vec<Change>>,
    /// Deletes from collections, likewise.
    pub(super) deletes: Vec<Vec<Change>>,
    /// Everything else.
    pub(super) rest: Vec<Work>,
}

/// The work so far.
#[derive(Debug, Default)]
pub(super) struct Lane {
    work: Vec<Option<Piece>>,
    /// The last piece about each document, by a hash that is the same for equal `_id`s.
    last: HashMap<u64, Last>,
}

#[derive(Debug)]
struct Piece {
    work: Work,
    /// Whether no earlier piece is about a document with an equal `_id`, and other documents may be
    /// written before it.
    is_first: bool,
    /// The piece before it that is about a document with an equal `_id`.
    before: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    piece: usize,
    /// Whether servers treat `_id`s as equal here that are not the same, for example numbers of two
    /// types. A document keeps the first of them, so everything that is done to it counts.
    mixed: bool,
}

impl Lane {
    /// Adds work that keeps its place among all other.
    pub(super) fn push(&mut self, work: Work) {
        self.work.push(Some(Piece { work, is_first: false, before: None }));
    }

    /// Adds work about one document. `hash` is the same for equal `_id`s of one collection.
    /// If it leaves nothing of what the document was, earlier work about it is dropped. A
    /// difference for a document that the work before writes whole becomes part of that.
    pub(super) fn push_about(&mut self, hash: u64, leaves_nothing: bool, work: Work) {
        let found = self.last.get(&hash).copied();
        let mixed = found.is_some_and(|last| last.mixed || !self.is_last_about(last, &work));
        let (mut before, mut work) = (found.map(|last| last.piece), work);
        if let (Some(last), false, false) = (before, mixed, leaves_nothing)
            && self.fold(last, &work)
        {
            return;
        }
        if leaves_nothing && !mixed {
            while let Some(piece) = before.and_then(|piece| self.work[piece].take()) {
                before = piece.before;
                // What was inserted and then replaced is new to the target, most likely.
                if let (Work::Operation(change), Work::Operation(earlier)) = (&mut work, &piece.work)
                    && change.is_whole
                    && earlier.kind == OperationKind::Insert
                {
                    change.kind = OperationKind::Insert;
                    change.o2 = None;
                }
            }
        }
        self.last.insert(hash, Last { piece: self.work.len(), mixed });
        self.work.push(Some(Piece { work, is_first: before.is_none(), before }));
    }

    /// Makes an update part of the earlier work if that writes the whole document.
    fn fold(&mut self, last: usize, update: &Work) -> bool {
        let (Some(Some(Piece { work: Work::Operation(whole), .. })), Work::Operation(update)) = (self.work.get_mut(last), update)
        else {
            return false;
        };
        if !whole.is_whole || update.kind != OperationKind::Update || whole.o.len() > FOLDED_BYTES {
            return false;
        }
        // What cannot be applied here is left to the server.
        let Ok(Some(after)) = difference::applied(&whole.o, &update.o) else { return false };
        // Servers keep such a timestamp in a difference, and replace it in a document.
        if document::has_empty_timestamp(&after).unwrap_or(true) {
            return false;
        }
        whole.o = after;
        true
    }

    fn is_last_about(&self, last: Last, work: &Work) -> bool {
        self.work[last.piece].as_ref().is_some_and(|piece| piece.work.is_about_that_of(work))
    }

    /// What is left to do.
    pub(super) fn arrange(self) -> Arranged {
        self.arrange_by(GROUP)
    }

    /// The same with groups of at least this many operations.
    fn arrange_by(self, at_least: usize) -> Arranged {
        let mut groups: HashMap<(*const Destination, bool), Vec<Change>> = HashMap::new();
        let mut rest = Vec::new();
        for Piece { work, is_first, .. } in self.work.into_iter().flatten() {
            match work {
                Work::Operation(change) if is_first && may_be_grouped(&change) => {
                    let key = (Arc::as_ptr(&change.place), change.kind == OperationKind::Insert);
                    groups.entry(key).or_default().push(change);
                }
                work => rest.push(work),
            }
        }
        let (mut inserts, mut deletes, mut first) = (Vec::new(), Vec::new(), Vec::new());
        for ((_, is_insert), group) in groups {
            match (group.len() < at_least, is_insert) {
                (true, _) => first.extend(group.into_iter().map(Work::Operation)),
                (false, true) => inserts.push(group),
                (false, false) => deletes.push(group),
            }
        }
        if !first.is_empty() {
            first.append(&mut rest);
            rest = first;
        }
        Arranged { inserts, deletes, rest }
    }
}

/// Whether a command of its own kind may do it.
fn may_be_grouped(change: &Change) -> bool {
    let place = &change.place;
    if place.holds != Holds::Documents || place.collated || place.namespace.collection.starts_with("system.") {
        return false;
    }
    match change.kind {
        // `insert` moves the `_id` to the front.
        OperationKind::Insert => begins_with_id(&change.o),
        // A query for one of several values takes these for more than themselves.
        OperationKind::Delete => !matches!(change.id.0, kind::REGEX | kind::ARRAY | kind::NULL | kind::UNDEFINED),
        _ => false,
    }
}

fn begins_with_id(document: &[u8]) -> bool {
    let first = Elements::of(document).ok().and_then(|mut elements| elements.next());
    first.is_some_and(|element| element.is_ok_and(|element| element.name == b"_id"))
}

#[cfg(test)]
mod tests;
