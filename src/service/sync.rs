//! Follows the source into the target beside the schedule. Starts again after failures that pass,
//! and tells what happens.
//!
//! Nothing of this is stored here: the position is in the target. When the service starts, its
//! configuration says whether it follows.

mod view;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::view::SyncView;
use self::view::{Asked, Known};
use super::archive::Archiving;
use super::endless::{Endless, Life, Work, heard, passes};
use super::notices::Notices;
use crate::config::Config;
use crate::context::{Context, lock};
use crate::engine::import::ImportMode;
use crate::engine::sync::{self, ProofReport, SyncState, SyncStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::MongoUri;
use crate::repository::Repository;

/// How long the target may take to say what it follows.
const ASKING: Duration = Duration::from_secs(2);
/// How long to wait for the archive of this service before that is told, and how often to look.
const COMING: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

/// The sync of a service.
pub(super) struct Syncing {
    endless: Endless<Follower>,
    /// Held while the target is asked: one request at a time asks it.
    asking: tokio::sync::Mutex<()>,
}

struct Follower {
    config: Config,
    repository: Repository,
    cx: Context,
    archive: Arc<Archiving>,
    notices: Arc<Notices>,
    asked: Asked,
    known: Mutex<Known>,
    view: watch::Sender<SyncView>,
    hearing: Mutex<Hearing>,
}

/// What it follows, and how the first copy is made.
struct Order {
    source: MongoUri,
    target: MongoUri,
    mode: ImportMode,
}

impl Syncing {
    /// It does not run yet.
    pub(super) fn new(
        (config, repository, cx): (Config, Repository, Context),
        archive: Arc<Archiving>,
        notices: Arc<Notices>,
        engine: Handle,
    ) -> Self {
        let (asked, known, hearing) = (Asked::from(&config), Mutex::default(), Mutex::default());
        let view = watch::Sender::new(Known::default().view(&asked));
        let follower = Follower { config, repository, cx, archive, notices, asked, known, view, hearing };
        Self { endless: Endless::new(follower, engine), asking: tokio::sync::Mutex::default() }
    }

    /// The state, as far as this service knows it by itself.
    pub(super) fn view(&self) -> SyncView {
        self.endless.work.view.borrow().clone()
    }

    /// Follows the state.
    pub(super) fn watch(&self) -> watch::Receiver<SyncView> {
        self.endless.work.view.subscribe()
    }

    /// The state. If this service has nothing to say of the target, and `asks`, the target may.
    pub(super) async fn look(&self, asks: bool) -> SyncView {
        let follower = &self.endless.work;
        let is_idle = lock(&follower.known).is_idle();
        let Some(target) = follower.config.target().ok().filter(|_| asks && is_idle) else { return self.view() };
        let cx = self.operation();
        let asking = async {
            let _asking = self.asking.lock().await;
            sync::view(&target, &cx).await.ok()
        };
        match tokio::time::timeout(ASKING, asking).await.ok().flatten() {
            Some(said) => self.view().with(said),
            None => self.view(),
        }
    }

    /// Starts it, unless it runs. If it is held, it begins again. Does not wait until it follows.
    ///
    /// # Errors
    /// [`ErrorKind::NotConfigured`] and [`ErrorKind::Usage`] for the URIs; [`ErrorKind::Closing`];
    /// [`ErrorKind::Busy`] if one that is held does not end.
    pub(super) async fn start(&self, mode: Option<ImportMode>) -> Result<()> {
        if self.view().state == SyncState::Held {
            self.stop().await?;
        }
        let config = &self.endless.work.config;
        let order = config
            .source()
            .and_then(|source| Ok(Order { source, target: config.target()?, mode: mode.unwrap_or(config.sync.mode) }));
        self.endless.start(order).await
    }

    /// Stops it in order. Waits until it has ended.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if it does not end within a minute.
    pub(super) async fn stop(&self) -> Result<()> {
        self.endless.stop().await
    }

    /// Pauses whoever follows into the target.
    ///
    /// # Errors
    /// Those of [`sync::pause`].
    pub(super) async fn pause(&self) -> Result<SyncView> {
        let said = sync::pause(&self.endless.work.config.target()?, &self.operation()).await?;
        Ok(self.view().with(said))
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// Those of [`sync::resume`].
    pub(super) async fn resume(&self) -> Result<SyncView> {
        let said = sync::resume(&self.endless.work.config.target()?, &self.operation()).await?;
        Ok(self.view().with(said))
    }

    /// Asks whoever follows into the target to prove it, and waits for the result.
    ///
    /// # Errors
    /// Those of [`sync::verify`].
    pub(super) async fn verify(&self) -> Result<ProofReport> {
        sync::verify(&self.endless.work.config.target()?, &self.operation()).await
    }

    /// Stops it in order, and ends the following for good. If that is not possible, it goes on.
    ///
    /// # Errors
    /// Those of [`sync::finalize`], and of [`stop`](Self::stop).
    pub(super) async fn finalize(&self) -> Result<SyncView> {
        let (target, cx) = (self.endless.work.config.target()?, self.operation());
        let before = sync::view(&target, &cx).await?;
        // What cannot be finalized is not stopped for it.
        let runs = self.endless.work.live(|life| life.runs) && ["following", "paused"].contains(&&*before.state);
        if runs {
            self.stop().await?;
        }
        match sync::finalize(&target, &cx).await {
            Ok(said) => Ok(self.view().with(said)),
            Err(e) => {
                if runs {
                    self.start(None).await?;
                }
                Err(e)
            }
        }
    }

    /// Stops it for good.
    pub(super) async fn shut_down(&self, grace: Duration) {
        self.endless.shut_down(grace).await;
    }

    fn operation(&self) -> Context {
        self.endless.work.cx.operation().cancelled_by(self.endless.end_of_service())
    }
}

impl Work for Follower {
    type Order = Order;
    const NAME: &'static str = "the sync";

    fn live<T>(&self, change: impl FnOnce(&mut Life) -> T) -> T {
        self.change(|known| change(&mut known.life))
    }

    fn begin(&self) {
        self.change(|known| known.status.state = SyncState::Starting);
        *lock(&self.hearing) = Hearing::default();
    }

    /// Follows once, and hears what is told.
    async fn run(&self, order: &Order, stop: &CancellationToken) -> Result<()> {
        self.wait_for_archive(stop).await?;
        let (sender, told) = sync::StatusSender::new();
        let cx = self.cx.operation().cancelled_by(stop.clone());
        let (source, target, repository) = (order.source.clone(), order.target.clone(), self.repository.clone());
        let (options, progress) = (self.config.sync(order.mode), cx.progress.clone());
        let work = async move { Box::pin(sync::run(&source, &target, &repository, &options, &sender, &cx)).await };
        self.change(Known::run);
        lock(&self.hearing).begin();
        heard(Self::NAME, work, told, |status| {
            let event = lock(&self.hearing).hear(status);
            self.change(|known| known.take(status));
            if let Some(event) = event {
                self.tell(event);
            }
            // Nobody shows them, and the events say the same.
            drop(progress.take_notes());
        })
        .await
        .map_err(in_settings)
    }

    /// The archive may hold nothing yet, because the source went away meanwhile.
    fn passes(kind: ErrorKind) -> bool {
        kind == ErrorKind::NotFound || passes(kind)
    }
}

impl Follower {
    /// Changes what is known, and shows it.
    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = lock(&self.known);
        let changed = change(&mut known);
        let view = known.view(&self.asked);
        self.view.send_if_modified(|shown| std::mem::replace(shown, view.clone()) != view);
        changed
    }

    /// If the archive of this service is to run, it comes first: a sync archives by itself only if
    /// nobody else does.
    async fn wait_for_archive(&self, stop: &CancellationToken) -> Result<()> {
        let coming = async {
            while self.archive.is_coming() {
                tokio::time::sleep(LOOK).await;
            }
        };
        match stop.run_until_cancelled(tokio::time::timeout(COMING, coming)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => {
                Err(Error::new(ErrorKind::Unreachable, "the archive of the source's oplog does not follow the source yet")
                    .hint("the state of the archive says why"))
            }
            None => Err(Error::interrupted()),
        }
    }

    fn tell(&self, event: Event) {
        match event {
            Event::Copies => tracing::info!("the sync makes the first copy"),
            Event::Follows => tracing::info!("the sync follows the source"),
            Event::Paused => tracing::info!("the sync is paused"),
            Event::Waits(problem) => tracing::warn!("the sync waits: {problem}"),
            // The engine has logged it.
            Event::Held => self.notices.tell_held(&self.view.borrow()),
        }
    }
}

/// What the engine's texts call options are settings here, and no fields of requests.
fn in_settings(error: Error) -> Error {
    let names = [("[[include]]", "SYNC_INCLUDE"), ("[[exclude]]", "SYNC_EXCLUDE"), ("[[rename]]", "SYNC_RENAME")];
    let hint =
        error.hint_text().map(|hint| names.iter().fold(hint.to_owned(), |hint, (option, name)| hint.replace(option, name)));
    let error = names.iter().fold(error, |error, (option, name)| error.reworded(option, name));
    hint.into_iter().fold(error, Error::hint)
}

/// Something that happened, told once.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// It begins to copy.
    Copies,
    /// It follows the source: for the first time, or again.
    Follows,
    /// It was asked to pause.
    Paused,
    /// It waits, for this reason.
    Waits(String),
    /// Something came that it cannot apply.
    Held,
}

/// Finds what happened between two states.
#[derive(Debug, Default)]
struct Hearing {
    state: SyncState,
}

impl Hearing {
    fn begin(&mut self) {
        self.state = SyncState::Starting;
    }

    /// That the target shows one moment, or does not, is not told: it changes all the time.
    fn hear(&mut self, status: &SyncStatus) -> Option<Event> {
        if std::mem::replace(&mut self.state, status.state) == status.state {
            return None;
        }
        match status.state {
            SyncState::Copying => Some(Event::Copies),
            SyncState::Following => Some(Event::Follows),
            SyncState::Paused => Some(Event::Paused),
            SyncState::Waiting => Some(Event::Waits(status.problem.clone().unwrap_or_default())),
            SyncState::Held => Some(Event::Held),
            SyncState::Starting | SyncState::Final | SyncState::Stopped => None,
        }
    }
}

#[cfg(test)]
mod tests;
