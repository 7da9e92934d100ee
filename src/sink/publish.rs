//! Publishing: what was staged and proven takes its place, all of it or, until a next run, a part that is recorded.
//!
//! Readers see the old collection or the new one, never a part of either. The record is written first; from then on every step is
//! brought to its end, by this run or by the next one that comes, and each can be repeated: what was done is recognised by UUIDs, so that
//! a reply that was lost changes nothing.

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

/// Renames at a time.
const AT_A_TIME: usize = 8;

/// Steps at a time that move documents, each of which takes some 50 MiB.
const MOVING_AT_A_TIME: usize = 2;

/// How often all steps are gone through until a look afterwards finds every one done: a primary that steps down may take some back.
const ROUNDS: u32 = 10;

/// What dead imports had begun to publish.
#[derive(Debug, Default)]
pub struct Finished {
    /// The namespaces of what was brought to its end.
    pub published: Vec<String>,
    /// What of it was given up, because the target refuses it for good.
    pub given_up: Vec<Error>,
}

/// What publishing came to.
#[derive(Debug, Default)]
pub struct Published {
    /// What was given up, because the target refuses it for good.
    pub given_up: Vec<Error>,
    /// Documents that were to be added where others stand under their `_id`s or in the way of a unique index, by each
    /// collection that was added to.
    pub passed_over: BTreeMap<Namespace, u64>,
}

/// Looks that everything that is about to be published is still under its staging name: whoever takes over a lease drops what it finds staged.
///
/// # Errors
/// [`ErrorKind::Refused`] where something is gone; the server's; [`ErrorKind::Interrupted`].
pub async fn ready(target: &Target, steps: &[Step]) -> Result<()> {
    let standing = list(target, steps).await?;
    for staged in steps.iter().filter_map(Step::staged) {
        let found = standing.get(staged.place.database.as_str()).and_then(|s| s.by_uuid(staged.uuid));
        if found.is_none_or(|c| !staged.is_staged_as(&c.name)) {
            return Err(Error::new(ErrorKind::Refused, format!("the staging collection of {} is gone", staged.to))
                .hint("another import took over, or something else drops collections in the target: run the import again"));
        }
    }
    Ok(())
}

/// Publishes: once the steps are recorded, they will be done, by this run or the next. Everything but what was given up is done then.
///
/// # Errors
/// The server's, naming the namespace; [`ErrorKind::Interrupted`]. If the lease [is decided](Lease::is_decided), the record stands (whether it does is unknown
/// only where the target does not answer any more), and whatever is left is done by the next import that comes. Else the target refused the record, and nothing
/// of it is left.
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
    // Steps whose staging is gone count as done. In the run that staged it, it has to be where it was put.
    if published.given_up.is_empty() {
        published.given_up.extend(displaced(target, steps).await?);
    }
    Ok(published)
}

/// Does every step, makes it durable, looks that it is done, and removes the record.
async fn finish(target: &Target, home: &str, id: &str, steps: &[Step]) -> Result<Published> {
    let passed_over = PassedOver::default();
    for _ in 0..ROUNDS {
        let before = target.identity().await?;
        let given_up = Box::pin(forward(target, steps, &passed_over)).await?;
        target.make_durable(home).await?;
        // One process, in one term: nothing of what it acknowledged in between was taken back.
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
        format!("what was published in {} does not stay: something undoes it", target.connection.uri),
    )
    .hint("look for another program that renames or drops collections there, and run the import again"))
}

/// Brings to their ends the imports that died after they had decided, and removes what others left of records.
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

/// One error that names everything that was given up; none where nothing was.
#[must_use]
pub fn sum_up(given_up: Vec<Error>) -> Option<Error> {
    let words: Vec<String> = given_up.iter().map(ToString::to_string).collect();
    let first = given_up.into_iter().next()?;
    let summed = first.hint_text().into_iter().fold(Error::new(first.kind(), words.join("; ")), Error::hint_too);
    Some(summed.hint_too("everything else is imported; of what was merged into a collection that is named here, a part may be"))
}

/// What stands in the databases of these steps.
async fn list<'a>(target: &Target, steps: &'a [Step]) -> Result<BTreeMap<&'a str, Standing>> {
    let mut standing = BTreeMap::new();
    for step in steps {
        if !standing.contains_key(step.database()) {
            standing.insert(step.database(), Standing::of(target, step.database()).await?);
        }
    }
    Ok(standing)
}

/// Does every step. Gives those that were given up, by their namespaces, and counts documents that were passed over.
async fn forward(target: &Target, steps: &[Step], passed_over: &PassedOver) -> Result<Vec<(Namespace, Error)>> {
    // What an import keeps is written down before anything of it is moved.
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
            // Each apart: together they are more than a thread's stack takes without optimization.
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

/// Whether nothing that was to be published is under its staging name any more, but for what was given up.
async fn all_done(target: &Target, steps: &[Step], given_up: &[(Namespace, Error)]) -> Result<bool> {
    let standing = list(target, steps).await?;
    Ok(steps.iter().filter(|step| given_up.iter().all(|(name, _)| name != step.name())).all(|step| {
        let found = |staged: &Staged| standing.get(step.database()).and_then(|s| s.by_uuid(staged.uuid));
        step.staged().is_none_or(|staged| found(staged).is_none_or(|c| !staged.is_staged_as(&c.name)))
    }))
}

/// What was published a moment ago and is not there.
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
            format!("published, and dropped or replaced at once by something else: {}", names.join(", ")),
        )
        .hint("stop what else writes to the target, and run the import again"),
    ))
}

/// Renames a staged collection over what stands under its final name. `listed` may be some minutes old.
async fn swap(target: &Target, staged: &Staged, listed: &Standing) -> Result<()> {
    let what = format!("publishing {}", staged.to);
    let mut attempts = Attempts::new(target, &what);
    let mut standing = Cow::Borrowed(listed);
    // What stood there was moved aside since the listing.
    let mut is_free = false;
    loop {
        // Not under its staging name any more: it is published, or was and is replaced since.
        if standing.by_uuid(staged.uuid).is_none_or(|c| c.name != staged.place.collection) {
            return Ok(());
        }
        let there = standing.get(&staged.to.collection).filter(|_| !is_free);
        if let (Some(there), false) = (there, staged.replaces) {
            return Err(in_the_way(&staged.to, &there.kind));
        }
        // Anything but a plain rename is done by what stands there now, and not by what stood there.
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
        // A rename goes over collections only.
        if there.is_some_and(|c| c.kind != "collection") {
            ddl::drop(target, &staged.to).await?;
        }
        // `system.js` may be renamed and not dropped: the old one leaves first.
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
        // Whether it was done is told by what stands there.
        standing = Cow::Owned(Standing::of(target, &staged.to.database).await?);
        is_free = false;
    }
}

/// Brings a staged time series to its place. What stands there is moved aside before that, where it is to be kept.
async fn publish_series(target: &Target, staged: &Staged, options: &RawDocument) -> Result<()> {
    while let Some(standing) = series::publish(target, staged, options).await? {
        if let (Some(keep), Some(there)) = (&staged.keep, standing.get(&staged.to.collection)) {
            // What came under the name meanwhile is met by the next look.
            aside::set_aside(target, &staged.to, there, &standing, keep, Some(staged.uuid)).await?;
        }
    }
    Ok(())
}

/// Drops what is still what it was when the plan named it, or keeps it elsewhere.
async fn prune(target: &Target, namespace: &Namespace, uuid: Option<uuid::Uuid>, keep: Option<&Keep>) -> Result<()> {
    let standing = Standing::of(target, &namespace.database).await?;
    match standing.get(&namespace.collection) {
        // A view has no identity, and is no more than its definition.
        Some(there) if standing.identity(there) == uuid && (uuid.is_some() || there.kind == "view") => match keep {
            Some(keep) => aside::set_aside(target, namespace, there, &standing, keep, None).await.map(|_| ()),
            None => ddl::drop(target, namespace).await,
        },
        // Its buckets have left already, and it has not.
        Some(there) if there.kind == "timeseries" && standing.identity(there).is_none() => match keep {
            Some(keep) => aside::set_aside(target, namespace, there, &standing, keep, None).await.map(|_| ()),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Creates every view, or changes what stands there into it. Gives those that the target refuses.
async fn create_views(target: &Target, views: Vec<&Step>) -> Result<Vec<(Namespace, Error)>> {
    let mut left = views;
    // A view may be asked for before the one that it is on. Those that fail are tried again as long as others succeed.
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
        // A view can be changed in one step, but for its collation.
        if there.kind == "view" && there.options.get("collation").ok() == options.get("collation").ok() {
            let mut fields = Writer::default();
            fields.extend_without(options.as_bytes(), |name| name == b"collation")?;
            match ddl::modify(target, &format!("changing the view {to}"), to, fields).await {
                // A right of its own; without it, the old one goes first.
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
