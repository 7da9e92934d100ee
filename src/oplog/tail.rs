//! The source's oplog: a slice of it, kept while the data are read, and what it tells about a collection.
//!
//! A slice is read piece by piece: each time everything from the last entry that was seen up to an operation time that the source
//! told. That last entry must come again as the first of the next piece, so that nothing between two pieces can be missing, whatever became of
//! the connection, the primary or the oplog's oldest part meanwhile. A piece that was read to its end is complete, because the source
//! is asked to wait until all of it is committed by a majority.

use std::time::Duration;

use bson::{Binary, Bson, Document, RawDocumentBuf, Timestamp, doc, rawdoc, spec::BinarySubtype};
use futures::TryStreamExt as _;
use mongodb::error::Error as DriverError;
use mongodb::raw_batch_cursor::RawBatch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Head;
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Elements;
use crate::format::manifest::ClusterTime;
use crate::mongo::failure::{code, code_of, describe, is_transient};
use crate::mongo::retry::{self, Retry};
use crate::mongo::{Connection, command};
use crate::names::SYSTEM_DATABASES;
use crate::pipeline::write::{Documents, RangeWriter};
use crate::source::scan::BATCH_LIMIT;

/// How long the search for writes to one collection may take.
const SEARCH_LIMIT: Duration = Duration::from_secs(120);

/// Entries a reply: most are a few hundred bytes, so that it has about as many as a frame holds.
const BATCH: u32 = 5_000;

/// Where a slice of the oplog has to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The first entry that is needed: `since`, or the oldest entry of a transaction that was open then.
    pub from: Timestamp,
    /// The slice holds all that data which are read at this time or later can lack.
    pub since: Timestamp,
}

/// Finds where a slice that is begun now has to begin.
///
/// A transaction that is open at a later time began at or before `since` and is open now, or began after `since`; what it wrote first
/// is in the slice either way.
///
/// # Errors
/// [`ErrorKind::Denied`] where the login may not read the oplog or the table of transactions, [`ErrorKind::Unreachable`],
/// [`ErrorKind::Server`].
pub async fn start(connection: &Connection) -> Result<Start> {
    let ask = || async {
        let failed = |e| describe(connection.role(), "reading the oplog", e);
        // At majority, so that no election can take the time back.
        let first = rawdoc! { "find": "oplog.rs", "limit": 1, "projection": { "ts": 1 }, "readConcern": { "level": "majority" } };
        let (_, since) = command::run_cursor(&connection.database("local"), first).await.map_err(failed)?;
        let since = since
            .ok_or_else(|| Error::new(ErrorKind::Server, "reading the oplog: the source does not tell its operation time"))?;
        let open = rawdoc! {
            "find": "transactions",
            "filter": { "state": { "$in": ["prepared", "inProgress"] }, "startOpTime.ts": { "$exists": true } },
            "sort": { "startOpTime.ts": 1 },
            "limit": 1,
            // Servers refuse to read this table at majority after a time.
            "readConcern": { "level": "local", "afterClusterTime": since },
        };
        let (open, _) = command::run_cursor(&connection.database("config"), open).await.map_err(failed)?;
        let oldest = open.first().and_then(|t| t.get_document("startOpTime").ok()?.get_timestamp("ts").ok());
        Ok(Start { from: oldest.map_or(since, |oldest| oldest.min(since)), since })
    };
    command::patiently(ask).await
}

/// Reads a slice of the oplog.
#[derive(Debug)]
pub struct Tail {
    connection: Connection,
    databases: Vec<String>,
    /// The last entry that was seen, or where the first one is looked for.
    position: Timestamp,
    seen: bool,
}

/// Why a piece was not read to its end.
enum Ended {
    Driver(DriverError),
    Failed(Error),
}

impl From<DriverError> for Ended {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Tail {
    /// Of the entries about these databases, of all users' databases where none is named; those that may be about several are
    /// always in it.
    #[must_use]
    pub fn new(connection: Connection, from: Timestamp, databases: Vec<String>) -> Self {
        Self { connection, databases, position: from, seen: false }
    }

    /// One that goes on where another got to, which was told by [`position`](Self::position) and [`has_seen`](Self::has_seen).
    #[must_use]
    pub fn going_on(self, position: Timestamp, seen: bool) -> Self {
        Self { position, seen, ..self }
    }

    /// Whether there was an entry at [`position`](Self::position).
    #[must_use]
    pub fn has_seen(&self) -> bool {
        self.seen
    }

    /// The time of the last entry that was seen.
    #[must_use]
    pub fn position(&self) -> Timestamp {
        self.position
    }

    /// Writes every entry that is wanted up to `goal`, which must be an operation time of the source, and gives the source's operation time
    /// since. A broken connection or a change of the primary is waited for, up to two minutes without any progress.
    ///
    /// # Errors
    /// [`ErrorKind::SnapshotLost`] where the oplog no longer reaches back to the last entry; [`ErrorKind::Interrupted`]; what the source
    /// or the writer fails with.
    pub async fn read_to(&mut self, goal: Timestamp, writer: &mut RangeWriter, stop: &CancellationToken) -> Result<Timestamp> {
        let mut retry = Retry::within(retry::STEP);
        let mut nobody = None;
        loop {
            let before = self.position;
            let failed = match self.read(goal, writer, stop).await {
                Ok(time) => return Ok(time),
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::Driver(failed)) => failed,
            };
            if self.position != before {
                retry.progress();
            }
            let lost_position = code_of(&failed) == Some(code::CAPPED_POSITION_LOST);
            let Some(pause) = retry.pause().filter(|_| is_transient(&failed) || lost_position) else {
                return Err(nobody.unwrap_or_else(|| describe(self.connection.role(), "reading the oplog", failed)));
            };
            tracing::info!("reading the oplog was interrupted and goes on: {failed}");
            stop.run_until_cancelled(tokio::time::sleep(pause)).await.ok_or_else(Error::interrupted)?;
            let again = stop.run_until_cancelled(self.connection.reconsider()).await.ok_or_else(Error::interrupted)?;
            nobody = again.err().map(|e| e.context("reading the oplog"));
        }
    }

    /// Reads with one cursor. A stop is looked for between writes, never in the middle of one.
    async fn read(&mut self, goal: Timestamp, writer: &mut RangeWriter, stop: &CancellationToken) -> Result<Timestamp, Ended> {
        let find = rawdoc! {
            "find": "oplog.rs",
            "filter": RawDocumentBuf::try_from(&self.filter(goal)).map_err(|e| Ended::Driver(e.into()))?,
            "batchSize": i64::from(BATCH),
            "readConcern": { "level": "majority", "afterClusterTime": goal },
        };
        let local = self.connection.documents("local");
        let open = command::bounded(BATCH_LIMIT, command::open_cursor(&local, find, Some(BATCH)));
        let mut cursor = stop.run_until_cancelled(open).await.ok_or_else(Error::interrupted)??;
        let (mut time, mut is_first) = (None, true);
        loop {
            let next = command::bounded(BATCH_LIMIT, cursor.try_next());
            let Some(reply) = stop.run_until_cancelled(next).await.ok_or_else(Error::interrupted)?? else { break };
            time = command::operation_time(reply.as_raw_document()).or(time);
            let (entries, first, last) = self.sort_out(reply)?;
            if let (true, Some(first)) = (is_first, first) {
                is_first = false;
                if first != self.position {
                    self.confirm_nothing_is_missing().await?;
                }
            }
            if entries.wanted.contains(&true) {
                writer.write(entries).await?;
            }
            if let Some(last) = last {
                (self.position, self.seen) = (last, true);
            }
        }
        if is_first {
            self.confirm_nothing_is_missing().await?;
        }
        time.ok_or_else(|| Error::new(ErrorKind::Server, "reading the oplog: the source does not tell its operation time").into())
    }

    /// What the server leaves out already, so that it need not be carried. The last entry and the goal's, whatever they are about, come along:
    /// the one proves that this piece follows the one before it, the other is where the next begins.
    fn filter(&self, goal: Timestamp) -> Document {
        let mut wanted = doc! { "op": { "$ne": "n" } };
        if !self.databases.is_empty() {
            // From `shop.` to before `shop/`, the next byte.
            let mut about: Vec<Bson> = self
                .databases
                .iter()
                .map(|d| doc! { "ns": { "$gte": format!("{d}."), "$lt": format!("{d}/") } }.into())
                .collect();
            about.push(doc! { "ns": "admin.$cmd" }.into());
            about.push(doc! { "op": "c", "o.applyOps": { "$exists": true } }.into());
            wanted.insert("$or", about);
        }
        doc! {
            "ts": { "$gte": self.position, "$lte": goal },
            "$or": [ { "ts": { "$in": [self.position, goal] } }, wanted ],
        }
    }

    /// Which entries of a reply are part of the slice, and the times of its first and its last.
    fn sort_out(&self, reply: RawBatch) -> Result<(Entries, Option<Timestamp>, Option<Timestamp>), Ended> {
        let array = command::batch_array(&reply)?;
        let (mut wanted, mut first, mut last) = (Vec::new(), None, None);
        for element in Elements::of(array)? {
            let entry = Head::of(element?.value)?;
            let time = Timestamp::from(entry.time);
            if last.is_some_and(|last| last >= time) || time < self.position {
                let (time, before) = (ClusterTime::from(time), ClusterTime::from(last.unwrap_or(self.position)));
                return Err(Error::damaged(format!("the source's oplog has an entry of {time} after that of {before}")).into());
            }
            first.get_or_insert(time);
            last = Some(time);
            wanted.push(self.wants(&entry) && !(self.seen && time == self.position));
        }
        Ok((Entries { reply, wanted }, first, last))
    }

    /// No-ops and the deployment's own databases are never part of it; neither are databases that were not asked for.
    fn wants(&self, entry: &Head<'_>) -> bool {
        let database = entry.database();
        let is = |name: &str| name.as_bytes() == database;
        entry.operation != b"n"
            && (entry.is_grouped()
                || (!SYSTEM_DATABASES.iter().any(|d| is(d))
                    && (self.databases.is_empty() || self.databases.iter().any(|d| is(d)))))
    }

    /// The entry that a piece should have begun with did not come. Where it was never seen, it need not exist, as long as the oplog reaches
    /// back further.
    async fn confirm_nothing_is_missing(&self) -> Result<(), Ended> {
        let first = rawdoc! { "find": "oplog.rs", "limit": 1, "readConcern": { "level": "majority" } };
        let (found, _) = command::run_cursor(&self.connection.documents("local"), first).await?;
        let oldest = found.first().and_then(|entry| entry.get_timestamp("ts").ok());
        if !self.seen && oldest.is_some_and(|oldest| oldest <= self.position) {
            return Ok(());
        }
        let begins = oldest.map_or("it is empty".to_owned(), |t| format!("it begins at {}", ClusterTime::from(t)));
        let error = Error::new(
            ErrorKind::SnapshotLost,
            format!("the source's oplog no longer reaches back to {}: {begins}", ClusterTime::from(self.position)),
        );
        let hint = "make the oplog larger on the source, db.adminCommand({replSetResizeOplog: 1, size: MEGABYTES, minRetentionHours: HOURS}) \
                    (on Atlas: the minimum oplog window), or run the backup when less is written";
        Err(error.hint(hint).into())
    }
}

/// The entries of one reply, untouched, and which of them count.
struct Entries {
    reply: RawBatch,
    wanted: Vec<bool>,
}

impl Documents for Entries {
    fn array(&self) -> Result<&[u8]> {
        command::batch_array(&self.reply).map_err(|e| Error::damaged(format!("a reply of the source has no batch: {e}")))
    }

    fn counts(&self, place: usize) -> bool {
        self.wanted.get(place).copied().unwrap_or(false)
    }
}

/// Whether the oplog has any entry for this collection after `from` and up to `to`.
///
/// # Errors
/// [`ErrorKind::Denied`] where the login may not read the oplog, or why the search failed; then nothing is known.
pub async fn touches(connection: &Connection, collection: Uuid, from: Timestamp, to: Timestamp) -> Result<bool> {
    let search = || async {
        let found = search(connection, collection, from, to).await;
        found
            .map_err(|e| describe(connection.role(), "searching the oplog", e))?
            .ok_or_else(|| Error::new(ErrorKind::SnapshotLost, "the oplog no longer reaches back to the snapshot time"))
    };
    command::patiently(search).await
}

async fn search(connection: &Connection, collection: Uuid, from: Timestamp, to: Timestamp) -> Result<Option<bool>, DriverError> {
    let uuid = Binary { subtype: BinarySubtype::Uuid, bytes: collection.as_bytes().to_vec() };
    let filter = doc! {
        "ts": { "$gt": from, "$lte": to },
        // Alone, or inside a batch or a transaction.
        "$or": [ { "ui": uuid.clone() }, { "o.applyOps.ui": uuid } ],
    };
    let filter = RawDocumentBuf::try_from(&filter)?;
    let search = rawdoc! { "find": "oplog.rs", "filter": filter, "limit": 1, "readConcern": { "level": "majority" } };
    let found = command::bounded(SEARCH_LIMIT, async { command::run_cursor(&connection.documents("local"), search).await });
    if !found.await?.0.is_empty() {
        return Ok(Some(true));
    }
    let first = rawdoc! { "find": "oplog.rs", "limit": 1, "readConcern": { "level": "majority" } };
    let (first, _) = command::run_cursor(&connection.documents("local"), first).await?;
    let reaches_back = first.first().and_then(|entry| entry.get_timestamp("ts").ok()).is_some_and(|oldest| oldest <= from);
    Ok(reaches_back.then_some(false))
}
