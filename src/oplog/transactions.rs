//! Which transactions of a slice are committed, told from the chains of their entries.

use std::collections::{HashMap, HashSet};

use super::{Entry, Step};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::ClusterTime;

/// What of a slice counts: entries after the listing, and of transactions those parts whose transaction was committed after the listing
/// and within the slice.
///
/// A part counts where it stands, which may be before its transaction's commit, and even before the listing. For the documents this comes to the same as
/// counting it at the commit: from the moment at which a transaction writes to a document until it ends, nothing else can write to that document, so no
/// entry about it stands between the part and the commit. Nothing has to be kept until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    listed_at: ClusterTime,
    parts: HashSet<ClusterTime>,
}

impl Committed {
    /// Whether the operations of this entry are to be applied.
    #[must_use]
    pub fn counts(&self, entry: &Entry<'_>) -> bool {
        match &entry.part {
            None => entry.time > self.listed_at,
            Some(part) if part.step == Step::LastOperations && is_first(part.previous) => entry.time > self.listed_at,
            Some(_) => self.parts.contains(&entry.time),
        }
    }
}

/// Follows the chains of the transactions of a slice. Keeps `T`s of their parts until they are committed.
#[derive(Debug)]
pub struct Transactions<T> {
    open: HashMap<(Vec<u8>, i64), Chain<T>>,
    committed: Committed,
}

#[derive(Debug)]
struct Chain<T> {
    last: ClusterTime,
    parts: Vec<ClusterTime>,
    kept: Vec<T>,
}

impl<T> Transactions<T> {
    /// For a slice whose collections were listed at this time.
    #[must_use]
    pub fn new(listed_at: ClusterTime) -> Self {
        Self { open: HashMap::new(), committed: Committed { listed_at, parts: HashSet::new() } }
    }

    /// Takes the next entry and what is to be kept of it. Gives what is kept of all parts of the transaction that it commits after the
    /// listing.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] where the slice lacks a part of a transaction that counts.
    pub fn take(&mut self, entry: &Entry<'_>, keep: Vec<T>) -> Result<Vec<T>> {
        let Some(part) = &entry.part else { return Ok(keep) };
        let key = (part.session.to_vec(), part.number);
        let counts = entry.time > self.committed.listed_at;
        if is_first(part.previous) {
            // An earlier attempt under the same number has come to nothing.
            self.open.remove(&key);
            if part.step == Step::LastOperations {
                return Ok(if counts { keep } else { Vec::new() });
            }
        }
        if part.step == Step::Abort {
            self.open.remove(&key);
            return Ok(Vec::new());
        }
        let known = self.open.remove(&key).filter(|chain| chain.last == part.previous);
        let mut chain = match known {
            Some(chain) => chain,
            None if is_first(part.previous) => Chain { last: entry.time, parts: Vec::new(), kept: Vec::new() },
            // Begun before the slice: of no account where it was also committed before the listing.
            None if matches!(part.step, Step::Operations) || !counts => return Ok(Vec::new()),
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
        match part.step {
            Step::Operations => {
                self.open.insert(key, chain);
                Ok(Vec::new())
            }
            _ if counts => {
                self.committed.parts.extend(chain.parts);
                Ok(chain.kept)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// What counts, once every entry was taken.
    #[must_use]
    pub fn finish(self) -> Committed {
        self.committed
    }
}

fn is_first(previous: ClusterTime) -> bool {
    previous.t == 0
}
