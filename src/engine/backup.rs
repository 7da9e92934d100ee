//! `backup`: from a deployment to a committed archive.

mod archived;
pub(super) mod commit;
mod consistency;
pub(super) mod failure;
mod options;
mod outcome;
mod plan;
mod range;
mod read;
mod resume;
mod run;
mod shared;
mod slice;
mod steer;
pub(super) mod throttle;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::FutureExt as _;

pub(super) use plan::segment_bytes;
pub use plan::{BackupPlan, PlannedCollection};

use self::archived::Archived;
use self::consistency::ConsistencyPoint;
use self::failure::{is_resumable, is_worth_keeping, keep, remove};
pub use self::options::BackupOptions;
use self::outcome::{Outcome, Read};
use self::plan::BackupContext;
use self::run::Run;
use self::slice::{Earlier, RunningSlice, Slice};
use super::replayed;
use crate::clock;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::format::key;
use crate::format::manifest::{Consistency, Manifest, OplogSlice};
use crate::mongo::MongoUri;
use crate::names::BackupName;
use crate::repository::Repository;
use crate::repository::backend::{Lock, Objects};
use crate::repository::checkpoint::{Checkpoint, CheckpointWriter, Durable, ResumeStateOf};
use crate::repository::lock::heartbeat::{self, HeartbeatWriter};
use crate::repository::lock::source as source_lock;
pub use crate::repository::lock::source::running;
pub use crate::source::discover::Documents;

/// How often a backup starts again because a collection was renamed or altered while it was read.
const RESTARTS: u32 = 5;

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
/// As for [`run`], as far as they occur before the first document is read.
pub async fn plan(source: &MongoUri, options: &BackupOptions, cx: &Context) -> Result<BackupPlan> {
    let mut context = plan::prepare(source, options, &cx.cpu).await?;
    context.choose_consistency().await?;
    context.pin_snapshot_time().await?;
    let plan = context.plan().await.without_temporary(&context);
    context.connection.close().await;
    Ok(plan)
}

/// What [`resume`] would do, without writing anything.
///
/// # Errors
/// As for [`resume`], as far as they occur before the first document is read.
pub async fn plan_resume(
    source: &MongoUri,
    repository: &Repository,
    name: Option<&BackupName>,
    options: &BackupOptions,
    cx: &Context,
) -> Result<BackupPlan> {
    let checkpoint = resume::open(repository, name, source, &cx.cpu).await?;
    let context = resume::prepare(source, options, &checkpoint, &cx.cpu).await?;
    let mut plan = context.plan().await;
    for (place, collection) in plan.collections.iter_mut().enumerate() {
        collection.ranges_done = checkpoint.ranges_of(place);
    }
    plan.resumes = Some(checkpoint.name);
    let plan = plan.without_temporary(&context);
    context.connection.close().await;
    Ok(plan)
}

/// Takes a backup of `source` into a new place of `repository`, and commits all of it. If it fails,
/// nothing of it stays, with one exception. If the source became unreachable, the store failed or
/// the user stopped it, and much was stored already, it can be [resumed](resume).
///
/// # Errors
/// [`ErrorKind::Unreachable`]; [`ErrorKind::Denied`]; [`ErrorKind::NotFound`];
/// [`ErrorKind::Storage`]; [`ErrorKind::SnapshotLost`] if the source no longer has the history of
/// the snapshot time; [`ErrorKind::Refused`] if the source can show no consistency point and the
/// options require one; [`ErrorKind::Busy`] if another backup of the same source runs into this
/// repository and the options do not allow that; [`ErrorKind::Interrupted`].
pub async fn run(source: &MongoUri, repository: &Repository, options: &BackupOptions, cx: &Context) -> Result<BackupReport> {
    // Look first, before anything is made; `backup` makes sure.
    if !options.allow_concurrent && !options.is_background {
        source_lock::look(repository, source.hosts(), cx).await?;
    }
    let (name, place) = source_lock::claim(repository).await?;
    cx.progress.makes(name.clone());
    let lock = match place.lock().await {
        Ok(lock) => lock.ok_or_else(|| source_lock::taken(&place))?,
        Err(error) => return Err(remove(&place, error).await),
    };
    let durable = Arc::new(Durable::default());
    match backup(source, repository, &name, (&place, &lock), None, options, &durable, cx).await {
        Ok(manifest) => Ok(BackupReport { location: place.location(), name, manifest }),
        Err(error) if options.may_be_resumed() && is_worth_keeping(&error, &durable) => Err(keep(&name, &place, error).await),
        Err(error) => Err(remove(&place, error).await),
    }
}

/// Resumes an unfinished backup of `repository`: the one of this name, or the newest of this
/// source. It reads only the ranges that were not durable. It reads at the same snapshot time if
/// the source still has that history, else with the oplog if that still reaches back. If it fails,
/// everything durable stays.
///
/// # Errors
/// As for [`run`]; [`ErrorKind::NotFound`] if there is no such backup; [`ErrorKind::Refused`] if it
/// is running, complete or of another deployment; [`ErrorKind::Usage`] if the options differ from
/// those that it was started with; [`ErrorKind::SnapshotLost`] if neither history nor oplog reach
/// back.
pub async fn resume(
    source: &MongoUri,
    repository: &Repository,
    name: Option<&BackupName>,
    options: &BackupOptions,
    cx: &Context,
) -> Result<BackupReport> {
    let mut checkpoint = resume::open(repository, name, source, &cx.cpu).await?;
    let (name, place) = (checkpoint.name.clone(), checkpoint.place.clone());
    let lock = checkpoint.lock.take().ok_or_else(|| source_lock::taken(&place))?;
    let durable = Arc::new(Durable::default());
    match backup(source, repository, &name, (&place, &lock), Some(checkpoint), options, &durable, cx).await {
        Ok(manifest) => Ok(BackupReport { location: place.location(), name, manifest }),
        Err(error) if error.kind() == ErrorKind::Busy => {
            // Nothing changed it, and nobody works on it.
            if let Err(e) = place.delete(key::PROGRESS).await {
                tracing::warn!("{} of the unfinished backup could not be removed: {e}", key::PROGRESS);
            }
            Err(error)
        }
        Err(error) if error.kind() == ErrorKind::SnapshotLost => {
            Err(Error::new(ErrorKind::SnapshotLost, format!("backup {name} cannot be resumed: {error}"))
                .hint(format!("take a new one without [[resume]], and remove {}", place.location()))
                .cause(error))
        }
        Err(error) if is_resumable(&error) => Err(keep(&name, &place, error).await),
        Err(error) => Err(error),
    }
}

/// Connects, reads and commits. Closes the connection in any case: the server then kills cursors
/// that are still open.
#[expect(clippy::too_many_arguments, reason = "the one place that needs all of them")]
async fn backup(
    source: &MongoUri,
    repository: &Repository,
    name: &BackupName,
    (place, lock): (&Objects, &Lock),
    checkpoint: Option<Checkpoint>,
    options: &BackupOptions,
    durable: &Arc<Durable>,
    cx: &Context,
) -> Result<Manifest> {
    cx.progress.begin("looking at the source");
    let (mut context, started) = match &checkpoint {
        None => (cx.unless_cancelled(plan::prepare(source, options, &cx.cpu)).await?, clock::now()),
        Some(checkpoint) => {
            (cx.unless_cancelled(resume::prepare(source, options, checkpoint, &cx.cpu)).await?, checkpoint.started())
        }
    };
    if let Some((member, is_primary, preference)) = context.connection.chosen() {
        let state = if is_primary { "the primary" } else { "a secondary" };
        cx.progress.note(format!("documents are read from {member}, {state} ({preference})"));
    }
    let first = heartbeat::first(
        started,
        match options.is_background {
            true => Vec::new(),
            false => source_lock::hosts(source.hosts(), &context.connection.hosts),
        },
        options.job.clone(),
        lock.holds(),
    );
    let ready = async {
        match options.allow_concurrent || options.is_background {
            true => heartbeat::write(&first, place).await?,
            false => source_lock::take(repository, name, place, &first, cx).await?,
        }
        match &checkpoint {
            Some(checkpoint) => checkpoint.tidy_up(cx).await,
            None => Ok(()),
        }
    }
    .boxed();
    if let Err(e) = ready.await {
        context.connection.close().await;
        return Err(e);
    }
    let heartbeat = HeartbeatWriter::start(place.clone(), cx.progress.clone(), first);
    let archived = Archived::of(repository, &context.connection, &context.settings.databases, &cx.cpu).await;
    let run = Run { place, state: heartbeat.state(), durable, archived: archived.as_ref(), cx };
    let result = execute(&mut context, name, checkpoint, started, &run).boxed().await;
    heartbeat.stop().await?;
    context.connection.close().await;
    let manifest = result?;
    repository.identify().await?;
    commit::commit(&manifest, place).await?;
    Ok(manifest)
}

/// The phases of a backup up to its commit.
async fn execute(
    context: &mut BackupContext,
    name: &BackupName,
    mut checkpoint: Option<Checkpoint>,
    started: DateTime<Utc>,
    run: &Run<'_>,
) -> Result<Manifest> {
    // 1. Start to keep the oplog, if there is one, before the snapshot time.
    let start = match &checkpoint {
        None => run.cx.unless_cancelled(context.choose_consistency()).await?,
        Some(checkpoint) => resume::start(checkpoint),
    };
    if let Some(why) = &context.why_no_slice {
        run.cx.progress.note(format!("the oplog cannot be kept, so the data must be read within the source's history: {why}"));
    }
    let earlier =
        checkpoint.as_mut().map_or_else(Earlier::default, |u| Earlier { step: u.oplog.take(), is_needed: u.state.needs_oplog });
    let slice = RunningSlice::of(start.map(|start| Slice::begin(start, earlier, context, run)));
    let mut beside = Beside { slice, writer: None };
    let read = read_of_one_moment(context, &mut beside, checkpoint, started, run).await;
    // If it failed, no write may be under way when the directory is removed.
    let ended = beside.slice.end(read.as_ref().is_err_and(is_resumable)).await;
    beside.stop_writer().await?;
    let (read, finished, moment) = read?;
    ended?;

    // 5. Describe it: metadata files, checksums, the manifest.
    let mut manifest = commit::describe(context, name, read, moment, (started, finished), run.place, run.cx).await?;

    // 6. Make sure that the slice can be replayed. It also tells which temporary collections become
    // permanent.
    let mut at_the_end = Vec::new();
    if let (Some(oplog), Some(listed_at)) = (&manifest.oplog, manifest.consistency.cluster_time) {
        let follow = replayed::follow(run.place, &manifest, oplog, listed_at, None, &context.cpu);
        let followed = run.cx.unless_cancelled(follow).await.map_err(|e| e.context("the oplog slice that was kept"))?;
        at_the_end = followed.catalog.collections;
    }
    commit::leave_out_temporary(&mut manifest, &at_the_end, run.place).await?;
    Ok(manifest)
}

/// What runs beside the reading, and ends before the backup does.
struct Beside {
    slice: RunningSlice,
    /// Absent between two attempts.
    writer: Option<CheckpointWriter>,
}

impl Beside {
    async fn stop_writer(&mut self) -> Result<()> {
        match self.writer.take() {
            Some(writer) => writer.stop().await,
            None => Ok(()),
        }
    }
}

/// What was read, when the reading ended, and the consistency point, with the oplog slice if it
/// needs one.
type ReadOfOneMoment = (Read, DateTime<Utc>, (Consistency, Option<OplogSlice>));

/// The phases during which the slice must be kept.
async fn read_of_one_moment(
    context: &mut BackupContext,
    beside: &mut Beside,
    checkpoint: Option<Checkpoint>,
    started: DateTime<Utc>,
    run: &Run<'_>,
) -> Result<ReadOfOneMoment> {
    // 2. Pin the listing and the snapshot time.
    if checkpoint.is_none() {
        run.cx.unless_cancelled(context.pin_snapshot_time()).await?;
    }
    if let (Some(slice), Some(time)) = (beside.slice.get(), context.time())
        && time < slice.since()
    {
        return Err(Error::new(
            ErrorKind::Server,
            "the source's operation time went back at the start of the backup: another member answered",
        )
        .hint("run it again once the deployment is stable"));
    }

    // 3. Read and store every range.
    let (read, moment) = read_all(context, beside, checkpoint, started, run).await?;
    let finished = clock::now();

    // 4. Determine the consistency point, with the oplog up to it if needed.
    run.cx.progress.begin("committing");
    let shown = run.cx.unless_cancelled(moment.conclude(&read, context, &mut beside.slice)).await?;
    Ok((read, finished, shown))
}

/// Reads every range. Starts again at a new snapshot time if a collection was renamed meanwhile and
/// there is no oplog slice that tells.
async fn read_all(
    context: &mut BackupContext,
    beside: &mut Beside,
    mut checkpoint: Option<Checkpoint>,
    started: DateTime<Utc>,
    run: &Run<'_>,
) -> Result<(Read, Arc<ConsistencyPoint>)> {
    let mut restarts = 0;
    loop {
        let state = checkpoint.as_ref().map(|u| u.state).unwrap_or_default();
        let moment = Arc::new(ConsistencyPoint::new(context, beside.slice.get(), state, run.cx));
        let stems = match &checkpoint {
            Some(checkpoint) => checkpoint.head.collections.iter().map(|c| c.stem.clone()).collect(),
            None => read::stems(context),
        };
        let resting = moment.clone();
        let rests_on: ResumeStateOf = Arc::new(move || resting.resume_state());
        beside.writer = Some(match &checkpoint {
            Some(checkpoint) => CheckpointWriter::go_on(run.place, checkpoint.next, run.durable.clone(), rests_on),
            None => {
                let head = resume::head(context, beside.slice.get().map(Slice::start), &stems, started).await?;
                CheckpointWriter::begin(run.place, &head, run.durable.clone(), rests_on).await?
            }
        });
        match read::read(context, &stems, checkpoint.as_ref(), &moment, run).await? {
            Outcome::Read(read) => return Ok((read, moment)),
            Outcome::Again(why) if restarts == RESTARTS => {
                return Err(Error::new(ErrorKind::Server, format!("{why}, in each of {} attempts", RESTARTS + 1))
                    .hint("run the backup when no collection is renamed or altered, or exclude the namespace"));
            }
            Outcome::Again(why) => {
                restarts += 1;
                run.cx.progress.note(format!("{why}: starting again at a new snapshot time ({restarts} of {RESTARTS})"));
                beside.stop_writer().await?;
                run.durable.forget_ranges();
                checkpoint = None;
                read::clear(run.place).await?;
                run.cx.unless_cancelled(context.pin_snapshot_time()).await?;
            }
        }
    }
}
