//! Renders the results of `verify` and `check`.

use indicatif::BinaryBytes;

use super::{count, documents, plain, table};
use crate::engine::check::{CheckReport, Status};
use crate::engine::verify::{Problem, VerifyReport};
use crate::engine::verify_archive::VerifyArchiveReport;

/// The result of a verification.
#[must_use]
pub fn verify(report: &VerifyReport) -> String {
    let mut text = format!("backup       {}\npath         {}\n", report.name, report.path);
    text += &format!("checked      {}, {}", count(report.objects, "object"), BinaryBytes(report.stored_bytes));
    if report.deep {
        text += &format!(", {}", documents(report.documents, report.buckets.min(report.documents)));
    }
    text += "\n";
    text += &findings(&report.problems, &report.notes);
    if report.problems.is_empty() {
        text += if report.deep {
            "intact: every file is as it was written, and every document as it was read\n"
        } else {
            "intact: every file is as it was written (--deep also decodes the documents)\n"
        };
    }
    text
}

fn findings(problems: &[Problem], notes: &[String]) -> String {
    let mut text = String::new();
    for problem in problems {
        // Most messages already name the object.
        let key = if problem.key.is_empty() || problem.message.contains(&problem.key) {
            String::new()
        } else {
            format!("{}: ", problem.key)
        };
        text += &format!("problem: {key}{}\n", problem.message);
    }
    for note in notes {
        text += &format!("note: {note}\n");
    }
    text
}

/// The result of verifying an archived oplog.
#[must_use]
pub fn archive(report: &VerifyArchiveReport) -> String {
    let mut text = format!("archive      {}\npath         {}\n", report.replica_set_id, plain(&report.path));
    let (links, pieces) = (count(report.links, "link"), count(report.pieces, "piece"));
    let (objects, bytes) = (count(report.objects, "object"), BinaryBytes(report.stored_bytes));
    text += &format!("checked      {links}, {pieces}: {objects}, {bytes}");
    if report.deep {
        text += &format!(", {}", if report.entries == 1 { "1 entry".to_owned() } else { format!("{} entries", report.entries) });
    }
    text += "\n";
    text += &findings(&report.problems, &report.notes);
    if report.is_sound() {
        text += if report.deep {
            "intact: every file is as it was written, every entry as it was read, and none is missing\n"
        } else {
            "intact: every file is as it was written, and none is missing (--deep also decodes the entries)\n"
        };
    }
    text
}

/// The result of a check.
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
