//! Plans a backup: the connection, what is read and when, how it is divided, and the settings.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bson::Timestamp;
use futures::StreamExt as _;
use serde::Serialize;
use uuid::Uuid;

use super::options::BackupOptions;
use super::throttle;
use crate::context::Context;
use crate::context::cpu::{self, CpuPool};
use crate::context::memory::MemoryBudget;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::Head;
use crate::format::frame::{Compression, Compressors};
use crate::format::manifest::{CollectionKind, ConsistencyKind, LeftOut, Settings, Source, TEMPORARY, Topology};
use crate::format::{frame, segment};
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri, command};
use crate::names::{BackupName, Namespace, NamespaceFilter, NamespacePattern};
use crate::oplog::window::{self, Start};
use crate::pipeline::pace::RateLimiter;
use crate::pipeline::steer::LevelController;
use crate::source::discover::{self, CollectionInfo, Documents, Listing, Selection, Size};
use crate::source::link::{self, Link};
use crate::source::ranges::{self, Division, Range};

/// Cursors at a time over a slow link, over which each cursor mostly waits.
const FAR_READERS: usize = 8;

/// The most cursors at a time that are tried, unless the options set a number.
const MOST_READERS: usize = 16;

/// The most cursors at a time that are chosen by the number of cores.
const NEAR_READERS: usize = 4;

/// zstd's default level: it keeps up with a source nearby.
const NEAR_LEVEL: i32 = 1;

/// The default level if the link leaves time to compress better.
const FAR_LEVEL: i32 = 3;

/// About the smallest segment, in stored bytes.
const SMALLEST_SEGMENT: u64 = 1024 * 1024;

/// The most memory that keeping the oplog takes: two of its segments, two frames, and a reply that
/// the driver holds twice. Only entries of many megabytes need more.
const SLICE_BYTES: u64 = 24 * 1024 * 1024;

/// What a backup would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupPlan {
    /// The source.
    pub source: Source,
    /// The kind of consistency point that it would have.
    pub consistency: ConsistencyKind,
    /// The unfinished backup that would be resumed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumes: Option<BackupName>,
    /// Each namespace, sorted by name.
    pub collections: Vec<PlannedCollection>,
    /// What exists and would be skipped, with the reason.
    pub left_out: Vec<LeftOut>,
}

/// One namespace of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedCollection {
    /// The database's name.
    pub database: String,
    /// The collection's name.
    pub name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: CollectionKind,
    /// About how many documents, by the server's counters. For a time series, buckets.
    pub documents: u64,
    /// What these are: `documents` or `buckets`.
    pub counted_in: &'static str,
    /// About how many bytes, uncompressed.
    pub bytes: u64,
    /// How many ranges it would be read in.
    pub ranges: usize,
    /// How many of them are stored already and would not be read again.
    pub ranges_done: usize,
}

/// All that a backup needs to begin reading.
pub(super) struct BackupContext {
    pub(super) connection: Connection,
    pub(super) selection: Selection,
    pub(super) allow_inconsistent: bool,
    /// The intended kind of consistency; it may become less.
    pub(super) kind: ConsistencyKind,
    /// Why the oplog cannot be kept, if it cannot.
    pub(super) why_no_slice: Option<String>,
    pub(super) settings: Settings,
    pub(super) compressors: Arc<Compressors>,
    pub(super) cpu: CpuPool,
    pub(super) room: Room,
    pub(super) pace: RateLimiter,
    /// The source's latencies before the reading. Present if the backup is under the adaptive
    /// throttle.
    pub(super) usual: Option<Vec<Duration>>,
    /// The memory for reading, keeping the oplog and compressing.
    counted_bytes: u64,
    pub(super) listing: Listing,
    pub(super) survey: Survey,
}

/// How large collections are and how they are divided. It is determined before the snapshot time is
/// pinned, because the source keeps its history only for a short time. Collections created since
/// are read in one piece.
#[derive(Debug, Default)]
pub(super) struct Survey(HashMap<Uuid, (Option<Size>, Vec<Range>)>);

impl Survey {
    /// A survey that was made before.
    pub(super) fn known(collections: HashMap<Uuid, (Option<Size>, Vec<Range>)>) -> Self {
        Self(collections)
    }

    /// The size of a collection, if known, and its ranges. A view has none.
    pub(super) fn of(&self, collection: &CollectionInfo) -> (Option<Size>, Vec<Range>) {
        if collection.kind == CollectionKind::View {
            return (Some(Size::default()), Vec::new());
        }
        let known = collection.uuid.and_then(|uuid| self.0.get(&uuid).cloned());
        known.unwrap_or_else(|| (None, vec![Range::Natural]))
    }
}

/// Connects, lists, and chooses the settings. [`BackupContext::pin_snapshot_time`] later takes the
/// listing that is read.
pub(super) async fn prepare(source: &MongoUri, options: &BackupOptions, cpu: &CpuPool) -> Result<BackupContext> {
    let most_readers = options.tuning.readers.unwrap_or(MOST_READERS);
    let mut connection =
        Connection::open(source, ConnectOptions { pool: pool(most_readers), ..ConnectOptions::default() }).await?;
    let selection = Selection {
        filter: options.filter.clone().or_in(source.database()),
        allow_empty: options.allow_empty,
        idle_excludes: options.idle_excludes,
        documents: options.documents.clone(),
    };
    let listing = command::patiently(|| discover::list(&connection, &selection)).await?;
    let sizes = discover::sizes(&connection, &listing.collections).await;

    let largest = listing.collections.iter().zip(&sizes).filter_map(|(c, s)| Some((c, (*s)?))).max_by_key(|(_, s)| s.bytes);
    let link = link::measure(&connection, largest).await?;
    if link == Link::Far && !source.names_compressors() {
        connection = connection.compressed().await?;
    }
    let (readers, level) = match link {
        Link::Near => (cpu::cores().clamp(2, NEAR_READERS), NEAR_LEVEL),
        Link::Far => (FAR_READERS, FAR_LEVEL),
    };
    let frame_bytes = options.tuning.frame_bytes.unwrap_or(frame::TARGET);
    let compression = Compression {
        codec: options.tuning.codec.unwrap_or_default(),
        level: options.tuning.level.unwrap_or(level),
        long_distance: options.tuning.long_distance.unwrap_or_default(),
    };
    let room = Room::of(&connection, options, compression, readers, frame_bytes)?;
    let NamespaceFilter { databases, include, exclude } = &selection.filter;
    let settings = Settings {
        codec: compression.codec,
        level: compression.level,
        long_distance: compression.long_distance,
        readers: room.readers,
        frame_bytes: frame_bytes as u64,
        segment_bytes: room.segment_bytes(),
        databases: databases.clone(),
        include: NamespacePattern::texts(include),
        exclude: NamespacePattern::texts(exclude),
        query: options.documents.query().and_then(crate::format::metadata::text::canonical),
        views_as_collections: options.documents.is_of_views(),
    };
    let Room { readers, most_readers, jobs, .. } = room;
    tracing::debug!(
        ?link,
        readers,
        most_readers,
        jobs,
        level = settings.level,
        segment_bytes = settings.segment_bytes,
        "settings chosen"
    );
    let division = Division { readers: room.most_readers, range_bytes: options.tuning.range_bytes, fine_end: true };
    let survey = match options.documents {
        Documents::All => survey(&connection, &listing.collections, &sizes, division).await,
        Documents::Matching(_) | Documents::OfViews(_) => Survey::default(),
    };
    let usual = usual(&connection, options, &listing).await;
    Ok(BackupContext {
        connection,
        selection,
        allow_inconsistent: options.allow_inconsistent,
        kind: ConsistencyKind::None,
        why_no_slice: None,
        compressors: Arc::new(Compressors::new(settings.compression())),
        cpu: cpu.limited(room.jobs),
        room,
        pace: RateLimiter::limited(options.tuning.max_bits),
        usual,
        settings,
        counted_bytes: options.tuning.counted_bytes(),
        listing,
        survey,
    })
}

/// The source's latencies before the reading, if the adaptive throttle needs them.
async fn usual(connection: &Connection, options: &BackupOptions, listing: &Listing) -> Option<Vec<Duration>> {
    match options.tuning.adaptive_throttle {
        true => Some(throttle::usual_latencies(connection, throttle::place(&listing.collections).as_ref()).await),
        false => None,
    }
}

/// Connects again for a backup that goes on with this listing, with its original settings. Readers
/// and memory may differ: no document depends on them.
pub(super) async fn prepare_again(
    source: &MongoUri,
    options: &BackupOptions,
    head: &Head,
    listing: Listing,
    survey: Survey,
    cpu: &CpuPool,
) -> Result<BackupContext> {
    let pool = pool(options.tuning.readers.unwrap_or(MOST_READERS).max(head.settings.readers));
    let mut connection = Connection::open(source, ConnectOptions { pool, ..ConnectOptions::default() }).await?;
    if link::measure(&connection, None).await? == Link::Far && !source.names_compressors() {
        connection = connection.compressed().await?;
    }
    let frame_bytes = usize::try_from(head.settings.frame_bytes).unwrap_or(frame::LARGEST_TARGET).min(frame::LARGEST_TARGET);
    let room = Room::of(&connection, options, head.settings.compression(), head.settings.readers, frame_bytes)?;
    let segment_bytes = head.settings.segment_bytes.min(room.segment_bytes());
    let settings = Settings { readers: room.readers, segment_bytes, ..head.settings.clone() };
    let usual = usual(&connection, options, &listing).await;
    let selection = Selection {
        filter: NamespaceFilter::parse(&settings.databases, &settings.include, &settings.exclude)?,
        // Everything that it named existed when it began.
        allow_empty: true,
        idle_excludes: true,
        documents: Documents::All,
    };
    Ok(BackupContext {
        connection,
        selection,
        allow_inconsistent: head.allow_inconsistent || options.allow_inconsistent,
        kind: ConsistencyKind::None,
        why_no_slice: None,
        compressors: Arc::new(Compressors::new(settings.compression())),
        cpu: cpu.limited(room.jobs),
        // As when it began.
        room: Room { follows_level: false, ..room },
        pace: RateLimiter::limited(options.tuning.max_bits),
        usual,
        settings,
        counted_bytes: options.tuning.counted_bytes(),
        listing,
        survey,
    })
}

/// How the memory is divided, and how many work with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// For reading, beside keeping the oplog and compressing.
    memory_bytes: u64,
    /// Cursors to begin with.
    readers: usize,
    /// The most cursors.
    pub(super) most_readers: usize,
    /// Frames compressed at a time.
    jobs: usize,
    /// Whether the level controller may change zstd's level. That takes memory, and overrides no
    /// level that the user chose.
    pub(super) follows_level: bool,
}

/// Below this much memory, none of it is reserved for higher levels.
const ROOMY: u64 = 112 * 1024 * 1024;

impl Room {
    fn of(
        connection: &Connection,
        options: &BackupOptions,
        compression: Compression,
        readers: usize,
        frame_bytes: usize,
    ) -> Result<Self> {
        let all = options.tuning.counted_bytes();
        let follows_level = options.tuning.level.is_none() && all >= ROOMY;
        let level = if follows_level { compression.level.max(LevelController::MOST) } else { compression.level };
        let each = Compression { level, ..compression }.working_bytes(frame_bytes);
        if each > all / 2 {
            let mb = |bytes: u64| bytes >> 20;
            let what = format!(
                "compressing a frame with these settings takes {} MiB, more than half of the {} MiB",
                mb(each),
                mb(options.tuning.memory_bytes)
            );
            return Err(Error::usage(format!("{what} that BACKUP_MEMORY_MB allows"))
                .hint(format!("pass [[memory-mb]] {} or more, a lower [[level]], or smaller frames", mb(each * 5 / 2) + 1)));
        }
        // Each reader has one frame compressed at a time.
        let most_at_work = 2 * options.tuning.readers.unwrap_or(readers).max(1);
        let jobs = cpu::cores().min(usize::try_from(all / 2 / each).unwrap_or(usize::MAX)).min(most_at_work).max(1);
        let slice = if connection.topology == Topology::ReplicaSet { SLICE_BYTES.min(all / 4) } else { 0 };
        let memory_bytes = all.saturating_sub(slice).saturating_sub(jobs as u64 * each).max(all / 4);

        let wanted = options.tuning.readers.unwrap_or(readers).max(1);
        let fitting = most_readers_in(memory_bytes, frame_bytes);
        let readers = wanted.min(fitting);
        if readers < wanted && options.tuning.readers.is_some() {
            tracing::warn!("{readers} readers instead of {wanted}: no more fit into {} MiB", options.tuning.memory_bytes >> 20);
        }
        let most_readers = match options.tuning.readers {
            Some(_) => readers,
            None => (2 * readers).min(MOST_READERS).min(fitting).max(readers),
        };
        Ok(Self { memory_bytes, readers, most_readers, jobs, follows_level })
    }

    fn segment_bytes(&self) -> u64 {
        segment_bytes(self.memory_bytes, self.most_readers)
    }
}

/// How each collection is divided.
async fn survey(connection: &Connection, collections: &[CollectionInfo], sizes: &[Option<Size>], how: Division) -> Survey {
    let parts = collections.iter().zip(sizes).filter_map(|(c, s)| Some((c.uuid?, c, *s)));
    let found = futures::stream::iter(parts).map(|(uuid, collection, size)| async move {
        (uuid, (size, ranges::divide(connection, collection, size.unwrap_or_default(), how).await))
    });
    Survey(found.buffer_unordered(8).boxed().collect().await)
}

/// The listing that is read, and its time.
async fn pinned(connection: &Connection, selection: &Selection, kind: ConsistencyKind) -> Result<Listing> {
    let listing = discover::list_at_one_time(connection, selection, kind != ConsistencyKind::None).await?;
    let has_documents = listing.collections.iter().any(|c| c.kind != CollectionKind::View);
    if kind != ConsistencyKind::None && has_documents && listing.time.is_none() {
        return Err(Error::new(
            ErrorKind::Refused,
            "the source does not tell its operation time, so it cannot be read at one snapshot time",
        )
        .hint("connect to the deployment itself, not to something that only imitates it"));
    }
    Ok(listing)
}

/// How many readers fit: each needs two small segments, two frames, and a batch that the driver
/// holds twice.
fn most_readers_in(memory_bytes: u64, frame_bytes: usize) -> usize {
    usize::try_from(memory_bytes / (2 * SMALLEST_SEGMENT + 4 * frame_bytes as u64)).unwrap_or(usize::MAX).max(1)
}

/// Up to two segments per reader wait in memory. They get a third of the budget.
pub(in crate::engine) fn segment_bytes(memory_bytes: u64, readers: usize) -> u64 {
    (memory_bytes / (6 * readers as u64)).clamp(SMALLEST_SEGMENT, segment::TARGET as u64)
}

/// What each reader holds, whatever the data: two segments, a frame being filled and a frame being
/// compressed.
fn fixed_bytes(settings: &Settings, readers: usize) -> u64 {
    readers as u64 * (2 * settings.segment_bytes + 2 * settings.frame_bytes)
}

fn pool(readers: usize) -> u32 {
    u32::try_from(readers).unwrap_or(u32::MAX / 2)
}

impl BackupPlan {
    /// The plan with temporary collections among the skipped ones. Those that become permanent
    /// during the backup become part of it.
    pub(super) fn without_temporary(mut self, context: &BackupContext) -> Self {
        for found in context.listing.collections.iter().filter(|found| found.is_temporary()) {
            let Namespace { database, collection } = found.namespace.clone();
            self.collections.retain(|planned| (&planned.database, &planned.name) != (&database, &collection));
            if context.selection.filter.takes(&found.namespace) {
                self.left_out.push(LeftOut { database, collection, uuid: found.uuid, reason: TEMPORARY.to_owned() });
            }
        }
        self
    }
}

impl BackupContext {
    /// Chooses which consistency point the backup can show, and where the oplog slice for it must
    /// begin. None if no oplog can be read.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if it can show none and the options require one;
    /// [`ErrorKind::Unreachable`].
    pub(super) async fn choose_consistency(&mut self) -> Result<Option<Start>> {
        let connection = &self.connection;
        let start = match connection.topology {
            _ if self.selection.documents != Documents::All => {
                Err(Error::new(ErrorKind::Refused, "it covers all documents, and this backup reads only some"))
            }
            Topology::ReplicaSet => window::start(connection).await.map(Some),
            Topology::Standalone | Topology::Sharded => Ok(None),
        };
        let start = match start {
            Err(e) if e.kind() == ErrorKind::Unreachable => return Err(e),
            Err(e) => {
                self.why_no_slice = Some(e.to_string());
                None
            }
            Ok(start) => start,
        };
        self.kind = match connection.topology {
            Topology::Standalone => ConsistencyKind::None,
            _ if discover::can_snapshot(connection) => ConsistencyKind::Snapshot,
            _ if start.is_some() => ConsistencyKind::Oplog,
            _ if self.allow_inconsistent => ConsistencyKind::None,
            _ => return Err(self.without_a_moment()),
        };
        Ok(start)
    }

    fn without_a_moment(&self) -> Error {
        let (topology, version) = (self.connection.topology, self.connection.version);
        let oplog = match &self.why_no_slice {
            Some(why) => format!("; the oplog could make up for that, but cannot be kept: {why}"),
            None => String::new(),
        };
        let grant = match topology {
            Topology::ReplicaSet => {
                "grant the login the role backup or clusterMonitor on admin, so that it can read the oplog; or "
            }
            _ => "",
        };
        Error::new(
            ErrorKind::Refused,
            format!("the source is a {topology} of version {version}, which cannot be read at one snapshot time{oplog}"),
        )
        .hint(format!(
            "{grant}upgrade it to 5.0 or later, or pass [[allow-inconsistent]] for a backup without a consistency point"
        ))
    }

    /// The time of the listing, if the backup is to have a consistency point.
    pub(super) fn time(&self) -> Option<Timestamp> {
        self.listing.time.filter(|_| self.kind != ConsistencyKind::None)
    }

    /// The memory budget of batches. Segments, compressing and the oplog slice come on top.
    pub(super) fn budget(&self, cx: &Context) -> MemoryBudget {
        let batches = self
            .room
            .memory_bytes
            .saturating_sub(fixed_bytes(&self.settings, self.room.most_readers))
            .max(self.room.memory_bytes / 4);
        cx.memory.part_beside(batches, self.counted_bytes.saturating_sub(batches))
    }

    /// Takes the listing that is read, and with it the snapshot time that all reads share.
    pub(super) async fn pin_snapshot_time(&mut self) -> Result<()> {
        self.listing = pinned(&self.connection, &self.selection, self.kind).await?;
        Ok(())
    }

    /// The plan, for people.
    pub(super) async fn plan(&self) -> BackupPlan {
        let collections = self.listing.collections.iter().map(|collection| {
            let (size, ranges) = self.survey.of(collection);
            let size = size.unwrap_or_default();
            PlannedCollection {
                database: collection.namespace.database.clone(),
                name: collection.namespace.collection.clone(),
                kind: collection.kind,
                documents: size.documents,
                counted_in: collection.kind.counted_in(),
                bytes: size.bytes,
                ranges: ranges.len(),
                ranges_done: 0,
            }
        });
        BackupPlan {
            source: self.connection.describe().await,
            consistency: self.kind,
            resumes: None,
            collections: collections.collect(),
            left_out: self.listing.left_out.clone(),
        }
    }
}
