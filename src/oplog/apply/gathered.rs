//! Entries that were gathered to be applied as one, and their halves if they are too much: pure.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use uuid::Uuid;

use super::batch::Batch;
use super::destination::{Holds, Shared};
use super::open::changes_catalog;
use crate::error::Result;
use crate::format::document::Documents;
use crate::format::manifest::{ClusterTime, OplogPosition};
use crate::oplog::{Committed, Entry, Operation, OperationKind};

/// What was gathered.
#[derive(Debug, Default)]
pub struct Gathered {
    /// What becomes of documents whose order does not matter.
    pub batch: Batch,
    /// The entries themselves, whole documents, with the parts of transactions that they commit.
    pub entries: Vec<u8>,
    /// The parts of transactions among them.
    pub parts: Vec<ClusterTime>,
    /// Where each entry of the source ends among them, with everything that it commits.
    pub(super) ends: Vec<End>,
    /// Whether documents that a transaction could write are among those applied one by one.
    pub hurried: bool,
    /// Collections that transactions cannot write to, so that entries are applied to them one by
    /// one: capped ones, buckets, and those of the system.
    pub in_order: HashSet<Uuid>,
    /// The last entry.
    pub to: Option<OplogPosition>,
    /// The first part of the oldest transaction that is open after that. One that the next entry
    /// commits is open still.
    pub open_from: Option<ClusterTime>,
}

/// Where an entry of the source ends.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// The bytes up to there.
    pub(super) bytes: usize,
    /// The entry.
    pub position: OplogPosition,
    /// The first part of the oldest transaction that is open after it.
    pub open_from: Option<ClusterTime>,
}

/// Where the documents of source collections are.
pub(super) type Places = HashMap<Uuid, Shared>;

impl Gathered {
    /// Whether no document changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.in_order.is_empty()
    }

    /// Whether it is of several entries of the source.
    #[must_use]
    pub fn is_divisible(&self) -> bool {
        self.ends.len() > 1
    }

    /// Which of its entries count, for an applier of entries: all.
    #[must_use]
    pub fn committed(&self) -> Committed {
        let mut committed = Committed::new(ClusterTime { t: 0, i: 0 });
        committed.add(self.parts.iter().copied());
        committed
    }

    /// Adds an operation on a document. False if it is about a collection without a place.
    pub(super) fn add(&mut self, operation: &Operation<'_>, places: &Places, hurries: bool) -> Result<bool> {
        let place = operation.collection.and_then(|uuid| Some((uuid, places.get(&uuid)?)));
        let Some((uuid, place)) = place else { return Ok(false) };
        match place.holds {
            Holds::Documents if !place.is_of_the_system() && (!hurries || place.unique) => {
                self.batch.add(uuid, place, operation)?;
            }
            _ => {
                self.hurried |= hurries;
                self.in_order.insert(uuid);
            }
        }
        Ok(true)
    }
}

/// What was gathered once, to be gathered again in pieces.
#[derive(Debug)]
pub struct Pieces {
    entries: Vec<u8>,
    ends: Vec<End>,
    places: Places,
}

impl Pieces {
    pub(super) fn new(gathered: &mut Gathered, places: Places) -> Self {
        Self { entries: std::mem::take(&mut gathered.entries), ends: std::mem::take(&mut gathered.ends), places }
    }

    /// All of it.
    #[must_use]
    pub fn all(&self) -> Range<usize> {
        0..self.ends.len()
    }

    /// The two halves of a piece, about equal in bytes; `None` if it is one entry, or a single
    /// transaction.
    #[must_use]
    pub fn halves(&self, piece: &Range<usize>) -> Option<[Range<usize>; 2]> {
        if piece.len() < 2 {
            return None;
        }
        let bytes = self.bytes(piece);
        let middle = bytes.start + bytes.len() / 2;
        let middle = piece.start + self.ends[piece.clone()].partition_point(|end| end.bytes <= middle);
        let middle = middle.clamp(piece.start + 1, piece.end - 1);
        Some([piece.start..middle, middle..piece.end])
    }

    /// The last entry of a piece.
    #[must_use]
    pub fn end(&self, piece: &Range<usize>) -> Option<End> {
        self.ends.get(piece.end.checked_sub(1)?).copied()
    }

    /// The entries of a piece, whole documents.
    #[must_use]
    pub fn entries(&self, piece: &Range<usize>) -> &[u8] {
        &self.entries[self.bytes(piece)]
    }

    /// What a piece makes of documents.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged).
    pub fn batch(&self, piece: &Range<usize>) -> Result<Batch> {
        let mut again = Gathered::default();
        for entry in Documents::of(self.entries(piece)) {
            Entry::parse(entry?)?.each(&mut |operation| {
                if !matches!(operation.kind, OperationKind::Nothing) && !changes_catalog(&operation)? {
                    again.add(&operation, &self.places, false)?;
                }
                Ok(())
            })?;
        }
        Ok(again.batch)
    }

    fn bytes(&self, piece: &Range<usize>) -> Range<usize> {
        let upto = |end: usize| end.checked_sub(1).and_then(|last| self.ends.get(last)).map_or(0, |end| end.bytes);
        upto(piece.start)..upto(piece.end)
    }
}
