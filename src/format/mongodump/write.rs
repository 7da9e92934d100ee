//! Writes an archive: the bytes between documents.

use super::{Prelude, TERMINATOR};
use crate::format::document::Writer;
use crate::format::kind;

/// The version of the format.
const VERSION: &str = "0.1";

/// The most bytes of documents in one segment, and the largest document that readers of archives
/// accept.
pub const SEGMENT: usize = 16 * 1024 * 1024;

/// The checksum of a namespace's documents: CRC-64/XZ, over all of them in their order.
#[derive(Clone, Default)]
pub struct Crc(crc64fast::Digest);

impl Crc {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// The checksum of everything added.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.sum64()
    }
}

impl std::fmt::Debug for Crc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Crc").field(&self.value()).finish()
    }
}

impl Prelude {
    /// The start of an archive, up to its first block.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = super::MAGIC.to_vec();
        let mut header = Writer::default();
        header.element(kind::INT32, "concurrent_collections", &self.concurrent.to_le_bytes());
        header.string("version", VERSION);
        header.string("server_version", &self.server_version);
        header.string("tool_version", &self.tool_version);
        bytes.extend(header.finish());
        for member in &self.namespaces {
            let mut document = Writer::with_capacity(member.metadata.len() + 256);
            document.string("db", &member.database);
            document.string("collection", &member.collection);
            document.string("metadata", &member.metadata);
            // mongodump always writes this field as 0.
            document.element(kind::INT32, "size", &0i32.to_le_bytes());
            if let Some(kind) = &member.kind {
                document.string("type", kind);
            }
            bytes.extend(document.finish());
        }
        bytes.extend(TERMINATOR);
        bytes
    }
}

/// The start of a segment of this namespace. Documents follow, at most [`SEGMENT`] bytes, and then
/// [`TERMINATOR`].
#[must_use]
pub fn segment(database: &str, collection: &str) -> Vec<u8> {
    namespace(database, collection, false, 0)
}

/// The block that ends a namespace.
#[must_use]
pub fn end(database: &str, collection: &str, crc: &Crc) -> Vec<u8> {
    let mut bytes = namespace(database, collection, true, crc.value());
    bytes.extend(TERMINATOR);
    bytes
}

fn namespace(database: &str, collection: &str, end: bool, crc: u64) -> Vec<u8> {
    let mut header = Writer::with_capacity(database.len() + collection.len() + 64);
    header.string("db", database);
    header.string("collection", collection);
    header.bool("EOF", end);
    // An int64 with the bits of the CRC.
    header.element(kind::INT64, "CRC", &crc.to_le_bytes());
    header.finish()
}

/// The text of `prelude.json`, a file beside those of a dump directory.
#[must_use]
pub fn prelude_json(server_version: &str, tool_version: &str) -> Vec<u8> {
    serde_json::json!({ "ServerVersion": server_version, "ToolVersion": tool_version }).to_string().into_bytes()
}
