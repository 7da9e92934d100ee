//! CPU work (compression, hashing) on a pool of its own: as many jobs at a time as there are cores, never on the async workers.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::error::{Error, ErrorKind, Result};

/// A bounded pool for CPU work. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Cpu(Arc<Semaphore>);

impl Cpu {
    /// A pool for this many jobs at a time.
    #[must_use]
    pub fn new(jobs: usize) -> Self {
        Self(Arc::new(Semaphore::new(jobs.max(1))))
    }

    /// A pool for as many jobs as the machine has cores.
    #[must_use]
    pub fn of_this_machine() -> Self {
        Self::new(cores())
    }

    /// Runs one job and gives what it returns.
    ///
    /// # Errors
    /// The job's own error; [`ErrorKind::Internal`] where the job panicked.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let permit = self
            .0
            .clone()
            .acquire_owned()
            .await
            .map_err(|e| Error::new(ErrorKind::Internal, "the CPU pool is closed").cause(e))?;
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            job()
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
