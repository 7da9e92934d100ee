//! Reads a bounded part of a source to learn what it holds and how fast it can be read.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::discover::{CollectionInfo, Size};
use super::ranges::Range;
use super::scan::{Batch, Event, Failure, Scan};
use crate::context::lock;
use crate::context::memory::MemoryBudget;
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Elements;
use crate::mongo::Connection;
use crate::pipeline::pace::RateLimiter;
use crate::pipeline::write::Documents as _;

/// How much longer than the time limit to wait for a source that has sent nothing yet.
const FIRST_REPLY: Duration = Duration::from_secs(8);

/// How long to wait at the end for a reply in progress.
const LAST_REPLY: Duration = Duration::from_secs(1);

/// How many times each part is read at most, when parts are read repeatedly.
const PASSES: usize = 8;

/// A part of a collection that may be read.
#[derive(Debug, Clone)]
pub struct Part {
    /// The collection.
    pub collection: CollectionInfo,
    /// Its approximate total size.
    pub size: Size,
    /// The part to read.
    pub range: Range,
    /// The approximate maximum of bytes to read.
    pub most: u64,
}

/// When reading ends.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The approximate total of bytes to read.
    pub bytes: u64,
    /// The time limit.
    pub time: Duration,
    /// The rate limit, in bits per second.
    pub bits: Option<u64>,
    /// The approximate bytes of a reply.
    pub batch_bytes: u64,
}

/// What happens to the documents read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Each part is read once, and its documents are kept.
    Documents,
    /// Documents are dropped as they arrive, and parts are read again if there are too few.
    Nothing,
}

/// Documents of one collection, concatenated in order of arrival.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// The index of the part they belong to.
    pub part: usize,
    /// Their bytes.
    pub bytes: Vec<u8>,
    /// Where each of them ends.
    pub ends: Vec<usize>,
}

/// What was read.
#[derive(Debug, Default)]
pub struct Taken {
    /// Documents.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// From the start to the last reply.
    pub time: Duration,
    /// By part, if they are kept.
    pub kept: Vec<Kept>,
}

impl Taken {
    /// Bytes per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.time.as_secs_f64().max(1e-6)
    }
}

struct Reading {
    connection: Connection,
    parts: Vec<Part>,
    limits: Limits,
    keep: Keep,
    budget: MemoryBudget,
    pace: RateLimiter,
    begin: Instant,
    next: Mutex<usize>,
    taken: Mutex<Taken>,
    /// Starts nothing new, but waits for replies in progress, so that the server learns that their
    /// cursors are not needed.
    halt: CancellationToken,
    /// Stops waiting altogether.
    abandon: CancellationToken,
}

/// Reads the parts with this many concurrent cursors until a limit is reached, and returns what
/// arrived. If it is stopped, it releases every cursor before it returns.
///
/// # Errors
/// [`ErrorKind::Unreachable`] if nothing arrives at all; [`ErrorKind::Denied`],
/// [`ErrorKind::Server`]; [`ErrorKind::Interrupted`].
pub async fn read(
    connection: &Connection,
    parts: &[Part],
    readers: usize,
    limits: Limits,
    keep: Keep,
    budget: &MemoryBudget,
    stop: &CancellationToken,
) -> Result<Taken> {
    let reading = Arc::new(Reading {
        connection: connection.clone(),
        parts: parts.to_vec(),
        limits,
        keep,
        budget: budget.clone(),
        pace: RateLimiter::limited(limits.bits),
        begin: Instant::now(),
        next: Mutex::default(),
        taken: Mutex::default(),
        halt: stop.child_token(),
        abandon: CancellationToken::new(),
    });
    let mut workers = JoinSet::new();
    for _ in 0..readers.max(1) {
        workers.spawn(work(reading.clone()));
    }
    let deadline = reading.begin + limits.time;
    let patience = async {
        reading.halt.cancelled().await;
        tokio::time::sleep(LAST_REPLY).await;
        reading.abandon.cancel();
        std::future::pending::<()>().await;
    };
    let joined = async {
        while let Some(ended) = workers.join_next().await {
            ended.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, "a reading task crashed").cause(e)))?;
        }
        Ok(())
    };
    let ended = async {
        tokio::select! {
            ended = joined => ended,
            () = patience => Ok(()),
        }
    };
    tokio::pin!(ended);
    let in_time = tokio::select! {
        ended = &mut ended => Some(ended),
        () = tokio::time::sleep_until(deadline) => None,
        () = stop.cancelled() => None,
    };
    let ended = match in_time {
        Some(ended) => ended,
        None if lock(&reading.taken).bytes > 0 || stop.is_cancelled() => {
            reading.halt.cancel();
            ended.await
        }
        // Perhaps a sleeping disk or a very slow link.
        None => loop {
            tokio::select! {
                ended = &mut ended => break ended,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
            if lock(&reading.taken).bytes > 0 {
                reading.halt.cancel();
            } else if Instant::now() > deadline + FIRST_REPLY {
                reading.halt.cancel();
                break Err(silent(limits.time + FIRST_REPLY));
            }
        },
    };
    reading.halt.cancel();
    if stop.is_cancelled() {
        return Err(Error::interrupted());
    }
    ended?;
    let taken = std::mem::take(&mut *lock(&reading.taken));
    Ok(taken)
}

fn silent(after: Duration) -> Error {
    Error::new(ErrorKind::Unreachable, format!("the source sent no document within {} seconds", after.as_secs()))
        .hint("check the network and the load of the server")
}

async fn work(reading: Arc<Reading>) -> Result<()> {
    loop {
        let number = {
            let mut next = lock(&reading.next);
            *next += 1;
            *next - 1
        };
        let most = reading.parts.len() * if reading.keep == Keep::Nothing { PASSES } else { 1 };
        if number >= most || reading.halt.is_cancelled() || lock(&reading.taken).bytes >= reading.limits.bytes {
            return Ok(());
        }
        reading.part(number % reading.parts.len()).await?;
    }
}

impl Reading {
    async fn part(&self, number: usize) -> Result<()> {
        let part = &self.parts[number];
        let scan = Scan {
            connection: self.connection.clone(),
            collection: part.collection.clone(),
            data: part.collection.data(),
            size: Some(part.size).filter(|size| size.documents > 0),
            filter: None,
            only_ids: false,
            range: part.range.clone(),
            snapshot: None,
            not_before: None,
            reply_bytes: self.pace.reply_bytes(self.limits.batch_bytes),
            pace: self.pace.clone(),
        };
        let (to, from) = mpsc::channel(1);
        let scanned = async move { scan.run(&self.budget, &to, &self.abandon).await };
        let received = async {
            let mut from = from;
            let mut left = part.most;
            let mut kept = Kept { part: number, ..Kept::default() };
            loop {
                let event = tokio::select! {
                    event = from.recv() => event,
                    () = self.halt.cancelled() => None,
                };
                let Some(event) = event else { break };
                // Repeated documents do no harm: only speed depends on them.
                let Event::Batch(batch, _share) = event else { continue };
                let bytes = self.count(&batch, &mut kept)?;
                left = left.saturating_sub(bytes);
                if left == 0 || lock(&self.taken).bytes >= self.limits.bytes {
                    break;
                }
            }
            // The sender sees that nobody receives.
            drop(from);
            if !kept.ends.is_empty() {
                lock(&self.taken).kept.push(kept);
            }
            Ok(())
        };
        let (scanned, received) = tokio::join!(scanned, received);
        received?;
        match scanned {
            Ok(_) | Err(Failure::Stopped | Failure::Moved(_)) => Ok(()),
            Err(Failure::TooOld(error) | Failure::Other(error)) => Err(error),
        }
    }

    /// Counts a reply, and returns its bytes.
    fn count(&self, batch: &Batch, kept: &mut Kept) -> Result<u64> {
        let malformed = |e: Error| e.context("a reply of the source");
        let (mut documents, mut bytes) = (0, 0);
        for (place, element) in Elements::of(batch.array()?).map_err(malformed)?.enumerate() {
            let document = element.map_err(malformed)?.value;
            if !batch.counts(place) {
                continue;
            }
            documents += 1;
            bytes += document.len() as u64;
            if self.keep == Keep::Documents {
                kept.bytes.extend_from_slice(document);
                kept.ends.push(kept.bytes.len());
            }
        }
        let mut taken = lock(&self.taken);
        taken.documents += documents;
        taken.bytes += bytes;
        taken.time = self.begin.elapsed();
        Ok(bytes)
    }
}
