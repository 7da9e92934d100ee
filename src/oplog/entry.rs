//! Entries of an oplog as servers write them into `local.oplog.rs`, from 4.4 on.
//!
//! An entry is one operation, or an `applyOps` that holds several: those of a transaction, or of a batch that a client or the server put
//! together. The bytes may be hostile: whatever is not as expected is an error.

use uuid::Uuid;

use crate::error::{Error, Result};
use crate::format::document::{self, Element, Elements};
use crate::format::kind;
use crate::format::manifest::ClusterTime;
use crate::names::Namespace;

/// How deep an `applyOps` inside an `applyOps` is looked into.
const MAX_DEPTH: usize = 10;

/// One entry.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// `ts`: its place in the order of all entries.
    pub time: ClusterTime,
    /// What it says.
    pub operation: Operation<'a>,
    /// What makes it a part of a transaction.
    pub part: Option<Part<'a>>,
}

/// One operation: an entry's own, or one inside its `applyOps`.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// `op`.
    pub kind: OperationKind,
    /// `ns`: the namespace, of a command `DATABASE.$cmd`.
    pub namespace: &'a str,
    /// `ui`: the collection's identity.
    pub collection: Option<Uuid>,
    /// `o`: the document, the change or the command.
    pub o: &'a [u8],
    /// `o2`: which document an update changes.
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
    /// `n`, and what servers write for themselves alone (`km`, `ci`, `cd`, `cu`).
    Nothing,
}

/// An entry's part in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'a> {
    /// The session's identity, a document.
    pub session: &'a [u8],
    /// The transaction's number within its session.
    pub number: i64,
    /// The part before this one; zero for the first.
    pub previous: ClusterTime,
    /// What it does.
    pub step: Step,
}

/// What a part of a transaction does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Operations that count once the transaction is committed.
    Operations,
    /// The last operations of a transaction that was not prepared: it is committed with them.
    LastOperations,
    /// Commits a prepared transaction.
    Commit,
    /// Gives the transaction up.
    Abort,
}

impl<'a> Entry<'a> {
    /// Reads an entry.
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
                // 1 and 2: inserts and other operations that were put into one entry without being a transaction.
                b"multiOpType" => several = integer(element).is_some_and(|n| n != 0),
                b"prevOpTime" if element.kind == 0x03 => {
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

    /// Hands each operation of the entry on, in order: its own, or those of its `applyOps`, however nested.
    ///
    /// # Errors
    /// Those of `visit`; [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged).
    pub fn each(&self, visit: &mut dyn FnMut(Operation<'a>) -> Result<()>) -> Result<()> {
        self.operation.each(0, visit).map_err(|e| e.context(format!("oplog entry at {}", self.time)))
    }
}

impl<'a> Operation<'a> {
    /// Reads an operation: an entry's own, or one inside an `applyOps`.
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
                b"o2" if element.kind == 0x03 => o2 = Some(element.value),
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

    /// The namespace, where it is that of a collection.
    #[must_use]
    pub fn target(&self) -> Option<Namespace> {
        self.namespace.split_once('.').map(|(database, collection)| Namespace::new(database, collection))
    }

    /// The `_id` of the document that it is about: its type byte and value.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) where it has none.
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
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) where it is empty or not text.
    pub fn command(&self) -> Result<&'a str> {
        let first = Elements::of(self.o)?.next().ok_or_else(|| broken("is an empty command"))??;
        std::str::from_utf8(first.name).map_err(|e| broken("is a command whose name is not text").cause(e))
    }

    /// The step of a transaction that this command is, if it is one.
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

    fn each(&self, depth: usize, visit: &mut dyn FnMut(Self) -> Result<()>) -> Result<()> {
        if self.kind != OperationKind::Command || self.command()? != "applyOps" {
            return visit(*self);
        }
        if depth == MAX_DEPTH {
            return Err(broken("is nested too deeply"));
        }
        let first = Elements::of(self.o)?.next().ok_or_else(|| broken("is an empty command"))??;
        if first.kind != 0x04 {
            return Err(broken("has an applyOps that is not an array"));
        }
        for operation in Elements::of(first.value)? {
            Self::parse(sub_document(operation?)?)?.each(depth + 1, visit)?;
        }
        Ok(())
    }
}

/// A string's text.
///
/// # Errors
/// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) where it is none.
pub fn text(element: Element<'_>) -> Result<&str> {
    let name = || String::from_utf8_lossy(element.name).into_owned();
    // int32 length, bytes, NUL; the lengths are those of the element.
    let bytes = match element.kind {
        0x02 => element.value.get(4..element.value.len().saturating_sub(1)),
        _ => None,
    };
    let bytes = bytes.ok_or_else(|| broken(&format!("has a field {:?} that is not text", name())))?;
    std::str::from_utf8(bytes).map_err(|e| broken(&format!("has a field {:?} that is not UTF-8", name())).cause(e))
}

/// A UUID's value, where the element is one.
#[must_use]
pub fn uuid(element: Element<'_>) -> Option<Uuid> {
    // int32 length, subtype, bytes
    match (element.kind, element.value.split_at_checked(5)?) {
        (0x05, (head, bytes)) if head[4] == 4 => Uuid::from_slice(bytes).ok(),
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
        0x10 => Some(i32::from_le_bytes(element.value.try_into().ok()?).into()),
        0x12 => Some(i64::from_le_bytes(element.value.try_into().ok()?)),
        _ => None,
    }
}

fn sub_document(element: Element<'_>) -> Result<&[u8]> {
    if element.kind == 0x03 {
        Ok(element.value)
    } else {
        Err(broken(&format!("has a field {:?} that is not a document", String::from_utf8_lossy(element.name))))
    }
}

fn broken(what: &str) -> Error {
    Error::damaged(format!("an oplog entry {what}"))
}
