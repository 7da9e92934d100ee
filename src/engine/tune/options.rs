//! What to tune for.

use super::choice::Wanted;
use crate::engine::Tuning;
use crate::names::NamespaceFilter;

/// What to tune for.
#[derive(Debug, Clone, Default)]
pub struct TuneOptions {
    /// Where it names no database, the one in the URI's path; where that names none, all but `admin`, `local`, `config`.
    pub filter: NamespaceFilter,
    /// What is not to be chosen because it is fixed.
    pub wanted: Wanted,
    /// The memory budget and the rate; what it says of readers, level and frames is what is looked for.
    pub tuning: Tuning,
}
