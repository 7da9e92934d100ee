//! The command line as a process: what it is asked, what it does with real servers, and what it prints where.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod check;
mod limits;
mod resume;
mod round_trip;
#[path = "../support/mod.rs"]
mod support;
mod tune;
mod usage;
