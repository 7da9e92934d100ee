//! Decides what of the target an import keeps under another name.

use super::options::{ImportMode, ImportOptions, IndexMode};
use super::plan::Plan;
use super::report::Staging;
use crate::error::{Error, Result};
use crate::format::digest::Content;
use crate::names::{IMPORT_COLLECTION, Namespace};
use crate::sink::kept;
use crate::sink::lease::Lease;
use crate::sink::publish::{Keep, Step};

/// How an import keeps what it replaces.
pub(super) struct Keeping {
    id: String,
    home: String,
    backup: String,
    at: bson::DateTime,
    /// What each collection of the plan holds.
    contents: Vec<Content>,
}

impl Keeping {
    pub(super) async fn of(plan: &Plan<'_>, lease: &Lease, staged: &Staging) -> Result<Self> {
        let contents = staged.replayed.as_ref().unwrap_or(&staged.proven.contents).clone();
        let at = kept::clock(&plan.target).await?;
        Ok(Self { id: lease.id().to_owned(), home: lease.home().to_owned(), backup: plan.backup.clone(), at, contents })
    }

    /// The step that comes before all others.
    pub(super) fn remember(&self) -> Step {
        let record = Namespace::new(&*self.home, IMPORT_COLLECTION);
        Step::Remember { record, id: self.id.clone(), backup: self.backup.clone(), at: self.at }
    }

    /// Where the collection under the name of a step is kept. Extra collections come after those of
    /// the plan.
    pub(super) fn keep(&self, number: usize, namespace: &Namespace) -> Keep {
        let imported = self.contents.get(number).copied().unwrap_or_default();
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let place = kept::place(&self.id, number, namespace);
        Keep { id: self.id.clone(), home: self.home.clone(), number, place, imported }
    }
}

/// Refuses to keep if nothing is replaced as a whole.
pub(super) fn refuse(options: &ImportOptions) -> Result<()> {
    if !options.keep_replaced {
        return Ok(());
    }
    if options.indexes == IndexMode::Only {
        return Err(Error::usage("[[keep-replaced]] has no effect if only indexes are built")
            .hint("leave [[keep-replaced]] out, or [[indexes]] only"));
    }
    if matches!(options.mode, ImportMode::Merge | ImportMode::Add) {
        return Err(Error::usage(
            "[[keep-replaced]] keeps collections that are replaced as a whole; [[mode]] merge and add change them in place",
        )
        .hint("leave [[keep-replaced]] out, or choose [[mode]] replace"));
    }
    Ok(())
}
