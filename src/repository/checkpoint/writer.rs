//! Records what became durable, so that an interrupted backup can be resumed. Nothing waits for it:
//! a range that is not recorded yet is read again.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::{Head, OplogStep, RangeDone, ResumeState, Step};
use crate::repository::backend::{Entry, Objects};
use crate::repository::layout;

/// How long to gather before the next object is written.
const PAUSE: Duration = Duration::from_secs(2);

/// The extra time for each existing object, so that a backup of many hours does not have tens of
/// thousands.
const LONGER_EACH: Duration = Duration::from_millis(20);

/// Tells what the reading depends on.
pub type ResumeStateOf = Arc<dyn Fn() -> ResumeState + Send + Sync>;

/// What became durable and is to be recorded.
#[derive(Debug, Default)]
pub struct Durable {
    waiting: Mutex<Waiting>,
    durable_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    ranges: Vec<RangeDone>,
    oplog: Option<OplogStep>,
    written: ResumeState,
}

impl Durable {
    /// Records that all documents of a range are stored.
    pub fn range(&self, done: RangeDone) {
        self.durable_bytes.fetch_add(done.segments.iter().map(|s| s.raw_bytes).sum(), Ordering::Relaxed);
        self.lock().ranges.push(done);
    }

    /// Records that more of the oplog slice is stored.
    pub fn oplog(&self, step: OplogStep) {
        let mut waiting = self.lock();
        match &mut waiting.oplog {
            Some(earlier) => {
                earlier.segments.extend(step.segments);
                (earlier.position, earlier.seen) = (step.position, step.seen);
            }
            none => *none = Some(step),
        }
    }

    /// The bytes of the documents, uncompressed, of all stored ranges.
    pub fn bytes(&self) -> u64 {
        self.durable_bytes.load(Ordering::Relaxed)
    }

    /// Starts over: a new attempt begins, and what the last one stored is gone.
    pub fn forget_ranges(&self) {
        self.durable_bytes.store(0, Ordering::Relaxed);
        let mut waiting = self.lock();
        waiting.ranges.clear();
        waiting.written = ResumeState::default();
    }

    /// What is waiting, if anything is. The resume state is read after the ranges are taken: it
    /// stays true, so it holds for all of them.
    fn take(&self, state: &ResumeStateOf) -> Option<Step> {
        let mut waiting = self.lock();
        let state = state();
        if waiting.ranges.is_empty() && waiting.oplog.is_none() && waiting.written == state {
            return None;
        }
        Some(Step { ranges: std::mem::take(&mut waiting.ranges), oplog: waiting.oplog.take(), state })
    }

    /// Puts back what could not be written, in front of what came since.
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
        lock(&self.waiting)
    }
}

/// The checkpoint of one attempt, until [`CheckpointWriter::stop`].
pub struct CheckpointWriter {
    end: CancellationToken,
    task: JoinHandle<()>,
}

impl CheckpointWriter {
    /// Records durably what is to be read, and from then on what was read.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn begin(place: &Objects, head: &Head, durable: Arc<Durable>, state: ResumeStateOf) -> Result<Self> {
        place.put(&layout::checkpoint(0), vec![head.to_bytes()?.into()]).await?;
        Ok(Self::go_on(place, 1, durable, state))
    }

    /// Goes on with the object of this number.
    pub fn go_on(place: &Objects, number: usize, durable: Arc<Durable>, state: ResumeStateOf) -> Self {
        let end = CancellationToken::new();
        let task = tokio::spawn(keep(place.clone(), number, durable, state, end.clone()));
        Self { end, task }
    }

    /// Writes the rest, and ends. After the return, nothing writes any more.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if it had died.
    pub async fn stop(self) -> Result<()> {
        self.end.cancel();
        self.task.await.map_err(|e| Error::new(ErrorKind::Internal, "the checkpoint writer died").cause(e))
    }
}

async fn keep(place: Objects, mut number: usize, durable: Arc<Durable>, state: ResumeStateOf, end: CancellationToken) {
    loop {
        let pause = PAUSE + LONGER_EACH * u32::try_from(number).unwrap_or(u32::MAX / 1000).min(10_000);
        let last = end.run_until_cancelled(tokio::time::sleep(pause)).await.is_none();
        if let Some(step) = durable.take(&state) {
            match write(&place, number, &step).await {
                Ok(()) => {
                    durable.lock().written = step.state;
                    number += 1;
                }
                // If it cannot be written, the segments cannot either, and that fails the backup.
                Err(e) => {
                    tracing::warn!("the checkpoint could not be written: {e}");
                    durable.give_back(step);
                }
            }
        }
        if last {
            return;
        }
    }
}

async fn write(place: &Objects, number: usize, step: &Step) -> Result<()> {
    place.put(&layout::checkpoint(number), vec![step.to_bytes()?.into()]).await
}

/// Removes the checkpoint of a backup that is complete or starts over. Its head first: without it,
/// the rest means nothing.
///
/// # Errors
/// [`ErrorKind::Storage`].
pub async fn remove(place: &Objects) -> Result<()> {
    place.delete(&layout::checkpoint(0)).await?;
    let mut steps = Vec::new();
    let look = |entry: Entry| {
        steps.extend(Some(entry.key).filter(|key| layout::checkpoint_number(key).is_some()));
        ControlFlow::Continue(())
    };
    place.each(look).await?;
    for step in steps {
        place.delete(&step).await?;
    }
    Ok(())
}
