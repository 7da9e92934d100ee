//! What else a server says of itself that a check wants to know.

use bson::{Bson, rawdoc};

use super::{Connection, catalog, command};
use crate::error::Result;

/// A database and what the server says it takes on its disk, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseSize {
    /// Its name.
    pub name: String,
    /// Its bytes on the server's disk, compressed there; none where the login may not know.
    pub on_disk: Option<u64>,
}

/// Every database, whether or not the login may read it, where it may list them; else those that it may read something of.
///
/// # Errors
/// [`ErrorKind::Denied`](crate::error::ErrorKind::Denied), [`ErrorKind::Unreachable`](crate::error::ErrorKind::Unreachable), [`ErrorKind::Server`](crate::error::ErrorKind::Server).
pub async fn databases(connection: &Connection) -> Result<Vec<DatabaseSize>> {
    let all = command::ask(&connection.database("admin"), rawdoc! { "listDatabases": 1, "authorizedDatabases": false }).await;
    let Ok(reply) = all else {
        let names = catalog::databases(connection).await?;
        return Ok(names.into_iter().map(|name| DatabaseSize { name, on_disk: None }).collect());
    };
    let entries = reply.get_array("databases").into_iter().flatten().filter_map(Bson::as_document);
    Ok(entries
        .filter_map(|entry| {
            Some(DatabaseSize { name: entry.get_str("name").ok()?.to_owned(), on_disk: catalog::number(entry, "sizeOnDisk") })
        })
        .collect())
}
