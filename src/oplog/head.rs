//! The head of an oplog entry: what keeping and proving a slice needs to know (`src/mongo/db/repl/oplog_entry.idl` of mongodb/mongo).

use crate::error::{Error, Result};
use crate::format::document::{Element, Elements};
use crate::format::kind;
use crate::format::manifest::ClusterTime;

/// The head of one entry, its parts as they stand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// `ts`: when it was written; no two entries have the same.
    pub time: ClusterTime,
    /// `op`: `i`, `u`, `d`, `c`, `n`, or what later servers add.
    pub operation: &'a [u8],
    /// `ns`: the namespace; of a command `DATABASE.$cmd`.
    pub namespace: &'a [u8],
    /// `o`: the document of what was done; empty where there is none.
    object: &'a [u8],
}

impl<'a> Head<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) where it is no document, or has no `ts` or `op`.
    pub fn of(document: &'a [u8]) -> Result<Self> {
        let (mut time, mut operation, mut namespace, mut object) = (None, None, &[][..], &[][..]);
        for element in Elements::of(document)? {
            let Element { kind, name, value } = element?;
            match (name, kind) {
                (b"ts", kind::TIMESTAMP) => time = timestamp(value),
                (b"op", 0x02) => operation = text(value),
                (b"ns", 0x02) => namespace = text(value).unwrap_or_default(),
                (b"o", 0x03) => object = value,
                _ => {}
            }
        }
        match (time, operation) {
            (Some(time), Some(operation)) => Ok(Self { time, operation, namespace, object }),
            _ => Err(Error::damaged("an oplog entry has no `ts` or no `op`")),
        }
    }

    /// The database it is about, without the collection.
    #[must_use]
    pub fn database(&self) -> &'a [u8] {
        let dot = self.namespace.iter().position(|b| *b == b'.').unwrap_or(self.namespace.len());
        &self.namespace[..dot]
    }

    /// The command of an entry of `op: "c"`: the name of the first field of `o`.
    #[must_use]
    pub fn command(&self) -> Option<&'a [u8]> {
        let is_command = self.operation == b"c";
        is_command.then(|| Elements::of(self.object).ok()?.next()?.ok().map(|first| first.name)).flatten()
    }

    /// Whether it is part of a transaction's way, or a batch of operations of its own: those may be on any namespace.
    #[must_use]
    pub fn is_grouped(&self) -> bool {
        matches!(self.command(), Some(b"applyOps" | b"commitTransaction" | b"abortTransaction"))
    }
}

/// A timestamp's value: the ordinal, then the seconds, little-endian.
fn timestamp(value: &[u8]) -> Option<ClusterTime> {
    let half = |at: usize| Some(u32::from_le_bytes(value.get(at..at + 4)?.try_into().ok()?));
    Some(ClusterTime { t: half(4)?, i: half(0)? })
}

/// A string's value without its length and its NUL.
fn text(value: &[u8]) -> Option<&[u8]> {
    value.get(4..value.len().checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use bson::{Timestamp, rawdoc};

    use super::*;

    #[test]
    fn the_parts_of_an_entry_are_read_from_its_bytes() {
        let time = Timestamp { time: 1_795_383_900, increment: 7 };
        let insert = rawdoc! { "op": "i", "ns": "shop.a.b", "o": { "_id": 1 }, "ts": time };
        let entry = Head::of(insert.as_bytes()).unwrap();
        assert_eq!(entry.time, ClusterTime { t: 1_795_383_900, i: 7 });
        assert_eq!((entry.operation, entry.namespace, entry.database()), (&b"i"[..], &b"shop.a.b"[..], &b"shop"[..]));
        assert_eq!((entry.command(), entry.is_grouped()), (None, false));

        let commit = rawdoc! { "ts": time, "op": "c", "ns": "admin.$cmd", "o": { "commitTransaction": 1 } };
        assert!(Head::of(commit.as_bytes()).unwrap().is_grouped());
        let noop = rawdoc! { "ts": time, "op": "n", "ns": "", "o": {} };
        assert_eq!(Head::of(noop.as_bytes()).unwrap().database(), b"");
    }

    #[test]
    fn what_is_no_entry_is_an_error() {
        for document in [rawdoc! {}, rawdoc! { "ts": 5, "op": "i" }, rawdoc! { "ts": Timestamp { time: 1, increment: 1 } }] {
            assert!(Head::of(document.as_bytes()).unwrap_err().to_string().contains("has no `ts` or no `op`"));
        }
        assert!(Head::of(b"").is_err());
        let broken = rawdoc! { "ts": Timestamp { time: 1, increment: 1 }, "op": "c" }.into_bytes();
        assert_eq!(Head::of(&broken).unwrap().command(), None);
    }
}
