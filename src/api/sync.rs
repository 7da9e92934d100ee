//! `/api/sync`: the target that follows the source.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use rocket::response::stream::{Event, EventStream};
use rocket::tokio::sync::watch;
use rocket::tokio::time::{Instant, sleep_until};
use rocket::{Shutdown, State, get, post};

use super::access::{Admin, Reader};
use super::answer::Answer;
use super::bodies::{NoOptions, SyncRequest};
use super::body::Optional;
use super::dto::{Done, FailureBody, StreamEvent};
use super::events::{HEARTBEAT, PACE, RETRY};
use super::failure::Failure;
use super::query::{Nothing, Query};
use crate::engine::sync::{ProofReport, SyncState};
use crate::service::{MongoBackupService, SyncView};

type Answered<T> = Result<Answer<T>, Failure>;

/// Returns how far the target is, and who follows the source into it.
///
/// If this service does not, the target is asked, for two seconds at most.
#[utoipa::path(
    tag = "sync",
    operation_id = "getSync",
    responses((status = 200, description = "The sync, running or not", body = Done<SyncView>))
)]
#[get("/api/sync")]
pub(super) async fn show(_by: Reader, _query: Query<Nothing>, service: &State<MongoBackupService>) -> Answered<SyncView> {
    Ok(Answer::data(service.sync().await))
}

/// Makes the target follow the source, unless it does.
///
/// It begins with a copy if the target follows nothing yet. If it is held, it begins again where it
/// stopped. The answer does not wait until it follows. After a restart of the service,
/// `SYNC_ENABLED` decides whether it runs.
#[utoipa::path(
    tag = "sync",
    operation_id = "startSync",
    request_body(content = Option<SyncRequest>, content_type = "application/json"),
    responses(
        (status = 200, description = "It runs, and follows soon", body = Done<SyncView>),
        (status = 409, description = "One that is held has not ended within a minute", body = FailureBody),
        (status = 422, description = "A name of the query is unknown, or a configured URI is invalid", body = FailureBody),
        (status = 503, description = "The service is shutting down", body = FailureBody),
    )
)]
#[post("/api/sync/start", data = "<body>")]
pub(super) async fn start(
    _by: Admin,
    _query: Query<Nothing>,
    body: Optional<SyncRequest>,
    service: &State<MongoBackupService>,
) -> Answered<SyncView> {
    Ok(Answer::said("The sync runs", service.start_sync(body.0.mode).await?))
}

/// Stops the sync of this service, unless it is stopped.
///
/// It ends in order: the answer comes when the position of the target is durable. Once it is
/// started again, it goes on from there. After a restart of the service, `SYNC_ENABLED` decides
/// whether it runs.
#[utoipa::path(
    tag = "sync",
    operation_id = "stopSync",
    request_body(content = Option<NoOptions>, content_type = "application/json"),
    responses(
        (status = 200, description = "It is stopped", body = Done<SyncView>),
        (status = 409, description = "It has not ended within a minute, because a deployment or the storage does not answer", body = FailureBody),
        (status = 503, description = "The service is shutting down", body = FailureBody),
    )
)]
#[post("/api/sync/stop", data = "<_body>")]
pub(super) async fn stop(
    _by: Admin,
    _query: Query<Nothing>,
    _body: Optional<NoOptions>,
    service: &State<MongoBackupService>,
) -> Answered<SyncView> {
    Ok(Answer::said("The sync is stopped", service.stop_sync().await?))
}

/// Pauses whoever follows into the target.
///
/// The source's oplog is still archived. A pause outlasts the service.
#[utoipa::path(
    tag = "sync",
    operation_id = "pauseSync",
    request_body(content = Option<NoOptions>, content_type = "application/json"),
    responses(
        (status = 200, description = "It is paused within a second", body = Done<SyncView>),
        (status = 404, description = "The target follows nothing", body = FailureBody),
        (status = 409, description = "The target gets its first copy, is held, or is final", body = FailureBody),
        (status = 502, description = "The target does not answer, or refuses", body = FailureBody),
        (status = 503, description = "The service is shutting down", body = FailureBody),
    )
)]
#[post("/api/sync/pause", data = "<_body>")]
pub(super) async fn pause(
    _by: Admin,
    _query: Query<Nothing>,
    _body: Optional<NoOptions>,
    service: &State<MongoBackupService>,
) -> Answered<SyncView> {
    Ok(Answer::said("The sync is paused", service.pause_sync().await?))
}

/// Ends a pause.
#[utoipa::path(
    tag = "sync",
    operation_id = "resumeSync",
    request_body(content = Option<NoOptions>, content_type = "application/json"),
    responses(
        (status = 200, description = "It goes on within a second", body = Done<SyncView>),
        (status = 404, description = "The target follows nothing", body = FailureBody),
        (status = 409, description = "The target gets its first copy, is held, or is final", body = FailureBody),
        (status = 502, description = "The target does not answer, or refuses", body = FailureBody),
        (status = 503, description = "The service is shutting down", body = FailureBody),
    )
)]
#[post("/api/sync/resume", data = "<_body>")]
pub(super) async fn resume(
    _by: Admin,
    _query: Query<Nothing>,
    _body: Optional<NoOptions>,
    service: &State<MongoBackupService>,
) -> Answered<SyncView> {
    Ok(Answer::said("The sync is not paused", service.resume_sync().await?))
}

/// Proves that the target holds what the source holds.
///
/// Whoever follows into the target does it, as fast as it may, while both sides are written to. The
/// answer comes when it is done. If the client goes away, it goes on, and `GET /api/sync` tells the
/// result. A difference is a result, and no failure.
#[utoipa::path(
    tag = "sync",
    operation_id = "verifySync",
    request_body(content = Option<NoOptions>, content_type = "application/json"),
    responses(
        (status = 200, description = "What was found", body = Done<ProofReport>),
        (status = 404, description = "The target follows nothing", body = FailureBody),
        (status = 409, description = "Nothing follows into the target now, or it cannot be proven", body = FailureBody),
        (status = 502, description = "The target does not answer, or refuses", body = FailureBody),
        (status = 503, description = "The service is shutting down", body = FailureBody),
    )
)]
#[post("/api/sync/verify", data = "<_body>")]
pub(super) async fn verify(
    _by: Admin,
    _query: Query<Nothing>,
    _body: Optional<NoOptions>,
    service: &State<MongoBackupService>,
) -> Answered<ProofReport> {
    let report = service.verify_sync().await?;
    let message = if report.same { "The target is the same" } else { "The target is not proven to be the same" };
    Ok(Answer::said(message, report))
}

/// Ends the following for good.
///
/// The sync of this service is stopped in order. From then on, nothing follows into the target, and
/// it expires documents by itself again. If that is not possible, the sync goes on.
#[utoipa::path(
    tag = "sync",
    operation_id = "finalizeSync",
    request_body(content = Option<NoOptions>, content_type = "application/json"),
    responses(
        (status = 200, description = "The target is a deployment of its own", body = Done<SyncView>),
        (status = 404, description = "The target follows nothing", body = FailureBody),
        (status = 409, description = "The target gets its first copy, is held, or another process follows into it", body = FailureBody),
        (status = 502, description = "The target does not answer, or refuses", body = FailureBody),
        (status = 503, description = "The service is shutting down", body = FailureBody),
    )
)]
#[post("/api/sync/finalize", data = "<_body>")]
pub(super) async fn finalize(
    _by: Admin,
    _query: Query<Nothing>,
    _body: Optional<NoOptions>,
    service: &State<MongoBackupService>,
) -> Answered<SyncView> {
    Ok(Answer::said("The target is final", service.finalize_sync().await?))
}

/// Follows the sync of this service as server-sent events.
///
/// A `state` event comes at once, and whenever the state or its problem changes; a `progress` event
/// when something else does, at most about twice a second. One `end` comes last, once the sync is
/// stopped. The data of each is the sync as JSON, as in `GET /api/sync`. What other processes do is
/// not told. A stream without an `end` was closed because the service shut down.
#[utoipa::path(
    tag = "sync",
    operation_id = "followSync",
    responses((status = 200, description = "The events; each holds the sync", body = StreamEvent, content_type = "text/event-stream"))
)]
#[get("/api/sync/events")]
pub(super) async fn events(
    _by: Reader,
    _query: Query<Nothing>,
    service: &State<MongoBackupService>,
    shutdown: Shutdown,
) -> EventStream<BoxStream<'static, Event>> {
    let follower = Follower { sync: service.watch_sync(), shutdown, last: None, told: 0, ended: false };
    EventStream::from(stream::unfold(follower, Follower::next).boxed()).heartbeat(HEARTBEAT)
}

/// A client's position in its stream.
struct Follower {
    sync: watch::Receiver<SyncView>,
    shutdown: Shutdown,
    /// What was told last, and when.
    last: Option<(SyncView, Instant)>,
    told: u64,
    ended: bool,
}

impl Follower {
    async fn next(mut self) -> Option<(Event, Self)> {
        if self.ended || !self.wait().await {
            return None;
        }
        let view = self.sync.borrow_and_update().clone();
        self.ended = view.state == SyncState::Stopped;
        let last = self.last.as_ref().map(|(last, _)| (last.state, &last.problem));
        let name = match last == Some((view.state, &view.problem)) {
            _ if self.ended => "end",
            true => "progress",
            false => "state",
        };
        self.told += 1;
        let event = Event::json(&view).event(name).id(self.told.to_string());
        self.last = Some((view, Instant::now()));
        Some((if self.told == 1 { event.with_retry(RETRY) } else { event }, self))
    }

    /// Waits for the next event; false if none will come.
    async fn wait(&mut self) -> bool {
        let Some((_, last)) = self.last else { return true };
        let changed = async {
            sleep_until(last + PACE).await;
            self.sync.changed().await.is_ok()
        };
        rocket::tokio::select! {
            () = &mut self.shutdown => false,
            is_on = changed => is_on,
        }
    }
}
