//! Reads from the source: a sample of its documents, and how fast different numbers of cursors read
//! it.

use std::time::{Duration, Instant};

use bson::rawdoc;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::choice::ReadSpeed;
use super::look::Looked;
use crate::context::Context;
use crate::context::memory::MemoryBudget;
use crate::error::Result;
use crate::mongo::{Connection, command};
use crate::source::sample::{self, Keep, Limits, Part, Taken};

/// The numbers of cursors that are tried.
const READERS: [usize; 4] = [1, 2, 4, 8];

/// The largest number that is tried.
pub(super) const MOST_READERS: usize = READERS[READERS.len() - 1];

/// How long each number of cursors may take.
const EACH: Duration = Duration::from_millis(1500);

/// The most that each number of cursors reads.
const EACH_BYTES: u64 = 256 * 1024 * 1024;

/// More cursors pay if they are this much faster.
const OF_USE: f64 = 1.10;

/// The largest sample.
const SAMPLE: u64 = 64 * 1024 * 1024;

/// How long it may take.
const SAMPLE_TIME: Duration = Duration::from_secs(4);

/// How many cursors read it.
const SAMPLE_READERS: usize = 2;

/// What is read first, to estimate the speed.
const PROBE: u64 = 8 * 1024 * 1024;

/// The time limit of that.
const PROBE_TIME: Duration = Duration::from_millis(800);

/// The size of replies: a backup's, or over a slow link what it carries in about this time.
const REPLY_TIME: f64 = 0.2;

/// The sizes that replies may have.
const REPLIES: (f64, f64) = (128.0 * 1024.0, 4.0 * 1024.0 * 1024.0);

/// How often a small command is sent to the source while it is read.
const PING: Duration = Duration::from_millis(50);

/// The source is disturbed if its latency exceeds that with one cursor by this factor, and by this
/// much.
const DISTURBED: (f64, f64) = (4.0, 0.020);

/// The effect of compression on the wire.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WireCompression {
    /// Bytes of documents per second with it, as a backup of this source reads.
    pub bytes_per_second: f64,
    /// The same without it.
    pub without_bytes_per_second: f64,
}

/// The measurements of reading.
pub(super) struct Sweep {
    pub(super) reads: Vec<ReadSpeed>,
    pub(super) disturbed: bool,
    pub(super) wire: Option<WireCompression>,
}

/// How the source is read here.
pub(super) struct Reader<'a> {
    looked: &'a Looked,
    budget: MemoryBudget,
    bits: Option<u64>,
    reply: u64,
    stop: CancellationToken,
}

impl<'a> Reader<'a> {
    /// Reads a little to determine the size of replies.
    pub(super) async fn new(looked: &'a Looked, memory_bytes: u64, bits: Option<u64>, cx: &Context) -> Result<(Self, f64)> {
        let mut reader = Self { looked, budget: cx.memory.part(memory_bytes), bits, reply: 512 * 1024, stop: cx.cancel.clone() };
        let probe = reader.read(&looked.connection, &looked.parts, 1, PROBE, PROBE_TIME, Keep::Nothing).await?;
        let rate = probe.rate();
        reader.reply = (rate * REPLY_TIME).clamp(REPLIES.0, REPLIES.1) as u64;
        Ok((reader, rate))
    }

    async fn read(
        &self,
        connection: &Connection,
        parts: &[Part],
        readers: usize,
        bytes: u64,
        time: Duration,
        keep: Keep,
    ) -> Result<Taken> {
        let limits = Limits { bytes, time, bits: self.bits, batch_bytes: self.reply };
        sample::read(connection, parts, readers, limits, keep, &self.budget, &self.stop).await
    }

    /// A sample of at most `most` bytes, of each collection in proportion to its size.
    pub(super) async fn sample(&self, most: u64, rate: f64) -> Result<Taken> {
        let affordable = (rate * SAMPLE_READERS as f64 * SAMPLE_TIME.as_secs_f64()) as u64;
        let bytes = SAMPLE.min(most).min(affordable).max(self.reply);
        let all: u64 = self.looked.parts.iter().map(|part| part.most).sum();
        let share = |part: &Part| Part {
            most: (part.most as u128 * u128::from(bytes) / u128::from(all.max(1))).max(1) as u64,
            ..part.clone()
        };
        let parts: Vec<Part> = self.looked.parts.iter().map(share).collect();
        self.read(&self.looked.connection, &parts, SAMPLE_READERS, bytes, SAMPLE_TIME, Keep::Documents).await
    }

    /// Reads with more and more cursors, until more do not pay or disturb the source.
    pub(super) async fn sweep(&self) -> Result<Sweep> {
        let mut sweep = Sweep { reads: Vec::new(), disturbed: false, wire: None };
        for (turn, readers) in READERS.into_iter().enumerate() {
            let (taken, latency) = self.step(&self.looked.connection, turn, readers).await?;
            let best = sweep.best().map_or(0.0, |read| read.bytes_per_second);
            let speed = ReadSpeed { readers, bytes_per_second: taken.rate(), latency_seconds: latency };
            sweep.disturbed = match (sweep.reads.first().and_then(|one| one.latency_seconds), latency) {
                (Some(first), Some(now)) => now > first * DISTURBED.0 && now > first + DISTURBED.1,
                _ => false,
            };
            if sweep.disturbed {
                break;
            }
            let of_use = speed.bytes_per_second > best * OF_USE;
            sweep.reads.push(speed);
            if !of_use {
                break;
            }
        }
        if let (Some(plain), Some(best)) = (&self.looked.plain, sweep.best()) {
            let (without, _) = self.step(plain, READERS.len(), best.readers).await?;
            let bytes_per_second = best.bytes_per_second;
            sweep.wire = Some(WireCompression { bytes_per_second, without_bytes_per_second: without.rate() });
        }
        Ok(sweep)
    }

    /// Measures one number of cursors. Reads other parts than the turn before, if there are others:
    /// what was read is in the server's memory.
    async fn step(&self, connection: &Connection, turn: usize, readers: usize) -> Result<(Taken, Option<f64>)> {
        let mut parts: Vec<Part> = self.looked.parts.iter().map(|part| Part { most: u64::MAX, ..part.clone() }).collect();
        let by = turn * parts.len() / (READERS.len() + 1);
        parts.rotate_left(by);
        let mut latencies = Vec::new();
        let read = self.read(connection, &parts, readers, EACH_BYTES, EACH, Keep::Nothing);
        let taken = tokio::select! {
            taken = read => taken?,
            () = ping(connection, &mut latencies) => return Ok((Taken::default(), None)),
        };
        latencies.sort_by(f64::total_cmp);
        Ok((taken, latencies.get(latencies.len() / 2).copied()))
    }
}

impl Sweep {
    /// The fastest.
    pub(super) fn best(&self) -> Option<&ReadSpeed> {
        self.reads.iter().max_by(|a, b| a.bytes_per_second.total_cmp(&b.bytes_per_second))
    }
}

/// Sends a small command again and again, and never ends.
async fn ping(connection: &Connection, latencies: &mut Vec<f64>) {
    loop {
        tokio::time::sleep(PING).await;
        let begin = Instant::now();
        // A failed command says nothing: the reading itself reports what is wrong.
        if command::run(&connection.database("admin"), rawdoc! { "ping": 1 }).await.is_ok() {
            latencies.push(begin.elapsed().as_secs_f64());
        }
    }
}
