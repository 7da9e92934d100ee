//! Follows an archive without end: what it holds already, and each piece as soon as it is durable.

use super::range::{ChainRange, ChainReader};
use super::roll::{self, open_piece};
use super::spans::{Spans, gap_error};
use crate::context::cpu::CpuPool;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Sha256Hex;
use crate::format::document::Documents;
use crate::format::manifest::{ClusterTime, OplogPosition};
use crate::oplog::{Head, Position};
use crate::repository::chain::ChainPlace;

/// Reads the entries of an archive from a position on, in order, and goes on as it grows.
#[derive(Debug)]
pub struct ChainFollower {
    place: ChainPlace,
    cpu: CpuPool,
    /// Where to read from: the entry there is read again.
    from: ClusterTime,
    /// An entry that the archive must have: what is applied already ends there.
    anchor: Option<OplogPosition>,
    /// The last entry that was returned.
    last: Option<OplogPosition>,
    /// What is read, and the end of the archive when that began.
    reading: Option<(Box<ChainReader>, Tip)>,
    /// The last part that was read to its end.
    tip: Option<Tip>,
    /// The last piece that was read, and the newest that was told, when the archive was listed
    /// because of that.
    listed_for: Option<(u64, u64)>,
}

/// The end of an archive: the last piece, and the last entry.
#[derive(Debug, Clone)]
struct Tip {
    number: u64,
    sha256: Sha256Hex,
    to: OplogPosition,
}

impl ChainFollower {
    /// Reads the entries from `from` on. `anchor` is an entry that is known from before, at `from`
    /// or later: an archive that has another one in its place is of another history.
    #[must_use]
    pub fn new(place: ChainPlace, from: ClusterTime, anchor: Option<OplogPosition>, cpu: CpuPool) -> Self {
        let anchor = anchor.filter(|anchor| anchor.digest.is_some());
        Self { place, cpu, from, anchor, last: None, reading: None, tip: None, listed_for: None }
    }

    /// The last entry that was returned, if any.
    #[must_use]
    pub fn position(&self) -> Option<OplogPosition> {
        self.last
    }

    /// The end of the archive as far as it is known; what it keeps nothing of counts, too.
    #[must_use]
    pub fn end(&self) -> Option<OplogPosition> {
        self.tip.as_ref().or(self.reading.as_ref().map(|(_, tip)| tip)).map(|tip| tip.to)
    }

    /// The next entries, whole documents. `None` if there are none now.
    ///
    /// # Errors
    /// [`ErrorKind::Gap`] if a gap is in the way; [`ErrorKind::NotFound`] if the archive does not
    /// reach back to the position; [`ErrorKind::Refused`] if it is of another history;
    /// [`ErrorKind::Damaged`]; [`ErrorKind::Storage`].
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some((reader, _)) = &mut self.reading {
                match reader.next().await? {
                    Some(frame) => {
                        if let Some(kept) = self.after_last(frame)? {
                            return Ok(Some(kept));
                        }
                    }
                    None => self.tip = self.reading.take().map(|(_, tip)| tip),
                }
                continue;
            }
            let Some(tip) = self.tip.clone() else {
                if !self.begin().await? {
                    return Ok(None);
                }
                continue;
            };
            match open_piece(&self.place, tip.number + 1, &self.cpu).await {
                Ok(piece) => {
                    if let Some(gap) = &piece.header.gap {
                        return Err(gap_error(gap, piece.header.to.time));
                    }
                    roll::prove_follows(&piece.header, &(tip.sha256, tip.to))?;
                    let (piece, frames) = roll::entries(piece, &self.cpu).await?;
                    self.tip = Some(Tip { number: piece.header.number, sha256: piece.sha256, to: piece.header.to });
                    // A large entry is a frame by itself.
                    let whole = match <[Vec<u8>; 1]>::try_from(frames) {
                        Ok([frame]) => frame,
                        Err(frames) => frames.concat(),
                    };
                    if let Some(kept) = self.after_last(whole)? {
                        return Ok(Some(kept));
                    }
                }
                // It may have become part of a link already, with others.
                Err(e) if e.kind() == ErrorKind::NotFound => match self.is_behind(tip.number).await {
                    true => self.tip = None,
                    false => return Ok(None),
                },
                Err(e) => return Err(e),
            }
        }
    }

    /// Whether the archive has pieces after this one under other names: as parts of a link, or with
    /// numbers left out.
    async fn is_behind(&mut self, number: u64) -> bool {
        let archiver = self.place.archiver().await.unwrap_or_default();
        let Some(told) = archiver.and_then(|archiver| archiver.piece).filter(|told| *told > number) else { return false };
        // If a listing does not help, they are missing, and another one would not find them either.
        self.listed_for.replace((number, told)) != Some((number, told))
    }

    /// Begins to read what the archive holds. False if that is nothing yet.
    async fn begin(&mut self) -> Result<bool> {
        let Some(found) = Spans::of(&self.place, &self.cpu).await? else { return Ok(false) };
        let Some((tip, end)) = found.tip() else { return Ok(false) };
        let from = self.last.map_or(self.from, |last| last.time);
        let to = end.time.max(from);
        let known = self.last.unwrap_or(OplogPosition { time: from, term: None, digest: None });
        let range = ChainRange::of(&self.place, &found, known, (to, end.time))?;
        let tip = Tip { number: tip.0, sha256: tip.1, to: end };
        self.reading = Some((Box::new(range.reader(&self.cpu)), tip));
        Ok(true)
    }

    /// The entries of a frame that were not returned before.
    fn after_last(&mut self, frame: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let (mut skipped, mut at, mut last) = (0, 0, None);
        for entry in Documents::of(&frame) {
            let entry = entry?;
            let time = Head::of(entry)?.time;
            at += entry.len();
            if self.last.is_some_and(|last| time <= last.time) {
                skipped = at;
                continue;
            }
            self.prove_anchor(time, entry)?;
            last = Some(entry);
        }
        let Some(last) = last else { return Ok(None) };
        self.last = Some(Position::of(last)?.into());
        Ok(Some(if skipped == 0 { frame } else { frame[skipped..].to_vec() }))
    }

    /// Whether the entry that must be there is there.
    fn prove_anchor(&mut self, time: ClusterTime, entry: &[u8]) -> Result<()> {
        let Some(anchor) = self.anchor.filter(|anchor| anchor.time <= time) else { return Ok(()) };
        self.anchor = None;
        // An archive of some databases need not have kept it.
        if anchor.time < time || OplogPosition::from(Position::of(entry)?) == anchor {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Refused,
            format!("the archive of the oplog is of another history: it has another entry at {}", anchor.time),
        )
        .hint("the source was put back to an older state; begin anew with an empty target, or in mode replace"))
    }
}
