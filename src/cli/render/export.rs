//! Renders the results of exports and dumps.

use indicatif::BinaryBytes;

use super::backup::warnings;
use super::{count, documents, entries, plain};
use crate::engine::export::ExportReport;
use crate::format::manifest::Manifest;

/// The result of an export.
#[must_use]
pub fn export(report: &ExportReport) -> String {
    format!("backup       {}\n{}", report.backup, exported(report))
}

/// The result of a dump.
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
            "oplog        {}, up to {}\n\
             The documents were read at different times. Only `mongorestore --oplogReplay` restores them as of one time.\n",
            entries(oplog.entries),
            oplog.to,
        );
    }
    text
}
