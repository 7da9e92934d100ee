//! What to compare, and how.

use crate::engine::Tuning;
use crate::names::{NamespaceFilter, NamespaceRename};

/// What to compare, and how.
#[derive(Debug, Clone, Default)]
pub struct CompareOptions {
    /// The namespaces to compare, by their names in the source. If it names no database, the one in
    /// the source URI's path counts; if that names none, all of both sides.
    pub filter: NamespaceFilter,
    /// Namespaces that have another name in the target. If several rules match, the first counts.
    pub renames: Vec<NamespaceRename>,
    /// How much of the machine it may use. The rate limit is for the source.
    pub tuning: Tuning,
}
