//! Writing of mongodump's formats: preludes, block headers and terminators.

use bson::{Document, doc};
use bsonvault::format::mongodump::write::{Crc, end, prelude_json, segment};
use bsonvault::format::mongodump::{MAGIC, Member, Prelude, TERMINATOR};

#[test]
fn the_crc_is_that_of_xz() {
    let mut crc = Crc::default();
    assert_eq!(crc.value(), 0);
    crc.update(b"1234");
    crc.update(b"56789");
    assert_eq!(crc.value(), 0x995D_C9BB_DF19_39FA);
}

#[test]
fn a_prelude_has_the_fields_and_their_order() {
    let prelude = Prelude {
        concurrent: 1,
        server_version: "6.0.5".to_owned(),
        tool_version: "t".to_owned(),
        namespaces: vec![
            Member { database: "d".into(), collection: "c".into(), metadata: "{}".into(), kind: Some("view".into()) },
            Member { database: String::new(), collection: "oplog".into(), metadata: String::new(), kind: None },
        ],
    };
    let bytes = prelude.to_bytes();
    assert_eq!(bytes[..4], MAGIC);
    let mut rest = &bytes[4..];
    let mut documents = Vec::new();
    while rest[..4] != TERMINATOR {
        documents.push(Document::from_reader(&mut rest).unwrap());
    }
    assert_eq!(rest, TERMINATOR);
    let header = doc! { "concurrent_collections": 1, "version": "0.1", "server_version": "6.0.5", "tool_version": "t" };
    let view = doc! { "db": "d", "collection": "c", "metadata": "{}", "size": 0, "type": "view" };
    let oplog = doc! { "db": "", "collection": "oplog", "metadata": "", "size": 0 };
    assert_eq!(documents, [header, view, oplog]);
}

#[test]
fn blocks_say_whose_they_are_and_how_they_end() {
    let header = Document::from_reader(segment("d", "ü.x").as_slice()).unwrap();
    assert_eq!(header, doc! { "db": "d", "collection": "ü.x", "EOF": false, "CRC": 0i64 });
    let mut crc = Crc::default();
    crc.update(b"123456789");
    let bytes = end("", "oplog", &crc);
    let (document, terminator) = bytes.split_at(bytes.len() - 4);
    assert_eq!(terminator, TERMINATOR);
    let crc = 0x995D_C9BB_DF19_39FA_u64.cast_signed();
    assert_eq!(Document::from_reader(document).unwrap(), doc! { "db": "", "collection": "oplog", "EOF": true, "CRC": crc });
}

#[test]
fn the_prelude_of_a_directory_is_that_of_mongodump() {
    assert_eq!(prelude_json("6.0.5", "x"), br#"{"ServerVersion":"6.0.5","ToolVersion":"x"}"#);
}
