//! Whose turn it is: of two documents with one `_id`, the first of the dump stays, however many writers there are. So documents whose `_id` is on its way to
//! the target wait until that one is there. Nothing waits where no `_id` repeats.

use std::collections::HashSet;

/// The `_id`s that are on their way to one collection, by their hashes.
#[derive(Debug, Default)]
pub(super) struct Turns(HashSet<u64>);

impl Turns {
    /// Whether any of these is on its way.
    pub(super) fn must_wait(&self, ids: &[u64]) -> bool {
        !self.0.is_empty() && ids.iter().any(|id| self.0.contains(id))
    }

    /// These are on their way from now on. None of them was before.
    pub(super) fn begin(&mut self, ids: &[u64]) {
        self.0.extend(ids);
    }

    /// These have arrived.
    pub(super) fn end(&mut self, ids: &[u64]) {
        ids.iter().for_each(|id| _ = self.0.remove(id));
    }
}
