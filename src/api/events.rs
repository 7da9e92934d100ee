//! `/api/jobs/{id}/events`: a job as it goes on, as server-sent events.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use rocket::response::stream::{Event, EventStream};
use rocket::tokio::sync::watch;
use rocket::tokio::time::{Instant, sleep_until};
use rocket::{Shutdown, State, get};

use super::access::Reader;
use super::dto::{FailureBody, JobEvent};
use super::failure::Failure;
use super::jobs::identity;
use super::query::{Nothing, Query};
use crate::service::{JobId, JobView, MongoBackupService};

/// The least time between two events.
const PACE: Duration = Duration::from_millis(450);
/// The most, also where nothing changes.
const BEAT: Duration = Duration::from_millis(950);
/// How often a comment keeps the connection of a stream that says nothing else.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// When a client that lost its connection should come again.
const RETRY: Duration = Duration::from_secs(2);

/// Follows a job.
///
/// Events named `progress` come at least once a second and at most twice, then one named `end`, which is the last. The data of each is the job as JSON, as `GET /api/jobs/{id}` gives it, but of its
/// collections only those that are being worked on, fifty at most. A job that ended gives its `end` alone. A stream that ends without one was ended by the service's own end.
#[utoipa::path(
    tag = "jobs",
    operation_id = "followJob",
    params(("id" = JobId, Path, description = "The job's id")),
    responses(
        (status = 200, description = "The events; the data of each is a job", body = JobEvent, content_type = "text/event-stream"),
        (status = 404, description = "There is no such job", body = FailureBody),
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

/// Where a client is in its stream.
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

    /// Waits until there is something to tell; false where there will be nothing any more.
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
                    // Whoever ran the job is gone, and its end with it.
                    Err(_) => return false,
                },
            }
        }
        true
    }
}
