//! The oplog slice of a backup in the form that mongorestore is to replay.
//!
//! mongorestore applies every entry of an oplog by the names in it. An import applies only entries
//! that count, by UUID. So the export keeps only the entries for exported documents that the
//! documents may not reflect yet. If names and UUIDs disagree, the export is refused.

use std::collections::HashMap;
use std::sync::Arc;

use super::options::ExportOptions;
use crate::context::cpu::CpuPool;
use crate::engine::asked_for::AskedFor;
use crate::engine::replayed::{self, Followed};
use crate::error::{Error, Result};
use crate::format::manifest::{ClusterTime, Collection, CollectionKind, OplogSlice};
use crate::mongo::Version;
use crate::names::{Namespace, SYSTEM_DATABASES};
use crate::oplog::filter::by_name::{Filter, Known, Rules};
use crate::repository::catalog::Backup;

/// From this version on, servers apply deletes in capped collections.
const DELETES_IN_CAPPED: Version = Version(6, 0, 0);

/// A slice, and which of its entries are exported.
pub(super) struct Slice<'a> {
    pub(super) oplog: &'a OplogSlice,
    pub(super) listed_at: ClusterTime,
    pub(super) to: ClusterTime,
    filter: Filter,
}

impl<'a> Slice<'a> {
    /// Reads the slice to its end, once.
    pub(super) async fn follow(
        backup: &Backup,
        oplog: &'a OplogSlice,
        selected: &[&Collection],
        options: &ExportOptions,
        cpu: &CpuPool,
    ) -> Result<Self> {
        let manifest = &backup.manifest;
        let listed_at = manifest.consistency.cluster_time;
        let listed_at = listed_at.ok_or_else(|| Error::damaged("the backup has an oplog slice, but no time of its listing"))?;
        let Followed { committed, mut last_read, .. } =
            replayed::follow(&backup.store, manifest, oplog, listed_at, None, cpu).await?;
        let mut known = HashMap::new();
        for collection in selected {
            if let Some(uuid) = collection.uuid {
                known.insert(uuid, Known::listed(collection, last_read.remove(&uuid)));
            }
        }
        let (asked_for, filter) = (AskedFor::of(manifest)?, options.filter.clone());
        let rules = Rules {
            committed,
            wanted: Box::new(move |namespace| !is_internal(namespace) && asked_for.has(namespace) && filter.takes(namespace)),
            deletes_in_capped: Version::parse(&manifest.source.server_version).is_none_or(|v| v >= DELETES_IN_CAPPED),
        };
        let names = selected.iter().map(|c| c.namespace()).collect();
        let views = selected.iter().filter(|c| c.kind != CollectionKind::Collection).map(|c| c.namespace()).collect();
        Ok(Self { oplog, listed_at, to: oplog.to, filter: Filter::new(Arc::new(rules), known, names, views) })
    }

    /// The filter of the entries, at the slice's first entry.
    pub(super) fn filter(&self) -> Filter {
        self.filter.clone()
    }
}

fn is_internal(namespace: &Namespace) -> bool {
    SYSTEM_DATABASES.contains(&namespace.database.as_str())
        || (namespace.collection.starts_with("system.") && namespace.collection != "system.js")
}
