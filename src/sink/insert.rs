//! Builds raw `insert` commands from documents that are never decoded, and makes them safe to
//! repeat.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hasher as _};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bson::oid::ObjectId;
use bson::{RawDocumentBuf, rawdoc};
use mongodb::error::Error as DriverError;
use uuid::Uuid;

use super::{Attempts, CollectionSpec, Problem, Target, indexes, staging, write_concern_error, write_errors};
use crate::context::progress::Item;
use crate::error::{Error, ErrorKind, Result};
use crate::format::arrival::{self, Changes, Refusal};
use crate::format::digest::Content;
use crate::format::document::{self, Documents, Writer, type_name};
use crate::format::kind;
use crate::format::manifest::CollectionKind;
use crate::format::value::{self, Text};
use crate::mongo::failure::{code, describe, is_transient, is_transient_code};
use crate::mongo::{Version, command};
use crate::names::Namespace;

/// From this version on, servers do not check the names inside the documents that an update writes.
pub(crate) const NAMES_ARE_FREE: Version = Version(5, 0, 0);

/// The most document bytes in one command, unless a single document is larger. A command is itself
/// a document, which may have 16 MiB, plus the 16 KiB that servers allow themselves.
const COMMAND_BYTES: usize = 16 * 1024 * 1024 - 64 * 1024;
/// The most documents in one command; servers accept 100,000.
const COMMAND_DOCUMENTS: usize = 100_000;
/// How many documents to look up at a time when others, of any size, may have their `_id`s.
const LOOKED_FOR: usize = 500;
/// How many times the part of a batch that is sent at a time may be halved.
const HALVINGS: u32 = 8;
/// The hint for an `_id` that exists already, in a collection that nothing else should write to.
const REPEATS: &str = "if the input has several documents with the same _id, [[allow-duplicates]] keeps the first and reports how many it skipped; if not, something else writes to the target: stop it";
/// The limit of one command.
const INSERT_LIMIT: Duration = Duration::from_secs(90);

/// Fills one collection. Any number of inserters may fill the same one concurrently, unless it is
/// capped.
#[derive(Debug, Clone)]
pub struct Inserter {
    pub(super) target: Target,
    pub(super) spec: Arc<CollectionSpec>,
    pub(super) repeats: Repeats,
}

/// What happens to a document whose `_id` another document of the same collection has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Repeats {
    /// It is an error.
    #[default]
    Refuse,
    /// The first one stays, and the other is skipped.
    PassOver,
}

/// Documents as the target would store them, ready to send.
#[derive(Debug)]
pub struct Arranged {
    /// The documents. Each has an `_id`, which stays the same however often it is sent.
    pub frame: Vec<u8>,
    /// How they were changed for that.
    pub changes: Changes,
    /// Hashes of their `_id`s, equal if the target treats them as equal. Empty unless repeated ones
    /// are skipped.
    pub ids: Vec<u64>,
}

impl Inserter {
    /// An inserter for this collection.
    #[must_use]
    pub fn new(target: Target, spec: Arc<CollectionSpec>) -> Self {
        Self { target, spec, repeats: Repeats::Refuse }
    }

    /// What it fills.
    #[must_use]
    pub fn spec(&self) -> &CollectionSpec {
        &self.spec
    }

    /// The same with another rule for repeated `_id`s.
    #[must_use]
    pub fn with_repeats(self, repeats: Repeats) -> Self {
        Self { repeats, ..self }
    }

    /// Changes documents as a server would, so that what is inserted can be verified. A document
    /// without an `_id` gets one here, once, so that a repeated command does not add it again. An
    /// `_id` that is not the first field is moved to the front.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a time series bucket without an `_id`, since its measurements are
    /// found by it; [`ErrorKind::Damaged`].
    pub async fn arrange(&self, frame: Vec<u8>) -> Result<Arranged> {
        let (text, repeats) = (self.spec.text(), self.repeats);
        let work = move || {
            let (frame, changes) = arrival::arrange(frame, || ObjectId::new().bytes())?;
            let ids = if repeats == Repeats::PassOver { ids(&frame, text)? } else { Vec::new() };
            Ok(Arranged { frame, changes, ids })
        };
        let arranged = self.target.cpu.run(work).await?;
        if self.spec.kind == CollectionKind::TimeSeries && arranged.changes.given > 0 {
            let what = format!("{}: a bucket of the time series has no _id", self.spec.namespace);
            return Err(Error::new(ErrorKind::Refused, what)
                .hint("the _id of a bucket holds its time and cannot be made up; exclude the collection"));
        }
        Ok(arranged)
    }

    /// Inserts the documents of one frame, and returns once the server has all of them. A capped
    /// collection gets them in order. Returns the skipped documents: see [`Repeats`].
    ///
    /// # Errors
    /// [`ErrorKind::Server`] if the server refuses a document, naming the collection, the reason
    /// and the type of the `_id`; [`ErrorKind::Unreachable`], [`ErrorKind::Denied`],
    /// [`ErrorKind::Interrupted`]; [`ErrorKind::Damaged`] if the frame does not hold documents.
    pub async fn insert(&self, frame: Vec<u8>, item: &Item) -> Result<Content> {
        let (ordered, version, text) = (self.spec.keeps_order(), self.target.connection.version, self.spec.text());
        let repeats = self.repeats;
        let frame = Arc::new(frame);
        let divided = frame.clone();
        let mut passed_over = Content::default();
        let work = move || {
            let keeps_places = ordered || (repeats == Repeats::PassOver && special_repeats(&divided, text)?);
            divide(&divided, (ordered, keeps_places), version)
        };
        for batch in self.target.cpu.run(work).await? {
            // Boxed apart from the futures around it: unoptimized, all of them together need more
            // than a thread's stack.
            match batch.way {
                Way::Masked => {
                    for document in &batch.documents {
                        Box::pin(self.insert_masked(&frame[document.clone()], &mut passed_over)).await?;
                    }
                }
                _ => Box::pin(self.insert_batch(&frame, &batch, &mut passed_over)).await?,
            }
            let bytes: usize = batch.documents.iter().map(Range::len).sum();
            item.add(batch.documents.len() as u64, bytes as u64);
        }
        Ok(passed_over)
    }

    /// Sends a batch until all of it is in the collection. If the outcome of an attempt is unknown,
    /// or a document is reported as existing, the existing documents are read back first: an
    /// attempt whose reply was lost may have written them, or an import that was just killed. After
    /// a failure, less is sent at a time: on a link that keeps breaking, a small command may get
    /// through.
    async fn insert_batch(&self, frame: &Arc<Vec<u8>>, batch: &Batch, passed_over: &mut Content) -> Result<()> {
        let what = format!("inserting into {}", self.spec.namespace);
        let mut attempts = Attempts::new(&self.target, &what);
        let mut left = batch.documents.clone();
        let mut halvings = 0;
        let mut told_of_mixed_schema = false;
        // Whether the outcome of every attempt is known.
        let mut is_certain = true;
        while !left.is_empty() {
            let part = (left.len() >> halvings).max(1);
            let command = self.command(frame, &left[..part], batch.way).await?;
            let mut duplicates: Vec<(Range<usize>, Problem)> = Vec::new();
            let (mut mixed, was_certain) = (false, is_certain);
            match self.target.try_run(&self.spec.place.database, command, Some(INSERT_LIMIT)).await? {
                Ok(reply) => {
                    let (mut problems, mut transient) = (write_errors(&reply), write_concern_error(&reply));
                    mixed = problems.iter().any(|p| p.code == code::MIXED_SCHEMA) && !told_of_mixed_schema;
                    let early = self.spec.indexed.load(Ordering::Relaxed);
                    let mut looks_again = false;
                    if let Some(problem) = problems.iter().find(|p| early && p.may_be_of_an_index()) {
                        // Without indexes, it shows whether an index was the reason. Documents
                        // written meanwhile are looked up below.
                        match indexes::take_back(&self.target, &self.spec).await {
                            Err(e) if e.kind() == ErrorKind::Denied => {
                                let document = left.get(problem.index).cloned().unwrap_or_default();
                                return Err(self.refused(&what, problem, &frame[document]));
                            }
                            taken_back => taken_back?,
                        }
                        is_certain = false;
                        looks_again = true;
                        problems.clear();
                    }
                    if problems.is_empty() && transient.is_none() && !looks_again {
                        left.drain(..part);
                        attempts.progress();
                        continue;
                    }
                    for problem in problems {
                        let document = left.get(problem.index).cloned().unwrap_or_default();
                        match problem.code {
                            code::DUPLICATE_KEY => duplicates.push((document, problem)),
                            code::COLLECTION_UUID_MISMATCH => return Err(taken_away(&self.spec.namespace)),
                            code if is_transient_code(code) => transient = Some(problem),
                            // Sent again once the target accepts it.
                            code::MIXED_SCHEMA if mixed => {}
                            _ => return Err(self.refused(&what, &problem, &frame[document])),
                        }
                    }
                    if mixed {
                        staging::allow_mixed_schema(&self.target, &self.spec).await?;
                        told_of_mixed_schema = true;
                    }
                    if let Some(problem) = transient {
                        is_certain = false;
                        attempts.again_after(problem).await?;
                        halvings = (halvings + 1).min(HALVINGS);
                    }
                }
                Err(e) if !is_transient(&e) => {
                    let error = describe(self.target.connection.role(), &what, e);
                    return Err(self.blame(error, frame, &left[..part]));
                }
                Err(e) => {
                    is_certain = false;
                    attempts.again(e).await?;
                    halvings = (halvings + 1).min(HALVINGS);
                }
            }
            // An upsert of an existing document must not be sent, so all remaining ones are looked
            // up first.
            let is_upsert = matches!(batch.way, Way::Upsert { .. }) && self.repeats == Repeats::Refuse;
            let mut tried: Vec<Range<usize>> = left.drain(..if is_upsert { left.len() } else { part }).collect();
            if self.repeats == Repeats::PassOver && was_certain && !duplicates.is_empty() {
                // No earlier attempt can have written them, so they repeat.
                duplicates.iter().for_each(|(document, _)| passed_over.add(&frame[document.clone()]));
                if is_certain && !mixed {
                    // The reply is complete: documents not refused are stored, up to where an
                    // ordered command stopped.
                    let stopped = duplicates.iter().map(|(_, problem)| problem.index).min().filter(|_| batch.way.is_ordered());
                    let rest = stopped.map_or_else(Vec::new, |at| tried.split_off((at + 1).min(tried.len())));
                    left.splice(..0, rest);
                    attempts.progress();
                    continue;
                }
                let repeated: HashSet<usize> = duplicates.drain(..).map(|(document, _)| document.start).collect();
                tried.retain(|place| !repeated.contains(&place.start));
            }
            if self.spec.unread {
                // Documents that an earlier attempt may have written and that are reported as
                // existing do exist.
                if let (true, Some((document, problem))) = (was_certain, duplicates.first()) {
                    return Err(self.refused(&what, problem, &frame[document.clone()]));
                }
                let there: HashSet<usize> = duplicates.iter().map(|(document, _)| document.start).collect();
                left.splice(..0, tried.into_iter().filter(|place| !there.contains(&place.start)));
                continue;
            }
            let mut missing = Vec::new();
            let looked_for = if self.repeats == Repeats::PassOver { LOOKED_FOR } else { tried.len().max(1) };
            for places in tried.chunks(looked_for) {
                missing.extend(loop {
                    match self.missing(frame, places, &what).await? {
                        Ok(missing) => break missing,
                        Err(e) => attempts.again(e).await?,
                    }
                });
            }
            // A document reported as existing that is absent: another document of the backup has an
            // equal `_id`.
            let absent: HashSet<usize> = missing.iter().map(|place| place.start).collect();
            let mut repeated = HashSet::new();
            for (document, problem) in duplicates.into_iter().filter(|(document, _)| absent.contains(&document.start)) {
                if self.repeats == Repeats::Refuse {
                    return Err(self.refused(&what, &problem, &frame[document]));
                }
                passed_over.add(&frame[document.clone()]);
                repeated.insert(document.start);
            }
            missing.retain(|place| !repeated.contains(&place.start));
            left.splice(..0, missing);
        }
        Ok(())
    }

    fn refused(&self, what: &str, problem: &Problem, document: &[u8]) -> Error {
        let (place, name) = (self.spec.place.to_string(), self.spec.namespace.to_string());
        let error = refused(what, problem, document).reworded(&place, &name);
        if problem.code == code::DUPLICATE_KEY && self.is_staging() { error.hint(REPEATS) } else { error }
    }

    /// The error of a command that was refused as a whole. If no server accepts one of its
    /// documents, that one is blamed.
    fn blame(&self, error: Error, frame: &[u8], documents: &[Range<usize>]) -> Error {
        match documents.iter().find_map(|document| refusal(&frame[document.clone()])) {
            None => error,
            Some(refusal) => {
                let what = format!("{}: a document with {refusal} was refused", self.spec.namespace);
                Error::new(error.kind(), what).hint(never_taken(refusal)).cause(error)
            }
        }
    }

    /// Whether the collection being filled belongs to this import alone.
    fn is_staging(&self) -> bool {
        self.spec.place != self.spec.namespace
    }

    async fn command(&self, frame: &Arc<Vec<u8>>, documents: &[Range<usize>], way: Way) -> Result<RawDocumentBuf> {
        let (frame, documents, spec) = (frame.clone(), documents.to_vec(), self.spec.clone());
        let uuid = spec.uuid.filter(|_| self.target.checks_uuids);
        let repeats = self.repeats;
        self.target.cpu.run(move || build(&spec, uuid, &frame, &documents, (way, repeats))).await
    }

    /// Those of the documents that do not exist yet. One that exists with other content is an
    /// error.
    async fn missing(
        &self,
        frame: &[u8],
        documents: &[Range<usize>],
        what: &str,
    ) -> Result<Result<Vec<Range<usize>>, DriverError>> {
        let mut find = Writer::default();
        find.string("find", &self.spec.data_collection());
        find.document("filter", &document::by_ids(documents.iter().map(|document| &frame[document.clone()]))?);
        let database = self.target.connection.database(&self.spec.place.database);
        let found = match self.target.unless_stopped(command::run_cursor(&database, find.raw()?)).await? {
            Ok((found, _)) => found,
            Err(e) => return Ok(Err(e)),
        };
        let wanted: HashSet<&[u8]> = documents.iter().map(|d| &frame[d.clone()]).collect();
        let other = found.iter().find(|f| !wanted.contains(f.as_bytes()));
        if let (Some(other), Repeats::Refuse) = (other, self.repeats) {
            let kind = document::id(other.as_bytes())?.map_or("none", |(kind, _)| type_name(kind));
            return Err(Error::new(
                ErrorKind::Server,
                format!("{what}: a document with the same _id ({kind}) but other content already exists"),
            )
            .hint(if self.is_staging() {
                REPEATS
            } else {
                "stop other writers to the target, and run the import again"
            }));
        }
        let there: HashSet<&[u8]> = found.iter().map(|f| f.as_bytes()).collect();
        Ok(Ok(documents.iter().filter(|d| !there.contains(&frame[(*d).clone()])).cloned().collect()))
    }
}

/// How documents are written so that they arrive unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `insert`.
    Insert { ordered: bool },
    /// `insert` with the option to keep `Timestamp(0, 0)`.
    InsertEmptyTimestamps { ordered: bool },
    /// For servers without that option: an upsert whose pipeline makes the whole document from a
    /// literal. It keeps every byte, including odd names, repeated names and deprecated types
    /// (tried on 6.0.5). The document must not exist yet: an update of an existing one computes the
    /// difference, and a repeated name in it makes a server abort.
    Upsert { ordered: bool },
    /// For servers that would refuse the names in that upsert: one by one, in several steps.
    Masked,
}

impl Way {
    fn is_ordered(self) -> bool {
        match self {
            Self::Insert { ordered } | Self::InsertEmptyTimestamps { ordered } | Self::Upsert { ordered } => ordered,
            Self::Masked => true,
        }
    }
}

/// The documents of one command, as ranges in their frame.
#[derive(Debug)]
struct Batch {
    documents: Vec<Range<usize>>,
    way: Way,
}

/// Whether the server has the field `bypassEmptyTsReplacement`.
pub(super) fn keeps_empty_timestamps(version: Version) -> bool {
    match version {
        Version(8.., _, _) => true,
        Version(7, 0, patch) => patch >= 13,
        Version(6, 0, patch) => patch >= 17,
        Version(5, 0, patch) => patch >= 29,
        _ => false,
    }
}

/// Divides a frame into commands. Documents that need another command come after the others, unless
/// all keep their places.
fn divide(frame: &[u8], (ordered, keeps_places): (bool, bool), version: Version) -> Result<Vec<Batch>> {
    let mut plain: Vec<Batch> = Vec::new();
    let mut special: Vec<Batch> = Vec::new();
    let mut at = 0;
    let (mut plain_room, mut special_room) = (0, 0);
    for document in Documents::of(frame) {
        let document = document?;
        let place = at..at + document.len();
        at = place.end;
        let way = match document::has_empty_timestamp(document)? {
            false => Way::Insert { ordered },
            true if keeps_empty_timestamps(version) => Way::InsertEmptyTimestamps { ordered },
            true if version < NAMES_ARE_FREE && document::has_operator_names(document)? => Way::Masked,
            true => Way::Upsert { ordered },
        };
        // Unordered, they are sent separately; ordered, each stays in its place.
        let (batches, room) = match way {
            Way::Insert { .. } => (&mut plain, &mut plain_room),
            _ if keeps_places => (&mut plain, &mut plain_room),
            _ => (&mut special, &mut special_room),
        };
        // An upsert holds the `_id` twice, and more field names.
        let size = place.len() + if matches!(way, Way::Upsert { .. }) { place.len().min(2048) + 160 } else { 16 };
        match batches.last_mut() {
            Some(batch) if batch.way == way && size <= *room && batch.documents.len() < COMMAND_DOCUMENTS => {
                batch.documents.push(place);
            }
            _ => {
                batches.push(Batch { documents: vec![place], way });
                *room = COMMAND_BYTES;
            }
        }
        *room = room.saturating_sub(size);
    }
    plain.append(&mut special);
    Ok(plain)
}

/// The commands that insert a frame's documents, as [`Inserter::insert`] sends them to a server of
/// this version. For benchmarks without a server.
///
/// # Errors
/// [`ErrorKind::Damaged`] if the frame does not hold documents; [`ErrorKind::Refused`] if a
/// document cannot be sent as it is.
#[doc(hidden)]
pub fn commands(spec: &CollectionSpec, version: Version, frame: &[u8]) -> Result<Vec<RawDocumentBuf>> {
    let ordered = spec.keeps_order();
    let batches = divide(frame, (ordered, ordered), version)?;
    batches.iter().map(|b| build(spec, spec.uuid, frame, &b.documents, (b.way, Repeats::Refuse))).collect()
}

/// The command that writes these documents.
fn build(
    spec: &CollectionSpec,
    uuid: Option<Uuid>,
    frame: &[u8],
    documents: &[Range<usize>],
    (way, repeats): (Way, Repeats),
) -> Result<RawDocumentBuf> {
    let bytes: usize = documents.iter().map(|d| d.len() + 8).sum();
    let mut command = Writer::with_capacity(bytes + 256);
    let (verb, ordered) = match way {
        Way::Insert { ordered } | Way::InsertEmptyTimestamps { ordered } => ("insert", ordered),
        Way::Upsert { ordered } => ("update", ordered),
        Way::Masked => return Err(Error::new(ErrorKind::Internal, "a document that needs several commands was put into one")),
    };
    command.string(verb, &spec.data_collection());
    // A late command must not recreate the collection after an import was stopped and its staging
    // dropped.
    if let Some(uuid) = uuid {
        command.uuid("collectionUUID", uuid.as_bytes());
    }
    command.bool("ordered", ordered);
    let concern = match spec.unread {
        true => rawdoc! { "w": "majority", "j": true, "wtimeout": super::MAJORITY_LIMIT },
        false => rawdoc! { "w": 1, "j": false },
    };
    command.document("writeConcern", concern.as_bytes());
    // This needs a right of its own, so it is only requested if necessary.
    if spec.has_rules {
        command.bool("bypassDocumentValidation", true);
    }
    if matches!(way, Way::InsertEmptyTimestamps { .. }) {
        command.bool("bypassEmptyTsReplacement", true);
    }
    if matches!(way, Way::Upsert { .. }) {
        let updates = documents.iter().map(|d| upsert(&frame[d.clone()], repeats)).collect::<Result<Vec<_>>>()?;
        command.documents("updates", updates.iter().map(Vec::as_slice));
    } else {
        command.documents("documents", documents.iter().map(|d| &frame[d.clone()]));
    }
    command.raw()
}

/// `{q: {_id: {$eq: ID}}, u: [{$replaceWith: {$literal: DOCUMENT}}], upsert: true}`. If an existing
/// document must stay, the query matches nothing, and the server finds the `_id` in use.
pub(crate) fn upsert(document: &[u8], repeats: Repeats) -> Result<Vec<u8>> {
    let (kind, id) = document::id(document)?.ok_or_else(|| {
        Error::new(ErrorKind::Refused, "a document without _id holds Timestamp(0, 0), which this server would replace")
            .hint("import into a newer server: 8.0, or the newest patch of 5.0, 6.0 or 7.0")
    })?;
    let mut equal = Writer::default();
    equal.element(kind, "$eq", id);
    let mut query = Writer::default();
    query.document("_id", &equal.finish());
    if repeats == Repeats::PassOver {
        query.element(kind::INT32, "$alwaysFalse", &1i32.to_le_bytes());
    }
    let mut literal = Writer::with_capacity(document.len() + 32);
    literal.document("$literal", document);
    let mut stage = Writer::with_capacity(document.len() + 64);
    stage.document("$replaceWith", &literal.finish());
    let stage = stage.finish();
    let mut update = Writer::with_capacity(stage.len() + id.len() + 96);
    update.document("q", &query.finish());
    update.documents("u", [stage.as_slice()]);
    update.bool("upsert", true);
    Ok(update.finish())
}

fn taken_away(namespace: &Namespace) -> Error {
    Error::new(ErrorKind::Refused, format!("the staging collection of {namespace} was dropped or renamed while it was filled"))
        .hint("something else drops collections in the target: stop it, and run the import again")
}

pub(super) fn refused(what: &str, problem: &Problem, document: &[u8]) -> Error {
    let id = document::id(document).ok().flatten().map_or("no _id", |(kind, _)| type_name(kind));
    let message = problem.message.chars().take(400).collect();
    let error = Problem { message, ..problem.clone() }.error(&format!("{what}: a document with an _id of type {id} was refused"));
    match refusal(document) {
        Some(refusal) => error.hint(never_taken(refusal)),
        None => error,
    }
}

/// Why no server accepts this document; `None` if that is not the reason.
fn refusal(document: &[u8]) -> Option<Refusal> {
    let shape = document::shape(document).ok()?;
    Refusal::of(document.len(), &shape).ok()?
}

fn never_taken(refusal: Refusal) -> String {
    format!(
        "no server accepts a document with {refusal}: exclude the collection ([[exclude]]) or repair the file; `bsonvault adopt` and [[`bsonvault verify deep`]] count \
         such documents"
    )
}

/// The hashes of the `_id`s of a frame, in order.
fn ids(frame: &[u8], text: Text) -> Result<Vec<u64>> {
    let mut ids = Vec::new();
    for document in Documents::of(frame) {
        if let Some((kind, value)) = document::id(document?)? {
            let mut hash = DefaultHasher::new();
            value::hash(kind, value, text, &mut hash)?;
            ids.push(hash.finish());
        }
    }
    Ok(ids)
}

/// Whether a document that may need another command has a repeated `_id` in this frame. Then all
/// must keep their places, so that the first one stays.
fn special_repeats(frame: &[u8], text: Text) -> Result<bool> {
    let mut special = Vec::new();
    for document in Documents::of(frame) {
        special.push(document::has_empty_timestamp(document?)?);
    }
    if !special.contains(&true) {
        return Ok(false);
    }
    let ids = ids(frame, text)?;
    let mut counts: HashMap<u64, u32> = HashMap::new();
    ids.iter().for_each(|id| *counts.entry(*id).or_default() += 1);
    Ok(ids.iter().zip(special).any(|(id, special)| special && counts.get(id).is_some_and(|count| *count > 1)))
}
