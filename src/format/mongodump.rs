//! mongodump's archive, as bytes: pure. The grammar was read from the sources of the MongoDB Database Tools (`common/archive`), version 0.1 of the format:
//!
//! ```text
//! archive := magic header metadata* TERM block*
//! block   := namespace document* TERM        a segment
//!          | namespace TERM                  with EOF: the namespace ends, with the CRC of all its documents
//! ```
//!
//! Magic, header, metadata and namespace are the types below, written as BSON; TERM is `FF FF FF FF`, little-endian like all numbers.

pub mod read;
pub mod write;

/// What an archive begins with: 0x8199E26D, little-endian.
pub const MAGIC: [u8; 4] = [0x6D, 0xE2, 0x99, 0x81];

/// What ends the prelude and each block.
pub const TERMINATOR: [u8; 4] = [0xFF; 4];

/// The collection, in the database without a name, that holds the oplog.
pub const OPLOG: &str = "oplog";

/// What an archive says of itself, and of what it holds, before the first document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prelude {
    /// How many namespaces at most are open at a time (`concurrent_collections`).
    pub concurrent: i32,
    /// The version of the server that it was taken from (`server_version`).
    pub server_version: String,
    /// The version of the tool that wrote it (`tool_version`).
    pub tool_version: String,
    /// The namespaces, in the order in which they are named.
    pub namespaces: Vec<Member>,
}

/// A namespace that an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its database; empty for the oplog.
    pub database: String,
    /// Its collection, not escaped; of a time series its own name, not that of its buckets.
    pub collection: String,
    /// The text of its metadata file; empty where there is none.
    pub metadata: String,
    /// `collection`, `view` or `timeseries`; archives of old tools do not say.
    pub kind: Option<String>,
}
