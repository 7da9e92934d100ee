//! Checks whose result is kept beside the backup: a verification, and an import, which proves as much.

use std::time::Instant;

use super::import::{self, ImportOptions, ImportReport, Plan};
use super::verify::{self, VerifyOptions, VerifyReport};
use crate::clock;
use crate::context::Context;
use crate::error::{ErrorKind, Result};
use crate::format::checks::{Check, CheckKind};
use crate::repository::catalog::Backup;

/// Verifies a backup and keeps the result beside it. Meanwhile it is not deleted.
///
/// # Errors
/// Those of [`verify::run`] and of [`Backup::read_lock`]; nothing is kept then.
pub async fn verify(backup: &Backup, options: &VerifyOptions, cx: &Context) -> Result<VerifyReport> {
    let begun = Instant::now();
    let _lock = backup.read_lock("verify").await?;
    let report = verify::run(backup, options, cx).await?;
    let kind = if options.deep { CheckKind::Deep } else { CheckKind::Verify };
    let problem = report.problems.first().map(|p| p.message.clone());
    backup.keep(Check::ended(kind, clock::now(), millis(begun), problem)).await;
    Ok(report)
}

/// Does what was planned, as [`import::execute`] does. Where that brought the whole backup with every digest as it should be, or found the backup damaged, this is
/// kept beside it. Meanwhile it is not deleted.
///
/// # Errors
/// Those of [`import::execute`] and of [`Backup::read_lock`].
pub async fn import(backup: &Backup, plan: Plan<'_>, options: &ImportOptions, cx: &Context) -> Result<ImportReport> {
    let begun = Instant::now();
    let notes = cx.progress.clone();
    let _lock = match backup.read_lock_telling("import", move |said| notes.note(said)).await {
        Ok(lock) => lock,
        Err(e) => {
            plan.close().await;
            return Err(e);
        }
    };
    let done = import::execute(backup, plan, options, cx).await;
    let problem = match &done {
        Ok(report) if report.is_whole => None,
        Err(e) if e.kind() == ErrorKind::Damaged => Some(e.to_string()),
        // Of a part of the backup, or of the target.
        Ok(_) | Err(_) => return done,
    };
    backup.keep(Check::ended(CheckKind::Import, clock::now(), millis(begun), problem)).await;
    done
}

/// The time since then, in milliseconds.
pub(super) fn millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}
