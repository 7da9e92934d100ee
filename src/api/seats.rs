//! Places of connections: how many there may be, and which of them makes room if all are taken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::context::lock;

/// How long to wait between looks for a connection that is idle.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections that are open, and which of them answer nothing now.
pub(super) struct Open {
    places: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

/// Those that answer nothing, the one that has done so for the longest time first.
#[derive(Default)]
struct Idle {
    closers: BTreeMap<u64, CancellationToken>,
    next: u64,
}

impl Open {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { places: Arc::new(Semaphore::new(most)), idle: Mutex::default() })
    }

    /// A place. If there is none, the connection that has been idle for the longest time is closed: clients that never ask
    /// anything keep nobody out.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(place) = self.places.clone().try_acquire_owned() {
                return place;
            }
            if let Some((_, closer)) = lock(&self.idle).closers.pop_first() {
                closer.cancel();
            }
            // What is never closed: somebody else may become idle meanwhile.
            if let Ok(Ok(place)) = timeout(PAUSE, self.places.clone().acquire_owned()).await {
                return place;
            }
        }
    }
}

/// The place of one connection. It is free again once this is dropped.
pub(super) struct Seat {
    open: Arc<Open>,
    /// Under which number it is idle, if it is.
    number: Mutex<Option<u64>>,
    /// Closes the connection.
    pub(super) closer: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Seat {
    pub(super) fn take(open: Arc<Open>, place: OwnedSemaphorePermit) -> Arc<Self> {
        let seat = Self { open, number: Mutex::default(), closer: CancellationToken::new(), _place: place };
        seat.rest();
        Arc::new(seat)
    }

    /// It answers nothing from now on.
    fn rest(&self) {
        let mut idle = lock(&self.open.idle);
        idle.next += 1;
        let number = idle.next;
        idle.closers.insert(number, self.closer.clone());
        *lock(&self.number) = Some(number);
    }

    /// It answers a request.
    fn wake(&self) {
        if let Some(number) = lock(&self.number).take() {
            lock(&self.open.idle).closers.remove(&number);
        }
    }

    /// Whether it answers nothing now.
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.number).is_some()
    }

    /// Keeps it from being idle.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.wake();
        Busy(self.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.wake();
    }
}

/// A connection answers a request as long as this lives.
pub(super) struct Busy(Arc<Seat>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_one_that_is_idle_for_the_longest_time_makes_room() {
        let open = Open::new(3);
        let mut seats = Vec::new();
        for _ in 0..3 {
            seats.push(Seat::take(open.clone(), open.place().await));
        }
        let answering = seats[0].busy();
        // Nobody leaves while nobody waits.
        assert!(seats.iter().all(|seat| !seat.closer.is_cancelled()));
        let waiting = tokio::spawn({
            let open = open.clone();
            async move { open.place().await }
        });
        timeout(SOON, seats[1].closer.cancelled()).await.expect("it is not closed");
        assert!(!seats[0].closer.is_cancelled() && !seats[2].closer.is_cancelled());
        drop(seats.remove(1));
        let place = waiting.await.unwrap();
        drop(answering);
        // The first one became idle last.
        let waiting = tokio::spawn({
            let open = open.clone();
            async move { open.place().await }
        });
        timeout(SOON, seats[1].closer.cancelled()).await.expect("it is not closed");
        assert!(!seats[0].closer.is_cancelled());
        drop(seats.remove(1));
        drop((place, waiting.await.unwrap(), seats));
        assert!(lock(&open.idle).closers.is_empty(), "who left is not looked for");
        assert_eq!(open.places.available_permits(), 3);
    }
}
