//! `verify`: checks that a backup is intact and, with `--restore`, that it can be restored.

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
    /// The backup: a name that `list` shows, `latest` for the newest complete one, or a path
    #[arg(value_name = "BACKUP")]
    backup: String,
    /// Decode every document too, and check counts and content digests
    #[arg(long)]
    deep: bool,
    /// Test restore: import everything into scratch databases of the target, compare what is read
    /// back, and drop them
    #[arg(long, conflicts_with = "deep")]
    restore: bool,
    /// The target [env: MONGO_URI_LOCAL]
    #[arg(help_heading = "Test restore", long, value_name = "URI", requires = "restore")]
    target: Option<String>,
    /// Go on if the target is the deployment that the backup came from, or the configured source
    #[arg(help_heading = "Test restore", long, requires = "restore")]
    allow_same: bool,
    /// Writers that insert at the same time, 1 to 256 [env: BACKUP_WRITERS] [default: adapts]
    #[arg(help_heading = "Test restore", long, value_name = "N", allow_negative_numbers = true, requires = "restore")]
    writers: Option<String>,
    /// MiB for all buffers together, 64 or more [env: BACKUP_MEMORY_MB] [default: 256]
    #[arg(help_heading = "Test restore", long, value_name = "N", allow_negative_numbers = true, requires = "restore")]
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
        // An unusable manifest is a finding of the verification.
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
        // The same kind of error as without a test restore.
        Err(e) if e.kind() == ErrorKind::Damaged => Err(mismatch(e)),
        Err(e) => Err(e),
    }
}

fn unusable(args: &Args, error: Error) -> Result<Outcome> {
    let json = output::fields(&VerifyReport::unusable(&args.backup, args.deep, &error))?;
    Ok(Outcome { json, failure: Some(mismatch(error)), ..Outcome::default() })
}

/// The error of a damaged backup, as a verification reports it.
fn mismatch(error: Error) -> Error {
    Error::new(ErrorKind::Mismatch, error.to_string()).hint(error.hint_text().unwrap_or(HINT).to_owned()).cause(error)
}
