use chrono::{DateTime, TimeDelta, Utc};
use redb::{Database, TableDefinition};
use serde_json::json;

use super::opening::Trouble;
use super::store::KEPT;
use super::*;
use crate::service::job::{JobKind, JobState, Trigger};
use crate::service::task::Task;

/// All kinds of stores, empty. The first tests hold for each of them.
fn stores() -> Vec<(tempfile::TempDir, Box<dyn JobStore>)> {
    let directory = || tempfile::tempdir().unwrap();
    let on_disk = directory();
    let disk = Disk::open(&on_disk.path().join("state")).unwrap();
    vec![(on_disk, Box::new(disk)), (directory(), Box::new(Memory::default()))]
}

fn job(kind: JobKind, state: JobState) -> Job {
    Job { state, ..Job::new(kind, Trigger::Manual, clock::now()) }
}

fn assignment(owner: Owner, claims: &[Claim]) -> Assignment {
    let task = Task::new(JobKind::Backup, &json!({ "import": true })).unwrap();
    Assignment { owner, task, claims: claims.iter().cloned().collect() }
}

fn database(name: &str) -> Claim {
    Claim::Database(name.to_owned())
}

fn all_of(store: &dyn JobStore) -> Vec<Job> {
    let mut jobs = Vec::new();
    store
        .visit(&mut |job| {
            jobs.insert(0, job);
            ControlFlow::Continue(())
        })
        .unwrap();
    jobs
}

#[test]
fn jobs_and_settings_are_kept_as_they_are_now() {
    for (_directory, store) in stores() {
        let mut first = job(JobKind::Backup, JobState::Queued);
        let second = job(JobKind::Verify, JobState::Succeeded);
        store.put(&[first.clone(), second.clone()], None).unwrap();
        first.state = JobState::Running;
        store.put(std::slice::from_ref(&first), None).unwrap();
        assert_eq!(all_of(&*store), [first.clone(), second.clone()]);
        let mut seen = Vec::new();
        store
            .visit(&mut |job| {
                seen.push(job.id);
                ControlFlow::Break(())
            })
            .unwrap();
        assert_eq!(seen, [second.id], "newest first, and no more than is wanted");
        assert_eq!((store.job(first.id).unwrap(), store.job(JobId::new()).unwrap()), (Some(first), None));
        store.keep("schedule", b"1").unwrap();
        store.keep("schedule", b"2").unwrap();
        assert_eq!((store.kept("schedule").unwrap(), store.kept("else").unwrap()), (Some(b"2".to_vec()), None));
    }
}

#[test]
fn only_so_many_are_kept_and_none_that_has_not_ended() {
    for (_directory, store) in stores() {
        let running = job(JobKind::Backup, JobState::Running);
        store.put(std::slice::from_ref(&running), None).unwrap();
        let ended: Vec<Job> = (0..KEPT + 5).map(|_| job(JobKind::Verify, JobState::Succeeded)).collect();
        store.put(&ended, None).unwrap();
        let jobs = all_of(&*store);
        assert_eq!((jobs.len(), jobs.first(), jobs.last()), (KEPT, Some(&running), ended.last()));
    }
}

#[test]
fn what_one_owner_claims_is_kept_from_others_until_its_job_ended_or_its_lease_expired() {
    for (_directory, store) in stores() {
        let (now, [one, other]) = (clock::now(), [Owner::new(), Owner::new()]);
        let admit =
            |job: &Job, owner, claims: &[Claim], at: DateTime<Utc>| store.admit(job, &assignment(owner, claims), at).unwrap();
        let [mut backup, import, third] =
            [JobKind::Backup, JobKind::Import, JobKind::Import].map(|kind| job(kind, JobState::Queued));
        assert_eq!(admit(&backup, one, &[Claim::Source], now), None);
        assert_eq!(admit(&import, other, &[database("a"), database("b")], now), None);
        // A refused job is not stored.
        let conflict = |claim, holder: &Job| Some(Conflict { claim, holder: holder.id });
        assert_eq!(admit(&third, other, &[database("x"), Claim::Source], now), conflict(Claim::Source, &backup));
        assert_eq!(admit(&third, one, &[database("x"), database("b")], now), conflict(database("b"), &import));
        assert_eq!(store.job(third.id).unwrap(), None);
        // Conflicts between jobs of one owner are for the owner to detect.
        assert_eq!(admit(&third, one, &[Claim::Source], now), None);
        // A job can claim more later.
        assert_eq!(admit(&backup, one, &[Claim::Source, database("c")], now), None);
        assert_eq!(admit(&import, other, &[database("a"), database("c")], now), conflict(database("c"), &backup));
        // A lease that is renewed while its owner works stays valid; another one expires.
        let later = now + TimeDelta::seconds(40);
        store.put(std::slice::from_ref(&backup), Some(Lease::from(one, later))).unwrap();
        assert_eq!(admit(&import, other, &[database("c")], now + TimeDelta::seconds(90)), conflict(database("c"), &backup));
        assert_eq!(admit(&import, other, &[database("c")], now + TimeDelta::seconds(101)), None);
        store.put(std::slice::from_ref(&import), Some(Lease::from(one, now))).unwrap();
        assert_eq!(admit(&import, other, &[database("c")], now), conflict(database("c"), &backup));
        // A job that has ended claims nothing.
        backup.state = JobState::Succeeded;
        store.put(std::slice::from_ref(&backup), None).unwrap();
        assert_eq!(admit(&import, other, &[database("c")], now), None);
    }
}

#[test]
fn whose_owner_is_gone_has_its_task_and_claims_still() {
    for (_directory, store) in stores() {
        let (now, owner) = (clock::now(), Owner::new());
        let [running, ended, of_old] =
            [JobState::Running, JobState::Queued, JobState::Running].map(|state| job(JobKind::Backup, state));
        let given = assignment(owner, &[Claim::Source, database("a")]);
        for job in [&running, &ended] {
            assert_eq!(store.admit(job, &given, now).unwrap(), None);
        }
        store.put(&[Job { state: JobState::Failed, ..ended }, of_old.clone()], None).unwrap();
        let orphans = store.orphans(now + TimeDelta::seconds(61)).unwrap();
        let expected = [Orphan { job: running, assignment: Some(given) }, Orphan { job: of_old, assignment: None }];
        assert_eq!(orphans, expected);
    }
}

#[test]
fn who_may_be_alive_is_no_orphan_in_a_store_that_several_share() {
    let (memory, now) = (Memory::default(), clock::now());
    assert_eq!(memory.admit(&job(JobKind::Backup, JobState::Queued), &assignment(Owner::new(), &[]), now).unwrap(), None);
    assert_eq!(memory.orphans(now + TimeDelta::seconds(59)).unwrap(), []);
}

// ---- the state file ----

/// Oldest first.
async fn all(state: &State) -> Vec<Job> {
    let mut jobs = state.newest(usize::MAX, Some).await.unwrap();
    jobs.reverse();
    jobs
}

#[tokio::test]
async fn what_was_kept_is_there_after_it_was_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/state.redb");
    let state = State::open(&path).await.unwrap();
    let mut job = Job::new(JobKind::Backup, Trigger::Manual, clock::now());
    state.put(vec![job.clone()], None).await.unwrap();
    job.state = JobState::Running;
    state.put(vec![job.clone()], None).await.unwrap();
    state.keep("schedule", &vec![1, 2]).await.unwrap();
    drop(state);
    let state = State::open(&path).await.unwrap();
    assert_eq!(all(&state).await, [job.clone()]);
    assert_eq!(state.job(job.id).await.unwrap(), Some(job));
    assert_eq!(state.kept::<Vec<u8>>("schedule").await.unwrap(), Some(vec![1, 2]));
    assert_eq!(state.kept::<Vec<u8>>("else").await.unwrap(), None);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_file_of_an_older_version_is_read_with_its_jobs_and_its_schedule() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bsonvault.redb");
    let mut running = Job::new(JobKind::Import, Trigger::Schedule, clock::now());
    let mut kept = serde_json::to_value(&running).unwrap();
    // Records from before some fields existed.
    kept["state"] = "running".into();
    kept["result"] = json!({ "import": { "collections": [{ "namespace": "a.b", "documents": 1, "digestMatches": true }], "documents": 1, "bytes": 2, "indexes": 0 } });
    {
        let database = Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        {
            let jobs: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("jobs");
            write.open_table(jobs).unwrap().insert(running.id.as_bytes(), kept.to_string().as_bytes()).unwrap();
            let settings: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("settings");
            let mut settings = write.open_table(settings).unwrap();
            settings.insert("version", b"1".as_slice()).unwrap();
            settings.insert("schedule", b"[1,2]".as_slice()).unwrap();
        }
        write.commit().unwrap();
    }
    let state = State::open(&path).await.unwrap();
    assert_eq!((state.replaced(), state.kept::<Vec<u8>>("schedule").await.unwrap()), (None, Some(vec![1, 2])));
    let orphans = state.orphans().await.unwrap();
    assert_eq!((orphans.len(), &orphans[0].assignment), (1, &None));
    running = orphans[0].job.clone();
    assert_eq!((running.state, running.result.import.as_ref().unwrap().documents), (JobState::Running, 1));
    state.put(vec![Job { state: JobState::Interrupted, ..running }], None).await.unwrap();
    // A version that knows only two tables leaves this version's data unchanged.
    assert_eq!(
        state.admit(job(JobKind::Backup, JobState::Queued), assignment(Owner::new(), &[Claim::Source])).await.unwrap(),
        None
    );
    drop(state);
    assert_eq!(State::open(&path).await.unwrap().orphans().await.unwrap().len(), 1);
}

#[tokio::test]
async fn after_an_error_of_the_disk_it_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (directory.path().join("s"), directory.path().join("other"));
    let disk = Arc::new(Disk::open(&path).unwrap());
    let state = State(disk.clone());
    // A different file in its place shows that it is reopened.
    let job = Job::new(JobKind::Backup, Trigger::Manual, clock::now());
    State::open(&other).await.unwrap().put(vec![job.clone()], None).await.unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert_eq!(all(&state).await, []);
    let failed = disk.write::<()>(|_| Err(Trouble::Library(redb::Error::PreviousIo))).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Storage, "{failed}");
    state.keep("schedule", &7).await.unwrap();
    assert_eq!((all(&state).await, state.kept::<u8>("schedule").await.unwrap()), (vec![job], Some(7)));
}

#[tokio::test]
async fn a_file_that_is_open_or_no_state_file_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let _open = State::open(&path).await.unwrap();
    let Err(busy) = State::open(&path).await else { panic!("opened twice") };
    assert_eq!(busy.kind(), ErrorKind::Busy);
    let other = directory.path().join("other");
    std::fs::write(&other, "not a database, but long enough to be looked at".repeat(200)).unwrap();
    let Err(damaged) = State::open(&other).await else { panic!("opened") };
    assert_eq!(damaged.kind(), ErrorKind::Damaged, "{damaged}");
    assert!(std::fs::read_to_string(&other).unwrap().starts_with("not a database"));
    let Err(storage) = State::open(&other.join("below")).await else { panic!("opened") };
    assert_eq!(storage.kind(), ErrorKind::Storage, "{storage}");
}

#[tokio::test]
async fn whatever_is_damaged_is_moved_aside_and_a_new_file_is_begun() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bsonvault.redb");
    let state = State::open(&path).await.unwrap();
    for _ in 0..40 {
        state.put(vec![Job::new(JobKind::Verify, Trigger::Manual, clock::now())], None).await.unwrap();
    }
    state.keep("schedule", &7).await.unwrap();
    drop(state);
    let whole = std::fs::read(&path).unwrap();
    let step = whole.len() / 25;
    let flips = (0..25).map(|n| {
        let mut bytes = whole.clone();
        bytes[n * step + n] ^= 1 << (n % 8);
        bytes
    });
    let pages = (0..12).map(|n| {
        let mut bytes = whole.clone();
        bytes[n * 4096..(n + 1) * 4096].fill(0);
        bytes
    });
    let cuts = (1..10).map(|n| whole[..n * whole.len() / 10 + n].to_vec());
    let mut replaced = 0;
    for (n, bytes) in flips.chain(pages).chain(cuts).enumerate() {
        std::fs::write(&path, &bytes).unwrap();
        let state = State::open(&path).await.unwrap_or_else(|e| panic!("case {n}: {e}"));
        let job = Job::new(JobKind::Backup, Trigger::Manual, clock::now());
        if let Err(e) = state.put(vec![job.clone()], None).await {
            // Damage that shows only on a write fails one attempt, and no more.
            assert_eq!(e.kind(), ErrorKind::Damaged, "case {n}: {e}");
            state.put(vec![job.clone()], None).await.unwrap_or_else(|e| panic!("case {n}: {e}"));
        }
        assert_eq!(state.job(job.id).await.unwrap(), Some(job), "case {n}");
        if let Some(aside) = state.replaced() {
            replaced += 1;
            assert!(aside.file_name().unwrap().to_str().unwrap().starts_with("bsonvault.redb.damaged-20"), "{aside:?}");
            assert_eq!(std::fs::read(&aside).unwrap().len(), bytes.len(), "case {n}: nothing of it is lost");
        }
    }
    assert!(replaced > 10, "{replaced}: too few of these are damage to prove anything");
}

#[tokio::test]
async fn damage_that_shows_later_is_mended_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bsonvault.redb");
    let disk = Arc::new(Disk::open(&path).unwrap());
    let state = State(disk.clone());
    state.keep("schedule", &7).await.unwrap();
    std::fs::write(&path, b"something else").unwrap();
    let failed = disk.write::<()>(|_| panic!("as the library does")).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Damaged, "{failed}");
    state.keep("schedule", &8).await.unwrap();
    assert_eq!(state.kept::<u8>("schedule").await.unwrap(), Some(8));
    assert!(state.replaced().is_some());
}
