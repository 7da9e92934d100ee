//! Reading and storing every range of a backup, several at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bson::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::plan::Prepared;
use super::pulse::State;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Content;
use crate::format::frame::Compressors;
use crate::format::key::{self, Stems};
use crate::format::manifest::{Consistency, ConsistencyException, ConsistencyKind, Segment};
use crate::pipeline::budget::Budget;
use crate::pipeline::cpu::Cpu;
use crate::pipeline::progress::{Item, Progress};
use crate::pipeline::write::{CollectionWriter, RangeWriter};
use crate::source::discover::{Found, Size, Whereabouts, whereabouts};
use crate::source::oplog;
use crate::source::ranges::Range;
use crate::source::scan::{Event, Failure, Scan};
use crate::store::Store;

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
    /// Some ranges had to be read without the snapshot.
    pub(super) without_snapshot: bool,
}

/// What was read of one collection.
pub(super) struct ReadCollection {
    pub(super) stem: String,
    pub(super) segments: Vec<Segment>,
    pub(super) content: Content,
    /// It was dropped before all of it was read.
    pub(super) dropped: bool,
    /// The operation time of the last reply.
    end: Option<Timestamp>,
}

/// Why a worker stops.
enum Halt {
    Again(String),
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// One range, to be read by one cursor.
struct Unit {
    collection: usize,
    range: Range,
    bytes: u64,
}

/// A collection while it is read.
struct Reading {
    found: Found,
    size: Option<Size>,
    stem: String,
    item: Item,
    writer: Arc<CollectionWriter>,
    ranges_left: AtomicU64,
    dropped: AtomicBool,
    done: Mutex<Done>,
}

/// What has been stored of a collection: its segments with their numbers, and the operation time of the last reply.
#[derive(Default)]
struct Done {
    segments: Vec<(usize, Segment)>,
    end: Option<Timestamp>,
}

/// What all workers share.
struct Shared {
    connection: crate::mongo::Connection,
    snapshot: Option<Timestamp>,
    allow_inconsistent: bool,
    without_snapshot: AtomicBool,
    state: Arc<State>,
    collections: Vec<Reading>,
    queue: Mutex<VecDeque<Unit>>,
    budget: Budget,
}

/// Reads everything that was prepared into `place`.
pub(super) async fn read(
    prepared: &Prepared,
    place: &Store,
    state: &Arc<State>,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Outcome> {
    progress.begin("reading");
    let shared = Arc::new(share_out(prepared, place, state.clone(), progress));

    let halt = stop.child_token();
    let mut workers = JoinSet::new();
    for _ in 0..prepared.settings.readers {
        workers.spawn(work(shared.clone(), halt.clone()));
    }
    let mut first: Option<Halt> = None;
    while let Some(ended) = workers.join_next().await {
        let ended = ended.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, "a reading task died").cause(e).into()));
        if let Err(why) = ended {
            // The first one counts; the others end because of it.
            halt.cancel();
            first.get_or_insert(why);
        }
    }
    if stop.is_cancelled() {
        return Err(Error::interrupted());
    }
    match first {
        Some(Halt::Failed(error)) => Err(error),
        Some(Halt::Again(why)) => Ok(Outcome::Again(why)),
        None => Ok(Outcome::Read(gather(&shared, place).await?)),
    }
}

/// Removes what an attempt stored, before the next one.
pub(super) async fn clear(place: &Store) -> Result<()> {
    for entry in place.list().await? {
        if entry.key != key::PROGRESS {
            place.delete(&entry.key).await?;
        }
    }
    Ok(())
}

fn share_out(prepared: &Prepared, place: &Store, state: Arc<State>, progress: &Progress) -> Shared {
    let cpu = Cpu::of_this_machine();
    let compressors = Arc::new(Compressors::new(prepared.settings.level));
    let mut stems = Stems::default();
    let mut units = Vec::new();
    let mut collections = Vec::new();
    let segment_bytes = usize::try_from(prepared.settings.segment_bytes).unwrap_or(usize::MAX);
    for (index, found) in prepared.listing.collections.iter().enumerate() {
        let (size, ranges) = prepared.survey.of(found);
        let about = size.unwrap_or_default();
        let item = progress.item(found.namespace.to_string(), about.documents, about.bytes);
        if ranges.is_empty() {
            item.finish();
        }
        let stem = stems.assign(&found.namespace);
        collections.push(Reading {
            found: found.clone(),
            size,
            writer: CollectionWriter::new(
                place.clone(),
                stem.clone(),
                compressors.clone(),
                segment_bytes,
                cpu.clone(),
                item.clone(),
            ),
            stem,
            item,
            ranges_left: AtomicU64::new(ranges.len() as u64),
            dropped: AtomicBool::new(false),
            done: Mutex::default(),
        });
        let each = about.bytes / (ranges.len() as u64).max(1);
        units.extend(ranges.into_iter().map(|range| Unit { collection: index, range, bytes: each }));
    }
    // The largest first, so that none is left to run alone at the end.
    units.sort_by_key(|unit| std::cmp::Reverse(unit.bytes));
    state.begin(prepared.snapshot().map(Into::into), units.len() as u64);
    Shared {
        connection: prepared.connection.clone(),
        snapshot: prepared.snapshot(),
        allow_inconsistent: prepared.allow_inconsistent,
        without_snapshot: AtomicBool::new(false),
        state,
        collections,
        queue: Mutex::new(units.into()),
        budget: Budget::new(prepared.batch_bytes()),
    }
}

/// Takes one range after the other until none is left.
async fn work(shared: Arc<Shared>, halt: CancellationToken) -> Result<(), Halt> {
    loop {
        let unit = lock(&shared.queue).pop_front();
        let Some(unit) = unit else { return Ok(()) };
        let reading = &shared.collections[unit.collection];
        if !reading.dropped.load(Ordering::Relaxed) {
            let mut writer = reading.writer.range();
            let read = match read_range(&shared, reading, &unit, &mut writer, &halt).await {
                Ok(end) => writer.finish().await.map(|segments| (segments, end)).map_err(Halt::from),
                Err(why) => Err(why),
            };
            match read {
                Ok((segments, end)) => {
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

/// Reads one range to its end, whatever becomes of its snapshot or its collection.
async fn read_range(
    shared: &Shared,
    reading: &Reading,
    unit: &Unit,
    writer: &mut RangeWriter,
    halt: &CancellationToken,
) -> Result<Option<Timestamp>, Halt> {
    loop {
        let with_snapshot = !reading.found.is_capped() && !shared.without_snapshot.load(Ordering::Relaxed);
        let scan = Scan {
            connection: shared.connection.clone(),
            collection: reading.found.clone(),
            size: reading.size,
            range: unit.range.clone(),
            snapshot: shared.snapshot.filter(|_| with_snapshot),
            not_before: shared.snapshot,
        };
        let failure = match transfer(scan, writer, &shared.budget, halt).await? {
            Ok(end) => return Ok(end),
            Err(failure) => failure,
        };
        match failure {
            Failure::TooOld(_) if shared.allow_inconsistent && with_snapshot => {
                shared.without_snapshot.store(true, Ordering::Relaxed);
                writer.restart().await?;
            }
            Failure::TooOld(cause) => return Err(too_old(cause, shared).await.into()),
            Failure::Moved(cause) => {
                writer.restart().await?;
                let namespace = &reading.found.namespace;
                let found = super::unless_stopped(halt, whereabouts(&shared.connection, &reading.found)).await?;
                match found {
                    Whereabouts::Dropped => {
                        reading.dropped.store(true, Ordering::Relaxed);
                        return Ok(None);
                    }
                    // Neither the one that is gone nor the one that came after the listing would be in the backup.
                    Whereabouts::Replaced => return Err(Halt::Again(format!("{namespace} was replaced while the backup ran"))),
                    Whereabouts::Renamed(now) => {
                        return Err(Halt::Again(format!("{namespace} was renamed to {now} while the backup ran")));
                    }
                    Whereabouts::Unmoved => {
                        tracing::info!("{namespace} changed its catalog entry: {cause}");
                        return Err(Halt::Again(format!(
                            "{namespace} was altered (its options or indexes) while the backup ran"
                        )));
                    }
                }
            }
            Failure::Stopped => return Err(Error::interrupted().into()),
            Failure::Other(error) => return Err(error.into()),
        }
    }
}

/// Lets a scan run ahead of the writer by one batch. The outer error is the writer's.
async fn transfer(
    scan: Scan,
    writer: &mut RangeWriter,
    budget: &Budget,
    halt: &CancellationToken,
) -> Result<Result<Option<Timestamp>, Failure>> {
    let (to, mut from) = mpsc::channel(1);
    let end = halt.child_token();
    let scanning = tokio::spawn({
        let (budget, end) = (budget.clone(), end.clone());
        async move { scan.run(&budget, &to, &end).await }
    });
    let mut written = Ok(());
    while let Some(event) = from.recv().await {
        written = match event {
            Event::Batch(batch, share) => {
                let written = writer.write(batch).await;
                drop(share);
                written
            }
            Event::Restart => writer.restart().await,
        };
        if written.is_err() {
            end.cancel();
            break;
        }
    }
    drop(from);
    let scanned = scanning.await.map_err(|e| Error::new(ErrorKind::Internal, "a reading task died").cause(e))?;
    written.map(|()| scanned)
}

/// Error 239 in words, with what the source keeps.
async fn too_old(cause: Error, shared: &Shared) -> Error {
    let time = shared.snapshot.map(crate::format::manifest::ClusterTime::from);
    let kept = match crate::source::discover::history_seconds(&shared.connection).await {
        Some(seconds) => format!("it keeps {seconds} seconds (minSnapshotHistoryWindowInSeconds)"),
        None => "it keeps minSnapshotHistoryWindowInSeconds, 300 by default".to_owned(),
    };
    let time = time.map(|t| t.to_string()).unwrap_or_default();
    Error::new(
        ErrorKind::SnapshotLost,
        format!("the source no longer has the history of the snapshot time {time} (error 239, SnapshotTooOld): {kept}, and reading took longer"),
    )
    .hint(
        "raise it on the source, db.adminCommand({setParameter: 1, minSnapshotHistoryWindowInSeconds: 3600}); or read faster (nearer to the \
         source, more --readers, fewer namespaces at a time); or pass --allow-inconsistent for a backup whose parts are of different moments",
    )
    .cause(cause)
}

/// Puts the results of all ranges in order.
async fn gather(shared: &Shared, place: &Store) -> Result<Read> {
    let mut collections = Vec::with_capacity(shared.collections.len());
    for reading in &shared.collections {
        let Done { mut segments, end } = std::mem::take(&mut *lock(&reading.done));
        let dropped = reading.dropped.load(Ordering::Relaxed);
        if dropped {
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
        collections.push(ReadCollection { stem: reading.stem.clone(), segments, content, dropped, end });
    }
    Ok(Read { collections, without_snapshot: shared.without_snapshot.load(Ordering::Relaxed) })
}

impl Read {
    /// What moment was read. Capped collections cannot be read at a snapshot time; they belong to it where the oplog shows
    /// no write to them between it and the end of their read.
    pub(super) async fn consistency(&self, prepared: &Prepared) -> Result<Consistency> {
        let Some(snapshot) = prepared.snapshot().filter(|_| !self.without_snapshot) else {
            // With nothing to read there may be no time, and there is nothing that could disagree.
            let kind = if self.without_snapshot { ConsistencyKind::None } else { prepared.kind };
            return Ok(Consistency { kind, cluster_time: None, exceptions: Vec::new() });
        };
        let mut exceptions = Vec::new();
        for (found, read) in prepared.listing.collections.iter().zip(&self.collections) {
            let (Some(uuid), true, false) = (found.uuid, found.is_capped(), read.dropped) else { continue };
            let reason = match oplog::touches(&prepared.connection, uuid, snapshot, read.end.unwrap_or(snapshot)).await {
                Ok(false) => continue,
                Ok(true) => "capped, and written to while the backup ran".to_owned(),
                Err(e) if e.kind() == ErrorKind::Denied => {
                    "capped, and without a right to the oplog it cannot be proven that it was not written to while the backup ran"
                        .to_owned()
                }
                Err(e) => format!("capped, and it cannot be proven that it was not written to while the backup ran: {e}"),
            };
            let (database, collection) = (found.namespace.database.clone(), found.namespace.collection.clone());
            exceptions.push(ConsistencyException { database, collection, reason });
        }
        Ok(Consistency { kind: ConsistencyKind::Snapshot, cluster_time: Some(snapshot.into()), exceptions })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
