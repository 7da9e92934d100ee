//! Verify, for an archived oplog: proves that its links and pieces are what their manifests and
//! headers say, and that they follow on each other.

use std::collections::HashSet;

use futures::StreamExt as _;
use serde::Serialize;
use utoipa::ToSchema;

use crate::context::Context;
use crate::context::cpu::CpuPool;
use crate::engine::verify::{MEMORY_BYTES, Problem, READERS, VerifyOptions, needed};
use crate::error::{Error, ErrorKind, Result};
use crate::few::{self, Few, TOLD};
use crate::format::chain::{IndexRecord, Link, PieceHeader, is_link_name};
use crate::format::digest::Sha256Hex;
use crate::format::document::{self, Documents};
use crate::format::manifest::{ClusterTime, OplogPosition, Segment, StoredObject};
use crate::format::{key, segment};
use crate::oplog::chain::range::index;
use crate::oplog::chain::roll::{entries, open_piece};
use crate::oplog::chain::spans::{Part, Span, Spans};
use crate::oplog::{Head, Position};
use crate::pipeline::read::{self, SegmentReader};
use crate::repository::backend::Objects;
use crate::repository::chain::ChainPlace;
use crate::repository::layout;

/// The hint for an archive that is not sound.
const HINT: &str = "check the disk that it is on, and take a new backup with `bsonvault backup` while `bsonvault archive` runs: \
                    times after it do not need the damaged part; `bsonvault timeline` shows which times can be restored";

/// The result of verifying an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = VerifyArchiveResult)]
pub struct VerifyArchiveReport {
    /// Where it is.
    pub path: String,
    /// The replica set's ID.
    pub replica_set_id: String,
    /// Whether the entries of links were decoded, too.
    pub deep: bool,
    /// The links that were checked.
    pub links: u64,
    /// The pieces that were checked, which are not part of a link yet.
    pub pieces: u64,
    /// The objects that were checked.
    pub objects: u64,
    /// The bytes of objects that were read and are correct.
    pub stored_bytes: u64,
    /// The entries that were decoded and are correct: those of pieces and, with `deep`, of links.
    pub entries: u64,
    /// The problems, oldest part first: the first twenty one by one, and a last entry that counts
    /// the others.
    pub problems: Vec<Problem>,
    /// How many problems there are.
    pub problem_count: u64,
    /// Remarks that are no problems: objects that do not belong to the archive.
    pub notes: Vec<String>,
}

impl VerifyArchiveReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// The error of an archive with problems, if there are any.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        let count = if self.problem_count == 1 { "1 problem".to_owned() } else { format!("{} problems", self.problem_count) };
        let error = || Error::new(ErrorKind::Mismatch, format!("the archive {} has {count}", self.path)).hint(HINT);
        (!self.is_sound()).then(error)
    }

    fn wrong(&mut self, key: &str, what: impl std::fmt::Display) {
        self.problem_count += 1;
        if self.problems.len() < TOLD {
            self.problems.push(Problem::new(key, what));
        }
    }

    /// Records a problem of the archive. Returns an error of this program itself.
    fn problem(&mut self, key: &str, error: Error) -> Result<()> {
        if matches!(error.kind(), ErrorKind::Internal | ErrorKind::Interrupted) {
            return Err(error);
        }
        self.wrong(key, error);
        Ok(())
    }

    /// Counts an object, which was read as a whole if it is sound.
    fn object(&mut self, key: &str, bytes: u64, checked: Result<()>) -> Result<()> {
        self.objects += 1;
        match checked {
            Ok(()) => self.stored_bytes += bytes,
            Err(e) => self.problem(key, e)?,
        }
        Ok(())
    }
}

/// Verifies an archive, and reports every problem, not only the first. An archiver may be at work.
///
/// Each part names the digest of the part before it, and `archiver.json` that of the newest piece.
/// So what is changed, cut, missing or exchanged is found. What cannot be found is an archive that
/// somebody wrote anew, with matching digests, from some part to its end: no part holds a secret.
/// That somebody may begin with the newest link, which no other link names yet: the first piece
/// after it only names the piece that the link ends with.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is no archive; [`ErrorKind::Busy`] if links of it are being
/// removed; [`ErrorKind::Interrupted`]; [`ErrorKind::Internal`]. Problems of the archive or its
/// storage are in the report, and not errors.
pub async fn run(place: &ChainPlace, options: &VerifyOptions, cx: &Context) -> Result<VerifyArchiveReport> {
    cx.unless_cancelled(verify(place, *options, cx)).await
}

async fn verify(place: &ChainPlace, options: VerifyOptions, cx: &Context) -> Result<VerifyArchiveReport> {
    let mut report = VerifyArchiveReport {
        path: place.location(),
        replica_set_id: place.id().to_owned(),
        deep: options.deep,
        ..VerifyArchiveReport::default()
    };

    // 1. What it is of. Without that, nothing else can be judged.
    let Some(_lock) = report.begin(place).await? else { return Ok(report.ended()) };

    // 2. Who writes it.
    report.archiver(place).await?;

    // 3. What it consists of, and whether that holds together.
    let found = match Spans::of(place, &cx.cpu).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            report.wrong(layout::CHAIN, format!("{} is missing", layout::CHAIN));
            return Ok(report.ended());
        }
        Err(e) => {
            report.problem(layout::CHAIN, e)?;
            return Ok(report.ended());
        }
    };
    for (key, what) in &found.problems {
        report.wrong(key, what);
    }

    // 4. Every object, and its content.
    let mut work = Work { place, options, cx, is_whole: found.parts.config.databases.is_empty(), last: None, rolled: None };
    for span in &found.spans {
        work.span(span, &mut report).await?;
    }

    // 5. Objects that do not belong to it.
    match strays(place, &found).await {
        Ok(notes) => report.notes = notes,
        Err(e) => report.problem(&report.path.clone(), e)?,
    }
    Ok(report.ended())
}

impl VerifyArchiveReport {
    /// Keeps links from being removed. `None` if it is unclear what the archive is of.
    async fn begin(&mut self, place: &ChainPlace) -> Result<Option<crate::repository::lock::read::ReadLock>> {
        self.objects += 1;
        match place.config().await {
            Ok(Some(_)) => {}
            Ok(None) if !place.objects().exists().await => {
                return Err(Error::new(ErrorKind::NotFound, format!("there is no archive of an oplog at {}", place.location()))
                    .hint("`bsonvault timeline` shows the archives"));
            }
            Ok(None) => {
                let what = format!("{} is missing: nothing else of the archive was looked at", layout::CHAIN);
                self.wrong(layout::CHAIN, what);
                return Ok(None);
            }
            Err(e) => {
                let e = Error::new(e.kind(), format!("{e}; nothing else of the archive was looked at")).cause(e);
                self.problem(layout::CHAIN, e)?;
                return Ok(None);
            }
        }
        self.stored_bytes += place.objects().size(layout::CHAIN).await.unwrap_or(0);
        place.read_lock("verify").await.map(Some)
    }

    /// A damaged heartbeat is told, because the loss of the newest pieces is found by it.
    async fn archiver(&mut self, place: &ChainPlace) -> Result<()> {
        let bytes = place.objects().size(layout::ARCHIVER).await.unwrap_or(0);
        match place.archiver().await {
            Ok(Some(_)) => self.object(layout::ARCHIVER, bytes, Ok(())),
            Err(e) => self.object(layout::ARCHIVER, 0, Err(e)),
            // One that has just begun has not written it yet.
            Ok(None) if place.open().is_locked().await == Some(true) => Ok(()),
            Ok(None) => {
                let has_pieces = place.pieces().await.is_ok_and(|pieces| !pieces.is_empty());
                if has_pieces || place.objects().top().await.is_ok_and(|top| top.prefixes.iter().any(|name| is_link_name(name))) {
                    let what = "is missing: whether the newest pieces are there cannot be told";
                    self.wrong(layout::ARCHIVER, format!("{} {what}", layout::ARCHIVER));
                }
                Ok(())
            }
        }
    }

    fn ended(mut self) -> Self {
        let more = self.problem_count - self.problems.len() as u64;
        if more > 0 {
            self.problems.push(Problem::new("", format!("and {more} more")));
        }
        self
    }
}

/// An archive that is being verified.
struct Work<'a> {
    place: &'a ChainPlace,
    options: VerifyOptions,
    cx: &'a Context,
    /// Whether it has every entry of the oplog.
    is_whole: bool,
    /// The last entry that was decoded; `None` if what is before was not, or is damaged.
    last: Option<ClusterTime>,
    /// The last piece of a link that was made meanwhile.
    rolled: Option<u64>,
}

impl Work<'_> {
    async fn span(&mut self, span: &Span, report: &mut VerifyArchiveReport) -> Result<()> {
        match &span.what {
            Part::Link(link) => self.link(link, report).await,
            Part::Piece(header, _) if self.rolled.is_some_and(|rolled| header.number <= rolled) => Ok(()),
            Part::Piece(header, sha256) => self.piece(header, sha256, report).await,
        }
    }

    async fn link(&mut self, link: &Link, report: &mut VerifyArchiveReport) -> Result<()> {
        let store = &self.place.link(&link.name);
        let of_link = |key: &str| format!("{}/{key}", link.name);
        report.links += 1;
        let manifest = store.size(key::MANIFEST).await.map_err(|e| e.context(key::MANIFEST));
        report.object(&of_link(key::MANIFEST), *manifest.as_ref().unwrap_or(&0), manifest.map(drop))?;
        let (sums, checked) = (link.sums(), check_sums(self.place, link, &self.cx.cpu).await);
        report.object(&of_link(key::SHA256SUMS), sums.len() as u64, checked)?;

        // The entries, in order.
        let (cpu, deep, budget) = (&self.cx.cpu, self.options.deep, &self.cx.memory.part(MEMORY_BYTES));
        let mut segments = futures::stream::iter(link.segments.iter().map(|segment| async move {
            let _share = budget.take(needed(&segment.object, deep.then_some(segment))).await;
            match deep {
                true => (segment, look_through(store, segment, cpu).await.map(Some)),
                false => {
                    let bytes = read::object(store, &segment.object, segment::LIMIT as u64, cpu).await;
                    (segment, bytes.map(|_| None))
                }
            }
        }))
        .buffered(READERS)
        .boxed();
        let (mut last, mut frames) = (self.last, deep.then(Vec::new));
        let mut ending = None;
        while let Some((segment, looked)) = segments.next().await {
            let object = &segment.object;
            let looked = match looked {
                Ok(looked) => {
                    report.object(&of_link(&object.key), object.bytes, Ok(()))?;
                    looked
                }
                Err(e) => {
                    report.object(&of_link(&object.key), 0, Err(e))?;
                    None
                }
            };
            ending = None;
            let Some(looked) = looked else {
                (last, frames) = (None, None);
                continue;
            };
            report.entries += segment.documents;
            if let Err(e) = looked.follows(last, &link.from, &link.to) {
                report.problem(&of_link(&object.key), e)?;
            }
            last = looked.frames.last().map(|frame| frame.to).or(last);
            frames = frames.map(|mut frames| {
                frames.extend(looked.frames);
                frames
            });
            ending = looked.last;
        }
        drop(segments);
        if let Some(found) = ending.filter(|found| self.is_whole && *found != link.to) {
            report.wrong(&of_link(key::MANIFEST), another_end(&link.name, &link.to, &found));
        }

        // The index.
        let _share = budget.take(needed(&link.index.object, Some(&link.index))).await;
        let checked = match index(store, &link.index, cpu).await {
            Ok(records) => frames.map_or(Ok(()), |frames| check_index(&records, &frames)),
            Err(e) => Err(e),
        };
        report.object(&of_link(key::INDEX), link.index.object.bytes, checked)?;
        self.last = last.filter(|_| deep);
        Ok(())
    }

    async fn piece(&mut self, header: &PieceHeader, sha256: &Sha256Hex, report: &mut VerifyArchiveReport) -> Result<()> {
        let key = format!("{}/{}", layout::OPEN, layout::piece(header.number));
        let piece = match open_piece(self.place, header.number, &self.cx.cpu).await {
            Err(e) if e.kind() == ErrorKind::NotFound => return self.rolled(header.number, &key, report).await,
            piece => piece,
        };
        report.pieces += 1;
        let _share = self.cx.memory.part(MEMORY_BYTES).take(header.bytes).await;
        let bytes = self.place.open().size(&layout::piece(header.number)).await.unwrap_or(0);
        let read = match piece {
            Ok(piece) if piece.sha256 != *sha256 => {
                let found = &piece.sha256;
                Err(Error::damaged(format!("{key} was exchanged meanwhile: its SHA-256 is {found}, expected {sha256}")))
            }
            Ok(piece) => entries(piece, &self.cx.cpu).await.map(|(_, frames)| frames),
            Err(e) => Err(e),
        };
        let looked = match read {
            Ok(frames) => self.cx.cpu.run(move || Looked::default().with_all(&frames)).await.map_err(|e| e.context(&key)),
            Err(e) => Err(e),
        };
        let looked = match looked {
            Ok(looked) => looked,
            Err(e) => {
                self.last = None;
                return report.object(&key, 0, Err(e));
            }
        };
        report.object(&key, bytes, Ok(()))?;
        report.entries += header.entries;
        if let Err(e) = looked.follows(self.last, &header.from, &header.to) {
            report.problem(&key, e)?;
        }
        self.last = looked.frames.last().map(|frame| frame.to).or(self.last);
        if let Some(found) = looked.last.filter(|found| self.is_whole && *found != header.to) {
            report.wrong(&key, another_end(&key, &header.to, &found));
        }
        Ok(())
    }

    /// The link that a piece became part of since it was listed.
    async fn rolled(&mut self, number: u64, key: &str, report: &mut VerifyArchiveReport) -> Result<()> {
        let parts = match self.place.parts().await {
            Ok(parts) => parts,
            Err(e) => return report.problem(layout::CHAIN, e),
        };
        let links = parts.map(|parts| parts.links).unwrap_or_default();
        let Some(link) = links.into_iter().find(|link| (link.pieces.0..=link.pieces.1).contains(&number)) else {
            report.wrong(key, format!("{key} is missing, and no link has its entries"));
            return Ok(());
        };
        // Pieces of it may have been looked at already.
        (self.rolled, self.last) = (Some(link.pieces.1), None);
        Box::pin(self.link(&link, report)).await
    }
}

async fn check_sums(place: &ChainPlace, link: &Link, cpu: &CpuPool) -> Result<()> {
    let implied = link.sums();
    let sha256 = Sha256Hex::of(implied.as_bytes());
    if sha256 != link.checksums {
        return Err(Error::damaged(format!(
            "the objects in {} give a {} with SHA-256 {sha256}, expected {}",
            key::MANIFEST,
            key::SHA256SUMS,
            link.checksums
        )));
    }
    let expected = StoredObject { key: key::SHA256SUMS.to_owned(), bytes: implied.len() as u64, sha256 };
    read::object(&place.link(&link.name), &expected, expected.bytes, cpu).await.map(drop)
}

/// What of entries is compared with other parts.
#[derive(Debug, Default)]
struct Looked {
    frames: Vec<Frame>,
    /// The last entry.
    last: Option<OplogPosition>,
}

/// The entries of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    from: ClusterTime,
    to: ClusterTime,
    entries: u64,
}

impl Looked {
    fn with_all(mut self, frames: &[Vec<u8>]) -> Result<Self> {
        for frame in frames {
            self = self.with(frame)?;
        }
        Ok(self)
    }

    /// Adds a frame of entries, whose times must ascend.
    fn with(mut self, frame: &[u8]) -> Result<Self> {
        let (mut last, mut before): (Option<&[u8]>, _) = (None, self.frames.last().map(|frame| frame.to));
        let mut found: Option<Frame> = None;
        for entry in Documents::of(frame) {
            let entry = entry?;
            document::check(entry)?;
            let time = Head::of(entry)?.time;
            if let Some(before) = before.filter(|before| *before >= time) {
                return Err(Error::damaged(format!("the entry of {time} stands after that of {before}")));
            }
            let begun = found.get_or_insert(Frame { from: time, to: time, entries: 0 });
            (begun.to, begun.entries) = (time, begun.entries + 1);
            (before, last) = (Some(time), Some(entry));
        }
        self.frames.extend(found);
        if let Some(entry) = last {
            self.last = Some(Position::of(entry)?.into());
        }
        Ok(self)
    }

    /// Whether they come after `last`, and are between these positions.
    fn follows(&self, last: Option<ClusterTime>, from: &OplogPosition, to: &OplogPosition) -> Result<()> {
        let (Some(first), Some(end)) = (self.frames.first(), self.frames.last()) else { return Ok(()) };
        if let Some(last) = last.filter(|last| *last >= first.from) {
            return Err(Error::damaged(format!(
                "it begins with the entry of {}, and what is before it ends at {last}",
                first.from
            )));
        }
        if first.from < from.time || end.to > to.time {
            return Err(Error::damaged(format!(
                "its entries are from {} to {}, expected from {} to {}",
                first.from, end.to, from.time, to.time
            )));
        }
        Ok(())
    }
}

/// Decodes a segment of a link.
async fn look_through(store: &Objects, segment: &Segment, cpu: &CpuPool) -> Result<Looked> {
    let mut reader = SegmentReader::open(store, segment, cpu).await?;
    let mut looked = Looked::default();
    while let Some(frame) = reader.next().await? {
        looked = cpu.run(move || looked.with(&frame)).await.map_err(|e| e.context(&segment.object.key))?;
    }
    Ok(looked)
}

/// Whether an index tells of these frames: a search reads only those that it names.
fn check_index(records: &[IndexRecord], frames: &[Frame]) -> Result<()> {
    let told = records.iter().filter_map(|record| match record {
        IndexRecord::Frame(frame) => Some(Frame { from: frame.from, to: frame.to, entries: frame.entries }),
        _ => None,
    });
    if told.clone().eq(frames.iter().copied()) {
        return Ok(());
    }
    let wrong =
        told.clone().zip(frames).position(|(told, frame)| told != *frame).unwrap_or(told.clone().count().min(frames.len()));
    Err(Error::damaged(format!(
        "{} tells of {} frames, and there are {}: the first that differs is number {wrong}",
        key::INDEX,
        told.count(),
        frames.len()
    )))
}

fn another_end(name: &str, expected: &OplogPosition, found: &OplogPosition) -> String {
    let digest = |position: &OplogPosition| position.digest.map(|digest| format!(" with digest {digest}")).unwrap_or_default();
    format!("{name} ends with the entry of {}{}, expected {}{}", found.time, digest(found), expected.time, digest(expected))
}

/// Objects that do not belong to the archive, in words.
async fn strays(place: &ChainPlace, found: &Spans) -> Result<Vec<String>> {
    let mut notes = Few::default();
    let mut stray = |key: String| notes.push(|| format!("{key} does not belong to the archive"));
    let top = place.objects().top().await?;
    let own = [layout::CHAIN, layout::ARCHIVER, layout::RATE];
    let is_own = |key: &str| own.contains(&key) || key::is_reader(key);
    top.objects.into_iter().filter(|key| !is_own(key)).for_each(&mut stray);
    let others = top.prefixes.into_iter().filter(|name| name != layout::OPEN && !is_link_name(name));
    others.for_each(|name| stray(format!("{name}/")));
    let open = place.open().top().await?;
    let strange = open.objects.into_iter().filter(|key| layout::piece_number(key).is_none()).chain(open.prefixes);
    strange.for_each(|key| stray(format!("{}/{key}", layout::OPEN)));
    for link in &found.parts.links {
        let mut known: HashSet<&str> = link.objects().map(|segment| segment.object.key.as_str()).collect();
        known.extend([key::MANIFEST, key::SHA256SUMS]);
        let entries = place.link(&link.name).list().await?;
        entries
            .iter()
            .filter(|entry| !known.contains(&*entry.key))
            .for_each(|entry| stray(format!("{}/{}", link.name, entry.key)));
    }
    // An archiver that is at work makes links, and removes what it has rolled.
    if !place.is_written(found.parts.archiver.as_ref()).await {
        for name in &found.parts.leftovers {
            notes.push(|| format!("{name}/ is a leftover of an archiver that was interrupted, or of a removal"));
        }
        if !found.parts.rolled.is_empty() {
            let count = found.parts.rolled.len();
            notes.push(|| format!("{count} pieces in {}/ are part of a link already", layout::OPEN));
        }
    }
    Ok(notes.into_sentences().iter().map(few::cut).collect())
}
