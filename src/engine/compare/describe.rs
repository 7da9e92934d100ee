//! Compares what two collections are: kind, options and indexes. Pure, on raw bytes.

use std::collections::{BTreeMap, BTreeSet};

use bson::{RawDocument, RawDocumentBuf};

use super::report::What;
use super::shown;
use crate::error::Result;
use crate::format::document::Elements;
use crate::mongo::catalog;
use crate::source::discover::CollectionInfo;

/// Every difference between two collections, apart from their documents. The source's options are
/// those with the names that the target has.
pub(super) fn differences(source: &CollectionInfo, options: &RawDocument, target: &CollectionInfo) -> Result<Vec<What>> {
    if source.kind != target.kind {
        return Ok(vec![What::Type { source: source.kind, target: target.kind }]);
    }
    let mut found = Vec::new();
    let (here, there) = (fields(options)?, fields(&target.options)?);
    for name in here.keys().chain(there.keys()).collect::<BTreeSet<_>>() {
        let (one, other) = (here.get(name), there.get(name));
        if one != other {
            let value = |field: Option<&(u8, &[u8])>| field.map(|(kind, value)| shown::option(*kind, value));
            let name = String::from_utf8_lossy(name).into_owned();
            found.push(What::Option { name, source: value(one), target: value(other) });
        }
    }
    let (here, there) = (by_name(&source.indexes), by_name(&target.indexes));
    for name in here.keys().chain(there.keys()).collect::<BTreeSet<_>>() {
        let (one, other) = (here.get(name), there.get(name));
        let same = match (one, other) {
            (Some(one), Some(other)) => specification(one)? == specification(other)?,
            _ => false,
        };
        if !same {
            let value = |index: Option<&&RawDocumentBuf>| index.map(|index| shown::document(index));
            found.push(What::Index { name: name.clone(), source: value(one), target: value(other) });
        }
    }
    Ok(found)
}

/// Fields by their names, each with its type byte and its bytes.
type Fields<'a> = BTreeMap<&'a [u8], (u8, &'a [u8])>;

/// The fields of options. Their order means nothing; that of fields within them does.
fn fields(document: &RawDocument) -> Result<Fields<'_>> {
    Elements::of(document.as_bytes())?.map(|element| element.map(|e| (e.name, (e.kind, e.value)))).collect()
}

/// The same of an index. Servers before 4.4 name its collection in it.
fn specification(index: &RawDocument) -> Result<Fields<'_>> {
    let mut fields = fields(index)?;
    fields.remove(b"ns".as_slice());
    Ok(fields)
}

fn by_name(indexes: &[RawDocumentBuf]) -> BTreeMap<String, &RawDocumentBuf> {
    indexes.iter().map(|index| (catalog::name(index).unwrap_or_default(), index)).collect()
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;
    use crate::format::manifest::CollectionKind;
    use crate::names::Namespace;

    fn of(options: RawDocumentBuf, indexes: Vec<RawDocumentBuf>) -> CollectionInfo {
        let namespace = Namespace::new("a", "b");
        CollectionInfo { namespace, kind: CollectionKind::Collection, uuid: None, options, indexes }
    }

    fn found(source: &CollectionInfo, target: &CollectionInfo) -> Vec<String> {
        let differences = differences(source, &source.options, target).unwrap();
        differences.iter().map(|what| serde_json::to_string(what).unwrap()).collect()
    }

    #[test]
    fn the_order_of_options_and_indexes_means_nothing_and_that_within_them_does() {
        let one = of(
            rawdoc! { "capped": true, "validator": { "a": 1, "b": 1 } },
            vec![
                rawdoc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" },
                rawdoc! { "v": 2, "key": { "a": 1, "b": 1 }, "name": "x" },
            ],
        );
        let turned = of(
            rawdoc! { "validator": { "a": 1, "b": 1 }, "capped": true },
            vec![
                rawdoc! { "key": { "a": 1, "b": 1 }, "v": 2, "name": "x", "ns": "a.b" },
                rawdoc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" },
            ],
        );
        assert_eq!(found(&one, &turned), [""; 0]);
        let other = of(
            rawdoc! { "capped": true, "validator": { "b": 1, "a": 1 } },
            vec![
                rawdoc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" },
                rawdoc! { "v": 2, "key": { "b": 1, "a": 1 }, "name": "x" },
            ],
        );
        assert_eq!(found(&one, &other).len(), 2);
    }

    #[test]
    fn what_one_side_lacks_and_a_value_of_another_type_are_named() {
        let one = of(rawdoc! { "expireAfterSeconds": 60 }, vec![rawdoc! { "key": { "a": 1 }, "name": "a" }]);
        let other = of(rawdoc! { "expireAfterSeconds": 60i64 }, vec![]);
        assert_eq!(
            found(&one, &other),
            [
                r#"{"what":"option","name":"expireAfterSeconds","source":{"$numberInt":"60"},"target":{"$numberLong":"60"}}"#,
                r#"{"what":"index","name":"a","source":{"key":{"a":{"$numberInt":"1"}},"name":"a"},"target":null}"#,
            ]
        );
        let view = CollectionInfo { kind: CollectionKind::View, ..other };
        assert_eq!(found(&one, &view), [r#"{"what":"type","source":"collection","target":"view"}"#]);
    }
}
