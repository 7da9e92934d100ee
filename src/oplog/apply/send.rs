//! Sends the operations of one lane until the target has applied them: as `applyOps` commands,
//! unless [another command](super::group) is faster.

use std::collections::{HashMap, HashSet};

use bson::{RawDocumentBuf, rawdoc};
use mongodb::error::Error as DriverError;

use super::destination::{Destination, Holds};
use super::group::Groups;
use super::lane::{Arranged, Change, Id, Work};
use crate::error::{Error, Result};
use crate::format::document::{self, Writer, type_name};
use crate::format::kind;
use crate::mongo::failure::{code_of, describe};
use crate::mongo::{Version, command};
use crate::oplog::OperationKind;
use crate::sink::insert::NAMES_ARE_FREE;
use crate::sink::insert::{Repeats, upsert};
use crate::sink::masked;
use crate::sink::settle::{LIMIT, Settled};
use crate::sink::{Attempts, Target, write_concern_error};

/// The most operations in one command.
const COMMAND_OPERATIONS: usize = 2_000;
/// The most bytes of operations in one command, unless a single one is larger. The target writes
/// them into its own oplog entry, which may have 16 MiB plus 16 KiB, and adds the collection's UUID
/// to each.
const COMMAND_BYTES: usize = 8 * 1024 * 1024;

/// Which documents exist: by namespace, the type bytes and values of their `_id`s.
type Present = HashMap<String, HashSet<Id>>;

/// Sends the work of one lane.
#[derive(Debug)]
pub(super) struct Sender {
    target: Target,
    /// A command whose reply was lost must not undo later ones.
    settled: Settled,
    groups: Groups,
}

impl Sender {
    pub(super) fn new(target: Target) -> Self {
        Self { settled: Settled::new(target.clone(), "replay"), groups: Groups::new(target.clone()), target }
    }

    /// Sends all work, in order.
    pub(super) async fn send(&mut self, arranged: Arranged) -> Result<()> {
        let mut left = Vec::new();
        for group in arranged.inserts {
            left.extend(self.groups.insert(group).await?);
        }
        for group in arranged.deletes {
            left.extend(self.groups.delete(group).await?);
        }
        let mut batch: Vec<Change> = Vec::new();
        let mut bytes = 0;
        for work in left.into_iter().map(Work::Operation).chain(arranged.rest) {
            match work {
                Work::Operation(change) => {
                    let size = change.size() + 16;
                    if bytes + size > COMMAND_BYTES || batch.len() == COMMAND_OPERATIONS {
                        self.apply(std::mem::take(&mut batch)).await?;
                        bytes = 0;
                    }
                    bytes += size;
                    batch.push(change);
                }
                Work::Whole { place, document, .. } => {
                    self.apply(std::mem::take(&mut batch)).await?;
                    bytes = 0;
                    self.put(&place, &document).await?;
                }
                Work::Empty(place) => {
                    self.apply(std::mem::take(&mut batch)).await?;
                    bytes = 0;
                    let what = format!("emptying {}", place.namespace);
                    self.settled
                        .write(
                            &what,
                            &place.namespace.database,
                            command("delete", &place, "deletes", &all(), &self.settled.comment)?,
                        )
                        .await?;
                }
            }
        }
        self.apply(batch).await
    }

    /// Applies a batch. If it failed halfway or its reply was lost, it is applied again from the
    /// beginning.
    async fn apply(&self, batch: Vec<Change>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let what = what(&batch);
        let mut attempts = Attempts::new(&self.target, &what);
        loop {
            let present = self.present(&batch, &what).await?;
            let kept: Vec<&Change> = applicable(&batch, &present, self.target.connection.version);
            if kept.is_empty() {
                return Ok(());
            }
            match self.target.try_run("admin", self.command(&kept)?, Some(LIMIT)).await? {
                Ok(reply) => match write_concern_error(&reply) {
                    None => return Ok(()),
                    Some(problem) => attempts.again_after(problem).await?,
                },
                Err(e) => {
                    let refused = refused(&self.target, &kept, &e);
                    attempts.again(e).await.map_err(|e| refused.unwrap_or(e))?;
                }
            }
            self.settled.settle(&what).await?;
        }
    }

    fn command(&self, batch: &[&Change]) -> Result<RawDocumentBuf> {
        let bytes: usize = batch.iter().map(|c| c.size() + 16).sum();
        let mut command = Writer::with_capacity(bytes + 256);
        command.documents("applyOps", batch.iter().map(|c| c.operation()));
        // By default, all of them would be one write, under a lock that blocks all other writes.
        command.bool("allowAtomic", false);
        // This needs a right of its own, so it is only requested if necessary.
        if batch.iter().any(|c| c.place.has_rules) {
            command.bool("bypassDocumentValidation", true);
        }
        command.document("writeConcern", rawdoc! { "w": 1 }.as_bytes());
        command.string("comment", &self.settled.comment);
        command.raw()
    }

    /// Which of the documents that changes need exist, for collections in which a change must not
    /// create a document. By namespace, the `_id`s.
    async fn present(&self, batch: &[Change], what: &str) -> Result<Present> {
        let mut asked: HashMap<String, (&Destination, Vec<&Change>)> = HashMap::new();
        for change in batch.iter().filter(|c| c.kind == OperationKind::Update && needs_its_document(&c.place)) {
            asked.entry(change.place.namespace.to_string()).or_insert_with(|| (&change.place, Vec::new())).1.push(change);
        }
        let mut present = HashMap::new();
        for (name, (place, changes)) in asked {
            let find = find_ids(place, &changes)?;
            let mut attempts = Attempts::new(&self.target, what);
            let database = self.target.connection.database(&place.namespace.database);
            let found = loop {
                match self.target.unless_stopped(command::run_cursor(&database, find.clone())).await? {
                    Ok((found, _)) => break found,
                    Err(e) => attempts.again(e).await?,
                }
            };
            let mut ids = HashSet::new();
            for found in &found {
                if let Some((kind, id)) = document::id(found.as_bytes())? {
                    ids.insert((kind, id.to_vec()));
                }
            }
            present.insert(name, ids);
        }
        Ok(present)
    }

    /// Replaces the document with the same `_id` by this one. Servers replace a `Timestamp(0, 0)`
    /// at the top of a document in inserts and replacements, even through `applyOps`. They do not
    /// if a pipeline creates a document that does not exist.
    async fn put(&self, place: &Destination, document: &[u8]) -> Result<()> {
        let what = format!("replaying into {}", place.namespace);
        if !matches!(place.holds, Holds::Capped { .. }) {
            let (kind, id) =
                document::id(document)?.ok_or_else(|| Error::damaged(format!("{what}: a document without an _id")))?;
            let mut delete = Writer::default();
            delete.document("q", &by_id(kind, id));
            delete.element(kind::INT32, "limit", &1i32.to_le_bytes());
            let delete = delete.finish();
            self.settled
                .write(&what, &place.namespace.database, command("delete", place, "deletes", &delete, &self.settled.comment)?)
                .await?;
        }
        if self.target.connection.version < NAMES_ARE_FREE && document::has_operator_names(document)? {
            return masked::put(&self.target, &place.namespace, place.has_rules, document).await;
        }
        let update = command("update", place, "updates", &upsert(document, Repeats::Refuse)?, &self.settled.comment)?;
        self.settled.write(&what, &place.namespace.database, update).await.map(|_| ())
    }
}

/// Whether an update of a missing document must not create one: among buckets, which servers
/// refuse, and in capped collections, where it would be the newest.
fn needs_its_document(place: &Destination) -> bool {
    matches!(place.holds, Holds::Buckets | Holds::Capped { .. })
}

/// The batch without updates of missing documents that must not be created: they were deleted
/// before they were read, and later entries of the slice delete them. Servers before 6.0 refuse
/// deletes in capped collections, so these are dropped too: the source logged them for overwritten
/// documents, which the target overwrites by itself.
fn applicable<'a>(batch: &'a [Change], present: &Present, version: Version) -> Vec<&'a Change> {
    let mut present = present.clone();
    batch
        .iter()
        .filter(|change| {
            if !needs_its_document(&change.place) {
                return true;
            }
            if change.kind == OperationKind::Delete
                && matches!(change.place.holds, Holds::Capped { .. })
                && version < Version(6, 0, 0)
            {
                return false;
            }
            let ids = present.entry(change.place.namespace.to_string()).or_default();
            match change.kind {
                OperationKind::Insert => {
                    ids.insert(change.id.clone());
                    true
                }
                OperationKind::Update => ids.contains(&change.id),
                _ => {
                    ids.remove(&change.id);
                    true
                }
            }
        })
        .collect()
}

fn find_ids(place: &Destination, changes: &[&Change]) -> Result<RawDocumentBuf> {
    let mut ids = Writer::with_capacity(changes.len() * 24);
    for (number, change) in changes.iter().enumerate() {
        ids.element(change.id.0, number.to_string(), &change.id.1);
    }
    let mut within = Writer::default();
    within.element(kind::ARRAY, "$in", &ids.finish());
    let mut filter = Writer::default();
    filter.document("_id", &within.finish());
    let mut find = Writer::default();
    find.string("find", &place.namespace.collection);
    find.document("filter", &filter.finish());
    find.document("projection", rawdoc! { "_id": 1 }.as_bytes());
    find.raw()
}

/// A command with one statement.
fn command(verb: &str, place: &Destination, statements: &str, statement: &[u8], comment: &str) -> Result<RawDocumentBuf> {
    let mut command = Writer::with_capacity(statement.len() + 256);
    command.string(verb, &place.namespace.collection);
    command.documents(statements, [statement]);
    command.document("writeConcern", rawdoc! { "w": 1 }.as_bytes());
    if place.has_rules && verb == "update" {
        command.bool("bypassDocumentValidation", true);
    }
    command.string("comment", comment);
    command.raw()
}

/// `{_id: {$eq: ID}}`
fn by_id(kind: u8, id: &[u8]) -> Vec<u8> {
    let mut equal = Writer::default();
    equal.element(kind, "$eq", id);
    let mut query = Writer::default();
    query.document("_id", &equal.finish());
    query.finish()
}

/// `{q: {}, limit: 0}`
fn all() -> Vec<u8> {
    rawdoc! { "q": {}, "limit": 0 }.as_bytes().to_vec()
}

fn what(batch: &[Change]) -> String {
    let first = batch.first().map(|c| &c.place.namespace);
    let several = batch.iter().any(|c| Some(&c.place.namespace) != first);
    match first {
        Some(namespace) if several => format!("replaying into {namespace} and others"),
        Some(namespace) => format!("replaying into {namespace}"),
        None => "replaying".to_owned(),
    }
}

/// The error for an operation that the target refused: `applied` counts the operations up to it.
fn refused(target: &Target, batch: &[&Change], error: &DriverError) -> Option<Error> {
    code_of(error)?;
    let applied = error.server_response()?.get_i32("applied").ok()?;
    let change = batch.get(usize::try_from(applied).ok()?.checked_sub(1)?)?;
    let verb = match change.kind {
        OperationKind::Insert => "an insert",
        OperationKind::Update => "an update",
        _ => "a delete",
    };
    let what =
        format!("replaying into {}: {verb} of a document with an _id of type {}", change.place.namespace, type_name(change.id.0));
    Some(describe(target.connection.role(), &what, error.clone()))
}
