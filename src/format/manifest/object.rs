//! Stored objects as listed in a manifest.

use serde::{Deserialize, Serialize};

use crate::format::digest::{Content, ContentDigest, Sha256Hex};
use crate::format::{frame, segment};

/// A stored object with its checksum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredObject {
    /// Its key within the backup.
    pub key: String,
    /// Its stored bytes.
    pub bytes: u64,
    /// The SHA-256 of its stored bytes.
    pub sha256: Sha256Hex,
}

/// One segment of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// The object.
    #[serde(flatten)]
    pub object: StoredObject,
    /// The bytes of its documents, uncompressed.
    pub raw_bytes: u64,
    /// The number of documents.
    pub documents: u64,
    /// Their content digest.
    pub digest: ContentDigest,
    /// The number of frames.
    pub frames: u64,
}

impl Segment {
    /// Whether its sizes are possible for a segment: within the limits, and each large enough for
    /// what the next one claims.
    pub(in crate::format) fn is_possible(&self) -> bool {
        self.object.bytes <= segment::LIMIT as u64
            && self.frames <= self.object.bytes
            && self.raw_bytes <= self.frames.saturating_mul(frame::LIMIT as u64)
            && self.documents <= self.raw_bytes / 5
    }

    /// The documents, their bytes and their digest.
    #[must_use]
    pub fn content(&self) -> Content {
        Content { documents: self.documents, bytes: self.raw_bytes, sum: self.digest.0 }
    }
}

/// The stored bytes of these segments.
pub(super) fn stored_bytes(segments: &[Segment]) -> u64 {
    segments.iter().fold(0, |sum, s| sum.saturating_add(s.object.bytes))
}
