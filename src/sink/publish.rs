//! Publishing: what was staged and proven takes its place, all of it or, until a next run, a part that is recorded.
//!
//! Readers see the old collection or the new one, never a part of either. The record ([`super::record`]) is written first; from then on every step is
//! brought to its end, by this run or by the next one that comes, and each can be repeated: what was done is recognised by UUIDs, so that
//! a reply that was lost changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use bson::{RawDocumentBuf, rawdoc};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::ddl::{self, Standing};
use super::lease::Former;
pub use super::record::{Staged, Step};
use super::{Attempts, Problem, Target, merge, record, series, write_concern_error};
use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Writer;
use crate::mongo::command;
use crate::mongo::failure::{code, code_of};
use crate::names::Namespace;

/// Steps at a time.
const AT_A_TIME: usize = 8;

/// How often all steps are gone through until a look afterwards finds every one done: a primary that steps down may take some back.
const ROUNDS: u32 = 10;

/// Decides on these steps: when this returns, they will be done, by this run or the next.
///
/// # Errors
/// The server's; [`ErrorKind::Interrupted`]. Whether they are decided is unknown then only where the target does not answer any more.
pub async fn decide(target: &Target, home: &str, id: &str, steps: &[Step]) -> Result<()> {
    record::write(target, home, id, steps).await
}

/// Does every step, makes it durable, looks that it is done, and removes the record.
///
/// # Errors
/// The server's, naming the namespace; the record stands then, and whatever is left is done by the next import that comes.
pub async fn finish(target: &Target, home: &str, id: &str, steps: &[Step]) -> Result<()> {
    for _ in 0..ROUNDS {
        forward(target, steps).await?;
        target.make_durable(home).await?;
        if all_done(target, steps).await? {
            return record::remove(target, home, id).await;
        }
    }
    Err(Error::new(
        ErrorKind::Server,
        format!("what was published in {} does not stay: something undoes it", target.connection.uri),
    )
    .hint("look for another program that renames or drops collections there, and run the import again"))
}

/// Brings to their ends the imports that died after they had decided, and removes what others left of records. Gives what was published so.
///
/// # Errors
/// As for [`finish`].
pub async fn roll_forward(target: &Target, databases: &BTreeSet<String>, formers: &[Former], own: &str) -> Result<Vec<String>> {
    let mut unfinished: BTreeSet<(String, String)> = formers.iter().map(|f| (f.home.clone(), f.id.clone())).collect();
    for database in databases {
        let ids = record::ids(target, database).await?;
        unfinished.extend(ids.into_iter().map(|id| (database.clone(), id)));
    }
    let mut published = Vec::new();
    for (home, id) in unfinished.into_iter().filter(|(_, id)| id != own) {
        match record::read(target, &home, &id).await? {
            Some(steps) => {
                finish(target, &home, &id, &steps).await?;
                published.extend(steps.iter().map(|step| step.name().to_string()));
            }
            None => record::remove(target, &home, &id).await?,
        }
    }
    Ok(published)
}

impl Step {
    /// What it puts in place, or drops.
    #[must_use]
    pub fn name(&self) -> &Namespace {
        match self {
            Self::Swap(staged) | Self::Series { staged, .. } | Self::Merge(staged) => &staged.to,
            Self::View { to, .. } => to,
            Self::Drop { namespace, .. } => namespace,
        }
    }
}

async fn forward(target: &Target, steps: &[Step]) -> Result<()> {
    let mut standing: BTreeMap<&str, Standing> = BTreeMap::new();
    for step in steps {
        if !standing.contains_key(step.database()) {
            standing.insert(step.database(), Standing::of(target, step.database()).await?);
        }
    }
    let (views, others): (Vec<&Step>, Vec<&Step>) = steps.iter().partition(|s| matches!(s, Step::View { .. }));
    let nothing = Standing::default();
    let work = others.into_iter().map(|step| {
        let standing = standing.get(step.database()).unwrap_or(&nothing);
        async move {
            match step {
                Step::Swap(staged) => swap(target, staged, standing.clone()).await,
                Step::Series { staged, options } => series::publish(target, staged, options, standing.clone()).await,
                Step::Merge(staged) => merge_into(target, staged, standing).await,
                Step::Drop { namespace, uuid } => prune(target, namespace, *uuid, standing).await,
                Step::View { .. } => Ok(()),
            }
        }
    });
    stream::iter(work).buffer_unordered(AT_A_TIME).try_collect::<()>().await?;
    create_views(target, views).await
}

/// Whether every staged collection is under its final name, by identity, or gone because it was replaced since.
async fn all_done(target: &Target, steps: &[Step]) -> Result<bool> {
    let mut standing: BTreeMap<&str, Standing> = BTreeMap::new();
    for step in steps {
        let (Step::Swap(staged) | Step::Series { staged, .. } | Step::Merge(staged)) = step else {
            continue;
        };
        if !standing.contains_key(step.database()) {
            standing.insert(step.database(), Standing::of(target, step.database()).await?);
        }
        let place = [staged.place.collection.clone(), staged.place.buckets().collection];
        if standing.get(step.database()).and_then(|s| s.by_uuid(staged.uuid)).is_some_and(|c| place.contains(&c.name)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Renames a staged collection over what stands under its final name.
async fn swap(target: &Target, staged: &Staged, mut standing: Standing) -> Result<()> {
    let what = format!("publishing {}", staged.to);
    let mut attempts = Attempts::new(target, &what);
    loop {
        // Not under its staging name any more: it is published, or was and is replaced since.
        if standing.by_uuid(staged.uuid).is_none_or(|c| c.name != staged.place.collection) {
            return Ok(());
        }
        // A rename goes over collections only.
        if standing.get(&staged.to.collection).is_some_and(|c| c.kind != "collection") {
            ddl::drop(target, &staged.to).await?;
        }
        // `system.js` may be renamed and not dropped: the old one leaves first.
        let leaves = standing.get(&staged.to.collection).is_some() && staged.to.collection.starts_with("system.");
        let (from, to) = match leaves {
            true => (&staged.to, &Namespace::new(&*staged.to.database, format!("{}.old", staged.place.collection))),
            false => (&staged.place, &staged.to),
        };
        let rename = rawdoc! {
            "renameCollection": from.to_string(), "to": to.to_string(), "dropTarget": true, "writeConcern": { "w": 1 },
        };
        match target.try_run("admin", rename, Some(command::COMMAND_LIMIT)).await? {
            Ok(reply) => match write_concern_error(&reply) {
                None if leaves => {}
                None => return Ok(()),
                Some(problem) => attempts.again_after(problem).await?,
            },
            Err(e) if is_in_between(code_of(&e)) => attempts.again_after(in_between(&e)).await?,
            Err(e) => attempts.again(e).await?,
        }
        // Whether it was done is told by what stands there.
        standing = Standing::of(target, &staged.to.database).await?;
    }
}

/// Whether something came in between that may be gone, or be settled, the next time.
pub(super) fn is_in_between(code: Option<i32>) -> bool {
    matches!(
        code,
        Some(
            code::NAMESPACE_NOT_FOUND
                | code::NAMESPACE_EXISTS
                | code::COMMAND_NOT_SUPPORTED_ON_VIEW
                | code::BACKGROUND_OPERATION_IN_PROGRESS
                | code::CONFLICTING_OPERATION_IN_PROGRESS
        )
    )
}

pub(super) fn in_between(error: &mongodb::error::Error) -> Problem {
    Problem { index: 0, code: code::HOST_UNREACHABLE, message: error.to_string() }
}

async fn merge_into(target: &Target, staged: &Staged, standing: &Standing) -> Result<()> {
    if standing.by_uuid(staged.uuid).is_none() {
        return Ok(());
    }
    let has_rules = standing.get(&staged.to.collection).is_some_and(|c| c.options.get("validator").is_ok_and(|v| v.is_some()));
    merge::documents(target, &staged.place, &staged.to, has_rules).await?;
    super::copy::indexes(target, &staged.place, &staged.to).await?;
    ddl::drop(target, &staged.place).await
}

async fn prune(target: &Target, namespace: &Namespace, uuid: Option<uuid::Uuid>, standing: &Standing) -> Result<()> {
    match standing.get(&namespace.collection) {
        Some(there) if there.uuid == uuid => ddl::drop(target, namespace).await,
        _ => Ok(()),
    }
}

/// Creates every view, or changes what stands there into it.
async fn create_views(target: &Target, views: Vec<&Step>) -> Result<()> {
    let mut left = views;
    // A view may be asked for before the one that it is on. Those that fail are tried again as long as others succeed.
    loop {
        let (mut failed, mut first_error) = (Vec::new(), None);
        let before = left.len();
        for step in left {
            let Step::View { to, options } = step else { continue };
            match view(target, to, options).await {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
                Err(e) => {
                    first_error.get_or_insert(e);
                    failed.push(step);
                }
            }
        }
        match first_error {
            None => return Ok(()),
            Some(e) if failed.len() == before => return Err(e),
            Some(_) => left = failed,
        }
    }
}

async fn view(target: &Target, to: &Namespace, options: &RawDocumentBuf) -> Result<()> {
    let standing = Standing::of(target, &to.database).await?;
    if let Some(there) = standing.get(&to.collection) {
        if there.kind == "view" && there.options == *options {
            return Ok(());
        }
        // A view can be changed in one step, but for its collation.
        if there.kind == "view" && there.options.get("collation").ok() == options.get("collation").ok() {
            let mut fields = Writer::default();
            for element in crate::format::document::Elements::of(options.as_bytes())?.flatten() {
                if element.name != b"collation" {
                    fields.element(element.kind, element.name, element.value);
                }
            }
            match ddl::modify(target, &format!("changing the view {to}"), to, fields).await {
                // A right of its own; without it, the old one goes first.
                Err(e) if e.kind() == ErrorKind::Denied => {}
                done => return done,
            }
        }
        ddl::drop(target, to).await?;
    }
    ddl::create(target, to, options).await
}
