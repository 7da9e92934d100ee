//! What is left of a lane must come to the same documents as all that was put into it.

use std::collections::BTreeMap;

use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use proptest::prelude::*;

use super::*;
use crate::format::kind;
use crate::names::Namespace;

/// What to do to the documents with the `_id` `n`, which is an int32 or an int64.
#[derive(Debug, Clone, Copy)]
struct Ask {
    what: u8,
    n: i32,
    long: bool,
}

/// For each number, the `_id` and the other fields.
type Contents = BTreeMap<i64, (Bson, Document)>;

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let ask = (0..5u8, 0..4i32, prop::bool::weighted(0.1)).prop_map(|(what, n, long)| Ask { what, n, long });
    prop::collection::vec(ask, 1..60)
}

fn place(holds: Holds, collated: bool) -> Shared {
    Arc::new(Destination { namespace: Namespace::new("t", "c"), holds, has_rules: false, collated, unique: false })
}

/// The work for an ask; `step` is what it writes.
fn work(ask: Ask, step: i32, place: &Shared) -> (u64, bool, Work) {
    let (id, bytes) = match ask.long {
        true => (Bson::Int64(ask.n.into()), (kind::INT64, i64::from(ask.n).to_le_bytes().to_vec())),
        false => (Bson::Int32(ask.n), (kind::INT32, ask.n.to_le_bytes().to_vec())),
    };
    let of = |document: Document| document.to_vec().unwrap();
    let change = |kind, o, o2| {
        let is_whole = ask.what < 2;
        Work::Operation(Change { place: place.clone(), kind, id: bytes.clone(), o: of(o), o2: Option::map(o2, of), is_whole })
    };
    let (leaves_nothing, work) = match ask.what {
        0 => (true, change(OperationKind::Insert, doc! { "_id": id, "a": step, "b": step }, None)),
        1 => (true, change(OperationKind::Update, doc! { "_id": id.clone(), "a": step, "b": step }, Some(doc! { "_id": id }))),
        2 => (
            true,
            Work::Whole { place: place.clone(), id: bytes.clone(), document: of(doc! { "_id": id, "a": step, "b": step }) },
        ),
        3 => (true, change(OperationKind::Delete, doc! { "_id": id }, None)),
        _ => {
            let diff = doc! { "$v": 2, "diff": { "u": { if step % 2 == 0 { "a" } else { "b" }: step } } };
            (false, change(OperationKind::Update, diff, Some(doc! { "_id": id })))
        }
    };
    (u64::from(ask.n.unsigned_abs()), leaves_nothing, work)
}

/// Does it as servers do: a document keeps its `_id`, whatever is written over it.
fn perform(work: &Work, contents: &mut Contents) {
    let parse = |bytes: &[u8]| Document::try_from(&*RawDocumentBuf::from_bytes(bytes.to_vec()).unwrap()).unwrap();
    let of = |document: &Document| match document.get("_id").unwrap() {
        Bson::Int32(n) => (i64::from(*n), Bson::Int32(*n)),
        Bson::Int64(n) => (*n, Bson::Int64(*n)),
        other => panic!("{other}"),
    };
    let fields = |document: Document| document.into_iter().filter(|(name, _)| name != "_id").collect();
    match work {
        Work::Operation(change) => {
            let o = parse(&change.o);
            let (n, id) = of(&change.o2.as_ref().map_or_else(|| o.clone(), |o2| parse(o2)));
            match (change.kind, o.get_document("diff")) {
                (OperationKind::Delete, _) => drop(contents.remove(&n)),
                (_, Ok(diff)) => {
                    let updated = diff.get_document("u").unwrap().clone();
                    contents.entry(n).or_insert((id, Document::new())).1.extend(updated);
                }
                _ => contents.entry(n).or_insert((id, Document::new())).1 = fields(o),
            }
        }
        Work::Whole { document, .. } => {
            let document = parse(document);
            let (n, id) = of(&document);
            contents.insert(n, (id, fields(document)));
        }
        Work::Empty(_) => contents.clear(),
    }
}

fn all(arranged: Arranged) -> Vec<Work> {
    let groups = arranged.inserts.into_iter().chain(arranged.deletes).flatten();
    groups.map(Work::Operation).chain(arranged.rest).collect()
}

proptest! {
    #[test]
    fn what_is_left_comes_to_the_same(asks in asks(), at_least in 1..4usize) {
        let place = place(Holds::Documents, false);
        let (mut lane, mut expected, mut found) = (Lane::default(), Contents::new(), Contents::new());
        for (step, ask) in (0..).zip(&asks) {
            let (hash, leaves_nothing, one) = work(*ask, step, &place);
            perform(&one, &mut expected);
            lane.push_about(hash, leaves_nothing, one);
        }
        all(lane.arrange_by(at_least)).iter().for_each(|work| perform(work, &mut found));
        prop_assert_eq!(found, expected);
    }
}

fn arranged(asks: &[(u8, i32)], place: &Shared) -> Arranged {
    let mut lane = Lane::default();
    for (step, (what, n)) in (0..).zip(asks) {
        let (hash, leaves_nothing, work) = work(Ask { what: *what, n: *n, long: false }, step, place);
        lane.push_about(hash, leaves_nothing, work);
    }
    lane.arrange_by(2)
}

#[test]
fn only_what_counts_in_the_end_is_left() {
    let place = place(Holds::Documents, false);
    let cases: [(&[u8], usize); 7] =
        [(&[0, 4, 4], 1), (&[2, 4, 1], 1), (&[0, 4, 3], 1), (&[4, 3, 4], 2), (&[4, 4], 2), (&[2, 4, 4], 3), (&[3, 3], 1)];
    for (whats, left) in cases {
        let asks: Vec<(u8, i32)> = whats.iter().map(|what| (*what, 1)).collect();
        assert_eq!(all(arranged(&asks, &place)).len(), left, "{whats:?}");
    }
}

#[test]
fn a_timestamp_that_servers_would_replace_is_left_to_the_difference() {
    let place = place(Holds::Documents, false);
    let mut lane = Lane::default();
    let (hash, _, insert) = work(Ask { what: 0, n: 1, long: false }, 0, &place);
    lane.push_about(hash, true, insert);
    let (_, _, mut update) = work(Ask { what: 4, n: 1, long: false }, 0, &place);
    if let Work::Operation(change) = &mut update {
        let empty = Timestamp { time: 0, increment: 0 };
        change.o = doc! { "$v": 2, "diff": { "i": { "t": empty } } }.to_vec().unwrap();
    }
    lane.push_about(hash, false, update);
    assert_eq!(all(lane.arrange_by(1)).len(), 2);
}

#[test]
fn inserts_and_deletes_that_nothing_precedes_are_grouped() {
    let asks = [(0, 1), (4, 2), (0, 3), (4, 3), (3, 4), (4, 7), (3, 2), (1, 5), (3, 6), (0, 8), (1, 8)];
    let arranged = arranged(&asks, &place(Holds::Documents, false));
    let ids = |changes: &[Change]| changes.iter().map(|c| c.id.1[0]).collect::<Vec<_>>();
    assert_eq!(arranged.inserts.iter().map(|group| ids(group)).collect::<Vec<_>>(), [[1, 3, 8]]);
    assert_eq!(arranged.deletes.iter().map(|group| ids(group)).collect::<Vec<_>>(), [[4, 2, 6]]);
    let [Work::Operation(first), Work::Operation(second)] = &arranged.rest[..] else { panic!() };
    assert_eq!([first.id.1[0], second.id.1[0]], [7, 5]);
}

#[test]
fn other_collections_and_odd_documents_are_left_to_applyops() {
    let many: Vec<(u8, i32)> = (0..10).map(|n| (n % 2 * 3, i32::from(n))).collect();
    let buckets = arranged(&many, &place(Holds::Buckets, false));
    assert!(buckets.inserts.is_empty() && buckets.deletes.is_empty() && buckets.rest.len() == 10, "{buckets:?}");
    let mut lane = Lane::default();
    for n in 0..10 {
        let (hash, leaves_nothing, mut insert) = work(Ask { what: 0, n, long: false }, n, &place(Holds::Documents, false));
        if let Work::Operation(change) = &mut insert {
            change.o = doc! { "n": n, "_id": n }.to_vec().unwrap();
        }
        lane.push_about(hash, leaves_nothing, insert);
    }
    assert_eq!(lane.arrange_by(2).rest.len(), 10);
}
