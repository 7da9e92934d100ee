//! Replays a backup's oplog slice into the staging collections.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use uuid::Uuid;

use super::plan::Plan;
use super::slice::Slice;
use super::stage::Stage;
use crate::clock;
use crate::engine::entries::ReplayEntries;
use crate::error::{Error, Result};
use crate::format::chain::ReplayRate;
use crate::format::document::Documents;
use crate::format::frame;
use crate::names::Namespace;
use crate::oplog::apply::{Applier, Commits, Destination};

/// How often the entries of a frame are in memory while they are replayed: as they are read, as
/// work that waits, and of an earlier frame as work, as commands, and as what the driver sends.
const COPIES: u64 = 6;

impl Slice {
    /// Where the documents of each of the source's collections are.
    pub(super) fn destinations(&self, plan: &Plan<'_>) -> HashMap<Uuid, Destination> {
        let staged = plan.selected.iter().zip(&plan.specs);
        staged
            .filter_map(|(selected, spec)| {
                let uuid = selected.collection.uuid?;
                let place = Destination::of(&selected.collection, &spec.place, self.after.get(&uuid).cloned());
                // Indexes are built once everything is replayed.
                Some((uuid, Destination { unique: false, ..place }))
            })
            .collect()
    }

    /// Replays it into the staging collections, durably. Returns the number of operations that were
    /// applied.
    pub(super) async fn replay(&self, stage: &Stage<'_>) -> Result<u64> {
        let Stage { plan, loader, .. } = stage;
        let (budget, cx, store) = (&loader.budget, loader.cx, &plan.origin.backup().store);
        let begun = Instant::now();
        cx.progress.begin("replaying the oplog slice");
        let item = cx.progress.item("oplog", self.oplog.documents, self.oplog.bytes);
        let target = &plan.target;
        let mut applier = Applier::new(target.clone(), Commits::Known(self.committed.clone())).await?;
        let mut collections = HashSet::new();
        for (uuid, destination) in self.destinations(plan) {
            collections.insert(uuid);
            applier.direct(uuid, destination)?;
        }
        let entries = ReplayEntries { store, segments: &self.oplog.segments, archived: plan.origin.archived() };
        let needed = entries.needed_bytes();
        // While a frame is read, the two before it may be on their way.
        let mut recent = [frame::TARGET as u64; 3];
        let mut share = target.unless_stopped(budget.take(needed + COPIES * recent[0])).await?;
        let mut reader = entries.reader_of(collections, &cx.cpu);
        while let Some(frame) = target.unless_stopped(reader.next()).await?? {
            let (documents, bytes) = (Documents::of(&frame).count() as u64, frame.len() as u64);
            recent = [bytes, recent[0], recent[1]];
            share.resize(needed + COPIES * recent.into_iter().max().unwrap_or(bytes));
            applier.take(frame).await.map_err(|e| named(e, plan))?;
            item.add(documents, bytes);
        }
        item.finish();
        let applied = applier.make_durable().await.map_err(|e| named(e, plan))?;
        let rate = ReplayRate { entries: self.oplog.documents, milliseconds: clock::millis_since(begun) };
        plan.origin.replayed(rate).await;
        Ok(applied.operations)
    }
}

/// The error with the final names of the collections instead of their staging names.
fn named(error: Error, plan: &Plan<'_>) -> Error {
    plan.specs.iter().fold(error, |error, spec| {
        let place = Namespace::new(&*spec.place.database, spec.data_collection());
        error.reworded(&format!("{place}:"), &format!("{}:", spec.namespace))
    })
}
