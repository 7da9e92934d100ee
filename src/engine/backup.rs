//! `backup`: from a deployment to a committed archive.

mod commit;
mod moment;
mod plan;
mod pulse;
mod range;
mod read;
mod slice;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

pub use plan::{BackupPlan, PlannedCollection};

use self::moment::Moment;
use self::plan::Prepared;
use self::pulse::Pulse;
use self::read::{Outcome, Read};
use self::slice::Slice;
use super::Tuning;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::key;
use crate::format::manifest::{Consistency, Manifest, OplogSlice};
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
    let mut prepared = plan::prepare(source, options).await?;
    prepared.aim().await?;
    prepared.settle().await?;
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

/// The phases of a backup up to its commit.
async fn execute(
    prepared: &mut Prepared,
    name: &BackupName,
    place: &Store,
    (pulse, started): (&Pulse, DateTime<Utc>),
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Manifest> {
    // 1. Begin to keep the oplog, where there is one, before the moment that is read.
    let start = unless_stopped(stop, prepared.aim()).await?;
    if let Some(why) = &prepared.why_no_slice {
        progress.note(format!("the oplog cannot be kept beside the data, which must be read within the source's history: {why}"));
    }
    let mut slice = start.map(|start| Slice::begin(start, prepared, place, pulse.state(), progress, stop));
    let read = read_of_one_moment(prepared, &mut slice, place, pulse, progress, stop).await;
    // Where that failed, nothing may be writing any more when the directory is removed.
    let discarded = moment::discard(&mut slice).await;
    let (read, finished, moment) = read?;
    discarded?;

    // 5. Describe it: metadata files, checksums, the manifest.
    commit::describe(prepared, name, read, moment, (started, finished), place, stop).await
}

/// What was read, when the last of it was, and what moment it shows, with the oplog slice where that takes one.
type ReadOfOneMoment = (Read, DateTime<Utc>, (Consistency, Option<OplogSlice>));

/// The phases that need the slice to be kept meanwhile.
async fn read_of_one_moment(
    prepared: &mut Prepared,
    slice: &mut Option<Slice>,
    place: &Store,
    pulse: &Pulse,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<ReadOfOneMoment> {
    // 2. Settle what is read and at which moment.
    unless_stopped(stop, prepared.settle()).await?;
    if let (Some(slice), Some(time)) = (&slice, prepared.time())
        && time < slice.since()
    {
        return Err(Error::new(
            ErrorKind::Server,
            "the source's operation time went back while the backup began: another member answered",
        )
        .hint("run it again once the deployment is stable"));
    }

    // 3. Read and store every range.
    let (read, moment) = read_all(prepared, slice.as_ref(), place, pulse, progress, stop).await?;
    let finished = clock::now();

    // 4. Say what moment that shows, with the oplog up to it where it takes that.
    progress.begin("committing");
    let shown = unless_stopped(stop, moment.settle(&read, prepared, slice)).await?;
    Ok((read, finished, shown))
}

/// Reads every range; begins again at a new moment where a collection changed its name meanwhile and the oplog does not tell.
async fn read_all(
    prepared: &mut Prepared,
    slice: Option<&Slice>,
    place: &Store,
    pulse: &Pulse,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<(Read, Arc<Moment>)> {
    let mut restarts = 0;
    loop {
        let moment = Arc::new(Moment::new(prepared, slice, progress));
        match read::read(prepared, &moment, place, pulse.state(), progress, stop).await? {
            Outcome::Read(read) => return Ok((read, moment)),
            Outcome::Again(why) if restarts == RESTARTS => {
                return Err(Error::new(ErrorKind::Server, format!("{why}, and so in each of {} attempts", RESTARTS + 1))
                    .hint("run the backup when collections are not renamed or altered, or exclude the namespace"));
            }
            Outcome::Again(why) => {
                restarts += 1;
                progress.note(format!("{why}: beginning again at a new snapshot time ({restarts} of {RESTARTS})"));
                read::clear(place).await?;
                unless_stopped(stop, prepared.settle()).await?;
            }
        }
    }
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
