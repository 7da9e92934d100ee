//! Reads the ranges of a first copy, several at a time, into their staging. A range counts once it is
//! durable in the target.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bson::{Timestamp, rawdoc};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::direct::Direct;
use crate::context::memory::MemoryBudget;
use crate::context::progress::Item;
use crate::context::{Context, lock};
use crate::engine::backup::throttle;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Content;
use crate::format::document::{self, Elements};
use crate::format::frame;
use crate::format::manifest::Collection;
use crate::mongo::Connection;
use crate::names::{Namespace, SYNC_DATABASE};
use crate::pipeline::pace::RateLimiter;
use crate::pipeline::write::Documents as _;
use crate::sink::first_copy::{CopiedCollection, CopiedRange, FirstCopy};
use crate::sink::insert::Inserter;
use crate::sink::{CollectionSpec, Target};
use crate::source::discover::{CollectionInfo, CollectionState, Size, whereabouts};
use crate::source::optime;
use crate::source::ranges::Range;
use crate::source::scan::{Batch, Event, Failure, Scan};

/// How often the documents of a reply are in memory while they are inserted: the reply, the frame,
/// the command, and the driver's copies of it.
const COPIES: u64 = 5;
/// How often a range is read again because its collection moved.
const MOVES: u32 = 20;

/// Reads what is not there yet.
pub(super) struct Reader<'a> {
    direct: &'a Direct<'a>,
    shared: Arc<Shared>,
}

/// What the readers share.
struct Shared {
    source: Connection,
    target: Target,
    cx: Context,
    budget: MemoryBudget,
    pace: RateLimiter,
    not_before: Timestamp,
    collections: Vec<Filling>,
    queue: Mutex<VecDeque<Unit>>,
    halt: CancellationToken,
}

/// A collection that is filled.
struct Filling {
    uuid: Uuid,
    found: CollectionInfo,
    size: Option<Size>,
    /// The namespace that holds its documents in the source, as last found.
    data: Mutex<Namespace>,
    inserter: Inserter,
    item: Item,
    left: AtomicUsize,
}

/// A range that one cursor reads.
struct Unit {
    collection: usize,
    number: usize,
    range: Range,
}

/// What was read of a range.
struct Taken {
    content: Content,
    end: Option<Timestamp>,
    last: Option<(u8, Vec<u8>)>,
}

impl<'a> Reader<'a> {
    /// Prepares to read what a copy still lacks.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if a range that was recorded is none.
    pub(super) fn new(direct: &'a Direct<'a>, copy: &FirstCopy) -> Result<Self> {
        let session = direct.copier.session;
        let cx = session.cx;
        let done: HashSet<(Uuid, usize)> = copy.ranges.iter().map(|range| (range.of, range.number)).collect();
        let (mut collections, mut units) = (Vec::new(), Vec::new());
        for one in &copy.collections {
            let (Some(uuid), Some((place, staged))) = (one.source.uuid, &one.staged) else { continue };
            let to = session.options.name(&one.source.namespace())?;
            let mut spec = CollectionSpec::of(&one.source, to, session.version)?;
            (spec.place, spec.uuid) = (place.clone(), Some(*staged));
            let mut left = Vec::new();
            for (number, part) in one.ranges.iter().enumerate().filter(|(number, _)| !done.contains(&(uuid, *number))) {
                let range = Range::of(part).ok_or_else(|| Error::damaged("a part of the first copy is none"))?;
                left.push(Unit { collection: collections.len(), number, range });
            }
            if !left.is_empty() {
                collections.push(Filling::new(uuid, one, spec, &session.target, left.len(), cx));
                units.extend(left);
            }
        }
        let shared = Shared {
            source: direct.source.clone(),
            target: session.target.clone(),
            cx: cx.clone(),
            budget: cx.memory.part(session.options.tuning.counted_bytes()),
            pace: RateLimiter::limited(session.options.tuning.max_bits),
            not_before: Direct::not_before(copy),
            collections,
            queue: Mutex::new(units.into()),
            halt: cx.cancel.child_token(),
        };
        Ok(Self { direct, shared: Arc::new(shared) })
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
        let tuning = &self.direct.copier.session.options.tuning;
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
            readers.spawn(work(shared.clone(), sender.clone()));
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
        if self.direct.copier.session.cx.cancel.is_cancelled() {
            return Err(Error::interrupted());
        }
        // If nothing can be recorded, that is why nothing was read.
        recorded.and(read)
    }
}

impl Filling {
    fn new(uuid: Uuid, one: &CopiedCollection, spec: CollectionSpec, target: &Target, left: usize, cx: &Context) -> Self {
        let found = found(&one.source);
        Self {
            uuid,
            data: Mutex::new(found.data()),
            item: cx.progress.item(one.source.namespace().to_string(), 0, 0),
            found,
            size: None,
            inserter: Inserter::new(target.clone(), Arc::new(spec)),
            left: AtomicUsize::new(left),
        }
    }
}

/// A recorded collection as it was found.
fn found(collection: &Collection) -> CollectionInfo {
    CollectionInfo {
        namespace: collection.namespace(),
        kind: collection.kind,
        uuid: collection.uuid,
        options: collection.options.bson.clone(),
        indexes: collection.indexes.iter().map(|index| index.bson.clone()).collect(),
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
async fn work(shared: Arc<Shared>, read: mpsc::UnboundedSender<CopiedRange>) -> Result<()> {
    loop {
        let unit = lock(&shared.queue).pop_front();
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

impl Shared {
    /// Copies a range, even if its collection moves meanwhile.
    async fn copy(&self, filling: &Filling, range: &Range) -> Result<Taken> {
        let mut moves = 0;
        loop {
            // An attempt before, or a process before, may have left some of it.
            self.empty(filling, range).await?;
            let data = lock(&filling.data).clone();
            let scan = Scan {
                connection: self.source.clone(),
                collection: filling.found.clone(),
                data: data.clone(),
                size: filling.size,
                range: range.in_order(&filling.found, self.source.topology),
                filter: None,
                only_ids: false,
                snapshot: None,
                not_before: Some(self.not_before),
                reply_bytes: self.pace.reply_bytes(frame::TARGET as u64),
                pace: self.pace.clone(),
            };
            let failure = match self.transfer(scan, filling, range).await? {
                Ok(taken) => return Ok(taken),
                Err(failure) => failure,
            };
            match failure {
                Failure::Moved(cause) => {
                    moves += 1;
                    if moves > MOVES {
                        return Err(cause);
                    }
                    let looking = whereabouts(&self.source, &filling.found, &data);
                    let found = self.halt.run_until_cancelled(looking).await.ok_or_else(Error::interrupted)??;
                    match found {
                        // The oplog says what became of it.
                        CollectionState::Dropped | CollectionState::Replaced => {
                            self.empty(filling, range).await?;
                            let end = optime::now(&self.source).await?;
                            return Ok(Taken { content: Content::default(), end: Some(end), last: None });
                        }
                        CollectionState::Renamed(now) => *lock(&filling.data) = now,
                        CollectionState::Unmoved => {}
                    }
                }
                Failure::Stopped => return Err(Error::interrupted()),
                Failure::TooOld(error) | Failure::Other(error) => return Err(error),
            }
        }
    }

    /// Deletes what is staged of a range.
    async fn empty(&self, filling: &Filling, range: &Range) -> Result<()> {
        let spec = &filling.inserter.spec();
        // It was just created: it cannot be read from anywhere but its start.
        if spec.capped {
            return Ok(());
        }
        let delete = rawdoc! {
            "delete": spec.data_collection(),
            "deletes": [{ "q": range.filter()?, "limit": 0 }],
        };
        let what = format!("emptying a part of the staging of {}", spec.namespace);
        self.target.run_long(&what, &spec.place.database, delete).await
    }

    /// Lets a scan run one batch ahead of the inserts. The outer error is theirs.
    async fn transfer(&self, scan: Scan, filling: &Filling, range: &Range) -> Result<Result<Taken, Failure>> {
        let (to, mut from) = mpsc::channel(1);
        let end = self.halt.child_token();
        let scanning = {
            let end = end.clone();
            async move { scan.run(&self.budget, &to, &end).await }
        };
        let inserting = async {
            let (mut taken, mut failed) = (Taken { content: Content::default(), end: None, last: None }, None);
            while let Some(event) = from.recv().await {
                let done = match event {
                    Event::Batch(batch, mut share) => {
                        let bytes = batch.array().map_or(0, |array| array.len() as u64);
                        share.resize(COPIES * bytes);
                        self.insert(filling, batch, &mut taken).await
                    }
                    Event::Restart if filling.found.is_capped() => Err(Error::new(
                        ErrorKind::Unreachable,
                        format!("reading {} was interrupted, and it can be copied from its start only", filling.found.namespace),
                    )),
                    Event::Restart => {
                        filling.item.take_back(taken.content.documents, taken.content.bytes);
                        (taken.content, taken.last) = (Content::default(), None);
                        self.empty(filling, range).await
                    }
                };
                if let Err(e) = done {
                    end.cancel();
                    failed = Some(e);
                    break;
                }
            }
            from.close();
            match failed {
                Some(failed) => Err(failed),
                None => Ok(taken),
            }
        };
        let (scanned, taken) = tokio::join!(scanning, inserting);
        let taken = taken?;
        Ok(match scanned {
            Ok(end) => Ok(Taken { end, ..taken }),
            Err(failure) => {
                filling.item.take_back(taken.content.documents, taken.content.bytes);
                Err(failure)
            }
        })
    }

    /// Inserts the documents of a reply.
    async fn insert(&self, filling: &Filling, batch: Batch, taken: &mut Taken) -> Result<()> {
        let (documents, mut content, last) = self.cx.cpu.run(move || gather(&batch)).await?;
        if documents.is_empty() {
            return Ok(());
        }
        let arranged = filling.inserter.arrange(documents).await?;
        content = arranged.changes.applied_to(&content);
        filling.inserter.insert(arranged.frame, &filling.item).await?;
        taken.content.merge(&content);
        taken.last = last.or(taken.last.take());
        Ok(())
    }
}

/// The documents of a reply, one after the other; what they are; and the `_id` of the last one.
type Gathered = (Vec<u8>, Content, Option<(u8, Vec<u8>)>);

fn gather(batch: &Batch) -> Result<Gathered> {
    let array = batch.array()?;
    let (mut documents, mut content, mut last) = (Vec::with_capacity(array.len()), Content::default(), None);
    for (place, element) in Elements::of(array)?.enumerate() {
        let element = element?;
        if batch.counts(place) {
            documents.extend_from_slice(element.value);
            content.add(element.value);
            last = Some(element.value);
        }
    }
    let last = last.map(document::id).transpose()?.flatten().map(|(kind, value)| (kind, value.to_vec()));
    Ok((documents, content, last))
}
