//! The first copy of a source: straight into the target, or from a backup. What the archive has of
//! the time after it is replayed, and everything is published as one moment.

mod direct;
mod from_backup;
mod read;

use std::time::Duration;

use tokio::time::Instant;

use self::direct::Direct;
use super::Session;
use crate::engine::import::{self, DocumentSource, ImportMode, ImportOptions, Plan};
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{Collection, OplogPosition};
use crate::names::Namespace;
use crate::oplog::chain::spans::Spans;
use crate::repository::chain::ChainPlace;
use crate::sink::first_copy::FirstCopy;
use crate::sink::synced::{Held, Synced, SyncedCollection, SyncedState};
use crate::sink::{evolve, staging};

/// The pause between two looks at the archive.
const PAUSE: Duration = Duration::from_millis(300);

/// How long to wait for the archive to hold anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a copy is made with.
pub(super) struct Copier<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) place: &'a ChainPlace,
    pub(super) held: &'a Held,
    /// What the target says of the copy.
    pub(super) synced: &'a Synced,
}

impl Copier<'_> {
    /// Makes the first copy, or finishes one that was begun, and records what it is of.
    ///
    /// # Errors
    /// Those of an import; [`ErrorKind::NotFound`] if there is no base and none is being taken.
    pub(super) async fn make(&self) -> Result<Synced> {
        let target = &self.session.target;
        let begun = self.session.begun();
        let is_own = self.synced.replica_set_id == begun.replica_set_id && self.synced.selection == begun.selection;
        let (recorded, other) = match FirstCopy::read(target).await? {
            Some(copy) if is_own && self.session.options.is_direct() => (Some(copy), None),
            other => (None, other),
        };
        if let Some(other) = other {
            staging::sweep_copies(target, &other.databases()).await?;
            FirstCopy::forget(target).await?;
        }
        if !is_own {
            self.held.set_all(&begun).await?;
        }
        if recorded.is_none()
            && let Some(point) = Box::pin(self.backup()).await?
        {
            return Box::pin(self.from_backup(point)).await;
        }
        let direct = Box::pin(Direct::open(self)).await?;
        let made = Box::pin(direct.make(recorded)).await;
        direct.close().await;
        made
    }

    /// Whether what is under the final names is this copy's.
    fn is_publishing(&self) -> bool {
        let Synced { replica_set_id, selection, at, .. } = self.synced;
        *replica_set_id == self.session.identity.id && *selection == self.session.options.selection() && at.time.t > 0
    }

    /// Plans to bring a copy to its time.
    async fn plan<'s>(&self, origin: &'s dyn DocumentSource) -> Result<(Plan<'s>, ImportOptions)> {
        let Session { options, uri, source, cx, .. } = self.session;
        let import_options = ImportOptions {
            filter: options.filter.clone(),
            renames: options.renames.clone(),
            mode: if self.is_publishing() { ImportMode::Replace } else { options.mode },
            tuning: options.tuning,
            is_first_copy: true,
            ..ImportOptions::default()
        };
        let plan = Box::pin(import::plan(origin, uri, Some(source), &import_options, cx)).await;
        let plan = plan.map_err(|e| match (e.kind(), import_options.mode) {
            (ErrorKind::Refused, ImportMode::Fail) => {
                e.hint("follow under other names ([[rename]]), leave them out ([[exclude]]), or choose [[mode]] replace")
            }
            _ => e,
        })?;
        Ok((plan, import_options))
    }

    /// Brings a copy to its time, publishes it, and records what it is of.
    async fn publish(&self, plan: Plan<'_>, options: &ImportOptions, at: OplogPosition) -> Result<Synced> {
        let (copied, open_from) = (plan.copied(), plan.open_from());
        // What was published is known by this if the process ends before it is recorded.
        let collections: Vec<SyncedCollection> = copied
            .into_iter()
            .map(|(source, to)| SyncedCollection { source: without_segments(source), to, uuid: None })
            .collect();
        SyncedCollection::forget_all(&self.session.target).await?;
        SyncedCollection::record(&self.session.target, &collections, &[]).await?;
        // From here on, what is under the names is this copy's.
        let begun = Synced { at, open_from, ..self.session.begun() };
        self.held.set_all(&begun).await?;
        Box::pin(import::execute(plan, options, self.session.cx)).await?;
        self.record(collections, begun).await
    }

    /// Records what was published.
    async fn record(&self, mut collections: Vec<SyncedCollection>, begun: Synced) -> Result<Synced> {
        let target = &self.session.target;
        for one in &mut collections {
            one.uuid = evolve::identity(target, &one.to, one.source.kind).await?;
        }
        SyncedCollection::record(target, &collections, &[]).await?;
        let synced = Synced { state: SyncedState::Following, ..begun };
        self.held.set_all(&synced).await?;
        FirstCopy::forget(target).await?;
        Ok(synced)
    }

    /// The newest entry of the archive, once there is one.
    async fn tip(&self) -> Result<(Spans, OplogPosition)> {
        let cx = self.session.cx;
        let begun = Instant::now();
        loop {
            let found = cx.unless_cancelled(Spans::of(self.place, &cx.cpu)).await?;
            if let Some(found) = found
                && let Some((_, at)) = found.tip()
            {
                return Ok((found, at));
            }
            if begun.elapsed() > PATIENCE {
                return Err(Error::new(ErrorKind::NotFound, "the archive of the source's oplog still holds nothing")
                    .hint("`bsonvault archive` says why, if it runs apart"));
            }
            self.pause().await?;
        }
    }

    async fn pause(&self) -> Result<()> {
        let pause = tokio::time::sleep(PAUSE);
        self.session.cx.cancel.run_until_cancelled(pause).await.ok_or_else(Error::interrupted)
    }

    /// The name of a namespace in the target.
    fn name(&self, namespace: &Namespace) -> Result<Namespace> {
        self.session.options.name(namespace)
    }
}

fn without_segments(collection: Collection) -> Collection {
    Collection { segments: Vec::new(), ..collection }
}
