//! Reads MongoDB into batches: what exists, how it is divided, and how each part is read.

pub mod accounts;
pub mod discover;
pub mod link;
pub mod optime;
pub mod ranges;
pub mod sample;
pub mod scan;
