//! Tables of any length: what a table of the library keeps of each row takes many times its text, so long ones are made of short ones that are equally wide.

use comfy_table::{ColumnConstraint, Row, Table, Width};

use super::{right_align, table};

/// The rows of a part.
const PART: usize = 1_000;
/// What the library's own columns have at their sides.
const PADDING: u16 = 2;

/// A table with this header and these rows, which are asked for twice; the columns of these numbers are aligned to the right.
pub(super) fn lined_up<const N: usize, I: Iterator<Item = [String; N]>>(
    header: [&str; N],
    right: &[usize],
    rows: impl Fn() -> I,
) -> String {
    let mut widths = [0; N];
    for part in parts(rows()) {
        let of_part = filled(table(header), part).column_max_content_widths();
        widths.iter_mut().zip(of_part).for_each(|(width, of_part)| *width = of_part.max(*width));
    }
    let mut text = String::new();
    for (number, part) in parts(rows()).enumerate() {
        let empty = if number == 0 { table(header) } else { table([]) };
        let mut table = filled(empty, part);
        right_align(&mut table, right);
        for (column, width) in widths.iter().enumerate() {
            if let Some(column) = table.column_mut(column) {
                column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width.saturating_add(PADDING))));
            }
        }
        text += &if number == 0 { table.to_string() } else { format!("\n{table}") };
    }
    text
}

/// The rows, so many at a time; one empty part where there are none.
fn parts<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> impl Iterator<Item = Vec<Row>> {
    let mut rows = rows.map(Row::from).peekable();
    let mut first = true;
    std::iter::from_fn(move || {
        let is_part = std::mem::take(&mut first) || rows.peek().is_some();
        is_part.then(|| rows.by_ref().take(PART).collect())
    })
}

fn filled(mut table: Table, rows: Vec<Row>) -> Table {
    table.add_rows(rows);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_parts_reads_as_a_whole_one() {
        for count in [0, 1, PART, PART + 1, 3 * PART + 7] {
            let rows = || {
                (0..count).map(|n| {
                    [format!("name {}", n * n), n.to_string(), if n % 700 == 3 { "ü long one".into() } else { String::new() }]
                })
            };
            let mut whole = table(["name", "number", "rare"]);
            whole.add_rows(rows());
            right_align(&mut whole, &[1]);
            assert!(lined_up(["name", "number", "rare"], &[1], rows) == whole.to_string(), "{count} rows");
        }
    }
}
