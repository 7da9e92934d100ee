//! The settings of `sync`.

use std::time::Duration;

use figment::Figment;

use super::origin::place;
use super::settings::{SYNC_DELAY, SYNC_ENABLED, SYNC_EXCLUDE, SYNC_INCLUDE, SYNC_MODE, SYNC_PROOF, SYNC_RENAME, Setting};
use super::values::{duration, parsed, text, truth};
use crate::engine::import::ImportMode;
use crate::engine::sync::PROOF;
use crate::error::{Error, Result};
use crate::names::{NamespaceFilter, NamespacePattern, NamespaceRename};

/// Whether and how the target follows the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncSettings {
    /// Whether the service follows from its start.
    pub enabled: bool,
    /// How far the target stays behind on purpose.
    pub delay: Option<Duration>,
    /// How often the target is proven; never by itself if `None`.
    pub proof: Option<Duration>,
    /// What happens to what exists in the target when the service makes the first copy.
    pub mode: ImportMode,
    /// What the service follows.
    pub filter: NamespaceFilter,
    /// Under which names.
    pub renames: Vec<NamespaceRename>,
}

impl SyncSettings {
    pub(super) fn read(settings: &Figment) -> Result<Self> {
        Ok(Self {
            enabled: truth(settings, &SYNC_ENABLED)?.unwrap_or_default(),
            delay: parsed(settings, &SYNC_DELAY, duration)?,
            proof: parsed(settings, &SYNC_PROOF, proof)?.unwrap_or(Some(PROOF)),
            mode: parsed(settings, &SYNC_MODE, mode)?.unwrap_or(ImportMode::Fail),
            filter: NamespaceFilter {
                databases: Vec::new(),
                include: list(settings, &SYNC_INCLUDE, NamespacePattern::parse)?,
                exclude: list(settings, &SYNC_EXCLUDE, NamespacePattern::parse)?,
            },
            renames: list(settings, &SYNC_RENAME, NamespaceRename::parse)?,
        })
    }
}

fn proof(text: &str) -> Result<Option<Duration>> {
    match text.trim().to_ascii_lowercase().as_str() {
        "off" => Ok(None),
        _ => duration(text).map(Some).map_err(|e| e.hint_too("or say off")),
    }
}

fn mode(text: &str) -> Result<ImportMode> {
    match text.trim().to_ascii_lowercase().as_str() {
        "fail" => Ok(ImportMode::Fail),
        "replace" => Ok(ImportMode::Replace),
        _ => Err(Error::usage(format!("found {text:?}: expected fail or replace"))),
    }
}

/// The entries of a list. An error names the one that is wrong.
fn list<T>(settings: &Figment, setting: &Setting, parse: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    let Some((text, origin)) = text(settings, setting)? else { return Ok(Vec::new()) };
    let entries = entries(&text).into_iter().enumerate();
    let parsed = entries.map(|(at, entry)| {
        let parsed = match entry.trim() {
            "" => Err(Error::usage("it is empty").hint(r"remove the comma too many; a comma in a name is written \,")),
            // Its place says what it is.
            entry => parse(entry).map_err(|e| e.reworded("[[rename]] ", "")),
        };
        parsed.map_err(|e| e.context(format!("entry {} of {}", at + 1, place(setting, origin))))
    });
    parsed.collect()
}

/// What is between the commas. One behind a backslash is part of a name.
fn entries(text: &str) -> Vec<&str> {
    let (mut entries, mut begin, mut is_escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            ',' if !is_escaped => {
                entries.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    entries.push(&text[begin..]);
    entries
}

#[cfg(test)]
mod tests {
    use super::entries;

    #[test]
    fn commas_separate_entries_unless_a_backslash_is_before_them() {
        for (text, wanted) in [
            ("shop.*", vec!["shop.*"]),
            ("shop.a, shop.b", vec!["shop.a", " shop.b"]),
            (r"shop.a\,b,shop.c", vec![r"shop.a\,b", "shop.c"]),
            (r"shop.a\\,shop.c", vec![r"shop.a\\", "shop.c"]),
            ("shop.a,", vec!["shop.a", ""]),
        ] {
            assert_eq!(entries(text), wanted, "{text}");
        }
    }
}
