//! Planning a backup: the connection, what is read and when, how it is divided, and with what settings.

use bson::Timestamp;
use futures::StreamExt as _;
use serde::Serialize;

use super::BackupOptions;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{CollectionKind, ConsistencyKind, LeftOut, Settings, Source, Topology};
use crate::format::{frame, segment};
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri};
use crate::pipeline::cpu;
use crate::source::discover::{self, Listing, Selection, Size};
use crate::source::link::{self, Link};
use crate::source::ranges::{self, Division, Range};

/// Cursors at a time over a distant link, where most of each one's time is waiting.
const FAR_READERS: usize = 8;

/// The most cursors at a time that are chosen from the cores.
const NEAR_READERS: usize = 4;

/// zstd's level where nothing is said: it keeps up with a source that is near.
const NEAR_LEVEL: i32 = 1;

/// The same where the link leaves time to compress better.
const FAR_LEVEL: i32 = 3;

/// What a backup would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupPlan {
    /// The source.
    pub source: Source,
    /// What moment it would show.
    pub consistency: ConsistencyKind,
    /// Each namespace, in the order of names.
    pub collections: Vec<PlannedCollection>,
    /// What is there and would not be part of it.
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
    /// About how many documents, by the server's counters; of a time series, buckets.
    pub documents: u64,
    /// About how many bytes, uncompressed.
    pub bytes: u64,
    /// In how many ranges it would be read.
    pub ranges: usize,
}

/// All that a backup needs to begin reading.
pub(super) struct Prepared {
    pub(super) connection: Connection,
    pub(super) selection: Selection,
    pub(super) allow_inconsistent: bool,
    pub(super) kind: ConsistencyKind,
    pub(super) settings: Settings,
    pub(super) division: Division,
    pub(super) memory_bytes: u64,
    pub(super) listing: Listing,
    pub(super) sizes: Vec<Option<Size>>,
}

/// Connects, lists, and chooses the settings.
pub(super) async fn prepare(source: &MongoUri, options: &BackupOptions) -> Result<Prepared> {
    let most_readers = options.tuning.readers.unwrap_or(FAR_READERS);
    let mut connection =
        Connection::open(source, ConnectOptions { pool: pool(most_readers), ..ConnectOptions::default() }).await?;
    let kind = consistency(&connection, options.allow_inconsistent)?;
    let databases = match (options.databases.as_slice(), source.database()) {
        ([], Some(named)) => vec![named.to_owned()],
        (given, _) => given.to_vec(),
    };
    let selection = Selection {
        databases: databases.clone(),
        include: options.include.clone(),
        exclude: options.exclude.clone(),
        allow_empty: options.allow_empty,
    };
    let listing = discover::settle(&connection, &selection).await?;
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
    let readers = options.tuning.readers.unwrap_or(readers).max(1);
    let patterns = |patterns: &[crate::names::NamespacePattern]| patterns.iter().map(ToString::to_string).collect();
    let settings = Settings {
        level: options.tuning.level.unwrap_or(level),
        readers,
        frame_bytes: frame::TARGET as u64,
        segment_bytes: segment_bytes(options.tuning.memory_bytes, readers),
        databases,
        include: patterns(&options.include),
        exclude: patterns(&options.exclude),
    };
    tracing::debug!(?link, readers, level = settings.level, segment_bytes = settings.segment_bytes, "settings chosen");
    Ok(Prepared {
        connection,
        selection,
        allow_inconsistent: options.allow_inconsistent,
        kind,
        settings,
        division: Division { readers, range_bytes: options.tuning.range_bytes },
        memory_bytes: options.tuning.memory_bytes,
        listing,
        sizes,
    })
}

/// What moment this source can be read at.
fn consistency(connection: &Connection, allow_inconsistent: bool) -> Result<ConsistencyKind> {
    if discover::can_snapshot(connection) {
        return Ok(ConsistencyKind::Snapshot);
    }
    if connection.topology == Topology::Standalone || allow_inconsistent {
        return Ok(ConsistencyKind::None);
    }
    Err(Error::new(
        ErrorKind::Refused,
        format!("the source is a {} of version {}, which cannot be read at one moment", connection.topology, connection.version),
    )
    .hint("upgrade it to 5.0 or later, or pass --allow-inconsistent for a backup whose parts are of different moments"))
}

/// Segments wait in memory, up to two a reader; a third of the budget is theirs.
fn segment_bytes(memory_bytes: u64, readers: usize) -> u64 {
    (memory_bytes / (6 * readers as u64)).clamp(1024 * 1024, segment::TARGET as u64)
}

/// What each reader holds whatever the data: two segments, a frame being filled and a frame being compressed.
fn fixed_bytes(settings: &Settings) -> u64 {
    settings.readers as u64 * (2 * settings.segment_bytes + 2 * settings.frame_bytes)
}

fn pool(readers: usize) -> u32 {
    u32::try_from(readers).unwrap_or(u32::MAX / 2)
}

impl Prepared {
    /// The time that every read shares.
    pub(super) fn snapshot(&self) -> Option<Timestamp> {
        self.listing.time.filter(|_| self.kind == ConsistencyKind::Snapshot)
    }

    /// The bytes that batches may take.
    pub(super) fn batch_bytes(&self) -> u64 {
        self.memory_bytes.saturating_sub(fixed_bytes(&self.settings)).max(self.memory_bytes / 4)
    }

    /// A new listing and a new snapshot time.
    pub(super) async fn settle_again(&mut self) -> Result<()> {
        self.listing = discover::settle(&self.connection, &self.selection).await?;
        self.sizes = discover::sizes(&self.connection, &self.listing.collections).await;
        Ok(())
    }

    /// The ranges of every collection, in the listing's order; none of views.
    pub(super) async fn ranges(&self) -> Vec<Vec<Range>> {
        let parts = self.listing.collections.iter().zip(&self.sizes);
        futures::stream::iter(parts)
            .map(|(collection, size)| async move {
                if collection.kind == CollectionKind::View {
                    return Vec::new();
                }
                ranges::divide(&self.connection, collection, size.unwrap_or_default(), self.division).await
            })
            .buffered(8)
            .collect()
            .await
    }

    /// The plan, for people.
    pub(super) async fn plan(&self) -> BackupPlan {
        let ranges = self.ranges().await;
        let collections = self.listing.collections.iter().zip(&self.sizes).zip(ranges).map(|((collection, size), ranges)| {
            let size = size.unwrap_or_default();
            PlannedCollection {
                database: collection.namespace.database.clone(),
                name: collection.namespace.collection.clone(),
                kind: collection.kind,
                documents: size.documents,
                bytes: size.bytes,
                ranges: ranges.len(),
            }
        });
        BackupPlan {
            source: self.connection.describe().await,
            consistency: self.kind,
            collections: collections.collect(),
            left_out: self.listing.left_out.clone(),
        }
    }
}
