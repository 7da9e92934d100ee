//! Looks up the values that metrics need on each scrape.

use std::sync::Arc;
use std::time::Duration;

use super::inner::Inner;
use super::metrics::Seen;
use super::status::{BackupEntry, own_group};
use crate::clock;

/// How long the backup path may take to answer. Prometheus waits ten seconds.
const PATIENCE: Duration = Duration::from_secs(5);

impl Seen {
    /// Looks everything up.
    pub(super) async fn look(inner: &Arc<Inner>) -> Self {
        let schedule = inner.scheduler.shown();
        let (backups, free_bytes) = match tokio::time::timeout(PATIENCE, look_at_path(inner.clone())).await {
            Ok(found) => found,
            Err(_) => {
                tracing::warn!("the backup path did not answer within {} s", PATIENCE.as_secs());
                (None, None)
            }
        };
        // An invalid source counts as none. Its error is reported where it is used.
        let configured = inner.config.configured_source().ok().flatten();
        let known = inner.prober.source();
        let own = backups.as_ref().and_then(|found| own_group(found, configured.as_ref(), known.as_ref()));
        Self {
            now: clock::now(),
            backups,
            own,
            free_bytes,
            jobs: inner.jobs.count(),
            accepting: inner.jobs.is_open(),
            state_file_replaced: inner.state.replaced().is_some(),
            schedule_enabled: schedule.plan.enabled,
            next_run: schedule.next,
            not_taken: schedule.not_taken,
            connections: inner.prober.known(),
            archive: inner.archive.view(),
            sync: inner.sync.view(),
        }
    }
}

/// The backups and the free bytes. The look continues if its caller gives up, and keeps further
/// ones from piling up.
async fn look_at_path(inner: Arc<Inner>) -> (Option<Arc<Vec<BackupEntry>>>, Option<u64>) {
    let turn = inner.metrics.looking.clone().lock_owned().await;
    let engine = inner.engine.clone();
    let look = engine.spawn(async move {
        let _turn = turn;
        let backups = match inner.listing.get().await {
            Ok(backups) => Some(backups),
            Err(e) => {
                tracing::warn!("cannot list the backups: {e}");
                None
            }
        };
        let repository = inner.catalog.repository().clone();
        let free = tokio::task::spawn_blocking(move || repository.free_space()).await;
        (backups, free.ok().flatten())
    });
    look.await.unwrap_or_default()
}
