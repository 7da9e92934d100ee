//! A first copy straight from the source into staging of the target. What is there durably is
//! recorded in the target, so that a copy that was interrupted goes on.

use std::collections::{BTreeSet, HashMap};

use bson::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use super::copier::{Copier, PATIENCE};
use crate::engine::import::{Plan, StagedCopy};
use crate::engine::sync::changes::{self, Change};
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::{ContentDigest, Sha256Hex};
use crate::format::key;
use crate::format::manifest::{ClusterTime, Collection, CollectionKind, OplogPosition, RawValue, StoredObject};
use crate::mongo::Connection;
use crate::mongo::connect::ConnectOptions;
use crate::names::Namespace;
use crate::oplog::chain::ChainRange;
use crate::oplog::chain::spans::Spans;
use crate::oplog::window;
use crate::repository::lock::read::ReadLock;
use crate::sink::first_copy::{CopiedCollection, FirstCopy};
use crate::sink::{CollectionSpec, evolve, staging};
use crate::source::discover::{self, CollectionInfo, Documents, Selection, Size};
use crate::source::link::{self, Link};
use crate::source::ranges::{self, Division};

/// How many ranges of the source are read at a time, unless the options say.
const READERS: usize = 8;
/// The memory that each of them takes, at least.
const READER_BYTES: u64 = 24 * 1024 * 1024;

/// A copy that is being made.
pub(super) struct Direct<'a> {
    pub(super) copier: &'a Copier<'a>,
    /// To the source.
    pub(super) source: Connection,
    /// How many ranges are read at a time.
    pub(super) readers: usize,
    /// What it needs of the archive is not removed.
    _lock: ReadLock,
}

impl<'a> Direct<'a> {
    /// Connects to the source.
    pub(super) async fn open(copier: &'a Copier<'a>) -> Result<Self> {
        // Once there is an archive.
        copier.tip().await?;
        let lock = copier.place.read_lock("sync").await?;
        let tuning = &copier.options.tuning;
        let fitting = usize::try_from(tuning.counted_bytes() / READER_BYTES).unwrap_or(usize::MAX);
        let readers = tuning.readers.unwrap_or(READERS).min(fitting).max(1);
        let pool = u32::try_from(readers + 2).unwrap_or(u32::MAX / 2);
        let how = ConnectOptions { pool, ..ConnectOptions::default() };
        let mut source = copier.cx.unless_cancelled(Connection::open(copier.source, how)).await?;
        if link::measure(&source, None).await? == Link::Far && !copier.source.names_compressors() {
            source = source.compressed().await?;
        }
        Ok(Self { copier, source, readers, _lock: lock })
    }

    pub(super) async fn close(self) {
        self.source.close().await;
    }

    /// Lists the source, and creates the staging.
    pub(super) async fn begin(&self) -> Result<FirstCopy> {
        let copier = self.copier;
        copier.cx.progress.begin("looking at the source");
        let from = self.start().await?;
        let selection = Selection {
            filter: copier.options.filter.clone(),
            allow_empty: true,
            idle_excludes: true,
            documents: Documents::All,
        };
        let mut listing = copier.cx.unless_cancelled(discover::list_at_one_time(&self.source, &selection, true)).await?;
        let Some(listed_at) = listing.time.map(ClusterTime::from) else {
            return Err(Error::new(ErrorKind::Refused, "the source does not tell its operation time, so nothing can follow it"));
        };
        listing.collections.retain(|info| info.is_temporary() || copier.options.wants(&info.namespace));
        let collections = self.divide(&listing.collections).await?;
        let mut copy = FirstCopy { from, listed_at, collections, ranges: Vec::new() };
        self.refuse(&copy).await?;
        let mut databases = BTreeSet::new();
        for one in &copy.collections {
            databases.insert(self.copier.name(&one.source.namespace())?.database);
        }
        let target = copier.target;
        FirstCopy::forget(target).await?;
        staging::sweep_copies(target, &databases).await?;
        self.stage(copy.collections.iter_mut()).await?;
        copy.begin(target).await?;
        Ok(copy)
    }

    /// Refuses what an import would, before anything is read.
    async fn refuse(&self, copy: &FirstCopy) -> Result<()> {
        let (range, _) = self.archived(copy.from, copy.listed_at).await?;
        let origin = StagedCopy::new(copy, self.source.describe().await, &self.copier.options.filter, range);
        let (plan, _) = self.copier.plan(&origin).await?;
        plan.close().await;
        Ok(())
    }

    /// From where on the archive is needed: it has everything from there on.
    async fn start(&self) -> Result<OplogPosition> {
        let cx = self.copier.cx;
        let begun = Instant::now();
        loop {
            let start = cx.unless_cancelled(window::start(&self.source)).await?;
            let from = OplogPosition::from(start.from);
            let (found, _) = self.until(start.since.into()).await?;
            match found.run(from.time, start.since.into()) {
                Ok(_) => return Ok(from),
                // It began while a transaction was open; that ends.
                Err(e) if begun.elapsed() > PATIENCE => return Err(e),
                Err(e) => tracing::debug!("waiting for the archive to have what the first copy needs: {e}"),
            }
            self.copier.pause().await?;
        }
    }

    /// The archive once it has this time.
    async fn until(&self, time: ClusterTime) -> Result<(Spans, OplogPosition)> {
        loop {
            let (found, at) = self.copier.tip().await?;
            if at.time >= time {
                return Ok((found, at));
            }
            self.copier.pause().await?;
        }
    }

    /// What the archive has from this position on, once it has this time.
    pub(super) async fn archived(&self, from: OplogPosition, until: ClusterTime) -> Result<(ChainRange, OplogPosition)> {
        self.copier.cx.progress.begin("waiting for the archive of the oplog");
        let (found, at) = self.until(until).await?;
        Ok((ChainRange::of(self.copier.place, &found, from, (at.time, at.time))?, at))
    }

    /// What was listed, divided into ranges.
    async fn divide(&self, listed: &[CollectionInfo]) -> Result<Vec<CopiedCollection>> {
        let copier = self.copier;
        let sizes = copier.cx.unless_cancelled(async { Ok(discover::sizes(&self.source, listed).await) }).await?;
        let how = Division { readers: self.readers, range_bytes: copier.options.tuning.range_bytes, fine_end: true };
        let mut collections = Vec::with_capacity(listed.len());
        for (info, size) in listed.iter().zip(sizes) {
            let mut parts = Vec::new();
            if info.kind != CollectionKind::View {
                let dividing = async { Ok(ranges::divide(&self.source, info, size.unwrap_or_default(), how).await) };
                let ranges = copier.cx.unless_cancelled(dividing).await?;
                parts = ranges.iter().map(ranges::Range::part).collect::<Result<_>>()?;
            }
            collections.push(CopiedCollection {
                source: described(info, size.unwrap_or_default()),
                altered: None,
                staged: None,
                ranges: parts,
                is_proven: false,
            });
        }
        Ok(collections)
    }

    /// Creates the staging of these collections.
    pub(super) async fn stage<'c>(&self, collections: impl Iterator<Item = &'c mut CopiedCollection>) -> Result<()> {
        let copier = self.copier;
        let mut made: Vec<&mut CopiedCollection> = Vec::new();
        let mut specs = Vec::new();
        for one in collections {
            let Some(uuid) = one.source.uuid.filter(|_| one.source.kind != CollectionKind::View) else { continue };
            let to = self.copier.name(&one.source.namespace())?;
            // Servers mark a collection as temporary themselves.
            specs.push((uuid, CollectionSpec::of(&one.source, to, copier.version)?));
            made.push(one);
        }
        staging::create_for_copy(copier.target, &mut specs).await?;
        for (one, (_, spec)) in made.into_iter().zip(specs) {
            one.staged = spec.uuid.map(|uuid| (spec.place, uuid));
            (one.altered, one.is_proven) = (None, false);
        }
        Ok(())
    }

    /// Makes the staging what the collections are at the time that is published: the source may
    /// have changed their options. Indexes of an attempt before would be in the way of the replay.
    pub(super) async fn adapt(&self, copy: &FirstCopy, plan: &Plan<'_>) -> Result<()> {
        let target = self.copier.target;
        let after: HashMap<Option<Uuid>, (Collection, Namespace)> =
            plan.copied().into_iter().map(|(source, to)| (source.uuid, (source, to))).collect();
        for one in &copy.collections {
            let (Some((place, _)), Some((now, to))) = (&one.staged, after.get(&one.source.uuid)) else { continue };
            if place.database != to.database {
                FirstCopy::forget(target).await?;
                let what =
                    format!("{to} has a name in another database than when it was copied, and the first copy begins again");
                return Err(Error::new(ErrorKind::Unreachable, what));
            }
            if one.is_proven {
                evolve::drop_all_indexes(target, place).await?;
            }
            self.alter(one, now, place).await?;
        }
        Ok(())
    }

    async fn alter(&self, one: &CopiedCollection, now: &Collection, place: &Namespace) -> Result<()> {
        let target = self.copier.target;
        let named = |collection: &Collection| Collection { indexes: Vec::new(), ..renamed(collection, &now.namespace()) };
        let was = named(one.altered.as_ref().unwrap_or(&one.source));
        let now = named(now);
        for change in changes::between(&[was], std::slice::from_ref(&now))? {
            let Change::Alter(alteration) = change else { continue };
            for fields in &alteration.modify {
                evolve::modify(target, place, fields).await?;
            }
            CopiedCollection::record(target, &[CopiedCollection { altered: Some(now.clone()), ..one.clone() }]).await?;
        }
        Ok(())
    }

    /// Removes the staging of what the source dropped meanwhile.
    pub(super) async fn sweep(&self, copy: &FirstCopy) -> Result<()> {
        staging::sweep_copies(self.copier.target, &copy.databases()).await
    }

    /// The time of the listing: nothing older is read.
    pub(super) fn not_before(copy: &FirstCopy) -> Timestamp {
        copy.listed_at.into()
    }
}

fn renamed(collection: &Collection, to: &Namespace) -> Collection {
    Collection { database: to.database.clone(), name: to.collection.clone(), ..collection.clone() }
}

/// A listed collection of about this size in a manifest's terms.
fn described(info: &CollectionInfo, size: Size) -> Collection {
    Collection {
        database: info.namespace.database.clone(),
        name: info.namespace.collection.clone(),
        kind: info.kind,
        uuid: info.uuid,
        options: RawValue::of(&info.options),
        indexes: info.indexes.iter().map(|index| RawValue::of(index)).collect(),
        metadata: StoredObject { key: key::metadata(""), bytes: 0, sha256: Sha256Hex::zero() },
        documents: size.documents,
        bytes: size.bytes,
        digest: ContentDigest::default(),
        segments: Vec::new(),
    }
}
