//! Notifies the webhook of every job that ended, of gaps in the archive, and of a sync that is
//! held. Deliveries run in the background; a shutdown gives them a little time.

use std::time::Duration;

use serde_json::json;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::job::Job;
use super::sync::SyncView;
use super::webhook::{Event, Webhook};
use crate::clock;
use crate::config::WebhookSettings;
use crate::engine::timeline::TimelineGap;
use crate::error::Result;

/// The most deliveries in progress. One can take minutes if nobody answers. Further ones are logged
/// and dropped.
const PENDING: usize = 100;
/// How long a shutdown waits for deliveries in progress.
const LAST: Duration = Duration::from_secs(5);

/// The notices of a service.
pub(super) struct Notices {
    webhook: Option<Webhook>,
    engine: Handle,
    deliveries: TaskTracker,
    stop: CancellationToken,
}

impl Notices {
    /// Notices to this webhook, or to nobody.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) if the URL is invalid.
    pub(super) fn new(settings: Option<&WebhookSettings>, engine: Handle) -> Result<Self> {
        let webhook = settings.map(Webhook::new).transpose()?;
        Ok(Self { webhook, engine, deliveries: TaskTracker::new(), stop: CancellationToken::new() })
    }

    /// Announces how a job ended, without waiting for the delivery: `job.succeeded`, `job.failed`,
    /// `job.cancelled` or `job.interrupted`. The job comes without its collections, since there may
    /// be thousands.
    pub(super) fn tell(&self, job: &Job) {
        let name = match job.state.name() {
            "succeeded" => "job.succeeded",
            "failed" => "job.failed",
            "cancelled" => "job.cancelled",
            _ => "job.interrupted",
        };
        let what = format!("the end of the job {}", job.id);
        self.send(what, || Event { name, time: job.finished.unwrap_or_else(clock::now), data: json!(job.in_short()) });
    }

    /// Announces a gap that was found in the archive of the oplog, without waiting for the
    /// delivery: `archive.gap`.
    pub(super) fn tell_gap(&self, gap: &TimelineGap) {
        let what = format!("the gap from {} to {} in the archive", gap.from.position, gap.to.position);
        self.send(what, || Event { name: "archive.gap", time: gap.found, data: json!(gap) });
    }

    /// Announces that something came which the sync cannot apply, without waiting for the delivery:
    /// `sync.held`.
    pub(super) fn tell_held(&self, sync: &SyncView) {
        self.send("that the sync is held".to_owned(), || Event { name: "sync.held", time: clock::now(), data: json!(sync) });
    }

    /// Sends a message about this.
    fn send(&self, what: String, event: impl FnOnce() -> Event) {
        let Some(webhook) = self.webhook.clone() else { return };
        if self.deliveries.len() >= PENDING {
            tracing::error!("did not notify the webhook of {what}: {PENDING} deliveries are already under way");
            return;
        }
        let (event, stop) = (event(), self.stop.clone());
        let deliver = async move {
            if let Err(e) = webhook.deliver(&event, &stop).await {
                tracing::error!("could not notify the webhook of {what}: {e}");
            }
        };
        self.deliveries.spawn_on(deliver, &self.engine);
    }

    /// Gives deliveries in progress a little time, and then drops them.
    pub(super) async fn stop(&self) {
        self.deliveries.close();
        if tokio::time::timeout(LAST, self.deliveries.wait()).await.is_err() {
            self.stop.cancel();
            self.deliveries.wait().await;
        }
    }
}
