//! Retention: which backups stay, by restic's rules, and why. Pure: no clock, no store.

use std::num::NonZeroU32;

/// How many backups stay. What is `None` keeps none by that rule; where all are, nothing is ever deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// The newest so many.
    pub last: Option<NonZeroU32>,
    /// The newest of each of the last so many days that have one.
    pub daily: Option<NonZeroU32>,
    /// The newest of each of the last so many ISO weeks that have one.
    pub weekly: Option<NonZeroU32>,
    /// The newest of each of the last so many months that have one.
    pub monthly: Option<NonZeroU32>,
    /// The newest of each of the last so many years that have one.
    pub yearly: Option<NonZeroU32>,
}
