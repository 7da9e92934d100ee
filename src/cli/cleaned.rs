//! What a cleaning did, as `clean` and `backup` tell it.

use indicatif::BinaryBytes;

use super::render::plain;
use crate::engine::clean::{CleanReport, Retention};

/// Every backup that there was, a line each, and the sum.
#[must_use]
pub fn text(report: &CleanReport) -> String {
    let mut text = String::new();
    for kept in &report.kept {
        text += &format!("kept     {}: {}\n", kept.name, plain(&kept.reasons.join(", ")));
    }
    let verb = if report.dry_run { "would go" } else { "deleted " };
    for deleted in &report.deleted {
        text += &format!("{verb} {}: {}, {}\n", deleted.name, deleted.reason, BinaryBytes(deleted.bytes));
    }
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

/// What came of the retention after a backup: what was deleted, and what went wrong.
#[must_use]
pub fn after_backup(retention: &Retention) -> String {
    let mut text = String::new();
    for deleted in &retention.report.deleted {
        text += &format!("retention    {} deleted: {}, {}\n", deleted.name, deleted.reason, BinaryBytes(deleted.bytes));
    }
    if let Some(error) = &retention.error {
        text += &format!("warning: the backup is there, and retention failed: {}\n", plain(error));
    }
    text
}
