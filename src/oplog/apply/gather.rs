//! Gathers entries until they are applied as one, and tells which ones change the catalog: pure.

use std::sync::Arc;

use uuid::Uuid;

use super::destination::Destination;
use super::gathered::Places;
pub use super::gathered::{End, Gathered, Pieces};
pub use super::large::Large;
use super::open::{Counts, Created, Open, changes_catalog};
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Documents;
use crate::format::manifest::{ClusterTime, OplogPosition};
use crate::names::{BUCKETS_PREFIX, Namespace, SYSTEM_DATABASES};
use crate::oplog::catalog::CatalogTracker;
use crate::oplog::{Entry, Head, Operation, OperationKind, Position};

/// Says whether the documents of a namespace must be followed.
pub type IsWanted = Box<dyn Fn(&Namespace) -> bool + Send + Sync>;

/// Gathers entries.
pub struct Gatherer {
    open: Open,
    places: Places,
    is_wanted: IsWanted,
    gathered: Gathered,
    /// Whether entries are applied one by one if that is possible.
    hurries: bool,
    /// An entry that is not added like others, until that is done.
    arrived: Option<Arrived>,
}

impl std::fmt::Debug for Gatherer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gatherer").field("gathered", &self.gathered).finish_non_exhaustive()
    }
}

/// When to stop gathering.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most documents that change.
    pub documents: usize,
    /// The most bytes of entries.
    pub bytes: usize,
    /// It is never full before this entry.
    pub not_before: Option<ClusterTime>,
    /// Later entries are not taken yet.
    pub upto: Option<ClusterTime>,
}

/// Why gathering stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// There are no more entries.
    End,
    /// Enough is gathered.
    Full,
    /// The next entry changes the catalog: see [`Gatherer::arrived`].
    Changes,
    /// The next entry commits a transaction that is too large to be kept: see
    /// [`Gatherer::arrived`].
    Large,
    /// The next entry must not be taken yet.
    Later,
}

/// An entry that arrived, and what counts with it.
#[derive(Debug)]
pub struct Arrived {
    /// The entry.
    pub entry: Vec<u8>,
    /// Where it is.
    pub position: OplogPosition,
    /// The UUIDs of collections that it creates.
    pub created: Created,
    counts: Counts,
}

impl Gatherer {
    /// Begins after `since`: what was committed up to then is applied already. Keeps at most so
    /// many bytes of open transactions together.
    #[must_use]
    pub fn new(since: ClusterTime, most: usize, is_wanted: IsWanted) -> Self {
        Self {
            open: Open::new(since, most),
            places: Places::new(),
            is_wanted,
            gathered: Gathered::default(),
            hurries: false,
            arrived: None,
        }
    }

    /// From the next entry on, entries are applied one by one, which is faster, if their order
    /// among different documents does not matter.
    pub fn hurry(&mut self, hurries: bool) {
        self.hurries = hurries;
    }

    /// From the next entry on, the documents of this source collection are at this destination.
    pub fn direct(&mut self, collection: Uuid, to: Destination) {
        self.places.insert(collection, Arc::new(to));
    }

    /// From the next entry on, entries about this source collection are skipped.
    pub fn pass_over(&mut self, collection: Uuid) {
        self.places.remove(&collection);
    }

    /// Where the documents of these source collections are.
    pub fn places(&self) -> impl Iterator<Item = (Uuid, &Destination)> {
        self.places.iter().map(|(uuid, place)| (*uuid, &**place))
    }

    /// What was gathered so far.
    #[must_use]
    pub fn gathered(&self) -> &Gathered {
        &self.gathered
    }

    /// Takes what was gathered so far.
    pub fn take(&mut self) -> Gathered {
        std::mem::take(&mut self.gathered)
    }

    /// The first part of the oldest transaction that is open after the last entry.
    #[must_use]
    pub fn open_from(&self) -> Option<ClusterTime> {
        self.open.from()
    }

    /// The entry at which gathering stopped.
    #[must_use]
    pub fn arrived(&mut self) -> Option<Arrived> {
        self.arrived.take()
    }

    /// What was taken, to be gathered again in pieces.
    #[must_use]
    pub fn pieces(&self, taken: &mut Gathered) -> Pieces {
        Pieces::new(taken, self.places.clone())
    }

    /// Gathers the entries of a frame from the offset `at` on, which is moved behind what was
    /// taken. `tracker` follows them.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for what cannot be followed; [`ErrorKind::Damaged`] if something is
    /// no entry, or a part of a transaction is missing.
    pub fn gather(&mut self, tracker: &mut CatalogTracker<'_>, frame: &[u8], at: &mut usize, limits: Limits) -> Result<Stop> {
        let begin = *at;
        for entry in Documents::of(&frame[begin..]) {
            let entry = entry?;
            let time = Head::of(entry)?.time;
            if limits.upto.is_some_and(|upto| time > upto) {
                return Ok(Stop::Later);
            }
            *at += entry.len();
            let parsed = Entry::parse(entry)?;
            let (position, (counts, created)) = (Position::of(entry)?.into(), self.open.take(&parsed, entry)?);
            let stop = match counts {
                Counts::Large(_) => Some(Stop::Large),
                _ => created.is_some().then_some(Stop::Changes),
            };
            if let Some(stop) = stop {
                let created = created.unwrap_or_default();
                self.arrived = Some(Arrived { entry: entry.to_vec(), position, created, counts });
                return Ok(stop);
            }
            if parsed.part.is_some() {
                tracker.take(entry)?;
            }
            self.add_counted(entry, position, counts)?;
            let is_full = self.gathered.batch.documents() >= limits.documents || self.gathered.entries.len() >= limits.bytes;
            if is_full && limits.not_before.is_none_or(|not_before| time >= not_before) {
                return Ok(Stop::Full);
            }
        }
        Ok(Stop::End)
    }

    /// Gathers the parts of a transaction that is too large to be kept, from a frame that has them
    /// again, up to about so many bytes.
    ///
    /// # Errors
    /// As for [`gather`](Self::gather).
    pub fn gather_parts(&mut self, large: &mut Large, frame: &[u8], at: &mut usize, most: usize) -> Result<Stop> {
        let begin = *at;
        for entry in Documents::of(&frame[begin..]) {
            let entry = entry?;
            if large.is_next(Head::of(entry)?.time)? {
                let gathered = self.gathered.entries.len();
                if gathered > 0 && gathered + entry.len() > most {
                    return Ok(Stop::Full);
                }
                large.take();
                self.add_operations(entry, true)?;
                self.gathered.to = Some(Position::of(entry)?.into());
            }
            *at += entry.len();
            if self.gathered.entries.len() >= most {
                return Ok(Stop::Full);
            }
        }
        Ok(Stop::End)
    }

    /// Adds what the entry at which gathering stopped does to documents.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if it writes to a collection that should be followed and is not
    /// known; [`ErrorKind::Damaged`].
    pub fn add(&mut self, arrived: Arrived) -> Result<()> {
        self.add_counted(&arrived.entry, arrived.position, arrived.counts)
    }

    fn add_counted(&mut self, entry: &[u8], position: OplogPosition, counts: Counts) -> Result<()> {
        let before = self.gathered.entries.len();
        match counts {
            Counts::Nothing | Counts::Large(_) => {}
            Counts::Itself => self.add_operations(entry, false)?,
            Counts::Parts(parts) => {
                for part in parts {
                    self.add_operations(&part, true)?;
                }
            }
        }
        let (bytes, open_from) = (self.gathered.entries.len(), self.open.from());
        if bytes > before {
            self.gathered.ends.push(End { bytes, position, open_from });
        }
        (self.gathered.to, self.gathered.open_from) = (Some(position), open_from);
        Ok(())
    }

    /// Adds the operations of one entry, if it concerns anything that is followed.
    fn add_operations(&mut self, entry: &[u8], is_part: bool) -> Result<()> {
        let Self { places, gathered, is_wanted, hurries, .. } = self;
        let (parsed, mut concerns) = (Entry::parse(entry)?, false);
        parsed.each(&mut |operation| {
            if matches!(operation.kind, OperationKind::Nothing) || changes_catalog(&operation)? {
                return Ok(());
            }
            match gathered.add(&operation, places, *hurries)? {
                true => concerns = true,
                false => refuse_unknown(&operation, is_wanted)?,
            }
            Ok(())
        })?;
        if concerns {
            gathered.entries.extend_from_slice(entry);
            gathered.parts.extend(is_part.then_some(parsed.time));
        }
        Ok(())
    }
}

impl Arrived {
    /// The transaction that it commits, if that is too large to be kept.
    #[must_use]
    pub fn into_large(self) -> Option<Large> {
        match self.counts {
            Counts::Large(parts) => Some(Large::new(parts)),
            _ => None,
        }
    }
}

/// Nothing that should be in the target is skipped in silence.
fn refuse_unknown(operation: &Operation<'_>, is_wanted: &IsWanted) -> Result<()> {
    let Some(mut namespace) = operation.target() else { return Ok(()) };
    if let Some(series) = namespace.collection.strip_prefix(BUCKETS_PREFIX) {
        namespace.collection = series.to_owned();
    }
    let is_internal = SYSTEM_DATABASES.contains(&namespace.database.as_str())
        || (namespace.collection.starts_with("system.") && namespace.collection != "system.js");
    if operation.kind == OperationKind::Command || is_internal || !is_wanted(&namespace) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Refused, format!("a write to {namespace}, a collection that is not known to the sync")))
}

#[cfg(test)]
mod tests;
