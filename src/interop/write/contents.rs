//! The contents of a dump, and the names of its files.

use crate::format::key::escape_collection;
use crate::format::manifest::CollectionKind;

/// The contents of a dump.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The version of the source server.
    pub server_version: String,
    /// The program that writes it.
    pub tool_version: String,
    /// The collections, in the order they are written.
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
    /// The name for its documents; for a time series, that of its buckets, if these have a name.
    pub data: String,
    /// Its kind.
    pub kind: CollectionKind,
    /// The text of its metadata file; empty if it has none.
    pub metadata: String,
}

/// The stem of a collection's file names. Users and roles in the dump of their database keep their
/// names, as in mongodump.
pub(super) fn stem(name: &str) -> String {
    if name.starts_with("$admin.") { name.to_owned() } else { escape_collection(name) }
}
