//! Follows a source's oplog from a position on, without an end.
//!
//! It reads the oplog in pieces: each one holds everything from the last entry seen up to an
//! operation time that the source reported. That last entry must be the first of the next piece,
//! unchanged. So nothing can be missing between two pieces, whatever happened meanwhile to the
//! connection, the primary, the oplog's oldest part or the source itself. A piece that was read to
//! its end is complete, because the source waits until a majority has committed all of it.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, Timestamp, doc, rawdoc};
use futures::TryStreamExt as _;
use mongodb::error::Error as DriverError;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use tokio_util::sync::CancellationToken;

use super::filter::Databases;
use super::{Head, Position, window};
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Elements;
use crate::format::manifest::ClusterTime;
use crate::mongo::failure::{code, code_of, describe, is_transient};
use crate::mongo::retry::{self, Retry};
use crate::mongo::{Connection, command};
use crate::pipeline::write::Documents;
use crate::source::scan::BATCH_LIMIT;

/// The entries per reply: most have a few hundred bytes, so that a reply has about as many as a
/// frame.
const BATCH: u32 = 5_000;

/// Follows the oplog of a source.
pub struct Tail {
    connection: Connection,
    databases: Databases,
    /// The last entry passed on, or where to look for the first one.
    position: Position,
    /// An operation time of the source, where the next piece ends.
    known: Timestamp,
    piece: Option<Piece>,
    /// How long it retries without progress.
    patience: Duration,
}

/// A piece being read.
struct Piece {
    goal: Timestamp,
    cursor: RawBatchCursor,
    /// Whether no entry of it has arrived yet.
    is_first: bool,
    /// The source's operation time in the last reply.
    told: Option<Timestamp>,
}

/// The next part of an oplog.
#[derive(Debug)]
pub enum Next {
    /// The entries of one reply.
    Entries(Entries),
    /// Everything up to this operation time of the source has been returned.
    Through(Timestamp),
}

/// The unchanged entries of one reply, and which of them count.
#[derive(Debug)]
pub struct Entries {
    reply: RawBatch,
    wanted: Vec<bool>,
    /// The position after them.
    pub position: Position,
}

/// Why a reply did not arrive.
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

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail").field("position", &self.position).finish_non_exhaustive()
    }
}

impl Tail {
    /// Starts at `position`, with the entries about these databases. The first piece ends at
    /// `known`, which must be an operation time of the source.
    #[must_use]
    pub fn new(connection: Connection, databases: Databases, position: Position, known: Timestamp) -> Self {
        Self { connection, databases, position, known, piece: None, patience: retry::STEP }
    }

    /// The same, which retries for this long.
    #[must_use]
    pub fn patient_for(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The source's connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The last entry that was returned, or where the first one is looked for.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns what comes next. A piece begins with the first call, and with the first one after
    /// each [`Next::Through`]. It ends at `until`, an operation time of the source, or by default
    /// at the latest time that the source reported. After a broken connection or a change of
    /// primary, it retries for up to two minutes without progress, or as long as it is told to.
    ///
    /// # Errors
    /// [`ErrorKind::SnapshotLost`] if the oplog no longer reaches back to the last entry, or if
    /// another entry is in its place; [`ErrorKind::Interrupted`]; errors of the source.
    pub async fn next(&mut self, until: Option<Timestamp>, stop: &CancellationToken) -> Result<Next> {
        let mut retry = Retry::within(self.patience);
        let mut nobody = None;
        let goal = match &self.piece {
            Some(piece) => piece.goal,
            None => until.unwrap_or(self.known).max(self.position.time.into()),
        };
        loop {
            let failed = match self.read(goal, stop).await {
                Ok(next) => return Ok(next),
                Err(Ended::Failed(error)) => return Err(error),
                Err(Ended::Driver(failed)) => failed,
            };
            self.piece = None;
            let lost_position = code_of(&failed) == Some(code::CAPPED_POSITION_LOST);
            let Some(pause) = retry.pause().filter(|_| is_transient(&failed) || lost_position) else {
                return Err(nobody.unwrap_or_else(|| describe(self.connection.role(), "reading the oplog", failed)));
            };
            tracing::info!("reading the oplog was interrupted and continues: {failed}");
            stop.run_until_cancelled(tokio::time::sleep(pause)).await.ok_or_else(Error::interrupted)?;
            let again = stop.run_until_cancelled(self.connection.reconsider()).await.ok_or_else(Error::interrupted)?;
            nobody = again.err().map(|e| e.context("reading the oplog"));
        }
    }

    /// Continues the piece, or begins one, until there is an entry beyond the position, or its end.
    async fn read(&mut self, goal: Timestamp, stop: &CancellationToken) -> Result<Next, Ended> {
        loop {
            let piece = match &mut self.piece {
                Some(piece) => piece,
                none => {
                    let open = open(&self.connection, &self.databases, &self.position, goal);
                    let cursor = stop.run_until_cancelled(open).await.ok_or_else(Error::interrupted)??;
                    none.insert(Piece { goal, cursor, is_first: true, told: None })
                }
            };
            let next = command::bounded(BATCH_LIMIT, piece.cursor.try_next());
            let Some(reply) = stop.run_until_cancelled(next).await.ok_or_else(Error::interrupted)?? else {
                if piece.is_first {
                    confirm_nothing_is_missing(&self.connection, &self.position).await?;
                }
                let told = piece.told;
                self.piece = None;
                self.known = told.ok_or_else(|| {
                    Error::new(ErrorKind::Server, "reading the oplog: the source does not report its operation time")
                })?;
                return Ok(Next::Through(goal));
            };
            piece.told = command::operation_time(reply.as_raw_document()).or(piece.told);
            let Some((first, entries)) = sort_out(reply, &self.databases, &self.position)? else { continue };
            if std::mem::replace(&mut piece.is_first, false) {
                if first.time != self.position.time {
                    confirm_nothing_is_missing(&self.connection, &self.position).await?;
                } else if !first.agrees(&self.position) {
                    return Err(another_history(&self.position).into());
                }
            }
            if entries.position != self.position {
                self.position = entries.position;
                return Ok(Next::Entries(entries));
            }
        }
    }
}

/// Opens the cursor of a piece. The server filters what it can, but the last entry and the goal's
/// are always included: the first proves that this piece follows the previous one, the other is
/// where the next begins.
async fn open(
    connection: &Connection,
    databases: &Databases,
    from: &Position,
    goal: Timestamp,
) -> Result<RawBatchCursor, DriverError> {
    let from = Timestamp::from(from.time);
    let mut filter: Document = doc! { "ts": { "$gte": from, "$lte": goal } };
    let query = databases.query();
    if !query.is_empty() {
        filter.insert("$or", [doc! { "ts": { "$in": [from, goal] } }, query]);
    }
    let find = rawdoc! {
        "find": "oplog.rs",
        "filter": RawDocumentBuf::try_from(&filter)?,
        "batchSize": i64::from(BATCH),
        "readConcern": { "level": "majority", "afterClusterTime": goal },
    };
    let local = connection.documents("local");
    command::bounded(BATCH_LIMIT, command::open_cursor(&local, find, Some(BATCH))).await
}

/// The first entry of a reply, and which of the entries after `after` are wanted; `None` for an
/// empty reply.
fn sort_out(reply: RawBatch, databases: &Databases, after: &Position) -> Result<Option<(Position, Entries)>, Ended> {
    let array = command::batch_array(&reply)?;
    let (mut wanted, mut first, mut last, mut before) = (Vec::new(), None, None, None);
    for element in Elements::of(array)? {
        let entry = element?.value;
        let head = Head::of(entry)?;
        if before.is_some_and(|before| before >= head.time) || head.time < after.time {
            let (time, before) = (head.time, before.unwrap_or(after.time));
            return Err(Error::damaged(format!("the source's oplog has an entry of {time} after that of {before}")).into());
        }
        first.get_or_insert(entry);
        (last, before) = (Some(entry), Some(head.time));
        wanted.push(databases.want(&head) && !(after.has_entry() && head.time == after.time));
    }
    let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
    let (first, position) = (Position::of(first)?, Position::of(last)?);
    Ok(Some((first, Entries { reply, wanted, position })))
}

/// Handles a piece that does not begin with the expected entry. If that was never seen, it need not
/// exist, as long as the oplog reaches back further.
async fn confirm_nothing_is_missing(connection: &Connection, position: &Position) -> Result<(), Ended> {
    let oldest = window::oldest(connection).await?.map(ClusterTime::from);
    if oldest.is_some_and(|oldest| oldest <= position.time) {
        // An entry that is not there although older ones are never was in this history.
        return if position.has_entry() { Err(another_history(position).into()) } else { Ok(()) };
    }
    let begins = oldest.map_or("it is empty".to_owned(), |oldest| format!("it begins at {oldest}"));
    let error =
        Error::new(ErrorKind::SnapshotLost, format!("the source's oplog no longer reaches back to {}: {begins}", position.time));
    let hint = "enlarge the oplog of the source, db.adminCommand({replSetResizeOplog: 1, size: MEGABYTES, minRetentionHours: HOURS}) \
                (on Atlas: the minimum oplog window), or run the backup when there are fewer writes";
    Err(error.hint(hint).into())
}

fn another_history(position: &Position) -> Error {
    let what = format!("the source's oplog has another entry at {} than before, or none: its history was changed", position.time);
    Error::new(ErrorKind::SnapshotLost, what).hint("it was restored or rolled back meanwhile: take a new backup")
}

impl Entries {
    /// Whether none of them counts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.wanted.contains(&true)
    }
}

impl Documents for Entries {
    fn array(&self) -> Result<&[u8]> {
        command::batch_array(&self.reply).map_err(|e| Error::damaged(format!("a reply of the source has no batch: {e}")))
    }

    fn counts(&self, place: usize) -> bool {
        self.wanted.get(place).copied().unwrap_or(false)
    }
}
