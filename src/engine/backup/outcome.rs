//! The outcome of reading.

use bson::Timestamp;

use crate::format::digest::Content;
use crate::format::manifest::Segment;

/// How reading ended.
pub(super) enum Outcome {
    /// Everything is read and stored.
    Read(Read),
    /// A collection was renamed or altered after the snapshot time.
    Again(String),
}

/// What was read.
pub(super) struct Read {
    /// In the listing's order.
    pub(super) collections: Vec<ReadCollection>,
}

/// What was read of one collection.
pub(super) struct ReadCollection {
    pub(super) stem: String,
    pub(super) segments: Vec<Segment>,
    pub(super) content: Content,
    /// Why it is not part of the backup, if it disappeared before all of it was read.
    pub(super) gone: Option<String>,
    /// The operation time of the last reply.
    pub(super) end: Option<Timestamp>,
}
