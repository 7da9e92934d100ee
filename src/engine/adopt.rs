//! `adopt`: turns a dump made by mongodump into a committed archive.

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

/// zstd's default level. Reading and decompressing a dump takes about as long as compressing at it.
const LEVEL: i32 = 3;

const MIB: u64 = 1024 * 1024;
/// The least that buffers get, even if the dump's own description takes nearly all of the memory.
const LEAST_BUFFERS: u64 = 16 * 1024 * 1024;

/// About the smallest segment, in stored bytes.
const SMALLEST_SEGMENT: u64 = 1024 * 1024;

/// Which parts of a dump to adopt, and how.
#[derive(Debug, Clone, Default)]
pub struct AdoptOptions {
    /// The namespaces of the dump to adopt.
    pub filter: NamespaceFilter,
    /// Keeps only the oplog entries before this time.
    pub oplog_limit: Option<ClusterTime>,
    /// When the dump was made. By default, the oplog tells, or else the dates of the files.
    pub created: Option<DateTime<Utc>>,
    /// Whether to return users and roles, too. They are never part of a backup.
    pub accounts: bool,
    /// How much of the machine it may use.
    pub tuning: Tuning,
}

/// A committed backup, made of a dump.
#[derive(Debug, Clone)]
pub struct AdoptReport {
    /// Its name.
    pub name: BackupName,
    /// Where it is.
    pub location: String,
    /// What it holds.
    pub manifest: Manifest,
    /// What the dump lacked, how ambiguous files were read, and what an import changes or cannot
    /// import.
    pub notes: Vec<String>,
    /// Documents that no server accepts. The backup keeps them all the same.
    pub not_importable: Vec<NotImportable>,
    /// The users and roles of the dump, if the options ask for them.
    pub accounts: Accounts,
}

/// Makes a backup of a dump in a new place of `repository`: all of it is committed, or nothing of
/// it stays.
///
/// # Errors
/// [`ErrorKind::Damaged`]; [`ErrorKind::Storage`]; [`ErrorKind::NotFound`] if a pattern matches
/// nothing or nothing is selected; [`ErrorKind::Refused`] if the dump's oplog cannot be replayed;
/// [`ErrorKind::Interrupted`].
pub async fn run(dump: &Dump, repository: &Repository, options: &AdoptOptions, cx: &Context) -> Result<AdoptReport> {
    let collections = select(dump, options)?;
    refuse_too_many(dump, collections.len(), options)?;
    let mut notes = dump.notes().to_vec();
    if dump.has_users() {
        notes.push("users and roles are skipped: they are not part of a backup".to_owned());
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

/// Refuses to adopt this many collections if the dump's description and the work beside it exceed
/// the memory.
fn refuse_too_many(dump: &Dump, wanted: usize, options: &AdoptOptions) -> Result<()> {
    let (all, memory) = (dump.collections().len() as u64, options.tuning.memory_bytes);
    let needed = dump.taken() + dump.taken() * wanted as u64 / all.max(1);
    if needed <= memory {
        return Ok(());
    }
    let (needed, memory) = (needed.div_ceil(MIB), memory / MIB);
    let what = format!(
        "adopting {wanted} of the dump's {all} collections takes about {needed} MiB of memory, and {memory} MiB are allowed"
    );
    Err(Error::new(ErrorKind::Refused, what)
        .hint(format!("set [[memory-mb or BACKUP_MEMORY_MB]] to {needed} or more, or adopt it in parts with [[include]]")))
}

/// The selected collections, each with its place in the dump.
fn select(dump: &Dump, options: &AdoptOptions) -> Result<Vec<(usize, Collection)>> {
    let all = dump.collections();
    if let Some(idle) = options.filter.patterns().find(|p| !all.iter().any(|c| p.matches(&c.namespace()))) {
        return Err(Error::new(ErrorKind::NotFound, format!("the pattern {:?} matches no namespace of the dump", idle.as_str()))
            .hint("check the pattern: it is case-sensitive, and '*' stands for any characters; quote it in the shell"));
    }
    let wanted: Vec<_> = all.iter().cloned().enumerate().filter(|(_, c)| options.filter.takes(&c.namespace())).collect();
    match wanted.is_empty() {
        true => Err(Error::new(ErrorKind::NotFound, format!("{} holds nothing to back up", dump.location()))),
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
    // 1. Read the dump once, and store its documents.
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
        // The reader stops when nobody takes its parts any more.
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

    // 2. Determine the consistency point, and match the oplog's collections to those of the dump.
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

    // 4. Make sure that the oplog can be replayed. It also tells which temporary collections become
    // permanent.
    let mut at_the_end = Vec::new();
    if let (Some(oplog), Some(listed_at)) = (&manifest.oplog, manifest.consistency.cluster_time) {
        let follow = replayed::follow(place, &manifest, oplog, listed_at, None, &cx.cpu);
        let followed = cx.unless_cancelled(follow).await.map_err(|e| e.context("the oplog of the dump"))?;
        at_the_end = followed.catalog.collections;
    }
    commit::leave_out_temporary(&mut manifest, &at_the_end, place).await?;
    Ok((manifest, accounts, arrivals))
}

/// The backup's date: the given one, else that of the oplog's last entry, else when the dump's last
/// file was written.
fn created(dump: &Dump, options: &AdoptOptions, consistency: &Consistency, finished: DateTime<Utc>) -> DateTime<Utc> {
    options.created.or(consistency.moment()).or(dump.written()).unwrap_or(finished)
}

/// What is known of the dump's origin. A dump without collection UUIDs is recognized by its path.
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

/// Divides the memory. Half is for documents under way, each of which is a [`Part`]. A quarter is
/// for segments that are not full yet, over all collections. The rest is for reading and for
/// segments on their way to the store.
fn memory(options: &AdoptOptions, dump: &Dump, cx: &Context) -> (MemoryBudget, usize) {
    let taken = READING_BYTES + dump.taken();
    let bytes = options.tuning.memory_bytes.saturating_sub(taken).max(LEAST_BUFFERS);
    (cx.memory.part_beside(bytes / 2, bytes / 2 + taken), usize::try_from(bytes / 4).unwrap_or(usize::MAX))
}

/// Where documents are written to, and how.
struct Writing<'a> {
    place: &'a Objects,
    compressors: Arc<Compressors>,
    segment_bytes: usize,
    cpu: CpuPool,
    /// The stored bytes that may wait in segments that are not full yet.
    held: usize,
}

/// What has been adopted so far.
struct Adopted<'a> {
    writing: Writing<'a>,
    /// By their place in the dump.
    collections: HashMap<usize, Adopting>,
    slice: Option<Slice>,
    /// Absent unless the options ask for them.
    accounts: Option<Accounts>,
    /// Collections whose documents are arriving.
    open: HashSet<usize>,
}

/// A collection that is being adopted.
struct Adopting {
    collection: Collection,
    arrivals: Arrivals,
    item: Item,
    writer: Arc<CollectionWriter>,
    range: Option<RangeWriter>,
    /// Present once the whole collection is stored.
    segments: Option<Vec<(usize, Segment)>>,
}

impl<'a> Writing<'a> {
    fn begin(self, dump: &Dump, collections: Vec<(usize, Collection)>, options: &AdoptOptions, cx: &Context) -> Adopted<'a> {
        let slice = dump.has_oplog().then(|| {
            let of_dump: Vec<Collection> = collections.iter().map(|(_, c)| c.clone()).collect();
            // The progress does not count it.
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

    /// Takes everything that is read. It heeds a stop only between two parts. Otherwise a write
    /// under way would go on while the directory is removed.
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

    /// Ends segments before they are full, the largest first, if too many bytes wait. The
    /// collections of an archive may be interleaved.
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

    /// The collections with their segments in order, the oplog, users and roles, and how a server
    /// takes the documents.
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

    /// Waits until no write to the store is under way.
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
    collections
        .get_mut(&number)
        .ok_or_else(|| Error::new(ErrorKind::Internal, "the dump gave a collection that was not asked for"))
}
