//! The command line as a process: its usage, its work with real servers, and its output.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod archive;
mod check;
mod compare;
mod guides;
mod limits;
mod resume;
mod round_trip;
#[path = "../support/mod.rs"]
mod support;
mod sync;
mod tune;
mod usage;
mod words;
