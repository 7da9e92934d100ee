//! The oplog slice of a backup: how it changes the catalog.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::document_source::DocumentSource;
use crate::context::Context;
use crate::context::cpu::CpuPool;
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
    let Followed { catalog, committed, last_read } = replayed::follow(store, manifest, oplog, listed_at, known, cpu).await?;
    // Collections that stay temporary are listed here, so that the selection skips and names them.
    let mut collections = catalog.collections;
    let lasts: HashSet<Option<Uuid>> = collections.iter().map(|c| c.uuid).collect();
    collections.extend(manifest.collections.iter().filter(|c| c.is_temporary() && !lasts.contains(&c.uuid)).cloned());
    let slice = Slice { oplog: oplog.clone(), has_differences: catalog.has_differences, committed, after: last_read };
    Ok((collections, slice))
}
