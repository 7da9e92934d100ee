//! A dump as an import sees it: its collections, and its oplog as a slice, in a backup's terms.
//!
//! The oplog's changes to the catalog decide what is staged, but the oplog comes last in an
//! archive. So a dump with an oplog is read twice: for the oplog, and for the documents. In
//! between, the oplog is kept, compressed, in the system's temporary directory. If the dump comes
//! by standard input, all of it is kept there. A dump without an oplog is read once.

use std::collections::HashMap;

use tempfile::TempDir;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::clock;
use crate::context::Context;
use crate::engine::adopt::{self, AdoptOptions};
use crate::engine::dump_oplog::{self, Slice};
use crate::engine::{Tuning, replayed::LastRead};
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Sha256Hex;
use crate::format::frame::{Codec, Compression, Compressors};
use crate::format::manifest::{
    ClusterTime, Collection, CollectionKind, Consistency, FORMAT_VERSION, Manifest, OplogSlice, Settings, Tool, Totals,
};
use crate::format::{document, frame, key, segment};
use crate::interop::{Dump, Of, Part, READING_BYTES, Wanted};
use crate::names::BackupName;
use crate::pipeline::write::{CollectionWriter, Sizes};
use crate::repository::Repository;
use crate::repository::backend::Objects;
use crate::repository::catalog::{Backup, Catalog};
use crate::sink::users::Accounts;

/// How many parts may wait.
const WAITING: usize = 4;
/// The compression level of the copy in the temporary directory.
const LEVEL: i32 = 1;
/// About the stored bytes of its segments.
const SEGMENT_BYTES: usize = segment::TARGET / 4;

/// How to read a dump.
#[derive(Debug, Clone, Default)]
pub struct DumpOptions {
    /// The database's name, if the dump is of a single database. By default, the directory's name.
    pub database: Option<String>,
    /// Replays only the oplog entries before this time.
    pub oplog_limit: Option<ClusterTime>,
    /// The bytes that all buffers together may take.
    pub memory_bytes: u64,
}

/// A dump that is to be imported.
#[derive(Debug)]
pub struct DumpSource {
    dump: Dump,
    /// Its collections without documents, and its oplog.
    pub(super) backup: Backup,
    pub(super) documents: Documents,
    /// The temporary directory, removed with this.
    _kept: Option<TempDir>,
}

/// Where the documents of a dump are.
#[derive(Debug)]
pub(super) enum Documents {
    /// In the dump. Holds the last document of each capped collection, read before the oplog.
    InDump(LastRead),
    /// In a backup made of the dump, because the dump can be read only once. The users and roles
    /// are beside it.
    InBackup(Accounts),
}

impl DumpSource {
    /// Opens a dump: a directory, an archive or a single file, or `-` for an archive on standard
    /// input. If it has an oplog, that is read, and in an archive everything before it: damage is
    /// found here.
    ///
    /// # Errors
    /// Those of [`Dump::open`] and [`Dump::read`]; [`ErrorKind::Refused`] for an oplog that cannot
    /// be replayed; [`ErrorKind::Usage`] for an oplog limit if there is no oplog.
    pub async fn open(location: &str, options: DumpOptions, cx: &Context) -> Result<Self> {
        let dump = Dump::open_as(location, options.database.as_deref(), options.memory_bytes, &cx.cancel).await?;
        Self::of(dump, options, cx).await
    }

    /// The same for a dump that is already open.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn of(mut dump: Dump, options: DumpOptions, cx: &Context) -> Result<Self> {
        if dump.has_oplog() {
            let kept = kept().await?;
            let repository = Repository::open(&kept.path().to_string_lossy())?;
            let looking = async {
                match dump.can_be_read_again() {
                    true => Self::with_oplog(&mut dump, repository.objects(), &options, cx).await,
                    false => Self::as_backup(&mut dump, &repository, &options, cx).await,
                }
            };
            let (backup, documents) = looking.await.map_err(|e| match e.kind() {
                ErrorKind::Storage => {
                    e.hint(format!("set TMPDIR to a directory with enough space; now it is {}", std::env::temp_dir().display()))
                }
                _ => e,
            })?;
            return Ok(Self { dump, backup, documents, _kept: Some(kept) });
        }
        if options.oplog_limit.is_some() {
            return Err(Error::usage(format!("an oplog limit was given, and {} has no oplog", dump.location()))
                .hint("leave [[oplog-limit]] out"));
        }
        let mut collections = dump.take_collections();
        name_anew(&mut collections);
        let backup = Backup { store: Objects::in_memory(), manifest: manifest(&dump, collections, (dump_oplog::none(), None)) };
        Ok(Self { dump, backup, documents: Documents::InDump(LastRead::new()), _kept: None })
    }

    /// Copies the oplog to the temporary directory.
    async fn with_oplog(dump: &mut Dump, store: &Objects, options: &DumpOptions, cx: &Context) -> Result<(Backup, Documents)> {
        cx.progress.begin("reading the oplog");
        let (slice, last_ids) = oplog(dump, store, options, cx).await?;
        let mut collections = dump.take_collections();
        let moment = slice.settle(&mut collections)?;
        // An oplog without entries names no UUIDs.
        if moment.1.is_none() {
            name_anew(&mut collections);
        }
        let last_read = last_ids.into_iter().filter_map(|(place, id)| Some((collections.get(place)?.uuid?, id))).collect();
        let backup = Backup { store: store.clone(), manifest: manifest(dump, collections, moment) };
        Ok((backup, Documents::InDump(last_read)))
    }

    /// Copies the whole dump, compressed: a dump that can be read only once has passed when its
    /// oplog comes.
    async fn as_backup(
        dump: &mut Dump,
        repository: &Repository,
        options: &DumpOptions,
        cx: &Context,
    ) -> Result<(Backup, Documents)> {
        let tuning = Tuning { memory_bytes: options.memory_bytes, level: Some(LEVEL), ..Tuning::default() };
        let how = AdoptOptions { oplog_limit: options.oplog_limit, accounts: true, tuning, ..AdoptOptions::default() };
        let report = adopt::run(dump, repository, &how, cx).await?;
        drop(dump.take_collections());
        Ok((Catalog::new(repository.clone(), &cx.cpu).find(report.name.as_str()).await?, Documents::InBackup(report.accounts)))
    }

    /// The dump.
    #[must_use]
    pub fn dump(&self) -> &Dump {
        &self.dump
    }

    /// What it holds.
    #[must_use]
    pub fn collections(&self) -> &[Collection] {
        &self.backup.manifest.collections
    }

    /// Its location, for people.
    #[must_use]
    pub fn location(&self) -> String {
        self.dump.location()
    }
}

/// Gives each collection a new UUID, by which its parts are found again. The dump's own UUID may be
/// missing, or repeat if a collection was copied.
fn name_anew(collections: &mut [Collection]) {
    for collection in collections.iter_mut().filter(|c| c.kind != CollectionKind::View) {
        collection.uuid = Some(Uuid::new_v4());
    }
}

/// A temporary directory, removed when the result is dropped.
async fn kept() -> Result<TempDir> {
    let made = tokio::task::spawn_blocking(|| tempfile::Builder::new().prefix("bsonvault-oplog-").tempdir()).await;
    let made = made.map_err(|e| Error::new(ErrorKind::Internal, "a task of the file system died").cause(e))?;
    made.map_err(|e| {
        let message = format!("cannot create a directory for the oplog in {}: {e}", std::env::temp_dir().display());
        Error::new(ErrorKind::Storage, message).hint("set TMPDIR to a writable directory").cause(e)
    })
}

/// The `_id` of the last document of each capped collection, by the collection's place.
type LastIds = HashMap<usize, (u8, Vec<u8>)>;

/// Reads a dump for its oplog and for the ends of its capped collections.
async fn oplog(dump: &Dump, store: &Objects, options: &DumpOptions, cx: &Context) -> Result<(Slice, LastIds)> {
    let cpu = cx.cpu.clone();
    let item = cx.progress.item(key::OPLOG, 0, 0);
    let compressors = Compressors::new(Compression::of(LEVEL)).into();
    let writer = CollectionWriter::new(
        store.clone(),
        key::OPLOG.to_owned(),
        compressors,
        Sizes::of_segments(SEGMENT_BYTES),
        cpu.clone(),
        item,
    );
    let mut slice = Slice::new(dump.collections(), options.oplog_limit, writer.range(), cpu);
    let mut last_ids = LastIds::new();
    let capped = dump.collections().iter().map(|c| c.options.bson.get_bool("capped").unwrap_or(false)).collect();
    let wanted = Wanted { collections: capped, oplog: true, users: false };
    let budget = cx.memory.part_beside(options.memory_bytes.saturating_sub(READING_BYTES), READING_BYTES);
    let (sender, parts) = mpsc::channel(WAITING);
    let keeping = async {
        // The reader stops when nobody takes its parts any more.
        let mut parts = parts;
        while let Some(part) = parts.recv().await {
            match part {
                Part::Documents { of: Of::Oplog, frame, share, .. } => {
                    slice.take(frame).await?;
                    drop(share);
                }
                Part::Documents { of: Of::Collection(place), frame, .. } => {
                    let last = document::Documents::of(&frame).last().transpose()?;
                    if let Some((kind, id)) = last.map(document::id).transpose()?.flatten() {
                        last_ids.insert(place, (kind, id.to_vec()));
                    }
                }
                Part::End(Of::Oplog) => slice.end().await?,
                _ => {}
            }
        }
        Ok::<_, Error>(())
    };
    // Wait for both: a write under way would go on while the directory is removed.
    let (read, kept) = tokio::join!(dump.read(&wanted, &budget, &cx.cancel, sender), keeping);
    if let Err(e) = read.and(kept) {
        slice.abandon().await;
        return Err(e);
    }
    Ok((slice, last_ids))
}

/// A manifest of what is known before the documents are read. It is stored nowhere.
fn manifest(dump: &Dump, collections: Vec<Collection>, (consistency, oplog): (Consistency, Option<OplogSlice>)) -> Manifest {
    let now = clock::now();
    let settings = Settings {
        codec: Codec::default(),
        level: LEVEL,
        long_distance: false,
        readers: 1,
        frame_bytes: frame::TARGET as u64,
        segment_bytes: segment::TARGET as u64,
        databases: Vec::new(),
        include: Vec::new(),
        exclude: Vec::new(),
        query: None,
        views_as_collections: false,
    };
    Manifest {
        format_version: FORMAT_VERSION,
        tool: Tool { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() },
        id: Uuid::new_v4(),
        name: BackupName::at(now),
        source: dump.source().clone(),
        created: now,
        started: now,
        finished: now,
        consistency,
        settings,
        totals: Totals::of(&collections, oplog.as_ref()),
        collections,
        left_out: dump.left_out().to_vec(),
        oplog,
        checksums: Sha256Hex::zero(),
        sha256: Sha256Hex::zero(),
    }
}
