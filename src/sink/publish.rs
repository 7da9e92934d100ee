//! Publishes what was staged and verified: all of it, or a part with a record from which a next run
//! continues.
//!
//! Readers see the old collection or the new one, never a part of either. The record is written
//! first. From then on every step will be finished, by this run or the next one. Every step can be
//! repeated: finished work is recognized by UUIDs, so a lost reply changes nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bson::{RawDocument, RawDocumentBuf, rawdoc};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::ddl::{self, Standing};
use super::lease::Lease;
use super::merge::{Merging, PassedOver};
use super::step::in_the_way;
pub use super::step::{Keep, Staged, Step};
use super::{Attempts, Target, aside, kept, merge, record, series};
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Writer;
use crate::mongo::command;
use crate::names::{KEPT_PREFIX, Namespace, STAGING_PREFIX};

/// The number of concurrent renames.
const AT_A_TIME: usize = 8;

/// The number of concurrent steps that move documents. Each needs about 50 MiB.
const MOVING_AT_A_TIME: usize = 2;

/// How many rounds of all steps to run until a check finds every one done: a primary that steps
/// down may roll some back.
const ROUNDS: u32 = 10;

/// What crashed imports had begun to publish.
#[derive(Debug, Default)]
pub struct Finished {
    /// The namespaces that were finished.
    pub published: Vec<String>,
    /// Steps that were given up, because the target refuses them permanently.
    pub given_up: Vec<Error>,
}

/// The outcome of publishing.
#[derive(Debug, Default)]
pub struct Published {
    /// Steps that were given up, because the target refuses them permanently.
    pub given_up: Vec<Error>,
    /// The number of documents not added because of an existing one with the same `_id` or a unique
    /// index, for each collection that was added to.
    pub passed_over: BTreeMap<Namespace, u64>,
}

/// Checks that everything to be published is still under its staging name. A run that takes over a
/// lease drops the staging it finds.
///
/// # Errors
/// [`ErrorKind::Refused`] if something is missing; server errors; [`ErrorKind::Interrupted`].
pub async fn ready(target: &Target, steps: &[Step]) -> Result<()> {
    let standing = list(target, steps).await?;
    for staged in steps.iter().filter_map(Step::staged) {
        let found = standing.get(staged.place.database.as_str()).and_then(|s| s.by_uuid(staged.uuid));
        if found.is_none_or(|c| !staged.is_staged_as(&c.name)) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("the staging collection of {} was dropped or renamed", staged.to),
            )
            .hint("another import took over, or something else drops collections in the target: run the import again"));
        }
    }
    Ok(())
}

/// Publishes. Once the steps are recorded, they will be done, by this run or the next. On return,
/// everything is done except the steps that were given up.
///
/// # Errors
/// Server errors, naming the namespace; [`ErrorKind::Interrupted`]. If the lease
/// [is decided](Lease::is_decided), the record exists, and the next import does the rest. (If the
/// target does not answer any more, it is unknown whether the record exists.) Otherwise the target
/// refused the record, and nothing of it is left.
pub async fn publish(target: &Target, lease: &Lease, steps: &[Step]) -> Result<Published> {
    let (home, id) = (lease.home(), lease.id());
    lease.decide(true);
    if let Err(error) = record::write(target, home, id, steps).await {
        let is_refused = matches!(error.kind(), ErrorKind::Server | ErrorKind::Denied | ErrorKind::Refused);
        if is_refused && record::remove(target, home, id).await.is_ok() {
            lease.decide(false);
        }
        return Err(error);
    }
    let mut published = Box::pin(finish(target, home, id, steps)).await?;
    // Steps without staging count as done. In the run that staged it, the collection must be where
    // it was put.
    if published.given_up.is_empty() {
        published.given_up.extend(displaced(target, steps).await?);
    }
    Ok(published)
}

/// Does every step, makes it durable, checks that it is done, and removes the record.
async fn finish(target: &Target, home: &str, id: &str, steps: &[Step]) -> Result<Published> {
    let passed_over = PassedOver::default();
    for _ in 0..ROUNDS {
        let before = target.identity().await?;
        let given_up = Box::pin(forward(target, steps, &passed_over)).await?;
        target.make_durable(home).await?;
        // The same process in the same term: none of the acknowledged writes were rolled back.
        if target.identity().await? == before && all_done(target, steps, &given_up).await? {
            for step in steps {
                if let Step::Forget { record, id } = step {
                    kept::forget(target, &record.database, id).await?;
                }
            }
            record::remove(target, home, id).await?;
            let given_up = given_up.into_iter().map(|(_, error)| error).collect();
            return Ok(Published { given_up, passed_over: passed_over.into_counts() });
        }
    }
    Err(Error::new(
        ErrorKind::Server,
        format!("published collections in {} do not persist: something undoes them", target.connection.uri),
    )
    .hint("look for another program that renames or drops collections there, and run the import again"))
}

/// Finishes crashed imports that had decided to publish, and removes incomplete records of others.
///
/// # Errors
/// As for [`publish`].
pub(super) async fn roll_forward(target: &Target, lease: &Lease) -> Result<Finished> {
    let mut unfinished: BTreeSet<(String, String)> = lease.formers().iter().map(|f| (f.home.clone(), f.id.clone())).collect();
    for database in lease.databases() {
        let ids = record::ids(target, &database).await?;
        unfinished.extend(ids.into_iter().map(|id| (database.clone(), id)));
    }
    let mut done = Finished::default();
    for (home, id) in unfinished.into_iter().filter(|(_, id)| id != lease.id()) {
        match record::read(target, &home, &id).await? {
            Some(steps) => {
                done.given_up.extend(finish(target, &home, &id, &steps).await?.given_up);
                done.published
                    .extend(steps.iter().map(Step::name).filter(|name| !name.is_of_an_import()).map(Namespace::to_string));
            }
            None => record::remove(target, &home, &id).await?,
        }
    }
    Ok(done)
}

/// One error that names everything that was given up; `None` if nothing was.
#[must_use]
pub fn sum_up(given_up: Vec<Error>) -> Option<Error> {
    let words: Vec<String> = given_up.iter().map(ToString::to_string).collect();
    let first = given_up.into_iter().next()?;
    let summed = first.hint_text().into_iter().fold(Error::new(first.kind(), words.join("; ")), Error::hint_too);
    Some(
        summed.hint_too(
            "everything else is imported; collections named here may have a part of the documents that were to be merged",
        ),
    )
}

/// The contents of the databases of these steps.
async fn list<'a>(target: &Target, steps: &'a [Step]) -> Result<BTreeMap<&'a str, Standing>> {
    let mut standing = BTreeMap::new();
    for step in steps {
        if !standing.contains_key(step.database()) {
            standing.insert(step.database(), Standing::of(target, step.database()).await?);
        }
    }
    Ok(standing)
}

/// Does every step. Returns those that were given up, by namespace, and counts skipped documents.
async fn forward(target: &Target, steps: &[Step], passed_over: &PassedOver) -> Result<Vec<(Namespace, Error)>> {
    // What an import keeps is recorded before anything of it is moved.
    for step in steps {
        if let Step::Remember { record, id, backup, at } = step {
            kept::begin(target, &record.database, id, backup, *at).await?;
        }
    }
    let standing = list(target, steps).await?;
    let nothing = Standing::default();
    let work = |step| {
        let standing = standing.get(Step::database(step)).unwrap_or(&nothing);
        async move {
            // Boxed one by one: unoptimized, all of them together need more than a thread's stack.
            let done = match step {
                Step::Swap(staged) => Box::pin(swap(target, staged, standing)).await,
                Step::Series { staged, options } => Box::pin(publish_series(target, staged, options)).await,
                Step::Merge(staged) => Box::pin(merge::publish(target, staged, Merging::Replace)).await,
                Step::Add(staged) => Box::pin(merge::publish(target, staged, Merging::Keep(passed_over))).await,
                Step::Drop { namespace, uuid, keep } => Box::pin(prune(target, namespace, *uuid, keep.as_ref())).await,
                Step::View { .. } | Step::Remember { .. } | Step::Forget { .. } => Ok(()),
            };
            match done {
                Ok(()) => Ok(None),
                Err(e) if step.can_be_given_up_after(&e) => Ok(Some((step.name().clone(), e))),
                Err(e) => Err(e),
            }
        }
    };
    let (moving, others): (Vec<&Step>, Vec<&Step>) =
        steps.iter().partition(|s| matches!(s, Step::Merge(_) | Step::Add(_) | Step::Series { .. }));
    let mut given_up = Vec::new();
    for (steps, at_a_time) in [(others, AT_A_TIME), (moving, MOVING_AT_A_TIME)] {
        let done: Vec<_> = stream::iter(steps.into_iter().map(&work)).buffer_unordered(at_a_time).boxed().try_collect().await?;
        given_up.extend(done.into_iter().flatten());
    }
    let views = steps.iter().filter(|s| matches!(s, Step::View { .. })).collect();
    given_up.extend(Box::pin(create_views(target, views)).await?);
    Ok(given_up)
}

/// Whether everything to be published has left its staging name, except the steps that were given
/// up.
async fn all_done(target: &Target, steps: &[Step], given_up: &[(Namespace, Error)]) -> Result<bool> {
    let standing = list(target, steps).await?;
    Ok(steps.iter().filter(|step| given_up.iter().all(|(name, _)| name != step.name())).all(|step| {
        let found = |staged: &Staged| standing.get(step.database()).and_then(|s| s.by_uuid(staged.uuid));
        step.staged().is_none_or(|staged| found(staged).is_none_or(|c| !staged.is_staged_as(&c.name)))
    }))
}

/// The error for collections that were just published and do not exist.
async fn displaced(target: &Target, steps: &[Step]) -> Result<Option<Error>> {
    let standing = list(target, steps).await?;
    let gone = |step: &&Step| {
        let there = standing.get(step.database()).and_then(|s| s.get(&step.name().collection));
        match step {
            Step::Swap(staged) => there.is_none_or(|c| c.uuid != Some(staged.uuid)),
            Step::Series { .. } | Step::Merge(_) | Step::Add(_) | Step::View { .. } => there.is_none(),
            Step::Drop { .. } | Step::Remember { .. } | Step::Forget { .. } => false,
        }
    };
    let names: Vec<String> = steps.iter().filter(gone).map(|step| step.name().to_string()).collect();
    if names.is_empty() {
        return Ok(None);
    }
    Ok(Some(
        Error::new(
            ErrorKind::Mismatch,
            format!("something else dropped or replaced these right after they were published: {}", names.join(", ")),
        )
        .hint("stop other writers to the target, and run the import again"),
    ))
}

/// Renames a staged collection over the existing one under its final name. `listed` may be some
/// minutes old.
async fn swap(target: &Target, staged: &Staged, listed: &Standing) -> Result<()> {
    let what = format!("publishing {}", staged.to);
    let mut attempts = Attempts::new(target, &what);
    let mut standing = Cow::Borrowed(listed);
    // Whether the existing collection was moved aside since the listing.
    let mut is_free = false;
    loop {
        // No longer under its staging name: it is published, or was and has been replaced since.
        if standing.by_uuid(staged.uuid).is_none_or(|c| c.name != staged.place.collection) {
            return Ok(());
        }
        let there = standing.get(&staged.to.collection).filter(|_| !is_free);
        if let (Some(there), false) = (there, staged.replaces) {
            return Err(in_the_way(&staged.to, &there.kind));
        }
        // Everything but a plain rename is decided by a new listing, not by the old one.
        let is_plain = there.is_none_or(|c| c.kind == "collection" && !staged.to.collection.starts_with("system."));
        if let (false, Cow::Borrowed(_)) = (is_plain, &standing) {
            standing = Cow::Owned(Standing::of(target, &staged.to.database).await?);
            continue;
        }
        match (&staged.keep, there) {
            (Some(keep), Some(there)) => {
                is_free = aside::set_aside(target, &staged.to, there, &standing, keep, Some(staged.uuid)).await?;
                if !is_free {
                    standing = Cow::Owned(Standing::of(target, &staged.to.database).await?);
                }
                continue;
            }
            (Some(keep), None) if !is_free => kept::was_free(target, &staged.to, keep, Some(staged.uuid)).await?,
            _ => {}
        }
        // A rename replaces collections only.
        if there.is_some_and(|c| c.kind != "collection") {
            ddl::drop(target, &staged.to).await?;
        }
        // `system.js` can be renamed but not dropped: the old one is moved away first.
        let leaves = there.filter(|_| staged.to.collection.starts_with("system."));
        let number = staged.place.collection.trim_start_matches(STAGING_PREFIX).trim_start_matches(KEPT_PREFIX);
        let aside = Namespace::new(&*staged.to.database, format!("{STAGING_PREFIX}{number}.old"));
        let (from, to, uuid) = match leaves {
            Some(old) => (&staged.to, &aside, old.uuid),
            None => (&staged.place, &staged.to, Some(staged.uuid)),
        };
        let mut rename = rawdoc! {
            "renameCollection": from.to_string(), "to": to.to_string(), "dropTarget": staged.replaces && staged.keep.is_none(), "writeConcern": { "w": 1 },
        };
        target.name_uuid(&mut rename, uuid);
        let tried = target.try_run("admin", rename, Some(command::COMMAND_LIMIT)).await?;
        let named = |e: Error| e.reworded(&staged.place.to_string(), &staged.to.to_string());
        if ddl::judge(&mut attempts, tried).await.map_err(named)?.is_some() && leaves.is_none() {
            return Ok(());
        }
        // The listing shows whether it was done.
        standing = Cow::Owned(Standing::of(target, &staged.to.database).await?);
        is_free = false;
    }
}

/// Publishes a staged time series. If the existing one is to be kept, it is moved aside before.
async fn publish_series(target: &Target, staged: &Staged, options: &RawDocument) -> Result<()> {
    while let Some(standing) = series::publish(target, staged, options).await? {
        if let (Some(keep), Some(there)) = (&staged.keep, standing.get(&staged.to.collection)) {
            // The next round handles whatever came under the name meanwhile.
            aside::set_aside(target, &staged.to, there, &standing, keep, Some(staged.uuid)).await?;
        }
    }
    Ok(())
}

/// Drops a collection that is unchanged since the plan named it, or keeps it elsewhere.
async fn prune(target: &Target, namespace: &Namespace, uuid: Option<uuid::Uuid>, keep: Option<&Keep>) -> Result<()> {
    let standing = Standing::of(target, &namespace.database).await?;
    match standing.get(&namespace.collection) {
        // A view has no UUID: it is only a definition.
        Some(there) if standing.identity(there) == uuid && (uuid.is_some() || there.kind == "view") => match keep {
            Some(keep) => aside::set_aside(target, namespace, there, &standing, keep, None).await.map(|_| ()),
            None => ddl::drop(target, namespace).await,
        },
        // Its buckets have left already, but the view on them has not.
        Some(there) if there.kind == "timeseries" && standing.identity(there).is_none() => match keep {
            Some(keep) => aside::set_aside(target, namespace, there, &standing, keep, None).await.map(|_| ()),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Creates every view, or changes the existing one. Returns those that the target refuses.
async fn create_views(target: &Target, views: Vec<&Step>) -> Result<Vec<(Namespace, Error)>> {
    let mut left = views;
    // A view may come before the view it is based on. Failed ones are tried again as long as others
    // succeed.
    loop {
        let (before, mut failed) = (left.len(), Vec::new());
        for step in left {
            let Step::View { to, options, replaces, keep } = step else { continue };
            match view(target, to, options, *replaces, keep.as_ref()).await {
                Ok(()) => {}
                Err(e) if step.can_be_given_up_after(&e) => failed.push((step, e)),
                Err(e) => return Err(e),
            }
        }
        if failed.is_empty() || failed.len() == before {
            return Ok(failed.into_iter().map(|(step, e)| (step.name().clone(), e)).collect());
        }
        left = failed.into_iter().map(|(step, _)| step).collect();
    }
}

async fn view(target: &Target, to: &Namespace, options: &RawDocumentBuf, replaces: bool, keep: Option<&Keep>) -> Result<()> {
    let standing = Standing::of(target, &to.database).await?;
    if let Some(there) = standing.get(&to.collection) {
        if there.kind == "view" && there.options == *options {
            return Ok(());
        }
        if !replaces {
            return Err(in_the_way(to, &there.kind));
        }
        match keep {
            Some(keep) if there.kind == "view" => kept::remember(target, to, there, None, keep, None).await?,
            Some(keep) if aside::set_aside(target, to, there, &standing, keep, None).await? => {
                return ddl::create(target, to, options).await;
            }
            Some(_) => return Err(in_the_way(to, &there.kind)),
            None => {}
        }
        // A view can be changed in one step, except for its collation.
        if there.kind == "view" && there.options.get("collation").ok() == options.get("collation").ok() {
            let mut fields = Writer::default();
            fields.extend_without(options.as_bytes(), |name| name == b"collation")?;
            match ddl::modify(target, &format!("changing the view {to}"), to, fields).await {
                // This needs a right of its own; without it, the old view is dropped first.
                Err(e) if e.kind() == ErrorKind::Denied => {}
                done => return done,
            }
        }
        ddl::drop(target, to).await?;
    } else if let Some(keep) = keep {
        kept::was_free(target, to, keep, None).await?;
    }
    ddl::create(target, to, options).await
}
