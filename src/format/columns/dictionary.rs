//! Dictionaries for few repeated values: each value once, and an index for every place.

use super::bytes::{Damaged, Read, put_varint, wide_word};
use super::layout::{DICTIONARY, Source, Writer};

/// The most values in a dictionary: an index has two bytes.
const MOST: usize = 65_535;

/// When to try a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Try {
    /// If a sample has repeated values.
    Sample,
    /// Always.
    Always,
}

fn hash(value: u128) -> usize {
    ((value as u64 ^ (value >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize
}

impl Writer {
    /// Writes values of up to sixteen bytes. Returns false and writes nothing if too few are
    /// repeated. The indices stay in [`Writer::indices`].
    pub(super) fn dictionary(&mut self, values: &[u8], width: usize, when: Try) -> bool {
        let count = values.len() / width;
        let value = |i: usize| match values.get(i * width..i * width + width) {
            Some(value) => wide_word(value, 0),
            None => 0,
        };
        if when == Try::Sample && (count < 64 || !self.come_again(count, value)) {
            return false;
        }
        let limit = (count / 2).clamp(1, MOST).max(if when == Try::Always { count.min(255) } else { 1 });
        let mask = (2 * limit).next_power_of_two().max(64) - 1;
        self.table.clear();
        self.table.resize(mask + 1, 0);
        self.indices.clear();
        let mut distinct: Vec<u128> = Vec::new();
        for value in (0..count).map(value) {
            let mut place = hash(value) & mask;
            let index = loop {
                match self.table[place] {
                    0 if distinct.len() >= limit => return false,
                    0 => {
                        distinct.push(value);
                        self.table[place] = distinct.len() as u32;
                        break distinct.len() - 1;
                    }
                    found if distinct[found as usize - 1] == value => break found as usize - 1,
                    _ => place = (place + 1) & mask,
                }
            };
            self.indices.push(index as u64);
        }
        self.directory.push(DICTIONARY);
        put_varint(&mut self.directory, distinct.len() as u32);
        for value in &distinct {
            self.numbers.extend_from_slice(&value.to_le_bytes()[..width]);
        }
        let indices = std::mem::take(&mut self.indices);
        self.put_planes(&indices, 2);
        self.indices = indices;
        true
    }

    /// Whether more than a twentieth of a sample are repeated values.
    fn come_again(&mut self, count: usize, value: impl Fn(usize) -> u128) -> bool {
        const MASK: usize = 1023;
        let sample = count.min(512);
        self.table.clear();
        self.table.resize(MASK + 1, 0);
        let mut distinct = 0;
        for i in (0..count).step_by(count / sample).take(sample) {
            let wanted = value(i);
            let mut place = hash(wanted) & MASK;
            loop {
                match self.table[place] {
                    0 => {
                        self.table[place] = i as u32 + 1;
                        distinct += 1;
                        break;
                    }
                    found if value(found as usize - 1) == wanted => break,
                    _ => place = (place + 1) & MASK,
                }
            }
        }
        distinct * 20 <= sample * 19
    }
}

impl Source<'_> {
    /// Reads `count` values of `width` bytes, and their indices.
    pub(super) fn dictionary(&mut self, count: usize, width: usize) -> Read<(Vec<u8>, Vec<u64>)> {
        let distinct = self.directory.count()?;
        let values = self.numbers.take(distinct * width)?;
        let indices = self.planes(count)?;
        self.spend(count, width)?;
        let mut all = vec![0; count * width];
        for (to, &index) in all.chunks_exact_mut(width).zip(&indices) {
            if index >= distinct as u64 {
                return Err(Damaged("an index in it is beyond its dictionary"));
            }
            let at = index as usize * width;
            to.copy_from_slice(&values[at..at + width]);
        }
        Ok((all, indices))
    }
}
