//! Tests without a server: written bytes are read back, any damage is found, no bytes make a reader
//! panic, and the code and the packages follow their rules.

#![expect(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

mod arrows;
mod backends;
mod book;
mod catalog;
mod comments;
mod config;
mod damage;
mod documents;
mod extended_json;
mod fixtures;
#[path = "../../fuzz/src/lib.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is the library of another crate")]
mod fuzz;
mod fuzzed;
mod hostile;
mod keys;
mod metadata;
mod mongodump;
mod mongodump_damage;
mod mongodump_write;
mod nearest;
mod oplog_by_name;
mod oplog_resolver;
mod packaging;
mod rename;
mod retention;
mod schedule;
mod store;
#[path = "../support/mod.rs"]
mod support;
mod tools;
