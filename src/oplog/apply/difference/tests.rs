//! Differences are computed as servers do, and applied.

use bson::{Array, Bson, Document, Timestamp, doc};
use proptest::prelude::*;

use super::*;

fn value() -> impl Strategy<Value = Bson> {
    let leaf = prop_oneof![any::<i8>().prop_map(|n| Bson::Int32(n.into())), "[a-z]{0,3}".prop_map(Bson::from), Just(Bson::Null)];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Bson::Array),
            prop::collection::vec(("[a-d]", inner), 0..4).prop_map(|fields| Bson::Document(fields.into_iter().collect())),
        ]
    })
}

fn documents() -> impl Strategy<Value = Document> {
    prop::collection::vec(("[a-f]|du|sa", value()), 0..6).prop_map(|fields| fields.into_iter().collect())
}

/// The difference that leads from one document to another.
fn between(before: &Document, after: &Document) -> Document {
    let (mut deleted, mut updated, mut inside) = (Document::new(), Document::new(), Document::new());
    let fields: Vec<(&String, &Bson)> = after.iter().collect();
    let mut rest = fields.into_iter().peekable();
    for (name, old) in before {
        match rest.next_if(|(next, _)| *next == name) {
            Some((_, new)) if old == new => {}
            Some((_, new)) => match nested(old, new) {
                Some(difference) => drop(inside.insert(format!("s{name}"), difference)),
                None => drop(updated.insert(name, new)),
            },
            None if rest.clone().any(|(next, _)| next == name) => {}
            None => drop(deleted.insert(name, false)),
        }
    }
    let inserted: Document = rest.map(|(name, value)| (name.clone(), value.clone())).collect();
    let sections = [("d", deleted), ("u", updated), ("i", inserted)].into_iter().filter(|(_, section)| !section.is_empty());
    sections.map(|(name, section)| (name.to_owned(), Bson::from(section))).chain(inside).collect()
}

fn nested(old: &Bson, new: &Bson) -> Option<Document> {
    match (old, new) {
        (Bson::Document(old), Bson::Document(new)) => Some(between(old, new)),
        (Bson::Array(old), Bson::Array(new)) => Some(between_arrays(old, new)),
        _ => None,
    }
}

fn between_arrays(before: &Array, after: &Array) -> Document {
    let mut difference = doc! { "a": true };
    if after.len() < before.len() {
        difference.insert("l", i32::try_from(after.len()).unwrap());
    }
    for (at, new) in after.iter().enumerate() {
        match before.get(at) {
            Some(old) if old == new => {}
            Some(old) => match nested(old, new) {
                Some(inside) => drop(difference.insert(format!("s{at}"), inside)),
                None => drop(difference.insert(format!("u{at}"), new)),
            },
            None => drop(difference.insert(format!("u{at}"), new)),
        }
    }
    difference
}

fn after(document: &Document, difference: Document) -> Option<Document> {
    let change = doc! { "$v": 2, "diff": difference }.to_vec().unwrap();
    let after = applied(&document.to_vec().unwrap(), &change).unwrap()?;
    Some(Document::from_reader(after.as_slice()).unwrap())
}

proptest! {
    #[test]
    fn what_a_difference_leads_to_is_what_it_was_made_for(before in documents(), then in documents()) {
        let found = after(&before, between(&before, &then));
        // Fields are in order, too.
        prop_assert_eq!(found.map(|found| found.to_vec().unwrap()), Some(then.to_vec().unwrap()));
    }

    #[test]
    fn bytes_that_are_no_difference_do_no_harm(before in documents(), difference in documents()) {
        drop(applied(&before.to_vec().unwrap(), &difference.to_vec().unwrap()));
        after(&before, difference);
    }
}

#[test]
fn a_difference_for_another_document_is_not_applied() {
    let document = doc! { "_id": 1, "a": 1, "b": { "c": [1, 2] } };
    let cases = [
        doc! { "d": { "x": false } },
        doc! { "u": { "x": 1 } },
        doc! { "u": { "a": 1 }, "d": { "a": false } },
        doc! { "sa": { "u": { "x": 1 } } },
        doc! { "sx": { "i": { "y": 1 } } },
        doc! { "sb": { "a": true, "u0": 1 } },
        doc! { "sb": { "sc": { "u": { "0": 1 } } } },
        doc! { "sb": { "sc": { "a": true, "u3": 1 } } },
        doc! { "sb": { "sc": { "a": true, "l": 5 } } },
        doc! { "sb": { "sc": { "a": true, "l": 1, "u1": 1 } } },
        doc! { "sb": { "sc": { "a": true, "u1": 1, "u0": 1 } } },
        doc! { "sb": { "sc": { "a": true, "s0": { "u": { "x": 1 } } } } },
        doc! { "sb": { "sc": { "a": true, "l": -1 } } },
        doc! { "z": { "a": 1 } },
        doc! { "u": 5 },
    ];
    for case in cases {
        assert_eq!(after(&document, case.clone()), None, "{case}");
    }
    let first =
        doc! { "u": { "a": 5 }, "i": { "n": Timestamp { time: 0, increment: 0 } }, "sb": { "sc": { "a": true, "u2": 3 } } };
    let then = doc! { "_id": 1, "a": 5, "b": { "c": [1, 2, 3] }, "n": Timestamp { time: 0, increment: 0 } };
    assert_eq!(after(&document, first), Some(then));
}

#[test]
fn other_changes_are_left_alone() {
    let document = doc! { "_id": 1, "a": 1 }.to_vec().unwrap();
    for change in [
        doc! { "$set": { "a": 2 } },
        doc! { "$v": 1, "$set": { "a": 2 } },
        doc! { "$v": 1, "diff": { "u": { "a": 2 } } },
        doc! { "$v": 2, "diff": { "u": { "a": 2 } }, "more": 1 },
        doc! { "$v": 2 },
        doc! { "_id": 1, "a": 3 },
        doc! {},
    ] {
        assert_eq!(applied(&document, &change.to_vec().unwrap()).unwrap(), None, "{change}");
    }
    // Two fields of the same name.
    let (kind, value) = (kind::INT32, 1i32.to_le_bytes());
    let twice = Writer::default().with(kind, "a", &value).with(kind, "a", &value).finish();
    let change = doc! { "$v": 2, "diff": { "u": { "a": 2 } } }.to_vec().unwrap();
    assert_eq!(applied(&twice, &change).unwrap(), None);
}
