//! What an operation works with, whatever it is: the processor, memory, whom it tells of its progress, and what stops it.

pub mod cpu;
pub mod memory;
pub mod progress;

use tokio_util::sync::CancellationToken;

use self::cpu::CpuPool;
use self::memory::MemoryBudget;
use self::progress::Progress;
use crate::error::{Error, Result};

/// The bytes that all buffers together may take where nothing is said.
pub const DEFAULT_MEMORY: u64 = 256 * 1024 * 1024;

/// Made once in a process, by the command line or the service, and handed down to whatever works. Cloning shares all of it.
#[derive(Debug, Clone)]
pub struct Context {
    /// Told what has been done so far.
    pub progress: Progress,
    /// Cancelled when the work is to stop.
    pub cancel: CancellationToken,
    /// The one pool for work of the processor.
    pub cpu: CpuPool,
    /// The one budget of what buffers may take.
    pub memory: MemoryBudget,
}

impl Default for Context {
    fn default() -> Self {
        Self::new(DEFAULT_MEMORY)
    }
}

impl Context {
    /// The context of a process whose buffers may take this many bytes together.
    #[must_use]
    pub fn new(memory_bytes: u64) -> Self {
        Self {
            progress: Progress::default(),
            cancel: CancellationToken::new(),
            cpu: CpuPool::of_this_machine(),
            memory: MemoryBudget::new(memory_bytes),
        }
    }

    /// That of one of several operations: its progress is its own, and it can be stopped by itself.
    #[must_use]
    pub fn operation(&self) -> Self {
        Self { progress: Progress::default(), cancel: self.cancel.child_token(), ..self.clone() }
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
