//! Reads an archive's items from one buffer: a document is a part of it, and is only copied if it
//! reaches past its end.

use std::io::{self, Read};
use std::ops::Range;

use crc64fast::Digest;

use super::super::{MAGIC, TERMINATOR};
use crate::error::{Error, ErrorKind};
use crate::format::document::MAX_DOCUMENT;

/// The minimum to read at a time, and the length of the buffer before a document needs more.
const CHUNK: usize = 512 * 1024;

/// The message for a stream that ends inside an item.
pub(super) const EARLY: &str = "it ends early";

/// The tokens of the grammar.
#[derive(Debug)]
pub(super) enum Item {
    Terminator,
    /// A document, by its range in the buffer.
    Document(Range<usize>),
    /// The end of the stream, not inside an item.
    End,
}

/// An error and its place.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: u64,
    /// Whether the stream ends early.
    pub(super) early: bool,
    pub(super) error: Error,
}

/// The bytes of an archive.
pub(super) struct Input<R> {
    inner: R,
    buffer: Vec<u8>,
    /// The bytes not consumed yet are `buffer[start..end]`.
    start: usize,
    end: usize,
    /// The offset in the archive of the buffer's first byte.
    base: u64,
    /// The digest of the documents in the open segment. They are hashed in bulk: the implementation
    /// is only fast with large inputs.
    digest: Option<Digest>,
    /// The start of the bytes that `digest` has not seen.
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

    /// The bytes of a document, valid until the next item is taken.
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
            _ => return Err(self.wrong(format!("a document claims {claimed} bytes, but may have only 5 to {MAX_DOCUMENT}"))),
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

    /// Continues this digest with the following documents.
    pub(super) fn hash_from_here(&mut self, digest: Digest) {
        self.digest = Some(digest);
        self.unhashed = self.start;
    }

    /// The digest, including the documents up to the last terminator taken.
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

    /// Reads until there are `wanted` bytes, or all there are; returns how many.
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

    /// The error for concatenated archives.
    fn another(&self) -> Fault {
        let Fault { at, early, error } = self.wrong("another archive begins".to_owned());
        Fault { at, early, error: error.hint("only one archive can be read at a time: keep each in its own file") }
    }

    /// The stream ends where its bytes do, not where the item began.
    fn early(&self) -> Fault {
        Fault { at: self.base + self.end as u64, early: true, error: Error::damaged(EARLY) }
    }

    fn failed(&self, e: io::Error) -> Fault {
        let at = self.base + self.end as u64;
        let kind = e.kind();
        // An error of this crate that went through a reader of the standard library.
        if e.get_ref().is_some_and(|inner| inner.is::<Error>()) {
            let error = match e.into_inner().map(|inner| inner.downcast::<Error>()) {
                Some(Ok(error)) => *error,
                _ => Error::new(ErrorKind::Internal, "an error was lost"),
            };
            return Fault { at, early: false, error };
        }
        match kind {
            io::ErrorKind::UnexpectedEof => Fault { at, early: true, error: Error::damaged(EARLY).cause(e) },
            // Decompressors report unreadable bytes like this.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                Fault { at, early: false, error: Error::damaged(format!("it cannot be decompressed further: {e}")).cause(e) }
            }
            _ => Fault { at, early: false, error: Error::new(ErrorKind::Storage, format!("it cannot be read: {e}")).cause(e) },
        }
    }
}
