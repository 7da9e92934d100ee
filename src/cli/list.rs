//! `list`: the backups of a path.

use std::io::IsTerminal as _;

use serde_json::{Value, json};

use super::catalog::{catalog, refuse_missing};
use super::output::{self, Outcome};
use super::render;
use crate::clock;
use crate::config::Config;
use crate::context::Context;
use crate::error::Result;
use crate::format::manifest::Manifest;
use crate::repository::catalog::provenance::{Grouped, groups};
use crate::repository::catalog::{Summary, verified};

/// What the columns and states of the table mean.
pub(super) const LEGEND: &str = "\
Columns:
  name         its name, which tells when it began (UTC)
  state        complete: it can be imported
               running: it is being made
               incomplete: it was interrupted; `backup --resume` goes on with it, or `clean` deletes it
               damaged: its manifest cannot be used; the reason is told below the table
  created      the moment that it shows (UTC): that of its snapshot, or the end of its oplog slice;
               without either, when its last document was read; of a dump, the dump's own date;
               of one that is not complete, when it began
  documents    how many; a time series counts its buckets, which hold many measurements each
  size         their bytes, uncompressed
  stored       the bytes that they take in the backup
  consistency  snapshot: every document as it was at one moment
               oplog: the same, once its oplog slice is replayed, as `import` does
               none: read one after the other while the source went on
  verified     how the last check ended: never, passed or FAILED, when, and which check
  source       the deployment or the dump that it is of
  selection    what was asked for: everything, or databases and patterns
Backups of one source and one selection count together in `clean` and in BACKUP_KEEP_...; no other
backup takes their place.
";

pub(super) async fn run(config: &Config, cx: &Context) -> Result<Outcome> {
    let catalog = catalog(config, cx)?;
    let location = catalog.repository().location();
    let now = clock::now();
    let backups = catalog.list(now).await?;
    if backups.is_empty() {
        refuse_missing(&catalog).await?;
    }
    let entries: Vec<Value> = backups.iter().zip(groups(&backups)).map(|(s, group)| entry(s, group)).collect();
    let fields = json!({ "path": location, "backups": entries });
    let mut text = render::backup::list(&location, &backups, now);
    // For a person, and not for a program that reads a pipe.
    if !backups.is_empty() && std::io::stdout().is_terminal() {
        text += &format!("\n{LEGEND}");
    }
    Ok(Outcome::done(text, output::fields(&fields)?))
}

fn entry(summary: &Summary, group: Option<usize>) -> Value {
    let (manifest, (documents, raw_bytes)) = (summary.state.manifest(), summary.state.counted().unzip());
    let mut entry = json!({
        "name": summary.name,
        "path": summary.location,
        "state": summary.state.label(),
        "created": summary.created(),
        "documents": documents,
        "buckets": manifest.map(Manifest::buckets),
        "rawBytes": raw_bytes,
        "storedBytes": manifest.map(|manifest| manifest.totals.stored_bytes),
        "consistency": manifest.map(|manifest| &manifest.consistency),
        "verified": summary.checks.as_ref().map(verified),
        "resumable": summary.resumable,
    });
    if let (Value::Object(fields), Value::Object(of)) = (&mut entry, json!(Grouped::of(summary, group))) {
        fields.extend(of);
        fields.extend(summary.state.damage().map(|reason| ("reason".to_owned(), reason.into())));
    }
    entry
}
