//! What an operation works with, whatever it is: the processor and the memory, whom it tells of its progress, and what
//! stops it.

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

/// Made once in a process, by the command line or the service, and handed down to whatever works. Cloning shares all of it.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Told what has been done so far.
    pub progress: Progress,
    /// Cancelled when the work is to stop.
    pub cancel: CancellationToken,
    /// The pool for work of the processor.
    pub cpu: CpuPool,
    /// The memory for all that works at the same time. An operation draws from a [part](MemoryBudget::part) of it.
    pub memory: MemoryBudget,
}

impl Context {
    /// That of one of several operations: progress and the count of its work are its own, and it can be stopped by itself.
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

    /// The same, stopped by this instead.
    #[must_use]
    pub fn cancelled_by(&self, cancel: CancellationToken) -> Self {
        Self { cancel, ..self.clone() }
    }

    /// Waits for something unless it is to stop before.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`](crate::error::ErrorKind::Interrupted); those of the work.
    pub async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.cancel.run_until_cancelled(work).await.ok_or_else(Error::interrupted)?
    }
}
