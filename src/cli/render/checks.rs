//! How the last checks of a backup ended, as `list` and `show` tell it.

use chrono::{DateTime, TimeDelta, Utc};

use super::plain;
use crate::format::checks::{Check, CheckKind, Checks};

/// In one cell: `never`, or the check that decides, and the test restore where that is another one.
#[must_use]
pub fn cell(checks: &Checks, now: DateTime<Utc>) -> String {
    let Some(verdict) = checks.verdict() else { return "never".to_owned() };
    let restored = checks.of(CheckKind::Restore);
    let took = |check: &Check| format!("{:.1} s", check.milliseconds as f64 / 1000.0);
    let mut text = format!("{} {} ({}", word(verdict), ago(verdict.finished, now), verdict.kind);
    if verdict.kind == CheckKind::Restore {
        text += &format!(", {}", took(verdict));
    }
    text.push(')');
    if let Some(restored) = restored.filter(|restored| restored.kind != verdict.kind) {
        text += &format!(", test restore {} {} ({})", word(restored), ago(restored.finished, now), took(restored));
    }
    text
}

/// A line for each kind of check.
#[must_use]
pub fn lines(checks: &Checks) -> String {
    let mut text = String::new();
    for check in checks.by_time().into_iter().rev() {
        let label = if text.is_empty() { "verified     " } else { "             " };
        let finished = check.finished.format("%Y-%m-%d %H:%M:%S UTC");
        let took = check.milliseconds as f64 / 1000.0;
        text += &format!("{label}{}: {} at {finished} in {took:.1} s", check.kind, word(check));
        if let Some(version) = &check.server_version {
            text += &format!(", into MongoDB {}", plain(version));
        }
        if let Some(problem) = &check.problem {
            text += &format!(": {}", plain(problem));
        }
        text.push('\n');
    }
    if text.is_empty() { "verified     never\n".to_owned() } else { text }
}

fn word(check: &Check) -> &'static str {
    if check.passed { "passed" } else { "FAILED" }
}

fn ago(then: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let passed: TimeDelta = now.signed_duration_since(then);
    let (number, unit) = match (passed.num_days(), passed.num_hours(), passed.num_minutes()) {
        (days @ 1.., ..) => (days, "day"),
        (_, hours @ 1.., _) => (hours, "hour"),
        (_, _, minutes @ 1..) => (minutes, "minute"),
        // Also of a clock that is ahead.
        _ => return "just now".to_owned(),
    };
    format!("{number} {unit}{} ago", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::repository::catalog::verified;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    #[test]
    fn a_cell_names_what_decides_and_the_test_restore() {
        let mut checks = Checks::none(Uuid::nil());
        assert_eq!((cell(&checks, at(0)), lines(&checks)), ("never".to_owned(), "verified     never\n".to_owned()));
        assert_eq!(verified(&checks)["state"], "never");
        checks.put(Check::ended(CheckKind::Restore, at(100), 34_049, None));
        assert_eq!(cell(&checks, at(200)), "passed 1 minute ago (test restore, 34.0 s)");
        checks.put(Check::ended(CheckKind::Verify, at(7300), 10, None));
        assert_eq!(cell(&checks, at(7310)), "passed just now (verify), test restore passed 2 hours ago (34.0 s)");
        checks.put(Check::ended(CheckKind::Deep, at(8000), 10, Some("broken\u{1b}".to_owned())));
        assert_eq!(cell(&checks, at(8000 + 3 * 86400)), "FAILED 3 days ago (deep), test restore passed 3 days ago (34.0 s)");
        assert!(lines(&checks).starts_with("verified     deep: FAILED at 1970-01-01 02:13:20 UTC in 0.0 s: broken\\u{1b}\n"));
        assert_eq!((&verified(&checks)["state"], &verified(&checks)["kind"]), (&"failed".into(), &"deep".into()));
        // A clock that was put back.
        assert_eq!(ago(at(100), at(0)), "just now");
    }
}
