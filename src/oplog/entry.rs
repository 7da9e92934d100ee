//! Reads oplog entries as servers write them into `local.oplog.rs`, from 4.4 on.
//!
//! An entry is one operation, or an `applyOps` with several: those of a transaction, or of a batch
//! that a client or the server combined. The bytes may be hostile: anything unexpected is an error.

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::format::document::{self, Element, Elements};
use crate::format::kind;
use crate::format::manifest::ClusterTime;
use crate::names::Namespace;

/// The maximum nesting depth of `applyOps`.
const MAX_DEPTH: usize = 10;

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// `ts`: its position in the order of all entries.
    pub time: ClusterTime,
    /// Its operation.
    pub operation: Operation<'a>,
    /// Its part in a transaction, if any.
    pub part: Option<Part<'a>>,
}

/// One operation: an entry's own, or one inside its `applyOps`.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// `op`.
    pub kind: OperationKind,
    /// `ns`: the namespace; `DATABASE.$cmd` for a command.
    pub namespace: &'a str,
    /// `ui`: the collection's UUID.
    pub collection: Option<Uuid>,
    /// `o`: the document, the change or the command.
    pub o: &'a [u8],
    /// `o2`: the document that an update changes.
    pub o2: Option<&'a [u8]>,
}

/// Kinds of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    /// `i`
    Insert,
    /// `u`
    Update,
    /// `d`
    Delete,
    /// `c`
    Command,
    /// `n`, and operations for the server itself (`km`, `ci`, `cd`, `cu`).
    Nothing,
}

/// An entry's part in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'a> {
    /// The session's ID, a document.
    pub session: &'a [u8],
    /// The transaction's number within its session.
    pub number: i64,
    /// The time of the part before this one; zero for the first.
    pub previous: ClusterTime,
    /// What it does.
    pub step: Step,
}

/// What a part of a transaction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Operations that count once the transaction is committed.
    Operations,
    /// The last operations of an unprepared transaction, which commit it.
    LastOperations,
    /// Commits a prepared transaction.
    Commit,
    /// Aborts the transaction.
    Abort,
}

impl<'a> Entry<'a> {
    /// Parses an entry.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged), saying what is missing or wrong.
    pub fn parse(entry: &'a [u8]) -> Result<Self> {
        let mut time = None;
        let (mut session, mut number, mut previous, mut several) = (None, None, ClusterTime { t: 0, i: 0 }, false);
        for element in Elements::of(entry)? {
            let element = element?;
            match element.name {
                b"ts" => time = Some(timestamp(element)?),
                b"lsid" => session = Some(sub_document(element)?),
                b"txnNumber" => number = integer(element),
                // 1 and 2: inserts and other operations combined in one entry without a
                // transaction.
                b"multiOpType" => several = integer(element).is_some_and(|n| n != 0),
                b"prevOpTime" if element.kind == kind::DOCUMENT => {
                    for inner in Elements::of(element.value)? {
                        let inner = inner?;
                        if inner.name == b"ts" {
                            previous = timestamp(inner)?;
                        }
                    }
                }
                _ => {}
            }
        }
        let time = time.ok_or_else(|| broken("has no ts"))?;
        let operation = Operation::parse(entry).map_err(|e| e.context(format!("at {time}")))?;
        let part = match (session, number) {
            (Some(session), Some(number)) if operation.kind == OperationKind::Command && !several => {
                operation.step()?.map(|step| Part { session, number, previous, step })
            }
            _ => None,
        };
        Ok(Self { time, operation, part })
    }

    /// Passes each operation of the entry to `visit`, in order: its own, or those of its
    /// `applyOps`, nested to any depth.
    ///
    /// # Errors
    /// Those of `visit`; [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged).
    pub fn each(&self, visit: &mut dyn FnMut(Operation<'a>) -> Result<()>) -> Result<()> {
        self.operation.each(0, visit).map_err(|e| e.context(format!("oplog entry at {}", self.time)))
    }
}

impl<'a> Operation<'a> {
    /// Parses an operation: an entry's own, or one inside an `applyOps`.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged), saying what is missing or wrong.
    pub fn parse(document: &'a [u8]) -> Result<Self> {
        let (mut kind, mut namespace, mut collection, mut o, mut o2) = (None, "", None, None, None);
        for element in Elements::of(document)? {
            let element = element?;
            match element.name {
                b"op" => kind = Some(text(element)?),
                b"ns" => namespace = text(element)?,
                b"ui" => collection = Some(uuid(element).ok_or_else(|| broken("has a ui that is not a UUID"))?),
                b"o" => o = Some(sub_document(element)?),
                b"o2" if element.kind == kind::DOCUMENT => o2 = Some(element.value),
                _ => {}
            }
        }
        let kind = match kind {
            Some("i") => OperationKind::Insert,
            Some("u") => OperationKind::Update,
            Some("d") => OperationKind::Delete,
            Some("c") => OperationKind::Command,
            Some("n" | "km" | "ci" | "cd" | "cu") => OperationKind::Nothing,
            Some(other) => return Err(broken(&format!("has the unknown operation {other:?}"))),
            None => return Err(broken("has no op")),
        };
        let o = match (o, kind) {
            (Some(o), _) => o,
            (None, OperationKind::Nothing) => &[5, 0, 0, 0, 0],
            (None, _) => return Err(broken("has no o")),
        };
        Ok(Self { kind, namespace, collection, o, o2 })
    }

    /// The database in its namespace.
    #[must_use]
    pub fn database(&self) -> &'a str {
        self.namespace.split('.').next().unwrap_or_default()
    }

    /// The namespace, if it is a collection's.
    #[must_use]
    pub fn target(&self) -> Option<Namespace> {
        self.namespace.split_once('.').map(|(database, collection)| Namespace::new(database, collection))
    }

    /// The `_id` of the document it is about: type byte and value.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if it has none.
    pub fn id(&self) -> Result<(u8, &'a [u8])> {
        let holder = match self.kind {
            OperationKind::Update => self.o2.ok_or_else(|| broken("is an update without o2"))?,
            _ => self.o,
        };
        document::id(holder)?.ok_or_else(|| broken(&format!("writes to {} without an _id", self.namespace)))
    }

    /// A command's name: that of its first field.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if it is empty or not text.
    pub fn command(&self) -> Result<&'a str> {
        std::str::from_utf8(self.first()?.name).map_err(|e| broken("is a command whose name is not text").cause(e))
    }

    /// How many documents there were in a collection that it drops, if it says so.
    #[must_use]
    pub fn dropped_documents(&self) -> Option<i64> {
        let is_command = self.kind == OperationKind::Command;
        let count = Elements::of(self.o2.filter(|_| is_command)?).ok()?.flatten().find(|e| e.name == b"numRecords")?;
        integer(count)
    }

    /// The first field of `o`: for a command, its name and object.
    pub(super) fn first(&self) -> Result<Element<'a>> {
        Elements::of(self.o)?.next().ok_or_else(|| broken("is an empty command"))?
    }

    /// The step of a transaction that this command is, if any.
    fn step(&self) -> Result<Option<Step>> {
        let has = |field: &[u8]| -> Result<bool> {
            let mut fields = Elements::of(self.o)?;
            fields.try_fold(false, |found, e| e.map(|e| found || (e.name == field && e.value.iter().any(|&b| b != 0))))
        };
        Ok(match self.command()? {
            "applyOps" if has(b"partialTxn")? || has(b"prepare")? => Some(Step::Operations),
            "applyOps" => Some(Step::LastOperations),
            "commitTransaction" => Some(Step::Commit),
            "abortTransaction" => Some(Step::Abort),
            _ => None,
        })
    }

    /// The operations in its `applyOps`, each with its own document, in order; `None` for anything
    /// else.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged), also for each operation, and if
    /// one is nested in more than ten others.
    pub(super) fn inner(&self, depth: usize) -> Result<Option<Inner<'a>>> {
        if self.kind != OperationKind::Command || self.command()? != "applyOps" {
            return Ok(None);
        }
        if depth == MAX_DEPTH {
            return Err(broken("is nested too deeply"));
        }
        let first = self.first()?;
        if first.kind != kind::ARRAY {
            return Err(broken("has an applyOps that is not an array"));
        }
        Ok(Some(Inner(Elements::of(first.value)?)))
    }

    fn each(&self, depth: usize, visit: &mut dyn FnMut(Self) -> Result<()>) -> Result<()> {
        match self.inner(depth)? {
            None => visit(*self),
            Some(mut inner) => inner.try_for_each(|operation| operation?.1.each(depth + 1, visit)),
        }
    }
}

/// The operations of an `applyOps`, each with its own document.
pub(super) struct Inner<'a>(Elements<'a>);

impl<'a> Iterator for Inner<'a> {
    type Item = Result<(&'a [u8], Operation<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let document = self.0.next()?.and_then(sub_document);
        Some(document.and_then(|document| Ok((document, Operation::parse(document)?))))
    }
}

/// The head of an entry, borrowed from its bytes: enough to keep entries without replaying them. It
/// accepts operations that later servers may add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// `ts`: the time when it was written; no two entries have the same.
    pub time: ClusterTime,
    /// `t`: the term of the primary that wrote it.
    pub term: Option<i64>,
    /// `op`: `i`, `u`, `d`, `c`, `n`, or what later servers add.
    pub operation: &'a [u8],
    /// `ns`: the namespace; `DATABASE.$cmd` for a command.
    pub namespace: &'a [u8],
    /// `o`: the document of the operation; empty if there is none.
    object: &'a [u8],
}

impl<'a> Head<'a> {
    /// Parses it.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if it is no document, or has no
    /// `ts` or `op`.
    pub fn of(document: &'a [u8]) -> Result<Self> {
        let (mut time, mut term, mut operation, mut namespace, mut object) = (None, None, None, &[][..], &[][..]);
        for element in Elements::of(document)? {
            let element = element?;
            match element.name {
                b"ts" => time = timestamp(element).ok(),
                b"t" => term = integer(element),
                b"op" => operation = text_bytes(element),
                b"ns" => namespace = text_bytes(element).unwrap_or_default(),
                b"o" if element.kind == kind::DOCUMENT => object = element.value,
                _ => {}
            }
        }
        match (time, operation) {
            (Some(time), Some(operation)) => Ok(Self { time, term, operation, namespace, object }),
            _ => Err(broken("has no `ts` or no `op`")),
        }
    }

    /// The database it is about, without the collection.
    #[must_use]
    pub fn database(&self) -> &'a [u8] {
        let dot = self.namespace.iter().position(|b| *b == b'.').unwrap_or(self.namespace.len());
        &self.namespace[..dot]
    }

    /// The command of an entry with `op: "c"`: the name of the first field of `o`.
    #[must_use]
    pub fn command(&self) -> Option<&'a [u8]> {
        let is_command = self.operation == b"c";
        is_command.then(|| Elements::of(self.object).ok()?.next()?.ok().map(|first| first.name)).flatten()
    }

    /// Whether it is part of a transaction, or a batch of operations: those may be on any
    /// namespace.
    #[must_use]
    pub fn is_grouped(&self) -> bool {
        matches!(self.command(), Some(b"applyOps" | b"commitTransaction" | b"abortTransaction"))
    }
}

/// A string's text.
///
/// # Errors
/// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if it is not one.
pub fn text(element: Element<'_>) -> Result<&str> {
    let name = || String::from_utf8_lossy(element.name).into_owned();
    let bytes = text_bytes(element).ok_or_else(|| broken(&format!("has a field {:?} that is not text", name())))?;
    std::str::from_utf8(bytes).map_err(|e| broken(&format!("has a field {:?} that is not UTF-8", name())).cause(e))
}

/// A string's bytes, if the element is a string: int32 length, bytes, NUL; the element's own length
/// counts.
fn text_bytes(element: Element<'_>) -> Option<&[u8]> {
    (element.kind == kind::STRING).then(|| element.value.get(4..element.value.len().saturating_sub(1))).flatten()
}

/// A UUID's value, if the element is one.
#[must_use]
pub fn uuid(element: Element<'_>) -> Option<Uuid> {
    // int32 length, subtype, bytes
    match (element.kind, element.value.split_at_checked(5)?) {
        (kind::BINARY, (head, bytes)) if head[4] == 4 => Uuid::from_slice(bytes).ok(),
        _ => None,
    }
}

fn timestamp(element: Element<'_>) -> Result<ClusterTime> {
    let value = (element.kind == kind::TIMESTAMP).then(|| <[u8; 8]>::try_from(element.value).ok()).flatten();
    let value = u64::from_le_bytes(value.ok_or_else(|| broken("has a ts that is not a timestamp"))?);
    #[expect(clippy::cast_possible_truncation, reason = "the low half is the ordinal")]
    Ok(ClusterTime { t: (value >> 32) as u32, i: value as u32 })
}

fn integer(element: Element<'_>) -> Option<i64> {
    match element.kind {
        kind::INT32 => Some(i32::from_le_bytes(element.value.try_into().ok()?).into()),
        kind::INT64 => Some(i64::from_le_bytes(element.value.try_into().ok()?)),
        _ => None,
    }
}

fn sub_document(element: Element<'_>) -> Result<&[u8]> {
    if element.kind == kind::DOCUMENT {
        Ok(element.value)
    } else {
        Err(broken(&format!("has a field {:?} that is not a document", String::from_utf8_lossy(element.name))))
    }
}

fn broken(what: &str) -> Error {
    Error::damaged(format!("an oplog entry {what}"))
}

#[cfg(test)]
mod tests {
    use bson::{Timestamp, rawdoc};

    use super::*;

    #[test]
    fn the_parts_of_an_entry_are_read_from_its_bytes() {
        let time = Timestamp { time: 1_795_383_900, increment: 7 };
        let insert = rawdoc! { "op": "i", "ns": "shop.a.b", "o": { "_id": 1 }, "ts": time, "t": 3_i64 };
        let entry = Head::of(insert.as_bytes()).unwrap();
        assert_eq!((entry.time, entry.term), (ClusterTime { t: 1_795_383_900, i: 7 }, Some(3)));
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
