//! `--include` and `--exclude`, as every verb takes them that works on namespaces.

use crate::error::Result;
use crate::names::NamespaceFilter;

/// The two flags.
#[derive(Debug, clap::Args)]
pub(super) struct Filter {
    /// Only namespaces (DB.COLLECTION, `*` stands for any characters) that match; may be given more than once
    #[arg(long, value_name = "NS")]
    include: Vec<String>,
    /// Leave out namespaces that match; may be given more than once
    #[arg(long, value_name = "NS")]
    exclude: Vec<String>,
}

impl Filter {
    /// What of these databases is wanted, or of all.
    pub(super) fn of(&self, databases: &[String]) -> Result<NamespaceFilter> {
        NamespaceFilter::parse(databases, &self.include, &self.exclude)
    }

    /// Neither is given.
    pub(super) fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}
