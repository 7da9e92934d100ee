//! A point in time as an import sees it: a base backup, and what an archive has of the time after
//! it.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc::UnboundedSender;

use super::document_source::DocumentSource;
use super::load::{Brought, Loaded, Loader};
use super::planned::PlannedPointInTime;
use super::select::Selected;
use crate::context::Context;
use crate::engine::bases::{self, Base};
use crate::engine::moment::Moment;
use crate::engine::replayed::LastRead;
use crate::error::{Error, ErrorKind, Result};
use crate::format::chain::ReplayRate;
use crate::format::digest::ContentDigest;
use crate::format::manifest::{ClusterTime, Consistency, ConsistencyKind, OplogPosition, OplogSlice};
use crate::oplog::chain::ChainRange;
use crate::oplog::chain::spans::{Part, Spans, gap_error};
use crate::repository::Repository;
use crate::repository::catalog::{Backup, Catalog};
use crate::repository::chain::ChainPlace;
use crate::repository::lock::read::ReadLock;
use crate::sink::Target;

/// A base backup with what an archive has of the time after it. Neither is removed while this
/// exists.
#[derive(Debug)]
pub struct PointInTime {
    /// The base as it is stored.
    base: Backup,
    /// The base, whose slice leads to the point in time.
    backup: Backup,
    place: ChainPlace,
    range: ChainRange,
    moment: Moment,
    /// How fast the archive was replayed the last time.
    rate: Option<ReplayRate>,
    /// Empty for a snapshot: what is in it is exactly what was there.
    last_read: Option<LastRead>,
    _base_lock: ReadLock,
    _archive_lock: ReadLock,
}

impl PointInTime {
    /// Finds the base and the archive for this time. Without a name, the base is the newest from
    /// which the archive reaches the time.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no archive, no base, or the time is outside of both;
    /// [`ErrorKind::Gap`] if a gap is in the way; [`ErrorKind::Refused`] if the backup cannot be a
    /// base; [`ErrorKind::Damaged`]; [`ErrorKind::Storage`].
    pub async fn open(repository: &Repository, named: Option<&str>, moment: Moment, cx: &Context) -> Result<Self> {
        let catalog = Catalog::new(repository.clone(), &cx.cpu);
        let (place, found, archive_lock, candidates) = match named {
            Some(name) => {
                let backup = catalog.find(name).await?;
                let (place, found, lock) = archive_of(repository, &backup, cx).await?;
                let base = Base::of(&backup.manifest, &found.parts.config);
                let base = base.map_err(|why| {
                    Error::new(
                        ErrorKind::Refused,
                        format!("nothing can be replayed on the backup {}: {why}", backup.manifest.name),
                    )
                    .hint("name another backup, or none: then one is chosen")
                })?;
                (place, found, lock, vec![(base, Some(backup))])
            }
            None => {
                let (place, found, lock) = archive_at(repository, moment, cx).await?;
                let bases = bases::bases(repository, &found.parts.config, cx).await?;
                (place, found, lock, bases.into_iter().map(|base| (base, None)).collect())
            }
        };
        let (base, backup, range) = choose(&place, &found, candidates, moment)?;
        let backup = match backup {
            Some(backup) => backup,
            None => catalog.find(base.name.as_str()).await?,
        };
        let base_lock = backup.read_lock("import").await?;
        let rate = place.rate().await;
        Ok(Self { rate, ..Self::of(backup, place, range, moment, (base_lock, archive_lock), &found.parts.config.databases) })
    }

    fn of(
        base: Backup,
        place: ChainPlace,
        range: ChainRange,
        moment: Moment,
        (base_lock, archive_lock): (ReadLock, ReadLock),
        databases: &[String],
    ) -> Self {
        let mut backup = base.clone();
        // What the archive is not about would stay as it is in the base.
        if !databases.is_empty() {
            backup.manifest.collections.retain(|collection| databases.contains(&collection.database));
            backup.manifest.settings.databases = databases.to_vec();
        }
        let is_snapshot = base.manifest.consistency.kind == ConsistencyKind::Snapshot;
        let (entries, bytes) = range.content();
        let own = base.manifest.oplog.as_ref().filter(|own| range.from() > own.to);
        let segments = own.map(|own| own.segments.clone()).unwrap_or_default();
        let from = own.map_or(range.from(), |own| own.from);
        backup.manifest.oplog = Some(OplogSlice {
            from,
            to: moment.upto(),
            documents: entries + own.map_or(0, |own| own.documents),
            bytes: bytes + own.map_or(0, |own| own.bytes),
            digest: ContentDigest::default(),
            segments,
        });
        backup.manifest.consistency = Consistency {
            kind: ConsistencyKind::Oplog,
            from: Some(from),
            to: Some(moment.upto()),
            ..base.manifest.consistency.clone()
        };
        let last_read = is_snapshot.then(LastRead::new);
        Self { base, backup, place, range, moment, rate: None, last_read, _base_lock: base_lock, _archive_lock: archive_lock }
    }

    /// The base's name.
    #[must_use]
    pub fn base(&self) -> &crate::names::BackupName {
        &self.base.manifest.name
    }

    /// The time.
    #[must_use]
    pub fn moment(&self) -> Moment {
        self.moment
    }

    /// What of the archive is replayed.
    #[must_use]
    pub fn range(&self) -> &ChainRange {
        &self.range
    }
}

/// An archive, what it consists of, and what keeps it as it is.
type Archived = (ChainPlace, Spans, ReadLock);

/// The archive of this place; `None` if there is none.
async fn archived(place: ChainPlace, cx: &Context) -> Result<Option<Archived>> {
    let lock = match place.read_lock("import").await {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        lock => lock?,
    };
    Ok(Spans::of(&place, &cx.cpu).await?.map(|found| (place, found, lock)))
}

/// The archive that a backup belongs to.
async fn archive_of(repository: &Repository, backup: &Backup, cx: &Context) -> Result<Archived> {
    let name = &backup.manifest.name;
    let none = |what: String| {
        Err(Error::new(ErrorKind::NotFound, what)
            .hint("let `bsonvault archive` run beside your backups: then every second after a backup can be restored"))
    };
    let source = &backup.manifest.source;
    let mut damaged = None;
    for place in repository.chains().await? {
        let config = match place.config().await {
            // One that cannot be read hides no other.
            Err(e) if e.kind() == ErrorKind::Damaged => {
                damaged = Some(e);
                continue;
            }
            config => config?,
        };
        if config.is_some_and(|config| config.is_of(source))
            && let Some(found) = archived(place, cx).await?
        {
            return Ok(found);
        }
    }
    if let Some(damaged) = damaged {
        return Err(damaged);
    }
    if source.replica_set_id.is_none() && source.deployment_id.is_none() {
        return none(format!(
            "the backup {name} does not say of which replica set it is, so no archive of an oplog belongs to it"
        ));
    }
    none(format!("{} has no archive of the oplog of the replica set of the backup {name}", repository.location()))
}

/// The only archive, or the only one that has this time.
async fn archive_at(repository: &Repository, moment: Moment, cx: &Context) -> Result<Archived> {
    let (mut all, mut damaged) = (Vec::new(), None);
    for place in repository.chains().await? {
        match archived(place, cx).await {
            // One that cannot be read hides no other.
            Err(e) if e.kind() == ErrorKind::Damaged => damaged = Some(e),
            found => all.extend(found?),
        }
    }
    if let (true, Some(damaged)) = (all.is_empty(), damaged) {
        return Err(damaged);
    }
    if all.len() > 1 {
        let has =
            |(_, found, _): &Archived| found.ends().is_some_and(|(begin, end)| begin <= moment.upto() && moment.reach() <= end);
        let names: Vec<String> =
            all.iter().map(|(place, found, _)| format!("{} ({})", found.parts.config.replica_set, place.id())).collect();
        all.retain(has);
        if all.len() != 1 {
            return Err(Error::usage(format!(
                "{} has archives of several replica sets: {}",
                repository.location(),
                names.join(", ")
            ))
            .hint("name a backup of the one that you mean"));
        }
    }
    all.pop().ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("{} has no archive of an oplog", repository.location()))
            .hint("let `bsonvault archive` run beside your backups: then every second after a backup can be restored")
    })
}

type Candidate = (Base, Option<Backup>);

/// The newest base from which the archive reaches the time.
fn choose(
    place: &ChainPlace,
    found: &Spans,
    candidates: Vec<Candidate>,
    moment: Moment,
) -> Result<(Base, Option<Backup>, ChainRange)> {
    let (upto, reach) = (moment.upto(), moment.reach());
    if let Some(gap) = found.gaps().find(|gap| gap.holds(reach) || gap.holds(upto)) {
        return Err(gap_error(gap, upto));
    }
    let first = candidates.iter().map(|(base, _)| base.moment).min();
    let mut refused = None;
    // The newest last, and those that hold everything after all others.
    let mut candidates = candidates;
    candidates.sort_by_key(|(base, _)| (base.is_whole, base.moment));
    for (base, backup) in candidates.into_iter().rev().filter(|(base, _)| base.moment <= upto) {
        match range(place, found, &base, (upto, reach)) {
            Ok(range) => return Ok((base, backup, range)),
            Err(e) => refused = refused.or(Some(e)),
        }
    }
    Err(refused.unwrap_or_else(|| match first {
        Some(first) => Error::new(
            ErrorKind::NotFound,
            format!("{moment} is before the first backup that it could be restored from: that one is of {first}"),
        )
        .hint("`bsonvault timeline` shows which times can be restored"),
        None => Error::new(
            ErrorKind::NotFound,
            "there is an archive of the oplog, and no backup that it can be replayed on".to_owned(),
        )
        .hint("take one with `bsonvault backup` while `bsonvault archive` runs; times before it cannot be restored"),
    }))
}

/// What of the archive leads from a base to the time: from where the base needs it, or from the end
/// of the base's own slice.
pub(in crate::engine) fn range(
    place: &ChainPlace,
    found: &Spans,
    base: &Base,
    times: (ClusterTime, ClusterTime),
) -> Result<ChainRange> {
    let whole = ChainRange::of(place, found, base.from, times);
    match (whole, base.slice_end) {
        (Err(e), Some(end)) if e.kind() == ErrorKind::NotFound => {
            let after = OplogPosition { time: ClusterTime { i: end.i + 1, ..end }, term: None, digest: None };
            ChainRange::of(place, found, after, times)
        }
        (range, _) => range,
    }
}

impl DocumentSource for PointInTime {
    fn backup(&self) -> &Backup {
        &self.backup
    }

    fn name(&self) -> String {
        self.base.manifest.name.to_string()
    }

    fn last_read(&self) -> Option<&LastRead> {
        self.last_read.as_ref()
    }

    fn read_until(&self) -> Option<ClusterTime> {
        let consistency = &self.base.manifest.consistency;
        consistency.to.or(consistency.cluster_time)
    }

    fn planned(&self, entries: u64) -> Option<PlannedPointInTime> {
        let parts = self.range.parts();
        let links = parts.iter().filter(|span| matches!(span.what, Part::Link(_))).count();
        Some(PlannedPointInTime {
            time: self.moment.to_string(),
            base: self.name(),
            links: links as u64,
            pieces: (parts.len() - links) as u64,
            entries,
            seconds: ReplayRate::seconds(self.rate, entries),
        })
    }

    fn replayed(&self, rate: ReplayRate) -> BoxFuture<'_, ()> {
        self.place.set_rate(rate).boxed()
    }

    fn archived(&self) -> Option<&ChainRange> {
        Some(&self.range)
    }

    fn memory(&self) -> u64 {
        self.backup.memory()
    }

    /// The archive was proven when it was read for the plan, and is once more while it is replayed.
    fn prove<'f>(&'f self, selected: &'f [Selected<'_>], target: &'f Target, cx: &'f Context) -> BoxFuture<'f, Result<()>> {
        self.base.prove(selected, target, cx)
    }

    fn load<'f>(&'f self, loader: &'f Loader<'_>, filled: UnboundedSender<Loaded>) -> BoxFuture<'f, Result<Brought>> {
        self.base.load(loader, filled).boxed()
    }
}
