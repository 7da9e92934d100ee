//! Going on with a backup that a crash left: what its journal says, whether that is still there, and whether it is the same source.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use chrono::{DateTime, Utc};

use super::BackupOptions;
use super::plan::{self, Prepared, Survey};
use crate::clock;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::format::journal::{Head, Listed, OplogStep, Part, RangeDone, Raw, Standing, Step};
use crate::format::manifest::{Segment, Source};
use crate::format::{key, manifest};
use crate::mongo::MongoUri;
use crate::names::{BackupName, Namespace};
use crate::oplog::tail::Start;
use crate::repository::backend::{Entry, Lock, Store};
use crate::repository::catalog::{Catalog, State, Summary};
use crate::source::discover::{CollectionInfo, Listing, Size};
use crate::source::ranges::{IdValue, Range};
use crate::system;

/// An unfinished backup that nobody else works on.
pub(super) struct Unfinished {
    pub(super) name: BackupName,
    pub(super) place: Store,
    pub(super) head: Head,
    /// What is durable of each range, by the places of collection and range.
    pub(super) ranges: HashMap<(usize, usize), RangeDone>,
    /// Why nothing is kept of these collections.
    pub(super) gone: HashMap<usize, String>,
    pub(super) oplog: Option<OplogStep>,
    pub(super) standing: Standing,
    /// The number of the journal's next object.
    pub(super) next: usize,
    /// What was written down and is not there any more.
    lost: Vec<String>,
    /// Held until the backup is complete, or given up.
    pub(super) lock: Option<Lock>,
}

/// Finds the unfinished backup of this name, or the newest one of this source, and reads what is durable of it. Where none is of this
/// source by its URI, it is the newest of all: what the deployment says of itself tells then.
///
/// # Errors
/// [`ErrorKind::NotFound`] where there is none; [`ErrorKind::Refused`] where it runs or is complete, or a crash came before its journal was begun;
/// [`ErrorKind::Damaged`]; [`ErrorKind::Storage`].
pub(super) async fn open(store: &Store, name: Option<&BackupName>, source: &MongoUri) -> Result<Unfinished> {
    let backups = Catalog::new(store.clone()).list(clock::now()).await?;
    if let Some(name) = name {
        let found = backups.iter().find(|b| b.name == *name).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("Database backup not found: {:?} in {}", name.as_str(), store.location()))
                .hint("`bsonvault list` shows the backups that there are")
        })?;
        return take(store, found).await;
    }
    let (mut refused, mut other) = (None, None);
    for found in backups.iter().filter(|b| matches!(b.state, State::Incomplete | State::Running(_))) {
        match take(store, found).await {
            Err(e) if e.kind() == ErrorKind::Refused => refused = refused.or(Some(e)),
            Ok(unfinished) if !is_of(&unfinished.head.source, source) => other = other.or(Some(unfinished)),
            done => return done,
        }
    }
    if let Some(other) = other {
        return Ok(other);
    }
    Err(refused.unwrap_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("there is no unfinished backup in {}", store.location()))
            .hint("take a new backup without --resume; `bsonvault list` shows what there is")
    }))
}

/// Whether a backup was begun of this source, as far as its URI tells.
fn is_of(begun: &Source, source: &MongoUri) -> bool {
    begun.uri == source.to_string() || begun.hosts.iter().any(|host| source.hosts().contains(host))
}

async fn take(store: &Store, found: &Summary) -> Result<Unfinished> {
    let (name, place) = (found.name.clone(), store.below(found.name.as_str()));
    let refused = |what: String| Error::new(ErrorKind::Refused, format!("backup {} {what}", found.location));
    let running = || refused("is running".to_owned()).hint("wait for it, or stop it; `bsonvault list` shows how far it is");
    let seen_alive = match &found.state {
        State::Complete(_) => {
            return Err(refused("is complete".to_owned()).hint("there is nothing to resume; take a new one without --resume"));
        }
        State::Damaged(reason) => return Err(Error::damaged(format!("backup {}: {reason}", found.location))),
        // Of this machine's processes the lock knows better.
        State::Running(progress) => progress.host != system::host(),
        State::Incomplete => false,
    };
    let lock = place.lock().await?.filter(|_| !seen_alive).ok_or_else(running)?;
    if matches!(found.state, State::Running(_)) && !lock.holds() {
        return Err(running()
            .hint("where the file system knows no locks, it counts as running for half a minute after its last sign of life"));
    }
    let head = match read(&place, 0).await {
        Ok(bytes) => Head::from_bytes(&bytes)?,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(refused("cannot be resumed: it was interrupted before anything of it was read".to_owned())
                .hint(format!("take a new one without --resume, and remove {}", found.location)));
        }
        Err(e) => return Err(e),
    };
    let mut unfinished = Unfinished {
        name,
        place,
        head,
        ranges: HashMap::new(),
        gone: HashMap::new(),
        oplog: None,
        standing: Standing::default(),
        next: 1,
        lost: Vec::new(),
        lock: Some(lock),
    };
    unfinished.read_steps().await?;
    unfinished.leave_out_what_is_lost().await?;
    Ok(unfinished)
}

async fn read(place: &Store, number: usize) -> Result<Vec<u8>> {
    let key = key::journal(number);
    let size = place.size(&key).await?;
    if size > manifest::LIMIT {
        return Err(Error::damaged(format!("{key} has {size} bytes, more than the limit of {}", manifest::LIMIT)));
    }
    Ok(place.get(&key).await?.to_vec())
}

impl Unfinished {
    async fn read_steps(&mut self) -> Result<()> {
        loop {
            let step = match read(&self.place, self.next).await {
                Ok(bytes) => Step::from_bytes(&bytes, self.next)?,
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(e),
            };
            self.next += 1;
            self.standing = self.standing.or(step.standing);
            for done in step.ranges {
                let listed = self.head.collections.get(done.collection).filter(|c| done.range < c.ranges.len());
                let stem = listed.map(|c| c.stem.as_str()).ok_or_else(|| self.contradiction())?;
                if done.segments.iter().any(|s| key::segment_number(stem, &s.object.key).is_none()) {
                    return Err(self.contradiction());
                }
                if let Some(why) = &done.gone {
                    self.gone.insert(done.collection, why.clone());
                }
                self.ranges.insert((done.collection, done.range), done);
            }
            if let Some(more) = step.oplog {
                if self.head.oplog.is_none()
                    || more.segments.iter().any(|s| key::segment_number(key::OPLOG, &s.object.key).is_none())
                {
                    return Err(self.contradiction());
                }
                let mut segments = self.oplog.take().map(|before| before.segments).unwrap_or_default();
                segments.extend(more.segments);
                self.oplog = Some(OplogStep { segments, ..more });
            }
        }
    }

    fn contradiction(&self) -> Error {
        Error::damaged(format!("{} contradicts what the journal began with", key::journal(self.next - 1)))
            .hint(format!("take a new backup without --resume, and remove {}", self.place.location()))
    }

    /// What was durable is there with its size, or it does not count. (What it holds `verify` proves, and the read of all of it would
    /// take about as long as the backup.)
    async fn leave_out_what_is_lost(&mut self) -> Result<()> {
        let named = self.ranges.values().flat_map(|done| &done.segments).chain(self.oplog.iter().flat_map(|o| &o.segments));
        let mut sizes: HashMap<String, Option<u64>> = named.map(|s| (s.object.key.clone(), None)).collect();
        let look = |entry: Entry| {
            if let Some(size) = sizes.get_mut(&entry.key) {
                *size = Some(entry.size);
            }
            ControlFlow::Continue(())
        };
        self.place.each(look).await?;
        let is_there = |s: &Segment| sizes.get(&s.object.key) == Some(&Some(s.object.bytes));
        let lost = &mut self.lost;
        let mut missing = |segments: &[Segment]| {
            let first = segments.iter().find(|s| !is_there(s)).map(|s| s.object.key.clone());
            lost.extend(first.clone());
            first.is_some()
        };
        let gone = &self.gone;
        self.ranges.retain(|(collection, _), done| gone.contains_key(collection) || !missing(&done.segments));
        // The slice is removed before the commit where it is not needed.
        if self.oplog.as_ref().is_some_and(|oplog| oplog.segments.iter().any(|s| !is_there(s))) {
            self.oplog = None;
        }
        Ok(())
    }

    /// When the backup began.
    pub(super) fn started(&self) -> DateTime<Utc> {
        self.head.started
    }

    /// Where its oplog slice begins.
    pub(super) fn start(&self) -> Option<Start> {
        self.head.oplog.map(|start| Start { from: start.from.into(), since: start.since.into() })
    }

    /// How many ranges are durable, of how many.
    pub(super) fn ranges(&self) -> (usize, usize) {
        (self.ranges.len(), self.head.collections.iter().map(|c| c.ranges.len()).sum())
    }

    /// How many ranges of this collection are durable.
    pub(super) fn ranges_of(&self, collection: usize) -> usize {
        self.ranges.keys().filter(|(of, _)| *of == collection).count()
    }

    /// Removes what does not count: what was half written, segments of ranges that were not finished.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`].
    pub(super) async fn tidy_up(&self, cx: &Context) -> Result<()> {
        let segments = self.ranges.iter().filter(|((collection, _), _)| !self.gone.contains_key(collection));
        let mut keep: HashSet<String> = segments
            .flat_map(|(_, done)| &done.segments)
            .chain(self.oplog.iter().flat_map(|o| &o.segments))
            .map(|s| s.object.key.clone())
            .collect();
        keep.extend((0..self.next).map(key::journal));
        keep.insert(key::PROGRESS.to_owned());
        let swept = self.place.sweep(keep).await?;
        tracing::info!(swept, "objects of the interrupted attempt removed");
        for key in &self.lost {
            cx.progress.note(format!("{key} is not as it was written: its range is read again"));
        }
        let (done, all) = self.ranges();
        cx.progress.note(format!("resuming {}: {done} of {all} ranges are stored already", self.name));
        Ok(())
    }

    /// What is read, as it was listed when the backup began.
    pub(super) fn listing(&self) -> Result<(Listing, Survey)> {
        let mut collections = Vec::with_capacity(self.head.collections.len());
        let mut survey = HashMap::new();
        for listed in &self.head.collections {
            if let Some(uuid) = listed.uuid {
                let size = listed.documents.zip(listed.bytes).map(|(documents, bytes)| Size { documents, bytes });
                let ranges = listed.ranges.iter().map(|p| range(p).ok_or_else(|| self.contradiction())).collect::<Result<_>>()?;
                survey.insert(uuid, (size, ranges));
            }
            collections.push(CollectionInfo {
                namespace: Namespace::new(&*listed.database, &*listed.name),
                kind: listed.kind,
                uuid: listed.uuid,
                options: listed.options.0.clone(),
                indexes: listed.indexes.iter().map(|index| index.0.clone()).collect(),
            });
        }
        let time = self.head.snapshot_time.map(Into::into);
        Ok((Listing { collections, left_out: self.head.left_out.clone(), time }, Survey::known(survey)))
    }
}

/// Connects to the source of an unfinished backup and prepares to go on.
///
/// # Errors
/// [`ErrorKind::Refused`] where it is another deployment; [`ErrorKind::Usage`] where the options are not those of the backup; those of a connection.
pub(super) async fn prepare(source: &MongoUri, options: &BackupOptions, unfinished: &Unfinished) -> Result<Prepared> {
    agree(source, options, unfinished)?;
    let (listing, survey) = unfinished.listing()?;
    let mut prepared = plan::prepare_again(source, options, &unfinished.head, listing, survey).await?;
    prepared.kind = unfinished.head.consistency;
    prepared.why_no_slice.clone_from(&unfinished.head.why_no_oplog);
    let now = prepared.connection.describe().await;
    if is_same(&unfinished.head.source, &now) {
        return Ok(prepared);
    }
    prepared.connection.close().await;
    Err(Error::new(
        ErrorKind::Refused,
        format!(
            "backup {} was begun of {}, and {} is another deployment",
            unfinished.name,
            who(&unfinished.head.source),
            who(&now)
        ),
    )
    .hint("resume it with the source that it was begun of, or take a new backup without --resume"))
}

/// That what is asked for is what the backup was begun with. What is not said now counts as it was then.
fn agree(source: &MongoUri, options: &BackupOptions, unfinished: &Unfinished) -> Result<()> {
    let was = &unfinished.head.settings;
    let contradiction = |flag: &str, now: String, then: String| {
        let then = if then.is_empty() { "without".to_owned() } else { format!("with {then}") };
        Error::usage(format!("{flag} is {now}, and backup {} was begun {then}", unfinished.name))
            .hint("leave it out to go on with what the backup was begun with, or take a new one without --resume")
    };
    let mut databases = match (options.databases.as_slice(), source.database()) {
        ([], Some(named)) => vec![named.to_owned()],
        (given, _) => given.to_vec(),
    };
    databases.sort();
    databases.dedup();
    if !databases.is_empty() && databases != was.databases {
        let flag = if options.databases.is_empty() { "the database in the source's URI" } else { "--database" };
        return Err(contradiction(flag, databases.join(", "), was.databases.join(", ")));
    }
    for (flag, now, then) in [("--include", &options.include, &was.include), ("--exclude", &options.exclude, &was.exclude)] {
        let now: Vec<String> = now.iter().map(ToString::to_string).collect();
        if !now.is_empty() && now != *then {
            return Err(contradiction(flag, now.join(", "), then.join(", ")));
        }
    }
    let tuning = &options.tuning;
    if let Some(codec) = tuning.codec.filter(|codec| *codec != was.codec) {
        return Err(contradiction("the codec (--codec, BACKUP_CODEC)", codec.to_string(), was.codec.to_string()));
    }
    if let Some(level) = tuning.level.filter(|level| *level != was.level) {
        return Err(contradiction("the level (--level, BACKUP_LEVEL)", level.to_string(), was.level.to_string()));
    }
    if let Some(bytes) = tuning.frame_bytes.filter(|bytes| *bytes as u64 != was.frame_bytes) {
        let mb = |bytes: u64| format!("{} MiB", bytes >> 20);
        return Err(contradiction("the frame size (--frame-mb, BACKUP_FRAME_MB)", mb(bytes as u64), mb(was.frame_bytes)));
    }
    if let Some(long) = tuning.long_distance.filter(|long| *long != was.long_distance) {
        let flag = "long-distance matching (--long-distance, BACKUP_LONG_DISTANCE)";
        return Err(contradiction(flag, long.to_string(), was.long_distance.to_string()));
    }
    Ok(())
}

/// Whether both are one deployment: by the set's id where that can be read; else by its name and a host that both have, unless other
/// data are there now.
fn is_same(then: &Source, now: &Source) -> bool {
    let alike = then.topology == now.topology && then.replica_set == now.replica_set;
    let names = |source: &Source| source.hosts.iter().chain(&source.known_as).cloned().collect::<HashSet<_>>();
    let same = match (&then.replica_set_id, &now.replica_set_id, &then.deployment_id, &now.deployment_id) {
        (Some(then), Some(now), ..) => then == now,
        (_, _, Some(then_id), Some(now_id)) if then_id != now_id => false,
        _ => !names(then).is_disjoint(&names(now)),
    };
    alike && same
}

fn who(source: &Source) -> String {
    let set = source.replica_set.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    let id = source.replica_set_id.as_ref().map(|id| format!(", id {id}")).unwrap_or_default();
    format!("the {}{set} ({}{id})", source.topology, source.hosts.join(", "))
}

/// What the journal of a backup begins with.
pub(super) async fn head(prepared: &Prepared, start: Option<Start>, stems: &[String], started: DateTime<Utc>) -> Result<Head> {
    let mut collections = Vec::with_capacity(prepared.listing.collections.len());
    for (found, stem) in prepared.listing.collections.iter().zip(stems) {
        let (size, ranges) = prepared.survey.of(found);
        collections.push(Listed {
            database: found.namespace.database.clone(),
            name: found.namespace.collection.clone(),
            kind: found.kind,
            uuid: found.uuid,
            options: Raw(found.options.clone()),
            indexes: found.indexes.iter().cloned().map(Raw).collect(),
            stem: stem.clone(),
            documents: size.map(|s| s.documents),
            bytes: size.map(|s| s.bytes),
            ranges: ranges.iter().map(part).collect::<Result<_>>()?,
        });
    }
    Ok(Head {
        format_version: prepared.settings.format_version(),
        started,
        source: prepared.connection.describe().await,
        settings: prepared.settings.clone(),
        consistency: prepared.kind,
        allow_inconsistent: prepared.allow_inconsistent,
        snapshot_time: prepared.listing.time.map(Into::into),
        oplog: start.map(|s| crate::format::journal::OplogStart { from: s.from.into(), since: s.since.into() }),
        why_no_oplog: prepared.why_no_slice.clone(),
        collections,
        left_out: prepared.listing.left_out.clone(),
    })
}

fn part(range: &Range) -> Result<Part> {
    let bound = |id: &Option<IdValue>| id.as_ref().map(|id| id.document().map(Raw)).transpose();
    Ok(match range {
        Range::Natural => Part::Natural,
        Range::Expression { lower, upper } => Part::Expression { lower: bound(lower)?, upper: bound(upper)? },
        Range::Bounds { lower, upper } => Part::Bounds { lower: bound(lower)?, upper: bound(upper)? },
        Range::MaxKey => Part::MaxKey,
    })
}

/// The range that a part of the journal stands for; none where a bound has no `_id`.
fn range(part: &Part) -> Option<Range> {
    let bound = |raw: &Option<Raw>| match raw {
        Some(raw) => IdValue::of(raw.0.as_bytes()).map(Some),
        None => Some(None),
    };
    Some(match part {
        Part::Natural => Range::Natural,
        Part::Expression { lower, upper } => Range::Expression { lower: bound(lower)?, upper: bound(upper)? },
        Part::Bounds { lower, upper } => Range::Bounds { lower: bound(lower)?, upper: bound(upper)? },
        Part::MaxKey => Range::MaxKey,
    })
}
