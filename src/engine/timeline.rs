//! `timeline`: which times can be restored, from which backup, and what happened in them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock;
use crate::context::Context;
use crate::engine::bases::{self, Base};
use crate::engine::import::point_in_time;
use crate::error::{ErrorKind, Result};
use crate::format::chain::{Burst, Ddl, IndexRecord, Minute, is_link_name};
use crate::format::manifest::ClusterTime;
use crate::names::{Namespace, SYSTEM_DATABASES};
use crate::oplog::chain::range::index;
use crate::oplog::chain::spans::{Part, Run, Spans};
use crate::oplog::chain::{entries_of_piece, index_of};
use crate::repository::Repository;
use crate::repository::catalog::{Catalog, Summary};
use crate::repository::chain::ChainPlace;
use crate::repository::layout;

/// How many commands and bursts are listed: the newest.
const LISTED: usize = 1_000;

/// Which times can be restored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    /// The repository.
    pub path: String,
    /// Every time in these can be restored, oldest first.
    pub ranges: Vec<RestorableRange>,
    /// What was never archived.
    pub gaps: Vec<TimelineGap>,
    /// The archives, one for each replica set.
    pub archives: Vec<ArchiveSummary>,
    /// How much was written in each minute in which anything was.
    pub minutes: Vec<TimelineMinute>,
    /// Commands that changed collections, views or indexes; the newest 1000.
    pub ddl: Vec<TimelineDdl>,
    /// Many deletes in a short time; the newest 1000.
    pub bursts: Vec<TimelineBurst>,
}

/// A time of a source: as the calendar has it, and exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TimelineTime {
    /// RFC 3339, to the second.
    pub time: DateTime<Utc>,
    /// `SECONDS:ORDINAL`, as `import --to` takes it.
    #[schema(example = "1795383900:7")]
    pub position: String,
}

impl From<ClusterTime> for TimelineTime {
    fn from(time: ClusterTime) -> Self {
        Self { time: DateTime::from_timestamp(i64::from(time.t), 0).unwrap_or_default(), position: position(time) }
    }
}

/// `SECONDS:ORDINAL`
#[must_use]
pub fn position(time: ClusterTime) -> String {
    format!("{}:{}", time.t, time.i)
}

/// Times that can be restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestorableRange {
    /// The first of them.
    pub from: TimelineTime,
    /// The last of them.
    pub to: TimelineTime,
    /// The backup that they are restored from.
    pub base: String,
    /// The replica set's ID.
    pub replica_set_id: String,
}

/// A part of an oplog that was never archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimelineGap {
    /// The last entry before it.
    pub from: TimelineTime,
    /// Where the archive goes on.
    pub to: TimelineTime,
    /// Why.
    pub reason: String,
    /// When it was found.
    pub found: DateTime<Utc>,
    /// The replica set's ID.
    pub replica_set_id: String,
}

/// An archive.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveSummary {
    /// The replica set's ID.
    pub replica_set_id: String,
    /// Its name.
    pub replica_set: String,
    /// Where it is.
    pub path: String,
    /// The databases whose entries are kept; empty for everything.
    pub databases: Vec<String>,
    /// Its first time. Absent if it holds nothing yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<TimelineTime>,
    /// Its last entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<TimelineTime>,
    /// Whether a process writes it now.
    pub running: bool,
    /// What that process does: `starting`, `following`, `waiting`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Links, each with the entries of about an hour.
    pub links: u64,
    /// Pieces that are not part of a link yet.
    pub pieces: u64,
    /// Entries.
    pub entries: u64,
    /// Their bytes, uncompressed.
    pub raw_bytes: u64,
    /// The stored bytes of its links.
    pub stored_bytes: u64,
    /// What is wrong with it, in words.
    pub problems: Vec<String>,
}

/// How much was written in a minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimelineMinute {
    /// Its beginning.
    pub minute: DateTime<Utc>,
    /// Operations on documents, and commands.
    pub operations: u64,
}

/// A command that changed collections, views or indexes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimelineDdl {
    /// Its time.
    #[serde(flatten)]
    pub at: TimelineTime,
    /// What it changed.
    pub namespace: String,
    /// Its name.
    pub command: String,
    /// The documents of a collection that was dropped, if the entry says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<i64>,
}

/// Many deletes in a short time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimelineBurst {
    /// The first delete.
    pub from: TimelineTime,
    /// The last delete.
    pub to: TimelineTime,
    /// The namespace.
    pub namespace: String,
    /// How many.
    pub deletes: u64,
}

/// What happened, by time.
#[derive(Default)]
struct Happened {
    minutes: std::collections::BTreeMap<u32, u64>,
    ddl: Vec<Ddl>,
    bursts: Vec<Burst>,
}

impl Happened {
    fn take(&mut self, records: Vec<IndexRecord>) {
        for record in records {
            match record {
                IndexRecord::Frame(_) => {}
                IndexRecord::Minute(Minute { minute, operations }) => *self.minutes.entry(minute).or_default() += operations,
                IndexRecord::Ddl(ddl) => self.ddl.extend(Some(ddl).filter(is_of_a_user)),
                IndexRecord::Burst(burst) => self.burst(burst),
            }
        }
        // The newest are listed.
        self.ddl.drain(..self.ddl.len().saturating_sub(LISTED));
        self.bursts.drain(..self.bursts.len().saturating_sub(LISTED));
    }

    /// A burst that goes on from one part to the next is one.
    fn burst(&mut self, burst: Burst) {
        let last = self.bursts.iter_mut().rev().take(16).find(|last| last.namespace == burst.namespace);
        match last.filter(|last| burst.from.t.saturating_sub(last.to.t) <= 5) {
            Some(last) => {
                last.to = burst.to;
                last.deletes += burst.deletes;
            }
            None => self.bursts.push(burst),
        }
    }
}

/// Looks at all archives of a repository. `detailed` also reads what happened in them.
///
/// # Errors
/// [`ErrorKind::Storage`] if the repository cannot be listed. What is wrong with an archive is in
/// the result.
pub async fn look(repository: &Repository, detailed: bool, cx: &Context) -> Result<Timeline> {
    let found = match repository.chains().await?.is_empty() {
        true => Vec::new(),
        false => Catalog::new(repository.clone(), &cx.cpu).list(clock::now()).await?,
    };
    look_among(repository, &found, detailed, cx).await
}

/// The same with the backups of the repository.
///
/// # Errors
/// As for [`look`].
pub async fn look_among(repository: &Repository, backups: &[Summary], detailed: bool, cx: &Context) -> Result<Timeline> {
    let mut timeline = Timeline { path: repository.location(), ..Timeline::default() };
    let mut happened = Happened::default();
    for place in repository.chains().await? {
        let found = match Spans::of(&place, &cx.cpu).await {
            Ok(Some(found)) => found,
            Ok(None) => match missing(&place).await? {
                Some(problem) => {
                    timeline.archives.push(unclear(&place, problem));
                    continue;
                }
                None => continue,
            },
            // One that cannot be read hides no other, and no backup.
            Err(e) if matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Storage) => {
                timeline.archives.push(unclear(&place, e.to_string()));
                continue;
            }
            Err(e) => return Err(e),
        };
        let bases = bases::among(backups, &found.parts.config);
        timeline.ranges.extend(ranges(&place, &found, &bases));
        timeline.gaps.extend(found.gaps().map(|gap| TimelineGap {
            from: gap.from.into(),
            to: gap.to.into(),
            reason: gap.reason.clone(),
            found: gap.found,
            replica_set_id: place.id().to_owned(),
        }));
        let mut summary = summary(&place, &found).await;
        if detailed {
            for problem in details(&place, &found, &mut happened, cx).await? {
                summary.problems.push(problem);
            }
        }
        timeline.archives.push(summary);
    }
    let Happened { minutes, ddl, bursts } = happened;
    timeline.minutes = minutes
        .into_iter()
        .map(|(minute, operations)| TimelineMinute {
            minute: TimelineTime::from(ClusterTime { t: minute, i: 0 }).time,
            operations,
        })
        .collect();
    let newest = |count: usize| count.saturating_sub(LISTED);
    timeline.ddl = ddl[newest(ddl.len())..]
        .iter()
        .map(|ddl| TimelineDdl {
            at: ddl.time.into(),
            namespace: ddl.namespace.clone(),
            command: ddl.command.clone(),
            documents: ddl.documents,
        })
        .collect();
    timeline.bursts = bursts[newest(bursts.len())..]
        .iter()
        .map(|burst| TimelineBurst {
            from: burst.from.into(),
            to: burst.to.into(),
            namespace: burst.namespace.clone(),
            deletes: burst.deletes,
        })
        .collect();
    Ok(timeline)
}

/// The times that can be restored: from each base up to the next one of the same run, and from the
/// last one to its end.
#[must_use]
pub fn ranges(place: &ChainPlace, found: &Spans, bases: &[Base]) -> Vec<RestorableRange> {
    let mut ranges = Vec::new();
    for run in found.runs() {
        let end = run.to();
        let of_run = bases_of(place, found, run, bases);
        for (at, base) in of_run.iter().enumerate() {
            let to = of_run.get(at + 1).map_or(end, |next| next.moment);
            ranges.push(RestorableRange {
                from: base.moment.into(),
                to: to.into(),
                base: base.name.to_string(),
                replica_set_id: place.id().to_owned(),
            });
        }
    }
    ranges
}

/// The bases from which times of this run can be restored.
pub(in crate::engine) fn bases_of<'a>(place: &ChainPlace, found: &Spans, run: Run<'_>, bases: &'a [Base]) -> Vec<&'a Base> {
    let end = run.to();
    let is_of_run = |base: &&Base| {
        base.moment <= end
            && point_in_time::range(place, found, base, (base.moment, base.moment))
                .is_ok_and(|range| range.parts().last().is_some_and(|span| span.to.time <= end && span.to.time >= run.from()))
    };
    bases::preferred(&bases.iter().filter(is_of_run).collect::<Vec<_>>())
}

/// What is missing of an archive that has no `chain.json`. `None` if it has nothing else: it has
/// just begun.
async fn missing(place: &ChainPlace) -> Result<Option<String>> {
    let has_links = place.objects().top().await?.prefixes.iter().any(|name| is_link_name(name));
    let has_any = has_links || !place.pieces().await?.is_empty();
    Ok(has_any.then(|| format!("{} is missing", layout::CHAIN)))
}

/// An archive of which it is unclear what it is of.
fn unclear(place: &ChainPlace, problem: String) -> ArchiveSummary {
    ArchiveSummary {
        replica_set_id: place.id().to_owned(),
        path: place.location(),
        problems: vec![problem],
        ..ArchiveSummary::default()
    }
}

async fn summary(place: &ChainPlace, found: &Spans) -> ArchiveSummary {
    let ends = found.ends();
    let (entries, raw_bytes) = found.spans.iter().map(|s| s.what.content()).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    let running = place.is_written(found.parts.archiver.as_ref()).await;
    let archiver = found.parts.archiver.as_ref().filter(|_| running);
    ArchiveSummary {
        replica_set_id: place.id().to_owned(),
        replica_set: found.parts.config.replica_set.clone(),
        path: place.location(),
        databases: found.parts.config.databases.clone(),
        from: ends.map(|(from, _)| from.into()),
        to: ends.map(|(_, to)| to.into()),
        running,
        state: archiver.map(|archiver| archiver.state.clone()),
        problem: archiver.and_then(|archiver| archiver.problem.clone()),
        links: found.parts.links.len() as u64,
        pieces: found.parts.pieces.len() as u64,
        entries,
        raw_bytes,
        stored_bytes: found.parts.links.iter().map(crate::format::chain::Link::stored_bytes).sum(),
        problems: found.problems.iter().map(|(key, what)| format!("{key}: {what}")).collect(),
    }
}

/// Reads the indexes of links, and the entries of pieces. Returns what is damaged.
async fn details(place: &ChainPlace, found: &Spans, happened: &mut Happened, cx: &Context) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for span in &found.spans {
        let records = cx.unless_cancelled(async {
            match &span.what {
                Part::Link(link) => index(&place.link(&link.name), &link.index, &cx.cpu).await,
                Part::Piece(header, _) => match entries_of_piece(place, header.number, &cx.cpu).await? {
                    Some(entries) => cx.cpu.run(move || index_of(&entries)).await,
                    None => Ok(Vec::new()),
                },
            }
        });
        match records.await {
            Ok(records) => happened.take(records),
            Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
            // One that left the archive's window meanwhile is not damaged.
            Err(_) if is_gone(place, &span.what).await => {}
            Err(e) => problems.push(format!("{}: {e}", span.what.name())),
        }
    }
    Ok(problems)
}

/// Whether this is a link that was removed since the archive was listed.
async fn is_gone(place: &ChainPlace, part: &Part) -> bool {
    match part {
        Part::Link(link) => matches!(place.read_link(&link.name).await, Ok(None)),
        Part::Piece(..) => false,
    }
}

/// Whether a command is not one of an import, or of the server on its own databases.
fn is_of_a_user(ddl: &Ddl) -> bool {
    let (database, collection) = ddl.namespace.split_once('.').unwrap_or((&ddl.namespace, ""));
    !SYSTEM_DATABASES.contains(&database) && !Namespace::new(database, collection).is_of_an_import()
}
