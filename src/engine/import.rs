//! `import`: from a committed archive into a deployment.
//!
//! Everything is filled, proven and indexed under staging names first. Only then does it take the place of what stands there, all of it: what dies before
//! leaves the target as it was, what dies after is brought to its end by the next import. Nothing is reported as restored that was not read
//! back and found to be what the backup holds.

mod capped_overwrite;
mod document_source;
mod documents;
mod dump_source;
mod fill;
mod guard;
mod in_place;
mod keeping;
mod load;
mod load_backup;
mod load_dump;
mod options;
mod overwrites;
mod plan;
mod planning;
mod rebuild_indexes;
mod replay;
mod report;
pub(super) mod select;
mod slice;
mod stage;
mod turns;
mod views;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use futures::FutureExt as _;

pub use self::document_source::DocumentSource;
pub use self::dump_source::{DumpOptions, DumpSource};
use self::fill::Read;
use self::keeping::Keeping;
use self::load::Loaded;
pub use self::options::{ImportMode, ImportOptions, IndexMode};
pub use self::plan::{ImportPlan, Overwriting, Plan, PlannedNamespace, PlannedOverwrite, PlannedReplay};
pub use self::planning::CANNOT_BE_ADDED_TO;
use self::report::Staging;
pub use self::report::{ImportReport, ImportedCollection, KeptNamespace, ReplayReport, UnbuiltIndex};
use self::stage::{Stage, Writers};
use super::verify;
use crate::clock;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checks::{Check, CheckKind};
use crate::format::manifest::CollectionKind;
use crate::mongo::MongoUri;
use crate::repository::catalog::Backup;
use crate::sink::in_place as filling;
use crate::sink::indexes::{IndexBuilder, Which};
use crate::sink::insert::Repeats;
use crate::sink::lease::{self, Lease};
use crate::sink::publish::{self, Published, Staged, Step};
use crate::sink::{Target, indexes, kept, staging, users};

/// How many problems of a damaged backup an error names.
const NAMED_PROBLEMS: usize = 3;

/// How often everything is filled anew because the target's primary changed meanwhile.
const RESTARTS: u32 = 5;

/// How long tidying up after a failure may take.
const TIDYING: Duration = Duration::from_secs(30);

/// Works out what an import would do, and refuses what must not be done. Nothing is written.
///
/// # Errors
/// [`ErrorKind::Usage`] and [`ErrorKind::Refused`] for what must not be done, [`ErrorKind::NotFound`] for patterns that match nothing,
/// [`ErrorKind::Unreachable`], [`ErrorKind::Denied`], [`ErrorKind::Interrupted`].
pub async fn plan<'a>(
    origin: impl Into<DocumentSource<'a>>,
    target: &MongoUri,
    configured_source: Option<&MongoUri>,
    options: &ImportOptions,
    cx: &Context,
) -> Result<Plan<'a>> {
    planning::make(origin.into(), target, configured_source, options, cx).await
}

/// The databases of the target that an import would write to, as far as the backup's manifest tells: collections that change their names in
/// its slice of the oplog may lead to others.
///
/// # Errors
/// As for [`plan()`], as far as they show without a connection.
pub fn databases(backup: &Backup, target: &MongoUri, options: &ImportOptions) -> Result<BTreeSet<String>> {
    let (selected, _) =
        select::select(Cow::Borrowed(&backup.manifest.collections), &backup.manifest.left_out, options, target.database())?;
    Ok(selected.into_iter().map(|s| s.to.database).collect())
}

/// Imports a backup or a dump into `target`. `configured_source` is what backups are taken from, if that is known: it is not written to.
///
/// # Errors
/// Those of [`plan()`] and of [`execute`].
pub async fn run(
    origin: impl Into<DocumentSource<'_>>,
    target: &MongoUri,
    configured_source: Option<&MongoUri>,
    options: &ImportOptions,
    cx: &Context,
) -> Result<ImportReport> {
    cx.progress.begin("looking at the target");
    let origin = origin.into();
    // Apart from each other and from whoever calls: all futures of an import together are more than a thread's stack takes.
    let plan = Box::pin(plan(origin, target, configured_source, options, cx)).await?;
    Box::pin(execute(origin, plan, options, cx)).await
}

/// Does what was planned, whole or not at all. A backup is not deleted meanwhile. Where that brought the whole of it with every digest as it should be, or found it
/// damaged, this is kept beside it.
///
/// # Errors
/// Those of [`Backup::read_lock`]; [`ErrorKind::Damaged`] where the backup is not whole, [`ErrorKind::Refused`] where another import writes to one of the databases, [`ErrorKind::Mismatch`] where what was
/// read back is not what the backup holds, [`ErrorKind::Server`] where the target refused a document or an index,
/// [`ErrorKind::Interrupted`]: the target is as it was then. Where publishing had begun, the hint says so.
pub async fn execute(
    origin: impl Into<DocumentSource<'_>>,
    plan: Plan<'_>,
    options: &ImportOptions,
    cx: &Context,
) -> Result<ImportReport> {
    let (begun, origin) = (Instant::now(), origin.into());
    // Nobody deletes a dump, or asks how it was checked.
    if origin.dumped.is_some() {
        return Box::pin(carry_out(origin, plan, options, cx)).await;
    }
    let (backup, notes) = (origin.backup, cx.progress.clone());
    let _lock = match backup.read_lock_telling("import", move |said| notes.note(said)).await {
        Ok(lock) => lock,
        Err(e) => {
            plan.close().await;
            return Err(e);
        }
    };
    let done = Box::pin(carry_out(origin, plan, options, cx)).await;
    let problem = match &done {
        Ok(report) if report.is_whole => None,
        Err(e) if e.kind() == ErrorKind::Damaged => Some(e.to_string()),
        // Of a part of the backup, or of the target.
        Ok(_) | Err(_) => return done,
    };
    backup.keep(Check::ended(CheckKind::Import, clock::now(), clock::millis_since(begun), problem)).await;
    done
}

/// The same for who holds the backup, and keeps what came of it.
pub(super) async fn carry_out(
    origin: DocumentSource<'_>,
    mut plan: Plan<'_>,
    options: &ImportOptions,
    cx: &Context,
) -> Result<ImportReport> {
    let begun = Instant::now();
    // 1. Prove the whole backup. A dump is proven while it is read, before anything is published.
    if origin.poured().is_none() {
        cx.progress.begin("proving the backup");
        prove(origin.backup, cx).await?;
        documents::refuse(origin.backup, &plan, cx).await?;
    }

    if plan.in_place {
        return Box::pin(in_place::execute(origin, plan, options, cx, begun)).await;
    }

    // 2. Take the lease of every database, and with it what a dead import left.
    cx.progress.begin("taking the lease");
    let mut databases = plan.databases();
    if plan.users.is_some() {
        databases.push(users::DATABASE.to_owned());
    }
    let expiry = options.lease.unwrap_or(lease::EXPIRY);
    let (lease, formers) = Lease::take(&plan.target, &databases, &origin.name(), expiry).await?;
    let decided = AtomicBool::new(false);
    let work = async {
        let set: BTreeSet<String> = databases.iter().cloned().collect();
        let finished = Box::pin(publish::roll_forward(&plan.target, &set, &formers, lease.id())).await?;
        lease.settle();
        if !finished.published.is_empty() {
            cx.progress
                .note(format!("an import that died had begun to publish; it is finished: {}", finished.published.join(", ")));
        }
        for error in finished.given_up {
            cx.progress.note(format!("a part of what that import published was given up: {error}"));
        }
        staging::sweep(&plan.target, &lease.databases()).await?;
        if options.indexes == IndexMode::Only {
            return Box::pin(rebuild_indexes::build(&plan, cx))
                .await
                .map(|built| Ok(report::of_indexes(origin, &plan, built, begun)));
        }
        // 3. Everything else, up to the last rename.
        let (staged, given_up) = Box::pin(write(origin, &mut plan, &lease, &decided, options, cx)).await?;
        staging::sweep(&plan.target.unstoppable(), &set).await?;
        filling::forget(&plan.target.unstoppable(), &set).await?;
        let accounts = &staged.proven.accounts;
        let merged = if accounts.is_empty() {
            Ok(())
        } else if given_up.is_empty() {
            cx.progress.begin("adding users and roles");
            let target = plan.target.unstoppable();
            let merging = Box::pin(users::merge(&target, users::Through::Own(lease.id()), accounts)).await;
            merging.map_err(|e| e.context("everything else was imported, and the users and roles were not added"))
        } else {
            cx.progress.note("the users and roles were not added");
            Ok(())
        };
        Ok(match publish::sum_up(given_up) {
            None => merged.map(|()| report::of(origin, &plan, staged, begun)),
            Some(error) => Err(error),
        })
    }
    .boxed();
    let done = tokio::select! {
        done = work => done,
        () = lease.lost() => Err(Lease::lost_error(&plan.target)),
    };
    let done = match done {
        Ok(done) => {
            lease.release().await;
            done
        }
        Err(error) => Err(Box::pin(tidy_up(&plan.target, lease, &databases, decided.into_inner(), error)).await),
    };
    plan.close().await;
    done
}

/// The phases that change the target. Gives what staging came to, and what was given up of publishing.
async fn write(
    origin: DocumentSource<'_>,
    plan: &mut Plan<'_>,
    lease: &Lease,
    decided: &AtomicBool,
    options: &ImportOptions,
    cx: &Context,
) -> Result<(Staging, Vec<Error>)> {
    plan.look_again().await?;
    let target = plan.target.clone();
    // 1. Stage everything. A primary that steps down, or a server that crashes, may take back what it had taken: then from the start.
    let mut restarts = 0;
    let mut staged = loop {
        let before = target.identity().await?;
        let error = match Box::pin(stage(origin, plan, lease, options, cx)).await {
            Ok(staged) if target.identity().await? == before => break staged,
            Ok(_) => Error::new(ErrorKind::Unreachable, "the target's primary changes too often to fill it"),
            // Who did not answer for minutes is not asked for minutes more.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Unreachable) => return Err(error),
            Err(error) if target.identity().await.is_ok_and(|now| now != before) => error,
            Err(error) => return Err(error),
        };
        restarts += 1;
        if restarts > RESTARTS || lease.is_lost() {
            return Err(error);
        }
        if origin.poured().is_some_and(|dumped| !dumped.dump().can_be_read_again()) {
            let what = "the target's primary changed or was started anew, and what comes by standard input can be read once only";
            return Err(Error::new(error.kind(), what).hint("put the archive into a file, and import that").cause(error));
        }
        cx.progress
            .note(format!("the target's primary changed or was started anew: filling from the start ({restarts} of {RESTARTS})"));
        staging::sweep(&target, &plan.databases().into_iter().collect()).await?;
    };

    // 2. Decide, and publish. From here on nothing stops it.
    cx.progress.begin("publishing");
    plan.look_again().await?;
    let home = plan.databases().into_iter().next().unwrap_or_default();
    let mut keeping = None;
    if options.keep_replaced {
        keeping = Some(Box::pin(Keeping::of(origin, plan, &home, lease, &staged)).await?);
    }
    let steps = steps(plan, keeping.as_ref())?;
    publish::ready(&target, &steps).await?;
    lease.confirm().await?;
    let mut published = Published::default();
    if !steps.is_empty() {
        published = Box::pin(publish::publish(&target.unstoppable(), &home, lease.id(), &steps, decided)).await?;
    }
    staged.not_added = published.passed_over;
    if options.keep_replaced {
        staged.kept = kept::set(&target.unstoppable(), &home, lease.id()).await?;
    }
    Ok((staged, published.given_up))
}

/// Fills, proves and indexes everything under staging names, durably.
async fn stage(
    origin: DocumentSource<'_>,
    plan: &mut Plan<'_>,
    lease: &Lease,
    options: &ImportOptions,
    cx: &Context,
) -> Result<Staging> {
    // 1. Create every collection, without expiry and without indexes.
    cx.progress.begin("preparing the target");
    let target = plan.target.clone();
    staging::create(&target, &mut plan.specs, lease.id()).await?;

    // 2. Those that one writer fills, and a small frame or few, get their indexes while they are empty.
    let builder = IndexBuilder::new(target.clone());
    let repeats = options.repeats(origin);
    if plan.slice.is_none() && plan.indexes == IndexMode::Now && origin.poured().is_none() && repeats == Repeats::Refuse {
        let filled_by_one = plan.selected.iter().zip(&plan.specs).filter(|(s, _)| s.collection.segments.len() <= 1);
        builder.build_on_empty(filled_by_one.map(|(_, spec)| spec)).await?;
    }

    // 3. Fill them, prove them by reading back, and build their indexes.
    let stage = Stage {
        origin,
        plan,
        writers: Writers::of(options.tuning.writers),
        cpu: cx.cpu.clone(),
        budget: options.budget(origin, cx),
        repeats,
        cx,
        builder,
        target_cores: target.cores().await,
        indexes_later: plan.slice.is_some(),
    };
    let proven = Box::pin(stage.fill_and_prove()).await?;

    // 4. Bring it to the moment that the backup shows. Its indexes come after that, because in between a unique one need not hold.
    let mut staged = Staging {
        documents: proven.contents.iter().map(|c| c.documents).collect(),
        proven,
        lost: Vec::new(),
        operations: 0,
        not_added: BTreeMap::new(),
        replayed: None,
        kept: None,
    };
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

    // 5. Only now what makes documents expire.
    cx.progress.begin("confirming");
    staging::set_expiry(&target, &plan.specs).await?;
    stage.make_durable().await?;
    if plan.indexes == IndexMode::Now {
        staged.lost = indexes::confirm(&target, &plan.specs).await?;
    }
    Ok(staged)
}

/// What is published, in the plan's order, and what is pruned.
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

async fn prove(backup: &Backup, cx: &Context) -> Result<()> {
    let report = verify::prove(backup, &verify::VerifyOptions::default(), cx).await?;
    if report.is_sound() {
        return Ok(());
    }
    let named: Vec<&str> = report.problems.iter().take(NAMED_PROBLEMS).map(|p| p.message.as_str()).collect();
    let more = match report.problems.len() - named.len() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Err(Error::damaged(format!("backup {} is damaged, and nothing was imported: {}{more}", report.name, named.join("; ")))
        .hint("`bsonvault verify` names everything that is wrong with it; import another backup"))
}

/// After a failure: before the decision the staging goes and the target is as it was; after it the record and the lease stay, for the next import.
async fn tidy_up(target: &Target, lease: Lease, databases: &[String], decided: bool, error: Error) -> Error {
    let and = |error: Error, words: &str| {
        let hint = error.hint_text().map(|hint| format!("{hint}; ")).unwrap_or_default();
        error.hint(format!("{hint}{words}"))
    };
    if decided {
        return and(
            error,
            "publishing had begun: every collection is either the old one or the new one, and the next import into these databases finishes it",
        );
    }
    if lease.is_lost() {
        return error;
    }
    let set: BTreeSet<String> = databases.iter().cloned().collect();
    let tidying = async {
        staging::sweep_own(&target.unstoppable(), &set, lease.id()).await?;
        lease.release().await;
        Ok::<_, Error>(())
    };
    match tokio::time::timeout(TIDYING, tidying).await {
        Ok(Ok(())) if error.kind() == ErrorKind::Interrupted => {
            Error::new(ErrorKind::Interrupted, "interrupted; the target is as it was")
        }
        Ok(Ok(())) => and(error, "the target is as it was"),
        Ok(Err(_)) | Err(_) => and(
            error,
            "the target's collections are as they were; what was staged beside them could not be removed, and the next import does that",
        ),
    }
}
