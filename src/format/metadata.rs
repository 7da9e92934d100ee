//! Writes a collection's metadata as mongodump does (`NAME.metadata.json`): canonical Extended JSON
//! version 2 on one line. It is for people and for mongorestore. This program itself reads the
//! manifest, because Extended JSON does not preserve every value.

pub mod read;
pub mod text;

use bson::RawDocument;
use serde_json::Value;

use super::manifest::CollectionKind;

/// The largest metadata file that a reader accepts: options of 16 MiB, 64 indexes, and the overhead
/// of Extended JSON.
pub const LIMIT: u64 = 256 * 1024 * 1024;

/// The content of a metadata file: `options` (omitted if empty), `indexes`, `uuid` (omitted if
/// there is none), `collectionName` and `type`, in this order. Values that JSON cannot hold are
/// omitted.
#[must_use]
pub fn write<'a>(
    name: &str,
    kind: CollectionKind,
    uuid: Option<uuid::Uuid>,
    options: &RawDocument,
    indexes: impl IntoIterator<Item = &'a RawDocument>,
) -> Vec<u8> {
    let mut fields = Vec::new();
    if let Some(options) = text::canonical(options).filter(|text| text != "{}") {
        fields.push(format!("\"options\":{options}"));
    }
    let indexes: Vec<String> = indexes.into_iter().filter_map(text::canonical).collect();
    fields.push(format!("\"indexes\":[{}]", indexes.join(",")));
    if let Some(uuid) = uuid {
        fields.push(format!("\"uuid\":\"{}\"", uuid.simple()));
    }
    fields.push(format!("\"collectionName\":{}", Value::from(name)));
    fields.push(format!("\"type\":\"{kind}\""));
    format!("{{{}}}", fields.join(",")).into_bytes()
}
