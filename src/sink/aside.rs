//! Moves collections that an import replaces and keeps to another name before the new ones are
//! published.

use bson::{RawDocument, rawdoc};
use uuid::Uuid;

use super::ddl::{self, Standing};
use super::step::{Keep, Staged};
use super::{Attempts, Target, kept, series};
use crate::error::Result;
use crate::mongo::catalog::ListedCollection;
use crate::mongo::command;
use crate::names::Namespace;

/// Moves the collection under a name aside, so that the name is free. Returns false if another
/// collection came under the name meanwhile, which a newer listing shows.
pub(super) async fn set_aside(
    target: &Target,
    namespace: &Namespace,
    there: &ListedCollection,
    standing: &Standing,
    keep: &Keep,
    new: Option<Uuid>,
) -> Result<bool> {
    let identity = standing.identity(there);
    let mut place = keep.place.clone();
    if standing.get(&place.collection).is_some() && !kept::is_written_down(target, keep, identity).await? {
        // The kept collection was moved already: this one came under its name just before the new
        // one does. It is kept, too.
        let others = (1..).map(|n| Namespace::new(&*place.database, format!("{}.{n}", keep.place.collection)));
        place = others.into_iter().find(|other| standing.get(&other.collection).is_none()).unwrap_or(place);
    } else {
        let is_half_moved = there.kind == "timeseries" && identity.is_none();
        if !is_half_moved {
            kept::remember(target, namespace, there, identity, keep, new).await?;
        }
    }
    match there.kind.as_str() {
        "view" => ddl::drop(target, namespace).await.map(|()| true),
        "timeseries" => set_series_aside(target, namespace, &place, &there.options, standing).await.map(|()| true),
        _ => rename(target, namespace, &place, there.uuid).await,
    }
}

/// Moves a time series to another name, from any point that an earlier run reached: buckets first,
/// then the view on them.
async fn set_series_aside(
    target: &Target,
    from: &Namespace,
    to: &Namespace,
    options: &RawDocument,
    standing: &Standing,
) -> Result<()> {
    let buckets = standing.get(&from.buckets().collection).or_else(|| standing.get(&to.buckets().collection));
    let Some(uuid) = buckets.and_then(|buckets| buckets.uuid) else { return ddl::drop(target, from).await };
    let moved = Staged { place: from.clone(), to: to.clone(), uuid, replaces: true, keep: None };
    series::publish(target, &moved, options).await.map(|_| ())
}

/// Renames a collection to a free name. Returns false if it is not the one under the name any more.
async fn rename(target: &Target, from: &Namespace, to: &Namespace, uuid: Option<Uuid>) -> Result<bool> {
    let what = format!("keeping {from} as {to}");
    let mut attempts = Attempts::new(target, &what);
    let mut rename =
        rawdoc! { "renameCollection": from.to_string(), "to": to.to_string(), "dropTarget": false, "writeConcern": { "w": 1 } };
    target.name_uuid(&mut rename, uuid);
    loop {
        let tried = target.try_run("admin", rename.clone(), Some(command::COMMAND_LIMIT)).await?;
        if ddl::judge(&mut attempts, tried).await?.is_some() {
            return Ok(true);
        }
        // The listing shows whether it was done.
        let standing = Standing::of(target, &from.database).await?;
        if standing.get(&to.collection).is_some_and(|c| c.uuid == uuid) {
            return Ok(true);
        }
        if standing.get(&from.collection).is_none_or(|c| c.uuid != uuid) {
            return Ok(false);
        }
    }
}
