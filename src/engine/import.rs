//! `import`: from a committed archive, or a dump, into a deployment.
//!
//! Everything is first filled, verified and indexed under staging names. Only then does all of it
//! replace what exists under the final names. A crash before that leaves the target unchanged;
//! after it, the next import finishes the work. Nothing is reported as restored unless it was read
//! back and found to be what the backup holds.

mod capped_overwrite;
mod document_source;
mod documents;
mod dump_source;
mod fill;
pub(super) mod guard;
mod in_place;
mod keeping;
mod load;
mod load_backup;
mod load_dump;
mod options;
mod overwrites;
mod plan;
mod planned;
mod planning;
pub(super) mod point_in_time;
mod rebuild_indexes;
mod replay;
mod report;
pub(super) mod select;
mod slice;
mod stage;
mod staged_copy;
mod turns;
pub(super) mod views;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::FutureExt as _;

pub use self::document_source::DocumentSource;
pub use self::dump_source::{DumpOptions, DumpSource};
use self::fill::Read;
use self::keeping::Keeping;
use self::load::Loaded;
pub use self::load::StagedBefore;
pub use self::options::{ImportMode, ImportOptions, IndexMode};
pub use self::plan::{ImportPlan, Overwriting, Plan, PlannedNamespace, PlannedOverwrite, PlannedReplay};
pub use self::planned::PlannedPointInTime;
pub use self::planning::CANNOT_BE_ADDED_TO;
pub use self::point_in_time::PointInTime;
use self::report::Staging;
pub use self::report::{ImportReport, ImportedCollection, KeptNamespace, ReplayReport, UnbuiltIndex};
use self::stage::Stage;
pub(in crate::engine) use self::staged_copy::StagedCopy;
pub(in crate::engine) use self::views::renamed as renamed_view;
use crate::clock;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checks::{Check, CheckKind};
use crate::format::manifest::CollectionKind;
use crate::mongo::MongoUri;
use crate::repository::catalog::Backup;
use crate::sink::in_place as filling;
use crate::sink::indexes::Which;
use crate::sink::insert::Repeats;
use crate::sink::lease::{self, Lease};
use crate::sink::publish::{self, Published, Staged, Step};
use crate::sink::{Target, indexes, kept, leftovers, staging, users};

/// How often everything is filled again because the target's primary changed meanwhile.
const RESTARTS: u32 = 5;

/// How long tidying up after a failure may take.
const TIDYING: Duration = Duration::from_secs(30);

/// Plans an import, and refuses what must not be done. Writes nothing.
///
/// # Errors
/// [`ErrorKind::Usage`] and [`ErrorKind::Refused`] for what must not be done;
/// [`ErrorKind::NotFound`] for patterns that match nothing; [`ErrorKind::Unreachable`],
/// [`ErrorKind::Denied`], [`ErrorKind::Interrupted`].
pub async fn plan<'a>(
    origin: &'a dyn DocumentSource,
    target: &MongoUri,
    configured_source: Option<&MongoUri>,
    options: &ImportOptions,
    cx: &Context,
) -> Result<Plan<'a>> {
    planning::make(origin, target, configured_source, options, cx).await
}

/// The databases of the target that an import would write to, as far as the backup's manifest
/// tells. Renames in its oplog slice may lead to others.
///
/// # Errors
/// As for [`plan()`], as far as they occur without a connection.
pub fn databases(backup: &Backup, target: &MongoUri, options: &ImportOptions) -> Result<BTreeSet<String>> {
    let (selected, _) =
        select::select(Cow::Borrowed(&backup.manifest.collections), &backup.manifest.left_out, options, target.database())?;
    Ok(selected.into_iter().map(|s| s.to.database).collect())
}

/// Imports a backup or a dump into `target`. `configured_source` is the deployment that backups are
/// taken from, if known: the import refuses to write to it.
///
/// # Errors
/// Those of [`plan()`] and of [`execute`].
pub async fn run(
    origin: &dyn DocumentSource,
    target: &MongoUri,
    configured_source: Option<&MongoUri>,
    options: &ImportOptions,
    cx: &Context,
) -> Result<ImportReport> {
    cx.progress.begin("looking at the target");
    // Boxed apart, because all futures of an import together exceed a thread's stack.
    let plan = Box::pin(plan(origin, target, configured_source, options, cx)).await?;
    Box::pin(execute(plan, options, cx)).await
}

/// Carries out the plan, completely or not at all. The backup is not deleted meanwhile. If the
/// import restored the whole backup with matching digests, or found it damaged, that result is kept
/// beside the backup.
///
/// # Errors
/// Those of [`Backup::read_lock`]; [`ErrorKind::Damaged`] if the backup is damaged;
/// [`ErrorKind::Refused`] if another import writes to one of the databases; [`ErrorKind::Mismatch`]
/// if what was read back is not what the backup holds; [`ErrorKind::Server`] if the target refused
/// a document or an index; [`ErrorKind::Interrupted`]. After an error the target is unchanged,
/// unless publishing had begun: then the hint says so.
pub async fn execute(plan: Plan<'_>, options: &ImportOptions, cx: &Context) -> Result<ImportReport> {
    let begun = Instant::now();
    // A dump is never deleted by clean, and keeps no check results.
    let Some(backup) = plan.origin.stored() else { return Box::pin(carry_out(plan, options, cx)).await };
    let notes = cx.progress.clone();
    let _lock = match backup.read_lock_telling("import", move |said| notes.note(said)).await {
        Ok(lock) => lock,
        Err(e) => {
            plan.close().await;
            return Err(e);
        }
    };
    let done = Box::pin(carry_out(plan, options, cx)).await;
    let problem = match &done {
        Ok(report) if report.is_whole => None,
        Err(e) if e.kind() == ErrorKind::Damaged => Some(e.to_string()),
        // It covered a part of the backup, or says something about the target only.
        Ok(_) | Err(_) => return done,
    };
    backup.keep(Check::ended(CheckKind::Import, clock::now(), clock::millis_since(begun), problem)).await;
    done
}

/// The same for callers that hold the read lock and keep the result.
pub(super) async fn carry_out(mut plan: Plan<'_>, options: &ImportOptions, cx: &Context) -> Result<ImportReport> {
    let begun = Instant::now();
    // 1. Verify what is imported, as far as possible before it is loaded.
    plan.origin.prove(&plan.selected, &plan.target, cx).await?;
    if plan.in_place {
        return Box::pin(in_place::execute(plan, options, begun, cx)).await;
    }

    // 2. Take the lease of every database, and finish or remove what a crashed import left there.
    cx.progress.begin("taking the lease");
    let mut databases = plan.databases();
    if plan.users.is_some() {
        databases.push(users::DATABASE.to_owned());
    }
    let lease = Lease::take(&plan.target, &databases, &plan.backup, options.lease.unwrap_or(lease::EXPIRY)).await?;
    let databases: BTreeSet<String> = databases.into_iter().collect();
    let work = async {
        finish_dead(&plan, &lease, cx).await?;
        if options.indexes == IndexMode::Only {
            return Box::pin(rebuild_indexes::build(&plan, cx)).await.map(|built| Ok(report::of_indexes(&plan, built, begun)));
        }
        // 3. Fill, verify and index everything under staging names.
        plan.look_again().await?;
        let staged = Box::pin(stage_within_one_term(&mut plan, &lease, options, cx)).await?;
        // 4. Decide, and publish. From here on nothing stops it.
        let (staged, given_up) = Box::pin(put_in_place(&mut plan, &lease, staged, options, cx)).await?;
        // 5. Leave nothing beside what was published.
        let target = plan.target.unstoppable();
        staging::sweep(&target, &databases).await?;
        filling::forget(&target, &databases).await?;
        // 6. Add users and roles, once everything else exists.
        let given_up = publish::sum_up(given_up);
        if given_up.is_some() && !staged.proven.accounts.is_empty() {
            cx.progress.note("the users and roles were not added");
        }
        let done = match given_up {
            None => staged.proven.add_accounts(&target, users::Through::Own(lease.id()), cx).await,
            Some(error) => Err(error),
        };
        Ok(done.map(|()| report::of(&plan, staged, begun)))
    }
    .boxed();
    let done = match lease.unless_lost(work).await {
        Ok(done) => {
            lease.release().await;
            done
        }
        Err(error) => Err(Box::pin(tidy_up(&plan.target, lease, &databases, error)).await),
    };
    plan.close().await;
    done
}

/// Finishes what crashed imports left in the databases of the lease, and reports it.
async fn finish_dead(plan: &Plan<'_>, lease: &Lease, cx: &Context) -> Result<()> {
    let finished = leftovers::settle(&plan.target, lease).await?.finished;
    if !finished.published.is_empty() {
        cx.progress.note(format!("a crashed import had begun to publish; now it is finished: {}", finished.published.join(", ")));
    }
    for error in finished.given_up {
        cx.progress.note(format!("that import could not publish everything: {error}"));
    }
    Ok(())
}

/// Stages everything. If the primary steps down or a server crashes, acknowledged writes may be
/// lost: then it starts over.
async fn stage_within_one_term(plan: &mut Plan<'_>, lease: &Lease, options: &ImportOptions, cx: &Context) -> Result<Staging> {
    let target = plan.target.clone();
    let mut restarts = 0;
    loop {
        let before = target.identity().await?;
        let error = match Box::pin(stage(plan, lease, options, cx)).await {
            Ok(staged) if target.identity().await? == before => return Ok(staged),
            Ok(_) => Error::new(ErrorKind::Unreachable, "the target's primary changes too often for an import"),
            // A target that did not answer for minutes is not asked again.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Unreachable) => return Err(error),
            Err(error) if target.identity().await.is_ok_and(|now| now != before) => error,
            Err(error) => return Err(error),
        };
        restarts += 1;
        if restarts > RESTARTS || lease.is_lost() {
            return Err(error);
        }
        if let Some(only_once) = plan.origin.only_once() {
            return Err(only_once.cause(error));
        }
        cx.progress.note(format!("the target's primary changed or restarted: filling from the start ({restarts} of {RESTARTS})"));
        staging::sweep(&target, &plan.databases().into_iter().collect()).await?;
    }
}

/// Fills, verifies and indexes everything under staging names, durably.
async fn stage(plan: &mut Plan<'_>, lease: &Lease, options: &ImportOptions, cx: &Context) -> Result<Staging> {
    // 1. Create every collection, without expiry and without indexes.
    cx.progress.begin("preparing the target");
    let target = plan.target.clone();
    let staged_before = plan.selected.iter().map(|selected| plan.origin.staged(&selected.collection));
    let staged_before: Vec<_> = staged_before.map(|staged| staged.map(|staged| staged.place.clone())).collect();
    staging::create(&target, &mut plan.specs, &staged_before, lease.id()).await?;

    // 2. Collections that a single writer fills with few small frames get their indexes while they
    // are empty.
    let stage = Stage::of(plan, options, target.cores().await, cx);
    let fills_as_told = plan.origin.is_counted() && stage.loader.repeats == Repeats::Refuse;
    if plan.slice.is_none() && plan.indexes == IndexMode::Now && fills_as_told {
        let filled_by_one = plan.selected.iter().zip(&plan.specs).filter(|(s, _)| s.collection.segments.len() <= 1);
        stage.builder.build_on_empty(filled_by_one.map(|(_, spec)| spec)).await?;
    }

    // 3. Fill them, verify them by reading back, and build their indexes.
    let mut staged = Staging::of(Box::pin(stage.fill_and_prove()).await?);
    plan.origin.proven(&target).await?;

    // 4. Replay the oplog slice up to the consistency point. Indexes come after that: in between, a
    // unique one may not hold.
    if let Some(slice) = &plan.slice {
        staged.operations = Box::pin(slice.replay(&stage)).await?;
        staged.documents = stage.count().await?;
        cx.progress.begin("building indexes");
        let contents = staged.proven.contents.iter().copied().enumerate();
        let all: Vec<Read> =
            contents.map(|(number, content)| Read::of(Loaded { number, ..Loaded::default() }, content)).collect();
        stage.build(&all, Which::All).await?;
        if options.keep_replaced {
            staged.replayed = Some(stage.read_all_back().await?);
        }
    }

    // 5. Only now set what makes documents expire.
    cx.progress.begin("confirming");
    staging::set_expiry(&target, &plan.specs).await?;
    stage.make_durable().await?;
    if plan.indexes == IndexMode::Now {
        staged.lost = indexes::confirm(&target, &plan.specs).await?;
    }
    Ok(staged)
}

/// Decides and publishes. Returns what was staged with the result, and what was given up.
async fn put_in_place(
    plan: &mut Plan<'_>,
    lease: &Lease,
    mut staged: Staging,
    options: &ImportOptions,
    cx: &Context,
) -> Result<(Staging, Vec<Error>)> {
    cx.progress.begin("publishing");
    plan.look_again().await?;
    let (target, unstoppable) = (&plan.target, plan.target.unstoppable());
    let mut keeping = None;
    if options.keep_replaced {
        keeping = Some(Box::pin(Keeping::of(plan, lease, &staged)).await?);
    }
    let steps = steps(plan, keeping.as_ref())?;
    publish::ready(target, &steps).await?;
    lease.confirm().await?;
    let mut published = Published::default();
    if !steps.is_empty() {
        published = Box::pin(publish::publish(&unstoppable, lease, &steps)).await?;
    }
    staged.not_added = published.passed_over;
    if options.keep_replaced {
        staged.kept = kept::set(&unstoppable, lease.home(), lease.id()).await?;
    }
    Ok((staged, published.given_up))
}

/// What is published, in the plan's order, and what is dropped as extra.
fn steps(plan: &Plan<'_>, keeping: Option<&Keeping>) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = keeping.map(Keeping::remember).into_iter().collect();
    let replaces = plan.mode == ImportMode::Replace;
    for (number, spec) in plan.specs.iter().enumerate() {
        let to = spec.namespace.clone();
        let keep = keeping.map(|keeping| keeping.keep(number, &to));
        let Some(uuid) = spec.uuid else {
            steps.push(Step::View { to, options: spec.all_options()?, replaces, keep });
            continue;
        };
        let staged = Staged { place: spec.place.clone(), to, uuid, replaces, keep };
        let stands = plan.stands(spec).is_some();
        steps.push(match spec.kind {
            CollectionKind::TimeSeries => Step::Series { staged, options: spec.all_options()? },
            _ if stands && plan.mode == ImportMode::Merge => Step::Merge(staged),
            _ if stands && plan.mode == ImportMode::Add => Step::Add(staged),
            _ => Step::Swap(staged),
        });
    }
    steps.extend(plan.prunes.iter().zip(plan.specs.len()..).map(|((namespace, uuid), number)| {
        let keep = keeping.map(|keeping| keeping.keep(number, namespace));
        Step::Drop { namespace: namespace.clone(), uuid: *uuid, keep }
    }));
    Ok(steps)
}

/// Tidies up after a failure. Before the decision, the staging collections are dropped and the
/// target is unchanged. After it, the record and the lease stay for the next import.
async fn tidy_up(target: &Target, lease: Lease, databases: &BTreeSet<String>, error: Error) -> Error {
    if lease.is_decided() {
        return error.hint_too(
            "publishing had begun: a collection is either the old one or the new one, and a time series may be missing; \
             [[`bsonvault import cleanup`]], or the next import into these databases, finishes it",
        );
    }
    if lease.is_lost() {
        return error;
    }
    let tidying = async {
        staging::sweep_own(&target.unstoppable(), databases, lease.id()).await?;
        lease.release().await;
        Ok::<_, Error>(())
    };
    match tokio::time::timeout(TIDYING, tidying).await {
        Ok(Ok(())) if error.kind() == ErrorKind::Interrupted => {
            Error::new(ErrorKind::Interrupted, "interrupted; the target is as it was")
        }
        Ok(Ok(())) => error.hint_too("the target is as it was"),
        Ok(Err(_)) | Err(_) => error.hint_too(
            "the target's collections are as they were; the staging collections could not be removed, \
             and the next import removes them",
        ),
    }
}
