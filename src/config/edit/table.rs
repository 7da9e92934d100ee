//! Keys in the table `[default.backup]` of `rocket.toml`.

use figment::Profile;
use figment::Provider as _;
use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map};
use toml_edit::{ImDocument, Item, TableLike};

use super::Setting;
use crate::config::ROCKET_TOML;
use crate::error::{Error, Result};

/// The text with these settings: a key that is there takes the value, others are put behind the last one of the table, which is appended where there
/// is none. All else stays as it is, byte by byte.
pub(super) fn edit(text: &str, values: &[(&Setting, String)]) -> Result<String> {
    let before = profiles(text)?;
    let mut edited = text.to_owned();
    for (setting, value) in values {
        edited = one(&edited, setting.key, value)?;
    }
    confirm(before, profiles(&edited)?, values)?;
    Ok(edited)
}

fn one(text: &str, key: &str, value: &str) -> Result<String> {
    let document = ImDocument::parse(text).map_err(|_| unreadable())?;
    let default = document.get("default");
    let backup = default.and_then(|default| default.get("backup"));
    let mut edited = text.to_owned();
    // The value itself, however it is written.
    if let Some(item) = backup.and_then(|backup| backup.get(key)) {
        let place = item.span().filter(|_| item.is_value()).ok_or_else(elsewhere)?;
        edited.replace_range(place, value);
        return Ok(edited);
    }
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let line = format!("{key} = {value}{end}");
    let Some(backup) = backup else {
        // A table of its own, if nothing forbids one.
        if default.is_some_and(|default| default.as_table().is_none_or(toml_edit::Table::is_dotted)) {
            return Err(elsewhere());
        }
        if !edited.is_empty() {
            edited.push_str(if edited.ends_with('\n') { end } else { "\n\n" });
        }
        edited.push_str(&format!("[default.backup]{end}{line}"));
        return Ok(edited);
    };
    let table = backup.as_table().filter(|table| !table.is_dotted() && !table.is_implicit()).ok_or_else(elsewhere)?;
    let header = table.span().ok_or_else(elsewhere)?;
    let last = table.iter().filter(|(_, item)| item.is_value()).filter_map(|(_, item)| last_byte(item)).max();
    let from = last.unwrap_or(header.start);
    match text[from..].find('\n') {
        Some(at) => edited.insert_str(from + at + 1, &line),
        None => {
            edited.push_str(end);
            edited.push_str(&line);
        }
    }
    Ok(edited)
}

/// Where a value ends; of a table that is written by dotted keys, the last of its values.
fn last_byte(item: &Item) -> Option<usize> {
    let own = item.span().map(|span| span.end.saturating_sub(1));
    let inner = item.as_table_like().into_iter().flat_map(TableLike::iter).filter_map(|(_, item)| last_byte(item)).max();
    own.max(inner)
}

/// Proves by the parser that reads the file that the settings are what they are to be and that everything else is what it was.
fn confirm(mut before: Map<Profile, Dict>, mut after: Map<Profile, Dict>, values: &[(&Setting, String)]) -> Result<()> {
    let mut as_wanted = true;
    for (setting, value) in values {
        let found = take(&mut after, setting.key);
        as_wanted &= found.as_ref() == Some(value);
        take(&mut before, setting.key);
    }
    // A table that holds nothing else is no change.
    let strip = |profiles: &mut Map<Profile, Dict>| {
        if let Some(default) = profiles.get_mut(&Profile::Default) {
            default.retain(|name, value| name != "backup" || value.as_dict().is_none_or(|table| !table.is_empty()));
        }
        profiles.retain(|profile, dict| *profile != Profile::Default || !dict.is_empty());
    };
    strip(&mut before);
    strip(&mut after);
    if as_wanted && before == after { Ok(()) } else { Err(elsewhere()) }
}

/// Takes a key out of `[default.backup]`, and gives what it held, as text.
fn take(profiles: &mut Map<Profile, Dict>, key: &str) -> Option<String> {
    let figment::value::Value::Dict(_, table) = profiles.get_mut(&Profile::Default)?.get_mut("backup")? else { return None };
    let value = table.remove(key)?;
    let number = value.to_i128().map(|number| number.to_string());
    number.or_else(|| value.to_bool().map(|truth| truth.to_string()))
}

/// What the parser reads. No error quotes the file, which may hold a password.
fn profiles(text: &str) -> Result<Map<Profile, Dict>> {
    Toml::string(text).nested().data().map_err(|_| unreadable())
}

fn unreadable() -> Error {
    Error::usage(format!("{ROCKET_TOML} cannot be read: it is left as it is"))
        .hint("`bsonvault check` says what is wrong with it")
}

fn elsewhere() -> Error {
    Error::usage(format!("{ROCKET_TOML} holds default.backup in a way that cannot be edited: it is left as it is"))
        .hint("write it as a table of its own, [default.backup], or use --apply=.env")
}

#[cfg(test)]
mod tests {
    use super::super::{LEVEL, LONG_DISTANCE};
    use super::*;

    fn edited(text: &str) -> Result<String> {
        edit(text, &[(&LEVEL, "-7".to_owned()), (&LONG_DISTANCE, "true".to_owned())])
    }

    #[test]
    fn keys_are_replaced_or_put_into_the_table_and_all_else_is_kept() {
        let both = "level = -7\nlong_distance = true\n";
        for (before, after) in [
            ("", format!("[default.backup]\n{both}")),
            ("[default]\nport = 1 # one\n", format!("[default]\nport = 1 # one\n\n[default.backup]\n{both}")),
            ("[default]\nport = 1", format!("[default]\nport = 1\n\n[default.backup]\n{both}")),
            ("[default.backup]", format!("[default.backup]\n{both}")),
            (
                "[default.backup] # ours\n#: level = 3\n\n[release]\nport = 2\n",
                format!("[default.backup] # ours\n{both}#: level = 3\n\n[release]\nport = 2\n"),
            ),
            (
                "[default.backup]\nlevel = 3 # three\npath = \"a\"\n# end\n\n[x]\nlevel = 1\n",
                "[default.backup]\nlevel = -7 # three\npath = \"a\"\nlong_distance = true\n# end\n\n[x]\nlevel = 1\n".to_owned(),
            ),
            (
                "[default.backup]\r\n'level' = \"3\"\r\nlong_distance=false\r\n",
                "[default.backup]\r\n'level' = -7\r\nlong_distance=true\r\n".to_owned(),
            ),
            (
                "[ default . \"backup\" ]\npath = '''\n[default.backup]\nlevel = 1\n'''\n",
                format!("[ default . \"backup\" ]\npath = '''\n[default.backup]\nlevel = 1\n'''\n{both}"),
            ),
            (
                "default.backup = { level = 1, long_distance = false }\n",
                "default.backup = { level = -7, long_distance = true }\n".to_owned(),
            ),
        ] {
            let once = edited(before).unwrap();
            assert_eq!(once, after, "of {before:?}");
            assert_eq!(edited(&once).unwrap(), once, "again");
        }
    }

    #[test]
    fn what_cannot_be_edited_is_refused_and_not_quoted() {
        for bad in [
            "secret",
            "[default.backup]\nlevel = 1\nlevel = 2\nsecret = 1\n",
            "default = { port = 1 }\n",
            "default.backup = { path = \"secret\" }\n",
            "[default]\nbackup.path = \"secret\"\n",
            "[[default.backup]]\npath = \"secret\"\n",
            "[default.backup.level]\nsecret = 1\n",
            "[default]\nbackup = 3\n",
        ] {
            let error = edited(bad).unwrap_err();
            assert!(error.exit_code() == 2 && !format!("{error:?}").contains("secret"), "{bad:?}: {error:?}");
        }
    }
}
