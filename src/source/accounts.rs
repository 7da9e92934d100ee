//! Users and roles of one database, as dumps of it carry them: no part of a backup, whatever time they show.

use bson::{RawDocumentBuf, rawdoc};

use crate::error::Result;
use crate::mongo::failure::describe;
use crate::mongo::{Connection, command};

/// The database that has the users and roles of all.
const DATABASE: &str = "admin";

/// The documents of `system.users`, `system.roles` and `system.version`, each one after the other, with the name under which a dump of
/// the database has them. Without the last, which tells their schema, no tool takes them.
///
/// # Errors
/// The server's, such as [`ErrorKind::Denied`](crate::error::ErrorKind::Denied): the role `backup` may read them.
pub async fn of(connection: &Connection, database: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for (name, filter) in [
        ("system.users", rawdoc! { "db": database }),
        ("system.roles", rawdoc! { "db": database }),
        ("system.version", RawDocumentBuf::new()),
    ] {
        let find = rawdoc! { "find": name, "filter": filter };
        let documents = command::run_cursor(&connection.database(DATABASE), find).await;
        let (documents, _) =
            documents.map_err(|e| describe(connection.role(), &format!("reading the users and roles of {database}"), e))?;
        found.push((format!("${DATABASE}.{name}"), documents.iter().flat_map(|d| d.as_bytes().to_vec()).collect()));
    }
    Ok(found)
}
