//! Tests between servers of different versions.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod matrix;
#[path = "../support/mod.rs"]
mod support;
