//! A document as a list of its fields, which can be changed one by one without decoding the values.

use bson::RawDocumentBuf;

use crate::error::Result;
use crate::format::document::{Element, Elements, Writer, string_value};
use crate::format::kind;

/// The fields of one document, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields(Vec<Field>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    kind: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Fields {
    /// The fields of this document.
    pub(super) fn of(document: &[u8]) -> Result<Self> {
        let mut fields = Self::default();
        for element in Elements::of(document)? {
            let Element { kind, name, value } = element?;
            fields.0.push(Field { kind, name: name.to_vec(), value: value.to_vec() });
        }
        Ok(fields)
    }

    pub(super) fn get(&self, name: &str) -> Option<Element<'_>> {
        let field = self.0.iter().find(|f| f.name == name.as_bytes())?;
        Some(Element { kind: field.kind, name: &field.name, value: &field.value })
    }

    /// The fields, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Element<'_>> {
        self.0.iter().map(|f| Element { kind: f.kind, name: &f.name, value: &f.value })
    }

    /// Changes a field in place, or adds it at the end.
    pub(super) fn set(&mut self, name: &str, kind: u8, value: &[u8]) {
        match self.0.iter_mut().find(|f| f.name == name.as_bytes()) {
            Some(field) => (field.kind, field.value) = (kind, value.to_vec()),
            None => self.0.push(Field { kind, name: name.as_bytes().to_vec(), value: value.to_vec() }),
        }
    }

    pub(super) fn set_text(&mut self, name: &str, value: &str) {
        self.set(name, kind::STRING, &string_value(value));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|f| f.name != name.as_bytes());
    }

    /// The document with the present fields.
    pub(super) fn raw(&self) -> Result<RawDocumentBuf> {
        let mut document = Writer::default();
        for field in &self.0 {
            document.element(field.kind, &field.name, &field.value);
        }
        document.raw()
    }
}

/// Whether the value counts as true: numbers other than 0, and `true`.
pub(super) fn is_true(element: Element<'_>) -> bool {
    match element.kind {
        kind::BOOLEAN | kind::INT32 | kind::INT64 => element.value.iter().any(|&b| b != 0),
        kind::DOUBLE => element.value != 0f64.to_le_bytes(),
        _ => false,
    }
}
