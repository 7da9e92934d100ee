//! `archive`: follows a source's oplog without end, and keeps every entry in the repository, where
//! it is durable within two seconds.
//!
//! One task follows the source. This one writes what comes, makes links of pieces by the
//! hour, tells about gaps, takes base backups, and removes what is out of the window.

mod base;
mod follow;
mod hold;
pub mod keep;
mod links;
mod options;
mod source;
mod status;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::base::Bases;
use self::follow::{Event, Follower};
use self::hold::Hold;
use self::links::{Done, Links};
pub use self::options::ArchiveOptions;
use self::source::no_oplog;
pub use self::source::{Identity, identity};
pub use self::status::{ArchiveReport, ArchiveState, ArchiveStatus, StatusSender};
use crate::clock;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::format::chain::{CHAIN_VERSION, ChainConfig, Gap};
use crate::format::frame::Compressors;
use crate::format::manifest::{ClusterTime, OplogPosition};
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri};
use crate::oplog::chain::PieceWriter;
use crate::oplog::chain::spans::{Part, Spans};
use crate::oplog::filter::Databases;
use crate::oplog::window;
use crate::repository::Repository;
use crate::repository::chain::ChainPlace;

/// The bytes of entries that are made durable at once, however young they are.
const BYTES: usize = 4 * 1024 * 1024;
/// How often to record that only entries came that are not kept.
const EMPTY: Duration = Duration::from_secs(10);
/// How often the state is told, and looked at.
const BEAT: Duration = Duration::from_secs(2);
/// The pause after the store failed.
const STORE_PAUSE: Duration = Duration::from_secs(5);
/// How many replies may wait to be written.
const WAITING: usize = 2;

/// Archives the oplog of `source` in `repository` until it is cancelled. Then everything that the
/// source had at that time is durable, unless it does not answer any more.
///
/// # Errors
/// [`ErrorKind::Refused`] for a source without an oplog; [`ErrorKind::Denied`] if the login may not
/// read it; [`ErrorKind::Busy`] if another process archives it; [`ErrorKind::Storage`];
/// [`ErrorKind::Unreachable`] if the source does not answer at the start; [`ErrorKind::Damaged`].
pub async fn run(
    source: &MongoUri,
    repository: &Repository,
    options: &ArchiveOptions,
    status: &StatusSender,
    cx: &Context,
) -> Result<ArchiveReport> {
    let opened = cx.unless_cancelled(Connection::open(source, ConnectOptions { pool: 1, selection_timeout: None })).await?;
    let begun = cx.unless_cancelled(Archive::begin(source, repository, options, status, &opened, cx)).await;
    let (archive, follower) = match begun {
        Ok(begun) => begun,
        Err(e) => {
            opened.close().await;
            return Err(e);
        }
    };
    // From here on, nothing is lost by a cancellation: it ends in order.
    Box::pin(archive.run(follower)).await
}

/// An archive that is being written.
struct Archive {
    place: ChainPlace,
    cx: Context,
    options: ArchiveOptions,
    writer: PieceWriter,
    hold: Hold,
    links: Links,
    bases: Bases,
    status: StatusSender,
    /// When the source's state was last told.
    beat: Instant,
    last_flush: Instant,
    entries: u64,
    gaps: u64,
}

impl Archive {
    /// Looks at the source and at what is archived, and says where to go on.
    async fn begin(
        source: &MongoUri,
        repository: &Repository,
        options: &ArchiveOptions,
        status: &StatusSender,
        connection: &Connection,
        cx: &Context,
    ) -> Result<(Self, Follower)> {
        let identity = identity(connection).await?;
        let oldest = window::reaches_back_to(connection).await.map_err(no_oplog)?;
        repository.identify().await?;
        let place = repository.chain(&identity.id);
        let hold = Hold::take(&place, status.clone()).await?;
        let config = config(&place, &identity, options).await?;
        status.change(|s| s.begin(&config, &place, oldest.into()));
        let compressors = Arc::new(Compressors::new(options.compression));
        let found = Spans::of(&place, &cx.cpu).await?;
        let databases = Databases::or_everything(config.databases.clone());
        // A base is later than where the last run of parts begins.
        let begins = found.as_ref().and_then(|found| Some(found.runs().last()?.from()));
        let (writer, position, links) = match found {
            Some(found) if !found.spans.is_empty() => {
                status.change(|s| s.found(&found));
                resume(&place, &found, options, &compressors, cx).await?
            }
            found => {
                let next =
                    found.and_then(|found| found.parts.archiver).and_then(|a| a.piece).map_or(0, |piece| piece.saturating_add(1));
                let time = match options.since.filter(|since| ClusterTime::from(oldest) < *since) {
                    Some(since) => since,
                    None => window::start(connection).await?.from.time,
                };
                let at = OplogPosition { time, term: None, digest: None };
                let writer = PieceWriter::new(place.clone(), (next, None), at, compressors.clone(), cx.cpu.clone());
                (writer, at, Links::new(&place, options, &compressors, Vec::new(), cx))
            }
        };
        let follower = Follower::new(source.clone(), identity.id, connection.clone(), databases, position.into());
        let bases = Bases::new((source, repository), &place, (options, config), begins.unwrap_or(position.time), cx);
        let now = Instant::now();
        let archive = Self {
            place,
            cx: cx.clone(),
            options: options.clone(),
            writer,
            hold,
            links,
            bases,
            status: status.clone(),
            beat: now,
            last_flush: now,
            entries: 0,
            gaps: 0,
        };
        Ok((archive, follower))
    }

    async fn run(mut self, follower: Follower) -> Result<ArchiveReport> {
        let stop = CancellationToken::new();
        let (sender, mut events) = mpsc::channel(WAITING);
        let following = tokio::spawn(follower.run(sender, self.cx.cancel.clone(), stop.clone()));
        let mut kept = self.keep(&mut events).await;
        stop.cancel();
        // A follower that waits for room is woken.
        events.close();
        let _ended = following.await;
        if kept.is_ok() {
            kept = self.flush().await;
        }
        self.bases.stop().await;
        if kept.as_ref().is_err_and(|e| e.kind() == ErrorKind::Busy) {
            // The archive is another process's now, with its heartbeat.
            self.links.give_up();
        } else {
            kept = kept.and(self.links.stop().await);
            self.tell(true).await;
        }
        kept?;
        Ok(ArchiveReport {
            path: self.place.location(),
            replica_set_id: self.place.id().to_owned(),
            entries: self.entries,
            gaps: self.gaps,
            reached: self.writer.durable().time,
        })
    }

    /// Writes what comes until the follower has ended.
    async fn keep(&mut self, events: &mut mpsc::Receiver<Event>) -> Result<()> {
        self.bases.consider(self.writer.durable().time, self.gap_to());
        loop {
            let due = self.due();
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take(event).await?,
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(due) => {}
                done = self.links.done() => self.linked(done?),
                () = self.bases.done() => {}
            }
            if Instant::now() >= self.due_to_flush() {
                self.flush_patiently().await?;
            }
            if self.beat.elapsed() >= BEAT {
                self.hold.confirm(&self.place).await?;
                self.tell(false).await;
                self.beat = Instant::now();
                self.bases.consider(self.writer.durable().time, self.gap_to());
            }
        }
    }

    async fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Entries(entries) => {
                self.writer.take(entries).await?;
                if self.writer.pending_bytes() >= BYTES {
                    self.flush_patiently().await?;
                }
            }
            Event::Through { time, oldest } => self.status.change(|s| s.through(time, oldest)),
            Event::Waiting(problem) => {
                if let Some(problem) = &problem {
                    self.cx.progress.note(format!("the archive waits for the source: {problem}"));
                }
                self.status.change(|s| s.waits(problem));
            }
            Event::Lost { reason, begin } => {
                self.flush_patiently().await?;
                self.lose(reason, begin).await?;
            }
        }
        Ok(())
    }

    /// A part of the oplog is lost: records it, durably, and goes on after it.
    async fn lose(&mut self, reason: String, begin: OplogPosition) -> Result<()> {
        let gap = Gap { from: self.writer.durable().time, to: begin.time, reason, found: clock::now() };
        let number = self.writer.next_number();
        while let Err(e) = self.writer.begin_after(gap.clone(), begin).await {
            self.wait_for_store(e).await?;
        }
        self.stored(number).await;
        self.tell_gap(gap);
        self.bases.consider(begin.time, self.gap_to());
        Ok(())
    }

    fn tell_gap(&mut self, gap: Gap) {
        self.gaps += 1;
        self.cx.progress.note(format!(
            "a gap in the archive of the oplog: it has nothing between {} and {}, because {}",
            gap.from, gap.to, gap.reason
        ));
        tracing::error!(from = %gap.from, to = %gap.to, "a gap in the archive of the oplog: {}", gap.reason);
        self.status.change(|s| s.gap(gap));
    }

    /// The end of the last gap: a base must be later.
    fn gap_to(&self) -> Option<ClusterTime> {
        self.status.get().gaps.last().map(|gap| gap.to)
    }

    fn linked(&mut self, done: Done) {
        let links = self.links.links();
        self.status.change(|s| s.linked(links));
        let Done::Made(gap) = done else { return };
        if let Some(gap) = gap {
            self.tell_gap(gap);
        }
        self.links.keep_window(&self.place, self.options.keep, self.bases.repository(), &self.cx);
    }

    fn due_to_flush(&self) -> Instant {
        match self.writer.pending_since() {
            Some(since) => since + self.options.age,
            None if self.writer.has_moved() => self.last_flush + EMPTY,
            None => Instant::now() + EMPTY,
        }
    }

    fn due(&self) -> Instant {
        self.due_to_flush().min(self.beat + BEAT)
    }

    /// Makes durable what came. While the store fails, it is tried again, and nothing new is taken.
    async fn flush_patiently(&mut self) -> Result<()> {
        loop {
            match self.flush().await {
                Err(e) => self.wait_for_store(e).await?,
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Waits a moment if the store failed.
    ///
    /// # Errors
    /// Any other failure; the store's once it is stopped.
    async fn wait_for_store(&mut self, failed: Error) -> Result<()> {
        if failed.kind() != ErrorKind::Storage || self.cx.cancel.is_cancelled() {
            return Err(failed);
        }
        self.cx.progress.note(format!("the archive cannot be written, and tries again: {failed}"));
        tracing::warn!("the archive cannot be written, and tries again: {failed}");
        self.status.change(|s| s.fails(&failed));
        self.hold.tell(&self.place, false).await;
        let pause = tokio::time::sleep(STORE_PAUSE);
        let _stopped = self.cx.cancel.run_until_cancelled(pause).await;
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        if !self.writer.has_moved() {
            return Ok(());
        }
        let number = self.writer.next_number();
        let entries = self.writer.pending_entries();
        self.writer.flush().await?;
        self.entries += entries;
        self.stored(number).await;
        Ok(())
    }

    /// A piece was stored.
    async fn stored(&mut self, number: u64) {
        self.last_flush = Instant::now();
        let position = self.writer.durable();
        let sha256 = self.writer.last_sha256().cloned();
        self.status.change(|s| s.durable(position.time, (number, sha256)));
        self.links.add(number, position);
        self.hold.tell(&self.place, false).await;
    }

    async fn tell(&mut self, ended: bool) {
        let links = self.links.links();
        self.status.change(|s| s.linked(links));
        let base = self.bases.running();
        self.status.change(|s| s.base = base);
        self.hold.tell(&self.place, ended).await;
    }
}

/// What the archive is of: as it was, or new.
async fn config(place: &ChainPlace, identity: &Identity, options: &ArchiveOptions) -> Result<ChainConfig> {
    let mut databases = options.databases.clone();
    databases.sort();
    databases.dedup();
    match place.config().await? {
        None => {
            let config = ChainConfig {
                format_version: CHAIN_VERSION,
                replica_set_id: identity.id.clone(),
                replica_set: identity.name.clone(),
                deployment_id: identity.deployment_id.clone(),
                created: clock::now(),
                databases,
                first: None,
            };
            place.set_config(&config).await?;
            Ok(config)
        }
        Some(config) if config.databases == databases => Ok(config),
        Some(config) => {
            let said = |names: &[String]| if names.is_empty() { "all databases".to_owned() } else { names.join(", ") };
            Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "the archive {} is of {}, and it is asked to be of {}",
                    place.location(),
                    said(&config.databases),
                    said(&databases)
                ),
            )
            .hint("archive the same databases, or use another path"))
        }
    }
}

/// Goes on after what is archived already.
async fn resume(
    place: &ChainPlace,
    found: &Spans,
    options: &ArchiveOptions,
    compressors: &Arc<Compressors>,
    cx: &Context,
) -> Result<(PieceWriter, OplogPosition, Links)> {
    let Some(last) = found.spans.last() else { return Err(Error::new(ErrorKind::Internal, "an archive holds nothing")) };
    let (number, sha256) = match &last.what {
        Part::Link(link) => (link.pieces.1, link.last_piece.clone()),
        Part::Piece(header, sha256) => (header.number, sha256.clone()),
    };
    for (key, problem) in &found.problems {
        cx.progress.note(format!("the archive of the oplog is damaged: {key}: {problem}"));
    }
    // Pieces that cannot be read come again from the source, if it still has those entries.
    let is_known =
        |number: &u64| found.spans.iter().any(|span| matches!(&span.what, Part::Piece(header, _) if header.number == *number));
    let unreadable: Vec<u64> = found.parts.pieces.iter().copied().filter(|n| *n > number && !is_known(n)).collect();
    let highest = unreadable.iter().copied().chain(found.parts.archiver.as_ref().and_then(|a| a.piece)).max();
    place.remove_pieces(unreadable).await?;
    let next = highest.map_or(number, |highest| highest.max(number)).saturating_add(1);
    let writer = PieceWriter::new(place.clone(), (next, Some(sha256)), last.to, compressors.clone(), cx.cpu.clone());
    let open = found.spans.iter().filter_map(|span| match &span.what {
        Part::Piece(header, _) => Some((header.number, span.to)),
        Part::Link(_) => None,
    });
    let mut links = Links::new(place, options, compressors, found.parts.links.clone(), cx);
    links.tidy(found.parts.leftovers.clone(), found.parts.rolled.clone()).await;
    for (number, to) in open {
        links.add(number, to);
    }
    Ok((writer, last.to, links))
}

/// The state of an archive, and a way to watch it.
#[must_use]
pub fn status() -> (StatusSender, watch::Receiver<ArchiveStatus>) {
    StatusSender::new()
}
