//! Documents in a manifest: as bytes, which count, and as JSON for people.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bson::{RawDocument, RawDocumentBuf};
use serde::de::IgnoredAny;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::format::metadata::text;

/// A BSON document. A manifest holds its bytes, which count, and JSON for people, which does not
/// preserve every value. The JSON is made when it is written, and not kept: as a tree it needs
/// twenty times the bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct RawValue {
    /// The bytes.
    pub bson: RawDocumentBuf,
}

impl RawValue {
    /// A value with this document.
    #[must_use]
    pub fn of(document: &RawDocument) -> Self {
        Self { bson: document.to_owned() }
    }

    /// Canonical Extended JSON, or null if the document cannot be represented in it.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        text::canonical(&self.bson).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }
}

impl Serialize for RawValue {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut both = to.serialize_struct("RawValue", 2)?;
        both.serialize_field("bson", &STANDARD.encode(self.bson.as_bytes()))?;
        both.serialize_field("json", &self.json())?;
        both.end()
    }
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Both {
            #[serde(with = "base64_document")]
            bson: RawDocumentBuf,
            #[serde(rename = "json")]
            _json: IgnoredAny,
        }
        Both::deserialize(from).map(|both| Self { bson: both.bson })
    }
}

/// A document as base64 of its bytes.
pub(in crate::format) mod base64_document {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bson::RawDocumentBuf;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(in crate::format) fn serialize<S: Serializer>(document: &RawDocumentBuf, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(document.as_bytes()))
    }

    pub(in crate::format) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<RawDocumentBuf, D::Error> {
        let bytes = STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)?;
        RawDocumentBuf::from_bytes(bytes).map_err(D::Error::custom)
    }
}
