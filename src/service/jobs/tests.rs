use std::collections::HashMap;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::live::UNFINISHED;
use super::*;
use crate::service::job::Trigger;
use crate::service::state::Memory;

type Work = Box<dyn FnOnce(JobContext) -> BoxFuture<'static, Result<()>> + Send>;

/// Runs the work that a test registers under a number; the number is the task's parameter.
#[derive(Default)]
struct Works {
    given: Mutex<HashMap<usize, Work>>,
    ended: Mutex<Vec<(JobId, JobState)>>,
}

impl Worker for Works {
    fn work(self: Arc<Self>, task: Task, context: JobContext) -> BoxFuture<'static, Result<(), Failure>> {
        let stage = task.kind;
        let work = lock(&self.given).remove(&task.parameters().unwrap()).unwrap();
        async move { work(context).await.map_err(Failure::at(stage)) }.boxed()
    }

    fn ended(&self, job: &Arc<Job>) {
        lock(&self.ended).push((job.id, job.state));
    }
}

struct Bench {
    directory: tempfile::TempDir,
    jobs: Jobs,
    works: Arc<Works>,
}

impl Bench {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = State::open(&directory.path().join("state")).await.unwrap();
        Self::over(state, directory).await
    }

    async fn over(state: State, directory: tempfile::TempDir) -> Self {
        let (jobs, interrupted) = Jobs::open(state, Handle::current()).await.unwrap();
        assert!(interrupted.is_empty());
        let works = Arc::new(Works::default());
        let worker: Weak<Works> = Arc::downgrade(&works);
        jobs.served_by(worker);
        Self { directory, jobs, works }
    }

    /// The jobs that remain if the process is killed now.
    async fn copy(&self) -> (Jobs, Vec<Job>) {
        let copy = self.directory.path().join("copy");
        std::fs::copy(self.directory.path().join("state"), &copy).unwrap();
        Jobs::open(State::open(&copy).await.unwrap(), Handle::current()).await.unwrap()
    }

    async fn submit<F: Future<Output = Result<()>> + Send + 'static>(
        &self,
        kind: JobKind,
        claims: BTreeSet<Claim>,
        work: impl FnOnce(JobContext) -> F + Send + 'static,
    ) -> Result<JobId> {
        let number = {
            let mut given = lock(&self.works.given);
            let number = given.len();
            given.insert(number, Box::new(|context| work(context).boxed()));
            number
        };
        let submitted =
            self.jobs.submit(Job::new(kind, Trigger::Manual, clock::now()), Task::new(kind, &number).unwrap(), claims).await;
        submitted.inspect_err(|_| drop(lock(&self.works.given).remove(&number)))
    }

    /// A job that works until it is told to end, or is stopped.
    async fn hold(&self, kind: JobKind, claims: BTreeSet<Claim>) -> (JobId, mpsc::UnboundedSender<()>) {
        let (end, mut ended) = mpsc::unbounded_channel();
        let work = async move |context: JobContext| {
            tokio::select! {
                biased;
                _ = ended.recv() => Ok(()),
                () = context.stop.cancelled() => Err(Error::interrupted()),
            }
        };
        (self.submit(kind, claims, work).await.unwrap(), end)
    }

    async fn is(&self, id: JobId, state: JobState) {
        let mut view = self.jobs.watch(id).await.unwrap();
        view.wait_for(|view| view.job().state == state).await.unwrap();
    }
}

fn source() -> BTreeSet<Claim> {
    BTreeSet::from([Claim::Source])
}

fn into(databases: &[&str]) -> BTreeSet<Claim> {
    databases.iter().map(|&d| Claim::Database(d.to_owned())).collect()
}

#[tokio::test]
async fn a_job_is_known_before_during_and_after_its_work() {
    let bench = Bench::new().await;
    let (id, end) = bench.hold(JobKind::Backup, source()).await;
    bench.is(id, JobState::Running).await;
    assert_eq!(bench.jobs.unfinished().len(), 1);
    end.send(()).unwrap();
    let job = bench.jobs.wait(id).await.unwrap();
    assert_eq!(
        (job.state, job.error.clone(), job.started.is_some(), job.finished.is_some()),
        (JobState::Succeeded, None, true, true)
    );
    // Waiters are notified last: the claim is free, the end is stored, and the worker knows.
    assert_eq!(*lock(&bench.works.ended), [(id, JobState::Succeeded)]);
    let (killed_now, interrupted) = bench.copy().await;
    assert_eq!((killed_now.job(id).await.unwrap().state, interrupted), (JobState::Succeeded, vec![]));
    let (again, _end) = bench.hold(JobKind::Backup, source()).await;
    let listed = bench.jobs.list(10, |_| true).await.unwrap();
    assert_eq!(listed.iter().map(|job| job.id).collect::<Vec<_>>(), [again, id]);
    assert_eq!(bench.jobs.list(10, |job| job.state.is_final()).await.unwrap(), [job]);
    assert_eq!(bench.jobs.list(1, |_| true).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_claimed_refuses_others_with_the_holders_id() {
    let bench = Bench::new().await;
    let (backup, _one) = bench.hold(JobKind::Backup, source()).await;
    let (import, _other) = bench.hold(JobKind::Import, into(&["a", "b"])).await;
    let refused = async |claims| bench.submit(JobKind::Import, claims, async |_| Ok(())).await.unwrap_err();
    let error = refused(source()).await;
    assert_eq!((error.kind(), error.job_id()), (ErrorKind::Busy, Some(&*backup.to_string())));
    let error = refused(into(&["c", "b"])).await;
    assert_eq!((error.kind(), error.job_id()), (ErrorKind::Busy, Some(&*import.to_string())), "{error}");
    assert!(bench.submit(JobKind::Import, into(&["c"]), async |_| Ok(())).await.is_ok());
    assert_eq!(bench.jobs.list(10, |_| true).await.unwrap().len(), 3, "what was refused is no job");
}

#[tokio::test]
async fn one_of_a_kind_works_at_a_time_and_one_that_waits_can_be_cancelled() {
    let bench = Bench::new().await;
    let (first, end) = bench.hold(JobKind::Verify, BTreeSet::new()).await;
    bench.is(first, JobState::Running).await;
    let (second, _second) = bench.hold(JobKind::Verify, BTreeSet::new()).await;
    let (third, third_end) = bench.hold(JobKind::Verify, BTreeSet::new()).await;
    assert_eq!(bench.jobs.job(second).await.unwrap().state, JobState::Queued);
    bench.jobs.cancel(second).await.unwrap();
    let job = bench.jobs.wait(second).await.unwrap();
    assert_eq!((job.state, job.started), (JobState::Cancelled, None));
    end.send(()).unwrap();
    bench.is(third, JobState::Running).await;
    third_end.send(()).unwrap();
    assert_eq!(bench.jobs.wait(third).await.unwrap().state, JobState::Succeeded);
    let error = bench.jobs.cancel(third).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
}

#[tokio::test]
async fn only_so_many_wait_and_a_backup_is_never_kept_out_by_them() {
    let bench = Bench::new().await;
    let mut ends = Vec::new();
    for _ in 0..UNFINISHED {
        ends.push(bench.hold(JobKind::Verify, BTreeSet::new()).await);
    }
    let error = bench.submit(JobKind::Verify, BTreeSet::new(), async |_| Ok(())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooMany, "{error}");
    let (backup, end) = bench.hold(JobKind::Backup, source()).await;
    end.send(()).unwrap();
    assert_eq!(bench.jobs.wait(backup).await.unwrap().state, JobState::Succeeded);
    let (_, interrupted) = bench.copy().await;
    assert_eq!(interrupted.len(), UNFINISHED, "each of them is known after a kill");
    let (first, end) = ends.remove(0);
    end.send(()).unwrap();
    bench.jobs.wait(first).await.unwrap();
    assert!(bench.submit(JobKind::Verify, BTreeSet::new(), async |_| Ok(())).await.is_ok());
}

#[tokio::test]
async fn how_it_ends_tells_failed_cancelled_and_interrupted_apart() {
    let bench = Bench::new().await;
    let failing =
        bench.submit(JobKind::Import, BTreeSet::new(), async |_| Err(Error::damaged("it is").hint("look"))).await.unwrap();
    let job = bench.jobs.wait(failing).await.unwrap();
    let error = job.error.clone().unwrap();
    assert_eq!(
        (job.state, error.stage, &*error.kind, error.hint.as_deref()),
        (JobState::Failed, JobKind::Import, "damaged", Some("look"))
    );

    let dying = bench.submit(JobKind::Import, BTreeSet::new(), async |_| panic!("of a defect")).await.unwrap();
    let job = bench.jobs.wait(dying).await.unwrap();
    assert_eq!((job.state, &*job.error.clone().unwrap().kind), (JobState::Failed, "internal"));

    let (cancelled, _end) = bench.hold(JobKind::Import, into(&["a"])).await;
    bench.is(cancelled, JobState::Running).await;
    bench.jobs.cancel(cancelled).await.unwrap();
    assert_eq!(bench.jobs.wait(cancelled).await.unwrap().state, JobState::Cancelled);

    let (running, _end) = bench.hold(JobKind::Import, into(&["a"])).await;
    bench.is(running, JobState::Running).await;
    let (waiting, _end) = bench.hold(JobKind::Import, into(&["b"])).await;
    bench.jobs.shut_down(Duration::ZERO).await;
    for id in [running, waiting] {
        assert_eq!(bench.jobs.job(id).await.unwrap().state, JobState::Interrupted);
    }
    let error = bench.submit(JobKind::Import, BTreeSet::new(), async |_| Ok(())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closing);
}

#[tokio::test]
async fn the_end_of_the_service_waits_for_what_ends_within_its_grace() {
    let bench = Bench::new().await;
    let (id, end) = bench.hold(JobKind::Backup, source()).await;
    bench.is(id, JobState::Running).await;
    let ending = tokio::spawn({
        let jobs = bench.jobs.clone();
        async move { jobs.shut_down(Duration::from_secs(600)).await }
    });
    while bench.jobs.is_open() {
        tokio::task::yield_now().await;
    }
    end.send(()).unwrap();
    ending.await.unwrap();
    assert_eq!(bench.jobs.job(id).await.unwrap().state, JobState::Succeeded);
}

#[tokio::test]
async fn what_a_kill_leaves_is_interrupted_and_keeps_how_far_it_was() {
    let bench = Bench::new().await;
    let (told, mut begun) = mpsc::unbounded_channel();
    let (end, mut ended) = mpsc::unbounded_channel::<()>();
    let work = async move |context: JobContext| {
        context.update(|job| job.backup = Some("a-name".to_owned()));
        told.send(()).unwrap();
        let _until_the_test_ends = ended.recv().await;
        Ok(())
    };
    let id = bench.submit(JobKind::Backup, source(), work).await.unwrap();
    let (queued, _end) = bench.hold(JobKind::Backup, BTreeSet::new()).await;
    begun.recv().await.unwrap();
    let (jobs, interrupted) = bench.copy().await;
    assert_eq!(
        interrupted.iter().map(|job| (job.id, job.state)).collect::<Vec<_>>(),
        [(id, JobState::Interrupted), (queued, JobState::Interrupted)]
    );
    let job = jobs.job(id).await.unwrap();
    assert_eq!(
        (job.state, &*job.error.clone().unwrap().kind, job.finished.is_some()),
        (JobState::Interrupted, "interrupted", true)
    );
    assert!(jobs.unfinished().is_empty());
    drop(end);
}

#[tokio::test]
async fn databases_that_are_claimed_later_are_waited_for() {
    let bench = Bench::new().await;
    let (holder, end) = bench.hold(JobKind::Import, into(&["a"])).await;
    let (told, mut order) = mpsc::unbounded_channel();
    let work = async move |context: JobContext| {
        let claimed = context.claim(into(&["a"])).await;
        told.send(()).unwrap();
        claimed
    };
    let waiter = bench.submit(JobKind::Backup, source(), work).await.unwrap();
    bench.is(waiter, JobState::Running).await;
    assert!(order.try_recv().is_err());
    end.send(()).unwrap();
    assert_eq!(bench.jobs.wait(waiter).await.unwrap().state, JobState::Succeeded);
    assert_eq!(bench.jobs.job(holder).await.unwrap().state, JobState::Succeeded);
    let error = bench.jobs.job(JobId::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_another_instance_claims_is_refused_with_its_job_and_waited_for() {
    let memory = Memory::default();
    let one = Bench::over(State::over(memory.clone()), tempfile::tempdir().unwrap()).await;
    let other = Bench::over(State::over(memory.clone()), tempfile::tempdir().unwrap()).await;
    let (backup, end_of_backup) = one.hold(JobKind::Backup, source()).await;
    let (import, end_of_import) = one.hold(JobKind::Import, into(&["a"])).await;
    let error = other.submit(JobKind::Backup, source(), async |_| Ok(())).await.unwrap_err();
    assert_eq!((error.kind(), error.job_id()), (ErrorKind::Busy, Some(&*backup.to_string())));
    assert_eq!(other.jobs.list(10, |_| true).await.unwrap().len(), 2, "what was refused is no job");
    // An instance that starts while the first one lives interrupts nothing.
    let third = Bench::over(State::over(memory), tempfile::tempdir().unwrap()).await;
    assert_eq!(third.jobs.job(import).await.unwrap().id, import);

    end_of_backup.send(()).unwrap();
    one.jobs.wait(backup).await.unwrap();
    let (told, mut order) = mpsc::unbounded_channel();
    let work = async move |context: JobContext| {
        let claimed = context.claim(into(&["a"])).await;
        told.send(()).unwrap();
        claimed
    };
    let waiter = other.submit(JobKind::Backup, source(), work).await.unwrap();
    other.is(waiter, JobState::Running).await;
    assert!(order.try_recv().is_err());
    end_of_import.send(()).unwrap();
    assert_eq!(other.jobs.wait(waiter).await.unwrap().state, JobState::Succeeded);
}
