//! Finds what an import would destroy: existing collections that hold documents and would be
//! replaced, merged into or dropped.

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::options::{ImportMode, IndexMode};
use super::plan::{Overwriting, Plan, PlannedOverwrite, listed};
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::catalog::ListedCollection;
use crate::sink::holdings::Holdings;

/// Collections that are looked at at a time.
const AT_A_TIME: usize = 8;

impl Plan<'_> {
    /// Counts the documents that would be overwritten, for the summary.
    ///
    /// # Errors
    /// The server's; [`ErrorKind::Interrupted`].
    pub async fn look_at_overwrites(&mut self) -> Result<&[PlannedOverwrite]> {
        let found = look(self).await?;
        Ok(self.overwrites.insert(found))
    }
}

/// The collections with documents that would be overwritten, in the plan's order; dropped extras
/// last.
async fn look(plan: &Plan<'_>) -> Result<Vec<PlannedOverwrite>> {
    let looking = candidates(plan).into_iter().map(|(found, there)| async move {
        let holdings = Holdings::of(&plan.target, &found.namespace.database, there).await?;
        let documents = holdings.documents();
        Ok::<_, Error>(Some(PlannedOverwrite { documents, ..found }).filter(|_| holdings != Holdings::Nothing))
    });
    let found: Vec<_> = stream::iter(looking).buffered(AT_A_TIME).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// Refuses if documents would be lost that did not exist when the user confirmed the overwrites.
pub(super) async fn refuse_others(plan: &Plan<'_>) -> Result<()> {
    let Some(allowed) = &plan.only_over else { return Ok(()) };
    let mut others = Vec::new();
    for (found, there) in candidates(plan).into_iter().filter(|(found, _)| !allowed.contains(&found.namespace)) {
        if Holdings::of(&plan.target, &found.namespace.database, there).await? != Holdings::Nothing {
            others.push(found.namespace.to_string());
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Refused,
        format!("documents were written to the target since it was checked, and would be lost: {}", listed(&others)),
    )
    .hint("run the import again: it counts them anew"))
}

/// The collections that would be overwritten if they hold documents.
fn candidates<'p>(plan: &'p Plan<'_>) -> Vec<(PlannedOverwrite, &'p ListedCollection)> {
    if plan.indexes == IndexMode::Only {
        return Vec::new();
    }
    let action = match plan.mode {
        ImportMode::Replace => Some(Overwriting::Replaced),
        ImportMode::Merge => Some(Overwriting::Merged),
        // These modes destroy nothing.
        ImportMode::Fail | ImportMode::Add => None,
    };
    let named = plan.specs.iter().filter_map(|spec| {
        let (there, action) = (plan.stands(spec)?, action?);
        let documents = Some(spec.content.documents).filter(|_| plan.origin.is_counted());
        let takes_nothing = action == Overwriting::Merged && documents == Some(0);
        let (namespace, kind) = (spec.namespace.clone(), there.kind.clone());
        let found = PlannedOverwrite { namespace, kind, action, documents: None, backup_documents: documents };
        (there.kind != "view" && !takes_nothing).then_some((found, there))
    });
    let pruned = plan.prunes.iter().filter_map(|(namespace, _)| {
        let there = plan.standing.get(&namespace.database)?.get(&namespace.collection)?;
        let (namespace, kind) = (namespace.clone(), there.kind.clone());
        let action = Overwriting::Dropped;
        let found = PlannedOverwrite { namespace, kind, action, documents: None, backup_documents: None };
        (there.kind != "view").then_some((found, there))
    });
    named.chain(pruned).collect()
}
