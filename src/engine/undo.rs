//! `import --undo-last` and `--drop-replaced`: puts back what the last [[`import keep-replaced`]]
//! replaced, or drops what was kept.
//!
//! Both are steps under a record, like an import's own: after a crash, the next import or cleanup
//! finishes them.

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
use crate::sink::lease::{self, Lease};
use crate::sink::publish::{self, Staged, Step};
use crate::sink::{Standing, Target, check, leftovers, staging};

/// The memory that reading a collection may take, in bytes.
const MEMORY: u64 = 64 * 1024 * 1024;

/// The name on the lease, in place of an import's backup.
const UNDOING: &str = "an import that is undone";

/// How to undo an import.
#[derive(Debug, Clone, Copy, Default)]
pub struct UndoOptions {
    /// Only look.
    pub dry_run: bool,
    /// How long the leases taken meanwhile last. By default [`lease::EXPIRY`].
    pub lease: Option<Duration>,
}

/// The result of an undo, or of dropping what was kept. In a dry run, what would happen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UndoReport {
    /// Scheme, hosts and database of the target.
    pub target: String,
    /// Whether this is a dry run.
    pub dry_run: bool,
    /// The backups of the imports concerned.
    pub backups: Vec<String>,
    /// Namespaces that were put back under their old names.
    pub restored: Vec<String>,
    /// Collections that the import had created where there was none, and that are removed.
    pub removed: Vec<String>,
    /// Kept collections that were dropped.
    pub dropped: Vec<String>,
    /// In words: what was lost, or would be.
    pub lost: Vec<String>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// Puts back what the last import with kept collections replaced. `ask` is asked before anything is
/// lost: writes since the import, or kept collections that changed or are gone.
///
/// # Errors
/// [`ErrorKind::NotFound`] if nothing is kept; the error of `ask`; [`ErrorKind::Refused`] if an
/// import is running; the server's; [`ErrorKind::Interrupted`].
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
    // 1. What it would do.
    let set = kept::sets(target).await?.into_iter().next().ok_or_else(|| nothing_kept(uri))?;
    let mut undo = Undo::new(target, options, cx);
    undo.report.backups.push(set.backup.clone());
    if options.dry_run {
        undo.put_back(&set).await?;
        return Ok(undo.report);
    }
    let lease = undo.take_lease(&set).await?;
    let working = async {
        // 2. Look again under the lease: unfinished work is finished now, and the last import may
        // be another one.
        let last = kept::sets(target).await?.into_iter().next().ok_or_else(|| nothing_kept(uri))?;
        if last.id != set.id {
            return Err(Error::new(ErrorKind::Refused, "another import was made or undone meanwhile: nothing was changed")
                .hint("see with [[undo-last]] [[dry-run]] which import is the last one now, and run it again"));
        }
        // 3. What would be lost, and whether it may be.
        let mut steps = undo.put_back(&last).await?;
        if !undo.report.lost.is_empty() {
            ask(&undo.report.lost).await?;
        }
        // 4. Decide, and execute. From here on nothing stops it.
        steps.push(forget(&last));
        undo.finish(&lease, &steps).await?;
        staging::sweep(&target.unstoppable(), &lease.databases()).await.map(drop)
    };
    let done = under_lease(target, &lease, working).await;
    give_back(lease, done).await?;
    Ok(undo.report)
}

/// Drops everything that imports have kept in the target: they can no longer be undone.
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
    let mut undo = Undo::new(target, options, cx);
    let sets = kept::sets(target).await?;
    if sets.is_empty() {
        return Err(nothing_kept(uri));
    }
    for set in sets {
        undo.report.backups.push(set.backup.clone());
        if options.dry_run {
            undo.drops(&set).await?;
            continue;
        }
        let lease = undo.take_lease(&set).await?;
        let working = async {
            // An import that was undone meanwhile keeps nothing any more.
            let Some(set) = kept::set(target, &set.home, &set.id).await? else { return Ok(()) };
            let mut steps = undo.drops(&set).await?;
            steps.push(forget(&set));
            undo.finish(&lease, &steps).await
        };
        let done = under_lease(target, &lease, working).await;
        give_back(lease, done).await?;
    }
    Ok(undo.report)
}

fn nothing_kept(uri: &MongoUri) -> Error {
    Error::new(ErrorKind::NotFound, format!("no import has kept anything in {uri}: there is nothing to undo or to drop"))
        .hint("only [[`import keep-replaced`]] can be undone, and only until what it kept is put back or dropped")
}

/// Works under a lease, once leftovers of crashed imports there are finished.
async fn under_lease(target: &Target, lease: &Lease, work: impl Future<Output = Result<()>>) -> Result<()> {
    let working = async {
        leftovers::settle(target, lease).await?;
        work.await
    };
    lease.unless_lost(working).await
}

async fn give_back(lease: Lease, done: Result<()>) -> Result<()> {
    match &done {
        // Decided steps that are not done are left to the next holder of the lease.
        Err(e) if e.hint_text().is_some_and(|hint| hint.contains(FINISHES)) => drop(lease),
        _ => lease.release().await,
    }
    done
}

/// The hint of an error after which decided steps are not done.
const FINISHES: &str = "[[`bsonvault import cleanup`]] finishes it";

fn forget(set: &KeptSet) -> Step {
    Step::Forget { record: Namespace::new(&*set.home, IMPORT_COLLECTION), id: set.id.clone() }
}

/// What undoing works with, and its result so far.
struct Undo<'a> {
    target: &'a Target,
    options: UndoOptions,
    cx: &'a Context,
    report: UndoReport,
}

impl<'a> Undo<'a> {
    fn new(target: &'a Target, options: UndoOptions, cx: &'a Context) -> Self {
        Self { target, options, cx, report: UndoReport { dry_run: options.dry_run, ..UndoReport::default() } }
    }

    async fn take_lease(&self, set: &KeptSet) -> Result<Lease> {
        Lease::take(self.target, &set.databases(), UNDOING, self.options.lease.unwrap_or(lease::EXPIRY)).await
    }

    /// Decides these steps, and executes them.
    async fn finish(&self, lease: &Lease, steps: &[Step]) -> Result<()> {
        self.cx.progress.begin("putting it in place");
        lease.confirm().await?;
        let published = publish::publish(&self.target.unstoppable(), lease, steps).await;
        let published = published.map_err(|e| match lease.is_decided() {
            true => e.hint_too(format_args!("it had begun, and {FINISHES}")),
            false => e,
        })?;
        publish::sum_up(published.given_up).map_or(Ok(()), Err)
    }

    /// The steps that drop everything that an import kept, including collections moved out of its
    /// way.
    async fn drops(&mut self, set: &KeptSet) -> Result<Vec<Step>> {
        let own = format!("{KEPT_PREFIX}{}.", set.id);
        let mut steps = Vec::new();
        for database in set.databases() {
            let standing = Standing::of(self.target, &database).await?;
            for there in standing.iter().filter(|c| c.name.starts_with(&own)) {
                let namespace = Namespace::new(&*database, &*there.name);
                self.report.dropped.push(namespace.to_string());
                steps.push(Step::Drop { namespace, uuid: standing.identity(there), keep: None });
            }
        }
        Ok(steps)
    }

    /// The steps that put back what an import replaced. Records what is lost by that.
    async fn put_back(&mut self, set: &KeptSet) -> Result<Vec<Step>> {
        self.cx.progress.begin("comparing the import with the target");
        let mut steps = Vec::new();
        let mut standing: Option<(&String, Standing)> = None;
        // Views last: they may read collections that are put back.
        for kept in &set.kept {
            let database = &kept.namespace.database;
            let (_, there) = match standing.take_if(|(of, _)| *of == database) {
                Some(known) => standing.insert(known),
                None => standing.insert((database, Standing::of(self.target, database).await?)),
            };
            let Some(source) = self.source(kept, there).await? else { continue };
            if self.may_go(kept, there).await? {
                steps.extend(self.step(kept, source, there));
            }
        }
        Ok(steps)
    }

    fn loses(&mut self, what: String) {
        self.report.lost.push(what);
    }

    /// The kept collection, after checking that it is unchanged. None if nothing is to be put back.
    async fn source(&mut self, kept: &Kept, standing: &Standing) -> Result<Option<Option<Uuid>>> {
        if !kept.holds_documents() {
            return Ok(Some(None));
        }
        let name = &kept.namespace;
        let identity = standing.get(&name.collection).and_then(|there| standing.identity(there));
        if identity.is_some() && identity == kept.uuid {
            // Somebody put it back by hand.
            return Ok(None);
        }
        let place = standing.get(&kept.place.collection);
        let Some((place, uuid)) = place.and_then(|place| Some((place, standing.identity(place)?))) else {
            self.loses(format!(
                "the kept version of {name} is gone: {} was dropped or renamed; {name} stays as it is",
                kept.place
            ));
            return Ok(None);
        };
        let now = Holdings::of(self.target, &name.database, place).await?.documents();
        if kept.kind != place.kind || (kept.kind == "collection" && Some(uuid) != kept.uuid) {
            self.loses(format!("{} is not the kept version of {name}, but something else under its name", kept.place));
        } else if kept.documents.is_some() && now != kept.documents {
            let (then, now) = (words(kept.documents), words(now));
            self.loses(format!("{} was written to since it was kept: {then} then, {now} now", kept.place));
        }
        Ok(Some(Some(uuid)))
    }

    /// Checks whether the collection that the import published is unchanged. False if it stays.
    async fn may_go(&mut self, kept: &Kept, standing: &Standing) -> Result<bool> {
        let name = &kept.namespace;
        let Some(there) = standing.get(&name.collection) else { return Ok(true) };
        let holdings = Holdings::of(self.target, &name.database, there).await?;
        if holdings == Holdings::Nothing && kept.imported.documents == 0 {
            return Ok(true);
        }
        let (identity, imported, now) = (standing.identity(there), Some(kept.imported.documents), holdings.documents());
        if identity.is_none() || identity != kept.new {
            if holdings == Holdings::Nothing {
                return Ok(true);
            }
            if kept.was_nothing() {
                self.loses(format!("{name} is not the collection that the import created: it stays ({} now)", words(now)));
                return Ok(false);
            }
            self.loses(format!(
                "{name} is not the collection that the import published, and would be dropped ({} now)",
                words(now)
            ));
        } else if now != imported || !is_as_imported(self.target, kept, &there.kind, self.cx).await? {
            let (then, now) = (words(imported), words(now));
            self.loses(format!("{name} was written to since the import, which would be lost: {then} then, {now} now"));
        }
        Ok(true)
    }

    /// The step that puts it back.
    fn step(&mut self, kept: &Kept, source: Option<Uuid>, standing: &Standing) -> Option<Step> {
        let (name, options) = (kept.namespace.clone(), kept.options.clone());
        let replaced = |uuid| Staged { place: kept.place.clone(), to: name.clone(), uuid, replaces: true, keep: None };
        let step = match (kept.kind.as_str(), source) {
            ("collection", Some(uuid)) => Step::Swap(replaced(uuid)),
            ("timeseries", Some(uuid)) => Step::Series { staged: replaced(uuid), options },
            ("view", _) => Step::View { to: name.clone(), options, replaces: true, keep: None },
            _ => {
                let there = standing.get(&name.collection)?;
                let is_made = if kept.new.is_some() { standing.identity(there) == kept.new } else { there.kind == "view" };
                return is_made.then(|| {
                    self.report.removed.push(name.to_string());
                    Step::Drop { namespace: name, uuid: kept.new, keep: None }
                });
            }
        };
        self.report.restored.push(name.to_string());
        Some(step)
    }
}

/// Whether the collection holds what the import published, byte for byte.
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
