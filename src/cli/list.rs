//! `list`: the backups and the archived oplogs of a path.

use std::io::IsTerminal as _;

use serde_json::{Value, json};

use super::catalog::{catalog, refuse_missing};
use super::output::{self, Outcome};
use super::render;
use super::render::lined_up::Room;
use crate::clock;
use crate::config::Config;
use crate::context::Context;
use crate::engine::timeline;
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
               incomplete: it was interrupted; `backup --resume` goes on, `clean` deletes it
               damaged: its manifest cannot be used; the reason is below the table
  created      its consistency point (UTC): the snapshot time, or the end of its oplog slice.
               Without one: when its last document was read. Of an adopted dump: the dump's
               date. Of a backup that is not complete: when it began
  documents    how many; a time series counts its buckets, which hold many measurements each
  size         their bytes, uncompressed
  stored       their bytes in the backup
  consistency  snapshot: every document is as it was at one time
               oplog: the same, once `import` has replayed the backup's oplog slice
               none: documents were read one after another, and are not of one time
               * some collections are exceptions; `bsonvault show NAME` names them
  verified     how the last check ended: never, passed or FAILED; when, and which check
  source       the deployment, or the dump, that it was taken from
  selection    what was asked for: everything, or databases and patterns
Retention (`clean`, BACKUP_KEEP_...) counts backups of each source and selection separately.
";

/// What a person most often asks about the table, below it.
const HINT: &str = "
snapshot and oplog: every document is as it was at one time; `import` replays the oplog slice of an
oplog backup. none: documents were read one after another. `bsonvault list --help` explains the rest.
";

/// Flags of `list`.
#[derive(Debug, clap::Args)]
#[command(after_help = LEGEND)]
pub struct Args {
    /// Show all columns, however wide the table gets
    #[arg(long)]
    wide: bool,
}

pub(super) async fn run(args: &Args, config: &Config, cx: &Context) -> Result<Outcome> {
    let catalog = catalog(config, cx)?;
    let location = catalog.repository().location();
    let now = clock::now();
    let backups = catalog.list(now).await?;
    if backups.is_empty() {
        refuse_missing(&catalog).await?;
    }
    let entries: Vec<Value> = backups.iter().zip(groups(&backups)).map(|(s, group)| entry(s, group)).collect();
    let timeline = timeline::look_among(catalog.repository(), &backups, false, cx).await?;
    let fields = json!({ "path": location, "backups": entries, "archives": timeline.archives });
    let room = if args.wide { Room::Any } else { Room::of_stdout() };
    let mut text = render::list::list(&location, &backups, now, room) + &render::archive::list(&timeline);
    // For a person, and not for a program that reads a pipe.
    if !backups.is_empty() && std::io::stdout().is_terminal() {
        text += HINT;
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
