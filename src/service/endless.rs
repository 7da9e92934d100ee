//! Work that goes on until it is stopped: starts it, starts it again after failures that pass, and
//! stops it in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::error::{Error, ErrorKind, Face, Result};

/// The pause after the first failure, and the longest one. Each is twice as long as the one before,
/// until the work has got further than to its start.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a request waits for the work to end.
const ENDING: Duration = Duration::from_secs(60);
/// How long it may take to end at least when the service ends, however short the grace period is.
const LAST: Duration = Duration::from_secs(20);

/// Work that goes on until it is stopped.
pub(super) trait Work: Send + Sync + 'static {
    /// What the configuration and the request say of it.
    type Order: Send + Sync + 'static;
    /// Its name in messages.
    const NAME: &'static str;

    /// Changes what is known of its life.
    fn live<T>(&self, change: impl FnOnce(&mut Life) -> T) -> T;

    /// It was started: forgets what it heard in its last life.
    fn begin(&self);

    /// Runs it once.
    fn run(&self, order: &Self::Order, stop: &CancellationToken) -> impl Future<Output = Result<()>> + Send;

    /// Whether passing time can cure such a failure.
    fn passes(kind: ErrorKind) -> bool {
        passes(kind)
    }
}

/// What is known of the life of such work.
#[derive(Debug, Clone, Default)]
pub(super) struct Life {
    /// Whether it is to run: it was started, and neither stopped nor gave up.
    pub(super) runs: bool,
    /// Why the last run ended, until the work is done again.
    pub(super) ended: Option<Ended>,
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) kind: ErrorKind,
    pub(super) problem: String,
    pub(super) hint: Option<String>,
}

impl From<&Error> for Ended {
    fn from(error: &Error) -> Self {
        let (problem, hint) = error.told(Face::Service);
        Self { kind: error.kind(), problem, hint }
    }
}

/// Keeps work running.
pub(super) struct Endless<W> {
    engine: Handle,
    pub(super) work: Arc<W>,
    /// Held while it is started or stopped.
    running: tokio::sync::Mutex<Option<Running>>,
    stop: CancellationToken,
    /// A service that is dropped stops it.
    _stops: DropGuard,
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl<W: Work> Endless<W> {
    /// It does not run yet.
    pub(super) fn new(work: W, engine: Handle) -> Self {
        let stop = CancellationToken::new();
        let stops = stop.clone().drop_guard();
        Self { engine, work: Arc::new(work), running: tokio::sync::Mutex::default(), stop, _stops: stops }
    }

    /// Is cancelled once the service ends.
    pub(super) fn end_of_service(&self) -> CancellationToken {
        self.stop.child_token()
    }

    /// Starts it, unless it runs. Does not wait until it works.
    ///
    /// # Errors
    /// That of the order; [`ErrorKind::Closing`].
    pub(super) async fn start(&self, order: Result<W::Order>) -> Result<()> {
        let mut running = self.running.lock().await;
        if self.stop.is_cancelled() {
            return Err(Error::new(ErrorKind::Closing, "the service is shutting down"));
        }
        if self.work.live(|life| life.runs) && running.as_ref().is_some_and(|running| !running.task.is_finished()) {
            return Ok(());
        }
        // One that gave up has told so, and ends at once.
        if let Some(last) = running.take() {
            let _ended = last.task.await;
        }
        let order = order.inspect_err(|e| self.work.stopped(Some(e)))?;
        self.work.live(|life| *life = Life { runs: true, ended: None });
        self.work.begin();
        let stop = self.stop.child_token();
        let work = keep_running(self.work.clone(), order, stop.clone());
        *running = Some(Running { task: self.engine.spawn(work), stop });
        Ok(())
    }

    /// Stops it in order. Waits until it has ended.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if it does not end within a minute.
    pub(super) async fn stop(&self) -> Result<()> {
        match self.end(ENDING).await {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Busy, format!("{} has not ended within {} s", W::NAME, ENDING.as_secs()))
                .hint("it ends once the deployment or the storage that it waits for answers")),
        }
    }

    /// Stops it for good.
    pub(super) async fn shut_down(&self, grace: Duration) {
        self.stop.cancel();
        let within = grace.max(LAST);
        // A request may be waiting for the same end.
        if !tokio::time::timeout(within, self.end(within)).await.unwrap_or(false) {
            tracing::error!("left {} behind: a deployment or the storage does not answer; what is durable stays", W::NAME);
        }
    }

    /// Stops it, and waits for its end, not longer than this. Whether it has ended.
    async fn end(&self, within: Duration) -> bool {
        let mut running = self.running.lock().await;
        let Some(last) = running.as_mut() else { return true };
        last.stop.cancel();
        let Ok(ended) = tokio::time::timeout(within, &mut last.task).await else { return false };
        if ended.is_err() {
            self.work.stopped(None);
        }
        *running = None;
        true
    }
}

/// What follows from the functions of the trait.
trait Stopped: Work {
    fn stopped(&self, error: Option<&Error>) {
        self.live(|life| *life = Life { runs: false, ended: error.map(Ended::from) });
    }
}

impl<W: Work> Stopped for W {}

/// Runs it until it is stopped, or fails in a way that does not pass.
async fn keep_running<W: Work>(work: Arc<W>, order: W::Order, stop: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match work.run(&order, &stop).await {
            Err(e) if stop.is_cancelled() && e.kind() == ErrorKind::Interrupted => return work.stopped(None),
            Ok(()) if stop.is_cancelled() => return work.stopped(None),
            Ok(()) => {
                Error::new(ErrorKind::Internal, format!("{} ended by itself, because of a defect in this program", W::NAME))
            }
            Err(e) => e,
        };
        if stop.is_cancelled() || !W::passes(error.kind()) {
            tracing::error!(kind = error.kind().name(), "{} stopped: {error}", W::NAME);
            return work.stopped(Some(&error));
        }
        // It had got further than to the start meanwhile.
        if work.live(|life| life.ended.replace(Ended::from(&error))).is_none() {
            pause = FIRST_PAUSE;
        }
        let (name, seconds) = (W::NAME, pause.as_secs());
        tracing::warn!(kind = error.kind().name(), "{name} failed, and starts again in {seconds} s: {error}");
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return work.stopped(None);
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Runs work in a task of its own, so that a defect ends only this run, and hears each state that
/// it tells.
pub(super) async fn heard<T: Send + 'static, S: Clone>(
    name: &str,
    work: impl Future<Output = Result<T>> + Send + 'static,
    mut told: watch::Receiver<S>,
    mut hear: impl FnMut(&S),
) -> Result<()> {
    let mut work = AbortOnDropHandle::new(tokio::spawn(work));
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
        hear(&status);
        if let Some(ended) = ended {
            break ended;
        }
    };
    match ended {
        Ok(done) => done.map(drop),
        Err(e) => Err(Error::new(ErrorKind::Internal, format!("{name} died because of a defect in this program")).cause(e)),
    }
}

/// Whether passing time cures such a failure of most work.
pub(super) fn passes(kind: ErrorKind) -> bool {
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
