//! Results as people read them. Pure: values in, whole lines out.

pub mod archive;
pub mod backup;
pub mod check;
pub mod checks;
pub mod clean;
pub mod compare;
pub mod export;
pub mod import;
pub mod lined_up;
pub mod list;
pub mod provenance;
pub mod sync;
pub mod tune;

use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanCount;

use crate::format::manifest::{CollectionKind, Source};

fn source(source: &Source) -> String {
    let set = source.replica_set.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    format!("{} (MongoDB {}, {}{set})", source.uri, source.server_version, source.topology)
}

/// The text with control characters escaped: a collection's name may hold any, and a terminal obeys
/// some.
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
        0 => count(number, "document"),
        buckets => format!("{} (of them {} of time series)", count(number, "document"), count(buckets, "bucket")),
    }
}

fn count(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", HumanCount(number))
}

/// How many entries of an oplog.
fn entries(number: u64) -> String {
    if number == 1 { "1 entry".to_owned() } else { format!("{} entries", HumanCount(number)) }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if N > 0 {
        table.set_header(header);
    }
    table
}

fn right_align(table: &mut Table, columns: &[usize]) {
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
    fn numbers_are_told_with_what_they_count() {
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
