//! Reads a server's catalog: databases, collections, indexes. Raw, because the driver's typed forms
//! drop unknown fields.

use bson::{RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use mongodb::Database;
use mongodb::error::Error as DriverError;
use uuid::Uuid;

use super::Connection;
use super::command;
use super::failure::{code, code_of, describe};
use crate::error::{ErrorKind, Result};
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
    /// Whether its name is UTF-8. If not, `name` is a readable form, which a server does not
    /// accept.
    pub is_text: bool,
    /// Its UUID; `None` for views and time series (the buckets of a time series have one).
    pub uuid: Option<Uuid>,
}

/// The names of all databases, sorted. A login with the right to list them sees all, including
/// those that it may not read, so that none is skipped silently. Other logins see those that they
/// have rights on.
///
/// # Errors
/// [`ErrorKind::Denied`],
/// [`ErrorKind::Unreachable`],
/// [`ErrorKind::Server`].
pub async fn databases(connection: &Connection) -> Result<Vec<String>> {
    names(connection, rawdoc! { "listDatabases": 1, "nameOnly": true }).await
}

/// The same, and whether these are all databases of the deployment.
///
/// # Errors
/// As for [`databases`].
pub async fn databases_and_whether_all(connection: &Connection) -> Result<(Vec<String>, bool)> {
    let all = rawdoc! { "listDatabases": 1, "nameOnly": true, "authorizedDatabases": false };
    match names(connection, all).await {
        Err(e) if e.kind() == ErrorKind::Denied => Ok((databases(connection).await?, false)),
        all => Ok((all?, true)),
    }
}

async fn names(connection: &Connection, list: RawDocumentBuf) -> Result<Vec<String>> {
    let reply = command::ask(&connection.database("admin"), list)
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

/// Every entry of a database's `listCollections`, including `system.*`, sorted by name, and the
/// operation time of the listing.
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

/// The name in an entry of a listing, or in an index. Servers accept names that are not UTF-8. They
/// are made readable, and differ if the bytes do.
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
        // Servers before 3.4 had no type; supported ones always do.
        kind: entry.get_str("type").unwrap_or("collection").to_owned(),
        options: entry.get_document("options").map(RawDocument::to_owned).unwrap_or_default(),
        uuid,
    })
}

/// Every index of a collection or time series, in the server's order, and the operation time of the
/// listing. Empty if the collection does not exist (any more).
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

/// A number in a reply, of any numeric BSON type; negative ones become 0.
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
