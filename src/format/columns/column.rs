//! Columns of values of a fixed width: which layout suits one, and reading it back. The layouts are in the files beside this one.

use std::borrow::Cow;

use super::bytes::{Damaged, Read, Reader, word};
use super::{decimal, dictionary};
use crate::format::kind;

/// One value, which all others equal.
pub(super) const CONSTANT: u8 = 0;
/// The values as they are.
pub(super) const PLAIN: u8 = 1;
/// Numbers in planes of their bytes.
pub(super) const PLANES: u8 = 2;
/// The differences of numbers, in planes.
pub(super) const DELTA: u8 = 3;
/// Added to [`PLANES`] and [`DELTA`]: the numbers are times 1000.
pub(super) const BY_1000: u8 = 0x80;
/// Few values, and which of them each is.
pub(super) const DICTIONARY: u8 = 4;
/// Doubles that are whole numbers over a power of ten.
pub(super) const DECIMAL: u8 = 5;
/// ObjectIds: seconds, process and counter apart.
pub(super) const OBJECT_IDS: u8 = 6;

/// With fewer values than this no layout is looked for.
const FEW: usize = 16;

pub(super) const UNKNOWN_LAYOUT: Damaged = Damaged("a column in it has an unknown layout");
const TOO_LARGE: Damaged = Damaged("its columns are larger than its documents can be");

/// Where the parts of columns go; used again for the next frame.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// What the columns are like.
    pub(super) directory: Vec<u8>,
    /// The texts of dictionaries.
    pub(super) words: Vec<u8>,
    /// Texts and names.
    pub(super) text: Vec<u8>,
    /// Numbers, and planes of them.
    pub(super) numbers: Vec<u8>,
    /// What does not get smaller.
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

    /// Frees memory where more than this is kept.
    pub(super) fn keep_at_most(&mut self, bytes: usize) {
        let kept = [&self.directory, &self.words, &self.text, &self.numbers, &self.stored, &self.planes];
        let words = (self.scratch.capacity() + self.indices.capacity()) * 8 + self.table.capacity() * 4;
        if kept.into_iter().map(Vec::capacity).sum::<usize>() + words > bytes {
            *self = Self::default();
        }
    }

    /// A column of values of `width` bytes. `kind` is their BSON type, 0 where they are not values of BSON.
    pub(super) fn column(&mut self, values: &[u8], width: usize, kind: u8) {
        if values.is_empty() {
            return;
        }
        if values[width..] == values[..values.len() - width] {
            self.directory.push(CONSTANT);
            self.numbers.extend_from_slice(&values[..width]);
            return;
        }
        if values.len() / width < FEW || width == 1 {
            return self.plain(values);
        }
        let mut words = std::mem::take(&mut self.scratch);
        words.clear();
        match width {
            8 => {
                words.extend(values.chunks_exact(8).map(word));
                if kind != kind::DOUBLE {
                    self.integers(&mut words, 8, kind == kind::DATE || kind == kind::INT64);
                } else if let Some(exponent) = decimal::whole(&mut words) {
                    self.directory.extend([DECIMAL, exponent]);
                    self.integers(&mut words, 8, false);
                } else if !self.dictionary(values, 8, dictionary::Try::Sample) {
                    self.directory.push(PLANES);
                    self.put_planes(&words, 8);
                }
            }
            4 => {
                words.extend(values.chunks_exact(4).map(|v| u64::from(u32::from_le_bytes(v.try_into().unwrap_or_default()))));
                self.integers(&mut words, 4, false);
            }
            _ if self.dictionary(values, width, dictionary::Try::Sample) => {}
            12 => self.object_ids(values, &mut words),
            _ => self.plain(values),
        }
        self.scratch = words;
    }

    fn plain(&mut self, values: &[u8]) {
        self.directory.push(PLAIN);
        self.numbers.extend_from_slice(values);
    }
}

/// What columns are read from.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) directory: Reader<'a>,
    pub(super) words: Reader<'a>,
    pub(super) text: Reader<'a>,
    pub(super) numbers: Reader<'a>,
    pub(super) stored: Reader<'a>,
    /// How many bytes may still be made.
    pub(super) room: usize,
}

impl<'a> Source<'a> {
    /// Takes room for `count` pieces of `size` bytes.
    pub(super) fn spend(&mut self, count: usize, size: usize) -> Read<()> {
        let bytes = count.checked_mul(size).ok_or(TOO_LARGE)?;
        self.room = self.room.checked_sub(bytes).ok_or(TOO_LARGE)?;
        Ok(())
    }

    /// A column of `count` values of `width` bytes.
    pub(super) fn column(&mut self, count: usize, width: usize) -> Read<Cow<'a, [u8]>> {
        if count == 0 {
            return Ok(Cow::Borrowed(&[]));
        }
        let layout = self.directory.byte()?;
        Ok(Cow::Owned(match (layout, width) {
            (CONSTANT, _) => {
                let value = self.numbers.take(width)?;
                self.spend(count, width)?;
                value.repeat(count)
            }
            (PLAIN, _) => return Ok(Cow::Borrowed(self.numbers.take(count * width)?)),
            (DICTIONARY, _) => self.dictionary(count, width)?.0,
            (DECIMAL, 8) => self.decimals(count)?,
            (OBJECT_IDS, 12) => self.object_ids(count)?,
            (_, 8) => {
                let words = self.integers(layout, count)?;
                self.spend(count, 8)?;
                eights(&words)
            }
            (_, 4) => {
                let words = self.integers(layout, count)?;
                self.spend(count, 4)?;
                {
                    let mut values = vec![0; count * 4];
                    for (value, &word) in values.chunks_exact_mut(4).zip(&words) {
                        value.copy_from_slice(&(word as u32).to_le_bytes());
                    }
                    values
                }
            }
            _ => return Err(UNKNOWN_LAYOUT),
        }))
    }
}

/// Words as values of eight bytes.
pub(super) fn eights(words: &[u64]) -> Vec<u8> {
    let mut values = vec![0; words.len() * 8];
    for (value, word) in values.chunks_exact_mut(8).zip(words) {
        value.copy_from_slice(&word.to_le_bytes());
    }
    values
}
