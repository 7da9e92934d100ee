//! Small questions about the source's operation time.

use bson::{Timestamp, rawdoc};

use crate::error::{Error, ErrorKind, Result};
use crate::mongo::failure::describe;
use crate::mongo::{Connection, command};

/// The operation time of now: whatever this program has read of the source at majority, it read at or before it.
///
/// # Errors
/// [`ErrorKind::Unreachable`], [`ErrorKind::Server`].
pub async fn now(connection: &Connection) -> Result<Timestamp> {
    let ask = || async {
        match committed(connection).await {
            Err(e) => {
                // The question is asked again, of another member if this one is gone.
                connection.reconsider().await?;
                Err(e)
            }
            told => told,
        }
    };
    command::patiently(ask).await
}

/// The time up to which a majority has everything, as far as the member knows that is read from. (What one without a primary has beyond that
/// nobody may ever confirm, so nothing can wait for it.)
async fn committed(connection: &Connection) -> Result<Timestamp> {
    let ask = rawdoc! { "find": "oplog.rs", "limit": 1, "projection": { "ts": 1 }, "readConcern": { "level": "majority" } };
    let (_, time) = command::run_cursor(&connection.documents("local"), ask)
        .await
        .map_err(|e| describe(connection.role(), "asking for the operation time", e))?;
    time.ok_or_else(|| Error::new(ErrorKind::Server, "the source does not tell its operation time"))
}

/// Whether the member that is read from has any entry after this time that may change the catalog, whether or not a majority has it.
///
/// # Errors
/// [`ErrorKind::Unreachable`], [`ErrorKind::Server`].
pub(super) async fn changes_catalog_after(connection: &Connection, time: Timestamp) -> Result<bool> {
    let ask = rawdoc! { "find": "oplog.rs", "filter": { "ts": { "$gt": time }, "op": "c" }, "limit": 1 };
    let found = command::run_cursor(&connection.documents("local"), ask).await;
    Ok(!found.map_err(|e| describe(connection.role(), "reading the oplog", e))?.0.is_empty())
}
