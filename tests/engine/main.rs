//! The engine's verbs on real servers: through the library, and through the binary if the process
//! matters.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod adopt;
mod archive;
mod archives;
mod backup;
mod catalog_tracker;
mod clean;
mod compare;
mod download;
mod dumps;
mod export;
mod import;
mod listing;
mod modes;
mod oplog;
mod replay;
mod replay_from;
mod slices;
mod source_lock;
mod staged;
#[path = "../support/mod.rs"]
mod support;
mod support_works;
mod sync;
mod sync_proof;
mod test_restore;
