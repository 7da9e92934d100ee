//! The context of every operation: CPU, memory, progress and cancellation.

pub mod cpu;
pub mod memory;
mod mutex;
pub mod progress;

use tokio_util::sync::CancellationToken;

use self::cpu::CpuPool;
use self::memory::MemoryBudget;
pub(crate) use self::mutex::lock;
use self::progress::Progress;
use crate::error::{Error, Result};

/// Created once per process, by the command line or the service, and handed down to all work.
/// Cloning shares all of it.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Receives what has been done so far.
    pub progress: Progress,
    /// Cancelled to stop the work.
    pub cancel: CancellationToken,
    /// The pool for CPU work.
    pub cpu: CpuPool,
    /// The memory for all concurrent work. An operation draws from a [part](MemoryBudget::part) of
    /// it.
    pub memory: MemoryBudget,
}

impl Context {
    /// The context of one of several operations: with its own progress and work counter, and its
    /// own cancellation.
    #[must_use]
    pub fn operation(&self) -> Self {
        Self {
            progress: Progress::default(),
            cancel: self.cancel.child_token(),
            cpu: self.cpu.share(),
            memory: self.memory.clone(),
        }
    }

    /// The same with this much memory for all.
    #[must_use]
    pub fn with_memory(self, bytes: u64) -> Self {
        Self { memory: MemoryBudget::new(bytes), ..self }
    }

    /// The same, cancelled by `cancel` instead.
    #[must_use]
    pub fn cancelled_by(&self, cancel: CancellationToken) -> Self {
        Self { cancel, ..self.clone() }
    }

    /// Waits for the work, unless it is cancelled first.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`](crate::error::ErrorKind::Interrupted); those of the work.
    pub async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.cancel.run_until_cancelled(work).await.ok_or_else(Error::interrupted)?
    }
}
