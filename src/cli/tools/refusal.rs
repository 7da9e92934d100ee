//! Refuses flags of MongoDB's tools that are known but not supported.

use crate::error::{Error, Result};

/// A flag that is known and refused: its name, the reason, and what to do instead.
pub(in crate::cli) struct Refusal(
    pub(in crate::cli) &'static str,
    pub(in crate::cli) &'static str,
    pub(in crate::cli) &'static str,
);

/// Refuses the first of these that was given.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage).
pub(in crate::cli) fn refuse(flags: &[(bool, Refusal)]) -> Result<()> {
    match flags.iter().find(|(given, _)| *given) {
        None => Ok(()),
        Some((_, Refusal(flag, why, instead))) => Err(Error::usage(format!("{flag} is refused: {why}")).hint(*instead)),
    }
}
