//! Documents byte by byte, for values that the driver's types cannot hold or would change.

use bson::RawDocumentBuf;

/// A document from its elements: type byte, key and value, as in the BSON specification.
#[derive(Clone, Debug, Default)]
pub struct Raw(Vec<u8>);

impl Raw {
    pub fn new() -> Self {
        Self::default()
    }

    /// A document with a string as its `_id`.
    pub fn with_id(id: &str) -> Self {
        Self::new().element(0x02, "_id", string(id))
    }

    pub fn element(mut self, kind: u8, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.0.push(kind);
        self.0.extend(key.as_ref());
        self.0.push(0);
        self.0.extend(value.as_ref());
        self
    }

    pub fn int32(self, key: impl AsRef<[u8]>, value: i32) -> Self {
        self.element(0x10, key, value.to_le_bytes())
    }

    pub fn document(self, key: impl AsRef<[u8]>, value: Self) -> Self {
        self.element(0x03, key, value.into_bytes())
    }

    pub fn into_bytes(self) -> Vec<u8> {
        let length = i32::try_from(self.0.len() + 5).unwrap();
        [&length.to_le_bytes(), &self.0[..], &[0]].concat()
    }

    pub fn build(self) -> RawDocumentBuf {
        RawDocumentBuf::from_bytes(self.into_bytes()).unwrap()
    }
}

/// A string value, valid UTF-8 or not: its length including the final NUL, its bytes, and the NUL.
pub fn string(value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    let length = i32::try_from(value.len() + 1).unwrap();
    [&length.to_le_bytes(), value, &[0]].concat()
}

/// A binary value of any subtype.
pub fn binary(subtype: u8, value: &[u8]) -> Vec<u8> {
    [&i32::try_from(value.len()).unwrap().to_le_bytes(), &[subtype][..], value].concat()
}
