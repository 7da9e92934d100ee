//! Writes entries as pieces: gathered for a moment, then durable with one write.

use std::sync::Arc;

use tokio::time::Instant;

use crate::context::cpu::CpuPool;
use crate::error::{Error, ErrorKind, Result};
use crate::format::chain::{CHAIN_VERSION, Gap, PieceHeader};
use crate::format::digest::{Content, Sha256Hex};
use crate::format::document::Elements;
use crate::format::frame::{self, Compressors};
use crate::format::manifest::OplogPosition;
use crate::oplog::tail::Entries;
use crate::pipeline::write::Documents as _;
use crate::repository::chain::ChainPlace;

/// Writes the pieces of a chain, one after the other.
#[derive(Debug)]
pub struct PieceWriter {
    place: ChainPlace,
    cpu: CpuPool,
    compressors: Arc<Compressors>,
    next: u64,
    previous: Option<Sha256Hex>,
    /// Where the next piece begins.
    durable: OplogPosition,
    gap: Option<Gap>,
    /// The entries that are not durable yet. Absent while they are worked on, and after a failure.
    pending: Option<Pending>,
    /// When the first of them came.
    since: Option<Instant>,
    to: OplogPosition,
}

/// Entries that are gathered for a piece.
#[derive(Debug, Default)]
struct Pending {
    full: Vec<(Vec<u8>, Content)>,
    frame: Vec<u8>,
    content: Content,
    bytes: usize,
}

impl Pending {
    fn take(&mut self, entries: &Entries) -> Result<()> {
        for (place, element) in Elements::of(entries.array()?)?.enumerate() {
            let document = element?.value;
            if !entries.counts(place) {
                continue;
            }
            if !self.frame.is_empty() && self.frame.len() + document.len() > frame::TARGET {
                self.full.push((std::mem::take(&mut self.frame), std::mem::take(&mut self.content)));
            }
            self.frame.extend_from_slice(document);
            self.content.add(document);
            self.bytes += document.len();
        }
        Ok(())
    }
}

impl PieceWriter {
    /// Goes on after the piece before number `next`, which had this digest and ended there.
    #[must_use]
    pub fn new(
        place: ChainPlace,
        (next, previous): (u64, Option<Sha256Hex>),
        at: OplogPosition,
        compressors: Arc<Compressors>,
        cpu: CpuPool,
    ) -> Self {
        let pending = Some(Pending::default());
        Self { place, cpu, compressors, next, previous, durable: at, gap: None, pending, since: None, to: at }
    }

    /// The last entry that is durable, or where the first one is looked for.
    #[must_use]
    pub fn durable(&self) -> OplogPosition {
        self.durable
    }

    /// The number of the next piece.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// The SHA-256 of the piece before it.
    #[must_use]
    pub fn last_sha256(&self) -> Option<&Sha256Hex> {
        self.previous.as_ref()
    }

    /// The bytes of entries that are not durable yet.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.bytes)
    }

    /// The number of entries that are not durable yet.
    #[must_use]
    pub fn pending_entries(&self) -> u64 {
        let of = |pending: &Pending| pending.full.iter().map(|(_, c)| c.documents).sum::<u64>() + pending.content.documents;
        self.pending.as_ref().map_or(0, of)
    }

    /// When the first entry came that is not durable yet.
    #[must_use]
    pub fn pending_since(&self) -> Option<Instant> {
        self.since
    }

    /// Whether entries were seen after the last piece, even if none of them is kept.
    #[must_use]
    pub fn has_moved(&self) -> bool {
        self.to != self.durable
    }

    /// Takes the next entries.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if they are not documents.
    pub async fn take(&mut self, entries: Entries) -> Result<()> {
        let mut pending = self.pending.take().ok_or_else(failed)?;
        let to = entries.position.into();
        let taken = self.cpu.run(move || {
            pending.take(&entries)?;
            Ok(pending)
        });
        let pending = taken.await?;
        if pending.bytes > 0 {
            self.since.get_or_insert_with(Instant::now);
        }
        (self.pending, self.to) = (Some(pending), to);
        Ok(())
    }

    /// Begins anew after a gap, which is durable after the return. Nothing may be pending.
    ///
    /// # Errors
    /// As for [`flush`](Self::flush).
    pub async fn begin_after(&mut self, gap: Gap, at: OplogPosition) -> Result<()> {
        (self.durable, self.to, self.gap) = (at, at, Some(gap));
        self.flush().await
    }

    /// Makes everything durable that was taken.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process writes pieces here; [`ErrorKind::Storage`]. Nothing
    /// was stored then, and the next call tries again.
    pub async fn flush(&mut self) -> Result<()> {
        let pending = self.pending.take().ok_or_else(failed)?;
        let content: Content = pending.full.iter().map(|(_, content)| *content).chain([pending.content]).sum();
        let header = PieceHeader {
            format_version: CHAIN_VERSION,
            replica_set_id: self.place.id().to_owned(),
            number: self.next,
            previous: self.previous.clone(),
            gap: self.gap.clone(),
            from: self.durable,
            to: self.to,
            entries: content.documents,
            bytes: content.bytes,
            digest: content.digest(),
        };
        let compressors = self.compressors.clone();
        let made = self.cpu.run(move || {
            let last = (!pending.frame.is_empty()).then_some((pending.frame.as_slice(), pending.content));
            let frames = pending.full.iter().map(|(frame, content)| (frame.as_slice(), *content)).chain(last);
            let finished = compressors.lend(|compressor| header.piece(frames, compressor))?;
            Ok((pending, finished))
        });
        let (pending, finished) = made.await?;
        self.pending = Some(pending);
        if !self.place.put_piece(self.next, finished.chunks).await? && !self.is_stored(&finished.sha256).await {
            return Err(taken(&self.place, self.next));
        }
        (self.previous, self.durable, self.gap) = (Some(finished.sha256), self.to, None);
        (self.pending, self.since) = (Some(Pending::default()), None);
        self.next += 1;
        Ok(())
    }

    /// Whether the next piece is there already as it is to be: an attempt that seemed to fail was
    /// none.
    async fn is_stored(&self, sha256: &Sha256Hex) -> bool {
        self.place.piece(self.next).await.is_ok_and(|bytes| Sha256Hex::of(&bytes) == *sha256)
    }
}

fn failed() -> Error {
    Error::new(ErrorKind::Internal, "an archive was to be written on after a failure")
}

fn taken(place: &ChainPlace, number: u64) -> Error {
    Error::new(ErrorKind::Busy, format!("another process writes to {}: piece {number} exists already", place.location()))
        .hint("one process archives an oplog at a time: stop the other one")
}
