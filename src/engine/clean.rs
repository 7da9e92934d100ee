//! `clean`: removes backups that the retention policy no longer keeps, parts of archived
//! oplogs that are out of the window, and leftovers of crashed runs.

mod archives;

use std::num::NonZeroU32;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use self::archives::ArchivesPlan;
pub use self::archives::{CleanedArchive, RemovedLink};
use crate::clock;
use crate::context::Context;
use crate::error::{Error, ErrorKind, Face, Result};
use crate::names::BackupName;
use crate::repository::catalog::provenance::{self, Grouped};
use crate::repository::catalog::{Catalog, State, Summary};
use crate::repository::retention::{self, Candidate, Condition, Policy, Rule};

/// Which backups to remove.
#[derive(Debug, Clone, Copy)]
pub struct CleanOptions {
    /// Which complete backups stay.
    pub rule: Rule,
    /// Remove every incomplete backup that is not in use, not only those more than a day old.
    pub all_incomplete: bool,
    /// The time zone in which days, weeks, months and years begin.
    pub zone: Tz,
    /// The window of archived oplogs. The backups that it needs stay, and what is out of it is
    /// removed. `None` keeps all of an archive, and no backup for it.
    pub window: Option<TimeDelta>,
}

/// Why a backup stays that an archive cannot do without.
const ANCHOR: &str = "the archive's window begins with it";

/// What [`execute`] will do.
#[derive(Debug, Clone)]
pub struct CleanPlan {
    /// The backups to delete, newest first, with the reason and their bytes.
    delete: Vec<Going>,
    kept: Vec<KeptBackup>,
    archives: ArchivesPlan,
}

/// A backup that is to be deleted.
#[derive(Debug, Clone)]
struct Going {
    found: Summary,
    reason: &'static str,
    bytes: u64,
    of: Grouped,
}

/// What was done. In a dry run, what would be done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Cleaned)]
pub struct CleanReport {
    /// The deleted backups, newest first.
    pub deleted: Vec<DeletedBackup>,
    /// The backups that stay, in the order of the listing, and why.
    pub kept: Vec<KeptBackup>,
    /// The backups that should have been deleted and could not be.
    pub failed: Vec<FailedBackup>,
    /// What was removed of archived oplogs, one entry for each archive.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub archives: Vec<CleanedArchive>,
    /// The bytes that all of it took.
    pub freed_bytes: u64,
    /// Whether nothing was deleted because this is a dry run.
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
    /// Why: one or more reasons.
    pub reasons: Vec<String>,
    /// What it counts with.
    #[serde(flatten)]
    pub of: Grouped,
}

/// A backup that should have been deleted and could not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FailedBackup {
    /// Its name.
    #[schema(value_type = String)]
    pub name: BackupName,
    /// Where it is.
    pub path: String,
    /// What went wrong.
    pub message: String,
    /// What to do about it, with options as tokens before [`CleanReport::say`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The result of the retention after a backup. The backup succeeds whatever the result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// What was done.
    #[serde(flatten)]
    pub report: CleanReport,
    /// Why it was not done, or not completely.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl CleanPlan {
    /// The plan as the report of a dry run.
    #[must_use]
    pub fn report(&self) -> CleanReport {
        let deleted = self.delete.iter().map(|going| deleted(&going.found, going.reason, going.bytes, going.of.clone()));
        let archives = self.archives.report();
        let freed = self.delete.iter().map(|going| going.bytes).chain(archives.iter().map(|archive| archive.freed_bytes));
        CleanReport {
            deleted: deleted.collect(),
            kept: self.kept.clone(),
            failed: Vec::new(),
            freed_bytes: freed.sum(),
            archives,
            dry_run: true,
        }
    }
}

impl CleanReport {
    /// Puts the hints into words of this face.
    pub fn say(&mut self, face: Face) {
        self.failed.iter_mut().filter_map(|failed| failed.hint.as_mut()).for_each(|hint| *hint = face.say(hint));
    }

    /// The error that sums up what could not be deleted, if anything.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        let Some(first) = self.failed.first() else {
            let archive = self.archives.iter().find_map(|archive| Some((archive, archive.error.as_ref()?)));
            return archive.map(|(archive, error)| {
                Error::new(ErrorKind::Storage, format!("old links of {} could not be removed: {error}", archive.path))
            });
        };
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

/// Plans what to delete. Changes nothing.
///
/// # Errors
/// [`ErrorKind::Storage`] if the store cannot be listed or read.
pub async fn plan(catalog: &Catalog, options: &CleanOptions, now: DateTime<Utc>) -> Result<CleanPlan> {
    let found = catalog.list(now).await?;
    let archives = archives::plan(catalog.repository(), &found, options.window, catalog.cpu()).await?;
    let groups = provenance::groups(&found);
    plan_among(catalog, options, now, (&found, &groups), archives).await
}

/// The same among these backups only, with the numbers of their groups.
async fn plan_among(
    catalog: &Catalog,
    options: &CleanOptions,
    now: DateTime<Utc>,
    (found, groups): (&[Summary], &[Option<usize>]),
    archives: ArchivesPlan,
) -> Result<CleanPlan> {
    // 1. List the backups.
    let mut candidates = Vec::with_capacity(found.len());
    for (summary, group) in found.iter().zip(groups) {
        candidates.push(candidate(catalog, summary, *group).await?);
    }

    // 2. Apply the rule.
    let decided = retention::plan(&candidates, &options.rule, options.all_incomplete, options.zone, now);
    let by_name = |name: &str| {
        let place = found.iter().position(|s| s.name.as_str() == name)?;
        Some((&found[place], Grouped::of(&found[place], groups[place])))
    };
    let mut plan = CleanPlan { delete: Vec::new(), kept: Vec::new(), archives };
    for ((summary, of), keep) in decided.keep.iter().filter_map(|keep| Some((by_name(&keep.name)?, keep))) {
        let anchor = plan.archives.needs(&summary.name).then_some(ANCHOR);
        plan.kept.push(kept(summary, keep.reasons.iter().copied().chain(anchor).map(ToString::to_string), of));
    }

    // 3. Keep what an archive needs, and what cannot be deleted now, because someone writes or
    // reads it.
    for ((summary, of), remove) in decided.remove.iter().filter_map(|remove| Some((by_name(&remove.name)?, remove))) {
        if plan.archives.needs(&summary.name) {
            plan.kept.push(kept(summary, [ANCHOR.to_owned()], of));
            continue;
        }
        match catalog.in_use(summary, now).await? {
            Some(why) => plan.kept.push(kept(summary, [why], of)),
            None => {
                let (bytes, _) = catalog.repository().place(&summary.name).measure().await?;
                plan.delete.push(Going { found: summary.clone(), reason: remove.reason, bytes, of });
            }
        }
    }
    plan.archives.without(plan.delete.iter().map(|going| &going.found.name));
    plan.sort(found);
    Ok(plan)
}

/// Carries out the plan. A backup that came into use meanwhile is kept, and the report says so. One
/// that cannot be deleted does not affect the others; one that is gone already is not reported. A
/// stop is heeded between two backups; the report then covers what was done until then.
pub async fn execute(catalog: &Catalog, plan: CleanPlan, stop: &CancellationToken) -> CleanReport {
    let mut report = CleanReport { kept: plan.kept, ..CleanReport::default() };
    // The oldest first: if this stops half-way, the newer ones stay.
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
    if !stop.is_cancelled() {
        report.archives = plan.archives.execute().await;
        report.freed_bytes += report.archives.iter().map(|archive| archive.freed_bytes).sum::<u64>();
    }
    report
}

/// Deletes the one backup of this name, complete, incomplete or damaged.
///
/// # Errors
/// [`ErrorKind::NotFound`] with a message that begins with `Database backup not found`;
/// [`ErrorKind::Busy`] if it is being made or read; [`ErrorKind::Storage`].
pub async fn delete_one(catalog: &Catalog, name: &BackupName, now: DateTime<Utc>) -> Result<CleanReport> {
    let not_found = || {
        Error::new(
            ErrorKind::NotFound,
            format!("Database backup not found: {:?} in {}", name.as_str(), catalog.repository().location()),
        )
        .hint("`bsonvault list` shows all backups")
    };
    let found = catalog.look(name, now).await?.ok_or_else(not_found)?;
    let bytes = catalog.delete(&found, now).await?.ok_or_else(not_found)?;
    let gone = deleted(&found, "deleted by name", bytes, Grouped::default());
    Ok(CleanReport { deleted: vec![gone], freed_bytes: bytes, ..CleanReport::default() })
}

/// Which backups stay after one that succeeded.
#[derive(Debug, Clone, Copy)]
pub enum Keeping {
    /// All.
    All,
    /// Those that the policy keeps. All if the policy sets nothing.
    Policy(Policy),
    /// This many of the newest complete ones of the same source and selection. No other backup
    /// counts or is deleted.
    Newest(NonZeroU32),
}

/// Applies retention after the backup `made` succeeded. `window` is that of archived oplogs. None
/// if all stay. It never fails: the result holds what went wrong.
pub async fn after_backup(
    catalog: &Catalog,
    made: &BackupName,
    keeping: Keeping,
    zone: Tz,
    window: Option<TimeDelta>,
    cx: &Context,
) -> Option<Retention> {
    let rule = match keeping {
        Keeping::All => return None,
        Keeping::Policy(policy) if policy.is_empty() => return None,
        Keeping::Policy(policy) => Rule::Policy(policy),
        Keeping::Newest(count) => Rule::Count(count),
    };
    cx.progress.begin("removing old backups");
    let (options, now) = (CleanOptions { rule, all_incomplete: false, zone, window }, clock::now());
    let plan = match keeping {
        Keeping::Newest(_) => plan_beside(catalog, made, &options, now).await,
        _ => plan(catalog, &options, now).await,
    };
    Some(carry_out(catalog, plan).await)
}

/// The plan among the complete backups of the same source and selection as `made`, which is one of
/// them.
async fn plan_beside(catalog: &Catalog, made: &BackupName, options: &CleanOptions, now: DateTime<Utc>) -> Result<CleanPlan> {
    let found = catalog.list(now).await?;
    let archives = archives::plan(catalog.repository(), &found, options.window, catalog.cpu()).await?;
    let groups = provenance::groups(&found);
    let own = found.iter().zip(&groups).find(|(summary, _)| summary.name == *made).and_then(|(_, group)| *group);
    let alike = found.into_iter().zip(groups).filter(|(_, group)| group.is_some() && *group == own);
    let (alike, groups): (Vec<_>, Vec<_>) = alike.unzip();
    plan_among(catalog, options, now, (&alike, &groups), archives).await
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

/// When an incomplete backup was started. If it can be resumed or its start is unknown, when it was
/// last written to: a backup may take more than a day, and whoever stopped it gets a day to resume
/// it.
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
    /// Sorts in the order of the listing.
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
