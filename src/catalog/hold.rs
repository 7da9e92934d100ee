//! Keeping a backup from being deleted while it is read: a lock for this machine, and a note with a heartbeat for others.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Backup;
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::key;
use crate::format::reader::{self, Reader};
use crate::store::{self, Lock, Store};

/// How often a lock that is in the way is waited for: a backup has one until a moment after its commit.
const ROUNDS: u32 = 15;

/// From when on the note of a reader that died is removed by the next one.
const FORGOTTEN: TimeDelta = TimeDelta::hours(1);

/// A backup that is not deleted as long as this is there. It may be dropped anywhere; the note is gone then.
#[derive(Debug)]
pub struct Hold {
    note: Arc<Note>,
    end: CancellationToken,
    /// Let go after the note is taken away.
    _lock: Option<Lock>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end.cancel();
        self.note.take_away();
    }
}

impl Backup {
    /// Keeps the backup from being deleted until what it gives is dropped. `purpose` is told to those who would delete it, in one word. Where the directory cannot be written
    /// to, a warning says so: then only processes of this machine are kept from it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where it was deleted since it was found; [`ErrorKind::Busy`] where it is being deleted.
    pub async fn hold(&self, purpose: &str) -> Result<Hold> {
        // 1. The lock: while it is there, no process of this machine begins to delete.
        let lock = self.lock().await?;

        // 2. The note, for other machines.
        let (id, now) = (Uuid::new_v4(), clock::now());
        let reader = Reader {
            host: store::host(),
            process: std::process::id(),
            purpose: purpose.to_owned(),
            locked: lock.as_ref().is_some_and(Lock::holds),
            since: now,
            heartbeat: now,
        };
        let note = Arc::new(Note { store: self.store.clone(), name: key::reader(id), reader, ended: Mutex::new(false) });
        let hold = Hold { note: note.clone(), end: CancellationToken::new(), _lock: lock };
        match renewed(&note).await {
            Ok(()) => {
                tokio::spawn(beat(note, hold.end.clone()));
            }
            Err(e) => tracing::warn!("whoever deletes backups from another machine cannot know that this one is being read: {e}"),
        }

        // 3. One who deletes takes the manifest away and then looks for notes: so either it sees the note, or this sees that.
        match self.store.size(key::MANIFEST).await {
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(self.gone()),
            _ => {}
        }
        forget(&self.store, now).await;
        Ok(hold)
    }

    async fn lock(&self) -> Result<Option<Lock>> {
        for _ in 0..ROUNDS {
            match self.store.lock_shared().await {
                Ok(Some(lock)) => return Ok(Some(lock)),
                Ok(None) if self.store.size(key::MANIFEST).await.is_err_and(|e| e.kind() == ErrorKind::NotFound) => {
                    return Err(self.gone());
                }
                Ok(None) => {}
                Err(e) if e.kind() == ErrorKind::NotFound => return Err(self.gone()),
                Err(e) => {
                    tracing::warn!("whoever deletes backups cannot know that this one is being read: {e}");
                    return Ok(None);
                }
            }
        }
        Err(Error::new(ErrorKind::Busy, format!("backup {} is locked by another process", self.location()))
            .hint("it may be about to be deleted: look again with `bsonvault list`"))
    }

    fn gone(&self) -> Error {
        Error::new(ErrorKind::NotFound, format!("Database backup not found: {} was deleted meanwhile", self.location()))
            .hint("`bsonvault list` shows the backups that there are")
    }
}

/// A reader's file.
#[derive(Debug)]
struct Note {
    store: Store,
    name: String,
    reader: Reader,
    /// Held while it is written, so that it does not come back after its end.
    ended: Mutex<bool>,
}

impl Note {
    fn renew(&self, now: DateTime<Utc>) -> Result<()> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if *ended {
            return Ok(());
        }
        let reader = Reader { heartbeat: now, ..self.reader.clone() };
        let bytes = serde_json::to_vec_pretty(&reader)
            .map_err(|e| Error::new(ErrorKind::Internal, format!("{} cannot be written", self.name)).cause(e))?;
        self.store.leave_note(&self.name, &bytes)
    }

    fn take_away(&self) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        *ended = true;
        if let Err(e) = self.store.take_note_away(&self.name) {
            tracing::debug!("{} is left behind, and counts for nothing soon: {e}", self.name);
        }
    }
}

async fn renewed(note: &Arc<Note>) -> Result<()> {
    let note = note.clone();
    let work = tokio::task::spawn_blocking(move || note.renew(clock::now()));
    work.await.map_err(|e| Error::new(ErrorKind::Internal, "a reader's heartbeat died").cause(e))?
}

async fn beat(note: Arc<Note>, end: CancellationToken) {
    let mut warned = false;
    loop {
        let pause = tokio::time::sleep(Duration::from_secs(reader::HEARTBEAT_SECONDS));
        if end.run_until_cancelled(pause).await.is_none() {
            return;
        }
        if let Err(e) = renewed(&note).await
            && !std::mem::replace(&mut warned, true)
        {
            tracing::warn!("the note of a reader could not be renewed: {e}");
        }
    }
}

/// What readers left in a backup's directory, with the names of the files. What cannot be read counts as none: it is renewed where its reader lives.
pub(super) async fn readers(store: &Store) -> Result<Vec<(String, Reader)>> {
    let mut readers = Vec::new();
    for name in store.files().await?.into_iter().filter(|name| key::is_reader(name)) {
        if store.size(&name).await.is_ok_and(|size| size <= reader::LIMIT)
            && let Ok(bytes) = store.get(&name).await
        {
            match serde_json::from_slice(&bytes) {
                Ok(reader) => readers.push((name, reader)),
                Err(e) => tracing::warn!("{name} in {} cannot be read, and counts for nothing: {e}", store.location()),
            }
        }
    }
    Ok(readers)
}

/// Removes the notes of readers that died long ago.
async fn forget(store: &Store, now: DateTime<Utc>) {
    for (name, reader) in readers(store).await.unwrap_or_default() {
        if now.signed_duration_since(reader.heartbeat).abs() > FORGOTTEN
            && let Err(e) = store.delete(&name).await
        {
            tracing::debug!("{name} of a reader that died is left: {e}");
        }
    }
}
