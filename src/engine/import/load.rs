//! What loading works with, and what it reports.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use super::capped_overwrite::FirstDocuments;
use super::select::Selected;
use crate::context::Context;
use crate::context::cpu::cores;
use crate::context::memory::MemoryBudget;
use crate::context::progress::Item;
use crate::format::arrival::Changes;
use crate::format::digest::Content;
use crate::names::Namespace;
use crate::sink::insert::{Inserter, Repeats};
use crate::sink::users::Accounts;
use crate::sink::{CollectionSpec, Target};

/// The default maximum of writers at a time. Memory bounds them, too.
const MOST_WRITERS: usize = 16;

/// How many write at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writers {
    /// To begin with.
    pub(super) now: usize,
    /// The most that are tried.
    pub(super) most: usize,
}

impl Writers {
    /// As many as the user asked for. Otherwise more than the first number are tried.
    pub(super) fn of(asked_for: Option<usize>) -> Self {
        match asked_for {
            Some(now) => Self { now: now.max(1), most: now.max(1) },
            None => Self { now: cores().clamp(4, 8), most: MOST_WRITERS },
        }
    }
}

/// A collection whose documents are in staging before the import begins.
#[derive(Debug, Clone, PartialEq)]
pub struct StagedBefore {
    /// Its staging: the name, and the UUID of the collection with the documents.
    pub place: (Namespace, Uuid),
    /// What was loaded.
    pub content: Content,
    /// It was read back already, and may have got later entries since.
    pub is_proven: bool,
}

/// What documents are loaded with.
#[derive(Debug)]
pub struct Loader<'a> {
    /// The collections, and what each becomes.
    pub(super) selected: &'a [Selected<'a>],
    pub(super) specs: &'a [CollectionSpec],
    pub(super) target: &'a Target,
    /// Whether to load users and roles, too.
    pub(super) users: bool,
    pub(super) writers: Writers,
    pub(super) budget: MemoryBudget,
    pub(super) cx: &'a Context,
    /// What happens to documents whose `_id` repeats.
    pub(super) repeats: Repeats,
}

impl Loader<'_> {
    /// Announces a collection whose documents are about to be moved.
    pub(super) fn item(&self, spec: &CollectionSpec, doing: &str) -> Item {
        let name = if doing.is_empty() { spec.namespace.to_string() } else { format!("{} ({doing})", spec.namespace) };
        self.cx.progress.item(name, spec.content.documents, spec.content.bytes)
    }

    pub(super) fn inserter(&self, spec: &CollectionSpec) -> Inserter {
        Inserter::new(self.target.clone(), Arc::new(spec.clone())).with_repeats(self.repeats)
    }
}

/// What arrived beside the filled collections.
#[derive(Debug, Default)]
pub struct Brought {
    /// Documents that were skipped.
    pub(super) passed_over: u64,
    /// Users and roles, if requested.
    pub(super) accounts: Accounts,
}

/// A collection of which the target has accepted every document.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Which of the plan's collections.
    pub(super) number: usize,
    /// What it must hold now.
    pub(super) content: Content,
    /// The documents of a capped collection from a dump that may have been overwritten.
    pub(super) first_documents: Arc<FirstDocuments>,
    /// What happened to its documents on their way.
    pub(super) came: Came,
}

/// What happened to documents on their way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Came {
    /// How they were changed.
    pub(super) changes: Changes,
    /// Those that were skipped.
    pub(super) passed_over: Content,
}

impl Came {
    pub(super) fn merge(&mut self, other: &Self) {
        self.changes.merge(&other.changes);
        self.passed_over.merge(&other.passed_over);
    }

    /// What the target must hold after this.
    pub(super) fn left_of(&self, all: &Content) -> Content {
        self.changes.applied_to(all).without(&self.passed_over)
    }
}

/// Reports that a collection is full.
pub(super) fn announce(filled: &UnboundedSender<Loaded>, full: Loaded) {
    // Nobody listens if the other side has failed. That error counts then.
    let _heard = filled.send(full);
}
