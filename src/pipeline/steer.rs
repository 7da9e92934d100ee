//! Adapts the number of workers and the level of compression to the current bottleneck.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::context::cpu::{CpuPool, Machine};
use crate::context::progress::Progress;

/// How often the bottleneck is determined.
const EVERY: Duration = Duration::from_secs(1);

/// From this share of the cores on, compressing is the bottleneck.
const BUSY: f64 = 0.85;
/// Below this share of the cores there is time to compress better.
const IDLE: f64 = 0.5;
/// From this share of their time on, writers wait for data.
const STARVED: f64 = 0.5;
/// One more worker must increase the rate by at least this factor.
const GAIN: f64 = 1.05;
/// After an unsuccessful try, this many samples pass before the next.
const REST: u32 = 15;
/// The levels to choose from if the user asked for none: each is worth its time if there is time.
const LEVELS: [i32; 4] = [1, 2, 3, 4];

/// What happened in a period.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// The length of the period.
    pub lasted: Duration,
    /// The bytes that passed through.
    pub bytes: u64,
    /// The share of the cores that worked, 0 to 1.
    pub busy: f64,
    /// The share of their time in which writers waited for data, 0 to 1.
    pub starved: f64,
}

/// The bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The cores of this machine.
    Cpu,
    /// The source or its link.
    Source,
    /// The side that is written to.
    Sink,
}

impl Sample {
    /// The bottleneck.
    #[must_use]
    pub fn limit(&self) -> Limit {
        match *self {
            Self { busy, .. } if busy >= BUSY => Limit::Cpu,
            Self { starved, .. } if starved >= STARVED => Limit::Source,
            _ => Limit::Sink,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    fn rate(&self) -> f64 {
        self.bytes as f64 / self.lasted.as_secs_f64().max(1e-3)
    }
}

/// An operation that is sampled again and again.
#[derive(Debug)]
pub struct Watched {
    cpu: CpuPool,
    progress: Progress,
    tick: Interval,
    at: Instant,
    worked: Duration,
    machine: Option<Machine>,
    bytes: u64,
}

impl Watched {
    /// Samples from now on.
    #[must_use]
    pub fn new(cpu: CpuPool, progress: Progress) -> Self {
        let mut tick = interval_at(Instant::now() + EVERY, EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (worked, bytes) = (cpu.worked(), progress.view().sums().1);
        Self { cpu, progress, tick, at: Instant::now(), worked, machine: CpuPool::machine(), bytes }
    }

    /// Waits for about a second, and returns what happened in it. Writers count as never starved.
    pub async fn next(&mut self) -> Sample {
        self.tick.tick().await;
        let (lasted, worked, bytes) = (self.at.elapsed(), self.cpu.worked(), self.progress.view().sums().1);
        let own = self.cpu.busy(worked.saturating_sub(self.worked), lasted);
        let machine = CpuPool::machine();
        // A source on this machine works on the same cores.
        let all = machine.zip(self.machine).map_or(0.0, |(now, before)| now.busy_since(before));
        let busy = own.max(all);
        let sample = Sample { lasted, bytes: bytes.saturating_sub(self.bytes), busy, starved: 0.0 };
        (self.at, self.worked, self.machine, self.bytes) = (Instant::now(), worked, machine, bytes);
        sample
    }
}

/// How many work at a time. One more is tried if the cores have time for it, and stays if it
/// helped.
#[derive(Debug, Clone)]
pub struct ConcurrencyController {
    now: usize,
    /// The lower limit.
    least: usize,
    most: usize,
    /// The rate before the last worker was added. None if nothing is being tried.
    before: Option<f64>,
    rest: u32,
}

impl ConcurrencyController {
    /// Begins with `now`, and never exceeds `most`.
    #[must_use]
    pub fn new(now: usize, most: usize) -> Self {
        Self { now, least: now, most: most.max(now), before: None, rest: 0 }
    }

    /// How many work now.
    #[must_use]
    pub fn now(&self) -> usize {
        self.now
    }

    /// Takes a sample, and returns how many are to work from now on.
    pub fn take(&mut self, sample: &Sample) -> usize {
        let rate = sample.rate();
        if let Some(before) = self.before.take() {
            if rate < before * GAIN {
                self.now -= 1;
                self.rest = REST;
            }
            return self.now;
        }
        self.rest = self.rest.saturating_sub(1);
        if sample.limit() == Limit::Cpu {
            // More of them only take memory.
            self.now = (self.now - 1).max(self.least);
        } else if self.rest == 0 && self.now < self.most && sample.bytes > 0 {
            self.before = Some(rate);
            self.now += 1;
        }
        self.now
    }
}

/// zstd's level: higher while the cores wait for something else, lower while others wait for the
/// cores.
#[derive(Debug, Clone)]
pub struct LevelController {
    place: usize,
    /// The highest level that was not too slow, as far as is known.
    ceiling: usize,
    rest: u32,
}

impl LevelController {
    /// The highest level that is ever chosen.
    pub const MOST: i32 = LEVELS[LEVELS.len() - 1];

    /// Begins with this level, or the nearest lower one of those to choose from.
    #[must_use]
    pub fn new(level: i32) -> Self {
        let place = LEVELS.iter().rposition(|&l| l <= level).unwrap_or(0);
        Self { place, ceiling: LEVELS.len() - 1, rest: 0 }
    }

    /// Takes a sample, and returns the level from now on.
    pub fn take(&mut self, sample: &Sample) -> i32 {
        self.rest = self.rest.saturating_sub(1);
        if self.rest == 0 {
            self.ceiling = LEVELS.len() - 1;
        }
        if sample.limit() == Limit::Cpu {
            if self.place > 0 {
                self.place -= 1;
                (self.ceiling, self.rest) = (self.place, REST);
            }
        } else if sample.busy < IDLE && sample.bytes > 0 && self.place < self.ceiling {
            self.place += 1;
        }
        LEVELS[self.place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(bytes: u64, busy: f64, starved: f64) -> Sample {
        Sample { lasted: Duration::from_secs(1), bytes, busy, starved }
    }

    #[test]
    fn what_sets_the_pace_is_told_apart() {
        assert_eq!(sample(1, 0.9, 0.9).limit(), Limit::Cpu);
        assert_eq!(sample(1, 0.4, 0.9).limit(), Limit::Source);
        assert_eq!(sample(1, 0.4, 0.1).limit(), Limit::Sink);
    }

    #[test]
    fn a_crew_grows_as_long_as_it_pays_and_never_beyond_its_most() {
        // Each gives ten more, up to five of them.
        let mut crew = ConcurrencyController::new(2, 8);
        let mut seen = Vec::new();
        for _ in 0..12 {
            let bytes = 10 * crew.now().min(5) as u64;
            seen.push(crew.take(&sample(bytes, 0.3, 0.8)));
        }
        assert_eq!(seen, [3, 3, 4, 4, 5, 5, 6, 5, 5, 5, 5, 5]);
        let mut bounded = ConcurrencyController::new(2, 3);
        assert!((1..20).all(|n| bounded.take(&sample(100 << n, 0.3, 0.8)) <= 3));
        let mut fixed = ConcurrencyController::new(4, 4);
        assert!((1..20).all(|n| fixed.take(&sample(100 << n, 0.3, 0.8)) == 4));
    }

    #[test]
    fn a_crew_that_waits_for_the_cores_goes_back_to_what_it_began_with() {
        let mut crew = ConcurrencyController::new(2, 8);
        crew.take(&sample(10, 0.3, 0.8));
        crew.take(&sample(20, 0.3, 0.8));
        assert_eq!(crew.now(), 3);
        assert_eq!((0..5).map(|_| crew.take(&sample(20, 0.95, 0.0))).last(), Some(2));
    }

    #[test]
    fn effort_rises_while_the_cores_wait_and_falls_where_they_are_waited_for() {
        let mut effort = LevelController::new(1);
        assert_eq!([0; 4].map(|_| effort.take(&sample(1, 0.2, 0.9))), [2, 3, 4, 4]);
        assert_eq!(effort.take(&sample(1, 0.9, 0.1)), 3);
        // A level that was too slow is not tried again at once.
        assert_eq!([0; 5].map(|_| effort.take(&sample(1, 0.2, 0.9))), [3; 5]);
        assert_eq!((0..REST).map(|_| effort.take(&sample(1, 0.2, 0.9))).last(), Some(4));
        assert_eq!(LevelController::new(5).take(&sample(1, 0.7, 0.1)), 4);
        assert_eq!(LevelController::new(-5).take(&sample(1, 0.95, 0.1)), 1);
    }
}
