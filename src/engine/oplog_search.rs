//! `oplog-search`: finds entries of an archived oplog.

use std::sync::Arc;

use bson::RawDocumentBuf;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::context::Context;
use crate::engine::timeline::position;
use crate::error::{Error, ErrorKind, Result};
use crate::few::Few;
use crate::format::document::{Documents, Elements};
use crate::format::manifest::{ClusterTime, OplogPosition};
use crate::names::{Namespace, NamespacePattern};
use crate::oplog::chain::ChainRange;
use crate::oplog::chain::range::WantedFrames;
use crate::oplog::chain::spans::Spans;
use crate::oplog::{Entry, Head, Operation, OperationKind, Step, text};
use crate::repository::Repository;

/// What to look for.
#[derive(Debug, Clone, Default)]
pub struct SearchOptions {
    /// The namespaces. Empty for all.
    pub namespaces: Vec<NamespacePattern>,
    /// The operations, by the names that [`FoundEntry::op`] has. Empty for all.
    pub operations: Vec<String>,
    /// From this time on.
    pub since: Option<ClusterTime>,
    /// Up to this time.
    pub until: Option<ClusterTime>,
    /// Fields that the document or the `_id` must have with these values.
    pub filter: Option<RawDocumentBuf>,
    /// The most entries to return. The oldest are returned.
    pub limit: usize,
}

/// The names of operations that can be asked for.
pub const OPERATIONS: [&str; 14] = [
    "insert",
    "update",
    "delete",
    "create",
    "drop",
    "dropDatabase",
    "renameCollection",
    "createIndexes",
    "commitIndexBuild",
    "startIndexBuild",
    "abortIndexBuild",
    "dropIndexes",
    "collMod",
    "emptycapped",
];

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SearchReport {
    /// The entries, oldest first.
    pub entries: Vec<FoundEntry>,
    /// How many there are, with those beyond the limit.
    pub count: u64,
    /// Parts of the time that were not searched, in words.
    pub notes: Vec<String>,
}

/// An operation of an oplog.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FoundEntry {
    /// `SECONDS:ORDINAL`, as `import --undo` takes it.
    #[schema(example = "1795383900:7")]
    pub time: String,
    /// RFC 3339, to the second.
    pub at: DateTime<Utc>,
    /// What it is about.
    pub namespace: String,
    /// What it does: `insert`, `update`, `delete`, or a command's name.
    pub op: String,
    /// How many documents it is about, if the entry says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<i64>,
    /// Whether it is in an earlier part of a transaction, and so counts only if that is committed
    /// later.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub uncommitted: bool,
    /// The `_id` of the document, in Extended JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object)]
    pub id: Option<serde_json::Value>,
    /// The new name, of a rename.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Searches all archives of a repository.
///
/// # Errors
/// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::Damaged`]; [`ErrorKind::Storage`];
/// [`ErrorKind::Interrupted`].
pub async fn search(repository: &Repository, options: &SearchOptions, cx: &Context) -> Result<SearchReport> {
    let mut report = SearchReport::default();
    let mut notes = Few::default();
    let chains = repository.chains().await?;
    if chains.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, format!("{} has no archive of an oplog", repository.location()))
            .hint("`bsonvault archive` keeps one"));
    }
    let wanted = wanted(options);
    let (since, until) = (options.since.unwrap_or_default(), options.until.unwrap_or(LAST));
    for place in chains {
        let _lock = match place.read_lock("search").await {
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            lock => lock?,
        };
        let found = match Spans::of(&place, &cx.cpu).await {
            Err(e) if e.kind() == ErrorKind::Damaged => {
                notes.push(|| format!("{} was not searched: {e}", place.location()));
                continue;
            }
            found => found?,
        };
        let Some(found) = found else { continue };
        for gap in found.gaps().filter(|gap| gap.from < until && since < gap.to) {
            notes.push(|| format!("nothing is archived between {} and {}: {}", gap.from, gap.to, gap.reason));
        }
        for run in found.runs() {
            let (from, to) = (run.from().max(since), run.to().min(until));
            if from > to {
                continue;
            }
            let at = OplogPosition { time: from, term: None, digest: None };
            let range = ChainRange::of(&place, &found, at, (to, to))?;
            let mut reader = range.reader_of(&cx.cpu, wanted.clone());
            while let Some(frame) = cx.unless_cancelled(reader.next()).await? {
                let options = options.clone();
                let left = options.limit.saturating_sub(report.entries.len());
                let (entries, count) = cx.cpu.run(move || find(&frame, &options, left)).await?;
                report.entries.extend(entries);
                report.count += count;
            }
        }
    }
    report.notes = notes.into_sentences();
    Ok(report)
}

/// The last time that can be.
const LAST: ClusterTime = ClusterTime { t: u32::MAX, i: u32::MAX };

/// Which frames can hold what is looked for.
fn wanted(options: &SearchOptions) -> WantedFrames {
    let options = options.clone();
    Arc::new(move |frame| {
        if frame.needed {
            return true;
        }
        let takes = |op: &str| options.operations.is_empty() || options.operations.iter().any(|wanted| wanted == op);
        frame.collections.iter().any(|counts| {
            is_named(&options.namespaces, &counts.namespace)
                && ((counts.inserts > 0 && takes("insert"))
                    || (counts.updates > 0 && takes("update"))
                    || (counts.deletes > 0 && takes("delete")))
        })
    })
}

fn is_named(patterns: &[NamespacePattern], namespace: &str) -> bool {
    let (database, collection) = namespace.split_once('.').unwrap_or((namespace, ""));
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(&Namespace::new(database, collection)))
}

/// What of a frame is looked for: so many of the first, and how many there are.
fn find(frame: &[u8], options: &SearchOptions, most: usize) -> Result<(Vec<FoundEntry>, u64)> {
    let (mut entries, mut count) = (Vec::new(), 0);
    for raw in Documents::of(frame) {
        let raw = raw?;
        // What a later server writes is not known by its name.
        let Ok(entry) = Entry::parse(raw) else { continue };
        entry.each(&mut |operation| {
            if let Some(mut found) = found(entry.time, &operation, options)? {
                count += 1;
                found.uncommitted = entry.part.as_ref().is_some_and(|part| part.step == Step::Operations);
                if entries.len() < most {
                    entries.push(found);
                }
            }
            Ok(())
        })?;
    }
    Ok((entries, count))
}

fn found(time: ClusterTime, operation: &Operation<'_>, options: &SearchOptions) -> Result<Option<FoundEntry>> {
    let Some(touched) = touched(operation)? else { return Ok(None) };
    let op = name(operation)?;
    let is_wanted = options.operations.is_empty() || options.operations.contains(&op);
    let is_here = touched.iter().any(|name| is_named(&options.namespaces, name));
    if !is_wanted || !is_here || !has(operation, options.filter.as_deref())? {
        return Ok(None);
    }
    let is_document = operation.kind != OperationKind::Command;
    let id = if is_document { Some(readable(operation.id()?)?) } else { None };
    let documents = if is_document { Some(1) } else { operation.dropped_documents() };
    let mut names = touched.into_iter();
    let (namespace, to) = (names.next().unwrap_or_default(), names.next());
    let at = DateTime::from_timestamp(i64::from(time.t), 0).unwrap_or_default();
    Ok(Some(FoundEntry { time: position(time), at, namespace, op, documents, uncommitted: false, id, to }))
}

/// The name of an operation.
fn name(operation: &Operation<'_>) -> Result<String> {
    Ok(match operation.kind {
        OperationKind::Insert => "insert",
        OperationKind::Update => "update",
        OperationKind::Delete => "delete",
        _ => operation.command()?,
    }
    .to_owned())
}

/// The namespaces that an operation is about: of a rename, the old one and the new one. `None` for
/// what is about no namespace of users.
fn touched(operation: &Operation<'_>) -> Result<Option<Vec<String>>> {
    match operation.kind {
        OperationKind::Nothing => return Ok(None),
        OperationKind::Command => {}
        _ => return Ok(Some(vec![operation.namespace.to_owned()])),
    }
    let mut fields = Elements::of(operation.o)?;
    let Some(first) = fields.next().transpose()? else { return Ok(None) };
    Ok(match operation.command()? {
        "applyOps" | "commitTransaction" | "abortTransaction" => None,
        "renameCollection" => {
            let to = fields.flatten().find(|e| e.name == b"to").map(text).transpose()?;
            Some([text(first)?, to.unwrap_or_default()].map(str::to_owned).into())
        }
        "dropDatabase" => Some(vec![operation.database().to_owned()]),
        _ => match text(first) {
            Ok(name) => Some(vec![format!("{}.{name}", operation.database())]),
            Err(_) => Some(vec![operation.database().to_owned()]),
        },
    })
}

/// Whether an operation's document or `_id` has these values.
fn has(operation: &Operation<'_>, filter: Option<&bson::RawDocument>) -> Result<bool> {
    let Some(filter) = filter else { return Ok(true) };
    if operation.kind == OperationKind::Command {
        return Ok(false);
    }
    let holders = [Some(operation.o), operation.o2];
    for wanted in Elements::of(filter.as_bytes())? {
        let wanted = wanted?;
        let mut is_there = false;
        for holder in holders.into_iter().flatten() {
            is_there |= Elements::of(holder)?.flatten().any(|e| e.name == wanted.name && is_same(&e, &wanted));
        }
        if !is_there {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether two values are the same; numbers of any type are compared by value.
fn is_same(one: &crate::format::document::Element<'_>, other: &crate::format::document::Element<'_>) -> bool {
    let of = |e: &crate::format::document::Element<'_>| {
        use crate::format::kind;
        match e.kind {
            kind::INT32 => Some(f64::from(i32::from_le_bytes(e.value.try_into().ok()?))),
            #[expect(clippy::cast_precision_loss, reason = "what is compared was written by a person")]
            kind::INT64 => Some(i64::from_le_bytes(e.value.try_into().ok()?) as f64),
            kind::DOUBLE => Some(f64::from_le_bytes(e.value.try_into().ok()?)),
            _ => None,
        }
    };
    (one.kind == other.kind && one.value == other.value)
        || matches!((of(one), of(other)), (Some(one), Some(other)) if (one - other).abs() < f64::EPSILON)
}

fn readable((kind, id): (u8, &[u8])) -> Result<serde_json::Value> {
    let mut document = crate::format::document::Writer::default();
    document.element(kind, "_id", id);
    let raw = document.raw()?;
    let parsed = bson::Document::try_from(raw).ok().and_then(|mut document| document.remove("_id"));
    Ok(parsed.map_or(serde_json::Value::Null, bson::Bson::into_relaxed_extjson))
}

/// What an entry touched, and the time right before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accident {
    /// The namespaces, by the names that they had right before it.
    pub namespaces: Vec<Namespace>,
    /// Everything before this time is as it was.
    pub before: ClusterTime,
}

/// What the entry at this time touched. A dropped database is the drops of its collections, too.
///
/// # Errors
/// [`ErrorKind::NotFound`] if no archive has an entry at this time; [`ErrorKind::Refused`] if it
/// touched nothing; [`ErrorKind::Gap`], [`ErrorKind::Damaged`].
pub async fn accident(repository: &Repository, time: ClusterTime, cx: &Context) -> Result<Accident> {
    // The drops of a database's collections are right before its own.
    let since = ClusterTime { t: time.t.saturating_sub(60), i: 0 };
    let mut damaged = None;
    for place in repository.chains().await? {
        let _lock = match place.read_lock("search").await {
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            lock => lock?,
        };
        let found = match Spans::of(&place, &cx.cpu).await {
            Err(e) if e.kind() == ErrorKind::Damaged => {
                damaged = Some(e);
                continue;
            }
            found => found?,
        };
        let Some(found) = found else { continue };
        let Some(run) = found.runs().into_iter().find(|run| run.from() <= time && time <= run.to()) else { continue };
        let at = OplogPosition { time: since.max(run.from()), term: None, digest: None };
        let range = ChainRange::of(&place, &found, at, (time, time))?;
        let mut reader = range.reader(&cx.cpu);
        let mut looking = Looking { at: time, ..Looking::default() };
        while let Some(frame) = cx.unless_cancelled(reader.next()).await? {
            for raw in Documents::of(&frame) {
                looking.take(raw?)?;
            }
        }
        if let Some(accident) = looking.found() {
            return accident;
        }
    }
    if let Some(damaged) = damaged {
        return Err(damaged);
    }
    Err(Error::new(ErrorKind::NotFound, format!("no archive of an oplog has an entry at {}", position(time)))
        .hint("`bsonvault oplog-search` prints the times of entries"))
}

/// Looks for an entry, and remembers the drops before it.
#[derive(Default)]
struct Looking {
    at: ClusterTime,
    /// The drops without anything else in their database since: their times and names.
    drops: Vec<(ClusterTime, Namespace)>,
    is_there: bool,
    accident: Option<Accident>,
}

impl Looking {
    fn take(&mut self, raw: &[u8]) -> Result<()> {
        let time = Head::of(raw)?.time;
        let Ok(entry) = Entry::parse(raw) else { return Ok(()) };
        if time == self.at {
            self.is_there = true;
            let mut accident = Accident { namespaces: Vec::new(), before: time };
            entry.each(&mut |operation| self.touch(&operation, &mut accident))?;
            accident.namespaces.sort();
            accident.namespaces.dedup();
            self.accident = Some(accident);
            return Ok(());
        }
        entry.each(&mut |operation| {
            match (operation.kind, touched(&operation)?) {
                (OperationKind::Command, Some(names)) if operation.command()? == "drop" => {
                    let name = names.first().and_then(|name| name.split_once('.'));
                    self.drops.extend(name.map(|(database, name)| (time, Namespace::new(database, name))));
                }
                (OperationKind::Nothing, _) | (_, None) => {}
                _ => self.drops.retain(|(_, name)| name.database != operation.database()),
            }
            Ok(())
        })
    }

    fn touch(&self, operation: &Operation<'_>, accident: &mut Accident) -> Result<()> {
        let Some(names) = touched(operation)? else { return Ok(()) };
        if operation.kind == OperationKind::Command && operation.command()? == "dropDatabase" {
            let database = operation.database();
            for (time, name) in self.drops.iter().filter(|(_, name)| name.database == database) {
                accident.before = accident.before.min(*time);
                accident.namespaces.push(name.clone());
            }
            return Ok(());
        }
        // Under the new name, there was something only if it was dropped for it.
        let is_rename = operation.kind == OperationKind::Command && operation.command()? == "renameCollection";
        let replaces = Elements::of(operation.o)?.flatten().any(|e| e.name == b"dropTarget" && e.value.iter().any(|b| *b != 0));
        let count = if is_rename && !replaces { 1 } else { names.len() };
        for name in names.into_iter().take(count) {
            if let Some((database, collection)) = name.split_once('.') {
                let series = collection.strip_prefix(crate::names::BUCKETS_PREFIX).unwrap_or(collection);
                accident.namespaces.push(Namespace::new(database, series));
            }
        }
        Ok(())
    }

    fn found(self) -> Option<Result<Accident>> {
        if !self.is_there {
            return None;
        }
        let accident = self.accident?;
        if accident.namespaces.is_empty() {
            return Some(Err(Error::new(
                ErrorKind::Refused,
                format!("the entry at {} touched no collection: there is nothing to bring back", position(self.at)),
            )
            .hint("`bsonvault oplog-search` prints entries that did")));
        }
        Some(Ok(accident))
    }
}
