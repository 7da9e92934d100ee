//! What the phases of staging share.

use super::load::{Loader, Writers};
use super::options::ImportOptions;
use super::plan::Plan;
use crate::context::Context;
use crate::sink::indexes::IndexBuilder;
use crate::sink::insert::Repeats;

/// What the phases of staging share.
pub(super) struct Stage<'a> {
    pub(super) plan: &'a Plan<'a>,
    pub(super) loader: Loader<'a>,
    pub(super) builder: IndexBuilder,
    /// The cores of the target, where it tells.
    pub(super) target_cores: Option<u64>,
    /// Indexes are built once the oplog slice is replayed, not before.
    pub(super) indexes_later: bool,
}

impl<'a> Stage<'a> {
    pub(super) fn of(plan: &'a Plan<'a>, options: &ImportOptions, target_cores: Option<u64>, cx: &'a Context) -> Self {
        let Plan { target, selected, specs, origin, .. } = plan;
        // A dump that was taken while documents moved holds several versions of one; its oplog brings whichever is kept to the last.
        let manifest = &origin.backup().manifest;
        let makes_up = manifest.source.is_dump() && manifest.oplog.is_some();
        let repeats = if options.allow_duplicates || makes_up { Repeats::PassOver } else { Repeats::Refuse };
        // What is left of the memory beside reading. A quarter of it in any case.
        let (counted, taken) = (options.tuning.counted_bytes(), origin.memory());
        let budget = cx.memory.part_beside(counted.saturating_sub(taken).max(counted / 4), taken);
        let (users, writers) = (plan.users.is_some(), Writers::of(options.tuning.writers));
        let loader = Loader { selected, specs, target, users, writers, budget, cx, repeats };
        let (builder, indexes_later) = (IndexBuilder::new(target.clone()), plan.slice.is_some());
        Self { plan, loader, builder, target_cores, indexes_later }
    }
}
