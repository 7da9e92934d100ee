//! Copies one range of the source into its staging.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use bson::{Timestamp, rawdoc};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::context::memory::MemoryBudget;
use crate::context::progress::Item;
use crate::context::{Context, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Content;
use crate::format::document::{self, Elements};
use crate::format::frame;
use crate::format::manifest::Collection;
use crate::mongo::Connection;
use crate::names::Namespace;
use crate::pipeline::pace::RateLimiter;
use crate::pipeline::write::Documents as _;
use crate::sink::first_copy::CopiedCollection;
use crate::sink::insert::Inserter;
use crate::sink::{CollectionSpec, Target};
use crate::source::discover::{CollectionInfo, CollectionState, Size, whereabouts};
use crate::source::optime;
use crate::source::ranges::Range;
use crate::source::scan::{Batch, Event, Failure, Scan};

/// How often the documents of a reply are in memory beside it while they are inserted: the frame,
/// the command, and the driver's copies of it.
const COPIES: u64 = 4;
/// How often a range is read again because its collection moved.
const MOVES: u32 = 20;

/// What the readers share.
pub(super) struct Shared {
    pub(super) source: Connection,
    pub(super) target: Target,
    pub(super) cx: Context,
    /// For replies.
    pub(super) budget: MemoryBudget,
    /// For what is inserted of them. It is apart: whoever holds a reply waits for this only.
    pub(super) inserts: MemoryBudget,
    pub(super) pace: RateLimiter,
    pub(super) not_before: Timestamp,
    pub(super) collections: Vec<Filling>,
    pub(super) halt: CancellationToken,
}

/// A collection that is filled.
pub(super) struct Filling {
    pub(super) uuid: Uuid,
    pub(super) found: CollectionInfo,
    pub(super) size: Option<Size>,
    /// The namespace that holds its documents in the source, as last found.
    pub(super) data: Mutex<Namespace>,
    pub(super) inserter: Inserter,
    pub(super) item: Item,
    pub(super) left: AtomicUsize,
}

/// What was read of a range.
pub(super) struct Taken {
    pub(super) content: Content,
    pub(super) end: Option<Timestamp>,
    pub(super) last: Option<(u8, Vec<u8>)>,
}

impl Filling {
    pub(super) fn new(
        uuid: Uuid,
        one: &CopiedCollection,
        spec: CollectionSpec,
        target: &Target,
        left: usize,
        cx: &Context,
    ) -> Self {
        let (found, size) = (found(&one.source), Size { documents: one.source.documents, bytes: one.source.bytes });
        Self {
            uuid,
            data: Mutex::new(found.data()),
            item: cx.progress.item(one.source.namespace().to_string(), size.documents, size.bytes),
            found,
            size: (size.documents > 0).then_some(size),
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

impl Shared {
    /// Copies a range, even if its collection moves meanwhile.
    ///
    /// # Errors
    /// Those of both sides; [`ErrorKind::Interrupted`].
    pub(super) async fn copy(&self, filling: &Filling, range: &Range) -> Result<Taken> {
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
                    Event::Batch(batch, _share) => {
                        let bytes = batch.array().map_or(0, |array| array.len() as u64);
                        let _copies = self.inserts.take(COPIES * bytes).await;
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
