//! An archive's items, from one buffer: a document is a part of it, and is copied only where it reaches past its end.

use std::io::{self, Read};
use std::ops::Range;

use crc64fast::Digest;

use super::super::{MAGIC, TERMINATOR};
use crate::error::{Error, ErrorKind};
use crate::format::document::MAX_DOCUMENT;

/// How much is asked for at least at a time, and how long the buffer is before a document needs more.
const CHUNK: usize = 512 * 1024;

/// What is said of a stream that ends inside an item.
pub(super) const EARLY: &str = "it ends early";

/// What the grammar is made of.
#[derive(Debug)]
pub(super) enum Item {
    Terminator,
    /// A document, by its place in the buffer.
    Document(Range<usize>),
    /// The stream ends, and not inside an item.
    End,
}

/// An error, and where it is.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: u64,
    /// Whether it is that the stream ends.
    pub(super) early: bool,
    pub(super) error: Error,
}

/// The bytes of an archive.
pub(super) struct Input<R> {
    inner: R,
    buffer: Vec<u8>,
    /// What is not taken yet is `buffer[start..end]`.
    start: usize,
    end: usize,
    /// The offset in the archive of the buffer's first byte.
    base: u64,
    /// Of the documents of the open segment. They are hashed many at a time: the implementation is fast with large inputs only.
    digest: Option<Digest>,
    /// Where in the buffer begins what `digest` has not seen.
    unhashed: usize,
}

impl<R> std::fmt::Debug for Input<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("offset", &(self.base + self.start as u64)).finish_non_exhaustive()
    }
}

impl<R: Read> Input<R> {
    pub(super) fn of(inner: R) -> Self {
        Self { inner, buffer: vec![0; CHUNK], start: 0, end: 0, base: 0, digest: None, unhashed: 0 }
    }

    pub(super) fn offset(&self) -> u64 {
        self.base + self.start as u64
    }

    /// The bytes of a document, good until the next item is taken.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// The next four bytes.
    pub(super) fn four(&mut self) -> Result<[u8; 4], Fault> {
        if self.fill(4)? < 4 {
            return Err(self.early());
        }
        let four = self.peek_four();
        self.start += 4;
        Ok(four)
    }

    pub(super) fn item(&mut self) -> Result<Item, Fault> {
        match self.fill(4)? {
            0 => return Ok(Item::End),
            1..4 => return Err(self.early()),
            _ => {}
        }
        let four = self.peek_four();
        if four == TERMINATOR {
            self.hash();
            self.start += 4;
            self.unhashed = self.start;
            return Ok(Item::Terminator);
        }
        let claimed = u32::from_le_bytes(four);
        let length = match usize::try_from(claimed) {
            Ok(length) if (5..=MAX_DOCUMENT).contains(&length) => length,
            _ if four == MAGIC => return Err(self.another()),
            _ => return Err(self.wrong(format!("a document claims {claimed} bytes, and may have 5 to {MAX_DOCUMENT}"))),
        };
        if self.fill(length)? < length {
            return Err(self.early());
        }
        let range = self.start..self.start + length;
        if self.buffer[range.end - 1] != 0 {
            return Err(self.wrong(format!("a document of {length} bytes does not end with a NUL")));
        }
        self.start = range.end;
        Ok(Item::Document(range))
    }

    /// Lets the documents that follow go on with this digest.
    pub(super) fn hash_from_here(&mut self, digest: Digest) {
        self.digest = Some(digest);
        self.unhashed = self.start;
    }

    /// The digest, with the documents up to the terminator that was taken last.
    pub(super) fn hashed(&mut self) -> Option<Digest> {
        self.digest.take()
    }

    fn hash(&mut self) {
        if let Some(digest) = &mut self.digest {
            digest.write(&self.buffer[self.unhashed..self.start]);
        }
        self.unhashed = self.start;
    }

    fn peek_four(&self) -> [u8; 4] {
        let mut four = [0; 4];
        four.copy_from_slice(&self.buffer[self.start..self.start + 4]);
        four
    }

    /// Reads until `wanted` bytes are there, or all that there are; says how many.
    fn fill(&mut self, wanted: usize) -> Result<usize, Fault> {
        if self.end - self.start < wanted {
            self.read(wanted)?;
        }
        Ok(self.end - self.start)
    }

    #[cold]
    fn read(&mut self, wanted: usize) -> Result<(), Fault> {
        self.hash();
        self.buffer.copy_within(self.start..self.end, 0);
        self.base += self.start as u64;
        (self.start, self.end, self.unhashed) = (0, self.end - self.start, 0);
        let room = wanted.next_multiple_of(CHUNK);
        if room > self.buffer.len() {
            self.buffer.resize(room, 0);
        }
        while self.end < wanted {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(read) => self.end += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed(e)),
            }
        }
        Ok(())
    }

    fn wrong(&self, what: String) -> Fault {
        Fault { at: self.offset(), early: false, error: Error::damaged(what) }
    }

    /// Archives that were put one behind the other, as files of text may be.
    fn another(&self) -> Fault {
        let Fault { at, early, error } = self.wrong("another archive begins".to_owned());
        Fault { at, early, error: error.hint("one archive is read at a time: keep each in a file of its own") }
    }

    /// The stream ends where its bytes do, not where the item began.
    fn early(&self) -> Fault {
        Fault { at: self.base + self.end as u64, early: true, error: Error::damaged(EARLY) }
    }

    fn failed(&self, e: io::Error) -> Fault {
        let at = self.base + self.end as u64;
        let kind = e.kind();
        // An error of this crate passed through a reader of the standard library.
        if e.get_ref().is_some_and(|inner| inner.is::<Error>()) {
            let error = match e.into_inner().map(|inner| inner.downcast::<Error>()) {
                Some(Ok(error)) => *error,
                _ => Error::new(ErrorKind::Internal, "an error was lost"),
            };
            return Fault { at, early: false, error };
        }
        match kind {
            io::ErrorKind::UnexpectedEof => Fault { at, early: true, error: Error::damaged(EARLY).cause(e) },
            // What decompressors say of bytes that they cannot read.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                Fault { at, early: false, error: Error::damaged(format!("it cannot be decompressed further: {e}")).cause(e) }
            }
            _ => Fault { at, early: false, error: Error::new(ErrorKind::Storage, format!("it cannot be read: {e}")).cause(e) },
        }
    }
}
