//! Retries transient failures: for how long, and with which pauses. [`failure`](super::failure)
//! decides what is transient.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;

/// How long to retry a step of long work: longer than an election or the restart of a server.
pub const STEP: Duration = Duration::from_secs(120);
/// How long to retry a small request within longer work.
pub const QUESTION: Duration = Duration::from_secs(30);
/// How long to retry a request at the start of a command: shorter than the service waits for an
/// answer.
pub const OPENING: Duration = Duration::from_secs(2);

/// The first pause; each next one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Short enough to catch the moments when a bad link works.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The retries of one step. The time limit starts again whenever a part of the step succeeds.
#[derive(Debug)]
pub struct Retry {
    limit: Duration,
    failing_since: Option<Instant>,
    pause: Duration,
    tried: u32,
}

impl Retry {
    /// The limit counts from the first failure: a step that worked for hours before still has all
    /// of it.
    #[must_use]
    pub fn within(limit: Duration) -> Self {
        Self { limit, failing_since: None, pause: FIRST_PAUSE, tried: 1 }
    }

    /// A part of the step succeeded.
    pub fn progress(&mut self) {
        *self = Self::within(self.limit);
    }

    /// After a transient failure: how long to pause before the next try; `None` if it has been
    /// failing for too long.
    #[must_use]
    pub fn pause(&mut self) -> Option<Duration> {
        if self.failing_since.get_or_insert_with(Instant::now).elapsed() > self.limit {
            return None;
        }
        self.tried += 1;
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        Some(pause)
    }

    /// The number of tries since the last progress.
    #[must_use]
    pub fn tried(&self) -> u32 {
        self.tried
    }
}

/// Repeats a request while its failures are transient, within this time from the first try. A
/// request that fails slowly is only tried once.
///
/// # Errors
/// The last try's.
pub async fn ask<T, E, F>(limit: Duration, passes: impl Fn(&E) -> bool, question: impl Fn() -> F) -> Result<T, E>
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let mut retry = Retry { failing_since: Some(Instant::now()), ..Retry::within(limit) };
    loop {
        let failed = match question().await {
            Err(failed) if passes(&failed) => failed,
            done => return done,
        };
        let Some(pause) = retry.pause() else { return Err(failed) };
        tracing::debug!("asking again: {failed}");
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_progress() {
        let mut retry = Retry::within(STEP);
        let pauses: Vec<u128> = (0..7).filter_map(|_| retry.pause()).map(|pause| pause.as_millis()).collect();
        assert_eq!((pauses.as_slice(), retry.tried()), ([50, 100, 200, 400, 800, 1000, 1000].as_slice(), 8));
        retry.progress();
        assert_eq!((retry.pause(), retry.tried()), (Some(FIRST_PAUSE), 2));
    }

    #[tokio::test]
    async fn what_passes_is_asked_again_within_the_limit_and_anything_else_not() {
        let asked = std::cell::Cell::new(0);
        let fails = async || -> Result<(), String> {
            asked.set(asked.get() + 1);
            Err("no answer".to_owned())
        };
        ask(Duration::from_millis(60), |_| true, fails).await.unwrap_err();
        assert!(asked.replace(0) > 1);
        ask(QUESTION, |_| false, fails).await.unwrap_err();
        assert_eq!(asked.get(), 1);
    }
}
