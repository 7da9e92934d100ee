//! The type bytes of BSON elements, as constants for patterns: <https://bsonspec.org/spec.html>.

use bson::spec::ElementType;

/// A 64-bit float.
pub const DOUBLE: u8 = ElementType::Double as u8;
/// Text.
pub const STRING: u8 = ElementType::String as u8;
/// A document.
pub const DOCUMENT: u8 = ElementType::EmbeddedDocument as u8;
/// An array.
pub const ARRAY: u8 = ElementType::Array as u8;
/// Bytes with a subtype.
pub const BINARY: u8 = ElementType::Binary as u8;
/// Undefined, which is deprecated.
pub const UNDEFINED: u8 = ElementType::Undefined as u8;
/// An ObjectId.
pub const OBJECT_ID: u8 = ElementType::ObjectId as u8;
/// A Boolean.
pub const BOOLEAN: u8 = ElementType::Boolean as u8;
/// Milliseconds since 1970.
pub const DATE: u8 = ElementType::DateTime as u8;
/// Null.
pub const NULL: u8 = ElementType::Null as u8;
/// A regular expression.
pub const REGEX: u8 = ElementType::RegularExpression as u8;
/// A DBPointer, which is deprecated.
pub const DB_POINTER: u8 = ElementType::DbPointer as u8;
/// JavaScript.
pub const CODE: u8 = ElementType::JavaScriptCode as u8;
/// A symbol, which is deprecated.
pub const SYMBOL: u8 = ElementType::Symbol as u8;
/// JavaScript with a scope, which is deprecated.
pub const SCOPED_CODE: u8 = ElementType::JavaScriptCodeWithScope as u8;
/// A 32-bit integer.
pub const INT32: u8 = ElementType::Int32 as u8;
/// A time in the oplog.
pub const TIMESTAMP: u8 = ElementType::Timestamp as u8;
/// A 64-bit integer.
pub const INT64: u8 = ElementType::Int64 as u8;
/// A 128-bit decimal number.
pub const DECIMAL128: u8 = ElementType::Decimal128 as u8;
/// Smaller than everything else.
pub const MIN_KEY: u8 = ElementType::MinKey as u8;
/// Larger than everything else.
pub const MAX_KEY: u8 = ElementType::MaxKey as u8;
