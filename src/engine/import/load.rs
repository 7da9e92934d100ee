//! What loading tells of each collection once it is full.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use super::capped_overwrite::FirstDocuments;
use crate::format::arrival::Changes;
use crate::format::digest::Content;

/// A collection that the target has taken every document of.
#[derive(Debug, Clone, Default)]
pub(super) struct Loaded {
    /// Which of the plan's collections.
    pub(super) number: usize,
    /// What it must hold now.
    pub(super) content: Content,
    /// Of a capped one that comes from a dump, what may have been overwritten.
    pub(super) first_documents: Arc<FirstDocuments>,
    /// What became of its documents on their way.
    pub(super) came: Came,
}

/// What became of documents on their way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Came {
    /// What was changed in them.
    pub(super) changes: Changes,
    /// Those that were passed over.
    pub(super) passed_over: Content,
}

impl Came {
    pub(super) fn merge(&mut self, other: &Self) {
        self.changes.merge(&other.changes);
        self.passed_over.merge(&other.passed_over);
    }

    /// What the target must hold of this.
    pub(super) fn left_of(&self, all: &Content) -> Content {
        self.changes.applied_to(all).without(&self.passed_over)
    }
}

/// Tells that a collection is full.
pub(super) fn announce(filled: &UnboundedSender<Loaded>, full: Loaded) {
    // Nobody listens any more where the other side has failed, and that is what counts then.
    let _heard = filled.send(full);
}
