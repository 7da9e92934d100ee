//! Follows an archive into a target: from the recorded position on, until it is stopped or
//! something comes that it cannot apply.

mod large;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::ddl::Catalog;
use super::options::SyncOptions;
use super::status::{StatusSender, SyncState};
use super::write::{Writer, Written};
use crate::clock;
use crate::context::Context;
use crate::engine::archive::{ArchiveState, ArchiveStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{ClusterTime, OplogPosition};
use crate::mongo::Version;
use crate::oplog::apply::gather::{Arrived, Gatherer, Limits, Stop};
use crate::oplog::chain::ChainFollower;
use crate::repository::chain::ChainPlace;
use crate::sink::Target;
use crate::sink::synced::{Held, Move, Synced, SyncedCollection, SyncedState, Told};

/// The most documents and bytes that are written as one.
const DOCUMENTS: usize = 5_000;
const BYTES: usize = 16 * 1024 * 1024;
/// After so many full batches in a row, the target is far behind, and entries are applied in the
/// faster way.
const FAR_BEHIND: u32 = 10;
/// The most bytes that are applied so at a time.
const HURRIED_BYTES: usize = 8 * 1024 * 1024;
/// The part of the memory budget that is for open transactions of the source. What is written as
/// one is in memory several times.
const OPEN_SHARE: u64 = 8;
/// How long to wait for the archive to grow, if nobody tells.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the position is moved if no document changes.
const IDLE: u32 = 5;
/// How often to look whether somebody paused it.
const LOOK: Duration = Duration::from_secs(1);

/// What a target is followed into with.
pub(super) struct Parts<'a> {
    pub(super) place: &'a ChainPlace,
    pub(super) target: &'a Target,
    pub(super) version: Version,
    /// Whether data and position can be written together.
    pub(super) transactions: bool,
    pub(super) options: &'a SyncOptions,
    pub(super) status: &'a StatusSender,
    pub(super) archive: watch::Receiver<ArchiveStatus>,
    pub(super) cx: &'a Context,
}

/// Why following ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was stopped.
    Stopped,
    /// The target is at another position than it was: begin again from there.
    WentBack,
    /// It failed.
    Failed(Error),
}

/// Follows from the position of `synced` on. Gives the right to write back.
pub(super) async fn follow(parts: Parts<'_>, held: Held, synced: &Synced) -> (Held, Ended) {
    let writer = Writer::new(parts.target, held, parts.transactions, synced.to);
    match Following::new(parts, writer, synced).await {
        Err((writer, e)) => (writer.into_held(), Ended::Failed(e)),
        Ok(mut following) => {
            let ended = match following.run().await {
                Ok(ended) => ended,
                Err(e) => Ended::Failed(e),
            };
            (following.writer.into_held(), ended)
        }
    }
}

struct Following<'a> {
    parts: Parts<'a>,
    writer: Writer,
    chain: ChainFollower,
    /// `None` while it is at work, and after a failure.
    gatherer: Option<Gatherer>,
    catalog: Catalog,
    at: OplogPosition,
    /// Of the transaction after that, the last part that is in the target already.
    within: Option<ClusterTime>,
    /// How many bytes of open transactions are kept.
    most: usize,
    /// How many batches in a row were full.
    full: u32,
    looked: Option<Instant>,
}

impl<'a> Following<'a> {
    async fn new(parts: Parts<'a>, writer: Writer, synced: &Synced) -> Result<Self, (Writer, Error)> {
        let recorded = match SyncedCollection::all(parts.target).await {
            Ok(recorded) => recorded,
            Err(e) => return Err((writer, e)),
        };
        let catalog = Catalog::new(parts.target, parts.version, parts.options, &recorded, synced.at.time, parts.status);
        let catalog = match catalog {
            Ok(catalog) => catalog,
            Err(e) => return Err((writer, e)),
        };
        if let Err(e) = catalog.find_debts().await {
            return Err((writer, e));
        }
        let wanted = parts.options.clone();
        let most = usize::try_from(parts.options.tuning.memory_bytes / OPEN_SHARE).unwrap_or(usize::MAX);
        let mut gatherer = Gatherer::new(synced.at.time, most, Box::new(move |namespace| wanted.wants(namespace)));
        catalog.direct(&mut gatherer);
        let chain = ChainFollower::new(parts.place.clone(), synced.needs(), Some(synced.at), parts.cx.cpu.clone());
        parts.status.change(|s| {
            s.at = Some(synced.at.time);
            s.moment = parts.transactions && synced.to.is_none();
            s.state = SyncState::Following;
        });
        let (at, within) = (synced.at, synced.within);
        Ok(Self { parts, writer, chain, gatherer: Some(gatherer), catalog, at, within, most, full: 0, looked: None })
    }

    async fn run(&mut self) -> Result<Ended> {
        loop {
            if self.parts.cx.cancel.is_cancelled() {
                return Ok(Ended::Stopped);
            }
            if self.writer.held().lost().is_cancelled() {
                return Err(self.writer.held().lost_error());
            }
            self.wait_while_paused().await?;
            match self.parts.cx.unless_cancelled(self.chain.next()).await? {
                Some(frame) => {
                    if !self.take(frame).await? {
                        return Ok(Ended::WentBack);
                    }
                }
                None => {
                    self.full = 0;
                    if !self.flush().await? {
                        return Ok(Ended::WentBack);
                    }
                    // Everything up to the position is in the target, and nothing later.
                    let moment = self.parts.transactions && self.writer.redo().is_none();
                    self.parts.status.change(|s| s.moment = moment);
                    self.wait_for_more().await;
                }
            }
        }
    }

    /// Takes the entries of a frame. False if the target went back.
    async fn take(&mut self, frame: Vec<u8>) -> Result<bool> {
        let (mut frame, mut at) = (Arc::new(frame), 0);
        loop {
            if self.parts.cx.cancel.is_cancelled() {
                return Err(Error::interrupted());
            }
            let stop;
            (stop, at) = self.gather(frame.clone(), at).await?;
            let is_on = match stop {
                Stop::End => return Ok(true),
                Stop::Full => {
                    self.full += 1;
                    self.flush().await?
                }
                Stop::Changes => self.change().await?,
                Stop::Large => {
                    // What is behind it may be most of the frame, and this takes a while.
                    (frame, at) = (Arc::new(frame[at..].to_vec()), 0);
                    self.large().await?
                }
                Stop::Later => self.flush().await? && self.wait_for_later().await?,
            };
            if !is_on {
                return Ok(false);
            }
        }
    }

    /// Gathers entries from this offset on, on the pool for such work.
    async fn gather(&mut self, frame: Arc<Vec<u8>>, begin: usize) -> Result<(Stop, usize)> {
        let delay = self.parts.options.delay;
        let upto = delay.map(|delay| {
            let due = clock::now().timestamp() - i64::try_from(delay.as_secs()).unwrap_or(i64::MAX);
            ClusterTime { t: u32::try_from(due).unwrap_or(0), i: u32::MAX }
        });
        let hurries = self.full >= FAR_BEHIND;
        let bytes = if hurries { HURRIED_BYTES } else { BYTES };
        let limits = Limits { documents: DOCUMENTS, bytes, not_before: self.writer.redo(), upto };
        let mut tracker = self.catalog.lend()?;
        let mut gatherer = self.gatherer.take().ok_or_else(failed)?;
        gatherer.hurry(hurries);
        let gathered = self.parts.cx.cpu.run(move || {
            let mut at = begin;
            let stop = gatherer.gather(&mut tracker, &frame, &mut at, limits)?;
            Ok((gatherer, tracker, stop, at))
        });
        let (gatherer, tracker, stop, at) = gathered.await?;
        self.gatherer = Some(gatherer);
        self.catalog.take_back(tracker);
        Ok((stop, at))
    }

    /// Follows an entry that changes the catalog. False if the target went back.
    async fn change(&mut self) -> Result<bool> {
        if !self.flush().await? {
            return Ok(false);
        }
        let Some(arrived) = self.gatherer.as_mut().ok_or_else(failed)?.arrived() else { return Ok(true) };
        self.follow_catalog(&arrived).await?;
        self.gatherer.as_mut().ok_or_else(failed)?.add(arrived)?;
        self.flush_all().await
    }

    /// Changes the catalog as an entry says.
    async fn follow_catalog(&mut self, arrived: &Arrived) -> Result<()> {
        let gatherer = self.gatherer.as_mut().ok_or_else(failed)?;
        let time = arrived.position.time;
        self.writer.held().intend(self.at.time, time).await?;
        let followed = self.catalog.follow(&arrived.entry, &arrived.created, gatherer).await;
        followed.map_err(|e| e.context(format!("oplog entry at {time}")))?;
        let made = self.catalog.made;
        self.parts.status.change(|s| s.ddl = made);
        Ok(())
    }

    /// Waits a moment until the next entry is old enough, if the target is kept behind.
    async fn wait_for_later(&mut self) -> Result<bool> {
        self.tell();
        let pause = tokio::time::sleep(PAUSE);
        self.parts.cx.cancel.run_until_cancelled(pause).await.ok_or_else(Error::interrupted)?;
        self.wait_while_paused().await?;
        Ok(true)
    }

    /// Writes what was gathered. False if the target went back.
    async fn flush(&mut self) -> Result<bool> {
        let gathered = self.gatherer.as_ref().ok_or_else(failed)?.gathered();
        let Some(to) = gathered.to else { return Ok(true) };
        if gathered.is_empty() && to.time.t.saturating_sub(self.at.time.t) < IDLE {
            // Nothing of it is in the target: it is caught up without a write.
            self.parts.status.change(|s| s.at = Some(to.time));
            return Ok(true);
        }
        self.flush_all().await
    }

    /// The same, and moves the position in any case.
    async fn flush_all(&mut self) -> Result<bool> {
        let gatherer = self.gatherer.as_mut().ok_or_else(failed)?;
        let gathered = gatherer.take();
        let Some(to) = gathered.to else { return Ok(true) };
        let (before, is_empty) = (self.writer.operations(), gathered.is_empty());
        let begun = Instant::now();
        let step = Move::On { from: self.at.time, to, open_from: gathered.open_from };
        let written = self.writer.write(gathered, gatherer, step).await;
        self.writer.held().let_go();
        let written = written?;
        if written == Written::WentBack {
            return Ok(false);
        }
        self.at = to;
        let operations = self.writer.operations() - before;
        self.parts.status.change(|s| {
            s.at = Some(to.time);
            s.operations += operations;
            s.batches += u64::from(!is_empty);
            s.batch_time += if is_empty { Duration::ZERO } else { begun.elapsed() };
            s.moment = written == Written::Moment;
            s.written = Some(clock::now());
            s.state = SyncState::Following;
            s.problem = None;
        });
        self.tell();
        Ok(true)
    }

    /// Tells how far the target is, and how far the archive.
    fn tell(&self) {
        let archive = self.parts.archive.borrow().clone();
        let ends = [self.chain.end().map(|end| end.time), archive.position, Some(self.at.time)];
        let archived = ends.into_iter().flatten().max().unwrap_or(self.at.time);
        let status = self.parts.status.get();
        let (at, debts) = (status.at.unwrap_or(self.at.time), i64::try_from(status.debts).unwrap_or(i64::MAX));
        self.parts.status.change(|s| {
            s.archived = Some(archived);
            let now = Some(&archive).filter(|archive| archive.state == ArchiveState::Following);
            s.headroom = now.and_then(ArchiveStatus::headroom);
            s.archive_lag_seconds = now.and_then(ArchiveStatus::lag_seconds);
            // Nothing comes while the archive waits for the source, or for its store.
            match (archive.state, s.state) {
                (ArchiveState::Waiting, SyncState::Following | SyncState::Waiting) => {
                    s.state = SyncState::Waiting;
                    s.problem = archive.problem.as_ref().map(|problem| format!("the archive waits: {problem}"));
                }
                (ArchiveState::Following, SyncState::Waiting) => {
                    s.state = SyncState::Following;
                    s.problem = None;
                }
                _ => {}
            }
        });
        self.writer.held().tell(Told { archived, at, debts });
    }

    /// Waits until the archive may have grown.
    async fn wait_for_more(&mut self) {
        self.tell();
        let end = self.chain.end();
        let has_more = |s: &ArchiveStatus| s.position.is_some_and(|at| Some(at) > end.map(|end| end.time));
        // The archive of this process tells when it has more.
        let told = async {
            if self.parts.archive.wait_for(has_more).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.parts.cx.cancel.cancelled() => {}
            () = tokio::time::sleep(PAUSE) => {}
            () = told => {}
        }
    }

    /// Looks, once in a while, whether somebody asked to pause, and waits until they ask to resume.
    async fn wait_while_paused(&mut self) -> Result<()> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return Ok(());
        }
        loop {
            self.looked = Some(Instant::now());
            let now = Synced::read(self.parts.target).await?.filter(|now| now.epoch == self.writer.held().epoch());
            let Some(now) = now else { return Err(self.writer.held().lost_error()) };
            if now.state != SyncedState::Paused {
                self.parts.status.change(|s| {
                    if s.state == SyncState::Paused {
                        s.state = SyncState::Following;
                    }
                });
                return Ok(());
            }
            self.parts.status.change(|s| s.state = SyncState::Paused);
            self.tell();
            let pause = tokio::time::sleep(LOOK);
            self.parts.cx.cancel.run_until_cancelled(pause).await.ok_or_else(Error::interrupted)?;
        }
    }
}

/// Whether a failure may pass by itself.
pub(super) fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Storage)
}

fn failed() -> Error {
    Error::new(ErrorKind::Internal, "entries were to be gathered after a failure")
}
