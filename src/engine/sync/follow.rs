//! Follows an archive into a target: from the recorded position on, until it is stopped or
//! something comes that it cannot apply.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::ddl::Catalog;
use super::options::SyncOptions;
use super::status::{StatusSender, SyncState};
use super::write::{Writer, Written};
use crate::clock;
use crate::context::Context;
use crate::engine::archive::ArchiveStatus;
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Documents;
use crate::format::manifest::{ClusterTime, OplogPosition};
use crate::mongo::Version;
use crate::oplog::apply::gather::Gatherer;
use crate::oplog::chain::ChainFollower;
use crate::repository::chain::ChainPlace;
use crate::sink::Target;
use crate::sink::synced::{Held, Synced, SyncedCollection, SyncedState, Told};

/// The most documents and bytes that are written as one.
const DOCUMENTS: usize = 5_000;
const BYTES: usize = 16 * 1024 * 1024;
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
    gatherer: Gatherer,
    catalog: Catalog,
    at: OplogPosition,
    looked: Option<Instant>,
}

impl<'a> Following<'a> {
    async fn new(parts: Parts<'a>, writer: Writer, synced: &Synced) -> Result<Self, (Writer, Error)> {
        let recorded = match SyncedCollection::all(parts.target).await {
            Ok(recorded) => recorded,
            Err(e) => return Err((writer, e)),
        };
        let catalog = Catalog::new(parts.target, parts.version, parts.options, &recorded, synced.at.time);
        let catalog = match catalog {
            Ok(catalog) => catalog,
            Err(e) => return Err((writer, e)),
        };
        let wanted = parts.options.clone();
        let mut gatherer = Gatherer::new(synced.at.time, Box::new(move |namespace| wanted.wants(namespace)));
        catalog.direct(&mut gatherer);
        let from = synced.open_from.unwrap_or(synced.at.time).min(synced.at.time);
        let chain = ChainFollower::new(parts.place.clone(), from, Some(synced.at), parts.cx.cpu.clone());
        parts.status.change(|s| {
            s.at = Some(synced.at.time);
            s.state = SyncState::Following;
        });
        Ok(Self { parts, writer, chain, gatherer, catalog, at: synced.at, looked: None })
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
                    for entry in Documents::of(&frame) {
                        if !self.take(entry?).await? {
                            return Ok(Ended::WentBack);
                        }
                    }
                }
                None => {
                    if !self.flush().await? {
                        return Ok(Ended::WentBack);
                    }
                    self.wait_for_more().await;
                }
            }
        }
    }

    /// Takes an entry. False if the target went back.
    async fn take(&mut self, entry: &[u8]) -> Result<bool> {
        let arrived = self.gatherer.arrive(entry)?;
        if self.is_delayed(arrived.position().time).await? {
            return Ok(false);
        }
        if arrived.changes_catalog {
            if !self.flush().await? {
                return Ok(false);
            }
            self.writer.held().intend(self.at.time, arrived.position().time).await?;
            let followed = self.catalog.follow(entry, &arrived.created, &mut self.gatherer).await;
            followed.map_err(|e| e.context(format!("oplog entry at {}", arrived.position().time)))?;
            let made = self.catalog.made;
            self.parts.status.change(|s| s.ddl = made);
            self.gatherer.add(&arrived)?;
            return self.flush_all().await;
        }
        if arrived.concerns_catalog {
            self.catalog.take(entry)?;
        }
        self.gatherer.add(&arrived)?;
        let gathered = &self.gatherer.gathered().batch;
        let is_full = gathered.documents() >= DOCUMENTS || self.gatherer.gathered().entries.len() >= BYTES;
        if is_full && !self.writer.must_redo(arrived.position().time) {
            return self.flush().await;
        }
        Ok(true)
    }

    /// Waits until an entry is old enough to be applied, if the target is kept behind. True if the
    /// target went back meanwhile.
    async fn is_delayed(&mut self, time: ClusterTime) -> Result<bool> {
        let Some(delay) = self.parts.options.delay else { return Ok(false) };
        let due = i64::from(time.t) + i64::try_from(delay.as_secs()).unwrap_or(i64::MAX);
        while clock::now().timestamp() < due {
            if !self.flush().await? {
                return Ok(true);
            }
            let pause = tokio::time::sleep(PAUSE);
            if self.parts.cx.cancel.run_until_cancelled(pause).await.is_none() {
                return Err(Error::interrupted());
            }
            self.wait_while_paused().await?;
        }
        Ok(false)
    }

    /// Writes what was gathered. False if the target went back.
    async fn flush(&mut self) -> Result<bool> {
        let gathered = self.gatherer.gathered();
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
        let gathered = self.gatherer.take();
        let Some(to) = gathered.to else { return Ok(true) };
        let (operations, is_empty) = (gathered.batch.operations(), gathered.is_empty());
        let written = self.writer.write(gathered, &self.gatherer, (self.at.time, to)).await?;
        if written == Written::WentBack {
            return Ok(false);
        }
        self.at = to;
        self.parts.status.change(|s| {
            s.at = Some(to.time);
            s.operations += operations;
            s.batches += u64::from(!is_empty);
            s.moment = written == Written::Moment;
            s.written = Some(clock::now());
            s.state = SyncState::Following;
            s.problem = None;
        });
        Ok(true)
    }

    /// Waits until the archive may have grown.
    async fn wait_for_more(&mut self) {
        let end = self.chain.end();
        self.parts.status.change(|s| s.archived = end.map(|end| end.time));
        if let Some(end) = end {
            self.writer.held().tell(Told { archived: end.time, moment: self.parts.status.get().moment });
        }
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
                return Ok(());
            }
            self.parts.status.change(|s| s.state = SyncState::Paused);
            let pause = tokio::time::sleep(LOOK);
            self.parts.cx.cancel.run_until_cancelled(pause).await.ok_or_else(Error::interrupted)?;
        }
    }
}

/// Whether a failure may pass by itself.
pub(super) fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Storage)
}
