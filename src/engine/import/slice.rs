//! The oplog slice of a backup: first what it makes of the catalog, then its replay into what is staged.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::document_source::DocumentSource;
use super::dump_source::DumpSource;
use super::plan::Plan;
use super::stage::Stage;
use crate::context::Context;
use crate::context::cpu::CpuPool;
use crate::engine::replayed::{self, Followed};
use crate::error::{Error, Result};
use crate::format::frame;
use crate::format::manifest::{ClusterTime, Collection, OplogSlice};
use crate::names::Namespace;
use crate::oplog::Committed;
use crate::oplog::apply::{Applier, Commits, Destination};
use crate::pipeline::read::SegmentReader;
use crate::repository::catalog::Backup;

/// How often the entries of a frame are in memory while they are replayed.
const COPIES: u64 = 4;

/// What a replay has to know of a slice.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) oplog: OplogSlice,
    pub(super) has_differences: bool,
    committed: Committed,
    /// The last document that was read of each capped collection, where the slice inserts it.
    after: HashMap<Uuid, (u8, Vec<u8>)>,
}

/// The collections of a backup as they are at the moment that it shows: at the end of its slice, where it has one.
pub(super) async fn collections<'a>(origin: DocumentSource<'a>, cx: &Context) -> Result<(Cow<'a, [Collection]>, Option<Slice>)> {
    let manifest = &origin.backup.manifest;
    let (Some(oplog), Some(listed_at)) = (&manifest.oplog, manifest.consistency.cluster_time) else {
        return Ok((Cow::Borrowed(&manifest.collections), None));
    };
    let work = follow(origin, oplog, listed_at, &cx.cpu);
    let (collections, slice) = cx.unless_cancelled(work).await?;
    Ok((Cow::Owned(collections), Some(slice)))
}

async fn follow(
    origin: DocumentSource<'_>,
    oplog: &OplogSlice,
    listed_at: ClusterTime,
    cpu: &CpuPool,
) -> Result<(Vec<Collection>, Slice)> {
    let Backup { store, manifest } = origin.backup;
    let known = origin.dumped.and_then(DumpSource::last_read).cloned();
    let Followed { catalog, committed, last_read } = replayed::follow(store, manifest, oplog, listed_at, known, cpu).await?;
    // What stays temporary is listed for those who select: it is left out, and named.
    let mut collections = catalog.collections;
    let lasts: HashSet<Option<Uuid>> = collections.iter().map(|c| c.uuid).collect();
    collections.extend(manifest.collections.iter().filter(|c| c.is_temporary() && !lasts.contains(&c.uuid)).cloned());
    let slice = Slice { oplog: oplog.clone(), has_differences: catalog.has_differences, committed, after: last_read };
    Ok((collections, slice))
}

impl Slice {
    /// Where the documents of each of the source's collections are.
    pub(super) fn destinations(&self, plan: &Plan<'_>) -> HashMap<Uuid, Destination> {
        let staged = plan.selected.iter().zip(&plan.specs);
        staged
            .filter_map(|(selected, spec)| {
                let uuid = selected.collection.uuid?;
                Some((uuid, Destination::of(&selected.collection, &spec.place, self.after.get(&uuid).cloned())))
            })
            .collect()
    }

    /// Replays it into what is staged, durably. Gives the number of operations that were applied.
    pub(super) async fn replay(&self, stage: &Stage<'_>) -> Result<u64> {
        let Stage { origin, plan, cpu, budget, cx, .. } = stage;
        cx.progress.begin("replaying the oplog slice");
        let item = cx.progress.item("oplog", self.oplog.documents, self.oplog.bytes);
        let target = &plan.target;
        let mut applier = Applier::new(target.clone(), Commits::Known(self.committed.clone())).await?;
        for (uuid, destination) in self.destinations(plan) {
            applier.direct(uuid, destination)?;
        }
        for segment in &self.oplog.segments {
            let mut share = target.unless_stopped(budget.take(segment.object.bytes + COPIES * frame::TARGET as u64)).await?;
            let mut reader = target.unless_stopped(SegmentReader::open(&origin.backup.store, segment, cpu)).await??;
            let mut done = 0;
            while let Some(frame) = target.unless_stopped(reader.next()).await?? {
                share.resize(segment.object.bytes + COPIES * frame.len() as u64);
                let bytes = frame.len() as u64;
                applier.take(frame).await.map_err(|e| named(e, plan))?;
                item.add(reader.content().documents - done, bytes);
                done = reader.content().documents;
            }
        }
        item.finish();
        Ok(applier.make_durable().await?.operations)
    }
}

/// The error with the names that the collections will have instead of those of their staging.
fn named(error: Error, plan: &Plan<'_>) -> Error {
    plan.specs.iter().fold(error, |error, spec| {
        let place = Namespace::new(&*spec.place.database, spec.data_collection());
        error.reworded(&format!("{place}:"), &format!("{}:", spec.namespace))
    })
}
