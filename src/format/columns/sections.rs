//! Sections: a length, and bytes that zstd has compressed if possible.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{self, CParameter, Strategy};

use super::bytes::{Damaged, Read, Reader, put_varint};
use crate::error::Result;
use crate::format::compression::{Compression, internal};

/// For level 1, texts are searched less densely than by zstd's own level 1, but in the whole frame.
/// Without the rest of the documents, short repetitions are not worth their time.
const FAST_TEXT: [CParameter; 5] = [
    CParameter::WindowLog(22),
    CParameter::HashLog(15),
    CParameter::MinMatch(7),
    CParameter::TargetLength(0),
    CParameter::Strategy(Strategy::ZSTD_fast),
];

/// Compresses sections.
pub(super) struct Packer {
    text: Compressor<'static>,
    numbers: Compressor<'static>,
    room: Vec<u8>,
}

/// The content of a section, which decides how it is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Text,
    Numbers,
    /// Data not worth compressing.
    Noise,
}

impl Packer {
    pub(super) fn new(how: Compression) -> Result<Self> {
        let numbers = Compressor::new(how.level).map_err(|e| internal("cannot set up zstd", e))?;
        let mut text = Compressor::new(how.level).map_err(|e| internal("cannot set up zstd", e))?;
        let special: &[CParameter] = match how {
            Compression { long_distance: true, .. } => how.long_distance_parameters(),
            Compression { level: 1, .. } => &FAST_TEXT,
            _ => &[],
        };
        for &parameter in special {
            text.set_parameter(parameter).map_err(|e| internal("cannot set up zstd", e))?;
        }
        Ok(Self { text, numbers, room: Vec::new() })
    }

    /// Appends a section.
    pub(super) fn put(&mut self, bytes: &[u8], holds: Holds, to: &mut Vec<u8>) -> Result<()> {
        put_varint(to, bytes.len() as u32);
        if bytes.is_empty() {
            return Ok(());
        }
        let compressor = match holds {
            Holds::Text => Some(&mut self.text),
            Holds::Numbers => Some(&mut self.numbers),
            Holds::Noise => None,
        };
        let mut stored = bytes;
        if let Some(compressor) = compressor {
            self.room.clear();
            self.room.reserve(zstd_safe::compress_bound(bytes.len()));
            compressor.compress_to_buffer(bytes, &mut self.room).map_err(|e| internal("cannot compress a section", e))?;
            if self.room.len() < bytes.len() {
                stored = &self.room;
            }
        }
        to.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        to.extend_from_slice(stored);
        Ok(())
    }

    /// Frees memory if it holds more than this.
    pub(super) fn keep_at_most(&mut self, bytes: usize) {
        if self.room.capacity() > bytes {
            self.room = Vec::new();
        }
    }
}

/// Decompresses sections.
pub(super) struct Unpacker(Decompressor<'static>);

impl Unpacker {
    pub(super) fn new() -> Result<Self> {
        Decompressor::new().map(Self).map_err(|e| internal("cannot set up zstd", e))
    }

    /// Reads the next section, of at most `room` bytes, and subtracts its length from `room`.
    pub(super) fn take(&mut self, from: &mut Reader, room: &mut usize, to: &mut Vec<u8>) -> Read<()> {
        to.clear();
        let length = from.count()?;
        if length == 0 {
            return Ok(());
        }
        *room = room.checked_sub(length).ok_or(Damaged("its sections are larger than its documents can be"))?;
        let stored = u32::from_le_bytes(from.array()?) as usize;
        let stored = from.take(stored)?;
        if stored.len() == length {
            to.extend_from_slice(stored);
            return Ok(());
        }
        let claimed = zstd_safe::get_frame_content_size(stored).ok().flatten();
        let whole = zstd_safe::find_frame_compressed_size(stored).ok() == Some(stored.len());
        if claimed != Some(length as u64) || !whole {
            return Err(Damaged("a section in it is not one zstd frame of the length it says"));
        }
        to.reserve_exact(length);
        let unpacked = self.0.decompress_to_buffer(stored, to);
        if unpacked.is_ok_and(|unpacked| unpacked == length) {
            Ok(())
        } else {
            Err(Damaged("a section in it cannot be decompressed"))
        }
    }
}
