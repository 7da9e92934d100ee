//! Export: writes a backup, or a part of it, in mongodump's formats, for mongorestore and other
//! tools that read them.
//!
//! Every stored byte is verified on its way, and the output must be what the manifest says.

mod ahead;
mod describe;
mod options;
mod select;
mod slice;

use std::time::Instant;

use serde::Serialize;

use self::ahead::Ahead;
use self::describe::{described, described_beside};
pub use self::options::{Beside, ExportOptions};
use self::slice::Slice;
use crate::clock;
use crate::context::Context;
use crate::context::cpu::CpuPool;
use crate::context::memory::MemoryBudget;
use crate::context::progress::Item;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Content;
use crate::format::manifest::{ClusterTime, Collection, CollectionKind, Manifest, OplogSlice, Segment, TEMPORARY};
use crate::interop::write::{Contents, WRITING_BYTES, WriteOptions, Writer};
pub use crate::interop::write::{DEFAULT_LEVEL, Destination, Format, LEVELS, look};
use crate::mongo::connect::ConnectOptions;
use crate::mongo::{Connection, MongoUri};
use crate::names::NamespaceFilter;
use crate::repository::catalog::Backup;
use crate::source::accounts;

/// The users and roles of this database, in the form of an export.
///
/// # Errors
/// [`ErrorKind::Unreachable`], [`ErrorKind::Denied`], others of the server;
/// [`ErrorKind::Interrupted`].
pub async fn accounts(uri: &MongoUri, database: &str, cx: &Context) -> Result<Vec<Beside>> {
    let reading = async {
        let connection = Connection::open(uri, ConnectOptions { pool: 2, selection_timeout: None }).await?;
        let found = accounts::of(&connection, database).await;
        connection.close().await;
        found
    };
    let found = cx.unless_cancelled(reading).await?;
    let beside = |(name, documents)| Beside { database: database.to_owned(), name, documents };
    Ok(found.into_iter().map(beside).collect())
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportReport {
    /// The backup's name, as its manifest has it.
    pub backup: String,
    /// Where the export is.
    pub location: String,
    /// Its format.
    pub format: Format,
    /// Whether it is compressed.
    pub gzip: bool,
    /// How many namespaces, views included.
    pub collections: u64,
    /// How many documents, without the oplog's entries.
    pub documents: u64,
    /// How many of these are buckets of time series.
    pub buckets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes that the export takes.
    pub written_bytes: u64,
    /// The oplog in it. Without a replay of it, the export has no consistency point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oplog: Option<ExportedOplog>,
    /// How long it took.
    pub milliseconds: u64,
}

/// The oplog of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ExportedOplog {
    /// The time of the listing: documents were read at it or later.
    pub from: ClusterTime,
    /// The consistency point once the oplog is replayed.
    pub to: ClusterTime,
    /// How many entries. The backup may have more: an export holds only those that count.
    pub entries: u64,
}

/// Exports a backup, which is not deleted meanwhile. A failed or stopped export leaves nothing
/// behind, with one exception: if it fails while it replaces the files of an existing dump, that
/// may be partly the new one, and the error says so.
///
/// # Errors
/// [`ErrorKind::Usage`] if the destination exists or does not suit the format;
/// [`ErrorKind::NotFound`] for a pattern that matches nothing; [`ErrorKind::Refused`] for data that
/// mongodump's formats or mongorestore cannot carry; [`ErrorKind::Damaged`] if the backup is
/// damaged; [`ErrorKind::Storage`]; [`ErrorKind::Interrupted`] if `stop` is cancelled.
pub async fn run(backup: &Backup, options: &ExportOptions, destination: &Destination, cx: &Context) -> Result<ExportReport> {
    let begun = Instant::now();
    let _lock = backup.read_lock("export").await?;
    let job = Job::new(backup, options, cx);

    // 1. Plan: names, metadata, and the oplog entries that mongorestore is to replay. Reads only.
    cx.progress.begin("looking at the backup");
    refuse_inside(backup, destination)?;
    look(destination, options.format, options.force)?;
    let planning = job.plan();
    let plan = cx.unless_cancelled(planning).await?;

    // 2. Write under another name.
    let (format, gzip, force) = (options.format, options.gzip, options.force);
    let write = WriteOptions { format, gzip, force, whole: is_whole(backup, options) };
    let opening = Writer::open(destination, write, plan.contents.clone(), &job.cpu);
    let mut writer = cx.unless_cancelled(opening).await?;
    let writing = async {
        let entries = job.write(&plan, &mut writer).await?;
        cx.progress.begin("finishing");
        Ok((entries, writer.finish().await?))
    };
    let written = cx.cancel.run_until_cancelled(writing).await.unwrap_or_else(|| Err(Error::interrupted()));
    let (entries, written_bytes) = match written {
        Ok(written) => written,
        Err(e) => {
            writer.abandon().await;
            return Err(if e.kind() == ErrorKind::Interrupted { interrupted(destination) } else { e });
        }
    };

    // 3. Publish: from here on it is durable and no longer stopped.
    writer.put().await?;
    let content: Content = plan.collections.iter().map(|c| c.content()).sum();
    Ok(ExportReport {
        backup: backup.manifest.name.to_string(),
        location: destination.to_string(),
        format: options.format,
        gzip: options.gzip.is_some(),
        collections: plan.collections.len() as u64,
        documents: content.documents,
        buckets: plan.collections.iter().filter(|c| c.kind == CollectionKind::TimeSeries).map(|c| c.documents).sum(),
        bytes: content.bytes,
        written_bytes,
        oplog: plan.slice.map(|slice| ExportedOplog { from: slice.listed_at, to: slice.to, entries }),
        milliseconds: clock::millis_since(begun),
    })
}

/// Output is published only at the end, unless the destination is standard output, a device or a
/// pipe.
fn interrupted(destination: &Destination) -> Error {
    match destination {
        Destination::Path(path) if !path.exists() || path.is_file() || path.is_dir() => {
            Error::new(ErrorKind::Interrupted, format!("interrupted; nothing was written to {}", path.display()))
        }
        _ => Error::interrupted(),
    }
}

/// An export under way.
struct Job<'a> {
    backup: &'a Backup,
    options: &'a ExportOptions,
    cx: &'a Context,
    cpu: CpuPool,
    budget: MemoryBudget,
}

/// What an export writes.
struct Plan<'a> {
    collections: Vec<&'a Collection>,
    contents: Contents,
    slice: Option<Slice<'a>>,
}

impl<'a> Job<'a> {
    fn new(backup: &'a Backup, options: &'a ExportOptions, cx: &'a Context) -> Self {
        let memory = options.tuning.memory_bytes;
        let writing = WRITING_BYTES.min(memory / 2);
        Self { backup, options, cx, cpu: cx.cpu.clone(), budget: cx.memory.part_beside(memory - writing, writing) }
    }

    async fn plan(&self) -> Result<Plan<'a>> {
        let manifest = &self.backup.manifest;
        let collections = select::select(&manifest.collections, self.options)?;
        for collection in manifest.collections.iter().filter(|c| c.is_temporary() && self.options.filter.takes(&c.namespace())) {
            self.cx.progress.note(format!("{} is skipped, {TEMPORARY}", collection.namespace()));
        }
        let slice = match &manifest.oplog {
            Some(oplog) => Some(self.slice(oplog, &collections).await?),
            None => None,
        };
        let version = &manifest.source.server_version;
        let beside = self.options.beside.iter().map(|beside| Ok(described_beside(beside)));
        let contents = Contents {
            server_version: version.clone(),
            tool_version: concat!("bsonvault ", env!("CARGO_PKG_VERSION")).to_owned(),
            collections: beside.chain(collections.iter().map(|c| described(c, version))).collect::<Result<_>>()?,
            oplog: slice.is_some() || self.options.oplog,
        };
        Ok(Plan { collections, contents, slice })
    }

    /// The part of the oplog slice that is to be replayed. Reads the whole slice.
    async fn slice(&self, oplog: &'a OplogSlice, collections: &[&'a Collection]) -> Result<Slice<'a>> {
        let slice = Slice::follow(self.backup, oplog, collections, self.options, &self.cpu).await?;
        let mut filter = slice.filter();
        let mut entries = Ahead::start(self.backup, oplog.segments.clone(), &self.budget, &self.cpu);
        while let Some(mut segment) = entries.next_segment().await {
            while let Some(frame) = segment.next().await? {
                filter = self.cpu.run(move || filter.screened(&frame)).await?;
            }
        }
        Ok(slice)
    }

    /// Writes everything. Returns the number of oplog entries.
    async fn write(&self, plan: &Plan<'a>, writer: &mut Writer) -> Result<u64> {
        self.cx.progress.begin("writing");
        let items: Vec<_> =
            plan.collections.iter().map(|c| self.cx.progress.item(c.namespace().to_string(), c.documents, c.bytes)).collect();
        let of_oplog = plan.slice.as_ref().map(|slice| self.cx.progress.item("oplog", slice.oplog.documents, slice.oplog.bytes));
        let of_collections = plan.collections.iter().flat_map(|c| c.segments.iter().cloned());
        let of_slice = plan.slice.iter().flat_map(|slice| slice.oplog.segments.iter().cloned());
        let segments: Vec<Segment> = of_collections.chain(of_slice).collect();
        let mut ahead = Ahead::start(self.backup, segments, &self.budget, &self.cpu);

        // 1. Users and roles: mongorestore looks for users in an archive before any other
        // collection.
        for beside in &self.options.beside {
            writer.begin().await?;
            writer.documents(beside.documents.clone()).await?;
            writer.end().await?;
        }

        // 2. The collections.
        for (collection, item) in plan.collections.iter().zip(items) {
            writer.begin().await?;
            write_documents(collection, &mut ahead, writer, &item).await?;
            writer.end().await?;
            item.finish();
        }

        // 3. The oplog.
        if !plan.contents.oplog {
            return Ok(0);
        }
        writer.begin().await?;
        let mut entries = 0;
        if let (Some(slice), Some(item)) = (&plan.slice, of_oplog) {
            entries = self.write_entries(slice, &mut ahead, writer, &item).await?;
            item.finish();
        }
        writer.end().await?;
        Ok(entries)
    }

    /// Writes the entries of the slice that are to be replayed. Returns their number.
    async fn write_entries(&self, slice: &Slice<'a>, ahead: &mut Ahead, writer: &mut Writer, item: &Item) -> Result<u64> {
        let mut filter = slice.filter();
        for _ in &slice.oplog.segments {
            let mut segment = ahead.expected().await?;
            let mut done = 0;
            while let Some(frame) = segment.next().await? {
                let (read, bytes) = (segment.content().documents, frame.len() as u64);
                let kept;
                (filter, kept) = self.cpu.run(move || filter.kept(&frame)).await?;
                writer.documents(kept).await?;
                item.add(read - done, bytes);
                done = read;
            }
        }
        Ok(filter.entries())
    }
}

/// Writes the documents of a collection, which must be what the manifest says.
async fn write_documents(collection: &Collection, ahead: &mut Ahead, writer: &mut Writer, item: &Item) -> Result<()> {
    let mut written = Content::default();
    for _ in &collection.segments {
        let mut segment = ahead.expected().await?;
        let mut done = Content::default();
        while let Some(frame) = segment.next().await? {
            let read = segment.content();
            item.add(read.documents - done.documents, read.bytes - done.bytes);
            done = read;
            writer.documents(frame).await?;
        }
        written.merge(&done);
    }
    if written == collection.content() {
        return Ok(());
    }
    Err(Error::damaged(format!(
        "{} has {} documents of {} bytes in its segments, expected {} of {}",
        collection.namespace(),
        written.documents,
        written.bytes,
        collection.documents,
        collection.bytes
    )))
}

/// Whether each exported database has no other collections, as far as the backup knows.
fn is_whole(backup: &Backup, options: &ExportOptions) -> bool {
    let Manifest { settings, left_out, source, .. } = &backup.manifest;
    let chosen = [&settings.include, &settings.exclude].iter().any(|patterns| !patterns.is_empty())
        || settings.query.is_some()
        || settings.views_as_collections;
    // An adopted dump may itself have been partial.
    !chosen && options.filter == NamespaceFilter::default() && left_out.is_empty() && !source.is_dump()
}

/// Refuses to export into the backup: the next verification would find the export there, and
/// deleting the backup would delete it.
fn refuse_inside(backup: &Backup, destination: &Destination) -> Result<()> {
    let Destination::Path(path) = destination else { return Ok(()) };
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
    let room = if path.is_dir() { path } else { above };
    if backup.store.covers(room) {
        return Err(
            Error::usage(format!("{} would be inside the backup", path.display())).hint("choose another place with [[out]]")
        );
    }
    Ok(())
}
