//! Consistent, compressed, checksummed backups of MongoDB deployments, and their way back, without MongoDB's own tools.
//!
//! The map, from the bottom up; arrows between modules point down only (a test keeps them so):
//!
//! - [`error`], [`few`], [`names`], [`clock`]: what everything uses.  [`retention`], [`schedule`]: which backups stay, and when the next is due.
//! - [`mod@format`]: the bytes of a backup at rest; pure.  [`store`]: keys and bytes, durable.
//! - [`pipeline`]: bounded stages between stores and servers.  [`catalog`]: which backups a store holds.
//! - [`interop`]: dumps that mongodump made.
//! - [`engine`]: one verb a file.
//! - [`config`]: the settings, validated.  [`service`]: jobs, schedule, status.  [`api`]: REST.  [`cli`]: the command line.
pub mod api;
pub mod catalog;
pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod error;
pub mod few;
pub mod format;
pub mod interop;
pub mod mongo;
pub mod names;
pub mod pipeline;
pub mod retention;
pub mod schedule;
pub mod service;
pub mod sink;
pub mod source;
pub mod store;
