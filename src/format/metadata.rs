//! A collection's metadata as mongodump writes it (`NAME.metadata.json`): canonical Extended JSON version 2 on one line. For
//! people and for mongorestore; this program itself reads the manifest, because Extended JSON does not keep every value.

use bson::{Bson, Document, RawDocument};
use serde_json::{Map, Value};

use super::manifest::CollectionKind;

/// The document in canonical Extended JSON, or `None` where it holds what JSON cannot (text that is not UTF-8).
#[must_use]
pub fn canonical_json(document: &RawDocument) -> Option<Value> {
    Document::try_from(document).ok().map(|d| Bson::Document(d).into_canonical_extjson())
}

/// The content of a metadata file: `options` (left out when empty), `indexes`, `uuid` (left out when there is none),
/// `collectionName` and `type`, in this order.
#[must_use]
pub fn write<'a>(
    name: &str,
    kind: CollectionKind,
    uuid: Option<uuid::Uuid>,
    options: &RawDocument,
    indexes: impl IntoIterator<Item = &'a RawDocument>,
) -> Vec<u8> {
    let mut fields = Map::new();
    if let Some(options) = canonical_json(options).filter(|o| o.as_object().is_some_and(|o| !o.is_empty())) {
        fields.insert("options".into(), options);
    }
    fields.insert("indexes".into(), Value::Array(indexes.into_iter().filter_map(canonical_json).collect()));
    if let Some(uuid) = uuid {
        fields.insert("uuid".into(), uuid.simple().to_string().into());
    }
    fields.insert("collectionName".into(), name.into());
    fields.insert("type".into(), kind.to_string().into());
    Value::Object(fields).to_string().into_bytes()
}
