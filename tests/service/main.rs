//! The service: its REST interface, its process, and its monitoring.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod api;
mod serve;
#[path = "../support/mod.rs"]
mod support;
mod watching;
