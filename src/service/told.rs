//! Log lines about what the service does, with names, counts, sizes and reasons, so that nobody has
//! to ask the API for them.

use chrono::{DateTime, SecondsFormat, Utc};

use super::inner::Inner;
use crate::engine::backup::BackupReport;
use crate::engine::clean::CleanReport;
use crate::engine::import::{ImportMode, ImportReport};
use crate::engine::verify::VerifyReport;
use crate::repository::retention::Policy;

/// How many namespaces of an import the log names.
const NAMED: usize = 10;

/// Logs when the next backup is due, which backups retention keeps, and where everything is stored.
pub(super) fn start(service: &Inner) {
    let shown = service.scheduler.shown();
    match shown.next.filter(|_| shown.plan.enabled) {
        Some(next) => tracing::info!("the next backup is due at {} ({})", time(next), shown.plan.cadence),
        None => tracing::info!("the schedule is off: backups are taken only on request"),
    }
    match policy(&service.config.retention) {
        Some(policy) => {
            tracing::info!(
                "retention keeps these backups of each source and selection: {policy}; a new backup deletes the others"
            )
        }
        None => tracing::info!("retention is off: all backups stay; set BACKUP_KEEP_LAST or others to limit them"),
    }
    tracing::info!(
        "backups are in {}; jobs and the schedule are in the state file {}",
        service.catalog.repository().location(),
        std::path::absolute(&service.settings.state).unwrap_or_else(|_| service.settings.state.clone()).display()
    );
}

/// Logs a backup that was taken.
pub(super) fn took(report: &BackupReport) {
    let manifest = &report.manifest;
    tracing::info!(
        backup = %report.name,
        "took the backup {}: {} in {}, {}, stored in {}, consistency {}",
        report.name,
        counted(manifest.totals.documents, "document"),
        counted(manifest.collections.len() as u64, "collection"),
        size(manifest.totals.raw_bytes),
        size(manifest.totals.stored_bytes),
        manifest.consistency.kind
    );
}

/// Logs a backup that was imported.
pub(super) fn imported(report: &ImportReport) {
    let mut names: Vec<&str> = report.collections.iter().take(NAMED).map(|c| c.namespace.as_str()).collect();
    let more = report.collections.len().saturating_sub(NAMED);
    let more = format!("and {more} more");
    if report.collections.len() > NAMED {
        names.push(&more);
    }
    let how = match report.mode {
        None | Some(ImportMode::Replace) => "replacing existing collections",
        Some(ImportMode::Fail) => "where no such collection existed",
        Some(ImportMode::Merge) => "merged into existing collections",
        Some(ImportMode::Add) => "added to existing collections",
    };
    tracing::info!(
        backup = %report.backup,
        "imported the backup {} into {}, {how}: {} in {}, {}, {}: {}",
        report.backup,
        report.target,
        counted(report.documents, "document"),
        counted(report.collections.len() as u64, "collection"),
        size(report.bytes),
        counted(report.indexes, "index"),
        names.join(", ")
    );
}

/// Logs a backup that was verified.
pub(super) fn verified(report: &VerifyReport) {
    let how = if report.deep { "every document was decoded" } else { "every file was read" };
    match report.problem_count {
        0 => tracing::info!(backup = %report.name, "verified the backup {}: it is sound ({how})", report.name),
        problems => {
            tracing::error!(backup = %report.name, "verified the backup {}: {}", report.name, counted(problems, "problem"));
        }
    }
}

/// Logs backups that were deleted, each with its reason, and those that could not be. `why` names
/// the cause.
pub(super) fn cleaned(report: &CleanReport, why: &str) {
    for gone in &report.deleted {
        tracing::info!(backup = %gone.name, "{why} deleted the backup {}, {}: {}", gone.name, size(gone.bytes), gone.reason);
    }
    for failed in &report.failed {
        tracing::error!(backup = %failed.name, "{why} could not delete the backup {}: {}", failed.name, failed.message);
    }
    if !report.deleted.is_empty() {
        tracing::info!("{why} freed {}; {} stay", size(report.freed_bytes), counted(report.kept.len() as u64, "backup"));
    }
}

/// The rules of a policy in words; `None` if it has none.
fn policy(policy: &Policy) -> Option<String> {
    let Policy { last, daily, weekly, monthly, yearly } = policy;
    let rules = [(last, "the last"), (daily, "daily"), (weekly, "weekly"), (monthly, "monthly"), (yearly, "yearly")];
    let rules: Vec<String> = rules.iter().filter_map(|(count, name)| count.map(|count| format!("{name} {count}"))).collect();
    (!rules.is_empty()).then(|| rules.join(", "))
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn counted(number: u64, what: &str) -> String {
    let digits = number.to_string();
    let grouped: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|three| std::str::from_utf8(three).ok()).collect();
    let plural = match (number, what) {
        (1, _) => "",
        (_, "index") => "es",
        _ => "s",
    };
    format!("{} {what}{plural}", grouped.join(","))
}

/// Bytes in the largest unit that gives a whole number before the point.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let Some(unit) = (0..UNITS.len()).rev().find(|unit| bytes >> (10 * (unit + 1)) > 0) else { return format!("{bytes} B") };
    // Hundredths, so that no float is needed.
    let one = 1_u128 << (10 * (unit + 1));
    let hundredths = (u128::from(bytes) * 100 + one / 2) / one;
    format!("{}.{:02} {}", hundredths / 100, hundredths % 100, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn numbers_sizes_and_rules_are_read_by_people() {
        assert_eq!(
            [0, 1, 999, 1_000, 1_234_567].map(|n| counted(n, "document")),
            ["0 documents", "1 document", "999 documents", "1,000 documents", "1,234,567 documents"]
        );
        assert_eq!(counted(2, "index"), "2 indexes");
        assert_eq!(
            [0, 1023, 1024, 1536, 7 << 30, u64::MAX].map(size),
            ["0 B", "1023 B", "1.00 KiB", "1.50 KiB", "7.00 GiB", "16384.00 PiB"]
        );
        let rules = Policy { last: NonZeroU32::new(3), weekly: NonZeroU32::new(4), ..Policy::default() };
        assert_eq!(policy(&rules).as_deref(), Some("the last 3, weekly 4"));
        assert_eq!(policy(&Policy::default()), None);
    }
}
