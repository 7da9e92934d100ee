//! What `archive`, `timeline` and `oplog-search` say.

use chrono::{DateTime, Utc};
use indicatif::{BinaryBytes, HumanCount};

use super::plain;
use crate::engine::archive::ArchiveReport;
use crate::engine::oplog_search::SearchReport;
use crate::engine::timeline::{ArchiveSummary, Timeline, TimelineTime};

/// How many minutes, commands and bursts are shown.
const SHOWN: usize = 20;

/// What an archiver did.
pub fn done(report: &ArchiveReport) -> String {
    let gaps = match report.gaps {
        0 => String::new(),
        1 => ", 1 gap".to_owned(),
        many => format!(", {many} gaps"),
    };
    format!("archived {} entries up to {}{gaps}: {}\n", HumanCount(report.entries), report.reached, plain(&report.path))
}

fn second(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S").to_string()
}

fn at(time: &TimelineTime) -> String {
    format!("{} ({})", second(time.time), time.position)
}

/// Which times can be restored.
pub fn timeline(timeline: &Timeline) -> String {
    if timeline.archives.is_empty() {
        return format!("no archive of an oplog in {}\n", plain(&timeline.path));
    }
    let mut text = String::new();
    for archive in &timeline.archives {
        text += &archive_text(archive);
        text += &ranges(timeline, &archive.replica_set_id);
    }
    text += &happened(timeline);
    text
}

/// A line for each archive, below the backups.
pub fn list(timeline: &Timeline) -> String {
    timeline.archives.iter().map(|archive| listed(archive, timeline)).collect()
}

fn listed(archive: &ArchiveSummary, timeline: &Timeline) -> String {
    let ends = match (&archive.from, &archive.to) {
        (Some(from), Some(to)) => format!(" from {} to {}", second(from.time), second(to.time)),
        _ => String::new(),
    };
    let gaps = match timeline.gaps.iter().filter(|gap| gap.replica_set_id == archive.replica_set_id).count() {
        0 => String::new(),
        1 => ", 1 gap".to_owned(),
        many => format!(", {many} gaps"),
    };
    let state = if archive.running { "being written" } else { "not being written" };
    let damaged = match archive.problems.as_slice() {
        [] => String::new(),
        [first, ..] => format!("; DAMAGED: {}", plain(first)),
    };
    let name = if archive.replica_set.is_empty() { &archive.replica_set_id } else { &archive.replica_set };
    let stored = BinaryBytes(archive.stored_bytes);
    format!("archived oplog of {}{ends}, {stored}{gaps}, {state}{damaged}\n", plain(name))
}

fn archive_text(archive: &ArchiveSummary) -> String {
    let ends = match (&archive.from, &archive.to) {
        (Some(from), Some(to)) => format!("{} to {}", at(from), at(to)),
        _ => "it holds nothing yet".to_owned(),
    };
    let state = match (&archive.running, &archive.state, &archive.problem) {
        (false, ..) => "not being written: start `bsonvault archive`".to_owned(),
        (true, _, Some(problem)) => format!("waiting: {}", plain(problem)),
        (true, state, None) => state.clone().unwrap_or_default(),
    };
    let mut text = format!(
        "replica set {} ({}): {ends}\n  {} entries in {} links and {} pieces; {state}\n",
        plain(&archive.replica_set),
        archive.replica_set_id,
        HumanCount(archive.entries),
        archive.links,
        archive.pieces,
    );
    for problem in &archive.problems {
        text += &format!("  DAMAGED: {}\n", plain(problem));
    }
    text
}

fn ranges(timeline: &Timeline, id: &str) -> String {
    let mut text = String::new();
    let ranges: Vec<_> = timeline.ranges.iter().filter(|range| range.replica_set_id == id).collect();
    if ranges.is_empty() {
        text += "  no time can be restored: there is no backup that the archive can be replayed on\n";
    } else {
        text += "  any time can be restored\n";
    }
    for range in ranges {
        text += &format!("    from {} to {}, from {}\n", at(&range.from), at(&range.to), plain(&range.base));
    }
    for gap in timeline.gaps.iter().filter(|gap| gap.replica_set_id == id) {
        text += &format!("  gap between {} and {}: {}\n", at(&gap.from), at(&gap.to), plain(&gap.reason));
    }
    text
}

fn happened(timeline: &Timeline) -> String {
    let mut text = String::new();
    let skipped = |count: usize| count.saturating_sub(SHOWN);
    if !timeline.ddl.is_empty() {
        text += "commands that changed collections, views or indexes\n";
        for ddl in &timeline.ddl[skipped(timeline.ddl.len())..] {
            let documents = ddl.documents.map(dropped).unwrap_or_default();
            text += &format!("  {}  {} {}{documents}\n", at(&ddl.at), ddl.command, plain(&ddl.namespace));
        }
    }
    if !timeline.bursts.is_empty() {
        text += "many deletes in a short time\n";
        for burst in &timeline.bursts[skipped(timeline.bursts.len())..] {
            text += &format!(
                "  {} to {}  {} deletes in {}\n",
                at(&burst.from),
                at(&burst.to),
                burst.deletes,
                plain(&burst.namespace)
            );
        }
    }
    if !timeline.minutes.is_empty() {
        text += "operations in each of the last minutes\n";
        for minute in &timeline.minutes[skipped(timeline.minutes.len())..] {
            text += &format!("  {}  {}\n", second(minute.minute), HumanCount(minute.operations));
        }
    }
    text
}

fn dropped(documents: i64) -> String {
    let plural = if documents == 1 { "" } else { "s" };
    format!(", {documents} document{plural}")
}

/// What was found in an oplog.
pub fn found(report: &SearchReport) -> String {
    let mut text = String::new();
    for entry in &report.entries {
        let documents = entry.documents.filter(|_| entry.id.is_none()).map(dropped);
        let id = entry.id.as_ref().map(|id| format!(" {}", plain(&id.to_string()))).unwrap_or_default();
        let to = entry.to.as_ref().map(|to| format!(" to {}", plain(to))).unwrap_or_default();
        text += &format!(
            "{}  {}  {} {}{id}{to}{}\n",
            entry.time,
            second(entry.at),
            entry.op,
            plain(&entry.namespace),
            documents.unwrap_or_default()
        );
        if entry.uncommitted {
            text.pop();
            text += " (part of a transaction that was not committed yet)\n";
        }
    }
    let more = report.count.saturating_sub(report.entries.len() as u64);
    if more > 0 {
        text += &format!("and {} more: --limit shows more, --since and --op choose\n", HumanCount(more));
    } else if report.entries.is_empty() {
        text += "no such entry\n";
    }
    for note in &report.notes {
        text += &format!("note: {}\n", plain(note));
    }
    text
}
