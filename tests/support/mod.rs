//! Shared parts of the integration tests: real servers, data to fill them with, comparisons, and a
//! bad network.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::allow_attributes,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and which of these a part uses differs"
)]

pub mod archive;
pub mod bank;
pub mod cli;
pub mod compare;
pub mod data;
pub mod files;
pub mod link;
pub mod on_disk;
pub mod server;
pub mod service;
pub mod vault;
pub mod zoo;
