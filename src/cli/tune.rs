//! `tune`: measure, and say with which settings a backup is fast and small; with `--apply`, write them down.

use std::path::PathBuf;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::output::{self, Outcome};
use super::progress::Faces;
use super::{tuned, with_progress, working_directory};
use crate::config::edit::{self, Target, Tuned};
use crate::config::{Config, Flags};
use crate::context::progress::Progress;
use crate::engine::tune::{self, TuneOptions, TuneReport, Wanted};
use crate::error::Result;
use crate::format::frame;
use crate::names::NamespacePattern;
use crate::repository::backend::Store;

/// Flags of `tune`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source [env: MONGO_URI_ATLAS]
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// Measure this database only; may be given more than once
    #[arg(long, value_name = "DB")]
    database: Vec<String>,
    /// Measure only namespaces (DB.COLLECTION, `*` stands for any characters) that match; may be given more than once
    #[arg(long, value_name = "NS")]
    include: Vec<String>,
    /// Leave out namespaces that match; may be given more than once
    #[arg(long, value_name = "NS")]
    exclude: Vec<String>,
    /// Choose this level of zstd's, -7 (fastest) to 19 (smallest), and tune the rest
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = level)]
    level: Option<i32>,
    /// Choose with long-distance matching, or with `=false` without
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    long_distance: Option<bool>,
    /// Write the choice into .env or rocket.toml: this one, or else the one that such settings stand in, or else .env
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    apply: Option<Option<String>>,
    /// MiB that all buffers together may take, 64 or more [env: BACKUP_MEMORY_MB] [default: 256]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
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

/// Where the choice goes.
struct Place {
    directory: PathBuf,
    target: Target,
    /// It is to be written there.
    apply: bool,
}

impl Place {
    fn of(apply: Option<&Option<String>>) -> Result<Self> {
        let directory = working_directory()?;
        let target = match apply {
            Some(Some(name)) => Target::of_name(name)?,
            _ => Target::usual(&directory)?,
        };
        Ok(Self { directory, target, apply: apply.is_some() })
    }
}

pub(super) async fn run(args: Args, config: &Config, faces: Faces, stop: &CancellationToken) -> Result<Outcome> {
    let patterns = |texts: &[String]| texts.iter().map(|text| NamespacePattern::parse(text)).collect::<Result<Vec<_>>>();
    let flags = args.flags();
    let place = Place::of(args.apply.as_ref())?;
    let options = TuneOptions {
        include: patterns(&args.include)?,
        exclude: patterns(&args.exclude)?,
        databases: args.database,
        wanted: Wanted { level: args.level, long_distance: args.long_distance, codec: config.tuning.codec.unwrap_or_default() },
        tuning: config.tuning,
    };
    let (store, source) = (Store::open(&config.path)?, config.source()?);
    let progress = Progress::default();
    let report = with_progress(faces, &progress, tune::run(&source, &store, &options, &progress, stop)).await?;
    outcome(&report, &place, &flags)
}

fn outcome(report: &TuneReport, place: &Place, flags: &Flags) -> Result<Outcome> {
    let choice = report.choice;
    let tuned =
        Tuned { readers: choice.readers, level: choice.level, frame_mb: choice.frame_mb, long_distance: choice.long_distance };
    let lines = tuned.lines(place.target);
    let mut fields = output::fields(report)?;
    fields.insert("lines".to_owned(), json!(lines));
    let mut text = tuned::text(report);
    if !place.apply {
        text += &tuned::lines(&lines, place.target.name());
        return Ok(Outcome::done(text, fields));
    }
    // What was measured is told also where it cannot be written.
    let failure = match edit::write(&place.directory, place.target, tuned, std::env::vars_os(), flags) {
        Ok(written) => {
            text += &tuned::written(&lines, &written);
            let applied = json!({ "file": written.file, "changed": written.changed, "overridden": written.overridden });
            fields.insert("applied".to_owned(), applied);
            None
        }
        Err(error) => {
            text += &tuned::lines(&lines, place.target.name());
            Some(error)
        }
    };
    Ok(Outcome { text, json: fields, failure, ..Outcome::default() })
}
