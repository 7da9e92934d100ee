//! Reading and storing every range of a backup, several at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bson::{RawDocumentBuf, Timestamp};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Run;
use super::consistency::ConsistencyPoint;
use super::plan::Prepared;
use super::range::read_range;
use super::steer;
use crate::context::memory::MemoryBudget;
use crate::context::progress::Item;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::RangeDone;
use crate::format::digest::Content;
use crate::format::frame;
use crate::format::key::{self, Stems};
use crate::format::manifest::{Segment, TEMPORARY};
use crate::names::Namespace;
use crate::pipeline::pace::RateLimiter;
use crate::pipeline::write::{CollectionWriter, Sizes};
use crate::repository::backend::Objects;
use crate::repository::checkpoint::{self, Checkpoint, Durable};
use crate::repository::lock::heartbeat::HeartbeatState;
use crate::source::discover::{CollectionInfo, Size};
use crate::source::ranges::Range;

/// How reading ended.
pub(super) enum Outcome {
    /// Everything is read and stored.
    Read(Read),
    /// A collection changed its name or its catalog entry after the snapshot time.
    Again(String),
}

/// What was read.
pub(super) struct Read {
    /// In the listing's order.
    pub(super) collections: Vec<ReadCollection>,
}

/// What was read of one collection.
pub(super) struct ReadCollection {
    pub(super) stem: String,
    pub(super) segments: Vec<Segment>,
    pub(super) content: Content,
    /// Why it is not part of the backup, where it was gone before all of it was read.
    pub(super) gone: Option<String>,
    /// The operation time of the last reply.
    pub(super) end: Option<Timestamp>,
}

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

/// One range, to be read by one cursor.
pub(super) struct Unit {
    collection: usize,
    /// Its place among the collection's ranges.
    number: usize,
    pub(super) range: Range,
    bytes: u64,
}

/// A collection while it is read.
pub(super) struct Reading {
    pub(super) found: CollectionInfo,
    pub(super) size: Option<Size>,
    /// The namespace that holds its documents, as it was last found.
    pub(super) data: Mutex<Namespace>,
    /// Its catalog entry is newer than the snapshot, so that it cannot be read at it.
    pub(super) altered: AtomicBool,
    /// Why nothing more is read of it, where it is gone.
    pub(super) gone: Mutex<Option<String>>,
    stem: String,
    item: Item,
    writer: Arc<CollectionWriter>,
    ranges_left: AtomicU64,
    done: Mutex<Done>,
}

/// What has been stored of a collection: its segments with their numbers, and the operation time of the last reply.
#[derive(Default)]
struct Done {
    segments: Vec<(usize, Segment)>,
    end: Option<Timestamp>,
}

impl Done {
    /// Takes what an interrupted attempt stored of a range.
    fn take(&mut self, stem: &str, earlier: &RangeDone) {
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
    /// What documents must match to be read, if not all are.
    pub(super) filter: Option<RawDocumentBuf>,
    pub(super) pace: RateLimiter,
    /// About how many bytes to ask for at a time.
    pub(super) reply_bytes: u64,
    /// How many read now: those with a number below this.
    pub(super) allowed: watch::Sender<usize>,
    /// The nanoseconds that those who write have waited for something to write.
    starved: AtomicU64,
    state: Arc<HeartbeatState>,
    durable: Arc<Durable>,
    collections: Vec<Reading>,
    queue: Mutex<VecDeque<Unit>>,
    /// Those of temporary collections, which are read last, if at all.
    temporary: Mutex<Vec<Unit>>,
}

/// Reads everything that was prepared into `place`, but for the ranges that an interrupted attempt stored.
pub(super) async fn read(
    prepared: &Prepared,
    stems: &[String],
    resumed: Option<&Checkpoint>,
    moment: &Arc<ConsistencyPoint>,
    run: &Run<'_>,
) -> Result<Outcome> {
    let Run { place, cx, .. } = *run;
    cx.progress.begin("reading");
    let shared = Arc::new(share_out(prepared, stems, resumed, moment.clone(), run));

    let halt = cx.cancel.child_token();
    let mut workers = JoinSet::new();
    let begin = |workers: &mut JoinSet<_>| {
        for number in 0..prepared.most_readers {
            workers.spawn(work(number, shared.clone(), halt.clone()));
        }
    };
    begin(&mut workers);
    let mut steering = steer::Steering::new(prepared, shared.clone(), cx.progress.clone());
    let asked_of = steer::place(&prepared.listing);
    let politeness = async {
        match &prepared.usual {
            Some(usual) => steer::be_polite(&prepared.connection, asked_of.as_ref(), usual.clone(), &shared).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(politeness);
    let mut first: Option<Halt> = None;
    loop {
        let ended = tokio::select! {
            ended = workers.join_next() => match ended {
                Some(ended) => ended.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, "a reading task died").cause(e).into())),
                None if first.is_none() && shared.goes_on_with_temporary() => {
                    begin(&mut workers);
                    continue;
                }
                None => break,
            },
            lost = moment.failed(), if first.is_none() => Err(lost.into()),
            () = steering.go_on() => continue,
            () = &mut politeness => continue,
        };
        if let Err(why) = ended {
            // The first one counts; the others end because of it.
            halt.cancel();
            first.get_or_insert(why);
        }
    }
    if cx.cancel.is_cancelled() {
        return Err(Error::interrupted());
    }
    match first {
        Some(Halt::Failed(error)) => Err(error),
        Some(Halt::Again(why)) => Ok(Outcome::Again(why)),
        None => Ok(Outcome::Read(gather(&shared, place).await?)),
    }
}

impl Shared {
    /// When all else is read: whether temporary collections are read, too. They count only where a slice of the oplog gives them a lasting name;
    /// of what is read at one moment they are no part. Capped collections may come to need the slice when all is read.
    fn goes_on_with_temporary(&self) -> bool {
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

    /// One who writes has waited so long for something to write.
    pub(super) fn starved_for(&self, waited: Duration) {
        self.starved.fetch_add(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long all of them have.
    pub(super) fn starved(&self) -> Duration {
        Duration::from_nanos(self.starved.load(Ordering::Relaxed))
    }
}

/// Removes what an attempt stored, before the next one.
pub(super) async fn clear(place: &Objects) -> Result<()> {
    checkpoint::remove(place).await?;
    for entry in place.list().await? {
        if entry.key != key::PROGRESS {
            place.delete(&entry.key).await?;
        }
    }
    Ok(())
}

/// What the keys of each collection's objects begin with.
pub(super) fn stems(prepared: &Prepared) -> Vec<String> {
    let mut stems = Stems::default();
    prepared.listing.collections.iter().map(|found| stems.assign(&found.namespace)).collect()
}

fn share_out(
    prepared: &Prepared,
    stems: &[String],
    resumed: Option<&Checkpoint>,
    moment: Arc<ConsistencyPoint>,
    run: &Run<'_>,
) -> Shared {
    let (place, state, cx) = (run.place, run.state, run.cx);
    let mut units: Vec<Unit> = Vec::new();
    let mut collections: Vec<Reading> = Vec::new();
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let sizes = Sizes { segment: bytes(prepared.settings.segment_bytes), frame: bytes(prepared.settings.frame_bytes) };
    let mut all = 0;
    for (index, (found, stem)) in prepared.listing.collections.iter().zip(stems).enumerate() {
        let (size, ranges) = prepared.survey.of(found);
        let about = size.unwrap_or_default();
        let item = cx.progress.item(found.namespace.to_string(), about.documents, about.bytes);
        let writer = CollectionWriter::new(
            place.clone(),
            stem.clone(),
            prepared.compressors.clone(),
            sizes,
            prepared.cpu.clone(),
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
    // The largest first, so that none is left to run alone at the end.
    units.sort_by_key(|unit| std::cmp::Reverse(unit.bytes));
    state.begin(moment.time.map(Into::into), all as u64, (all - units.len()) as u64);
    let (temporary, units): (Vec<_>, Vec<_>) =
        units.into_iter().partition(|unit| collections[unit.collection].found.is_temporary());
    Shared {
        connection: prepared.connection.clone(),
        moment,
        budget: MemoryBudget::new(prepared.batch_bytes()),
        filter: prepared.selection.documents.filter(),
        pace: prepared.pace.clone(),
        reply_bytes: prepared.settings.frame_bytes.min(frame::TARGET as u64),
        allowed: watch::Sender::new(prepared.settings.readers),
        starved: AtomicU64::new(0),
        state: state.clone(),
        durable: run.durable.clone(),
        collections,
        queue: Mutex::new(units.into()),
        temporary: Mutex::new(temporary),
    }
}

/// Takes one range after the other until none is left.
async fn work(number: usize, shared: Arc<Shared>, halt: CancellationToken) -> Result<(), Halt> {
    let mut allowed = shared.allowed.subscribe();
    loop {
        tokio::select! {
            () = halt.cancelled() => return Err(Error::interrupted().into()),
            _always_there = allowed.wait_for(|readers| number < *readers) => {}
        }
        let unit = lock(&shared.queue).pop_front();
        let Some(unit) = unit else {
            // Whoever waits finds that there is nothing left.
            shared.allowed.send_replace(usize::MAX);
            return Ok(());
        };
        let reading = &shared.collections[unit.collection];
        if lock(&reading.gone).is_none() {
            let mut writer = reading.writer.range();
            let read = match read_range(&shared, reading, &unit, &mut writer, &halt).await {
                Ok(end) => writer.finish().await.map(|segments| (segments, end)).map_err(Halt::from),
                Err(why) => Err(why),
            };
            match read {
                Ok((segments, end)) => {
                    shared.durable.range(RangeDone {
                        collection: unit.collection,
                        range: unit.number,
                        segments: segments.iter().map(|(_, segment)| segment.clone()).collect(),
                        end: end.map(Into::into),
                        gone: lock(&reading.gone).clone(),
                    });
                    let mut done = lock(&reading.done);
                    done.segments.extend(segments);
                    done.end = done.end.max(end);
                }
                Err(why) => {
                    writer.abandon().await;
                    return Err(why);
                }
            }
        }
        shared.state.range_done();
        if reading.ranges_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            reading.item.finish();
        }
    }
}

/// Puts the results of all ranges in order.
async fn gather(shared: &Shared, place: &Objects) -> Result<Read> {
    let mut collections = Vec::with_capacity(shared.collections.len());
    for reading in &shared.collections {
        let Done { mut segments, end } = std::mem::take(&mut *lock(&reading.done));
        let gone = lock(&reading.gone).clone();
        if gone.is_some() {
            for (_, segment) in segments.drain(..) {
                place.delete(&segment.object.key).await?;
            }
        }
        segments.sort_by_key(|(number, _)| *number);
        let segments: Vec<Segment> = segments.into_iter().map(|(_, segment)| segment).collect();
        let mut content = Content::default();
        for segment in &segments {
            content.merge(&segment.content());
        }
        collections.push(ReadCollection { stem: reading.stem.clone(), segments, content, gone, end });
    }
    Ok(Read { collections })
}

/// What is shared, whoever panicked with it: the backup fails then.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
