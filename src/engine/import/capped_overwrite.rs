//! Remembers the first documents of a capped collection. mongodump goes on reading such a
//! collection while it is written to, so a dump may hold more documents than the collection. In the
//! target, the last documents then overwrite the first.

use crate::error::Result;
use crate::format::digest::Content;
use crate::format::document::Documents;

/// How many are remembered. If a dump overwrites more than these, nothing is known of it.
const REMEMBERED: usize = 500_000;

/// The first documents that arrived, each by what it adds to the digest.
#[derive(Debug, Clone, Default)]
pub(super) struct FirstDocuments(Vec<(u128, u32)>);

impl FirstDocuments {
    /// Takes the next documents.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if they are not documents.
    pub(super) fn take(&mut self, frame: &[u8]) -> Result<()> {
        for document in Documents::of(frame) {
            if self.0.len() == REMEMBERED {
                break;
            }
            let mut one = Content::default();
            one.add(document?);
            self.0.push((one.sum, u32::try_from(one.bytes).unwrap_or(u32::MAX)));
        }
        Ok(())
    }

    /// What is left of `all` once the first `count` documents are overwritten. None if fewer are
    /// remembered.
    pub(super) fn overwritten(&self, all: &Content, count: u64) -> Option<Content> {
        let first = self.0.get(..usize::try_from(count).ok()?)?;
        let gone = first.iter().map(|(sum, bytes)| Content { documents: 1, bytes: u64::from(*bytes), sum: *sum });
        Some(all.without(&gone.sum()))
    }
}
