//! Prepares an oplog slice for mongorestore, which applies every entry by the names in it: decides
//! which entries stay, and which parts of those that stay in part. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::format::document::{self, Documents, Element, Elements, Writer};
use crate::format::manifest::{Collection, CollectionKind};
use crate::names::{BUCKETS_PREFIX, Namespace, SYSTEM_DATABASES};
use crate::oplog::{Committed, Entry, Operation, OperationKind, Part, Step, text, uuid};

const VIEWS: &str = "system.views";

/// The fixed part of a filter.
pub struct Rules {
    /// Which entries count.
    pub committed: Committed,
    /// Whether the export would include a collection of this name.
    pub wanted: Box<dyn Fn(&Namespace) -> bool + Send + Sync>,
    /// Whether the source's version applies deletes in capped collections.
    pub deletes_in_capped: bool,
}

/// A collection that is exported, or that the slice creates.
#[derive(Debug, Clone)]
pub struct Known {
    /// Where its documents are; for a time series, in its buckets.
    place: Namespace,
    name: Namespace,
    is_series: bool,
    /// Whether it is capped and its documents were read during writes.
    is_read_capped: bool,
    is_capped: bool,
    /// The `_id` of the last document read, if the slice inserts it: inserts up to it have been
    /// read.
    after: Option<(u8, Vec<u8>)>,
}

impl Known {
    /// One of the backup's. For a capped one, with the last document read, if the slice inserts
    /// that.
    pub fn listed(collection: &Collection, after: Option<(u8, Vec<u8>)>) -> Self {
        let name = collection.namespace();
        let is_series = collection.kind == CollectionKind::TimeSeries;
        let is_capped = collection.options.bson.get_bool("capped").unwrap_or(false);
        let place = if is_series { name.buckets() } else { name.clone() };
        Self { place, name, is_series, is_read_capped: is_capped, is_capped, after }
    }
}

/// Follows a slice from its first entry to its last.
#[derive(Clone)]
pub struct Filter {
    rules: Arc<Rules>,
    known: HashMap<Uuid, Known>,
    /// The names that collections have or had.
    names: HashSet<Namespace>,
    /// The views and time series that are exported.
    views: HashSet<Namespace>,
    /// The transactions with kept parts that are not committed yet.
    open: HashSet<(Vec<u8>, i64)>,
    entries: u64,
}

/// What remains of an operation.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Whole,
    Changed(Vec<u8>),
    Nothing,
}

impl Filter {
    /// Starts at the first entry, with the collections known by their UUIDs, their names, and the
    /// names of views and time series.
    #[must_use]
    pub fn new(rules: Arc<Rules>, known: HashMap<Uuid, Known>, names: HashSet<Namespace>, views: HashSet<Namespace>) -> Self {
        Self { rules, known, names, views, open: HashSet::new(), entries: 0 }
    }

    /// How many entries remained so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The remaining part of the next entries.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for operations that mongorestore cannot replay;
    /// [`ErrorKind::Damaged`].
    pub fn kept(mut self, frame: &[u8]) -> Result<(Self, Vec<u8>)> {
        let mut kept = Vec::with_capacity(frame.len());
        for entry in Documents::of(frame) {
            self.take(entry?, &mut kept)?;
        }
        Ok((self, kept))
    }

    /// Checks the next entries.
    ///
    /// # Errors
    /// As for [`kept`](Self::kept).
    pub fn screened(self, frame: &[u8]) -> Result<Self> {
        self.kept(frame).map(|(filter, _)| filter)
    }

    fn take(&mut self, raw: &[u8], kept: &mut Vec<u8>) -> Result<()> {
        let entry = Entry::parse(raw)?;
        let left = match &entry.part {
            // It has no operations: it stays if the operations that it commits did.
            Some(part) if part.step == Step::Commit => match self.open.remove(&chain(part)) {
                true => Left::Whole,
                false => Left::Nothing,
            },
            // No part of an aborted transaction was kept.
            Some(part) if part.step == Step::Abort => Left::Nothing,
            _ if !self.rules.committed.counts(&entry) => Left::Nothing,
            part => {
                match part {
                    Some(part) if part.step == Step::Operations => drop(self.open.insert(chain(part))),
                    Some(part) => drop(self.open.remove(&chain(part))),
                    None => {}
                }
                let place = |e: Error| e.context(format!("oplog entry at {}", entry.time));
                self.operation(&entry.operation, raw, part.is_some(), 0).map_err(place)?
            }
        };
        match left {
            Left::Nothing => return Ok(()),
            Left::Whole => kept.extend_from_slice(raw),
            Left::Changed(changed) => kept.extend_from_slice(&changed),
        }
        self.entries += 1;
        Ok(())
    }

    /// What remains of an operation whose own document is `raw`. An empty `applyOps` stays if
    /// `must_stay`.
    fn operation(&mut self, operation: &Operation<'_>, raw: &[u8], must_stay: bool, depth: usize) -> Result<Left> {
        match operation.kind {
            OperationKind::Nothing => return Ok(Left::Nothing),
            OperationKind::Command => {}
            _ => return self.document(operation).map(Left::of),
        }
        let Some(inner) = operation.inner(depth)? else { return self.command(operation).map(Left::of) };
        let (mut left, mut changed) = (Vec::new(), false);
        for inner in inner {
            let (document, inner) = inner?;
            match self.operation(&inner, document, false, depth + 1)? {
                Left::Whole => left.push(document.to_vec()),
                Left::Changed(rebuilt) => {
                    left.push(rebuilt);
                    changed = true;
                }
                Left::Nothing => changed = true,
            }
        }
        if left.is_empty() && !must_stay {
            return Ok(Left::Nothing);
        }
        if changed { rebuilt(raw, operation.o, &left).map(Left::Changed) } else { Ok(Left::Whole) }
    }

    /// Whether an insert, update or delete stays.
    fn document(&mut self, operation: &Operation<'_>) -> Result<bool> {
        if SYSTEM_DATABASES.contains(&operation.database()) {
            return Ok(false);
        }
        if operation.target().is_some_and(|target| target.collection == VIEWS) {
            let (kind, id) = operation.id()?;
            let view = text(Element { kind, name: b"_id", value: id })?;
            let view = view.split_once('.').map(|(database, name)| Namespace::new(database, name));
            return match view.filter(|view| self.is_ours(view)) {
                Some(view) => Err(refused(&format!("the view or time series {view} was created, changed or dropped"))),
                None => Ok(false),
            };
        }
        let Some(uuid) = operation.collection else {
            return Err(Error::damaged(format!("an operation on {} has no collection UUID", operation.namespace)));
        };
        let Some(known) = self.known.get_mut(&uuid) else { return Ok(false) };
        if operation.namespace != known.place.to_string() {
            return Err(refused(&format!("{} was written to under the name {}", known.place, operation.namespace)));
        }
        match operation.kind {
            OperationKind::Insert => {
                let Some(last) = &known.after else { return Ok(true) };
                if operation.id()? == (last.0, last.1.as_slice()) {
                    known.after = None;
                }
                Ok(false)
            }
            // If the document was overwritten before it was read, mongorestore would create a new
            // one from the change, the newest of all.
            OperationKind::Update if known.is_read_capped => {
                Err(refused(&format!("a document of the capped collection {} was changed", known.name)))
            }
            // Overwritten documents are overwritten in the copy, too.
            OperationKind::Delete if known.is_capped => Ok(self.rules.deletes_in_capped),
            _ => Ok(true),
        }
    }

    /// Whether a command stays.
    fn command(&mut self, operation: &Operation<'_>) -> Result<bool> {
        let (name, database) = (operation.command()?, operation.database());
        if SYSTEM_DATABASES.contains(&database) && name != "renameCollection" {
            return Ok(false);
        }
        let known = operation.collection.and_then(|uuid| self.known.get(&uuid));
        match (name, known) {
            ("create", _) => self.create(operation),
            ("drop", _) => self.drop(operation),
            ("dropDatabase", _) => match self.known.values().find(|known| known.name.database == database) {
                Some(known) => Err(refused(&format!("{} was dropped with its database", known.name))),
                // Everything in it was dropped one by one, and an empty database does not exist.
                None => Ok(false),
            },
            ("renameCollection", _) => self.rename(operation),
            // They take effect when they are done, or on the source alone.
            ("startIndexBuild" | "abortIndexBuild" | "dbCheck" | "setMultikeyMetadata" | "dropIdent", _) => Ok(false),
            (_, None) if operation.collection.is_some() => Ok(false),
            (_, Some(known)) if known.is_series => {
                Err(refused(&format!("the time series {} was changed by the command {name:?}", known.name)))
            }
            // If the collection was emptied before its last document was written, it was emptied
            // before it was read.
            ("emptycapped", Some(known)) => Ok(known.after.is_none()),
            ("createIndexes" | "commitIndexBuild" | "dropIndexes" | "deleteIndex" | "deleteIndexes" | "collMod", Some(known)) => {
                match text(operation.first()?)? == known.name.collection {
                    true => Ok(true),
                    false => Err(refused(&format!("{} was changed under another name", known.name))),
                }
            }
            (other, _) => Err(refused(&format!("the command {other:?} was run in {database}"))),
        }
    }

    fn create(&mut self, operation: &Operation<'_>) -> Result<bool> {
        let name = text(operation.first()?)?;
        let series = name.strip_prefix(BUCKETS_PREFIX);
        let namespace = Namespace::new(operation.database(), series.unwrap_or(name));
        // A temporary collection does not count before it is renamed.
        let (mut is_temporary, mut is_series, mut is_capped) = (false, series.is_some(), false);
        for element in Elements::of(operation.o)? {
            let element = element?;
            let is_true = element.value.iter().any(|b| *b != 0);
            match element.name {
                b"temp" => is_temporary = is_true,
                b"capped" => is_capped = is_true,
                b"timeseries" => is_series = true,
                _ => {}
            }
        }
        if is_temporary || !(self.rules.wanted)(&namespace) {
            return Ok(false);
        }
        // For a listed collection: the listing of an adopted dump is newer than the first entries.
        let known = operation.collection.and_then(|uuid| self.known.get(&uuid));
        if known.is_some_and(|known| known.name == namespace) {
            return Ok(false);
        }
        if is_series {
            return Err(refused(&format!("the time series {namespace} was created")));
        }
        if !self.names.insert(namespace.clone()) {
            return Err(refused(&format!("{namespace} was dropped and recreated")));
        }
        let Some(uuid) = operation.collection else {
            return Err(Error::damaged(format!("{namespace} is created without a UUID")));
        };
        let (place, name) = (namespace.clone(), namespace);
        self.known.insert(uuid, Known { place, name, is_series: false, is_read_capped: false, is_capped, after: None });
        Ok(true)
    }

    fn drop(&mut self, operation: &Operation<'_>) -> Result<bool> {
        if text(operation.first()?)? == VIEWS {
            return match self.views.iter().find(|view| view.database == operation.database()) {
                Some(view) => Err(refused(&format!("the view or time series {view} was dropped"))),
                None => Ok(false),
            };
        }
        let Some(known) = operation.collection.and_then(|uuid| self.known.remove(&uuid)) else { return Ok(false) };
        if known.is_series {
            return Err(refused(&format!("the time series {} was dropped", known.name)));
        }
        if text(operation.first()?)? != known.name.collection {
            return Err(refused(&format!("{} was dropped under another name", known.name)));
        }
        Ok(true)
    }

    fn rename(&self, operation: &Operation<'_>) -> Result<bool> {
        let (mut to, mut over) = (None, None);
        for element in Elements::of(operation.o)? {
            let element = element?;
            match element.name {
                b"to" => to = Some(text(element)?),
                b"dropTarget" => over = uuid(element).and_then(|uuid| self.known.get(&uuid)),
                _ => {}
            }
        }
        let to = to.and_then(|to| to.split_once('.')).ok_or_else(|| Error::damaged("renameCollection to no namespace"))?;
        let to = Namespace::new(to.0, to.1.strip_prefix(BUCKETS_PREFIX).unwrap_or(to.1));
        if let Some(known) = operation.collection.and_then(|uuid| self.known.get(&uuid)) {
            return Err(refused(&format!("{} was renamed to {to}", known.name)));
        }
        if over.is_some() || self.is_ours(&to) {
            return Err(refused(&format!("another collection was renamed to {to}")));
        }
        Ok(false)
    }

    /// Whether the export includes, included or would include a collection of this name.
    fn is_ours(&self, namespace: &Namespace) -> bool {
        self.names.contains(namespace) || (self.rules.wanted)(namespace)
    }
}

impl Left {
    fn of(stays: bool) -> Self {
        if stays { Self::Whole } else { Self::Nothing }
    }
}

fn chain(part: &Part<'_>) -> (Vec<u8>, i64) {
    (part.session.to_vec(), part.number)
}

/// The entry or operation with these operations in its `applyOps`, and everything else unchanged.
fn rebuilt(raw: &[u8], o: &[u8], operations: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut command = Writer::with_capacity(o.len());
    for (number, element) in Elements::of(o)?.enumerate() {
        let Element { kind, name, value } = element?;
        if number == 0 {
            command.documents("applyOps", operations.iter().map(Vec::as_slice));
        } else {
            command.element(kind, name, value);
        }
    }
    let command = command.finish();
    let entry = document::replaced(raw, |element| Ok((element.name == b"o").then(|| command.clone())))?;
    document::check(&entry)?;
    Ok(entry)
}

fn refused(what: &str) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!("while the backup was taken, {what}: mongorestore replays an oplog by names and would get another result"),
    )
    .hint("import it into a server, back that up, and export that backup; or exclude it with [[exclude]]")
}
