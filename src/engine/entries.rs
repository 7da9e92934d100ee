//! The oplog entries that are replayed on a backup: those of its own slice, then those of an
//! archive.

use std::collections::HashSet;
use std::sync::Arc;

use uuid::Uuid;

use crate::context::cpu::CpuPool;
use crate::error::Result;
use crate::format::manifest::Segment;
use crate::oplog::chain::range::WantedFrames;
use crate::oplog::chain::{ChainRange, ChainReader};
use crate::pipeline::read::SegmentReader;
use crate::repository::backend::Objects;

/// What is read, in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplayEntries<'a> {
    /// The backup's objects.
    pub(super) store: &'a Objects,
    /// The segments of its slice.
    pub(super) segments: &'a [Segment],
    /// The part of an archive that comes after that.
    pub(super) archived: Option<&'a ChainRange>,
}

impl ReplayEntries<'_> {
    /// The most bytes that are in memory while they are read, beside the frame that is returned.
    pub(super) fn needed_bytes(&self) -> u64 {
        let segments = self.segments.iter().map(|segment| segment.object.bytes).max().unwrap_or(0);
        segments.max(self.archived.map_or(0, ChainRange::needed_bytes))
    }

    /// Reads them from the start, without parts of an archive that are about other collections
    /// alone.
    pub(super) fn reader_of(&self, collections: HashSet<Uuid>, cpu: &CpuPool) -> EntryReader {
        let wanted: WantedFrames =
            Arc::new(move |frame| frame.needed || frame.collections.iter().any(|counts| collections.contains(&counts.uuid)));
        EntryReader { archived: self.archived.map(|range| range.reader_of(cpu, wanted)), ..self.reader(cpu) }
    }

    /// Reads them from the start.
    pub(super) fn reader(&self, cpu: &CpuPool) -> EntryReader {
        EntryReader {
            store: self.store.clone(),
            cpu: cpu.clone(),
            segments: Vec::from(self.segments).into_iter(),
            open: None,
            archived: self.archived.map(|range| range.reader(cpu)),
        }
    }
}

/// Reads entries, frame by frame.
pub(super) struct EntryReader {
    store: Objects,
    cpu: CpuPool,
    segments: std::vec::IntoIter<Segment>,
    open: Option<SegmentReader>,
    archived: Option<ChainReader>,
}

impl EntryReader {
    /// The next frame of whole entries; `None` after the last one.
    ///
    /// # Errors
    /// Those of reading a segment or an archive.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(open) = &mut self.open
                && let Some(frame) = open.next().await?
            {
                return Ok(Some(frame));
            }
            self.open = match self.segments.next() {
                Some(segment) => Some(SegmentReader::open(&self.store, &segment, &self.cpu).await?),
                None => break,
            };
        }
        match &mut self.archived {
            Some(archived) => archived.next().await,
            None => Ok(None),
        }
    }
}
