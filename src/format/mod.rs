//! The bytes of a stored backup, as `FORMAT.md` describes them. Pure: no I/O, no tokio, no driver.

pub mod arrival;
pub mod chain;
pub mod checkpoint;
pub mod checks;
mod columns;
mod compression;
pub mod digest;
pub mod document;
pub mod frame;
pub mod heartbeat;
pub mod key;
pub mod kind;
pub mod manifest;
pub mod metadata;
pub mod mongodump;
pub mod readable;
pub mod reader;
mod sealed;
pub mod segment;
pub mod value;
