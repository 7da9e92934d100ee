//! Decides which operations count, and from which entry on: a fold over the entries that need not
//! know later ones.

use std::collections::{HashMap, HashSet};

use super::{Entry, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::ClusterTime;

/// Follows the transactions of an oplog. Keeps `T`s of their parts until they are committed.
///
/// Entries after a time count (that of a listing, if data were read from then on). Of transactions,
/// those parts count whose transaction was committed after it.
#[derive(Debug)]
pub struct Transactions<T> {
    since: ClusterTime,
    /// The transaction of each session: it has one at a time, with ascending numbers.
    open: HashMap<Vec<u8>, Chain<T>>,
}

#[derive(Debug)]
struct Chain<T> {
    number: i64,
    last: ClusterTime,
    parts: Vec<ClusterTime>,
    kept: Vec<T>,
}

/// What starts to count with an entry: everything that it commits.
#[derive(Debug, PartialEq, Eq)]
pub struct Effect<T> {
    /// What was kept of it and of all earlier parts of its transaction, in order.
    pub kept: Vec<T>,
    /// The times of these parts; empty for an entry that needs no others.
    pub parts: Vec<ClusterTime>,
}

impl<T> Effect<T> {
    fn of_one(kept: Vec<T>) -> Self {
        Self { kept, parts: Vec::new() }
    }

    fn none() -> Self {
        Self::of_one(Vec::new())
    }
}

impl<T> Transactions<T> {
    /// A new one; nothing up to this time counts.
    #[must_use]
    pub fn new(since: ClusterTime) -> Self {
        Self { since, open: HashMap::new() }
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
        let before = self.open.remove(part.session);
        if is_first(part.previous) && part.step == Step::LastOperations {
            return Ok(if counts { Effect::of_one(keep) } else { Effect::none() });
        }
        if part.step == Step::Abort {
            return Ok(Effect::none());
        }
        let mut chain = match before.filter(|chain| chain.number == part.number && chain.last == part.previous) {
            Some(chain) => chain,
            None if is_first(part.previous) => {
                Chain { number: part.number, last: entry.time, parts: Vec::new(), kept: Vec::new() }
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
        chain.kept.extend(keep);
        if part.step != Step::Commit {
            chain.parts.push(entry.time);
        }
        if part.step == Step::Operations {
            self.open.insert(part.session.to_vec(), chain);
            return Ok(Effect::none());
        }
        Ok(if counts { Effect { kept: chain.kept, parts: chain.parts } } else { Effect::none() })
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
