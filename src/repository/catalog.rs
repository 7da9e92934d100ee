//! Lists the backups of a repository, and finds one by its name or path.

mod backup;
mod checks;
mod description;
mod latest;
mod looks;
pub mod provenance;
mod watched;

use std::ops::ControlFlow;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use futures::StreamExt as _;

pub use self::backup::Backup;
pub use self::description::{Described, verified};
pub use self::latest::Latest;
use self::looks::Looks;
pub use self::provenance::Provenance;
use self::watched::Watched;
use crate::context::cpu::CpuPool;
use crate::error::{Error, ErrorKind, Result};
use crate::few;
use crate::format::checks::Checks;
use crate::format::heartbeat::Heartbeat;
use crate::format::manifest::{self, Manifest};
use crate::names::BackupName;
use crate::repository::Repository;
use crate::repository::backend::{Entry, Objects, Reading, There};
use crate::repository::layout;
use crate::system;

const MIB: u64 = 1024 * 1024;

/// How many backups are looked at at a time.
const LOOKERS: usize = 4;
/// Larger manifests are read piece by piece.
const AT_ONCE: u64 = 8 * MIB;
/// The default memory for a whole manifest.
const MEMORY: u64 = 256 * MIB;
/// The default time limit for a place to answer: a sleeping disk takes its time.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest `progress.json` that is read.
const PROGRESS_LIMIT: u64 = 1024 * 1024;

/// The backups of one repository.
#[derive(Debug, Clone)]
pub struct Catalog {
    pub(super) repository: Repository,
    cpu: CpuPool,
    /// The largest manifest that is read as a whole.
    memory: u64,
    pub(super) looks: Looks,
    watched: Option<Watched>,
}

/// The properties of the files behind a summary: equal stamps mean equal summaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    manifest: (u64, DateTime<Utc>),
    checks: Option<(u64, DateTime<Utc>)>,
}

impl Stamp {
    /// The size of the manifest.
    #[must_use]
    pub fn manifest_bytes(&self) -> u64 {
        self.manifest.0
    }
}

/// What is known of a backup without reading its data.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Its name: that of its directory.
    pub name: BackupName,
    /// Its location, for people.
    pub location: String,
    /// Its state.
    pub state: State,
    /// How its last checks ended. None unless it is complete.
    pub checks: Option<Checks>,
    /// Whether it is unfinished and can be resumed.
    pub resumable: bool,
    /// Whether another look finds the same while its [`Stamp`] is the same: it was read, whether
    /// intact or damaged.
    pub lasting: bool,
}

/// The state of a backup's directory.
#[derive(Debug, Clone)]
pub enum State {
    /// It has a manifest. This holds everything but its lists: see [`Manifest::outline`].
    Complete(Box<Manifest>),
    /// It is being made, by a process that was alive just now.
    Running(Heartbeat),
    /// It has no manifest and nobody works on it: leftovers of a crash.
    Incomplete,
    /// It has a manifest, or something by that name, that is unusable for this reason.
    Damaged(String),
}

impl State {
    /// The manifest of a complete backup.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        match self {
            Self::Complete(manifest) => Some(manifest),
            Self::Running(_) | Self::Incomplete | Self::Damaged(_) => None,
        }
    }

    /// Documents and their bytes, uncompressed. For a running backup, those stored already. None
    /// otherwise.
    #[must_use]
    pub fn counted(&self) -> Option<(u64, u64)> {
        match self {
            Self::Complete(manifest) => Some((manifest.totals.documents, manifest.totals.raw_bytes)),
            Self::Running(progress) => Some((progress.documents, progress.raw_bytes)),
            Self::Incomplete | Self::Damaged(_) => None,
        }
    }

    /// Why a damaged backup is unusable.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        if let Self::Damaged(reason) = self { Some(reason) } else { None }
    }

    /// The state in one word.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Complete(_) => "complete",
            Self::Running(_) => "running",
            Self::Incomplete => "incomplete",
            Self::Damaged(_) => "damaged",
        }
    }
}

impl Summary {
    /// The consistency point of a complete backup. For others, when they were started, if known:
    /// from the progress, or else from the name.
    #[must_use]
    pub fn created(&self) -> Option<DateTime<Utc>> {
        match &self.state {
            State::Complete(manifest) => Some(manifest.created),
            State::Running(progress) => Some(progress.started),
            State::Incomplete | State::Damaged(_) => time_in(self.name.as_str()),
        }
    }
}

impl Catalog {
    /// The catalog of this repository. The pool decodes manifests.
    #[must_use]
    pub fn new(repository: Repository, cpu: &CpuPool) -> Self {
        Self { repository, cpu: cpu.clone(), memory: MEMORY, looks: Looks::new(PATIENCE), watched: None }
    }

    /// The same with this time limit for a place to answer.
    #[must_use]
    pub fn patient_for(self, limit: Duration) -> Self {
        Self { looks: Looks::new(limit), ..self }
    }

    /// The same, which notices if the path is no longer the repository that it was. For a process
    /// that lives long enough to lose a mount.
    #[must_use]
    pub fn watched(self) -> Self {
        Self { watched: Some(Watched::default()), ..self }
    }

    /// Fails if the path is no longer the repository that it was, of a catalog that is
    /// [`watched`](Self::watched).
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub async fn check_place(&self) -> Result<()> {
        let Some(watched) = self.watched.clone() else { return Ok(()) };
        let repository = self.repository.clone();
        self.looks.at(&self.repository.location(), 0, async move { watched.check(&repository).await }).await?
    }

    /// The same with this much memory for reading: a larger manifest is not read as a whole.
    #[must_use]
    pub fn within(self, memory: u64) -> Self {
        Self { memory, ..self }
    }

    /// The pool that decodes manifests.
    #[must_use]
    pub fn cpu(&self) -> &CpuPool {
        &self.cpu
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The backups, newest first; those of unknown age last. Directories that cannot be backups are
    /// skipped. A backup that cannot be read, or does not answer, is listed as damaged, and hides
    /// no other.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the repository cannot be listed.
    pub async fn list(&self, now: DateTime<Utc>) -> Result<Vec<Summary>> {
        let names = self.names().await?.into_iter();
        let looks = futures::stream::iter(names.map(|name| self.summary(name, now))).buffer_unordered(LOOKERS);
        let mut found: Vec<Summary> = looks.filter_map(std::future::ready).collect().await;
        found.sort_by(|a, b| (b.created(), &b.name).cmp(&(a.created(), &a.name)));
        Ok(found)
    }

    /// The complete backup of this name, or at this path. A path contains a `/`, or is a directory
    /// and no backup's name. `latest` is not handled here: see [`latest`](Self::latest).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] with a message that begins with `Database backup not found`;
    /// [`ErrorKind::Refused`] for an incomplete one; [`ErrorKind::Damaged`] for one with an
    /// unusable manifest; [`ErrorKind::Storage`].
    pub async fn find(&self, name_or_path: &str) -> Result<Backup> {
        let (catalog, asked) = (self.clone(), name_or_path.to_owned());
        let place = self.place_of(name_or_path);
        let (store, among) = self.looks.at(&place, 0, async move { catalog.locate(&asked).await }).await??;
        self.load(store, name_or_path, &among).await
    }

    /// The directory that a name or a path must mean if it means any.
    fn place_of(&self, name_or_path: &str) -> String {
        match BackupName::parse(name_or_path) {
            Ok(name) => self.repository.place(&name).location(),
            Err(_) => name_or_path.to_owned(),
        }
    }

    /// The directory that a name or a path means, and where it was looked for.
    async fn locate(&self, name_or_path: &str) -> Result<(Objects, String)> {
        let is_path = name_or_path.contains('/');
        if let (false, Ok(name)) = (is_path, BackupName::parse(name_or_path)) {
            let store = self.repository.place(&name);
            let is_there = store.exists().await;
            if is_there {
                self.repository.refuse_later().await?;
            }
            if is_there || Objects::there(name_or_path).await? != There::Place {
                return Ok((store.resolved().await?, self.repository.location()));
            }
        }
        if !is_path && Objects::there(name_or_path).await? != There::Place {
            return Err(not_found(name_or_path, &format!("in {}", self.repository.location())));
        }
        if Objects::there(name_or_path).await? == There::SomethingElse {
            return Err(not_found(name_or_path, "there: it is a file, not a backup's directory"));
        }
        let store = Objects::open(name_or_path)?.resolved().await?;
        let place = store.location();
        Ok((store, place))
    }

    /// What is known of the backup of this name. None if it does not exist.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the repository cannot be listed.
    pub async fn look(&self, name: &BackupName, now: DateTime<Utc>) -> Result<Option<Summary>> {
        // Not by its path, which may be a link to somewhere else.
        if !self.holds(name).await? {
            return Ok(None);
        }
        Ok(self.summary(name.clone(), now).await)
    }

    /// Whether a directory of this name exists. A link does not count.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the repository cannot be listed.
    pub async fn holds(&self, name: &BackupName) -> Result<bool> {
        Ok(self.directories().await?.iter().any(|found| found == name.as_str()))
    }

    /// The running backups, by name. Unlike [`list`](Self::list) it reads no manifest.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the repository cannot be listed.
    pub async fn running(&self, now: DateTime<Utc>) -> Result<Vec<(BackupName, Heartbeat)>> {
        let mut running = Vec::new();
        for name in self.names().await? {
            let place = self.repository.place(&name);
            let look = async move {
                // An unreadable heartbeat is no sign of life, or the next one will be readable.
                let progress = read_progress(&place).await.ok()?;
                let is_running = is_at_work(&place, &progress, now).await && place.size(layout::MANIFEST).await.is_err();
                is_running.then_some(progress)
            };
            // Neither is a place that does not answer.
            let found = self.looks.at(&self.repository.place(&name).location(), 0, look).await;
            running.extend(found.ok().flatten().map(|progress| (name, progress)));
        }
        Ok(running)
    }

    /// The job that an unfinished backup is of, if its heartbeat says so.
    pub async fn job_of(&self, name: &BackupName) -> Option<String> {
        let place = self.repository.place(name);
        let look = async move { read_progress(&place).await.ok()?.job };
        self.looks.at(&self.repository.place(name).location(), 0, look).await.ok().flatten()
    }

    /// The names of all directories that can be backups.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] if the repository cannot be listed.
    pub async fn names(&self) -> Result<Vec<BackupName>> {
        Ok(self.directories().await?.into_iter().filter_map(|name| BackupName::parse(&name).ok()).collect())
    }

    async fn directories(&self) -> Result<Vec<String>> {
        self.check_place().await?;
        let repository = self.repository.clone();
        let look = async move {
            let names = repository.objects().top().await?.prefixes;
            // The contents of a later layout must not be mistaken for something else.
            repository.refuse_later().await?;
            Ok(names)
        };
        self.looks.at(&self.repository.location(), 0, look).await?
    }

    /// Changes whenever [`summary`](Self::summary) of a backup with a manifest does. None without a
    /// manifest.
    pub async fn stamp(&self, name: &BackupName) -> Option<Stamp> {
        let store = self.repository.place(name);
        let place = store.location();
        let look = async move {
            let manifest = store.stamp(layout::MANIFEST).await?;
            Some(Stamp { manifest, checks: store.stamp(layout::CHECKS).await })
        };
        self.looks.at(&place, 0, look).await.ok().flatten()
    }

    /// What is known of one backup without reading its data. None for a directory without parts of
    /// a backup.
    pub async fn summary(&self, name: BackupName, now: DateTime<Utc>) -> Option<Summary> {
        let store = self.repository.place(&name);
        let bytes = self.bytes_to_read(&store).await;
        let (catalog, place, own) = (self.clone(), store.location(), name.clone());
        let looked = async {
            let look = async move { catalog.look_through(own, now).await };
            self.looks.at(&place, bytes?, look).await
        };
        looked.await.unwrap_or_else(|e: Error| {
            let state = State::Damaged(e.to_string());
            Some(Summary { name, location: store.location(), state, checks: None, resumable: false, lasting: false })
        })
    }

    /// The size of the manifest, if there is one.
    async fn bytes_to_read(&self, store: &Objects) -> Result<u64> {
        let (place, of) = (store.location(), store.clone());
        let size = self.looks.at(&place, 0, async move { of.size(layout::MANIFEST).await }).await?;
        Ok(size.unwrap_or_default().min(manifest::LIMIT))
    }

    async fn look_through(&self, name: BackupName, now: DateTime<Utc>) -> Option<Summary> {
        let store = self.repository.place(&name);
        let mut lasting = true;
        let state = match self.read_outline(&store).await {
            Ok(manifest) => State::Complete(Box::new(manifest)),
            Err(e) if e.kind() != ErrorKind::NotFound => {
                lasting = e.kind() == ErrorKind::Damaged;
                State::Damaged(few::cut(&e))
            }
            Err(_) => match read_progress(&store).await {
                Ok(progress) if is_at_work(&store, &progress, now).await => State::Running(progress),
                // It may have been finished between the two looks.
                _ => match (self.read_outline(&store).await, holds_parts(&store).await) {
                    (Ok(manifest), _) => State::Complete(Box::new(manifest)),
                    (_, Ok(true)) => State::Incomplete,
                    (_, Ok(false)) => return None,
                    (_, Err(e)) => State::Damaged(few::cut(&e)),
                },
            },
        };
        let checks = match &state {
            State::Complete(manifest) => Some(checks::read(&store, manifest).await),
            State::Running(_) | State::Incomplete | State::Damaged(_) => None,
        };
        let resumable = matches!(state, State::Incomplete) && store.size(&layout::checkpoint(0)).await.is_ok();
        lasting &= matches!(state, State::Complete(_) | State::Damaged(_));
        Some(Summary { location: store.location(), name, state, checks, resumable, lasting })
    }

    async fn load(&self, store: Objects, asked: &str, place: &str) -> Result<Backup> {
        let bytes = self.bytes_to_read(&store).await?;
        let (catalog, directory, asked, among) = (self.clone(), store.location(), asked.to_owned(), place.to_owned());
        let look = async move {
            match catalog.read_manifest(&store).await {
                Ok(manifest) => Ok(Backup { store, manifest }),
                Err(e) if e.kind() == ErrorKind::NotFound => Err(without_manifest(&store, &asked, &among).await),
                Err(e) => Err(e.context(format!("backup {}", store.location()))),
            }
        };
        self.looks.at(&directory, bytes, look).await?
    }

    /// The whole manifest.
    async fn read_manifest(&self, store: &Objects) -> Result<Manifest> {
        let size = size_of_manifest(store).await?;
        if size > self.memory {
            let (is, may) = (size.div_ceil(MIB), self.memory / MIB);
            return Err(Error::new(
                ErrorKind::Refused,
                format!("{} has {is} MiB, more than the {may} MiB of memory that are allowed", layout::MANIFEST),
            )
            .hint(format!("set [[memory-mb or BACKUP_MEMORY_MB]] to {is} or more")));
        }
        if size > AT_ONCE {
            return self.read(store, Manifest::from_file).await;
        }
        let bytes = store.get(layout::MANIFEST).await?;
        self.cpu.run(move || Manifest::from_bytes(&bytes)).await
    }

    /// What lists show of it. Nothing else of a long manifest is read.
    pub(super) async fn read_outline(&self, store: &Objects) -> Result<Manifest> {
        if size_of_manifest(store).await? > AT_ONCE {
            return self.read(store, Manifest::outline).await;
        }
        self.read_manifest(store).await.map(Manifest::without_lists)
    }

    async fn read(
        &self,
        store: &Objects,
        read: impl FnOnce(&mut Reading) -> Result<Manifest> + Send + 'static,
    ) -> Result<Manifest> {
        let mut file = store.open_to_read(layout::MANIFEST).await?;
        self.cpu.run(move || read(&mut file)).await
    }
}

async fn size_of_manifest(store: &Objects) -> Result<u64> {
    let size = match store.size(layout::MANIFEST).await {
        // A directory in its place does not mean that the backup was never completed.
        Err(e) if e.kind() == ErrorKind::NotFound && store.top().await?.prefixes.iter().any(|name| name == layout::MANIFEST) => {
            return Err(Error::damaged(e.to_string()));
        }
        size => size?,
    };
    match size > manifest::LIMIT {
        true => Err(Error::damaged(format!("{} has {size} bytes, more than the limit of {}", layout::MANIFEST, manifest::LIMIT))),
        false => Ok(size),
    }
}

/// The error for a missing manifest.
async fn without_manifest(store: &Objects, asked: &str, place: &str) -> Error {
    match holds_parts(store).await {
        Ok(true) => {}
        Ok(false) => return not_found(asked, &format!("in {place}")),
        Err(e) => return e.context(format!("backup {}", store.location())),
    }
    let seen = match read_progress(store).await {
        Ok(p) => {
            format!("; process {} on {} last worked on it at {}", p.process, p.host, p.heartbeat.format("%Y-%m-%dT%H:%M:%SZ"))
        }
        Err(_) => String::new(),
    };
    Error::new(
        ErrorKind::Refused,
        format!(
            "backup {} has no {}, so it was never completed: it is still running, or a crash left it{seen}",
            store.location(),
            layout::MANIFEST
        ),
    )
    .hint("choose a complete backup; `bsonvault list` shows which backups are complete, and which can be resumed")
}

fn not_found(asked: &str, place: &str) -> Error {
    // Users of the REST interface match on these words.
    Error::new(ErrorKind::NotFound, format!("Database backup not found: {asked:?} {place}"))
        .hint("`bsonvault list` shows all backups; [[path or BACKUP_PATH]] says where to look")
}

pub(super) async fn read_progress(store: &Objects) -> Result<Heartbeat> {
    if store.size(layout::PROGRESS).await? > PROGRESS_LIMIT {
        return Err(Error::damaged(format!("{} is too large to be one", layout::PROGRESS)));
    }
    let bytes = store.get(layout::PROGRESS).await?;
    serde_json::from_slice(&bytes).map_err(|e| Error::damaged(format!("{} cannot be read: {e}", layout::PROGRESS)).cause(e))
}

/// Whether the process that wrote this counts as alive. The lock of a process on this machine ends
/// with the process; its heartbeat expires half a minute later.
pub(super) async fn is_at_work(store: &Objects, progress: &Heartbeat, now: DateTime<Utc>) -> bool {
    let lock_tells = progress.locked && progress.host == system::host();
    progress.is_alive(now) && !(lock_tells && store.is_locked().await == Some(false))
}

/// The time in a name that a backup gave itself.
fn time_in(name: &str) -> Option<DateTime<Utc>> {
    NaiveDateTime::parse_from_str(name, "atlas-backup-%Y-%m-%dT%H-%M-%S-%3fZ").ok().map(|t| t.and_utc())
}

/// Whether anything exists there that only a backup writes. Metadata files are mongodump's, too:
/// they count only if a backup named the directory.
async fn holds_parts(store: &Objects) -> Result<bool> {
    let is_named = store.name().is_some_and(|name| time_in(&name).is_some());
    let is_part = |e: &Entry| {
        [layout::MANIFEST, layout::PROGRESS, layout::SHA256SUMS, layout::CHECKS].contains(&e.key.as_str())
            || layout::checkpoint_number(&e.key).is_some()
            || e.key.ends_with(".bson.zst")
            || (is_named && e.key.ends_with(".metadata.json"))
    };
    let mut holds = false;
    let look = |entry| {
        holds = is_part(&entry);
        if holds { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    store.each(look).await?;
    Ok(holds)
}
