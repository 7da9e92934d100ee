//! The state of the archive, as programs read it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::archive::{ArchiveState, ArchiveStatus};
use crate::engine::timeline::{TimelineGap, TimelineTime};
use crate::error::ErrorKind;
use crate::format::chain::Gap;
use crate::service::endless::{Ended, Life};

/// The archive of the source's oplog. What is not known is absent.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveView {
    /// Whether the configuration says that it runs. A request may have started or stopped it since.
    pub enabled: bool,
    /// What it does: `starting`, `following`, `waiting` or `stopped`.
    #[schema(value_type = String, example = "following")]
    pub state: ArchiveState,
    /// Why it waits, or why it stopped by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub problem: Option<String>,
    /// What to do about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hint: Option<String>,
    /// The replica set's ID.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub replica_set_id: Option<String>,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub path: Option<String>,
    /// When it last began to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub started: Option<DateTime<Utc>>,
    /// The last entry that is durable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub position: Option<TimelineTime>,
    /// The source's time when it was last read to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub source_time: Option<TimelineTime>,
    /// How many seconds of the source's time were not durable then. Known while it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub lag_seconds: Option<u32>,
    /// How much of the source's oplog is behind the position, from 0 to 1. At 0, entries are
    /// about to be lost. Known while it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0, maximum = 1)]
    pub headroom: Option<f64>,
    /// Its links, each with the entries of about an hour.
    pub links: u64,
    /// The stored bytes of its links.
    pub stored_bytes: u64,
    /// What was never archived.
    pub gaps: Vec<TimelineGap>,
    /// The base backup that it is taking.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub base: Option<String>,
}

impl ArchiveView {
    /// Whether it follows the source now.
    pub(in crate::service) fn follows(&self) -> bool {
        self.state == ArchiveState::Following
    }

    /// Whether it has followed the source since the service started, so that its gaps are known.
    pub(in crate::service) fn is_known(&self) -> bool {
        self.started.is_some()
    }
}

/// A gap, as programs read it.
pub(super) fn gap(gap: &Gap, replica_set_id: &str) -> TimelineGap {
    TimelineGap {
        from: gap.from.into(),
        to: gap.to.into(),
        reason: gap.reason.clone(),
        found: gap.found,
        replica_set_id: replica_set_id.to_owned(),
    }
}

/// What is known of the archive. It stays when the archiver ends.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) life: Life,
    /// The last state in which everything is known.
    pub(super) status: ArchiveStatus,
}

impl Known {
    /// Whether it is to run, does not follow the source yet, and nobody else archives it.
    pub(super) fn is_coming(&self) -> bool {
        let Life { runs, ended } = &self.life;
        let is_elsewhere = ended.as_ref().is_some_and(|ended| ended.kind == ErrorKind::Busy);
        let follows = ended.is_none() && self.status.state == ArchiveState::Following;
        *runs && !is_elsewhere && !follows
    }

    /// Takes a state. Of one that starts, not all is known yet, and what was known before stays.
    pub(super) fn take(&mut self, status: &ArchiveStatus) {
        if status.state != ArchiveState::Starting {
            (self.life.ended, self.status) = (None, status.clone());
        }
    }

    pub(super) fn view(&self, enabled: bool) -> ArchiveView {
        let Self { life: Life { runs, ended }, status } = self;
        let state = match (runs, ended) {
            (false, _) => ArchiveState::Stopped,
            (true, Some(_)) => ArchiveState::Waiting,
            (true, None) => status.state,
        };
        let (problem, hint) = match ended {
            Some(Ended { problem, hint, .. }) => (Some(problem.clone()), hint.clone()),
            None => (status.problem.clone().filter(|_| state == ArchiveState::Waiting), None),
        };
        let named = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        // What changes by the second is known only while it follows the source.
        let now = Some(status).filter(|_| state == ArchiveState::Following);
        ArchiveView {
            enabled,
            state,
            problem,
            hint,
            replica_set_id: named(&status.replica_set_id),
            path: named(&status.path),
            started: status.started,
            position: status.position.map(Into::into),
            source_time: now.and_then(|now| now.source_time).map(|(time, _)| time.into()),
            lag_seconds: now.and_then(ArchiveStatus::lag_seconds),
            headroom: now.and_then(ArchiveStatus::headroom),
            links: status.links.0,
            stored_bytes: status.links.1,
            gaps: status.gaps.iter().map(|one| gap(one, &status.replica_set_id)).collect(),
            base: now.and_then(|now| now.base.clone()),
        }
    }
}
