//! Reads the users and roles of one database for a dump. They are not part of a backup and have no
//! snapshot time.

use bson::{RawDocumentBuf, rawdoc};

use crate::error::Result;
use crate::mongo::failure::describe;
use crate::mongo::{Connection, command};

/// The database that stores all users and roles.
const DATABASE: &str = "admin";

/// The documents of `system.users`, `system.roles` and `system.version`, each concatenated, with
/// the name that a dump of the database gives them. The last one has the schema: without it, no
/// tool accepts the others.
///
/// # Errors
/// Server errors; [`ErrorKind::Denied`](crate::error::ErrorKind::Denied) without a right to read
/// them, which the role `backup` has.
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
