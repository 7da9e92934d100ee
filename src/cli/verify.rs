//! `verify`: whether a backup is whole, and whether it comes back.

use super::named::{self, Asking};
use super::output::{self, Outcome};
use super::progress::{Faces, with_progress};
use super::render;
use crate::config::{Config, Flags};
use crate::context::Context;
use crate::engine::test_restore::{self, TestRestoreOptions};
use crate::engine::verify::{self, HINT, VerifyOptions, VerifyReport};
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::MongoUri;
use crate::repository::catalog::Backup;

/// Flags of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backup: a name that `list` shows, latest for the newest complete one, or the path of one
    #[arg(value_name = "BACKUP")]
    backup: String,
    /// Decompress every document and prove counts and content digests too, not only that each file is as it was written
    #[arg(long)]
    deep: bool,
    /// Import all of it into scratch databases of the target, compare what is read back, and drop them: a test restore
    #[arg(long, conflicts_with = "deep")]
    restore: bool,
    /// Of a test restore: the target [env: MONGO_URI_LOCAL]
    #[arg(long, value_name = "URI", requires = "restore")]
    target: Option<String>,
    /// Of a test restore: go on though the target is the deployment that the backup came from, or the configured source
    #[arg(long, requires = "restore")]
    allow_same: bool,
    /// Of a test restore: writers that insert at a time, 1 to 256 [env: BACKUP_WRITERS] [default: chosen from the machine]
    #[arg(long, value_name = "N", allow_negative_numbers = true, requires = "restore")]
    writers: Option<String>,
    /// Of a test restore: MiB that all buffers together may take, 64 or more [env: BACKUP_MEMORY_MB] [default: 256]
    #[arg(long, value_name = "N", allow_negative_numbers = true, requires = "restore")]
    memory_mb: Option<String>,
}

impl Args {
    pub(super) fn flags(&self) -> Flags {
        Flags {
            target: self.target.clone(),
            writers: self.writers.clone(),
            memory_mb: self.memory_mb.clone(),
            ..Flags::default()
        }
    }
}

pub(super) async fn run(args: Args, config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    let target = if args.restore { Some(config.target()?) } else { None };
    let backup = match named::find(&args.backup, Asking { verb: "verify", silent: faces == Faces::Silent }, config, cx).await {
        // A manifest that cannot be used is what a verification is there to find.
        Err(error) if error.kind() == ErrorKind::Damaged => return unusable(&args, error),
        found => found?,
    };
    if let Some(target) = target {
        return test_restore(&args, config, &backup, &target, faces, cx).await;
    }
    let report = verify::run(&backup, &VerifyOptions { deep: args.deep }, cx).await?;
    let (text, json) = (render::check::verify(&report), output::fields(&report)?);
    Ok(Outcome { text, json, failure: report.failure(), ..Outcome::default() })
}

async fn test_restore(
    args: &Args,
    config: &Config,
    backup: &Backup,
    target: &MongoUri,
    faces: Faces,
    cx: &Context,
) -> Result<Outcome> {
    let options = TestRestoreOptions { allow_same: args.allow_same, lease: None, tuning: config.tuning };
    let source = config.configured_source()?;
    let work = test_restore::run(backup, target, source.as_ref(), &options, cx);
    match with_progress(faces, cx, work).await {
        Ok(report) => {
            let mut fields = output::fields(&report)?;
            fields.insert("restore".to_owned(), true.into());
            Ok(Outcome::done(render::import::test_restore(&report), fields))
        }
        // As without a test restore: something does not match.
        Err(e) if e.kind() == ErrorKind::Damaged => Err(mismatch(e)),
        Err(e) => Err(e),
    }
}

fn unusable(args: &Args, error: Error) -> Result<Outcome> {
    let json = output::fields(&VerifyReport::unusable(&args.backup, args.deep, &error))?;
    Ok(Outcome { json, failure: Some(mismatch(error)), ..Outcome::default() })
}

/// The error of a backup that is damaged, as that of a verification.
fn mismatch(error: Error) -> Error {
    Error::new(ErrorKind::Mismatch, error.to_string()).hint(error.hint_text().unwrap_or(HINT).to_owned()).cause(error)
}
