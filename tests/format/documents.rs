//! Arbitrary documents survive a round trip.

use bson::raw::RawBsonRef;
use bson::{RawArray, RawDocument};
use bsonvault::format::digest::Content;
use bsonvault::format::document::{self, Documents, Element, Elements, Writer};
use bsonvault::format::frame::Decompressor;
use bsonvault::format::segment::SeekTable;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::archive::{Shape, segments};

/// A type byte and a value in BSON layout.
type Value = (u8, Vec<u8>);

fn text(utf8: bool) -> BoxedStrategy<Vec<u8>> {
    if utf8 { ".{0,12}".prop_map(String::into_bytes).boxed() } else { vec(any::<u8>(), 0..12).boxed() }
}

/// Text without NUL, for names and regular expressions. A few names are frequent, so that some
/// repeat.
fn name(utf8: bool) -> BoxedStrategy<Vec<u8>> {
    let free = text(utf8).prop_map(|mut t| {
        t.retain(|&b| b != 0);
        t
    });
    prop_oneof![Just(b"_id".to_vec()), Just(b"a".to_vec()), Just(b"a.$b".to_vec()), Just(Vec::new()), free].boxed()
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u32 + 1).to_le_bytes(), text, &[0]].concat()
}

fn write(elements: &[(Vec<u8>, Value)]) -> Vec<u8> {
    elements.iter().fold(Writer::default(), |w, (name, (kind, value))| w.with(*kind, name, value)).finish()
}

fn value(utf8: bool) -> BoxedStrategy<Value> {
    let fixed = |kind: u8, length: usize| vec(any::<u8>(), length).prop_map(move |v| (kind, v));
    let strings = (prop_oneof![Just(0x02u8), Just(0x0D), Just(0x0E)], text(utf8)).prop_map(|(kind, t)| (kind, string(&t)));
    let binary = (any::<u8>(), vec(any::<u8>(), 0..20)).prop_map(move |(subtype, bytes)| {
        // The old subtype has an inner length.
        let bytes = if subtype == 2 { [&(bytes.len() as u32).to_le_bytes(), bytes.as_slice()].concat() } else { bytes };
        (0x05, [&(bytes.len() as u32).to_le_bytes(), [subtype].as_slice(), &bytes].concat())
    });
    let regex = (name(utf8), name(utf8)).prop_map(|(a, b)| (0x0B, [a, vec![0], b, vec![0]].concat()));
    let pointer = (text(utf8), vec(any::<u8>(), 12)).prop_map(|(t, id)| (0x0C, [string(&t), id].concat()));
    let leaf = prop_oneof![
        fixed(0x01, 8),
        strings,
        binary,
        prop_oneof![Just(0x06u8), Just(0x0A), Just(0x7F), Just(0xFF)].prop_map(|kind| (kind, Vec::new())),
        fixed(0x07, 12),
        (0u8..2).prop_map(|b| (0x08, vec![b])),
        fixed(0x09, 8),
        regex,
        pointer,
        fixed(0x10, 4),
        fixed(0x11, 8),
        fixed(0x12, 8),
        fixed(0x13, 16),
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        let elements = vec((name(utf8), inner), 0..5).boxed();
        prop_oneof![
            (prop_oneof![Just(0x03u8), Just(0x04)], elements.clone()).prop_map(|(kind, e)| (kind, write(&e))),
            (text(utf8), elements).prop_map(|(code, scope)| {
                let rest = [string(&code), write(&scope)].concat();
                (0x0F, [&(rest.len() as u32 + 4).to_le_bytes(), rest.as_slice()].concat())
            }),
        ]
    })
    .boxed()
}

/// Any document that a server could hold: every type, repeated names, and text that is not UTF-8
/// unless `utf8`.
pub(crate) fn any_document(utf8: bool) -> BoxedStrategy<Vec<u8>> {
    vec((name(utf8), value(utf8)), 0..6).prop_map(|elements| write(&elements)).boxed()
}

/// A document with some bytes changed.
fn changed_document() -> BoxedStrategy<Vec<u8>> {
    (any_document(true), vec((any::<prop::sample::Index>(), any::<u8>()), 0..3))
        .prop_map(|(mut document, changes)| {
            for (at, byte) in changes {
                let at = at.index(document.len());
                document[at] = byte;
            }
            document
        })
        .boxed()
}

/// Whether the `bson` crate can read all of it.
fn bson_reads(document: &[u8]) -> bool {
    fn value(value: RawBsonRef<'_>) -> bool {
        match value {
            RawBsonRef::Document(d) => all(d),
            RawBsonRef::Array(a) => array(a),
            RawBsonRef::JavaScriptCodeWithScope(c) => all(c.scope),
            _ => true,
        }
    }
    fn array(array: &RawArray) -> bool {
        array.into_iter().all(|v| v.is_ok_and(value))
    }
    fn all(document: &RawDocument) -> bool {
        document.iter().all(|element| element.is_ok_and(|(_, v)| value(v)))
    }
    RawDocument::from_bytes(document).is_ok_and(all)
}

/// Whether it is free of what a server stores but the `bson` crate refuses: text that is not UTF-8,
/// and binary values of the old subtype without their inner length.
fn is_clean(document: &[u8]) -> bool {
    let utf8 = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    Elements::of(document).unwrap().all(|element| {
        let Element { kind, name, value } = element.unwrap();
        utf8(name)
            && match kind {
                0x02 | 0x0D | 0x0E => utf8(&value[4..]),
                0x0C => utf8(&value[4..value.len() - 12]),
                0x0B => utf8(value),
                0x03 | 0x04 => is_clean(value),
                0x0F => {
                    let code = u32::from_le_bytes(value[4..8].try_into().unwrap()) as usize;
                    utf8(&value[8..8 + code]) && is_clean(&value[8 + code..])
                }
                0x05 if value[4] == 2 => {
                    value.len() >= 9 && u32::from_le_bytes(value[5..9].try_into().unwrap()) as usize == value.len() - 9
                }
                _ => true,
            }
    })
}

fn content(documents: &[Vec<u8>]) -> Content {
    let mut content = Content::default();
    documents.iter().for_each(|d| content.add(d));
    content
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_documents_come_back_from_segments_of_any_shape(
        documents in vec(any_document(false), 0..24), frame in 1usize..2048, segment in 1usize..2048,
    ) {
        let mut back = Vec::new();
        let mut sum = Content::default();
        let mut decompressor = Decompressor::new().unwrap();
        for finished in segments(&documents, Shape::of(frame, segment)).unwrap() {
            let whole = finished.chunks.concat();
            prop_assert_eq!(whole.len() as u64, finished.stored_bytes);
            let table = SeekTable::read(&whole).unwrap();
            prop_assert_eq!(table.frames().len() as u64, finished.frames);
            let mut raw = Vec::new();
            for (place, length) in table.frames() {
                raw.extend(decompressor.decompress(&whole[place.clone()], *length).unwrap());
            }
            prop_assert_eq!(raw.len() as u64, finished.raw_bytes);
            prop_assert_eq!(&zstd::stream::decode_all(whole.as_slice()).unwrap(), &raw);
            back.extend(raw);
            sum.merge(&finished.content);
        }
        prop_assert_eq!(&back, &documents.concat());
        prop_assert_eq!(sum, content(&documents));
        let split: Vec<Vec<u8>> = Documents::of(&back).map(|d| d.unwrap().to_vec()).collect();
        prop_assert_eq!(split, documents);
    }

    #[test]
    fn a_digest_does_not_depend_on_order_but_on_every_document(
        documents in vec(any_document(false), 1..12).prop_shuffle(), by in any::<prop::sample::Index>(),
    ) {
        let whole = content(&documents);
        let mut turned = documents.clone();
        turned.rotate_left(by.index(documents.len()));
        turned.reverse();
        prop_assert_eq!(content(&turned), whole);
        let one = turned.pop().unwrap();
        prop_assert_ne!(content(&turned).digest(), whole.digest());
        turned.extend([one.clone(), one]);
        prop_assert_ne!(content(&turned).digest(), whole.digest());
    }

    #[test]
    fn any_document_passes_the_check(document in any_document(false)) {
        document::check(&document).unwrap();
        document::id(&document).unwrap();
        document::has_empty_timestamp(&document).unwrap();
    }

    #[test]
    fn what_the_bson_crate_reads_passes_the_check(document in changed_document()) {
        if bson_reads(&document) {
            document::check(&document).unwrap();
        }
    }

    #[test]
    fn what_passes_the_check_is_read_by_the_bson_crate(document in changed_document()) {
        if document::check(&document).is_ok() && is_clean(&document) {
            prop_assert!(bson_reads(&document), "{document:02X?}");
        }
    }
}

#[test]
fn documents_of_utf8_are_read_by_both() {
    proptest!(|(document in any_document(true))| {
        prop_assert!(bson_reads(&document) && document::check(&document).is_ok());
    });
}

#[test]
fn nesting_is_followed_as_deep_as_servers_go_and_not_without_end() {
    let nested =
        |levels| (0..levels).fold(Writer::default().finish(), |inner, _| Writer::default().with(3, b"a", &inner).finish());
    document::check(&nested(200)).unwrap();
    assert!(document::check(&nested(100_000)).unwrap_err().to_string().contains("nested too deeply"));
}

#[test]
fn every_string_must_have_its_end_where_its_length_says() {
    let scope = Writer::default().finish();
    let scoped = |end: u8| [[18, 0, 0, 0].as_slice(), &[5, 0, 0, 0, b'f', b'(', b')', b';', end], &scope].concat();
    let pointer = |end: u8| [&[2, 0, 0, 0, b'c', end], [7; 12].as_slice()].concat();
    let text = |end: u8| vec![2, 0, 0, 0, b'x', end];
    for (kind, value) in
        [(0x0Fu8, &scoped as &dyn Fn(u8) -> Vec<u8>), (0x0C, &pointer), (0x02, &text), (0x0D, &text), (0x0E, &text)]
    {
        let document = |end| Writer::default().with(kind, b"a", &value(end)).finish();
        document::check(&document(0)).unwrap();
        assert!(document::check(&document(1)).is_err(), "type 0x{kind:02X}");
    }
}
