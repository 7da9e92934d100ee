//! A first copy of a source as an import sees it: what was read of the source is in staging
//! already, and an archive has what happened meanwhile and after.

use std::collections::HashMap;

use futures::FutureExt as _;
use futures::future::{self, BoxFuture};
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use super::document_source::DocumentSource;
use super::load::{Brought, Loaded, Loader, StagedBefore, announce};
use super::select::Selected;
use crate::clock;
use crate::context::Context;
use crate::engine::replayed::LastRead;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::{Content, ContentDigest, Sha256Hex};
use crate::format::manifest::{
    ClusterTime, Collection, Consistency, ConsistencyKind, FORMAT_VERSION, Manifest, OplogSlice, Settings, Source, Tool, Totals,
};
use crate::format::{frame, segment};
use crate::names::{BackupName, NamespaceFilter, NamespacePattern};
use crate::oplog::chain::ChainRange;
use crate::repository::backend::Objects;
use crate::repository::catalog::Backup;
use crate::sink::Target;
use crate::sink::first_copy::{CopiedCollection, FirstCopy};

/// A first copy that is to be brought up to a time, and published.
#[derive(Debug)]
pub(in crate::engine) struct StagedCopy {
    /// What was listed, and the way to the time. It is stored nowhere.
    backup: Backup,
    range: ChainRange,
    read_until: ClusterTime,
    staged: HashMap<Uuid, StagedBefore>,
    last_read: LastRead,
}

impl StagedCopy {
    /// A copy of which everything is read, and what an archive has from its start to a time after
    /// that.
    #[must_use]
    pub(in crate::engine) fn new(copy: &FirstCopy, source: Source, filter: &NamespaceFilter, range: ChainRange) -> Self {
        let mut last_read = LastRead::new();
        for range in &copy.ranges {
            // Only capped collections have an order; they have one range.
            last_read.extend(range.last.clone().map(|last| (range.of, last)));
        }
        let is_capped = |c: &CopiedCollection| c.source.options.bson.get_bool("capped").unwrap_or(false);
        let capped: Vec<Option<Uuid>> = copy.collections.iter().filter(|c| is_capped(c)).map(|c| c.source.uuid).collect();
        last_read.retain(|uuid, _| capped.contains(&Some(*uuid)));
        let staged = copy.collections.iter().filter_map(|one| Some((one.source.uuid?, staged(copy, one)?))).collect();
        let backup = Backup { store: Objects::in_memory(), manifest: manifest(copy, source, filter, &range) };
        Self { backup, range, read_until: copy.read_until(), staged, last_read }
    }
}

fn staged(copy: &FirstCopy, one: &CopiedCollection) -> Option<StagedBefore> {
    let mut content = Content::default();
    copy.ranges_of(one.source.uuid?).for_each(|range| content.merge(&range.content));
    Some(StagedBefore { place: one.staged.clone()?, content, is_proven: one.is_proven })
}

/// A manifest of what is known of it.
fn manifest(copy: &FirstCopy, source: Source, filter: &NamespaceFilter, range: &ChainRange) -> Manifest {
    let now = clock::now();
    let settings = Settings {
        codec: Default::default(),
        level: 1,
        long_distance: false,
        readers: 1,
        frame_bytes: frame::TARGET as u64,
        segment_bytes: segment::TARGET as u64,
        databases: filter.databases.clone(),
        include: NamespacePattern::texts(&filter.include),
        exclude: NamespacePattern::texts(&filter.exclude),
        query: None,
        views_as_collections: false,
    };
    let consistency = Consistency {
        kind: ConsistencyKind::Oplog,
        cluster_time: Some(copy.listed_at),
        from: Some(range.from()),
        to: Some(range.to()),
        replay_from: None,
        exceptions: Vec::new(),
    };
    let (documents, bytes) = range.content();
    let (from, to) = (range.from(), range.to());
    let oplog = OplogSlice { from, to, documents, bytes, digest: ContentDigest::default(), segments: Vec::new() };
    let collections: Vec<Collection> = copy.collections.iter().map(|one| one.source.clone()).collect();
    Manifest {
        format_version: FORMAT_VERSION,
        tool: Tool { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        id: Uuid::new_v4(),
        name: BackupName::at(now),
        source,
        created: now,
        started: now,
        finished: now,
        consistency,
        settings,
        totals: Totals::of(&collections, Some(&oplog)),
        collections,
        left_out: Vec::new(),
        oplog: Some(oplog),
        checksums: Sha256Hex::zero(),
        sha256: Sha256Hex::zero(),
    }
}

impl DocumentSource for StagedCopy {
    fn backup(&self) -> &Backup {
        &self.backup
    }

    fn name(&self) -> String {
        "the first copy of a sync".to_owned()
    }

    fn only_once(&self) -> Option<Error> {
        let what = "the target's primary changed or restarted while the first copy was finished";
        Some(Error::new(ErrorKind::Unreachable, what))
    }

    fn staged(&self, collection: &Collection) -> Option<&StagedBefore> {
        self.staged.get(&collection.uuid?)
    }

    /// What is replayed onto it from now on is not what was read.
    fn proven<'f>(&'f self, target: &'f Target) -> BoxFuture<'f, Result<()>> {
        FirstCopy::set_proven(target).boxed()
    }

    fn last_read(&self) -> Option<&LastRead> {
        Some(&self.last_read)
    }

    fn read_until(&self) -> Option<ClusterTime> {
        Some(self.read_until)
    }

    fn archived(&self) -> Option<&ChainRange> {
        Some(&self.range)
    }

    fn memory(&self) -> u64 {
        self.backup.manifest.memory()
    }

    /// Documents came from the source itself, and the target has accepted them.
    fn prove<'f>(&'f self, _selected: &'f [Selected<'_>], _target: &'f Target, _cx: &'f Context) -> BoxFuture<'f, Result<()>> {
        future::ready(Ok(())).boxed()
    }

    fn load<'f>(&'f self, loader: &'f Loader<'_>, filled: UnboundedSender<Loaded>) -> BoxFuture<'f, Result<Brought>> {
        for (number, (selected, spec)) in loader.selected.iter().zip(loader.specs).enumerate() {
            if spec.holds_documents() {
                let content = self.staged(&selected.collection).map(|staged| staged.content).unwrap_or_default();
                announce(&filled, Loaded { number, content, ..Loaded::default() });
            }
        }
        future::ready(Ok(Brought::default())).boxed()
    }
}
