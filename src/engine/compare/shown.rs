//! Values of servers as Extended JSON of bounded length. Pure.

use bson::RawDocument;
use serde_json::Value;

use crate::few;
use crate::format::document::Writer;
use crate::format::readable;

/// The longest Extended JSON that is shown as such, in bytes.
const LONGEST: usize = 4_000;

/// An `_id`, as people write it.
pub(super) fn id(kind: u8, value: &[u8]) -> Value {
    let id = field(kind, value).map_or(Value::Null, bson::Bson::into_relaxed_extjson);
    short(id)
}

/// An option's value, with its type.
pub(super) fn option(kind: u8, value: &[u8]) -> Value {
    let value = field(kind, value).map_or(Value::Null, bson::Bson::into_canonical_extjson);
    short(value)
}

/// A specification, with the types of its values.
pub(super) fn document(document: &RawDocument) -> Value {
    let readable = readable::document(document.as_bytes()).ok();
    let parsed = readable.and_then(|bytes| bson::deserialize_from_slice::<bson::Document>(&bytes).ok());
    short(parsed.map_or(Value::Null, |document| bson::Bson::Document(document).into_canonical_extjson()))
}

fn field(kind: u8, value: &[u8]) -> Option<bson::Bson> {
    let alone = readable::document(&Writer::default().with(kind, b"v", value).finish()).ok()?;
    bson::deserialize_from_slice::<bson::Document>(&alone).ok()?.remove("v")
}

/// The value, or a text that begins like it if it is too long.
fn short(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= LONGEST { value } else { Value::String(few::cut(&text)) }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;
    use crate::format::kind;

    #[test]
    fn ids_are_shown_as_people_write_them_and_options_with_their_types() {
        assert_eq!(id(kind::INT32, &7i32.to_le_bytes()), serde_json::json!(7));
        assert_eq!(id(kind::INT64, &7i64.to_le_bytes()), serde_json::json!(7));
        assert_eq!(option(kind::INT64, &7i64.to_le_bytes()), serde_json::json!({ "$numberLong": "7" }));
        assert_eq!(document(&rawdoc! { "v": 2 }), serde_json::json!({ "v": { "$numberInt": "2" } }));
        // Text that is not UTF-8, and a value of any length.
        assert_eq!(id(kind::STRING, b"\x03\0\0\0\xffa\0"), serde_json::json!("\\xFFa"));
        let long = crate::format::document::string_value(&"x".repeat(100_000));
        assert!(id(kind::STRING, &long).as_str().unwrap().ends_with("bytes more)"));
    }
}
