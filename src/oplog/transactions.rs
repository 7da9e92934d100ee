//! Decides which operations count, and from which entry on: a fold over the entries that need not
//! know later ones.

use std::collections::{HashMap, HashSet};

use super::{Entry, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::ClusterTime;

/// Follows the transactions of an oplog. Keeps `T`s of their parts until they are committed, within
/// a bound if there is one.
///
/// Entries after a time count (that of a listing, if data were read from then on). Of transactions,
/// those parts count whose transaction was committed after it.
#[derive(Debug)]
pub struct Transactions<T> {
    since: ClusterTime,
    /// The transaction of each session: it has one at a time, with ascending numbers.
    open: HashMap<Vec<u8>, Chain<T>>,
    bound: Option<Bound<T>>,
}

/// How much is kept of all open transactions together.
#[derive(Debug)]
struct Bound<T> {
    most: usize,
    size: fn(&T) -> usize,
    /// Now.
    kept: usize,
}

#[derive(Debug)]
struct Chain<T> {
    number: i64,
    last: ClusterTime,
    parts: Vec<ClusterTime>,
    kept: Vec<T>,
    /// The size of what is kept.
    size: usize,
    /// Whether it was too much: nothing is kept of it, and nothing will be.
    is_forgotten: bool,
}

/// What starts to count with an entry: everything that it commits.
#[derive(Debug, PartialEq, Eq)]
pub struct Effect<T> {
    /// What was kept of it and of all earlier parts of its transaction, in order.
    pub kept: Vec<T>,
    /// The times of these parts; empty for an entry that needs no others.
    pub parts: Vec<ClusterTime>,
    /// Whether more was to be kept of it than the bound allows: then nothing was.
    pub is_forgotten: bool,
}

impl<T> Effect<T> {
    fn of_one(kept: Vec<T>) -> Self {
        Self { kept, parts: Vec::new(), is_forgotten: false }
    }

    fn none() -> Self {
        Self::of_one(Vec::new())
    }
}

impl<T> Transactions<T> {
    /// A new one; nothing up to this time counts.
    #[must_use]
    pub fn new(since: ClusterTime) -> Self {
        Self { since, open: HashMap::new(), bound: None }
    }

    /// The same, which keeps at most so much of all open transactions together. If there is more,
    /// the largest ones are forgotten, but for the times of their parts.
    #[must_use]
    pub fn within(since: ClusterTime, most: usize, size: fn(&T) -> usize) -> Self {
        Self { bound: Some(Bound { most, size, kept: 0 }), ..Self::new(since) }
    }

    /// Takes the next entry and what to keep of it, and returns what starts to count with it.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if a part of a transaction that counts is missing.
    pub fn take(&mut self, entry: &Entry<'_>, keep: Vec<T>) -> Result<Effect<T>> {
        let counts = self.counts(entry);
        let Some(part) = &entry.part else { return Ok(if counts { Effect::of_one(keep) } else { Effect::none() }) };
        // A later transaction of a session, or a new attempt under the same number, shows that the
        // previous one was aborted.
        let before = self.close(part.session);
        if is_first(part.previous) && part.step == Step::LastOperations {
            return Ok(if counts { Effect::of_one(keep) } else { Effect::none() });
        }
        if part.step == Step::Abort {
            return Ok(Effect::none());
        }
        let mut chain = match before.filter(|chain| chain.number == part.number && chain.last == part.previous) {
            Some(chain) => chain,
            None if is_first(part.previous) => {
                let (parts, kept) = (Vec::new(), Vec::new());
                Chain { number: part.number, last: entry.time, parts, kept, size: 0, is_forgotten: false }
            }
            // Begun before the first entry: irrelevant if it was also committed before the time.
            None if part.step == Step::Operations || !counts => return Ok(Effect::none()),
            None => {
                return Err(Error::new(
                    ErrorKind::Damaged,
                    format!(
                        "the oplog slice lacks a part of the transaction that was committed at {}: the one at {}",
                        entry.time, part.previous
                    ),
                )
                .hint("take a new backup"));
            }
        };
        chain.last = entry.time;
        if !chain.is_forgotten {
            chain.size += self.bound.as_ref().map_or(0, |bound| keep.iter().map(bound.size).sum());
            chain.kept.extend(keep);
        }
        if part.step != Step::Commit {
            chain.parts.push(entry.time);
        }
        if part.step == Step::Operations {
            self.keep(part.session, chain);
            return Ok(Effect::none());
        }
        let Chain { parts, kept, is_forgotten, .. } = chain;
        Ok(if counts { Effect { kept, parts, is_forgotten } } else { Effect::none() })
    }

    fn close(&mut self, session: &[u8]) -> Option<Chain<T>> {
        let chain = self.open.remove(session)?;
        if let Some(bound) = &mut self.bound {
            bound.kept -= chain.size;
        }
        Some(chain)
    }

    /// Keeps an open transaction, and forgets the largest ones if that is too much.
    fn keep(&mut self, session: &[u8], chain: Chain<T>) {
        let size = chain.size;
        self.open.insert(session.to_vec(), chain);
        let Some(bound) = &mut self.bound else { return };
        bound.kept += size;
        while bound.kept > bound.most {
            let Some(largest) = self.open.values_mut().max_by_key(|chain| chain.size) else { return };
            bound.kept -= largest.size;
            (largest.kept, largest.size, largest.is_forgotten) = (Vec::new(), 0, true);
        }
    }

    /// Whether an entry counts that needs no others.
    #[must_use]
    pub fn counts(&self, entry: &Entry<'_>) -> bool {
        entry.time > self.since
    }

    /// The first part of the oldest open transaction: a later reader must begin there.
    #[must_use]
    pub fn open_from(&self) -> Option<ClusterTime> {
        self.open.values().filter_map(|chain| chain.parts.first()).min().copied()
    }
}

/// Which entries count, if all were read before: then nothing need be kept until a commit.
///
/// A part counts at its own position, which may be before its transaction's commit, and even before
/// the time from which entries count. For documents, the result is the same as at the commit: from
/// the moment when a transaction writes to a document until it ends, nothing else can write to that
/// document. So there is no entry about it between the part and the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    since: ClusterTime,
    parts: HashSet<ClusterTime>,
}

impl Committed {
    /// Before any commit; nothing up to this time counts.
    #[must_use]
    pub fn new(since: ClusterTime) -> Self {
        Self { since, parts: HashSet::new() }
    }

    /// Adds the parts of a committed transaction: [`Effect::parts`].
    pub fn add(&mut self, parts: impl IntoIterator<Item = ClusterTime>) {
        self.parts.extend(parts);
    }

    /// Whether to apply the operations of this entry.
    #[must_use]
    pub fn counts(&self, entry: &Entry<'_>) -> bool {
        match &entry.part {
            None => entry.time > self.since,
            Some(part) if part.step == Step::LastOperations && is_first(part.previous) => entry.time > self.since,
            Some(_) => self.parts.contains(&entry.time),
        }
    }
}

fn is_first(previous: ClusterTime) -> bool {
    previous.t == 0
}
