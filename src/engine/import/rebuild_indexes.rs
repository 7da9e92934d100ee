//! Builds the indexes of a backup on existing collections of the target, after an import that
//! skipped them.

use super::plan::Plan;
use super::report::{Built, UnbuiltIndex};
use crate::context::Context;
use crate::error::Result;
use crate::sink::CollectionSpec;
use crate::sink::indexes::{self, IndexBuilder, Which};

/// Builds every missing index. The report names those that the target refuses, and those of
/// collections that do not exist.
pub(super) async fn build(plan: &Plan<'_>, cx: &Context) -> Result<Built> {
    cx.progress.begin("building indexes");
    let builder = IndexBuilder::new(plan.target.clone());
    let mut report = Built::default();
    for spec in plan.specs.iter().filter(|b| !b.indexes.is_empty()) {
        if plan.stands(spec).is_none() {
            let reason = "the target has no such collection".to_owned();
            report.failed.extend(spec.indexes.iter().map(|index| unbuilt(spec, &index.name, reason.clone())));
            continue;
        }
        let conflicting = indexes::conflicts(&plan.target, spec).await?;
        report.failed.extend(
            conflicting
                .iter()
                .map(|name| unbuilt(spec, name, "the target has a different index with this name or this key".to_owned())),
        );
        let mut indexes = indexes::missing(&plan.target, spec).await?;
        indexes.retain(|index| !conflicting.contains(&index.name));
        let missing = spec.in_place(indexes);
        let item = cx.progress.item(spec.namespace.to_string(), missing.indexes.len() as u64, 0);
        let failures = builder.build(&missing, Which::All, &item).await?;
        item.finish();
        report.built += (missing.indexes.len() - failures.len()) as u64;
        report.failed.extend(failures.into_iter().map(|f| unbuilt(spec, &f.name, f.error.to_string())));
    }
    if let Some(database) = plan.databases().first() {
        plan.target.make_durable(database).await?;
    }
    Ok(report)
}

fn unbuilt(spec: &CollectionSpec, name: &str, reason: String) -> UnbuiltIndex {
    UnbuiltIndex { namespace: spec.namespace.to_string(), name: name.to_owned(), reason: Some(reason) }
}
