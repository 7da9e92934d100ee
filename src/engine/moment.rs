//! A time to restore, as people write it.

use chrono::DateTime;

use crate::error::{Error, Result};
use crate::format::manifest::ClusterTime;

/// A time that everything up to it is restored at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Everything at this time or earlier.
    At(ClusterTime),
    /// Everything of this second and of earlier ones, in seconds since 1970.
    WholeSecond(u32),
    /// Everything before this time.
    Before(ClusterTime),
}

impl Moment {
    /// Parses a time: RFC 3339, which means the whole second; `SECONDS`, the same since 1970;
    /// `SECONDS:ORDINAL`; `before:SECONDS:ORDINAL`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage).
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!("{text:?} is not a time that can be restored")).hint(
                "write 2026-11-28T14:03:22Z for all of that second, or SECONDS:ORDINAL as `bsonvault oplog-search` prints it, or \
                 before:SECONDS:ORDINAL",
            )
        };
        let text_of = text.trim();
        if let Some(before) = text_of.strip_prefix("before:") {
            let time = cluster_time(before).filter(|time| time.t > 0).ok_or_else(wrong)?;
            return Ok(Self::Before(time));
        }
        if let Some(time) = cluster_time(text_of) {
            return Ok(Self::At(time));
        }
        if let Ok(seconds) = text_of.parse::<u32>() {
            return Ok(Self::WholeSecond(seconds));
        }
        let time = DateTime::parse_from_rfc3339(text_of).map_err(|_| wrong())?;
        if time.timestamp_subsec_nanos() != 0 {
            return Err(wrong().hint_too("a source counts the operations of a second, and does not know fractions of it"));
        }
        u32::try_from(time.timestamp()).map(Self::WholeSecond).map_err(|_| wrong())
    }

    /// The last time that is restored.
    #[must_use]
    pub fn upto(self) -> ClusterTime {
        match self {
            Self::At(time) => time,
            Self::WholeSecond(t) => ClusterTime { t, i: u32::MAX },
            Self::Before(ClusterTime { t, i: 0 }) => ClusterTime { t: t - 1, i: u32::MAX },
            Self::Before(ClusterTime { t, i }) => ClusterTime { t, i: i - 1 },
        }
    }

    /// The time that an archive must have reached, so that nothing is missing.
    #[must_use]
    pub fn reach(self) -> ClusterTime {
        match self.upto() {
            ClusterTime { t, i: u32::MAX } => ClusterTime { t: t.saturating_add(1), i: 0 },
            time => time,
        }
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::At(time) => write!(f, "{time}"),
            Self::WholeSecond(t) => {
                let time = ClusterTime { t: *t, i: 0 }.to_string();
                write!(f, "the end of the second {}", time.split(' ').next().unwrap_or_default())
            }
            Self::Before(time) => write!(f, "right before {time}"),
        }
    }
}

/// `SECONDS:ORDINAL`
fn cluster_time(text: &str) -> Option<ClusterTime> {
    let (seconds, ordinal) = text.split_once(':')?;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    Some(ClusterTime { t: digits(seconds)?, i: digits(ordinal)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_restored_whole_and_an_ordinal_exactly() {
        let time = |t, i| ClusterTime { t, i };
        for (text, upto, reach) in [
            ("1795383900:7", time(1_795_383_900, 7), time(1_795_383_900, 7)),
            ("before:1795383900:7", time(1_795_383_900, 6), time(1_795_383_900, 6)),
            ("before:1795383900:0", time(1_795_383_899, u32::MAX), time(1_795_383_900, 0)),
            ("2026-11-22T21:45:00Z", time(1_795_383_900, u32::MAX), time(1_795_383_901, 0)),
            ("2026-11-22T22:45:00+01:00", time(1_795_383_900, u32::MAX), time(1_795_383_901, 0)),
            ("1795383900", time(1_795_383_900, u32::MAX), time(1_795_383_901, 0)),
        ] {
            let moment = Moment::parse(text).unwrap();
            assert_eq!((moment.upto(), moment.reach()), (upto, reach), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_to_write() {
        for bad in [
            "",
            "now",
            "1:",
            ":1",
            "1:-2",
            "+1:2",
            "1:2:3",
            "before:",
            "before:0:0",
            "2026-11-22",
            "2026-11-22T21:45:00.5Z",
            "4294967296:1",
        ] {
            let error = Moment::parse(bad).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad:?}");
            assert!(error.hint_text().unwrap().contains("SECONDS:ORDINAL"));
        }
    }
}
