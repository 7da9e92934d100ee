//! Results as people read them. Pure: values in, whole lines out.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{BinaryBytes, HumanCount};

use super::lined_up::lined_up;
use super::{provenance, verified};
use crate::engine::adopt::AdoptReport;
use crate::engine::backup::BackupPlan;
use crate::engine::check::{CheckReport, Status};
use crate::engine::export::ExportReport;
use crate::engine::import::{
    ImportMode, ImportPlan, ImportReport, ImportedCollection, IndexMode, Overwriting, PlannedNamespace, PlannedOverwrite,
};
use crate::engine::test_restore::TestRestoreReport;
use crate::engine::verify::VerifyReport;
use crate::few::{self, LISTED};
use crate::format::checks::Checks;
use crate::format::manifest::{CollectionKind, Consistency, ConsistencyKind, LeftOut, Manifest, OplogSlice, Source};
use crate::repository::catalog::{Provenance, State, Summary};

/// How long a backup took, in seconds.
#[must_use]
pub fn seconds(manifest: &Manifest) -> f64 {
    let took = manifest.finished.signed_duration_since(manifest.started);
    took.as_seconds_f64().max(0.0)
}

/// What a backup would be.
#[must_use]
pub fn plan(plan: &BackupPlan) -> String {
    let rows = || {
        plan.collections.iter().map(|c| {
            [
                plain(&format!("{}.{}", c.database, c.name)),
                c.kind.to_string(),
                counted(c.kind, c.documents),
                BinaryBytes(c.bytes).to_string(),
                if c.ranges_done > 0 {
                    format!("{} of {}", c.ranges - c.ranges_done.min(c.ranges), c.ranges)
                } else {
                    c.ranges.to_string()
                },
            ]
        })
    };
    let table = lined_up(["namespace", "type", "documents", "size", "ranges"], &[2, 3, 4], rows);
    let (documents, bytes) = plan.collections.iter().fold((0, 0), |sum, c| (sum.0 + c.documents, sum.1 + c.bytes));
    let series = plan.collections.iter().filter(|c| c.kind == CollectionKind::TimeSeries);
    let buckets = series.map(|c| c.documents).sum();
    let mut text = format!("source       {}\n", source(&plan.source));
    text += &format!("consistency  {}\n", kind(plan.consistency));
    text += &format!(
        "data         about {} in {}, {}\n\n{table}\n",
        self::documents(documents, buckets),
        count(plan.collections.len() as u64, "collection"),
        BinaryBytes(bytes)
    );
    text += &left_out(&plan.left_out);
    match &plan.resumes {
        None => text + "nothing was written: this is what a backup would hold now\n",
        Some(name) => {
            let (done, all) = plan.collections.iter().fold((0, 0), |sum, c| (sum.0 + c.ranges_done, sum.1 + c.ranges));
            text + &format!("nothing was written: {name} would be resumed, and {} of {all} ranges read\n", all - done.min(all))
        }
    }
}

/// A backup that was taken.
#[must_use]
pub fn backup(location: &str, manifest: &Manifest) -> String {
    let mut text = format!("backup       {}\npath         {location}\n", manifest.name);
    text += &created(manifest);
    text += &summary(manifest);
    text += &format!("took         {:.1} s\n", seconds(manifest));
    text + &warnings(manifest)
}

/// The moment that it shows.
fn created(manifest: &Manifest) -> String {
    format!("created      {}\n", manifest.created.format("%Y-%m-%d %H:%M:%S UTC"))
}

/// A dump that was adopted.
#[must_use]
pub fn adopted(report: &AdoptReport) -> String {
    let notes = report.notes.iter().map(|note| format!("note         {}\n", plain(note)));
    backup(&report.location, &report.manifest) + &notes.collect::<String>()
}

/// What a backup holds.
#[must_use]
pub fn show(location: &str, manifest: &Manifest, checks: &Checks) -> String {
    let mut text = format!("backup       {}\npath         {location}\n", manifest.name);
    text += &created(manifest);
    text += &format!("source       {}\n", source(&manifest.source));
    text += &format!("selection    {}\n", provenance::selection(&Provenance::of(manifest).selection));
    text += &format!("written by   {} {}, format {}\n", manifest.tool.name, manifest.tool.version, manifest.format_version);
    text += &summary(manifest);
    text += &verified::lines(checks);
    let rows = || {
        manifest.collections.iter().map(|c| {
            [
                plain(&c.namespace().to_string()),
                c.kind.to_string(),
                counted(c.kind, c.documents),
                BinaryBytes(c.bytes).to_string(),
                BinaryBytes(c.stored_bytes()).to_string(),
                c.indexes.len().to_string(),
                c.digest.to_string(),
            ]
        })
    };
    let header = ["namespace", "type", "documents", "size", "stored", "indexes", "content digest"];
    let table = lined_up(header, &[2, 3, 4, 5], rows);
    text += &format!("\n{table}\n");
    text + &warnings(manifest)
}

/// The backups of a path.
#[must_use]
pub fn list(location: &str, backups: &[Summary], now: DateTime<Utc>) -> String {
    if backups.is_empty() {
        return format!("no backups in {location}\n");
    }
    let mut table =
        table(["name", "state", "created", "documents", "size", "stored", "consistency", "verified", "source", "selection"]);
    right_align(&mut table, &[3, 4, 5]);
    let mut reasons = String::new();
    for backup in backups {
        let created = backup.created().map(|t| t.format("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default();
        let mut row = vec![backup.name.to_string(), backup.state.label().to_owned(), created];
        match &backup.state {
            State::Complete(manifest) => {
                let of = Provenance::of(manifest);
                row.extend([
                    HumanCount(manifest.totals.documents).to_string(),
                    BinaryBytes(manifest.totals.raw_bytes).to_string(),
                    BinaryBytes(manifest.totals.stored_bytes).to_string(),
                    verdict(&manifest.consistency),
                    backup.checks.as_ref().map(|checks| verified::cell(checks, now)).unwrap_or_default(),
                    provenance::source(&of.source),
                    provenance::selection(&of.selection),
                ]);
            }
            State::Running(progress) => {
                row.extend([HumanCount(progress.documents).to_string(), BinaryBytes(progress.raw_bytes).to_string()]);
            }
            State::Incomplete if backup.resumable => {
                reasons += &format!("{} can be resumed: bsonvault backup --resume {}\n", backup.name, backup.name);
            }
            State::Incomplete => {}
            State::Damaged(reason) => reasons += &format!("warning: {}: {reason}\n", backup.name),
        }
        table.add_row(row);
    }
    format!("{table}\n{reasons}")
}

/// What an import will do.
#[must_use]
pub fn restore_plan(plan: &ImportPlan) -> String {
    let overwrites: HashMap<String, &PlannedOverwrite> =
        plan.overwrites.iter().flatten().map(|o| (o.namespace.to_string(), o)).collect();
    let held_by = |name: &String| overwrites.get(name).and_then(|overwritten| held(overwritten));
    let rows = || plan.collections.iter().map(|c| planned(plan, c, held_by(&c.to)));
    let header = ["namespace", "becomes", "type", "documents", "size", "indexes", "what stands there"];
    let table = lined_up(header, &[3, 4, 5], rows);
    let mut text = format!("backup       {}\ntarget       {}\n\n{table}\n", plan.backup, plan.target);
    match plan.indexes {
        IndexMode::Now => {}
        IndexMode::Skip => text += "indexes are not built\n",
        IndexMode::Only => text += "only indexes are built: those that are missing in the target\n",
    }
    if let Some(oplog) = &plan.oplog {
        text += &format!("the oplog is replayed up to {}: {} entries\n", oplog.to, HumanCount(oplog.entries));
    }
    if matches!(plan.mode, ImportMode::Merge | ImportMode::Add) {
        text += "merging is not atomic: what reads the target meanwhile may see a part of it\n";
    }
    for namespace in &plan.prunes {
        let held = held_by(namespace).map(|held| format!(" ({held})")).unwrap_or_default();
        text += &format!("dropped: {} is not in the backup{held}\n", plain(namespace));
    }
    for left_out in &plan.left_out {
        text += &format!("warning: {}\n", plain(left_out));
    }
    text
}

/// What is to become of one namespace; `held` is how much what stands there holds, where that is overwritten.
fn planned(plan: &ImportPlan, c: &PlannedNamespace, held: Option<String>) -> [String; 7] {
    let standing = match (&c.replaces, plan.mode, plan.indexes) {
        (None, ..) => "nothing".to_owned(),
        (Some(kind), _, IndexMode::Only) => format!("a {kind}"),
        (Some(kind), ImportMode::Merge, _) => format!("a {kind}, merged into"),
        (Some(kind), ImportMode::Add, _) => format!("a {kind}, added to"),
        (Some(kind), ..) => format!("a {kind}, replaced"),
    };
    [
        plain(&c.from),
        if c.to == c.from { "the same".to_owned() } else { plain(&c.to) },
        c.kind.to_string(),
        c.documents.map_or_else(String::new, |documents| counted(c.kind, documents)),
        c.bytes.map_or_else(String::new, |bytes| BinaryBytes(bytes).to_string()),
        HumanCount(c.indexes).to_string(),
        held.map_or_else(|| standing.clone(), |held| format!("{standing} ({held})")),
    ]
}

/// Something that holds documents and is overwritten.
#[must_use]
pub fn overwrite(overwrite: &PlannedOverwrite) -> String {
    let held = held(overwrite).unwrap_or_else(|| "documents that cannot be counted".to_owned());
    let unit = if overwrite.kind == "timeseries" { "bucket" } else { "document" };
    let backup = overwrite.backup_documents.map(|documents| format!("{} of the backup", count(documents, unit)));
    let fate = match overwrite.action {
        Overwriting::Replaced => format!("replaced by {}", backup.as_deref().unwrap_or("the dump's")),
        Overwriting::Merged => format!("merged with {}", backup.as_deref().unwrap_or("the dump's")),
        Overwriting::Dropped => "not in the backup, dropped".to_owned(),
    };
    format!("{} ({held}; {fate})", plain(&overwrite.namespace.to_string()))
}

/// How much it holds, where that is known.
fn held(overwrite: &PlannedOverwrite) -> Option<String> {
    let unit = if overwrite.kind == "timeseries" { "bucket" } else { "document" };
    overwrite.documents.map(|documents| count(documents, unit))
}

/// What an import did.
#[must_use]
pub fn import(report: &ImportReport) -> String {
    let table = if report.added.is_some() { added(report) } else { imported(report) };
    let data = match report.added {
        Some(added) => format!(
            "{} added in {}, {} were there already",
            documents(added, 0),
            count(report.collections.len() as u64, "collection"),
            HumanCount(report.not_added)
        ),
        None => format!(
            "{} in {}, {}",
            documents(report.documents, report.buckets),
            count(report.collections.len() as u64, "collection"),
            BinaryBytes(report.bytes)
        ),
    };
    let mut text = format!(
        "backup       {}\ntarget       {}\ndata         {data}\ntook         {:.1} s\n\n{table}\n",
        report.backup,
        report.target,
        report.milliseconds as f64 / 1000.0,
    );
    if let Some(replayed) = &report.replayed {
        text += &format!("replayed     {} operations of the oplog, up to {}\n", HumanCount(replayed.operations), replayed.to);
    }
    if report.passed_over > 0 {
        text += &format!("passed over  {}, of which the dump holds another version\n", count(report.passed_over, "document"));
    }
    text += &changed_ids(&report.collections);
    if report.not_added > 0 {
        text += &format!("not added    {}: others stand in the target in their places\n", count(report.not_added, "document"));
    }
    if report.overwritten > 0 {
        text += &format!(
            "overwritten  {}, of which the dump holds more than its capped collection\n",
            count(report.overwritten, "document")
        );
    }
    if report.users + report.roles > 0 {
        text += &format!(
            "added        {}, {}, but for those that are there already\n",
            count(report.users, "user"),
            count(report.roles, "role")
        );
    }
    for namespace in &report.pruned {
        text += &format!("dropped: {} is not in the backup\n", plain(namespace));
    }
    for kept in report.kept.iter().flatten() {
        let place = kept.kept_as.as_deref().map_or_else(|| "its definition".to_owned(), |place| format!("as {}", plain(place)));
        text += &format!("kept: {}, {place}\n", plain(&kept.namespace));
    }
    if report.kept.is_some() {
        text += "to undo the import: bsonvault import --undo-last; to drop what was kept: bsonvault import --drop-replaced\n";
    }
    for left_out in &report.left_out {
        text += &format!("warning: {}\n", plain(left_out));
    }
    for index in &report.skipped_indexes {
        text += &format!("skipped: index {} of {}\n", plain(&index.name), plain(&index.namespace));
    }
    if !report.skipped_indexes.is_empty() {
        text += &format!("to build them: bsonvault import {} --indexes only, with the same choices\n", report.backup);
    }
    for index in &report.failed_indexes {
        let reason = index.reason.as_deref().unwrap_or_default();
        text += &format!("failed: index {} of {}: {}\n", plain(&index.name), plain(&index.namespace), plain(reason));
    }
    text
}

/// Each namespace of an import, and whether it reads back.
fn imported(report: &ImportReport) -> String {
    let rows = || {
        report.collections.iter().map(|c| {
            [
                plain(&c.namespace),
                c.kind.to_string(),
                counted(c.kind, c.documents),
                BinaryBytes(c.bytes).to_string(),
                HumanCount(c.indexes).to_string(),
                reads_back(report, c),
            ]
        })
    };
    lined_up(["namespace", "type", "documents", "size", "indexes", "reads back"], &[2, 3, 4], rows)
}

/// Each namespace that documents were added to, and how many. What stood there before is not part of what is read back.
fn added(report: &ImportReport) -> String {
    let rows = || {
        report.collections.iter().map(|c| {
            let added = c.added.unwrap_or(c.documents);
            [
                plain(&c.namespace),
                c.kind.to_string(),
                counted(c.kind, c.documents),
                HumanCount(added).to_string(),
                HumanCount(c.documents.saturating_sub(added)).to_string(),
                HumanCount(c.indexes).to_string(),
                if c.added.is_some() { "was there".to_owned() } else { reads_back(report, c) },
            ]
        })
    };
    let header = ["namespace", "type", "documents", "added", "there already", "indexes", "reads back"];
    lined_up(header, &[2, 3, 4, 5], rows)
}

fn reads_back(report: &ImportReport, c: &ImportedCollection) -> String {
    match (report.not_read_back, c.digest_matches) {
        (true, _) => "not done".to_owned(),
        (false, true) => "the same".to_owned(),
        (false, false) => "DIFFERENT".to_owned(),
    }
}

/// What an import had to change in documents, as the server would have.
fn changed_ids(collections: &[ImportedCollection]) -> String {
    let mut text = String::new();
    for c in collections {
        let name = plain(&c.namespace);
        if c.given_ids > 0 {
            text += &format!("note: {} of {name} had no _id; each was given one\n", count(c.given_ids, "document"));
        }
        if c.moved_ids > 0 {
            let documents = count(c.moved_ids, "document");
            text += &format!("note: {documents} of {name} had an _id that was not the first field; it was moved there\n");
        }
    }
    text
}

/// What was exported.
#[must_use]
pub fn export(report: &ExportReport) -> String {
    format!("backup       {}\n{}", report.backup, exported(report))
}

/// What a dump came to.
#[must_use]
pub fn dump(report: &ExportReport, manifest: &Manifest) -> String {
    exported(report) + &warnings(manifest)
}

fn exported(report: &ExportReport) -> String {
    let mut text = format!(
        "export       {}\ndata         {} in {}, {} (written as {})\ntook         {:.1} s\n",
        plain(&report.location),
        documents(report.documents, report.buckets),
        count(report.collections, "collection"),
        BinaryBytes(report.bytes),
        BinaryBytes(report.written_bytes),
        report.milliseconds as f64 / 1000.0,
    );
    if let Some(oplog) = &report.oplog {
        text += &format!(
            "oplog        {}, up to {}\nThe documents were read at different times: restore it with `mongorestore --oplogReplay`, or it shows no one moment.\n",
            if oplog.entries == 1 { "1 entry".to_owned() } else { format!("{} entries", HumanCount(oplog.entries)) },
            oplog.to,
        );
    }
    text
}

/// What a verification found.
#[must_use]
pub fn verify(report: &VerifyReport) -> String {
    let mut text = format!("backup       {}\npath         {}\n", report.name, report.location);
    text += &format!("checked      {}, {}", count(report.objects, "object"), BinaryBytes(report.stored_bytes));
    if report.deep {
        text += &format!(", {}", documents(report.documents, report.buckets.min(report.documents)));
    }
    text += "\n";
    for problem in &report.problems {
        // Most messages name the object themselves.
        let key = if problem.key.is_empty() || problem.message.contains(&problem.key) {
            String::new()
        } else {
            format!("{}: ", problem.key)
        };
        text += &format!("problem: {key}{}\n", problem.message);
    }
    for note in &report.notes {
        text += &format!("note: {note}\n");
    }
    if report.problems.is_empty() {
        text += if report.deep {
            "sound: every file is as it was written, and every document as it was read\n"
        } else {
            "sound: every file is as it was written (--deep decodes the documents, too)\n"
        };
    }
    text
}

/// A drill that passed.
#[must_use]
pub fn drill(report: &TestRestoreReport) -> String {
    let mut text = format!(
        "backup       {}\npath         {}\ntarget       {} (MongoDB {})\n",
        report.name, report.path, report.target, report.server_version
    );
    text += &format!(
        "imported     {} in {}, {}, {}\ntook         {:.1} s\n",
        documents(report.documents, report.buckets),
        count(report.collections.len() as u64, "collection"),
        BinaryBytes(report.bytes),
        if report.indexes == 1 { "1 index".to_owned() } else { format!("{} indexes", HumanCount(report.indexes)) },
        report.milliseconds as f64 / 1000.0,
    );
    for left_out in &report.left_out {
        text += &format!("warning: {}\n", plain(left_out));
    }
    text += &changed_ids(&report.collections);
    text + "sound: all of it came back, and what was read back is what the backup holds; the scratch databases are dropped\n"
}

/// What a check found.
#[must_use]
pub fn check(report: &CheckReport) -> String {
    let mut text = String::new();
    for line in &report.lines {
        let status = match line.status {
            Status::Ok => "ok     ",
            Status::Warning => "warning",
            Status::Failed => "FAILED ",
        };
        text += &format!("{status}  {}: {}\n", line.subject, line.message);
        if let Some(todo) = &line.todo {
            text += &format!("         -> {todo}\n");
        }
    }
    if !report.rights.is_empty() {
        let mut table = table(["side", "feature", "needs", "allowed", "missing"]);
        for row in &report.rights {
            let allowed = match (row.granted, row.required) {
                (true, _) => "yes",
                (false, true) => "NO",
                (false, false) => "no (optional)",
            };
            table.add_row([
                row.side.to_string(),
                row.feature.clone(),
                row.needs.join(", "),
                allowed.to_owned(),
                row.missing.join(", "),
            ]);
        }
        text += &format!("\n{table}\n");
    }
    text
}

fn summary(manifest: &Manifest) -> String {
    let totals = &manifest.totals;
    let mut text = format!(
        "data         {} in {}, {}\n",
        documents(totals.documents, manifest.buckets()),
        count(totals.collections, "collection"),
        BinaryBytes(totals.raw_bytes)
    );
    let slice = manifest.oplog.as_ref();
    let data = totals.stored_bytes.saturating_sub(slice.map_or(0, OplogSlice::stored_bytes));
    text += &format!("stored       {}{}\n", BinaryBytes(totals.stored_bytes), ratio(totals.raw_bytes, data));
    let Consistency { kind: of, cluster_time, to, .. } = &manifest.consistency;
    text += &format!("consistency  {}", kind(*of));
    if let Some(time) = to.or(*cluster_time) {
        text += &format!(", {time}");
    }
    text += "\n";
    if let Some(slice) = slice {
        let (entries, stored) = (HumanCount(slice.documents), BinaryBytes(slice.stored_bytes()));
        let entries = if slice.documents == 1 { "1 entry".to_owned() } else { format!("{entries} entries") };
        text += &format!("oplog        {entries} from {} to {}, {stored} stored\n", slice.from, slice.to);
    }
    text
}

fn warnings(manifest: &Manifest) -> String {
    let mut text = String::new();
    if manifest.consistency.kind == ConsistencyKind::None {
        text += "warning: what was written to the source during the backup may be in one part of it and not in another\n";
    }
    for e in &manifest.consistency.exceptions {
        let namespace = plain(&format!("{}.{}", e.database, e.collection));
        text += &format!("warning: {namespace} is not of the backup's moment: {}\n", e.reason);
    }
    text + &left_out(&manifest.left_out)
}

fn left_out(left_out: &[LeftOut]) -> String {
    let line =
        |l: &LeftOut| format!("warning: {} is left out: {}\n", plain(&format!("{}.{}", l.database, l.collection)), l.reason);
    let mut lines: String = left_out.iter().take(LISTED).map(line).collect();
    if left_out.len() > LISTED {
        lines += &format!("warning: {} left out\n", few::and_more(left_out.len() - LISTED));
    }
    lines
}

/// The kind of consistency, in words.
fn kind(kind: ConsistencyKind) -> &'static str {
    match kind {
        ConsistencyKind::Snapshot => "snapshot: every document as it was at one moment",
        ConsistencyKind::Oplog => "oplog: every document as it was at one moment, once the oplog slice is replayed",
        ConsistencyKind::None => "none: read one after the other while the source went on",
    }
}

fn verdict(consistency: &Consistency) -> String {
    match consistency.exceptions.len() {
        0 => consistency.kind.to_string(),
        n => format!("{}, {}", consistency.kind, count(n as u64, "exception")),
    }
}

pub(super) fn source(source: &Source) -> String {
    let set = source.replica_set.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    format!("{} (MongoDB {}, {}{set})", source.uri, source.server_version, source.topology)
}

/// ` (4.2 to 1)`, and nothing where there is nothing to compare.
fn ratio(raw: u64, stored: u64) -> String {
    if raw == 0 || stored == 0 { String::new() } else { format!(" ({:.1} to 1)", raw as f64 / stored as f64) }
}

/// The text with control characters escaped: a collection's name may hold any, and a terminal obeys some.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { plain.extend(c.escape_default()) } else { plain.push(c) }
    }
    plain
}

/// How many documents a namespace has; of a time series, buckets.
fn counted(kind: CollectionKind, number: u64) -> String {
    match kind {
        CollectionKind::TimeSeries => count(number, "bucket"),
        CollectionKind::Collection | CollectionKind::View => HumanCount(number).to_string(),
    }
}

/// How many documents, and how many of them are buckets of time series.
fn documents(number: u64, buckets: u64) -> String {
    match buckets {
        0 => format!("{} documents", HumanCount(number)),
        buckets => format!("{} documents (of them {} of time series)", HumanCount(number), count(buckets, "bucket")),
    }
}

pub(super) fn count(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", HumanCount(number))
}

pub(super) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if N > 0 {
        table.set_header(header);
    }
    table
}

pub(super) fn right_align(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(plain("shop.a\n\u{1b}[2Jb ü"), "shop.a\\n\\u{1b}[2Jb ü");
    }

    #[test]
    fn a_ratio_needs_both_sides() {
        assert_eq!(ratio(0, 0), "");
        assert_eq!(ratio(420, 100), " (4.2 to 1)");
        assert_eq!(
            (counted(CollectionKind::TimeSeries, 1200), counted(CollectionKind::View, 0)),
            ("1,200 buckets".into(), "0".into())
        );
        assert_eq!(
            (documents(5, 0), documents(5, 1)),
            ("5 documents".into(), "5 documents (of them 1 bucket of time series)".into())
        );
        assert_eq!(count(1, "collection"), "1 collection");
        assert_eq!(count(1200, "collection"), "1,200 collections");
    }
}
