//! The state of an archive while it is written.

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::clock;
use crate::error::Error;
use crate::format::chain::{ChainConfig, Gap, Link};
use crate::format::digest::Sha256Hex;
use crate::format::manifest::ClusterTime;
use crate::oplog::chain::spans::Spans;
use crate::repository::chain::ChainPlace;

/// What an archiver does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ArchiveState {
    /// It looks at the source and at what is archived.
    #[default]
    Starting,
    /// It follows the source.
    Following,
    /// It waits for the source to answer, or for the store.
    Waiting,
    /// It does not run.
    Stopped,
}

impl ArchiveState {
    /// The state in one word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Following => "following",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
        }
    }
}

/// The state of an archive.
#[derive(Debug, Clone, Default)]
pub struct ArchiveStatus {
    /// What it does.
    pub state: ArchiveState,
    /// Why it waits.
    pub problem: Option<String>,
    /// The replica set's ID.
    pub replica_set_id: String,
    /// Where it is.
    pub path: String,
    /// When it began to run.
    pub started: Option<DateTime<Utc>>,
    /// The last entry that is durable.
    pub position: Option<ClusterTime>,
    /// The source's operation time when it was last read to its end, and when that was.
    pub source_time: Option<(ClusterTime, DateTime<Utc>)>,
    /// The oldest entry of the source's oplog.
    pub oldest: Option<ClusterTime>,
    /// The number of the newest piece.
    pub piece: Option<u64>,
    /// Its SHA-256.
    pub piece_sha256: Option<Sha256Hex>,
    /// The number of links, and their stored bytes.
    pub links: (u64, u64),
    /// The gaps in it.
    pub gaps: Vec<Gap>,
    /// How many of them, the last ones, were found since it began to run.
    pub new_gaps: usize,
    /// The name of the base backup that it is taking.
    pub base: Option<String>,
}

impl ArchiveStatus {
    /// How much of the source's oplog is behind the position: 1 if the position is at its end, 0 if
    /// the oldest entry is about to pass it.
    #[must_use]
    pub fn headroom(&self) -> Option<f64> {
        let (position, oldest, (now, _)) = (self.position?, self.oldest?, self.source_time?);
        let window = f64::from(now.t.saturating_sub(oldest.t));
        let behind = f64::from(position.t.saturating_sub(oldest.t));
        (window > 0.0).then(|| (behind / window).min(1.0))
    }

    /// How many seconds of the source's time are not durable yet.
    #[must_use]
    pub fn lag_seconds(&self) -> Option<u32> {
        Some(self.source_time?.0.t.saturating_sub(self.position?.t))
    }

    pub(super) fn begin(&mut self, config: &ChainConfig, place: &ChainPlace, oldest: ClusterTime) {
        self.replica_set_id.clone_from(&config.replica_set_id);
        self.path = place.location();
        (self.started, self.oldest) = (Some(clock::now()), Some(oldest));
    }

    /// What was archived before.
    pub(super) fn found(&mut self, found: &Spans) {
        self.gaps = found.gaps().cloned().collect();
        self.position = found.ends().map(|(_, end)| end);
        self.linked(&found.parts.links);
    }

    pub(super) fn through(&mut self, time: ClusterTime, oldest: Option<ClusterTime>) {
        self.source_time = Some((time, clock::now()));
        self.oldest = oldest.or(self.oldest);
        if self.state != ArchiveState::Waiting {
            self.state = ArchiveState::Following;
        }
    }

    pub(super) fn waits(&mut self, problem: Option<String>) {
        self.state = if problem.is_some() { ArchiveState::Waiting } else { ArchiveState::Following };
        self.problem = problem;
    }

    pub(super) fn fails(&mut self, error: &Error) {
        self.waits(Some(error.to_string()));
    }

    pub(super) fn durable(&mut self, position: ClusterTime, (piece, sha256): (u64, Option<Sha256Hex>)) {
        (self.position, self.piece, self.piece_sha256) = (Some(position), Some(piece), sha256);
        self.waits(None);
    }

    pub(super) fn gap(&mut self, gap: Gap) {
        self.gaps.push(gap);
        self.new_gaps += 1;
    }

    pub(super) fn linked(&mut self, links: &[Link]) {
        let bytes = links.iter().fold(0, |sum, link| sum + link.stored_bytes());
        self.links = (links.len() as u64, bytes);
    }
}

/// Changes the state of an archive, for those who watch it.
#[derive(Debug, Clone)]
pub struct StatusSender(watch::Sender<ArchiveStatus>);

impl StatusSender {
    pub(super) fn new() -> (Self, watch::Receiver<ArchiveStatus>) {
        let (sender, receiver) = watch::channel(ArchiveStatus::default());
        (Self(sender), receiver)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut ArchiveStatus)) {
        self.0.send_modify(change);
    }

    /// The state now.
    #[must_use]
    pub fn get(&self) -> ArchiveStatus {
        self.0.borrow().clone()
    }
}

/// What an archiver did until it was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveReport {
    /// Where the archive is.
    pub path: String,
    /// The replica set's ID.
    pub replica_set_id: String,
    /// The entries that were archived.
    pub entries: u64,
    /// The gaps that were found.
    pub gaps: u64,
    /// The last entry that is durable.
    pub reached: ClusterTime,
}
