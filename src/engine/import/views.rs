//! Renames views: the collection that a view is on, and those that its pipeline reads, get their
//! new names. Pure, on raw bytes.

use bson::RawDocumentBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::format::document::{Element, replaced, string_value};
use crate::format::kind;
use crate::format::manifest::RawValue;
use crate::names::Namespace;

/// The maximum depth of nested pipelines: servers stop at 20 views and at 200 levels.
const DEEPEST: usize = 200;

/// The options of a view `from` that becomes `to`. `rename` gives the new name of each namespace.
/// The same bytes if no name changes.
///
/// # Errors
/// [`ErrorKind::Refused`] if the view would read from another database, which servers do not allow;
/// those of `rename`.
pub(in crate::engine) fn renamed(
    options: &RawValue,
    from: &Namespace,
    to: &Namespace,
    rename: impl Fn(&Namespace) -> Result<Namespace>,
) -> Result<RawValue> {
    let renaming = Renaming { from, to, rename: &rename };
    let renamed = replaced(options.bson.as_bytes(), |Element { kind, name, value }| match (name, kind) {
        (b"viewOn", kind::STRING) => renaming.name(value),
        (b"pipeline", kind::ARRAY) => renaming.pipeline(value, DEEPEST).map(Some),
        _ => Ok(None),
    })?;
    let renamed = RawDocumentBuf::from_bytes(renamed);
    renamed.map(|bson| RawValue::of(&bson)).map_err(|e| Error::damaged("a view without options").cause(e))
}

struct Renaming<'a> {
    from: &'a Namespace,
    to: &'a Namespace,
    rename: &'a dyn Fn(&Namespace) -> Result<Namespace>,
}

impl Renaming<'_> {
    /// The new name of the collection that this string names.
    fn name(&self, value: &[u8]) -> Result<Option<Vec<u8>>> {
        let text = value.get(4..value.len().saturating_sub(1)).and_then(|text| std::str::from_utf8(text).ok());
        let Some(text) = text else { return Ok(None) };
        let new = (self.rename)(&Namespace::new(&*self.from.database, text))?;
        if new.database != self.to.database {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "the view {} would be {} and reads {text}, which would be {new}: a view can read only its own database",
                    self.from, self.to
                ),
            )
            .hint("rename both into the same database, or skip the view with [[exclude]]"));
        }
        Ok(Some(string_value(&new.collection)))
    }

    /// An array of stages.
    fn pipeline(&self, array: &[u8], depth: usize) -> Result<Vec<u8>> {
        replaced(array, |Element { kind, value, .. }| match kind {
            kind::DOCUMENT if depth > 0 => self.stage(value, depth - 1).map(Some),
            _ => Ok(None),
        })
    }

    fn stage(&self, stage: &[u8], depth: usize) -> Result<Vec<u8>> {
        replaced(stage, |Element { kind, name, value }| match (name, kind) {
            (b"$unionWith", kind::STRING) => self.name(value),
            (b"$lookup" | b"$graphLookup" | b"$unionWith", kind::DOCUMENT) => self.reading(value, depth).map(Some),
            (b"$facet", kind::DOCUMENT) => self.facet(value, depth).map(Some),
            _ => Ok(None),
        })
    }

    /// The specification of a stage that reads another collection.
    fn reading(&self, specification: &[u8], depth: usize) -> Result<Vec<u8>> {
        replaced(specification, |Element { kind, name, value }| match (name, kind) {
            (b"from" | b"coll", kind::STRING) => self.name(value),
            (b"pipeline", kind::ARRAY) => self.pipeline(value, depth).map(Some),
            _ => Ok(None),
        })
    }

    fn facet(&self, facets: &[u8], depth: usize) -> Result<Vec<u8>> {
        replaced(facets, |Element { kind, value, .. }| match kind {
            kind::ARRAY => self.pipeline(value, depth).map(Some),
            _ => Ok(None),
        })
    }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    fn to_copy(namespace: &Namespace) -> Result<Namespace> {
        let collection = if namespace.collection == "orders" { "orders2" } else { &*namespace.collection };
        Ok(Namespace::new("copy", collection))
    }

    #[test]
    fn every_name_that_a_view_reads_follows_and_nothing_else_does() {
        let (from, to) = (Namespace::new("shop", "view"), Namespace::new("copy", "view"));
        let options = |name: &str| {
            RawValue::of(&rawdoc! {
                "viewOn": name,
                "pipeline": [
                    { "$match": { "from": "orders", "$expr": { "$eq": ["$coll", "orders"] } } },
                    { "$lookup": { "from": name, "as": "orders", "pipeline": [{ "$unionWith": name }, { "$project": { "orders": 1 } }] } },
                    { "$graphLookup": { "from": name, "startWith": "$orders", "as": "x" } },
                    { "$unionWith": { "coll": name, "pipeline": [{ "$lookup": { "from": "items", "as": "orders" } }] } },
                    { "$facet": { "orders": [{ "$unionWith": name }], "b": [{ "$limit": 1 }] } },
                ],
                "collation": { "locale": "fr" },
            })
        };
        assert_eq!(renamed(&options("orders"), &from, &to, to_copy).unwrap(), options("orders2"));
        assert_eq!(renamed(&options("items"), &from, &to, to_copy).unwrap(), options("items"));
    }

    #[test]
    fn a_view_and_what_it_reads_stay_in_one_database() {
        let options = RawValue::of(&rawdoc! { "viewOn": "orders", "pipeline": [] });
        let error = renamed(&options, &Namespace::new("shop", "v"), &Namespace::new("other", "v"), to_copy).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("reads orders, which would be copy.orders2"), "{error}");
    }
}
