//! Inserts and deletes many documents by commands of their own, which take a server a fraction of
//! the time that `applyOps` takes.
//!
//! An insert does not replace a document that exists already, and says so. Whatever a command does
//! not do for any reason is left to `applyOps`, which repeats it over everything or says what is
//! wrong with it.

use std::collections::{HashMap, HashSet};

use bson::{Document, RawDocumentBuf, rawdoc};
use uuid::Uuid;

use super::destination::Destination;
use super::lane::Change;
use crate::error::{ErrorKind, Result};
use crate::format::document::Writer;
use crate::format::kind;
use crate::mongo::catalog;
use crate::mongo::failure::is_transient;
use crate::names::Namespace;
use crate::sink::settle::{LIMIT, Settled};
use crate::sink::{Attempts, Target, write_concern_error, write_errors};

/// The most documents in one command.
const COMMAND_DOCUMENTS: usize = 10_000;
/// The most bytes in one command, unless a single document is larger.
const COMMAND_BYTES: usize = 8 * 1024 * 1024;
/// The number of documents to try after many of a collection existed already.
const TRIED: usize = 32;
/// The most groups to leave to `applyOps` before inserting is tried again.
const LONGEST_PAUSE: u32 = 32;

/// Sends such commands for one lane.
#[derive(Debug)]
pub(super) struct Groups {
    settled: Settled,
    /// The UUIDs of collections, by database; `None` if it is not known. A late insert must not
    /// make a collection anew after it was dropped.
    uuids: HashMap<String, HashMap<String, Option<Uuid>>>,
    /// Where documents existed already when they were inserted.
    pauses: HashMap<Namespace, Pause>,
}

/// How long to leave inserts to `applyOps`.
#[derive(Debug, Default, Clone, Copy)]
struct Pause {
    /// For so many more groups.
    left: u32,
    /// For so many groups the last time; zero if the last documents were all new.
    length: u32,
}

impl Pause {
    /// The number of documents of a group of `size` to insert.
    fn admits(&mut self, size: usize) -> usize {
        match (self.left, self.length) {
            (0, 0) => size,
            (0, _) => size.min(TRIED),
            _ => {
                self.left -= 1;
                0
            }
        }
    }

    /// So many of the inserted documents existed already.
    fn learn(&mut self, inserted: usize, existed: usize) {
        self.length = if existed * 4 > inserted { (self.length * 2).clamp(4, LONGEST_PAUSE) } else { 0 };
        self.left = self.length;
    }
}

impl Groups {
    pub(super) fn new(target: Target) -> Self {
        Self { settled: Settled::new(target, "replay"), uuids: HashMap::new(), pauses: HashMap::new() }
    }

    /// Inserts documents into one collection. Returns what is left to do.
    pub(super) async fn insert(&mut self, mut group: Vec<Change>) -> Result<Vec<Change>> {
        let mut left = Vec::new();
        while let Some(first) = group.first() {
            let place = first.place.clone();
            let Some(uuid) = self.uuid(&place.namespace).await? else { break };
            let pause = self.pauses.entry(place.namespace.clone()).or_default();
            let admitted = pause.admits(group.len());
            if admitted == 0 {
                break;
            }
            let later = group.split_off(admitted.min(fitting(&group)));
            let inserted = group.len();
            let command = || insert_command(&place, uuid, &group, &self.settled.comment);
            let undone = match self.grouped(&place, command).await? {
                Some(reply) => undone(group, &reply),
                None => {
                    self.uuids.remove(&place.namespace.database);
                    group
                }
            };
            self.pauses.entry(place.namespace.clone()).or_default().learn(inserted, undone.len());
            left.extend(undone);
            group = later;
        }
        left.extend(group);
        Ok(left)
    }

    /// Deletes documents from one collection. Returns what is left to do.
    pub(super) async fn delete(&mut self, mut group: Vec<Change>) -> Result<Vec<Change>> {
        let mut left = Vec::new();
        while let Some(first) = group.first() {
            let place = first.place.clone();
            let later = group.split_off(fitting(&group));
            let command = || delete_command(&place, &group, &self.settled.comment);
            let reply = self.grouped(&place, command).await?;
            if !reply.is_some_and(|reply| write_errors(&reply).is_empty()) {
                left.extend(group);
            }
            group = later;
        }
        Ok(left)
    }

    /// Runs a command that may be repeated. `None` if the target refuses it.
    async fn grouped(&self, place: &Destination, command: impl Fn() -> Result<RawDocumentBuf>) -> Result<Option<Document>> {
        let what = format!("replaying into {}", place.namespace);
        let mut attempts = Attempts::new(&self.settled.target, &what);
        loop {
            match self.settled.target.try_run(&place.namespace.database, command()?, Some(LIMIT)).await? {
                Ok(reply) => match write_concern_error(&reply) {
                    None => return Ok(Some(reply)),
                    Some(problem) => attempts.again_after(problem).await?,
                },
                Err(e) if is_transient(&e) => attempts.again(e).await?,
                Err(_) => return Ok(None),
            }
            self.settled.settle(&what).await?;
        }
    }

    /// The UUID of a collection, if the servers check the one that a command names.
    async fn uuid(&mut self, place: &Namespace) -> Result<Option<Uuid>> {
        if !self.settled.target.checks_uuids {
            return Ok(None);
        }
        if let Some(known) = self.uuids.get(&place.database).and_then(|known| known.get(&place.collection)) {
            return Ok(*known);
        }
        let target = &self.settled.target;
        let listed = match target.unless_stopped(catalog::collections(&target.connection, &place.database)).await? {
            Ok((listed, _)) => listed,
            // Without the right to list, `applyOps` does everything.
            Err(e) if e.kind() == ErrorKind::Denied => Vec::new(),
            Err(_) => return Ok(None),
        };
        let mut known: HashMap<_, _> = listed.into_iter().map(|c| (c.name, c.uuid)).collect();
        let uuid = *known.entry(place.collection.clone()).or_default();
        self.uuids.insert(place.database.clone(), known);
        Ok(uuid)
    }
}

/// How many changes fit into one command.
fn fitting(group: &[Change]) -> usize {
    let mut bytes = 0;
    let more = group.iter().take(COMMAND_DOCUMENTS).take_while(|change| {
        bytes += change.size() + 16;
        bytes <= COMMAND_BYTES
    });
    more.count().max(1)
}

fn insert_command(place: &Destination, uuid: Uuid, group: &[Change], comment: &str) -> Result<RawDocumentBuf> {
    let bytes: usize = group.iter().map(|c| c.o.len() + 8).sum();
    let mut command = Writer::with_capacity(bytes + 320);
    command.string("insert", &place.namespace.collection);
    command.uuid("collectionUUID", uuid.as_bytes());
    command.bool("ordered", false);
    command.document("writeConcern", rawdoc! { "w": 1 }.as_bytes());
    // This needs a right of its own, so it is only requested if necessary.
    if place.has_rules {
        command.bool("bypassDocumentValidation", true);
    }
    command.string("comment", comment);
    command.documents("documents", group.iter().map(|c| c.o.as_slice()));
    command.raw()
}

/// `{delete: COLLECTION, deletes: [{q: {_id: {$in: [ID, ...]}}, limit: 0}]}`
fn delete_command(place: &Destination, group: &[Change], comment: &str) -> Result<RawDocumentBuf> {
    let bytes: usize = group.iter().map(|c| c.id.1.len() + 8).sum();
    let mut ids = Writer::with_capacity(bytes + 320);
    for (number, change) in group.iter().enumerate() {
        ids.element(change.id.0, number.to_string(), &change.id.1);
    }
    let within = Writer::default().with(kind::ARRAY, "$in", &ids.finish()).finish();
    let query = Writer::default().with(kind::DOCUMENT, "_id", &within).finish();
    let statement = Writer::default().with(kind::DOCUMENT, "q", &query).with(kind::INT32, "limit", &[0; 4]).finish();
    let mut command = Writer::with_capacity(statement.len() + 256);
    command.string("delete", &place.namespace.collection);
    command.documents("deletes", [statement.as_slice()]);
    command.document("writeConcern", rawdoc! { "w": 1 }.as_bytes());
    command.string("comment", comment);
    command.raw()
}

/// Of inserts, those that were not done.
fn undone(group: Vec<Change>, reply: &Document) -> Vec<Change> {
    let refused: HashSet<usize> = write_errors(reply).iter().map(|problem| problem.index).collect();
    let done = reply.get_i32("n").ok().and_then(|n| usize::try_from(n).ok());
    if done != group.len().checked_sub(refused.len()) {
        return group;
    }
    group.into_iter().enumerate().filter(|(number, _)| refused.contains(number)).map(|(_, change)| change).collect()
}
