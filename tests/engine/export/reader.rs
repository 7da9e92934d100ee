//! Reads mongodump's archive by its grammar alone, and accounts for every byte.

use bson::{Bson, Document};

/// An archive's content.
pub(crate) struct Archive {
    pub header: Document,
    /// In the order of the prelude.
    pub members: Vec<Document>,
    /// In the order in which they end.
    pub bodies: Vec<Body>,
}

/// A namespace of the body.
#[derive(Default)]
pub(crate) struct Body {
    pub database: String,
    pub collection: String,
    pub documents: Vec<u8>,
    /// The bytes of documents in each segment.
    pub segments: Vec<usize>,
    pub ended: bool,
}

const TERMINATOR: u32 = 0xFFFF_FFFF;

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at_checked(n).unwrap_or_else(|| panic!("the archive ends in the middle"));
        self.0 = rest;
        taken
    }

    /// A document, or `None` at a terminator.
    fn document(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_le_bytes(self.0[..4].try_into().unwrap());
        if length == TERMINATOR {
            self.take(4);
            return None;
        }
        assert!((5..=16 * 1024 * 1024).contains(&length), "{length}");
        let document = self.take(length as usize);
        assert_eq!(document.last(), Some(&0));
        Some(document)
    }
}

pub(crate) fn read(bytes: &[u8]) -> Archive {
    let mut bytes = Bytes(bytes);
    assert_eq!(bytes.take(4), [0x6D, 0xE2, 0x99, 0x81]);
    let parse = |raw: &[u8]| Document::from_reader(raw).unwrap();
    let header = parse(bytes.document().unwrap());
    let mut members = Vec::new();
    while let Some(member) = bytes.document() {
        members.push(parse(member));
    }
    let mut bodies: Vec<Body> = Vec::new();
    while !bytes.0.is_empty() {
        let block = parse(bytes.document().unwrap_or_else(|| panic!("two terminators in a row")));
        assert_eq!(block.keys().collect::<Vec<_>>(), ["db", "collection", "EOF", "CRC"]);
        let (database, collection) = (block.get_str("db").unwrap(), block.get_str("collection").unwrap());
        let is_new = bodies.last().is_none_or(|b| (&*b.database, &*b.collection) != (database, collection));
        if is_new {
            assert!(bodies.iter().all(|b| b.ended), "more than one at a time");
            assert!(bodies.iter().all(|b| (&*b.database, &*b.collection) != (database, collection)), "{collection} comes again");
            bodies.push(Body { database: database.into(), collection: collection.into(), ..Body::default() });
        }
        let body = bodies.last_mut().unwrap();
        assert!(!body.ended);
        let mut length = 0;
        while let Some(document) = bytes.document() {
            body.documents.extend(document);
            length += document.len();
        }
        if block.get_bool("EOF").unwrap() {
            assert_eq!(length, 0);
            assert_eq!(block.get_i64("CRC").unwrap().cast_unsigned(), crc(&body.documents), "{database}.{collection}");
            body.ended = true;
        } else {
            assert_eq!(block.get_i64("CRC").unwrap(), 0);
            assert!(length <= 16 * 1024 * 1024, "{length}");
            body.segments.push(length);
        }
    }
    assert!(bodies.iter().all(|b| b.ended && !b.segments.is_empty()));
    Archive { header, members, bodies }
}

/// CRC-64/XZ, bit by bit.
fn crc(bytes: &[u8]) -> u64 {
    let mut crc = u64::MAX;
    for byte in bytes {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xC96C_5795_D787_0F42 } else { crc >> 1 };
        }
    }
    !crc
}

#[test]
fn the_checksum_is_the_known_one() {
    assert_eq!(crc(b"123456789"), 0x995D_C9BB_DF19_39FA);
}

/// Canonical Extended JSON for the types in options and indexes.
pub(crate) fn json(value: &Bson) -> String {
    match value {
        Bson::Document(document) => {
            let fields: Vec<String> =
                document.iter().map(|(k, v)| format!("{}:{}", json(&Bson::String(k.clone())), json(v))).collect();
            format!("{{{}}}", fields.join(","))
        }
        Bson::Array(values) => format!("[{}]", values.iter().map(json).collect::<Vec<_>>().join(",")),
        Bson::String(text) => format!("{}", serde_json::Value::from(text.as_str())),
        Bson::Boolean(b) => b.to_string(),
        Bson::Int32(n) => format!("{{\"$numberInt\":\"{n}\"}}"),
        Bson::Int64(n) => format!("{{\"$numberLong\":\"{n}\"}}"),
        Bson::Double(n) => format!("{{\"$numberDouble\":\"{n:?}\"}}"),
        other => panic!("{other:?}"),
    }
}
