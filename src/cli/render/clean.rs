//! What a cleaning did, as `clean` and `backup` tell it.

use indicatif::BinaryBytes;

use super::{plain, provenance};
use crate::engine::clean::{CleanReport, Group, Retention};

/// Every backup that there was, a line each, those that count together below one heading; and the sum.
#[must_use]
pub fn text(report: &CleanReport) -> String {
    let mut groups: Vec<Option<&Group>> =
        report.kept.iter().map(|kept| kept.group.as_ref()).chain(report.deleted.iter().map(|gone| gone.group.as_ref())).collect();
    groups.sort_by_key(|group| number(*group));
    groups.dedup_by_key(|group| number(*group));
    let mut text: String = groups.into_iter().map(|group| members(report, group)).collect();
    for failed in &report.failed {
        text += &format!("failed   {}: {}\n", failed.name, plain(&failed.message));
    }
    let count = report.deleted.len();
    let backups = if count == 1 { "backup" } else { "backups" };
    text + &if report.dry_run {
        format!("nothing was deleted: {count} {backups} would be, and {} freed\n", BinaryBytes(report.freed_bytes))
    } else {
        format!("{count} {backups} deleted, {} freed\n", BinaryBytes(report.freed_bytes))
    }
}

/// What became of those that count together. Those that count with none come last.
fn members(report: &CleanReport, group: Option<&Group>) -> String {
    let is_member = |of: &Option<Group>| number(of.as_ref()) == number(group);
    let mut text = match group {
        Some(group) => format!("of {}\n", provenance::line(&group.provenance)),
        None => "not complete\n".to_owned(),
    };
    for kept in report.kept.iter().filter(|kept| is_member(&kept.group)) {
        text += &format!("kept     {}: {}\n", kept.name, plain(&kept.reasons.join(", ")));
    }
    let verb = if report.dry_run { "would go" } else { "deleted " };
    for deleted in report.deleted.iter().filter(|deleted| is_member(&deleted.group)) {
        text += &format!("{verb} {}: {}, {}\n", deleted.name, deleted.reason, BinaryBytes(deleted.bytes));
    }
    text
}

fn number(group: Option<&Group>) -> usize {
    group.map_or(usize::MAX, |group| group.group)
}

/// What came of the retention after a backup: what was deleted, and what went wrong.
#[must_use]
pub fn after_backup(retention: &Retention) -> String {
    let mut text = String::new();
    for deleted in &retention.report.deleted {
        let of = deleted.group.as_ref().map(|group| format!(", of {}", provenance::line(&group.provenance)));
        let (name, reason, bytes) = (&deleted.name, &deleted.reason, BinaryBytes(deleted.bytes));
        text += &format!("retention    {name} deleted: {reason}, {bytes}{}\n", of.unwrap_or_default());
    }
    if let Some(error) = &retention.error {
        text += &format!("warning: the backup is there, and retention failed: {}\n", plain(error));
    }
    text
}
