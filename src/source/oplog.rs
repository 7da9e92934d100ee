//! What the oplog tells about a collection.

use std::time::Duration;

use bson::{Binary, Timestamp, doc, rawdoc, spec::BinarySubtype};
use mongodb::error::Error as DriverError;
use uuid::Uuid;

use crate::error::Result;
use crate::mongo::failure::describe;
use crate::mongo::{Connection, command};

/// How long the search may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Whether the oplog has any entry for this collection after `from` and up to `to`.
///
/// # Errors
/// [`ErrorKind::Denied`](crate::error::ErrorKind::Denied) where the login may not read the oplog, or why the search failed; then nothing is known.
pub async fn touches(connection: &Connection, collection: Uuid, from: Timestamp, to: Timestamp) -> Result<bool> {
    let search = || async {
        let found = search(connection, collection, from, to).await;
        found.map_err(|e| describe(connection.role(), "searching the oplog", e))
    };
    command::patiently(search).await
}

async fn search(connection: &Connection, collection: Uuid, from: Timestamp, to: Timestamp) -> Result<bool, DriverError> {
    let uuid = Binary { subtype: BinarySubtype::Uuid, bytes: collection.as_bytes().to_vec() };
    let filter = doc! {
        "ts": { "$gt": from, "$lte": to },
        // Alone, or inside a batch or a transaction.
        "$or": [ { "ui": uuid.clone() }, { "o.applyOps.ui": uuid } ],
    };
    let filter = bson::RawDocumentBuf::try_from(&filter)?;
    let search = rawdoc! { "find": "oplog.rs", "filter": filter, "limit": 1, "readConcern": { "level": "majority" } };
    let found = command::bounded(LIMIT, async { command::run_cursor(&connection.database("local"), search).await });
    Ok(!found.await?.0.is_empty())
}
