//! The key of every object of a repository, in one table.
//!
//! | key | what it is | written | names |
//! | --- | --- | --- | --- |
//! | `repository.json` | which repository it is | with its first backup | [`REPOSITORY`] |
//! | `NAME/` | one backup, by its name | | [`BackupName`](crate::names::BackupName) |
//! | `NAME/manifest.json` | what it holds: the commit | last | [`MANIFEST`] |
//! | `NAME/SHA256SUMS` | its checksums, for `sha256sum -c` | before the manifest | [`SHA256SUMS`] |
//! | `NAME/STEM.metadata.json` | a collection's options and indexes | before the manifest | [`metadata`], [`Stems`] |
//! | `NAME/STEM.00000.bson.zst` | its documents | while it is read | [`segment`] |
//! | `NAME/oplog.00000.bson.zst` | its oplog slice | while it is read | [`OPLOG`] |
//! | `NAME/checks.json` | how its last checks ended | by checks | [`CHECKS`] |
//! | `NAME/progress.json` | the source lock: a backup's heartbeat | until the commit | [`PROGRESS`] |
//! | `NAME/resume.00000.json` | its checkpoint | until the commit | [`checkpoint`] |
//! | `NAME/reader.ID.json` | a read lock: a reader's heartbeat | while it is read | [`reader`] |
//! | `.bsonvault-scratch-ID/` | what stays no longer than it is looked at | by `tune` and `unpack` | [`SCRATCH`] |
//!
//! Those of one backup are the format's own, which needs their names in what it says.

pub use crate::format::key::{
    CHECKS, MANIFEST, OPLOG, PROGRESS, SHA256SUMS, Stems, checkpoint, checkpoint_number, is_reader, metadata, reader, segment,
    segment_number,
};

/// What says which repository it is: see [`config`](super::config).
pub const REPOSITORY: &str = "repository.json";

/// What the names of all scratch places begin with. No backup is named so.
pub const SCRATCH: &str = ".bsonvault-scratch-";
