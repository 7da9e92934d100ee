//! The operations, one module for each: plan, then execution.

pub mod adopt;
pub mod archive;
mod asked_for;
pub mod backup;
pub mod bases;
pub mod check;
pub mod clean;
pub mod cleanup;
pub mod compare;
pub mod download;
mod dump_oplog;
mod entries;
pub mod export;
pub mod import;
pub mod moment;
pub mod oplog_search;
mod replayed;
#[cfg(test)]
mod sendable;
pub mod sync;
pub mod test_restore;
pub mod timeline;
pub mod tune;
pub mod undo;
pub mod unpack;
pub mod verify;
pub mod verify_archive;
mod visit;
pub mod wanted;

use crate::context::memory;
use crate::format::frame::Codec;

/// How much of the machine an operation may use. `None` values are chosen from the machine and the
/// link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Cursors that read at a time.
    pub readers: Option<usize>,
    /// Writers that insert at a time.
    pub writers: Option<usize>,
    /// About the bytes of one range of a large collection.
    pub range_bytes: Option<u64>,
    /// The codec of frames. The default is zstd.
    pub codec: Option<Codec>,
    /// zstd's level.
    pub level: Option<i32>,
    /// Whether zstd also looks for repetitions far apart in a frame. Off by default.
    pub long_distance: Option<bool>,
    /// About the bytes of documents in a frame.
    pub frame_bytes: Option<usize>,
    /// The rate limit for reading from the source, in bits per second of reply content.
    pub max_bits: Option<u64>,
    /// Whether cursors pause while the source's latency is above its usual one.
    pub adaptive_throttle: bool,
    /// The bytes that its buffers together may take. All concurrent operations share those of the
    /// [`Context`](crate::context::Context::memory).
    pub memory_bytes: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            readers: None,
            writers: None,
            range_bytes: None,
            codec: None,
            level: None,
            long_distance: None,
            frame_bytes: None,
            max_bits: None,
            adaptive_throttle: false,
            memory_bytes: memory::DEFAULT_BYTES,
        }
    }
}

impl Tuning {
    /// The bytes for buffers that are counted. An eighth is left for what nobody counts: what the
    /// allocator and the driver keep.
    #[must_use]
    pub fn counted_bytes(&self) -> u64 {
        self.memory_bytes - self.memory_bytes / 8
    }
}
