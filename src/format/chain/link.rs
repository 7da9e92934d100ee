//! `manifest.json` of a link: the entries of about an hour of an archived oplog.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Gap, known};
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::{Content, ContentDigest, Sha256Hex};
use crate::format::key;
use crate::format::manifest::{OplogPosition, Segment, Tool};
use crate::format::sealed;

/// The largest manifest of a link that is read, in bytes.
pub const LINK_LIMIT: u64 = 64 * 1024 * 1024;

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// The version of the format.
    pub format_version: u32,
    /// The program that wrote it.
    pub tool: Tool,
    /// Its ID.
    pub id: Uuid,
    /// Its name, which is also its directory's.
    pub name: String,
    /// The replica set's ID.
    pub replica_set_id: String,
    /// The link before it; `None` for the first one.
    pub previous: Option<Previous>,
    /// The gap that it begins with, if any.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gap: Option<Gap>,
    /// The entry that it follows, or where it begins.
    pub from: OplogPosition,
    /// Its last entry.
    pub to: OplogPosition,
    /// The numbers of the first and of the last piece that it was made of.
    pub pieces: (u64, u64),
    /// The number of entries.
    pub entries: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
    /// Their content digest.
    pub digest: ContentDigest,
    /// The SHA-256 of the last piece that it was made of: the next piece names it.
    pub last_piece: Sha256Hex,
    /// The objects that hold the entries, in order.
    pub segments: Vec<Segment>,
    /// The object with the index, a segment of [`IndexRecord`](super::IndexRecord)s.
    pub index: Segment,
    /// The SHA-256 of its `SHA256SUMS`.
    pub checksums: Sha256Hex,
    /// The SHA-256 of the manifest's own bytes, with these 64 digits set to 0.
    pub sha256: Sha256Hex,
}

/// The link before another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Previous {
    /// Its name.
    pub name: String,
    /// Its ID.
    pub id: Uuid,
    /// The SHA-256 in its manifest.
    pub sha256: Sha256Hex,
}

impl Link {
    /// The manifest's bytes, with its own digest. Sets [`sha256`](Self::sha256).
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if it cannot be written, or a reader would refuse it.
    pub fn seal(&mut self) -> Result<Vec<u8>> {
        let failed = |e| Error::new(ErrorKind::Internal, "cannot write the manifest of a link as JSON").cause(e);
        self.sha256 = Sha256Hex::zero();
        let mut bytes = serde_json::to_vec_pretty(self).map_err(failed)?;
        bytes.push(b'\n');
        self.sha256 = sealed::digest(&bytes, &self.sha256);
        sealed::seal(&mut bytes, &Sha256Hex::zero());
        Self::from_bytes(&bytes).map_err(|e| {
            Error::new(ErrorKind::Internal, format!("the manifest of the link {} cannot be read back: {e}", self.name)).cause(e)
        })?;
        Ok(bytes)
    }

    /// Parses and verifies a link's manifest.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if it is not one, has an unknown version, was changed, or contradicts
    /// itself.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let link: Self = serde_json::from_slice(bytes)
            .map_err(|e| Error::damaged(format!("{} of a link cannot be read: {e}", key::MANIFEST)).cause(e))?;
        known(key::MANIFEST, link.format_version)?;
        if sealed::digest(bytes, &link.sha256) != link.sha256 {
            return Err(Error::damaged(format!(
                "{} was changed after it was written: its SHA-256 does not match",
                key::MANIFEST
            )));
        }
        link.check()?;
        Ok(link)
    }

    /// The entries, their bytes and their digest.
    #[must_use]
    pub fn content(&self) -> Content {
        Content { documents: self.entries, bytes: self.bytes, sum: self.digest.0 }
    }

    /// The stored bytes of its objects.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.objects().fold(0, |sum, segment| sum.saturating_add(segment.object.bytes))
    }

    /// Every object that it names: the entries in order, then the index.
    pub fn objects(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().chain([&self.index])
    }

    /// The text of its `SHA256SUMS`.
    #[must_use]
    pub fn sums(&self) -> String {
        let mut objects: Vec<_> = self.objects().map(|segment| &segment.object).collect();
        objects.sort_by(|a, b| a.key.cmp(&b.key));
        objects.iter().map(|o| format!("{}  {}\n", o.sha256, o.key)).collect()
    }

    /// How a later link names it.
    #[must_use]
    pub fn as_previous(&self) -> Previous {
        Previous { name: self.name.clone(), id: self.id, sha256: self.sha256.clone() }
    }

    fn check(&self) -> Result<()> {
        let wrong =
            |what: &str| Err(Error::damaged(format!("the manifest of the link {} contradicts itself: {what}", self.name)));
        if self.from.time > self.to.time {
            return wrong("it ends before it begins");
        }
        if self.pieces.0 > self.pieces.1 {
            return wrong("its last piece is before its first");
        }
        let sum: Content = self.segments.iter().map(Segment::content).sum();
        if sum != self.content() {
            return wrong("its segments do not add up to it");
        }
        let named = self.segments.iter().enumerate().all(|(number, s)| s.object.key == key::segment(key::OPLOG, number));
        if !named || self.index.object.key != key::INDEX {
            return wrong("an object has another name than its place");
        }
        if !self.objects().all(Segment::is_possible) {
            return wrong("an object has an impossible size");
        }
        if self.gap.as_ref().is_some_and(|gap| gap.from > gap.to || gap.to > self.from.time) {
            return wrong("its gap is not before it");
        }
        Ok(())
    }
}
