//! How the values of each BSON type are kept.

/// A document whose first key is `0`: its keys are expected to count up, as an array's do. It is written as a document.
pub(super) const COUNTED: u8 = 0x33;

pub(super) const DOUBLE: u8 = 0x01;
pub(super) const DOCUMENT: u8 = 0x03;
pub(super) const ARRAY: u8 = 0x04;
pub(super) const OBJECT_ID: u8 = 0x07;
pub(super) const DATE: u8 = 0x09;
pub(super) const INT64: u8 = 0x12;

/// What a value consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Eight bytes.
    Eight,
    /// Four bytes.
    Four,
    /// Another number of bytes that is always the same: see [`width`].
    Fixed,
    /// A length, a text of that length, and a NUL.
    Text,
    /// Two texts, each with a NUL.
    Regex,
    /// A length, a subtype, and bytes.
    Binary,
    /// Nothing but its type.
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

/// The form of this type's values; none where the type is not kept in columns.
pub(super) const fn form(kind: u8) -> Option<Form> {
    Some(match kind {
        DOUBLE | DATE | 0x11 | INT64 => Form::Eight,
        0x10 => Form::Four,
        OBJECT_ID | 0x08 | 0x13 => Form::Fixed,
        0x02 | 0x0d | 0x0e => Form::Text,
        0x0b => Form::Regex,
        0x05 => Form::Binary,
        0x06 | 0x0a | 0x7f | 0xff => Form::Nothing,
        DOCUMENT => Form::Document,
        ARRAY | COUNTED => Form::Array,
        _ => return None,
    })
}

/// How many bytes each value of a type of fixed width takes.
pub(super) const fn width(kind: u8) -> usize {
    match kind {
        0x10 => 4,
        OBJECT_ID => 12,
        0x08 => 1,
        0x13 => 16,
        _ => 8,
    }
}

/// The type as BSON knows it.
pub(super) const fn bson_type(kind: u8) -> u8 {
    if kind == COUNTED { DOCUMENT } else { kind }
}
