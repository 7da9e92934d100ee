//! Writes down what became durable, so that a backup that is interrupted can be resumed. Nothing waits for it: a range that is not written down
//! yet is read again.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::consistency::ConsistencyPoint;
use crate::error::{Error, ErrorKind, Result};
use crate::format::journal::{Head, OplogStep, RangeDone, Standing, Step};
use crate::format::key;
use crate::repository::backend::{Entry, Store};

/// How long to gather before the next object is written.
const PAUSE: Duration = Duration::from_secs(2);

/// How much longer with each object that there is, so that a backup of many hours does not have tens of thousands.
const LONGER_EACH: Duration = Duration::from_millis(20);

/// What became durable and is to be written down.
#[derive(Debug, Default)]
pub(super) struct Record {
    waiting: Mutex<Waiting>,
    durable_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    ranges: Vec<RangeDone>,
    oplog: Option<OplogStep>,
    written: Standing,
}

impl Record {
    /// All documents of a range are stored.
    pub(super) fn range(&self, done: RangeDone) {
        self.durable_bytes.fetch_add(done.segments.iter().map(|s| s.raw_bytes).sum(), Ordering::Relaxed);
        self.lock().ranges.push(done);
    }

    /// More of the oplog slice is stored.
    pub(super) fn oplog(&self, step: OplogStep) {
        let mut waiting = self.lock();
        match &mut waiting.oplog {
            Some(earlier) => {
                earlier.segments.extend(step.segments);
                (earlier.position, earlier.seen) = (step.position, step.seen);
            }
            none => *none = Some(step),
        }
    }

    /// The bytes of the documents, uncompressed, of all ranges that are stored.
    pub(super) fn durable_bytes(&self) -> u64 {
        self.durable_bytes.load(Ordering::Relaxed)
    }

    /// An attempt begins, and what was stored of another one is gone.
    pub(super) fn forget_ranges(&self) {
        self.durable_bytes.store(0, Ordering::Relaxed);
        let mut waiting = self.lock();
        waiting.ranges.clear();
        waiting.written = Standing::default();
    }

    /// What waits, where anything does. What the reading rests on is asked for once the ranges are taken: it stays true, so it holds for all of them.
    fn take(&self, moment: &ConsistencyPoint) -> Option<Step> {
        let mut waiting = self.lock();
        let standing = moment.standing();
        if waiting.ranges.is_empty() && waiting.oplog.is_none() && waiting.written == standing {
            return None;
        }
        Some(Step { ranges: std::mem::take(&mut waiting.ranges), oplog: waiting.oplog.take(), standing })
    }

    /// What could not be written waits again, in front of what came since.
    fn give_back(&self, step: Step) {
        let since = {
            let mut waiting = self.lock();
            waiting.ranges.splice(0..0, step.ranges);
            std::mem::replace(&mut waiting.oplog, step.oplog)
        };
        if let Some(since) = since {
            self.oplog(since);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The journal of one attempt, until [`Journal::stop`].
pub(super) struct Journal {
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl Journal {
    /// Writes down what is to be read, durably, and from then on what was.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub(super) async fn begin(place: &Store, head: &Head, record: Arc<Record>, moment: Arc<ConsistencyPoint>) -> Result<Self> {
        place.put(&key::journal(0), vec![head.to_bytes()?.into()]).await?;
        Ok(Self::go_on(place, 1, record, moment))
    }

    /// Goes on with the object of this number.
    pub(super) fn go_on(place: &Store, number: usize, record: Arc<Record>, moment: Arc<ConsistencyPoint>) -> Self {
        let end = CancellationToken::new();
        let task = tokio::spawn(keep(place.clone(), number, record, moment, end.clone()));
        Self { end, task }
    }

    /// Writes what is left, and ends: when this returns, nothing writes any more.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] where it had died.
    pub(super) async fn stop(self) -> Result<()> {
        self.end.cancel();
        self.task.await.map_err(|e| Error::new(ErrorKind::Internal, "the journal died").cause(e))
    }
}

async fn keep(place: Store, mut number: usize, record: Arc<Record>, moment: Arc<ConsistencyPoint>, end: CancellationToken) {
    loop {
        let pause = PAUSE + LONGER_EACH * u32::try_from(number).unwrap_or(u32::MAX / 1000).min(10_000);
        let last = end.run_until_cancelled(tokio::time::sleep(pause)).await.is_none();
        if let Some(step) = record.take(&moment) {
            match write(&place, number, &step).await {
                Ok(()) => {
                    record.lock().written = step.standing;
                    number += 1;
                }
                // Where it cannot be written, neither can the segments, and that is what fails the backup.
                Err(e) => {
                    tracing::warn!("the journal could not be written: {e}");
                    record.give_back(step);
                }
            }
        }
        if last {
            return;
        }
    }
}

async fn write(place: &Store, number: usize, step: &Step) -> Result<()> {
    place.put(&key::journal(number), vec![step.to_bytes()?.into()]).await
}

/// Removes the journal of a backup that is complete, or that begins again: its head first, without which the rest is nothing.
///
/// # Errors
/// [`ErrorKind::Storage`].
pub(super) async fn remove(place: &Store) -> Result<()> {
    place.delete(&key::journal(0)).await?;
    let mut steps = Vec::new();
    let look = |entry: Entry| {
        steps.extend(Some(entry.key).filter(|key| key::journal_number(key).is_some()));
        ControlFlow::Continue(())
    };
    place.each(look).await?;
    for step in steps {
        place.delete(&step).await?;
    }
    Ok(())
}
