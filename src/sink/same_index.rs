//! Decides which index specifications servers treat as the same index: pure.

use std::collections::BTreeMap;

use bson::{RawDocument, RawDocumentBuf};

use crate::format::document::Elements;
use crate::format::kind;
use crate::mongo::Version;

/// Options of old servers that only say how to build an index. (The simple collation is not listed
/// here.)
pub(super) const ONLY_FOR_BUILDING: [&[u8]; 2] = [b"background", b"dropDups"];

/// Whether this index cannot be added to the existing ones.
pub(super) fn conflict(wanted: &RawDocument, standing: &[RawDocumentBuf], apart: &[&str]) -> bool {
    let of = |specification: &RawDocument, fields: &[&str]| -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut all = comparable(specification);
        all.retain(|name, _| fields.iter().any(|field| field.as_bytes() == name));
        all
    };
    !standing.iter().any(|there| comparable(there) == comparable(wanted))
        && standing.iter().any(|there| {
            of(there, &["name"]) == of(wanted, &["name"])
                || (of(there, &["key"]) == of(wanted, &["key"]) && of(there, apart) == of(wanted, apart))
        })
}

/// The options that distinguish indexes with the same key. Before 5.0, only the collation does.
pub(super) fn told_apart_by(version: Version) -> &'static [&'static str] {
    match version >= Version(5, 0, 0) {
        true => &["collation", "partialFilterExpression", "sparse", "unique", "wildcardProjection"],
        false => &["collation"],
    }
}

/// Whether a server treats two specifications as the same index under two names. If a value in a
/// key was changed, the old server distinguished them by that value, and the target's rules decide.
/// Otherwise they are the same only by the rules of newer servers.
pub(super) fn are_one(one: &RawDocument, other: &RawDocument, key_changed: bool, version: Version) -> bool {
    let apart = told_apart_by(if key_changed { version } else { Version(5, 0, 0) });
    let of = |specification: &RawDocument| -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut all = comparable(specification);
        all.retain(|name, _| name == b"key" || apart.iter().any(|field| field.as_bytes() == name));
        all
    };
    of(one) == of(other)
}

/// The options that define an index, in a form that is the same on every version. Some versions
/// list them as given, others with uniform numbers and Booleans.
fn comparable(specification: &RawDocument) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let elements = Elements::of(specification.as_bytes()).into_iter().flatten().flatten();
    elements
        .filter(|e| !FILLED_IN.contains(&e.name) && !ONLY_FOR_BUILDING.contains(&e.name))
        .filter(|e| e.name != b"collation" || !is_simple(e.value))
        .filter_map(|e| {
            let value = match e.name {
                b"key" => Elements::of(e.value)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .flat_map(|field| [field.name, &[0], &uniform(field.kind, field.value)].concat())
                    .collect(),
                // False is the default.
                b"unique" | b"sparse" | b"hidden" | b"prepareUnique" => {
                    match uniform(e.kind, e.value).iter().skip(1).any(|&b| b != 0) {
                        true => vec![1],
                        false => return None,
                    }
                }
                _ => uniform(e.kind, e.value),
            };
            Some((e.name.to_vec(), value))
        })
        .collect()
}

/// Numbers as doubles, everything else unchanged.
#[expect(clippy::cast_precision_loss, reason = "numbers of indexes are small: directions, seconds, bits")]
fn uniform(kind: u8, value: &[u8]) -> Vec<u8> {
    let number = match (kind, value.len()) {
        (kind::INT32, 4) => value.try_into().ok().map(|v| f64::from(i32::from_le_bytes(v))),
        (kind::INT64, 8) => value.try_into().ok().map(|v| i64::from_le_bytes(v) as f64),
        _ => None,
    };
    match number {
        Some(number) => [&[kind::DOUBLE], number.to_le_bytes().as_slice()].concat(),
        None => [&[kind], value].concat(),
    }
}

fn is_simple(collation: &[u8]) -> bool {
    let mut elements = Elements::of(collation).into_iter().flatten().flatten();
    elements.any(|e| e.name == b"locale" && e.value == b"\x07\0\0\0simple\0")
}

/// Versions of index formats, which servers choose themselves.
const FILLED_IN: [&[u8]; 4] = [b"v", b"ns", b"2dsphereIndexVersion", b"textIndexVersion"];

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    fn conflicts_with(wanted: RawDocumentBuf, there: &[RawDocumentBuf]) -> bool {
        conflict(&wanted, there, told_apart_by(Version(6, 0, 5)))
    }

    #[test]
    fn an_index_that_is_there_is_in_no_conflict_however_it_is_listed() {
        let there = [
            rawdoc! { "v": 2, "key": { "n": 1.0 }, "name": "n", "unique": true, "expireAfterSeconds": 60i64 },
            rawdoc! { "v": 2, "key": { "n": 1 }, "name": "sparse", "sparse": true },
        ];
        let same = rawdoc! { "v": 1, "key": { "n": 1 }, "name": "n", "unique": 1, "sparse": false, "expireAfterSeconds": 60, "background": true };
        assert!(!conflicts_with(same, &there));
        assert!(!conflicts_with(there[1].clone(), &there));
        assert!(!conflicts_with(rawdoc! { "key": { "m": 1 }, "name": "m" }, &there));
    }

    #[test]
    fn an_index_of_the_same_name_or_of_nothing_but_the_same_key_is() {
        let there = [rawdoc! { "key": { "n": 1 }, "name": "n", "collation": { "locale": "simple" } }];
        assert!(conflicts_with(rawdoc! { "key": { "n": -1 }, "name": "n" }, &there));
        assert!(conflicts_with(rawdoc! { "key": { "n": 1 }, "name": "n", "unique": true }, &there));
        assert!(conflicts_with(rawdoc! { "key": { "n": 1 }, "name": "other" }, &there));
        assert!(conflicts_with(rawdoc! { "key": { "n": 1 }, "name": "other", "expireAfterSeconds": 1 }, &there));
        // From 5.0 on, these are two indexes.
        let sparse = rawdoc! { "key": { "n": 1 }, "name": "other", "sparse": true };
        assert!(!conflicts_with(sparse.clone(), &there));
        assert!(conflict(&sparse, &there, told_apart_by(Version(4, 4, 2))));
        assert!(!conflict(
            &rawdoc! { "key": { "n": 1 }, "name": "fr", "collation": { "locale": "fr" } },
            &there,
            told_apart_by(Version(4, 4, 2))
        ));
    }
}
