//! What to tune for.

use super::choice::Wanted;
use crate::engine::Tuning;
use crate::names::NamespaceFilter;

/// What to tune for.
#[derive(Debug, Clone, Default)]
pub struct TuneOptions {
    /// Which namespaces. If it names no database, the one in the URI's path; if that names none,
    /// all but `admin`, `local`, `config`.
    pub filter: NamespaceFilter,
    /// Settings that are fixed, and not to be chosen.
    pub wanted: Wanted,
    /// The memory budget and the rate limit. Its readers, level and frames are ignored: these are
    /// what tune looks for.
    pub tuning: Tuning,
}
