//! A piece: the entries of a second or two, in one small object, until they become part of a link.
//!
//! It is a segment whose first document says what the others are. So one write makes both durable.

use serde::{Deserialize, Serialize};
use std::ops::Range;

use super::{Gap, known};
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::{Content, ContentDigest, Sha256Hex};
use crate::format::document::{Documents, MAX_DOCUMENT};
use crate::format::frame::{Compressor, Decompressor};
use crate::format::manifest::OplogPosition;
use crate::format::segment::{Builder, Finished, SeekTable};

/// The largest piece that is read, in bytes.
pub const PIECE_LIMIT: u64 = crate::format::segment::LIMIT as u64;

/// The most bytes of entries in a piece: several replies of a server.
const MOST_BYTES: u64 = 256 * 1024 * 1024;

/// The first document of a piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PieceHeader {
    /// The version of the format.
    pub format_version: u32,
    /// The replica set's ID.
    pub replica_set_id: String,
    /// Its number: one more than that of the piece before it.
    pub number: u64,
    /// The SHA-256 of the piece before it; `None` for the first one.
    pub previous: Option<Sha256Hex>,
    /// The gap that it begins with, if any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gap: Option<Gap>,
    /// The entry that it follows, or where it begins.
    pub from: OplogPosition,
    /// Its last entry.
    pub to: OplogPosition,
    /// The number of entries.
    pub entries: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
    /// Their content digest.
    pub digest: ContentDigest,
}

impl PieceHeader {
    /// The entries, their bytes and their digest.
    #[must_use]
    pub fn content(&self) -> Content {
        Content { documents: self.entries, bytes: self.bytes, sum: self.digest.0 }
    }

    /// Makes a piece of this header and of frames of entries.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`].
    pub fn piece<'a>(
        &self,
        frames: impl IntoIterator<Item = (&'a [u8], Content)>,
        compressor: &mut Compressor,
    ) -> Result<Finished> {
        let failed = |e| Error::new(ErrorKind::Internal, "the header of a piece cannot be written").cause(e);
        let header = bson::serialize_to_vec(self).map_err(failed)?;
        let mut content = Content::default();
        content.add(&header);
        let mut builder = Builder::default();
        builder.push(compressor.compress(&header)?, &content);
        for (frame, content) in frames {
            builder.push(compressor.compress(frame)?, &content);
        }
        Ok(builder.finish())
    }
}

/// A stored piece, whose header was read.
#[derive(Debug)]
pub struct Piece {
    /// Its header.
    pub header: PieceHeader,
    /// The SHA-256 of its bytes.
    pub sha256: Sha256Hex,
    bytes: bytes::Bytes,
    frames: Vec<(Range<usize>, usize)>,
}

impl Piece {
    /// Reads the header of a stored piece.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`].
    pub fn open(bytes: bytes::Bytes, decompressor: &mut Decompressor) -> Result<Self> {
        let frames = SeekTable::read(&bytes)?.frames().to_vec();
        let Some((place, raw)) = frames.first().cloned() else { return Err(Error::damaged("a piece has no header")) };
        if raw > MAX_DOCUMENT {
            return Err(Error::damaged("a piece has a header that is too large"));
        }
        let first = decompressor.decompress(&bytes[place], raw)?;
        let header: PieceHeader = bson::deserialize_from_slice(&first)
            .map_err(|e| Error::damaged(format!("the header of a piece cannot be read: {e}")).cause(e))?;
        known("a piece", header.format_version)?;
        let raw = frames.iter().skip(1).fold(0, |sum, (_, raw)| sum + *raw as u64);
        if raw != header.bytes || raw > MOST_BYTES {
            return Err(Error::damaged(format!(
                "a piece holds {raw} bytes of entries according to its table, and {} according to its header",
                header.bytes
            )));
        }
        Ok(Self { header, sha256: Sha256Hex::of(&bytes), bytes, frames })
    }

    /// The number of its frames of entries.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.frames.len() - 1
    }

    /// The entries of a frame.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`].
    pub fn frame(&self, number: usize, decompressor: &mut Decompressor) -> Result<Vec<u8>> {
        let Some((place, raw)) = self.frames.get(number + 1).cloned() else {
            return Err(Error::new(ErrorKind::Internal, "a piece has no such frame"));
        };
        decompressor.decompress(&self.bytes[place], raw)
    }

    /// All its entries, proven to be those that the header counts.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`].
    pub fn entries(&self, decompressor: &mut Decompressor) -> Result<Vec<Vec<u8>>> {
        let mut content = Content::default();
        let mut frames = Vec::with_capacity(self.frames());
        for number in 0..self.frames() {
            let frame = self.frame(number, decompressor)?;
            for document in Documents::of(&frame) {
                content.add(document?);
            }
            frames.push(frame);
        }
        if content != self.header.content() {
            return Err(Error::damaged("a piece does not hold the entries that its header counts"));
        }
        Ok(frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::chain::CHAIN_VERSION;
    use crate::format::document::Writer;
    use crate::format::frame::Compression;
    use crate::format::manifest::ClusterTime;

    fn made(entries: &[u8], content: Content) -> bytes::Bytes {
        let position = |t| OplogPosition { time: ClusterTime { t, i: 1 }, term: None, digest: None };
        let header = PieceHeader {
            format_version: CHAIN_VERSION,
            replica_set_id: "6386c5a0f1d2e3b4a5968778".to_owned(),
            number: 3,
            previous: Some(Sha256Hex::of(b"the one before")),
            gap: None,
            from: position(1),
            to: position(2),
            entries: content.documents,
            bytes: content.bytes,
            digest: content.digest(),
        };
        let mut compressor = Compressor::new(Compression::of(1)).unwrap();
        let finished = header.piece([(entries, content)], &mut compressor).unwrap();
        finished.chunks.concat().into()
    }

    #[test]
    fn a_piece_gives_back_its_entries_and_any_change_of_it_is_found() {
        let entry = Writer::default().with(0x10, "n", &7i32.to_le_bytes()).finish();
        let mut content = Content::default();
        content.add(&entry);
        let stored = made(&entry, content);
        let mut decompressor = Decompressor::new().unwrap();
        let piece = Piece::open(stored.clone(), &mut decompressor).unwrap();
        assert_eq!((piece.header.number, piece.entries(&mut decompressor).unwrap()), (3, vec![entry.clone()]));
        for at in 0..stored.len() {
            let mut changed = stored.to_vec();
            changed[at] ^= 0x10;
            let read = Piece::open(changed.into(), &mut decompressor);
            let found = read.and_then(|piece| piece.entries(&mut decompressor).map(|_| piece.sha256));
            // The table's own descriptor bits may be read over; the next piece names the digest.
            assert!(found.is_err() || found.is_ok_and(|sha256| sha256 != piece.sha256), "byte {at}");
            assert!(Piece::open(stored.slice(..at), &mut decompressor).is_err());
        }
        let mut twice = content;
        twice.add(&entry);
        let piece = Piece::open(made(&entry, twice), &mut decompressor).unwrap();
        assert!(piece.entries(&mut decompressor).is_err());
    }
}
