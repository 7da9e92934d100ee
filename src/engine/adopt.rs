//! `adopt`: from a dump that mongodump made to a committed archive.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::backup::commit::{self, About};
use super::backup::failure::remove;
use super::dump_oplog::{Slice, none};
use super::{Tuning, replayed};
use crate::clock;
use crate::context::Context;
use crate::context::cpu::CpuPool;
use crate::context::memory::MemoryBudget;
use crate::context::progress::{Item, Progress};
use crate::error::{Error, ErrorKind, Result};
use crate::few::{Few, LISTED};
use crate::format::arrival::{Arrivals, NotImportable, NotImportables};
use crate::format::digest::{Content, Sha256Hex};
use crate::format::frame::{self, Compressors};
use crate::format::key::{self, Stems};
use crate::format::manifest::{
    ClusterTime, Collection, CollectionKind, Consistency, LeftOut, Manifest, Segment, Settings, Source, StoredObject,
};
use crate::format::segment;
use crate::interop::{Dump, Of, Part, READING_BYTES, Wanted};
use crate::names::{BackupName, Namespace, NamespaceFilter, NamespacePattern};
use crate::pipeline::write::{CollectionWriter, RangeWriter, Sizes};
use crate::repository::Repository;
use crate::repository::backend::{Lock, Objects};
use crate::repository::lock::heartbeat::{self, HeartbeatWriter};
use crate::repository::lock::source as source_lock;
use crate::sink::users::Accounts;

/// zstd's level where nothing is said: reading a dump and decompressing it takes as long.
const LEVEL: i32 = 3;

const MIB: u64 = 1024 * 1024;
/// What buffers have where what the dump says of itself takes nearly all of the memory.
const LEAST_BUFFERS: u64 = 16 * 1024 * 1024;

/// About the least a segment has, stored.
const SMALLEST_SEGMENT: u64 = 1024 * 1024;

/// What of a dump to adopt, and how.
#[derive(Debug, Clone, Default)]
pub struct AdoptOptions {
    /// Of the dump, these namespaces.
    pub filter: NamespaceFilter,
    /// Of the dump's oplog, only entries before this time are kept.
    pub oplog_limit: Option<ClusterTime>,
    /// When the dump was made; where that is not given, its oplog tells, or else its files do.
    pub created: Option<DateTime<Utc>>,
    /// Whether users and roles are given beside it: they are no part of a backup.
    pub accounts: bool,
    /// How much of the machine it may use.
    pub tuning: Tuning,
}

/// A committed backup of a dump.
#[derive(Debug, Clone)]
pub struct AdoptReport {
    /// Its name.
    pub name: BackupName,
    /// Where it is.
    pub location: String,
    /// What it holds.
    pub manifest: Manifest,
    /// What of the dump was missing, what was taken for what, and what of it an import changes or cannot bring.
    pub notes: Vec<String>,
    /// Documents that no server takes. They are kept all the same.
    pub not_importable: Vec<NotImportable>,
    /// The users and roles of the dump, where they are wanted.
    pub accounts: Accounts,
}

/// Makes a backup of a dump in a new place of `repository`. It is committed whole, or nothing of it stays.
///
/// # Errors
/// [`ErrorKind::Damaged`], [`ErrorKind::Storage`], [`ErrorKind::NotFound`] where a pattern matches nothing or nothing is left, [`ErrorKind::Refused`] where the dump's
/// oplog cannot be replayed, [`ErrorKind::Interrupted`].
pub async fn run(dump: &Dump, repository: &Repository, options: &AdoptOptions, cx: &Context) -> Result<AdoptReport> {
    let collections = select(dump, options)?;
    refuse_too_many(dump, collections.len(), options)?;
    let mut notes = dump.notes().to_vec();
    if dump.has_users() {
        notes.push("users and roles are not part of a backup, and are left out".to_owned());
    }
    notes.iter().for_each(|note| cx.progress.note(note.as_str()));
    let (name, place) = source_lock::claim(repository).await?;
    let lock = match place.lock().await {
        Ok(lock) => lock.ok_or_else(|| source_lock::taken(&place))?,
        Err(error) => return Err(remove(&place, error).await),
    };
    let adopted = adopt(dump, collections, repository, &name, (&place, &lock), options, cx).await;
    match adopted {
        Ok((manifest, accounts, arrivals)) => {
            let (mut not_importable, mut told) = (NotImportables::default(), Few::up_to(LISTED));
            for (namespace, arrivals) in arrivals {
                told.extend(arrivals.notes(&namespace.to_string()));
                not_importable.extend(arrivals.not_importable(&namespace.to_string()));
            }
            let told = told.into_sentences();
            told.iter().for_each(|note| cx.progress.note(note.as_str()));
            notes.extend(told);
            let not_importable = not_importable.into_list();
            Ok(AdoptReport { location: place.location(), name, manifest, notes, not_importable, accounts })
        }
        Err(error) => Err(remove(&place, error).await),
    }
}

/// How a server takes the documents of each collection.
type ByNamespace = BTreeMap<Namespace, Arrivals>;

/// Refuses to adopt so many collections of a dump, if what it says of itself and what adopting takes beside it go beyond the memory.
fn refuse_too_many(dump: &Dump, wanted: usize, options: &AdoptOptions) -> Result<()> {
    let (all, memory) = (dump.collections().len() as u64, options.tuning.memory_bytes);
    let needed = dump.taken() + dump.taken() * wanted as u64 / all.max(1);
    if needed <= memory {
        return Ok(());
    }
    let (needed, memory) = (needed.div_ceil(MIB), memory / MIB);
    let what = format!(
        "to adopt {wanted} collections of a dump of {all} takes about {needed} MiB of memory, and {memory} MiB are given"
    );
    Err(Error::new(ErrorKind::Refused, what)
        .hint(format!("set [[memory-mb or BACKUP_MEMORY_MB]] to {needed} or more, or adopt it in parts with [[include]]")))
}

/// What of the dump is wanted, by its place there.
fn select(dump: &Dump, options: &AdoptOptions) -> Result<Vec<(usize, Collection)>> {
    let all = dump.collections();
    if let Some(idle) = options.filter.patterns().find(|p| !all.iter().any(|c| p.matches(&c.namespace()))) {
        return Err(Error::new(ErrorKind::NotFound, format!("the pattern {:?} matches no namespace of the dump", idle.as_str()))
            .hint("check it: case counts, '*' stands for any characters, quote it in the shell"));
    }
    let wanted: Vec<_> = all.iter().cloned().enumerate().filter(|(_, c)| options.filter.takes(&c.namespace())).collect();
    match wanted.is_empty() {
        true => Err(Error::new(ErrorKind::NotFound, format!("{} has nothing to keep", dump.location()))),
        false => Ok(wanted),
    }
}

/// Reads and commits.
async fn adopt(
    dump: &Dump,
    collections: Vec<(usize, Collection)>,
    repository: &Repository,
    name: &BackupName,
    (place, lock): (&Objects, &Lock),
    options: &AdoptOptions,
    cx: &Context,
) -> Result<(Manifest, Accounts, ByNamespace)> {
    let started = clock::now();
    let first = heartbeat::first(started, Vec::new(), None, lock.holds());
    heartbeat::write(&first, place).await?;
    let heartbeat = HeartbeatWriter::start(place.clone(), cx.progress.clone(), first);
    let manifest = execute(dump, collections, name, started, options, place, cx).boxed().await;
    heartbeat.stop().await?;
    let (manifest, accounts, arrivals) = manifest?;
    repository.identify().await?;
    commit::commit(&manifest, place).await?;
    Ok((manifest, accounts, arrivals))
}

/// The phases up to the commit.
async fn execute(
    dump: &Dump,
    collections: Vec<(usize, Collection)>,
    name: &BackupName,
    started: DateTime<Utc>,
    options: &AdoptOptions,
    place: &Objects,
    cx: &Context,
) -> Result<(Manifest, Accounts, ByNamespace)> {
    // 1. Read the dump, once, and store its documents.
    cx.progress.begin("reading");
    let settings = settings(options);
    let (budget, held) = memory(options, dump, cx);
    let cpu = cx.cpu.clone();
    let writing = Writing {
        place,
        compressors: Arc::new(Compressors::new(settings.compression())),
        segment_bytes: usize::try_from(settings.segment_bytes).unwrap_or(usize::MAX),
        cpu: cpu.clone(),
        held,
    };
    let mut adopted = writing.begin(dump, collections, options, cx);
    let wanted = adopted.wanted(dump);
    let (parts, mut incoming) = mpsc::channel(1);
    let taken = async {
        let taken = adopted.take_all(&mut incoming, cx).await;
        // Whoever reads stops where nothing takes its parts any more.
        incoming.close();
        while incoming.recv().await.is_some() {}
        taken
    }
    .boxed();
    let (read, taken) = tokio::join!(dump.read(&wanted, &budget, &cx.cancel, parts), taken);
    let stored = match (read, taken) {
        (Ok(()), Ok(())) => adopted.finish(),
        (Err(e), _) | (_, Err(e)) => {
            adopted.abandon().await;
            Err(e)
        }
    };
    let (mut collections, slice, accounts, arrivals) = stored?;
    let finished = clock::now();

    // 2. Say what moment it shows, and which collections its oplog is about.
    cx.progress.begin("committing");
    let (consistency, oplog) = match slice {
        Some(slice) => slice.settle(&mut collections)?,
        None => (none(), None),
    };
    let tells = collections.iter().any(|c| c.uuid.is_some());
    for collection in collections.iter_mut().filter(|c| c.kind != CollectionKind::View) {
        collection.uuid.get_or_insert_with(Uuid::new_v4);
    }

    // 3. Describe it: metadata files, checksums, the manifest.
    let mut left_out = dump.left_out().to_vec();
    if dump.has_users() {
        let (database, collection) = ("admin".to_owned(), "system.users".to_owned());
        left_out.push(LeftOut {
            database,
            collection,
            uuid: None,
            reason: "users and roles are not part of a backup".to_owned(),
        });
    }
    let created = created(dump, options, &consistency, finished);
    let (name, source) = (name.clone(), source(dump, tells));
    let about = About { name, source, settings, created, started, finished, consistency, oplog, left_out };
    let mut manifest = commit::manifest(about, collections, place, cx).await?;

    // 4. An oplog that cannot be replayed is none to rely on. It tells which temporary collections come to last.
    let mut at_the_end = Vec::new();
    if let (Some(oplog), Some(listed_at)) = (&manifest.oplog, manifest.consistency.cluster_time) {
        let follow = replayed::follow(place, &manifest, oplog, listed_at, None, &cx.cpu);
        let followed = cx.unless_cancelled(follow).await.map_err(|e| e.context("the oplog of the dump"))?;
        at_the_end = followed.catalog.collections;
    }
    commit::leave_out_temporary(&mut manifest, &at_the_end, place).await?;
    Ok((manifest, accounts, arrivals))
}

/// The dump's own date: what was said, the last entry of its oplog, or when the last of its files was written.
fn created(dump: &Dump, options: &AdoptOptions, consistency: &Consistency, finished: DateTime<Utc>) -> DateTime<Utc> {
    options.created.or(consistency.moment()).or(dump.written()).unwrap_or(finished)
}

/// What is known of where it came from. One that tells no collection's identity is known again by its path.
fn source(dump: &Dump, tells: bool) -> Source {
    let mut source = dump.source().clone();
    if !tells && dump.can_be_read_again() {
        source.known_as = vec![dump.location()];
    }
    source
}

fn settings(options: &AdoptOptions) -> Settings {
    Settings {
        codec: options.tuning.codec.unwrap_or_default(),
        level: options.tuning.level.unwrap_or(LEVEL),
        long_distance: options.tuning.long_distance.unwrap_or_default(),
        readers: 1,
        frame_bytes: frame::TARGET as u64,
        segment_bytes: (options.tuning.memory_bytes / 16).clamp(SMALLEST_SEGMENT, segment::TARGET as u64),
        databases: Vec::new(),
        include: NamespacePattern::texts(&options.filter.include),
        exclude: NamespacePattern::texts(&options.filter.exclude),
        query: None,
        views_as_collections: false,
    }
}

/// How the memory is divided: a half for documents on their way, which is what a [`Part`] takes; a quarter for segments that are not full yet, of all collections together. The rest is
/// for what reading takes and for segments on their way to the store.
fn memory(options: &AdoptOptions, dump: &Dump, cx: &Context) -> (MemoryBudget, usize) {
    let taken = READING_BYTES + dump.taken();
    let bytes = options.tuning.memory_bytes.saturating_sub(taken).max(LEAST_BUFFERS);
    (cx.memory.part_beside(bytes / 2, bytes / 2 + taken), usize::try_from(bytes / 4).unwrap_or(usize::MAX))
}

/// Where documents go, and how.
struct Writing<'a> {
    place: &'a Objects,
    compressors: Arc<Compressors>,
    segment_bytes: usize,
    cpu: CpuPool,
    /// The stored bytes that may wait for their segments to be full.
    held: usize,
}

/// What has been adopted so far.
struct Adopted<'a> {
    writing: Writing<'a>,
    /// By their place in the dump.
    collections: HashMap<usize, Adopting>,
    slice: Option<Slice>,
    /// Where they are wanted.
    accounts: Option<Accounts>,
    /// Collections whose documents come at the moment.
    open: HashSet<usize>,
}

/// A collection that is being adopted.
struct Adopting {
    collection: Collection,
    arrivals: Arrivals,
    item: Item,
    writer: Arc<CollectionWriter>,
    range: Option<RangeWriter>,
    /// Once all of it is stored.
    segments: Option<Vec<(usize, Segment)>>,
}

impl<'a> Writing<'a> {
    fn begin(self, dump: &Dump, collections: Vec<(usize, Collection)>, options: &AdoptOptions, cx: &Context) -> Adopted<'a> {
        let slice = dump.has_oplog().then(|| {
            let of_dump: Vec<Collection> = collections.iter().map(|(_, c)| c.clone()).collect();
            // It is no part of what the progress is measured by.
            Slice::new(
                &of_dump,
                options.oplog_limit,
                self.writer(key::OPLOG, Progress::default().item(key::OPLOG, 0, 0)).range(),
                self.cpu.clone(),
            )
        });
        let mut stems = Stems::default();
        let adopting = |(number, mut collection): (usize, Collection)| {
            let stem = stems.assign(&collection.namespace());
            let item = cx.progress.item(collection.namespace().to_string(), 0, collection.bytes);
            collection.metadata = StoredObject { key: key::metadata(&stem), bytes: 0, sha256: Sha256Hex::zero() };
            let writer = self.writer(&stem, item.clone());
            (number, Adopting { collection, arrivals: Arrivals::default(), item, writer, range: None, segments: None })
        };
        let collections = collections.into_iter().map(adopting).collect();
        let accounts = options.accounts.then(Accounts::default);
        Adopted { collections, slice, accounts, open: HashSet::new(), writing: self }
    }

    fn writer(&self, stem: &str, item: Item) -> Arc<CollectionWriter> {
        let Self { place, compressors, segment_bytes, cpu, .. } = self;
        CollectionWriter::new(
            (*place).clone(),
            stem.to_owned(),
            compressors.clone(),
            Sizes::of_segments(*segment_bytes),
            cpu.clone(),
            item,
        )
    }
}

impl Adopted<'_> {
    fn wanted(&self, dump: &Dump) -> Wanted {
        let collections = (0..dump.collections().len()).map(|number| self.collections.contains_key(&number)).collect();
        Wanted { collections, oplog: self.slice.is_some(), users: self.accounts.is_some() }
    }

    /// Takes all that is read. A stop counts between two parts: what is on its way to the store would go on while the directory is removed.
    async fn take_all(&mut self, incoming: &mut mpsc::Receiver<Part>, cx: &Context) -> Result<()> {
        loop {
            let part = tokio::select! {
                () = cx.cancel.cancelled() => return Err(Error::interrupted()),
                part = incoming.recv() => part,
            };
            match part {
                Some(Part::Documents { of, frame, content, arrivals, share }) => {
                    if let Of::Collection(number) = of {
                        found(&mut self.collections, number)?.arrivals.merge(&arrivals);
                    }
                    self.take(of, frame, content).await?;
                    drop(share);
                    self.make_room().await?;
                }
                Some(Part::End(of)) => self.end(of).await?,
                None => return Ok(()),
            }
        }
    }

    async fn take(&mut self, of: Of, documents: Vec<u8>, content: Content) -> Result<()> {
        match (of, &mut self.slice) {
            (Of::Collection(number), _) => {
                let adopting = found(&mut self.collections, number)?;
                self.open.insert(number);
                adopting.range.get_or_insert_with(|| adopting.writer.range()).write_frame(documents, content).await
            }
            (Of::Oplog, Some(slice)) => slice.take(documents).await,
            (Of::Users, _) => self.accounts.iter_mut().try_for_each(|accounts| accounts.take_users(&documents)),
            (Of::Roles, _) => self.accounts.iter_mut().try_for_each(|accounts| accounts.take_roles(&documents)),
            _ => Ok(()),
        }
    }

    async fn end(&mut self, of: Of) -> Result<()> {
        match (of, &mut self.slice) {
            (Of::Collection(number), _) => {
                let adopting = found(&mut self.collections, number)?;
                self.open.remove(&number);
                adopting.segments = Some(match &mut adopting.range {
                    Some(range) => range.finish().await?,
                    None => Vec::new(),
                });
                adopting.range = None;
                adopting.item.finish();
                Ok(())
            }
            (Of::Oplog, Some(slice)) => slice.end().await,
            _ => Ok(()),
        }
    }

    /// Ends segments before they are full, the largest first, where too much waits: an archive may bring many collections in turns.
    async fn make_room(&mut self) -> Result<()> {
        loop {
            let held = |number: &usize| self.collections.get(number).and_then(|a| a.range.as_ref()).map_or(0, RangeWriter::held);
            let all: usize = self.open.iter().map(held).sum();
            let largest = self.open.iter().copied().max_by_key(held);
            match largest.and_then(|number| self.collections.get_mut(&number)?.range.as_mut()) {
                Some(range) if all > self.writing.held => drop(range.flush(0).await?),
                _ => return Ok(()),
            }
        }
    }

    /// The collections with their segments, in order, the oplog, users and roles, and how a server takes the documents.
    fn finish(self) -> Result<(Vec<Collection>, Option<Slice>, Accounts, ByNamespace)> {
        let (mut collections, mut by_namespace) = (Vec::new(), ByNamespace::new());
        for Adopting { mut collection, arrivals, segments, .. } in self.collections.into_values() {
            let incomplete = || Error::new(ErrorKind::Internal, format!("{} was not read to its end", collection.namespace()));
            let mut segments = segments.ok_or_else(incomplete)?;
            segments.sort_by_key(|(number, _)| *number);
            collection.segments = segments.into_iter().map(|(_, segment)| segment).collect();
            let content: Content = collection.segments.iter().map(Segment::content).sum();
            (collection.documents, collection.bytes, collection.digest) = (content.documents, content.bytes, content.digest());
            by_namespace.insert(collection.namespace(), arrivals);
            collections.push(collection);
        }
        collections.sort_by_key(Collection::namespace);
        Ok((collections, self.slice, self.accounts.unwrap_or_default(), by_namespace))
    }

    /// Waits until nothing is on its way to the store any more.
    async fn abandon(self) {
        for range in self.collections.into_values().filter_map(|adopting| adopting.range) {
            range.abandon().await;
        }
        if let Some(slice) = self.slice {
            slice.abandon().await;
        }
    }
}

fn found(collections: &mut HashMap<usize, Adopting>, number: usize) -> Result<&mut Adopting> {
    collections.get_mut(&number).ok_or_else(|| Error::new(ErrorKind::Internal, "a dump gave what was not asked for"))
}
