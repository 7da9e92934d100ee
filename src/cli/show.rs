//! `show`: what a backup holds.

use serde_json::json;

use super::output::{self, Outcome};
use super::{catalog, render, verified};
use crate::config::Config;
use crate::error::Result;

/// Flags of `show`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backup: a name that `list` shows, or the path of one
    #[arg(value_name = "BACKUP")]
    backup: String,
    /// With --json, list the segments of each collection, and of the oplog slice, too
    #[arg(long)]
    segments: bool,
}

pub(super) async fn run(args: Args, config: &Config) -> Result<Outcome> {
    let backup = catalog(config)?.find(&args.backup).await?;
    let mut fields = output::fields(&backup.manifest)?;
    if !args.segments {
        for collection in fields.get_mut("collections").and_then(|c| c.as_array_mut()).into_iter().flatten() {
            if let Some(collection) = collection.as_object_mut() {
                collection.remove("segments");
            }
        }
        if let Some(slice) = fields.get_mut("oplog").and_then(|o| o.as_object_mut()) {
            slice.remove("segments");
        }
    }
    fields.insert("path".to_owned(), json!(backup.location()));
    let checks = backup.checks().await;
    fields.insert("verified".to_owned(), verified::json(&checks));
    Ok(Outcome::done(render::show(&backup.location(), &backup.manifest, &checks), fields))
}
