//! Generated histories of a source: whatever is kept of open transactions, the same is gathered.

use proptest::prelude::*;

use super::*;
use crate::oplog::Committed;
use crate::oplog::apply::Holds;
use crate::oplog::tests::{Source, asks, time};

const LIMITS: Limits = Limits { documents: usize::MAX, bytes: usize::MAX, not_before: None, upto: None };

fn gatherer(source: &Source, since: ClusterTime, most: usize) -> (Gatherer, CatalogTracker<'static>) {
    let mut gatherer = Gatherer::new(since, most, Box::new(|_| true));
    for uuid in source.states.iter().flat_map(|state| state.documents.keys()) {
        let namespace = Namespace::new("t", uuid.to_string());
        let place = Destination { namespace, holds: Holds::Documents, has_rules: false, collated: false, unique: false };
        gatherer.direct(*uuid, place);
    }
    (gatherer, CatalogTracker::new(Vec::new(), since, |_| true).unwrap())
}

/// What one entry makes count: the entries, the parts of transactions among them, and how many
/// operations they have.
type Effect = (Vec<u8>, Vec<ClusterTime>, u64);

/// Takes an entry. A transaction that was not kept is read again. Tells whether that was necessary,
/// and whether the catalog changes.
fn take((gatherer, tracker): &mut (Gatherer, CatalogTracker<'static>), source: &Source, n: usize) -> (Effect, bool, bool) {
    let entry = &source.entries[n];
    let stop = gatherer.gather(tracker, entry, &mut 0, LIMITS).unwrap();
    let mut changes = false;
    if stop != Stop::End {
        let arrived = gatherer.arrived().unwrap();
        changes = stop == Stop::Changes || !arrived.created.is_empty();
        tracker.take(&arrived.entry).unwrap();
        assert_eq!(arrived.position.time, time(n + 1));
        if stop == Stop::Changes {
            gatherer.add(arrived).unwrap();
        } else {
            let mut large = arrived.into_large().unwrap();
            for again in &source.entries[..=n] {
                assert_eq!(gatherer.gather_parts(&mut large, again, &mut 0, usize::MAX).unwrap(), Stop::End);
            }
            large.prove_taken().unwrap();
        }
    }
    let Gathered { batch, entries, parts, .. } = gatherer.take();
    ((entries, parts, batch.operations()), stop == Stop::Large, changes)
}

proptest! {
    #[test]
    fn what_is_kept_does_not_change_what_is_gathered(
        asks in asks(),
        at in any::<prop::sample::Index>(),
        most in 0..1_000_usize,
    ) {
        let source = Source::after(&asks);
        let since = time(at.index(source.states.len()));
        let (mut all, mut some) = (gatherer(&source, since, usize::MAX), gatherer(&source, since, most));
        for n in 0..source.entries.len() {
            let (whole, is_large, changes) = take(&mut all, &source, n);
            prop_assert!(!is_large);
            let (again, _, changes_again) = take(&mut some, &source, n);
            prop_assert_eq!(&again.0, &whole.0, "after {}", n + 1);
            prop_assert_eq!((again.1, again.2, changes_again), (whole.1, whole.2, changes), "after {}", n + 1);
            prop_assert_eq!(all.0.open_from(), some.0.open_from());
            prop_assert_eq!(all.1.catalog().ok(), some.1.catalog().ok());
        }
    }

    #[test]
    fn what_an_entry_commits_is_open_until_it_is_added(asks in asks(), most in 0..1_000_usize) {
        let source = Source::after(&asks);
        let (mut gatherer, mut tracker) = gatherer(&source, time(0), most);
        let mut before = None;
        for entry in &source.entries {
            if gatherer.gather(&mut tracker, entry, &mut 0, LIMITS).unwrap() != Stop::End {
                prop_assert_eq!(gatherer.gathered().open_from, before);
                let arrived = gatherer.arrived().unwrap();
                tracker.take(&arrived.entry).unwrap();
                gatherer.add(arrived).unwrap();
            }
            before = gatherer.open_from();
            prop_assert_eq!(gatherer.gathered().open_from, before);
        }
    }

    #[test]
    fn pieces_are_what_the_whole_is_and_cut_no_transaction(asks in asks(), picks in prop::collection::vec(any::<bool>(), 8)) {
        let source = Source::after(&asks);
        let (mut gatherer, mut tracker) = gatherer(&source, time(0), usize::MAX);
        // Where the oldest open transaction begins after each entry.
        let mut open_from = Vec::new();
        for entry in &source.entries {
            if gatherer.gather(&mut tracker, entry, &mut 0, LIMITS).unwrap() == Stop::Changes {
                let arrived = gatherer.arrived().unwrap();
                tracker.take(&arrived.entry).unwrap();
                gatherer.add(arrived).unwrap();
            }
            open_from.push(gatherer.open_from());
        }
        let mut gathered = gatherer.take();
        let (operations, entries, parts) = (gathered.batch.operations(), gathered.entries.clone(), gathered.parts.clone());
        let pieces = gatherer.pieces(&mut gathered);
        let (mut picks, mut ahead, mut found) = (picks.into_iter().cycle(), vec![pieces.all()], Vec::new());
        while let Some(piece) = ahead.pop() {
            match pieces.halves(&piece).filter(|_| picks.next().unwrap()) {
                Some([first, second]) => {
                    assert!((first.start, first.end, second.end) == (piece.start, second.start, piece.end));
                    assert!(!first.is_empty() && !second.is_empty());
                    ahead.extend([second, first]);
                }
                None => found.push(piece),
            }
        }
        let whole: Vec<u8> = found.iter().flat_map(|piece| pieces.entries(piece).to_vec()).collect();
        prop_assert_eq!(whole, entries);
        let sum: u64 = found.iter().map(|piece| pieces.batch(piece).unwrap().operations()).sum();
        prop_assert_eq!(sum, operations);
        for end in found.iter().filter_map(|piece| pieces.end(piece)) {
            let n = usize::try_from(end.position.time.t).unwrap();
            prop_assert_eq!(end.open_from, open_from[n - 1]);
            prop_assert_eq!(end.position, OplogPosition::from(Position::of(&source.entries[n - 1]).unwrap()));
        }
        // Whoever applies a piece entry by entry takes all of it.
        let mut committed = Committed::new(ClusterTime { t: 0, i: 0 });
        committed.add(parts);
        for entry in Documents::of(&entries_of(&pieces)) {
            prop_assert!(committed.counts(&Entry::parse(entry.unwrap()).unwrap()));
        }
    }
}

fn entries_of(pieces: &Pieces) -> Vec<u8> {
    pieces.entries(&pieces.all()).to_vec()
}

#[test]
fn halves_are_about_equal_in_bytes() {
    let uuid = Uuid::from_u128(1);
    let binary = bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: uuid.as_bytes().to_vec() };
    let (mut gatherer, mut tracker) = gatherer(&Source::default(), time(0), usize::MAX);
    let (namespace, holds) = (Namespace::new("d", "c"), Holds::Documents);
    gatherer.direct(uuid, Destination { namespace, holds, has_rules: false, collated: false, unique: false });
    for (n, size) in (1..).zip([1_000, 10, 10, 10, 10, 10, 960, 10]) {
        let entry = bson::rawdoc! {
            "op": "i", "ns": "d.c", "ui": binary.clone(), "o": { "_id": n, "x": "x".repeat(size) },
            "ts": bson::Timestamp { time: n as u32, increment: 1 }, "t": 1_i64,
        };
        gatherer.gather(&mut tracker, entry.as_bytes(), &mut 0, LIMITS).unwrap();
    }
    let mut gathered = gatherer.take();
    let pieces = gatherer.pieces(&mut gathered);
    assert_eq!(pieces.halves(&pieces.all()), Some([0..3, 3..8]));
    assert_eq!(pieces.halves(&(0..3)), Some([0..1, 1..3]));
    assert_eq!(pieces.halves(&(5..8)), Some([5..6, 6..8]));
    assert_eq!(pieces.halves(&(6..8)), Some([6..7, 7..8]));
    assert_eq!(pieces.halves(&(7..8)), None);
}

#[test]
fn a_large_transaction_goes_on_after_the_part_that_is_there() {
    let parts = vec![time(3), time(5), time(9)];
    let large = |after: Option<usize>| {
        let mut large = Large::new(parts.clone());
        if let Some(after) = after {
            large.go_on_after(time(after));
        }
        large
    };
    assert_eq!((large(None).last(), large(None).left()), (None, Some((time(3), time(9)))));
    assert_eq!((large(Some(5)).last(), large(Some(5)).left()), (Some(time(5)), Some((time(9), time(9)))));
    assert_eq!((large(Some(9)).last(), large(Some(9)).left()), (Some(time(9)), None));
    // Of another transaction: from the beginning.
    assert_eq!(large(Some(4)).left(), large(None).left());
    assert!(large(Some(9)).prove_taken().is_ok());
    let lost = large(Some(5)).prove_taken().unwrap_err();
    assert!(lost.kind() == ErrorKind::Damaged && lost.to_string().contains("at "), "{lost}");
    assert!(large(None).is_next(time(2)).is_ok_and(|is| !is) && large(None).is_next(time(3)).is_ok_and(|is| is));
    assert!(large(None).is_next(time(4)).is_err());
}

#[test]
fn of_too_much_the_largest_is_forgotten() {
    use crate::oplog::{Effect, Transactions};

    let part = |session: i32, n: u32, previous: u32, size: usize, is_last: bool| {
        let o = match is_last {
            true => bson::rawdoc! { "applyOps": [], "x": "x".repeat(size) },
            false => bson::rawdoc! { "applyOps": [], "x": "x".repeat(size), "partialTxn": true },
        };
        bson::rawdoc! {
            "op": "c", "ns": "admin.$cmd", "ts": bson::Timestamp { time: n, increment: 1 }, "t": 1_i64, "lsid": { "id": session },
            "txnNumber": 1_i64, "prevOpTime": { "ts": bson::Timestamp { time: previous, increment: u32::from(previous > 0) }, "t": 1_i64 },
            "o": o,
        }
    };
    let mut transactions = Transactions::within(time(0), 3_000, Vec::len);
    let mut take = |entry: &bson::RawDocumentBuf| {
        transactions.take(&Entry::parse(entry.as_bytes()).unwrap(), vec![entry.as_bytes().to_vec()]).unwrap()
    };
    let nothing = Effect { kept: Vec::new(), parts: Vec::new(), is_forgotten: false };
    // The second one is the largest, and stays forgotten; then there is room for the others.
    for (session, n, previous) in [(1, 1, 0), (2, 2, 0), (2, 3, 2), (1, 4, 1), (2, 5, 3), (3, 6, 0)] {
        let size = if session == 1 { 500 } else { 800 };
        assert_eq!(take(&part(session, n, previous, size, false)), nothing);
    }
    let second = take(&part(2, 7, 5, 10, true));
    assert_eq!((second.is_forgotten, second.kept.len()), (true, 0));
    assert_eq!(second.parts, [time(2), time(3), time(5), time(7)]);
    let first = take(&part(1, 8, 4, 10, true));
    assert_eq!((first.is_forgotten, first.kept.len(), first.parts), (false, 3, vec![time(1), time(4), time(8)]));
    // What ended leaves its room to others.
    for (n, previous) in [(9, 6), (10, 9)] {
        assert_eq!(take(&part(3, n, previous, 800, false)), nothing);
    }
    let third = take(&part(3, 11, 10, 10, true));
    assert_eq!((third.is_forgotten, third.kept.len()), (false, 4));
}
