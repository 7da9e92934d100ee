//! Loads segments into collections: each of several writers takes the largest segment next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::capped_overwrite::FirstDocuments;
use super::load::{Brought, Came, Loaded, Loader, announce};
use super::turns::Turns;
use crate::context::cpu::CpuPool;
use crate::context::lock;
use crate::context::memory::MemoryBudget;
use crate::context::progress::Item;
use crate::error::{Error, ErrorKind, Result};
use crate::format::frame;
use crate::format::manifest::Segment;
use crate::pipeline::read::SegmentReader;
use crate::pipeline::steer::{ConcurrencyController, Watched};
use crate::repository::backend::Objects;
use crate::repository::catalog::Backup;
use crate::sink::Target;
use crate::sink::insert::{Arranged, Inserter, Repeats};

/// How often the documents of a frame are in memory while they are inserted: the frame, the
/// command, and the driver's copies of it.
const COPIES: u64 = 4;

/// How many frames of a collection are under way at a time if its documents come in order because
/// an `_id` may repeat.
const IN_TURN: usize = 4;

/// What one writer does without a break: one segment, or a whole collection whose order counts.
struct Job {
    collection: Arc<Loading>,
    inserter: Inserter,
    item: Item,
    segments: Vec<Segment>,
    /// How many of its frames are under way at a time.
    at_a_time: usize,
}

impl Job {
    fn stored_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.object.bytes).sum()
    }
}

/// A collection that is being filled.
struct Loading {
    /// What it must hold unless documents are skipped.
    whole: Loaded,
    /// Its unfinished jobs.
    left: AtomicUsize,
    came: Mutex<Came>,
    /// Present if it is capped and comes from mongodump.
    first_documents: Option<Mutex<FirstDocuments>>,
}

/// What the writers share.
struct Shared {
    store: Objects,
    target: Target,
    cpu: CpuPool,
    budget: MemoryBudget,
    queue: Mutex<VecDeque<Job>>,
    /// How many write now: those with a number below this.
    allowed: watch::Sender<usize>,
    filled: UnboundedSender<Loaded>,
}

/// Fills every collection. Returns once the target has accepted every document. Sends each
/// collection to `filled` once it is full.
///
/// # Errors
/// The first that any writer met; the others are stopped.
pub(super) async fn load(backup: &Backup, loader: &Loader<'_>, filled: UnboundedSender<Loaded>) -> Result<Brought> {
    let Loader { selected, specs, target, writers, budget, cx, .. } = loader;
    let (mut jobs, mut items, mut collections) = (Vec::new(), Vec::new(), Vec::new());
    for (number, (selected, spec)) in selected.iter().zip(*specs).enumerate() {
        if !spec.holds_documents() {
            continue;
        }
        let item = loader.item(spec, "");
        items.push(item.clone());
        let inserter = loader.inserter(spec);
        let segments = &selected.collection.segments;
        // In order if the order counts or an `_id` may repeat.
        let in_turn = loader.repeats == Repeats::PassOver && !spec.keeps_order();
        let together = if spec.keeps_order() || in_turn { segments.len().max(1) } else { 1 };
        let collection = Arc::new(Loading {
            whole: Loaded { number, content: spec.content, ..Loaded::default() },
            left: AtomicUsize::new(segments.chunks(together).len()),
            came: Mutex::default(),
            first_documents: (spec.capped && backup.manifest.source.is_dump()).then(Mutex::default),
        });
        if segments.is_empty() {
            announce(&filled, collection.whole.clone());
        }
        collections.push(collection.clone());
        jobs.extend(segments.chunks(together).map(|segments| Job {
            collection: collection.clone(),
            inserter: inserter.clone(),
            item: item.clone(),
            segments: segments.to_vec(),
            at_a_time: if in_turn { writers.now.clamp(1, IN_TURN) } else { 1 },
        }));
    }
    jobs.sort_by_key(|job| std::cmp::Reverse(job.stored_bytes()));
    let shared = Arc::new(Shared {
        store: backup.store.clone(),
        target: (*target).clone(),
        cpu: cx.cpu.clone(),
        budget: budget.clone(),
        queue: Mutex::new(jobs.into()),
        allowed: watch::Sender::new(writers.now),
        filled,
    });
    // If a writer's error drops the set, the others stop.
    let mut running = JoinSet::new();
    for number in 0..writers.most {
        running.spawn(work(number, shared.clone()));
    }
    let mut crew = ConcurrencyController::new(writers.now, writers.most);
    let mut watched = Watched::new(cx.cpu.clone(), cx.progress.clone());
    loop {
        tokio::select! {
            ended = running.join_next() => match ended {
                Some(ended) => ended.map_err(|e| Error::new(ErrorKind::Internal, "a writer died").cause(e))??,
                None => break,
            },
            sample = watched.next() => {
                let now = crew.take(&sample);
                // Once the queue is empty, nobody may wait any more.
                shared.allowed.send_if_modified(|allowed| *allowed != usize::MAX && std::mem::replace(allowed, now) != now);
                tracing::debug!(writers = now, ?sample, "steered");
            }
        }
    }
    items.iter().for_each(Item::finish);
    let passed_over = collections.iter().map(|collection| lock(&collection.came).passed_over.documents).sum();
    Ok(Brought { passed_over, ..Brought::default() })
}

async fn work(number: usize, shared: Arc<Shared>) -> Result<()> {
    let mut allowed = shared.allowed.subscribe();
    loop {
        let told = async { allowed.wait_for(|writers| number < *writers).await.is_ok() };
        // The sender lives as long as this.
        let _told = shared.target.unless_stopped(told).await?;
        let next = lock(&shared.queue).pop_front();
        let Some(job) = next else {
            // Wake the waiting writers: they find the queue empty.
            shared.allowed.send_replace(usize::MAX);
            return Ok(());
        };
        for segment in &job.segments {
            insert_segment(&shared, &job, segment).await?;
        }
        let collection = &job.collection;
        if collection.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            job.item.finish();
            let came = *lock(&collection.came);
            let content = came.left_of(&collection.whole.content);
            let first_documents =
                collection.first_documents.as_ref().map(|first_documents| std::mem::take(&mut *lock(first_documents)));
            announce(
                &shared.filled,
                Loaded {
                    number: collection.whole.number,
                    content,
                    first_documents: first_documents.unwrap_or_default().into(),
                    came,
                },
            );
        }
    }
}

/// Inserts a segment's frames in order: each after those before it, or several at a time that share
/// no `_id`.
async fn insert_segment(shared: &Shared, job: &Job, segment: &Segment) -> Result<()> {
    // A frame with a large document is as large as that document.
    let frame_bytes = (segment.raw_bytes / segment.frames.max(1)).max(frame::TARGET as u64);
    let at_least = segment.object.bytes + COPIES * frame_bytes * job.at_a_time as u64;
    let mut share = shared.target.unless_stopped(shared.budget.take(at_least)).await?;
    let mut reader = shared.target.unless_stopped(SegmentReader::open_again(&shared.store, segment, &shared.cpu)).await??;
    let mut turns = Turns::default();
    let mut inserting = FuturesUnordered::new();
    let mut bytes = 0;
    while let Some(frame) = shared.target.unless_stopped(reader.next()).await?? {
        let arranged = job.inserter.arrange(frame).await?;
        while turns.must_wait(&arranged.ids) {
            settle(inserting.next().await, &mut turns, &mut bytes)?;
        }
        turns.begin(&arranged.ids);
        bytes += arranged.frame.len() as u64;
        share.resize(segment.object.bytes + COPIES * bytes);
        inserting.push(insert(job, arranged));
        while inserting.len() >= job.at_a_time {
            settle(inserting.next().await, &mut turns, &mut bytes)?;
        }
    }
    while let Some(inserted) = inserting.next().await {
        settle(Some(inserted), &mut turns, &mut bytes)?;
    }
    Ok(())
}

/// Inserts a frame. Returns its bytes and its `_id`s.
async fn insert(job: &Job, arranged: Arranged) -> Result<(u64, Vec<u64>)> {
    let Arranged { frame, changes, ids } = arranged;
    let bytes = frame.len() as u64;
    if let Some(first_documents) = &job.collection.first_documents {
        lock(first_documents).take(&frame)?;
    }
    let passed_over = job.inserter.insert(frame, &job.item).await?;
    lock(&job.collection.came).merge(&Came { changes, passed_over });
    Ok((bytes, ids))
}

fn settle(inserted: Option<Result<(u64, Vec<u64>)>>, turns: &mut Turns, bytes: &mut u64) -> Result<()> {
    let Some(inserted) = inserted else { return Ok(()) };
    let (arrived, ids) = inserted?;
    *bytes -= arrived;
    turns.end(&ids);
    Ok(())
}
