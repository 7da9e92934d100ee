//! Converts index specifications to the form that `createIndexes` and `create` accept: pure.
//!
//! `listIndexes` and old dumps have values that old servers accepted and newer ones refuse. What
//! each version refuses was tried on 4.4.2, 5.0.4 and 6.0.5. An odd value keeps the meaning that
//! servers before 5.0 gave it: null and undefined are false, and everything else that is no number
//! is true.

use bson::{RawDocument, RawDocumentBuf};

use crate::error::{Error, Result};
use crate::format::document::{Element, Elements, Writer};
use crate::format::kind;
use crate::mongo::catalog;

/// Boolean options.
const TRUTHS: [&[u8]; 6] = [b"unique", b"sparse", b"background", b"dropDups", b"hidden", b"prepareUnique"];

/// Options with a document as value.
const DOCUMENTS: [&[u8]; 4] = [b"collation", b"partialFilterExpression", b"storageEngine", b"weights"];

/// Options with a number as value.
const NUMBERS: [&[u8]; 7] =
    [b"expireAfterSeconds", b"2dsphereIndexVersion", b"textIndexVersion", b"bits", b"min", b"max", b"bucketSize"];

/// Options with text as value.
const TEXTS: [&[u8]; 2] = [b"default_language", b"language_override"];

/// Options that only say how an index was built: nobody misses them.
const TELLS_NOTHING: [&[u8]; 3] = [b"ns", b"background", b"dropDups"];

/// A specification that servers accept, and a description of each change to it.
#[derive(Debug)]
pub(super) struct Specification {
    pub(super) name: String,
    pub(super) bson: RawDocumentBuf,
    /// Whether a value in its key was replaced by 1.
    pub(super) key_changed: bool,
    pub(super) changes: Vec<String>,
}

/// How to create an index.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// Whether the collection has a collation, which is the default of its indexes.
    pub(super) collated_by_default: bool,
    /// Whether to omit its expiry.
    pub(super) without_expiry: bool,
    /// Whether it belongs to a time series.
    pub(super) is_of_series: bool,
}

/// The specification for `createIndexes` to create the same index. It is the listed one, plus what
/// the listing implies, minus what older servers accepted and newer ones refuse.
pub(super) fn index(listed: &RawDocument, key: &RawDocument, how: How) -> Result<Specification> {
    let mut specification = Writer::default();
    let mut changes = Vec::new();
    let modern = modern_key(key)?;
    let mut name = None;
    let (mut has_collation, mut has_sphere_version, mut is_version_one) = (false, false, false);
    for element in Elements::of(listed.as_bytes())? {
        let Element { kind, name: option, value } = element?;
        match option {
            // The namespace, in specifications of servers before 4.4; it differs here.
            b"ns" => continue,
            b"key" => {
                specification.document("key", &modern);
                continue;
            }
            b"name" => {
                name = catalog::name(listed).filter(|name| !name.is_empty());
                if name.is_none() {
                    continue;
                }
            }
            b"expireAfterSeconds" if how.without_expiry => continue,
            b"v" => match version(kind, value) {
                Some(version) => is_version_one = version == 1,
                None => {
                    changes.push("servers no longer create its version: it gets the current one".to_owned());
                    continue;
                }
            },
            _ if TRUTHS.contains(&option) && !is_number(kind) && kind != kind::BOOLEAN => {
                let holds = !matches!(kind, kind::NULL | kind::UNDEFINED);
                if !TELLS_NOTHING.contains(&option) {
                    changes.push(format!("{} is of type {}, and taken as {holds}", shown(option), type_of(kind)));
                }
                if holds {
                    specification.element(kind::BOOLEAN, option, &[1]);
                }
                continue;
            }
            _ if !fits(option, kind, value) => {
                changes.push(format!("{} is of type {}, which means nothing: it is omitted", shown(option), type_of(kind)));
                continue;
            }
            b"collation" => has_collation = true,
            b"2dsphereIndexVersion" => has_sphere_version = true,
            _ => {}
        }
        specification.element(kind, option, value);
    }
    let name = match name {
        Some(name) => name,
        None => {
            let name = name_of(&modern)?;
            changes.push("it had no name, and gets one from its key".to_owned());
            specification.string("name", &name);
            name
        }
    };
    // `listIndexes` omits the simple collation, and `createIndexes` uses the collection's by
    // default. Version 1 indexes cannot have a collation.
    if how.collated_by_default && !has_collation && !is_version_one {
        specification.document("collation", bson::rawdoc! { "locale": "simple" }.as_bytes());
    }
    // Indexes of version 1 do not name it. Those on measurements of a time series never do, and no
    // server creates one of version 1 there.
    if has_kind(key, "2dsphere") && !has_sphere_version && !how.is_of_series {
        specification.element(kind::INT32, "2dsphereIndexVersion", &1i32.to_le_bytes());
    }
    let key_changed = modern != key.as_bytes();
    Ok(Specification { name, bson: specification.raw()?, key_changed, changes })
}

/// The index on `_id` as `create` accepts it, with only key, name, version and collation, and a
/// description of what was omitted.
pub(super) fn id_index(listed: &RawDocument, is_collated: bool) -> Result<(RawDocumentBuf, Vec<String>)> {
    let mut specification = Writer::default();
    let mut changes = Vec::new();
    for element in Elements::of(listed.as_bytes())? {
        let Element { kind, name, value } = element?;
        match name {
            b"v" if version(kind, value).is_some() => specification.element(kind, name, value),
            b"v" => changes.push("servers no longer create its version: it gets the current one".to_owned()),
            b"key" => specification.document("key", bson::rawdoc! { "_id": 1 }.as_bytes()),
            b"collation" if kind == kind::DOCUMENT && is_collated => specification.element(kind, name, value),
            b"name" | b"ns" | b"background" | b"dropDups" => {}
            // It always is.
            b"unique" => {}
            _ => changes.push(format!("{} of an index on _id: no server has it", shown(name))),
        }
    }
    specification.string("name", "_id_");
    Ok((specification.raw()?, changes))
}

/// Whether this is the index on `_id` that every ordinary collection has: its key is `_id` and
/// nothing else. Servers also treat a descending one as that.
pub(super) fn is_id_index(specification: &RawDocument) -> bool {
    let Ok(key) = specification.get_document("key") else { return false };
    let Some(key) = modern_key(key).ok().and_then(|key| RawDocumentBuf::from_bytes(key).ok()) else { return false };
    let fields: Vec<_> = key.iter().collect();
    let [Ok((name, value))] = fields.as_slice() else { return false };
    let number = value.as_f64().or_else(|| value.as_i32().map(f64::from)).or_else(|| value.as_i64().map(|n| n as f64));
    name.as_str() == "_id" && number.is_some_and(|number| number.abs() == 1.0)
}

/// Whether a field of the key has this kind of index.
pub(super) fn has_kind(key: &RawDocument, kind: &str) -> bool {
    key.iter().flatten().any(|(_, value)| value.as_str() == Some(kind))
}

/// The key with those values replaced by 1 that only servers before 3.4 accepted: 0, NaN, empty
/// text, and values that are neither numbers nor text. They all meant an ascending index.
fn modern_key(key: &RawDocument) -> Result<Vec<u8>> {
    let mut modern = Writer::default();
    for element in Elements::of(key.as_bytes())? {
        let Element { kind, name, value } = element?;
        let taken = match kind {
            kind::DOUBLE => f64::from_le_bytes(fixed(value)?).abs() > 0.0,
            kind::STRING => value.len() > 5,
            kind::INT32 | kind::INT64 => value.iter().any(|&b| b != 0),
            kind::DECIMAL128 => {
                bson::Decimal128::from_bytes(fixed(value)?).to_string().parse::<f64>().is_ok_and(|number| number.abs() > 0.0)
            }
            _ => false,
        };
        if taken {
            modern.element(kind, name, value);
        } else {
            modern.element(kind::INT32, name, &1i32.to_le_bytes());
        }
    }
    Ok(modern.finish())
}

/// The name that drivers give to an index with this key.
fn name_of(key: &[u8]) -> Result<String> {
    let mut parts = Vec::new();
    for element in Elements::of(key)? {
        let Element { kind, name, value } = element?;
        let direction = match kind {
            kind::DOUBLE => f64::from_le_bytes(fixed(value)?).to_string(),
            kind::INT32 => i32::from_le_bytes(fixed(value)?).to_string(),
            kind::INT64 => i64::from_le_bytes(fixed(value)?).to_string(),
            kind::DECIMAL128 => bson::Decimal128::from_bytes(fixed(value)?).to_string(),
            _ => text(kind, value).unwrap_or_default(),
        };
        parts.push(format!("{}_{direction}", String::from_utf8_lossy(name)));
    }
    Ok(parts.join("_"))
}

/// The index version, if servers create it.
fn version(kind: u8, value: &[u8]) -> Option<u8> {
    let number = match kind {
        kind::DOUBLE => f64::from_le_bytes(value.try_into().ok()?),
        kind::INT32 => f64::from(i32::from_le_bytes(value.try_into().ok()?)),
        #[expect(clippy::cast_precision_loss, reason = "1 and 2 are what counts")]
        kind::INT64 => i64::from_le_bytes(value.try_into().ok()?) as f64,
        _ => return None,
    };
    [1u8, 2].into_iter().find(|version| f64::from(*version) == number)
}

/// Whether an option has a value of the type that servers expect. Unknown options may have any
/// value but null.
fn fits(option: &[u8], kind: u8, value: &[u8]) -> bool {
    if DOCUMENTS.contains(&option) {
        // Servers also refuse an empty document for these.
        let may_be_empty = matches!(option, b"partialFilterExpression" | b"weights");
        return kind == kind::DOCUMENT && (may_be_empty || value.len() > 5);
    }
    if NUMBERS.contains(&option) {
        return is_number(kind);
    }
    if TEXTS.contains(&option) {
        return kind == kind::STRING;
    }
    !matches!(kind, kind::NULL | kind::UNDEFINED)
}

fn is_number(kind: u8) -> bool {
    matches!(kind, kind::DOUBLE | kind::INT32 | kind::INT64 | kind::DECIMAL128)
}

fn text(kind: u8, value: &[u8]) -> Option<String> {
    let bytes = if kind == kind::STRING { value.get(4..)?.strip_suffix(&[0])? } else { return None };
    String::from_utf8(bytes.to_vec()).ok()
}

fn shown(option: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(option))
}

fn type_of(kind: u8) -> &'static str {
    crate::format::document::type_name(kind)
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N]> {
    value.try_into().map_err(|e| Error::damaged("a number of the wrong length").cause(e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]
mod tests {
    use bson::{Bson, doc, rawdoc};

    use super::*;

    fn made(listed: &bson::Document) -> (bson::Document, Vec<String>) {
        let listed = RawDocumentBuf::try_from(listed).unwrap();
        let how = How { collated_by_default: false, without_expiry: false, is_of_series: false };
        let made = index(&listed, listed.get_document("key").unwrap(), how).unwrap();
        (bson::Document::try_from(&*made.bson).unwrap(), made.changes)
    }

    #[test]
    fn what_servers_take_stays_as_it_is() {
        for listed in [
            doc! { "v": 1, "key": { "a": -1.5, "b": "2d" }, "name": "x", "unique": 1, "sparse": false, "expireAfterSeconds": 9i64, "bits": 26 },
            doc! { "v": 2, "key": { "a": "text" }, "name": "x", "weights": { "a": 2 }, "default_language": "none", "unknown": [1] },
        ] {
            assert_eq!(made(&listed), (listed, Vec::new()));
        }
    }

    #[test]
    fn odd_values_are_taken_for_what_old_servers_took_them_for() {
        let key = doc! { "a": 1 };
        for (odd, kept, changes) in [
            (doc! { "v": 0 }, doc! {}, 1),
            (doc! { "v": Bson::Null }, doc! {}, 1),
            (doc! { "v": 3 }, doc! {}, 1),
            (doc! { "unique": Bson::Null }, doc! {}, 1),
            (doc! { "unique": "false" }, doc! { "unique": true }, 1),
            (doc! { "sparse": Bson::Undefined, "hidden": {} }, doc! { "hidden": true }, 2),
            (doc! { "background": Bson::Null, "dropDups": Bson::Null, "ns": "a.b" }, doc! {}, 0),
            (doc! { "expireAfterSeconds": "60" }, doc! {}, 1),
            (doc! { "collation": Bson::Null, "storageEngine": {}, "bits": "x", "default_language": 1 }, doc! {}, 4),
        ] {
            let mut listed = doc! { "name": "x", "key": key.clone() };
            listed.extend(odd.clone());
            let mut expected = doc! { "name": "x", "key": key.clone() };
            expected.extend(kept);
            let (made, told) = made(&listed);
            assert_eq!((made, told.len()), (expected, changes), "{odd}: {told:?}");
        }
        let (named, told) = made(&doc! { "key": { "a": true, "b.c": -1, "d": "2d" } });
        assert_eq!((named.get_str("name").unwrap(), told.len()), ("a_1_b.c_-1_d_2d", 1));
    }

    #[test]
    fn the_index_on_id_has_its_four_fields_alone() {
        let listed = rawdoc! { "v": 0, "key": { "_id": true }, "name": "other", "ns": "a.b", "unique": true, "sparse": null, "collation": { "locale": "fr" } };
        assert!(is_id_index(&listed));
        let (made, told) = id_index(&listed, false).unwrap();
        assert_eq!(made, rawdoc! { "key": { "_id": 1 }, "name": "_id_" });
        assert_eq!(told.len(), 3, "{told:?}");
        let (made, told) =
            id_index(&rawdoc! { "v": 1, "key": { "_id": 1.0 }, "name": "_id_", "collation": { "locale": "fr" } }, true).unwrap();
        assert_eq!((made.get_i32("v").unwrap(), told.len()), (1, 0));
        assert!(made.get_document("collation").is_ok());
    }
}
