//! Building the indexes of a backup on collections that stand in the target: after an import that skipped them.

use super::plan::Plan;
use super::report::{Built, UnbuiltIndex};
use crate::error::Result;
use crate::pipeline::progress::Progress;
use crate::sink::Blueprint;
use crate::sink::indexes::{self, IndexBuilder, Which};

/// Builds every index that is missing. One that the target refuses, and those of collections that are not there, are in the report.
pub(super) async fn build(plan: &Plan<'_>, progress: &Progress) -> Result<Built> {
    progress.begin("building indexes");
    let builder = IndexBuilder::new(plan.target.clone());
    let mut report = Built::default();
    for blueprint in plan.blueprints.iter().filter(|b| !b.indexes.is_empty()) {
        if plan.stands(blueprint).is_none() {
            let reason = "there is no such collection in the target".to_owned();
            report.failed.extend(blueprint.indexes.iter().map(|index| unbuilt(blueprint, &index.name, reason.clone())));
            continue;
        }
        let conflicting = indexes::conflicts(&plan.target, blueprint).await?;
        report.failed.extend(conflicting.iter().map(|name| {
            unbuilt(blueprint, name, "another index with its name or its key stands there, and is not the same".to_owned())
        }));
        let mut indexes = indexes::missing(&plan.target, blueprint).await?;
        indexes.retain(|index| !conflicting.contains(&index.name));
        let missing = blueprint.in_place(indexes);
        let item = progress.item(blueprint.namespace.to_string(), missing.indexes.len() as u64, 0);
        let failures = builder.build(&missing, Which::All, &item).await?;
        item.finish();
        report.built += (missing.indexes.len() - failures.len()) as u64;
        report.failed.extend(failures.into_iter().map(|f| unbuilt(blueprint, &f.name, f.error.to_string())));
    }
    if let Some(database) = plan.databases().first() {
        plan.target.make_durable(database).await?;
    }
    Ok(report)
}

fn unbuilt(blueprint: &Blueprint, name: &str, reason: String) -> UnbuiltIndex {
    UnbuiltIndex { namespace: blueprint.namespace.to_string(), name: name.to_owned(), reason: Some(reason) }
}
