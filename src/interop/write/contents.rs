//! What a dump holds, and how its files are called.

use crate::format::key::escape_collection;
use crate::format::manifest::CollectionKind;

/// What a dump holds.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The version of the server that it comes from.
    pub server_version: String,
    /// The program that writes it.
    pub tool_version: String,
    /// The collections, in the order in which they come.
    pub collections: Vec<Described>,
    /// Whether it has an oplog, which comes last.
    pub oplog: bool,
}

/// A collection of a dump.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its database.
    pub database: String,
    /// Its name.
    pub name: String,
    /// The name that its documents come under: of a time series, that of its buckets where these have a name.
    pub data: String,
    /// What it is.
    pub kind: CollectionKind,
    /// The text of its metadata file; nothing where it has none.
    pub metadata: String,
}

/// What the names of a collection's files begin with. Users and roles in the dump of their database keep their names, as with mongodump.
pub(super) fn stem(name: &str) -> String {
    if name.starts_with("$admin.") { name.to_owned() } else { escape_collection(name) }
}
