//! Requested differences from the backup.

use bson::RawDocumentBuf;

use super::{CollectionSpec, is_id_index};
use crate::error::{Error, Result};
use crate::format::document::{self, Element, Elements, Writer};
use crate::format::kind;
use crate::format::manifest::CollectionKind;

/// What differs from the backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Alterations {
    /// Collections are created without options. Views and time series keep theirs: they need them.
    pub without_options: bool,
    /// Documents are inserted in the order they arrive.
    pub in_order: bool,
    /// A hashed index on a field inside another becomes an ascending one.
    pub no_dotted_hashes: bool,
}

impl CollectionSpec {
    /// The same with these alterations.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal).
    pub fn altered(mut self, how: Alterations) -> Result<Self> {
        self.in_order |= how.in_order;
        if how.without_options && self.kind == CollectionKind::Collection {
            self.options = id_index_alone(&self.options)?;
            (self.expire_after, self.has_rules, self.capped) = (None, false, false);
            self.takes_any_options = true;
        }
        if how.no_dotted_hashes {
            for index in &mut self.indexes {
                index.specification = without_dotted_hashes(&index.specification)?;
            }
        }
        Ok(self)
    }
}

/// Only the index on `_id`, unless it has a collation like the collection.
fn id_index_alone(options: &RawDocumentBuf) -> Result<RawDocumentBuf> {
    let mut left = Writer::default();
    if let Ok(index) = options.get_document("idIndex")
        && is_id_index(index)
        && !matches!(index.get("collation"), Ok(Some(_)))
    {
        left.document("idIndex", index.as_bytes());
    }
    left.raw()
}

fn without_dotted_hashes(specification: &RawDocumentBuf) -> Result<RawDocumentBuf> {
    let Ok(key) = specification.get_document("key") else { return Ok(specification.clone()) };
    let is_dotted_hash =
        |(name, value): (&bson::raw::CStr, bson::RawBsonRef<'_>)| name.as_str().contains('.') && value.as_str() == Some("hashed");
    if !key.iter().flatten().any(is_dotted_hash) {
        return Ok(specification.clone());
    }
    let mut ascending = Writer::default();
    for element in Elements::of(key.as_bytes())? {
        let Element { kind, name, value } = element?;
        match name.contains(&b'.') && key.get_str(String::from_utf8_lossy(name)).is_ok_and(|kind| kind == "hashed") {
            true => ascending.element(kind::INT32, name, &1i32.to_le_bytes()),
            false => ascending.element(kind, name, value),
        }
    }
    let ascending = ascending.finish();
    let altered = document::replaced(specification.as_bytes(), |e| Ok((e.name == b"key").then(|| ascending.clone())))?;
    RawDocumentBuf::from_bytes(altered).map_err(|e| Error::damaged("an index specification is not a document").cause(e))
}
