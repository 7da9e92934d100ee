//! What an archive holds, in order, and where it does not hold together: read from the manifests of
//! links and the headers of pieces.

use super::roll::open_piece;
use crate::context::cpu::CpuPool;
use crate::error::{Error, ErrorKind, Result};
use crate::format::chain::{Gap, Link, PieceHeader};
use crate::format::digest::Sha256Hex;
use crate::format::manifest::{ClusterTime, OplogPosition};
use crate::repository::chain::{ChainParts, ChainPlace};
use crate::repository::layout;

/// The parts of an archive in order.
#[derive(Debug, Clone)]
pub struct Spans {
    /// Its parts.
    pub spans: Vec<Span>,
    /// What is wrong: the key of an object, and why. A part that is wrong is not among the spans,
    /// and the next one is [`broken`](Span::broken).
    pub problems: Vec<(String, String)>,
    /// The archive as it was found.
    pub parts: ChainParts,
}

/// A part of an archive: a link or a piece.
#[derive(Debug, Clone)]
pub struct Span {
    /// The link or the piece.
    pub what: Part,
    /// The entry that it follows, or where it begins.
    pub from: OplogPosition,
    /// Its last entry.
    pub to: OplogPosition,
    /// The gap before it.
    pub gap: Option<Gap>,
    /// Why it does not follow on the part before it, if it does not and there is no gap.
    pub broken: Option<String>,
}

/// A link or a piece.
#[derive(Debug, Clone)]
pub enum Part {
    /// A link.
    Link(Box<Link>),
    /// A piece, and the SHA-256 of its bytes.
    Piece(Box<PieceHeader>, Sha256Hex),
}

impl Part {
    /// The number of its last piece, and that one's digest.
    fn last_piece(&self) -> (u64, &Sha256Hex) {
        match self {
            Self::Link(link) => (link.pieces.1, &link.last_piece),
            Self::Piece(header, sha256) => (header.number, sha256),
        }
    }

    /// The number of its entries, and their bytes.
    #[must_use]
    pub fn content(&self) -> (u64, u64) {
        match self {
            Self::Link(link) => (link.entries, link.bytes),
            Self::Piece(header, _) => (header.entries, header.bytes),
        }
    }

    /// The key of the object that says what it is.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Link(link) => format!("{}/{}", link.name, layout::MANIFEST),
            Self::Piece(..) => self.name(),
        }
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Link(link) => link.name.clone(),
            Self::Piece(header, _) => format!("{}/{}", layout::OPEN, layout::piece(header.number)),
        }
    }
}

/// Parts that follow on each other without a gap.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The parts.
    pub spans: &'a [Span],
}

impl Run<'_> {
    /// Where it begins: it has every entry of this time and later. The entry that its first part
    /// follows is not in it.
    #[must_use]
    pub fn from(&self) -> ClusterTime {
        let OplogPosition { time, digest, .. } = self.spans[0].from;
        ClusterTime { i: time.i.saturating_add(digest.map_or(0, |_| 1)), ..time }
    }

    /// Its last entry.
    #[must_use]
    pub fn to(&self) -> ClusterTime {
        self.spans[self.spans.len() - 1].to.time
    }
}

impl Spans {
    /// Reads what an archive consists of; `None` if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if it is unclear what it is of; [`ErrorKind::Storage`]. Other damage
    /// is in the result.
    pub async fn of(place: &ChainPlace, cpu: &CpuPool) -> Result<Option<Self>> {
        // A piece that became part of a link since it was listed is in that link. If old links were
        // removed meanwhile, it begins with another one.
        for _ in 0..5 {
            let Some(parts) = place.parts().await? else { return Ok(None) };
            let (found, vanished) = Self::read(place, parts, cpu).await?;
            if !vanished && place.config().await?.as_ref() == Some(&found.parts.config) {
                return Ok(Some(found));
            }
        }
        let Some(parts) = place.parts().await? else { return Ok(None) };
        Ok(Some(Self::read(place, parts, cpu).await?.0))
    }

    /// Reads the headers of pieces. Also tells whether a piece vanished meanwhile.
    async fn read(place: &ChainPlace, parts: ChainParts, cpu: &CpuPool) -> Result<(Self, bool)> {
        let mut found = Self { spans: Vec::new(), problems: parts.damaged.clone(), parts };
        for link in found.parts.links.clone() {
            found.link(link);
        }
        let mut vanished = false;
        for number in found.parts.pieces.clone() {
            match open_piece(place, number, cpu).await {
                Ok(piece) => found.piece(piece.header, piece.sha256),
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    vanished = true;
                    break;
                }
                Err(e) if e.kind() == ErrorKind::Damaged => {
                    found.problem(&format!("{}/{}", layout::OPEN, layout::piece(number)), &e.to_string());
                }
                Err(e) => return Err(e),
            }
        }
        found.end();
        Ok((found, vanished))
    }

    fn link(&mut self, link: Link) {
        let broken = match (self.spans.last().map(|span| &span.what), &link.previous) {
            (Some(Part::Link(before)), Some(previous)) if *previous == before.as_previous() => None,
            (None, None) => None,
            (None, Some(_)) if self.parts.config.first.as_ref() == Some(&link.name) => None,
            (_, Some(previous)) => Some(format!(
                "{}/{}: the link before it, {}, is missing or was exchanged",
                link.name,
                layout::MANIFEST,
                previous.name
            )),
            (_, None) => Some(format!("{}/{} is not the link that follows here", link.name, layout::MANIFEST)),
        };
        let broken = broken.or_else(|| self.torn(&link.from, link.gap.as_ref(), &link.name));
        let (ends, gap) = ((link.from, link.to), link.gap.clone());
        self.push(Part::Link(Box::new(link)), ends, gap, broken);
    }

    fn piece(&mut self, header: PieceHeader, sha256: Sha256Hex) {
        let key = format!("{}/{}", layout::OPEN, layout::piece(header.number));
        let before = self.spans.last().map(|span| span.what.last_piece());
        let broken = match (before, &header.previous) {
            (None, None) => None,
            (None, Some(_)) => Some(format!("{key}: what comes before it is missing")),
            // What follows by its content may have left out numbers: those of pieces that were
            // lost, and came again from the source.
            (Some((_, before)), Some(previous)) if before == previous => None,
            (Some((number, _)), _) if header.number != number + 1 => {
                Some(format!("{}/{} is missing", layout::OPEN, layout::piece(number + 1)))
            }
            (Some(_), _) => Some(format!("{key}: the piece before it was exchanged or changed")),
        };
        let broken = broken.or_else(|| self.torn(&header.from, header.gap.as_ref(), &key));
        let (ends, gap) = ((header.from, header.to), header.gap.clone());
        self.push(Part::Piece(Box::new(header), sha256), ends, gap, broken);
    }

    /// Whether a part does not begin at the entry at which the last one ends.
    fn torn(&self, from: &OplogPosition, gap: Option<&Gap>, name: &str) -> Option<String> {
        let before = self.spans.last()?;
        (gap.is_none() && before.to != *from)
            .then(|| format!("{name} begins at {}, and the part before it ends at {}", from.time, before.to.time))
    }

    fn push(&mut self, what: Part, (from, to): (OplogPosition, OplogPosition), gap: Option<Gap>, broken: Option<String>) {
        if let Some(broken) = &broken {
            self.problem(&what.key(), broken);
        }
        // A gap says where the archive goes on. What is before it cannot be followed from there.
        let broken = broken.filter(|_| gap.is_none());
        self.spans.push(Span { what, from, to, gap, broken });
    }

    fn problem(&mut self, key: &str, what: &str) {
        self.problems.push((key.to_owned(), what.to_owned()));
    }

    /// Whether the newest pieces are missing, or the last one is another one: no later piece names
    /// it.
    fn end(&mut self) {
        let Some((told, sha256)) = self.parts.archiver.as_ref().and_then(|a| Some((a.piece?, a.piece_sha256.clone()))) else {
            return;
        };
        let key = format!("{}/{}", layout::OPEN, layout::piece(told));
        if let (Some(Part::Piece(header, found)), Some(expected)) = (self.spans.last().map(|span| &span.what), sha256)
            && header.number == told
            && *found != expected
        {
            let what = format!("{key} was changed or exchanged: its SHA-256 is {found}, expected {expected}");
            self.problem(&key, &what);
            self.spans.pop();
        }
        if self.spans.last().is_none_or(|last| last.what.last_piece().0 < told) {
            let what = format!("the newest pieces are missing: {} was the last one that was written", layout::piece(told));
            self.problem(&key, &what);
        }
    }

    /// The runs of parts without a gap, oldest first.
    #[must_use]
    pub fn runs(&self) -> Vec<Run<'_>> {
        let mut runs = Vec::new();
        let mut begin = 0;
        for (at, span) in self.spans.iter().enumerate().skip(1) {
            if span.gap.is_some() || span.broken.is_some() {
                runs.push(Run { spans: &self.spans[begin..at] });
                begin = at;
            }
        }
        if begin < self.spans.len() {
            runs.push(Run { spans: &self.spans[begin..] });
        }
        runs
    }

    /// The number and the SHA-256 of the last piece, whether it is part of a link or not, and the
    /// last entry; `None` if there is nothing.
    #[must_use]
    pub fn tip(&self) -> Option<((u64, Sha256Hex), OplogPosition)> {
        let last = self.spans.last()?;
        let (number, sha256) = last.what.last_piece();
        Some(((number, sha256.clone()), last.to))
    }

    /// The gaps, oldest first.
    pub fn gaps(&self) -> impl Iterator<Item = &Gap> {
        self.spans.iter().filter_map(|span| span.gap.as_ref())
    }

    /// The first and the last time that it holds; `None` if it holds nothing.
    #[must_use]
    pub fn ends(&self) -> Option<(ClusterTime, ClusterTime)> {
        Some((self.spans.first()?.from.time, self.spans.last()?.to.time))
    }

    /// The run that has every entry from one time to another.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the archive begins later or ends earlier; [`ErrorKind::Gap`] if
    /// there is a gap in it; [`ErrorKind::Damaged`] if it does not hold together.
    pub fn run(&self, from: ClusterTime, to: ClusterTime) -> Result<Run<'_>> {
        let runs = self.runs();
        if let Some(run) = runs.iter().find(|run| run.from() <= from && to <= run.to()) {
            return Ok(*run);
        }
        let Some((begin, end)) = self.ends() else {
            return Err(Error::new(ErrorKind::NotFound, "the archive of the oplog holds nothing yet")
                .hint("let `bsonvault archive` run, and take a backup while it does"));
        };
        if to > end {
            let mut problems = self.problems.iter().map(|(_, what)| what);
            if let Some(problem) = problems.find(|what| what.starts_with("the newest pieces")) {
                return Err(Error::damaged(format!("the archive of the oplog ends at {end}: {problem}")));
            }
            return Err(Error::new(ErrorKind::NotFound, format!("the archive of the oplog ends at {end}, before {}", said(to)))
                .hint(
                    "choose an earlier time, or wait until the archive has reached it: `bsonvault timeline` shows how far it is",
                ));
        }
        if runs.first().is_some_and(|run| from < run.from()) {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("the archive of the oplog begins at {begin}, after {}", said(from)),
            )
            .hint("`bsonvault timeline` shows which times can be restored"));
        }
        if let Some(gap) = self.gaps().find(|gap| gap.holds(to) || (from < gap.to && gap.to <= to)) {
            return Err(gap_error(gap, to));
        }
        let broken = self.spans.iter().find_map(|span| span.broken.as_ref().filter(|_| from <= span.to.time));
        let what = broken.map_or("a part of it is missing", String::as_str);
        Err(Error::damaged(format!("the archive of the oplog does not hold together: {what}"))
            .hint("`bsonvault verify` names everything that is wrong; times before and after it can still be restored"))
    }
}

/// The error of a time that a gap is in the way of.
#[must_use]
pub fn gap_error(gap: &Gap, time: ClusterTime) -> Error {
    let place = if gap.holds(time) {
        format!("{} is in a gap of the archive of the oplog", said(time))
    } else {
        format!("there is a gap in the archive of the oplog between the backup and {}", said(time))
    };
    Error::new(ErrorKind::Gap, format!("{place}: it has nothing between {} and {}, because {}", gap.from, gap.to, gap.reason))
        .hint("choose a time on one of its sides: `bsonvault timeline` shows which times can be restored")
}

/// A time as people write it. One of a whole second has the largest ordinal.
#[must_use]
pub fn said(time: ClusterTime) -> String {
    match time.i {
        u32::MAX => {
            let whole = ClusterTime { i: 0, ..time }.to_string();
            format!("the end of the second {}", whole.split(' ').next().unwrap_or_default())
        }
        _ => time.to_string(),
    }
}
