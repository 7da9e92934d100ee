//! `adopt`: make a backup of a dump.

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::output::{self, Outcome};
use super::progress::Faces;
use super::{render, with_progress};
use crate::config::{Config, Flags};
use crate::engine::adopt::{self, AdoptOptions};
use crate::error::Result;
use crate::interop::Dump;
use crate::names::NamespacePattern;
use crate::pipeline::progress::Progress;
use crate::store::Store;

/// Flags of `adopt`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The dump: a directory, an archive or a .bson file that mongodump wrote, compressed or not; `-` for an archive on standard input
    #[arg(value_name = "DUMP")]
    dump: String,
    /// Adopt only namespaces (DB.COLLECTION, `*` stands for any characters) that match; may be given more than once
    #[arg(long, value_name = "NS")]
    include: Vec<String>,
    /// Leave out namespaces that match; may be given more than once
    #[arg(long, value_name = "NS")]
    exclude: Vec<String>,
    /// zstd's level, -7 (fastest) to 19 (smallest) [env: BACKUP_LEVEL] [default: 3]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    level: Option<String>,
    /// What the backup's frames are made of, zstd or columns: columns are smaller and only bsonvault reads them [env: BACKUP_CODEC] [default: zstd]
    #[arg(long, value_name = "CODEC")]
    codec: Option<String>,
    /// MiB that all buffers together may take, 64 or more [env: BACKUP_MEMORY_MB] [default: 256]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    memory_mb: Option<String>,
}

impl Args {
    pub(super) fn flags(&self) -> Flags {
        Flags { level: self.level.clone(), codec: self.codec.clone(), memory_mb: self.memory_mb.clone(), ..Flags::default() }
    }
}

pub(super) async fn run(args: Args, config: &Config, faces: Faces, stop: &CancellationToken) -> Result<Outcome> {
    let patterns = |texts: &[String]| texts.iter().map(|text| NamespacePattern::parse(text)).collect::<Result<Vec<_>>>();
    let (include, exclude) = (patterns(&args.include)?, patterns(&args.exclude)?);
    let options = AdoptOptions { include, exclude, tuning: config.tuning, ..AdoptOptions::default() };
    let store = Store::open(&config.path)?;
    let dump = Dump::open(&args.dump, stop).await?;
    let progress = Progress::default();
    let work = adopt::run(&dump, &store, &options, &progress, stop);
    let report = with_progress(faces, &progress, work).await?;
    let manifest = &report.manifest;
    let fields = json!({
        "name": report.name,
        "path": report.location,
        "documents": manifest.totals.documents,
        "rawBytes": manifest.totals.raw_bytes,
        "storedBytes": manifest.totals.stored_bytes,
        "collections": manifest.totals.collections,
        "consistency": manifest.consistency,
        "leftOut": manifest.left_out,
        "notes": report.notes,
        "seconds": render::seconds(manifest),
    });
    Ok(Outcome::done(render::adopted(&report), output::fields(&fields)?))
}
