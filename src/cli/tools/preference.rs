//! `--readPreference`: a mode, or a JSON object, as the options of a URI.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::mongo::uri::amend::{Addition, When};

const MODES: [&str; 5] = ["primary", "primaryPreferred", "secondary", "secondaryPreferred", "nearest"];

/// The options of a URI that say the same.
///
/// # Errors
/// [`ErrorKind::Usage`](crate::error::ErrorKind::Usage) where it is not understood.
pub(super) fn options(text: &str) -> Result<Vec<Addition>> {
    let add = |option, value| Addition { option, value, flag: "--readPreference", when: When::Always };
    if !text.trim_start().starts_with('{') {
        return Ok(vec![add("readPreference", mode(text.trim())?)]);
    }
    let object: Value = serde_json::from_str(text).map_err(|e| refused(&format!("is no JSON: {e}")).cause(e))?;
    let Value::Object(fields) = object else { return Err(refused("is no JSON object")) };
    let mut options = Vec::new();
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("mode", Value::String(text)) => options.push(add("readPreference", mode(&text)?)),
            ("tagSets", Value::Array(sets)) => {
                for set in sets {
                    options.push(add("readPreferenceTags", tags(&set)?));
                }
            }
            ("maxStalenessSeconds", Value::Number(seconds)) => options.push(add("maxStalenessSeconds", seconds.to_string())),
            (name, _) => return Err(refused(&format!("has {name:?}, or not as it is expected"))),
        }
    }
    if !options.iter().any(|option| option.option == "readPreference") {
        return Err(refused("names no mode"));
    }
    Ok(options)
}

fn mode(text: &str) -> Result<String> {
    let found = MODES.iter().find(|mode| mode.eq_ignore_ascii_case(text));
    found.map(|&mode| mode.to_owned()).ok_or_else(|| refused(&format!("names the mode {text:?}, which there is not")))
}

fn tags(set: &Value) -> Result<String> {
    let Value::Object(tags) = set else { return Err(refused("has a tag set that is no object")) };
    let text = |(name, value): (&String, &Value)| match value {
        Value::String(value) if ![name, value].iter().any(|t| t.contains([',', ':'])) => Ok(format!("{name}:{value}")),
        _ => Err(refused("has a tag that is not text without commas and colons")),
    };
    Ok(tags.iter().map(text).collect::<Result<Vec<_>>>()?.join(","))
}

fn refused(what: &str) -> Error {
    Error::usage(format!("--readPreference {what}")).hint(
        "it is one of primary, primaryPreferred, secondary, secondaryPreferred, nearest, or an object such as \
         {\"mode\": \"secondary\", \"tagSets\": [{\"dc\": \"east\"}], \"maxStalenessSeconds\": 120}",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(&'static str, String)> {
        options(text).unwrap().into_iter().map(|o| (o.option, o.value)).collect()
    }

    #[test]
    fn modes_and_objects_become_options() {
        assert_eq!(of("secondarypreferred"), [("readPreference", "secondaryPreferred".to_owned())]);
        let object = r#"{"mode": "nearest", "tagSets": [{"dc": "east", "use": "backup"}, {}], "maxStalenessSeconds": 120}"#;
        let mut options = of(object);
        options.sort();
        let text = |text: &str| text.to_owned();
        assert_eq!(
            options,
            [
                ("maxStalenessSeconds", text("120")),
                ("readPreference", text("nearest")),
                ("readPreferenceTags", text("")),
                ("readPreferenceTags", text("dc:east,use:backup")),
            ]
        );
        for bad in ["", "second", "{", "{}", r#"{"mode": "nearest", "hedge": {}}"#, r#"{"mode": 1}"#] {
            assert_eq!(options_of(bad), Some(2), "{bad}");
        }
    }

    fn options_of(text: &str) -> Option<u8> {
        options(text).err().map(|e| e.exit_code())
    }
}
