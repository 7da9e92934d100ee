//! What the measurements share: their arguments, the data, how a process is measured, and what is made of several runs.
#![allow(dead_code, reason = "each measurement uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    clippy::allow_attributes,
    reason = "a measurement ends where something is wrong"
)]

pub mod arguments;
pub mod data;
pub mod process;

/// The figure in the middle; of an even number of them, the higher of the two.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
