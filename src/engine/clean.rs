//! `clean`: deletes what retention no longer keeps, and what crashes left.

use std::num::NonZeroU32;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::clock;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Face, Result};
use crate::names::BackupName;
use crate::repository::catalog::provenance::{self, Grouped};
use crate::repository::catalog::{Catalog, State, Summary};
use crate::repository::retention::{self, Candidate, Condition, Policy, Rule};

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
    delete: Vec<Going>,
    kept: Vec<KeptBackup>,
}

/// A backup that is to go.
#[derive(Debug, Clone)]
struct Going {
    found: Summary,
    reason: &'static str,
    bytes: u64,
    of: Grouped,
}

/// What was done, or with a dry run what would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Cleaned)]
pub struct CleanReport {
    /// What was deleted, newest first.
    pub deleted: Vec<DeletedBackup>,
    /// What stays, in the order of the listing, and why.
    pub kept: Vec<KeptBackup>,
    /// What was to go and could not be deleted.
    pub failed: Vec<FailedBackup>,
    /// The bytes that what was deleted took.
    pub freed_bytes: u64,
    /// Whether nothing was deleted, because only the plan was asked for.
    pub dry_run: bool,
}

/// A backup that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeletedBackup {
    /// Its name.
    #[schema(value_type = String)]
    pub name: BackupName,
    /// Where it was.
    pub path: String,
    /// Why.
    pub reason: String,
    /// The bytes that it took.
    pub bytes: u64,
    /// What it counts with.
    #[serde(flatten)]
    pub of: Grouped,
}

/// A backup that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct KeptBackup {
    /// Its name.
    #[schema(value_type = String)]
    pub name: BackupName,
    /// Where it is.
    pub path: String,
    /// Why: one or more.
    pub reasons: Vec<String>,
    /// What it counts with.
    #[serde(flatten)]
    pub of: Grouped,
}

/// A backup that was to go and could not be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FailedBackup {
    /// Its name.
    #[schema(value_type = String)]
    pub name: BackupName,
    /// Where it is.
    pub path: String,
    /// What went wrong.
    pub message: String,
    /// What to do about it; its options are tokens before [`CleanReport::say`].
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
        let deleted = self.delete.iter().map(|going| deleted(&going.found, going.reason, going.bytes, going.of.clone()));
        CleanReport {
            deleted: deleted.collect(),
            kept: self.kept.clone(),
            failed: Vec::new(),
            freed_bytes: self.delete.iter().map(|going| going.bytes).sum(),
            dry_run: true,
        }
    }
}

impl CleanReport {
    /// Puts the hints into words of this face.
    pub fn say(&mut self, face: Face) {
        self.failed.iter_mut().filter_map(|failed| failed.hint.as_mut()).for_each(|hint| *hint = face.say(hint));
    }

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
    let found = catalog.list(now).await?;
    let groups = provenance::groups(&found);
    plan_among(catalog, options, now, &found, &groups).await
}

/// The same among these alone, with the numbers of their groups.
async fn plan_among(
    catalog: &Catalog,
    options: &CleanOptions,
    now: DateTime<Utc>,
    found: &[Summary],
    groups: &[Option<usize>],
) -> Result<CleanPlan> {
    // 1. What there is.
    let mut candidates = Vec::with_capacity(found.len());
    for (summary, group) in found.iter().zip(groups) {
        candidates.push(candidate(catalog, summary, *group).await?);
    }

    // 2. What the rule says of it.
    let decided = retention::plan(&candidates, &options.rule, options.all_incomplete, options.zone, now);
    let by_name = |name: &str| {
        let place = found.iter().position(|s| s.name.as_str() == name)?;
        Some((&found[place], Grouped::of(&found[place], groups[place])))
    };
    let mut plan = CleanPlan { delete: Vec::new(), kept: Vec::new() };
    for ((summary, of), keep) in decided.keep.iter().filter_map(|keep| Some((by_name(&keep.name)?, keep))) {
        plan.kept.push(kept(summary, keep.reasons.iter().map(ToString::to_string), of));
    }

    // 3. What cannot be deleted now, because someone works on it or reads it, stays.
    for ((summary, of), remove) in decided.remove.iter().filter_map(|remove| Some((by_name(&remove.name)?, remove))) {
        match catalog.in_use(summary, now).await? {
            Some(why) => plan.kept.push(kept(summary, [why], of)),
            None => {
                let (bytes, _) = catalog.repository().place(&summary.name).measure().await?;
                plan.delete.push(Going { found: summary.clone(), reason: remove.reason, bytes, of });
            }
        }
    }
    plan.sort(found);
    Ok(plan)
}

/// Does what was planned. What came into use meanwhile is kept, and said to be; one that cannot be deleted does not keep the others; one that is gone already is none. A stop
/// is heeded between two of them: then the report is of what was done until then.
pub async fn execute(catalog: &Catalog, plan: CleanPlan, stop: &CancellationToken) -> CleanReport {
    let mut report = CleanReport { kept: plan.kept, ..CleanReport::default() };
    // The oldest first: where it ends in the middle, the newer ones are those that stay.
    for Going { found, reason, of, .. } in plan.delete.into_iter().rev() {
        if stop.is_cancelled() {
            report.kept.push(kept(&found, ["interrupted before it was deleted".to_owned()], of));
            continue;
        }
        match catalog.delete(&found, clock::now()).await {
            Ok(Some(bytes)) => {
                report.freed_bytes += bytes;
                report.deleted.insert(0, deleted(&found, reason, bytes, of));
            }
            Ok(None) => {}
            Err(e) if matches!(e.kind(), ErrorKind::Busy | ErrorKind::Refused) => {
                report.kept.push(kept(&found, [e.to_string()], of));
            }
            Err(e) => report.failed.push(FailedBackup {
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
            format!("Database backup not found: {:?} in {}", name.as_str(), catalog.repository().location()),
        )
        .hint("`bsonvault list` shows the backups that there are")
    };
    let found = catalog.look(name, now).await?.ok_or_else(not_found)?;
    let bytes = catalog.delete(&found, now).await?.ok_or_else(not_found)?;
    let gone = deleted(&found, "asked for by name", bytes, Grouped::default());
    Ok(CleanReport { deleted: vec![gone], freed_bytes: bytes, ..CleanReport::default() })
}

/// Which backups stay after one that succeeded.
#[derive(Debug, Clone, Copy)]
pub enum Keeping {
    /// All.
    All,
    /// What the policy keeps; all where it says nothing.
    Policy(Policy),
    /// The newest so many complete ones of the same source and selection. All others neither count nor go.
    Newest(NonZeroU32),
}

/// Retention after the backup `made` succeeded; nothing where all stay. It does not fail: what went wrong is in what it gives.
pub async fn after_backup(catalog: &Catalog, made: &BackupName, keeping: Keeping, zone: Tz, cx: &Context) -> Option<Retention> {
    let rule = match keeping {
        Keeping::All => return None,
        Keeping::Policy(policy) if policy.is_empty() => return None,
        Keeping::Policy(policy) => Rule::Policy(policy),
        Keeping::Newest(count) => Rule::Count(count),
    };
    cx.progress.begin("removing old backups");
    let (options, now) = (CleanOptions { rule, all_incomplete: false, zone }, clock::now());
    let plan = match keeping {
        Keeping::Newest(_) => plan_beside(catalog, made, &options, now).await,
        _ => plan(catalog, &options, now).await,
    };
    Some(carry_out(catalog, plan).await)
}

/// The plan among the complete backups of the same source and selection as `made`, which is one of them.
async fn plan_beside(catalog: &Catalog, made: &BackupName, options: &CleanOptions, now: DateTime<Utc>) -> Result<CleanPlan> {
    let found = catalog.list(now).await?;
    let groups = provenance::groups(&found);
    let own = found.iter().zip(&groups).find(|(summary, _)| summary.name == *made).and_then(|(_, group)| *group);
    let alike = found.into_iter().zip(groups).filter(|(_, group)| group.is_some() && *group == own);
    let (alike, groups): (Vec<_>, Vec<_>) = alike.unzip();
    plan_among(catalog, options, now, &alike, &groups).await
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

/// A backup as retention sees it.
async fn candidate(catalog: &Catalog, summary: &Summary, group: Option<usize>) -> Result<Candidate> {
    let (created, condition) = match &summary.state {
        State::Complete(manifest) => {
            let verified = summary.checks.as_ref().and_then(|checks| checks.verdict()).is_some_and(|verdict| verdict.passed);
            (Some(manifest.created), Condition::Complete { verified })
        }
        State::Running(progress) => (Some(progress.started), Condition::Running),
        State::Damaged(_) => (summary.created(), Condition::Damaged),
        State::Incomplete => (last_touched(catalog, summary).await?, Condition::Incomplete),
    };
    Ok(Candidate { name: summary.name.to_string(), group, created, condition })
}

/// When an incomplete one was begun; one that can be resumed, or does not tell, when something was last written of it: a backup may take longer than a day, and
/// whoever stopped it gets a day to go on.
async fn last_touched(catalog: &Catalog, summary: &Summary) -> Result<Option<DateTime<Utc>>> {
    let started = summary.created();
    if started.is_some() && !summary.resumable {
        return Ok(started);
    }
    let (_, written) = catalog.repository().place(&summary.name).measure().await?;
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

fn deleted(found: &Summary, reason: &str, bytes: u64, of: Grouped) -> DeletedBackup {
    DeletedBackup { name: found.name.clone(), path: found.location.clone(), reason: reason.to_owned(), bytes, of }
}

fn kept(found: &Summary, reasons: impl IntoIterator<Item = String>, of: Grouped) -> KeptBackup {
    KeptBackup { name: found.name.clone(), path: found.location.clone(), reasons: reasons.into_iter().collect(), of }
}
