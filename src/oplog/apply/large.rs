//! A transaction of the source that is too large to be kept until its commit: its parts are read
//! again, in their order: pure.

use crate::error::{Error, Result};
use crate::format::manifest::ClusterTime;

/// Where the parts of such a transaction are, and which of them were taken.
#[derive(Debug)]
pub struct Large {
    /// In ascending order.
    parts: Vec<ClusterTime>,
    taken: usize,
}

impl Large {
    pub(super) fn new(parts: Vec<ClusterTime>) -> Self {
        Self { parts, taken: 0 }
    }

    /// Everything up to this part counts as taken, if it is one of them.
    pub fn go_on_after(&mut self, part: ClusterTime) {
        if let Ok(at) = self.parts.binary_search(&part) {
            self.taken = at + 1;
        }
    }

    /// The last part that was taken.
    #[must_use]
    pub fn last(&self) -> Option<ClusterTime> {
        self.taken.checked_sub(1).map(|last| self.parts[last])
    }

    /// From where to where the parts are that were not taken; `None` if all were.
    #[must_use]
    pub fn left(&self) -> Option<(ClusterTime, ClusterTime)> {
        Some((*self.parts.get(self.taken)?, *self.parts.last()?))
    }

    /// Whether the entry of this time is the next part.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if that is missing.
    pub(super) fn is_next(&self, time: ClusterTime) -> Result<bool> {
        match self.parts.get(self.taken) {
            Some(next) if *next < time => Err(missing(*next)),
            next => Ok(next == Some(&time)),
        }
    }

    pub(super) fn take(&mut self) {
        self.taken += 1;
    }

    /// Whether all parts were taken, once there are no more entries.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if they were not.
    pub fn prove_taken(&self) -> Result<()> {
        self.left().map_or(Ok(()), |(next, _)| Err(missing(next)))
    }
}

fn missing(part: ClusterTime) -> Error {
    Error::damaged(format!("the archive of the oplog had a part of a transaction at {part}, and has it no more"))
        .hint("`bsonvault verify` names what is wrong with it")
}
