//! The list of backups: all columns if they fit, else the ones that matter, by source and
//! selection.

use chrono::{DateTime, Utc};
use indicatif::{BinaryBytes, HumanCount};

use super::lined_up::{Room, lined_up, middle};
use super::{checks, count, plain, provenance};
use crate::format::checks::Checks;
use crate::format::manifest::Consistency;
use crate::repository::catalog::{Provenance, State, Summary};

/// The columns that are shown if not all fit.
const FEW: [&str; 7] = ["name", "state", "created", "documents", "stored", "consistency", "verified"];

/// The backups of a path.
#[must_use]
pub fn list(location: &str, backups: &[Summary], now: DateTime<Utc>, room: Room) -> String {
    if backups.is_empty() {
        return format!("no backups in {location}\n");
    }
    let whole = every_column(backups, now);
    let table = if room.fits(width(&whole)) { whole } else { by_group(backups, room) };
    format!("{table}\n{}", notes(backups))
}

fn every_column(backups: &[Summary], now: DateTime<Utc>) -> String {
    let header = ["name", "state", "created", "documents", "size", "stored", "consistency", "verified", "source", "selection"];
    lined_up(header, &[3, 4, 5], Room::Any, || {
        backups.iter().map(|backup| {
            let created = backup.created().map(|t| t.format("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default();
            let none = String::new;
            let [documents, size, stored, consistency, verified, source, selection] = match &backup.state {
                State::Complete(manifest) => {
                    let of = Provenance::of(manifest);
                    [
                        HumanCount(manifest.totals.documents).to_string(),
                        BinaryBytes(manifest.totals.raw_bytes).to_string(),
                        BinaryBytes(manifest.totals.stored_bytes).to_string(),
                        verdict(&manifest.consistency),
                        backup.checks.as_ref().map(|checks| checks::cell(checks, now)).unwrap_or_default(),
                        provenance::source(&of.source),
                        provenance::selection(&of.selection),
                    ]
                }
                State::Running(progress) => {
                    let documents = HumanCount(progress.documents).to_string();
                    let size = BinaryBytes(progress.raw_bytes).to_string();
                    [documents, size, none(), none(), none(), none(), none()]
                }
                State::Incomplete | State::Damaged(_) => std::array::from_fn(|_| none()),
            };
            let (name, state) = (backup.name.to_string(), backup.state.label().to_owned());
            [name, state, created, documents, size, stored, consistency, verified, source, selection]
        })
    })
}

/// A table for each source and selection, below a line that names them.
fn by_group(backups: &[Summary], room: Room) -> String {
    let mut groups: Vec<(String, Vec<&Summary>)> = Vec::new();
    for backup in backups {
        let heading = match &backup.state {
            State::Complete(manifest) => provenance::line(&Provenance::of(manifest)),
            _ => "not complete".to_owned(),
        };
        match groups.iter_mut().find(|(of, _)| *of == heading) {
            Some((_, members)) => members.push(backup),
            None => groups.push((heading, vec![backup])),
        }
    }
    let tables = groups.iter().map(|(heading, members)| {
        let heading = match room {
            Room::Columns(columns) => middle(heading, columns),
            Room::Any => heading.clone(),
        };
        format!("{heading}\n{}", few_columns(members, room))
    });
    tables.collect::<Vec<_>>().join("\n\n")
}

/// As many columns as fit: when it shows the source and how many documents are dropped first.
fn few_columns(backups: &[&Summary], room: Room) -> String {
    let rows = || backups.iter().map(|backup| few(backup));
    let with_created = || lined_up(FEW, &[3, 4], Room::Any, rows);
    let with_documents = || {
        let rows = || {
            rows().map(|[name, state, _, documents, stored, consistency, verified]| {
                [name, state, documents, stored, consistency, verified]
            })
        };
        let [name, state, _, documents, stored, consistency, verified] = FEW;
        lined_up([name, state, documents, stored, consistency, verified], &[2, 3], Room::Any, rows)
    };
    let fits = |table: &String| room.fits(width(table));
    Some(with_created()).filter(fits).or_else(|| Some(with_documents()).filter(fits)).unwrap_or_else(|| {
        let rows =
            || rows().map(|[name, state, _, _, stored, consistency, verified]| [name, state, stored, consistency, verified]);
        let [name, state, _, _, stored, consistency, verified] = FEW;
        lined_up([name, state, stored, consistency, verified], &[2], room, rows)
    })
}

fn few(backup: &Summary) -> [String; 7] {
    let created = backup.created().map(|t| t.format("%Y-%m-%d %H:%M").to_string()).unwrap_or_default();
    let [documents, stored, consistency, verified] = match &backup.state {
        State::Complete(manifest) => [
            HumanCount(manifest.totals.documents).to_string(),
            short(manifest.totals.stored_bytes),
            marked(&manifest.consistency),
            backup.checks.as_ref().map(word).unwrap_or_default().to_owned(),
        ],
        State::Running(progress) => [HumanCount(progress.documents).to_string(), String::new(), String::new(), String::new()],
        State::Incomplete | State::Damaged(_) => Default::default(),
    };
    [backup.name.to_string(), backup.state.label().to_owned(), created, documents, stored, consistency, verified]
}

/// How wide the widest line is.
fn width(table: &str) -> usize {
    table.lines().map(console::measure_text_width).max().unwrap_or_default()
}

/// What there is to say of single backups, a line each.
fn notes(backups: &[Summary]) -> String {
    let mut text = String::new();
    for backup in backups {
        match &backup.state {
            State::Incomplete if backup.resumable => {
                text += &format!("{} can be resumed: bsonvault backup --resume {}\n", backup.name, backup.name);
            }
            State::Damaged(reason) => text += &format!("warning: {}: {}\n", backup.name, plain(reason)),
            State::Complete(_) | State::Running(_) | State::Incomplete => {}
        }
    }
    text
}

/// How the last check ended, in a word.
fn word(checks: &Checks) -> &'static str {
    match checks.verdict().map(|check| check.passed) {
        None => "never",
        Some(true) => "passed",
        Some(false) => "FAILED",
    }
}

fn verdict(consistency: &Consistency) -> String {
    match consistency.exceptions.len() {
        0 => consistency.kind.to_string(),
        n => format!("{}, {}", consistency.kind, count(n as u64, "exception")),
    }
}

/// The same in short: `snapshot*`.
fn marked(consistency: &Consistency) -> String {
    let mark = if consistency.exceptions.is_empty() { "" } else { "*" };
    format!("{}{mark}", consistency.kind)
}

/// Bytes in three digits: `1.20 GiB`, `310 MiB`.
fn short(bytes: u64) -> String {
    let text = BinaryBytes(bytes).to_string();
    match text.split_once(' ').and_then(|(number, unit)| Some((number.parse::<f64>().ok()?, unit))) {
        Some((number, unit)) if number >= 100.0 => format!("{number:.0} {unit}"),
        Some((number, unit)) if number >= 10.0 && unit != "B" => format!("{number:.1} {unit}"),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_in_three_digits() {
        let told = [0, 12, 1023, 5 << 10, 325_000_000, (1 << 40) + (1 << 38)].map(short);
        assert_eq!(told, ["0 B", "12 B", "1023 B", "5.00 KiB", "310 MiB", "1.25 TiB"]);
    }
}
