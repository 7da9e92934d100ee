//! Assignments in a `.env`, as the parser of `.env` reads it: values may go on over several lines where quotes are open.

use std::ops::Range;

use super::Setting;
use crate::config::DOTENV;
use crate::error::{Error, Result};

/// The text with these settings: the first assignment of each takes the value, and what has none is appended. All else stays as it is, byte by byte.
pub(super) fn edit(text: &str, values: &[(&Setting, String)]) -> Result<String> {
    let before = pairs(text)?;
    let mut edited = text.to_owned();
    for (setting, value) in values {
        // From the text as it is now: each edit moves what follows it.
        let found = assignments(&edited).into_iter().find(|assignment| assignment.name == setting.variable);
        match found {
            Some(assignment) => edited.replace_range(assignment.value.clone(), &assignment.with(value)),
            None => append(&mut edited, &format!("{}={value}", setting.variable)),
        }
    }
    confirm(&before, &pairs(&edited)?, values)?;
    Ok(edited)
}

/// Proves by the parser itself that the settings are what they are to be and that everything else is what it was.
fn confirm(before: &[(String, String)], after: &[(String, String)], values: &[(&Setting, String)]) -> Result<()> {
    let is_ours = |name: &str| values.iter().any(|(setting, _)| setting.variable == name);
    let others = |pairs: &[(String, String)]| pairs.iter().filter(|(name, _)| !is_ours(name)).cloned().collect::<Vec<_>>();
    let first = |name: &str| after.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let as_wanted = values.iter().all(|(setting, value)| first(setting.variable) == Some(value));
    if as_wanted && others(before) == others(after) {
        return Ok(());
    }
    Err(Error::usage(format!("{DOTENV} holds the settings in a way that cannot be edited without a change to something else"))
        .hint("write the lines into it by hand"))
}

/// What the parser reads. No error quotes the file, which may hold a password.
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    dotenvy::from_read_iter(text.as_bytes()).collect::<Result<_, _>>().map_err(|_| {
        Error::usage(format!("{DOTENV} cannot be read: expected NAME=VALUE on each line; it is left as it is"))
            .hint("put values with spaces, '#' or '$' in single quotes")
    })
}

struct Assignment {
    name: String,
    /// From after the equals sign and the blanks behind it to the end of the value.
    value: Range<usize>,
    /// A comment follows right behind, which a blank has to keep apart.
    comment_touches: bool,
}

impl Assignment {
    fn with(&self, value: &str) -> String {
        if self.comment_touches { format!("{value} ") } else { value.to_owned() }
    }
}

fn append(text: &mut String, line: &str) {
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push_str(end);
    }
    text.push_str(line);
    text.push_str(end);
}

/// Where the parser is within a line that may go on in the next one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Plain,
    Blank,
    Escape,
    Quotes { mark: char, escaped: bool },
}

/// Every assignment, in order.
fn assignments(text: &str) -> Vec<Assignment> {
    let mut found = Vec::new();
    let mut begin = 0;
    while begin < text.len() {
        let (end, comment) = line(text, begin);
        found.extend(assignment(text, begin..end, comment));
        begin = end;
    }
    found
}

/// Where the line that begins here ends, after its line feed, and where a comment in it begins.
fn line(text: &str, begin: usize) -> (usize, Option<usize>) {
    let rest = &text[begin..];
    let end_of_line = |from: usize| text[from..].find('\n').map_or(text.len(), |at| from + at + 1);
    if rest.trim_start_matches([' ', '\t', '\r']).starts_with('#') {
        return (end_of_line(begin), Some(begin));
    }
    let mut within = Within::Plain;
    for (at, c) in rest.char_indices() {
        within = match (within, c) {
            (Within::Blank, '#') => return (end_of_line(begin + at), Some(begin + at)),
            (Within::Plain, c) if c.is_whitespace() && c != '\n' && c != '\r' => Within::Blank,
            (Within::Plain | Within::Blank, '\\') => Within::Escape,
            (Within::Plain | Within::Blank, mark @ ('"' | '\'')) => Within::Quotes { mark, escaped: false },
            (Within::Plain | Within::Blank | Within::Escape, _) => Within::Plain,
            (Within::Quotes { mark, escaped: true }, _) => Within::Quotes { mark, escaped: false },
            (Within::Quotes { mark, .. }, '\\') => Within::Quotes { mark, escaped: true },
            (Within::Quotes { mark, .. }, c) if c == mark => Within::Plain,
            (quotes, _) => quotes,
        };
        if c == '\n' && within == Within::Plain {
            return (begin + at + 1, None);
        }
    }
    (text.len(), None)
}

/// Where the first blank stands that is neither in quotes nor escaped: a value ends there, whatever follows.
fn unquoted_blank(text: &str) -> usize {
    let (mut mark, mut escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match (mark, c) {
            _ if escaped => escaped = false,
            (None | Some('"'), '\\') => escaped = true,
            (None, '"' | '\'') => mark = Some(c),
            (Some(open), c) if open == c => mark = None,
            (None, c) if c.is_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

fn assignment(text: &str, line: Range<usize>, comment: Option<usize>) -> Option<Assignment> {
    let whole = &text[line.clone()];
    let skip = |from: usize| whole.len() - whole[from..].trim_start().len();
    let name_at = |from: usize| {
        let length = whole[from..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
        from..length.map_or(whole.len(), |length| from + length)
    };
    let mut name = name_at(skip(0));
    let mut at = skip(name.end);
    if &whole[name.clone()] == "export" && !whole[at..].starts_with('=') {
        name = name_at(at);
        at = skip(name.end);
    }
    if name.is_empty() || !whole[at..].starts_with('=') {
        return None;
    }
    // Blanks behind the equals sign stay, but not the end of the line.
    let behind = &whole[at + 1..];
    let from = whole.len() - behind.trim_start_matches(|c: char| c.is_whitespace() && c != '\n' && c != '\r').len();
    let direct = whole[from..].starts_with('#').then_some(from);
    let until = direct.or(comment.map(|at| at - line.start).filter(|at| *at >= from)).unwrap_or(whole.len());
    let until = until.min(from + unquoted_blank(&whole[from..]));
    let value = from..from + whole[from..until].trim_end().len();
    let comment_touches = value.end < whole.len() && whole[value.end..].starts_with('#');
    let name = whole[name].to_owned();
    Some(Assignment { name, value: line.start + value.start..line.start + value.end, comment_touches })
}

#[cfg(test)]
mod tests {
    use super::super::{LEVEL, READERS};
    use super::*;

    fn edited(text: &str) -> Result<String> {
        edit(text, &[(&LEVEL, "7".to_owned()), (&READERS, "2".to_owned())])
    }

    #[test]
    fn the_first_assignment_is_replaced_and_all_else_is_kept() {
        for (before, after) in [
            ("", "BACKUP_LEVEL=7\nBACKUP_READERS=2\n"),
            ("A=1", "A=1\nBACKUP_LEVEL=7\nBACKUP_READERS=2\n"),
            ("A=1\r\nBACKUP_READERS=4\r\n", "A=1\r\nBACKUP_READERS=2\r\nBACKUP_LEVEL=7\r\n"),
            ("# BACKUP_LEVEL=1\n#BACKUP_READERS=1\n", "# BACKUP_LEVEL=1\n#BACKUP_READERS=1\nBACKUP_LEVEL=7\nBACKUP_READERS=2\n"),
            ("BACKUP_LEVEL=1\nBACKUP_LEVEL=3\nBACKUP_READERS=1", "BACKUP_LEVEL=7\nBACKUP_LEVEL=3\nBACKUP_READERS=2"),
            ("export BACKUP_LEVEL=1\n  BACKUP_READERS =  5 \n", "export BACKUP_LEVEL=7\n  BACKUP_READERS =  2 \n"),
            ("BACKUP_LEVEL=\nBACKUP_READERS=\r\n", "BACKUP_LEVEL=7\nBACKUP_READERS=2\r\n"),
            ("BACKUP_LEVEL='1' # why\nBACKUP_READERS=# none\n", "BACKUP_LEVEL=7 # why\nBACKUP_READERS=2 # none\n"),
            (
                "BACKUP_LEVEL=3  # agreed with ops\nBACKUP_READERS=1 \t # too\n",
                "BACKUP_LEVEL=7  # agreed with ops\nBACKUP_READERS=2 \t # too\n",
            ),
            ("BACKUP_LEVEL=\"1\"\nBACKUP_READERS=1#2\n", "BACKUP_LEVEL=7\nBACKUP_READERS=2\n"),
            (
                "URI='mongodb://u:a\nBACKUP_LEVEL=1\n'\nNOTE=\"x\\\"\nBACKUP_READERS=9\"\n",
                "URI='mongodb://u:a\nBACKUP_LEVEL=1\n'\nNOTE=\"x\\\"\nBACKUP_READERS=9\"\nBACKUP_LEVEL=7\nBACKUP_READERS=2\n",
            ),
            ("BACKUP_LEVEL='1\n2'\nBACKUP_READERS=3\n", "BACKUP_LEVEL=7\nBACKUP_READERS=2\n"),
            ("\n\n  \nÜ=1\n", ""),
            (
                "export=1\nexport = 2\nBACKUP_LEVELS=3\nXBACKUP_LEVEL=4\n",
                "export=1\nexport = 2\nBACKUP_LEVELS=3\nXBACKUP_LEVEL=4\nBACKUP_LEVEL=7\nBACKUP_READERS=2\n",
            ),
            ("A=b\\ c # d\nBACKUP_LEVEL=1 #x\nBACKUP_READERS=1\n", "A=b\\ c # d\nBACKUP_LEVEL=7 #x\nBACKUP_READERS=2\n"),
        ] {
            if after.is_empty() {
                assert!(edited(before).is_err(), "{before:?}");
                continue;
            }
            let once = edited(before).unwrap();
            assert_eq!(once, after, "of {before:?}");
            assert_eq!(edited(&once).unwrap(), once, "again");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_not_quoted() {
        for bad in ["secret\n", "A='secret\n", "A=secret word\n", "\u{feff}A=secret\n", "1=secret\n"] {
            let error = edited(bad).unwrap_err();
            assert!(error.exit_code() == 2 && !format!("{error:?}").contains("secret"), "{bad:?}: {error:?}");
        }
    }

    #[test]
    fn a_setting_that_others_are_made_of_is_not_changed_behind_their_back() {
        let error = edited("BACKUP_LEVEL=1\nNAME=level-${BACKUP_LEVEL}\n").unwrap_err();
        assert!(error.to_string().contains("without a change to something else"), "{error}");
        assert!(edited("BACKUP_LEVEL=7\nNAME=level-${BACKUP_LEVEL}\n").is_ok());
    }
}
