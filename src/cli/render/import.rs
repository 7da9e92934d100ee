//! Renders imports: the plan of one, its result, and a test restore that passed.

use std::collections::HashMap;

use indicatif::{BinaryBytes, HumanCount};

use super::lined_up::{Room, lined_up};
use super::{count, counted, documents, plain};
use crate::engine::import::{
    ImportMode, ImportPlan, ImportReport, ImportedCollection, IndexMode, Overwriting, PlannedNamespace, PlannedOverwrite,
};
use crate::engine::test_restore::TestRestoreReport;

/// The plan of an import.
#[must_use]
pub fn plan(plan: &ImportPlan) -> String {
    let overwrites: HashMap<String, &PlannedOverwrite> =
        plan.overwrites.iter().flatten().map(|o| (o.namespace.to_string(), o)).collect();
    let held_by = |name: &String| overwrites.get(name).and_then(|overwritten| held(overwritten));
    let rows = || plan.collections.iter().map(|c| planned(plan, c, held_by(&c.to)));
    let header = ["namespace", "becomes", "type", "documents", "size", "to index", "in the target"];
    let table = lined_up(header, &[3, 4, 5], Room::Any, rows);
    let mut text = format!("backup       {}\ntarget       {}\n\n{table}\n", plan.backup, plan.target);
    match plan.indexes {
        IndexMode::Now => {}
        IndexMode::Skip => text += "indexes are not built\n",
        IndexMode::Only => text += "only indexes are built: those that are missing in the target\n",
    }
    if let Some(point) = &plan.point_in_time {
        text += &format!(
            "as it was at {}: {} entries are replayed, from {} and {}, in about {}\n",
            point.time,
            HumanCount(point.entries),
            count(point.links, "link"),
            count(point.pieces, "piece"),
            count(point.seconds, "second"),
        );
    } else if let Some(oplog) = &plan.oplog {
        text += &format!("the oplog is replayed up to {} ({} entries)\n", oplog.to, HumanCount(oplog.entries));
    }
    if matches!(plan.mode, ImportMode::Merge | ImportMode::Add) {
        text += "merging is not atomic: readers of the target may see a part of it meanwhile\n";
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

/// The row of one namespace. `held` is how much the target holds under its name, if that is
/// overwritten.
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

/// A namespace of the target that holds documents and is overwritten.
#[must_use]
pub fn overwrite(overwrite: &PlannedOverwrite) -> String {
    let held = held(overwrite).unwrap_or_else(|| "an unknown number of documents".to_owned());
    let unit = if overwrite.kind == "timeseries" { "bucket" } else { "document" };
    let backup = overwrite.backup_documents.map(|documents| format!("{} of the backup", count(documents, unit)));
    let fate = match overwrite.action {
        Overwriting::Replaced => format!("replaced by {}", backup.as_deref().unwrap_or("the dump's")),
        Overwriting::Merged => format!("merged with {}", backup.as_deref().unwrap_or("the dump's")),
        Overwriting::Dropped => "not in the backup, dropped".to_owned(),
    };
    format!("{} ({held}; {fate})", plain(&overwrite.namespace.to_string()))
}

/// How much it holds, if that is known.
fn held(overwrite: &PlannedOverwrite) -> Option<String> {
    let unit = if overwrite.kind == "timeseries" { "bucket" } else { "document" };
    overwrite.documents.map(|documents| count(documents, unit))
}

/// The result of an import.
#[must_use]
pub fn done(report: &ImportReport) -> String {
    let table = if report.added.is_some() { added(report) } else { imported(report) };
    let data = match report.added {
        Some(added) => format!(
            "{} added in {}, {} existed already",
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
        text += &format!("replayed     {} oplog operations, up to {}\n", HumanCount(replayed.operations), replayed.to);
    }
    if report.passed_over > 0 {
        let documents = count(report.passed_over, "document");
        text += &format!("skipped      {documents}: an earlier document of the dump has the same _id\n");
    }
    text += &changed_ids(&report.collections);
    if report.not_added > 0 {
        let documents = count(report.not_added, "document");
        text += &format!("not added    {documents}: the _id or a unique key already exists in the target\n");
    }
    if report.overwritten > 0 {
        text += &format!(
            "overwritten  {}: the dump holds more than fit into a capped collection\n",
            count(report.overwritten, "document")
        );
    }
    if report.users + report.roles > 0 {
        text += &format!(
            "added        {}, {}; existing ones stay as they are\n",
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
        text += &format!("to undo the import in {}: bsonvault import --undo-last\n", report.target);
        text += "to drop what was kept: bsonvault import --drop-replaced; both need the same --target as this import\n";
    }
    for left_out in &report.left_out {
        text += &format!("warning: {}\n", plain(left_out));
    }
    for index in &report.skipped_indexes {
        text += &format!("skipped: index {} of {}\n", plain(&index.name), plain(&index.namespace));
    }
    if !report.skipped_indexes.is_empty() {
        text += &format!("to build them: bsonvault import {} --indexes only, with the same selection\n", report.backup);
    }
    for index in &report.failed_indexes {
        let reason = index.reason.as_deref().unwrap_or_default();
        text += &format!("failed: index {} of {}: {}\n", plain(&index.name), plain(&index.namespace), plain(reason));
    }
    text
}

/// A test restore that passed.
#[must_use]
pub fn test_restore(report: &TestRestoreReport) -> String {
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
    text + "intact: everything was restored and matches the backup; the scratch databases are dropped\n"
}

/// Each namespace of an import, and whether what was read back matches.
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
    lined_up(["namespace", "type", "documents", "size", "indexed", "reads back"], &[2, 3, 4], Room::Any, rows)
}

/// Each namespace that documents were added to, and how many. A collection that existed before is
/// not compared.
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
                if c.added.is_some() { "existed".to_owned() } else { reads_back(report, c) },
            ]
        })
    };
    let header = ["namespace", "type", "documents", "added", "existed", "indexed", "reads back"];
    lined_up(header, &[2, 3, 4, 5], Room::Any, rows)
}

fn reads_back(report: &ImportReport, c: &ImportedCollection) -> String {
    match (report.not_read_back, c.digest_matches) {
        (true, _) => "not compared".to_owned(),
        (false, true) => "the same".to_owned(),
        (false, false) => "DIFFERENT".to_owned(),
    }
}

/// What an import changed in documents, as the server would have done.
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
