//! The oplog of a dump, as a slice of a backup.

use crate::context::cpu::CpuPool;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Content;
use crate::format::document::Documents;
use crate::format::manifest::{ClusterTime, Collection, Consistency, ConsistencyKind, OplogSlice, Segment};
use crate::oplog::Head;
use crate::oplog::catalog::resolver::UuidResolver;
use crate::oplog::filter::Databases;
use crate::pipeline::write::RangeWriter;

/// A slice that is being adopted.
pub(super) struct Slice {
    range: RangeWriter,
    cpu: CpuPool,
    /// Absent while entries are examined, and after a failure.
    seen: Option<Seen>,
    segments: Option<Vec<Segment>>,
}

/// What was found in the entries.
struct Seen {
    resolver: UuidResolver,
    /// The times of the first entry and of the last.
    ends: Option<(ClusterTime, ClusterTime)>,
    /// Entries of this time and later are skipped.
    limit: Option<ClusterTime>,
}

impl Slice {
    /// The oplog of a dump with these collections. `limit` is the time at which it ends, if any.
    pub(super) fn new(collections: &[Collection], limit: Option<ClusterTime>, range: RangeWriter, cpu: CpuPool) -> Self {
        let seen = Seen { resolver: UuidResolver::new(collections), ends: None, limit };
        Self { range, cpu, seen: Some(seen), segments: None }
    }

    /// Takes the next entries, and keeps those that belong to a slice.
    pub(super) async fn take(&mut self, entries: Vec<u8>) -> Result<()> {
        let mut seen = self.seen.take().ok_or_else(|| Error::new(ErrorKind::Internal, "an oplog went on after it failed"))?;
        let looked = self.cpu.run(move || {
            let kept = seen.look(&entries)?;
            Ok((seen, kept))
        });
        let (seen, (kept, content)) = looked.await?;
        self.seen = Some(seen);
        match kept.is_empty() {
            true => Ok(()),
            false => self.range.write_frame(kept, content).await,
        }
    }

    /// Finishes once all entries are taken.
    pub(super) async fn end(&mut self) -> Result<()> {
        self.segments = Some(self.range.finish().await?.into_iter().map(|(_, segment)| segment).collect());
        Ok(())
    }

    /// Waits until none of its writes is under way.
    pub(super) async fn abandon(self) {
        self.range.abandon().await;
    }

    /// The consistency point of a dump with this oplog. Sets the collections' UUIDs from the
    /// entries. An oplog without entries gives neither.
    pub(super) fn settle(self, collections: &mut [Collection]) -> Result<(Consistency, Option<OplogSlice>)> {
        let (Some(segments), Some(seen)) = (self.segments, self.seen) else {
            return Err(Error::new(ErrorKind::Internal, "the oplog of the dump was not read to its end"));
        };
        let Some((first, to)) = seen.ends else { return Ok((none(), None)) };
        seen.resolver.resolve(collections)?;
        // mongodump records no time of its listing: assume before all entries.
        let from = before(first);
        let content: Content = segments.iter().map(Segment::content).sum();
        let (documents, bytes, digest) = (content.documents, content.bytes, content.digest());
        let consistency = Consistency {
            kind: ConsistencyKind::Oplog,
            cluster_time: Some(from),
            from: Some(from),
            to: Some(to),
            replay_from: None,
            exceptions: Vec::new(),
        };
        Ok((consistency, Some(OplogSlice { from, to, documents, bytes, digest, segments })))
    }
}

impl Seen {
    /// The entries that belong to a slice.
    fn look(&mut self, entries: &[u8]) -> Result<(Vec<u8>, Content)> {
        let (mut kept, mut content) = (Vec::with_capacity(entries.len()), Content::default());
        for entry in Documents::of(entries) {
            let entry = entry?;
            let head = Head::of(entry)?;
            if self.limit.is_some_and(|limit| head.time >= limit) {
                break;
            }
            let (first, last) = self.ends.unwrap_or((head.time, before(head.time)));
            if head.time <= last {
                return Err(Error::damaged(format!(
                    "the oplog of the dump is not in order: an entry at {} comes after one at {last}",
                    head.time
                )));
            }
            self.ends = Some((first, head.time));
            if Databases::default().want(&head) {
                self.resolver.take(entry)?;
                content.add(entry);
                kept.extend_from_slice(entry);
            }
        }
        Ok((kept, content))
    }
}

/// The consistency of collections that were read one after the other.
pub(super) fn none() -> Consistency {
    Consistency {
        kind: ConsistencyKind::None,
        cluster_time: None,
        from: None,
        to: None,
        replay_from: None,
        exceptions: Vec::new(),
    }
}

/// The time before this one.
fn before(time: ClusterTime) -> ClusterTime {
    match (time.t, time.i) {
        (0, 0) => time,
        (t, 0) => ClusterTime { t: t - 1, i: u32::MAX },
        (t, i) => ClusterTime { t, i: i - 1 },
    }
}
