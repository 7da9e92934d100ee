//! mongodump's archive, as bytes: pure. The grammar was read from the sources of the MongoDB
//! Database Tools (`common/archive`), version 0.1 of the format:
//!
//! ```text
//! archive := magic header metadata* TERM block*
//! block   := namespace document* TERM        a segment
//!          | namespace TERM                  with EOF: the namespace ends, with its documents' CRC
//! ```
//!
//! Magic, header, metadata and namespace are the types below, written as BSON. TERM is
//! `FF FF FF FF`, little-endian like all numbers.

pub mod read;
pub mod write;

/// The start of an archive: 0x8199E26D, little-endian.
pub const MAGIC: [u8; 4] = [0x6D, 0xE2, 0x99, 0x81];

/// The end of the prelude and of each block.
pub const TERMINATOR: [u8; 4] = [0xFF; 4];

/// The collection with the oplog, in the database without a name.
pub const OPLOG: &str = "oplog";

/// What an archive says about itself and its content before the first document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prelude {
    /// The maximum number of namespaces that are open at the same time (`concurrent_collections`).
    pub concurrent: i32,
    /// The version of the source server (`server_version`).
    pub server_version: String,
    /// The version of the tool that wrote it (`tool_version`).
    pub tool_version: String,
    /// The namespaces, in the order they are named.
    pub namespaces: Vec<Member>,
}

/// A namespace in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its database; empty for the oplog.
    pub database: String,
    /// Its collection, not escaped; for a time series, its own name, not that of its buckets.
    pub collection: String,
    /// The text of its metadata file; empty if there is none.
    pub metadata: String,
    /// `collection`, `view` or `timeseries`; missing in archives of old tools.
    pub kind: Option<String>,
}
