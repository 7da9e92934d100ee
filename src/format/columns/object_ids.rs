//! ObjectIds: four bytes of seconds, five of the process that created them, three of its counter.

use super::bytes::{Damaged, Read};
use super::dictionary::Try;
use super::layout::{DICTIONARY, OBJECT_IDS, PLANES, Source, UNKNOWN_LAYOUT, Writer};
use super::planes::{unzigzag, zigzag};

const COUNTER: u32 = 0xff_ffff;

/// A counter for each process in a dictionary.
fn counters(processes: &[u64]) -> Vec<u32> {
    vec![0; processes.iter().max().map_or(0, |&last| last as usize + 1)]
}

impl Writer {
    pub(super) fn object_ids(&mut self, values: &[u8], words: &mut Vec<u64>) {
        self.directory.push(OBJECT_IDS);
        let (ids, _) = values.as_chunks::<12>();
        words.extend(ids.iter().map(|&[a, b, c, d, ..]| u64::from(u32::from_be_bytes([a, b, c, d]))));
        self.integers(words, 4, false);
        let processes: Vec<u8> = ids.iter().flat_map(|id| &id[4..9]).copied().collect();
        words.clear();
        if self.dictionary(&processes, 5, Try::Always) {
            let mut last = counters(&self.indices);
            for (&[.., a, b, c], &process) in ids.iter().zip(&self.indices) {
                let counter = u32::from_be_bytes([0, a, b, c]);
                let last = &mut last[process as usize];
                // The 24-bit difference, with its sign.
                let difference = (counter.wrapping_sub(*last) << 8) as i32 >> 8;
                *last = counter;
                words.push(zigzag(i64::from(difference) as u64) & u64::from(COUNTER));
            }
            self.put_planes(words, 3);
        } else {
            self.directory.push(PLANES);
            words.extend(ids.iter().map(|&[_, _, _, _, a, b, c, d, e, f, g, h]| u64::from_be_bytes([a, b, c, d, e, f, g, h])));
            self.put_planes(words, 8);
        }
    }
}

impl Source<'_> {
    /// Reads `count` ObjectIds.
    pub(super) fn object_ids(&mut self, count: usize) -> Read<Vec<u8>> {
        let layout = self.directory.byte()?;
        let seconds = self.integers(layout, count)?;
        self.spend(count, 12)?;
        let mut ids = Vec::with_capacity(count * 12);
        match self.directory.byte()? {
            DICTIONARY => {
                let (processes, indices) = self.dictionary(count, 5)?;
                let differences = self.planes(count)?;
                let mut last = counters(&indices);
                let parts = seconds.iter().zip(processes.chunks_exact(5)).zip(indices).zip(differences);
                for (((&seconds, process), index), difference) in parts {
                    let last = last.get_mut(index as usize).ok_or(Damaged("an index in it is beyond its dictionary"))?;
                    *last = last.wrapping_add(unzigzag(difference) as u32) & COUNTER;
                    ids.extend_from_slice(&(seconds as u32).to_be_bytes());
                    ids.extend_from_slice(process);
                    ids.extend_from_slice(&last.to_be_bytes()[1..]);
                }
            }
            PLANES => {
                for (&seconds, rest) in seconds.iter().zip(self.planes(count)?) {
                    ids.extend_from_slice(&(seconds as u32).to_be_bytes());
                    ids.extend_from_slice(&rest.to_be_bytes());
                }
            }
            _ => return Err(UNKNOWN_LAYOUT),
        }
        Ok(ids)
    }
}
