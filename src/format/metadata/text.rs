//! Canonical Extended JSON as text, in the document's order of fields: the order of an index's keys
//! matters.

use bson::{Bson, Document, RawDocument};

use crate::format::document::{Element, Elements, Writer};
use crate::format::kind;

/// The deepest JSON to write. Readers refuse deeper ones: `serde_json` at 128 levels, including
/// those of the file.
const MAX_DEPTH: usize = 100;

/// The keys that make a JSON object a value of another type, in this or an older version of
/// Extended JSON.
const MARKS: &str = "
    $binary $code $date $dbPointer $maxKey $minKey $numberDecimal $numberDouble $numberInt $numberLong $oid
    $regularExpression $scope $symbol $timestamp $undefined $uuid";

/// The document on one line. `None` if it holds what JSON cannot: text that is not UTF-8, or more
/// levels than readers accept.
#[must_use]
pub fn canonical(document: &RawDocument) -> Option<String> {
    let mut text = String::new();
    object(document.as_bytes(), 0, &mut text)?;
    Some(text)
}

/// Whether a reader of the text gets the same document: no name occurs twice, and nothing in it
/// looks like Extended JSON's notation for something else.
#[must_use]
pub fn is_faithful(document: &RawDocument) -> bool {
    canonical(document).is_some() && is_plain(document.as_bytes()) == Some(true)
}

fn object(document: &[u8], depth: usize, text: &mut String) -> Option<()> {
    text.push('{');
    for (number, element) in Elements::of(document).ok()?.enumerate() {
        let element = element.ok()?;
        if number > 0 {
            text.push(',');
        }
        quoted(std::str::from_utf8(element.name).ok()?, text)?;
        text.push(':');
        value(element, depth, text)?;
    }
    text.push('}');
    Some(())
}

fn value(element: Element<'_>, depth: usize, text: &mut String) -> Option<()> {
    if depth >= MAX_DEPTH {
        return None;
    }
    let Element { kind, value: bytes, .. } = element;
    match kind {
        kind::DOCUMENT => object(bytes, depth + 1, text),
        kind::ARRAY => {
            text.push('[');
            for (number, element) in Elements::of(bytes).ok()?.enumerate() {
                if number > 0 {
                    text.push(',');
                }
                value(element.ok()?, depth + 1, text)?;
            }
            text.push(']');
            Some(())
        }
        // int32 total, string (int32 length, bytes, NUL), document
        kind::SCOPED_CODE => {
            let length = usize::try_from(i32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?)).ok()?;
            let code = bytes.get(8..8 + length.checked_sub(1)?)?;
            text.push_str("{\"$code\":");
            quoted(std::str::from_utf8(code).ok()?, text)?;
            text.push_str(",\"$scope\":");
            object(bytes.get(8 + length..)?, depth + 1, text)?;
            text.push('}');
            Some(())
        }
        _ => {
            let mut alone = Writer::with_capacity(bytes.len() + 8);
            alone.element(kind, "v", bytes);
            let alone = alone.raw().ok()?;
            let value = match Document::try_from(&*alone).ok()?.remove("v")? {
                // With its sign, it would be written in a form that no reader accepts.
                Bson::Double(number) if number.is_nan() => Bson::Double(f64::NAN),
                value => value,
            };
            text.push_str(&value.into_canonical_extjson().to_string());
            Some(())
        }
    }
}

fn quoted(string: &str, text: &mut String) -> Option<()> {
    text.push_str(&serde_json::to_string(string).ok()?);
    Some(())
}

fn is_plain(document: &[u8]) -> Option<bool> {
    let mut names = std::collections::HashSet::new();
    for element in Elements::of(document).ok()? {
        let Element { kind, name, value } = element.ok()?;
        let inside = match kind {
            kind::DOCUMENT | kind::ARRAY => is_plain(value)?,
            kind::SCOPED_CODE => {
                is_plain(value.get(8 + usize::try_from(i32::from_le_bytes(value.get(4..8)?.try_into().ok()?)).ok()?..)?)?
            }
            _ => true,
        };
        if !inside || MARKS.split_whitespace().any(|mark| mark.as_bytes() == name) || !names.insert(name) {
            return Some(false);
        }
    }
    Some(true)
}
