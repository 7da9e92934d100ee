//! A position in an oplog, which also shows whether the history up to there is still the same.

use super::Head;
use crate::error::Result;
use crate::format::digest::{Content, ContentDigest};
use crate::format::manifest::{ClusterTime, OplogPosition};

/// A place in an oplog: at an entry, or where to look for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The entry's `ts`, which is unique.
    pub time: ClusterTime,
    /// What is known about the entry there.
    pub entry: Known,
}

/// What is known about the entry at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// None was seen there, and none need exist.
    Nothing,
    /// It was seen.
    Seen,
    /// It is this one. A source that was restored to an older state may use a time again, for
    /// another entry.
    Content {
        /// Its `t`: the term of the primary that wrote it.
        term: Option<i64>,
        /// The digest of the whole entry.
        digest: ContentDigest,
    },
}

impl Position {
    /// Before the first entry of this time or later.
    #[must_use]
    pub fn before(time: ClusterTime) -> Self {
        Self { time, entry: Known::Nothing }
    }

    /// At an entry of this time about which nothing else is known.
    #[must_use]
    pub fn at(time: ClusterTime) -> Self {
        Self { time, entry: Known::Seen }
    }

    /// At this entry.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if it is not one.
    pub fn of(entry: &[u8]) -> Result<Self> {
        let head = Head::of(entry)?;
        let mut content = Content::default();
        content.add(entry);
        Ok(Self { time: head.time, entry: Known::Content { term: head.term, digest: content.digest() } })
    }

    /// Whether an entry was seen there.
    #[must_use]
    pub fn has_entry(&self) -> bool {
        self.entry != Known::Nothing
    }

    /// Whether both can belong to one history: not if they are different entries of one time.
    #[must_use]
    pub fn agrees(&self, other: &Self) -> bool {
        let are_known = [self, other].iter().all(|p| matches!(p.entry, Known::Content { .. }));
        self.time != other.time || !are_known || self.entry == other.entry
    }
}

impl From<OplogPosition> for Position {
    fn from(OplogPosition { time, term, digest }: OplogPosition) -> Self {
        Self { time, entry: digest.map_or(Known::Nothing, |digest| Known::Content { term, digest }) }
    }
}

impl From<Position> for OplogPosition {
    fn from(Position { time, entry }: Position) -> Self {
        match entry {
            Known::Content { term, digest } => Self { time, term, digest: Some(digest) },
            Known::Nothing | Known::Seen => Self { time, term: None, digest: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, Timestamp, rawdoc};

    use super::*;

    fn entry(second: u32, term: i64, n: i32) -> RawDocumentBuf {
        rawdoc! { "op": "i", "ns": "d.c", "o": { "_id": n }, "ts": Timestamp { time: second, increment: 1 }, "t": term }
    }

    #[test]
    fn another_entry_of_the_same_time_is_of_another_history() {
        let of = |second, term, n| Position::of(entry(second, term, n).as_bytes()).unwrap();
        assert!(of(7, 1, 1).agrees(&of(7, 1, 1)) && of(7, 1, 1).agrees(&of(8, 1, 2)));
        assert!(!of(7, 1, 1).agrees(&of(7, 1, 2)) && !of(7, 1, 1).agrees(&of(7, 2, 1)));
    }

    #[test]
    fn of_what_is_not_known_nothing_is_said() {
        let known = Position::of(entry(7, 1, 1).as_bytes()).unwrap();
        for unknown in [Position::before(known.time), Position::at(known.time)] {
            assert!(known.agrees(&unknown) && unknown.agrees(&known));
        }
        assert!(known.has_entry() && Position::at(known.time).has_entry() && !Position::before(known.time).has_entry());
        assert!(Position::of(b"").is_err());
    }

    #[test]
    fn what_is_known_of_an_entry_is_stored_with_its_position() {
        let known = Position::of(entry(7, 3, 1).as_bytes()).unwrap();
        let stored = OplogPosition::from(known);
        assert!(stored.time == known.time && stored.term == Some(3) && stored.digest.is_some(), "{stored:?}");
        let without_a_term = rawdoc! { "op": "n", "ns": "", "o": {}, "ts": Timestamp { time: 7, increment: 1 } };
        for position in [known, Position::of(without_a_term.as_bytes()).unwrap(), Position::before(known.time)] {
            assert_eq!(Position::from(OplogPosition::from(position)), position);
        }
        assert_eq!(OplogPosition::from(Position::at(known.time)), OplogPosition { term: None, digest: None, ..stored });
    }
}
