//! Test restore: imports a whole backup into scratch databases to prove that it can be restored,
//! and drops them again.

mod names;

use std::time::{Duration, Instant};

use serde::Serialize;
use uuid::Uuid;

use self::names::ScratchNames;
use super::Tuning;
use super::import::{self, ImportMode, ImportOptions, ImportReport, ImportedCollection};
use crate::clock;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checks::{Check, CheckKind};
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri, catalog};
use crate::repository::catalog::Backup;
use crate::sink::lease::{self, Lease};
use crate::sink::scratch::{self, Held, Scratch};
use crate::sink::{Target, limits};

/// How long dropping the scratch databases may take.
const DROPPING: Duration = Duration::from_secs(60);

/// Options of a test restore.
#[derive(Debug, Clone, Default)]
pub struct TestRestoreOptions {
    /// Allow a target that is the deployment that the backup came from, or the configured source.
    /// Nothing there is replaced, but it bears the load.
    pub allow_same: bool,
    /// How long an unrenewed lease of its scratch databases lasts. By default [`lease::EXPIRY`].
    pub lease: Option<Duration>,
    /// How much of the machine it may use.
    pub tuning: Tuning,
}

/// A test restore that passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TestRestoreReport {
    /// The backup's name, as its manifest has it.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// Scheme, hosts and database of the target.
    pub target: String,
    /// The target's version.
    pub server_version: String,
    /// Every collection, time series and view under its name in the backup, in the backup's order.
    pub collections: Vec<ImportedCollection>,
    /// The documents of all of them.
    pub documents: u64,
    /// How many of these are buckets of time series.
    pub buckets: u64,
    /// Their bytes, uncompressed.
    pub bytes: u64,
    /// How many indexes were built, without those on `_id`.
    pub indexes: u64,
    /// In words: what was skipped because the target cannot hold it.
    pub left_out: Vec<String>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// Imports the whole backup into scratch databases of the target, reads it back, compares digests,
/// and drops them, even if it fails or is stopped. Leftovers of crashed test restores are dropped,
/// too. The result is kept beside the backup, which is not deleted meanwhile.
///
/// # Errors
/// Those of [`import::run`] and of [`Backup::read_lock`]. An error that says nothing about the
/// backup, for example [`ErrorKind::Unreachable`] or [`ErrorKind::Interrupted`], is not kept as a
/// result.
pub async fn run(
    backup: &Backup,
    target: &MongoUri,
    configured_source: Option<&MongoUri>,
    options: &TestRestoreOptions,
    cx: &Context,
) -> Result<TestRestoreReport> {
    let begun = Instant::now();
    let cx = &cx.cancelled_by(cx.cancel.child_token());
    let _lock = backup.read_lock("test restore").await?;

    // 1. Choose names that are free there, and plan, which refuses what must not be done. Reads
    // only.
    cx.progress.begin("looking at the target");
    let own = cx.unless_cancelled(connect(target, cx)).await?;
    let standing = own.unless_stopped(catalog::databases(&own.connection)).await??;
    let longest = limits::longest_namespace(own.unless_stopped(own.connection.behaves_as()).await?);
    let names = ScratchNames::choose(&backup.manifest.collections, &standing, longest, random())?;
    let import = ImportOptions {
        renames: names.renames()?,
        mode: ImportMode::Fail,
        allow_same: options.allow_same,
        lease: options.lease,
        tuning: options.tuning,
        ..ImportOptions::default()
    };
    let planning = Box::pin(import::plan(backup, target, configured_source, &import, cx));
    let plan = planning.await.map_err(|e| names.in_words(e))?;

    // 2. Drop the leftovers of crashed test restores, and claim the scratch databases.
    let expiry = options.lease.unwrap_or(lease::EXPIRY);
    let (scratch, held) = match Box::pin(claim(backup, &own, &names, expiry, cx)).await {
        Ok(claimed) => claimed,
        Err(e) => {
            plan.close().await;
            return Err(e);
        }
    };

    // 3. Import, which first verifies the backup and then compares what it reads back.
    let mut importing = Box::pin(import::carry_out(plan, &import, cx));
    let imported = tokio::select! {
        imported = &mut importing => imported,
        () = scratch.lost() => {
            cx.cancel.cancel();
            let _interrupted = importing.await;
            Err(Lease::lost_error(&own))
        }
    };
    let imported = imported.and_then(|report| whole(backup, report)).map_err(|e| names.in_words(e));
    let milliseconds = clock::millis_since(begun);

    // 4. Drop the scratch databases whatever the result, and keep the result.
    cx.progress.begin("dropping the scratch databases");
    let dropped = tokio::time::timeout(DROPPING, scratch.drop()).await.unwrap_or_else(|_| Err(too_slow()));
    keep(backup, &own, &imported, milliseconds).await;
    let report = match (imported, dropped) {
        (Ok(report), Ok(())) => report,
        (Err(e), Ok(())) => return Err(e),
        (Ok(_), Err(e)) => {
            return Err(left_behind(e.context("the test restore passed, but its databases could not be dropped"), &names));
        }
        (Err(e), Err(_)) => return Err(left_behind(e, &names)),
    };

    // 5. A test restore that seemed alive before may prove to have crashed.
    match scratch::drop_unrenewed(&own, held, expiry).await {
        Ok(dropped) => note(cx, &dropped),
        Err(e) => tracing::warn!("leftovers of crashed test restores could not be checked: {e}"),
    }
    own.connection.close().await;
    Ok(TestRestoreReport {
        name: backup.manifest.name.to_string(),
        path: backup.location(),
        target: report.target,
        server_version: own.connection.version.to_string(),
        collections: (report.collections.into_iter())
            .map(|c| ImportedCollection { namespace: names.original(&c.namespace), ..c })
            .collect(),
        documents: report.documents,
        buckets: report.buckets,
        bytes: report.bytes,
        indexes: report.indexes,
        left_out: report.left_out.iter().map(|text| names.in_text(text)).collect(),
        milliseconds,
    })
}

/// A separate connection for the test restore: the import closes its own.
async fn connect(target: &MongoUri, cx: &Context) -> Result<Target> {
    let connection = Connection::open(target, ConnectOptions { pool: 8, selection_timeout: None }).await?;
    let version = connection.version;
    Ok(Target::new(connection, version, cx))
}

async fn claim(
    backup: &Backup,
    own: &Target,
    names: &ScratchNames,
    expiry: Duration,
    cx: &Context,
) -> Result<(Scratch, Vec<Held>)> {
    let (dropped, held) = scratch::drop_dead(own, expiry).await?;
    note(cx, &dropped);
    let scratch = Scratch::claim(own, names.databases(), backup.manifest.name.as_str(), expiry).await?;
    Ok((scratch, held))
}

fn note(cx: &Context, dropped: &[String]) {
    if !dropped.is_empty() {
        cx.progress.note(format!("leftovers of a crashed test restore were dropped: {}", dropped.join(", ")));
    }
}

/// The report, if it covers everything.
fn whole(backup: &Backup, report: ImportReport) -> Result<ImportReport> {
    if report.is_whole && report.failed_indexes.is_empty() {
        return Ok(report);
    }
    Err(Error::new(ErrorKind::Mismatch, format!("backup {} was not restored completely", backup.manifest.name)))
}

/// Keeps the result of the test restore. A result that says nothing about the backup replaces no
/// earlier one.
async fn keep(backup: &Backup, own: &Target, imported: &Result<ImportReport>, milliseconds: u64) {
    let problem = match imported {
        Ok(_) => None,
        Err(e) => match e.kind() {
            ErrorKind::Damaged | ErrorKind::Mismatch | ErrorKind::Server | ErrorKind::Storage => Some(e.to_string()),
            _ => return,
        },
    };
    let mut check = Check::ended(CheckKind::Restore, clock::now(), milliseconds, problem);
    check.server_version = Some(own.connection.version.to_string());
    backup.keep(check).await;
}

fn too_slow() -> Error {
    Error::new(ErrorKind::Unreachable, format!("the target did not answer within {} s", DROPPING.as_secs()))
}

fn left_behind(error: Error, names: &ScratchNames) -> Error {
    error.hint(format!("the next test restore on that target drops them; or drop them by hand: {}", names.databases().join(", ")))
}

/// Distinguishes the names of two test restores.
fn random() -> u32 {
    Uuid::new_v4().as_fields().0
}
