//! The links of an archive that is being written: makes one of the pieces of each hour, beside the
//! writing.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::keep;
use super::options::ArchiveOptions;
use crate::clock;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::format::chain::{Gap, Link};
use crate::format::frame::Compressors;
use crate::format::manifest::OplogPosition;
use crate::oplog::chain::roll::{RollError, Rolled, Roller};
use crate::repository::Repository;
use crate::repository::chain::ChainPlace;

/// A piece that is not part of a link yet.
#[derive(Debug, Clone, Copy)]
struct OpenPiece {
    number: u64,
    to: OplogPosition,
}

/// The links, and what becomes one.
pub(super) struct Links {
    roller: Roller,
    links: Vec<Link>,
    open: Vec<OpenPiece>,
    seconds: u32,
    /// When to try again after a failure.
    wait_until: Option<Instant>,
    work: Option<JoinHandle<Result<Work>>>,
    removing: Option<JoinHandle<Result<Vec<Link>>>>,
}

/// How long to wait after a link could not be made.
const PAUSE: Duration = Duration::from_secs(60);

/// What ended.
pub(super) enum Done {
    /// A link was made. If pieces before it are lost, it begins with this gap.
    Made(Option<Gap>),
    /// A link could not be made.
    Failed,
    /// Old links were removed.
    Removed,
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
        Self { roller, links, open: Vec::new(), seconds, wait_until: None, work: None, removing: None }
    }

    /// All links, oldest first.
    pub(super) fn links(&self) -> &[Link] {
        &self.links
    }

    /// A piece was stored.
    pub(super) fn add(&mut self, number: u64, to: OplogPosition) {
        self.open.push(OpenPiece { number, to });
        self.consider();
    }

    /// Makes a link if an hour is over, and nothing is under way.
    fn consider(&mut self) {
        let (Some(first), Some(last)) = (self.open.first(), self.open.last()) else { return };
        let must_wait = self.wait_until.is_some_and(|until| Instant::now() < until);
        if must_wait || self.work.is_some() || last.to.time.t / self.seconds <= first.to.time.t / self.seconds {
            return;
        }
        // The piece that was stored last belongs to the next hour.
        let pieces: Vec<u64> = self.open.iter().map(|piece| piece.number).filter(|n| *n < last.number).collect();
        if pieces.is_empty() {
            return;
        }
        let (roller, previous) = (self.roller.clone(), self.links.last().cloned());
        self.work = Some(tokio::spawn(async move { work(&roller, &pieces, previous.as_ref()).await }));
    }

    /// Waits until something that is under way has ended, for ever if nothing is.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if it died. Other failures are told, and tried again later.
    pub(super) async fn done(&mut self) -> Result<Done> {
        tokio::select! {
            made = ended(&mut self.work) => {
                self.work = None;
                self.made(made.map_err(died)?)
            }
            removed = ended(&mut self.removing) => {
                self.removing = None;
                match removed.map_err(died)? {
                    Ok(removed) => self.links.retain(|link| !removed.iter().any(|gone| gone.id == link.id)),
                    Err(e) => tracing::warn!("old links of the archive could not be removed: {e}"),
                }
                Ok(Done::Removed)
            }
        }
    }

    fn made(&mut self, made: Result<Work>) -> Result<Done> {
        let Work { rolled, gap } = match made {
            Ok(work) => work,
            Err(e) => {
                tracing::error!("pieces of the archive could not become a link, and will be tried again: {e}");
                self.wait_until = Some(Instant::now() + PAUSE);
                return Ok(Done::Failed);
            }
        };
        if let Some(broken) = &rolled.broken {
            tracing::error!("a piece of the archive cannot be read: {broken}");
        }
        let last = rolled.link.pieces.1;
        self.open.retain(|piece| piece.number > last);
        self.links.push(rolled.link);
        self.consider();
        Ok(Done::Made(gap))
    }

    /// Ends. What is under way is finished.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if it died.
    pub(super) async fn stop(&mut self) -> Result<()> {
        // No further one is begun.
        self.wait_until = Some(Instant::now() + 10 * PAUSE);
        while self.work.is_some() || self.removing.is_some() {
            self.done().await?;
        }
        Ok(())
    }

    /// Ends at once: another process writes the archive.
    pub(super) fn give_up(&mut self) {
        self.work.take().iter().for_each(JoinHandle::abort);
        self.removing.take().iter().for_each(JoinHandle::abort);
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

/// Waits for a task, for ever if there is none.
async fn ended<T>(task: &mut Option<JoinHandle<T>>) -> std::result::Result<T, tokio::task::JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// Makes a link of the first pieces that can be read. Those before them are lost: then the link
/// begins with a gap.
async fn work(roller: &Roller, pieces: &[u64], previous: Option<&Link>) -> Result<Work> {
    let (mut at, mut gap, mut why) = (0, None, None);
    while at < pieces.len() {
        let unusable = match roller.roll(&pieces[at..], previous, gap.clone()).await {
            Ok(rolled) => {
                // The link is there. What is left of its pieces counts for nothing.
                if let Err(e) = roller.remove(&rolled.link, pieces).await {
                    tracing::warn!("pieces that became part of a link could not be removed: {e}");
                }
                return Ok(Work { rolled, gap });
            }
            Err(RollError::Failed(e)) => return Err(e),
            Err(RollError::Unusable(e)) => e,
        };
        // It is whole, but does not follow: something before it is lost.
        let whole = roller.header(pieces[at]).await.filter(|_| gap.is_none());
        match whole {
            Some(header) => {
                let reason = format!("what was archived there is damaged: {}", why.as_ref().unwrap_or(&unusable));
                let from = previous.map_or(header.from.time, |previous| previous.to.time);
                gap = Some(Gap { from, to: header.from.time.max(from), reason, found: clock::now() });
            }
            None => {
                (at, gap) = (at + 1, None);
                why = why.or(Some(unusable));
            }
        }
    }
    Err(why.unwrap_or_else(|| Error::damaged("none of the pieces of the archive can be read")))
}

fn died(cause: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "a task of the archive died").cause(cause)
}
