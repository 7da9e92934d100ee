//! Tells the webhook of every job that ended. Deliveries go on beside the work; the end of the service gives them a little time.

use std::time::Duration;

use serde_json::json;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::job::Job;
use super::webhook::{Event, Webhook};
use crate::clock;
use crate::config::WebhookSettings;
use crate::error::Result;

/// How many deliveries may be under way. One takes minutes where nobody answers; what comes beyond that is named in the log and given up.
const PENDING: usize = 100;
/// How long the end of the service waits for those that are under way.
const LAST: Duration = Duration::from_secs(5);

/// The notices of a service.
pub(super) struct Notices {
    webhook: Option<Webhook>,
    engine: Handle,
    deliveries: TaskTracker,
    stop: CancellationToken,
}

impl Notices {
    /// To this webhook; to nobody where there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) for a URL that cannot be used.
    pub(super) fn new(settings: Option<&WebhookSettings>, engine: Handle) -> Result<Self> {
        let webhook = settings.map(Webhook::new).transpose()?;
        Ok(Self { webhook, engine, deliveries: TaskTracker::new(), stop: CancellationToken::new() })
    }

    /// Tells how a job ended, without waiting for it: `job.succeeded`, `job.failed`, `job.cancelled` or `job.interrupted`. The job comes without its
    /// collections, of which there may be thousands.
    pub(super) fn tell(&self, job: &Job) {
        let Some(webhook) = self.webhook.clone() else { return };
        if self.deliveries.len() >= PENDING {
            tracing::error!(job = %job.id, "the webhook is not told how the job ended: {PENDING} deliveries are under way already");
            return;
        }
        let name = match job.state.name() {
            "succeeded" => "job.succeeded",
            "failed" => "job.failed",
            "cancelled" => "job.cancelled",
            _ => "job.interrupted",
        };
        let event = Event { name, time: job.finished.unwrap_or_else(clock::now), data: json!(job.in_short()) };
        let (stop, id) = (self.stop.clone(), job.id);
        let deliver = async move {
            if let Err(e) = webhook.deliver(&event, &stop).await {
                tracing::error!(job = %id, "the webhook was not told how the job ended: {e}");
            }
        };
        self.deliveries.spawn_on(deliver, &self.engine);
    }

    /// Gives what is under way a little time, and then gives it up.
    pub(super) async fn stop(&self) {
        self.deliveries.close();
        if tokio::time::timeout(LAST, self.deliveries.wait()).await.is_err() {
            self.stop.cancel();
            self.deliveries.wait().await;
        }
    }
}
