//! How fast the source is read: a limit that is never passed for long, and pauses while the source has others to answer.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::context::lock;

/// The part of a second that one reply may take at the limit, so that what is read comes in small steps.
const STEPS_A_SECOND: u64 = 4;

/// The smallest reply that is asked for because of a limit.
const SMALLEST_REPLY: u64 = 64 * 1024;

/// The longest pause of a reader after one reply.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often a pause looks whether it is still needed.
const SLICE: Duration = Duration::from_millis(200);

/// How many times as long as a reply took its reader pauses, at most.
const MOST_EASE: f64 = 15.0;

/// The pace of all readers of one source. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct RateLimiter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Bytes a second.
    limit: Option<u64>,
    /// From when on the limit lets something through.
    free: Mutex<Option<Instant>>,
    /// How many times as long as a reply took its reader pauses after it, in thousandths.
    ease: AtomicU32,
}

impl RateLimiter {
    /// A pace of at most so many bits a second.
    #[must_use]
    pub fn limited(bits: Option<u64>) -> Self {
        let limit = bits.map(|bits| (bits / 8).max(1));
        Self(Arc::new(Shared { limit, ..Shared::default() }))
    }

    /// Whether the readers are held back now.
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        self.0.limit.is_some() || self.ease() > 0.0
    }

    /// The largest reply to ask for.
    #[must_use]
    pub fn reply_bytes(&self, wanted: u64) -> u64 {
        self.0.limit.map_or(wanted, |limit| wanted.min((limit / STEPS_A_SECOND).max(SMALLEST_REPLY)))
    }

    /// Waits until `expected` bytes may be asked for, and counts them. They are given back if they never come.
    pub async fn ask(&self, expected: u64) -> Asked {
        let Some(limit) = self.0.limit else { return Asked { pace: self.clone(), expected, at: Instant::now() } };
        let from = {
            let mut free = self.0.free();
            let from = free.unwrap_or_else(Instant::now).max(Instant::now());
            *free = Some(from + at_rate(expected, limit));
            from
        };
        let mut asked = Asked { pace: self.clone(), expected, at: from };
        tokio::time::sleep_until(from).await;
        asked.at = Instant::now();
        asked
    }

    /// Pauses for as long as the source is to be eased after a reply that took this long: no longer than half a minute, and no longer than it is.
    pub async fn pause_after(&self, took: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < took.mul_f64(self.ease()).min(LONGEST_PAUSE) {
            tokio::time::sleep(SLICE.min(took.mul_f64(self.ease()))).await;
        }
    }

    /// How many times as long as a reply took its reader pauses after it; 0 where nothing is eased.
    #[must_use]
    pub fn ease(&self) -> f64 {
        f64::from(self.0.ease.load(Ordering::Relaxed)) / 1000.0
    }

    /// Sets that.
    pub fn ease_by(&self, ease: f64) {
        self.0.ease.store((ease.clamp(0.0, MOST_EASE) * 1000.0) as u32, Ordering::Relaxed);
    }
}

impl Shared {
    /// Counts these bytes instead of those that were counted before.
    fn book(&self, bytes: u64, before: u64) {
        let Some(limit) = self.limit else { return };
        let mut free = self.free();
        let (more, less) = (bytes.saturating_sub(before), before.saturating_sub(bytes));
        *free = free.map(|free| free + at_rate(more, limit)).map(|free| free.checked_sub(at_rate(less, limit)).unwrap_or(free));
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        lock(&self.free)
    }
}

/// What was asked for.
#[derive(Debug)]
pub struct Asked {
    pace: RateLimiter,
    expected: u64,
    at: Instant,
}

impl Asked {
    /// Counts what came instead of what was expected, and gives how long it took.
    pub fn came(mut self, bytes: u64) -> Duration {
        self.pace.0.book(bytes, self.expected);
        self.expected = 0;
        self.at.elapsed()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.pace.0.book(0, self.expected);
    }
}

#[expect(clippy::cast_precision_loss, reason = "times need not be exact to the nanosecond")]
fn at_rate(bytes: u64, limit: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / limit as f64)
}

/// How much a source is to be eased, told from how late it answers: pauses double while it answers later than it did, and shrink
/// step by step once it does not.
#[derive(Debug, Clone)]
pub struct LatencyThrottle {
    /// How late it answered before it was read.
    usual: Duration,
    ease: f64,
}

impl LatencyThrottle {
    /// The latency that is no reason to ease anything, however fast the source was.
    const SMALL: Duration = Duration::from_millis(2);
    /// How many times later than usual is late.
    const LATE: f64 = 2.0;

    /// With these latencies from before.
    #[must_use]
    pub fn new(before: &[Duration]) -> Self {
        let mut sorted = before.to_vec();
        sorted.sort();
        Self { usual: sorted.get(sorted.len() / 2).copied().unwrap_or_default(), ease: 0.0 }
    }

    /// Takes these latencies of now, and gives how much to ease.
    pub fn take(&mut self, now: &[Duration]) -> f64 {
        let mut sorted = now.to_vec();
        sorted.sort();
        let Some(&late) = sorted.get(sorted.len() / 2) else { return self.ease };
        if late > self.usual.mul_f64(Self::LATE) + Self::SMALL {
            self.ease = (2.0 * self.ease).clamp(1.0, MOST_EASE);
        } else {
            self.ease = (self.ease - 0.5).max(0.0);
        }
        self.ease
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_holds_over_all_readers() {
        let pace = RateLimiter::limited(Some(32_000_000));
        let begin = Instant::now();
        let readers = (0..4).map(|_| {
            let pace = pace.clone();
            tokio::spawn(async move {
                for _ in 0..5 {
                    // Twice what was expected comes.
                    let asked = pace.ask(50_000).await;
                    asked.came(100_000);
                }
            })
        });
        futures::future::join_all(readers).await;
        // What does not come is given back.
        drop(pace.ask(50_000_000).await);
        let asked = pace.ask(1).await;
        asked.came(1);
        // 2 MB at 4 MB/s
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(490) && took < Duration::from_secs(8), "{took:?}");
        assert_eq!(pace.reply_bytes(4_000_000), 1_000_000);
        assert_eq!(RateLimiter::limited(Some(1_000)).reply_bytes(4_000_000), SMALLEST_REPLY);
        assert_eq!(RateLimiter::default().reply_bytes(4_000_000), 4_000_000);
    }

    #[tokio::test]
    async fn an_eased_reader_pauses_in_proportion() {
        let pace = RateLimiter::default();
        pace.ease_by(3.0);
        let begin = Instant::now();
        let asked = pace.ask(1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        pace.pause_after(asked.came(1)).await;
        assert!(begin.elapsed() >= Duration::from_millis(80));
        pace.ease_by(1000.0);
        assert!((pace.ease() - MOST_EASE).abs() < 0.01);
    }

    #[test]
    fn courtesy_backs_off_while_answers_are_late_and_comes_back_after() {
        let ms = Duration::from_millis;
        let mut courtesy = LatencyThrottle::new(&[ms(1), ms(50), ms(1)]);
        assert_eq!(courtesy.take(&[ms(3), ms(3)]), 0.0);
        assert_eq!(courtesy.take(&[ms(9), ms(9), ms(1)]), 1.0);
        assert_eq!(courtesy.take(&[ms(9)]), 2.0);
        assert_eq!((0..9).map(|_| courtesy.take(&[ms(9)])).last(), Some(MOST_EASE));
        assert_eq!(courtesy.take(&[]), MOST_EASE);
        assert_eq!(courtesy.take(&[ms(1)]), MOST_EASE - 0.5);
        assert_eq!((0..40).map(|_| courtesy.take(&[ms(1)])).last(), Some(0.0));
    }
}
