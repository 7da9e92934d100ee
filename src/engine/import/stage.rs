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
    /// The number of cores of the target, if it tells.
    pub(super) target_cores: Option<u64>,
    /// Build indexes after the replay of the oplog slice, not before.
    pub(super) indexes_later: bool,
}

impl<'a> Stage<'a> {
    pub(super) fn of(plan: &'a Plan<'a>, options: &ImportOptions, target_cores: Option<u64>, cx: &'a Context) -> Self {
        let Plan { target, selected, specs, origin, .. } = plan;
        // A dump made while documents moved may hold several versions of one document; its oplog
        // brings the kept one up to date.
        let manifest = &origin.backup().manifest;
        let makes_up = manifest.source.is_dump() && manifest.oplog.is_some();
        let repeats = if options.allow_duplicates || makes_up { Repeats::PassOver } else { Repeats::Refuse };
        // The memory that reading leaves, but at least a quarter.
        let (counted, taken) = (options.tuning.counted_bytes(), origin.memory());
        let budget = cx.memory.part_beside(counted.saturating_sub(taken).max(counted / 4), taken);
        let (users, writers) = (plan.users.is_some(), Writers::of(options.tuning.writers));
        let loader = Loader { selected, specs, target, users, writers, budget, cx, repeats };
        let (builder, indexes_later) = (IndexBuilder::new(target.clone()), plan.slice.is_some());
        Self { plan, loader, builder, target_cores, indexes_later }
    }
}
