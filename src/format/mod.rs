//! The bytes of a backup at rest, as `FORMAT.md` describes them. Pure: no I/O, no tokio, no driver.

pub mod arrival;
pub mod checks;
mod columns;
pub mod digest;
pub mod document;
pub mod frame;
pub mod journal;
pub mod key;
pub mod kind;
pub mod manifest;
pub mod metadata;
pub mod mongodump;
pub mod progress;
pub mod readable;
pub mod reader;
pub mod segment;
pub mod value;
