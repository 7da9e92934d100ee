//! Retention: decides which backups stay, by restic's rules, and why. Pure: no clock, no store.

pub mod group;

use std::collections::HashMap;
use std::num::NonZeroU32;

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use chrono_tz::Tz;

/// How long an incomplete backup stays unless its removal is requested: it may be resumed.
const INCOMPLETE_STAYS: TimeDelta = TimeDelta::days(1);

/// How many backups stay. A rule that is `None` keeps none. If all are `None`, nothing is ever
/// deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// This many of the newest.
    pub last: Option<NonZeroU32>,
    /// The newest of each day, for this many of the last days that have one.
    pub daily: Option<NonZeroU32>,
    /// The newest of each ISO week, for this many of the last weeks that have one.
    pub weekly: Option<NonZeroU32>,
    /// The newest of each month, for this many of the last months that have one.
    pub monthly: Option<NonZeroU32>,
    /// The newest of each year, for this many of the last years that have one.
    pub yearly: Option<NonZeroU32>,
}

impl Policy {
    /// Whether it has no rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which complete backups of each group stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Those that a policy keeps, the newest, and the newest verified one.
    Policy(Policy),
    /// This many of the newest, and no other.
    Count(NonZeroU32),
}

/// A backup that a rule decides about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name. Of two with the same time, the later name counts as the newer backup.
    pub name: String,
    /// The [number](group::number) of its group. None if unknown. Only complete ones count.
    pub group: Option<usize>,
    /// Its consistency point, or when an incomplete one was last worked on. None if unknown.
    pub created: Option<DateTime<Utc>>,
    /// Its condition.
    pub condition: Condition,
}

/// The condition of a backup, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It can be restored.
    Complete {
        /// A check passed, and no check that proves as much failed since.
        verified: bool,
    },
    /// A crash left it, and nobody works on it.
    Incomplete,
    /// It is being made.
    Running,
    /// Its manifest is unusable.
    Damaged,
}

/// What to do with each candidate, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What stays, each with all reasons.
    pub keep: Vec<Kept>,
    /// What is to be deleted.
    pub remove: Vec<Removed>,
}

/// A backup that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub name: String,
    /// Why: one or more reasons.
    pub reasons: Vec<&'static str>,
}

/// A backup that is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: &'static str,
}

/// Decides what stays.
///
/// Each group is judged by itself: other groups never affect it.
///
/// A policy counts as restic does (0.19, `ApplyPolicy`; all of its tables for these rules give the
/// same). Going back from the newest backup, each rule keeps the newest of every calendar day, ISO
/// 8601 week, month or year of `zone`, until it has kept its number. Units without a backup do not
/// count. A rule that has not kept its number at the oldest backup keeps that one, too, so that the
/// history is as long as possible.
///
/// Only complete backups count. Beyond restic's rules, every policy keeps the newest complete
/// backup of each group and the newest verified one. An empty policy keeps all. A backup from the
/// future is kept and does not count: a wrong clock must not cost the backups that came after. None
/// of this holds for [`Rule::Count`], which keeps exactly the requested number. Both keep a running
/// backup and a damaged one. An incomplete one is deleted a day after it was last worked on, or at
/// once with `all_incomplete`.
#[must_use]
pub fn plan(candidates: &[Candidate], rule: &Rule, all_incomplete: bool, zone: Tz, now: DateTime<Utc>) -> Plan {
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by(|a, b| (b.created, &b.name).cmp(&(a.created, &a.name)));
    let is_complete = |c: &&&Candidate| matches!(c.condition, Condition::Complete { .. });
    let complete = sorted.iter().filter(is_complete).copied();
    let mut groups: HashMap<Option<usize>, Vec<&Candidate>> = HashMap::new();
    for candidate in complete {
        groups.entry(candidate.group).or_default().push(candidate);
    }
    let judged = |group: &Vec<&Candidate>| match rule {
        Rule::Count(count) => by_count(group, *count),
        Rule::Policy(policy) if policy.is_empty() => group.iter().map(|_| vec!["no rule says which backups stay"]).collect(),
        Rule::Policy(policy) => by_policy(group, policy, zone, now),
    };
    let mut verdicts: HashMap<_, _> = groups.iter().map(|(group, members)| (group, judged(members).into_iter())).collect();
    let no_longer = match rule {
        Rule::Count(_) => "not among the newest that were asked for",
        Rule::Policy(_) => "kept by no rule",
    };

    let mut plan = Plan::default();
    for candidate in sorted {
        let verdict = match candidate.condition {
            Condition::Complete { .. } => match verdicts.get_mut(&candidate.group).and_then(Iterator::next) {
                Some(reasons) if reasons.is_empty() => Err(no_longer),
                reasons => Ok(reasons.unwrap_or_default()),
            },
            Condition::Incomplete => incomplete(candidate, all_incomplete, now).map(|reason| vec![reason]),
            Condition::Running => Ok(vec!["it is being made"]),
            Condition::Damaged => Ok(vec!["it is damaged, and no rule removes damaged backups"]),
        };
        let name = candidate.name.clone();
        match verdict {
            Ok(reasons) => plan.keep.push(Kept { name, reasons }),
            Err(reason) => plan.remove.push(Removed { name, reason }),
        }
    }
    plan
}

/// The reason why an incomplete backup stays, or else is deleted.
fn incomplete(candidate: &Candidate, all: bool, now: DateTime<Utc>) -> Result<&'static str, &'static str> {
    match candidate.created {
        _ if all => Err("incomplete, and all incomplete backups were to be deleted"),
        Some(touched) if now.signed_duration_since(touched) > INCOMPLETE_STAYS => Err("incomplete for more than a day"),
        Some(_) => Ok("incomplete for less than a day"),
        None => Ok("incomplete, and its age is unknown"),
    }
}

/// The reasons to keep each of these. Empty if it is deleted.
fn by_count(newest_first: &[&Candidate], count: NonZeroU32) -> Vec<Vec<&'static str>> {
    let count = usize::try_from(count.get()).unwrap_or(usize::MAX);
    let reasons = |place| match place {
        0 => vec!["last backup", "newest complete backup"],
        _ if place < count => vec!["last backup"],
        _ => Vec::new(),
    };
    (0..newest_first.len()).map(reasons).collect()
}

/// One rule of a policy, on its way back in time.
struct Counter {
    left: Option<NonZeroU32>,
    bucket: fn(&DateTime<Tz>, usize) -> i64,
    before: Option<i64>,
    reason: &'static str,
    oldest: &'static str,
}

fn counters(policy: &Policy) -> [Counter; 5] {
    let counter = |left, bucket, reason, oldest| Counter { left, bucket, before: None, reason, oldest };
    [
        counter(policy.last, |_, place| i64::try_from(place).unwrap_or(i64::MAX), "last backup", "oldest last backup"),
        counter(policy.daily, |t, _| t.num_days_from_ce().into(), "daily backup", "oldest daily backup"),
        counter(
            policy.weekly,
            |t, _| i64::from(t.iso_week().year()) * 100 + i64::from(t.iso_week().week()),
            "weekly backup",
            "oldest weekly backup",
        ),
        counter(
            policy.monthly,
            |t, _| i64::from(t.year()) * 100 + i64::from(t.month()),
            "monthly backup",
            "oldest monthly backup",
        ),
        counter(policy.yearly, |t, _| t.year().into(), "yearly backup", "oldest yearly backup"),
    ]
}

/// The reasons to keep each of these. Empty if it is deleted.
fn by_policy(newest_first: &[&Candidate], policy: &Policy, zone: Tz, now: DateTime<Utc>) -> Vec<Vec<&'static str>> {
    let mut counters = counters(policy);
    let mut reasons: Vec<Vec<&'static str>> = Vec::with_capacity(newest_first.len());
    // A backup of unknown age is not judged by its age.
    let judged = |c: &Candidate| c.created.filter(|created| *created <= now).map(|created| created.with_timezone(&zone));
    let last = newest_first.iter().rposition(|c| judged(c).is_some());
    let is_verified = |c: &Candidate| c.condition == Condition::Complete { verified: true };
    let (mut newest, mut newest_verified) = (true, true);
    for (place, candidate) in newest_first.iter().enumerate() {
        let Some(created) = judged(candidate) else {
            reasons.push(vec![if candidate.created.is_some() { "from the future" } else { "its age is unknown" }]);
            continue;
        };
        let mut why = Vec::new();
        for counter in &mut counters {
            let Some(left) = counter.left else { continue };
            let bucket = (counter.bucket)(&created, place);
            let is_next = counter.before != Some(bucket);
            if is_next || Some(place) == last {
                why.push(if is_next { counter.reason } else { counter.oldest });
                counter.before = Some(bucket);
                counter.left = NonZeroU32::new(left.get() - 1);
            }
        }
        if std::mem::take(&mut newest) {
            why.push("newest complete backup");
        }
        if is_verified(candidate) && std::mem::take(&mut newest_verified) {
            why.push("newest verified backup");
        }
        reasons.push(why);
    }
    reasons
}
