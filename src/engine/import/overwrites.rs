//! What an import would take away: what stands under its names, holds documents, and would be replaced, merged into or dropped.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use super::plan::{Plan, listed};
use super::{ImportMode, IndexMode};
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::catalog::ListedCollection;
use crate::names::Namespace;
use crate::sink::holdings::Holdings;

/// Collections that are looked at at a time.
const AT_A_TIME: usize = 8;

/// What happens to documents that stand in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Overwriting {
    /// The collection is replaced by that of the backup.
    Replaced,
    /// Documents of the backup take the place of those with the same `_id`s.
    Merged,
    /// It is not in the backup, and is dropped.
    Dropped,
}

/// Something in the target that holds documents and is overwritten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedOverwrite {
    /// Its name.
    #[serde(serialize_with = "as_text")]
    pub namespace: Namespace,
    /// `collection` or `timeseries`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What happens to it.
    pub action: Overwriting,
    /// Its documents now, as the server counts them; of a time series, its buckets. None where the login may not look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<u64>,
    /// Those of the backup. Of dumps that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup_documents: Option<u64>,
}

fn as_text<S: serde::Serializer>(namespace: &Namespace, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(namespace)
}

/// What holds documents and would be overwritten, in the plan's order; what is pruned last.
pub(super) async fn look(plan: &Plan<'_>) -> Result<Vec<PlannedOverwrite>> {
    let looking = candidates(plan).into_iter().map(|(found, there)| async move {
        let holdings = Holdings::of(&plan.target, &found.namespace.database, there).await?;
        let documents = holdings.documents();
        Ok::<_, Error>(Some(PlannedOverwrite { documents, ..found }).filter(|_| holdings != Holdings::Nothing))
    });
    let found: Vec<_> = stream::iter(looking).buffered(AT_A_TIME).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

/// Refuses where documents stand in the way that were not there when the import was allowed to go over what it found.
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
        format!("documents came into the target after it was looked at, and would be lost: {}", listed(&others)),
    )
    .hint("run the import again: it counts them"))
}

/// What stands there and would be overwritten if it holds anything.
fn candidates<'p>(plan: &'p Plan<'_>) -> Vec<(PlannedOverwrite, &'p ListedCollection)> {
    if plan.indexes == IndexMode::Only {
        return Vec::new();
    }
    let action = match plan.mode {
        ImportMode::Replace => Some(Overwriting::Replaced),
        ImportMode::Merge => Some(Overwriting::Merged),
        // They take nothing away.
        ImportMode::Fail | ImportMode::Add => None,
    };
    let named = plan.specs.iter().filter_map(|spec| {
        let (there, action) = (plan.stands(spec)?, action?);
        let documents = Some(spec.content.documents).filter(|_| !plan.is_dump);
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
