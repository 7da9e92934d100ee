//! What the pages are written with.

/// Characters of a line of prose.
const LINE: usize = 100;

/// A row of a table.
pub(super) fn row(cells: &[&str]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

/// A paragraph in lines of a hundred characters, unless a word is longer.
pub(super) fn wrapped(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= LINE => {
                line.push(' ');
                *line += word;
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// Text as a cell of a table, all of it as it is: no character means anything to Markdown.
pub(super) fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    let mut in_code = false;
    for c in text.trim().chars() {
        match c {
            '`' => in_code = !in_code,
            '|' => cell.push('\\'),
            '*' | '<' | '>' | '[' | ']' if !in_code => cell.push('\\'),
            _ => {}
        }
        cell.push(if c == '\n' { ' ' } else { c });
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_is_wrapped_between_words() {
        let text = wrapped(&format!("{} {} {}\n c", "a".repeat(60), "b".repeat(39), "d".repeat(120)));
        assert_eq!(text, format!("{} {}\n{}\nc", "a".repeat(60), "b".repeat(39), "d".repeat(120)));
    }

    #[test]
    fn a_cell_means_nothing_but_itself() {
        assert_eq!(cell("a|b *.c [x]\n<y> `*|`"), "a\\|b \\*.c \\[x\\] \\<y\\> `*\\|`");
    }
}
