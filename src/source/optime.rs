//! Reads the source's operation time.

use std::time::Duration;

use bson::{Timestamp, rawdoc};

use crate::error::{Error, ErrorKind, Result};
use crate::mongo::failure::describe;
use crate::mongo::{Connection, command};

/// How long to wait until a time can be seen.
const VISIBLE: Duration = Duration::from_secs(5);

/// The current operation time: everything that this program has read from the source at majority is
/// from this time or earlier.
///
/// # Errors
/// [`ErrorKind::Unreachable`], [`ErrorKind::Server`].
pub async fn now(connection: &Connection) -> Result<Timestamp> {
    let ask = || async {
        match committed(connection).await {
            Err(e) => {
                // The request is repeated, with another member if this one is gone.
                connection.reconsider().await?;
                Err(e)
            }
            told => told,
        }
    };
    command::patiently(ask).await
}

/// The time up to which a majority has everything, as far as the member for reads knows. (Newer
/// writes on a member without a primary may never be confirmed, so nothing can wait for them.)
async fn committed(connection: &Connection) -> Result<Timestamp> {
    let ask = rawdoc! { "find": "oplog.rs", "limit": 1, "projection": { "ts": 1 }, "readConcern": { "level": "majority" } };
    let (_, time) = command::run_cursor(&connection.documents("local"), ask)
        .await
        .map_err(|e| describe(connection.role(), "reading the operation time", e))?;
    time.ok_or_else(|| Error::new(ErrorKind::Server, "the source does not report its operation time"))
}

/// Waits until everything up to this time can be seen: until a majority has all of it. Gives up
/// after a few seconds, or if the login may not read the oplog.
pub(super) async fn wait_until_visible(connection: &Connection, time: Timestamp) {
    let ask = rawdoc! {
        "aggregate": "oplog.rs",
        "pipeline": [{ "$limit": 1 }, { "$project": { "ts": 1 } }],
        "cursor": {},
        "readConcern": { "level": "majority", "afterClusterTime": time },
    };
    let asked = command::bounded(VISIBLE, async { command::run_cursor(&connection.database("local"), ask).await }).await;
    if let Err(e) = asked {
        tracing::debug!("it is not known whether everything up to {time:?} can be seen: {e}");
    }
}

/// Whether the member for reads has any entry after this time that may change the catalog,
/// confirmed by a majority or not.
///
/// # Errors
/// [`ErrorKind::Unreachable`], [`ErrorKind::Server`].
pub(super) async fn changes_catalog_after(connection: &Connection, time: Timestamp) -> Result<bool> {
    let ask = rawdoc! { "find": "oplog.rs", "filter": { "ts": { "$gt": time }, "op": "c" }, "limit": 1 };
    let found = command::run_cursor(&connection.documents("local"), ask).await;
    Ok(!found.map_err(|e| describe(connection.role(), "reading the oplog", e))?.0.is_empty())
}
