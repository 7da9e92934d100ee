//! Reads one range: passes raw batches on as they arrive, while the next one is on its way, and
//! resumes if the cursor dies.

use std::time::Duration;

use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::{RawBsonRef, RawDocumentBuf, Timestamp, rawdoc};
use futures::TryStreamExt as _;
use mongodb::error::Error as DriverError;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::discover::{CollectionInfo, CollectionState, Size, whereabouts};
use super::ranges::{IdValue, Range, all_of, array, comparison};
use crate::context::memory::{MemoryBudget, MemoryPermit};
use crate::error::{Error, ErrorKind};
use crate::format::document::{Elements, Writer};
use crate::format::kind;
use crate::format::manifest::Topology;
use crate::mongo::failure::{code, code_of, describe, is_transient};
use crate::mongo::retry::{self, Retry};
use crate::mongo::{Connection, Version, command};
use crate::names::Namespace;
use crate::pipeline::pace::RateLimiter;
use crate::pipeline::write::Documents;

/// How long one batch may take to arrive. A batch has 16 MiB at most.
pub(crate) const BATCH_LIMIT: Duration = Duration::from_secs(90);

/// How many times batches are halved while none arrives: on a link that keeps breaking, a small one
/// may get through.
const HALVINGS: u32 = 6;

/// The minimum to take from the memory budget for a reply.
const SMALLEST_SHARE: u64 = 64 * 1024;

/// The largest reply of a server.
const LARGEST_BATCH: u64 = 16 * 1024 * 1024;

/// The documents per batch if small replies are wanted and the size of documents is unknown.
const CAREFUL_DOCUMENTS: u32 = 500;

/// How many times a range that can only be read from its start may begin again.
const RESTARTS: u32 = 20;

/// What to read, and how.
#[derive(Debug, Clone)]
pub struct Scan {
    /// The source.
    pub connection: Connection,
    /// The collection.
    pub collection: CollectionInfo,
    /// The present namespace of its documents; in the listing, it was [`CollectionInfo::data`].
    pub data: Namespace,
    /// Its approximate size, if known.
    pub size: Option<Size>,
    /// The part to read.
    pub range: Range,
    /// Reads only documents that match this.
    pub filter: Option<RawDocumentBuf>,
    /// Reads nothing but the `_id` of each document.
    pub only_ids: bool,
    /// The cluster time to read at; by default, the newest committed data.
    pub snapshot: Option<Timestamp>,
    /// Without a snapshot: read nothing older than this.
    pub not_before: Option<Timestamp>,
    /// The approximate bytes to ask for at a time.
    pub reply_bytes: u64,
    /// The rate limit.
    pub pace: RateLimiter,
}

/// What a scan passes on.
#[derive(Debug)]
pub enum Event {
    /// The next documents, and their share of the memory budget.
    Batch(Batch, MemoryPermit),
    /// The range could not be resumed and begins again: everything passed on before is void.
    Restart,
}

/// One reply of the server, its documents unchanged.
#[derive(Debug)]
pub struct Batch {
    reply: RawBatch,
    skip: usize,
    take: usize,
}

impl Documents for Batch {
    fn array(&self) -> Result<&[u8], Error> {
        command::batch_array(&self.reply).map_err(|e| Error::damaged(format!("a reply of the source has no batch: {e}")))
    }

    fn counts(&self, place: usize) -> bool {
        (self.skip..self.skip + self.take).contains(&place)
    }
}

/// Why a scan ended before its range did.
#[derive(Debug)]
pub enum Failure {
    /// The server no longer has the history of the snapshot time (code 239).
    TooOld(Error),
    /// The collection is not under its name any more, or its catalog entry is newer than the
    /// snapshot (26, 175, 246, 361).
    Moved(Error),
    /// Nobody receives any more, or a stop was requested.
    Stopped,
    /// Anything else.
    Other(Error),
}

/// The progress of a scan.
#[derive(Debug, Default, Clone, PartialEq)]
struct Position {
    handed_on: bool,
    /// The last `_id` passed on, if the range is read in the order of `_id`.
    last_id: Option<IdValue>,
    /// Where a natural scan resumes, and the only server process that understands this.
    token: Option<(RawDocumentBuf, ObjectId)>,
    /// The operation time of the last reply.
    end: Option<Timestamp>,
    /// For a capped collection: the newest document when reading began, where it ends. Concurrent
    /// writes overwrite the oldest documents, so with them the result would not fit into the
    /// collection again.
    until: Option<IdValue>,
    /// That document was passed on.
    complete: bool,
    /// The end of a range without an upper bound, if it is not read at one snapshot time.
    last: Option<Last>,
    /// The bytes of the replies so far.
    bytes: u64,
}

/// The largest `_id`s of a collection when reading began. Without a snapshot time, a cursor would
/// follow later writes forever if they arrive faster than it may read.
#[derive(Debug, Clone, PartialEq)]
struct Last {
    /// The largest one apart from MaxKey, which is larger than any; `None` if there was no other
    /// document.
    id: Option<IdValue>,
}

/// Why one cursor ended early.
enum Ended {
    Stopped,
    Moved,
    Driver(DriverError),
}

impl From<DriverError> for Ended {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

impl Scan {
    /// Reads the range to its end and returns the operation time of the last reply. After a broken
    /// connection, a lost cursor or a change of primary, it waits and retries for up to two minutes
    /// without progress. Then it resumes after the last document passed on.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn run(
        &self,
        budget: &MemoryBudget,
        to: &mpsc::Sender<Event>,
        stop: &CancellationToken,
    ) -> Result<Option<Timestamp>, Failure> {
        tokio::select! {
            () = stop.cancelled() => Err(Failure::Stopped),
            end = self.read_all(budget, to) => end,
        }
    }

    async fn read_all(&self, budget: &MemoryBudget, to: &mpsc::Sender<Event>) -> Result<Option<Timestamp>, Failure> {
        let mut position = Position::default();
        let mut retry = Retry::within(retry::STEP);
        let (mut restarts, mut halvings) = (0, 0);
        let mut by_uuid = self.can_name_uuid();
        // Why no member can be read from, if so.
        let mut nobody = None;
        loop {
            let before = position.clone();
            let failed = match self.read(&mut position, halvings, by_uuid, budget, to).await {
                Ok(()) => return Ok(position.end),
                Err(Ended::Stopped) => return Err(Failure::Stopped),
                Err(Ended::Moved) => return Err(Failure::Moved(Error::new(ErrorKind::Server, self.what()))),
                Err(Ended::Driver(failed)) => failed,
            };
            let lost_position = match code_of(&failed) {
                Some(code::SNAPSHOT_TOO_OLD) => return Err(Failure::TooOld(self.describe(failed))),
                Some(
                    code::NAMESPACE_NOT_FOUND
                    | code::QUERY_PLAN_KILLED
                    | code::SNAPSHOT_UNAVAILABLE
                    | code::COLLECTION_UUID_MISMATCH,
                ) => return Err(Failure::Moved(self.describe(failed))),
                // A 6.0 server whose feature compatibility version is still 5.0.
                Some(code::INVALID_OPTIONS) if by_uuid => {
                    by_uuid = false;
                    continue;
                }
                Some(code::KEY_NOT_FOUND) => self.range == Range::Natural && position.token.is_some(),
                other => other == Some(code::CAPPED_POSITION_LOST),
            };
            if position == before {
                halvings = (halvings + 1).min(HALVINGS);
            } else {
                retry.progress();
            }
            let Some(pause) = retry.pause().filter(|_| is_transient(&failed) || lost_position) else {
                return Err(Failure::Other(nobody.unwrap_or_else(|| self.describe(failed))));
            };
            tracing::info!("{} was interrupted and continues: {failed}", self.what());
            tokio::time::sleep(pause).await;
            nobody = self.connection.reconsider().await.err().map(|e| e.context(self.what()));
            if position.handed_on && (lost_position || !self.can_resume(&position).await) {
                restarts += 1;
                if restarts > RESTARTS {
                    let once = "it can only be read in one pass, which was interrupted too often";
                    return Err(Failure::Other(self.describe(failed).context(once)));
                }
                position = Position::default();
                to.send(Event::Restart).await.map_err(|_| Failure::Stopped)?;
            }
        }
    }

    /// Whether the next cursor can start after what was passed on. A server that does not answer
    /// now may do so later.
    async fn can_resume(&self, position: &Position) -> bool {
        if self.filter.is_some() {
            return false;
        }
        match (&self.range, &position.token) {
            (Range::Natural, Some((_, process))) => self.process().await.map_or(true, |now| now.as_ref() == Some(process)),
            (Range::Natural, None) => false,
            _ => position.last_id.is_some(),
        }
    }

    /// Reads with one cursor, starting at `position`.
    async fn read(
        &self,
        position: &mut Position,
        halvings: u32,
        by_uuid: bool,
        budget: &MemoryBudget,
        to: &mpsc::Sender<Event>,
    ) -> Result<(), Ended> {
        let with_token = self.range == Range::Natural
            && self.filter.is_none()
            && self.is_large()
            && self.connection.topology != Topology::Sharded;
        let process = if with_token { self.process().await? } else { None };
        if position.token.as_ref().is_some_and(|(_, given)| process != Some(*given)) {
            // Only the process that issued a token understands it; without the token, all would be
            // read again.
            return Err(command::broken("a different server answers than the one that was read from").into());
        }
        if self.collection.is_capped() && position.until.is_none() {
            position.until = self.newest().await?;
        }
        if self.is_open() && position.last.is_none() {
            position.last = self.last().await?;
        }
        // The first document after resuming may be a known one: a batch with it alone would be
        // empty.
        let least = if position.last_id.is_some() { 2 } else { 1 };
        let batch = self.batch_documents().map(|documents| (documents >> halvings).max(least));
        let mut expected = self.expected_bytes();
        let mut cursor: Option<RawBatchCursor> = None;
        let unlimited = RateLimiter::default();
        let mut skip_id = position.last_id.clone().filter(|_| !self.skips(position));
        loop {
            // The driver briefly holds a reply twice.
            let mut share = budget.take(2 * expected).await;
            let pace = if self.chases(position) { &unlimited } else { &self.pace };
            let asked = pace.ask(expected.min(self.reply_bytes)).await;
            let opening = cursor.is_none();
            let next = async {
                match &mut cursor {
                    Some(cursor) => cursor.try_next().await,
                    none => none.insert(self.open(position, batch, process.is_some(), by_uuid).await?).try_next().await,
                }
            };
            let Some(reply) = command::bounded(BATCH_LIMIT, next).await? else { return Ok(()) };
            if opening {
                if !by_uuid {
                    self.confirm_identity().await?;
                }
                if process.is_some() && self.process().await? != process {
                    return Err(command::broken("the primary changed while a cursor was opened").into());
                }
            }
            let bytes = reply.as_raw_document().as_bytes().len() as u64;
            share.resize(bytes);
            let chased = self.chases(position);
            position.bytes += bytes;
            if self.chases(position) && !chased && self.pace.is_held_back() {
                tracing::warn!(
                    "{}: it grows faster than the rate limit allows; the rest of it is read without the limit",
                    self.what()
                );
            }
            let took = asked.came(bytes);
            expected = (bytes + bytes / 4).clamp(SMALLEST_SHARE, LARGEST_BATCH);
            if let Some(batch) = position.advance(reply, process, skip_id.take())? {
                to.send(Event::Batch(batch, share)).await.map_err(|_| Ended::Stopped)?;
                pace.pause_after(took).await;
            }
            if position.complete {
                return Ok(());
            }
        }
    }

    /// Opens a cursor after `position`.
    async fn open(
        &self,
        position: &Position,
        batch: Option<u32>,
        with_token: bool,
        by_uuid: bool,
    ) -> Result<RawBatchCursor, DriverError> {
        let data = &self.data;
        let mut find = rawdoc! { "find": data.collection.as_str() };
        match (&self.range, &self.filter) {
            // The server decides how to find them, since it may have an index.
            (_, Some(filter)) => {
                let bound = position.last.as_ref().map(|last| all_of(&[last.expression()]));
                let parts: Vec<_> = [filter.as_bytes().to_vec()].into_iter().chain(bound).collect();
                find.append(cstr!("filter"), raw(Writer::default().with(kind::ARRAY, b"$and", &array(&parts)).finish())?);
            }
            (Range::Natural, None) => {
                find.append(cstr!("hint"), rawdoc! { "$natural": 1 });
                if let Some(last) = &position.last {
                    find.append(cstr!("filter"), raw(all_of(&[last.expression()]))?);
                }
                if with_token {
                    find.append(cstr!("$_requestResumeToken"), true);
                    if let Some((token, _)) = &position.token {
                        find.append(cstr!("$_resumeAfter"), token.clone());
                    }
                }
            }
            (Range::Expression { lower, upper }, None) => {
                find.append(cstr!("hint"), rawdoc! { "_id": 1 });
                let from = match &position.last_id {
                    Some(last) => Some(comparison(b"$gt", last)),
                    None => lower.as_ref().map(|id| comparison(b"$gte", id)),
                };
                let to = upper.as_ref().map(|id| comparison(b"$lt", id)).or(position.last.as_ref().map(Last::expression));
                let parts: Vec<_> = from.into_iter().chain(to).collect();
                if !parts.is_empty() {
                    find.append(cstr!("filter"), raw(all_of(&parts))?);
                }
            }
            (Range::Bounds { lower, upper }, None) => {
                find.append(cstr!("hint"), rawdoc! { "_id": 1 });
                // `min` includes its bound: the server skips the last read document, or returns it
                // again and it is skipped here. Without `max`, servers differ in whether MaxKey is
                // included; with it, it never is.
                if self.skips(position) {
                    find.append(cstr!("skip"), 1_i64);
                }
                if let Some(from) = position.last_id.as_ref().or(lower.as_ref()) {
                    find.append(cstr!("min"), raw(Writer::default().with(from.kind, b"_id", &from.value).finish())?);
                }
                match upper {
                    Some(to) => find.append(cstr!("max"), raw(Writer::default().with(to.kind, b"_id", &to.value).finish())?),
                    None => find.append(cstr!("max"), rawdoc! { "_id": RawBsonRef::MaxKey }),
                }
                if let (None, Some(last)) = (upper, &position.last) {
                    find.append(cstr!("filter"), raw(all_of(&[last.expression()]))?);
                }
            }
            (Range::MaxKey, None) => find.append(cstr!("filter"), rawdoc! { "_id": RawBsonRef::MaxKey }),
        }
        if self.only_ids {
            find.append(cstr!("projection"), rawdoc! { "_id": 1 });
        }
        if let (Some(uuid), true) = (self.collection.uuid, by_uuid) {
            let uuid = bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: uuid.as_bytes().to_vec() };
            find.append(cstr!("collectionUUID"), uuid);
        }
        if let Some(batch) = batch {
            find.append(cstr!("batchSize"), i64::from(batch));
        }
        find.append(cstr!("readConcern"), self.read_concern());
        command::open_cursor(&self.connection.documents(&data.database), find, batch).await
    }

    /// Whether the server should skip the last read document: in a snapshot, it still exists.
    fn skips(&self, position: &Position) -> bool {
        matches!(self.range, Range::Bounds { .. }) && self.snapshot.is_some() && position.last_id.is_some()
    }

    fn read_concern(&self) -> RawDocumentBuf {
        match (self.snapshot, self.not_before) {
            (Some(time), _) => rawdoc! { "level": "snapshot", "atClusterTime": time },
            (None, Some(time)) => rawdoc! { "level": "majority", "afterClusterTime": time },
            (None, None) if self.connection.topology == Topology::Standalone => rawdoc! { "level": "local" },
            (None, None) => rawdoc! { "level": "majority" },
        }
    }

    /// Whether `find` itself checks that the name still belongs to the listed collection.
    fn can_name_uuid(&self) -> bool {
        self.connection.version >= Version(6, 0, 0) && self.connection.topology != Topology::Sharded
    }

    /// Checks this after a cursor is opened, if `find` does not: from then on, the cursor keeps the
    /// collection.
    async fn confirm_identity(&self) -> Result<(), Ended> {
        if self.collection.uuid.is_none() {
            return Ok(());
        }
        match whereabouts(&self.connection, &self.collection, &self.data).await {
            Ok(CollectionState::Unmoved) => Ok(()),
            Ok(_) => Err(Ended::Moved),
            Err(e) => Err(command::broken(&e.to_string()).into()),
        }
    }

    /// Whether concurrent writes with larger and larger `_id`s would belong to the range. Capped
    /// collections end at their newest document.
    fn is_open(&self) -> bool {
        let without_end = match &self.range {
            Range::Natural => true,
            Range::Expression { upper, .. } | Range::Bounds { upper, .. } => upper.is_none(),
            Range::MaxKey => false,
        };
        without_end && self.snapshot.is_none() && !self.collection.is_capped()
    }

    /// The largest `_id` now, in the collection's own order; `None` if it cannot be sent back.
    async fn last(&self) -> Result<Option<Last>, DriverError> {
        // Collections stored by `_id` are not sorted again: before 5.3, servers would read all of
        // them for that.
        let sort = if self.collection.is_clustered() {
            rawdoc! { "$natural": -1 }
        } else {
            rawdoc! { "_id": -1 }
        };
        let find = rawdoc! {
            "find": self.data.collection.as_str(), "sort": sort, "limit": 2, "projection": { "_id": 1 },
            "readConcern": self.read_concern(),
        };
        let (found, _) = command::run_cursor(&self.connection.documents(&self.data.database), find).await?;
        let id = found.iter().filter_map(|document| IdValue::of(document.as_bytes())).find(|id| id.kind != kind::MAX_KEY);
        Ok(id.as_ref().is_none_or(IdValue::can_be_sent).then_some(Last { id }))
    }

    /// The `_id` of the newest document.
    async fn newest(&self) -> Result<Option<IdValue>, DriverError> {
        let data = &self.data;
        let find = rawdoc! {
            "find": data.collection.as_str(), "sort": { "$natural": -1 }, "limit": 1, "projection": { "_id": 1 },
            "readConcern": self.read_concern(),
        };
        let (found, _) = command::run_cursor(&self.connection.documents(&data.database), find).await?;
        Ok(found.first().and_then(|document| IdValue::of(document.as_bytes())))
    }

    /// The number of documents per batch to get about the requested bytes; `None` leaves it to the
    /// server if sizes are unknown.
    fn batch_documents(&self) -> Option<u32> {
        let Some(size) = self.size.filter(|s| s.documents > 0) else {
            return (self.reply_bytes < LARGEST_BATCH / 8).then_some(CAREFUL_DOCUMENTS);
        };
        let each = (size.bytes / size.documents).max(1);
        u32::try_from((self.reply_bytes / each).clamp(1, 100_000)).ok()
    }

    fn expected_bytes(&self) -> u64 {
        let expected = match (self.size, self.batch_documents()) {
            (Some(size), Some(documents)) => (size.bytes / size.documents.max(1) * u64::from(documents)).min(size.bytes) * 5 / 4,
            (Some(_), None) => 0,
            (None, _) => LARGEST_BATCH,
        };
        expected.clamp(SMALLEST_SHARE, LARGEST_BATCH)
    }

    /// Whether more has arrived than the whole collection held when reading began. Without a
    /// snapshot, a cursor meets writes before its end. If these come just before the cursor, faster
    /// than its rate limit, it would follow them forever. So from here on it reads as fast as it
    /// can, like the oplog tail, which must also keep up with writes.
    fn chases(&self, position: &Position) -> bool {
        self.snapshot.is_none() && self.size.is_some_and(|size| position.bytes > size.bytes + size.bytes / 4 + LARGEST_BATCH / 64)
    }

    fn is_large(&self) -> bool {
        self.size.is_none_or(|s| s.bytes >= LARGEST_BATCH)
    }

    /// The ID of the server process that answers now.
    async fn process(&self) -> Result<Option<ObjectId>, DriverError> {
        let hello = command::run(&self.connection.documents("admin"), rawdoc! { "hello": 1 }).await?;
        Ok(hello.get_document("topologyVersion").and_then(|v| v.get_object_id("processId")).ok())
    }

    fn what(&self) -> String {
        format!("reading {}", self.collection.namespace)
    }

    fn describe(&self, failed: DriverError) -> Error {
        describe(self.connection.role(), &self.what(), failed)
    }
}

impl Position {
    /// Moves past a reply, and returns the part of it that counts; `None` if it has no documents.
    fn advance(
        &mut self,
        reply: RawBatch,
        process: Option<ObjectId>,
        skip_id: Option<IdValue>,
    ) -> Result<Option<Batch>, DriverError> {
        self.end = command::operation_time(reply.as_raw_document()).or(self.end);
        if let (Some(process), Ok(token)) =
            (process, reply.as_raw_document().get_document("cursor").and_then(|c| c.get_document("postBatchResumeToken")))
        {
            self.token = Some((token.to_owned(), process));
        }
        let array = command::batch_array(&reply)?;
        let malformed = |_| command::invalid("a batch of the source is not an array of documents");
        let (mut documents, mut first, mut last) = (0usize, None, None);
        for element in Elements::of(array).map_err(malformed)? {
            let element = element.map_err(malformed)?;
            documents += 1;
            last = Some(element.value);
            first.get_or_insert(element.value);
            if self.until.is_some() && IdValue::of(element.value) == self.until {
                self.complete = true;
                break;
            }
        }
        let comes_again = skip_id.is_some() && first.and_then(IdValue::of) == skip_id;
        let skip = usize::from(comes_again);
        if documents <= skip {
            return Ok(None);
        }
        self.handed_on = true;
        self.last_id = last.and_then(IdValue::of);
        Ok(Some(Batch { reply, skip, take: documents - skip }))
    }
}

impl Last {
    /// Everything up to it, and MaxKey.
    fn expression(&self) -> Vec<u8> {
        let largest = comparison(b"$eq", &IdValue { kind: kind::MAX_KEY, value: Vec::new() });
        let upto = self.id.as_ref().map(|id| comparison(b"$lte", id));
        let either = array(&upto.into_iter().chain([largest]).collect::<Vec<_>>());
        Writer::default().with(kind::ARRAY, b"$or", &either).finish()
    }
}

fn raw(bytes: Vec<u8>) -> Result<RawDocumentBuf, DriverError> {
    Ok(RawDocumentBuf::from_bytes(bytes)?)
}
