//! Queries a source's oplog: from where on it is needed, how far back it reaches, what is in it.

use std::time::Duration;

use bson::{Binary, RawDocumentBuf, Timestamp, doc, rawdoc, spec::BinarySubtype};
use mongodb::error::Error as DriverError;
use uuid::Uuid;

use super::Position;
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::failure::describe;
use crate::mongo::{Connection, command};

/// The time limit of a search for writes to one collection.
const SEARCH_LIMIT: Duration = Duration::from_secs(120);

/// Where an oplog slice must begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The first entry needed: at `since`, or the oldest entry of a transaction that was open then.
    /// At `since` there need not be one.
    pub from: Position,
    /// The slice holds everything that data read at this time or later can lack.
    pub since: Timestamp,
}

/// Finds where a slice that is begun now must begin.
///
/// A transaction that is open at a later time began at or before `since` and is open now, or began
/// after `since`. Its first write is in the slice in both cases.
///
/// # Errors
/// [`ErrorKind::Denied`] if the login may not read the oplog or the table of transactions,
/// [`ErrorKind::Unreachable`], [`ErrorKind::Server`].
pub async fn start(connection: &Connection) -> Result<Start> {
    let ask = || async {
        let failed = |e| describe(connection.role(), "reading the oplog", e);
        // At majority, so that no election can roll the time back.
        let first = rawdoc! { "find": "oplog.rs", "limit": 1, "projection": { "ts": 1 }, "readConcern": { "level": "majority" } };
        let (_, since) = command::run_cursor(&connection.database("local"), first).await.map_err(failed)?;
        let since = since
            .ok_or_else(|| Error::new(ErrorKind::Server, "reading the oplog: the source does not report its operation time"))?;
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
        let from = position(connection, oldest.map_or(since, |oldest| oldest.min(since)), since).await?;
        Ok(Start { from, since })
    };
    command::patiently(ask).await
}

/// The position of the entry of this very time, or before that time if there is none. `since` is an
/// operation time, at or after it.
async fn position(connection: &Connection, time: Timestamp, since: Timestamp) -> Result<Position> {
    // For a lower bound, every server goes to its place in the oplog at once.
    let next = rawdoc! {
        "find": "oplog.rs",
        "filter": { "ts": { "$gte": time } },
        "limit": 1,
        "readConcern": { "level": "majority", "afterClusterTime": since },
    };
    let (found, _) = command::run_cursor(&connection.database("local"), next)
        .await
        .map_err(|e| describe(connection.role(), "reading the oplog", e))?;
    let next = found.first().map(|entry| Position::of(entry.as_bytes())).transpose()?;
    Ok(next.filter(|next| next.time == time.into()).unwrap_or_else(|| Position::before(time.into())))
}

/// The time of the oldest entry; `None` if there are no entries.
pub(super) async fn oldest(connection: &Connection) -> Result<Option<Timestamp>, DriverError> {
    let first = rawdoc! { "find": "oplog.rs", "limit": 1, "readConcern": { "level": "majority" } };
    let (found, _) = command::run_cursor(&connection.documents("local"), first).await?;
    Ok(found.first().and_then(|entry| entry.get_timestamp("ts").ok()))
}

/// The time of the oldest entry, asked once.
///
/// # Errors
/// [`ErrorKind::Denied`] if the login may not read the oplog; [`ErrorKind::Unreachable`];
/// [`ErrorKind::Server`], also if the oplog is empty.
pub async fn reaches_back_to(connection: &Connection) -> Result<Timestamp> {
    let found = oldest(connection).await.map_err(|e| describe(connection.role(), "reading the oplog", e))?;
    found.ok_or_else(|| Error::new(ErrorKind::Server, "reading the oplog: it is empty"))
}

/// Whether the oplog has any entry for this collection after `from` and up to `to`.
///
/// # Errors
/// [`ErrorKind::Denied`] if the login may not read the oplog; otherwise the reason why the search
/// failed. Then nothing is known.
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
    let reaches_back = oldest(connection).await?.is_some_and(|oldest| oldest <= from);
    Ok(reaches_back.then_some(false))
}
