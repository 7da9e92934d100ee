//! Numbers in planes: the lowest bytes of all, then the next ones, because bytes of the same
//! significance are similar.

use super::bytes::{Damaged, Read, word};
use super::layout::{BY_1000, DELTA, PLANES, Source, UNKNOWN_LAYOUT, Writer};

/// How a plane is stored: two bits each, from the lowest.
const ABSENT: u16 = 0;
const COMPRESSED: u16 = 1;
const STORED: u16 = 2;

/// A signed difference as a number that is small if the difference is small.
#[inline]
pub(super) fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ ((difference as i64 >> 63) as u64)
}

/// The inverse of [`zigzag`].
#[inline]
pub(super) fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

/// Transposes eight words of eight bytes. It is its own inverse.
#[inline]
fn transpose(words: &mut [u64; 8]) {
    let mut swap = |distance: usize, shift: u32, mask: u64| {
        for i in (0..8).filter(|i| i & distance == 0) {
            let bits = ((words[i] >> shift) ^ words[i + distance]) & mask;
            words[i + distance] ^= bits;
            words[i] ^= bits << shift;
        }
    };
    swap(4, 32, 0x0000_0000_ffff_ffff);
    swap(2, 16, 0x0000_ffff_0000_ffff);
    swap(1, 8, 0x00ff_00ff_00ff_00ff);
}

/// Whether these bytes have nearly 8 bits of information each, so that compression gains nothing;
/// decided from a sample.
pub(super) fn dense(bytes: &[u8]) -> bool {
    if bytes.len() < 256 {
        return false;
    }
    let sample = bytes.len().min(1024);
    let mut counts = [0u64; 256];
    for &byte in bytes.iter().step_by(bytes.len() / sample).take(sample) {
        counts[usize::from(byte)] += 1;
    }
    let sample = sample as u64;
    // If all bytes are equally likely, this many pairs are equal.
    pairs(&counts) * 100 < sample * (sample - 1) / 256 * 135
}

/// The number of equal pairs.
pub(super) fn pairs(counts: &[u64; 256]) -> u64 {
    counts.iter().map(|&count| count * count.saturating_sub(1)).sum()
}

impl Writer {
    /// Writes words of `width` bytes as planes.
    pub(super) fn put_planes(&mut self, words: &[u64], width: usize) {
        let bits = words.iter().fold(0, |all, word| all | word);
        let used = (8 - bits.leading_zeros() as usize / 8).min(width);
        let padded = words.len().next_multiple_of(8);
        if self.planes.len() < padded * 8 {
            self.planes.resize(padded * 8, 0);
        }
        let mut planes: Vec<&mut [u8]> = self.planes.chunks_exact_mut(padded.max(8)).take(used).collect();
        for (i, words) in words.chunks(8).enumerate() {
            let mut block = [0; 8];
            block[..words.len()].copy_from_slice(words);
            transpose(&mut block);
            for (plane, word) in planes.iter_mut().zip(block) {
                plane[8 * i..8 * i + 8].copy_from_slice(&word.to_le_bytes());
            }
        }
        let mut codes = 0;
        for (i, plane) in planes.iter().enumerate() {
            let plane = &plane[..words.len()];
            let code = if (bits >> (8 * i)) as u8 == 0 {
                ABSENT
            } else if dense(plane) {
                self.stored.extend_from_slice(plane);
                STORED
            } else {
                self.numbers.extend_from_slice(plane);
                COMPRESSED
            };
            codes |= code << (2 * i);
        }
        self.directory.extend(codes.to_le_bytes());
    }

    /// Writes integers. All are divided by 1000 if possible, and stored as differences if these are
    /// shorter in a sample.
    pub(super) fn integers(&mut self, words: &mut [u64], width: usize, may_divide: bool) {
        let mut layout = PLANES;
        if may_divide && words.iter().all(|&word| word % 1000 == 0 && (word as i64) >= 0) {
            words.iter_mut().for_each(|word| *word /= 1000);
            layout |= BY_1000;
        }
        let signed = |word: u64| if width == 4 { i64::from(word as u32 as i32) as u64 } else { word };
        let step = (words.len() / 256).max(1);
        let sample = (1..words.len()).step_by(step);
        let varying = sample.clone().fold(0, |bits, i| bits | (words[i] ^ words[0]));
        let plain = sample.clone().count() as u32 * (64 - varying.leading_zeros());
        let delta = sample.map(|i| 64 - zigzag(signed(words[i].wrapping_sub(words[i - 1]))).leading_zeros()).sum::<u32>();
        if delta + (words.len() / step) as u32 * 2 < plain {
            layout = layout & BY_1000 | DELTA;
            let mut last = 0u64;
            for word in words.iter_mut() {
                let difference = zigzag(signed(word.wrapping_sub(last)));
                last = *word;
                *word = if width == 4 { difference & 0xffff_ffff } else { difference };
            }
        }
        self.directory.push(layout);
        self.put_planes(words, width);
    }
}

impl Source<'_> {
    /// Reads `count` words.
    pub(super) fn planes(&mut self, count: usize) -> Read<Vec<u64>> {
        let codes = u16::from_le_bytes(self.directory.array()?);
        self.spend(count, 8)?;
        let mut planes: [&[u8]; 8] = [&[]; 8];
        for (i, plane) in planes.iter_mut().enumerate() {
            *plane = match codes >> (2 * i) & 3 {
                ABSENT => continue,
                COMPRESSED => self.numbers.take(count)?,
                STORED => self.stored.take(count)?,
                _ => return Err(Damaged("a plane in it is neither absent, compressed nor stored")),
            };
        }
        let mut words = vec![0; count];
        for (i, words) in words.chunks_mut(8).enumerate() {
            let mut block = [0; 8];
            for (to, plane) in block.iter_mut().zip(planes).filter(|(_, plane)| !plane.is_empty()) {
                *to = match plane.get(8 * i..8 * i + 8) {
                    Some(bytes) => word(bytes),
                    None => plane[8 * i..].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
                };
            }
            transpose(&mut block);
            words.copy_from_slice(&block[..words.len()]);
        }
        Ok(words)
    }

    /// Reads `count` integers in this layout. For 4-byte integers, only the lower half is valid.
    pub(super) fn integers(&mut self, layout: u8, count: usize) -> Read<Vec<u64>> {
        let differences = match layout & !BY_1000 {
            PLANES => false,
            DELTA => true,
            _ => return Err(UNKNOWN_LAYOUT),
        };
        let mut words = self.planes(count)?;
        if differences {
            let mut last = 0u64;
            for word in &mut words {
                last = last.wrapping_add(unzigzag(*word));
                *word = last;
            }
        }
        if layout & BY_1000 != 0 {
            words.iter_mut().for_each(|word| *word = word.wrapping_mul(1000));
        }
        Ok(words)
    }
}
