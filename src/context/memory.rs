//! The byte budget: what every buffer whose size depends on the data is drawn from.
//!
//! A share is taken before the bytes are asked for and given back when it is dropped. To keep waiting free of deadlocks, a
//! holder of a share never waits for another one: what turns out larger than expected is booked with [`MemoryPermit::resize`], which
//! does not wait but makes the next taker wait longer.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// So many bytes for all. Cloning shares it.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: Mutex<u64>,
    freed: Notify,
}

impl MemoryBudget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self(Arc::new(Shared { limit, used: Mutex::new(0), freed: Notify::new() }))
    }

    /// Waits until `bytes` fit beside what is taken, and takes them. A request beyond the whole budget is let in once nothing
    /// else is taken: the work goes on, one at a time.
    pub async fn take(&self, bytes: u64) -> MemoryPermit {
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            {
                let mut used = self.0.used();
                if *used == 0 || *used + bytes <= self.0.limit {
                    *used += bytes;
                    return MemoryPermit { shared: self.0.clone(), bytes };
                }
            }
            freed.await;
        }
    }

    /// Bytes taken now.
    #[cfg(test)]
    fn used(&self) -> u64 {
        *self.0.used()
    }
}

impl Shared {
    fn used(&self) -> std::sync::MutexGuard<'_, u64> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub struct MemoryPermit {
    shared: Arc<Shared>,
    bytes: u64,
}

impl MemoryPermit {
    /// Makes the share `bytes` large, without waiting.
    pub fn resize(&mut self, bytes: u64) {
        {
            let mut used = self.shared.used();
            *used = *used - self.bytes + bytes;
        }
        self.bytes = bytes;
        self.shared.freed.notify_waiters();
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        *self.shared.used() -= self.bytes;
        self.shared.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_taker_waits_until_there_is_room() {
        let budget = MemoryBudget::new(100);
        let first = budget.take(70).await;
        let mut second = Box::pin(budget.take(40));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert_eq!(second.now_or_never().map(|s| s.bytes), Some(40));
    }

    #[tokio::test]
    async fn more_than_the_whole_is_let_in_alone() {
        let budget = MemoryBudget::new(100);
        let small = budget.take(1).await;
        let mut large = Box::pin(budget.take(1000));
        assert!(large.as_mut().now_or_never().is_none());
        drop(small);
        let large = large.now_or_never().unwrap();
        assert!(budget.take(1).now_or_never().is_none());
        drop(large);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn growing_does_not_wait_and_is_given_back() {
        let budget = MemoryBudget::new(100);
        let mut share = budget.take(10).await;
        share.resize(500);
        assert_eq!(budget.used(), 500);
        share.resize(20);
        let other = budget.take(80).now_or_never();
        assert!(other.is_some());
        drop((share, other));
        assert_eq!(budget.used(), 0);
    }
}
