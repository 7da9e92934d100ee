//! Rules for every backend of a repository, however it stores objects. A new backend is added to
//! [`every_backend_conforms`].

use std::collections::HashSet;
use std::fmt::Debug;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bsonvault::clock;
use bsonvault::context::Context;
use bsonvault::context::cpu::CpuPool;
use bsonvault::engine::verify::{self, VerifyOptions};
use bsonvault::error::{ErrorKind, Result};
use bsonvault::names::BackupName;
use bsonvault::repository::backend::{Backend, Created, Entry, Found, Memory, Objects, Opened, Top};
use bsonvault::repository::catalog::{Catalog, State};
use bsonvault::repository::{Repository, Scratch};
use bytes::Bytes;
use futures::future::{BoxFuture, LocalBoxFuture, join_all};
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};

use crate::support::archive::{self, Given, Shape};

/// A rule, by name, checked on an empty place.
type Case = (&'static str, fn(Objects) -> LocalBoxFuture<'static, ()>);

const CASES: [Case; 14] = [
    ("put", |objects| put_and_get(objects).boxed_local()),
    ("absent", |objects| what_is_not_there(objects).boxed_local()),
    ("open", |objects| what_is_open_stays_as_it_was(objects).boxed_local()),
    ("thread", |objects| a_thread_reads_and_seeks(objects).boxed_local()),
    ("put if absent", |objects| one_of_many_puts_where_nothing_is(objects).boxed_local()),
    ("list", |objects| all_is_listed_and_no_more(objects).boxed_local()),
    ("keys", |objects| keys_are_kept_as_they_are(objects).boxed_local()),
    ("delete", |objects| what_is_deleted_is_gone(objects).boxed_local()),
    ("claim", |objects| a_place_is_claimed_once(objects).boxed_local()),
    ("create", |objects| nothing_is_there_before_it_is_finished(objects).boxed_local()),
    ("rename", |objects| what_is_moved_is_there_once(objects).boxed_local()),
    ("notes", |objects| notes_come_and_go(objects).boxed_local()),
    ("locks", |objects| locks_keep_others_out_where_there_are_any(objects).boxed_local()),
    ("backup", |objects| a_backup_lives_there(objects).boxed_local()),
];

/// The rules that a backend violates.
async fn failing(make: impl Fn() -> Objects) -> Vec<&'static str> {
    let mut failing = Vec::new();
    for (name, case) in CASES {
        if AssertUnwindSafe(case(make())).catch_unwind().await.is_err() {
            failing.push(name);
        }
    }
    failing
}

#[tokio::test]
async fn every_backend_conforms() {
    let directories = tempfile::tempdir().unwrap();
    let on_disk = || {
        let directory = directories.path().join(uuid::Uuid::new_v4().to_string()).join("not yet there");
        Objects::open(directory.to_str().unwrap()).unwrap()
    };
    assert_eq!(failing(on_disk).await, Vec::<&str>::new());
    assert_eq!(failing(Objects::in_memory).await, Vec::<&str>::new());
    // A backend with only the required methods.
    assert_eq!(failing(|| broken(Fault::None)).await, Vec::<&str>::new());
}

#[tokio::test]
async fn a_broken_backend_does_not_conform() {
    for (fault, found_by) in [
        (Fault::KeepsTheFirst, "put"),
        (Fault::ReadsShort, "put"),
        (Fault::ReadsWhatIsThereNow, "open"),
        (Fault::AbsentReplaces, "put if absent"),
        (Fault::ListsToo, "list"),
        (Fault::ListsLess, "list"),
        (Fault::DeletesNothing, "delete"),
        (Fault::ClaimsTwice, "claim"),
        (Fault::CreatesAtOnce, "create"),
        (Fault::RenamesOver, "rename"),
        (Fault::LeavesNotes, "notes"),
    ] {
        let failing = failing(|| broken(fault)).await;
        assert!(failing.contains(&found_by), "{fault:?}: {failing:?}");
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn put(objects: &Objects, key: &str, text: &str) {
    objects.put(key, vec![bytes(text)]).await.unwrap();
}

async fn keys(objects: &Objects) -> Vec<String> {
    objects.list().await.unwrap().into_iter().map(|entry| entry.key).collect()
}

async fn put_and_get(objects: Objects) {
    objects.put("x/one", vec![bytes("12"), Bytes::new(), bytes("345")]).await.unwrap();
    put(&objects, "empty", "").await;
    put(&objects, "top", "old and longer").await;
    put(&objects, "top", "new").await;
    for (key, text) in [("x/one", "12345"), ("empty", ""), ("top", "new")] {
        assert_eq!(objects.get(key).await.unwrap(), text);
        assert_eq!(objects.size(key).await.unwrap(), text.len() as u64);
        let (size, written) = objects.stamp(key).await.unwrap();
        assert!(size == text.len() as u64 && (clock::now() - written).num_seconds().abs() < 100);
    }
    assert_eq!(objects.below("x").get("one").await.unwrap(), "12345");
    objects.try_write().await.unwrap();
    assert_eq!(objects.measure().await.unwrap().0, 8);
    assert_eq!(keys(&objects).await, ["empty", "top", "x/one"]);
}

async fn what_is_not_there(objects: Objects) {
    assert!(!objects.exists().await && keys(&objects).await.is_empty() && objects.top().await.unwrap().prefixes.is_empty());
    assert!(objects.top().await.unwrap().objects.is_empty() && objects.measure().await.unwrap() == (0, None));
    for key in ["never", "never/there"] {
        let missing = [
            objects.get(key).await.err(),
            objects.size(key).await.err(),
            objects.open_object(key).await.err(),
            objects.open_to_read(key).await.err(),
        ];
        assert!(missing.iter().all(|e| e.as_ref().unwrap().kind() == ErrorKind::NotFound), "{missing:?}");
        assert!(objects.stamp(key).await.is_none());
        objects.delete(key).await.unwrap();
        objects.take_note_away(key).unwrap();
    }
    objects.delete_all("never").await.unwrap();
    for key in ["../x", "x/../y", "..", ".", "", "/x", "x//y", "x/", "./x"] {
        let led = [objects.get(key).await.err(), objects.put(key, vec![]).await.err(), objects.delete(key).await.err()];
        assert!(led.iter().all(|e| e.as_ref().unwrap().to_string().contains("leads outside")), "{key:?}");
    }
}

async fn what_is_open_stays_as_it_was(objects: Objects) {
    put(&objects, "d/x", "0123456789").await;
    let mut reader = objects.open_object("d/x").await.unwrap();
    assert_eq!((reader.size(), reader.read(4).await.unwrap()), (10, bytes("0123")));
    put(&objects, "d/x", "another").await;
    assert_eq!(reader.read(4).await.unwrap(), "4567");
    objects.delete("d/x").await.unwrap();
    assert_eq!(reader.read(4).await.unwrap(), "89");
    assert_eq!(reader.read(4).await.unwrap(), "");
}

async fn a_thread_reads_and_seeks(objects: Objects) {
    let text: String = (0..300_000).map(|n| format!("{n:08}")).collect();
    put(&objects, "x", &text).await;
    let mut reading = objects.open_to_read("x").await.unwrap();
    let work = move || {
        let (mut first, mut all, mut end) = ([0; 8], String::new(), String::new());
        reading.read_exact(&mut first).unwrap();
        reading.seek(SeekFrom::Start(0)).unwrap();
        reading.read_to_string(&mut all).unwrap();
        reading.seek(SeekFrom::End(-8)).unwrap();
        reading.read_to_string(&mut end).unwrap();
        (first, all, end)
    };
    let (first, all, end) = tokio::task::spawn_blocking(work).await.unwrap();
    assert!(&first == b"00000000" && all == text && end == "00299999");
}

async fn one_of_many_puts_where_nothing_is(objects: Objects) {
    let tries = join_all((0..20).map(|n| objects.put_if_absent("d/x", bytes(&n.to_string())))).await;
    let won: Vec<usize> = (0..20).filter(|&n| *tries[n].as_ref().unwrap()).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(objects.get("d/x").await.unwrap(), won[0].to_string());
    assert!(!objects.put_if_absent("d/x", bytes("late")).await.unwrap());
    assert_eq!(objects.get("d/x").await.unwrap(), won[0].to_string());
    assert_eq!(keys(&objects).await, ["d/x"]);
}

async fn all_is_listed_and_no_more(objects: Objects) {
    for key in ["x/a/1", "x/b", "x.y/c", "xy/d", "top", "x/a/2"] {
        put(&objects, key, key).await;
    }
    let entry = |key: &str| Entry { key: key.to_owned(), size: key.len() as u64 };
    let all = ["top", "x.y/c", "x/a/1", "x/a/2", "x/b", "xy/d"].map(entry);
    assert_eq!(objects.list().await.unwrap(), all);
    assert_eq!(objects.top().await.unwrap().prefixes, ["x", "x.y", "xy"]);
    assert_eq!(objects.top().await.unwrap().objects, ["top"]);
    let below = objects.below("x");
    assert_eq!(keys(&below).await, ["a/1", "a/2", "b"]);
    assert_eq!((below.top().await.unwrap().prefixes, below.top().await.unwrap().objects), (vec!["a".into()], vec!["b".into()]));
    assert!(below.exists().await && !objects.below("y").exists().await);
    assert!(below.is(&objects.below("x")) && !below.is(&objects.below("xy")) && below.name().unwrap() == "x");
    let (bytes, newest) = objects.measure().await.unwrap();
    assert!(bytes == all.iter().map(|entry| entry.size).sum::<u64>() && newest.is_some());
    let mut seen = 0;
    let look = |_| {
        seen += 1;
        std::ops::ControlFlow::Break(())
    };
    objects.each(look).await.unwrap();
    assert_eq!(seen, 1);
}

async fn keys_are_kept_as_they_are(objects: Objects) {
    let longest = format!("d/{}", "n".repeat(253));
    let mut all =
        ["d/100%", "d/a%2Fb", "d/über-日本", "d/a+b c", "d/[*]?", "d/~x", "d/..x", "d/'\"", "d #1/x", "d/a#b", &longest];
    for key in all {
        put(&objects, key, key).await;
        assert_eq!(objects.get(key).await.unwrap(), key);
    }
    all.sort_unstable();
    assert_eq!(keys(&objects).await, all);
}

async fn what_is_deleted_is_gone(objects: Objects) {
    for key in ["a/1", "a/2", "a/b/3", "c"] {
        put(&objects, key, key).await;
    }
    objects.delete("a/1").await.unwrap();
    objects.delete("a/1").await.unwrap();
    assert_eq!(keys(&objects).await, ["a/2", "a/b/3", "c"]);
    assert_eq!(objects.sweep(HashSet::from(["a/b/3".to_owned()])).await.unwrap(), 2);
    assert_eq!(keys(&objects).await, ["a/b/3"]);
    objects.below("a").delete_all("2").await.unwrap();
    assert!(keys(&objects).await.is_empty() && !objects.below("a").exists().await);
}

async fn a_place_is_claimed_once(objects: Objects) {
    let place = objects.below("one");
    let claims = join_all((0..20).map(|_| place.claim())).await;
    assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), 1);
    assert!(claims.iter().filter_map(|claim| claim.as_ref().err()).all(|e| e.kind() == ErrorKind::Refused));
    assert!(place.exists().await && keys(&place).await.is_empty());
    put(&objects, "two/x", "x").await;
    assert_eq!(objects.below("two").claim().await.unwrap_err().kind(), ErrorKind::Refused);
    place.delete_all("x").await.unwrap();
    place.claim().await.unwrap();
}

async fn nothing_is_there_before_it_is_finished(objects: Objects) {
    let work = {
        let objects = objects.clone();
        move || {
            let mut left = objects.create("d/left").unwrap();
            left.write_all(b"half").unwrap();
            drop(left);
            let mut object = objects.create("d/x").unwrap();
            object.write_all(b"one, ").unwrap();
            object.write_all(b"two").unwrap();
            object
        }
    };
    let object = tokio::task::spawn_blocking(work).await.unwrap();
    assert_eq!(objects.get("d/x").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(keys(&objects).await.is_empty());
    tokio::task::spawn_blocking(move || object.finish()).await.unwrap().unwrap();
    assert_eq!(objects.get("d/x").await.unwrap(), "one, two");
    assert_eq!(objects.create("d/x").err().unwrap().kind(), ErrorKind::Refused);
    assert_eq!(keys(&objects).await, ["d/x"]);
}

async fn what_is_moved_is_there_once(objects: Objects) {
    put(&objects, "from/a", "a").await;
    put(&objects, "from/b/c", "c").await;
    put(&objects, "taken/x", "x").await;
    assert_eq!(objects.rename("from", "taken").await.unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(keys(&objects).await, ["from/a", "from/b/c", "taken/x"]);
    objects.rename("from", "to").await.unwrap();
    assert_eq!(keys(&objects).await, ["taken/x", "to/a", "to/b/c"]);
    assert!(!objects.below("from").exists().await);

    let repository = Repository::of(objects.clone());
    let scratch = Scratch::make(&repository).await.unwrap();
    put(scratch.objects(), "new/a", "new").await;
    scratch.keep("new").await.unwrap();
    put(scratch.objects(), "other", "goes").await;
    drop(scratch);
    assert_eq!(keys(&objects).await, ["new/a", "taken/x", "to/a", "to/b/c"]);
}

async fn notes_come_and_go(objects: Objects) {
    put(&objects, "x", "x").await;
    for text in ["one", "two and longer", "3"] {
        objects.leave_note("note", text.as_bytes()).unwrap();
        assert_eq!(objects.get("note").await.unwrap(), text);
    }
    assert_eq!(objects.top().await.unwrap().objects, ["note", "x"]);
    objects.take_note_away("note").unwrap();
    objects.take_note_away("note").unwrap();
    assert_eq!(keys(&objects).await, ["x"]);
}

async fn locks_keep_others_out_where_there_are_any(objects: Objects) {
    objects.claim().await.unwrap();
    let lock = objects.lock().await.unwrap().unwrap();
    if !lock.holds() {
        assert_eq!(objects.is_locked().await, None);
        return;
    }
    assert!(objects.lock().await.unwrap().is_none() && objects.lock_shared().await.unwrap().is_none());
    assert_eq!(objects.is_locked().await, Some(true));
    drop(lock);
    let (one, two) = (objects.lock_shared().await.unwrap(), objects.lock_shared().await.unwrap());
    assert!(one.is_some() && two.is_some() && objects.lock().await.unwrap().is_none());
    drop((one, two));
    assert_eq!(objects.is_locked().await, Some(false));
}

async fn a_backup_lives_there(objects: Objects) {
    let repository = Repository::of(objects);
    let catalog = Catalog::new(repository.clone(), &CpuPool::new(1));
    let name = BackupName::at(clock::now());
    let documents = (0..100).map(|n| bson::rawdoc! { "_id": n }.into_bytes()).collect();
    archive::write(&repository.place(&name), &[Given::new("d", "c", documents)], Shape::of(60, 1000)).await.unwrap();

    let found = catalog.list(clock::now()).await.unwrap();
    assert!(found.len() == 1 && matches!(found[0].state, State::Complete(_)), "{found:?}");
    let backup = catalog.find(name.as_str()).await.unwrap();
    let report = verify::run(&backup, &VerifyOptions { deep: true }, &Context::default()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");

    let lock = backup.read_lock("verify").await.unwrap();
    assert_eq!(catalog.delete(&found[0], clock::now()).await.unwrap_err().kind(), ErrorKind::Busy);
    drop(lock);
    assert!(catalog.delete(&found[0], clock::now()).await.unwrap().unwrap() > 0);
    assert!(catalog.list(clock::now()).await.unwrap().is_empty() && !repository.place(&name).exists().await);
}

/// What is wrong with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    KeepsTheFirst,
    ReadsShort,
    ReadsWhatIsThereNow,
    AbsentReplaces,
    ListsToo,
    ListsLess,
    DeletesNothing,
    ClaimsTwice,
    CreatesAtOnce,
    RenamesOver,
    LeavesNotes,
}

/// A memory backend with a fault, and without the optional methods.
#[derive(Debug, Clone)]
struct Broken {
    inner: Arc<dyn Backend>,
    fault: Fault,
}

fn broken(fault: Fault) -> Objects {
    Objects::of(Arc::new(Broken { inner: Arc::new(Memory::default()), fault }))
}

impl Broken {
    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }
}

impl Backend for Broken {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn below(&self, prefix: &str) -> Arc<dyn Backend> {
        Arc::new(Self { inner: self.inner.below(prefix), fault: self.fault })
    }

    fn put<'a>(&'a self, key: &'a str, chunks: Vec<Bytes>) -> BoxFuture<'a, Result<()>> {
        match self.has(Fault::KeepsTheFirst) {
            true => async move { self.inner.put_if_absent(key, chunks.concat().into()).await.map(drop) }.boxed(),
            false => self.inner.put(key, chunks),
        }
    }

    fn put_if_absent<'a>(&'a self, key: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<bool>> {
        match self.has(Fault::AbsentReplaces) {
            true => async move { self.inner.put(key, vec![bytes]).await.map(|()| true) }.boxed(),
            false => self.inner.put_if_absent(key, bytes),
        }
    }

    fn create(&self, key: &str) -> Result<Box<dyn Created>> {
        if self.has(Fault::CreatesAtOnce) {
            self.inner.create(key)?.finish()?;
        }
        self.inner.create(key)
    }

    fn open<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Box<dyn Opened>>> {
        async move {
            let opened = self.inner.open(key).await?;
            Ok(match self.fault {
                Fault::ReadsShort => Box::new(Changed { of: self.clone(), key: None, size: opened.size(), opened }),
                Fault::ReadsWhatIsThereNow => {
                    Box::new(Changed { of: self.clone(), key: Some(key.to_owned()), size: opened.size(), opened })
                }
                _ => opened,
            })
        }
        .boxed()
    }

    fn look<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Found>> {
        self.inner.look(key)
    }

    fn list(&self) -> BoxStream<'_, Result<Entry>> {
        let too = self.has(Fault::ListsToo).then(|| Ok(Entry { key: "more".to_owned(), size: 0 }));
        let listed = self.inner.list().chain(futures::stream::iter(too));
        listed.skip(usize::from(self.has(Fault::ListsLess))).boxed()
    }

    fn top(&self) -> BoxFuture<'_, Result<Top>> {
        self.inner.top()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        match self.has(Fault::DeletesNothing) {
            true => async { Ok(()) }.boxed(),
            false => self.inner.delete(key),
        }
    }

    fn claim(&self) -> BoxFuture<'_, Result<()>> {
        async move {
            match self.inner.claim().await {
                Err(_) if self.has(Fault::ClaimsTwice) => Ok(()),
                claimed => claimed,
            }
        }
        .boxed()
    }

    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            if self.has(Fault::RenamesOver) {
                self.inner.below(to).delete_all().await?;
            }
            self.inner.rename(from, to).await
        }
        .boxed()
    }

    fn leave_note(&self, key: &str, bytes: &[u8]) -> Result<()> {
        self.inner.leave_note(key, bytes)
    }

    fn take_note_away(&self, key: &str) -> Result<()> {
        if self.has(Fault::LeavesNotes) { Ok(()) } else { self.inner.take_note_away(key) }
    }

    fn exists(&self) -> BoxFuture<'_, Result<bool>> {
        self.inner.exists()
    }

    fn delete_all(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.delete_all()
    }

    fn until_dropped(&self) -> Box<dyn Debug + Send + Sync> {
        self.inner.until_dropped()
    }
}

/// An object whose content is not read as it was when it was opened.
#[derive(Debug)]
struct Changed {
    of: Broken,
    key: Option<String>,
    size: u64,
    opened: Box<dyn Opened>,
}

impl Opened for Changed {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move {
            match &self.key {
                Some(key) => self.of.inner.open(key).await?.read(range).await,
                None => self.opened.read(range.start..range.end.saturating_sub(1)).await,
            }
        }
        .boxed()
    }
}
