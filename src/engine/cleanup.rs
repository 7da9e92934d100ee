//! `import --cleanup`: finishes or removes what crashed imports and test restores left in a target.
//!
//! What was decided is published; everything else is removed. Anything still running is left alone
//! and named.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;

use super::visit::Visit;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::few::Few;
use crate::mongo::MongoUri;
use crate::sink::lease::{self, Seen};
use crate::sink::leftovers::{self, Leftovers};
use crate::sink::{Target, in_place, scratch};

/// How to clean up a target.
#[derive(Debug, Clone, Copy, Default)]
pub struct CleanupOptions {
    /// Only look.
    pub dry_run: bool,
    /// Also drop collections that crashed restores left half-filled under their final names.
    /// Somebody may have gone on with them.
    pub half_filled: bool,
    /// How long the leases taken meanwhile last. By default [`lease::EXPIRY`].
    pub lease: Option<Duration>,
}

/// The leftovers of crashed imports and test restores, and what was done with them. In a dry run,
/// what would be done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CleanupReport {
    /// Scheme, hosts and database of the target.
    pub target: String,
    /// Whether this is a dry run.
    pub dry_run: bool,
    /// Namespaces that an import had decided to publish, and which are published now.
    pub finished: Vec<String>,
    /// Decided steps that the target refuses for good, in words. The collections there stay
    /// unchanged.
    pub given_up: Vec<String>,
    /// Staging collections that were dropped, and half-filled collections under their final names
    /// if the options ask for that.
    pub dropped: Vec<String>,
    /// Collections that crashed restores left half-filled under their final names, and that stay.
    pub half_filled: Vec<String>,
    /// Databases of crashed test restores that were dropped.
    pub scratch_databases: Vec<String>,
    /// Databases that held only leases or undecided records, which are removed.
    pub released: Vec<String>,
    /// What is still running and was left alone.
    pub running: Vec<Running>,
    /// Databases that the login may not look into.
    pub unseen: Vec<String>,
    /// What could not be cleaned up.
    pub failed: Vec<Failed>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// A running import or test restore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    /// A database that it writes to.
    pub database: String,
    /// The backup that it imports. Empty for a restore that fills under final names, of which no
    /// more is known.
    pub backup: String,
    /// The machine that it runs on.
    pub host: String,
    /// Its process ID there.
    pub process: i64,
}

/// A database that could not be cleaned up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// Its name.
    pub database: String,
    /// Why.
    pub message: String,
}

impl CleanupReport {
    /// The error that sums up what could not be cleaned up.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        let Some(first) = self.failed.first() else { return self.half_filled_failure() };
        let words = format!("the leftovers in {} could not be cleaned up: {}", first.database, first.message);
        Some(
            Error::new(ErrorKind::Server, words)
                .hint("the report gives the reason for each database; run it again once that is fixed"),
        )
    }

    /// Half-filled collections that stay are an error, except in a dry run.
    fn half_filled_failure(&self) -> Option<Error> {
        if self.dry_run || self.half_filled.is_empty() {
            return None;
        }
        let words = format!(
            "left half filled by a restore that crashed, and not dropped: {}",
            self.half_filled.iter().cloned().collect::<Few>().into_sentences().join(", ")
        );
        Some(Error::new(ErrorKind::Refused, words).hint(
            "if nobody uses them, [[`bsonvault import cleanup yes`]] drops them, and [[`bsonvault restore drop`]] refills them",
        ))
    }

    fn leaves_alone(&mut self, database: &str, lease: &Seen) {
        let Seen { backup, host, process, .. } = lease.clone();
        self.running.push(Running { database: database.to_owned(), backup, host, process });
    }

    fn fails(&mut self, database: &str, error: &Error) {
        self.failed.push(Failed { database: database.to_owned(), message: error.to_string() });
    }
}

/// Cleans up a target.
///
/// # Errors
/// [`ErrorKind::Unreachable`], [`ErrorKind::Denied`], [`ErrorKind::Server`] if the target cannot be
/// looked at; [`ErrorKind::Interrupted`]. The report names failures in single databases.
pub async fn run(uri: &MongoUri, options: CleanupOptions, cx: &Context) -> Result<CleanupReport> {
    let visit = Visit::begin(uri, cx).await?;
    let done = clean(&visit.target, options, cx).await;
    let (report, milliseconds) = visit.end(done).await?;
    Ok(CleanupReport { target: uri.to_string(), milliseconds, ..report })
}

async fn clean(target: &Target, options: CleanupOptions, cx: &Context) -> Result<CleanupReport> {
    let expiry = options.lease.unwrap_or(lease::EXPIRY);
    let mut report = CleanupReport { dry_run: options.dry_run, ..CleanupReport::default() };
    let (found, unseen) = leftovers::look(target).await?;
    report.unseen = unseen;
    if options.dry_run {
        found.iter().for_each(|(database, leftovers)| foresee(&mut report, database, leftovers));
        half_filled(target, &found, options, &mut report).await?;
        return Ok(report);
    }

    // 1. The databases of crashed test restores, whole.
    cx.progress.begin("cleaning up");
    let (mut dropped, held) = scratch::drop_dead(target, expiry).await?;
    dropped.extend(scratch::drop_unrenewed(target, held, expiry).await?);
    report.scratch_databases = dropped;

    // 2. The leftovers of crashed imports. All databases of one import are cleared together.
    let (mut done, mut living) = (BTreeSet::new(), BTreeSet::new());
    for (database, leftovers) in &found {
        if !leftovers.is_of_imports() || done.contains(database) || report.scratch_databases.contains(database) {
            continue;
        }
        // A test restore that was not dropped with the crashed ones is running.
        let is_scratch = leftovers.is_scratch();
        if let Some(lease) = leftovers.leases.iter().find(|lease| is_scratch || living.contains(&lease.id)) {
            report.leaves_alone(database, lease);
            continue;
        }
        match leftovers::clear(target, database, expiry).await {
            Ok(cleared) => {
                if cleared.finished.published.is_empty() && cleared.dropped.is_empty() {
                    report.released.push(database.clone());
                }
                report.finished.extend(cleared.finished.published);
                report.given_up.extend(cleared.finished.given_up.iter().map(ToString::to_string));
                report.dropped.extend(cleared.dropped.iter().map(ToString::to_string));
                done.extend(cleared.databases);
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
            Err(e) if e.kind() == ErrorKind::Busy => {
                // One that has ended meanwhile tidied up after itself.
                if let Some(lease) = leftovers::living(target, database).await? {
                    living.insert(lease.id.clone());
                    report.leaves_alone(database, &lease);
                }
            }
            Err(e) => report.fails(database, &e),
        }
    }

    // 3. Half-filled collections under their final names.
    half_filled(target, &found, options, &mut report).await?;
    Ok(report)
}

/// Handles half-filled collections under final names. They are dropped only if the options ask for
/// that; a marker that names none is always removed.
async fn half_filled(
    target: &Target,
    found: &BTreeMap<String, Leftovers>,
    options: CleanupOptions,
    report: &mut CleanupReport,
) -> Result<()> {
    for (database, leftovers) in found.iter().filter(|(_, leftovers)| !leftovers.markers.is_empty()) {
        let goes = options.half_filled || leftovers.half_filled.is_empty();
        let done = match goes && !options.dry_run {
            true => in_place::clean_one(target, database, &leftovers.markers).await.map(drop),
            false => in_place::refuse_beating(target, database, &leftovers.markers).await.map(drop),
        };
        let names = leftovers.half_filled.iter().map(ToString::to_string);
        match done {
            Ok(()) if goes => {
                let markers = leftovers.markers.iter().map(|marker| format!("{database}.{}", marker.name));
                report.dropped.extend(names.chain(markers));
            }
            Ok(()) => report.half_filled.extend(names),
            Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
            Err(e) if e.kind() == ErrorKind::Busy => {
                report.running.push(Running { database: database.clone(), ..Running::default() });
            }
            Err(e) => report.fails(database, &e),
        }
    }
    Ok(())
}

/// Reports what would happen to the leftovers of one database.
fn foresee(report: &mut CleanupReport, database: &str, leftovers: &Leftovers) {
    if !leftovers.is_of_imports() {
        return;
    }
    if let Some(lease) = leftovers.living() {
        return report.leaves_alone(database, lease);
    }
    if leftovers.is_scratch() {
        return report.scratch_databases.push(database.to_owned());
    }
    let decided: Vec<String> = leftovers.records.values().flatten().flatten().map(ToString::to_string).collect();
    if decided.is_empty() && leftovers.staging.is_empty() {
        return report.released.push(database.to_owned());
    }
    // Staging collections of decided steps are published, not dropped.
    let is_decided = |name: &crate::names::Namespace| {
        leftovers.records.iter().any(|(id, steps)| steps.is_some() && name.collection.contains(id))
    };
    report.dropped.extend(leftovers.staging.iter().filter(|name| !is_decided(name)).map(ToString::to_string));
    report.finished.extend(decided);
}
