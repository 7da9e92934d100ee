//! Shared parts of the benchmarks: arguments, data, measurements of processes, and statistics.
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
pub mod writer;

/// The median; of an even number of figures, the higher of the middle two.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
