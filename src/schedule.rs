//! Decides when the next backup is due: at an interval in hours, or by a cron expression in a time
//! zone. Pure: no clock, no timer.
//!
//! `croner` parses and searches expressions, on the wall clock alone. [`zone`] decides which
//! absolute time a wall clock time is. `croner`'s own rules for daylight saving time are not used:
//! they treat jobs at a single time of day differently. `0 2,14 * * *` would miss the skipped hour
//! and run twice in the repeated one. They also give up on a gap of more than two hours.

mod syntax;
mod zone;

use std::fmt;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::error::{Error, Result};

pub use self::zone::parse as zone;

/// The allowed intervals, in hours: up to ten years.
pub const HOURS: RangeInclusive<u32> = 1..=87_600;

/// A cron expression of five fields that fires at some time.
#[derive(Clone, PartialEq, Eq)]
pub struct Expression {
    text: String,
    cron: Box<Cron>,
    /// Whether it names every hour of the day. Then it concerns the minutes of each real hour.
    every_hour: bool,
}

impl Expression {
    /// Parses an expression: minute, hour, day of month, month, day of week, as in Vixie cron, with
    /// names of months and days, and `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. If both
    /// kinds of days are given, one of them is enough; if one of them begins with `*`, both must
    /// match.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage), which names the field, what was found
    /// and what was expected; also for an expression that never fires.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let fields = syntax::fields(&text)?;
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&fields.join(" ")).map_err(|e| {
            Error::usage(format!(
                "cron expression {text:?} cannot be read: {}",
                e.to_string().to_lowercase().trim_end_matches('.')
            ))
        })?;
        let every_hour = cron.pattern.hours.values().len() == 24;
        let expression = Self { text, cron: Box::new(cron), every_hour };
        if expression.wall_clock_after(DateTime::UNIX_EPOCH.naive_utc(), true).is_none() {
            return Err(Error::usage(format!(
                "cron expression {:?} never fires: none of these months has such a day",
                expression.text
            ))
            .hint("check the third and the fourth field, day of month and month"));
        }
        Ok(expression)
    }

    /// The expression as it was written, its fields one space apart.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first time on the wall clock after this one, or at it if `inclusive`, that the
    /// expression names.
    fn wall_clock_after(&self, time: NaiveDateTime, inclusive: bool) -> Option<NaiveDateTime> {
        // In UTC, `croner` sees a clock that never changes.
        self.cron.find_next_occurrence(&time.and_utc(), inclusive).ok().map(|found| found.naive_utc())
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({:?})", self.text)
    }
}

/// How often, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cadence {
    /// At an interval in hours, counted from an anchor in absolute time.
    Every(NonZeroU32),
    /// When the wall clock of a zone shows a time that the expression names.
    Cron {
        /// The expression.
        expression: Expression,
        /// The zone.
        zone: Tz,
    },
}

/// The error for a number of hours that is not an interval.
pub fn no_interval(hours: i64) -> Error {
    Error::usage(format!("an interval of {hours} hours: expected a whole number from {} to {}", HOURS.start(), HOURS.end()))
}

impl Cadence {
    /// An interval.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if it is not in [`HOURS`].
    pub fn every(hours: u32) -> Result<Self> {
        let known = NonZeroU32::new(hours).filter(|hours| HOURS.contains(&hours.get()));
        known.map(Self::Every).ok_or_else(|| no_interval(hours.into()))
    }

    /// A cron expression in a zone, both as written.
    ///
    /// # Errors
    /// As [`Expression::parse`] and [`zone()`].
    pub fn cron(expression: &str, zone: &str) -> Result<Self> {
        Ok(Self::Cron { expression: Expression::parse(expression)?, zone: self::zone(zone)? })
    }

    /// The first run later than `after`.
    ///
    /// An interval runs at whole multiples of the interval after `anchor`, the first one interval
    /// after it. For an expression, the anchor means nothing:
    ///
    /// - An expression that names every hour (`*/15 * * * *`) runs whenever the clock shows a named
    ///   time: again in a repeated hour, not in a skipped one.
    /// - Any other runs once for each named time. A skipped time runs at the first moment after the
    ///   gap. A repeated time counts when it comes first. A day that is skipped as a whole has no
    ///   runs.
    ///
    /// None if there is no such time that can be represented: after the year 5000.
    #[must_use]
    pub fn next_after(&self, anchor: DateTime<Utc>, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Every(hours) => {
                let step = i64::from(hours.get()) * 3600;
                // However long before the anchor, the first run is one interval after it.
                let passed = (after - anchor).num_seconds().div_euclid(step).max(0);
                anchor.checked_add_signed(TimeDelta::try_seconds((passed + 1).checked_mul(step)?)?)
            }
            Self::Cron { expression, zone } if expression.every_hour => {
                zone::each_match(*zone, after, |time, inclusive| expression.wall_clock_after(time, inclusive))
            }
            Self::Cron { expression, zone } => zone::each_once(*zone, after, |time| expression.wall_clock_after(time, false)),
        }
    }
}

/// `every 6 hours`, or the expression and its zone.
impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(hours) if hours.get() == 1 => f.write_str("every hour"),
            Self::Every(hours) => write!(f, "every {hours} hours"),
            Self::Cron { expression, zone } => write!(f, "{} in {zone}", expression.text),
        }
    }
}
