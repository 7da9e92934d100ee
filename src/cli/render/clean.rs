//! Renders what a cleanup did, for `clean` and `backup`.

use indicatif::BinaryBytes;

use super::{plain, provenance};
use crate::engine::clean::{CleanReport, CleanedArchive, Retention};
use crate::repository::catalog::provenance::Grouped;

/// Every backup, a line each, then the sum. Backups that count together are below one heading.
#[must_use]
pub fn text(report: &CleanReport) -> String {
    let mut groups: Vec<&Grouped> =
        report.kept.iter().map(|kept| &kept.of).chain(report.deleted.iter().map(|gone| &gone.of)).collect();
    groups.sort_by_key(|of| of.group.unwrap_or(usize::MAX));
    groups.dedup_by_key(|of| of.group);
    let mut text: String = groups.into_iter().map(|of| members(report, of)).collect();
    for failed in &report.failed {
        text += &format!("failed   {}: {}\n", failed.name, plain(&failed.message));
    }
    text += &report.archives.iter().map(|done| archive(done, report.dry_run)).collect::<String>();
    let count = report.deleted.len();
    let backups = if count == 1 { "backup" } else { "backups" };
    text + &if report.dry_run {
        format!("nothing was deleted: {count} {backups} would be deleted, {} freed\n", BinaryBytes(report.freed_bytes))
    } else {
        format!("{count} {backups} deleted, {} freed\n", BinaryBytes(report.freed_bytes))
    }
}

/// What was removed of an archived oplog.
fn archive(done: &CleanedArchive, dry_run: bool) -> String {
    let word = if dry_run { "delete  " } else { "deleted " };
    let mut text = String::new();
    for link in &done.links {
        text += &format!("{word} {}: out of the window, {}\n", link.name, BinaryBytes(link.bytes));
    }
    for leftover in &done.leftovers {
        text += &format!("{word} {leftover}\n");
    }
    for note in &done.notes {
        text += &format!("note: {}\n", plain(note));
    }
    if let Some(error) = &done.error {
        text += &format!("failed   {}\n", plain(error));
    }
    match text.is_empty() {
        true => text,
        false => format!("of the archived oplog {}\n{text}", plain(&done.path)),
    }
}

/// The backups that count together. Those that count with no other come last.
fn members(report: &CleanReport, of: &Grouped) -> String {
    let [kept_word, deleted_word] = if report.dry_run { ["keep    ", "delete  "] } else { ["kept    ", "deleted "] };
    let mut text = provenance::of(of).map_or_else(|| "not complete\n".to_owned(), |line| format!("of {line}\n"));
    for kept in report.kept.iter().filter(|kept| kept.of.group == of.group) {
        text += &format!("{kept_word} {}: {}\n", kept.name, plain(&kept.reasons.join(", ")));
    }
    for deleted in report.deleted.iter().filter(|deleted| deleted.of.group == of.group) {
        text += &format!("{deleted_word} {}: {}, {}\n", deleted.name, deleted.reason, BinaryBytes(deleted.bytes));
    }
    text
}

/// The retention after a backup: what it deleted, and what failed.
#[must_use]
pub fn after_backup(retention: &Retention) -> String {
    let mut text = String::new();
    for deleted in &retention.report.deleted {
        let of = provenance::of(&deleted.of).map(|line| format!(", of {line}"));
        let (name, reason, bytes) = (&deleted.name, &deleted.reason, BinaryBytes(deleted.bytes));
        text += &format!("retention    {name} deleted: {reason}, {bytes}{}\n", of.unwrap_or_default());
    }
    if let Some(error) = &retention.error {
        text += &format!("warning: the backup is complete, but retention failed: {}\n", plain(error));
    }
    text
}
