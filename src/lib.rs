//! Consistent, compressed, checksummed backups of MongoDB deployments, and their way back, without MongoDB's own tools.
//!
//! The map, from the bottom up; arrows between modules point down only (a test keeps them so):
//!
//! - [`error`], [`few`], [`system`], [`names`], [`clock`], [`schedule`]: what everything uses.
//! - [`mod@format`]: the bytes of a backup at rest; pure.
//! - [`context`]: what an operation works with: processor, memory, progress.
//! - [`repository`]: where backups live, and which of them stay.
//! - [`mongo`], [`source`], [`sink`]: the driver, reading, writing.  [`pipeline`]: bounded stages between repositories and servers.
//! - [`interop`]: dumps that mongodump made.
//! - [`oplog`]: its entries, followed from a source, to a catalog and into a target.
//! - [`engine`]: one verb a file.
//! - [`config`]: the settings, validated.  [`service`]: jobs, schedule, status.  [`api`]: REST.  [`cli`]: the command line.
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
