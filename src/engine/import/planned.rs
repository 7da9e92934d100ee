//! What a plan tells of a point in time.

use serde::Serialize;

/// A point in time that is to be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedPointInTime {
    /// The time, in words.
    pub time: String,
    /// The backup that the archive is replayed on.
    pub base: String,
    /// The links of the archive that are read.
    pub links: u64,
    /// The pieces that are read, which are not part of a link yet.
    pub pieces: u64,
    /// The entries that are replayed.
    pub entries: u64,
    /// About how many seconds the replay takes, beside the import of the base.
    pub seconds: u64,
}
