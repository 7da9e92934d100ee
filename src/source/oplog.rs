//! What the oplog tells about a collection.

use std::time::Duration;

use bson::{Binary, Timestamp, doc, rawdoc, spec::BinarySubtype};
use mongodb::error::Error as DriverError;
use uuid::Uuid;

use crate::mongo::{Connection, command};

/// How long the search may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Whether the oplog has any entry for this collection after `from` and up to `to`.
///
/// # Errors
/// The driver's, where the login may not read the oplog or the search fails; then nothing is known.
pub async fn touches(connection: &Connection, collection: Uuid, from: Timestamp, to: Timestamp) -> Result<bool, DriverError> {
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
