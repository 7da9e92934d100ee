//! Consistent, compressed, checksummed backups of MongoDB deployments, and their restore, without
//! MongoDB's own tools.
//!
//! The map, from the bottom up; dependencies between modules point down only (a test enforces
//! this):
//!
//! - [`error`], [`few`], [`system`], [`names`], [`clock`], [`schedule`]: what everything uses.
//! - [`mod@format`]: the bytes of a backup at rest; pure.
//! - [`context`]: the context of an operation: CPU, memory, progress, cancellation.
//! - [`repository`]: where backups live, and which of them stay.
//! - [`mongo`], [`source`], [`sink`]: the driver, reading, writing.
//! - [`pipeline`]: bounded stages between repositories and servers.
//! - [`interop`]: dumps made by mongodump.
//! - [`oplog`]: its entries: tailed at a source, tracked in a catalog, applied to a target.
//! - [`engine`]: the operations, one module for each.
//! - [`config`]: the settings, validated.
//! - [`service`]: jobs, schedule, status.
//! - [`api`]: the REST interface.
//! - [`cli`]: the command line.
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod context;
pub mod engine;
pub mod error;
pub mod few;
pub mod format;
pub mod interop;
pub mod mongo;
pub mod names;
pub mod oplog;
pub mod pipeline;
pub mod repository;
pub mod schedule;
pub mod service;
pub mod sink;
pub mod source;
pub mod system;
