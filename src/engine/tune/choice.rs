//! Chooses settings from measurements, with reasons. Pure.
//!
//! A backup is as fast as its slowest stage: the source and its link, the cores that compress and
//! hash, or the disk. Among the ways of compressing whose prediction is within [`SLOWER`] or
//! [`SECOND`] of the fastest, the one that stores least is chosen. Among those that store about the
//! same, the cheapest.

use serde::Serialize;

use crate::format::frame::{self, Codec};

/// How much slower than the fastest the choice may be, as a fraction.
const SLOWER: f64 = 0.10;

/// Or in seconds: starting and ending a backup takes about as long.
const SECOND: f64 = 1.0;

/// For a smaller source, the choice assumes this size: the source is going to grow.
const SMALL: u64 = 128 * 1024 * 1024;

/// A smaller saving is not worth more CPU or memory.
const ABOUT_THE_SAME: f64 = 0.01;

/// Fewer readers are chosen if they are slower by no more than this.
const FEWER_READERS: f64 = 0.05;

/// The most readers that are chosen because of the cores alone.
const MOST_FOR_CORES: usize = 16;

/// What each reader holds beside its frames: two small segments.
const SEGMENTS: u64 = 2 * 1024 * 1024;

/// How fast the source was read.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadSpeed {
    /// Cursors at a time.
    pub readers: usize,
    /// Bytes of documents per second.
    pub bytes_per_second: f64,
    /// The median time from a small command to its reply meanwhile, in seconds.
    pub latency_seconds: Option<f64>,
}

/// The measurement of one way of compressing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// zstd's level.
    pub level: i32,
    /// Whether long-distance matching is on.
    pub long_distance: bool,
    /// Bytes of documents in a frame.
    pub frame_bytes: usize,
    /// Uncompressed size divided by stored size.
    pub ratio: f64,
    /// Bytes of documents per second, on one core.
    pub compress_bytes_per_second: f64,
    /// The same for decompression.
    pub decompress_bytes_per_second: f64,
    /// The memory of each compressor.
    pub memory_bytes: u64,
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Measured {
    /// About what a backup would read, uncompressed.
    pub(super) source_bytes: u64,
    /// By number of readers, ascending; at least one.
    pub(super) reads: Vec<ReadSpeed>,
    /// Whether more readers than measured would disturb the source.
    pub(super) no_more_readers: bool,
    /// The rate limit, in bytes per second.
    pub(super) most: Option<f64>,
    /// Bytes per second on one core.
    pub(super) sha256: f64,
    /// Bytes per second on one core.
    pub(super) xxh3: f64,
    /// Stored bytes per second.
    pub(super) write: f64,
    /// The number of cores of this machine.
    pub(super) cores: usize,
    /// Whether the source's server runs on these cores, too.
    pub(super) shares_cores: bool,
    /// The memory budget.
    pub(super) memory_bytes: u64,
    /// Every way of compressing that was measured.
    pub(super) candidates: Vec<Candidate>,
}

/// Settings that are fixed already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The only level to consider.
    pub level: Option<i32>,
    /// Whether to consider only long-distance matching, or only none.
    pub long_distance: Option<bool>,
    /// The codec of frames.
    pub codec: Codec,
}

/// The bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Limit {
    /// The source, or its link.
    Source,
    /// The rate limit.
    Rate,
    /// Compressing and hashing.
    Cpu,
    /// The disk that is written to.
    Disk,
}

/// The predicted backup.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Prediction {
    /// Cursors at a time.
    pub readers: usize,
    /// Bytes of documents per second.
    pub bytes_per_second: f64,
    /// For the whole source.
    pub seconds: f64,
    /// For the whole source.
    pub stored_bytes: u64,
    /// The bottleneck.
    pub limit: Limit,
    /// Whether it fits into the memory budget.
    pub fits: bool,
}

/// The choice.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen {
    /// Its place among the candidates.
    pub(super) index: usize,
    /// The predicted backup.
    pub(super) prediction: Prediction,
    /// The reasons, one sentence each.
    pub(super) reasons: Vec<String>,
}

impl Candidate {
    /// In words: `level 3, frames of 4 MiB, long-distance matching`.
    #[must_use]
    pub fn words(&self) -> String {
        let long = if self.long_distance { ", long-distance matching" } else { "" };
        format!("level {}, frames of {} MiB{long}", self.level, self.frame_bytes >> 20)
    }

    fn is_wanted(&self, wanted: Wanted) -> bool {
        wanted.level.is_none_or(|level| level == self.level) && wanted.long_distance.is_none_or(|long| long == self.long_distance)
    }
}

/// Predicts a backup with this way of compressing: the slowest stage sets the speed. Uses as few
/// readers as are about as fast as any number.
#[must_use]
pub(super) fn predict(measured: &Measured, candidate: &Candidate) -> Prediction {
    let numbers = reader_numbers(measured);
    let each: Vec<(usize, f64, Limit, bool)> = numbers
        .into_iter()
        .map(|readers| {
            let (rate, limit) = pace(measured, candidate, readers);
            (readers, rate, limit, fits(measured, candidate, readers))
        })
        .collect();
    let possible = |fits: bool| each.iter().filter(move |one| one.3 == fits);
    let any_fits = possible(true).next().is_some();
    let fastest = possible(any_fits).map(|one| one.1).fold(0.0, f64::max);
    let found = possible(any_fits).find(|one| one.1 >= fastest * (1.0 - FEWER_READERS));
    let (readers, rate, limit, fits) = found.copied().unwrap_or((1, 1.0, Limit::Source, false));
    Prediction {
        readers,
        bytes_per_second: rate,
        seconds: measured.source_bytes as f64 / rate.max(1.0),
        stored_bytes: (measured.source_bytes as f64 / candidate.ratio.max(1e-6)) as u64,
        limit,
        fits,
    }
}

/// Chooses. None if nothing suitable was measured. If nothing fits into the budget, chooses what
/// takes the least memory.
#[must_use]
pub(super) fn choose(measured: &Measured, wanted: Wanted) -> Option<Chosen> {
    let all: Vec<(usize, &Candidate, Prediction)> =
        measured.candidates.iter().enumerate().map(|(i, c)| (i, c, predict(measured, c))).collect();
    let wanted_ones = || all.iter().filter(|(_, candidate, _)| candidate.is_wanted(wanted));
    let fitting: Vec<_> =
        wanted_ones().filter(|(_, candidate, prediction)| prediction.fits && pays(measured, candidate)).collect();
    let by_seconds = |a: &&&(usize, &Candidate, Prediction), b: &&&(usize, &Candidate, Prediction)| {
        b.2.bytes_per_second.total_cmp(&a.2.bytes_per_second)
    };
    let Some(fastest) = fitting.iter().min_by(by_seconds) else {
        let (index, candidate, prediction) = wanted_ones().min_by_key(|(_, candidate, _)| candidate.memory_bytes)?;
        let reason = format!(
            "nothing that was measured fits into the {} MiB of BACKUP_MEMORY_MB; {} takes the least",
            measured.memory_bytes >> 20,
            candidate.words()
        );
        return Some(Chosen { index: *index, prediction: prediction.clone(), reasons: vec![reason] });
    };
    let grown = SMALL.max(measured.source_bytes) as f64;
    let seconds = |prediction: &Prediction| grown / prediction.bytes_per_second.max(1.0);
    let most = (seconds(&fastest.2) * (1.0 + SLOWER)).max(seconds(&fastest.2) + SECOND);
    let quick: Vec<_> = fitting.iter().filter(|one| seconds(&one.2) <= most).collect();
    let best = quick.iter().map(|one| one.1.ratio).fold(0.0, f64::max);
    let (index, candidate, prediction) = quick
        .iter()
        .filter(|one| one.1.ratio >= best * (1.0 - ABOUT_THE_SAME))
        .min_by(|a, b| cost(a.1).partial_cmp(&cost(b.1)).unwrap_or(std::cmp::Ordering::Equal))?;
    let reasons = reasons(measured, wanted, candidate, prediction, fastest);
    Some(Chosen { index: *index, prediction: prediction.clone(), reasons })
}

/// Whether an unusual frame size pays. A difference in speed alone is chance.
fn pays(measured: &Measured, candidate: &Candidate) -> bool {
    let usual = |other: &&Candidate| {
        other.frame_bytes == frame::TARGET && (other.level, other.long_distance) == (candidate.level, candidate.long_distance)
    };
    let by_default = measured.candidates.iter().find(usual);
    candidate.frame_bytes == frame::TARGET
        || by_default.is_none_or(|other| candidate.ratio > other.ratio * (1.0 + ABOUT_THE_SAME))
}

/// What is compared between two that store about the same: first an unusual frame size, then time,
/// then memory.
fn cost(candidate: &Candidate) -> (bool, bool, f64, u64) {
    let unusual = candidate.frame_bytes != frame::TARGET;
    (candidate.long_distance, unusual, 1.0 / candidate.compress_bytes_per_second.max(1.0), candidate.memory_bytes)
}

fn reasons(
    measured: &Measured,
    wanted: Wanted,
    candidate: &Candidate,
    prediction: &Prediction,
    fastest: &(usize, &Candidate, Prediction),
) -> Vec<String> {
    let mut reasons = vec![match prediction.limit {
        Limit::Source if measured.shares_cores => "the source limits a backup: it runs on the cores that compress".to_owned(),
        Limit::Source => "the source, or its link, limits a backup".to_owned(),
        Limit::Rate => "BACKUP_MAX_MBIT limits a backup".to_owned(),
        Limit::Cpu if measured.shares_cores => {
            format!("compressing limits a backup, on {} that the source's server uses, too", cores(measured.cores))
        }
        Limit::Cpu => format!("compressing on {} limits a backup", cores(measured.cores)),
        Limit::Disk => "the disk that is written to limits a backup".to_owned(),
    }];
    let slower = (fastest.2.bytes_per_second / prediction.bytes_per_second.max(1.0) - 1.0) * 100.0;
    let fixed = match (wanted.level, wanted.long_distance) {
        (None, None) => "",
        _ => " of the requested settings",
    };
    reasons.push(if slower < 1.0 && candidate == fastest.1 {
        format!("{} is the fastest{fixed}; no setting that stores less is within {} of it", candidate.words(), slack())
    } else {
        format!(
            "{} stores the least{fixed} (to 1 %) among the settings within {} of the fastest: {:.1} to 1 instead of \
             {:.1} to 1, {}",
            candidate.words(),
            slack(),
            candidate.ratio,
            fastest.1.ratio,
            if slower < 1.0 { "as fast".to_owned() } else { format!("{slower:.0} % slower") },
        )
    });
    if measured.source_bytes < SMALL {
        let mib = SMALL >> 20;
        reasons.push(format!(
            "the source holds less than {mib} MiB: the choice assumes that much, because the source is going to grow"
        ));
    }
    if measured.candidates.iter().any(|c| c.is_wanted(wanted) && !predict(measured, c).fits) {
        reasons.push(format!(
            "settings that do not fit into the {} MiB of BACKUP_MEMORY_MB were skipped",
            measured.memory_bytes >> 20
        ));
    }
    reasons
}

/// How much slower the choice may be, in words.
#[must_use]
pub fn slack() -> String {
    format!("{:.0} % or a second", SLOWER * 100.0)
}

fn cores(cores: usize) -> String {
    if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") }
}

/// The numbers of readers to consider: those measured, and, unless more would disturb the source,
/// as many as keep the cores busy.
fn reader_numbers(measured: &Measured) -> Vec<usize> {
    let mut numbers: Vec<usize> = measured.reads.iter().map(|read| read.readers).collect();
    if !measured.no_more_readers {
        numbers.extend([measured.cores.div_ceil(2), measured.cores].map(|n| n.clamp(1, MOST_FOR_CORES)));
    }
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// How fast this many readers read the source: as fast as the largest measured number that is not
/// above it.
fn read_rate(measured: &Measured, readers: usize) -> f64 {
    let fewer =
        measured.reads.iter().filter(|read| read.readers <= readers).map(|read| read.bytes_per_second).fold(0.0, f64::max);
    if fewer > 0.0 { fewer } else { measured.reads.iter().map(|read| read.bytes_per_second).fold(f64::INFINITY, f64::min) }
}

fn pace(measured: &Measured, candidate: &Candidate, readers: usize) -> (f64, Limit) {
    let read = read_rate(measured, readers);
    // Each reader has one frame compressed at a time. Documents are hashed as they arrive, segments
    // as they are stored.
    let per_byte =
        1.0 / candidate.compress_bytes_per_second + 1.0 / measured.xxh3 + 1.0 / (measured.sha256 * candidate.ratio.max(1e-6));
    let jobs = usize::try_from(measured.memory_bytes / 2 / candidate.memory_bytes.max(1)).unwrap_or(usize::MAX).max(1);
    let workers = readers.min(measured.cores).min(jobs) as f64;
    let mut cpu = workers / per_byte;
    if measured.shares_cores {
        // What the server's side of reading took of the cores, at most.
        cpu = cpu.min(measured.cores as f64 / (per_byte + workers / read));
    }
    let mut slowest = (read, Limit::Source);
    for stage in [
        (measured.most.unwrap_or(f64::INFINITY), Limit::Rate),
        (cpu, Limit::Cpu),
        (measured.write * candidate.ratio, Limit::Disk),
    ] {
        if stage.0 < slowest.0 {
            slowest = stage;
        }
    }
    slowest
}

fn fits(measured: &Measured, candidate: &Candidate, readers: usize) -> bool {
    let readers_need = readers as u64 * (SEGMENTS + 4 * candidate.frame_bytes as u64);
    let compressing = readers.min(measured.cores) as u64 * candidate.memory_bytes;
    candidate.memory_bytes <= measured.memory_bytes / 2 && readers_need + compressing <= measured.memory_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: f64 = 1e6;

    fn candidate(level: i32, ratio: f64, speed: f64) -> Candidate {
        Candidate {
            level,
            long_distance: false,
            frame_bytes: frame::TARGET,
            ratio,
            compress_bytes_per_second: speed * MB,
            decompress_bytes_per_second: 1000.0 * MB,
            memory_bytes: 8 << 20,
        }
    }

    /// A source with this speed at every number of readers, and this many cores.
    fn machine(read: f64, cores: usize) -> Measured {
        let speed = |readers: usize| ReadSpeed { readers, bytes_per_second: read * MB, latency_seconds: None };
        Measured {
            source_bytes: 10_000_000_000,
            reads: vec![speed(1), speed(2), speed(4)],
            no_more_readers: false,
            most: None,
            sha256: 1500.0 * MB,
            xxh3: 10_000.0 * MB,
            write: 1000.0 * MB,
            cores,
            shares_cores: false,
            memory_bytes: 256 << 20,
            candidates: vec![
                candidate(-1, 2.5, 800.0),
                candidate(1, 3.0, 500.0),
                candidate(3, 3.3, 250.0),
                candidate(7, 3.6, 80.0),
                candidate(19, 4.2, 3.0),
            ],
        }
    }

    fn level(measured: &Measured) -> (i32, Limit) {
        let chosen = choose(measured, Wanted::default()).unwrap();
        (measured.candidates[chosen.index].level, chosen.prediction.limit)
    }

    #[test]
    fn a_slow_link_leaves_time_to_compress() {
        assert_eq!(level(&machine(2.0, 2)), (19, Limit::Source));
        assert_eq!(level(&machine(40.0, 2)), (7, Limit::Source));
    }

    #[test]
    fn a_fast_link_and_few_cores_ask_for_a_fast_level() {
        let (chosen, limit) = level(&machine(5000.0, 1));
        assert_eq!((chosen, limit), (-1, Limit::Cpu));
    }

    #[test]
    fn many_cores_compress_better_at_the_same_speed_with_more_readers() {
        let measured = machine(400.0, 16);
        let chosen = choose(&measured, Wanted::default()).unwrap();
        assert_eq!(measured.candidates[chosen.index].level, 7);
        assert!(chosen.prediction.readers >= 5, "{chosen:?}");
        let few = Measured { no_more_readers: true, ..measured };
        let chosen = choose(&few, Wanted::default()).unwrap();
        assert!(chosen.prediction.readers <= 4 && few.candidates[chosen.index].level < 7, "{chosen:?}");
    }

    #[test]
    fn a_slow_disk_asks_for_smaller_segments() {
        let measured = Measured { write: 10.0 * MB, ..machine(5000.0, 4) };
        assert_eq!(level(&measured), (7, Limit::Disk));
        assert_eq!(level(&Measured { write: 2000.0 * MB, ..measured }), (-1, Limit::Cpu));
    }

    #[test]
    fn a_server_on_the_same_cores_takes_its_part() {
        let apart = machine(1000.0, 2);
        let beside = Measured { shares_cores: true, ..apart.clone() };
        let rate = |measured: &Measured| predict(measured, &measured.candidates[1]).bytes_per_second;
        assert!(rate(&beside) < rate(&apart) * 0.8, "{} {}", rate(&beside), rate(&apart));
    }

    #[test]
    fn the_memory_budget_is_never_passed() {
        let mut measured = machine(2.0, 2);
        measured.candidates[4].memory_bytes = 300 << 20;
        assert_eq!(level(&measured).0, 7);
        let chosen = choose(&measured, Wanted::default()).unwrap();
        assert!(chosen.reasons.iter().any(|r| r.contains("were skipped")), "{:?}", chosen.reasons);
        let chosen = choose(&measured, Wanted { level: Some(19), ..Wanted::default() }).unwrap();
        assert!(!chosen.prediction.fits && chosen.reasons[0].contains("fits into the 256 MiB"), "{chosen:?}");
    }

    #[test]
    fn what_saves_next_to_nothing_is_not_worth_it() {
        let mut measured = machine(2.0, 2);
        measured.candidates.truncate(4);
        measured.candidates.push(Candidate { frame_bytes: 16 << 20, ratio: 3.62, ..candidate(7, 3.62, 78.0) });
        measured.candidates.push(Candidate { long_distance: true, ..candidate(7, 3.63, 70.0) });
        let chosen = choose(&measured, Wanted::default()).unwrap();
        assert_eq!(chosen.index, 3);
        measured.candidates[5].ratio = 4.5;
        assert_eq!(choose(&measured, Wanted::default()).unwrap().index, 5);
        let without = Wanted { long_distance: Some(false), ..Wanted::default() };
        assert_eq!(choose(&measured, without).unwrap().index, 3);
    }

    #[test]
    fn frames_are_not_chosen_by_chance() {
        let mut measured = machine(5000.0, 1);
        measured.candidates.push(Candidate { frame_bytes: 1 << 20, ..candidate(3, 3.3, 900.0) });
        assert_eq!(choose(&measured, Wanted::default()).unwrap().index, 0);
        measured.candidates[5].ratio = 3.4;
        assert_eq!(choose(&measured, Wanted::default()).unwrap().index, 5);
    }

    #[test]
    fn less_than_a_second_is_worth_less_than_space() {
        let small = Measured { source_bytes: 200_000_000, ..machine(5000.0, 1) };
        assert_eq!(level(&small).0, 3);
        assert_eq!(level(&Measured { source_bytes: 5_000, ..small.clone() }).0, 3, "and it is going to grow");
        assert_eq!(level(&Measured { source_bytes: 5_000_000_000, ..small }).0, -1);
    }

    #[test]
    fn a_rate_that_was_asked_for_is_what_limits() {
        let measured = Measured { most: Some(2.0 * MB), ..machine(5000.0, 2) };
        assert_eq!(level(&measured), (19, Limit::Rate));
    }

    #[test]
    fn the_fewest_readers_that_are_about_as_fast_are_enough() {
        let mut measured = machine(100.0, 1);
        measured.reads[0].bytes_per_second = 50.0 * MB;
        measured.reads[2].bytes_per_second = 103.0 * MB;
        assert_eq!(predict(&measured, &measured.candidates[1]).readers, 2);
    }

    #[test]
    fn a_tiny_source_and_nothing_measured_do_no_harm() {
        let mut measured = machine(100.0, 2);
        measured.source_bytes = 0;
        assert!(choose(&measured, Wanted::default()).unwrap().prediction.seconds < 1e-3);
        assert_eq!(choose(&measured, Wanted { level: Some(5), ..Wanted::default() }), None);
        measured.candidates.clear();
        assert_eq!(choose(&measured, Wanted::default()), None);
    }
}
