//! `/api/jobs/{id}/events`: a job's progress as server-sent events.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use rocket::response::stream::{Event, EventStream};
use rocket::tokio::sync::watch;
use rocket::tokio::time::{Instant, sleep_until};
use rocket::{Shutdown, State, get};

use super::access::Reader;
use super::dto::{FailureBody, StreamEvent};
use super::failure::Failure;
use super::jobs::identity;
use super::query::{Nothing, Query};
use crate::service::{JobId, JobView, MongoBackupService};

/// The least time between two events.
pub(super) const PACE: Duration = Duration::from_millis(450);
/// The most time between two events, even if nothing changes.
const BEAT: Duration = Duration::from_millis(950);
/// How often a comment keeps an otherwise silent connection alive.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);
/// When a client that lost its connection should reconnect.
pub(super) const RETRY: Duration = Duration::from_secs(2);

/// Follows a job's progress as server-sent events.
///
/// `progress` events come at least once and at most twice a second. One `end` event comes last. The
/// data of each event is the job as JSON, as in `GET /api/jobs/{id}`, but with at most fifty
/// collections: those in progress. A job that has ended sends only its `end`. A stream without an
/// `end` was closed because the service shut down.
#[utoipa::path(
    tag = "jobs",
    operation_id = "followJob",
    params(("id" = JobId, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The events; each holds a job", body = StreamEvent, content_type = "text/event-stream"),
        (status = 404, description = "The job does not exist", body = FailureBody),
    )
)]
#[get("/api/jobs/<id>/events")]
pub(super) async fn events(
    _by: Reader,
    id: &str,
    _query: Query<Nothing>,
    service: &State<MongoBackupService>,
    shutdown: Shutdown,
) -> Result<EventStream<BoxStream<'static, Event>>, Failure> {
    let job = service.watch(identity(id)?).await?;
    let follower = Follower { job, shutdown, told: 0, last: Instant::now(), ended: false };
    Ok(EventStream::from(stream::unfold(follower, Follower::next).boxed()).heartbeat(HEARTBEAT))
}

/// A client's position in its stream.
struct Follower {
    job: watch::Receiver<JobView>,
    shutdown: Shutdown,
    told: u64,
    last: Instant,
    ended: bool,
}

impl Follower {
    async fn next(mut self) -> Option<(Event, Self)> {
        if self.ended || (self.told > 0 && !self.wait().await) {
            return None;
        }
        let view = self.job.borrow_and_update().clone();
        self.ended = view.job().state.is_final();
        self.told += 1;
        self.last = Instant::now();
        let name = if self.ended { "end" } else { "progress" };
        let event = Event::data(view.event().to_string()).event(name).id(self.told.to_string());
        Some((if self.told == 1 { event.with_retry(RETRY) } else { event }, self))
    }

    /// Waits for the next event; false if none will come.
    async fn wait(&mut self) -> bool {
        let pace = sleep_until(self.last + PACE);
        let beat = sleep_until(self.last + BEAT);
        rocket::tokio::pin!(pace, beat);
        let (mut changed, mut paced) = (false, false);
        while !(changed && paced) {
            rocket::tokio::select! {
                () = &mut self.shutdown => return false,
                () = &mut beat => return true,
                () = &mut pace, if !paced => paced = true,
                change = self.job.changed(), if !changed => match change {
                    Ok(()) if self.job.borrow().job().state.is_final() => return true,
                    Ok(()) => changed = true,
                    // The task that ran the job is gone, so no end will come.
                    Err(_) => return false,
                },
            }
        }
        true
    }
}
