//! What the phases of staging share.

use super::document_source::DocumentSource;
use super::plan::Plan;
use crate::context::Context;
use crate::context::cpu::{CpuPool, cores};
use crate::context::memory::MemoryBudget;
use crate::sink::indexes::IndexBuilder;
use crate::sink::insert::Repeats;

/// How many write at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writers {
    /// To begin with.
    pub(super) now: usize,
    /// The most that are tried.
    pub(super) most: usize,
}

impl Writers {
    /// As many as are asked for; where that is not said, more are tried than it begins with.
    pub(super) fn of(asked_for: Option<usize>) -> Self {
        match asked_for {
            Some(now) => Self { now: now.max(1), most: now.max(1) },
            None => Self { now: cores().clamp(4, 8), most: MOST_WRITERS },
        }
    }
}

/// The most that write at a time where nothing is said. Memory bounds them, too.
const MOST_WRITERS: usize = 16;

/// What the phases of staging share.
pub(super) struct Stage<'a> {
    pub(super) origin: DocumentSource<'a>,
    pub(super) plan: &'a Plan<'a>,
    pub(super) writers: Writers,
    pub(super) cpu: CpuPool,
    pub(super) budget: MemoryBudget,
    pub(super) cx: &'a Context,
    pub(super) builder: IndexBuilder,
    /// The cores of the target, where it tells.
    pub(super) target_cores: Option<u64>,
    /// What happens to documents whose `_id` repeats.
    pub(super) repeats: Repeats,
    /// Indexes are built once the oplog slice is replayed, not before.
    pub(super) indexes_later: bool,
}
