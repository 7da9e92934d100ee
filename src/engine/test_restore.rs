//! Test restore: proves that a backup comes back, by importing all of it into scratch databases, which are dropped again.

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

/// What a test restore may do.
#[derive(Debug, Clone, Default)]
pub struct TestRestoreOptions {
    /// The target may be the deployment that the backup came from, or the configured source: nothing there is replaced, and it bears the load.
    pub allow_same: bool,
    /// How long the test restore's hold on its scratch databases lasts that is not renewed; [`lease::EXPIRY`] where it is not given.
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
    /// How many indexes were built, beside those on `_id`.
    pub indexes: u64,
    /// What the target cannot hold and was left out, in words.
    pub left_out: Vec<String>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// Imports the whole backup into scratch databases of the target, reads it back, compares digests, and drops them, also where it fails or is stopped. What other test restores
/// left that died is dropped, too. The result is kept beside the backup, which is not deleted meanwhile.
///
/// # Errors
/// Those of [`import::run`] and of [`Backup::read_lock`]. One that says nothing of the backup, such as [`ErrorKind::Unreachable`] and [`ErrorKind::Interrupted`], is not kept as a result.
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

    // 1. Names that are free there, and the plan, which refuses what must not be done. Reads only.
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

    // 2. What dead test restores left goes; then the scratch databases are this one's.
    let expiry = options.lease.unwrap_or(lease::EXPIRY);
    let (scratch, held) = match Box::pin(claim(backup, &own, &names, expiry, cx)).await {
        Ok(claimed) => claimed,
        Err(e) => {
            plan.close().await;
            return Err(e);
        }
    };

    // 3. The import, which proves the backup first and compares what it reads back.
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

    // 4. Whatever came of it, nothing stays, and the result is kept.
    cx.progress.begin("dropping the scratch databases");
    let dropped = tokio::time::timeout(DROPPING, scratch.drop()).await.unwrap_or_else(|_| Err(too_slow()));
    keep(backup, &own, &imported, milliseconds).await;
    let report = match (imported, dropped) {
        (Ok(report), Ok(())) => report,
        (Err(e), Ok(())) => return Err(e),
        (Ok(_), Err(e)) => {
            return Err(left_behind(e.context("the test restore passed, and its databases could not be dropped"), &names));
        }
        (Err(e), Err(_)) => return Err(left_behind(e, &names)),
    };

    // 5. A test restore that seemed to live may have been dead for a moment.
    match scratch::drop_unrenewed(&own, held, expiry).await {
        Ok(dropped) => note(cx, &dropped),
        Err(e) => tracing::warn!("what a test restore that died may have left is not looked after: {e}"),
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

/// A connection of the test restore's own: that of the import ends with it.
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
        cx.progress.note(format!("what a test restore that died had left is dropped: {}", dropped.join(", ")));
    }
}

/// The report, if it is of everything.
fn whole(backup: &Backup, report: ImportReport) -> Result<ImportReport> {
    if report.is_whole && report.failed_indexes.is_empty() {
        return Ok(report);
    }
    Err(Error::new(ErrorKind::Mismatch, format!("backup {} did not come back whole", backup.manifest.name)))
}

/// Keeps what the test restore says of the backup. What says nothing of it takes no earlier result away.
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
    Error::new(ErrorKind::Unreachable, format!("the target did not do it within {} s", DROPPING.as_secs()))
}

fn left_behind(error: Error, names: &ScratchNames) -> Error {
    error.hint(format!("the next test restore on that target drops them, or drop them by hand: {}", names.databases().join(", ")))
}

/// So that the names of two test restores differ.
fn random() -> u32 {
    Uuid::new_v4().as_fields().0
}
