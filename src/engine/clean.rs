//! `clean`: deletes what retention no longer keeps, and what crashes left.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, State, Summary};
use crate::clock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::Manifest;
use crate::names::BackupName;
use crate::retention::{self, Candidate, Condition, Policy, Rule};

/// What goes, and where.
#[derive(Debug, Clone, Copy)]
pub struct CleanOptions {
    /// Which complete backups stay.
    pub rule: Rule,
    /// All that is incomplete and that nobody works on goes, not only what has been so for a day.
    pub all_incomplete: bool,
    /// Where days, weeks, months and years begin.
    pub zone: Tz,
}

/// What [`execute`] will do.
#[derive(Debug, Clone)]
pub struct CleanPlan {
    /// What goes, newest first, with the reason and the bytes that it takes.
    delete: Vec<(Summary, &'static str, u64)>,
    kept: Vec<Kept>,
}

/// What was done, or with a dry run what would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CleanReport {
    /// What was deleted, newest first.
    pub deleted: Vec<Deleted>,
    /// What stays, in the order of the listing, and why.
    pub kept: Vec<Kept>,
    /// What was to go and could not be deleted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Failed>,
    /// The bytes that what was deleted took.
    pub freed_bytes: u64,
    /// Whether nothing was deleted, because only the plan was asked for.
    pub dry_run: bool,
}

/// A backup that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    /// Its name.
    pub name: BackupName,
    /// Where it was.
    pub path: String,
    /// Why.
    pub reason: String,
    /// The bytes that it took.
    pub bytes: u64,
}

/// A backup that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Its name.
    pub name: BackupName,
    /// Where it is.
    pub path: String,
    /// Why: one or more.
    pub reasons: Vec<String>,
}

/// A backup that was to go and could not be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// Its name.
    pub name: BackupName,
    /// Where it is.
    pub path: String,
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What came of the retention after a backup, which is a success whatever came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// What was done.
    #[serde(flatten)]
    pub report: CleanReport,
    /// Why it was not done, or not all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl CleanPlan {
    /// The plan as a report of a dry run.
    #[must_use]
    pub fn report(&self) -> CleanReport {
        let deleted = self.delete.iter().map(|(found, reason, bytes)| deleted(found, reason, *bytes));
        CleanReport {
            deleted: deleted.collect(),
            kept: self.kept.clone(),
            failed: Vec::new(),
            freed_bytes: self.delete.iter().map(|(_, _, bytes)| bytes).sum(),
            dry_run: true,
        }
    }
}

impl CleanReport {
    /// The error that sums up what could not be deleted, where there is something.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        let first = self.failed.first()?;
        let more = match self.failed.len() - 1 {
            0 => String::new(),
            more => format!("; and {more} more could not be deleted"),
        };
        let error =
            Error::new(ErrorKind::Storage, format!("backup {} could not be deleted: {}{more}", first.name, first.message));
        Some(match &first.hint {
            Some(hint) => error.hint(hint.clone()),
            None => error,
        })
    }
}

/// Works out what goes. Nothing is changed.
///
/// # Errors
/// [`ErrorKind::Storage`] where the store cannot be listed or looked at.
pub async fn plan(catalog: &Catalog, options: &CleanOptions, now: DateTime<Utc>) -> Result<CleanPlan> {
    plan_among(catalog, options, now, |_| true).await
}

/// The same of some alone: all others neither count nor go.
async fn plan_among(
    catalog: &Catalog,
    options: &CleanOptions,
    now: DateTime<Utc>,
    counts: impl Fn(&Summary) -> bool,
) -> Result<CleanPlan> {
    // 1. What there is.
    let found: Vec<Summary> = catalog.list(now).await?.into_iter().filter(counts).collect();
    let mut candidates = Vec::with_capacity(found.len());
    for summary in &found {
        candidates.push(candidate(catalog, summary).await?);
    }

    // 2. What the rule says of it.
    let decided = retention::plan(&candidates, &options.rule, options.all_incomplete, options.zone, now);
    let summary = |name: &str| found.iter().find(|s| s.name.as_str() == name);
    let mut plan = CleanPlan { delete: Vec::new(), kept: Vec::new() };
    for (summary, keep) in decided.keep.iter().filter_map(|keep| Some((summary(&keep.name)?, keep))) {
        plan.kept.push(kept(summary, keep.reasons.iter().map(ToString::to_string)));
    }

    // 3. What cannot be deleted now, because someone works on it or reads it, stays.
    for (summary, remove) in decided.remove.iter().filter_map(|remove| Some((summary(&remove.name)?, remove))) {
        match catalog.in_use(summary, now).await? {
            Some(why) => plan.kept.push(kept(summary, [why])),
            None => {
                let (bytes, _) = catalog.store().below(summary.name.as_str()).measure().await?;
                plan.delete.push((summary.clone(), remove.reason, bytes));
            }
        }
    }
    plan.sort(&found);
    Ok(plan)
}

/// Does what was planned. What came into use meanwhile is kept, and said to be; one that cannot be deleted does not keep the others; one that is gone already is none. A stop
/// is heeded between two of them: then the report is of what was done until then.
pub async fn execute(catalog: &Catalog, plan: CleanPlan, stop: &CancellationToken) -> CleanReport {
    let mut report = CleanReport { kept: plan.kept, ..CleanReport::default() };
    // The oldest first: where it ends in the middle, the newer ones are those that stay.
    for (found, reason, _) in plan.delete.into_iter().rev() {
        if stop.is_cancelled() {
            report.kept.push(kept(&found, ["interrupted before it was deleted".to_owned()]));
            continue;
        }
        match catalog.delete(&found, clock::now()).await {
            Ok(Some(bytes)) => {
                report.freed_bytes += bytes;
                report.deleted.insert(0, deleted(&found, reason, bytes));
            }
            Ok(None) => {}
            Err(e) if matches!(e.kind(), ErrorKind::Busy | ErrorKind::Refused) => {
                report.kept.push(kept(&found, [e.to_string()]));
            }
            Err(e) => report.failed.push(Failed {
                name: found.name,
                path: found.location,
                message: e.to_string(),
                hint: e.hint_text().map(str::to_owned),
            }),
        }
    }
    report
}

/// Deletes the one backup of this name, complete, incomplete or damaged.
///
/// # Errors
/// [`ErrorKind::NotFound`], its message beginning with `Database backup not found`; [`ErrorKind::Busy`] where it is being made or read;
/// [`ErrorKind::Storage`].
pub async fn delete_one(catalog: &Catalog, name: &BackupName, now: DateTime<Utc>) -> Result<CleanReport> {
    let not_found = || {
        Error::new(
            ErrorKind::NotFound,
            format!("Database backup not found: {:?} in {}", name.as_str(), catalog.store().location()),
        )
        .hint("`bsonvault list` shows the backups that there are")
    };
    let found = catalog.look(name, now).await?.ok_or_else(not_found)?;
    let bytes = catalog.delete(&found, now).await?.ok_or_else(not_found)?;
    Ok(CleanReport { deleted: vec![deleted(&found, "asked for by name", bytes)], freed_bytes: bytes, ..CleanReport::default() })
}

/// Retention after a backup that succeeded; nothing where no policy is set. It does not fail: what went wrong is in what it gives.
pub async fn after_backup(catalog: &Catalog, policy: &Policy, zone: Tz, now: DateTime<Utc>) -> Option<Retention> {
    if policy.is_empty() {
        return None;
    }
    let options = CleanOptions { rule: Rule::Policy(*policy), all_incomplete: false, zone };
    Some(carry_out(catalog, plan(catalog, &options, now).await).await)
}

/// Removes all but the newest `keep` complete backups of the same source and selection as `made`, which is one of them. All others neither
/// count nor go. It does not fail: what went wrong is in what it gives.
pub async fn beside(catalog: &Catalog, made: &BackupName, keep: NonZeroU32, zone: Tz, now: DateTime<Utc>) -> Retention {
    let options = CleanOptions { rule: Rule::Count(keep), all_incomplete: false, zone };
    let plan = async {
        let made = catalog.find(made.as_str()).await?;
        let is_alike = |found: &Summary| match &found.state {
            State::Complete(manifest) => is_of_one_group(manifest, &made.manifest),
            _ => false,
        };
        plan_among(catalog, &options, now, is_alike).await
    };
    carry_out(catalog, plan.await).await
}

async fn carry_out(catalog: &Catalog, plan: Result<CleanPlan>) -> Retention {
    match plan {
        Ok(plan) => {
            let report = execute(catalog, plan, &CancellationToken::new()).await;
            Retention { error: report.failure().map(|e| e.to_string()), report }
        }
        Err(e) => Retention { error: Some(e.to_string()), report: CleanReport::default() },
    }
}

/// Whether two backups are of the same source and selection.
fn is_of_one_group(a: &Manifest, b: &Manifest) -> bool {
    let same_source = match (&a.source.replica_set_id, &b.source.replica_set_id) {
        (Some(a), Some(b)) => a == b,
        _ => a.source.hosts.iter().any(|host| b.source.hosts.contains(host)),
    };
    let sorted = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    let selected = |m: &Manifest| [&m.settings.databases, &m.settings.include, &m.settings.exclude].map(|n| sorted(n));
    same_source && selected(a) == selected(b)
}

/// A backup as retention sees it.
async fn candidate(catalog: &Catalog, summary: &Summary) -> Result<Candidate> {
    let (created, condition) = match &summary.state {
        State::Complete(manifest) => {
            let verified = summary.checks.as_ref().and_then(|checks| checks.verdict()).is_some_and(|verdict| verdict.passed);
            (Some(manifest.created), Condition::Complete { verified })
        }
        State::Running(progress) => (Some(progress.started), Condition::Running),
        State::Damaged(_) => (summary.started(), Condition::Damaged),
        State::Incomplete => (last_touched(catalog, summary).await?, Condition::Incomplete),
    };
    Ok(Candidate { name: summary.name.to_string(), created, condition })
}

/// When an incomplete one was begun; one that can be resumed, or does not tell, when something was last written of it: a backup may take longer than a day, and
/// whoever stopped it gets a day to go on.
async fn last_touched(catalog: &Catalog, summary: &Summary) -> Result<Option<DateTime<Utc>>> {
    let started = summary.started();
    if started.is_some() && !summary.resumable {
        return Ok(started);
    }
    let (_, written) = catalog.store().below(summary.name.as_str()).measure().await?;
    let written = written.and_then(|written| written.duration_since(std::time::UNIX_EPOCH).ok());
    let written =
        written.and_then(|since| TimeDelta::from_std(since).ok()).and_then(|d| DateTime::UNIX_EPOCH.checked_add_signed(d));
    Ok(started.max(written))
}

impl CleanPlan {
    /// Into the order of the listing.
    fn sort(&mut self, found: &[Summary]) {
        let place = |name: &BackupName| found.iter().position(|s| s.name == *name);
        self.kept.sort_by_key(|kept| place(&kept.name));
    }
}

fn deleted(found: &Summary, reason: &str, bytes: u64) -> Deleted {
    Deleted { name: found.name.clone(), path: found.location.clone(), reason: reason.to_owned(), bytes }
}

fn kept(found: &Summary, reasons: impl IntoIterator<Item = String>) -> Kept {
    Kept { name: found.name.clone(), path: found.location.clone(), reasons: reasons.into_iter().collect() }
}
