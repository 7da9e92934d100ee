//! Selects namespaces.

use super::{Namespace, NamespacePattern};
use crate::error::Result;

/// The selection of a deployment, a backup or a dump: in these databases, what any pattern of
/// `include` matches and none of `exclude`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceFilter {
    /// If empty, all.
    pub databases: Vec<String>,
    /// If empty, all.
    pub include: Vec<NamespacePattern>,
    /// What to skip.
    pub exclude: Vec<NamespacePattern>,
}

impl NamespaceFilter {
    /// The filter of these databases and patterns.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) for a pattern that can match nothing.
    pub fn parse(databases: &[String], include: &[String], exclude: &[String]) -> Result<Self> {
        let patterns = |texts: &[String]| texts.iter().map(|text| NamespacePattern::parse(text)).collect::<Result<_>>();
        Ok(Self { databases: databases.to_vec(), include: patterns(include)?, exclude: patterns(exclude)? })
    }

    /// Whether a namespace is selected.
    #[must_use]
    pub fn takes(&self, namespace: &Namespace) -> bool {
        let of_database = self.databases.is_empty() || self.databases.contains(&namespace.database);
        let included = self.include.is_empty() || self.include.iter().any(|p| p.matches(namespace));
        of_database && included && !self.exclude.iter().any(|p| p.matches(namespace))
    }

    /// All patterns.
    pub fn patterns(&self) -> impl Iterator<Item = &NamespacePattern> {
        self.include.iter().chain(&self.exclude)
    }

    /// The same with its databases sorted and unique. Without databases, the one that a connection
    /// string names.
    #[must_use]
    pub fn or_in(mut self, named: Option<&str>) -> Self {
        if self.databases.is_empty() {
            self.databases.extend(named.map(str::to_owned));
        }
        self.databases.sort();
        self.databases.dedup();
        self
    }
}
