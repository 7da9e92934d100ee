//! The key of every object of a repository, in one table.
//!
//! | key | content | written | names |
//! | --- | --- | --- | --- |
//! | `repository.json` | identifies the repository | with its first backup | [`REPOSITORY`] |
//! | `NAME/` | one backup, by its name | | [`BackupName`](crate::names::BackupName) |
//! | `NAME/manifest.json` | what it holds: the commit | last | [`MANIFEST`] |
//! | `NAME/SHA256SUMS` | its checksums, for `sha256sum -c` | before the manifest | [`SHA256SUMS`] |
//! | `NAME/STEM.metadata.json` | options, indexes | before the manifest | [`metadata`], [`Stems`] |
//! | `NAME/STEM.00000.bson.zst` | its documents | while it is read | [`segment`] |
//! | `NAME/oplog.00000.bson.zst` | its oplog slice | while it is read | [`OPLOG`] |
//! | `NAME/checks.json` | how its last checks ended | by checks | [`CHECKS`] |
//! | `NAME/progress.json` | the source lock, a heartbeat | until the commit | [`PROGRESS`] |
//! | `NAME/resume.00000.json` | its checkpoint | until the commit | [`checkpoint`] |
//! | `NAME/reader.ID.json` | a read lock: a reader's heartbeat | while it is read | [`reader`] |
//! | `.bsonvault-scratch-ID/` | temporary data | by `tune` and `unpack` | [`SCRATCH`] |
//!
//! The names inside a backup belong to the format, whose own texts use them.

pub use crate::format::key::{
    CHECKS, MANIFEST, OPLOG, PROGRESS, SHA256SUMS, Stems, checkpoint, checkpoint_number, is_reader, metadata, reader, segment,
    segment_number,
};

/// The file that identifies the repository: see [`config`](super::config).
pub const REPOSITORY: &str = "repository.json";

/// The prefix of all scratch places. No backup has such a name.
pub const SCRATCH: &str = ".bsonvault-scratch-";
