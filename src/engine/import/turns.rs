//! Keeps the order of documents with one `_id`: the dump's first stays, however many writers there
//! are. A document whose `_id` is on its way to the target waits until that one arrived. If no
//! `_id` repeats, nothing waits.

use std::collections::HashSet;

/// The `_id`s on their way to one collection, by their hashes.
#[derive(Debug, Default)]
pub(super) struct Turns(HashSet<u64>);

impl Turns {
    /// Whether any of these is on its way.
    pub(super) fn must_wait(&self, ids: &[u64]) -> bool {
        !self.0.is_empty() && ids.iter().any(|id| self.0.contains(id))
    }

    /// Records that these are on their way. None of them was before.
    pub(super) fn begin(&mut self, ids: &[u64]) {
        self.0.extend(ids);
    }

    /// Records that these have arrived.
    pub(super) fn end(&mut self, ids: &[u64]) {
        ids.iter().for_each(|id| _ = self.0.remove(id));
    }
}
