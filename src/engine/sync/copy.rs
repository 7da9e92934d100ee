//! The first copy of a source: a backup and what the archive has of the time after it, imported as
//! one moment.

use std::time::Duration;

use tokio::time::Instant;

use super::options::SyncOptions;
use crate::context::Context;
use crate::engine::import::{self, ImportMode, ImportOptions, PointInTime};
use crate::engine::moment::Moment;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::OplogPosition;
use crate::mongo::MongoUri;
use crate::oplog::chain::spans::Spans;
use crate::repository::Repository;
use crate::repository::chain::ChainPlace;
use crate::sink::Target;
use crate::sink::evolve;
use crate::sink::synced::{Held, Synced, SyncedCollection, SyncedState};

/// The pause between two looks for a base.
const PAUSE: Duration = Duration::from_millis(500);

/// How long to wait for the archive to hold anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the first copy, and records what it is of. If it is made `again`, what an earlier attempt
/// left under the names is replaced.
///
/// # Errors
/// Those of an import; [`ErrorKind::NotFound`] if there is no base and none is being taken.
pub(super) async fn make(
    place: &ChainPlace,
    repository: &Repository,
    (source, uri): (&MongoUri, &MongoUri),
    (target, held, begun, again): (&Target, &Held, &Synced, bool),
    options: &SyncOptions,
    cx: &Context,
) -> Result<Synced> {
    SyncedCollection::forget_all(target).await?;
    let (point, at) = point(place, repository, options, cx).await?;
    let import_options = ImportOptions {
        filter: options.filter.clone(),
        renames: options.renames.clone(),
        mode: if again { ImportMode::Replace } else { options.mode },
        tuning: options.tuning,
        ..ImportOptions::default()
    };
    let plan = Box::pin(import::plan(&point, uri, Some(source), &import_options, cx)).await;
    let plan = plan.map_err(|e| match (e.kind(), import_options.mode) {
        (ErrorKind::Refused, ImportMode::Fail) => {
            e.hint("follow under other names ([[rename]]), leave them out ([[exclude]]), or choose [[mode]] replace")
        }
        _ => e,
    })?;
    let (copied, open_from) = (plan.copied(), plan.open_from());
    // From here on, what is under the names is this copy's.
    held.set_all(&Synced { at, ..begun.clone() }).await?;
    Box::pin(import::execute(plan, &import_options, cx)).await?;
    let mut collections = Vec::with_capacity(copied.len());
    for (source, to) in copied {
        let uuid = evolve::identity(target, &to, source.kind).await?;
        let source = crate::format::manifest::Collection { segments: Vec::new(), ..source };
        collections.push(SyncedCollection { source, to, uuid });
    }
    SyncedCollection::record(target, &collections, &[]).await?;
    let synced = Synced { state: SyncedState::Following, at, open_from, to: None, within: None, reason: None, ..begun.clone() };
    held.set_all(&synced).await?;
    Ok(synced)
}

/// The newest time that can be restored, once there is one.
async fn point(
    place: &ChainPlace,
    repository: &Repository,
    options: &SyncOptions,
    cx: &Context,
) -> Result<(PointInTime, OplogPosition)> {
    let begun = Instant::now();
    loop {
        let found = cx.unless_cancelled(Spans::of(place, &cx.cpu)).await?;
        if let Some((_, at)) = found.as_ref().and_then(Spans::tip) {
            match PointInTime::open(repository, options.from.as_deref(), Moment::At(at.time), cx).await {
                Ok(point) => return Ok((point, at)),
                // The archive takes one by itself, if it may.
                Err(e) if e.kind() == ErrorKind::NotFound && options.from.is_none() && options.archive.bases.is_some() => {
                    tracing::debug!("waiting for a base backup: {e}");
                }
                Err(e) => return Err(e),
            }
        } else if begun.elapsed() > PATIENCE {
            return Err(Error::new(ErrorKind::NotFound, "the archive of the source's oplog still holds nothing")
                .hint("`bsonvault archive` says why, if it runs apart"));
        }
        cx.cancel.run_until_cancelled(tokio::time::sleep(PAUSE)).await.ok_or_else(Error::interrupted)?;
    }
}
