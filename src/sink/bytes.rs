//! BSON put together from parts that are bytes already: commands around documents and options that are never decoded.

use bson::RawDocumentBuf;

use crate::error::{Error, ErrorKind, Result};

/// A document, or an array, being written.
#[derive(Debug)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    /// An empty document, with room for about this many bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        let mut buffer = Vec::with_capacity(bytes + 5);
        buffer.extend([0; 4]);
        Self(buffer)
    }

    /// An empty document.
    pub(super) fn new() -> Self {
        Self::with_capacity(64)
    }

    /// An element as it stands in another document: type byte, name, value.
    pub(super) fn element(&mut self, kind: u8, name: impl AsRef<[u8]>, value: &[u8]) {
        self.0.push(kind);
        self.0.extend(name.as_ref());
        self.0.push(0);
        self.0.extend(value);
    }

    /// A string.
    pub(super) fn string(&mut self, name: &str, value: &str) {
        let length = value.len() as i32 + 1;
        self.element(0x02, name, &length.to_le_bytes());
        self.0.extend(value.as_bytes());
        self.0.push(0);
    }

    /// A boolean.
    pub(super) fn bool(&mut self, name: &str, value: bool) {
        self.element(0x08, name, &[u8::from(value)]);
    }

    /// A sub-document.
    pub(super) fn document(&mut self, name: impl AsRef<[u8]>, document: &[u8]) {
        self.element(0x03, name, document);
    }

    /// An array of documents.
    pub(super) fn documents<'a>(&mut self, name: &str, documents: impl IntoIterator<Item = &'a [u8]>) {
        self.element(0x04, name, &[]);
        let start = self.0.len();
        self.0.extend([0; 4]);
        for (number, document) in documents.into_iter().enumerate() {
            self.document(number.to_string(), document);
        }
        self.close(start);
    }

    /// The document's bytes.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.close(0);
        self.0
    }

    /// The document as the driver takes it.
    pub(super) fn command(self) -> Result<RawDocumentBuf> {
        RawDocumentBuf::from_bytes(self.finish())
            .map_err(|e| Error::new(ErrorKind::Internal, "a command was not put together as a document").cause(e))
    }

    fn close(&mut self, start: usize) {
        self.0.push(0);
        // All that is written here stays below 48 MB: lengths fit.
        let length = (self.0.len() - start) as i32;
        self.0[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// What messages call a BSON type.
pub(super) fn type_name(kind: u8) -> &'static str {
    match kind {
        0x01 => "double",
        0x02 => "string",
        0x03 => "document",
        0x04 => "array",
        0x05 => "binary",
        0x06 => "undefined",
        0x07 => "ObjectId",
        0x08 => "boolean",
        0x09 => "date",
        0x0A => "null",
        0x0B => "regular expression",
        0x0C => "DBPointer",
        0x0D => "code",
        0x0E => "symbol",
        0x0F => "code with scope",
        0x10 => "int32",
        0x11 => "timestamp",
        0x12 => "int64",
        0x13 => "decimal128",
        0xFF => "MinKey",
        0x7F => "MaxKey",
        _ => "unknown type",
    }
}
