//! `compare`: proves that two deployments hold the same, or names what differs.

use super::filter::Filter;
use super::output::{self, Outcome};
use super::progress::{Faces, with_progress};
use super::render;
use crate::config::{Config, Flags};
use crate::context::Context;
use crate::engine::compare::{self, CompareOptions};
use crate::error::Result;
use crate::names::NamespaceRename;

/// Flags of `compare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The source [env: MONGO_URI_ATLAS]
    #[arg(long, value_name = "URI")]
    source: Option<String>,
    /// The target [env: MONGO_URI_LOCAL]
    #[arg(long, value_name = "URI")]
    target: Option<String>,
    /// Compare only this database. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "DB")]
    database: Vec<String>,
    /// Compare a namespace with one of another name in the target. Each * in FROM matches any
    /// characters, which replace the * in TO. Views follow. Repeatable
    #[arg(help_heading = "Selection", long, value_name = "FROM=TO")]
    rename: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Ranges that are read at the same time, each with a cursor on both sides, 1 to 256 [env:
    /// BACKUP_READERS] [default: 2 to 8]
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true)]
    readers: Option<String>,
    /// The most Mbit/s to read from the source, 1 to 1000000, counted before compression on the
    /// wire [env: BACKUP_MAX_MBIT]
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true)]
    max_mbit: Option<String>,
    /// The member of the source's replica set to read from: primary, primaryPreferred, secondary,
    /// secondaryPreferred, nearest, or a document with mode, tagSets and maxStalenessSeconds [env:
    /// BACKUP_READ_PREFERENCE] [default: the URI's, else primary]
    #[arg(help_heading = "Load", long, value_name = "MODE")]
    read_preference: Option<String>,
    /// MiB for all buffers together, 64 or more [env: BACKUP_MEMORY_MB] [default: 256]
    #[arg(help_heading = "Load", long, value_name = "N", allow_negative_numbers = true)]
    memory_mb: Option<String>,
}

impl Args {
    pub(super) fn flags(&self) -> Flags {
        Flags {
            source: self.source.clone(),
            target: self.target.clone(),
            readers: self.readers.clone(),
            max_mbit: self.max_mbit.clone(),
            read_preference: self.read_preference.clone(),
            memory_mb: self.memory_mb.clone(),
            ..Flags::default()
        }
    }
}

pub(super) async fn run(args: Args, config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    let options = CompareOptions {
        filter: args.filter.of(&args.database)?,
        renames: args.rename.iter().map(|text| NamespaceRename::parse(text)).collect::<Result<_>>()?,
        tuning: config.tuning,
    };
    let (source, target) = (config.source()?, config.target()?);
    let report = with_progress(faces, cx, compare::run(&source, &target, &options, cx)).await?;
    Ok(Outcome {
        text: render::compare::text(&report),
        json: output::fields(&report)?,
        differs: !report.same,
        ..Outcome::default()
    })
}
