//! Follows the oplog slice of a backup and its effect on the collections. Before a commit, so that
//! a slice that cannot be replayed fails the backup; before an import changes anything, too.

use std::collections::HashMap;

use uuid::Uuid;

use super::asked_for::AskedFor;
use super::entries::ReplayEntries;
use crate::context::cpu::CpuPool;
use crate::error::Result;
use crate::format::digest::Content;
use crate::format::document::{self, Documents};
use crate::format::manifest::{ClusterTime, Collection, Manifest, OplogSlice};
use crate::names::Namespace;
use crate::oplog::catalog::{Catalog, CatalogTracker};
use crate::oplog::{Committed, Head};
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
    /// How many entries there are, and their bytes. Has no digest.
    pub(super) content: Content,
    /// The time of the last entry.
    pub(super) last: Option<ClusterTime>,
    /// The first part of the oldest transaction that is open at its end.
    pub(super) open_from: Option<ClusterTime>,
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
    let entries = ReplayEntries { store, segments: &oplog.segments, archived: None };
    follow_entries(entries, manifest, (listed_at, oplog.to), last_read, cpu).await
}

/// The same with entries that may be those of an archive, too. What was read of capped collections
/// was read at or before `read_until`.
///
/// # Errors
/// As for [`follow`]; those of reading an archive.
pub(super) async fn follow_entries(
    entries: ReplayEntries<'_>,
    manifest: &Manifest,
    (listed_at, read_until): (ClusterTime, ClusterTime),
    last_read: Option<LastRead>,
    cpu: &CpuPool,
) -> Result<Followed> {
    let mut last_read = match last_read {
        Some(known) => known,
        None => self::last_read(entries.store, manifest, cpu).await?,
    };
    let asked_for = AskedFor::of(manifest)?;
    let wanted = move |namespace: &Namespace| asked_for.has(namespace);
    let mut tracker = CatalogTracker::new(&manifest.collections, listed_at, wanted)?;
    for (uuid, (kind, id)) in &last_read {
        tracker.last_read(*uuid, *kind, id);
    }
    tracker.read_until(read_until);
    let mut committed = Committed::new(listed_at);
    let (mut reader, mut content, mut last_time) = (entries.reader(cpu), Content::default(), None);
    while let Some(frame) = reader.next().await? {
        let mut last = None;
        for entry in Documents::of(&frame) {
            let entry = entry?;
            committed.add(tracker.take(entry)?);
            (content.documents, content.bytes) = (content.documents + 1, content.bytes + entry.len() as u64);
            last = Some(entry);
        }
        last_time = last.map(Head::of).transpose()?.map(|head| head.time).or(last_time);
    }
    let catalog = tracker.catalog()?;
    last_read.retain(|uuid, _| catalog.read_within.contains(uuid));
    Ok(Followed { catalog, committed, last_read, content, last: last_time, open_from: tracker.open_from() })
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
