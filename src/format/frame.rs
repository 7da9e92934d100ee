//! Frames: the smallest parts of a backup that can be read alone. A frame is one frame of zstd, as
//! in RFC 8878, with whole documents, its uncompressed length, and zstd's own checksum. On request,
//! it is a frame in [columns](Codec::Columns) instead.

use std::sync::atomic::{AtomicI32, Ordering};

use zstd::bulk::{Compressor as ZstdCompressor, Decompressor as ZstdDecompressor};
use zstd::zstd_safe::{self, CParameter};

use super::columns;
use super::compression::internal;
pub use super::compression::{Codec, Compression};
use super::document::MAX_DOCUMENT;
use crate::error::{Error, Result};

/// The approximate bytes of documents per frame by default. A frame only has more if a single
/// document is larger.
pub const TARGET: usize = 4 * 1024 * 1024;

/// The largest allowed setting instead of [`TARGET`].
pub const LARGEST_TARGET: usize = 16 * 1024 * 1024;

/// The most bytes a frame may hold. If one claims more, it is refused before anything is allocated.
pub const LIMIT: usize = MAX_DOCUMENT + TARGET;

/// The compression levels of frames.
pub const LEVELS: std::ops::RangeInclusive<i32> = -7..=19;

/// The most buffer room that a compressor keeps; only frames with one large document need more.
const MOST_ROOM: usize = LARGEST_TARGET + 1024 * 1024;

/// Below this many bytes, frames are made both ways if columns are requested.
const SHORT: usize = 32 * 1024;

/// The most bytes that columns may keep from one frame to the next, for each of a few owners of
/// buffers.
const MOST_COLUMNS: usize = 4 * TARGET;

impl Compression {
    /// The approximate bytes that a [`Compressor`] needs besides frames of this size: zstd's tables
    /// for inputs of many megabytes (`clevels.h` of zstd 1.5), and the room for the output.
    #[must_use]
    pub fn working_bytes(self, frame_bytes: usize) -> u64 {
        let tables = match self.level {
            ..=2 => 1,
            3..=4 => 3,
            5..=8 => 7,
            9 => 13,
            10..=11 => 25,
            12..=14 => 50,
            15 => 66,
            _ => 84,
        };
        let long = if self.long_distance { 4 } else { 0 };
        let zstd = (tables + long) * 1024 * 1024 + (frame_bytes + frame_bytes / 64) as u64;
        match self.codec {
            Codec::Zstd => zstd,
            // Two more of zstd's, and what is kept for the columns.
            Codec::Columns => 3 * zstd + 2 * MOST_COLUMNS as u64,
        }
    }
}

/// Compresses frames. It is kept between frames, because its working memory is large.
pub struct Compressor {
    columns: Option<columns::Encoder>,
    inner: ZstdCompressor<'static>,
    how: Compression,
    /// Room for the worst case, reused: fresh memory of this size costs more than copying the
    /// result.
    room: Vec<u8>,
}

impl Compressor {
    /// A compressor.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if zstd cannot be set up.
    pub fn new(how: Compression) -> Result<Self> {
        let mut inner = ZstdCompressor::new(how.level).map_err(|e| internal("cannot set up zstd", e))?;
        let long = how.long_distance_parameters();
        for &parameter in [CParameter::ChecksumFlag(true), CParameter::ContentSizeFlag(true)].iter().chain(long) {
            inner.set_parameter(parameter).map_err(|e| internal("cannot set up zstd", e))?;
        }
        let columns = match how.codec {
            Codec::Zstd => None,
            Codec::Columns => Some(columns::Encoder::new(how)?),
        };
        Ok(Self { columns, inner, how, room: Vec::new() })
    }

    fn set_level(&mut self, level: i32) -> Result<()> {
        if self.how.level != level {
            self.how.level = level;
            let set = self.inner.set_parameter(CParameter::CompressionLevel(level));
            set.map_err(|e| internal("cannot change zstd's level", e))?;
            if let Some(columns) = &mut self.columns {
                *columns = columns::Encoder::new(self.how)?;
            }
        }
        Ok(())
    }

    /// Compresses `documents` into one frame.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if zstd fails, which only happens
    /// without memory.
    pub fn compress(&mut self, documents: &[u8]) -> Result<Vec<u8>> {
        let Some(columns) = &mut self.columns else { return self.compress_whole(documents) };
        let frame = columns.encode(documents)?;
        columns.keep_at_most(MOST_COLUMNS);
        let Some(frame) = frame else { return self.compress_whole(documents) };
        // If the gain is small, or there are too few documents for columns, the shorter frame is
        // used.
        if cfg!(fuzzing) || (documents.len() >= SHORT && frame.len() < documents.len() - documents.len() / 16) {
            return Ok(frame);
        }
        let whole = self.compress_whole(documents)?;
        Ok(if whole.len() < frame.len() { whole } else { frame })
    }

    fn compress_whole(&mut self, documents: &[u8]) -> Result<Vec<u8>> {
        self.room.clear();
        self.room.reserve(zstd_safe::compress_bound(documents.len()));
        self.inner.compress_to_buffer(documents, &mut self.room).map_err(|e| internal("cannot compress a frame", e))?;
        let frame = self.room.as_slice().to_vec();
        if self.room.capacity() > MOST_ROOM {
            self.room = Vec::new();
        }
        Ok(frame)
    }

    /// The bytes of working memory that zstd has for it now: as much as the largest frame so far
    /// needed.
    #[must_use]
    pub fn memory(&mut self) -> usize {
        self.inner.context_mut().sizeof()
    }
}

/// Lends compressors of one kind. There are as many as ever worked at the same time, because each
/// has working memory of up to tens of megabytes.
pub struct Compressors {
    how: Compression,
    /// The level for new frames.
    level: AtomicI32,
    idle: std::sync::Mutex<Vec<Compressor>>,
}

impl Compressors {
    /// An empty pool of this kind.
    #[must_use]
    pub fn new(how: Compression) -> Self {
        Self { how, level: AtomicI32::new(how.level), idle: std::sync::Mutex::default() }
    }

    /// Sets the level of frames from now on.
    pub fn set_level(&self, level: i32) {
        self.level.store(level, Ordering::Relaxed);
    }

    /// The level of frames that are compressed now.
    #[must_use]
    pub fn level(&self) -> i32 {
        self.level.load(Ordering::Relaxed)
    }

    /// Lends one while `work` runs.
    ///
    /// # Errors
    /// As for [`Compressor::new`], and those of `work`.
    pub fn lend<T>(&self, work: impl FnOnce(&mut Compressor) -> Result<T>) -> Result<T> {
        let idle = || self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let idle_one = idle().pop();
        let mut compressor = match idle_one {
            Some(compressor) => compressor,
            None => Compressor::new(self.how)?,
        };
        compressor.set_level(self.level())?;
        let done = work(&mut compressor);
        idle().push(compressor);
        done
    }
}

impl std::fmt::Debug for Compressors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressors").field("how", &self.how).finish_non_exhaustive()
    }
}

/// Lends decompressors. There are as many as ever worked at the same time. One that has decoded
/// columns keeps megabytes, which not every reader of a segment may hold while it waits.
#[derive(Default)]
pub struct Decompressors {
    idle: std::sync::Mutex<Vec<Decompressor>>,
}

impl Decompressors {
    /// Lends one while `work` runs.
    ///
    /// # Errors
    /// As for [`Decompressor::new`], and those of `work`.
    pub fn lend<T>(&self, work: impl FnOnce(&mut Decompressor) -> Result<T>) -> Result<T> {
        let idle = || self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let idle_one = idle().pop();
        let mut decompressor = match idle_one {
            Some(decompressor) => decompressor,
            None => Decompressor::new()?,
        };
        let done = work(&mut decompressor);
        idle().push(decompressor);
        done
    }
}

impl std::fmt::Debug for Decompressors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decompressors").finish_non_exhaustive()
    }
}

/// Decompresses frames. It is kept between frames.
pub struct Decompressor {
    inner: ZstdDecompressor<'static>,
    /// Set up with the first frame that needs it.
    columns: Option<columns::Decoder>,
}

impl Decompressor {
    /// A decompressor.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if zstd cannot be set up.
    pub fn new() -> Result<Self> {
        let inner = ZstdDecompressor::new().map_err(|e| internal("cannot set up zstd", e))?;
        Ok(Self { inner, columns: None })
    }

    /// The documents of one frame; otherwise as [`decompress_into`](Self::decompress_into).
    ///
    /// # Errors
    /// Those of [`decompress_into`](Self::decompress_into).
    pub fn decompress(&mut self, frame: &[u8], raw_length: usize) -> Result<Vec<u8>> {
        let mut documents = Vec::new();
        self.decompress_into(frame, raw_length, &mut documents)?;
        Ok(documents)
    }

    /// Decompresses one frame, in columns or not, into `documents`, replacing its content.
    /// `raw_length` is the length in the segment's table; the frame's own header must agree.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if it is not a frame, claims
    /// another length, claims more than [`LIMIT`], or fails its checksum.
    pub fn decompress_into(&mut self, frame: &[u8], raw_length: usize, documents: &mut Vec<u8>) -> Result<()> {
        let in_columns = columns::is_one(frame);
        let claimed = if in_columns {
            columns::Decoder::claimed(frame).map(|claimed| claimed as u64)
        } else {
            zstd_safe::get_frame_content_size(frame).ok().flatten()
        };
        let claimed = claimed.ok_or_else(|| Error::damaged("a frame does not start as one, or does not say how long it is"))?;
        if claimed != raw_length as u64 {
            return Err(Error::damaged(format!("a frame says it holds {claimed} bytes where the table says {raw_length}")));
        }
        if raw_length > LIMIT {
            return Err(Error::damaged(format!("a frame claims to hold {raw_length} bytes, more than the limit of {LIMIT}")));
        }
        if in_columns {
            let columns = match &mut self.columns {
                Some(columns) => columns,
                none => none.insert(columns::Decoder::new()?),
            };
            *documents = Vec::new();
            let decoded = columns.decode(frame, raw_length);
            columns.keep_at_most(MOST_COLUMNS);
            *documents = decoded?;
            return Ok(());
        }
        if zstd_safe::find_frame_compressed_size(frame).ok() != Some(frame.len()) {
            return Err(Error::damaged(format!("a frame does not end where the table says, after {} bytes", frame.len())));
        }
        documents.clear();
        documents.reserve_exact(raw_length);
        let decompressed = self.inner.decompress_to_buffer(frame, documents);
        let length = decompressed.map_err(|e| Error::damaged(format!("a frame cannot be decompressed: {e}")))?;
        if length != raw_length {
            return Err(Error::damaged(format!("a frame holds {length} bytes, but {raw_length} were expected")));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// Bytes with some repetitions, as in documents.
    fn documents(bytes: usize) -> Vec<u8> {
        let mut noise = 1u64;
        let mut words = String::with_capacity(bytes + 32);
        while words.len() < bytes {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            words += ["customer", "street", "status: shipped", "created"][(noise >> 62) as usize];
            words += &format!(" {} ", (noise >> 40) % 3_000);
        }
        words.truncate(bytes);
        words.into_bytes()
    }

    #[test]
    fn a_compressor_works_in_what_is_set_aside_for_it() {
        for (level, long_distance, bytes) in [
            (-7, false, TARGET),
            (1, false, TARGET),
            (3, false, TARGET),
            (3, true, LARGEST_TARGET),
            (7, false, TARGET),
            (9, false, TARGET),
            (12, false, TARGET),
            (15, false, TARGET / 4),
            (19, false, TARGET / 8),
            (19, true, TARGET / 8),
        ] {
            let how = Compression { long_distance, ..Compression::of(level) };
            let mut compressor = Compressor::new(how).unwrap();
            compressor.compress(&documents(bytes)).unwrap();
            let taken = (compressor.memory() + compressor.room.capacity()) as u64;
            assert!(taken <= how.working_bytes(bytes.max(TARGET)), "{how:?}: {taken}");
        }
    }

    #[test]
    fn the_level_can_be_changed_between_frames() {
        let documents = documents(TARGET / 4);
        let compressors = Compressors::new(Compression::of(1));
        let compressed = || compressors.lend(|compressor| compressor.compress(&documents)).unwrap();
        let fast = compressed();
        compressors.set_level(9);
        let small = compressed();
        assert!(small.len() < fast.len());
        compressors.set_level(1);
        assert_eq!(compressed(), fast);
        let mut decompressor = Decompressor::new().unwrap();
        assert_eq!(decompressor.decompress(&small, documents.len()).unwrap(), documents);
    }
}
