//! Limits how fast the source is read: a rate limit, and pauses while the source is slow for
//! others.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::context::lock;

/// How many replies per second a reader takes at the limit, so that reading goes in small steps.
const STEPS_A_SECOND: u64 = 4;

/// The smallest reply to ask for because of a limit.
const SMALLEST_REPLY: u64 = 64 * 1024;

/// The longest pause of a reader after one reply.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often a pause checks whether it is still needed.
const SLICE: Duration = Duration::from_millis(200);

/// The longest pause, as a multiple of the time that the reply took.
const MOST_EASE: f64 = 15.0;

/// The rate limit of all readers of one source. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct RateLimiter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Bytes per second.
    limit: Option<u64>,
    /// When the limit lets the next bytes through.
    free: Mutex<Option<Instant>>,
    /// The pause after a reply, in thousandths of the time that the reply took.
    ease: AtomicU32,
}

impl RateLimiter {
    /// A limit in bits per second. None means no limit.
    #[must_use]
    pub fn limited(bits: Option<u64>) -> Self {
        let limit = bits.map(|bits| (bits / 8).max(1));
        Self(Arc::new(Shared { limit, ..Shared::default() }))
    }

    /// Whether readers are held back now.
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        self.0.limit.is_some() || self.ease() > 0.0
    }

    /// The largest reply to ask for.
    #[must_use]
    pub fn reply_bytes(&self, wanted: u64) -> u64 {
        self.0.limit.map_or(wanted, |limit| wanted.min((limit / STEPS_A_SECOND).max(SMALLEST_REPLY)))
    }

    /// Waits until `expected` bytes may be asked for, and counts them. They are given back if they
    /// never arrive.
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

    /// Pauses after a reply that took this long, as far as the source must be eased. Never longer
    /// than half a minute, and only while it is needed.
    pub async fn pause_after(&self, took: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < took.mul_f64(self.ease()).min(LONGEST_PAUSE) {
            tokio::time::sleep(SLICE.min(took.mul_f64(self.ease()))).await;
        }
    }

    /// The pause after a reply, as a multiple of the time that the reply took. 0 if nothing is
    /// eased.
    #[must_use]
    pub fn ease(&self) -> f64 {
        f64::from(self.0.ease.load(Ordering::Relaxed)) / 1000.0
    }

    /// Sets the multiple.
    pub fn ease_by(&self, ease: f64) {
        self.0.ease.store((ease.clamp(0.0, MOST_EASE) * 1000.0) as u32, Ordering::Relaxed);
    }
}

impl Shared {
    /// Counts these bytes instead of those counted before.
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

/// Bytes that were asked for.
#[derive(Debug)]
pub struct Asked {
    pace: RateLimiter,
    expected: u64,
    at: Instant,
}

impl Asked {
    /// Counts the bytes that arrived instead of those expected. Returns how long that took.
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

/// Decides from the source's latency how much to ease it. Pauses double while the latency is above
/// the usual one, and shrink step by step once it is not.
#[derive(Debug, Clone)]
pub struct LatencyThrottle {
    /// The latency before the source was read.
    usual: Duration,
    ease: f64,
}

impl LatencyThrottle {
    /// Added to the threshold, so that tiny latencies of a fast source ease nothing.
    const SMALL: Duration = Duration::from_millis(2);
    /// A latency above this multiple of the usual one, plus [`SMALL`](Self::SMALL), is late.
    const LATE: f64 = 2.0;

    /// With these latencies from before the reading.
    #[must_use]
    pub fn new(before: &[Duration]) -> Self {
        let mut sorted = before.to_vec();
        sorted.sort();
        Self { usual: sorted.get(sorted.len() / 2).copied().unwrap_or_default(), ease: 0.0 }
    }

    /// Takes the latest latencies, and returns how much to ease.
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
                    // Twice what was expected arrives.
                    let asked = pace.ask(50_000).await;
                    asked.came(100_000);
                }
            })
        });
        futures::future::join_all(readers).await;
        // What never arrives is given back.
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
