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
//! | `oplog/ID/` | an archived oplog, by its replica set's ID | | [`OPLOG_ARCHIVES`] |
//! | `oplog/ID/chain.json` | what it is of | when it is begun | [`CHAIN`] |
//! | `oplog/ID/archiver.json` | who writes it: a heartbeat | while it is written | [`ARCHIVER`] |
//! | `oplog/ID/replay.json` | how fast it was replayed | by imports | [`RATE`] |
//! | `oplog/ID/open/0000000000.bson.zst` | a piece: a second's entries | as they come | [`piece`] |
//! | `oplog/ID/TIME/` | a link: an hour's entries | | |
//! | `oplog/ID/TIME/manifest.json` | what it holds: the commit | last | [`MANIFEST`] |
//! | `oplog/ID/TIME/SHA256SUMS` | its checksums | before the manifest | [`SHA256SUMS`] |
//! | `oplog/ID/TIME/oplog.00000.bson.zst` | its entries | before the manifest | [`OPLOG`] |
//! | `oplog/ID/TIME/index.bson.zst` | what is where in it | before the manifest | [`INDEX`] |
//! | `.bsonvault-scratch-ID/` | temporary data | by `tune` and `unpack` | [`SCRATCH`] |
//!
//! The names inside a backup belong to the format, whose own texts use them.

pub use crate::format::key::{
    CHECKS, INDEX, MANIFEST, OPLOG, PROGRESS, SHA256SUMS, Stems, checkpoint, checkpoint_number, is_reader, metadata, reader,
    segment, segment_number,
};

/// The file that identifies the repository: see [`config`](super::config).
pub const REPOSITORY: &str = "repository.json";

/// The prefix of all scratch places. No backup has such a name.
pub const SCRATCH: &str = ".bsonvault-scratch-";

/// The directory of all archived oplogs. No backup has this name.
pub use crate::names::OPLOG_ARCHIVES;

/// What an archived oplog is of.
pub const CHAIN: &str = "chain.json";

/// The heartbeat of the process that archives it.
pub const ARCHIVER: &str = "archiver.json";

/// How fast an archived oplog was replayed the last time.
pub const RATE: &str = "replay.json";

/// The directory of the pieces that are not part of a link yet.
pub const OPEN: &str = "open";

/// The key of a piece below [`OPEN`].
#[must_use]
pub fn piece(number: u64) -> String {
    format!("{number:010}.bson.zst")
}

/// The number of a piece, from its key.
#[must_use]
pub fn piece_number(key: &str) -> Option<u64> {
    key.strip_suffix(".bson.zst")?.parse().ok().filter(|number| piece(*number) == key)
}
