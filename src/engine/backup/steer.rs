//! Adapts the number of cursors and the level of compression to the bottleneck while a backup
//! reads.

use std::sync::Arc;
use std::time::Duration;

use super::plan::BackupContext;
use super::shared::Shared;
use crate::context::progress::Progress;
use crate::format::frame::Compressors;
use crate::pipeline::steer::{ConcurrencyController, LevelController, Sample, Watched};

/// What the decisions depend on, and what they change.
pub(super) struct Steering {
    shared: Arc<Shared>,
    crew: ConcurrencyController,
    /// Absent if the level is fixed.
    effort: Option<LevelController>,
    compressors: Arc<Compressors>,
    watched: Watched,
    starved: Duration,
}

impl Steering {
    pub(super) fn new(context: &BackupContext, shared: Arc<Shared>, progress: Progress) -> Self {
        Self {
            crew: ConcurrencyController::new(context.settings.readers, context.room.most_readers),
            effort: context.room.follows_level.then(|| LevelController::new(context.settings.level)),
            compressors: context.compressors.clone(),
            watched: Watched::new(context.cpu.clone(), progress),
            starved: shared.starved(),
            shared,
        }
    }

    /// Waits until the next sample is due, takes it, and adapts.
    pub(super) async fn go_on(&mut self) {
        let sample = self.watched.next().await;
        let starved = self.shared.starved();
        let possible = sample.lasted.mul_f64(self.crew.now() as f64).as_secs_f64();
        let share = starved.saturating_sub(self.starved).as_secs_f64() / possible.max(1e-3);
        let sample = Sample { starved: share.min(1.0), ..sample };
        self.starved = starved;
        // A throttled backup does not show what more readers would gain.
        let now = if self.shared.pace.is_held_back() { self.crew.now() } else { self.crew.take(&sample) };
        // Once the queue is empty, nobody may wait any more.
        self.shared.allowed.send_if_modified(|allowed| *allowed != usize::MAX && std::mem::replace(allowed, now) != now);
        if let Some(effort) = &mut self.effort {
            self.compressors.set_level(effort.take(&sample));
        }
        tracing::debug!(limit = ?sample.limit(), readers = now, level = self.compressors.level(), ?sample, "steered");
    }
}
