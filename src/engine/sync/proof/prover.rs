//! What proves a target, and waits until it follows.

use std::time::Duration;

use crate::context::Context;
use crate::engine::sync::options::SyncOptions;
use crate::engine::sync::status::{StatusSender, SyncState, SyncStatus};
use crate::error::{Error, ErrorKind, Result};
use crate::mongo::MongoUri;
use crate::sink::Target;
use crate::sink::synced::Still;

/// How long a target may wait, be paused or be held before it is not proven.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Proves a target.
pub(in crate::engine::sync) struct Prover {
    pub(in crate::engine::sync) source: MongoUri,
    pub(in crate::engine::sync) uri: MongoUri,
    pub(in crate::engine::sync) target: Target,
    pub(in crate::engine::sync) options: SyncOptions,
    pub(in crate::engine::sync) status: StatusSender,
    pub(in crate::engine::sync) still: Still,
    pub(in crate::engine::sync) cx: Context,
}

impl Prover {
    /// Waits until the target follows, and is as far as this.
    pub(super) async fn follows(&self, is_met: impl Fn(&SyncStatus) -> bool + Send) -> Result<()> {
        let mut waited = Duration::ZERO;
        loop {
            let status = self.status.get();
            if status.state == SyncState::Following && is_met(&status) {
                return Ok(());
            }
            if waited >= PATIENCE && !matches!(status.state, SyncState::Following) {
                return Err(
                    Error::new(ErrorKind::Refused, "the target does not follow, so it is not proven").hint("its status says why")
                );
            }
            self.pause(LOOK).await?;
            waited += LOOK;
        }
    }

    pub(super) async fn pause(&self, pause: Duration) -> Result<()> {
        self.unless_stopped(tokio::time::sleep(pause)).await
    }

    pub(super) async fn unless_stopped<T>(&self, waiting: impl Future<Output = T>) -> Result<T> {
        self.cx.cancel.run_until_cancelled(waiting).await.ok_or_else(Error::interrupted)
    }
}
