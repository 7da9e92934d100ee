//! Segments: stored objects with frames, in zstd's seekable format (`contrib/seekable_format` of
//! facebook/zstd, version 0.1.0). Independent frames are followed by one skippable frame with a
//! table of their sizes. `zstd -dc` reads it unchanged.

use std::ops::Range;

use bytes::Bytes;

use super::digest::{Content, Hasher, Sha256Hex};
use super::frame;
use crate::error::{Error, Result};

/// The approximate stored size of a segment.
pub const TARGET: usize = 32 * 1024 * 1024;

/// The largest stored segment that a reader accepts: the target plus one incompressible frame of
/// the largest size.
pub const LIMIT: usize = TARGET + 2 * frame::LIMIT;

const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;
const FOOTER: usize = 9;
const ENTRY: usize = 8;
const HEADER: usize = 8;

/// Less than the smallest zstd frame with a length and a checksum: it limits the number of frames
/// in a segment.
const SMALLEST_FRAME: usize = 12;
/// The smallest document, and so the minimum content of a frame.
const SMALLEST_DOCUMENT: usize = 5;

/// A segment being built in memory, frame by frame.
#[derive(Debug, Default)]
pub struct Builder {
    chunks: Vec<Bytes>,
    table: Vec<(u32, u32)>,
    stored: usize,
    raw: u64,
    content: Content,
    hasher: Hasher,
}

/// A segment ready to be stored.
#[derive(Debug)]
pub struct Finished {
    /// The object's bytes, in order.
    pub chunks: Vec<Bytes>,
    /// Their total length.
    pub stored_bytes: u64,
    /// Their uncompressed length.
    pub raw_bytes: u64,
    /// The number of frames.
    pub frames: u64,
    /// The documents inside.
    pub content: Content,
    /// The SHA-256 of the object.
    pub sha256: Sha256Hex,
}

impl Builder {
    /// Adds a compressed frame and its content.
    pub fn push(&mut self, frame: Vec<u8>, content: &Content) {
        // Both lengths are below `frame::LIMIT` and its compressed bound, far below 4 GiB.
        self.table.push((frame.len() as u32, content.bytes as u32));
        self.hasher.update(&frame);
        self.stored += frame.len();
        self.raw += content.bytes;
        self.content.merge(content);
        self.chunks.push(Bytes::from(frame));
    }

    /// The bytes of the frames so far.
    #[must_use]
    pub fn stored(&self) -> usize {
        self.stored
    }

    /// Whether it has no frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Adds the table and closes it.
    #[must_use]
    pub fn finish(mut self) -> Finished {
        let mut tail = Vec::with_capacity(HEADER + self.table.len() * ENTRY + FOOTER);
        tail.extend(SKIPPABLE_MAGIC.to_le_bytes());
        tail.extend(((self.table.len() * ENTRY + FOOTER) as u32).to_le_bytes());
        for (stored, raw) in &self.table {
            tail.extend(stored.to_le_bytes());
            tail.extend(raw.to_le_bytes());
        }
        tail.extend((self.table.len() as u32).to_le_bytes());
        tail.push(0); // no checksums in the table: each frame carries its own
        tail.extend(SEEKABLE_MAGIC.to_le_bytes());
        self.hasher.update(&tail);
        self.stored += tail.len();
        self.chunks.push(Bytes::from(tail));
        Finished {
            chunks: self.chunks,
            stored_bytes: self.stored as u64,
            raw_bytes: self.raw,
            frames: self.table.len() as u64,
            content: self.content,
            sha256: self.hasher.finish(),
        }
    }
}

/// The positions of the frames in a stored segment, and their uncompressed lengths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeekTable {
    frames: Vec<(Range<usize>, usize)>,
}

impl SeekTable {
    /// Reads the table at the end of a whole segment. Its frames must fill the segment exactly up
    /// to the table.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if it is not a segment, is cut
    /// short, or names sizes beyond the limits.
    pub fn read(segment: &[u8]) -> Result<Self> {
        let damaged = |what: &str| Error::damaged(format!("a segment of {} bytes {what}", segment.len()));
        let u32_at = |at: usize| -> Option<u32> { Some(u32::from_le_bytes(segment.get(at..at + 4)?.try_into().ok()?)) };
        let footer = segment.len().checked_sub(FOOTER).ok_or_else(|| damaged("is too short to be one"))?;
        if u32_at(footer + 5) != Some(SEEKABLE_MAGIC) {
            return Err(damaged("does not end in a seek table"));
        }
        if segment[footer + 4] != 0 {
            return Err(damaged("has a seek table of an unknown kind"));
        }
        let count = u32_at(footer).ok_or_else(|| damaged("is too short to be one"))? as usize;
        let entries = count.checked_mul(ENTRY).ok_or_else(|| damaged("has an impossible number of frames"))?;
        let start = footer
            .checked_sub(entries)
            .and_then(|n| n.checked_sub(HEADER))
            .ok_or_else(|| damaged("has a seek table that is longer than itself"))?;
        if u32_at(start) != Some(SKIPPABLE_MAGIC) || u32_at(start + 4) != Some((entries + FOOTER) as u32) {
            return Err(damaged("has a seek table whose start does not fit its end"));
        }
        if count > start / SMALLEST_FRAME {
            return Err(damaged("has a seek table with more frames than fit into it"));
        }
        let mut frames = Vec::with_capacity(count);
        let mut at = 0usize;
        for entry in 0..count {
            let place = start + HEADER + entry * ENTRY;
            let stored = u32_at(place).unwrap_or(0) as usize;
            let raw = u32_at(place + 4).unwrap_or(0) as usize;
            let possible = (SMALLEST_DOCUMENT..=frame::LIMIT).contains(&raw) && (SMALLEST_FRAME..=start - at).contains(&stored);
            if !possible {
                return Err(damaged("names a frame beyond the limits"));
            }
            frames.push((at..at + stored, raw));
            at += stored;
        }
        if at != start {
            return Err(damaged("has bytes between its frames and its seek table"));
        }
        Ok(Self { frames })
    }

    /// Each frame's position in the segment and its uncompressed length.
    #[must_use]
    pub fn frames(&self) -> &[(Range<usize>, usize)] {
        &self.frames
    }
}
