//! The state of a sync while it runs.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::format::manifest::ClusterTime;

/// What a sync does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SyncState {
    /// It looks at the source, the target and the archive.
    #[default]
    Starting,
    /// It makes the first copy.
    Copying,
    /// It follows the source.
    Following,
    /// It waits for the target, the archive or the source.
    Waiting,
    /// It is paused on request.
    Paused,
    /// Something came that it cannot apply.
    Held,
    /// The target was finalized: it follows nothing any more.
    Final,
    /// It does not run.
    Stopped,
}

/// The state of a sync.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SyncStatus {
    /// What it does.
    pub state: SyncState,
    /// Why it waits, or is held.
    pub problem: Option<String>,
    /// Everything up to this entry of the source is in the target.
    pub at: Option<ClusterTime>,
    /// The newest entry of the archive that is known.
    pub archived: Option<ClusterTime>,
    /// Whether the target shows one moment of the source.
    pub moment: bool,
    /// Operations that were applied since it began to run.
    pub operations: u64,
    /// Batches that were written since it began to run.
    pub batches: u64,
    /// Changes of collections, views and indexes that were made since it began to run.
    pub ddl: u64,
    /// How many indexes the target still lacks.
    pub debts: u64,
    /// Why one of them could not be built.
    pub debt_problem: Option<String>,
    /// What was proven of the target.
    pub proof: ProofStatus,
    /// When it last wrote to the target.
    pub written: Option<DateTime<Utc>>,
    /// The source's replica set: its ID and its name.
    pub source: Option<(String, String)>,
    /// How long the batches took.
    pub batch_time: Duration,
    /// How much of the source's oplog is behind the archived position, if it archives that itself.
    pub headroom: Option<f64>,
    /// How many seconds of the source's time were not durable then, if it archives them itself.
    pub archive_lag_seconds: Option<u32>,
}

/// What was proven of a target since its sync began to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProofStatus {
    /// Whether it is being proven.
    pub running: bool,
    /// When the last proof ended.
    pub ended: Option<DateTime<Utc>>,
    /// Whether everything was the same then.
    pub same: bool,
    /// How many differences there were.
    pub differences: u64,
    /// Why it could not be proven.
    pub problem: Option<String>,
}

impl SyncStatus {
    /// How many seconds of the source the target is behind the archive.
    #[must_use]
    pub fn lag_seconds(&self) -> Option<u32> {
        Some(self.archived?.t.saturating_sub(self.at?.t))
    }
}

/// Changes the state of a sync, for those who watch it.
#[derive(Debug, Clone)]
pub struct StatusSender(watch::Sender<SyncStatus>);

impl StatusSender {
    /// A new one, and a way to watch it.
    #[must_use]
    pub fn new() -> (Self, watch::Receiver<SyncStatus>) {
        let (sender, receiver) = watch::channel(SyncStatus::default());
        (Self(sender), receiver)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut SyncStatus)) {
        self.0.send_modify(change);
    }

    /// The state now.
    #[must_use]
    pub fn get(&self) -> SyncStatus {
        self.0.borrow().clone()
    }
}

/// What a sync did until it was stopped.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncReport {
    /// The target: scheme, hosts and database.
    pub target: String,
    /// The ID of the source's replica set.
    pub replica_set_id: String,
    /// Everything up to this entry of the source is in the target.
    pub at: ClusterTime,
    /// Operations that were applied.
    pub operations: u64,
    /// Batches that were written.
    pub batches: u64,
    /// Changes of collections, views and indexes that were made.
    pub ddl: u64,
}
