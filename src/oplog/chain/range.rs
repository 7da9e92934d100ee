//! Reads every entry of an archive from one time to another, in order, and proves that none is
//! missing: each part follows on the one before it, and holds what its manifest or header counts.

use std::sync::Arc;

use super::roll::{entries, open_piece};
use super::spans::{Part, Span, Spans};
use crate::context::cpu::CpuPool;
use crate::error::{Error, ErrorKind, Result};
use crate::format::chain::{FrameRecord, IndexRecord, Link};
use crate::format::document::Documents;
use crate::format::frame;
use crate::format::manifest::{ClusterTime, OplogPosition, Segment};
use crate::oplog::{Head, Position};
use crate::pipeline::read::SegmentReader;
use crate::repository::backend::Objects;
use crate::repository::chain::ChainPlace;

/// The bytes of entries that are returned at once, at least, if there are more.
const ENOUGH: usize = 1024 * 1024;

/// The entries of an archive from one time to another, both included.
#[derive(Debug, Clone)]
pub struct ChainRange {
    place: ChainPlace,
    spans: Arc<[Span]>,
    from: ClusterTime,
    to: ClusterTime,
    /// The entry that must be at `from`, if it is known.
    anchor: Option<OplogPosition>,
    /// Whether the archive has every entry, so that the anchor must be in it.
    is_of_everything: bool,
}

impl ChainRange {
    /// The entries of an archive from `from` on, and up to `to`, if it has reached `reach`. If the
    /// entry at `from` is known from somewhere else, the archive must have the same one.
    ///
    /// # Errors
    /// Those of [`Spans::run`].
    pub fn of(place: &ChainPlace, found: &Spans, from: OplogPosition, (to, reach): (ClusterTime, ClusterTime)) -> Result<Self> {
        let run = found.run(from.time, reach)?;
        let needed = run.spans.iter().filter(|span| span.to.time >= from.time && span.from.time <= to);
        Ok(Self {
            place: place.clone(),
            spans: needed.cloned().collect(),
            from: from.time,
            to,
            anchor: from.digest.is_some().then_some(from),
            is_of_everything: found.parts.config.databases.is_empty(),
        })
    }

    /// Its first time.
    #[must_use]
    pub fn from(&self) -> ClusterTime {
        self.from
    }

    /// Its last time.
    #[must_use]
    pub fn to(&self) -> ClusterTime {
        self.to
    }

    /// The links and pieces that it is read from.
    #[must_use]
    pub fn parts(&self) -> &[Span] {
        &self.spans
    }

    /// The number of entries of its parts, and their bytes: at least as many as it has.
    #[must_use]
    pub fn content(&self) -> (u64, u64) {
        self.spans.iter().map(|span| span.what.content()).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1))
    }

    /// The most stored bytes that are in memory while it is read, beside a frame.
    #[must_use]
    pub fn needed_bytes(&self) -> u64 {
        let of = |span: &Span| match &span.what {
            Part::Link(link) => link.segments.iter().map(|s| s.object.bytes).max().unwrap_or(0),
            // All its frames are decoded at once.
            Part::Piece(header, _) => 2 * header.bytes,
        };
        self.spans.iter().map(of).max().unwrap_or(0)
    }

    /// Reads it from its start.
    #[must_use]
    pub fn reader(&self, cpu: &CpuPool) -> ChainReader {
        ChainReader {
            range: self.clone(),
            cpu: cpu.clone(),
            next: 0,
            reading: Reading::Nothing,
            last: None,
            anchored: self.anchor.is_none() || !self.is_of_everything,
            wanted: None,
            gathered: None,
        }
    }

    /// The same without segments in which no frame is wanted, as far as the index tells.
    #[must_use]
    pub fn reader_of(&self, cpu: &CpuPool, wanted: WantedFrames) -> ChainReader {
        ChainReader { anchored: true, wanted: Some(wanted), ..self.reader(cpu) }
    }
}

/// Whether a frame is wanted.
pub type WantedFrames = Arc<dyn Fn(&FrameRecord) -> bool + Send + Sync>;

/// What a reader has open.
enum Reading {
    Nothing,
    Link { segments: std::vec::IntoIter<Segment>, name: String, reader: Option<Box<SegmentReader>> },
    Frames(std::vec::IntoIter<Vec<u8>>),
}

/// Reads a range, frame by frame.
pub struct ChainReader {
    range: ChainRange,
    cpu: CpuPool,
    next: usize,
    reading: Reading,
    /// The time of the last entry.
    last: Option<ClusterTime>,
    /// Whether the entry at the range's start was found, if it must be.
    anchored: bool,
    wanted: Option<WantedFrames>,
    /// What was read already and is returned next.
    gathered: Option<Vec<u8>>,
}

impl std::fmt::Debug for ChainReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainReader").field("range", &self.range).field("last", &self.last).finish_non_exhaustive()
    }
}

impl ChainReader {
    /// The next entries, whole documents; `None` after the last one.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] or [`ErrorKind::NotFound`] if a part is not what it was;
    /// [`ErrorKind::Storage`].
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        // The frames of pieces are small: several become one.
        let mut gathered = self.gathered.take().unwrap_or_default();
        loop {
            match self.frame().await.map_err(|e| e.context("the archive of the oplog"))? {
                Some(frame) => {
                    let kept = self.within(frame).await?;
                    if gathered.is_empty() {
                        gathered = kept;
                    } else if gathered.len() + kept.len() > frame::TARGET {
                        self.gathered = Some(kept);
                        return Ok(Some(gathered));
                    } else {
                        gathered.extend(kept);
                    }
                    if gathered.len() >= ENOUGH {
                        return Ok(Some(gathered));
                    }
                }
                None if self.next < self.range.spans.len() => self.open().await?,
                None if !self.anchored => return Err(self.another_history()),
                None => return Ok((!gathered.is_empty()).then_some(gathered)),
            }
        }
    }

    /// The next frame of what is open.
    async fn frame(&mut self) -> Result<Option<Vec<u8>>> {
        match &mut self.reading {
            Reading::Nothing => Ok(None),
            Reading::Frames(frames) => Ok(frames.next()),
            Reading::Link { segments, name, reader } => loop {
                if let Some(open) = reader
                    && let Some(frame) = open.next().await.map_err(|e| e.context(&*name))?
                {
                    return Ok(Some(frame));
                }
                let Some(segment) = segments.next() else { return Ok(None) };
                let store = self.range.place.link(name);
                *reader = Some(Box::new(SegmentReader::open(&store, &segment, &self.cpu).await.map_err(|e| e.context(&*name))?));
            },
        }
    }

    /// Opens the next part. A piece that became part of a link meanwhile is read from there.
    async fn open(&mut self) -> Result<()> {
        let span = self.range.spans[self.next].clone();
        self.next += 1;
        self.reading = match span.what {
            Part::Link(link) => self.link(*link).await?,
            Part::Piece(header, sha256) => match open_piece(&self.range.place, header.number, &self.cpu).await {
                Ok(piece) if piece.sha256 != sha256 => {
                    return Err(Error::damaged(format!("piece {} of the archive of the oplog has changed", header.number)));
                }
                Ok(piece) => Reading::Frames(entries(piece, &self.cpu).await?.1.into_iter()),
                Err(e) if e.kind() == ErrorKind::NotFound => self.rolled(header.number, e).await?,
                Err(e) => return Err(e.context("the archive of the oplog")),
            },
        };
        Ok(())
    }

    /// The link that a piece became part of. What of it was read already is skipped by its times.
    async fn rolled(&mut self, number: u64, missing: Error) -> Result<Reading> {
        let parts = self.range.place.parts().await?;
        let links = parts.map(|parts| parts.links).unwrap_or_default();
        let Some(link) = links.into_iter().find(|link| (link.pieces.0..=link.pieces.1).contains(&number)) else {
            return Err(missing.context("the archive of the oplog"));
        };
        // The pieces after it that are part of the same link.
        while let Some(Part::Piece(next, _)) = self.range.spans.get(self.next).map(|span| &span.what)
            && next.number <= link.pieces.1
        {
            self.next += 1;
        }
        self.link(link).await
    }

    /// The segments of a link that are wanted.
    async fn link(&self, link: Link) -> Result<Reading> {
        let mut segments = link.segments;
        if let Some(wanted) = &self.wanted {
            let store = self.range.place.link(&link.name);
            let mut frames = index(&store, &link.index, &self.cpu).await.map_err(|e| e.context(&link.name))?.into_iter();
            let mut frames = std::iter::from_fn(|| {
                frames.by_ref().find_map(|record| if let IndexRecord::Frame(frame) = record { Some(frame) } else { None })
            });
            segments.retain(|segment| (0..segment.frames).fold(false, |any, _| any | frames.next().is_none_or(|f| wanted(&f))));
        }
        Ok(Reading::Link { segments: segments.into_iter(), name: link.name, reader: None })
    }

    /// The entries of a frame that are in the range, and were not read before.
    async fn within(&mut self, frame: Vec<u8>) -> Result<Vec<u8>> {
        let (from, to, mut last, anchor) = (self.range.from, self.range.to, self.last, self.range.anchor);
        let sorted = self.cpu.run(move || {
            // What is wanted is without a break, because the times ascend.
            let (mut wanted, mut found, mut before, mut at) = (0..0, None, None, 0);
            for entry in Documents::of(&frame) {
                let entry = entry?;
                let time = Head::of(entry)?.time;
                if before.is_some_and(|before| before >= time) {
                    return Err(Error::damaged(format!("the entry at {time} comes after a later one")));
                }
                before = Some(time);
                if let Some(anchor) = anchor.filter(|anchor| anchor.time == time) {
                    found = Some(OplogPosition::from(Position::of(entry)?) == anchor);
                }
                if time >= from && time <= to && last.is_none_or(|last| time > last) {
                    if wanted.is_empty() {
                        wanted.start = at;
                    }
                    wanted.end = at + entry.len();
                    last = Some(time);
                }
                at += entry.len();
            }
            let kept = if wanted == (0..frame.len()) { frame } else { frame[wanted].to_vec() };
            Ok((kept, last, found))
        });
        let (kept, last, found) = sorted.await.map_err(|e| e.context("the archive of the oplog"))?;
        self.last = last;
        match found {
            Some(false) => return Err(self.another_history()),
            Some(true) => self.anchored = true,
            None => {}
        }
        Ok(kept)
    }

    fn another_history(&self) -> Error {
        let time = self.range.from;
        Error::new(
            ErrorKind::Refused,
            format!("the backup does not belong to the archive of the oplog: at {time}, the archive has another entry, or none"),
        )
        .hint("the source was restored or rolled back between them; choose another backup")
    }
}

/// The index of a link.
///
/// # Errors
/// Those of reading a segment; [`ErrorKind::Damaged`].
pub async fn index(store: &Objects, segment: &Segment, cpu: &CpuPool) -> Result<Vec<IndexRecord>> {
    let mut reader = SegmentReader::open(store, segment, cpu).await?;
    let mut records = Vec::new();
    while let Some(frame) = reader.next().await? {
        records.extend(cpu.run(move || IndexRecord::all_in(&frame)).await?);
    }
    Ok(records)
}
