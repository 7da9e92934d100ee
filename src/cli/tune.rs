//! `tune`: measures, and recommends the settings for fast and small backups.

use serde_json::json;

use super::filter::Filter;
use super::output::{self, Outcome};
use super::progress::{Faces, with_progress};
use super::render;
use crate::config::{Config, Flags};
use crate::context::Context;
use crate::engine::tune::{self, TuneOptions, Wanted};
use crate::error::Result;
use crate::format::frame;
use crate::repository::Repository;

/// Flags of `tune`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source [env: MONGO_URI_ATLAS]
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// Measure only this database. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "DB")]
    database: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Use this level of zstd, -7 (fastest) to 19 (smallest), and tune the rest
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true, value_parser = level)]
    level: Option<i32>,
    /// Use long-distance matching, or with =false don't, and tune the rest
    #[arg(help_heading = "Load", long = "long", alias = "long-distance", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    long_distance: Option<bool>,
    /// MiB for all buffers together, 64 or more [env: BACKUP_MEMORY_MB] [default: 256]
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true)]
    memory_mb: Option<String>,
}

impl Args {
    pub(super) fn flags(&self) -> Flags {
        Flags { source: self.source.clone(), memory_mb: self.memory_mb.clone(), ..Flags::default() }
    }
}

fn level(text: &str) -> Result<i32, String> {
    let (from, to) = (frame::LEVELS.start(), frame::LEVELS.end());
    let level = text.trim().parse().ok().filter(|level| frame::LEVELS.contains(level));
    level.ok_or_else(|| format!("expected a whole number from {from} to {to}"))
}

pub(super) async fn run(args: Args, config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    let options = TuneOptions {
        filter: args.filter.of(&args.database)?,
        wanted: Wanted { level: args.level, long_distance: args.long_distance, codec: config.tuning.codec.unwrap_or_default() },
        tuning: config.tuning,
    };
    let (repository, source) = (Repository::open(&config.path)?, config.source()?);
    let report = with_progress(faces, cx, tune::run(&source, &repository, &options, cx)).await?;
    let mut fields = output::fields(&report)?;
    fields.insert("lines".to_owned(), json!(render::tune::lines(report.choice)));
    Ok(Outcome::done(render::tune::text(&report), fields))
}
