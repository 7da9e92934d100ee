//! `show`: one backup and its collections.

use serde_json::Map;

use super::named::{self, Asking};
use super::output::{self, Outcome};
use super::render;
use super::render::lined_up::Room;
use crate::config::Config;
use crate::context::Context;
use crate::error::Result;

/// Flags of `show`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backup: a name that `list` shows, `latest` for the newest complete one, or a path
    #[arg(value_name = "BACKUP")]
    backup: String,
    /// With --json, list the segments of each collection and of the oplog slice
    #[arg(long)]
    segments: bool,
    /// Show whole names and content digests, however wide the table gets
    #[arg(long)]
    wide: bool,
}

pub(super) async fn run(args: Args, config: &Config, json: bool, cx: &Context) -> Result<Outcome> {
    let backup = named::find(&args.backup, Asking { verb: "show", silent: json }, config, cx).await?;
    if json {
        let described = backup.describe(args.segments).await?;
        return Ok(Outcome { long: output::long(described, Map::new()), ..Outcome::default() });
    }
    let checks = backup.checks().await;
    let room = if args.wide { Room::Any } else { Room::of_stdout() };
    Ok(Outcome { text: render::backup::show(&backup.location(), &backup.manifest, &checks, room), ..Outcome::default() })
}
