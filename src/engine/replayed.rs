//! Follows the oplog slice of a backup and its effect on the collections. Before a commit, so that
//! a slice that cannot be replayed fails the backup; before an import changes anything, too.

use std::collections::HashMap;

use uuid::Uuid;

use super::asked_for::AskedFor;
use crate::context::cpu::CpuPool;
use crate::error::Result;
use crate::format::document::{self, Documents};
use crate::format::manifest::{ClusterTime, Collection, Manifest, OplogSlice};
use crate::names::Namespace;
use crate::oplog::Committed;
use crate::oplog::catalog::{Catalog, CatalogTracker};
use crate::pipeline::read::SegmentReader;
use crate::repository::backend::Objects;

/// The `_id` of the last document that was read of each capped collection: type byte and value.
pub(super) type LastRead = HashMap<Uuid, (u8, Vec<u8>)>;

/// A slice that was read from its start to its end.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) catalog: Catalog,
    /// Which of its entries are to be applied.
    pub(super) committed: Committed,
    /// The capped collections whose last document that was read is inserted by the slice.
    pub(super) last_read: LastRead,
}

/// Follows the slice of a backup, whether its manifest is stored yet or not. Reads the last
/// document of each capped collection if it is not known.
///
/// # Errors
/// [`ErrorKind::Refused`](crate::error::ErrorKind::Refused) if it cannot be replayed; those of
/// reading a segment.
pub(super) async fn follow(
    store: &Objects,
    manifest: &Manifest,
    oplog: &OplogSlice,
    listed_at: ClusterTime,
    last_read: Option<LastRead>,
    cpu: &CpuPool,
) -> Result<Followed> {
    let mut last_read = match last_read {
        Some(known) => known,
        None => self::last_read(store, manifest, cpu).await?,
    };
    let asked_for = AskedFor::of(manifest)?;
    let wanted = move |namespace: &Namespace| asked_for.has(namespace);
    let mut tracker = CatalogTracker::new(&manifest.collections, listed_at, wanted)?;
    for (uuid, (kind, id)) in &last_read {
        tracker.last_read(*uuid, *kind, id);
    }
    let mut committed = Committed::new(listed_at);
    for segment in &oplog.segments {
        let mut reader = SegmentReader::open(store, segment, cpu).await?;
        while let Some(frame) = reader.next().await? {
            for entry in Documents::of(&frame) {
                committed.add(tracker.take(entry?)?);
            }
        }
    }
    let catalog = tracker.catalog()?;
    last_read.retain(|uuid, _| catalog.read_within.contains(uuid));
    Ok(Followed { catalog, committed, last_read })
}

/// The last document of each capped collection of a backup.
async fn last_read(store: &Objects, manifest: &Manifest, cpu: &CpuPool) -> Result<LastRead> {
    let mut last_read = HashMap::new();
    for collection in manifest.collections.iter().filter(|c| c.options.bson.get_bool("capped").unwrap_or(false)) {
        if let (Some(uuid), Some(id)) = (collection.uuid, last_id(store, collection, cpu).await?) {
            last_read.insert(uuid, id);
        }
    }
    Ok(last_read)
}

/// The `_id` of the last document of a collection whose segments are in order.
async fn last_id(store: &Objects, collection: &Collection, cpu: &CpuPool) -> Result<Option<(u8, Vec<u8>)>> {
    let Some(segment) = collection.segments.last() else { return Ok(None) };
    let mut reader = SegmentReader::open(store, segment, cpu).await?;
    let mut last = None;
    while let Some(frame) = reader.next().await? {
        for document in Documents::of(&frame) {
            last = document::id(document?)?.map(|(kind, id)| (kind, id.to_vec()));
        }
    }
    Ok(last)
}
