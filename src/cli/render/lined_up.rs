//! Tables of any length, written row by row, that fit a terminal.

use console::measure_text_width;

/// What stands between two columns.
const GAP: &str = "  ";
/// A name is not cut to less than this.
const SHORTEST: usize = 12;
/// What stands for the middle of a name that was cut.
const CUT: &str = "…";

/// How wide a line may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// As wide as its content.
    Any,
    /// At most this many columns of a terminal.
    Columns(usize),
}

impl Room {
    /// The room that standard output has: what `COLUMNS` says, else the width of the terminal. A
    /// file or a pipe has any room.
    #[must_use]
    pub fn of_stdout() -> Self {
        let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.trim().parse().ok());
        let terminal = || console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
        told.filter(|columns| *columns > 0).or_else(terminal).map_or(Self::Any, Self::Columns)
    }

    /// Whether a line of this width fits.
    #[must_use]
    pub fn fits(self, width: usize) -> bool {
        match self {
            Self::Any => true,
            Self::Columns(columns) => width <= columns,
        }
    }
}

/// A table with this header. The rows are asked for twice. Columns with these numbers are aligned
/// to the right. If it does not fit into the room, the names in the first column are cut so that it
/// does.
pub(super) fn lined_up<const N: usize, I: Iterator<Item = [String; N]>>(
    header: [&str; N],
    right: &[usize],
    room: Room,
    rows: impl Fn() -> I,
) -> String {
    let mut widths = header.map(measure_text_width);
    for row in rows() {
        widths.iter_mut().zip(&row).for_each(|(width, cell)| *width = measure_text_width(cell).max(*width));
    }
    if let (Room::Columns(columns), [first, others @ ..]) = (room, widths.as_mut_slice()) {
        let left = columns.saturating_sub(others.iter().map(|width| width + GAP.len()).sum());
        // A name is not cut in vain: if the other columns leave no room for it, it stays whole.
        *first = if left < SHORTEST { *first } else { left.min(*first) };
    }
    let mut text = line(&header.map(str::to_owned), &widths, right);
    for row in rows() {
        text.push('\n');
        text += &line(&row, &widths, right);
    }
    text
}

fn line(cells: &[String], widths: &[usize], right: &[usize]) -> String {
    let mut line = String::new();
    for (number, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let cell = middle(cell, *width);
        let space = " ".repeat(width.saturating_sub(measure_text_width(&cell)));
        if number > 0 {
            line += GAP;
        }
        line += &if right.contains(&number) { space + &cell } else { cell + &space };
    }
    line.truncate(line.trim_end().len());
    line
}

/// The text in this width. If it is wider, its middle is cut: both ends of a name tell it apart.
pub(super) fn middle(text: &str, width: usize) -> String {
    if measure_text_width(text) <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let end: String = taken(text.chars().rev(), kept / 2).chars().rev().collect();
    taken(text.chars(), kept - measure_text_width(&end)) + CUT + &end
}

/// As many of these characters as fit into the width.
fn taken(characters: impl Iterator<Item = char>, width: usize) -> String {
    let mut left = width;
    characters
        .take_while(|c| {
            let wide = measure_text_width(c.encode_utf8(&mut [0; 4]));
            let fits = wide <= left;
            left -= if fits { wide } else { 0 };
            fits
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(room: Room) -> String {
        let names = ["a.b", "shop.a_collection_with_a_very_long_name_of_orders", "日本.語日本語日本語日本語日本語日本語"];
        let rows = || names.iter().map(|name| [(*name).to_owned(), "1,000".to_owned(), "view".to_owned()]);
        lined_up(["namespace", "n", "type"], &[1], room, rows)
    }

    #[test]
    fn a_table_lines_up_and_fits_the_room() {
        let whole = table(Room::Any);
        let lines: Vec<&str> = whole.lines().collect();
        assert_eq!(lines[0], format!("{:49}      n  type", "namespace"));
        assert_eq!(lines[1], format!("{:49}  1,000  view", "a.b"));
        let narrow = table(Room::Columns(40));
        for line in narrow.lines() {
            assert!(measure_text_width(line) <= 40, "{line}");
        }
        assert!(narrow.contains("shop.a_collec…ame_of_orders  1,000  view"), "{narrow}");
        assert_eq!(table(Room::Columns(20)), whole, "cutting would not make it fit");
    }

    #[test]
    fn a_name_is_cut_in_its_middle_and_never_within_a_character() {
        assert_eq!(middle("abcdef", 6), "abcdef");
        assert_eq!(middle("abcdefg", 6), "abc…fg");
        assert_eq!((middle("日本語日本語", 7), middle("日本語日本語", 6)), ("日本…語".to_owned(), "日…語".to_owned()));
        assert_eq!((middle("abc", 1), middle("abc", 0)), ("…".to_owned(), "…".to_owned()));
    }
}
