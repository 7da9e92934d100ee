//! The read lock, which keeps a backup from being deleted while it is read, and an archived oplog
//! from losing its old links: a lock for this machine, and a note with a heartbeat for others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock;
use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::reader::{self, Reader};
use crate::repository::backend::{Lock, Objects};
use crate::repository::catalog::Backup;
use crate::repository::chain::ChainPlace;
use crate::repository::layout;
use crate::system;

/// How many times to wait for a lock that is in the way: a backup holds one until a moment after
/// its commit.
const ROUNDS: u32 = 15;

/// The age at which the next reader removes the note of a crashed one.
const FORGOTTEN: TimeDelta = TimeDelta::hours(1);

/// The longest read lock. A reader that takes longer has stopped, or is too slow to block the disk
/// for.
const LONGEST: Duration = Duration::from_secs(3 * 24 * 3600);

/// How long the end of a read lock waits for the disk.
const LAST: Duration = Duration::from_secs(1);

/// A backup that is not deleted while this exists, or an archive that loses no link. It may be
/// dropped anywhere; its note is then removed.
#[derive(Debug)]
pub struct ReadLock {
    note: Arc<Note>,
    end: CancellationToken,
    /// Released after the note is removed.
    lock: Arc<Mutex<Option<Lock>>>,
}

impl Drop for ReadLock {
    fn drop(&mut self) {
        self.end.cancel();
        // Not here: this may be any thread, and a hanging mount would block it. Not by the runtime:
        // it may be ending.
        let (note, lock) = (self.note.clone(), self.lock.clone());
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        let going = std::thread::Builder::new().name("read-lock".to_owned()).spawn(move || {
            let_go(&note, &lock);
            drop(done);
        });
        if going.is_ok() {
            let _gone_or_late = is_done.recv_timeout(LAST);
        }
    }
}

impl Backup {
    /// Keeps the backup from being deleted until the result is dropped. `purpose` is shown, in one
    /// word, to those who try to delete it. If the directory is not writable, a warning says so:
    /// then only processes of this machine are kept from deleting it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if it was deleted since it was found; [`ErrorKind::Busy`] if it is
    /// being deleted.
    pub async fn read_lock(&self, purpose: &str) -> Result<ReadLock> {
        self.read_lock_within(purpose, LONGEST, |_| {}).await
    }

    /// The same, and calls `tell` if the lock expires: after some days, it gives way to deletion.
    ///
    /// # Errors
    /// As for [`read_lock`](Self::read_lock).
    pub async fn read_lock_telling(&self, purpose: &str, tell: impl FnOnce(String) + Send + 'static) -> Result<ReadLock> {
        self.read_lock_within(purpose, LONGEST, tell).await
    }

    async fn read_lock_within(
        &self,
        purpose: &str,
        longest: Duration,
        tell: impl FnOnce(String) + Send + 'static,
    ) -> Result<ReadLock> {
        Readable { store: &self.store, own: layout::MANIFEST, what: "backup" }.read_lock_within(purpose, longest, tell).await
    }
}

impl ChainPlace {
    /// Keeps the archive from losing links until the result is dropped. Take it before you look at
    /// what the archive consists of. Otherwise as for [`Backup::read_lock`].
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no archive; [`ErrorKind::Busy`] if links are being
    /// removed.
    pub async fn read_lock(&self, purpose: &str) -> Result<ReadLock> {
        let archive = Readable { store: self.objects(), own: layout::CHAIN, what: "archive" };
        archive.read_lock_within(purpose, LONGEST, |_| {}).await
    }
}

/// What is read: a place, and the object that makes it one.
struct Readable<'a> {
    store: &'a Objects,
    own: &'static str,
    what: &'static str,
}

impl Readable<'_> {
    async fn read_lock_within(
        &self,
        purpose: &str,
        longest: Duration,
        tell: impl FnOnce(String) + Send + 'static,
    ) -> Result<ReadLock> {
        // 1. The lock: while it exists, no process of this machine begins to delete.
        let lock = self.shared_lock().await?;

        // 2. The note, for other machines.
        let (id, now) = (Uuid::new_v4(), clock::now());
        let reader = Reader {
            host: system::host(),
            process: std::process::id(),
            purpose: purpose.to_owned(),
            locked: lock.as_ref().is_some_and(Lock::holds),
            since: now,
            heartbeat: now,
        };
        let note = Arc::new(Note { store: self.store.clone(), name: layout::reader(id), reader, ended: Mutex::new(false) });
        let read_lock = ReadLock { note: note.clone(), end: CancellationToken::new(), lock: Arc::new(Mutex::new(lock)) };
        let is_noted = match renewed(&note).await {
            Ok(()) => true,
            Err(e) => {
                tracing::warn!("other machines cannot see that this {} is being read, and may delete it: {e}", self.what);
                false
            }
        };
        let (end, lock, location) = (read_lock.end.clone(), read_lock.lock.clone(), self.store.location());
        let (purpose, what) = (purpose.to_owned(), self.what);
        tokio::spawn(async move {
            let kept = async {
                match is_noted {
                    true => beat(&note).await,
                    false => std::future::pending().await,
                }
            };
            let until_late = async { tokio::time::timeout(longest, kept).await.is_err() };
            if end.run_until_cancelled(until_late).await == Some(true) {
                let said = format!(
                    "the {purpose} has read the {what} {location} for {} hours, and no longer keeps it from being deleted",
                    longest.as_secs() / 3600
                );
                tracing::warn!("{said}");
                tell(said);
                let _its_end = tokio::task::spawn_blocking(move || let_go(&note, &lock)).await;
            }
        });

        // 3. A deletion removes the manifest and then looks for notes. So either it sees the note,
        // or the manifest is missing here. Of an archive, `chain.json` is changed instead, and read
        // after this.
        match self.store.size(self.own).await {
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(self.gone()),
            _ => {}
        }
        forget(self.store, now).await;
        Ok(read_lock)
    }

    async fn shared_lock(&self) -> Result<Option<Lock>> {
        for _ in 0..ROUNDS {
            match self.store.lock_shared().await {
                Ok(Some(lock)) => return Ok(Some(lock)),
                Ok(None) if self.store.size(self.own).await.is_err_and(|e| e.kind() == ErrorKind::NotFound) => {
                    return Err(self.gone());
                }
                Ok(None) => {}
                Err(e) if e.kind() == ErrorKind::NotFound => return Err(self.gone()),
                Err(e) => {
                    tracing::warn!("other processes cannot see that this {} is being read, and may delete it: {e}", self.what);
                    return Ok(None);
                }
            }
        }
        Err(Error::new(ErrorKind::Busy, format!("{} {} is locked by another process", self.what, self.store.location()))
            .hint("it may be about to be deleted: look again with `bsonvault list`"))
    }

    fn gone(&self) -> Error {
        if self.own == layout::CHAIN {
            let what = format!("{} is no archive of an oplog: it has no {}", self.store.location(), layout::CHAIN);
            return Error::new(ErrorKind::NotFound, what).hint("`bsonvault timeline` shows the archives");
        }
        Error::new(ErrorKind::NotFound, format!("Database backup not found: {} was deleted meanwhile", self.store.location()))
            .hint("`bsonvault list` shows all backups")
    }
}

/// A reader's file.
#[derive(Debug)]
struct Note {
    store: Objects,
    name: String,
    reader: Reader,
    /// Held while it is written, so that it does not reappear after its end.
    ended: Mutex<bool>,
}

impl Note {
    fn renew(&self, now: DateTime<Utc>) -> Result<()> {
        let ended = lock(&self.ended);
        if *ended {
            return Ok(());
        }
        let reader = Reader { heartbeat: now, ..self.reader.clone() };
        let bytes = serde_json::to_vec_pretty(&reader)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("{} cannot be written", self.name)).cause(e))?;
        self.store.leave_note(&self.name, &bytes)
    }

    fn take_away(&self) {
        let mut ended = lock(&self.ended);
        *ended = true;
        if let Err(e) = self.store.take_note_away(&self.name) {
            tracing::debug!("{} could not be removed, and expires soon: {e}", self.name);
        }
    }
}

async fn renewed(note: &Arc<Note>) -> Result<()> {
    let note = note.clone();
    let work = tokio::task::spawn_blocking(move || note.renew(clock::now()));
    work.await.map_err(|e| Error::new(ErrorKind::Internal, "a reader's heartbeat died").cause(e))?
}

/// Ends a read lock. Blocks on the disk.
fn let_go(note: &Note, held: &Mutex<Option<Lock>>) {
    note.take_away();
    drop(lock(held).take());
}

/// Renews the note, forever.
async fn beat(note: &Arc<Note>) {
    let mut warned = false;
    loop {
        tokio::time::sleep(Duration::from_secs(reader::HEARTBEAT_SECONDS)).await;
        if let Err(e) = renewed(note).await
            && !std::mem::replace(&mut warned, true)
        {
            tracing::warn!("the note of a reader could not be renewed: {e}");
        }
    }
}

/// The notes of readers in a directory, with their file names. Unreadable notes are
/// ignored: a live reader renews its own.
pub(in crate::repository) async fn readers(store: &Objects) -> Result<Vec<(String, Reader)>> {
    let mut readers = Vec::new();
    for name in store.top().await?.objects.into_iter().filter(|name| layout::is_reader(name)) {
        if store.size(&name).await.is_ok_and(|size| size <= reader::LIMIT)
            && let Ok(bytes) = store.get(&name).await
        {
            match serde_json::from_slice(&bytes) {
                Ok(reader) => readers.push((name, reader)),
                Err(e) => tracing::warn!("{name} in {} cannot be read, and is ignored: {e}", store.location()),
            }
        }
    }
    Ok(readers)
}

/// Removes the notes of readers that crashed long ago.
async fn forget(store: &Objects, now: DateTime<Utc>) {
    for (name, reader) in readers(store).await.unwrap_or_default() {
        if now.signed_duration_since(reader.heartbeat).abs() > FORGOTTEN
            && let Err(e) = store.delete(&name).await
        {
            tracing::debug!("{name} of a crashed reader could not be removed: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::cpu::CpuPool;
    use crate::repository::catalog::Catalog;

    #[tokio::test]
    async fn a_read_lock_that_lasts_too_long_gives_way_and_says_so() {
        const NAME: &str = "atlas-backup-2026-11-22T21-45-00-000Z";
        let directory = tempfile::tempdir().unwrap();
        let fixture = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/v2").join(NAME);
        assert!(std::process::Command::new("cp").arg("-r").arg(fixture).arg(directory.path()).status().unwrap().success());
        let catalog =
            Catalog::new(crate::repository::Repository::open(directory.path().to_str().unwrap()).unwrap(), &CpuPool::new(1));
        let backup = catalog.find(NAME).await.unwrap();
        let found = catalog.list(clock::now()).await.unwrap().remove(0);

        let (tell, told) = tokio::sync::oneshot::channel();
        let longest = Duration::from_secs(2);
        let read_lock = backup.read_lock_within("import", longest, |said| tell.send(said).unwrap()).await.unwrap();
        assert_eq!(catalog.delete(&found, clock::now()).await.unwrap_err().kind(), ErrorKind::Busy);
        let said = told.await.unwrap();
        assert!(said.contains("the import has read the backup") && said.contains(NAME), "{said}");
        while catalog.in_use(&found, clock::now()).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
        assert!(catalog.delete(&found, clock::now()).await.unwrap().is_some());
        drop(read_lock);
    }
}
