//! Gathers entries until they are applied as one, and tells which ones change the catalog: pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::batch::Batch;
use super::destination::{Destination, Holds, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Documents;
use crate::format::manifest::{ClusterTime, OplogPosition};
use crate::names::{BUCKETS_PREFIX, Namespace, SYSTEM_DATABASES};
use crate::oplog::catalog::CatalogTracker;
use crate::oplog::{Committed, Entry, Head, Operation, OperationKind, Position, Transactions};

/// Says whether the documents of a namespace must be followed.
pub type IsWanted = Box<dyn Fn(&Namespace) -> bool + Send + Sync>;

/// Gathers entries.
pub struct Gatherer {
    transactions: Transactions<Vec<u8>>,
    places: HashMap<Uuid, Shared>,
    is_wanted: IsWanted,
    gathered: Gathered,
    /// Whether entries are applied one by one if that is possible.
    hurries: bool,
    /// An entry that changes the catalog, until that is done.
    changing: Option<Arrived>,
}

impl std::fmt::Debug for Gatherer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gatherer").field("gathered", &self.gathered).finish_non_exhaustive()
    }
}

/// What was gathered.
#[derive(Debug, Default)]
pub struct Gathered {
    /// What becomes of documents whose order does not matter.
    pub batch: Batch,
    /// The entries themselves, whole documents, with the parts of transactions that they commit.
    pub entries: Vec<u8>,
    /// The parts of transactions among them.
    pub parts: Vec<ClusterTime>,
    /// Whether documents that a transaction could write are among those applied one by one.
    pub hurried: bool,
    /// Collections that transactions cannot write to, so that entries are applied to them one by
    /// one: capped ones, buckets, and those of the system.
    pub in_order: HashSet<Uuid>,
    /// The last entry.
    pub to: Option<OplogPosition>,
}

impl Gathered {
    /// Whether no document changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.in_order.is_empty()
    }

    /// Which of its entries count, for an applier of entries: all.
    #[must_use]
    pub fn committed(&self) -> Committed {
        let mut committed = Committed::new(ClusterTime { t: 0, i: 0 });
        committed.add(self.parts.iter().copied());
        committed
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
    /// The next entry changes the catalog: see [`Gatherer::changing`].
    Changes,
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
    pub created: HashSet<Uuid>,
    /// Whether collections, views or indexes change with it.
    changes_catalog: bool,
    /// Whether the entry counts by itself.
    counts: bool,
    /// The parts of a transaction that it commits, itself included.
    committed: Vec<Vec<u8>>,
}

impl Gatherer {
    /// Begins after `since`: what was committed up to then is applied already.
    #[must_use]
    pub fn new(since: ClusterTime, is_wanted: IsWanted) -> Self {
        Self {
            transactions: Transactions::new(since),
            places: HashMap::new(),
            is_wanted,
            gathered: Gathered::default(),
            hurries: false,
            changing: None,
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
        self.transactions.open_from()
    }

    /// The entry that changes the catalog, at which gathering stopped.
    #[must_use]
    pub fn changing(&mut self) -> Option<Arrived> {
        self.changing.take()
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
            let (arrived, is_part) = self.arrive(entry)?;
            if arrived.changes_catalog {
                self.changing = Some(arrived);
                return Ok(Stop::Changes);
            }
            if is_part {
                tracker.take(entry)?;
            }
            self.add(&arrived)?;
            let is_full = self.gathered.batch.documents() >= limits.documents || self.gathered.entries.len() >= limits.bytes;
            if is_full && limits.not_before.is_none_or(|not_before| time >= not_before) {
                return Ok(Stop::Full);
            }
        }
        Ok(Stop::End)
    }

    /// Takes the next entry, and tells whether it is a part of a transaction.
    fn arrive(&mut self, bytes: &[u8]) -> Result<(Arrived, bool)> {
        let entry = Entry::parse(bytes)?;
        let (mut counts, mut committed) = (false, Vec::new());
        match entry.part {
            Some(_) => committed = self.transactions.take(&entry, vec![bytes.to_vec()])?.kept,
            None => counts = self.transactions.counts(&entry),
        }
        let mut arrived = Arrived {
            entry: bytes.to_vec(),
            position: Position::of(bytes)?.into(),
            changes_catalog: false,
            created: HashSet::new(),
            counts,
            committed,
        };
        if entry.operation.kind == OperationKind::Command || changes_catalog(&entry.operation)? {
            let (mut changes, mut created) = (false, HashSet::new());
            arrived.each(&mut |operation| {
                changes |= changes_catalog(operation)?;
                if operation.kind == OperationKind::Command && operation.command()? == "create" {
                    created.extend(operation.collection);
                }
                Ok(())
            })?;
            (arrived.changes_catalog, arrived.created) = (changes, created);
        }
        Ok((arrived, entry.part.is_some()))
    }

    /// Adds what the entry does to documents.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if it writes to a collection that should be followed and is not
    /// known; [`ErrorKind::Damaged`].
    pub fn add(&mut self, arrived: &Arrived) -> Result<()> {
        let Self { places, gathered, is_wanted, hurries, .. } = self;
        let mut concerns = false;
        arrived.each(&mut |operation| {
            if matches!(operation.kind, OperationKind::Nothing) || changes_catalog(operation)? {
                return Ok(());
            }
            let place = operation.collection.and_then(|uuid| Some((uuid, places.get(&uuid)?)));
            let Some((uuid, place)) = place else { return refuse_unknown(operation, is_wanted) };
            concerns = true;
            match place.holds {
                Holds::Documents if !place.is_of_the_system() && (!*hurries || place.unique) => {
                    gathered.batch.add(uuid, place, operation)
                }
                _ => {
                    gathered.hurried |= *hurries;
                    gathered.in_order.insert(uuid);
                    Ok(())
                }
            }
        })?;
        if concerns {
            for bytes in arrived.effect() {
                gathered.entries.extend_from_slice(bytes);
                if !arrived.counts {
                    gathered.parts.push(Entry::parse(bytes)?.time);
                }
            }
        }
        gathered.to = Some(arrived.position);
        Ok(())
    }
}

impl Arrived {
    /// The entries that count with it.
    fn effect(&self) -> impl Iterator<Item = &[u8]> {
        let own = self.counts.then_some(self.entry.as_slice());
        own.into_iter().chain(self.committed.iter().map(Vec::as_slice))
    }

    /// Each operation that counts with it, in order.
    fn each(&self, visit: &mut dyn FnMut(&Operation<'_>) -> Result<()>) -> Result<()> {
        for bytes in self.effect() {
            Entry::parse(bytes)?.each(&mut |operation| visit(&operation))?;
        }
        Ok(())
    }
}

/// Whether an operation changes collections, views or indexes.
fn changes_catalog(operation: &Operation<'_>) -> Result<bool> {
    Ok(match operation.kind {
        OperationKind::Nothing => false,
        OperationKind::Command => !matches!(operation.command()?, "emptycapped" | "commitTransaction" | "abortTransaction"),
        _ => operation.namespace.ends_with(".system.views"),
    })
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
