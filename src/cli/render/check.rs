//! Renders the results of `verify` and `check`.

use indicatif::BinaryBytes;

use super::{count, documents, table};
use crate::engine::check::{CheckReport, Status};
use crate::engine::verify::VerifyReport;

/// The result of a verification.
#[must_use]
pub fn verify(report: &VerifyReport) -> String {
    let mut text = format!("backup       {}\npath         {}\n", report.name, report.path);
    text += &format!("checked      {}, {}", count(report.objects, "object"), BinaryBytes(report.stored_bytes));
    if report.deep {
        text += &format!(", {}", documents(report.documents, report.buckets.min(report.documents)));
    }
    text += "\n";
    for problem in &report.problems {
        // Most messages already name the object.
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
            "intact: every file is as it was written, and every document as it was read\n"
        } else {
            "intact: every file is as it was written (--deep also decodes the documents)\n"
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
