//! Deletes a backup, or links of an archived oplog: never under a reader, and the manifest first.

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::error::{Error, ErrorKind, Result};
use crate::format::chain::ChainConfig;
use crate::format::heartbeat::Heartbeat;
use crate::format::reader::Reader;
use crate::repository::backend::{Lock, Objects};
use crate::repository::catalog::{Catalog, State, Summary, is_at_work, read_progress};
use crate::repository::chain::ChainPlace;
use crate::repository::layout;
use crate::repository::lock::read::readers;
use crate::system;

impl ChainPlace {
    /// Removes these links, the oldest of the archive, as far as they still are. The archive then
    /// begins with the link after them. Also removes what an earlier removal left. Returns the
    /// bytes that all of it took.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if it is being read, and by whom: then nothing was removed;
    /// [`ErrorKind::Damaged`]; [`ErrorKind::Storage`].
    pub async fn remove_links(&self, names: &[String], now: DateTime<Utc>) -> Result<u64> {
        let (what, place) = ("archive", self.objects());
        // 1. Nobody reads it, and nobody else removes anything. What was known before may be old.
        let Some(lock) = place.lock().await? else {
            let reader = reader_of(place, now).await;
            return Err(reader.map_or_else(
                || {
                    Error::new(ErrorKind::Busy, format!("{what} {} is locked by another process", place.location()))
                        .hint("it is being read, or links of it are removed: try again when that is done")
                },
                |reader| being_read(what, place, &reader),
            ));
        };
        refuse_readers(what, place, &lock, now).await?;
        let Some(parts) = self.parts().await? else { return Ok(0) };
        let count = parts.links.iter().take_while(|link| names.contains(&link.name)).count();

        // 2. From here on, it begins later. A reader that came since has left its note; one that
        // comes later reads this.
        if let Some(first) = parts.links.get(count).filter(|_| count > 0) {
            let config = ChainConfig { first: Some(first.name.clone()), ..parts.config.clone() };
            self.set_config(&config).await?;
            if let Err(busy) = refuse_readers(what, place, &lock, now).await {
                self.set_config(&parts.config).await?;
                return Err(busy);
            }
        }

        // 3. What is before that counts for nothing any more. One that was never finished may be
        // one that is being made.
        let count = if parts.links.len() > count { count } else { 0 };
        let removed = parts.links[..count].iter().map(|link| &link.name).chain(parts.given_up());
        let mut bytes = 0;
        for name in removed {
            let link = self.link(name);
            bytes += link.measure().await?.0;
            link.delete_all(layout::MANIFEST).await?;
        }
        Ok(bytes)
    }
}

impl Catalog {
    /// Deletes a backup, or the leftovers of a crashed one, and returns the bytes that it took.
    /// None if it is gone already.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if it is being made or read, and by whom; [`ErrorKind::Refused`] if it
    /// has changed since it was looked at; [`ErrorKind::Storage`]: then parts of it may remain, and
    /// it is no backup any more.
    pub async fn delete(&self, found: &Summary, now: DateTime<Utc>) -> Result<Option<u64>> {
        let place = self.repository.place(&found.name);
        self.looks.refuse_overdue(&place.location())?;

        // 1. From here on, nobody on this machine works on it or reads it, and nobody on another
        // one does now.
        let lock = match lock(&place, now).await {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            lock => lock?,
        };
        if !self.is_still(found, &place, &lock, now).await? {
            return Ok(None);
        }
        refuse_readers("backup", &place, &lock, now).await?;
        let (bytes, _) = place.measure().await?;

        // 2. The manifest first: from here on there is no backup.
        let manifest = place.get(layout::MANIFEST).await.ok();
        place.delete(layout::MANIFEST).await?;

        // 3. An earlier reader has left its note; a later one finds no manifest.
        if let Err(busy) = refuse_readers("backup", &place, &lock, now).await {
            return Err(put_back(&place, manifest, busy).await);
        }
        place.delete_all(layout::MANIFEST).await?;
        Ok(Some(bytes))
    }

    /// Why a backup cannot be deleted now, in words.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn in_use(&self, found: &Summary, now: DateTime<Utc>) -> Result<Option<String>> {
        let place = self.repository.place(&found.name);
        self.looks.refuse_overdue(&place.location())?;
        let looked = match lock(&place, now).await {
            Ok(lock) => refuse_readers("backup", &place, &lock, now).await,
            Err(e) => Err(e),
        };
        match looked {
            Err(e) if e.kind() == ErrorKind::Busy => Ok(Some(e.to_string())),
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(None),
        }
    }

    /// Whether it still exists and is what it was found to be.
    async fn is_still(&self, found: &Summary, place: &Objects, lock: &Lock, now: DateTime<Utc>) -> Result<bool> {
        let changed = |what: &str| Error::new(ErrorKind::Refused, format!("backup {} {what} meanwhile", found.location));
        match &found.state {
            State::Running(progress) => Err(running(place, progress)),
            State::Damaged(_) => Ok(place.exists().await),
            State::Complete(manifest) => match self.read_outline(place).await {
                Ok(now) if now.id == manifest.id => Ok(true),
                Ok(_) => Err(changed("was replaced by another one")),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
                Err(e) => Err(e),
            },
            State::Incomplete => {
                if place.size(layout::MANIFEST).await.is_ok() {
                    return Err(changed("was completed"));
                }
                match read_progress(place).await {
                    // If there are locks, ours proves that no process of this machine works on it.
                    Ok(progress) if progress.is_alive(now) && !(lock.holds() && is_of_this_machine(&progress)) => {
                        Err(running(place, &progress))
                    }
                    _ => Ok(place.exists().await),
                }
            }
        }
    }
}

fn is_of_this_machine(progress: &Heartbeat) -> bool {
    progress.locked && progress.host == system::host()
}

async fn lock(place: &Objects, now: DateTime<Utc>) -> Result<Lock> {
    match place.lock().await? {
        Some(lock) => Ok(lock),
        None => Err(who(place, now).await),
    }
}

/// The error that names who works on a locked directory.
async fn who(place: &Objects, now: DateTime<Utc>) -> Error {
    if let Ok(progress) = read_progress(place).await
        && is_at_work(place, &progress, now).await
    {
        return running(place, &progress);
    }
    match reader_of(place, now).await {
        Some(reader) => being_read("backup", place, &reader),
        None => Error::new(ErrorKind::Busy, format!("backup {} is locked by another process of this machine", place.location()))
            .hint("it is being read, resumed or deleted: try again when that is done"),
    }
}

/// The reader that was heard of last.
async fn reader_of(place: &Objects, now: DateTime<Utc>) -> Option<Reader> {
    let readers = readers(place).await.unwrap_or_default().into_iter().map(|(_, reader)| reader);
    readers.filter(|reader| reader.is_alive(now)).max_by_key(|reader| reader.heartbeat)
}

/// The notes of this machine's readers count only if there are no locks: they may have outlived
/// their processes.
async fn refuse_readers(what: &str, place: &Objects, lock: &Lock, now: DateTime<Utc>) -> Result<()> {
    let here = system::host();
    let readers = readers(place).await?.into_iter().map(|(_, reader)| reader);
    match readers.into_iter().find(|r| r.is_alive(now) && !(lock.holds() && r.locked && r.host == here)) {
        Some(reader) => Err(being_read(what, place, &reader)),
        None => Ok(()),
    }
}

fn being_read(what: &str, place: &Objects, reader: &Reader) -> Error {
    let since = reader.since.format("%Y-%m-%dT%H:%M:%SZ");
    Error::new(ErrorKind::Busy, format!("{what} {} is being read: {reader}, since {since}", place.location())).hint(
        "wait until that is done, or stop that process; a process that crashed on another machine counts for half a minute more",
    )
}

fn running(place: &Objects, progress: &Heartbeat) -> Error {
    let error = Error::new(
        ErrorKind::Busy,
        format!("backup {} is being made by process {} on {}", place.location(), progress.process, progress.host),
    )
    .hint("wait until it is done, or stop that process");
    match &progress.job {
        Some(job) => error.job(job),
        None => error,
    }
}

/// Undoes the first step of a deletion.
async fn put_back(place: &Objects, manifest: Option<Bytes>, error: Error) -> Error {
    let Some(manifest) = manifest else { return error };
    match place.put(layout::MANIFEST, vec![manifest]).await {
        Ok(()) => error,
        Err(e) => Error::new(
            ErrorKind::Storage,
            format!("{error}; its {} was already removed, and could not be restored: {e}", layout::MANIFEST),
        )
        .cause(e),
    }
}
