//! Runs CPU work (compression, hashing) on a pool of its own: one job per core at a time, never on
//! the async workers.
//!
//! A process has one pool, in its [`Context`](super::Context). An operation gets a share of it. A
//! share uses no core that another job works on, and counts only its own work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::error::{Error, ErrorKind, Result};
use crate::format::frame::Decompressors;

/// A bounded pool for CPU work. Cloning shares it.
#[derive(Debug, Clone)]
pub struct CpuPool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    permits: Arc<Semaphore>,
    jobs: usize,
    decompressors: Arc<Decompressors>,
    /// The nanoseconds that jobs have taken.
    worked: AtomicU64,
    /// The pool that this is a share of.
    whole: Option<CpuPool>,
}

impl Default for CpuPool {
    fn default() -> Self {
        Self::of_this_machine()
    }
}

impl CpuPool {
    /// A pool for this many jobs at a time.
    #[must_use]
    pub fn new(jobs: usize) -> Self {
        Self::of(jobs, Arc::default(), None)
    }

    fn of(jobs: usize, decompressors: Arc<Decompressors>, whole: Option<Self>) -> Self {
        let jobs = jobs.max(1);
        let permits = Arc::new(Semaphore::new(jobs));
        Self(Arc::new(Shared { permits, jobs, decompressors, worked: AtomicU64::new(0), whole }))
    }

    /// A share of this pool, for at most this many of its jobs at a time. It waits for the other
    /// shares' jobs as for its own, and counts only its own work in [`worked`](Self::worked).
    #[must_use]
    pub fn limited(&self, jobs: usize) -> Self {
        Self::of(jobs.min(self.0.jobs), self.0.decompressors.clone(), Some(self.clone()))
    }

    /// A share of this pool without a limit of its own.
    #[must_use]
    pub fn share(&self) -> Self {
        self.limited(self.0.jobs)
    }

    /// A pool for as many jobs as the machine has cores.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self::new(cores())
    }

    /// The decompressors of jobs: at most one for each concurrent job.
    #[must_use]
    pub fn decompressors(&self) -> &Decompressors {
        &self.0.decompressors
    }

    /// How long all jobs have worked so far, including those of its shares.
    #[must_use]
    pub fn worked(&self) -> Duration {
        Duration::from_nanos(self.0.worked.load(Ordering::Relaxed))
    }

    /// This much work as a fraction of what the pool can do within a time, 0 to 1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "jobs are few")]
    pub fn busy(&self, worked: Duration, within: Duration) -> f64 {
        (worked.as_secs_f64() / (within.as_secs_f64() * self.0.jobs as f64).max(1e-9)).min(1.0)
    }

    /// The work of the whole machine so far, if the system tells. Other processes use the same
    /// cores.
    #[must_use]
    pub fn machine() -> Option<Machine> {
        Machine::read(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// Runs a job and returns its result.
    ///
    /// # Errors
    /// The job's own error; [`ErrorKind::Internal`] if the job panicked.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let pool = self.clone();
        // From the share to the whole: the holder of a permit of the whole waits for nothing.
        let mut permits = Vec::new();
        for shared in pool.chain() {
            let permit = shared.permits.clone().acquire_owned().await;
            permits.push(permit.map_err(|e| Error::new(ErrorKind::Internal, "the CPU pool is closed").cause(e))?);
        }
        tokio::task::spawn_blocking(move || {
            let _permits = permits;
            let begun = Instant::now();
            let done = job();
            let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            for shared in pool.chain() {
                shared.worked.fetch_add(nanos, Ordering::Relaxed);
            }
            done
        })
        .await
        .map_err(|e| Error::new(ErrorKind::Internal, "a CPU job died").cause(e))?
    }

    /// This pool, the one that it is a share of, and so on.
    fn chain(&self) -> impl Iterator<Item = &Shared> {
        std::iter::successors(Some(self), |pool| pool.0.whole.as_ref()).map(|pool| &*pool.0)
    }
}

/// The time of all cores of a machine, in the system's ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    idle: u64,
    all: u64,
}

impl Machine {
    /// Reads the first line of Linux's `/proc/stat`: user, nice, system, idle, iowait, irq,
    /// softirq, steal, each since the start.
    fn read(stat: &str) -> Option<Self> {
        let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
        let ticks: Vec<u64> = fields.map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
        Some(Self { idle: ticks.get(3)? + ticks.get(4)?, all: ticks.iter().sum() })
    }

    /// The share of the time since `before` in which the cores worked, 0 to 1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    pub fn busy_since(self, before: Self) -> f64 {
        let (all, idle) = (self.all.saturating_sub(before.all), self.idle.saturating_sub(before.idle));
        if all == 0 { 0.0 } else { 1.0 - (idle as f64 / all as f64).min(1.0) }
    }
}

/// How many cores this process may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn shares_together_work_on_no_more_than_the_whole_and_count_their_own() {
        let whole = CpuPool::new(2);
        let (one, other) = (whole.limited(1), whole.share());
        let (now, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let jobs = (0..24).map(|n| {
            let (pool, now, most) = (if n % 3 == 0 { &one } else { &other }, now.clone(), most.clone());
            pool.run(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            })
        });
        futures::future::try_join_all(jobs).await.unwrap();
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert!(one.worked() > Duration::ZERO && other.worked() > Duration::ZERO);
        assert_eq!(whole.worked(), one.worked() + other.worked());
        assert_eq!(whole.limited(9).0.jobs, 2);
    }

    #[test]
    fn what_the_machine_does_is_read_from_the_first_line() {
        let before = Machine::read("cpu  100 0 50 800 50 0 0 0 7 0\ncpu0 1 1 1 1\n").unwrap();
        let after = Machine::read("cpu  160 0 60 820 60 0 0 0 9 0\n").unwrap();
        assert!((after.busy_since(before) - 0.7).abs() < 1e-9);
        assert_eq!(before.busy_since(before), 0.0);
        assert_eq!(Machine::read(""), None);
        assert_eq!(Machine::read("cpu  1 2\n"), None);
        assert_eq!(Machine::read("cpu  1 2 x 4 5\n"), None);
    }
}
