//! Takes base backups by itself: when there is none that the archive can be replayed on, and when
//! replaying would take too long.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::options::ArchiveOptions;
use crate::clock;
use crate::context::Context;
use crate::context::progress::Progress;
use crate::engine::backup::{self, BackupOptions, BackupReport};
use crate::engine::bases::{self, Base};
use crate::error::{ErrorKind, Result};
use crate::format::chain::{ChainConfig, ReplayRate};
use crate::format::manifest::ClusterTime;
use crate::mongo::MongoUri;
use crate::repository::Repository;
use crate::repository::catalog::{Catalog, State};
use crate::repository::chain::ChainPlace;

/// The job that the heartbeat of a base backup names.
const JOB: &str = "archive";
/// How often to look whether a base is needed.
const LOOK: Duration = Duration::from_secs(60);
/// The pause after a base could not be taken.
const PAUSE: Duration = Duration::from_secs(15);
/// The pause after a backup that turned out to be no base.
const LONG_PAUSE: Duration = Duration::from_secs(600);

/// Takes base backups.
pub(super) struct Bases {
    source: MongoUri,
    repository: Repository,
    place: ChainPlace,
    options: Option<BackupOptions>,
    archive: ChainConfig,
    /// Where the last run of parts began when this began.
    begins: ClusterTime,
    max_replay: Duration,
    cx: Context,
    stop: CancellationToken,
    work: Option<JoinHandle<Result<Option<BackupReport>>>>,
    /// When to look again.
    look: Instant,
    /// The gap after which a base was asked for.
    after: Option<ClusterTime>,
    /// The progress of what is being taken.
    progress: Progress,
}

impl Bases {
    /// For an archive whose last run of parts begins at this time.
    pub(super) fn new(
        (source, repository): (&MongoUri, &Repository),
        place: &ChainPlace,
        (options, archive): (&ArchiveOptions, ChainConfig),
        begins: ClusterTime,
        cx: &Context,
    ) -> Self {
        let stop = cx.cancel.child_token();
        Self {
            source: source.clone(),
            repository: repository.clone(),
            place: place.clone(),
            options: options.bases.clone().map(|options| BackupOptions {
                job: Some(JOB.to_owned()),
                is_background: true,
                allow_empty: true,
                ..options
            }),
            archive,
            begins,
            max_replay: options.max_replay,
            // Its progress is its own: what an archive tells is not about documents.
            cx: cx.operation().cancelled_by(stop.clone()),
            stop,
            work: None,
            look: Instant::now(),
            after: None,
            progress: Progress::default(),
        }
    }

    pub(super) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The name of the base that is being taken, once it has one.
    pub(super) fn running(&self) -> Option<String> {
        self.work.as_ref().and_then(|_| self.progress.backup()).map(ToString::to_string)
    }

    /// Begins a base backup if one is needed. `after` is the end of the last gap.
    pub(super) fn consider(&mut self, position: ClusterTime, after: Option<ClusterTime>) {
        let Some(options) = self.options.clone() else { return };
        let is_new_gap = after > self.after;
        if self.work.is_some() || (!is_new_gap && Instant::now() < self.look) {
            return;
        }
        (self.look, self.after) = (Instant::now() + LOOK, after);
        // Each base has a progress of its own.
        let cx = self.cx.operation();
        self.progress = cx.progress.clone();
        let work = Work {
            source: self.source.clone(),
            repository: self.repository.clone(),
            place: self.place.clone(),
            archive: self.archive.clone(),
            begins: self.begins,
            max_replay: self.max_replay,
            cx,
        };
        self.work = Some(tokio::spawn(async move { Box::pin(work.run(options, position, after)).await }));
    }

    /// Waits for the base backup that is being taken, for ever if there is none.
    pub(super) async fn done(&mut self) {
        let Some(work) = &mut self.work else { return std::future::pending().await };
        let done = work.await;
        self.work = None;
        match done {
            Ok(Ok(Some(report))) => {
                tracing::info!("a base backup was taken for the archive: {}", report.name);
                if let Err(why) = Base::of(&report.manifest, &self.archive) {
                    tracing::warn!("the archive cannot be replayed on the backup {}: {why}", report.name);
                    self.look = Instant::now() + LONG_PAUSE;
                }
            }
            Ok(Ok(None)) => {}
            Ok(Err(e)) => {
                if e.kind() != ErrorKind::Interrupted {
                    tracing::warn!("a base backup for the archive could not be taken, and will be tried again: {e}");
                }
                self.look = Instant::now() + PAUSE;
            }
            Err(e) => {
                tracing::error!("the task that takes base backups died: {e}");
                self.look = Instant::now() + PAUSE;
            }
        }
    }

    /// Stops what is being taken, and waits until it has ended.
    pub(super) async fn stop(&mut self) {
        self.stop.cancel();
        if self.work.is_some() {
            self.done().await;
        }
    }
}

impl Drop for Bases {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Work {
    source: MongoUri,
    repository: Repository,
    place: ChainPlace,
    archive: ChainConfig,
    begins: ClusterTime,
    max_replay: Duration,
    cx: Context,
}

impl Work {
    async fn run(
        self,
        options: BackupOptions,
        position: ClusterTime,
        after: Option<ClusterTime>,
    ) -> Result<Option<BackupReport>> {
        self.tidy().await?;
        if !self.is_needed(position, after).await? {
            return Ok(None);
        }
        backup::run(&self.source, &self.repository, &options, &self.cx).await.map(Some)
    }

    /// Whether no base is there from which the position can be reached in time.
    async fn is_needed(&self, position: ClusterTime, after: Option<ClusterTime>) -> Result<bool> {
        let bases = bases::bases(&self.repository, &self.archive, &self.cx).await?;
        let Some(parts) = self.place.parts().await? else { return Ok(false) };
        let begin = after.max(parts.links.first().map(|link| link.from.time)).max(Some(self.begins));
        let usable = bases.iter().rfind(|base| base.is_whole && Some(base.from.time) >= begin);
        let Some(newest) = usable else {
            // One that is being taken by somebody else will do.
            let running = Catalog::new(self.repository.clone(), &self.cx.cpu).running(clock::now()).await?;
            return Ok(running.is_empty());
        };
        let since = parts.links.iter().filter(|link| link.to.time > newest.moment);
        let entries: u64 = since.map(|link| link.entries).sum();
        let seconds = ReplayRate::seconds(self.place.rate().await, entries);
        Ok(position > newest.moment && seconds > self.max_replay.as_secs())
    }

    /// Removes the bases that an archiver began and did not finish.
    async fn tidy(&self) -> Result<()> {
        let (catalog, now) = (Catalog::new(self.repository.clone(), &self.cx.cpu), clock::now());
        for summary in catalog.list(now).await? {
            let is_ours =
                matches!(&summary.state, State::Incomplete) && catalog.job_of(&summary.name).await.as_deref() == Some(JOB);
            if is_ours {
                catalog.delete(&summary, now).await?;
            }
        }
        Ok(())
    }
}
