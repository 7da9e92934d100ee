//! The oplog slice of a backup: how it changes the catalog.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::document_source::DocumentSource;
use crate::context::Context;
use crate::context::cpu::CpuPool;
use crate::engine::entries::ReplayEntries;
use crate::engine::replayed::{self, Followed};
use crate::error::Result;
use crate::format::manifest::{ClusterTime, Collection, OplogSlice};
use crate::oplog::Committed;
use crate::repository::catalog::Backup;

/// What a replay must know about a slice.
#[derive(Debug)]
pub(super) struct Slice {
    pub(super) oplog: OplogSlice,
    pub(super) has_differences: bool,
    pub(super) committed: Committed,
    /// The last document that was read of each capped collection, if the slice inserts it.
    pub(super) after: HashMap<Uuid, (u8, Vec<u8>)>,
    /// The first part of the oldest transaction that is open at its end.
    pub(super) open_from: Option<ClusterTime>,
}

/// The collections of a backup at its consistency point: at the end of its slice, if it has one.
pub(super) async fn collections<'a>(
    origin: &'a dyn DocumentSource,
    cx: &Context,
) -> Result<(Cow<'a, [Collection]>, Option<Slice>)> {
    let manifest = &origin.backup().manifest;
    let (Some(oplog), Some(listed_at)) = (&manifest.oplog, manifest.consistency.cluster_time) else {
        return Ok((Cow::Borrowed(&manifest.collections), None));
    };
    let work = follow(origin, oplog, listed_at, &cx.cpu);
    let (collections, slice) = cx.unless_cancelled(work).await?;
    Ok((Cow::Owned(collections), Some(slice)))
}

async fn follow(
    origin: &dyn DocumentSource,
    oplog: &OplogSlice,
    listed_at: ClusterTime,
    cpu: &CpuPool,
) -> Result<(Vec<Collection>, Slice)> {
    let Backup { store, manifest } = origin.backup();
    let known = origin.last_read().cloned();
    let entries = ReplayEntries { store, segments: &oplog.segments, archived: origin.archived() };
    // What a base of an archive read of capped collections, it read until the end of its own slice.
    let read_until = origin.read_until().unwrap_or(oplog.to);
    let followed = replayed::follow_entries(entries, manifest, (listed_at, read_until), known, cpu).await?;
    let Followed { catalog, committed, last_read, content, last, open_from } = followed;
    let mut oplog = oplog.clone();
    if origin.archived().is_some() {
        (oplog.documents, oplog.bytes) = (content.documents, content.bytes);
        oplog.to = last.unwrap_or(listed_at).max(listed_at).min(oplog.to);
    }
    // Collections that stay temporary are listed here, so that the selection skips and names them.
    let mut collections = catalog.collections;
    let lasts: HashSet<Option<Uuid>> = collections.iter().map(|c| c.uuid).collect();
    collections.extend(manifest.collections.iter().filter(|c| c.is_temporary() && !lasts.contains(&c.uuid)).cloned());
    let slice = Slice { oplog, has_differences: catalog.has_differences, committed, after: last_read, open_from };
    Ok((collections, slice))
}
