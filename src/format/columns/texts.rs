//! Columns of texts with a NUL after each: unchanged, in a dictionary, or as hexadecimal digits.

use std::borrow::Cow;

use super::bytes::{Damaged, Read, nul, put_varint, wide_word, word};
use super::layout::{Source, UNKNOWN_LAYOUT, Writer};
use super::planes::dense;

/// The unchanged texts.
const PLAIN: u8 = 0;
/// A few texts, and an index for each place.
const DICTIONARY: u8 = 1;
/// Texts that differ in hexadecimal digits only.
const HEXADECIMAL: u8 = 2;
/// One text that all others equal.
const CONSTANT: u8 = 3;

/// With fewer bytes, no layout is searched.
const SHORT: usize = 64;
/// The allowed lengths of texts of hexadecimal digits.
const HEXADECIMAL_LENGTHS: std::ops::RangeInclusive<usize> = 8..=64;

const DIGITS: &[u8; 16] = b"0123456789abcdef";
/// Marks a byte that is not a digit.
const NO_DIGIT: u8 = 255;
const VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut i = 0;
    while i < 16 {
        values[DIGITS[i] as usize] = i as u8;
        i += 1;
    }
    values
};

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

fn value(digit: u8) -> u8 {
    VALUES[usize::from(digit)]
}

impl Writer {
    /// Writes a column of texts.
    pub(super) fn texts(&mut self, texts: &[u8]) {
        let plain = texts.len() < SHORT || !(self.hexadecimal(texts) || self.same_text(texts) || self.text_dictionary(texts));
        if plain {
            self.directory.push(PLAIN);
            put_varint(&mut self.directory, texts.len() as u32);
            self.text.extend_from_slice(texts);
        }
    }

    /// Writes texts of one length without repetitions. Every position is either constant or a
    /// lowercase hexadecimal digit.
    fn hexadecimal(&mut self, texts: &[u8]) -> bool {
        let Some(length) = nul(texts) else { return false };
        let stride = length + 1;
        if !HEXADECIMAL_LENGTHS.contains(&length) || !texts.len().is_multiple_of(stride) || texts.len() < stride * SHORT {
            return false;
        }
        let count = texts.len() / stride;
        let first = &texts[..stride];
        let mut varies = [false; 65];
        for text in texts.chunks_exact(stride).step_by((count / 64).max(1)) {
            for (p, varies) in varies.iter_mut().enumerate().take(stride).filter(|&(p, _)| text[p] != first[p]) {
                if p == length || value(text[p]) == NO_DIGIT || value(first[p]) == NO_DIGIT {
                    return false;
                }
                *varies = true;
            }
        }
        let digits: Vec<usize> = (0..length).filter(|&p| varies[p]).collect();
        let packed_length = digits.len().div_ceil(2);
        if packed_length < 8 {
            return false;
        }
        let mut packed = vec![0; count * packed_length];
        let mut bad = false;
        for (text, packed) in texts.chunks_exact(stride).zip(packed.chunks_exact_mut(packed_length)) {
            for (to, pair) in packed.iter_mut().zip(digits.chunks(2)) {
                let high = value(text[pair[0]]);
                let low = pair.get(1).map_or(0, |&p| value(text[p]));
                bad |= (high | low) > 15;
                *to = high << 4 | low & 15;
            }
            for p in 0..stride {
                bad |= !varies[p] & (text[p] != first[p]);
            }
        }
        if bad || !dense(&packed) || self.rows_come_again(&packed, packed_length) {
            return false;
        }
        self.directory.push(HEXADECIMAL);
        put_varint(&mut self.directory, count as u32);
        self.directory.extend_from_slice(first);
        let mut bits = vec![0u8; length.div_ceil(8)];
        digits.iter().for_each(|p| bits[p / 8] |= 1 << (p % 8));
        self.directory.extend_from_slice(&bits);
        self.stored.extend_from_slice(&packed);
        true
    }

    /// Whether more than a fiftieth of a sample are repetitions: zstd handles these better.
    fn rows_come_again(&mut self, rows: &[u8], width: usize) -> bool {
        const MASK: usize = 2047;
        let count = rows.len() / width;
        let sample = count.min(512);
        self.table.clear();
        self.table.resize(MASK + 1, 0);
        let mut again = 0;
        for row in rows.chunks_exact(width).step_by(count / sample).take(sample) {
            let hash = (word(&row[..8]).wrapping_mul(MULTIPLIER) >> 32) as u32 | 1;
            let seen = &mut self.table[(hash >> 20) as usize & MASK];
            again += usize::from(*seen == hash);
            *seen = hash;
        }
        let neighbours = rows[..sample * width].chunks_exact(width).zip(rows.chunks_exact(width).skip(1));
        let alike = neighbours.filter(|(a, b)| a == b).count();
        again * 50 > sample || alike * 50 > sample
    }

    fn same_text(&mut self, texts: &[u8]) -> bool {
        let length = nul(texts).map_or(texts.len(), |n| n + 1);
        let same = texts.len().is_multiple_of(length) && texts[length..] == texts[..texts.len() - length];
        if same {
            self.directory.push(CONSTANT);
            put_varint(&mut self.directory, (texts.len() / length) as u32);
            put_varint(&mut self.directory, length as u32);
            self.words.extend_from_slice(&texts[..length]);
        }
        same
    }

    /// Writes a few repeated texts.
    fn text_dictionary(&mut self, texts: &[u8]) -> bool {
        let Some(expected) = self.expected_texts(texts) else { return false };
        let limit = (expected / 3).clamp(4, 65_535);
        let mask = (2 * limit).next_power_of_two().max(64) - 1;
        self.table.clear();
        self.table.resize(mask + 1, 0);
        self.indices.clear();
        let mut distinct: Vec<Text> = Vec::new();
        let (mut at, mut bytes) = (0, 0);
        while at < texts.len() {
            let (text, hash) = Text::at(texts, at);
            let mut place = hash as usize & mask;
            let index = loop {
                match self.table[place] {
                    0 if distinct.len() >= limit || (bytes + text.length) * 2 > texts.len() => return false,
                    0 => {
                        distinct.push(text);
                        self.table[place] = distinct.len() as u32;
                        bytes += text.length + 1;
                        break distinct.len() - 1;
                    }
                    found if distinct[found as usize - 1].equals(&text, texts) => break found as usize - 1,
                    _ => place = (place + 1) & mask,
                }
            };
            self.indices.push(index as u64);
            at += text.length + 1;
        }
        // Tiny texts: a reader counts eight bytes for each, and allows at most four times the bytes
        // of the documents.
        if 3 * self.indices.len() > 2 * texts.len() {
            return false;
        }
        self.directory.push(DICTIONARY);
        for number in [self.indices.len(), distinct.len(), bytes] {
            put_varint(&mut self.directory, number as u32);
        }
        for text in &distinct {
            self.words.extend_from_slice(&texts[text.at..=text.at + text.length]);
        }
        let indices = std::mem::take(&mut self.indices);
        self.put_planes(&indices, 2);
        self.indices = indices;
        true
    }

    /// The approximate number of texts, if enough of the first ones are repeated. Out of 256 random
    /// picks from 4096 texts, about 248 are different.
    fn expected_texts(&mut self, texts: &[u8]) -> Option<usize> {
        const MASK: usize = 1023;
        self.table.clear();
        self.table.resize(MASK + 1, 0);
        let (mut at, mut seen, mut distinct) = (0, 0, 0);
        while seen < 256 && at < 32 * 1024 && at < texts.len() {
            let (text, hash) = Text::at(texts, at);
            at += text.length + 1;
            seen += 1;
            let hash = hash | 1;
            let mut place = hash as usize >> 8 & MASK;
            while self.table[place] != 0 && self.table[place] != hash {
                place = (place + 1) & MASK;
            }
            distinct += usize::from(self.table[place] == 0);
            self.table[place] = hash;
        }
        let enough = seen >= 16 && distinct * 100 <= seen * 97;
        enough.then(|| texts.len() / (at / seen).max(1))
    }
}

/// A text of a column.
#[derive(Debug, Clone, Copy)]
struct Text {
    at: usize,
    /// Without its NUL.
    length: usize,
    /// Its first sixteen bytes, padded with zeros: the whole text, if it is shorter.
    start: u128,
}

impl Text {
    /// The text at a position, and a hash of it.
    #[inline]
    fn at(texts: &[u8], at: usize) -> (Self, u32) {
        const ONES: u128 = u128::from_le_bytes([1; 16]);
        let mix = |start: u128| {
            let high = ((start >> 64) as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f).rotate_left(32);
            ((start as u64).wrapping_mul(MULTIPLIER) ^ high).wrapping_mul(0x517c_c1b7_2722_0a95)
        };
        let start = wide_word(texts, at);
        // The top bit of the first zero byte.
        let zeros = start.wrapping_sub(ONES) & !start & (ONES << 7);
        if zeros != 0 {
            let length = zeros.trailing_zeros() / 8;
            let start = start & ((1 << (8 * length)) - 1);
            return (Self { at, length: length as usize, start }, (mix(start) >> 32) as u32);
        }
        let rest = texts.get(at + 16..).unwrap_or_default();
        let length = 16 + nul(rest).unwrap_or(rest.len());
        let mut hash = mix(start) ^ length as u64;
        let mut add = |word: u64| hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        texts[at + 16..at + length].chunks_exact(8).map(word).for_each(&mut add);
        if length >= 24 {
            add(word(&texts[at + length - 8..at + length]));
        }
        (Self { at, length, start }, (hash >> 32) as u32)
    }

    fn equals(&self, other: &Self, texts: &[u8]) -> bool {
        let bytes = |text: &Self| &texts[text.at..text.at + text.length];
        self.start == other.start && self.length == other.length && (self.length < 16 || bytes(self) == bytes(other))
    }
}

impl<'a> Source<'a> {
    /// Reads a column of texts.
    pub(super) fn texts(&mut self) -> Read<Cow<'a, [u8]>> {
        let layout = self.directory.byte()?;
        let count = self.directory.count()?;
        match layout {
            PLAIN => self.text.take(count).map(Cow::Borrowed),
            CONSTANT => {
                let length = self.directory.count()?;
                self.spend(count, length)?;
                Ok(Cow::Owned(self.words.take(length)?.repeat(count)))
            }
            DICTIONARY => self.texts_of_dictionary(count).map(Cow::Owned),
            HEXADECIMAL => self.texts_of_digits(count).map(Cow::Owned),
            _ => Err(UNKNOWN_LAYOUT),
        }
    }

    fn texts_of_dictionary(&mut self, count: usize) -> Read<Vec<u8>> {
        let (distinct, bytes) = (self.directory.count()?, self.directory.count()?);
        let words = self.words.take(bytes)?;
        if distinct > bytes {
            return Err(Damaged("a dictionary in it has more texts than bytes"));
        }
        self.spend(distinct, size_of::<&[u8]>())?;
        let mut texts = Vec::with_capacity(distinct);
        let mut rest = words;
        for _ in 0..distinct {
            let length = nul(rest).ok_or(Damaged("a dictionary in it has fewer texts than it says"))?;
            let (text, after) = rest.split_at(length + 1);
            texts.push(text);
            rest = after;
        }
        let indices = self.planes(count)?;
        let beyond = Damaged("an index in it is beyond its dictionary");
        let text = |&index: &u64| usize::try_from(index).ok().and_then(|index| texts.get(index)).copied();
        let mut length = 0;
        for index in &indices {
            length += text(index).ok_or(beyond)?.len();
        }
        self.spend(length, 1)?;
        let mut all = Vec::with_capacity(length);
        indices.iter().filter_map(text).for_each(|text| all.extend_from_slice(text));
        Ok(all)
    }

    fn texts_of_digits(&mut self, count: usize) -> Read<Vec<u8>> {
        let first = self.directory.text()?;
        let length = first.len() - 1;
        let bits = self.directory.take(length.div_ceil(8))?;
        self.spend(length, size_of::<usize>())?;
        let digits: Vec<usize> = (0..length).filter(|p| bits[p / 8] >> (p % 8) & 1 == 1).collect();
        let packed_length = digits.len().div_ceil(2);
        if packed_length == 0 {
            return Err(Damaged("texts in it consist of no digits"));
        }
        self.spend(count, first.len())?;
        let packed = self.stored.take(count * packed_length)?;
        let mut all = first.repeat(count);
        for (text, packed) in all.chunks_exact_mut(first.len()).zip(packed.chunks_exact(packed_length)) {
            for (pair, &byte) in digits.chunks(2).zip(packed) {
                text[pair[0]] = DIGITS[usize::from(byte >> 4)];
                if let Some(&p) = pair.get(1) {
                    text[p] = DIGITS[usize::from(byte & 15)];
                }
            }
        }
        Ok(all)
    }
}
