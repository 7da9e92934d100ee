//! `verify`: checks that a backup and archived oplogs are intact and, with `--restore`, that a
//! backup can be restored.

use std::path::Path;

use serde_json::json;

use super::catalog::catalog;
use super::named::{self, Asking};
use super::output::{self, Outcome};
use super::progress::{Faces, with_progress};
use super::render;
use crate::config::{Config, Flags};
use crate::context::Context;
use crate::engine::test_restore::{self, TestRestoreOptions};
use crate::engine::verify::{self, HINT, VerifyOptions, VerifyReport};
use crate::engine::verify_archive::{self, VerifyArchiveReport};
use crate::error::{Error, ErrorKind, Result};
use crate::format::chain::is_replica_set_id;
use crate::mongo::MongoUri;
use crate::names::{LATEST, OPLOG_ARCHIVES};
use crate::repository::Repository;
use crate::repository::catalog::Backup;
use crate::repository::chain::ChainPlace;

/// Flags of `verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backup: a name that `list` shows, `latest` for the newest complete one, or a path; or an
    /// archived oplog: `oplog/ID` or a path, and `oplog` for all of them. Without it, the newest
    /// complete backup and all archived oplogs
    #[arg(value_name = "BACKUP")]
    backup: Option<String>,
    /// Decode every document too, and check counts and content digests
    #[arg(long)]
    deep: bool,
    /// Test restore: import everything into scratch databases of the target, compare what is read
    /// back, and drop them
    #[arg(long, conflicts_with = "deep", requires = "backup")]
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
    let Some(asked) = args.backup.as_deref() else { return everything(&args, config, faces, cx).await };
    if let Some(archives) = archives(asked, config, cx).await? {
        if args.restore {
            return Err(Error::usage("--restore takes a backup, and this is an archived oplog")
                .hint("`bsonvault import --to TIME --dry-run` shows what a restore of that time would do"));
        }
        return Ok(with_archives(Outcome::default(), &verify_archives(&archives, &args, cx).await?));
    }
    let backup = match named::find(asked, Asking { verb: "verify", silent: faces == Faces::Silent }, config, cx).await {
        // An unusable manifest is a finding of the verification.
        Err(error) if error.kind() == ErrorKind::Damaged => return unusable(asked, args.deep, error),
        found => found?,
    };
    if let Some(target) = target {
        return test_restore(&args, config, &backup, &target, faces, cx).await;
    }
    verify_backup(&backup, &args, cx).await
}

async fn verify_backup(backup: &Backup, args: &Args, cx: &Context) -> Result<Outcome> {
    let report = verify::run(backup, &VerifyOptions { deep: args.deep }, cx).await?;
    let (text, json) = (render::check::verify(&report), output::fields(&report)?);
    Ok(Outcome { text, json, failure: report.failure(), ..Outcome::default() })
}

/// Verifies the newest complete backup and all archives.
async fn everything(args: &Args, config: &Config, faces: Faces, cx: &Context) -> Result<Outcome> {
    let archives = cx.unless_cancelled(Repository::open(&config.path)?.chains()).await?;
    let asking = Asking { verb: "verify", silent: faces == Faces::Silent };
    let outcome = match named::newest(&catalog(config, cx)?, asking).await {
        Ok(backup) => verify_backup(&backup, args, cx).await?,
        Err(error) if error.kind() == ErrorKind::Damaged => unusable(LATEST, args.deep, error)?,
        Err(error) if error.kind() == ErrorKind::NotFound && !archives.is_empty() => Outcome::default(),
        Err(error) => return Err(error),
    };
    Ok(with_archives(outcome, &verify_archives(&archives, args, cx).await?))
}

/// The archives that are meant, unless a backup is: `oplog`, `oplog/ID`, or a path to either.
async fn archives(asked: &str, config: &Config, cx: &Context) -> Result<Option<Vec<ChainPlace>>> {
    let found = cx.unless_cancelled(async {
        let asked = asked.trim_end_matches('/');
        let repository = Repository::open(&config.path)?;
        if asked == OPLOG_ARCHIVES {
            return repository.chains().await.map(Some);
        }
        if let Some(id) = asked.strip_prefix(OPLOG_ARCHIVES).and_then(|rest| rest.strip_prefix('/')) {
            return Ok(is_replica_set_id(id).then(|| vec![repository.chain(id)]));
        }
        // A path of a repository's directory of archives, or of an archive in it.
        let path = Path::new(asked);
        let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let parent = |path: &Path| path.parent().map(Path::to_path_buf).unwrap_or_default();
        let directory = if is_replica_set_id(&name(path)) { parent(path) } else { path.to_path_buf() };
        if !path.is_dir() || name(&directory) != OPLOG_ARCHIVES {
            return Ok(None);
        }
        let root = parent(&directory);
        let root = if root.as_os_str().is_empty() { Path::new(".") } else { root.as_path() };
        let repository = Repository::open(&root.to_string_lossy())?;
        match directory == *path {
            true => repository.chains().await.map(Some),
            false => Ok(Some(vec![repository.chain(&name(path))])),
        }
    });
    let found = found.await?;
    if found.as_ref().is_some_and(Vec::is_empty) {
        let place = catalog(config, cx)?.repository().location();
        return Err(Error::new(ErrorKind::NotFound, format!("{asked}: {place} has no archive of an oplog"))
            .hint("`bsonvault archive` keeps one"));
    }
    Ok(found)
}

async fn verify_archives(archives: &[ChainPlace], args: &Args, cx: &Context) -> Result<Vec<VerifyArchiveReport>> {
    let mut reports = Vec::with_capacity(archives.len());
    for archive in archives {
        reports.push(verify_archive::run(archive, &VerifyOptions { deep: args.deep }, cx).await?);
    }
    Ok(reports)
}

/// The outcome together with what was found of archives.
fn with_archives(mut outcome: Outcome, reports: &[VerifyArchiveReport]) -> Outcome {
    for report in reports {
        if !outcome.text.is_empty() {
            outcome.text.push('\n');
        }
        outcome.text += &render::check::archive(report);
        outcome.failure = match (outcome.failure, report.failure()) {
            (Some(one), Some(other)) => Some(both(&one, &other)),
            (one, other) => one.or(other),
        };
    }
    outcome.json.insert("archives".to_owned(), json!(reports));
    outcome
}

/// The error of two that are not sound.
fn both(one: &Error, other: &Error) -> Error {
    let hints = [one, other].map(|error| error.hint_text().unwrap_or_default());
    Error::new(ErrorKind::Mismatch, format!("{one}; {other}")).hint(if hints[0] == hints[1] {
        hints[0].to_owned()
    } else {
        hints.join("; ")
    })
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

fn unusable(asked: &str, deep: bool, error: Error) -> Result<Outcome> {
    let json = output::fields(&VerifyReport::unusable(asked, deep, &error))?;
    Ok(Outcome { json, failure: Some(mismatch(error)), ..Outcome::default() })
}

/// The error of a damaged backup, as a verification reports it.
fn mismatch(error: Error) -> Error {
    Error::new(ErrorKind::Mismatch, error.to_string()).hint(error.hint_text().unwrap_or(HINT).to_owned()).cause(error)
}
