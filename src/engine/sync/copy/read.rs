//! Reads the ranges of a first copy, several at a time, into their staging. A range counts once it
//! is durable in the target.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::direct::Direct;
use super::fill::{Filling, Shared, Taken};
use crate::context::lock;
use crate::engine::backup::throttle;
use crate::error::{Error, ErrorKind, Result};
use crate::names::SYNC_DATABASE;
use crate::pipeline::pace::RateLimiter;
use crate::sink::first_copy::{CopiedRange, FirstCopy};
use crate::sink::{CollectionSpec, Target};
use crate::source::discover::CollectionInfo;
use crate::source::ranges::Range;

/// The part of the memory that is for replies of the source.
const REPLIES: u64 = 4;

/// Reads what is not there yet.
pub(super) struct Reader<'a> {
    direct: &'a Direct<'a>,
    shared: Arc<Shared>,
    queue: Queue,
}

/// The ranges that nobody reads yet.
type Queue = Arc<Mutex<VecDeque<Unit>>>;

/// A range that one cursor reads.
struct Unit {
    collection: usize,
    number: usize,
    range: Range,
}

impl<'a> Reader<'a> {
    /// Prepares to read what a copy still lacks.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if a range that was recorded is none.
    pub(super) fn new(direct: &'a Direct<'a>, copy: &FirstCopy) -> Result<Self> {
        let copier = direct.copier;
        let (cx, bytes) = (copier.cx, copier.options.tuning.counted_bytes());
        let done: HashSet<(Uuid, usize)> = copy.ranges.iter().map(|range| (range.of, range.number)).collect();
        let (mut collections, mut units) = (Vec::new(), Vec::new());
        for one in &copy.collections {
            let (Some(uuid), Some((place, staged))) = (one.source.uuid, &one.staged) else { continue };
            let to = copier.options.name(&one.source.namespace())?;
            let mut spec = CollectionSpec::of(&one.source, to, copier.version)?;
            (spec.place, spec.uuid) = (place.clone(), Some(*staged));
            let mut left = Vec::new();
            for (number, part) in one.ranges.iter().enumerate().filter(|(number, _)| !done.contains(&(uuid, *number))) {
                let range = Range::of(part).ok_or_else(|| Error::damaged("a part of the first copy is none"))?;
                left.push(Unit { collection: collections.len(), number, range });
            }
            if !left.is_empty() {
                let filling = Filling::new(uuid, one, spec, copier.target, left.len(), cx);
                copy.ranges_of(uuid).for_each(|there| filling.item.add(there.content.documents, there.content.bytes));
                collections.push(filling);
                units.extend(left);
            }
        }
        let shared = Shared {
            source: direct.source.clone(),
            target: copier.target.clone(),
            cx: cx.clone(),
            budget: cx.memory.part(bytes / REPLIES),
            inserts: cx.memory.part(bytes - bytes / REPLIES),
            pace: RateLimiter::limited(copier.options.tuning.max_bits),
            not_before: Direct::not_before(copy),
            collections,
            halt: cx.cancel.child_token(),
        };
        Ok(Self { direct, shared: Arc::new(shared), queue: Arc::new(Mutex::new(units.into())) })
    }

    /// Reads it, and adds it to what is there.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] if the target's primary changed or was restarted: what it had
    /// durably stays. Those of both sides; [`ErrorKind::Interrupted`].
    pub(super) async fn read(self, ranges: &mut Vec<CopiedRange>) -> Result<()> {
        let shared = &self.shared;
        let places: Vec<CollectionInfo> = shared.collections.iter().map(|one| one.found.clone()).collect();
        let asked_of = throttle::place(&places);
        let tuning = &self.direct.copier.options.tuning;
        let throttling = async {
            match tuning.adaptive_throttle {
                true => {
                    let usual = throttle::usual_latencies(&shared.source, asked_of.as_ref()).await;
                    throttle::throttle(&shared.source, asked_of.as_ref(), usual, &shared.pace).await;
                }
                false => std::future::pending().await,
            }
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut readers = JoinSet::new();
        for _ in 0..self.direct.readers {
            readers.spawn(work(shared.clone(), self.queue.clone(), sender.clone()));
        }
        drop(sender);
        let reading = async {
            let mut first = Ok(());
            while let Some(ended) = readers.join_next().await {
                let ended = ended.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, "a reading task died").cause(e)));
                if first.is_ok() && ended.is_err() {
                    first = ended;
                    // The others end what they are at.
                    shared.halt.cancel();
                }
            }
            first
        };
        let recording = record(&shared.target, receiver, ranges, &shared.halt);
        let both = async { tokio::join!(reading, recording) };
        let (read, recorded) = tokio::select! {
            both = both => both,
            () = throttling => unreachable!("the throttle has no end"),
        };
        if self.direct.copier.cx.cancel.is_cancelled() {
            return Err(Error::interrupted());
        }
        // If nothing can be recorded, that is why nothing was read.
        recorded.and(read)
    }
}

/// Records ranges as they are read, once they are durable. Adds them to what is there.
async fn record(
    target: &Target,
    mut read: mpsc::UnboundedReceiver<CopiedRange>,
    ranges: &mut Vec<CopiedRange>,
    halt: &CancellationToken,
) -> Result<()> {
    // What was read is kept, even if the reading was stopped.
    let target = target.unstoppable();
    let recording = async {
        let identity = target.identity().await?;
        while let Some(one) = read.recv().await {
            let mut some = vec![one];
            while let Ok(more) = read.try_recv() {
                some.push(more);
            }
            target.make_durable(SYNC_DATABASE).await?;
            if target.identity().await? != identity {
                let what = "the target's primary changed or restarted: what it did not have durably is copied again";
                return Err(Error::new(ErrorKind::Unreachable, what));
            }
            CopiedRange::record(&target, &some).await?;
            ranges.append(&mut some);
        }
        Ok(())
    };
    let recorded = recording.await;
    if recorded.is_err() {
        halt.cancel();
    }
    recorded
}

/// Takes one range after the other until none is left.
async fn work(shared: Arc<Shared>, queue: Queue, read: mpsc::UnboundedSender<CopiedRange>) -> Result<()> {
    loop {
        let unit = lock(&queue).pop_front();
        let Some(unit) = unit else { return Ok(()) };
        let filling = &shared.collections[unit.collection];
        let taken = shared.copy(filling, &unit.range).await?;
        let Taken { content, end, last } = taken;
        if filling.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            filling.item.finish();
        }
        let range = CopiedRange { of: filling.uuid, number: unit.number, content, end: end.map(Into::into), last };
        if read.send(range).is_err() {
            return Err(Error::interrupted());
        }
    }
}
