//! Converts documents with arbitrary bytes as text to documents with UTF-8 text. This is for
//! display and for lookups by drivers, never for stored data.
//!
//! Servers cut long keys in their messages at a byte, even in the middle of a character, and accept
//! names that are not UTF-8.

use std::fmt::Write as _;

use super::document::{Element, Elements, Writer, string_value};
use crate::error::{Error, Result};
use crate::format::kind;

/// The maximum nesting depth. Servers stop at 200 levels.
const MAX_DEPTH: usize = 256;

/// Text from these bytes. Bytes that are not UTF-8 become `\\xNN`, so that different bytes stay
/// different.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing into a string cannot fail.
            let _written = write!(text, "\\x{byte:02X}");
        }
    }
    text
}

/// The same document with every name and text converted by [`text`].
///
/// # Errors
/// [`ErrorKind::Damaged`](crate::error::ErrorKind::Damaged) if its structure is broken.
pub fn document(document: &[u8]) -> Result<Vec<u8>> {
    at(document, 0)
}

fn at(document: &[u8], depth: usize) -> Result<Vec<u8>> {
    if depth > MAX_DEPTH {
        return Err(Error::damaged("a BSON document is nested too deeply"));
    }
    let mut readable = Writer::with_capacity(document.len() + 64);
    for element in Elements::of(document)? {
        let Element { kind, name, value } = element?;
        let name = text(name);
        match kind {
            // Text, code and symbols: a length, the bytes and a NUL.
            kind::STRING | kind::CODE | kind::SYMBOL => readable.element(kind, name, &string_value(&text(strip(value)))),
            kind::DOCUMENT | kind::ARRAY => readable.element(kind, name, &at(value, depth + 1)?),
            // A regular expression: two texts that end with a NUL each.
            kind::REGEX => readable.element(kind, name, text(value).as_bytes()),
            _ => readable.element(kind, name, value),
        }
    }
    Ok(readable.finish())
}

fn strip(value: &[u8]) -> &[u8] {
    value.get(4..value.len().saturating_sub(1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_cut_inside_a_character_is_readable_and_told_apart() {
        assert_eq!(text("a語\n".as_bytes()), "a語\n");
        assert_eq!(text(&"a語".as_bytes()[..3]), "a\\xE8\\xAA");
        assert_ne!(text(b"a\xE8"), text(b"a\xE9"));
    }

    #[test]
    fn documents_keep_everything_but_broken_text() {
        let mut inner = Writer::default();
        inner.element(0x02, b"n\xFF", &string_value("x"));
        inner.element(0x02, "cut", b"\x03\0\0\0a\xE8\0");
        let mut outer = Writer::default();
        outer.documents("writeErrors", [inner.finish().as_slice()]);
        outer.element(0x10, "ok", &1i32.to_le_bytes());
        let raw = bson::RawDocumentBuf::from_bytes(document(&outer.finish()).unwrap()).unwrap();
        let readable = bson::Document::try_from(raw).unwrap();
        let expected = bson::doc! { "writeErrors": [{ "n\\xFF": "x", "cut": "a\\xE8" }], "ok": 1 };
        assert_eq!(readable, expected);
    }
}
