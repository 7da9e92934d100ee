//! Resumes an unfinished backup: checks that the source is the same, and finds what must still be
//! read.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use super::options::BackupOptions;
use super::plan::{self, BackupContext, Survey};
use crate::context::cpu::CpuPool;
use crate::error::{Error, ErrorKind, Result};
use crate::format::checkpoint::{Head, Listed, OplogStart, Raw};
use crate::format::manifest::Source;
use crate::mongo::MongoUri;
use crate::names::{BackupName, Namespace, NamespaceFilter, NamespacePattern};
use crate::oplog::window::Start;
use crate::repository::Repository;
use crate::repository::catalog::Catalog;
use crate::repository::checkpoint::{self, Checkpoint};
use crate::source::discover::{CollectionInfo, Listing, Size};
use crate::source::ranges::Range;

/// Finds the unfinished backup of this name, or the newest one of this source, and reads its
/// checkpoint.
///
/// # Errors
/// Those of [`checkpoint::open`].
pub(super) async fn open(
    repository: &Repository,
    name: Option<&BackupName>,
    source: &MongoUri,
    cpu: &CpuPool,
) -> Result<Checkpoint> {
    repository.config().await?;
    checkpoint::open(&Catalog::new(repository.clone(), cpu), name, |begun| is_of(begun, source)).await
}

/// Whether a backup is of this source, as far as its URI tells.
fn is_of(begun: &Source, source: &MongoUri) -> bool {
    begun.uri == source.to_string() || begun.hosts.iter().any(|host| source.hosts().contains(host))
}

/// Where the oplog slice of an unfinished backup begins.
pub(super) fn start(checkpoint: &Checkpoint) -> Option<Start> {
    checkpoint.head.oplog.map(|start| Start { from: start.position().into(), since: start.since.into() })
}

/// What is read, as it was listed when the backup began.
fn listing(checkpoint: &Checkpoint) -> Result<(Listing, Survey)> {
    let mut collections = Vec::with_capacity(checkpoint.head.collections.len());
    let mut survey = HashMap::new();
    for listed in &checkpoint.head.collections {
        if let Some(uuid) = listed.uuid {
            let size = listed.documents.zip(listed.bytes).map(|(documents, bytes)| Size { documents, bytes });
            let ranges =
                listed.ranges.iter().map(|p| Range::of(p).ok_or_else(|| checkpoint.contradiction())).collect::<Result<_>>()?;
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
    let time = checkpoint.head.snapshot_time.map(Into::into);
    Ok((Listing { collections, left_out: checkpoint.head.left_out.clone(), names: Vec::new(), time }, Survey::known(survey)))
}

/// Connects to the source of an unfinished backup and prepares to resume it.
///
/// # Errors
/// [`ErrorKind::Refused`] if it is another deployment; [`ErrorKind::Usage`] if the options differ
/// from those of the backup; those of a connection.
pub(super) async fn prepare(
    source: &MongoUri,
    options: &BackupOptions,
    checkpoint: &Checkpoint,
    cpu: &CpuPool,
) -> Result<BackupContext> {
    agree(source, options, checkpoint)?;
    let (listing, survey) = listing(checkpoint)?;
    let mut context = plan::prepare_again(source, options, &checkpoint.head, listing, survey, cpu).await?;
    context.kind = checkpoint.head.consistency;
    context.why_no_slice.clone_from(&checkpoint.head.why_no_oplog);
    let now = context.connection.describe().await;
    if is_same(&checkpoint.head.source, &now) {
        return Ok(context);
    }
    context.connection.close().await;
    Err(Error::new(
        ErrorKind::Refused,
        format!(
            "backup {} was started from {}, and {} is another deployment",
            checkpoint.name,
            who(&checkpoint.head.source),
            who(&now)
        ),
    )
    .hint("resume it with the source that it was started from, or take a new backup without [[resume]]"))
}

/// Checks that the options agree with those that the backup was started with. An option that is
/// absent now keeps its value.
fn agree(source: &MongoUri, options: &BackupOptions, checkpoint: &Checkpoint) -> Result<()> {
    let was = &checkpoint.head.settings;
    let contradiction = |flag: &str, now: String, then: String| {
        let then = if then.is_empty() { "without".to_owned() } else { format!("with {then}") };
        Error::usage(format!("{flag} is {now}, and backup {} was started {then}", checkpoint.name))
            .hint("leave it out to keep what the backup was started with, or take a new one without [[resume]]")
    };
    let NamespaceFilter { databases, include, exclude } = options.filter.clone().or_in(source.database());
    if !databases.is_empty() && databases != was.databases {
        let flag = if options.filter.databases.is_empty() { "the database in the source's URI" } else { "[[database]]" };
        return Err(contradiction(flag, databases.join(", "), was.databases.join(", ")));
    }
    for (flag, now, then) in [
        ("[[include]]", NamespacePattern::texts(&include), &was.include),
        ("[[exclude]]", NamespacePattern::texts(&exclude), &was.exclude),
    ] {
        if !now.is_empty() && now != *then {
            return Err(contradiction(flag, now.join(", "), then.join(", ")));
        }
    }
    let tuning = &options.tuning;
    if let Some(codec) = tuning.codec.filter(|codec| *codec != was.codec) {
        return Err(contradiction("the codec ([[codec, BACKUP_CODEC]])", codec.to_string(), was.codec.to_string()));
    }
    if let Some(level) = tuning.level.filter(|level| *level != was.level) {
        return Err(contradiction("the level ([[level, BACKUP_LEVEL]])", level.to_string(), was.level.to_string()));
    }
    if let Some(bytes) = tuning.frame_bytes.filter(|bytes| *bytes as u64 != was.frame_bytes) {
        let mb = |bytes: u64| format!("{} MiB", bytes >> 20);
        return Err(contradiction("the frame size ([[frame-mb, BACKUP_FRAME_MB]])", mb(bytes as u64), mb(was.frame_bytes)));
    }
    if let Some(long) = tuning.long_distance.filter(|long| *long != was.long_distance) {
        let flag = "long-distance matching ([[long, BACKUP_LONG_DISTANCE]])";
        return Err(contradiction(flag, long.to_string(), was.long_distance.to_string()));
    }
    Ok(())
}

/// Whether both are one deployment: by the set's id if it can be read; else by its name and a
/// shared host, unless the data there now differ.
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

/// The head of a backup's checkpoint.
pub(super) async fn head(
    context: &BackupContext,
    start: Option<Start>,
    stems: &[String],
    started: DateTime<Utc>,
) -> Result<Head> {
    let mut collections = Vec::with_capacity(context.listing.collections.len());
    for (found, stem) in context.listing.collections.iter().zip(stems) {
        let (size, ranges) = context.survey.of(found);
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
            ranges: ranges.iter().map(Range::part).collect::<Result<_>>()?,
        });
    }
    let oplog = start.map(|start| OplogStart::at(start.from.into(), start.since.into()));
    Ok(Head {
        format_version: context.settings.format_version(oplog.map(|start| start.position()).as_ref()),
        started,
        source: context.connection.describe().await,
        settings: context.settings.clone(),
        consistency: context.kind,
        allow_inconsistent: context.allow_inconsistent,
        snapshot_time: context.listing.time.map(Into::into),
        oplog,
        why_no_oplog: context.why_no_slice.clone(),
        collections,
        left_out: context.listing.left_out.clone(),
    })
}
