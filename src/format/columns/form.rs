//! How the values of each BSON type are stored.

use crate::format::kind;

/// A document whose first key is `0`: its keys are expected to count up like an array's. It is
/// written as a document.
pub(super) const COUNTED: u8 = 0x33;

/// The parts of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Eight bytes.
    Eight,
    /// Four bytes.
    Four,
    /// Another fixed number of bytes: see [`width`].
    Fixed,
    /// A length, a text of that length, and a NUL.
    Text,
    /// Two texts, each with a NUL.
    Regex,
    /// A length, a subtype, and bytes.
    Binary,
    /// Only its type.
    Nothing,
    /// Elements with names.
    Document,
    /// Elements whose names are their positions.
    Array,
}

impl Form {
    /// Whether it has elements.
    pub(super) fn holds_elements(self) -> bool {
        matches!(self, Self::Document | Self::Array)
    }
}

/// The form of this type's values; `None` if columns do not support the type.
pub(super) const fn form(kind: u8) -> Option<Form> {
    Some(match kind {
        kind::DOUBLE | kind::DATE | kind::TIMESTAMP | kind::INT64 => Form::Eight,
        kind::INT32 => Form::Four,
        kind::OBJECT_ID | kind::BOOLEAN | kind::DECIMAL128 => Form::Fixed,
        kind::STRING | kind::CODE | kind::SYMBOL => Form::Text,
        kind::REGEX => Form::Regex,
        kind::BINARY => Form::Binary,
        kind::UNDEFINED | kind::NULL | kind::MAX_KEY | kind::MIN_KEY => Form::Nothing,
        kind::DOCUMENT => Form::Document,
        kind::ARRAY | COUNTED => Form::Array,
        _ => return None,
    })
}

/// The number of bytes of each value of a fixed-width type.
pub(super) const fn width(kind: u8) -> usize {
    match kind {
        kind::INT32 => 4,
        kind::OBJECT_ID => 12,
        kind::BOOLEAN => 1,
        kind::DECIMAL128 => 16,
        _ => 8,
    }
}

/// The type in BSON.
pub(super) const fn bson_type(kind: u8) -> u8 {
    if kind == COUNTED { kind::DOCUMENT } else { kind }
}
