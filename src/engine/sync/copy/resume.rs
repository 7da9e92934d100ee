//! Finds what is left of a first copy that was interrupted: parts that are there, or all of it,
//! published.

use std::collections::{BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use super::direct::Direct;
use crate::error::Result;
use crate::format::manifest::{Collection, CollectionKind};
use crate::sink::first_copy::{CopiedCollection, FirstCopy};
use crate::sink::synced::{Synced, SyncedCollection};
use crate::sink::{Standing, evolve, lease, leftovers};

/// What became of a copy that was begun.
pub(super) enum Resumed {
    /// It goes on.
    Copy(FirstCopy),
    /// It was published already.
    Published(Box<Synced>),
    /// It cannot go on, for this reason.
    Lost(String),
}

impl Direct<'_> {
    /// Finds what is left of a copy that was begun.
    ///
    /// # Errors
    /// Server errors; those of the archive.
    pub(super) async fn resume(&self, mut copy: FirstCopy) -> Result<Resumed> {
        let copier = self.copier;
        let target = copier.target;
        let places = copy.databases();
        if self.copier.is_publishing() {
            // What was decided is published, before anything else is done.
            let recorded = SyncedCollection::all(target).await?;
            let databases: BTreeSet<&String> = places.iter().chain(recorded.iter().map(|one| &one.to.database)).collect();
            for database in databases {
                leftovers::clear(target, database, lease::EXPIRY).await?;
            }
            if self.is_published(&copy, &recorded).await? {
                let begun =
                    Synced { at: self.copier.synced.at, open_from: self.copier.synced.open_from, ..self.copier.begun.clone() };
                let synced = self.copier.record(recorded, begun).await?;
                self.sweep(&copy).await?;
                return Ok(Resumed::Published(Box::new(synced)));
            }
        }
        let (found, at) = self.copier.tip().await?;
        if let Err(e) = found.run(copy.from.time, at.time) {
            return Ok(Resumed::Lost(e.to_string()));
        }
        // What is not there any more is copied again. So is what has an order of its own, unless
        // all of it is there as it was read.
        let mut standing = HashMap::new();
        for database in &places {
            standing.insert(database.clone(), Standing::of(target, database).await?);
        }
        let is_there = |one: &CopiedCollection| {
            let Some((place, uuid)) = &one.staged else { return true };
            let data = if one.source.kind == CollectionKind::TimeSeries { place.buckets() } else { place.clone() };
            let found = standing.get(&place.database).and_then(|standing| standing.by_uuid(*uuid));
            let is_whole = one.source.uuid.is_some_and(|source| copy.ranges_of(source).count() == one.ranges.len());
            found.is_some_and(|found| found.name == data.collection) && (!is_capped(&one.source) || (is_whole && !one.is_proven))
        };
        let gone: HashSet<Option<Uuid>> =
            copy.collections.iter().filter(|one| !is_there(one)).map(|one| one.source.uuid).collect();
        self.stage(copy.collections.iter_mut().filter(|one| gone.contains(&one.source.uuid))).await?;
        copy.ranges.retain(|range| !gone.contains(&Some(range.of)));
        for one in copy.collections.iter().filter(|one| gone.contains(&one.source.uuid)) {
            one.begin_again(target).await?;
        }
        copier.cx.progress.note(format!(
            "the first copy goes on: {} of {} parts are there",
            copy.ranges.len(),
            copy.collections.iter().map(|one| one.ranges.len()).sum::<usize>()
        ));
        Ok(Resumed::Copy(copy))
    }

    /// Whether everything that was staged is under its final name.
    async fn is_published(&self, copy: &FirstCopy, recorded: &[SyncedCollection]) -> Result<bool> {
        let target = self.copier.target;
        let staged: HashMap<Uuid, Uuid> =
            copy.collections.iter().filter_map(|one| Some((one.source.uuid?, one.staged.as_ref()?.1))).collect();
        let mut count = 0;
        for one in recorded {
            let Some(before) = one.source.uuid.and_then(|uuid| staged.get(&uuid)) else { continue };
            let now = evolve::identity(target, &one.to, one.source.kind).await?;
            let is_it = match one.source.kind {
                // Its buckets are copied.
                CollectionKind::TimeSeries => now.is_some() && !self.stands(copy, one.source.uuid).await?,
                _ => now == Some(*before),
            };
            if !is_it {
                return Ok(false);
            }
            count += 1;
        }
        Ok(count > 0)
    }

    /// Whether the staging of a collection still exists.
    async fn stands(&self, copy: &FirstCopy, source: Option<Uuid>) -> Result<bool> {
        let one = copy.collections.iter().find(|one| one.source.uuid == source);
        let Some((place, _)) = one.and_then(|one| one.staged.as_ref()) else { return Ok(false) };
        Ok(evolve::identity(self.copier.target, place, CollectionKind::TimeSeries).await?.is_some())
    }
}

fn is_capped(collection: &Collection) -> bool {
    collection.options.bson.get_bool("capped").unwrap_or(false)
}
