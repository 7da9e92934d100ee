//! `import --undo-last` and `--drop-replaced`: puts back what the last `import --keep-replaced` replaced, or drops what was kept.
//!
//! Both are steps under a record, like an import's own: what kills them half way is brought to its end by the next import, or by a cleaning up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::visit::Visit;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::MongoUri;
use crate::names::{IMPORT_COLLECTION, KEPT_PREFIX, Namespace};
use crate::sink::holdings::Holdings;
use crate::sink::kept::{self, Kept, KeptSet};
use crate::sink::lease::{self, Former, Lease};
use crate::sink::publish::{self, Staged, Step};
use crate::sink::{Standing, Target, check, staging};

/// What reading a collection may take, in bytes.
const MEMORY: u64 = 64 * 1024 * 1024;

/// What takes the lease, where an import names its backup.
const UNDOING: &str = "an import that is undone";

/// How an import is undone.
#[derive(Debug, Clone, Copy, Default)]
pub struct UndoOptions {
    /// Only look.
    pub dry_run: bool,
    /// How long the leases hold that are taken meanwhile; [`lease::EXPIRY`] where it is not given.
    pub lease: Option<Duration>,
}

/// What became of an import that was undone, or of what was kept; in a dry run, what would.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UndoReport {
    /// Scheme, hosts and database of the target.
    pub target: String,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The backups of the imports that it is about.
    pub backups: Vec<String>,
    /// What is under its old name again.
    pub restored: Vec<String>,
    /// What the import had made where nothing was, and is gone.
    pub removed: Vec<String>,
    /// What was kept and is dropped.
    pub dropped: Vec<String>,
    /// What was lost, or would be, in words.
    pub lost: Vec<String>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// Puts back what the last import that kept anything has replaced. `ask` is asked before anything is lost: what was written since the import, or
/// what is not there any more as it was kept.
///
/// # Errors
/// [`ErrorKind::NotFound`] where nothing is kept; what `ask` gives; [`ErrorKind::Refused`] where an import is at work; the server's;
/// [`ErrorKind::Interrupted`].
pub async fn undo_last(
    uri: &MongoUri,
    options: UndoOptions,
    ask: impl AsyncFnOnce(&[String]) -> Result<()>,
    cx: &Context,
) -> Result<UndoReport> {
    let visit = Visit::begin(uri, cx).await?;
    let done = undo(&visit.target, uri, options, ask, cx).await;
    let (report, milliseconds) = visit.end(done).await?;
    Ok(UndoReport { target: uri.to_string(), milliseconds, ..report })
}

async fn undo(
    target: &Target,
    uri: &MongoUri,
    options: UndoOptions,
    ask: impl AsyncFnOnce(&[String]) -> Result<()>,
    cx: &Context,
) -> Result<UndoReport> {
    let set = kept::sets(target).await?.into_iter().next().ok_or_else(|| nothing_kept(uri))?;
    let mut report = UndoReport { backups: vec![set.backup.clone()], dry_run: options.dry_run, ..UndoReport::default() };
    if options.dry_run {
        plan(target, &set, &mut report, cx).await?;
        return Ok(report);
    }
    let databases = set.databases();
    let (lease, formers) = take_lease(target, &databases, options).await?;
    let working = async {
        // The last one by now: what was unfinished is finished, and it may be another one's.
        let last = kept::sets(target).await?.into_iter().next().ok_or_else(|| nothing_kept(uri))?;
        if last.id != set.id {
            return Err(Error::new(ErrorKind::Refused, "another import came in between, or was undone: nothing was changed")
                .hint("look with --undo-last --dry-run which is the last one now, and run it again"));
        }
        let mut steps = plan(target, &last, &mut report, cx).await?;
        if !report.lost.is_empty() {
            ask(&report.lost).await?;
        }
        steps.push(forget(&last));
        finish(target, &lease, &last.home, &steps, cx).await?;
        staging::sweep(&target.unstoppable(), &databases.iter().cloned().collect()).await.map(drop)
    };
    let done = under_lease(target, &lease, &formers, working).await;
    give_back(lease, done).await?;
    Ok(report)
}

/// Drops all that imports have kept in the target: they cannot be undone any more.
///
/// # Errors
/// As for [`undo_last`].
pub async fn drop_replaced(uri: &MongoUri, options: UndoOptions, cx: &Context) -> Result<UndoReport> {
    let visit = Visit::begin(uri, cx).await?;
    let done = drop_all(&visit.target, uri, options, cx).await;
    let (report, milliseconds) = visit.end(done).await?;
    Ok(UndoReport { target: uri.to_string(), milliseconds, ..report })
}

async fn drop_all(target: &Target, uri: &MongoUri, options: UndoOptions, cx: &Context) -> Result<UndoReport> {
    let mut report = UndoReport { dry_run: options.dry_run, ..UndoReport::default() };
    let sets = kept::sets(target).await?;
    if sets.is_empty() {
        return Err(nothing_kept(uri));
    }
    for set in sets {
        report.backups.push(set.backup.clone());
        if options.dry_run {
            drops(target, &set, &mut report).await?;
            continue;
        }
        let (lease, formers) = take_lease(target, &set.databases(), options).await?;
        let working = async {
            // One that was undone meanwhile keeps nothing any more.
            let Some(set) = kept::set(target, &set.home, &set.id).await? else { return Ok(()) };
            let mut steps = drops(target, &set, &mut report).await?;
            steps.push(forget(&set));
            finish(target, &lease, &set.home, &steps, cx).await
        };
        let done = under_lease(target, &lease, &formers, working).await;
        give_back(lease, done).await?;
    }
    Ok(report)
}

fn nothing_kept(uri: &MongoUri) -> Error {
    Error::new(ErrorKind::NotFound, format!("no import has kept anything in {uri}: there is nothing to undo or to drop"))
        .hint("only `import --keep-replaced` can be undone; what was kept and is put back or dropped is forgotten")
}

/// Takes the lease of these databases. Gives those, too, whose imports died there.
async fn take_lease(target: &Target, databases: &[String], options: UndoOptions) -> Result<(Lease, Vec<Former>)> {
    Lease::take(target, databases, UNDOING, options.lease.unwrap_or(lease::EXPIRY)).await
}

/// Does something under a lease, once what dead imports left there is finished.
async fn under_lease(target: &Target, lease: &Lease, formers: &[Former], work: impl Future<Output = Result<()>>) -> Result<()> {
    let working = async {
        publish::roll_forward(target, &lease.databases(), formers, lease.id()).await?;
        lease.settle();
        staging::sweep(target, &lease.databases()).await?;
        work.await
    };
    tokio::select! {
        done = working => done,
        () = lease.lost() => Err(Lease::lost_error(target)),
    }
}

async fn give_back(lease: Lease, done: Result<()>) -> Result<()> {
    match &done {
        // What is decided and not done is handed on with the lease.
        Err(e) if e.hint_text().is_some_and(|hint| hint.contains(FINISHES)) => drop(lease),
        _ => lease.release().await,
    }
    done
}

/// What the hint of something says that was decided and not done.
const FINISHES: &str = "`bsonvault import --cleanup` finishes it";

/// Decides these steps, and does them.
async fn finish(target: &Target, lease: &Lease, home: &str, steps: &[Step], cx: &Context) -> Result<()> {
    cx.progress.begin("putting it in place");
    lease.confirm().await?;
    let decided = AtomicBool::new(false);
    let published = publish::publish(&target.unstoppable(), home, lease.id(), steps, &decided).await;
    let published = published.map_err(|e| {
        if !decided.load(Ordering::Relaxed) {
            return e;
        }
        let hint = e.hint_text().map(|hint| format!("{hint}; ")).unwrap_or_default();
        e.hint(format!("{hint}it had begun, and {FINISHES}"))
    })?;
    publish::sum_up(published.given_up).map_or(Ok(()), Err)
}

fn forget(set: &KeptSet) -> Step {
    Step::Forget { record: Namespace::new(&*set.home, IMPORT_COLLECTION), id: set.id.clone() }
}

/// The steps that drop all that an import kept, what came in its way included.
async fn drops(target: &Target, set: &KeptSet, report: &mut UndoReport) -> Result<Vec<Step>> {
    let own = format!("{KEPT_PREFIX}{}.", set.id);
    let mut steps = Vec::new();
    for database in set.databases() {
        let standing = Standing::of(target, &database).await?;
        for there in standing.iter().filter(|c| c.name.starts_with(&own)) {
            let namespace = Namespace::new(&*database, &*there.name);
            report.dropped.push(namespace.to_string());
            steps.push(Step::Drop { namespace, uuid: standing.identity(there), keep: None });
        }
    }
    Ok(steps)
}

/// The steps that put back what an import replaced, and what is lost by that.
async fn plan(target: &Target, set: &KeptSet, report: &mut UndoReport, cx: &Context) -> Result<Vec<Step>> {
    cx.progress.begin("comparing what was imported with what is there");
    let mut steps = Vec::new();
    let mut standing: Option<(String, Standing)> = None;
    // Views last: they may be on what comes back.
    for kept in &set.kept {
        let database = &kept.namespace.database;
        if standing.as_ref().is_none_or(|(of, _)| of != database) {
            standing = Some((database.clone(), Standing::of(target, database).await?));
        }
        let Some((_, standing)) = &standing else { continue };
        if let Some(step) = step(target, kept, standing, report, cx).await? {
            steps.push(step);
        }
    }
    Ok(steps)
}

async fn step(target: &Target, kept: &Kept, standing: &Standing, report: &mut UndoReport, cx: &Context) -> Result<Option<Step>> {
    let name = &kept.namespace;
    let there = standing.get(&name.collection);
    let identity = there.and_then(|there| standing.identity(there));
    // 1. What was kept, as it was kept.
    let mut found: Option<Uuid> = None;
    if kept.holds_documents() {
        if identity.is_some() && identity == kept.uuid {
            // Somebody has put it back by hand.
            return Ok(None);
        }
        let place = standing.get(&kept.place.collection);
        found = place.and_then(|place| standing.identity(place));
        let (Some(place), Some(uuid)) = (place, found) else {
            report
                .lost
                .push(format!("what was kept of {name} is gone: {} was dropped or renamed; {name} stays as it is", kept.place));
            return Ok(None);
        };
        let now = Holdings::of(target, &name.database, place).await?.documents();
        if kept.kind != place.kind || (kept.kind == "collection" && Some(uuid) != kept.uuid) {
            report.lost.push(format!("{} is not what was kept of {name}, but something else under its name", kept.place));
        } else if kept.documents.is_some() && now != kept.documents {
            report.lost.push(format!(
                "{} was written to since it was kept: {} then, {} now",
                kept.place,
                words(kept.documents),
                words(now)
            ));
        }
    }
    // 2. What the import put in its place, as it was put.
    if let Some(there) = there {
        let now = Holdings::of(target, &name.database, there).await?;
        if now != Holdings::Nothing || kept.imported.documents > 0 {
            let imported = Some(kept.imported.documents);
            if identity.is_none() || identity != kept.new {
                if now != Holdings::Nothing {
                    if kept.was_nothing() {
                        report
                            .lost
                            .push(format!("{name} is not what the import made: it stays ({} now)", words(now.documents())));
                        return Ok(None);
                    }
                    report.lost.push(format!(
                        "{name} is not what the import put there, and would be dropped ({} now)",
                        words(now.documents())
                    ));
                }
            } else if now.documents() != imported || !is_as_imported(target, kept, &there.kind, cx).await? {
                report.lost.push(format!(
                    "{name} was written to since the import, which would be lost: {} then, {} now",
                    words(imported),
                    words(now.documents())
                ));
            }
        }
    }
    // 3. How it is put back.
    let replaced = |uuid| Staged { place: kept.place.clone(), to: name.clone(), uuid, replaces: true, keep: None };
    let step = match (kept.kind.as_str(), found) {
        ("collection", Some(uuid)) => Step::Swap(replaced(uuid)),
        ("timeseries", Some(uuid)) => Step::Series { staged: replaced(uuid), options: kept.options.clone() },
        ("view", _) => Step::View { to: name.clone(), options: kept.options.clone(), replaces: true, keep: None },
        _ => {
            let is_made = there.is_some_and(|there| if kept.new.is_some() { identity == kept.new } else { there.kind == "view" });
            if is_made {
                report.removed.push(name.to_string());
                return Ok(Some(Step::Drop { namespace: name.clone(), uuid: kept.new, keep: None }));
            }
            return Ok(None);
        }
    };
    report.restored.push(name.to_string());
    Ok(Some(step))
}

/// Whether what the import put there holds what it held then, byte for byte.
async fn is_as_imported(target: &Target, kept: &Kept, kind: &str, cx: &Context) -> Result<bool> {
    let item = cx.progress.item(kept.namespace.to_string(), kept.imported.documents, kept.imported.bytes);
    let (cpu, budget) = (&cx.cpu, cx.memory.part(MEMORY));
    let found = check::content_of(target, &kept.namespace, kind == "timeseries", kept.imported, (cpu, &budget), &item).await?;
    Ok(found == kept.imported)
}

fn words(documents: Option<u64>) -> String {
    match documents {
        Some(1) => "1 document".to_owned(),
        Some(documents) => format!("{documents} documents"),
        None => "an unknown number of documents".to_owned(),
    }
}
