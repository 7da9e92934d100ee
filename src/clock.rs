//! Reads the clock. Everything else takes the time as an argument or asks here.

use std::time::Instant;

use chrono::{DateTime, SubsecRound, Utc};

/// The time now, in UTC, to the millisecond. It stamps backups and manifests.
#[must_use]
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(3)
}

/// The time since then, in milliseconds.
#[must_use]
pub fn millis_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}
