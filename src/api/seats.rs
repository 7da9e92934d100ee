//! Slots for connections: how many there are, and which connection is closed if all are taken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::context::lock;

/// How long to wait between searches for an idle connection.
const PAUSE: Duration = Duration::from_millis(100);

/// The open connections, and which of them are idle.
pub(super) struct Open {
    places: Arc<Semaphore>,
    idle: Mutex<Idle>,
}

/// The idle connections, longest idle first.
#[derive(Default)]
struct Idle {
    closers: BTreeMap<u64, CancellationToken>,
    next: u64,
}

impl Open {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { places: Arc::new(Semaphore::new(most)), idle: Mutex::default() })
    }

    /// Waits for a slot. If all are taken, closes the connection that has been idle longest, so
    /// that silent clients keep nobody out.
    pub(super) async fn place(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(place) = self.places.clone().try_acquire_owned() {
                return place;
            }
            if let Some((_, closer)) = lock(&self.idle).closers.pop_first() {
                closer.cancel();
            }
            // No connection may be idle now, so look again after a pause.
            if let Ok(Ok(place)) = timeout(PAUSE, self.places.clone().acquire_owned()).await {
                return place;
            }
        }
    }
}

/// The slot of one connection. It is free again when this is dropped.
pub(super) struct Seat {
    open: Arc<Open>,
    /// Its number among the idle connections, if it is idle.
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

    /// Marks it as idle.
    fn rest(&self) {
        let mut idle = lock(&self.open.idle);
        idle.next += 1;
        let number = idle.next;
        idle.closers.insert(number, self.closer.clone());
        *lock(&self.number) = Some(number);
    }

    /// Marks it as busy.
    fn wake(&self) {
        if let Some(number) = lock(&self.number).take() {
            lock(&self.open.idle).closers.remove(&number);
        }
    }

    /// Whether it is idle.
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.number).is_some()
    }

    /// Keeps it from being idle until the result is dropped.
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

/// The connection is busy as long as this lives.
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
        // No connection is closed while none waits.
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
