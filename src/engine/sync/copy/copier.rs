//! What both ways of a first copy have in common: the archive, the plan, and what is recorded once
//! it is published.

use std::time::Duration;

use tokio::time::Instant;

use crate::context::Context;
use crate::engine::import::{self, DocumentSource, ImportMode, ImportOptions, Plan};
use crate::engine::sync::options::SyncOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{Collection, OplogPosition};
use crate::mongo::{MongoUri, Version};
use crate::names::Namespace;
use crate::oplog::chain::spans::Spans;
use crate::repository::Repository;
use crate::repository::chain::ChainPlace;
use crate::sink::first_copy::FirstCopy;
use crate::sink::synced::{Held, Synced, SyncedCollection, SyncedState};
use crate::sink::{Target, evolve};

/// The pause between two looks at the archive.
const PAUSE: Duration = Duration::from_millis(300);

/// How long to wait for the archive to hold anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What a copy is made with.
pub(in crate::engine::sync) struct Copier<'a> {
    pub(in crate::engine::sync) source: &'a MongoUri,
    pub(in crate::engine::sync) uri: &'a MongoUri,
    pub(in crate::engine::sync) target: &'a Target,
    pub(in crate::engine::sync) version: Version,
    pub(in crate::engine::sync) repository: &'a Repository,
    pub(in crate::engine::sync) options: &'a SyncOptions,
    pub(in crate::engine::sync) cx: &'a Context,
    /// The archive of the source.
    pub(in crate::engine::sync) place: &'a ChainPlace,
    pub(in crate::engine::sync) held: &'a Held,
    /// What the target says of the copy.
    pub(in crate::engine::sync) synced: &'a Synced,
    /// What it says of one of which nothing is published.
    pub(in crate::engine::sync) begun: Synced,
}

impl Copier<'_> {
    /// Whether what is under the final names is this copy's.
    pub(super) fn is_publishing(&self) -> bool {
        self.is_own() && self.synced.at.time.t > 0
    }

    /// Whether the target says that it gets this copy, and not another one.
    pub(super) fn is_own(&self) -> bool {
        self.synced.replica_set_id == self.begun.replica_set_id && self.synced.selection == self.begun.selection
    }

    /// Plans to bring a copy to its time.
    pub(super) async fn plan<'s>(&self, origin: &'s dyn DocumentSource) -> Result<(Plan<'s>, ImportOptions)> {
        let Self { options, uri, source, cx, .. } = self;
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
    pub(super) async fn publish(&self, plan: Plan<'_>, options: &ImportOptions, at: OplogPosition) -> Result<Synced> {
        let (copied, open_from) = (plan.copied(), plan.open_from());
        // What was published is known by this if the process ends before it is recorded.
        let collections: Vec<SyncedCollection> = copied
            .into_iter()
            .map(|(source, to)| SyncedCollection { source: without_segments(source), to, uuid: None })
            .collect();
        SyncedCollection::forget_all(self.target).await?;
        SyncedCollection::record(self.target, &collections, &[]).await?;
        // From here on, what is under the names is this copy's.
        let begun = Synced { at, open_from, ..self.begun.clone() };
        self.held.set_all(&begun).await?;
        Box::pin(import::execute(plan, options, self.cx)).await?;
        self.record(collections, begun).await
    }

    /// Records what was published.
    pub(super) async fn record(&self, mut collections: Vec<SyncedCollection>, begun: Synced) -> Result<Synced> {
        let target = self.target;
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
    pub(super) async fn tip(&self) -> Result<(Spans, OplogPosition)> {
        let cx = self.cx;
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

    pub(super) async fn pause(&self) -> Result<()> {
        let pause = tokio::time::sleep(PAUSE);
        self.cx.cancel.run_until_cancelled(pause).await.ok_or_else(Error::interrupted)
    }

    /// The name of a namespace in the target.
    pub(super) fn name(&self, namespace: &Namespace) -> Result<Namespace> {
        self.options.name(namespace)
    }
}

fn without_segments(collection: Collection) -> Collection {
    Collection { segments: Vec::new(), ..collection }
}
