//! The engine's verbs against real servers: by the library, and by the binary where a process is what counts.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod adopt;
mod backup;
mod catalog_tracker;
mod clean;
mod download;
mod dumps;
mod export;
mod import;
mod modes;
mod oplog;
mod replay;
mod slices;
mod source_lock;
mod staged;
#[path = "../support/mod.rs"]
mod support;
mod support_works;
mod test_restore;
