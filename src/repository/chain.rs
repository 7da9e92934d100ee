//! Archived oplogs in a repository: one chain for each replica set, at `oplog/REPLICASETID`.
//!
//! A chain has links, each a directory whose manifest commits it, and pieces in `open`, which are
//! not part of a link yet.

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::Repository;
use super::backend::{Lock, Objects};
use super::layout::{self, MANIFEST};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::chain::{
    Archiver, CHAIN_LIMIT, ChainConfig, LINK_LIMIT, Link, PIECE_LIMIT, ReplayRate, is_link_name, is_replica_set_id,
};
use crate::system;

/// One chain of a repository.
#[derive(Debug, Clone)]
pub struct ChainPlace {
    id: String,
    objects: Objects,
}

/// What a chain consists of at one time.
#[derive(Debug, Clone)]
pub struct ChainParts {
    /// What it is of.
    pub config: ChainConfig,
    /// The links that count, oldest first.
    pub links: Vec<Link>,
    /// The numbers of the pieces after the last link, in order.
    pub pieces: Vec<u64>,
    /// The process that writes it, or wrote it last.
    pub archiver: Option<Archiver>,
    /// Links that are unusable: the key, and why.
    pub damaged: Vec<(String, String)>,
    /// What may be removed: links that were given up, and links that were never finished.
    pub leftovers: Vec<String>,
    /// Pieces that are part of a link already.
    pub rolled: Vec<u64>,
}

impl ChainParts {
    /// The leftovers that are older than the first link that counts. Nobody makes such a link.
    pub fn given_up(&self) -> impl Iterator<Item = &String> {
        let first = self.config.first.as_ref();
        self.leftovers.iter().filter(move |name| first.is_some_and(|first| *name < first))
    }
}

impl Repository {
    /// The chain of the replica set with this ID, whether it exists or not.
    #[must_use]
    pub fn chain(&self, replica_set_id: &str) -> ChainPlace {
        let objects = self.objects().below(&format!("{}/{replica_set_id}", layout::OPLOG_ARCHIVES));
        ChainPlace { id: replica_set_id.to_owned(), objects }
    }

    /// All chains, by their IDs.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn chains(&self) -> Result<Vec<ChainPlace>> {
        let mut ids = self.objects().below(layout::OPLOG_ARCHIVES).top().await?.prefixes;
        ids.retain(|id| is_replica_set_id(id));
        Ok(ids.iter().map(|id| self.chain(id)).collect())
    }
}

impl ChainPlace {
    /// The replica set's ID.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its objects.
    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Its location, for people.
    #[must_use]
    pub fn location(&self) -> String {
        self.objects.location()
    }

    /// The objects of a link.
    #[must_use]
    pub fn link(&self, name: &str) -> Objects {
        self.objects.below(name)
    }

    /// The objects of the pieces.
    #[must_use]
    pub fn open(&self) -> Objects {
        self.objects.below(layout::OPEN)
    }

    /// What it is of; `None` if it does not exist.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`]; [`ErrorKind::Storage`].
    pub async fn config(&self) -> Result<Option<ChainConfig>> {
        let Some(bytes) = self.small(layout::CHAIN).await? else { return Ok(None) };
        let config = ChainConfig::from_bytes(&bytes).map_err(|e| e.context(self.location()))?;
        if config.replica_set_id != self.id {
            return Err(Error::damaged(format!(
                "{} is the archive of another replica set, {}",
                self.location(),
                config.replica_set_id
            ))
            .hint("somebody renamed or exchanged the directory: give it back its name"));
        }
        Ok(Some(config))
    }

    /// Writes `chain.json`.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn set_config(&self, config: &ChainConfig) -> Result<()> {
        self.objects.put(layout::CHAIN, vec![config.to_bytes()?.into()]).await
    }

    /// The process that writes it, or wrote it last.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`]; [`ErrorKind::Storage`].
    pub async fn archiver(&self) -> Result<Option<Archiver>> {
        let Some(bytes) = self.small(layout::ARCHIVER).await? else { return Ok(None) };
        Archiver::from_bytes(&bytes).map(Some)
    }

    /// Says what the process that writes it does. Need not survive a power failure.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn set_archiver(&self, archiver: &Archiver) -> Result<()> {
        let (objects, bytes) = (self.objects.clone(), archiver.to_bytes()?);
        let work = tokio::task::spawn_blocking(move || objects.leave_note(layout::ARCHIVER, &bytes));
        work.await.map_err(|e| Error::new(ErrorKind::Internal, "a task of the file system died").cause(e))?
    }

    /// How fast it was replayed the last time, if that is known.
    pub async fn rate(&self) -> Option<ReplayRate> {
        serde_json::from_slice(&self.small(layout::RATE).await.ok()??).ok()
    }

    /// Says how fast it was replayed. If that cannot be written, it is not known.
    pub async fn set_rate(&self, rate: ReplayRate) {
        let Ok(bytes) = serde_json::to_vec_pretty(&rate) else { return };
        if let Err(e) = self.objects.put(layout::RATE, vec![bytes.into()]).await {
            tracing::debug!("how fast the archive was replayed could not be written: {e}");
        }
    }

    /// Makes sure that it can be [locked](Self::lock).
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn make(&self) -> Result<()> {
        match self.open().claim().await {
            Err(e) if e.kind() == ErrorKind::Refused => Ok(()),
            claimed => claimed,
        }
    }

    /// Keeps other archivers of this machine out of it. `None` if one is there already.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn lock(&self) -> Result<Option<Lock>> {
        self.open().lock().await
    }

    /// Whether the process with this heartbeat is still at work.
    pub async fn is_written(&self, archiver: Option<&Archiver>) -> bool {
        let Some(archiver) = archiver.filter(|archiver| !archiver.ended) else { return false };
        // If there are locks, a process of this machine that is alive has one.
        if archiver.locked
            && archiver.host == system::host()
            && let Some(is_locked) = self.open().is_locked().await
        {
            return is_locked;
        }
        archiver.is_alive(clock::now())
    }

    /// Keeps archivers of this machine out of it. `None` if one is at work, here or elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn keep_archivers_out(&self, now: DateTime<Utc>) -> Result<Option<Lock>> {
        self.make().await?;
        let Some(lock) = self.lock().await? else { return Ok(None) };
        // A process of this machine would have the lock.
        let is_here = |other: &Archiver| other.locked && lock.holds() && other.host == system::host();
        let other = self.archiver().await.unwrap_or_default().filter(|other| other.is_alive(now) && !is_here(other));
        Ok(other.is_none().then_some(lock))
    }

    /// What it consists of; `None` if it does not exist.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if it is unclear what it is of; [`ErrorKind::Storage`]. Damaged links
    /// are in the result.
    pub async fn parts(&self) -> Result<Option<ChainParts>> {
        let Some(config) = self.config().await? else { return Ok(None) };
        // In this order, because an archiver may be at work: the piece that it names is then among
        // the pieces or in a link, and a piece that becomes part of a link is in that link.
        let archiver = self.archiver().await.unwrap_or_default();
        let pieces = self.pieces().await?;
        let (mut links, mut damaged, mut leftovers) = (Vec::new(), Vec::new(), Vec::new());
        for name in self.objects.top().await?.prefixes.into_iter().filter(|name| is_link_name(name)) {
            if config.first.as_ref().is_some_and(|first| name < *first) {
                leftovers.push(name);
                continue;
            }
            match self.read_link(&name).await {
                Ok(Some(link)) => links.push(link),
                Ok(None) => leftovers.push(name),
                Err(e) if e.kind() == ErrorKind::Storage => return Err(e),
                Err(e) => damaged.push((format!("{name}/{MANIFEST}"), e.to_string())),
            }
        }
        links.sort_by_key(|link| (link.pieces, link.from.time));
        let last = links.last().map(|link| link.pieces.1);
        let (rolled, pieces) = pieces.into_iter().partition(|number| last.is_some_and(|last| *number <= last));
        Ok(Some(ChainParts { config, links, pieces, archiver, damaged, leftovers, rolled }))
    }

    /// The manifest of a link; `None` if it has none.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`]; [`ErrorKind::Storage`].
    pub async fn read_link(&self, name: &str) -> Result<Option<Link>> {
        let store = self.link(name);
        let bytes = match store.size(MANIFEST).await {
            Ok(size) if size > LINK_LIMIT => return Err(Error::damaged(format!("{name}/{MANIFEST} is too large to be one"))),
            Ok(_) => store.get(MANIFEST).await,
            Err(e) => Err(e),
        };
        let bytes = match bytes {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let link = Link::from_bytes(&bytes).map_err(|e| e.context(name))?;
        if link.name != name || link.replica_set_id != self.id {
            let what = format!("{name}/{MANIFEST} is that of another link: {} of {}", link.name, link.replica_set_id);
            return Err(Error::damaged(what));
        }
        Ok(Some(link))
    }

    /// The numbers of all pieces, in order.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn pieces(&self) -> Result<Vec<u64>> {
        let keys = self.open().top().await?.objects;
        let mut numbers: Vec<u64> = keys.iter().filter_map(|key| layout::piece_number(key)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The bytes of a piece.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Damaged`] if it is too large; [`ErrorKind::Storage`].
    pub async fn piece(&self, number: u64) -> Result<Bytes> {
        let (open, key) = (self.open(), layout::piece(number));
        if open.size(&key).await? > PIECE_LIMIT {
            return Err(Error::damaged(format!("{}/{key} is too large to be a piece", layout::OPEN)));
        }
        open.get(&key).await
    }

    /// Stores a piece, durably. False if there is one with this number.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn put_piece(&self, number: u64, chunks: Vec<Bytes>) -> Result<bool> {
        let (open, key) = (self.open(), layout::piece(number));
        match open.size(&key).await {
            Err(e) if e.kind() == ErrorKind::NotFound => open.put(&key, chunks).await.map(|()| true),
            size => size.map(|_| false),
        }
    }

    /// Removes pieces.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn remove_pieces(&self, numbers: impl IntoIterator<Item = u64>) -> Result<()> {
        let open = self.open();
        for number in numbers {
            open.delete(&layout::piece(number)).await?;
        }
        Ok(())
    }

    async fn small(&self, key: &str) -> Result<Option<Bytes>> {
        match self.objects.size(key).await {
            Ok(size) if size > CHAIN_LIMIT => Err(Error::damaged(format!("{}: {key} is too large to be one", self.location()))),
            Ok(_) => self.objects.get(key).await.map(Some),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}
