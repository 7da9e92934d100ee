//! A dump as an import sees it: its collections, and its oplog kept as a slice, in a backup's terms.
//!
//! What an oplog does to the catalog decides what is staged, and it is the last that an archive holds. So a dump with an oplog is read twice: for that, and
//! for its documents. Meanwhile the oplog is kept, compressed, in the system's temporary directory; and where the dump comes by standard input, all of it is. A
//! dump without an oplog is read once.

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

/// How many parts wait.
const WAITING: usize = 4;
/// The level at which the oplog is kept for a while.
const LEVEL: i32 = 1;
/// About the stored bytes of its segments.
const SEGMENT_BYTES: usize = segment::TARGET / 4;

/// How a dump is to be read.
#[derive(Debug, Clone, Default)]
pub struct DumpOptions {
    /// The name of the database, where the dump is that of one, instead of its directory's.
    pub database: Option<String>,
    /// Of its oplog, only entries before this time are replayed.
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
    /// Removed with this.
    _kept: Option<TempDir>,
}

/// Where the documents of a dump are.
#[derive(Debug)]
pub(super) enum Documents {
    /// In the dump. Of each capped collection, the last that was read before its oplog is told.
    InDump(LastRead),
    /// In the backup that was made of it, because it can be read once only. Its users and roles are kept beside that.
    InBackup(Accounts),
}

impl DumpSource {
    /// Looks at a dump: a directory, an archive or a single file, or `-` for an archive on standard input. Where it has an oplog, that is read, and of an archive
    /// with it everything else: what is damaged shows here.
    ///
    /// # Errors
    /// Those of [`Dump::open`] and [`Dump::read`]; [`ErrorKind::Refused`] for an oplog that cannot be replayed; [`ErrorKind::Usage`] for a limit where there is none.
    pub async fn open(location: &str, options: DumpOptions, cx: &Context) -> Result<Self> {
        let dump = Dump::open_as(location, options.database.as_deref(), options.memory_bytes, &cx.cancel).await?;
        Self::of(dump, options, cx).await
    }

    /// The same of a dump that was looked at already.
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
                    e.hint(format!("set TMPDIR to a directory with room; now it is {}", std::env::temp_dir().display()))
                }
                _ => e,
            })?;
            return Ok(Self { dump, backup, documents, _kept: Some(kept) });
        }
        if options.oplog_limit.is_some() {
            return Err(Error::usage(format!("a limit of the oplog was given, and {} has none", dump.location()))
                .hint("leave [[oplog-limit]] out"));
        }
        let mut collections = dump.take_collections();
        name_anew(&mut collections);
        let backup = Backup { store: Objects::in_memory(), manifest: manifest(&dump, collections, (dump_oplog::none(), None)) };
        Ok(Self { dump, backup, documents: Documents::InDump(LastRead::new()), _kept: None })
    }

    /// Keeps the oplog aside.
    async fn with_oplog(dump: &mut Dump, store: &Objects, options: &DumpOptions, cx: &Context) -> Result<(Backup, Documents)> {
        cx.progress.begin("reading the oplog");
        let (slice, last_ids) = oplog(dump, store, options, cx).await?;
        let mut collections = dump.take_collections();
        let moment = slice.settle(&mut collections)?;
        // An oplog without entries says nothing of who is who.
        if moment.1.is_none() {
            name_anew(&mut collections);
        }
        let last_read = last_ids.into_iter().filter_map(|(place, id)| Some((collections.get(place)?.uuid?, id))).collect();
        let backup = Backup { store: store.clone(), manifest: manifest(dump, collections, moment) };
        Ok((backup, Documents::InDump(last_read)))
    }

    /// Keeps all of it aside, compressed: what can be read once only is gone when its oplog comes.
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

    /// Where it is, as a person would name it.
    #[must_use]
    pub fn location(&self) -> String {
        self.dump.location()
    }
}

/// Gives each collection an identity, by which its parts are found again: what a dump says of it may be missing, or repeat where a collection was copied.
fn name_anew(collections: &mut [Collection]) {
    for collection in collections.iter_mut().filter(|c| c.kind != CollectionKind::View) {
        collection.uuid = Some(Uuid::new_v4());
    }
}

/// A directory that is gone with what it gives.
async fn kept() -> Result<TempDir> {
    let made = tokio::task::spawn_blocking(|| tempfile::Builder::new().prefix("bsonvault-oplog-").tempdir()).await;
    let made = made.map_err(|e| Error::new(ErrorKind::Internal, "a task of the file system died").cause(e))?;
    made.map_err(|e| {
        let message = format!("no directory can be made in {} for the oplog: {e}", std::env::temp_dir().display());
        Error::new(ErrorKind::Storage, message).hint("set TMPDIR to a directory that can be written to").cause(e)
    })
}

/// By its collection's place, the `_id` of the last document of each capped collection.
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
        // Whoever reads stops where nothing takes its parts any more.
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
    // Both to their ends: what is on its way to the directory would go on while that is removed.
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
