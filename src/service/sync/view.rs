//! The state of the sync, as programs read it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::Config;
use crate::engine::sync::{ProvenView, SyncState, SyncStatus, SyncView as TargetView};
use crate::engine::timeline::TimelineTime;
use crate::error::{ErrorKind, Face};
use crate::service::endless::{Ended, Life};

/// The sync: how far the target is, and who follows the source into it. What is not known is
/// absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = Sync)]
#[serde(rename_all = "camelCase")]
pub struct SyncView {
    /// Whether the configuration says that it runs. A request may have started or stopped it since.
    pub enabled: bool,
    /// What it does: `starting`, `copying`, `following`, `waiting`, `paused`, `held`, `stopped` or
    /// `final`. If the sync of this service does not run, what the target says of itself.
    #[schema(value_type = String, example = "following")]
    pub state: SyncState,
    /// Whether a process follows into the target: this service, or the one that `process` names.
    pub running: bool,
    /// Another process that follows into the target: `PROCESS on HOST`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub process: Option<String>,
    /// Why it waits, is held, or stopped by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub problem: Option<String>,
    /// What to do about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hint: Option<String>,
    /// The target: scheme, hosts and database.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub target: Option<String>,
    /// The ID of the source's replica set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub replica_set_id: Option<String>,
    /// The name of the source's replica set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub replica_set: Option<String>,
    /// What is followed.
    #[schema(example = "everything")]
    pub selection: String,
    /// Everything up to this entry of the source is in the target, and nothing later.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub at: Option<TimelineTime>,
    /// The newest entry of the archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub archived: Option<TimelineTime>,
    /// How many seconds of the source the target is behind the archive. Known while it follows or
    /// is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub lag_seconds: Option<u32>,
    /// Whether the target shows one moment of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub moment: Option<bool>,
    /// How many seconds the target stays behind on purpose.
    pub delay_seconds: u64,
    /// Operations that this service applied since it started.
    pub operations: u64,
    /// Batches that this service wrote since it started.
    pub batches: u64,
    /// Changes of collections, views and indexes that this service made since it started.
    pub ddl: u64,
    /// How many indexes are still being built in the target. Known while it follows or is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub debts: Option<u64>,
    /// Why one of them could not be built.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub debt_problem: Option<String>,
    /// When the target was last proven, whether it was the same, and how many differences there
    /// were.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub proven: Option<ProvenView>,
    /// Why it could not be proven since.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub proof_problem: Option<String>,
    /// When this service last wrote to the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub written: Option<DateTime<Utc>>,
    /// How long the batches took.
    #[serde(skip)]
    pub(in crate::service) batch_time: Duration,
    /// Headroom and lag of the archive that the sync writes itself.
    #[serde(skip)]
    pub(in crate::service) archive: (Option<f64>, Option<u32>),
}

impl SyncView {
    /// Whether this service copies or follows.
    pub(in crate::service) fn works(&self) -> bool {
        self.running && self.process.is_none() && matches!(self.state, SyncState::Copying | SyncState::Following)
    }

    /// The same with what the target says of itself. Its process may do what this service does not
    /// know yet: a pause is noticed within a second.
    pub(super) fn with(self, target: TargetView) -> Self {
        let lasting = match target.state.as_str() {
            "paused" => Some(SyncState::Paused),
            "held" => Some(SyncState::Held),
            "final" => Some(SyncState::Final),
            _ => None,
        };
        let process = target.process.filter(|_| !self.running);
        let state = match (lasting, self.state) {
            (Some(lasting), _) => lasting,
            (None, SyncState::Paused) => SyncState::Following,
            (None, _) if process.is_none() => self.state,
            (None, _) if target.state == "copying" => SyncState::Copying,
            (None, _) => SyncState::Following,
        };
        let is_own = self.running;
        Self {
            state,
            running: is_own || target.running,
            process,
            problem: self.problem.or(target.reason.map(|reason| Face::Service.say(&reason))),
            target: Some(target.target),
            replica_set_id: Some(target.replica_set_id),
            replica_set: Some(target.replica_set),
            selection: target.selection,
            at: if is_own { self.at } else { target.at },
            archived: self.archived.filter(|_| is_own),
            lag_seconds: if is_own { self.lag_seconds } else { target.lag_seconds },
            proven: self.proven.or(target.proven),
            debts: if is_own { self.debts } else { target.debts },
            moment: Some(if is_own { self.moment.unwrap_or(target.moment) } else { target.moment }),
            ..self
        }
    }
}

/// What the configuration asks for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    enabled: bool,
    target: Option<String>,
    selection: String,
    delay: Duration,
}

impl From<&Config> for Asked {
    fn from(config: &Config) -> Self {
        Self {
            enabled: config.sync.enabled,
            target: config.configured_target().ok().flatten().map(|target| target.to_string()),
            selection: config.sync(config.sync.mode).selection(),
            delay: config.sync.delay.unwrap_or_default(),
        }
    }
}

/// What is known of the sync of this service. It stays when it ends.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) life: Life,
    /// The last state in which everything is known.
    pub(super) status: SyncStatus,
    /// What the runs before this one did.
    before: Did,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Did {
    operations: u64,
    batches: u64,
    ddl: u64,
    batch_time: Duration,
}

impl Known {
    /// Another run begins, and counts from 0.
    pub(super) fn run(&mut self) {
        self.before = self.did();
        let status = std::mem::take(&mut self.status);
        self.status = SyncStatus { operations: 0, batches: 0, ddl: 0, batch_time: Duration::ZERO, ..status };
    }

    /// Takes a state. Of one that starts, not all is known yet, and what was known before stays.
    pub(super) fn take(&mut self, status: &SyncStatus) {
        if status.state != SyncState::Starting {
            (self.life.ended, self.status) = (None, status.clone());
        }
    }

    /// Whether this service has nothing to say of the target, but the target may.
    pub(super) fn is_idle(&self) -> bool {
        let Life { runs, ended } = &self.life;
        !runs || ended.as_ref().is_some_and(|ended| ended.kind == ErrorKind::Busy)
    }

    fn did(&self) -> Did {
        let Self { status, before, .. } = self;
        Did {
            operations: before.operations + status.operations,
            batches: before.batches + status.batches,
            ddl: before.ddl + status.ddl,
            batch_time: before.batch_time + status.batch_time,
        }
    }

    pub(super) fn view(&self, asked: &Asked) -> SyncView {
        let Self { life: Life { runs, ended }, status, .. } = self;
        let state = match (runs, ended) {
            (false, _) => SyncState::Stopped,
            (true, Some(_)) => SyncState::Waiting,
            (true, None) => status.state,
        };
        let (problem, hint) = match ended {
            Some(Ended { problem, hint, .. }) => (Some(problem.clone()), hint.clone()),
            None => {
                let problem = status.problem.as_deref().filter(|_| matches!(state, SyncState::Waiting | SyncState::Held));
                (problem.map(|problem| Face::Service.say(problem)), None)
            }
        };
        let did = self.did();
        // What changes by the second is known only while it follows the source.
        let now = Some(status).filter(|_| matches!(state, SyncState::Following | SyncState::Paused));
        let (replica_set_id, replica_set) = status.source.clone().unzip();
        SyncView {
            enabled: asked.enabled,
            state,
            running: *runs && !self.is_idle(),
            process: None,
            problem,
            hint,
            target: asked.target.clone(),
            replica_set_id,
            replica_set,
            selection: asked.selection.clone(),
            at: status.at.map(Into::into),
            archived: status.archived.map(Into::into),
            lag_seconds: now.and_then(SyncStatus::lag_seconds),
            moment: status.at.map(|_| status.moment),
            delay_seconds: asked.delay.as_secs(),
            operations: did.operations,
            batches: did.batches,
            ddl: did.ddl,
            debts: now.map(|now| now.debts),
            debt_problem: now.and_then(|now| now.debt_problem.as_deref()).map(|problem| Face::Service.say(problem)),
            proven: status.proof.ended.map(|ended| ProvenView {
                ended,
                same: status.proof.same,
                differences: status.proof.differences,
            }),
            proof_problem: now.and_then(|now| now.proof.problem.as_deref()).map(|problem| Face::Service.say(problem)),
            written: status.written,
            batch_time: did.batch_time,
            archive: now.map_or((None, None), |now| (now.headroom, now.archive_lag_seconds)),
        }
    }
}
