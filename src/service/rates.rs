//! How far a job is, and how fast it goes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::job::Job;
use super::progress::JobProgress;
use crate::context::progress::View;

/// Over how long a rate is taken.
const WINDOW: Duration = Duration::from_secs(5);

/// What was counted lately, in the phase that is on.
#[derive(Debug, Default)]
pub(super) struct Rates {
    phase: String,
    seen: VecDeque<(Instant, u64, u64)>,
}

impl Rates {
    /// Takes what was counted until now over into a job's progress.
    pub(super) fn take(&mut self, view: View, progress: &mut JobProgress) {
        // A phase without collections, such as the last one, leaves in sight what was done before it.
        if view.items.is_empty() {
            self.of(&view.phase, 0, 0, Instant::now());
            (progress.documents_per_second, progress.bytes_per_second) = (0, 0);
            progress.phase = view.phase;
            return;
        }
        let (documents, bytes, expected_documents, expected_bytes) = view.sums();
        let (documents_per_second, bytes_per_second) = self.of(&view.phase, documents, bytes, Instant::now());
        *progress = JobProgress {
            documents,
            expected_documents,
            bytes,
            expected_bytes,
            documents_per_second,
            bytes_per_second,
            collections_done: view.items.iter().filter(|i| i.finished).count() as u64,
            collections_total: view.items.len() as u64,
            collections: view.items,
            phase: view.phase,
        };
    }

    fn of(&mut self, phase: &str, documents: u64, bytes: u64, now: Instant) -> (u64, u64) {
        // What is counted anew, or taken back, is no speed.
        if self.phase != phase || self.seen.back().is_some_and(|last| documents < last.1 || bytes < last.2) {
            phase.clone_into(&mut self.phase);
            self.seen.clear();
        }
        self.seen.push_back((now, documents, bytes));
        while self.seen.len() > 2 && self.seen.get(1).is_some_and(|second| now - second.0 >= WINDOW) {
            self.seen.pop_front();
        }
        let Some(first) = self.seen.front() else { return (0, 0) };
        let milliseconds = u64::try_from((now - first.0).as_millis()).unwrap_or(u64::MAX);
        if milliseconds == 0 {
            return (0, 0);
        }
        let rate = |count: u64| count.saturating_mul(1000) / milliseconds;
        (rate(documents - first.1), rate(bytes - first.2))
    }
}

/// The rates of a job that ended: over all of its time.
pub(super) fn average(job: &mut Job) {
    let Some(milliseconds) = job.seconds().map(|seconds| (seconds * 1000.0) as u64).filter(|ms| *ms > 0) else { return };
    let rate = |count: u64| count.saturating_mul(1000) / milliseconds;
    let progress = &mut job.progress;
    (progress.documents_per_second, progress.bytes_per_second) = (rate(progress.documents), rate(progress.bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_seconds_of_the_phase_that_is_on() {
        let (mut rates, start) = (Rates::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(rates.of("reading", 0, 0, at(0)), (0, 0));
        assert_eq!(rates.of("reading", 100, 1000, at(2)), (50, 500));
        assert_eq!(rates.of("reading", 100, 1000, at(6)), (16, 166));
        assert_eq!(rates.of("reading", 100, 1000, at(8)), (0, 0));
        assert_eq!(rates.of("reading", 90, 900, at(9)), (0, 0), "taken back");
        assert_eq!(rates.of("reading", 190, 1000, at(10)), (100, 100));
        assert_eq!(rates.of("committing", 500, 5000, at(11)), (0, 0), "another phase");
    }
}
