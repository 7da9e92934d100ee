//! `list`: the backups of a path.

use serde_json::{Value, json};

use super::output::{self, Outcome};
use super::{catalog, render};
use crate::catalog::{State, Summary, verified};
use crate::clock;
use crate::config::Config;
use crate::error::Result;

pub(super) async fn run(config: &Config) -> Result<Outcome> {
    let catalog = catalog(config)?;
    let location = catalog.store().location();
    let now = clock::now();
    let backups = catalog.list(now).await?;
    let fields = json!({ "path": location, "backups": backups.iter().map(entry).collect::<Vec<_>>() });
    Ok(Outcome::done(render::list(&location, &backups, now), output::fields(&fields)?))
}

fn entry(summary: &Summary) -> Value {
    let mut entry = json!({
        "name": summary.name,
        "path": summary.location,
        "state": summary.state.label(),
        "created": summary.started(),
        "documents": null,
        "rawBytes": null,
        "storedBytes": null,
        "consistency": null,
        "verified": summary.checks.as_ref().map(verified),
        "resumable": summary.resumable,
    });
    match &summary.state {
        State::Complete(manifest) => {
            entry["created"] = json!(manifest.created);
            entry["documents"] = json!(manifest.totals.documents);
            entry["rawBytes"] = json!(manifest.totals.raw_bytes);
            entry["storedBytes"] = json!(manifest.totals.stored_bytes);
            entry["consistency"] = json!(manifest.consistency);
        }
        State::Running(progress) => {
            entry["documents"] = json!(progress.documents);
            entry["rawBytes"] = json!(progress.raw_bytes);
        }
        State::Damaged(reason) => entry["reason"] = json!(reason),
        State::Incomplete => {}
    }
    entry
}
