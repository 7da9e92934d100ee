//! mongodump's archives: any damage is found with its place, and no bytes make the reader panic or
//! use much memory.

use std::io::{self, Read};
use std::ops::Range;

use bson::rawdoc;
use bsonvault::error::{Error, ErrorKind};
use bsonvault::format::document::MAX_DOCUMENT;
use bsonvault::format::mongodump::read::Reader;
use bsonvault::format::mongodump::{MAGIC, Member, Prelude, TERMINATOR};
use flate2::read::GzDecoder;
use proptest::collection::vec;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::documents::any_document;
use crate::mongodump::{
    Archive, Contents, Documents, block, body_of, gunzip, header, numbered, offset_of, pass, read, sample, samples, small,
};

/// The places of namespace headers. Only a changed header may hide the name of its namespace.
fn headers_of(archive: &[u8], body: usize) -> Vec<Range<usize>> {
    let (mut at, mut headers) = (body, Vec::new());
    let length = |at: usize| u32::from_le_bytes(archive[at..at + 4].try_into().unwrap()) as usize;
    while at < archive.len() {
        headers.push(at..at + length(at));
        while archive[at..at + 4] != TERMINATOR {
            at += length(at);
        }
        at += 4;
    }
    headers
}

fn names_of(prelude: &Prelude) -> Vec<String> {
    let name = |n: &Member| if n.database.is_empty() { "the oplog".into() } else { format!("{}.{}", n.database, n.collection) };
    prelude.namespaces.iter().map(name).collect()
}

fn assert_cut(archive: &[u8], body: usize, names: &[String], end: usize) {
    let error = pass(&archive[..end]).unwrap_err();
    let text = error.to_string();
    assert_eq!(offset_of(&error), end as u64, "cut at {end}: {text}");
    assert!(text.contains("it ends early"), "cut at {end}: {text}");
    assert_eq!(text.contains("of the archive's prelude"), end < body, "cut at {end}: {text}");
    assert!(end < body || names.iter().any(|name| text.contains(name)), "cut at {end}: {text}");
}

/// The places that the reader skips: `size`, and a type without meaning.
fn unread_in(archive: &[u8]) -> Vec<Range<usize>> {
    let places = |part: &'static [u8], length: usize| {
        let found = archive.windows(part.len()).enumerate().filter(move |(_, w)| *w == part);
        found.map(move |(at, _)| at..at + length)
    };
    places(b"\x10size\0", 10).chain(places(b"\x02type\0\x01\0\0\0\0", 11)).collect()
}

fn assert_flip(archive: &[u8], whole: &Contents, headers: &[Range<usize>], names: &[String], bit: usize) {
    let mut flipped = archive.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    let found = read(flipped.as_slice());
    if bit / 8 < headers[0].start {
        match found {
            Err(error) => assert!(offset_of(&error) <= archive.len() as u64),
            Ok(found) if found.prelude == whole.prelude => {
                assert!(found == *whole && unread_in(archive).iter().any(|unread| unread.contains(&(bit / 8))), "bit {bit}");
            }
            Ok(_) => {}
        }
        return;
    }
    let error = found.expect_err(&format!("bit {bit} of the body was flipped, and nothing found"));
    let text = error.to_string();
    assert!(offset_of(&error) <= archive.len() as u64 && !text.contains("prelude:"), "bit {bit}: {text}");
    let in_header = headers.iter().any(|header| header.contains(&(bit / 8)));
    assert!(in_header || names.iter().any(|name| text.contains(name)), "bit {bit}: {text}");
}

const ARCHIVES: [&str; 3] = ["all.archive.gz", "zoo.archive.gz", "oplog.archive.gz"];

#[test]
fn an_archive_cut_at_any_byte_is_an_error_that_says_where_and_of_what() {
    let (archive, body) = small();
    let names = names_of(&read(archive.as_slice()).unwrap().prelude);
    for end in 0..archive.len() {
        assert_cut(&archive, body, &names, end);
    }
    let mut random = StdRng::seed_from_u64(1);
    for archive in ARCHIVES.map(sample) {
        let (body, names) = (body_of(&archive), names_of(&read(archive.as_slice()).unwrap().prelude));
        for _ in 0..700 {
            assert_cut(&archive, body, &names, random.random_range(0..archive.len()));
        }
        // Between blocks, only the namespaces tell.
        for header in headers_of(&archive, body).iter().step_by(7) {
            assert_cut(&archive, body, &names, header.start);
        }
    }
}

#[test]
fn any_bit_that_is_flipped_is_found() {
    let (archive, body) = small();
    let (whole, headers) = (read(archive.as_slice()).unwrap(), headers_of(&archive, body));
    let names = names_of(&whole.prelude);
    for bit in 0..archive.len() * 8 {
        assert_flip(&archive, &whole, &headers, &names, bit);
    }
    let mut random = StdRng::seed_from_u64(2);
    for archive in ARCHIVES.map(sample) {
        let (whole, headers) = (read(archive.as_slice()).unwrap(), headers_of(&archive, body_of(&archive)));
        let names = names_of(&whole.prelude);
        // One is large.
        let times = if archive.len() > 10_000_000 { 10 } else { 300 };
        for _ in 0..times {
            assert_flip(&archive, &whole, &headers, &names, random.random_range(0..archive.len() * 8));
        }
        for _ in 0..times {
            let header = &headers[random.random_range(0..headers.len())];
            assert_flip(&archive, &whole, &headers, &names, random.random_range(header.start * 8..header.end * 8));
        }
    }
}

#[test]
fn a_compressed_archive_that_is_cut_or_changed_is_an_error_that_says_where() {
    let stored = std::fs::read(samples().join("zoo.archive.gz")).unwrap();
    let whole = read(gunzip(&stored).as_slice()).unwrap();
    let mut random = StdRng::seed_from_u64(3);
    let mut found = 0;
    for _ in 0..200 {
        let end = random.random_range(0..stored.len());
        offset_of(&pass(GzDecoder::new(&stored[..end])).unwrap_err());
        let mut changed = stored.clone();
        changed[random.random_range(0..stored.len())] ^= 1 << random.random_range(0..8);
        match read(GzDecoder::new(changed.as_slice())) {
            Err(error) => {
                offset_of(&error);
                found += 1;
            }
            // Some bits of the compressed form have no meaning.
            Ok(contents) => assert!(contents == whole),
        }
    }
    assert!(found > 150, "only {found} changes were found");
}

/// Reads as `bytes` does, then fails, and records the largest request.
struct Failing<'a> {
    bytes: &'a [u8],
    error: Option<io::Error>,
    asked: usize,
}

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.asked = self.asked.max(buffer.len());
        match self.bytes.read(buffer)? {
            0 => self.error.take().map_or(Ok(0), Err),
            read => Ok(read),
        }
    }
}

#[test]
fn an_error_of_the_stream_keeps_its_kind_and_gets_a_place() {
    let (archive, body) = small();
    let fail = |at: usize, error: io::Error| {
        let error = pass(Failing { bytes: &archive[..at], error: Some(error), asked: 0 }).unwrap_err();
        (error.kind(), error.to_string())
    };
    let inside = body + headers_of(&archive, body)[0].len() + 10;
    let place = format!("shop.orders: at byte {inside} of the archive: ");
    let early = io::Error::from(io::ErrorKind::UnexpectedEof);
    assert_eq!(fail(inside, early), (ErrorKind::Damaged, format!("{place}it ends early")));
    for kind in [io::ErrorKind::InvalidData, io::ErrorKind::InvalidInput, io::ErrorKind::Other] {
        let found = fail(inside, io::Error::new(kind, "corrupt deflate stream"));
        assert_eq!(found, (ErrorKind::Damaged, format!("{place}it cannot be decompressed further: corrupt deflate stream")));
    }
    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    assert_eq!(fail(inside, denied), (ErrorKind::Storage, format!("{place}it cannot be read: permission denied")));
    assert_eq!(fail(inside, io::Error::other(Error::interrupted())), (ErrorKind::Interrupted, format!("{place}interrupted")));
    let (kind, text) = fail(7, io::Error::from(io::ErrorKind::TimedOut));
    assert_eq!((kind, text.as_str()), (ErrorKind::Storage, "at byte 7 of the archive's prelude: it cannot be read: timed out"));
    // This error only asks for another try.
    let again = Again { first: Some(io::ErrorKind::Interrupted.into()), rest: &archive };
    pass(again).unwrap();
}

/// Fails once, then reads.
struct Again<'a> {
    first: Option<io::Error>,
    rest: &'a [u8],
}

impl Read for Again<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.first.take().map_or(Ok(()), Err)?;
        self.rest.read(buffer)
    }
}

#[test]
fn after_an_error_there_are_only_errors() {
    let (archive, body) = small();
    let mut reader = Reader::open(&archive[..body]).unwrap();
    assert_eq!(reader.offset(), body as u64);
    assert!(reader.next().unwrap_err().to_string().contains("it ends early"));
    for _ in 0..2 {
        assert!(reader.next().unwrap_err().to_string().ends_with("nothing more is read after an error"));
    }
}

#[test]
fn no_more_is_allocated_than_the_largest_document_takes() {
    let start = Archive::new(&[("d", "c", "collection")]).bytes(&block("d", "c", false, 0));
    for claimed in [0, 4, MAX_DOCUMENT as u32, MAX_DOCUMENT as u32 + 1, i32::MAX as u32, 1 << 31, u32::MAX - 1] {
        let archive = start.clone().bytes(&claimed.to_le_bytes()).bytes(&[0; 1000]);
        let mut inner = Failing { bytes: &archive.0, error: None, asked: 0 };
        offset_of(&pass(&mut inner).unwrap_err());
        assert!(inner.asked >= 256 * 1024 && inner.asked < MAX_DOCUMENT + 1024 * 1024, "asked for {}", inner.asked);
    }
    // The largest allowed document, twice.
    let mut largest = rawdoc! { "a": "" }.into_bytes();
    largest.splice(11..11, vec![b'x'; MAX_DOCUMENT - largest.len()]);
    largest[..4].copy_from_slice(&(MAX_DOCUMENT as u32).to_le_bytes());
    let documents = [largest.clone(), numbered(0..1).remove(0), largest];
    let archive = Archive::new(&[("d", "c", "collection")]).whole("d", "c", &documents);
    assert_eq!(pass(archive.0.as_slice()).unwrap(), documents.concat().len() as u64);
}

#[test]
fn a_prelude_has_an_end() {
    // Fields that a tool added are not kept, so this uses no memory here either.
    let part = |n: u32| {
        let padding = 16_000_000_u32;
        let start = rawdoc! { "db": "d", "collection": format!("{n:04}") }.into_bytes();
        let inside = [&start[4..start.len() - 1], b"\x05padding\0", &padding.to_le_bytes(), &[0]].concat();
        let length = (4 + inside.len() + padding as usize + 1) as u32;
        io::Cursor::new([&length.to_le_bytes(), inside.as_slice()].concat()).chain(io::repeat(0).take(u64::from(padding) + 1))
    };
    let mut endless: Box<dyn Read> = Box::new(io::Cursor::new([&MAGIC, header("0.1").as_slice()].concat()));
    for n in 0..40 {
        endless = Box::new(endless.chain(part(n)));
    }
    let error = pass(endless).unwrap_err();
    assert!(error.to_string().ends_with("the prelude takes more than 536870912 bytes"), "{error}");
}

/// Returns this many bytes at a time.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.1);
        self.0.read(&mut buffer[..length])
    }
}

/// Some namespaces, and the steps in which their documents are written: which namespace, how many
/// documents.
fn interleaved() -> impl Strategy<Value = (Vec<Documents>, Vec<(usize, usize)>)> {
    let documents = vec(vec(any_document(false), 0..6), 1..5);
    (documents, vec((any::<prop::sample::Index>(), 0usize..4), 0..20)).prop_map(|(documents, steps)| {
        let steps = steps.into_iter().map(|(of, many)| (of.index(documents.len()), many)).collect();
        (documents, steps)
    })
}

fn write(namespaces: &[Documents], steps: &[(usize, usize)]) -> Archive {
    let names: Vec<String> = (0..namespaces.len()).map(|n| format!("c{n}")).collect();
    let members: Vec<(&str, &str, &str)> = names.iter().map(|name| ("d", name.as_str(), "collection")).collect();
    let mut written = vec![0; names.len()];
    let mut archive = Archive::new(&members);
    for &(of, many) in steps {
        let end = (written[of] + many).min(namespaces[of].len());
        archive = archive.segment("d", &names[of], &namespaces[of][written[of]..end]);
        written[of] = end;
    }
    for (of, name) in names.iter().enumerate().rev() {
        let rest = &namespaces[of][written[of]..];
        archive = if rest.is_empty() { archive } else { archive.segment("d", name, rest) };
        archive = archive.end("d", name, &namespaces[of]);
    }
    archive
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn interleaved_segments_of_any_documents_come_back((namespaces, steps) in interleaved(), at_a_time in 1usize..300) {
        let archive = write(&namespaces, &steps);
        let found = read(Trickle(&archive.0, at_a_time)).unwrap();
        prop_assert_eq!(found.documents, namespaces);
    }

    #[test]
    fn changed_archives_never_panic(
        (namespaces, steps) in interleaved(),
        changes in vec((any::<prop::sample::Index>(), vec(any::<u8>(), 0..5), 0usize..5), 1..4),
    ) {
        let mut archive = write(&namespaces, &steps).0;
        for (at, bytes, replaced) in changes {
            let at = at.index(archive.len());
            let end = (at + replaced).min(archive.len());
            archive.splice(at..end, bytes);
        }
        if let Err(error) = pass(archive.as_slice()) {
            prop_assert!(offset_of(&error) <= archive.len() as u64);
        }
    }

    #[test]
    fn random_bytes_are_an_error_with_a_place(start in 0usize..4, bytes in vec(any::<u8>(), 0..300), small in any::<bool>()) {
        // Small numbers give lengths that are almost right.
        let bytes: Vec<u8> = if small { bytes.iter().map(|b| b % 20).collect() } else { bytes };
        let body = Archive::new(&[("d", "c", "collection")]);
        let start = match start {
            0 => Vec::new(),
            1 => MAGIC.to_vec(),
            2 => body.0,
            _ => body.bytes(&block("d", "c", false, 0)).0,
        };
        offset_of(&pass([start, bytes].concat().as_slice()).unwrap_err());
    }
}
