//! Runs a job: it waits in its queue, works, and ends. A second task reports its progress.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::context::{Failure, JobContext, Worker};
use super::live::JobView;
use crate::clock;
use crate::context::lock;
use crate::context::progress::Rates;
use crate::error::{Error, ErrorKind};
use crate::service::job::{JobError, JobState};
use crate::service::rates;
use crate::service::task::Task;

/// How often a job's progress is updated.
const TICK: Duration = Duration::from_millis(500);
/// After how many updates the progress is stored. An interrupted job then shows about how far it
/// was, and its owner's lease does not expire.
const TICKS_KEPT: u32 = 20;
/// The most notes of a job.
const NOTES: usize = 100;
/// The most collections whose progress is stored once a job has ended.
const COLLECTIONS_KEPT: usize = 200;

/// Runs a job from its queue to its end.
pub(super) async fn run(context: JobContext, task: Task, worker: Arc<dyn Worker>) {
    let (shared, kind) = (context.shared.clone(), task.kind);
    // 1. Wait for its turn.
    let lane = &shared.lanes[kind as usize];
    let turn = tokio::select! {
        biased;
        () = context.stop.cancelled() => None,
        () = shared.closing.cancelled() => None,
        turn = lane.acquire() => turn.ok(),
    };
    // 2. Do the work.
    let done = match &turn {
        None => Err(Failure { stage: kind, error: Error::interrupted() }),
        Some(_) => {
            context.update(|job| {
                job.state = JobState::Running;
                job.started = Some(clock::now());
            });
            context.keep().await;
            tracing::info!("began");
            work_on(&context, task, &worker).await
        }
    };
    drop(turn);

    // 3. Store how it ended, then announce it.
    tick(&context, &mut Rates::over(rates::WINDOW));
    let job = {
        let mut job = lock(&context.live.job);
        job.finished = Some(clock::now());
        rates::average(&mut job);
        job.state = match &done {
            Ok(()) => JobState::Succeeded,
            Err(failure) if failure.error.kind() != ErrorKind::Interrupted => JobState::Failed,
            Err(_) if context.is_cancelled() => JobState::Cancelled,
            Err(_) => JobState::Interrupted,
        };
        job.error = done.as_ref().err().map(|failure| JobError::of(failure.stage, &failure.error));
        // A thousand jobs with thousands of collections each would be too much to store.
        job.progress.collections.truncate(COLLECTIONS_KEPT);
        job.clone()
    };
    match &job.error {
        None => tracing::info!("succeeded after {:.1} s", job.seconds().unwrap_or_default()),
        Some(error) => tracing::error!(state = job.state.name(), stage = error.stage.name(), "ended: {}", error.message),
    }
    let kept = shared.state.put(vec![job.clone()], None).await;
    lock(&shared.live).release(context.id);
    let view = JobView::new(job);
    worker.ended(view.job());
    context.live.view.send_replace(view);
    match kept {
        Ok(()) => {
            lock(&shared.live).jobs.remove(&context.id);
        }
        // While the service runs, the job is served from memory.
        Err(e) => tracing::error!("cannot store how the job ended: {e}"),
    }
}

/// Does the work, while a second task reports its progress.
async fn work_on(context: &JobContext, task: Task, worker: &Arc<dyn Worker>) -> Result<(), Failure> {
    let kind = task.kind;
    let ends = CancellationToken::new();
    let teller = tokio::spawn({
        let (context, ends) = (context.clone(), ends.clone());
        async move {
            let (mut rates, mut ticks) = (Rates::over(rates::WINDOW), 0_u32);
            while ends.run_until_cancelled(tokio::time::sleep(TICK)).await.is_some() {
                tick(&context, &mut rates);
                ticks += 1;
                if ticks.is_multiple_of(TICKS_KEPT) {
                    context.keep().await;
                }
            }
        }
    });
    let (worker, given) = (worker.clone(), context.clone());
    // A task of its own: a defect ends only this job, even one in the call that creates the work.
    let done = tokio::spawn(async move { worker.work(task, given).await }.in_current_span()).await;
    ends.cancel();
    let told = teller.await;
    if let Err(e) = told {
        tracing::error!("the progress reporter of the job died: {e}");
    }
    done.unwrap_or_else(|e| {
        Err(Failure {
            stage: kind,
            error: Error::new(ErrorKind::Internal, "the job died because of a defect in this program").cause(e),
        })
    })
}

/// Updates the job with the progress of its work.
fn tick(context: &JobContext, rates: &mut Rates) {
    let (view, notes) = (context.progress.view(), context.progress.take_notes());
    for note in &notes {
        tracing::info!("{note}");
    }
    context.update(|job| {
        job.notes.extend(notes);
        let surplus = job.notes.len().saturating_sub(NOTES);
        job.notes.drain(..surplus);
        if let Some(name) = context.progress.backup() {
            job.backup = Some(name.to_string());
        }
        rates::take(view, rates, &mut job.progress);
    });
}
