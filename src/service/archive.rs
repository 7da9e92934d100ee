//! Runs the archiver of the source's oplog beside the schedule. Starts it again after failures that
//! pass, and tells of gaps.
//!
//! Nothing of this is stored. When the service starts, its configuration says whether it runs.

mod view;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

pub use self::view::ArchiveView;
use self::view::{Ended, Known};
use super::notices::Notices;
use crate::config::Config;
use crate::context::{Context, lock};
use crate::engine::archive::{self, ArchiveState, ArchiveStatus};
use crate::engine::timeline::{self, Timeline, TimelineGap};
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::MongoUri;
use crate::repository::Repository;

/// The pause after the first failure, and the longest one. Each is twice as long as the one before,
/// until the source is followed again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a request waits for the archiver to end. It reads the source to its end once more.
const ENDING: Duration = Duration::from_secs(60);
/// How long it may take to end at least when the service ends, however short the grace period is.
const LAST: Duration = Duration::from_secs(20);
/// The part of the source's oplog behind the position below which a warning is logged.
const LITTLE: f64 = 0.25;

/// The archiver of a service.
pub(super) struct Archiving {
    engine: Handle,
    shared: Arc<Shared>,
    /// Held while it is started or stopped.
    running: tokio::sync::Mutex<Option<Running>>,
    /// Held while the timeline is read: one request at a time reads everything.
    looking: tokio::sync::Mutex<()>,
    stop: CancellationToken,
    /// A service that is dropped stops it.
    _stops: DropGuard,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Shared {
    config: Config,
    repository: Repository,
    cx: Context,
    notices: Arc<Notices>,
    known: Mutex<Known>,
}

impl Archiving {
    /// It does not run yet.
    pub(super) fn new((config, repository, cx): (Config, Repository, Context), notices: Arc<Notices>, engine: Handle) -> Self {
        let stop = CancellationToken::new();
        let stops = stop.clone().drop_guard();
        let shared = Arc::new(Shared { config, repository, cx, notices, known: Mutex::default() });
        Self {
            engine,
            shared,
            running: tokio::sync::Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            stop,
            _stops: stops,
        }
    }

    /// The state.
    pub(super) fn view(&self) -> ArchiveView {
        lock(&self.shared.known).view(self.shared.config.pitr.enabled)
    }

    /// Which times can be restored, and what happened in them, from all archives of the repository.
    ///
    /// # Errors
    /// Those of [`timeline::look`]; [`ErrorKind::Interrupted`] if the service ends meanwhile.
    pub(super) async fn timeline(&self) -> Result<Timeline> {
        let _looking = self.looking.lock().await;
        let cx = self.shared.cx.operation().cancelled_by(self.stop.child_token());
        timeline::look(&self.shared.repository, true, &cx).await
    }

    /// Starts it, unless it runs. Does not wait until it follows the source.
    ///
    /// # Errors
    /// [`ErrorKind::NotConfigured`] and [`ErrorKind::Usage`] for the source's URI;
    /// [`ErrorKind::Closing`].
    pub(super) async fn start(&self) -> Result<()> {
        let mut running = self.running.lock().await;
        if self.stop.is_cancelled() {
            return Err(Error::new(ErrorKind::Closing, "the service is shutting down"));
        }
        if lock(&self.shared.known).runs && running.as_ref().is_some_and(|running| !running.task.is_finished()) {
            return Ok(());
        }
        // One that gave up has told so, and ends at once.
        if let Some(last) = running.take() {
            let _ended = last.task.await;
        }
        let source = self.shared.config.source().inspect_err(|e| self.shared.stopped(Some(e)))?;
        lock(&self.shared.known).start();
        let stop = self.stop.child_token();
        let work = self.shared.clone().keep_running(source, stop.clone());
        *running = Some(Running { task: self.engine.spawn(work), stop });
        Ok(())
    }

    /// Stops it in order: what the source has now becomes durable. Waits until it has ended.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if it does not end within a minute.
    pub(super) async fn stop(&self) -> Result<()> {
        match self.end(ENDING).await {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Busy, format!("the archive has not ended within {} s", ENDING.as_secs()))
                .hint("it ends once the source or the storage answers")),
        }
    }

    /// Stops it for good.
    pub(super) async fn shut_down(&self, grace: Duration) {
        self.stop.cancel();
        let within = grace.max(LAST);
        // A request may be waiting for the same end.
        if !tokio::time::timeout(within, self.end(within)).await.unwrap_or(false) {
            tracing::error!("left the archive behind: neither the source nor the storage answers; what is durable stays");
        }
    }

    /// Stops it, and waits for its end, not longer than this. Whether it has ended.
    async fn end(&self, within: Duration) -> bool {
        let mut running = self.running.lock().await;
        let Some(last) = running.as_mut() else { return true };
        last.stop.cancel();
        let Ok(ended) = tokio::time::timeout(within, &mut last.task).await else { return false };
        if ended.is_err() {
            self.shared.stopped(None);
        }
        *running = None;
        true
    }
}

impl Shared {
    /// Runs the archiver until it is stopped, or fails in a way that does not pass.
    async fn keep_running(self: Arc<Self>, source: MongoUri, stop: CancellationToken) {
        let (mut pause, mut hearing) = (FIRST_PAUSE, Hearing::default());
        loop {
            let ended = self.run(&source, &mut hearing, &stop).await;
            let error = match ended {
                Err(e) if stop.is_cancelled() && e.kind() == ErrorKind::Interrupted => return self.stopped(None),
                Ok(()) if stop.is_cancelled() => return self.stopped(None),
                Ok(()) => Error::new(ErrorKind::Internal, "the archive ended by itself, because of a defect in this program"),
                Err(e) => e,
            };
            if stop.is_cancelled() || !passes(error.kind()) {
                tracing::error!(kind = error.kind().name(), "the archive stopped: {error}");
                return self.stopped(Some(&error));
            }
            // It had got further than to the start meanwhile.
            if lock(&self.known).ended.replace(Ended::from(&error)).is_none() {
                pause = FIRST_PAUSE;
            }
            tracing::warn!(kind = error.kind().name(), "the archive failed, and starts again in {} s: {error}", pause.as_secs());
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return self.stopped(None);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn stopped(&self, error: Option<&Error>) {
        let mut known = lock(&self.known);
        (known.runs, known.ended) = (false, error.map(Ended::from));
    }

    /// Runs the archiver once, and hears what it tells.
    async fn run(&self, source: &MongoUri, hearing: &mut Hearing, stop: &CancellationToken) -> Result<()> {
        let (sender, mut told) = archive::status();
        let cx = self.cx.operation().cancelled_by(stop.clone());
        let (source, repository, options) = (source.clone(), self.repository.clone(), self.config.archive(Vec::new()));
        let progress = cx.progress.clone();
        // A task of its own: a defect ends only this run.
        let work = async move { Box::pin(archive::run(&source, &repository, &options, &sender, &cx)).await };
        let mut work = AbortOnDropHandle::new(tokio::spawn(work));
        hearing.begin();
        let ended = loop {
            let ended = tokio::select! {
                ended = &mut work => Some(ended),
                // Without a sender, it has ended or is about to.
                changed = told.changed() => match changed {
                    Ok(()) => None,
                    Err(_) => Some((&mut work).await),
                },
            };
            let status = told.borrow_and_update().clone();
            for event in hearing.hear(&status) {
                self.tell(event);
            }
            lock(&self.known).take(&status);
            // Nobody shows them, and the events say the same.
            drop(progress.take_notes());
            if let Some(ended) = ended {
                break ended;
            }
        };
        match ended {
            Ok(done) => done.map(drop),
            Err(e) => Err(Error::new(ErrorKind::Internal, "the archive died because of a defect in this program").cause(e)),
        }
    }

    fn tell(&self, event: Event) {
        match event {
            Event::Follows(path) => tracing::info!("the archive {path} follows the source"),
            Event::Waits(problem) => tracing::warn!("the archive waits: {problem}"),
            Event::Little(headroom) => tracing::warn!(
                "the source's oplog is about to pass the archive: only {:.0} % of it is behind the archived position; enlarge the oplog",
                headroom * 100.0
            ),
            // The engine has logged it.
            Event::Gap(gap) => self.notices.tell_gap(&gap),
        }
    }
}

/// Whether passing time can cure such a failure.
fn passes(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Unreachable
        | ErrorKind::Server
        | ErrorKind::Storage
        | ErrorKind::Busy
        | ErrorKind::TooMany
        | ErrorKind::SnapshotLost
        | ErrorKind::Internal => true,
        ErrorKind::Usage
        | ErrorKind::NotConfigured
        | ErrorKind::NotFound
        | ErrorKind::Denied
        | ErrorKind::Damaged
        | ErrorKind::Mismatch
        | ErrorKind::Refused
        | ErrorKind::Gap
        | ErrorKind::Interrupted
        | ErrorKind::Closing => false,
    }
}

/// Something that happened, told once.
#[derive(Debug, PartialEq)]
enum Event {
    /// It follows the source: for the first time, or again.
    Follows(String),
    /// It waits, for this reason.
    Waits(String),
    /// This part of the source's oplog is behind the position, and it was more before.
    Little(f64),
    Gap(TimelineGap),
}

/// Finds what happened between two states of a run.
#[derive(Debug, Default)]
struct Hearing {
    state: ArchiveState,
    has_little: bool,
    gaps: usize,
}

impl Hearing {
    /// A run begins. A little headroom is told once, however often it begins.
    fn begin(&mut self) {
        (self.state, self.gaps) = (ArchiveState::Starting, 0);
    }

    fn hear(&mut self, status: &ArchiveStatus) -> Vec<Event> {
        let mut events = Vec::new();
        // States may be skipped, and gaps must not be.
        let new = status.new_gaps.saturating_sub(self.gaps);
        let gaps = status.gaps.iter().skip(status.gaps.len().saturating_sub(new));
        events.extend(gaps.map(|gap| Event::Gap(view::gap(gap, &status.replica_set_id))));
        self.gaps = status.new_gaps;
        if std::mem::replace(&mut self.state, status.state) != status.state {
            match status.state {
                ArchiveState::Following => events.push(Event::Follows(status.path.clone())),
                ArchiveState::Waiting => events.push(Event::Waits(status.problem.clone().unwrap_or_default())),
                ArchiveState::Starting | ArchiveState::Stopped => {}
            }
        }
        if let Some(headroom) = status.headroom() {
            let has_little = headroom < LITTLE;
            if has_little && !self.has_little {
                events.push(Event::Little(headroom));
            }
            self.has_little = has_little;
        }
        events
    }
}

#[cfg(test)]
mod tests;
