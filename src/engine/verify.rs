//! Verify: proves that a backup is what its manifest says, and names every difference.

use std::ops::ControlFlow;
use std::time::Instant;

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock;
use crate::context::Context;
use crate::context::cpu::CpuPool;
use crate::error::{Error, ErrorKind, Result};
use crate::few::{self, Few, LISTED, TOLD};
use crate::format::arrival::{Arrivals, NotImportable, NotImportables};
use crate::format::checks::{Check, CheckKind};
use crate::format::digest::{Content, Sha256Hex};
use crate::format::document;
use crate::format::key;
use crate::format::manifest::{self, ClusterTime, Manifest, OplogSlice, Segment, StoredObject};
use crate::format::{metadata, segment};
use crate::oplog::Head;
use crate::pipeline::read::{self, SegmentReader};
use crate::repository::backend::{Entry, Objects};
use crate::repository::catalog::Backup;

/// How many objects are read at a time, so that some are read while others keep the processor busy.
/// One number for hashing only, one for decoding, too.
pub(super) const READERS: usize = 3;
const DEEP_READERS: usize = 6;

/// The memory that they may take together. A larger one is read alone.
pub(super) const MEMORY_BYTES: u64 = 96 * 1024 * 1024;

/// Larger manifests are read piece by piece.
const AT_ONCE: u64 = 8 * 1024 * 1024;

/// What to verify.
#[derive(Debug, Clone, Copy, Default)]
pub struct VerifyOptions {
    /// Also decodes: every frame, the structure of every document, counts and digests. Otherwise,
    /// only the SHA-256 of every stored byte is verified.
    pub deep: bool,
}

/// The hint for a backup that is not sound.
pub const HINT: &str = "do not rely on it: check the disk that it is on, and take a new backup while the source is intact; an export \
                        with [[include]] rescues intact collections";

/// The result of verifying. In jobs kept by older versions, fields that these versions did not have
/// are empty or 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VerifyResult)]
pub struct VerifyReport {
    /// The backup's name, as its manifest has it.
    #[serde(default)]
    pub name: String,
    /// Where it is. Empty if that is unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Whether every document was decoded, too.
    pub deep: bool,
    /// Objects that the manifest names and that were checked.
    pub objects: u64,
    /// The bytes of objects that were read and are correct.
    pub stored_bytes: u64,
    /// Documents that were decoded and are correct; 0 unless `deep`.
    pub documents: u64,
    /// How many of the backup's documents are buckets of time series.
    #[serde(default)]
    pub buckets: u64,
    /// The problems, in the order of the manifest: the first twenty one by one, and a last entry
    /// that counts the others.
    pub problems: Vec<Problem>,
    /// How many problems there are.
    #[serde(default)]
    pub problem_count: u64,
    /// Remarks that are no problems: objects that do not belong to the backup; with `deep`,
    /// documents that an import changes or cannot import.
    pub notes: Vec<String>,
    /// With `deep`, documents that no server accepts: they are as they were read, and cannot be
    /// imported.
    #[serde(default)]
    pub not_importable: Vec<NotImportable>,
}

impl VerifyReport {
    /// The report on a backup of this name whose manifest is unusable.
    #[must_use]
    pub fn unusable(name: &str, deep: bool, error: &Error) -> Self {
        let problem = Problem { key: key::MANIFEST.to_owned(), message: error.to_string() };
        Self { name: name.to_owned(), deep, problems: vec![problem], problem_count: 1, ..Self::default() }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// The error of a backup with problems, if there are any.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        let count = if self.problem_count == 1 { "1 problem".to_owned() } else { format!("{} problems", self.problem_count) };
        let error = || Error::new(ErrorKind::Mismatch, format!("backup {} has {count}", self.name)).hint(HINT);
        (!self.is_sound()).then(error)
    }
}

/// A problem of a backup or an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = VerifyProblem)]
pub struct Problem {
    /// The object that it concerns.
    pub key: String,
    /// What is wrong, with what was expected and what was found.
    pub message: String,
}

impl Problem {
    pub(super) fn new(key: &str, message: impl std::fmt::Display) -> Self {
        Self { key: key.to_owned(), message: few::cut(&message) }
    }
}

/// Verifies a backup, as [`prove`] does, and keeps the result beside it. The backup is not deleted
/// meanwhile. If the result cannot be written, only that is skipped.
///
/// # Errors
/// Those of [`prove`] and of [`Backup::read_lock`]; nothing is kept then.
pub async fn run(backup: &Backup, options: &VerifyOptions, cx: &Context) -> Result<VerifyReport> {
    let begun = Instant::now();
    let _lock = backup.read_lock("verify").await?;
    let report = prove(backup, options, cx).await?;
    let kind = if options.deep { CheckKind::Deep } else { CheckKind::Verify };
    let problem = report.problems.first().map(|p| p.message.clone());
    backup.keep(Check::ended(kind, clock::now(), clock::millis_since(begun), problem)).await;
    Ok(report)
}

/// Checks whether a backup is complete and correct, and reports every problem, not only the first.
/// A problem that follows from a damaged object is not reported again. Writes nothing: for callers
/// that hold the read lock already, or own the backup alone.
///
/// # Errors
/// [`ErrorKind::Interrupted`] if it is cancelled; [`ErrorKind::Internal`]. Problems of the backup
/// or its storage are in the report, and not errors.
pub async fn prove(backup: &Backup, options: &VerifyOptions, cx: &Context) -> Result<VerifyReport> {
    cx.cancel.run_until_cancelled(verify(backup, *options, cx)).await.ok_or_else(Error::interrupted)?
}

async fn verify(backup: &Backup, options: VerifyOptions, cx: &Context) -> Result<VerifyReport> {
    let Backup { store, manifest } = backup;
    let mut report = VerifyReport {
        name: manifest.name.to_string(),
        path: backup.location(),
        deep: options.deep,
        buckets: manifest.buckets(),
        ..VerifyReport::default()
    };

    // 1. The backup's own records: the manifest as it is stored now, and the list of checksums.
    report.take(key::MANIFEST, check_manifest(store, manifest, &cx.cpu).await)?;
    report.take(key::SHA256SUMS, check_sums(store, manifest, &cx.cpu).await)?;

    // 2. Every object of the collections, and its content.
    report.collections(backup, options, cx).await?;

    // 3. The oplog slice, in its order.
    if let Some(slice) = &manifest.oplog {
        report.slice(store, slice, options, &cx.cpu).await?;
    }

    // 4. Objects that do not belong to the backup.
    match strays(store, manifest).await {
        Ok(notes) => report.notes.extend(notes),
        Err(e) => report.problem(&report.path.clone(), e)?,
    }
    let more = report.problem_count - report.problems.len() as u64;
    if more > 0 {
        report.problems.push(Problem::new("", format!("and {more} more")));
    }
    Ok(report)
}

/// The memory that reading an object takes, and decoding it if it is a segment.
pub(super) fn needed(object: &StoredObject, decoded: Option<&Segment>) -> u64 {
    let frame = decoded.map_or(0, |segment| segment.raw_bytes / segment.frames.max(1));
    // Frames differ, and columns exist beside the documents made of them.
    object.bytes.saturating_add(2 * frame)
}

impl VerifyReport {
    /// Checks the metadata and every segment of each collection.
    async fn collections(&mut self, Backup { store, manifest }: &Backup, options: VerifyOptions, cx: &Context) -> Result<()> {
        let parts = manifest.collections.iter().enumerate().flat_map(|(number, collection)| {
            let metadata = (number, &collection.metadata, None);
            std::iter::once(metadata).chain(collection.segments.iter().map(move |s| (number, &s.object, Some(s))))
        });
        let (cpu, budget) = (&cx.cpu, &cx.memory.part(MEMORY_BYTES));
        let mut checks = futures::stream::iter(parts.map(|(number, object, segment)| async move {
            let _share = budget.take(needed(object, segment.filter(|_| options.deep))).await;
            let checked = match segment {
                Some(segment) => check_segment(store, segment, options, cpu).await,
                None => check_metadata(store, object, options, cpu).await.map(|checked| (checked, Arrivals::default())),
            };
            (number, object, checked)
        }))
        .buffered(if options.deep { DEEP_READERS } else { READERS })
        .boxed();
        // The sum of each collection, as long as all of it could be decoded.
        let mut sums = vec![Some(Content::default()); manifest.collections.len()];
        let mut arrivals = vec![Arrivals::default(); manifest.collections.len()];
        while let Some((number, object, checked)) = checks.next().await {
            let checked = checked.map(|(checked, arrived)| {
                arrivals[number].merge(&arrived);
                checked
            });
            let (documents, content) = self.object(object, checked)?;
            self.documents += documents;
            sums[number] = add(sums[number], content);
        }
        let (mut not_importable, mut notes) = (NotImportables::default(), Few::up_to(LISTED));
        for ((collection, sum), arrivals) in manifest.collections.iter().zip(sums).zip(&arrivals) {
            if let Some(sum) = sum.filter(|sum| options.deep && *sum != collection.content()) {
                let message = does_not_add_up(&collection.namespace(), &sum, &collection.content());
                self.wrong(Problem::new(&collection.metadata.key, message));
            }
            let name = collection.namespace().to_string();
            notes.extend(arrivals.notes(&name));
            not_importable.extend(arrivals.not_importable(&name));
        }
        (self.notes, self.not_importable) = (notes.into_sentences(), not_importable.into_list());
        Ok(())
    }

    /// Counts an object. Returns the number of its sound documents or entries, and its content if
    /// nothing was wrong.
    fn object(&mut self, object: &StoredObject, checked: Result<(Content, Broken)>) -> Result<(u64, Option<Content>)> {
        self.objects += 1;
        match checked {
            Ok((content, Broken { first, count })) => {
                self.stored_bytes += object.bytes;
                self.problem_count += count - first.len() as u64;
                first.into_iter().for_each(|problem| self.wrong(problem));
                Ok((content.documents - count, (count == 0).then_some(content)))
            }
            Err(e) => {
                self.problem(&object.key, e)?;
                Ok((0, None))
            }
        }
    }

    /// Checks every segment of the slice. If decoded, its entries must be in order of time, within
    /// the slice.
    async fn slice(&mut self, store: &Objects, slice: &OplogSlice, options: VerifyOptions, cpu: &CpuPool) -> Result<()> {
        let mut sum = Some(Content::default());
        let mut order = Order { after: None, from: slice.from, to: slice.to };
        for segment in &slice.segments {
            let checked = check_entries(store, segment, &mut order, options, cpu).await;
            // Its entries do not count as documents of the backup.
            let (_entries, content) = self.object(&segment.object, checked)?;
            sum = add(sum, content);
        }
        if let Some(sum) = sum.filter(|sum| options.deep && *sum != slice.content()) {
            self.wrong(Problem::new(key::OPLOG, does_not_add_up(&"the oplog slice", &sum, &slice.content())));
        }
        Ok(())
    }

    /// Counts a problem, and keeps it if it is one of the first.
    fn wrong(&mut self, problem: Problem) {
        self.problem_count += 1;
        if self.problems.len() < TOLD {
            self.problems.push(problem);
        }
    }

    fn take(&mut self, key: &str, checked: Result<()>) -> Result<()> {
        match checked {
            Ok(()) => Ok(()),
            Err(e) => self.problem(key, e),
        }
    }

    /// Records a problem of the backup. Returns an error of this program itself.
    fn problem(&mut self, key: &str, error: Error) -> Result<()> {
        if matches!(error.kind(), ErrorKind::Internal | ErrorKind::Interrupted) {
            return Err(error);
        }
        self.wrong(Problem::new(key, error));
        Ok(())
    }
}

async fn check_manifest(store: &Objects, manifest: &Manifest, cpu: &CpuPool) -> Result<()> {
    let size = store.size(key::MANIFEST).await?;
    if size > manifest::LIMIT {
        return Err(Error::damaged(format!("{} has {size} bytes, more than the limit of {}", key::MANIFEST, manifest::LIMIT)));
    }
    if size > AT_ONCE {
        // Compare a digest, so that the manifest is not in memory twice.
        let mut file = store.open_to_read(key::MANIFEST).await?;
        let stored = cpu.run(move || Manifest::outline(&mut file)).await?;
        return if stored.sha256 == manifest.sha256 { Ok(()) } else { Err(replaced()) };
    }
    let bytes = store.get(key::MANIFEST).await?;
    let stored = cpu.run(move || Manifest::from_bytes(&bytes)).await?;
    if stored != *manifest {
        return Err(replaced());
    }
    Ok(())
}

fn replaced() -> Error {
    Error::damaged(format!("{} was replaced by another one since it was read", key::MANIFEST))
}

async fn check_sums(store: &Objects, manifest: &Manifest, cpu: &CpuPool) -> Result<()> {
    let implied = manifest.sums();
    let sha256 = Sha256Hex::of(implied.as_bytes());
    if sha256 != manifest.checksums {
        return Err(Error::damaged(format!(
            "the objects in {} give a {} with SHA-256 {sha256}, expected {}",
            key::MANIFEST,
            key::SHA256SUMS,
            manifest.checksums
        )));
    }
    let expected = StoredObject { key: key::SHA256SUMS.to_owned(), bytes: implied.len() as u64, sha256 };
    read::object(store, &expected, expected.bytes, cpu).await.map(drop)
}

async fn check_metadata(
    store: &Objects,
    object: &StoredObject,
    options: VerifyOptions,
    cpu: &CpuPool,
) -> Result<(Content, Broken)> {
    let bytes = read::object(store, object, metadata::LIMIT, cpu).await?;
    if options.deep {
        // Nothing is built, so depth and size do not matter.
        serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
            .map_err(|e| Error::damaged(format!("{} is not JSON: {e}", object.key)).cause(e))?;
    }
    Ok((Content::default(), Broken::default()))
}

fn does_not_add_up(what: &dyn std::fmt::Display, found: &Content, expected: &Content) -> String {
    format!(
        "{what} holds {} documents with digest {}, expected {} with {}",
        found.documents,
        found.digest(),
        expected.documents,
        expected.digest()
    )
}

/// The sum plus one part, as long as both are known.
fn add(sum: Option<Content>, part: Option<Content>) -> Option<Content> {
    let (mut sum, part) = (sum?, part?);
    sum.merge(&part);
    Some(sum)
}

/// The decoded content, the broken documents, and how a server takes the documents.
async fn check_segment(
    store: &Objects,
    segment: &Segment,
    options: VerifyOptions,
    cpu: &CpuPool,
) -> Result<((Content, Broken), Arrivals)> {
    let look = |arrivals: &mut Arrivals, document: &[u8]| {
        let shape = document::shape(document)?;
        arrivals.add(document.len(), &shape)
    };
    let (content, problems, arrivals) = check_each(store, segment, options, cpu, Arrivals::default(), look).await?;
    Ok(((content, problems), arrivals))
}

/// The same for a segment of the oplog slice, after those before it.
async fn check_entries(
    store: &Objects,
    segment: &Segment,
    order: &mut Order,
    options: VerifyOptions,
    cpu: &CpuPool,
) -> Result<(Content, Broken)> {
    let (content, problems, after) =
        check_each(store, segment, options, cpu, *order, |order, entry| document::check(entry).and_then(|()| order.take(entry)))
            .await?;
    *order = after;
    Ok((content, problems))
}

/// Decodes a segment, if required, and runs `check` on every document, in order. Also returns the
/// final `state`.
async fn check_each<S: Send + 'static>(
    store: &Objects,
    segment: &Segment,
    options: VerifyOptions,
    cpu: &CpuPool,
    state: S,
    check: impl Fn(&mut S, &[u8]) -> Result<()> + Send + 'static,
) -> Result<(Content, Broken, S)> {
    if !options.deep {
        read::object(store, &segment.object, segment::LIMIT as u64, cpu).await?;
        return Ok((Content::default(), Broken::default(), state));
    }
    let key = segment.object.key.clone();
    let reader = SegmentReader::open(store, segment, cpu).await?;
    let look = move |(broken, state): &mut (Broken, S), number, document: &[u8]| {
        if let Err(e) = check(state, document) {
            broken.count += 1;
            if broken.first.len() < TOLD {
                broken.first.push(Problem::new(&key, format!("document {number} of {key}: {e}")));
            }
        }
    };
    let (content, (broken, state)) = reader.look_through((Broken::default(), state), look).await?;
    Ok((content, broken, state))
}

/// The broken documents of a segment.
#[derive(Debug, Default)]
struct Broken {
    first: Vec<Problem>,
    count: u64,
}

/// The rules for the entries of an oplog slice.
#[derive(Debug, Clone, Copy)]
struct Order {
    after: Option<ClusterTime>,
    from: ClusterTime,
    to: ClusterTime,
}

impl Order {
    fn take(&mut self, entry: &[u8]) -> Result<()> {
        let time = Head::of(entry)?.time;
        if time < self.from || time > self.to {
            return Err(Error::damaged(format!("the entry of {time} is outside of the slice")));
        }
        match self.after.replace(time) {
            Some(before) if before >= time => Err(Error::damaged(format!("the entry of {time} stands after that of {before}"))),
            _ => Ok(()),
        }
    }
}

async fn strays(store: &Objects, manifest: &Manifest) -> Result<Vec<String>> {
    let mut known: std::collections::HashSet<&str> = manifest.objects().map(|o| o.key.as_str()).collect();
    known.extend([key::MANIFEST, key::SHA256SUMS, key::PROGRESS, key::CHECKS]);
    let is_own = |key: &str| known.contains(key) || key::checkpoint_number(key).is_some() || key::is_reader(key);
    // The first by their keys, however many there are.
    let (mut first, mut count) = (std::collections::BTreeMap::new(), 0_usize);
    store
        .each(|Entry { key, size }| {
            if !is_own(&key) {
                count += 1;
                first.insert(key, size);
                if first.len() > TOLD {
                    first.pop_last();
                }
            }
            ControlFlow::Continue(())
        })
        .await?;
    let told = first.len();
    let strays = first.into_iter().map(|(key, size)| format!("{key} ({size} bytes) does not belong to the backup"));
    Ok(strays.chain((count > told).then(|| few::and_more(count - told))).collect())
}
