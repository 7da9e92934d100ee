//! One side of a pair while it is read, and how a range of it is read through a fold.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use bson::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::folds::Fold;
use super::side::Side;
use crate::context::cpu::CpuPool;
use crate::context::lock;
use crate::context::memory::MemoryBudget;
use crate::context::progress::{Item, Progress};
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Elements;
use crate::format::frame;
use crate::format::manifest::ConsistencyException;
use crate::oplog::window;
use crate::pipeline::write::Documents as _;
use crate::source::discover::{CollectionInfo, CollectionState, Size, whereabouts};
use crate::source::ranges::Range;
use crate::source::scan::{Batch, Event, Failure, Scan};

/// How often a range is read again because its collection was altered.
const MOVES: u32 = 20;

/// What reading needs beside the side.
#[derive(Debug, Clone)]
pub(super) struct Means {
    pub(super) budget: MemoryBudget,
    pub(super) cpu: CpuPool,
    pub(super) progress: Progress,
    /// Cancelled to stop reading.
    pub(super) halt: CancellationToken,
}

/// A collection of one side.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) info: CollectionInfo,
    pub(super) size: Option<Size>,
    /// How often its catalog entry was found to be newer than the time.
    moves: AtomicU32,
    /// The operation time of the last reply.
    end: Mutex<Option<Timestamp>>,
}

/// A way to read a range.
pub(super) struct Pass<'a> {
    pub(super) range: &'a Range,
    /// Only the `_id`s are read.
    pub(super) only_ids: bool,
    /// The documents of a capped collection are read by `_id`, not in their natural order.
    pub(super) by_id: bool,
    /// What counts the documents.
    pub(super) item: Option<&'a Item>,
}

impl<'a> Pass<'a> {
    /// Reads a part of a range once more, to search in it.
    pub(super) fn again(range: &'a Range) -> Self {
        Self { range, only_ids: false, by_id: *range != Range::Natural, item: None }
    }
}

impl Half {
    pub(super) fn new(info: CollectionInfo, size: Option<Size>) -> Self {
        Self { info, size, moves: AtomicU32::new(0), end: Mutex::new(None) }
    }

    /// Reads a range through a fold.
    ///
    /// # Errors
    /// Those of the side, in its words; [`ErrorKind::Server`] if the collection is gone;
    /// [`ErrorKind::Interrupted`].
    pub(super) async fn read<F: Fold>(&self, side: &Side, pass: Pass<'_>, mut fold: F, means: &Means) -> Result<F> {
        loop {
            let scan = self.scan(side, &pass);
            let snapshot = scan.snapshot;
            let (back, ended) = self.transfer(scan, fold, pass.item, means).await.map_err(|e| side.said(e))?;
            fold = back;
            match ended {
                Ok(end) => {
                    let mut last = lock(&self.end);
                    *last = end.max(*last);
                    return Ok(fold);
                }
                Err(Failure::TooOld(cause)) if snapshot.is_some() => {
                    let why = side.give_up_time(&cause).await;
                    means.progress.note(format!("the {} is read as it is from now on: {why}", side.name()));
                }
                Err(Failure::Moved(cause)) => self.look_again(side, cause, means).await.map_err(|e| side.said(e))?,
                Err(Failure::Stopped) => return Err(Error::interrupted()),
                Err(Failure::TooOld(error) | Failure::Other(error)) => return Err(side.said(error)),
            }
            fold.begin_again();
        }
    }

    /// Why it was not read at the side's time, if so. A capped collection cannot be, but was, if
    /// nothing was written to it meanwhile.
    pub(super) async fn exception(&self, side: &Side) -> Option<ConsistencyException> {
        let time = side.snapshot()?;
        let end = (*lock(&self.end))?;
        let reason = if self.moves.load(Ordering::Relaxed) > 0 {
            "altered while it was compared".to_owned()
        } else if !self.info.is_capped() {
            return None;
        } else {
            match window::touches(&side.connection, self.info.uuid?, time, end).await {
                Ok(false) => return None,
                Ok(true) => "capped, and written to while it was compared".to_owned(),
                Err(e) => format!("capped, and it cannot be proven that it was not written to meanwhile: {e}"),
            }
        };
        let (database, collection) = (self.info.namespace.database.clone(), self.info.namespace.collection.clone());
        Some(ConsistencyException { database, collection, reason })
    }

    fn scan(&self, side: &Side, pass: &Pass<'_>) -> Scan {
        let mut collection = self.info.clone();
        let snapshot = side.snapshot().filter(|_| !self.info.is_capped() && self.moves.load(Ordering::Relaxed) == 0);
        if pass.by_id && collection.is_capped() {
            // Only in natural order does a capped collection end at its newest document.
            collection.options = bson::RawDocumentBuf::new();
        }
        let range = match snapshot.is_none() || pass.by_id {
            true => pass.range.in_order(&collection, side.connection.topology),
            false => pass.range.clone(),
        };
        Scan {
            connection: side.connection.clone(),
            data: self.info.data(),
            size: self.size,
            range,
            filter: None,
            only_ids: pass.only_ids,
            snapshot,
            not_before: side.not_before(),
            reply_bytes: side.pace.reply_bytes(frame::TARGET as u64),
            pace: side.pace.clone(),
            collection,
        }
    }

    /// Lets a scan run one batch ahead of the fold. The outer error is the fold's.
    async fn transfer<F: Fold>(
        &self,
        scan: Scan,
        fold: F,
        item: Option<&Item>,
        means: &Means,
    ) -> Result<(F, Result<Option<Timestamp>, Failure>)> {
        let (to, mut from) = mpsc::channel(1);
        let end = means.halt.child_token();
        let scanning = {
            let end = end.clone();
            async move { scan.run(&means.budget, &to, &end).await }
        };
        let folding = async {
            let (mut fold, mut counted) = (Ok(fold), (0, 0));
            while let Some(event) = from.recv().await {
                fold = match (fold, event) {
                    (Ok(fold), Event::Batch(batch, share)) => {
                        let taken = take(fold, batch, &means.cpu).await;
                        drop(share);
                        taken.map(|(fold, documents, bytes)| {
                            item.inspect(|item| item.add(documents, bytes));
                            counted = (counted.0 + documents, counted.1 + bytes);
                            fold
                        })
                    }
                    (Ok(mut fold), Event::Restart) => {
                        item.inspect(|item| item.take_back(counted.0, counted.1));
                        counted = (0, 0);
                        fold.begin_again();
                        Ok(fold)
                    }
                    (Err(failed), _) => Err(failed),
                };
                if fold.is_err() {
                    end.cancel();
                }
            }
            (fold, counted)
        };
        let (scanned, (fold, counted)) = tokio::join!(scanning, folding);
        if scanned.is_err() {
            item.inspect(|item| item.take_back(counted.0, counted.1));
        }
        Ok((fold?, scanned))
    }

    /// Decides what follows if the collection is not what was listed any more.
    async fn look_again(&self, side: &Side, cause: Error, means: &Means) -> Result<()> {
        let data = self.info.data();
        let looking = whereabouts(&side.connection, &self.info, &data);
        let found = means.halt.run_until_cancelled(looking).await.ok_or_else(Error::interrupted)??;
        let what = match found {
            CollectionState::Dropped => "was dropped".to_owned(),
            CollectionState::Replaced => "was replaced by another collection".to_owned(),
            CollectionState::Renamed(now) => format!("was renamed to {now}"),
            CollectionState::Unmoved if self.moves.fetch_add(1, Ordering::Relaxed) < MOVES => return Ok(()),
            CollectionState::Unmoved => format!("was altered {MOVES} times"),
        };
        let namespace = &self.info.namespace;
        Err(Error::new(ErrorKind::Server, format!("{namespace} of the {} {what} while it was compared", side.name()))
            .hint("compare again, when no collection is dropped, renamed or altered, or skip it with [[exclude]]")
            .cause(cause))
    }
}

/// Takes a batch on the CPU pool. Returns how many documents and bytes it had, too.
async fn take<F: Fold>(mut fold: F, batch: Batch, cpu: &CpuPool) -> Result<(F, u64, u64)> {
    cpu.run(move || {
        let (mut documents, mut bytes) = (0, 0);
        for (place, element) in Elements::of(batch.array()?)?.enumerate() {
            let document = element?.value;
            if batch.counts(place) {
                fold.take(document);
                documents += 1;
                bytes += document.len() as u64;
            }
        }
        Ok((fold, documents, bytes))
    })
    .await
}
