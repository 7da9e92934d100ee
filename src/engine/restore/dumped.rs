//! A dump as an import sees it: its collections, and its oplog kept as a slice, in a backup's terms.
//!
//! What an oplog does to the catalog decides what is staged, and it is the last that an archive holds. So a dump with an oplog is read twice: for that, and
//! for its documents. Meanwhile the oplog is kept, compressed, in the system's temporary directory. A dump without one is read once.

use std::collections::HashMap;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::catalog::Backup;
use crate::clock;
use crate::engine::identity::Identities;
use crate::engine::replayed::LastRead;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::{Content, Sha256Hex};
use crate::format::document::{self, Documents};
use crate::format::frame::Compressors;
use crate::format::manifest::{
    ClusterTime, Collection, CollectionKind, Consistency, ConsistencyKind, FORMAT_VERSION, Manifest, OplogSlice, Settings, Tool,
    Totals,
};
use crate::format::oplog::Head;
use crate::format::{frame, key, segment};
use crate::interop::{Dump, Of, Part, READING_BYTES, Wanted};
use crate::names::{BackupName, Namespace};
use crate::pipeline::budget::Budget;
use crate::pipeline::cpu::Cpu;
use crate::pipeline::progress::Progress;
use crate::pipeline::write::{CollectionWriter, RangeWriter};
use crate::store::Store;

/// How many parts wait.
const WAITING: usize = 4;
/// The level at which the oplog is kept for a while.
const LEVEL: i32 = 1;

/// How a dump is to be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct DumpOptions {
    /// Of its oplog, only entries before this time are replayed.
    pub oplog_limit: Option<ClusterTime>,
    /// The bytes that all buffers together may take.
    pub memory_bytes: u64,
}

/// A dump that is to be imported.
#[derive(Debug)]
pub struct Dumped {
    dump: Dump,
    /// Its collections without documents, and its oplog.
    backup: Backup,
    last_read: LastRead,
    /// Removed with this.
    _kept: Option<TempDir>,
}

impl Dumped {
    /// Looks at a dump: a directory, an archive or a single file, or `-` for an archive on standard input. Where it has an oplog, that is read, and of an archive
    /// with it everything else: what is damaged shows here.
    ///
    /// # Errors
    /// Those of [`Dump::open`] and [`Dump::read`]; [`ErrorKind::Refused`] for an oplog that cannot be replayed; [`ErrorKind::Usage`] for a limit where there is none.
    pub async fn open(location: &str, options: DumpOptions, progress: &Progress, stop: &CancellationToken) -> Result<Self> {
        let dump = Dump::open(location, stop).await?;
        let mut collections = dump.collections().to_vec();
        if !dump.has_oplog() {
            if options.oplog_limit.is_some() {
                return Err(Error::usage(format!("--oplog-limit is about an oplog, and {} has none", dump.location())));
            }
            // By which its parts are found again; what the dump says of them may be missing or repeat.
            for collection in collections.iter_mut().filter(|c| c.kind != CollectionKind::View) {
                collection.uuid = Some(Uuid::new_v4());
            }
            let nowhere = Store::open(&std::env::temp_dir().to_string_lossy())?;
            let backup = Backup { store: nowhere, manifest: manifest(&dump, collections, None) };
            return Ok(Self { dump, backup, last_read: LastRead::new(), _kept: None });
        }
        progress.begin("reading the oplog");
        let kept = tempfile::Builder::new().prefix("bsonvault-oplog-").tempdir().map_err(|e| {
            let message = format!("no directory can be made in {} for the oplog: {e}", std::env::temp_dir().display());
            Error::new(ErrorKind::Storage, message).hint("set TMPDIR to a directory that can be written to").cause(e)
        })?;
        let store = Store::open(&kept.path().to_string_lossy())?;
        let keeping = Keeping::begin(&store, &collections, options, progress);
        let Kept { oplog, last_read, identities } =
            stop.run_until_cancelled(keeping.run(&dump, options, stop)).await.ok_or_else(Error::interrupted)?.map_err(
                |e| match e.kind() {
                    ErrorKind::Storage => {
                        e.hint("the oplog is kept in the system's temporary directory: set TMPDIR to one with room")
                    }
                    _ => e,
                },
            )?;
        identities.settle(&mut collections)?;
        let last_read = last_read.into_iter().filter_map(|(place, id)| Some((collections.get(place)?.uuid?, id))).collect();
        let backup = Backup { store, manifest: manifest(&dump, collections, oplog) };
        Ok(Self { dump, backup, last_read, _kept: Some(kept) })
    }

    /// The dump.
    #[must_use]
    pub fn dump(&self) -> &Dump {
        &self.dump
    }

    /// Where it is, as a person would name it.
    #[must_use]
    pub fn location(&self) -> String {
        self.dump.location()
    }

    /// What it holds and is not imported, and what was taken for what, in words.
    pub(super) fn beside(&self) -> Vec<String> {
        let left_out = self.dump.left_out().iter();
        let left_out = left_out.map(|l| format!("{}: {}", Namespace::new(&*l.database, &*l.collection), l.reason));
        left_out.chain(self.dump.notes().iter().cloned()).collect()
    }

    pub(super) fn backup(&self) -> &Backup {
        &self.backup
    }

    pub(super) fn last_read(&self) -> &LastRead {
        &self.last_read
    }
}

/// The oplog on its way from a dump to where it is kept.
struct Keeping {
    writer: RangeWriter,
    identities: Identities,
    /// By the collection's place.
    last_read: HashMap<usize, (u8, Vec<u8>)>,
    capped: Vec<bool>,
    limit: Option<ClusterTime>,
    times: Option<(ClusterTime, ClusterTime)>,
}

/// What was kept.
struct Kept {
    /// None where the oplog has no entry, or none before the limit.
    oplog: Option<OplogSlice>,
    last_read: HashMap<usize, (u8, Vec<u8>)>,
    identities: Identities,
}

impl Keeping {
    fn begin(store: &Store, collections: &[Collection], options: DumpOptions, progress: &Progress) -> Self {
        let writer = CollectionWriter::new(
            store.clone(),
            key::OPLOG.to_owned(),
            Compressors::new(LEVEL).into(),
            segment::TARGET / 4,
            Cpu::of_this_machine(),
            progress.item("oplog", 0, 0),
        );
        Self {
            writer: writer.range(),
            identities: Identities::new(collections),
            last_read: HashMap::new(),
            capped: collections.iter().map(|c| c.options.bson.get_bool("capped").unwrap_or(false)).collect(),
            limit: options.oplog_limit,
            times: None,
        }
    }

    async fn run(mut self, dump: &Dump, options: DumpOptions, stop: &CancellationToken) -> Result<Kept> {
        let wanted = Wanted { collections: self.capped.clone(), oplog: true, users: false };
        let budget = Budget::new(options.memory_bytes.saturating_sub(READING_BYTES));
        let (sender, mut parts) = mpsc::channel(WAITING);
        let reading = dump.read(&wanted, &budget, stop, sender);
        let keeping = async {
            while let Some(part) = parts.recv().await {
                match part {
                    Part::Documents { of: Of::Oplog, frame, share, .. } => {
                        self.take(frame).await?;
                        drop(share);
                    }
                    Part::Documents { of: Of::Collection(place), frame, .. } => self.see(place, &frame)?,
                    _ => {}
                }
            }
            Ok::<_, Error>(())
        };
        tokio::try_join!(reading, keeping)?;
        let segments: Vec<_> = self.writer.finish().await?.into_iter().map(|(_, segment)| segment).collect();
        let mut content = Content::default();
        segments.iter().for_each(|segment| content.merge(&segment.content()));
        let oplog = self.times.map(|(first, last)| OplogSlice {
            from: before(first),
            to: last,
            documents: content.documents,
            bytes: content.bytes,
            digest: content.digest(),
            segments,
        });
        Ok(Kept { oplog, last_read: self.last_read, identities: self.identities })
    }

    /// Takes the next entries.
    async fn take(&mut self, entries: Vec<u8>) -> Result<()> {
        let mut kept = 0;
        for entry in Documents::of(&entries) {
            let entry = entry?;
            let time = Head::of(entry).map_err(|e| e.context("oplog"))?.time;
            if self.limit.is_some_and(|limit| time >= limit) {
                break;
            }
            let (first, last) = self.times.unwrap_or((time, time));
            if time < last {
                return Err(Error::damaged(format!("oplog: the entry at {time} comes after the one at {last}"))
                    .hint("the entries of an oplog are in the order of their times"));
            }
            self.identities.take(entry)?;
            self.times = Some((first, time));
            kept += entry.len();
        }
        let mut entries = entries;
        entries.truncate(kept);
        if entries.is_empty() {
            return Ok(());
        }
        self.writer.write_frame(Bytes::from(entries)).await
    }

    /// Sees documents of a capped collection, which come in order.
    fn see(&mut self, place: usize, frame: &[u8]) -> Result<()> {
        let mut last = None;
        for document in Documents::of(frame) {
            last = Some(document?);
        }
        if let Some((kind, id)) = last.map(document::id).transpose()?.flatten() {
            self.last_read.insert(place, (kind, id.to_vec()));
        }
        Ok(())
    }
}

/// The moment right before this one: mongodump lists before its oplog begins, so the first entry counts, too.
fn before(time: ClusterTime) -> ClusterTime {
    match time.i.checked_sub(1) {
        Some(i) => ClusterTime { t: time.t, i },
        None => ClusterTime { t: time.t.saturating_sub(1), i: u32::MAX },
    }
}

/// A manifest of what is known before the documents are read. It is stored nowhere.
fn manifest(dump: &Dump, collections: Vec<Collection>, oplog: Option<OplogSlice>) -> Manifest {
    let now = clock::now();
    let consistency = Consistency {
        kind: if oplog.is_some() { ConsistencyKind::Oplog } else { ConsistencyKind::None },
        cluster_time: oplog.as_ref().map(|o| o.from),
        from: oplog.as_ref().map(|o| o.from),
        to: oplog.as_ref().map(|o| o.to),
        exceptions: Vec::new(),
    };
    let settings = Settings {
        level: LEVEL,
        readers: 1,
        frame_bytes: frame::TARGET as u64,
        segment_bytes: segment::TARGET as u64,
        databases: Vec::new(),
        include: Vec::new(),
        exclude: Vec::new(),
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
