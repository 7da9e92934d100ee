//! Golden tables of which backups stay and why, and rules that hold for every table.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use bsonvault::repository::retention::{Candidate, Condition, Plan, Policy, Removed, Rule, plan};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;

fn time(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn one(created: &str, condition: Condition) -> Candidate {
    Candidate { name: format!("b-{created}"), group: Some(1), created: Some(time(created)), condition }
}

const PLAIN: Condition = Condition::Complete { verified: false };
const VERIFIED: Condition = Condition::Complete { verified: true };

fn count(n: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(n)
}

fn policy([last, daily, weekly, monthly, yearly]: [u32; 5]) -> Policy {
    let [last, daily, weekly, monthly, yearly] = [last, daily, weekly, monthly, yearly].map(count);
    Policy { last, daily, weekly, monthly, yearly }
}

/// One line per backup, newest first: `+` and the reasons, or `-` and the reason for its deletion.
fn table(candidates: &[Candidate], rule: Rule, zone: Tz, now: &str) -> Vec<String> {
    let plan = plan(candidates, &rule, false, zone, time(now));
    let mut lines: Vec<(Option<DateTime<Utc>>, String, String)> = Vec::new();
    let created = |name: &str| candidates.iter().find(|c| c.name == name).unwrap().created;
    for kept in plan.keep {
        lines.push((created(&kept.name), kept.name.clone(), format!("+ {}: {}", &kept.name[2..], kept.reasons.join(", "))));
    }
    for gone in plan.remove {
        lines.push((created(&gone.name), gone.name.clone(), format!("- {}: {}", &gone.name[2..], gone.reason)));
    }
    lines.sort_by(|a, b| b.cmp(a));
    lines.into_iter().map(|(_, _, line)| line).collect()
}

fn of(times: &[&str]) -> Vec<Candidate> {
    times.iter().map(|t| one(t, PLAIN)).collect()
}

const NOW: &str = "2030-01-01T00:00:00Z";

#[test]
fn each_rule_keeps_the_newest_of_its_unit_and_the_oldest_while_it_counts() {
    let given = of(&[
        "2026-01-05T06:00:00Z",
        "2026-01-04T18:00:00Z",
        "2026-01-04T06:00:00Z",
        "2026-01-01T12:00:00Z",
        "2025-12-31T12:00:00Z",
        "2025-12-29T12:00:00Z",
        "2025-12-28T12:00:00Z",
        "2025-06-30T12:00:00Z",
        "2025-06-02T12:00:00Z",
        "2024-06-01T13:00:00Z",
        "2024-06-01T12:00:00Z",
    ]);
    let reasons = |counts| -> Vec<String> {
        table(&given, Rule::Policy(policy(counts)), Tz::UTC, NOW)
            .into_iter()
            .map(|line| line.split_once("Z: ").unwrap().1.replace("newest complete backup", "newest").replace(" backup", ""))
            .collect()
    };
    let gone = "kept by no rule";
    assert_eq!(reasons([3, 0, 0, 0, 0])[..4], ["last, newest", "last", "last", gone]);
    assert_eq!(reasons([0, 4, 0, 0, 0]), ["daily, newest", "daily", gone, "daily", "daily", gone, gone, gone, gone, gone, gone]);
    // 2025-12-29 and 2026-01-04 are in one ISO week, the first of 2026.
    assert_eq!(
        reasons([0, 0, 4, 0, 0]),
        ["weekly, newest", "weekly", gone, gone, gone, gone, "weekly", "weekly", gone, gone, gone]
    );
    assert_eq!(
        reasons([0, 0, 0, 5, 0]),
        ["monthly, newest", gone, gone, gone, "monthly", gone, gone, "monthly", gone, "monthly", "oldest monthly"]
    );
    assert_eq!(reasons([0, 0, 0, 0, 3]), ["yearly, newest", gone, gone, gone, "yearly", gone, gone, gone, gone, "yearly", gone]);
    assert_eq!(reasons([0, 0, 0, 0, 4])[10], "oldest yearly");
    assert_eq!(reasons([0, 99, 0, 0, 99])[10], "oldest daily, oldest yearly");
    assert_eq!(reasons([99, 1, 1, 1, 1])[0], "last, daily, weekly, monthly, yearly, newest");
    assert!(reasons([11, 0, 0, 0, 0]).iter().all(|r| r.starts_with("last")));
    assert!(table(&given, Rule::Policy(Policy::default()), Tz::UTC, NOW).iter().all(|line| line.ends_with("which backups stay")));
}

#[test]
fn days_weeks_and_years_are_those_of_the_zone() {
    let given = of(&["2026-03-01T04:59:00Z", "2026-03-01T05:00:00Z", "2026-02-28T04:30:00Z"]);
    let daily = Rule::Policy(policy([0, 2, 0, 0, 0]));
    assert_eq!(
        table(&given, daily, Tz::UTC, NOW),
        [
            "+ 2026-03-01T05:00:00Z: daily backup, newest complete backup",
            "- 2026-03-01T04:59:00Z: kept by no rule",
            "+ 2026-02-28T04:30:00Z: daily backup",
        ]
    );
    assert_eq!(
        table(&given, daily, Tz::America__New_York, NOW),
        [
            "+ 2026-03-01T05:00:00Z: daily backup, newest complete backup",
            "+ 2026-03-01T04:59:00Z: daily backup",
            "- 2026-02-28T04:30:00Z: kept by no rule",
        ]
    );
    // The hour that repeats when summer time ends belongs to one day. Kiribati's new year is
    // fourteen hours before UTC's.
    let given = of(&["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-12-31T10:30:00Z", "2026-12-31T09:30:00Z"]);
    assert_eq!(
        table(&given, Rule::Policy(policy([0, 2, 0, 0, 0])), Tz::Europe__Berlin, NOW)[2..],
        ["+ 2026-10-25T01:30:00Z: daily backup", "- 2026-10-25T00:30:00Z: kept by no rule"]
    );
    assert_eq!(
        table(&given, Rule::Policy(policy([0, 0, 0, 0, 2])), Tz::Pacific__Kiritimati, NOW)[..2],
        ["+ 2026-12-31T10:30:00Z: yearly backup, newest complete backup", "+ 2026-12-31T09:30:00Z: yearly backup"]
    );
}

#[test]
fn a_policy_spares_the_newest_verified_backup_and_a_count_does_not() {
    let given = [
        one("2026-01-05T00:00:00Z", PLAIN),
        one("2026-01-04T00:00:00Z", PLAIN),
        one("2026-01-03T00:00:00Z", VERIFIED),
        one("2026-01-02T00:00:00Z", VERIFIED),
    ];
    assert_eq!(
        table(&given, Rule::Policy(policy([1, 0, 0, 0, 0])), Tz::UTC, NOW),
        [
            "+ 2026-01-05T00:00:00Z: last backup, newest complete backup",
            "- 2026-01-04T00:00:00Z: kept by no rule",
            "+ 2026-01-03T00:00:00Z: newest verified backup",
            "- 2026-01-02T00:00:00Z: kept by no rule",
        ]
    );
    let by_count = |n| table(&given, Rule::Count(count(n).unwrap()), Tz::UTC, NOW);
    assert_eq!(
        by_count(2),
        [
            "+ 2026-01-05T00:00:00Z: last backup, newest complete backup",
            "+ 2026-01-04T00:00:00Z: last backup",
            "- 2026-01-03T00:00:00Z: not among the newest that were asked for",
            "- 2026-01-02T00:00:00Z: not among the newest that were asked for",
        ]
    );
    assert!(by_count(u32::MAX).iter().all(|line| line.starts_with('+')));
}

#[test]
fn only_complete_backups_count_and_others_have_rules_of_their_own() {
    let given = [
        one("2026-01-09T00:00:00Z", Condition::Running),
        one("2026-01-08T12:00:00Z", Condition::Incomplete),
        one("2026-01-08T00:00:00Z", Condition::Incomplete),
        one("2026-01-07T23:59:59Z", Condition::Incomplete),
        one("2026-01-07T00:00:00Z", Condition::Damaged),
        one("2026-01-06T00:00:00Z", PLAIN),
        one("2026-01-05T00:00:00Z", PLAIN),
        Candidate { name: "b-?".to_owned(), group: None, created: None, condition: Condition::Incomplete },
    ];
    let now = "2026-01-09T00:00:00Z";
    let found = table(&given, Rule::Count(count(1).unwrap()), Tz::UTC, now);
    assert_eq!(
        found,
        [
            "+ 2026-01-09T00:00:00Z: it is being made",
            "+ 2026-01-08T12:00:00Z: incomplete for less than a day",
            "+ 2026-01-08T00:00:00Z: incomplete for less than a day",
            "- 2026-01-07T23:59:59Z: incomplete for more than a day",
            "+ 2026-01-07T00:00:00Z: it is damaged, and no rule removes damaged backups",
            "+ 2026-01-06T00:00:00Z: last backup, newest complete backup",
            "- 2026-01-05T00:00:00Z: not among the newest that were asked for",
            "+ ?: incomplete, and its age is unknown",
        ]
    );
    let all = plan(&given, &Rule::Policy(Policy::default()), true, Tz::UTC, time(now));
    assert_eq!(all.remove.len(), 4);
    assert!(all.remove.iter().all(|r| r.reason == "incomplete, and all incomplete backups were to be deleted"), "{all:?}");
}

#[test]
fn each_group_keeps_its_own_newest() {
    let of_group = |group, time| Candidate { group: Some(group), name: format!("b-{time}"), ..one(time, PLAIN) };
    let given = [
        of_group(1, "2026-01-01T00:00:00Z"),
        of_group(1, "2026-01-02T00:00:00Z"),
        of_group(2, "2026-01-02T12:00:00Z"),
        of_group(3, "2026-01-02T13:00:00Z"),
        of_group(2, "2026-01-02T11:00:00Z"),
    ];
    let daily = Rule::Policy(policy([0, 1, 0, 0, 0]));
    assert_eq!(
        table(&given, daily, Tz::UTC, NOW),
        [
            "+ 2026-01-02T13:00:00Z: daily backup, newest complete backup",
            "+ 2026-01-02T12:00:00Z: daily backup, newest complete backup",
            "- 2026-01-02T11:00:00Z: kept by no rule",
            "+ 2026-01-02T00:00:00Z: daily backup, newest complete backup",
            "- 2026-01-01T00:00:00Z: kept by no rule",
        ]
    );
    let gone = |rule| table(&given, rule, Tz::UTC, NOW).iter().filter(|line| line.starts_with('-')).count();
    assert_eq!(gone(Rule::Count(count(1).unwrap())), 2);
}

#[test]
fn equal_times_are_told_apart_by_name_and_the_future_takes_nobodys_place() {
    let twin = |name: &str| Candidate { name: name.to_owned(), ..one("2026-01-01T00:00:00Z", PLAIN) };
    let ahead = one("2026-01-02T00:00:01Z", VERIFIED);
    let now = time("2026-01-02T00:00:00Z");
    let rule = Rule::Policy(policy([1, 0, 0, 0, 0]));
    for given in [[twin("a"), twin("b"), ahead.clone()], [ahead.clone(), twin("b"), twin("a")]] {
        let plan = plan(&given, &rule, false, Tz::UTC, now);
        let kept: Vec<_> = plan.keep.iter().map(|k| (k.name.as_str(), k.reasons.join(", "))).collect();
        assert_eq!(kept, [(&*ahead.name, "from the future".to_owned()), ("b", "last backup, newest complete backup".to_owned())]);
        assert_eq!(plan.remove, [Removed { name: "a".to_owned(), reason: "kept by no rule" }]);
    }
}

fn conditions() -> impl Strategy<Value = Condition> {
    prop_oneof![
        4 => Just(PLAIN),
        2 => Just(VERIFIED),
        1 => Just(Condition::Incomplete),
        1 => Just(Condition::Running),
        1 => Just(Condition::Damaged),
    ]
}

/// Backups of a few years around `now`, many of them close together and some at the same time.
fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let time = prop_oneof![0i64..800, 0i64..20_000].prop_map(|hours| DateTime::from_timestamp(1_700_000_000 + hours * 3600, 0));
    let one = (prop::option::weighted(0.95, time), conditions());
    prop::collection::vec(one, 0..40).prop_map(|found| {
        let named = found.into_iter().enumerate();
        named
            .map(|(n, (created, condition))| Candidate {
                name: format!("b{n:02}"),
                group: Some(1),
                created: created.flatten(),
                condition,
            })
            .collect()
    })
}

/// Backups of several groups.
fn mixed() -> impl Strategy<Value = Vec<Candidate>> {
    let grouped = |found: Vec<Candidate>, groups: Vec<Option<usize>>| {
        found.into_iter().zip(groups).map(|(candidate, group)| Candidate { group, ..candidate }).collect()
    };
    let groups = prop::collection::vec(prop::option::weighted(0.9, 1usize..5), 40);
    (candidates(), groups).prop_map(move |(found, groups)| grouped(found, groups))
}

fn counts() -> impl Strategy<Value = [u32; 5]> {
    prop::array::uniform5(prop_oneof![Just(0u32), 1u32..8, Just(1000)])
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + 15_000 * 3600, 0).unwrap()
}

fn kept(plan: &Plan) -> BTreeSet<&str> {
    plan.keep.iter().map(|k| k.name.as_str()).collect()
}

proptest! {
    #[test]
    fn every_candidate_is_decided_once_whatever_their_order(given in candidates(), counts in counts(), by_count: bool) {
        let rule = match count(counts[0]).filter(|_| by_count) {
            Some(count) => Rule::Count(count),
            None => Rule::Policy(policy(counts)),
        };
        let plan_of = |given: &[Candidate]| plan(given, &rule, false, Tz::Europe__Berlin, now());
        let found = plan_of(&given);
        prop_assert_eq!(found.keep.len() + found.remove.len(), given.len());
        prop_assert!(found.keep.iter().all(|k| !k.reasons.is_empty()));
        let all: BTreeSet<&str> = found.remove.iter().map(|r| r.name.as_str()).chain(kept(&found)).collect();
        prop_assert_eq!(all.len(), given.len());
        let turned: Vec<Candidate> = given.iter().rev().cloned().collect();
        prop_assert_eq!(plan_of(&turned), found);
    }

    #[test]
    fn the_newest_stays_and_nothing_is_removed_that_must_not_be(given in candidates(), counts in counts(), all_incomplete: bool) {
        for rule in [Some(Rule::Policy(policy(counts))), count(counts[0]).map(Rule::Count)].into_iter().flatten() {
            let found = plan(&given, &rule, all_incomplete, Tz::UTC, now());
            let by_policy = matches!(rule, Rule::Policy(_));
            let removed: BTreeSet<&str> = found.remove.iter().map(|r| r.name.as_str()).collect();
            let complete = |c: &&Candidate| matches!(c.condition, Condition::Complete { .. });
            let newest = |wanted: &dyn Fn(&&Candidate) -> bool| {
                given.iter().filter(wanted).max_by_key(|c| (c.created, &c.name)).map(|c| c.name.as_str())
            };
            let past = |c: &&Candidate| c.created.is_some_and(|t| t <= now());
            for name in [newest(&complete), newest(&|c| complete(c) && past(c)).filter(|_| by_policy)].into_iter().flatten() {
                prop_assert!(!removed.contains(name), "{} is the newest", name);
            }
            for c in &given {
                let sacred = match c.condition {
                    Condition::Running | Condition::Damaged => true,
                    Condition::Complete { .. } => by_policy && (!past(&c) || policy(counts).is_empty()),
                    Condition::Incomplete => !all_incomplete && !past(&c),
                };
                prop_assert!(!sacred || !removed.contains(c.name.as_str()), "{:?}", c);
            }
            if by_policy {
                let verified = newest(&|c| c.condition == VERIFIED && past(c));
                prop_assert!(verified.is_none_or(|name| !removed.contains(name)));
            }
            if let Rule::Count(count) = rule {
                let stay = given.iter().filter(complete).filter(|c| !removed.contains(c.name.as_str())).count();
                let all = given.iter().filter(complete).count();
                prop_assert_eq!(stay, all.min(count.get() as usize));
            }
        }
    }

    #[test]
    fn what_is_in_another_group_never_changes_what_becomes_of_this_one(
        given in mixed(),
        counts in counts(),
        by_count: bool,
        all_incomplete: bool,
    ) {
        let rule = match count(counts[0]).filter(|_| by_count) {
            Some(count) => Rule::Count(count),
            None => Rule::Policy(policy(counts)),
        };
        let plan_of = |given: &[Candidate]| plan(given, &rule, all_incomplete, Tz::Europe__Berlin, now());
        let all = plan_of(&given);
        for group in [None, Some(1), Some(2), Some(3), Some(4)] {
            let alone: Vec<Candidate> = given.iter().filter(|c| c.group == group).cloned().collect();
            let named = |name: &str| alone.iter().any(|c| c.name == name);
            let of_all = Plan {
                keep: all.keep.iter().filter(|k| named(&k.name)).cloned().collect(),
                remove: all.remove.iter().filter(|r| named(&r.name)).cloned().collect(),
            };
            prop_assert_eq!(plan_of(&alone), of_all);
        }
    }

    #[test]
    fn a_larger_policy_keeps_all_that_a_smaller_one_keeps(given in candidates(), smaller in counts(), more in counts()) {
        prop_assume!(smaller.iter().any(|n| *n > 0));
        let larger: [u32; 5] = std::array::from_fn(|i| smaller[i] + more[i]);
        let plan_of = |counts| plan(&given, &Rule::Policy(policy(counts)), false, Tz::Asia__Kolkata, now());
        let (small, large) = (plan_of(smaller), plan_of(larger));
        prop_assert!(kept(&small).is_subset(&kept(&large)), "{:?} {:?}", small, large);
    }
}
