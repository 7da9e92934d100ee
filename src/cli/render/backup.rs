//! Backups: what one would be, one that was taken or is shown, and the list of them.

use indicatif::BinaryBytes;

use super::lined_up::{Room, lined_up};
use super::{checks, count, counted, documents, entries, plain, provenance, source};
use crate::engine::adopt::AdoptReport;
use crate::engine::backup::BackupPlan;
use crate::few::{self, LISTED};
use crate::format::checks::Checks;
use crate::format::manifest::{Collection, CollectionKind, Consistency, ConsistencyKind, LeftOut, Manifest, OplogSlice};
use crate::repository::catalog::Provenance;

/// How long a backup took, in seconds.
#[must_use]
pub fn seconds(manifest: &Manifest) -> f64 {
    let took = manifest.finished.signed_duration_since(manifest.started);
    took.as_seconds_f64().max(0.0)
}

/// The plan of a backup.
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
    let table = lined_up(["namespace", "type", "documents", "size", "ranges"], &[2, 3, 4], Room::Any, rows);
    let (number, bytes) = plan.collections.iter().fold((0, 0), |sum, c| (sum.0 + c.documents, sum.1 + c.bytes));
    let series = plan.collections.iter().filter(|c| c.kind == CollectionKind::TimeSeries);
    let buckets = series.map(|c| c.documents).sum();
    let mut text = format!("source       {}\n", source(&plan.source));
    text += &format!("consistency  {}\n", kind(plan.consistency));
    text += &format!(
        "data         about {} in {}, {}\n\n{table}\n",
        documents(number, buckets),
        count(plan.collections.len() as u64, "collection"),
        BinaryBytes(bytes)
    );
    text += &left_out(&plan.left_out);
    match &plan.resumes {
        None => text + "nothing was written: a backup would hold this now\n",
        Some(name) => {
            let (done, all) = plan.collections.iter().fold((0, 0), |sum, c| (sum.0 + c.ranges_done, sum.1 + c.ranges));
            text + &format!("nothing was written: {name} would be resumed, and {} of {all} ranges read\n", all - done.min(all))
        }
    }
}

/// A backup that was taken.
#[must_use]
pub fn taken(location: &str, manifest: &Manifest) -> String {
    let mut text = format!("backup       {}\npath         {location}\n", manifest.name);
    text += &created(manifest);
    text += &summary(manifest);
    text += &format!("took         {:.1} s\n", seconds(manifest));
    text + &warnings(manifest)
}

/// Its consistency point.
fn created(manifest: &Manifest) -> String {
    format!("created      {}\n", manifest.created.format("%Y-%m-%d %H:%M:%S UTC"))
}

/// A dump that was adopted.
#[must_use]
pub fn adopted(report: &AdoptReport) -> String {
    let notes = report.notes.iter().map(|note| format!("note         {}\n", plain(note)));
    taken(&report.location, &report.manifest) + &notes.collect::<String>()
}

/// What a backup holds. Names are cut, and content digests are not shown, if they do not fit.
#[must_use]
pub fn show(location: &str, manifest: &Manifest, checks: &Checks, room: Room) -> String {
    let mut text = format!("backup       {}\npath         {location}\n", manifest.name);
    text += &created(manifest);
    text += &format!("source       {}\n", source(&manifest.source));
    text += &format!("selection    {}\n", provenance::selection(&Provenance::of(manifest).selection));
    text += &format!("written by   {} {}, format {}\n", manifest.tool.name, manifest.tool.version, manifest.format_version);
    text += &summary(manifest);
    text += &checks::lines(checks);
    text += &format!("\n{}\n", collections(manifest, room));
    text + &warnings(manifest)
}

/// The collections of a backup, a line each.
fn collections(manifest: &Manifest, room: Room) -> String {
    let cells = |c: &Collection| {
        [
            plain(&c.namespace().to_string()),
            c.kind.to_string(),
            counted(c.kind, c.documents),
            BinaryBytes(c.bytes).to_string(),
            BinaryBytes(c.stored_bytes()).to_string(),
            c.indexes.len().to_string(),
        ]
    };
    let right = [2, 3, 4, 5];
    if room == Room::Any {
        let rows = || {
            manifest.collections.iter().map(|c| {
                let [namespace, kind, documents, size, stored, indexes] = cells(c);
                [namespace, kind, documents, size, stored, indexes, c.digest.to_string()]
            })
        };
        let header = ["namespace", "type", "documents", "size", "stored", "indexes", "content digest"];
        return lined_up(header, &right, room, rows);
    }
    let header = ["namespace", "type", "documents", "size", "stored", "indexes"];
    lined_up(header, &right, room, || manifest.collections.iter().map(cells))
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
        let (entries, stored) = (entries(slice.documents), BinaryBytes(slice.stored_bytes()));
        text += &format!("oplog        {entries} from {} to {}, {stored} stored\n", slice.from, slice.to);
    }
    text
}

pub(super) fn warnings(manifest: &Manifest) -> String {
    let mut text = String::new();
    if manifest.consistency.kind == ConsistencyKind::None {
        text += "warning: writes during the backup may be in one part of it and missing in another\n";
    }
    for e in &manifest.consistency.exceptions {
        let namespace = plain(&format!("{}.{}", e.database, e.collection));
        text += &format!("warning: {namespace} is not at the consistency point: {}\n", e.reason);
    }
    text + &left_out(&manifest.left_out)
}

fn left_out(left_out: &[LeftOut]) -> String {
    let line =
        |l: &LeftOut| format!("warning: {} is skipped: {}\n", plain(&format!("{}.{}", l.database, l.collection)), l.reason);
    let mut lines: String = left_out.iter().take(LISTED).map(line).collect();
    if left_out.len() > LISTED {
        lines += &format!("warning: {} skipped\n", few::and_more(left_out.len() - LISTED));
    }
    lines
}

/// The kind of consistency, in words.
fn kind(kind: ConsistencyKind) -> &'static str {
    match kind {
        ConsistencyKind::Snapshot => "snapshot: every document as it was at one time",
        ConsistencyKind::Oplog => "oplog: every document as it was at one time, once `import` has replayed the oplog slice",
        ConsistencyKind::None => "none: documents were read one after another, not at one time",
    }
}

/// ` (4.2 to 1)`, and nothing where there is nothing to compare.
fn ratio(raw: u64, stored: u64) -> String {
    if raw == 0 || stored == 0 { String::new() } else { format!(" ({:.1} to 1)", raw as f64 / stored as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_needs_both_sides() {
        assert_eq!(ratio(0, 0), "");
        assert_eq!(ratio(420, 100), " (4.2 to 1)");
    }
}
