//! The backups as the service lists them: checked often, and read only if something has changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::job::{Job, JobId, JobKind, JobState, Trigger};
use super::schedule::Schedule;
use crate::clock;
use crate::context::lock;
use crate::error::Result;
use crate::format::manifest::Source;
use crate::mongo::MongoUri;
use crate::names::BackupName;
use crate::repository::catalog::provenance::{BriefSource, Grouped, Selection, of_deployment};
use crate::repository::catalog::{Catalog, Stamp, State, Summary};
use crate::repository::retention::group::{self, Origin};

/// How long a result is reused without another look.
const FRESH: Duration = Duration::from_millis(250);
/// How many backups are checked in parallel.
const LOOKERS: usize = 4;

/// The service, and the backups in its path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// The schedule.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// Whether each backup is imported once it is complete.
    pub auto_import: bool,
    /// The directory of the backups.
    pub backup_path: String,
    /// The jobs that have not ended.
    pub running: Vec<RunningJob>,
    /// The backups, newest first.
    pub backups: Vec<BackupEntry>,
}

/// A job that has not ended, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunningJob {
    /// The job's id.
    pub job_id: JobId,
    /// Its kind.
    pub kind: JobKind,
    /// Whether it is queued or running.
    pub state: JobState,
    /// Who began it.
    pub trigger: Trigger,
    /// What it is doing, as a short phrase.
    pub phase: String,
    /// The backup that it makes or reads.
    pub backup: Option<String>,
    /// Documents done in this phase.
    pub documents: u64,
    /// About how many documents there are.
    pub expected_documents: u64,
}

impl From<&Job> for RunningJob {
    fn from(job: &Job) -> Self {
        Self {
            job_id: job.id,
            kind: job.kind,
            state: job.state,
            trigger: job.trigger,
            phase: job.progress.phase.clone(),
            backup: job.backup.clone(),
            documents: job.progress.documents,
            expected_documents: job.progress.expected_documents,
        }
    }
}

/// A backup, without its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupEntry {
    /// The backup's name.
    pub name: String,
    /// Its path.
    pub path: String,
    /// Its consistency point: the snapshot time, the end of its oplog slice, or when its last
    /// document was read. For an adopted dump, the dump's own date. For an incomplete backup, when
    /// it began, if known.
    pub created: Option<DateTime<Utc>>,
    /// Bytes that its documents take in storage; 0 if unknown.
    pub size: u64,
    /// The number of its documents; for a time series, of its buckets. For an incomplete backup,
    /// those that are already stored.
    pub documents: u64,
    /// Bytes of the documents, uncompressed.
    pub raw_size: u64,
    /// The kind of consistency point: `snapshot`, `oplog` or `none`. Null for an incomplete backup.
    #[schema(example = "snapshot")]
    pub consistency: Option<String>,
    /// Whether the last verification or import found it intact.
    pub verified: bool,
    /// Whether it is complete and usable.
    pub complete: bool,
    /// Its state.
    pub state: BackupState,
    /// The group in which retention counts it.
    #[serde(flatten)]
    pub of: Grouped,
    /// What determines its group.
    #[serde(skip)]
    pub(super) origin: Option<Origin>,
    /// Why it is unusable, if it is damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The state of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackupState {
    /// It is complete.
    Complete,
    /// It is being made.
    Running,
    /// It was never completed, and nobody works on it any more.
    Incomplete,
    /// Its manifest is unusable.
    Damaged,
}

impl From<&Summary> for BackupEntry {
    fn from(summary: &Summary) -> Self {
        let manifest = summary.state.manifest();
        let (documents, raw_size) = summary.state.counted().unwrap_or_default();
        Self {
            name: summary.name.to_string(),
            path: summary.location.clone(),
            created: summary.created(),
            size: manifest.map_or(0, |manifest| manifest.totals.stored_bytes),
            documents,
            raw_size,
            consistency: manifest.map(|manifest| manifest.consistency.kind.to_string()),
            verified: summary.checks.as_ref().and_then(|c| c.verdict()).is_some_and(|check| check.passed),
            complete: manifest.is_some(),
            state: match &summary.state {
                State::Complete(_) => BackupState::Complete,
                State::Running(_) => BackupState::Running,
                State::Incomplete => BackupState::Incomplete,
                State::Damaged(_) => BackupState::Damaged,
            },
            of: Grouped::of(summary, None),
            origin: summary.origin(),
            reason: summary.state.damage().map(str::to_owned),
        }
    }
}

/// How far in the future a backup may be dated: the clocks of two machines differ a little.
const AHEAD: TimeDelta = TimeDelta::minutes(5);

impl BackupEntry {
    /// Whether it is dated in the future. Then a clock is or was wrong, and the date does not tell
    /// its age.
    pub(super) fn is_ahead(&self, now: DateTime<Utc>) -> bool {
        self.created.is_some_and(|created| created.signed_duration_since(now) > AHEAD)
    }
}

/// The group of the service's own backups: full backups of the configured source. While nothing is
/// known about the source, its URI decides. If no source is configured, the newest full backup
/// decides.
pub(super) fn own_group(entries: &[BackupEntry], configured: Option<&MongoUri>, known: Option<&Source>) -> Option<usize> {
    let mut complete: Vec<&BackupEntry> = entries.iter().filter(|entry| entry.of.group.is_some()).collect();
    complete.sort_by_key(|entry| std::cmp::Reverse(entry.created));
    let databases = configured.and_then(MongoUri::database).map(str::to_owned).into_iter().collect();
    let selection = Selection { databases, ..Selection::default() };
    if let (Some(source), Some(_)) = (known, configured) {
        let own = of_deployment(source, &selection);
        let origins = complete.iter().map(|entry| entry.origin.as_ref()).chain([Some(&own)]);
        let numbers = group::number(origins);
        let place = numbers.iter().position(|number| Some(number) == numbers.last())?;
        return complete.get(place)?.of.group;
    }
    let is_own = |entry: &&&BackupEntry| {
        let source = entry.of.source.as_ref();
        let told = |uri: &MongoUri| {
            source.is_some_and(|of| of.uri == uri.to_string() || of.hosts.iter().any(|host| uri.hosts().contains(host)))
        };
        let is_dump = source.is_some_and(BriefSource::is_dump);
        !is_dump && entry.of.selection.as_ref() == Some(&selection) && configured.is_none_or(told)
    };
    complete.iter().find(is_own)?.of.group
}

/// The cached backups of a catalog.
pub(super) struct Listing {
    catalog: Catalog,
    seen: Mutex<Seen>,
    /// Held by the one look in progress. Others wait for its result.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Seen {
    at: Option<Instant>,
    /// How often the cache was invalidated. A look that began earlier does not count as fresh.
    forgotten: u64,
    entries: Arc<Vec<BackupEntry>>,
    known: HashMap<BackupName, (Stamp, BackupEntry)>,
}

impl Listing {
    pub(super) fn new(catalog: Catalog) -> Self {
        Self { catalog, seen: Mutex::default(), looking: tokio::sync::Mutex::default() }
    }

    /// The backups, newest first, at most a quarter of a second old.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`](crate::error::ErrorKind::Storage).
    pub(super) async fn get(&self) -> Result<Arc<Vec<BackupEntry>>> {
        if let Some(entries) = self.fresh() {
            return Ok(entries);
        }
        let _looking = self.looking.lock().await;
        match self.fresh() {
            Some(entries) => Ok(entries),
            None => self.look().await,
        }
    }

    /// The backups from the last look, without a new one.
    pub(super) fn known(&self) -> Arc<Vec<BackupEntry>> {
        lock(&self.seen).entries.clone()
    }

    /// Invalidates the cache, so that the next call looks again.
    pub(super) fn forget(&self) {
        let mut seen = lock(&self.seen);
        seen.at = None;
        seen.forgotten += 1;
    }

    async fn look(&self) -> Result<Arc<Vec<BackupEntry>>> {
        let (began, now, forgotten) = (Instant::now(), clock::now(), lock(&self.seen).forgotten);
        let names = self.catalog.names().await?;
        let looks = futures::stream::iter(names.into_iter().map(|name| self.look_at(name, now))).buffer_unordered(LOOKERS);
        let found: Vec<_> = looks.filter_map(std::future::ready).collect().await;
        let mut entries: Vec<BackupEntry> = found.iter().map(|(_, _, entry)| entry.clone()).collect();
        entries.sort_by(|a, b| (b.created, &b.name).cmp(&(a.created, &a.name)));
        let groups = group::number(entries.iter().map(|entry| entry.origin.as_ref()));
        entries.iter_mut().zip(groups).for_each(|(entry, group)| entry.of.group = group);
        let mut seen = lock(&self.seen);
        seen.at = (seen.forgotten == forgotten).then_some(began);
        seen.known = found.into_iter().filter_map(|(name, stamp, entry)| Some((name, (stamp?, entry)))).collect();
        seen.entries = Arc::new(entries);
        Ok(seen.entries.clone())
    }

    /// A backup whose files have not changed is taken from the cache.
    async fn look_at(&self, name: BackupName, now: DateTime<Utc>) -> Option<(BackupName, Option<Stamp>, BackupEntry)> {
        let stamp = self.catalog.stamp(&name).await;
        if let Some(stamp) = stamp {
            let known = lock(&self.seen).known.get(&name).filter(|(then, _)| *then == stamp).map(|(_, entry)| entry.clone());
            if let Some(entry) = known {
                return Some((name, Some(stamp), entry));
            }
        }
        let summary = self.catalog.summary(name.clone(), now).await?;
        let entry = BackupEntry::from(&summary);
        // A backup that could not be read may become readable with the same stamp. A damaged one
        // stays damaged.
        Some((name, stamp.filter(|_| summary.lasting), entry))
    }

    fn fresh(&self) -> Option<Arc<Vec<BackupEntry>>> {
        let seen = lock(&self.seen);
        seen.at.filter(|at| at.elapsed() < FRESH).map(|_| seen.entries.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::manifest::Topology;
    use crate::mongo::Role;

    fn source(id: &str, host: &str) -> Source {
        Source {
            uri: format!("mongodb://{host}"),
            hosts: vec![host.to_owned()],
            server_version: "6.0.5".to_owned(),
            feature_compatibility_version: None,
            topology: Topology::ReplicaSet,
            replica_set: Some("rs0".to_owned()),
            replica_set_id: Some(id.to_owned()),
            deployment_id: None,
            known_as: Vec::new(),
        }
    }

    fn entry(second: i64, source: &Source, databases: &[&str]) -> BackupEntry {
        let databases = databases.iter().map(ToString::to_string).collect();
        let selection = Selection { databases, ..Selection::default() };
        let Source { uri, hosts, topology, replica_set, .. } = source.clone();
        BackupEntry {
            name: second.to_string(),
            path: String::new(),
            created: DateTime::from_timestamp(second, 0),
            size: 0,
            documents: 0,
            raw_size: 0,
            consistency: None,
            verified: false,
            complete: true,
            state: BackupState::Complete,
            origin: Some(of_deployment(source, &selection)),
            of: Grouped {
                source: Some(BriefSource { uri, hosts, topology, replica_set, id: None }),
                selection: Some(selection),
                group: None,
            },
            reason: None,
        }
    }

    #[test]
    fn the_services_own_backups_are_those_of_its_source_and_of_all_that_it_asks_for() {
        let (own, other) = (source("a", "own:1"), source("b", "other:1"));
        let dump = Source { uri: "dump:x".to_owned(), ..other.clone() };
        let mut entries = vec![
            entry(50, &dump, &[]),
            entry(40, &other, &[]),
            entry(30, &own, &["crm"]),
            entry(20, &own, &[]),
            entry(10, &other, &[]),
        ];
        for (entry, group) in entries.iter_mut().zip([1, 2, 3, 4, 2]) {
            entry.of.group = Some(group);
        }
        let uri = |text: &str| MongoUri::parse(Role::Source, text).unwrap();
        let of = |text: &str, known: Option<&Source>| own_group(&entries, Some(&uri(text)), known);
        // By the source's own identity, whatever its URI.
        assert_eq!((of("mongodb://x", Some(&own)), of("mongodb://x/crm", Some(&own))), (Some(4), Some(3)));
        assert_eq!(of("mongodb://own:1", Some(&source("c", "own:1"))), None, "another one stands there now");
        // By its URI if it does not answer.
        assert_eq!((of("mongodb://own:1", None), of("mongodb://own:1/crm", None)), (Some(4), Some(3)));
        assert_eq!((of("mongodb://own:1/shop", None), of("mongodb://x", None)), (None, None));
        // Without a configured source: the newest full backup, but no dump.
        assert_eq!((own_group(&entries, None, None), own_group(&[], None, None)), (Some(2), None));
    }
}
