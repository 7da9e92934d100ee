//! Applies the plans for generated histories to documents in memory: after every entry, they must
//! match the source.

use std::collections::BTreeMap;

use bson::Document;
use proptest::prelude::*;

use super::*;
use crate::format::manifest::ClusterTime;
use crate::names::Namespace;
use crate::oplog::tests::{Source, State, asks, time};

type Contents = BTreeMap<Uuid, BTreeMap<i32, i32>>;

/// For every collection that ever existed in the source.
fn planner(source: &Source, commits: Commits) -> Planner {
    let mut planner = Planner::new(commits, 2);
    for uuid in source.states.iter().flat_map(|state| state.documents.keys()) {
        let namespace = Namespace::new("t", uuid.to_string());
        planner
            .direct(*uuid, Destination { namespace, holds: Holds::Documents, has_rules: false, collated: false, unique: false });
    }
    planner
}

fn apply(planner: &mut Planner, frame: &[u8], to: &mut Contents) {
    for Arranged { inserts, deletes, rest } in planner.plan(frame).unwrap().lanes {
        let grouped = inserts.into_iter().chain(deletes).flatten().map(Work::Operation);
        for work in grouped.chain(rest) {
            let Work::Operation(change) = work else { panic!("{work:?}") };
            let documents = to.entry(change.place.namespace.collection.parse().unwrap()).or_default();
            let o = Document::from_reader(change.o.as_slice()).unwrap();
            let id = o.get_i32("_id").unwrap();
            match change.kind {
                OperationKind::Delete => drop(documents.remove(&id)),
                _ => drop(documents.insert(id, o.get_i32("n").unwrap())),
            }
        }
    }
}

/// The documents of the existing collections.
fn shown(contents: &Contents, state: &State) -> Contents {
    let of = |uuid: &Uuid| (*uuid, contents.get(uuid).cloned().unwrap_or_default());
    state.documents.keys().map(of).collect()
}

fn known(source: &Source, since: ClusterTime, n: usize) -> Commits {
    let (mut transactions, mut committed) = (Transactions::<()>::new(since), Committed::new(since));
    for entry in &source.entries[..n] {
        committed.add(transactions.take(&Entry::parse(entry).unwrap(), Vec::new()).unwrap().parts);
    }
    Commits::Known(committed)
}

proptest! {
    #[test]
    fn documents_are_the_sources_after_every_entry(asks in asks(), at in any::<prop::sample::Index>()) {
        let source = Source::after(&asks);
        let read_at = at.index(source.states.len());
        let since = time(read_at);
        let read = source.states[read_at].documents.clone();
        let mut awaiting = planner(&source, Commits::Awaited(Transactions::new(since)));
        let mut contents = read.clone();
        for n in 1..source.states.len() {
            apply(&mut awaiting, &source.entries[n - 1], &mut contents);
            let state = &source.states[n.max(read_at)];
            prop_assert_eq!(&shown(&contents, state), &state.documents, "after {}", n);
            // With known commits, the result is the same.
            let mut knowing = planner(&source, known(&source, since, n));
            let mut also = read.clone();
            apply(&mut knowing, &source.entries[..n].concat(), &mut also);
            prop_assert_eq!(&shown(&also, state), &state.documents, "up to {}", n);
        }
    }
}

#[test]
fn what_has_unique_values_is_written_in_the_sources_order() {
    let uuid = Uuid::from_u128(7);
    let place = |unique| {
        let (namespace, holds) = (Namespace::new("t", "c"), Holds::Documents);
        Destination { namespace, holds, has_rules: false, collated: false, unique }
    };
    let binary = bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: uuid.as_bytes().to_vec() };
    // The first document passes a value on to the others.
    let frame: Vec<u8> = (1..40_i32)
        .flat_map(|n| {
            let id = if n % 2 == 0 { 0 } else { n };
            let time = bson::Timestamp { time: n as u32, increment: 1 };
            let (o, o2) = (bson::rawdoc! { "_id": id, "u": n }, bson::rawdoc! { "_id": id });
            bson::rawdoc! { "op": "u", "ns": "d.c", "ui": binary.clone(), "o": o, "o2": o2, "ts": time, "t": 1_i64 }.into_bytes()
        })
        .collect();
    let planned = |unique| {
        let mut planner = Planner::new(Commits::Known(Committed::new(ClusterTime { t: 0, i: 0 })), 2);
        planner.direct(uuid, place(unique));
        let lanes = planner.plan(&frame).unwrap().lanes;
        lanes.into_iter().map(|lane| (lane.rest.len(), lane.inserts.len() + lane.deletes.len())).collect::<Vec<_>>()
    };
    assert!(planned(true) == [(39, 0), (0, 0)] || planned(true) == [(0, 0), (39, 0)], "{:?}", planned(true));
    assert_eq!(planned(false).iter().map(|(rest, _)| rest).sum::<usize>(), 21);
}
