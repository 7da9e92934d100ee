//! What is on a server: databases, collections, indexes. Raw, because the driver's typed forms drop what they do not know.

use bson::{RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use mongodb::Database;
use mongodb::error::Error as DriverError;
use uuid::Uuid;

use super::Connection;
use super::command;
use super::failure::{code, code_of, describe};
use crate::error::Result;
use crate::format::document::Elements;
use crate::format::kind;
use crate::format::readable;

/// One entry of `listCollections`.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedCollection {
    /// The collection's name.
    pub name: String,
    /// `collection`, `view` or `timeseries`.
    pub kind: String,
    /// Its options, raw.
    pub options: RawDocumentBuf,
    /// Whether its name is UTF-8. One that is not is shown readable here, and cannot be given to a server.
    pub is_text: bool,
    /// The server's identity of it; views and time series have none (the buckets of a time series have).
    pub uuid: Option<Uuid>,
}

/// The names of all databases, sorted. A login with the right to list them sees all, also those that it may not read, so that
/// none is passed over in silence; one without sees those that it has rights on.
///
/// # Errors
/// [`ErrorKind::Denied`](crate::error::ErrorKind::Denied), [`ErrorKind::Unreachable`](crate::error::ErrorKind::Unreachable), [`ErrorKind::Server`](crate::error::ErrorKind::Server).
pub async fn databases(connection: &Connection) -> Result<Vec<String>> {
    let reply = command::ask(&connection.database("admin"), rawdoc! { "listDatabases": 1, "nameOnly": true })
        .await
        .map_err(|e| describe(connection.role(), "listing databases", e))?;
    let mut names: Vec<String> = reply
        .get_array("databases")
        .into_iter()
        .flatten()
        .filter_map(|d| d.as_document()?.get_str("name").ok().map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

/// Every entry of a database's `listCollections`, `system.*` included, sorted by name, and the operation time of the listing.
///
/// # Errors
/// As for [`databases`].
pub async fn collections(connection: &Connection, database: &str) -> Result<(Vec<ListedCollection>, Option<Timestamp>)> {
    let what = || format!("listing the collections of {database}");
    let (entries, time) = command::run_cursor(&connection.database(database), rawdoc! { "listCollections": 1, "cursor": {} })
        .await
        .map_err(|e| describe(connection.role(), &what(), e))?;
    let mut collections = entries
        .iter()
        .map(|entry| info(entry))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| describe(connection.role(), &what(), e))?;
    collections.sort_by(|a, b| a.name.cmp(&b.name));
    Ok((collections, time))
}

/// The name of an entry of a listing, or of an index. Servers take names that are not UTF-8; they are made readable, and differ as the
/// bytes do.
#[must_use]
pub fn name(entry: &RawDocument) -> Option<String> {
    let element = Elements::of(entry.as_bytes()).ok()?.flatten().find(|element| element.name == b"name")?;
    // A length, the bytes, and a NUL.
    let bytes = element.value.get(4..element.value.len().checked_sub(1)?).filter(|_| element.kind == kind::STRING)?;
    Some(readable::text(bytes))
}

fn info(entry: &RawDocument) -> std::result::Result<ListedCollection, DriverError> {
    let uuid = entry
        .get_document("info")
        .ok()
        .and_then(|info| info.get_binary("uuid").ok())
        .and_then(|binary| Uuid::from_slice(binary.bytes).ok());
    Ok(ListedCollection {
        is_text: entry.get_str("name").is_ok(),
        name: name(entry).ok_or_else(|| command::invalid("an entry of a listing has no name"))?,
        // Servers before 3.4 gave no type; those supported here always do.
        kind: entry.get_str("type").unwrap_or("collection").to_owned(),
        options: entry.get_document("options").map(RawDocument::to_owned).unwrap_or_default(),
        uuid,
    })
}

/// Every index of a collection or time series, in the server's order, and the operation time of the listing; no index where
/// the collection does not exist (any more).
///
/// # Errors
/// As for [`databases`].
pub async fn indexes(
    connection: &Connection,
    database: Database,
    collection: &str,
) -> Result<(Vec<RawDocumentBuf>, Option<Timestamp>)> {
    match command::run_cursor(&database, rawdoc! { "listIndexes": collection, "cursor": {} }).await {
        Ok(found) => Ok(found),
        Err(e) if code_of(&e) == Some(code::NAMESPACE_NOT_FOUND) => Ok((Vec::new(), None)),
        Err(e) => Err(describe(connection.role(), &format!("listing the indexes of {}.{collection}", database.name()), e)),
    }
}

/// A number of a reply, whichever of BSON's types it has; negative ones are 0.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count that a server gives as a double is whole and small enough"
)]
pub fn number(reply: &bson::Document, field: &str) -> Option<u64> {
    match reply.get(field)? {
        bson::Bson::Int32(n) => Some(u64::try_from(*n).unwrap_or(0)),
        bson::Bson::Int64(n) => Some(u64::try_from(*n).unwrap_or(0)),
        bson::Bson::Double(n) => Some(n.max(0.0) as u64),
        _ => None,
    }
}
