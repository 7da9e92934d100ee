//! The links of an archive that is being written: makes one of the pieces of each hour, beside the
//! writing.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::keep;
use super::options::ArchiveOptions;
use crate::clock;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::format::chain::{Gap, Link};
use crate::format::frame::Compressors;
use crate::format::manifest::OplogPosition;
use crate::oplog::chain::roll::{Rolled, Roller, open_piece};
use crate::repository::Repository;
use crate::repository::chain::ChainPlace;

/// A piece that is not part of a link yet.
#[derive(Debug, Clone, Copy)]
struct OpenPiece {
    number: u64,
    from: OplogPosition,
    to: OplogPosition,
}

/// The links, and what becomes one.
pub(super) struct Links {
    roller: Roller,
    links: Vec<Link>,
    open: Vec<OpenPiece>,
    seconds: u32,
    /// The gap with which the next link begins, if no piece says so.
    gap: Option<Gap>,
    work: Option<JoinHandle<Result<Work>>>,
    removing: Option<JoinHandle<Result<Vec<Link>>>>,
}

/// What a roll did.
struct Work {
    rolled: Rolled,
    /// A gap that it had to begin with.
    gap: Option<Gap>,
}

impl Links {
    pub(super) fn new(
        place: &ChainPlace,
        options: &ArchiveOptions,
        compressors: &Arc<Compressors>,
        links: Vec<Link>,
        cx: &Context,
    ) -> Self {
        let roller = Roller { place: place.clone(), cpu: cx.cpu.clone(), compressors: compressors.clone() };
        let seconds = u32::try_from(options.roll.as_secs().max(1)).unwrap_or(3600);
        Self { roller, links, open: Vec::new(), seconds, gap: None, work: None, removing: None }
    }

    /// All links, oldest first.
    pub(super) fn links(&self) -> &[Link] {
        &self.links
    }

    /// A piece was stored.
    pub(super) fn add(&mut self, number: u64, from: OplogPosition, to: OplogPosition) {
        self.open.push(OpenPiece { number, from, to });
        self.consider();
    }

    /// Makes a link if an hour is over, and nothing is under way.
    fn consider(&mut self) {
        let (Some(first), Some(last)) = (self.open.first(), self.open.last()) else { return };
        if self.work.is_some() || last.to.time.t / self.seconds <= first.to.time.t / self.seconds {
            return;
        }
        // The piece that was stored last belongs to the next hour.
        let pieces: Vec<u64> = self.open.iter().map(|piece| piece.number).filter(|n| *n < last.number).collect();
        if pieces.is_empty() {
            return;
        }
        let (roller, previous, gap) = (self.roller.clone(), self.links.last().cloned(), self.gap.clone());
        self.work = Some(tokio::spawn(async move { work(&roller, &pieces, previous.as_ref(), gap).await }));
    }

    /// Waits for the work that is under way, for ever if there is none. Returns a gap that was
    /// found in what was archived.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the work died. Other failures are told, and tried again with the
    /// next piece.
    pub(super) async fn done(&mut self) -> Result<Option<Gap>> {
        if let Some(removing) = &mut self.removing {
            let removed = removing.await;
            self.removing = None;
            match removed.map_err(died)? {
                Ok(removed) => self.links.retain(|link| !removed.iter().any(|gone| gone.id == link.id)),
                Err(e) => tracing::warn!("old links of the archive could not be removed: {e}"),
            }
            return Ok(None);
        }
        let Some(work) = &mut self.work else { return std::future::pending().await };
        let done = work.await;
        self.work = None;
        let Work { rolled, gap } = match done.map_err(died)? {
            Ok(work) => work,
            Err(e) => {
                tracing::error!("pieces of the archive could not become a link, and will be tried again: {e}");
                return Ok(None);
            }
        };
        let last = rolled.link.pieces.1;
        self.open.retain(|piece| piece.number > last);
        self.gap = match (&rolled.broken, self.open.first()) {
            (Some(why), Some(next)) => Some(damage(&rolled.link, next.from, why)),
            _ => None,
        };
        self.links.push(rolled.link);
        self.consider();
        Ok(gap.or_else(|| self.gap.clone()))
    }

    /// Ends. What is under way is finished.
    pub(super) async fn stop(&mut self) -> Result<()> {
        if self.work.is_some() {
            self.done().await?;
        }
        if let Some(work) = self.work.take() {
            work.abort();
        }
        if let Some(removing) = self.removing.take() {
            let _done = removing.await;
        }
        Ok(())
    }

    /// Removes links that are out of the window.
    pub(super) fn keep_window(
        &mut self,
        place: &ChainPlace,
        window: Option<chrono::TimeDelta>,
        repository: &Repository,
        cx: &Context,
    ) {
        let Some(window) = window else { return };
        if self.removing.is_some() {
            return;
        }
        let (place, repository, cx) = (place.clone(), repository.clone(), cx.clone());
        self.removing = Some(tokio::spawn(async move { keep::out_of_window(&place, &repository, window, &cx).await }));
    }

    /// Removes what a crash left: links without a manifest, and pieces that are in a link.
    pub(super) async fn tidy(&self, leftovers: Vec<String>, rolled: Vec<u64>) {
        let place = &self.roller.place;
        for name in leftovers {
            if let Err(e) = place.link(&name).delete_all(crate::format::key::MANIFEST).await {
                tracing::warn!("{name} of the archive could not be removed: {e}");
            }
        }
        if let Err(e) = place.remove_pieces(rolled).await {
            tracing::warn!("pieces that became part of a link could not be removed: {e}");
        }
    }
}

/// What is under way must not go on if the archive is given up without an end.
impl Drop for Links {
    fn drop(&mut self) {
        self.work.iter().for_each(JoinHandle::abort);
        self.removing.iter().for_each(JoinHandle::abort);
    }
}

/// Makes a link of the first pieces that can be read. Those before them are lost.
async fn work(roller: &Roller, pieces: &[u64], previous: Option<&Link>, mut gap: Option<Gap>) -> Result<Work> {
    let mut found = None;
    for (at, _) in pieces.iter().enumerate() {
        match roller.roll(&pieces[at..], previous, gap.clone()).await {
            Ok(rolled) => {
                roller.remove(&rolled.link).await?;
                return Ok(Work { rolled, gap: found });
            }
            Err(e) if matches!(e.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                let Some(&next) = pieces.get(at + 1) else { return Err(e) };
                let Some(previous) = previous else { continue };
                // Where it goes on is known only if the next one can be read.
                if let Ok(piece) = open_piece(&roller.place, next, &roller.cpu).await {
                    let damaged = damage(previous, piece.header.from, &e);
                    (gap, found) = (Some(damaged.clone()), Some(damaged));
                }
            }
            Err(e) => return Err(e),
        }
    }
    Err(Error::damaged("none of the pieces of the archive can be read"))
}

fn damage(before: &Link, next: OplogPosition, why: &Error) -> Gap {
    let reason = format!("what was archived there is damaged: {why}");
    Gap { from: before.to.time, to: next.time.max(before.to.time), reason, found: clock::now() }
}

fn died(cause: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "a task of the archive died").cause(cause)
}
