//! Runs jobs: who may begin, in which order, how far each is, how each ends, and what is kept of it.
//!
//! A job is on the disk before anyone is told its id, and its end is on the disk before anyone is told of it. It belongs to the service and not to whoever
//! asked for it: a client that goes away changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument as _;

use super::job::{Job, JobError, JobId, JobKind, JobState};
use super::rates::{self, Rates};
use super::state::State;
use crate::clock;
use crate::context::progress::Progress;
use crate::error::{Error, ErrorKind, Result};

/// How often the progress of a job is taken.
const TICK: Duration = Duration::from_millis(500);
/// After how many ticks it is kept, so that what was interrupted shows about how far it was.
const TICKS_KEPT: u32 = 20;
/// How long the end of the service waits for questions that are under way.
const LAST_QUESTIONS: Duration = Duration::from_secs(10);
/// How long it waits for jobs that were stopped to tidy up. Who runs services kills them soon after.
const LAST_JOBS: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(30) };
/// Jobs that may wait or work at a time.
pub(super) const UNFINISHED: usize = 100;
/// Notes of a job that are kept.
const NOTES: usize = 100;
/// Collections whose progress is kept of a job that ended.
const COLLECTIONS_KEPT: usize = 200;
/// Collections that an event tells of.
const COLLECTIONS_IN_EVENT: usize = 50;

/// A job as it is now.
#[derive(Debug, Clone)]
pub struct JobView {
    job: Arc<Job>,
    event: Arc<OnceLock<Arc<str>>>,
}

impl JobView {
    fn new(job: Job) -> Self {
        Self { job: Arc::new(job), event: Arc::default() }
    }

    /// The job, with every collection.
    #[must_use]
    pub fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// The job as JSON for an event: of its collections those that are being worked on. Made once, however many ask for it.
    #[must_use]
    pub fn event(&self) -> Arc<str> {
        self.event
            .get_or_init(|| {
                let mut job = Job::clone(&self.job);
                job.progress.collections.retain(|c| !c.finished);
                job.progress.collections.truncate(COLLECTIONS_IN_EVENT);
                serde_json::to_string(&job).unwrap_or_default().into()
            })
            .clone()
    }
}

/// What a job keeps others from doing.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims {
    /// It takes a backup of the source.
    pub(super) source: bool,
    /// It writes to these databases of the target.
    pub(super) databases: BTreeSet<String>,
}

/// What the work of a job is given.
#[derive(Clone)]
pub(super) struct Context {
    /// The job's id.
    pub(super) id: JobId,
    /// What it counts in.
    pub(super) progress: Progress,
    /// What ends it.
    pub(super) stop: CancellationToken,
    live: Arc<Live>,
    shared: Arc<Shared>,
}

/// Why a job did not do all of its work, and which part failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) stage: JobKind,
    pub(super) error: Error,
}

/// The work of a job. It is called on a thread of its own, where it may block: the engine's futures are driven there, beside the runtime's own workers.
pub(super) type Work = Box<dyn FnOnce(Context) -> Result<(), Failure> + Send>;

/// Told of every job that ended, before anyone who waits for it.
pub(super) type Ended = Box<dyn Fn(&Arc<Job>) + Send + Sync>;

/// The jobs of a service. Cloning shares them.
#[derive(Clone)]
pub(super) struct Jobs(Arc<Shared>);

struct Shared {
    state: State,
    live: Mutex<LiveJobs>,
    lanes: [Semaphore; 3],
    tracker: TaskTracker,
    closing: CancellationToken,
    stop: CancellationToken,
    ended: OnceLock<Ended>,
    engine: Handle,
}

#[derive(Default)]
struct LiveJobs {
    jobs: BTreeMap<JobId, Arc<Live>>,
    source: Option<JobId>,
    databases: BTreeMap<String, JobId>,
}

/// A job that has not ended.
struct Live {
    job: Mutex<Job>,
    view: watch::Sender<JobView>,
    stop: CancellationToken,
    cancelled: AtomicBool,
}

impl Jobs {
    /// The jobs of this state file; what had not ended when it was last used counts as interrupted. Those are given, too. They run on this runtime.
    ///
    /// # Errors
    /// Those of the state file.
    pub(super) async fn open(state: State, engine: Handle) -> Result<(Self, Vec<Job>)> {
        let mut interrupted = Vec::new();
        for mut job in state.newest(usize::MAX, |job| (!job.state.is_final()).then_some(job)).await?.into_iter().rev() {
            job.state = JobState::Interrupted;
            job.finished = Some(clock::now());
            let error = Error::new(ErrorKind::Interrupted, "the service ended before the job did: it was killed, or lost its power")
                .hint("what it was doing is safe: an unfinished backup counts as none, and the next import finishes or removes what one left");
            // A backup that is kept as taken was being imported.
            let stage = if job.result.backup.is_some() { JobKind::Import } else { job.kind };
            job.error = Some(JobError::of(stage, &error));
            interrupted.push(job);
        }
        // In one transaction: each of its own would wait for the disk.
        state.put_all(&interrupted).await?;
        let stop = CancellationToken::new();
        let shared = Shared {
            state,
            live: Mutex::default(),
            lanes: [Semaphore::new(1), Semaphore::new(1), Semaphore::new(1)],
            tracker: TaskTracker::new(),
            closing: CancellationToken::new(),
            stop,
            ended: OnceLock::new(),
            engine,
        };
        Ok((Self(Arc::new(shared)), interrupted))
    }

    /// Who is told of every job that ends. The first who asks for it.
    pub(super) fn on_end(&self, ended: Ended) {
        let _first_wins = self.0.ended.set(ended);
    }

    /// Begins a job, or queues it where another one of its kind is at work.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another one holds what it claims; [`ErrorKind::TooMany`] if [`UNFINISHED`] wait or work already;
    /// [`ErrorKind::Closing`]; those of the state file.
    pub(super) async fn submit(&self, job: Job, claims: Claims, work: Work) -> Result<JobId> {
        let id = job.id;
        // Held until the job itself is tracked: an end of the service in between waits for it.
        let _tracked = self.0.tracker.token();
        let live = Arc::new(Live {
            view: watch::Sender::new(JobView::new(job.clone())),
            job: Mutex::new(job.clone()),
            stop: self.0.stop.child_token(),
            cancelled: AtomicBool::new(false),
        });
        self.0.admit(&live, id, &claims)?;
        if let Err(e) = self.0.state.put(&job).await {
            self.0.release(id);
            lock(&self.0.live).jobs.remove(&id);
            return Err(e);
        }
        let span = tracing::info_span!("job", %id, kind = job.kind.name());
        let (shared, progress) = (self.0.clone(), Progress::default());
        let context = Context { id, progress, stop: live.stop.clone(), live, shared: shared.clone() };
        shared.tracker.spawn_on(run(context, job.kind, work).instrument(span), &shared.engine);
        Ok(id)
    }

    /// Keeps a job that could not begin as one that failed, and tells of it as of any that ended. Gives the error, with the job that tells of it. Where it cannot
    /// be kept, the log says so, and others are told all the same.
    pub(super) async fn fail(&self, mut job: Job, error: Error) -> Error {
        (job.state, job.finished) = (JobState::Failed, Some(clock::now()));
        job.error = Some(JobError::of(job.kind, &error));
        if let Err(e) = self.0.state.put(&job).await {
            tracing::error!("a job that failed cannot be kept: {e}");
        }
        let job = Arc::new(job);
        if let Some(ended) = self.0.ended.get() {
            ended(&job);
        }
        error.job(job.id.to_string())
    }

    /// Goes through those that ended, newest first, one at a time.
    ///
    /// # Errors
    /// Those of the state file.
    pub(super) async fn visit_ended(&self, look: impl Fn(&Job) + Send + 'static) -> Result<()> {
        let visitor = move |job: Job| {
            if job.state.is_final() {
                look(&job);
            }
            ControlFlow::Continue(())
        };
        self.0.state.visit(visitor).await
    }

    /// A job, whether or not it ended.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; those of the state file.
    pub(super) async fn job(&self, id: JobId) -> Result<Arc<Job>> {
        let live = lock(&self.0.live).jobs.get(&id).cloned();
        match live {
            Some(live) => Ok(live.view.borrow().job.clone()),
            None => self.0.state.job(id).await?.map(Arc::new).ok_or_else(|| not_found(id)),
        }
    }

    /// The newest jobs that are wanted, newest first, in short: without what there is of each of their collections.
    ///
    /// # Errors
    /// Those of the state file.
    pub(super) async fn list(&self, limit: usize, wanted: impl Fn(&Job) -> bool + Send + 'static) -> Result<Vec<Arc<Job>>> {
        let live: BTreeMap<JobId, Job> =
            lock(&self.0.live).jobs.iter().map(|(id, live)| (*id, live.view.borrow().job.in_short())).collect();
        let wanted = move |kept: Job| {
            let job = live.get(&kept.id).cloned().unwrap_or_else(|| kept.in_short());
            wanted(&job).then_some(job)
        };
        Ok(self.0.state.newest(limit, wanted).await?.into_iter().map(Arc::new).collect())
    }

    /// Follows a job: what it is like now, and every change, up to its end, which is the last.
    ///
    /// # Errors
    /// As for [`job`](Self::job).
    pub(super) async fn watch(&self, id: JobId) -> Result<watch::Receiver<JobView>> {
        let live = lock(&self.0.live).jobs.get(&id).map(|live| live.view.subscribe());
        match live {
            Some(receiver) => Ok(receiver),
            None => {
                let job = self.0.state.job(id).await?.ok_or_else(|| not_found(id))?;
                Ok(watch::Sender::new(JobView::new(job)).subscribe())
            }
        }
    }

    /// Waits until a job ended, and gives it.
    ///
    /// # Errors
    /// As for [`job`](Self::job).
    pub(super) async fn wait(&self, id: JobId) -> Result<Arc<Job>> {
        let mut view = self.watch(id).await?;
        // What is borrowed from the channel is given back before anything else is waited for: callers may be on any thread.
        let ended = view.wait_for(|view| view.job.state.is_final()).await.map(|view| view.job.clone());
        match ended {
            Ok(job) => Ok(job),
            // The last view of one that ended is always its end.
            Err(_) => self.job(id).await,
        }
    }

    /// Asks a job to stop. Gives it as it is now: it ends when it has tidied up.
    ///
    /// # Errors
    /// As for [`job`](Self::job); [`ErrorKind::Refused`] where it ended already.
    pub(super) async fn cancel(&self, id: JobId) -> Result<Arc<Job>> {
        let live = lock(&self.0.live).jobs.get(&id).cloned();
        match live {
            Some(live) if !live.view.borrow().job.state.is_final() => {
                live.cancelled.store(true, Ordering::SeqCst);
                live.stop.cancel();
                Ok(live.view.borrow().job.clone())
            }
            _ => {
                let job = self.job(id).await?;
                Err(Error::new(ErrorKind::Refused, format!("job {id} has ended already: {}", job.state.name())))
            }
        }
    }

    /// How many jobs of each kind wait, and how many work.
    pub(super) fn count(&self) -> Vec<(JobKind, JobState, u64)> {
        let live = lock(&self.0.live);
        let mut counts = Vec::new();
        for kind in JobKind::ALL {
            for state in [JobState::Queued, JobState::Running] {
                let is_such = |live: &&Arc<Live>| {
                    let job = lock(&live.job);
                    job.kind == kind && job.state == state
                };
                counts.push((kind, state, live.jobs.values().filter(is_such).count() as u64));
            }
        }
        counts
    }

    /// Those that have not ended, as they are now.
    pub(super) fn unfinished(&self) -> Vec<Arc<Job>> {
        lock(&self.0.live).jobs.values().map(|live| live.view.borrow().job.clone()).filter(|j| !j.state.is_final()).collect()
    }

    /// Goes on only where work is taken. The end of the service waits for it until what this gives is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Closing`].
    pub(super) fn enter(&self) -> Result<TaskTrackerToken> {
        let entered = self.0.tracker.token();
        self.0.refuse_if_closing()?;
        Ok(entered)
    }

    /// Whether jobs are taken.
    pub(super) fn is_open(&self) -> bool {
        !self.0.closing.is_cancelled()
    }

    /// Takes no more jobs, and ends those that wait.
    pub(super) fn close(&self) {
        self.0.closing.cancel();
        self.0.tracker.close();
    }

    /// Ends: takes no more jobs, lets those that work go on for so long, then stops them, and returns when each of them has tidied up. What waits for
    /// a disk that does not answer is left behind: jobs count as interrupted then when the service begins again.
    pub(super) async fn shut_down(&self, grace: Duration) {
        self.close();
        let waiting = self.unfinished().len();
        if waiting > 0 {
            tracing::info!("waiting up to {} s for {waiting} jobs to end", grace.as_secs());
        }
        // Where there is no job, only short questions are under way.
        let grace = if waiting > 0 { grace } else { grace.min(LAST_QUESTIONS) };
        if tokio::time::timeout(grace, self.0.tracker.wait()).await.is_ok() {
            return;
        }
        if waiting > 0 {
            tracing::warn!("stopping what has not ended within {} s", grace.as_secs());
        }
        self.0.stop.cancel();
        let last = if waiting > 0 { LAST_JOBS } else { Duration::ZERO };
        if tokio::time::timeout(last, self.0.tracker.wait()).await.is_err() {
            tracing::error!(
                "left behind what did not end when it was told to, {} jobs among it: the disk of the backups does not answer, or what \
                 they had to tidy up takes too long",
                self.unfinished().len()
            );
        }
    }
}

impl Context {
    /// Changes what is known of the job.
    pub(super) fn update(&self, change: impl FnOnce(&mut Job)) {
        let job = {
            let mut job = lock(&self.live.job);
            change(&mut job);
            job.clone()
        };
        self.live.view.send_replace(JobView::new(job));
    }

    /// Keeps what is known of the job now, so that a kill does not lose it.
    pub(super) async fn keep(&self) {
        keep(self).await;
    }

    /// Whether somebody asked for it to be stopped, rather than the service's end.
    pub(super) fn is_cancelled(&self) -> bool {
        self.live.cancelled.load(Ordering::SeqCst)
    }

    /// Claims more of the target's databases, and waits for those that hold them.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`] where it is stopped meanwhile.
    pub(super) async fn claim_databases(&self, databases: &BTreeSet<String>) -> Result<()> {
        loop {
            let holder = {
                let mut live = lock(&self.shared.live);
                let other = databases.iter().filter_map(|d| live.databases.get(d).copied()).find(|id| *id != self.id);
                match other.and_then(|id| live.jobs.get(&id).map(|holder| holder.view.subscribe())) {
                    Some(holder) => holder,
                    None => {
                        live.databases.extend(databases.iter().map(|d| (d.clone(), self.id)));
                        return Ok(());
                    }
                }
            };
            let mut holder = holder;
            tokio::select! {
                _ = holder.wait_for(|view| view.job.state.is_final()) => {}
                () = self.stop.cancelled() => return Err(Error::interrupted()),
            }
        }
    }
}

impl Shared {
    fn refuse_if_closing(&self) -> Result<()> {
        if !self.closing.is_cancelled() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Closing, "the service is shutting down and takes no more work")
            .hint("ask again when it runs again"))
    }

    /// Takes what the job claims, and counts it among the live ones.
    fn admit(&self, new: &Arc<Live>, id: JobId, claims: &Claims) -> Result<()> {
        let mut live = lock(&self.live);
        self.refuse_if_closing()?;
        if let Some(other) = live.source.filter(|_| claims.source) {
            return Err(Error::new(ErrorKind::Busy, format!("a backup of this source is running already: job {other}"))
                .hint("wait until it ends, or cancel it")
                .job(other.to_string()));
        }
        if let Some((database, other)) = claims.databases.iter().find_map(|d| Some((d, *live.databases.get(d)?))) {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("an import into the database {database:?} is running already: job {other}"),
            )
            .hint("wait until it ends, or cancel it")
            .job(other.to_string()));
        }
        // A backup is never kept out by what others queue: there is one of its kind at a time.
        if live.jobs.len() >= UNFINISHED && !claims.source {
            return Err(Error::new(ErrorKind::TooMany, format!("{UNFINISHED} jobs wait or work already"))
                .hint("wait until some of them end, or cancel them: GET /api/jobs lists them"));
        }
        if claims.source {
            live.source = Some(id);
        }
        live.databases.extend(claims.databases.iter().map(|d| (d.clone(), id)));
        live.jobs.insert(id, new.clone());
        Ok(())
    }

    /// Gives back what the job claimed.
    fn release(&self, id: JobId) {
        let mut live = lock(&self.live);
        live.source.take_if(|holder| *holder == id);
        live.databases.retain(|_, holder| *holder != id);
    }
}

/// A job, from its queue to its end.
async fn run(context: Context, kind: JobKind, work: Work) {
    let shared = context.shared.clone();
    // 1. Wait for its turn.
    let lane = &shared.lanes[kind as usize];
    let turn = tokio::select! {
        biased;
        () = context.stop.cancelled() => None,
        () = shared.closing.cancelled() => None,
        turn = lane.acquire() => turn.ok(),
    };
    // 2. Do it.
    let done = match &turn {
        None => Err(Failure { stage: kind, error: Error::interrupted() }),
        Some(_) => {
            context.update(|job| {
                job.state = JobState::Running;
                job.started = Some(clock::now());
            });
            keep(&context).await;
            tracing::info!("began");
            work_on(&context, kind, work).await
        }
    };
    drop(turn);

    // 3. Say how it ended: first on the disk, then to others.
    context.tick(&mut Rates::default());
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
        // A thousand jobs of thousands of collections each would be too much to keep.
        job.progress.collections.truncate(COLLECTIONS_KEPT);
        job.clone()
    };
    match &job.error {
        None => tracing::info!("succeeded after {:.1} s", job.seconds().unwrap_or_default()),
        Some(error) => tracing::error!(state = job.state.name(), stage = error.stage.name(), "ended: {}", error.message),
    }
    let kept = shared.state.put(&job).await;
    shared.release(context.id);
    let view = JobView::new(job);
    if let Some(ended) = shared.ended.get() {
        ended(&view.job);
    }
    context.live.view.send_replace(view);
    match kept {
        Ok(()) => {
            lock(&shared.live).jobs.remove(&context.id);
        }
        // As long as the service runs it is told from memory.
        Err(e) => tracing::error!("how the job ended cannot be kept: {e}"),
    }
}

/// The work, with somebody beside it who tells how far it is.
async fn work_on(context: &Context, kind: JobKind, work: Work) -> Result<(), Failure> {
    let ends = CancellationToken::new();
    let teller = tokio::spawn({
        let (context, ends) = (context.clone(), ends.clone());
        async move {
            let (mut rates, mut ticks) = (Rates::default(), 0_u32);
            while ends.run_until_cancelled(tokio::time::sleep(TICK)).await.is_some() {
                context.tick(&mut rates);
                ticks += 1;
                if ticks.is_multiple_of(TICKS_KEPT) {
                    keep(&context).await;
                }
            }
        }
    });
    let (span, given) = (tracing::Span::current(), context.clone());
    let done = tokio::task::spawn_blocking(move || span.in_scope(|| work(given))).await;
    ends.cancel();
    let told = teller.await;
    if let Err(e) = told {
        tracing::error!("what tells the progress of the job died: {e}");
    }
    done.unwrap_or_else(|e| {
        Err(Failure { stage: kind, error: Error::new(ErrorKind::Internal, "the job died of a defect of this program").cause(e) })
    })
}

impl Context {
    /// Takes how far the work is over into the job.
    fn tick(&self, rates: &mut Rates) {
        let (view, notes) = (self.progress.view(), self.progress.take_notes());
        for note in &notes {
            tracing::info!("{note}");
        }
        self.update(|job| {
            job.notes.extend(notes);
            let surplus = job.notes.len().saturating_sub(NOTES);
            job.notes.drain(..surplus);
            rates.take(view, &mut job.progress);
        });
    }
}

/// Keeps a job that goes on. Where that fails it is only less well known how far it was.
async fn keep(context: &Context) {
    let job = lock(&context.live.job).clone();
    if let Err(e) = context.shared.state.put(&job).await {
        tracing::warn!("how far the job is cannot be kept: {e}");
    }
}

fn not_found(id: JobId) -> Error {
    Error::new(ErrorKind::NotFound, format!("job {id} is not known"))
        .hint("GET /api/jobs lists those that are; the newest thousand are kept")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
