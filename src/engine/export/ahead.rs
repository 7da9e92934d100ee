//! Reads segments ahead: several are fetched, verified and decompressed at the same time, and
//! handed on in order.

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::context::cpu::{self, CpuPool};
use crate::context::memory::{MemoryBudget, MemoryPermit};
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Content;
use crate::format::frame;
use crate::format::manifest::Segment;
use crate::pipeline::read::SegmentReader;
use crate::repository::backend::Objects;
use crate::repository::catalog::Backup;

/// How many frames of a segment are in memory: one waiting, one being made, and one with the
/// consumer.
const COPIES: u64 = 3;

/// How many segments are under way at most, if the budget has room for them.
const SEGMENTS: usize = 4;

/// A frame, and the content of its segment up to its end.
type Frame = Result<(Vec<u8>, Content)>;

/// Segments under way. Dropping it stops the reading.
pub(super) struct Ahead {
    segments: mpsc::Receiver<mpsc::Receiver<Frame>>,
    _feeder: AbortOnDropHandle<()>,
}

/// A segment, frame by frame.
pub(super) struct Frames {
    frames: mpsc::Receiver<Frame>,
    content: Content,
    over: bool,
}

impl Ahead {
    /// Starts to read these segments, in this order.
    pub(super) fn start(backup: &Backup, segments: Vec<Segment>, budget: &MemoryBudget, cpu: &CpuPool) -> Self {
        let (store, budget, cpu) = (backup.store.clone(), budget.clone(), cpu.clone());
        // Beside the one being consumed, and the one waiting for its share.
        let (handed_on, taken) = mpsc::channel(cpu::cores().clamp(1, SEGMENTS - 2));
        let feeder = tokio::spawn(async move {
            let mut readers = tokio::task::JoinSet::new();
            for segment in segments {
                let share = budget.take(segment.object.bytes + COPIES * frame::TARGET as u64).await;
                let (frames, waiting) = mpsc::channel(1);
                readers.spawn(read(store.clone(), segment, share, cpu.clone(), frames));
                if handed_on.send(waiting).await.is_err() {
                    return;
                }
                while readers.try_join_next().is_some() {}
            }
            while readers.join_next().await.is_some() {}
        });
        Self { segments: taken, _feeder: AbortOnDropHandle::new(feeder) }
    }

    /// The next segment. None after the last one.
    pub(super) async fn next_segment(&mut self) -> Option<Frames> {
        let frames = self.segments.recv().await?;
        Some(Frames { frames, content: Content::default(), over: false })
    }

    /// The next segment, if there must be one.
    pub(super) async fn expected(&mut self) -> Result<Frames> {
        let next = self.next_segment().await;
        next.ok_or_else(|| Error::new(ErrorKind::Internal, "reading ahead ended before its end"))
    }
}

impl Frames {
    /// The next frame. None once the whole segment is verified.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        match self.frames.recv().await {
            Some(Ok((frame, content))) => {
                self.content = content;
                // The last frame has no documents. It says that all of them are verified.
                self.over = frame.is_empty();
                Ok((!self.over).then_some(frame))
            }
            Some(Err(e)) => Err(e),
            None if self.over => Ok(None),
            None => Err(Error::new(ErrorKind::Internal, "reading a segment ended before its end")),
        }
    }

    /// What was read so far.
    pub(super) fn content(&self) -> Content {
        self.content
    }
}

async fn read(store: Objects, segment: Segment, share: MemoryPermit, cpu: CpuPool, frames: mpsc::Sender<Frame>) {
    if let Err(e) = hand_on(&store, &segment, share, &cpu, &frames).await {
        // If nobody receives frames any more, nobody needs the error.
        let _taken = frames.send(Err(e)).await;
    }
}

async fn hand_on(
    store: &Objects,
    segment: &Segment,
    mut share: MemoryPermit,
    cpu: &CpuPool,
    frames: &mpsc::Sender<Frame>,
) -> Result<()> {
    let mut reader = SegmentReader::open(store, segment, cpu).await?;
    let mut largest = frame::TARGET;
    while let Some(frame) = reader.next().await? {
        if frame.len() > largest {
            largest = frame.len();
            share.resize(segment.object.bytes + COPIES * largest as u64);
        }
        if frames.send(Ok((frame, *reader.content()))).await.is_err() {
            return Ok(());
        }
    }
    // The segment's bytes are no longer needed: release most of its share.
    let content = *reader.content();
    drop(reader);
    share.resize(COPIES * largest as u64);
    let _taken = frames.send(Ok((Vec::new(), content))).await;
    Ok(())
}
