//! `--include` and `--exclude`, for every verb that works on namespaces.

use crate::error::Result;
use crate::names::NamespaceFilter;

/// The two flags.
#[derive(Debug, clap::Args)]
pub(super) struct Filter {
    /// Take only namespaces (DB.COLLECTION) that match; * matches any characters. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "NS")]
    include: Vec<String>,
    /// Skip namespaces that match. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "NS")]
    exclude: Vec<String>,
}

impl Filter {
    /// The filter within these databases, or within all if there are none.
    pub(super) fn of(&self, databases: &[String]) -> Result<NamespaceFilter> {
        NamespaceFilter::parse(databases, &self.include, &self.exclude)
    }

    /// Whether neither is given.
    pub(super) fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}
