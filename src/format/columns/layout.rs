//! The layouts of columns, by number, and the streams to write them to and read them from.

use super::bytes::{Damaged, Read, Reader};

/// One value that all others equal.
pub(super) const CONSTANT: u8 = 0;
/// The unchanged values.
pub(super) const PLAIN: u8 = 1;
/// Numbers as planes of their bytes.
pub(super) const PLANES: u8 = 2;
/// The differences of numbers, in planes.
pub(super) const DELTA: u8 = 3;
/// A flag for [`PLANES`] and [`DELTA`]: the numbers are multiplied by 1000.
pub(super) const BY_1000: u8 = 0x80;
/// A few values, and an index for each place.
pub(super) const DICTIONARY: u8 = 4;
/// Doubles that are integers over a power of ten.
pub(super) const DECIMAL: u8 = 5;
/// ObjectIds: seconds, process and counter separately.
pub(super) const OBJECT_IDS: u8 = 6;

pub(super) const UNKNOWN_LAYOUT: Damaged = Damaged("a column in it has an unknown layout");
const TOO_LARGE: Damaged = Damaged("its columns are larger than its documents can be");

/// The streams for the parts of columns, reused for the next frame.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// The layouts of the columns.
    pub(super) directory: Vec<u8>,
    /// The texts of dictionaries.
    pub(super) words: Vec<u8>,
    /// Texts and names.
    pub(super) text: Vec<u8>,
    /// Numbers, and planes of them.
    pub(super) numbers: Vec<u8>,
    /// Incompressible data.
    pub(super) stored: Vec<u8>,
    pub(super) scratch: Vec<u64>,
    pub(super) indices: Vec<u64>,
    pub(super) table: Vec<u32>,
    pub(super) planes: Vec<u8>,
}

impl Writer {
    pub(super) fn reset(&mut self) {
        for stream in [&mut self.directory, &mut self.words, &mut self.text, &mut self.numbers, &mut self.stored] {
            stream.clear();
        }
    }

    /// Frees memory if it holds more than this.
    pub(super) fn keep_at_most(&mut self, bytes: usize) {
        let kept = [&self.directory, &self.words, &self.text, &self.numbers, &self.stored, &self.planes];
        let words = (self.scratch.capacity() + self.indices.capacity()) * 8 + self.table.capacity() * 4;
        if kept.into_iter().map(Vec::capacity).sum::<usize>() + words > bytes {
            *self = Self::default();
        }
    }
}

/// The streams that columns are read from.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) directory: Reader<'a>,
    pub(super) words: Reader<'a>,
    pub(super) text: Reader<'a>,
    pub(super) numbers: Reader<'a>,
    pub(super) stored: Reader<'a>,
    /// How many bytes may still be produced.
    pub(super) room: usize,
}

impl<'a> Source<'a> {
    /// Takes room for `count` pieces of `size` bytes.
    pub(super) fn spend(&mut self, count: usize, size: usize) -> Read<()> {
        let bytes = count.checked_mul(size).ok_or(TOO_LARGE)?;
        self.room = self.room.checked_sub(bytes).ok_or(TOO_LARGE)?;
        Ok(())
    }
}

/// Words as 8-byte values.
pub(super) fn eights(words: &[u64]) -> Vec<u8> {
    let mut values = vec![0; words.len() * 8];
    for (value, word) in values.chunks_exact_mut(8).zip(words) {
        value.copy_from_slice(&word.to_le_bytes());
    }
    values
}
