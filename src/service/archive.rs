//! Runs the archiver of the source's oplog beside the schedule. Starts it again after failures that
//! pass, and tells of gaps.
//!
//! Nothing of this is stored. When the service starts, its configuration says whether it runs.

mod view;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

pub use self::view::ArchiveView;
use self::view::Known;
use super::endless::{Endless, Life, Work, heard};
use super::notices::Notices;
use crate::config::Config;
use crate::context::{Context, lock};
use crate::engine::archive::{self, ArchiveOptions, ArchiveState, ArchiveStatus};
use crate::engine::sync::AGE;
use crate::engine::timeline::{self, Timeline, TimelineGap};
use crate::error::Result;
use crate::mongo::MongoUri;
use crate::repository::Repository;

/// The part of the source's oplog behind the position below which a warning is logged.
const LITTLE: f64 = 0.25;

/// The archiver of a service.
pub(super) struct Archiving {
    endless: Endless<Archiver>,
    /// Held while the timeline is read: one request at a time reads everything.
    looking: tokio::sync::Mutex<()>,
}

struct Archiver {
    config: Config,
    repository: Repository,
    cx: Context,
    notices: Arc<Notices>,
    known: Mutex<Known>,
    hearing: Mutex<Hearing>,
}

impl Archiving {
    /// It does not run yet.
    pub(super) fn new((config, repository, cx): (Config, Repository, Context), notices: Arc<Notices>, engine: Handle) -> Self {
        let archiver = Archiver { config, repository, cx, notices, known: Mutex::default(), hearing: Mutex::default() };
        Self { endless: Endless::new(archiver, engine), looking: tokio::sync::Mutex::default() }
    }

    /// The state.
    pub(super) fn view(&self) -> ArchiveView {
        let archiver = &self.endless.work;
        lock(&archiver.known).view(archiver.config.pitr.enabled)
    }

    /// Whether it is about to follow the source, so that nobody else should archive it.
    pub(super) fn is_coming(&self) -> bool {
        lock(&self.endless.work.known).is_coming()
    }

    /// Which times can be restored, and what happened in them, from all archives of the repository.
    ///
    /// # Errors
    /// Those of [`timeline::look`];
    /// [`ErrorKind::Interrupted`](crate::error::ErrorKind::Interrupted) if the service ends
    /// meanwhile.
    pub(super) async fn timeline(&self) -> Result<Timeline> {
        let _looking = self.looking.lock().await;
        let archiver = &self.endless.work;
        let cx = archiver.cx.operation().cancelled_by(self.endless.end_of_service());
        timeline::look(&archiver.repository, true, &cx).await
    }

    /// Starts it, unless it runs. Does not wait until it follows the source.
    ///
    /// # Errors
    /// [`ErrorKind::NotConfigured`](crate::error::ErrorKind::NotConfigured) and
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) for the source's URI;
    /// [`ErrorKind::Closing`](crate::error::ErrorKind::Closing).
    pub(super) async fn start(&self) -> Result<()> {
        self.endless.start(self.endless.work.config.source()).await
    }

    /// Stops it in order: what the source has now becomes durable. Waits until it has ended.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`](crate::error::ErrorKind::Busy) if it does not end within a minute.
    pub(super) async fn stop(&self) -> Result<()> {
        self.endless.stop().await
    }

    /// Stops it for good.
    pub(super) async fn shut_down(&self, grace: Duration) {
        self.endless.shut_down(grace).await;
    }
}

impl Work for Archiver {
    type Order = MongoUri;
    const NAME: &'static str = "the archive";

    fn live<T>(&self, change: impl FnOnce(&mut Life) -> T) -> T {
        change(&mut lock(&self.known).life)
    }

    fn begin(&self) {
        lock(&self.known).status.state = ArchiveState::Starting;
        *lock(&self.hearing) = Hearing::default();
    }

    /// Runs the archiver once, and hears what it tells.
    async fn run(&self, source: &MongoUri, stop: &CancellationToken) -> Result<()> {
        let (sender, told) = archive::status();
        let cx = self.cx.operation().cancelled_by(stop.clone());
        let (source, repository, options) = (source.clone(), self.repository.clone(), self.options());
        let progress = cx.progress.clone();
        let work = async move { Box::pin(archive::run(&source, &repository, &options, &sender, &cx)).await };
        lock(&self.hearing).begin();
        heard(Self::NAME, work, told, |status| {
            for event in lock(&self.hearing).hear(status) {
                self.tell(event);
            }
            lock(&self.known).take(status);
            // Nobody shows them, and the events say the same.
            drop(progress.take_notes());
        })
        .await
    }
}

impl Archiver {
    fn options(&self) -> ArchiveOptions {
        let options = self.config.archive(Vec::new());
        // A sync applies what is durable.
        let age = if self.config.sync.enabled { AGE } else { options.age };
        ArchiveOptions { age, ..options }
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
