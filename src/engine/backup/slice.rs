//! Keeps a slice of the oplog while the data are read, in case they are not all read at one
//! snapshot time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::archived::{Archived, Instead};
use super::failure::is_resumable;
use super::plan::BackupContext;
use super::run::Run;
use crate::context::lock;
use crate::context::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::OplogStep;
use crate::format::digest::Content;
use crate::format::key;
use crate::format::manifest::{ConsistencyKind, OplogPosition, OplogSlice, Segment};
use crate::oplog::Position;
use crate::oplog::filter::Databases;
use crate::oplog::tail::{Next, Tail};
use crate::oplog::window::Start;
use crate::pipeline::write::{CollectionWriter, RangeWriter, Sizes};
use crate::repository::checkpoint::Durable;
use crate::repository::lock::heartbeat::HeartbeatState;

/// How long to wait between two pieces.
const PAUSE: Duration = Duration::from_secs(1);

/// How often entries are made durable, at first and after hours.
const SHORTEST_NOTE: Duration = Duration::from_secs(5);
const LONGEST_NOTE: Duration = Duration::from_secs(60);

/// About the most stored bytes of a segment of the slice.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// A slice that is being kept, until [`Slice::finish`] or [`Slice::end`].
pub(super) struct Slice {
    start: Start,
    reliance: Arc<Reliance>,
    until: watch::Sender<Option<Timestamp>>,
    end: CancellationToken,
    task: JoinHandle<Result<Ending>>,
}

/// The slice of a running backup: kept, ended, or never begun.
pub(super) struct RunningSlice(Option<Slice>);

impl RunningSlice {
    pub(super) fn of(slice: Option<Slice>) -> Self {
        Self(slice)
    }

    /// The slice, while it is being kept.
    pub(super) fn get(&self) -> Option<&Slice> {
        self.0.as_ref()
    }

    /// Like [`Slice::finish`]. The slice is over afterward in any case.
    ///
    /// # Errors
    /// Those of [`Slice::finish`].
    pub(super) async fn finish(&mut self, to: Timestamp, may_leave: bool) -> Result<OplogSlice> {
        let slice = self.0.as_mut().ok_or_else(|| Error::new(ErrorKind::Internal, "the oplog slice has already ended"))?;
        let finished = slice.finish(to, may_leave).await;
        self.0 = None;
        finished
    }

    /// Ends the slice if it is still being kept. What is stored of it stays for a backup that is
    /// resumed, or is removed.
    ///
    /// # Errors
    /// Those of [`Slice::end`].
    pub(super) async fn end(&mut self, leaves: bool) -> Result<()> {
        match self.0.take() {
            Some(slice) => slice.end(leaves).await,
            None => Ok(()),
        }
    }
}

/// How keeping a slice ended.
enum Ending {
    /// It was finished.
    Kept(Kept),
    /// It was stopped, with what is stored of it.
    Stopped(Box<Keeping>),
    /// It is lost, and nothing stored is left.
    Lost,
}

/// What an interrupted backup stored of its slice, and whether the backup needs it.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    pub(super) step: Option<OplogStep>,
    pub(super) is_needed: bool,
}

/// What the task that keeps a slice returns.
struct Kept {
    segments: Vec<Segment>,
    to: Timestamp,
}

/// Whether a backup needs its slice, and whether it can rely on it.
#[derive(Debug, Default)]
pub(super) struct Reliance {
    inner: Mutex<Standing>,
    /// Cancelled once the slice is lost although the backup needs it.
    failed: CancellationToken,
}

#[derive(Debug, Default)]
struct Standing {
    needed: bool,
    lost: Option<Error>,
}

impl Reliance {
    /// Marks the slice as needed. False if it is lost, so that nothing can rely on it.
    pub(super) fn rely(&self) -> bool {
        let mut standing = self.lock();
        standing.needed |= standing.lost.is_none();
        standing.lost.is_none()
    }

    /// Whether the backup needs it.
    pub(super) fn is_needed(&self) -> bool {
        self.lock().needed
    }

    /// Why it is lost, if it is.
    pub(super) fn why_lost(&self) -> Option<String> {
        self.lock().lost.as_ref().map(ToString::to_string)
    }

    /// Waits until the slice is lost although the backup needs it, and returns the reason.
    pub(super) async fn failed(&self) -> Error {
        self.failed.cancelled().await;
        let lost = self.lock().lost.take();
        lost.unwrap_or_else(|| Error::new(ErrorKind::SnapshotLost, "the oplog slice is lost"))
    }

    fn lose(&self, error: Error) {
        let mut standing = self.lock();
        standing.lost = Some(error);
        if standing.needed {
            self.failed.cancel();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Standing> {
        lock(&self.inner)
    }
}

impl Slice {
    /// Starts to keep everything from `start` on, or goes on after what is stored already.
    pub(super) fn begin(start: Start, earlier: Earlier, context: &BackupContext, run: &Run<'_>) -> Self {
        let Run { place, state, durable, archived, cx } = *run;
        let writer = CollectionWriter::new(
            place.clone(),
            key::OPLOG.to_owned(),
            context.compressors.clone(),
            Sizes::of_segments(usize::try_from(context.settings.segment_bytes.min(SEGMENT_BYTES)).unwrap_or(usize::MAX)),
            context.cpu.clone(),
            // The progress does not count it.
            Progress::default().item(key::OPLOG, 0, 0),
        );
        let (until, end, reliance) = (watch::Sender::new(None), cx.cancel.child_token(), Arc::new(Reliance::default()));
        if earlier.is_needed || context.kind == ConsistencyKind::Oplog {
            reliance.rely();
        }
        let mut position = Position::before(start.from.time);
        let mut writing = writer.range();
        let mut recorded = 0;
        // What is stored already of a slice is gone on with as it was begun.
        let archived = archived.filter(|_| earlier.step.is_none()).cloned();
        if let Some(OplogStep { position: at, seen, segments }) = earlier.step {
            let numbered = |s: Segment| Some((key::segment_number(key::OPLOG, &s.object.key)?, s));
            let segments: Vec<_> = segments.into_iter().filter_map(numbered).collect();
            position = if seen { Position::at(at) } else { Position::before(at) };
            recorded = segments.len();
            writer.number_from(segments.iter().map(|(number, _)| number + 1).max().unwrap_or(0));
            writing.adopt(segments);
        }
        let databases = Databases::of(context.settings.databases.clone());
        let keeping = Keeping {
            tail: Tail::new(context.connection.clone(), databases.clone(), position, start.since),
            archived: archived.map(|archived| (archived, start.from.into(), databases)),
            position,
            writer: writing,
            recorded,
            durable: durable.clone(),
            until: until.subscribe(),
            reliance: reliance.clone(),
            state: state.clone(),
            progress: cx.progress.clone(),
            end: end.clone(),
        };
        let task = tokio::spawn(keeping.run());
        Self { start, reliance, until, end, task }
    }

    /// How far a backup relies on it.
    pub(super) fn reliance(&self) -> &Arc<Reliance> {
        &self.reliance
    }

    /// Where it begins.
    pub(super) fn start(&self) -> Start {
        self.start
    }

    /// The earliest time of a listing to which the slice belongs.
    pub(super) fn since(&self) -> Timestamp {
        self.start.since
    }

    /// Reads on to `to` or a little later, and returns the whole slice, durable. If that fails,
    /// what is stored may stay for a backup that is resumed.
    ///
    /// # Errors
    /// Those of [`Tail::next`], including earlier ones.
    pub(super) async fn finish(&mut self, to: Timestamp, may_leave: bool) -> Result<OplogSlice> {
        self.until.send_replace(Some(to));
        let Kept { segments, to } = match (&mut self.task).await.map_err(died)?? {
            Ending::Kept(kept) => kept,
            ending => {
                if let (Ending::Stopped(mut keeping), false) = (ending, may_leave) {
                    keeping.writer.restart().await?;
                }
                let lost = self.reliance.lock().lost.take();
                return Err(lost.unwrap_or_else(Error::interrupted));
            }
        };
        let content: Content = segments.iter().map(Segment::content).sum();
        Ok(OplogSlice {
            from: self.start.from.time,
            to: to.into(),
            documents: content.documents,
            bytes: content.bytes,
            digest: content.digest(),
            segments,
        })
    }

    /// Stops. The entries read so far stay, durable, for a backup that is resumed, or are removed.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    async fn end(self, leaves: bool) -> Result<()> {
        self.end.cancel();
        match self.task.await.map_err(died)?? {
            Ending::Stopped(mut keeping) if leaves => keeping.note().await,
            Ending::Stopped(mut keeping) => keeping.writer.restart().await,
            Ending::Kept(_) | Ending::Lost => Ok(()),
        }
    }
}

/// The work of the task.
struct Keeping {
    tail: Tail,
    /// An archive that has the entries anyway, and from where on they are needed.
    archived: Option<(Archived, OplogPosition, Databases)>,
    /// The position up to which entries were handed to the writer.
    position: Position,
    writer: RangeWriter,
    /// How many of its segments the checkpoint holds.
    recorded: usize,
    durable: Arc<Durable>,
    until: watch::Receiver<Option<Timestamp>>,
    reliance: Arc<Reliance>,
    state: Arc<HeartbeatState>,
    progress: Progress,
    end: CancellationToken,
}

impl Keeping {
    async fn run(mut self) -> Result<Ending> {
        let error = match self.keep().await {
            Ok(kept) => return Ok(Ending::Kept(kept)),
            Err(error) => error,
        };
        self.state.oplog_at(None);
        // Segments that a resumed backup may use stay until the owner of the slice says otherwise.
        if self.end.is_cancelled() || is_resumable(&error) && self.reliance.is_needed() {
            if error.kind() != ErrorKind::Interrupted {
                self.reliance.lose(error);
            }
            return Ok(Ending::Stopped(Box::new(self)));
        }
        let removed = self.writer.restart().await;
        self.progress.note(format!("the oplog is no longer kept: {error}"));
        self.reliance.lose(error);
        removed.map(|()| Ending::Lost)
    }

    /// Makes the entries read so far durable, and records them in the checkpoint.
    async fn note(&mut self) -> Result<()> {
        let segments = self.writer.flush(self.recorded).await?;
        self.recorded += segments.len();
        self.durable.oplog(OplogStep { position: self.position.time, seen: self.position.has_entry(), segments });
        Ok(())
    }

    /// Writes the entries of the next piece: up to `until`, or as far as the source says that it
    /// is. Returns the time that it reached.
    async fn piece(&mut self, until: Option<Timestamp>) -> Result<Timestamp> {
        loop {
            match self.tail.next(until, &self.end).await? {
                Next::Through(time) => return Ok(time),
                Next::Entries(entries) => {
                    let position = entries.position;
                    if !entries.is_empty() {
                        self.writer.write(entries).await?;
                    }
                    self.position = position;
                }
            }
        }
    }

    /// Takes the slice from an archive of the source. `None` if the source must be read instead.
    async fn take_archived(&mut self) -> Result<Option<Kept>> {
        let Some((archived, from, databases)) = self.archived.take() else { return Ok(None) };
        match archived.write(from, &mut self.until, &databases, &mut self.writer, &self.end).await {
            Ok(to) => {
                let segments = self.writer.finish().await?.into_iter().map(|(_, segment)| segment).collect();
                Ok(Some(Kept { segments, to }))
            }
            Err(Instead::Failed(error)) => Err(error),
            Err(Instead::Source(why)) => {
                tracing::info!("the oplog slice is read from the source, and not from the archive: {why}");
                self.writer.restart().await?;
                Ok(None)
            }
        }
    }

    async fn keep(&mut self) -> Result<Kept> {
        if let Some(kept) = self.take_archived().await? {
            return Ok(kept);
        }
        let (begun, mut noted) = (Instant::now(), Instant::now());
        loop {
            let until = *self.until.borrow_and_update();
            let to = self.piece(until).await?;
            self.state.oplog_at(Some(to.into()));
            // Less often the longer it takes. Otherwise a slice of many hours would consist of
            // thousands of pieces.
            if until.is_some() || noted.elapsed() > (begun.elapsed() / 20).clamp(SHORTEST_NOTE, LONGEST_NOTE) {
                self.note().await?;
                noted = Instant::now();
            }
            if until.is_some() {
                let segments = self.writer.finish().await?.into_iter().map(|(_, segment)| segment).collect();
                return Ok(Kept { segments, to });
            }
            tokio::select! {
                () = self.end.cancelled() => return Err(Error::interrupted()),
                // If nobody can set the end any more, it is over.
                changed = self.until.changed() => changed.map_err(|_| Error::interrupted())?,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

fn died(cause: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "the task that keeps the oplog died").cause(cause)
}
