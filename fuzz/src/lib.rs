//! The functions that fuzzing calls. Each takes any bytes, and panics if a reader breaks its
//! promise: readers never panic by themselves, and whatever they accept survives a round trip
//! through the matching writer.
//!
//! In builds for fuzzing (`--cfg fuzzing`), checksums and digests are not compared, since no input
//! would pass them, and frames of columns are not compressed inside. The project's tests call the
//! same functions on the same seeds, with all checks.

pub mod seeds;

use std::io::{Cursor, Read};

use bson::RawDocumentBuf;
use bsonvault::error::Result;
use bsonvault::format::arrival;
use bsonvault::format::document::{self, Documents, Elements};
use bsonvault::format::frame::{Codec, Compression, Compressor, Decompressor};
use bsonvault::format::manifest::{ClusterTime, CollectionKind, Manifest};
use bsonvault::format::metadata::read::{Metadata, Versions, extended};
use bsonvault::format::metadata::{self, text};
use bsonvault::format::mongodump::read::{Event, Reader};
use bsonvault::format::readable;
use bsonvault::oplog::{Entry, Head, Transactions};

/// The largest frame that is decoded. Other tests cover the limit for larger claims.
const LARGEST: usize = 4 * 1024 * 1024;

/// An uncompressed archive of mongodump. Read in small pieces, it gives the same as in one piece.
pub fn archive(bytes: &[u8]) {
    let whole = read_archive(bytes);
    assert_eq!(whole, read_archive(Pieces(bytes)), "in pieces it reads differently");
}

/// Returns the number of documents, their bytes, and the end.
fn read_archive(from: impl Read) -> (u64, u64, String) {
    let (mut documents, mut length) = (0, 0);
    let read = || -> Result<()> {
        let mut reader = Reader::open_within(from, |_| Ok(()))?;
        while let Some(event) = reader.next()? {
            if let Event::Document(_, document) = event {
                (documents, length) = (documents + 1, length + document.len() as u64);
            }
        }
        Ok(())
    };
    let ended = read().map_or_else(|e| e.to_string(), |()| String::new());
    (documents, length, ended)
}

/// Gives from one to seven bytes at a time.
struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let piece = into.len().min(1 + self.0.len() % 7);
        self.0.read(&mut into[..piece])
    }
}

/// The metadata file of a collection, a `prelude.json` and a query. What can be read and written is
/// the same when it is read again.
pub fn metadata(bytes: &[u8]) {
    let _any = Versions::parse(bytes);
    if let Ok(query) = extended(bytes)
        && text::is_faithful(&query)
    {
        let written = text::canonical(&query).unwrap_or_default();
        assert_eq!(extended(written.as_bytes()).ok(), Some(query), "{written}");
    }
    let Ok(read) = Metadata::parse(bytes) else { return };
    if !std::iter::once(&read.options).chain(&read.indexes).all(|document| text::is_faithful(document)) {
        return;
    }
    let name = read.collection.clone().unwrap_or_default();
    let indexes = read.indexes.iter().map(AsRef::as_ref);
    let written = metadata::write(&name, CollectionKind::Collection, read.uuid, &read.options, indexes);
    let expected = Metadata { collection: Some(name), kind: Some("collection".to_owned()), ..read };
    assert_eq!(Metadata::parse(&written).ok(), Some(expected), "{}", String::from_utf8_lossy(&written));
}

/// A manifest. Reading gives the same from memory, from a file, and after it was written again.
pub fn manifest(bytes: &[u8]) {
    let _any = Manifest::outline(&mut Cursor::new(bytes));
    let read = Manifest::from_bytes(bytes);
    let from_file = Manifest::from_file(&mut Cursor::new(bytes));
    assert_eq!(read.as_ref().ok(), from_file.as_ref().ok(), "read from a file it differs");
    let Ok(read) = read else { return };
    let Ok(written) = read.to_bytes() else { return };
    let again = Manifest::from_bytes(&written).map(|again| Manifest { sha256: read.sha256.clone(), ..again });
    assert_eq!(again.ok(), Some(read), "{}", String::from_utf8_lossy(&written));
}

/// A frame of columns. Its content is encoded again, and decodes to the same.
pub fn columns(bytes: &[u8]) {
    let Some(length) = claimed(bytes).filter(|&length| length <= LARGEST) else { return };
    let documents = decompressed(bytes, length);
    if let Some(documents) = documents {
        assert_eq!(documents.len(), length);
        frames(&documents);
    }
}

/// How many bytes a frame of columns claims to hold: the number after its first four bytes
/// (`FORMAT.md`, "Columns").
fn claimed(frame: &[u8]) -> Option<usize> {
    let (mut number, mut shift) = (0, 0);
    for &byte in frame.strip_prefix(b"bvC\x01")? {
        number |= usize::from(byte & 0x7F).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(number);
        }
        shift += 7;
    }
    None
}

fn decompressed(frame: &[u8], length: usize) -> Option<Vec<u8>> {
    Decompressor::new().and_then(|mut decompressor| decompressor.decompress(frame, length)).ok()
}

/// Encodes any bytes, documents or not, into frames of columns and back.
pub fn frames(bytes: &[u8]) {
    for codec in [Codec::Columns, Codec::Zstd] {
        let compressed = Compressor::new(Compression { codec, ..Compression::of(1) }).and_then(|mut c| c.compress(bytes));
        let back = compressed.ok().and_then(|frame| decompressed(&frame, bytes.len()));
        assert!(back.as_deref() == Some(bytes), "{codec} does not give back what it was given");
    }
}

/// Documents in sequence, as in a `.bson` file. Arranged as a server would, they have `_id` first.
pub fn documents(bytes: &[u8]) {
    for document in Documents::of(bytes).map_while(Result::ok) {
        let _any = (document::id(document), document::by_id(document), document::has_operator_names(document));
        if document::check(document).is_ok() {
            let shown = readable::document(document).ok().map(RawDocumentBuf::from_bytes);
            // Documents that nest deeper than any server allows are refused.
            assert!(shown.is_none_or(|shown| shown.is_ok()), "what is shown of a document is none");
        }
    }
    let Ok((arranged, changes)) = arrival::arrange(bytes.to_vec(), || [7; 12]) else { return };
    for document in Documents::of(&arranged) {
        let Ok(document) = document else { panic!("what was arranged is no longer documents") };
        let mut ids = Elements::of(document).into_iter().flatten().map_while(Result::ok).map(|element| element.name == b"_id");
        let (first, others) = (ids.next() == Some(true), ids.filter(|is_id| *is_id).count());
        assert!(first || others != 1, "an _id is not the first field, and it is the only one");
    }
    let _any = format!("{changes:?}");
}

/// Oplog entries in sequence. Reading only an entry's head gives the same as reading the whole
/// entry.
pub fn oplog(bytes: &[u8]) {
    let mut transactions = Transactions::new(ClusterTime { t: 1, i: 0 });
    for document in Documents::of(bytes).map_while(Result::ok) {
        let head = Head::of(document);
        let Ok(entry) = Entry::parse(document) else { continue };
        let mut operations = 0u32;
        let each = entry.each(&mut |operation| {
            operations += 1;
            let _any = (operation.database(), operation.target(), operation.id(), operation.command());
            Ok(())
        });
        if let (Ok(head), Ok(())) = (head, each) {
            assert_eq!(head.database(), entry.operation.database().as_bytes(), "head and entry name different databases");
        }
        let _any = transactions.take(&entry, vec![operations]);
    }
    let _any = transactions.open_from();
}
