//! What the oplog slice of a backup makes of its collections: followed before a backup is committed, so that one that cannot be replayed
//! fails then, and before an import changes anything.

use std::collections::HashMap;

use uuid::Uuid;

use super::import::select::AskedFor;
use crate::context::cpu::CpuPool;
use crate::error::Result;
use crate::format::document::{self, Documents};
use crate::format::manifest::{ClusterTime, Collection, Manifest, OplogSlice};
use crate::names::Namespace;
use crate::oplog::catalog::{Outline, Outlined};
use crate::pipeline::read::SegmentReader;
use crate::repository::backend::Objects;

/// The `_id` of the last document that was read of each capped collection: type byte and value.
pub(super) type LastRead = HashMap<Uuid, (u8, Vec<u8>)>;

/// A slice that was read from its start to its end.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) outlined: Outlined,
    pub(super) last_read: LastRead,
}

/// Follows the slice of a backup, whether its manifest is stored yet or not.
///
/// # Errors
/// [`ErrorKind::Refused`](crate::error::ErrorKind::Refused) where it cannot be replayed; those of reading a segment.
pub(super) async fn follow(store: &Objects, manifest: &Manifest, oplog: &OplogSlice, listed_at: ClusterTime) -> Result<Followed> {
    let last_read = last_read(store, manifest).await?;
    let outlined = follow_from(store, manifest, oplog, listed_at, &last_read).await?;
    Ok(Followed { outlined, last_read })
}

/// The same where the last document of each capped collection is known.
///
/// # Errors
/// As for [`follow`].
pub(super) async fn follow_from(
    store: &Objects,
    manifest: &Manifest,
    oplog: &OplogSlice,
    listed_at: ClusterTime,
    last_read: &LastRead,
) -> Result<Outlined> {
    let cpu = CpuPool::of_this_machine();
    let asked_for = AskedFor::of(manifest)?;
    let mut outline = Outline::new(&manifest.collections, listed_at, move |namespace: &Namespace| asked_for.has(namespace))?;
    for (uuid, (kind, id)) in last_read {
        outline.last_read(*uuid, *kind, id);
    }
    for segment in &oplog.segments {
        let mut reader = SegmentReader::open(store, segment, &cpu).await?;
        while let Some(frame) = reader.next().await? {
            for entry in Documents::of(&frame) {
                outline.take(entry?)?;
            }
        }
    }
    outline.finish()
}

/// The last document of each capped collection of a backup.
async fn last_read(store: &Objects, manifest: &Manifest) -> Result<LastRead> {
    let cpu = CpuPool::of_this_machine();
    let mut last_read = HashMap::new();
    for collection in manifest.collections.iter().filter(|c| c.options.bson.get_bool("capped").unwrap_or(false)) {
        if let (Some(uuid), Some(id)) = (collection.uuid, last_id(store, collection, &cpu).await?) {
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
