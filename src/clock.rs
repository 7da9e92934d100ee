//! The only reader of the clock. Everything else takes the time as an argument or asks here.

use chrono::{DateTime, SubsecRound, Utc};

/// The time now, in UTC, to the millisecond: what backups and manifests are stamped with.
#[must_use]
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(3)
}
