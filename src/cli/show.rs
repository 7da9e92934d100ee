//! `show`: what a backup holds.

use serde_json::Map;

use super::named::{self, Asking};
use super::output::{self, Outcome};
use super::render;
use crate::config::Config;
use crate::context::Context;
use crate::error::Result;

/// Flags of `show`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backup: a name that `list` shows, latest for the newest complete one, or the path of one
    #[arg(value_name = "BACKUP")]
    backup: String,
    /// With --json, list the segments of each collection, and of the oplog slice, too
    #[arg(long)]
    segments: bool,
}

pub(super) async fn run(args: Args, config: &Config, json: bool, cx: &Context) -> Result<Outcome> {
    let backup = named::find(&args.backup, Asking { verb: "show", silent: json }, config, cx).await?;
    if json {
        let described = backup.describe(args.segments).await?;
        return Ok(Outcome { long: output::long(described, Map::new()), ..Outcome::default() });
    }
    let checks = backup.checks().await;
    Ok(Outcome { text: render::backup::show(&backup.location(), &backup.manifest, &checks), ..Outcome::default() })
}
