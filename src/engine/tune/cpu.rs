//! Measures how well and how fast this machine compresses the sample: by level, by frame size, with
//! long-distance matching.
//!
//! Slow levels see a smaller part of the sample. To make them comparable, their result is compared
//! with that of a fast level on the same frames. The fast level sees all frames.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::choice::Candidate;
use crate::context::cpu::CpuPool;
use crate::error::Result;
use crate::format::digest::{Content, Sha256Hex};
use crate::format::frame::{Compression, Compressor, Decompressor};
use crate::source::sample::Kept;

/// The levels that are tried.
pub(super) const LEVELS: [i32; 11] = [-5, -1, 1, 2, 3, 5, 7, 9, 12, 15, 19];

/// The level that sees all frames.
const YARDSTICK: i32 = 1;

/// How long one way of compressing may take. The frame under way is finished.
const EACH: Duration = Duration::from_millis(800);

/// How long a measurement takes at least, repeating the same bytes if there are few.
const AT_LEAST: Duration = Duration::from_millis(40);

/// How long the yardstick may take for one frame size.
const YARDSTICK_TIME: Duration = Duration::from_secs(2);

/// How long hashing and decompressing are measured, each.
const SHORT: Duration = Duration::from_millis(120);

/// About how many bytes of documents are decompressed.
const TO_DECOMPRESS: u64 = 16 * 1024 * 1024;

/// The sample, in the memory of this process.
#[derive(Debug)]
pub(super) struct Sample(pub(super) Vec<Kept>);

/// A part of the sample: whole documents of one collection.
type Frame = (usize, std::ops::Range<usize>);

/// The yardstick's result for all frames of one size.
#[derive(Debug, Clone)]
pub(super) struct Yardstick {
    frame_bytes: usize,
    /// In the order in which they are tried, each with the yardstick's result.
    frames: Vec<(Frame, u64)>,
}

/// How fast one core hashes, in bytes a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hashes {
    pub(super) sha256: f64,
    pub(super) xxh3: f64,
}

impl Sample {
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|kept| kept.bytes.len() as u64).sum()
    }

    fn frame(&self, (kept, range): &Frame) -> &[u8] {
        &self.0[*kept].bytes[range.clone()]
    }

    /// Frames of whole documents, of about this many bytes, in turns from all parts. What is cut
    /// off at the end then comes from all parts.
    fn frames(&self, frame_bytes: usize) -> Vec<Frame> {
        let mut by_part: Vec<std::vec::IntoIter<Frame>> = Vec::new();
        for (number, kept) in self.0.iter().enumerate() {
            let (mut frames, mut begin, mut before) = (Vec::new(), 0, 0);
            for &end in &kept.ends {
                // As in a backup: only a single document can make a frame larger.
                if end - begin > frame_bytes && before > begin {
                    frames.push((number, begin..before));
                    begin = before;
                }
                before = end;
            }
            if before > begin {
                frames.push((number, begin..before));
            }
            by_part.push(frames.into_iter());
        }
        let mut all = Vec::new();
        loop {
            let before = all.len();
            all.extend(by_part.iter_mut().filter_map(Iterator::next));
            if all.len() == before {
                // Full frames first: a short last frame is not representative.
                all.sort_by_key(|(_, range)| range.len() < frame_bytes / 2);
                return all;
            }
        }
    }
}

/// Compresses the whole sample once, in frames of this size.
pub(super) async fn yardstick(cpu: &CpuPool, sample: &Arc<Sample>, frame_bytes: usize) -> Result<Yardstick> {
    let sample = sample.clone();
    cpu.run(move || {
        let mut compressor = Compressor::new(Compression::of(YARDSTICK))?;
        let begin = Instant::now();
        let mut frames = Vec::new();
        for frame in sample.frames(frame_bytes) {
            let stored = compressor.compress(sample.frame(&frame))?.len() as u64;
            frames.push((frame, stored));
            if begin.elapsed() > YARDSTICK_TIME {
                break;
            }
        }
        Ok(Yardstick { frame_bytes, frames })
    })
    .await
}

impl Yardstick {
    /// Whether a single frame would take longer than `within` at this speed. At least one frame is
    /// tried.
    pub(super) fn takes_longer(&self, bytes_per_second: f64, within: Duration) -> bool {
        let largest = self.frames.iter().map(|((_, range), _)| range.len()).max().unwrap_or(0);
        largest as f64 / bytes_per_second.max(1.0) > within.as_secs_f64()
    }

    /// Tries one way of compressing, on a single core.
    pub(super) async fn measure(&self, cpu: &CpuPool, sample: &Arc<Sample>, how: Compression) -> Result<Candidate> {
        let (yardstick, sample) = (self.clone(), sample.clone());
        cpu.run(move || yardstick.try_out(&sample, how)).await
    }

    fn try_out(&self, sample: &Sample, how: Compression) -> Result<Candidate> {
        let mut compressor = Compressor::new(how)?;
        let (mut raw, mut stored, mut yardstick) = (0u64, 0u64, 0u64);
        let (mut compressed, mut timed, mut took) = (Vec::new(), Vec::new(), Duration::ZERO);
        let mut first_pass = true;
        while !self.frames.is_empty() && took < AT_LEAST {
            for (frame, by_yardstick) in &self.frames {
                let documents = sample.frame(frame);
                let begin = Instant::now();
                let made = compressor.compress(documents)?;
                let time = begin.elapsed();
                took += time;
                timed.push((documents.len() as u64, time));
                // Later passes measure time only.
                if first_pass {
                    raw += documents.len() as u64;
                    stored += made.len() as u64;
                    yardstick += by_yardstick;
                    if compressed.is_empty() || raw < TO_DECOMPRESS {
                        compressed.push((made, documents.len()));
                    }
                }
                if took > EACH {
                    break;
                }
            }
            first_pass = false;
        }
        let all_raw: u64 = self.frames.iter().map(|((_, range), _)| range.len() as u64).sum();
        let all_by_yardstick: u64 = self.frames.iter().map(|(_, stored)| stored).sum();
        let estimate = stored as f64 * all_by_yardstick as f64 / yardstick.max(1) as f64;
        Ok(Candidate {
            level: how.level,
            long_distance: how.long_distance,
            frame_bytes: self.frame_bytes,
            ratio: all_raw as f64 / estimate.max(1.0),
            compress_bytes_per_second: undisturbed(timed),
            decompress_bytes_per_second: decompression(&compressed)?,
            memory_bytes: how.working_bytes(self.frame_bytes),
        })
    }
}

fn decompression(frames: &[(Vec<u8>, usize)]) -> Result<f64> {
    let mut decompressor = Decompressor::new()?;
    let begin = Instant::now();
    let mut bytes = 0;
    for (frame, length) in frames.iter().cycle() {
        bytes += decompressor.decompress(frame, *length)?.len() as u64;
        if begin.elapsed() > SHORT {
            break;
        }
    }
    Ok(rate(bytes, begin.elapsed()))
}

/// Measures the hashing of every document and every segment.
pub(super) async fn hashes(cpu: &CpuPool, sample: &Arc<Sample>) -> Result<Hashes> {
    let sample = sample.clone();
    cpu.run(move || {
        let largest = sample.0.iter().max_by_key(|kept| kept.bytes.len());
        let (bytes, ends) = largest.map_or((&[][..], &[][..]), |kept| (&kept.bytes[..], &kept.ends[..]));
        let repeat = |mut once: Box<dyn FnMut() + '_>| {
            let (begin, mut times) = (Instant::now(), 0u64);
            while begin.elapsed() < SHORT {
                once();
                times += 1;
            }
            rate(times * bytes.len() as u64, begin.elapsed())
        };
        let xxh3 = repeat(Box::new(|| {
            let (mut content, mut begin) = (Content::default(), 0);
            for &end in ends {
                content.add(&bytes[begin..end]);
                begin = end;
            }
            std::hint::black_box(content);
        }));
        let sha256 = repeat(Box::new(|| drop(std::hint::black_box(Sha256Hex::of(bytes)))));
        Ok(Hashes { sha256, xxh3 })
    })
    .await
}

/// The speed of the faster half: other work on the machine slows the rest.
fn undisturbed(mut timed: Vec<(u64, Duration)>) -> f64 {
    timed.sort_by(|a, b| rate(b.0, b.1).total_cmp(&rate(a.0, a.1)));
    timed.truncate(timed.len().div_ceil(2));
    let (bytes, time) = timed.into_iter().fold((0, Duration::ZERO), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    rate(bytes, time)
}

fn rate(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documents that are none: zstd does not mind.
    fn sample(parts: &[usize]) -> Arc<Sample> {
        let part = |(number, &documents): (usize, &usize)| {
            let mut kept = Kept { part: number, ..Kept::default() };
            for i in 0..documents {
                kept.bytes.extend_from_slice(format!("{{customer: {}, city: 'town {}'}}", i * 7919 % 1000, i % 17).as_bytes());
                kept.ends.push(kept.bytes.len());
            }
            kept
        };
        Arc::new(Sample(parts.iter().enumerate().map(part).collect()))
    }

    #[test]
    fn frames_hold_every_document_once_and_come_from_all_parts_in_turns() {
        let sample = sample(&[1000, 400]);
        let frames = sample.frames(4096);
        assert_eq!(frames.iter().map(|(_, range)| range.len() as u64).sum::<u64>(), sample.bytes());
        assert_eq!((frames[0].0, frames[1].0, frames[2].0), (0, 1, 0));
        assert!(frames.iter().all(|(_, range)| range.len() <= 4096), "none is larger than a backup's");
        for (part, range) in &frames {
            assert!(range.start == 0 || sample.0[*part].ends.contains(&range.start));
            assert!(sample.0[*part].ends.contains(&range.end));
        }
    }

    #[tokio::test]
    async fn levels_differ_as_they_should_and_say_what_they_take() {
        let (cpu, sample) = (CpuPool::new(1), sample(&[20_000]));
        let yardstick = yardstick(&cpu, &sample, 64 * 1024).await.unwrap();
        let fast = yardstick.measure(&cpu, &sample, Compression::of(-5)).await.unwrap();
        let good = yardstick.measure(&cpu, &sample, Compression::of(9)).await.unwrap();
        assert!(good.ratio > fast.ratio && fast.ratio > 1.0, "{fast:?} {good:?}");
        assert!(fast.compress_bytes_per_second > 1e5 && good.compress_bytes_per_second > 1e5, "{fast:?} {good:?}");
        assert!(good.memory_bytes > fast.memory_bytes && fast.memory_bytes > 10_000, "{fast:?} {good:?}");
        assert!(good.decompress_bytes_per_second > 1e6);
        let hashes = hashes(&cpu, &sample).await.unwrap();
        assert!(hashes.sha256 > 1e6 && hashes.xxh3 > 1e6, "{hashes:?}");
        let second = Duration::from_secs(1);
        assert!(yardstick.takes_longer(1000.0, second) && !yardstick.takes_longer(1e9, second));
    }
}
