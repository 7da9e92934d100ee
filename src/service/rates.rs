//! A job's progress and rates.

use std::time::{Duration, Instant};

use super::job::Job;
use super::progress::JobProgress;
use crate::context::progress::{Rates, View};

/// The window of a rate.
pub(super) const WINDOW: Duration = Duration::from_secs(5);

/// Copies the counters into a job's progress.
pub(super) fn take(view: View, rates: &mut Rates, progress: &mut JobProgress) {
    let (documents_per_second, bytes_per_second) = rates.observe(&view, Instant::now());
    // A phase without collections, such as the last one, keeps the former counts visible.
    if view.items.is_empty() {
        (progress.documents_per_second, progress.bytes_per_second) = (0, 0);
        progress.phase = view.phase;
        return;
    }
    let (documents, bytes, expected_documents, expected_bytes) = view.sums();
    *progress = JobProgress {
        documents,
        expected_documents,
        bytes,
        expected_bytes,
        documents_per_second: documents_per_second as u64,
        bytes_per_second: bytes_per_second as u64,
        collections_done: view.items.iter().filter(|i| i.finished).count() as u64,
        collections_total: view.items.len() as u64,
        collections: view.items,
        phase: view.phase,
    };
}

/// The rates of a job that ended: over its whole time.
pub(super) fn average(job: &mut Job) {
    let Some(milliseconds) = job.seconds().map(|seconds| (seconds * 1000.0) as u64).filter(|ms| *ms > 0) else { return };
    let rate = |count: u64| count.saturating_mul(1000) / milliseconds;
    let progress = &mut job.progress;
    (progress.documents_per_second, progress.bytes_per_second) = (rate(progress.documents), rate(progress.bytes));
}
