//! Archives made by hand, from the grammar: `common/archive` of the MongoDB Database Tools.

use bson::{Document, doc};

const TERMINATOR: [u8; 4] = [0xFF; 4];

/// An archive, built block by block.
pub(super) struct Maker {
    bytes: Vec<u8>,
    /// The CRC so far of each namespace.
    crcs: std::collections::BTreeMap<String, u64>,
}

impl Maker {
    /// For these namespaces, each with the text of its metadata and its type.
    pub(super) fn new(namespaces: &[(&str, &str, &str)]) -> Self {
        let mut bytes = vec![0x6D, 0xE2, 0x99, 0x81];
        let header = doc! { "concurrent_collections": 4, "version": "0.1", "server_version": "6.0.5", "tool_version": "100.9.0" };
        bytes.extend(raw(&header));
        for (namespace, metadata, kind) in namespaces {
            let (database, collection) = namespace.split_once('.').unwrap();
            let mut entry = doc! { "db": database, "collection": collection, "metadata": *metadata, "size": 0 };
            if !kind.is_empty() {
                entry.insert("type", *kind);
            }
            bytes.extend(raw(&entry));
        }
        bytes.extend(TERMINATOR);
        Self { bytes, crcs: std::collections::BTreeMap::new() }
    }

    pub(super) fn segment(&mut self, namespace: &str, documents: &[Document]) -> &mut Self {
        self.header(namespace, false, 0);
        let crc = self.crcs.entry(namespace.to_owned()).or_insert(!0);
        for document in documents {
            let document = raw(document);
            *crc = crc64(*crc, &document);
            self.bytes.extend(document);
        }
        self.bytes.extend(TERMINATOR);
        self
    }

    pub(super) fn end(&mut self, namespace: &str) -> &mut Self {
        let crc = !self.crcs.get(namespace).copied().unwrap_or(!0);
        self.header(namespace, true, crc);
        self.bytes.extend(TERMINATOR);
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    fn header(&mut self, namespace: &str, end: bool, crc: u64) {
        let (database, collection) = namespace.split_once('.').unwrap();
        self.bytes.extend(raw(&doc! { "db": database, "collection": collection, "EOF": end, "CRC": crc.cast_signed() }));
    }
}

fn raw(document: &Document) -> Vec<u8> {
    document.to_vec().unwrap()
}

/// CRC-64/XZ, bit by bit. Starts with all ones; the result must be inverted.
fn crc64(mut crc: u64, bytes: &[u8]) -> u64 {
    for byte in bytes {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xC96C_5795_D787_0F42 } else { crc >> 1 };
        }
    }
    crc
}

#[test]
fn the_checksum_is_the_one_that_archives_have() {
    assert_eq!(!crc64(!0, b"123456789"), 0x995D_C9BB_DF19_39FA);
}
