//! CPU work (compression, hashing) on a pool of its own: as many jobs at a time as there are cores, never on the async workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::error::{Error, ErrorKind, Result};

/// A bounded pool for CPU work. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Cpu(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    permits: Arc<Semaphore>,
    jobs: usize,
    /// The nanoseconds that jobs have taken.
    worked: AtomicU64,
}

impl Cpu {
    /// A pool for this many jobs at a time.
    #[must_use]
    pub fn new(jobs: usize) -> Self {
        let jobs = jobs.max(1);
        Self(Arc::new(Shared { permits: Arc::new(Semaphore::new(jobs)), jobs, worked: AtomicU64::new(0) }))
    }

    /// A pool for as many jobs as the machine has cores.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self::new(cores())
    }

    /// How long jobs have worked so far, all together.
    #[must_use]
    pub fn worked(&self) -> Duration {
        Duration::from_nanos(self.0.worked.load(Ordering::Relaxed))
    }

    /// The share of what the pool can do within a time that so much work is, 0 to 1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "jobs are few")]
    pub fn busy(&self, worked: Duration, within: Duration) -> f64 {
        (worked.as_secs_f64() / (within.as_secs_f64() * self.0.jobs as f64).max(1e-9)).min(1.0)
    }

    /// Runs one job and gives what it returns.
    ///
    /// # Errors
    /// The job's own error; [`ErrorKind::Internal`] where the job panicked.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let shared = self.0.clone();
        let permit = shared
            .permits
            .clone()
            .acquire_owned()
            .await
            .map_err(|e| Error::new(ErrorKind::Internal, "the CPU pool is closed").cause(e))?;
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let begun = Instant::now();
            let done = job();
            shared.worked.fetch_add(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            done
        })
        .await
        .map_err(|e| Error::new(ErrorKind::Internal, "a CPU job died").cause(e))?
    }
}

/// How many cores this process may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}
