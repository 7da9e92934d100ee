//! Columns of fixed-width values: chooses a layout, and reads it back. Each layout has its own file
//! in this directory.

use std::borrow::Cow;

use super::bytes::{Read, word};
use super::layout::{CONSTANT, DECIMAL, DICTIONARY, OBJECT_IDS, PLAIN, PLANES, Source, UNKNOWN_LAYOUT, Writer, eights};
use super::{decimal, dictionary};
use crate::format::kind;

/// With fewer values, no layout is searched.
const FEW: usize = 16;

impl Writer {
    /// Writes a column of values of `width` bytes. `kind` is their BSON type, or 0 if they are not
    /// BSON values.
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

impl<'a> Source<'a> {
    /// Reads a column of `count` values of `width` bytes.
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
