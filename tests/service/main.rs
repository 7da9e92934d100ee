//! The service: its REST interface, its process, and what it tells those who watch it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod api;
mod serve;
#[path = "../support/mod.rs"]
mod support;
mod watching;
