//! mongodump's archives: real ones are read completely, and the grammar is enforced.

use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bson::rawdoc;
use bsonvault::error::{Error, ErrorKind, Result};
use bsonvault::format::document::MAX_DOCUMENT;
use bsonvault::format::key;
use bsonvault::format::metadata::read::Metadata;
use bsonvault::format::mongodump::read::{Event, Reader};
use bsonvault::format::mongodump::{MAGIC, Member, Prelude, TERMINATOR};
use crc64fast::Digest;
use flate2::read::MultiGzDecoder;

pub(crate) fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/mongodump")
}

pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

pub(crate) fn sample(name: &str) -> Vec<u8> {
    gunzip(&std::fs::read(samples().join(name)).unwrap())
}

/// The documents of one namespace.
pub(crate) type Documents = Vec<Vec<u8>>;

/// An archive's content: its prelude, and the documents of each namespace.
#[derive(Debug, PartialEq)]
pub(crate) struct Contents {
    pub(crate) prelude: Prelude,
    pub(crate) documents: Vec<Documents>,
}

pub(crate) fn read(inner: impl Read) -> Result<Contents> {
    let mut reader = Reader::open(inner)?;
    let prelude = reader.prelude().clone();
    let mut documents = vec![Vec::new(); prelude.namespaces.len()];
    while let Some(event) = reader.next()? {
        if let Event::Document(place, document) = event {
            documents[place].push(document.to_vec());
        }
    }
    assert_eq!(reader.next().unwrap(), None);
    Ok(Contents { prelude, documents })
}

/// The error of a whole pass that keeps nothing.
pub(crate) fn pass(archive: impl Read) -> Result<u64> {
    let mut reader = Reader::open(archive)?;
    let mut bytes = 0;
    while let Some(event) = reader.next()? {
        if let Event::Document(_, document) = event {
            bytes += document.len() as u64;
        }
    }
    Ok(bytes)
}

pub(crate) fn header(version: &str) -> Vec<u8> {
    rawdoc! { "concurrent_collections": 4, "version": version, "server_version": "6.0.5", "tool_version": "t" }.into_bytes()
}

pub(crate) fn member(database: &str, collection: &str, kind: &str) -> Vec<u8> {
    rawdoc! { "db": database, "collection": collection, "metadata": "{}", "size": 0, "type": kind }.into_bytes()
}

pub(crate) fn block(database: &str, collection: &str, end: bool, crc: u64) -> Vec<u8> {
    rawdoc! { "db": database, "collection": collection, "EOF": end, "CRC": crc.cast_signed() }.into_bytes()
}

pub(crate) fn crc(documents: &[Vec<u8>]) -> u64 {
    let mut digest = Digest::new();
    digest.write(&documents.concat());
    digest.sum64()
}

pub(crate) fn numbered(numbers: Range<i32>) -> Vec<Vec<u8>> {
    numbers.map(|n| rawdoc! { "_id": n, "text": format!("number {n}") }.into_bytes()).collect()
}

/// Builds archives, valid and invalid ones.
#[derive(Debug, Clone)]
pub(crate) struct Archive(pub(crate) Vec<u8>);

impl Archive {
    pub(crate) fn new(members: &[(&str, &str, &str)]) -> Self {
        let members: Vec<u8> = members.iter().flat_map(|(d, c, kind)| member(d, c, kind)).collect();
        Self([&MAGIC, header("0.1").as_slice(), &members, &TERMINATOR].concat())
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn segment(self, database: &str, collection: &str, documents: &[Vec<u8>]) -> Self {
        self.bytes(&block(database, collection, false, 0)).bytes(&documents.concat()).bytes(&TERMINATOR)
    }

    pub(crate) fn end(self, database: &str, collection: &str, documents: &[Vec<u8>]) -> Self {
        self.bytes(&block(database, collection, true, crc(documents))).bytes(&TERMINATOR)
    }

    /// A namespace in one segment.
    pub(crate) fn whole(self, database: &str, collection: &str, documents: &[Vec<u8>]) -> Self {
        self.segment(database, collection, documents).end(database, collection, documents)
    }

    pub(crate) fn error(&self) -> String {
        let error = pass(self.0.as_slice()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        error.to_string()
    }
}

/// A small archive with every kind of namespace, interleaved, and the offset of its body. No name
/// becomes another one by a flipped bit.
pub(crate) fn small() -> (Vec<u8>, usize) {
    let members = [
        ("shop", "orders", "collection"),
        ("shop", "empty-one", "collection"),
        ("shop", "a-view", "view"),
        ("zoo", "weather", "timeseries"),
        ("", "oplog", ""),
    ];
    let start = Archive::new(&members);
    let body = start.0.len();
    let archive = start
        .segment("shop", "orders", &numbered(0..3))
        .segment("zoo", "system.buckets.weather", &numbered(50..52))
        .segment("shop", "orders", &[])
        .whole("shop", "empty-one", &[])
        .segment("shop", "orders", &numbered(3..5))
        .end("shop", "orders", &numbered(0..5))
        .whole("shop", "a-view", &[])
        .end("zoo", "system.buckets.weather", &numbered(50..52))
        .whole("", "oplog", &numbered(7..8));
    (archive.0, body)
}

/// The offset of the body: after the prelude's terminator.
pub(crate) fn body_of(archive: &[u8]) -> usize {
    let mut at = MAGIC.len();
    while archive[at..at + 4] != TERMINATOR {
        at += u32::from_le_bytes(archive[at..at + 4].try_into().unwrap()) as usize;
    }
    at + 4
}

/// The offset in an error. Every error of damage has one.
pub(crate) fn offset_of(error: &Error) -> u64 {
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{text}");
    let (_, rest) = text.split_once("at byte ").unwrap_or_else(|| panic!("{text} names no place"));
    let (digits, rest) = rest.split_once(' ').unwrap();
    assert!(rest.starts_with("of the archive: ") || rest.starts_with("of the archive's prelude: "), "{text}");
    digits.parse().unwrap()
}

#[test]
fn what_the_real_mongodump_wrote_is_read_whole() {
    let all = read(sample("all.archive.gz").as_slice()).unwrap();
    assert_eq!(all.prelude.server_version, "6.0.5");
    assert_eq!(all.prelude.concurrent, 4);
    let expected: serde_json::Value = serde_json::from_slice(&std::fs::read(samples().join("expected.json")).unwrap()).unwrap();
    let mut seen = 0;
    for (member, documents) in all.prelude.namespaces.iter().zip(&all.documents) {
        let plain = samples().join("dir").join(&member.database);
        let escaped = key::escape_collection(&member.collection);
        let buckets = format!("system.buckets.{}", member.collection);
        let of_file = [escaped.as_str(), &buckets].map(|name| std::fs::read(plain.join(format!("{name}.bson"))));
        // The documents equal those of the directory dump of the same server.
        match of_file.into_iter().find_map(std::result::Result::ok) {
            Some(bytes) => assert!(documents.concat() == bytes, "{}.{}", member.database, member.collection),
            None => assert_eq!((documents.len(), member.kind.as_deref()), (0, Some("view"))),
        }
        let metadata = Metadata::parse(member.metadata.as_bytes()).unwrap();
        assert_eq!((metadata.collection.as_ref(), &metadata.kind), (Some(&member.collection), &member.kind));
        let Some(expected) = expected.get(&member.database).and_then(|d| d.get(&member.collection)) else { continue };
        seen += 1;
        assert_eq!(expected["type"].as_str(), member.kind.as_deref());
        if member.kind.as_deref() == Some("collection") {
            assert_eq!(expected["count"].as_u64(), Some(documents.len() as u64), "{}", member.collection);
            assert_eq!(expected["indexes"].as_array().unwrap().len(), metadata.indexes.len());
        }
    }
    let named: usize = expected.as_object().unwrap().values().map(|d| d.as_object().unwrap().len()).sum();
    assert_eq!(seen, named);

    let zoo = read(sample("zoo.archive.gz").as_slice()).unwrap();
    assert!(!zoo.prelude.namespaces.is_empty() && zoo.prelude.namespaces.iter().all(|n| n.database == "zoo"));
    let oplog = read(sample("oplog.archive.gz").as_slice()).unwrap();
    let place = oplog.prelude.namespaces.iter().position(|n| n.database.is_empty() && n.collection == "oplog").unwrap();
    assert!(!oplog.documents[place].is_empty() && oplog.prelude.namespaces[place].metadata.is_empty());
}

#[test]
fn the_grammar_is_held_to() {
    let one = Archive::new(&[("d", "c", "collection")]);
    let body = one.0.len();
    let documents = numbered(0..2);
    let segment = block("d", "c", false, 0);
    let [a, b] = [body, body + segment.len()];
    let wrong = [
        (one.clone().bytes(&TERMINATOR), format!("at byte {a} of the archive: found a terminator where a block must begin")),
        (
            one.clone().whole("d", "c", &documents).bytes(&TERMINATOR),
            format!(
                "at byte {} of the archive: found a terminator where a block must begin",
                one.clone().whole("d", "c", &documents).0.len()
            ),
        ),
        (one.clone().bytes(&documents[0]), format!("at byte {a} of the archive: a block's header has an unknown field \"_id\"")),
        (
            one.clone().bytes(&block("d", "c", true, 0)).bytes(&documents[0]),
            format!("d.c: at byte {b} of the archive: a document follows its end"),
        ),
        (
            one.clone().segment("d", "x", &[]),
            format!("d.x: at byte {a} of the archive: it has a block, but the prelude does not name it"),
        ),
        (
            one.clone().segment("", "oplog", &[]),
            format!("the oplog: at byte {a} of the archive: it has a block, but the prelude does not name it"),
        ),
        (
            one.clone().end("d", "c", &[]).segment("d", "c", &[]),
            format!("d.c: at byte {} of the archive: it has a block after its end", b + 4),
        ),
        (
            one.clone().segment("d", "c", &documents).end("d", "c", &documents[..1]),
            format!(
                "d.c: at byte {} of the archive: its documents have the CRC {:016x}, but its end says {:016x}",
                one.clone().segment("d", "c", &documents).0.len(),
                crc(&documents),
                crc(&documents[..1])
            ),
        ),
        (
            one.clone().bytes(&block("d", "c", false, 5)),
            format!(
                "d.c: at byte {a} of the archive: a segment's header holds a CRC, 0000000000000005, which only an end header may hold"
            ),
        ),
        (one.clone(), format!("at byte {a} of the archive: it ends early: missing the end of d.c")),
        (
            one.clone().segment("d", "c", &documents),
            format!(
                "at byte {} of the archive: it ends early: missing the end of d.c",
                one.clone().segment("d", "c", &documents).0.len()
            ),
        ),
        (
            one.clone().bytes(&[4, 0, 0, 0, 0]),
            format!("at byte {a} of the archive: a document claims 4 bytes, but may have only 5 to {MAX_DOCUMENT}"),
        ),
        (
            one.clone().bytes(&segment).bytes(&[0xFE, 0xFF, 0xFF, 0xFF]),
            format!("d.c: at byte {b} of the archive: a document claims 4294967294 bytes, but may have only 5 to {MAX_DOCUMENT}"),
        ),
        (
            one.clone().bytes(&segment).bytes(&[5, 0, 0, 0, 1]),
            format!("d.c: at byte {b} of the archive: a document of 5 bytes does not end with a NUL"),
        ),
        (one.clone().bytes(&[5, 0, 0, 0, 0]), format!("at byte {a} of the archive: a block's header without its field db")),
    ];
    for (archive, message) in wrong {
        assert_eq!(archive.error(), message);
    }
    // Not a byte of these may be ignored: an extra field, one of a wrong type, one that repeats.
    let fields = [
        (rawdoc! { "db": "d", "collection": "c", "EOF": false, "CRC": 0_i64, "x": 1 }, "d.c: ", "an unknown field \"x\""),
        (rawdoc! { "db": "d", "collection": "c", "EOF": false }, "d.c: ", "without its field CRC"),
        (rawdoc! { "db": "d", "collection": "c", "EOF": 0, "CRC": 0_i64 }, "d.c: ", "\"EOF\" is of type int32, not boolean"),
        (rawdoc! { "db": "d", "collection": "c", "EOF": false, "CRC": 0 }, "d.c: ", "\"CRC\" is of type int32, not int64"),
        (rawdoc! { "db": "d", "collection": 1, "EOF": false, "CRC": 0_i64 }, "", "\"collection\" is of type int32, not string"),
    ];
    for (header, name, what) in fields {
        let message = one.clone().bytes(header.as_bytes()).error();
        assert!(message.starts_with(&format!("{name}at byte {a} of the archive: ")) && message.ends_with(what), "{message}");
    }
}

#[test]
fn the_prelude_is_held_to() {
    let of = |parts: &[&[u8]]| Archive([&MAGIC, parts.concat().as_slice()].concat()).error();
    let place = |message: String| message.split_once("of the archive's prelude: ").unwrap().1.to_owned();
    let [right, first] = [header("0.1"), member("d", "c", "collection")];
    assert_eq!(place(of(&[&TERMINATOR])), "found a terminator where the archive's header must be");
    assert_eq!(place(of(&[&header("0.2"), &TERMINATOR])), "it has version \"0.2\" of the format, but only \"0.1\" is supported");
    assert_eq!(place(of(&[&[5, 0, 0, 0, 0], &TERMINATOR])), "the archive's header has no version");
    let bad = rawdoc! { "version": "0.1", "concurrent_collections": "4" }.into_bytes();
    assert_eq!(place(of(&[&bad])), "the field \"concurrent_collections\" is of type string, not int32");
    let twice = of(&[&right, &first, &first, &TERMINATOR]);
    assert_eq!(
        twice,
        format!("d.c: at byte {} of the archive's prelude: it is named a second time", 4 + right.len() + first.len())
    );
    let untyped = rawdoc! { "db": "d", "collection": "c", "metadata": 1 }.into_bytes();
    assert!(of(&[&right, &untyped]).starts_with("d.c: at byte "));
    let nameless = rawdoc! { "db": "d" }.into_bytes();
    assert_eq!(place(of(&[&right, &nameless])), "metadata without its field collection");

    let not = pass(b"{\"a\":1}".as_slice()).unwrap_err();
    assert_eq!(
        not.to_string(),
        "at byte 0 of the archive's prelude: it begins with 7b 22 61 22, but a mongodump archive begins with 6d e2 99 81"
    );
    let compressed = pass(std::fs::read(samples().join("zoo.archive.gz")).unwrap().as_slice()).unwrap_err();
    assert!(compressed.hint_text().is_some_and(|hint| hint.contains("gzip")));
}

#[test]
fn what_old_and_new_tools_leave_out_and_add_is_taken() {
    let old = [rawdoc! { "version": "0.1" }.into_bytes(), rawdoc! { "db": "d", "collection": "c" }.into_bytes()].concat();
    let archive = Archive([&MAGIC, old.as_slice(), &TERMINATOR].concat()).whole("d", "c", &numbered(0..3));
    let found = read(archive.0.as_slice()).unwrap();
    let member = Member { database: "d".into(), collection: "c".into(), metadata: String::new(), kind: None };
    let prelude = Prelude { concurrent: 1, server_version: String::new(), tool_version: String::new(), namespaces: vec![member] };
    assert_eq!(found, Contents { prelude, documents: vec![numbered(0..3)] });

    let new = [
        rawdoc! { "more": { "a": 1 }, "concurrent_collections": 2, "version": "0.1", "server_version": "9", "tool_version": "200" },
        rawdoc! { "db": "d", "collection": "c", "metadata": "{}", "type": "collection", "size": 5_i64, "more": [1] },
    ];
    let new = new.map(bson::RawDocumentBuf::into_bytes).concat();
    let archive = Archive([&MAGIC, new.as_slice(), &TERMINATOR].concat()).whole("d", "c", &[]);
    let found = read(archive.0.as_slice()).unwrap().prelude;
    assert_eq!(
        (found.concurrent, found.server_version.as_str(), found.namespaces[0].kind.as_deref()),
        (2, "9", Some("collection"))
    );
}

#[test]
fn buckets_belong_to_their_time_series_and_to_nothing_else() {
    let documents = numbered(0..3);
    let series = Archive::new(&[("d", "s", "timeseries")]);
    // Of present and of older servers.
    for name in ["s", "system.buckets.s"] {
        let found = read(series.clone().whole("d", name, &documents).0.as_slice()).unwrap();
        assert_eq!(found.documents, std::slice::from_ref(&documents));
    }
    let both = series.clone().segment("d", "s", &documents).segment("d", "system.buckets.s", &[]);
    assert!(both.error().starts_with("d.s: ") && both.error().ends_with("some of its blocks name it, others its buckets"));
    let not = Archive::new(&[("d", "s", "collection")]).whole("d", "system.buckets.s", &documents);
    assert!(not.error().ends_with("it has a block, but the prelude does not name it"));
    let direct = Archive::new(&[("d", "s", "timeseries"), ("d", "system.buckets.s", "collection")]);
    let found = read(direct.whole("d", "system.buckets.s", &documents).whole("d", "s", &[]).0.as_slice()).unwrap();
    assert_eq!(found.documents, [vec![], documents]);
}

#[test]
fn many_that_are_missing_are_not_all_named() {
    let names: Vec<String> = (0..8).map(|n| format!("c{n}")).collect();
    let members: Vec<(&str, &str, &str)> = names.iter().map(|name| ("d", name.as_str(), "view")).collect();
    let archive = Archive::new(&members).whole("d", "c1", &[]);
    assert!(archive.error().ends_with("it ends early: missing the end of d.c0, d.c2, d.c3, d.c4, d.c5 and 2 more"));
}
