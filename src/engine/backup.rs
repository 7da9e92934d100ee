//! `backup`: from a deployment to a committed archive.

mod commit;
mod plan;
mod pulse;
mod read;

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

pub use plan::{BackupPlan, PlannedCollection};

use self::pulse::Pulse;
use self::read::Outcome;
use super::Tuning;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::key;
use crate::format::manifest::Manifest;
use crate::mongo::MongoUri;
use crate::names::{BackupName, NamespacePattern};
use crate::pipeline::progress::Progress;
use crate::store::Store;

/// How often a backup begins again because a collection was renamed or changed its catalog entry while it was read.
const RESTARTS: u32 = 5;

/// What to back up, and how.
#[derive(Debug, Clone, Default)]
pub struct BackupOptions {
    /// These databases; where empty, the one in the URI's path; where that names none, all but `admin`, `local`, `config`.
    pub databases: Vec<String>,
    /// Of those, the namespaces that any of these match; all where empty.
    pub include: Vec<NamespacePattern>,
    /// Without those that any of these match.
    pub exclude: Vec<NamespacePattern>,
    /// A name or a pattern that matches nothing, and nothing at all, are no errors.
    pub allow_empty: bool,
    /// A replica set that cannot be read at one moment is read without.
    pub allow_inconsistent: bool,
    /// How much of the machine it may use.
    pub tuning: Tuning,
}

/// A committed backup.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// Its name.
    pub name: BackupName,
    /// Where it is.
    pub location: String,
    /// What it holds.
    pub manifest: Manifest,
}

/// What [`run`] would do, without writing anything.
///
/// # Errors
/// As for [`run`], as far as they show before the first document is read.
pub async fn plan(source: &MongoUri, options: &BackupOptions) -> Result<BackupPlan> {
    let prepared = plan::prepare(source, options).await?;
    let plan = prepared.plan().await;
    prepared.connection.close().await;
    Ok(plan)
}

/// Takes a backup of `source` into a new directory of `store`. It is committed whole, or nothing of it stays.
///
/// # Errors
/// [`ErrorKind::Unreachable`], [`ErrorKind::Denied`], [`ErrorKind::NotFound`], [`ErrorKind::Storage`], [`ErrorKind::SnapshotLost`] where the
/// source no longer has the history of the moment that is read, [`ErrorKind::Refused`] where it cannot be read at one moment at all
/// and that is not allowed, [`ErrorKind::Interrupted`].
pub async fn run(
    source: &MongoUri,
    store: &Store,
    options: &BackupOptions,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<BackupReport> {
    let (name, place) = claim(store).await?;
    match backup(source, &name, &place, options, progress, stop).await {
        Ok(manifest) => Ok(BackupReport { location: place.location(), name, manifest }),
        Err(error) => Err(remove(&place, error).await),
    }
}

/// Connects, reads and commits, and closes the connection however it ends: cursors that were left open are killed.
async fn backup(
    source: &MongoUri,
    name: &BackupName,
    place: &Store,
    options: &BackupOptions,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Manifest> {
    let started = clock::now();
    progress.begin("looking at the source");
    let mut prepared = unless_stopped(stop, plan::prepare(source, options)).await?;
    let pulse = Pulse::start(place.clone(), progress.clone(), started);
    let result = execute(&mut prepared, name, place, (&pulse, started), progress, stop).await;
    pulse.stop().await?;
    prepared.connection.close().await;
    let manifest = result?;
    commit::commit(&manifest, place).await?;
    Ok(manifest)
}

/// The phases of a backup up to its commit, once there is a listing, a moment at which to read all of it, and the settings.
async fn execute(
    prepared: &mut plan::Prepared,
    name: &BackupName,
    place: &Store,
    (pulse, started): (&Pulse, DateTime<Utc>),
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Manifest> {
    // 1. Read and store every range at that moment; begin again where a collection changed its name meanwhile.
    let mut restarts = 0;
    let read = loop {
        match read::read(prepared, place, pulse.state(), progress, stop).await? {
            Outcome::Read(read) => break read,
            Outcome::Again(why) if restarts == RESTARTS => {
                return Err(Error::new(ErrorKind::Server, format!("{why}, and so in each of {} attempts", RESTARTS + 1))
                    .hint("run the backup when collections are not renamed or altered, or exclude the namespace"));
            }
            Outcome::Again(why) => {
                restarts += 1;
                progress.note(format!("{why}: beginning again at a new snapshot time ({restarts} of {RESTARTS})"));
                read::clear(place).await?;
                unless_stopped(stop, prepared.settle_again()).await?;
            }
        }
    };
    let finished = clock::now();

    // 2. Say what moment it shows, and what of it does not belong to that moment.
    progress.begin("committing");
    let consistency = unless_stopped(stop, read.consistency(prepared)).await?;

    // 3. Describe it: metadata files, checksums, the manifest.
    commit::describe(prepared, name, read, consistency, (started, finished), place, stop).await
}

/// Takes a new name, from the time, and its directory.
async fn claim(store: &Store) -> Result<(BackupName, Store)> {
    let mut time = clock::now();
    loop {
        let name = BackupName::at(time);
        let place = store.below(name.as_str());
        match place.claim().await {
            Ok(()) => return Ok((name, place)),
            // Another backup began in the same millisecond.
            Err(e) if e.kind() == ErrorKind::Refused => time += TimeDelta::milliseconds(1),
            Err(e) => return Err(e),
        }
    }
}

/// Removes what a failed backup wrote; what cannot be removed is named beside the failure.
async fn remove(place: &Store, error: Error) -> Error {
    match place.delete_all(key::MANIFEST).await {
        Ok(()) => error,
        Err(left) => {
            tracing::error!("the unfinished backup could not be removed: {left}");
            let hint = error.hint_text().map(|h| format!("{h}; ")).unwrap_or_default();
            error.hint(format!("{hint}also remove what is left in {}: {left}", place.location()))
        }
    }
}

async fn unless_stopped<T>(stop: &CancellationToken, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        () = stop.cancelled() => Err(Error::interrupted()),
        done = work => done,
    }
}
