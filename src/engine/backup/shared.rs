//! What the readers of a backup share: the ranges that are left, and what is stored of each
//! collection.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::{RawDocumentBuf, Timestamp};
use tokio::sync::watch;

use super::consistency::ConsistencyPoint;
use super::plan::BackupContext;
use super::run::Run;
use crate::context::lock;
use crate::context::memory::MemoryBudget;
use crate::context::progress::Item;
use crate::error::Error;
use crate::format::checkpoint::RangeDone;
use crate::format::frame;
use crate::format::key;
use crate::format::manifest::{Segment, TEMPORARY};
use crate::names::Namespace;
use crate::pipeline::pace::RateLimiter;
use crate::pipeline::write::{CollectionWriter, Sizes};
use crate::repository::checkpoint::{Checkpoint, Durable};
use crate::repository::lock::heartbeat::HeartbeatState;
use crate::source::discover::{CollectionInfo, Size};
use crate::source::ranges::Range;

/// Why a worker stops.
pub(super) enum Halt {
    Again(String),
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A range that one cursor reads.
pub(super) struct Unit {
    pub(super) collection: usize,
    /// Its place among the collection's ranges.
    pub(super) number: usize,
    pub(super) range: Range,
    pub(super) bytes: u64,
}

/// A collection while it is read.
pub(super) struct Reading {
    pub(super) found: CollectionInfo,
    pub(super) size: Option<Size>,
    /// The namespace that holds its documents, as last found.
    pub(super) data: Mutex<Namespace>,
    /// Its catalog entry is newer than the snapshot, so it cannot be read at the snapshot time.
    pub(super) altered: AtomicBool,
    /// Why nothing more of it is read, if it is gone.
    pub(super) gone: Mutex<Option<String>>,
    pub(super) stem: String,
    pub(super) item: Item,
    pub(super) writer: Arc<CollectionWriter>,
    pub(super) ranges_left: AtomicU64,
    pub(super) done: Mutex<Done>,
}

/// What is stored of a collection: its segments with their numbers, and the operation time of the
/// last reply.
#[derive(Default)]
pub(super) struct Done {
    pub(super) segments: Vec<(usize, Segment)>,
    pub(super) end: Option<Timestamp>,
}

impl Done {
    /// Takes over what an interrupted attempt stored of a range.
    pub(super) fn take(&mut self, stem: &str, earlier: &RangeDone) {
        let numbered = |segment: &Segment| Some((key::segment_number(stem, &segment.object.key)?, segment.clone()));
        self.segments.extend(earlier.segments.iter().filter_map(numbered));
        self.end = self.end.max(earlier.end.map(Into::into));
    }
}

/// What all workers share.
pub(super) struct Shared {
    pub(super) connection: crate::mongo::Connection,
    pub(super) moment: Arc<ConsistencyPoint>,
    pub(super) budget: MemoryBudget,
    /// The filter that documents must match. None if all are read.
    pub(super) filter: Option<RawDocumentBuf>,
    pub(super) pace: RateLimiter,
    /// About how many bytes to ask for at a time.
    pub(super) reply_bytes: u64,
    /// How many workers read now: those with a number below this.
    pub(super) allowed: watch::Sender<usize>,
    /// The nanoseconds that writers have waited for documents.
    pub(super) starved: AtomicU64,
    pub(super) state: Arc<HeartbeatState>,
    pub(super) durable: Arc<Durable>,
    pub(super) collections: Vec<Reading>,
    pub(super) queue: Mutex<VecDeque<Unit>>,
    /// The ranges of temporary collections, which are read last, if at all.
    pub(super) temporary: Mutex<Vec<Unit>>,
}

impl Shared {
    /// Called when everything else is read: whether temporary collections are read, too. They count
    /// only if the oplog slice makes them permanent; without it, the backup skips them. Capped
    /// collections may come to need the slice when everything is read.
    pub(super) fn goes_on_with_temporary(&self) -> bool {
        let units = std::mem::take(&mut *lock(&self.temporary));
        let may_need_slice = self.moment.may_rely() && self.collections.iter().any(|reading| reading.found.is_capped());
        if self.moment.relies() || may_need_slice {
            lock(&self.queue).extend(units);
            return !lock(&self.queue).is_empty();
        }
        for unit in units {
            let reading = &self.collections[unit.collection];
            lock(&reading.gone).get_or_insert_with(|| TEMPORARY.to_owned());
            reading.item.finish();
            self.state.range_done();
        }
        false
    }

    /// Adds the time that a writer has waited for documents.
    pub(super) fn starved_for(&self, waited: Duration) {
        self.starved.fetch_add(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The time that all writers have waited.
    pub(super) fn starved(&self) -> Duration {
        Duration::from_nanos(self.starved.load(Ordering::Relaxed))
    }
}

pub(super) fn share_out(
    context: &BackupContext,
    stems: &[String],
    resumed: Option<&Checkpoint>,
    moment: Arc<ConsistencyPoint>,
    run: &Run<'_>,
) -> Shared {
    let (place, state, cx) = (run.place, run.state, run.cx);
    let mut units: Vec<Unit> = Vec::new();
    let mut collections: Vec<Reading> = Vec::new();
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let sizes = Sizes { segment: bytes(context.settings.segment_bytes), frame: bytes(context.settings.frame_bytes) };
    let mut all = 0;
    for (index, (found, stem)) in context.listing.collections.iter().zip(stems).enumerate() {
        let (size, ranges) = context.survey.of(found);
        let about = size.unwrap_or_default();
        let item = cx.progress.item(found.namespace.to_string(), about.documents, about.bytes);
        let writer = CollectionWriter::new(
            place.clone(),
            stem.clone(),
            context.compressors.clone(),
            sizes,
            context.cpu.clone(),
            item.clone(),
        );
        let mut done = Done::default();
        let is_done = |number: usize| resumed.and_then(|resumed| resumed.ranges.get(&(index, number)));
        for earlier in (0..ranges.len()).filter_map(is_done) {
            done.take(stem, earlier);
            item.add(earlier.segments.iter().map(|s| s.documents).sum(), earlier.segments.iter().map(|s| s.raw_bytes).sum());
        }
        writer.number_from(done.segments.iter().map(|(number, _)| number + 1).max().unwrap_or(0));
        let gone = resumed.and_then(|resumed| resumed.gone.get(&index).cloned());
        let each = about.bytes / (ranges.len() as u64).max(1);
        all += ranges.len();
        let to_read = ranges.into_iter().enumerate().filter(|(number, _)| is_done(*number).is_none());
        let before = units.len();
        units.extend(to_read.map(|(number, range)| Unit { collection: index, number, range, bytes: each }));
        if units.len() == before {
            item.finish();
        }
        collections.push(Reading {
            found: found.clone(),
            size,
            data: Mutex::new(found.data()),
            altered: AtomicBool::new(false),
            gone: Mutex::new(gone),
            writer,
            stem: stem.clone(),
            item,
            ranges_left: AtomicU64::new((units.len() - before) as u64),
            done: Mutex::new(done),
        });
    }
    // The largest first, so that none runs alone at the end.
    units.sort_by_key(|unit| std::cmp::Reverse(unit.bytes));
    state.begin(moment.time.map(Into::into), all as u64, (all - units.len()) as u64);
    let (temporary, units): (Vec<_>, Vec<_>) =
        units.into_iter().partition(|unit| collections[unit.collection].found.is_temporary());
    Shared {
        connection: context.connection.clone(),
        moment,
        budget: context.budget(cx),
        filter: context.selection.documents.filter(),
        pace: context.pace.clone(),
        reply_bytes: context.settings.frame_bytes.min(frame::TARGET as u64),
        allowed: watch::Sender::new(context.settings.readers),
        starved: AtomicU64::new(0),
        state: state.clone(),
        durable: run.durable.clone(),
        collections,
        queue: Mutex::new(units.into()),
        temporary: Mutex::new(temporary),
    }
}
