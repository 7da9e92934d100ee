//! `tune`: measures the source, this machine and the backup path within a minute, and recommends
//! settings for fast and small backups. It changes nothing: it reads from the source like a small
//! backup, and removes what it writes to the path.

mod choice;
mod cpu;
mod look;
mod options;
mod path;
mod read;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use self::choice::{Candidate, Limit, Prediction, ReadSpeed, Wanted, slack};
pub use self::look::SourceFacts;
pub use self::options::TuneOptions;
pub use self::path::PathSpeed;
pub use self::read::WireCompression;

use self::choice::Measured;
use self::cpu::Sample;
use self::look::Looked;
use self::read::{MOST_READERS, Reader, Sweep};
use super::backup::segment_bytes;
use crate::context::Context;
use crate::context::cpu::{CpuPool, cores};
use crate::error::{Error, ErrorKind, Result};
use crate::format::frame::{self, Compression};
use crate::mongo::MongoUri;
use crate::repository::Repository;
use crate::source::sample::Taken;

/// When no further way of compressing is tried. The one under way and the path still end within a
/// minute.
const CPU_UNTIL: Duration = Duration::from_secs(50);

/// The frame sizes that are tried beside the default.
const FRAMES: [usize; 3] = [1024 * 1024, 8 * 1024 * 1024, frame::LARGEST_TARGET];

/// The most by which a level may be slower than the one before it.
const SLOWER_LEVEL: f64 = 4.0;

/// A sample smaller than this is not representative.
const LITTLE: u64 = 1024 * 1024;

/// A collection of the sample.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sampled {
    /// Its name.
    pub namespace: String,
    /// The bytes of its documents in the sample.
    pub bytes: u64,
}

/// The documents that were read for compression.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SampleFacts {
    /// Documents.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The collections that they come from, the largest part first.
    pub collections: Vec<Sampled>,
}

/// One way of compressing, and the predicted backup with it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// How it compresses.
    #[serde(flatten)]
    pub candidate: Candidate,
    /// The prediction for a whole backup.
    pub prediction: Prediction,
    /// Whether it is chosen.
    pub chosen: bool,
}

/// The chosen settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    /// Cursors that read at a time.
    pub readers: usize,
    /// zstd's level.
    pub level: i32,
    /// MiB of documents in a frame.
    pub frame_mb: usize,
    /// Whether long-distance matching is on.
    pub long_distance: bool,
}

/// What was measured and chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TuneReport {
    /// The source.
    pub source: SourceFacts,
    /// The sample that was compressed here.
    pub sample: SampleFacts,
    /// How fast the source is read, by number of cursors.
    pub readers: Vec<ReadSpeed>,
    /// The effect of compression on the wire, if a backup would use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wire_compression: Option<WireCompression>,
    /// The backup path.
    pub path: PathSpeed,
    /// The number of cores of this machine.
    pub cores: usize,
    /// Bytes per second on one core.
    pub sha256_bytes_per_second: f64,
    /// Bytes per second on one core.
    pub xxh3_bytes_per_second: f64,
    /// Every way of compressing that was measured: by level, then other frame sizes and
    /// long-distance matching.
    pub rows: Vec<Row>,
    /// The settings.
    pub choice: Choice,
    /// The reasons, one sentence each.
    pub reasons: Vec<String>,
    /// Remarks about the measurement.
    pub notes: Vec<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl TuneReport {
    /// The row of the choice.
    #[must_use]
    pub fn chosen(&self) -> Option<&Row> {
        self.rows.iter().find(|row| row.chosen)
    }
}

/// Measures, and chooses.
///
/// # Errors
/// [`ErrorKind::NotFound`] if the source has nothing to measure; [`ErrorKind::Unreachable`], also
/// if it sends nothing within some seconds; [`ErrorKind::Denied`], [`ErrorKind::Server`],
/// [`ErrorKind::Storage`]; [`ErrorKind::Interrupted`].
pub async fn run(source: &MongoUri, repository: &Repository, options: &TuneOptions, cx: &Context) -> Result<TuneReport> {
    let begin = Instant::now();
    // 1. Fail at once if the path cannot be written to.
    repository.try_write().await?;

    // 2. The source: what it holds, a sample, and how fast it is read.
    cx.progress.begin("looking at the source");
    let looked = cx.unless_cancelled(look::look(source, options, MOST_READERS)).await?;
    let read = read_source(&looked, options, cx).await;
    looked.close().await;
    let (taken, sweep) = read?;

    // 3. The path. Nothing interrupts this before the path is clean again.
    cx.progress.begin("writing to the path");
    let readers = sweep.best().map_or(1, |read| read.readers);
    let path = path::measure(repository, segment_bytes(options.tuning.memory_bytes, readers), cx).await?;

    // 4. The processor.
    cx.progress.begin("compressing the sample");
    let mut notes = looked.notes.clone();
    if taken.bytes < LITTLE {
        notes.push(format!("the sample holds only {} KiB: its speed and ratio are rough estimates", taken.bytes.div_ceil(1024)));
    }
    let sampled = sampled(&looked, &taken);
    let sample = Arc::new(Sample(taken.kept));
    let mut measured = Measured {
        source_bytes: looked.facts.bytes,
        reads: sweep.reads.clone(),
        no_more_readers: sweep.disturbed,
        most: options.tuning.max_bits.map(|bits| bits as f64 / 8.0),
        sha256: 0.0,
        xxh3: 0.0,
        write: path.write_bytes_per_second,
        cores: cores(),
        shares_cores: looked.facts.local,
        memory_bytes: options.tuning.memory_bytes,
        candidates: Vec::new(),
    };
    let compressed = compress(&mut measured, &sample, options.wanted, begin + CPU_UNTIL);
    notes.extend(cx.unless_cancelled(compressed).await?);
    drop(sample);

    // 5. The choice.
    let chosen = choice::choose(&measured, options.wanted)
        .ok_or_else(|| Error::new(ErrorKind::Internal, "none of the requested settings was measured in time"))?;
    if sweep.disturbed {
        notes.push("more cursors were not tried: the source's latency rose too much".to_owned());
    }
    let rows: Vec<Row> = measured
        .candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| Row {
            candidate: candidate.clone(),
            prediction: choice::predict(&measured, candidate),
            chosen: index == chosen.index,
        })
        .collect();
    let candidate = &measured.candidates[chosen.index];
    let choice = Choice {
        readers: chosen.prediction.readers,
        level: candidate.level,
        frame_mb: candidate.frame_bytes >> 20,
        long_distance: candidate.long_distance,
    };
    if let Some(free) = path.free_bytes.filter(|free| *free < chosen.prediction.stored_bytes) {
        notes.push(format!("the path has {} MiB free, less than a backup would store", free >> 20));
    }
    Ok(TuneReport {
        source: looked.facts.clone(),
        sample: sampled,
        readers: sweep.reads,
        wire_compression: sweep.wire,
        path,
        cores: measured.cores,
        sha256_bytes_per_second: measured.sha256,
        xxh3_bytes_per_second: measured.xxh3,
        rows,
        choice,
        reasons: chosen.reasons,
        notes,
        seconds: begin.elapsed().as_secs_f64(),
    })
}

async fn read_source(looked: &Looked, options: &TuneOptions, cx: &Context) -> Result<(Taken, Sweep)> {
    // A quarter of the budget is for the sample, a quarter for incoming data, and the rest for
    // compressing.
    let quarter = options.tuning.memory_bytes / 4;
    cx.progress.begin("reading a sample");
    let (reader, rate) = Reader::new(looked, quarter, options.tuning.max_bits, cx).await?;
    let taken = reader.sample(quarter, rate).await?;
    if taken.bytes == 0 {
        return Err(Error::new(ErrorKind::NotFound, "the source has no documents to measure")
            .hint("run tune once the source holds documents; the defaults need no tuning"));
    }
    cx.progress.begin("reading with more and more cursors");
    let sweep = reader.sweep().await?;
    Ok((taken, sweep))
}

fn sampled(looked: &Looked, taken: &Taken) -> SampleFacts {
    let mut collections: Vec<Sampled> = Vec::new();
    for kept in &taken.kept {
        let namespace = looked.parts[kept.part].collection.namespace.to_string();
        let bytes = kept.bytes.len() as u64;
        match collections.iter_mut().find(|sampled| sampled.namespace == namespace) {
            Some(sampled) => sampled.bytes += bytes,
            None => collections.push(Sampled { namespace, bytes }),
        }
    }
    collections.sort_by_key(|sampled| std::cmp::Reverse(sampled.bytes));
    SampleFacts { documents: taken.documents, bytes: taken.bytes, collections }
}

/// Tries all levels. Then tries other frame sizes and long-distance matching at the best level so
/// far and at the next one. Returns remarks about it.
async fn compress(measured: &mut Measured, sample: &Arc<Sample>, wanted: Wanted, until: Instant) -> Result<Vec<String>> {
    // This measures a single core: a pool of its own, which waits for no other work.
    let cpu = CpuPool::new(1);
    let left = || until.saturating_duration_since(Instant::now());
    let mut notes = Vec::new();
    let yardstick = cpu::yardstick(&cpu, sample, frame::TARGET).await?;
    let hashes = cpu::hashes(&cpu, sample).await?;
    (measured.sha256, measured.xxh3) = (hashes.sha256, hashes.xxh3);

    let mut levels = cpu::LEVELS.to_vec();
    levels.extend(wanted.level.filter(|level| !cpu::LEVELS.contains(level)));
    levels.sort_unstable();
    let (mut skipped, mut last) = (Vec::new(), f64::INFINITY);
    for level in levels {
        let too_long = yardstick.takes_longer(last / SLOWER_LEVEL, left() / 2);
        if too_long && wanted.level != Some(level) {
            skipped.push(level.to_string());
            continue;
        }
        let candidate = yardstick.measure(&cpu, sample, Compression { codec: wanted.codec, ..Compression::of(level) }).await?;
        last = candidate.compress_bytes_per_second;
        measured.candidates.push(candidate);
    }
    if !skipped.is_empty() {
        notes.push(format!("not tried, because it would have taken too long: level {}", skipped.join(", ")));
    }

    let by_level = Wanted { long_distance: None, ..wanted };
    let Some(best) = choice::choose(measured, by_level).map(|chosen| measured.candidates[chosen.index].clone()) else {
        return Ok(notes);
    };
    let above = measured.candidates.iter().find(|c| c.level > best.level && wanted.level.is_none()).cloned();
    let at: Vec<Candidate> = std::iter::once(best).chain(above).collect();
    // A frame is compressed beside its documents, while a segment of others waits.
    let largest = usize::try_from(measured.memory_bytes / 8).unwrap_or(usize::MAX);
    let of_use = |size: &usize| *size <= largest && *size as u64 / 2 < sample.bytes();
    let sizes = std::iter::once(frame::TARGET).chain(FRAMES.into_iter().filter(of_use));
    for frame_bytes in sizes {
        let yardstick = cpu::yardstick(&cpu, sample, frame_bytes).await?;
        for (level, long_distance) in at.iter().flat_map(|c| [(c, false), (c, true)]) {
            let known = frame_bytes == frame::TARGET && !long_distance;
            let unwanted = wanted.long_distance == Some(false) && long_distance;
            // Long-distance matching pays only in frames larger than the level's window.
            let pointless = long_distance && frame_bytes < frame::TARGET;
            let asked_for = long_distance && wanted.long_distance == Some(true) && frame_bytes == frame::TARGET;
            let too_long = yardstick.takes_longer(level.compress_bytes_per_second, left() / 4);
            if known || unwanted || pointless || (too_long && !asked_for) {
                continue;
            }
            let how = Compression { codec: wanted.codec, level: level.level, long_distance };
            measured.candidates.push(yardstick.measure(&cpu, sample, how).await?);
        }
    }
    Ok(notes)
}
