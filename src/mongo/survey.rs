//! Further facts about a server, for the check.

use bson::{Bson, rawdoc};

use super::{Connection, catalog, command};
use crate::error::Result;

/// A database and its size on the server's disk, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseSize {
    /// Its name.
    pub name: String,
    /// Its compressed size on the server's disk; `None` if the login may not know.
    pub on_disk: Option<u64>,
}

/// All databases, readable or not, if the login may list them. Otherwise those in which it may read
/// something.
///
/// # Errors
/// [`ErrorKind::Denied`](crate::error::ErrorKind::Denied),
/// [`ErrorKind::Unreachable`](crate::error::ErrorKind::Unreachable),
/// [`ErrorKind::Server`](crate::error::ErrorKind::Server).
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
