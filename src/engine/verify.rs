//! Verify: proves that a backup is what its manifest says, and names everything that is not.

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

/// How many objects are read at a time, so that some are read while others keep the processor busy: where they are hashed, and where they are decoded, too.
const READERS: usize = 3;
const DEEP_READERS: usize = 6;

/// What they may take of memory together; one that is larger is read alone.
const MEMORY_BYTES: u64 = 96 * 1024 * 1024;

/// Manifests of more bytes are read piece by piece.
const AT_ONCE: u64 = 8 * 1024 * 1024;

/// What to verify.
#[derive(Debug, Clone, Copy, Default)]
pub struct VerifyOptions {
    /// Also decode: every frame, the structure of every document, counts and digests. Without it, every stored byte is proven by its
    /// SHA-256.
    pub deep: bool,
}

/// What is said of a backup that is not sound.
pub const HINT: &str = "do not rely on it: take a new backup, and look after the disk that it is on";

/// What verifying found. Jobs that older versions kept say nothing of some of it, which is empty or 0 then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VerifyResult)]
pub struct VerifyReport {
    /// The backup's name, as its manifest has it.
    #[serde(default)]
    pub name: String,
    /// Where it is; empty where that is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Whether every document was decoded, too.
    pub deep: bool,
    /// Objects that the manifest names and that were looked at.
    pub objects: u64,
    /// Their bytes that were read and found as they should be.
    pub stored_bytes: u64,
    /// Documents that were decoded and found as they should be; 0 unless `deep`.
    pub documents: u64,
    /// How many of the backup's documents are buckets of time series.
    #[serde(default)]
    pub buckets: u64,
    /// What is wrong, in the order of the manifest: the first twenty one by one, and a last entry that counts the others.
    pub problems: Vec<Problem>,
    /// How many problems there are.
    #[serde(default)]
    pub problem_count: u64,
    /// What is odd and does no harm to the backup: objects that do not belong to it; with `deep`, documents that an import changes or cannot bring.
    pub notes: Vec<String>,
    /// With `deep`, documents that no server takes: they are as they were read, and cannot be imported.
    #[serde(default)]
    pub not_importable: Vec<NotImportable>,
}

impl VerifyReport {
    /// Of a backup that goes by this name, and whose manifest cannot be used.
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

    /// What makes no success of it, where something is wrong.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        let count = if self.problem_count == 1 { "1 problem".to_owned() } else { format!("{} problems", self.problem_count) };
        let error = || Error::new(ErrorKind::Mismatch, format!("backup {} has {count}", self.name)).hint(HINT);
        (!self.is_sound()).then(error)
    }
}

/// Something that is wrong with a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = VerifyProblem)]
pub struct Problem {
    /// The object it is about.
    pub key: String,
    /// What is wrong, with what was expected and what was found.
    pub message: String,
}

impl Problem {
    fn new(key: &str, message: impl std::fmt::Display) -> Self {
        Self { key: key.to_owned(), message: few::cut(&message) }
    }
}

/// Verifies a backup, as [`prove`] does, and keeps beside it how that ended. Meanwhile it is not deleted. Where nothing can be written beside it, only that is
/// left undone.
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

/// Looks whether a backup is whole, and reports every problem, not only the first. What can be known only from an object that is damaged itself
/// is not reported again. Nothing is written: it is for who holds the backup already, or where it is nobody else's.
///
/// # Errors
/// [`ErrorKind::Interrupted`] when it is cancelled; [`ErrorKind::Internal`]. What is wrong with the backup or its storage is a problem in the
/// report, not an error.
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

    // 1. What the backup says of itself: the manifest as it is stored now, and the list of checksums.
    report.take(key::MANIFEST, check_manifest(store, manifest, &cx.cpu).await)?;
    report.take(key::SHA256SUMS, check_sums(store, manifest, &cx.cpu).await)?;

    // 2. Every object of the collections, and what it holds.
    report.collections(backup, options, cx).await?;

    // 3. The oplog slice, in its order.
    if let Some(slice) = &manifest.oplog {
        report.slice(store, slice, options, &cx.cpu).await?;
    }

    // 4. What does not belong.
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

/// The memory that reading an object takes, and decoding the segment that it is.
fn needed(object: &StoredObject, decoded: Option<&Segment>) -> u64 {
    let frame = decoded.map_or(0, |segment| segment.raw_bytes / segment.frames.max(1));
    // Frames differ, and columns are there beside the documents that are made of them.
    object.bytes.saturating_add(2 * frame)
}

impl VerifyReport {
    /// Looks at the metadata and every segment of each collection.
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
        // What each collection adds up to, as long as all of it could be decoded.
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

    /// Counts an object in; gives how many documents or entries of it are sound, and what was decoded if nothing was wrong.
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

    /// Looks at every segment of the slice; decoded, its entries must follow each other in time, from its start to its end.
    async fn slice(&mut self, store: &Objects, slice: &OplogSlice, options: VerifyOptions, cpu: &CpuPool) -> Result<()> {
        let mut sum = Some(Content::default());
        let mut order = Order { after: None, from: slice.from, to: slice.to };
        for segment in &slice.segments {
            let checked = check_entries(store, segment, &mut order, options, cpu).await;
            // Its entries are no documents of the backup.
            let (_entries, content) = self.object(&segment.object, checked)?;
            sum = add(sum, content);
        }
        if let Some(sum) = sum.filter(|sum| options.deep && *sum != slice.content()) {
            self.wrong(Problem::new(key::OPLOG, does_not_add_up(&"the oplog slice", &sum, &slice.content())));
        }
        Ok(())
    }

    /// Counts a problem, and keeps it where it is one of the first.
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

    /// Writes down what is wrong with the backup; what is wrong with this program goes on.
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
        // Its digest stands for all of it, so that it is not in memory twice.
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
            "the objects in {} give a {} with SHA-256 {sha256}, where it names {}",
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
        // Nothing is built, so that neither depth nor size matters.
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

/// The sum with one more part, as long as all of them are known.
fn add(sum: Option<Content>, part: Option<Content>) -> Option<Content> {
    let (mut sum, part) = (sum?, part?);
    sum.merge(&part);
    Some(sum)
}

/// What was decoded, which documents are broken, and how a server takes them.
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

/// The same of a segment of the oplog slice, after those before it.
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

/// Decodes a segment, where that is wanted, and runs `check` on every document, in order; gives what it made of `state`, too.
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

/// The documents of a segment that are broken.
#[derive(Debug, Default)]
struct Broken {
    first: Vec<Problem>,
    count: u64,
}

/// What each entry of an oplog slice must keep to.
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
    // The first by their keys, of however many there are.
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
