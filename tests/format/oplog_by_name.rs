//! The oplog filter on hand-made entries.

use std::sync::Arc;

use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use bsonvault::error::{ErrorKind, Result};
use bsonvault::format::digest::{ContentDigest, Sha256Hex};
use bsonvault::format::document::Documents;
use bsonvault::format::manifest::{ClusterTime, Collection, CollectionKind, RawValue, StoredObject};
use bsonvault::names::Namespace;
use bsonvault::oplog::filter::by_name::{Filter, Known, Rules};
use bsonvault::oplog::{Committed, Entry, Transactions};
use uuid::Uuid;

const LISTED: u32 = 100;

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn ui(n: u128) -> Bson {
    bson::Uuid::from_bytes(uuid(n).into_bytes()).into()
}

fn entry(second: u32, rest: Document) -> Document {
    let mut entry = doc! { "ts": Timestamp { time: second, increment: 1 }, "v": 2i64, "wall": bson::DateTime::MIN };
    entry.extend(rest);
    entry
}

fn insert(name: &str, n: u128, id: i32) -> Document {
    doc! { "op": "i", "ns": format!("d.{name}"), "ui": ui(n), "o": { "_id": id } }
}

fn command(n: Option<u128>, o: Document) -> Document {
    let mut command = doc! { "op": "c", "ns": "d.$cmd", "o": o };
    if let Some(n) = n {
        command.insert("ui", ui(n));
    }
    command
}

/// A part of the transaction with this number, after the part of that second.
fn part(number: i64, after: u32, o: Document) -> Document {
    let previous = Timestamp { time: after, increment: u32::from(after > 0) };
    doc! {
        "op": "c", "ns": "admin.$cmd", "o": o, "lsid": { "id": number }, "txnNumber": number,
        "prevOpTime": { "ts": previous, "t": if after > 0 { 1i64 } else { -1 } },
    }
}

/// A listed collection of the database `d`, without documents.
pub(crate) fn listed(name: &str, kind: CollectionKind, options: Document) -> Collection {
    Collection {
        database: "d".to_owned(),
        name: name.to_owned(),
        kind,
        uuid: None,
        options: RawValue { bson: RawDocumentBuf::try_from(&options).unwrap() },
        indexes: Vec::new(),
        metadata: StoredObject { key: String::new(), bytes: 0, sha256: Sha256Hex::zero() },
        documents: 0,
        bytes: 0,
        digest: ContentDigest::default(),
        segments: Vec::new(),
    }
}

fn known(name: &str, kind: CollectionKind, options: Document, after: Option<i32>) -> Known {
    Known::listed(&listed(name, kind, options), after.map(|id| (0x10, id.to_le_bytes().to_vec())))
}

/// The remaining entries for a backup of `d.a` (1), `d.capped` (2, read up to 5), the time series
/// `d.s` (3) and the view `d.v`; `d.out*` was not selected.
/// asked for.
fn kept(entries: &[Document]) -> Result<Vec<Document>> {
    let frame: Vec<u8> = entries.iter().flat_map(|e| e.to_vec().unwrap()).collect();
    let listed_at = ClusterTime { t: LISTED, i: 0 };
    let (mut transactions, mut committed) = (Transactions::<()>::new(listed_at), Committed::new(listed_at));
    for entry in Documents::of(&frame) {
        committed.add(transactions.take(&Entry::parse(entry?)?, Vec::new())?.parts);
    }
    let collections = [
        (uuid(1), known("a", CollectionKind::Collection, doc! {}, None)),
        (uuid(2), known("capped", CollectionKind::Collection, doc! { "capped": true }, Some(5))),
        (uuid(3), known("s", CollectionKind::TimeSeries, doc! {}, None)),
    ];
    let rules = Rules {
        committed,
        wanted: Box::new(|name| !name.collection.starts_with("out") && !name.collection.starts_with("system.")),
        deletes_in_capped: true,
    };
    let names = ["a", "capped", "s", "v"].map(|name| Namespace::new("d", name));
    let views = ["s", "v"].map(|name| Namespace::new("d", name));
    let filter = Filter::new(Arc::new(rules), collections.into(), names.into(), views.into());
    let (filter, left) = filter.kept(&frame)?;
    let left: Vec<Document> = Documents::of(&left)
        .map(|d| Document::try_from(RawDocumentBuf::from_bytes(d.unwrap().to_vec()).unwrap()).unwrap())
        .collect();
    assert_eq!(filter.entries(), left.len() as u64);
    Ok(left)
}

fn refusal(entries: &[Document]) -> String {
    let error = kept(entries).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.hint_text().unwrap().contains("import it into a server"), "{error}");
    error.to_string()
}

#[test]
fn what_the_documents_have_already_or_is_of_others_is_left_out() {
    let old = entry(99, insert("a", 1, 1));
    let now = entry(100, insert("a", 1, 2));
    let other = entry(101, insert("a", 9, 3));
    let system = entry(102, doc! { "op": "i", "ns": "config.x", "ui": ui(1), "o": { "_id": 1 } });
    let noop = entry(103, doc! { "op": "n", "ns": "", "o": {} });
    let update = doc! { "op": "u", "ns": "d.a", "ui": ui(1), "o": { "$v": 2, "diff": { "u": { "x": 1 } } }, "o2": { "_id": 1 } };
    let (update, delete) = (entry(104, update), entry(105, doc! { "op": "d", "ns": "d.a", "ui": ui(1), "o": { "_id": 1 } }));
    let bucket = entry(106, insert("system.buckets.s", 3, 1));
    let all = [old, now.clone(), other, system, noop, update.clone(), delete.clone(), bucket.clone()];
    assert_eq!(kept(&all).unwrap(), [now, update, delete, bucket]);
}

#[test]
fn an_apply_ops_is_rebuilt_without_the_operations_of_others() {
    let mixed = command(None, doc! { "applyOps": [insert("a", 1, 1), insert("b", 9, 2), insert("a", 1, 3)], "count": 3i64 });
    let foreign = command(None, doc! { "applyOps": [insert("b", 9, 2)] });
    let nested = command(None, doc! { "applyOps": [foreign.clone(), command(None, doc! { "applyOps": [insert("a", 1, 4)] })] });
    let own = entry(104, command(None, doc! { "applyOps": [insert("a", 1, 5)], "x": 1 }));
    let left = kept(&[entry(101, mixed), entry(102, foreign), entry(103, nested), own.clone()]).unwrap();
    let rebuilt = command(None, doc! { "applyOps": [insert("a", 1, 1), insert("a", 1, 3)], "count": 3i64 });
    let inner = command(None, doc! { "applyOps": [command(None, doc! { "applyOps": [insert("a", 1, 4)] })] });
    assert_eq!(left, [entry(101, rebuilt), entry(103, inner), own]);
}

#[test]
fn transactions_are_left_whole_where_they_count_and_go_where_they_do_not() {
    let ops = |id| doc! { "applyOps": [insert("a", 1, id)], "partialTxn": true };
    // Begun before the listing, committed after it. One of its parts is only about other
    // namespaces.
    let first = entry(90, part(1, 0, ops(1)));
    let foreign = entry(91, part(1, 90, doc! { "applyOps": [insert("b", 9, 2)], "partialTxn": true }));
    let last = entry(120, part(1, 91, doc! { "applyOps": [insert("a", 1, 3)], "count": 3i64 }));
    let emptied = entry(91, part(1, 90, doc! { "applyOps": [], "partialTxn": true }));
    // Prepared, and committed.
    let prepared = entry(105, part(2, 0, doc! { "applyOps": [insert("a", 1, 4)], "prepare": true }));
    let commit =
        entry(110, part(2, 105, doc! { "commitTransaction": 1, "commitTimestamp": Timestamp { time: 109, increment: 1 } }));
    // Aborted; committed before the listing; never ended; only about other namespaces, and
    // unprepared.
    let aborted = [entry(106, part(3, 0, ops(5))), entry(107, part(3, 106, doc! { "abortTransaction": 1 }))];
    let early = [entry(92, part(4, 0, ops(6))), entry(95, part(4, 92, doc! { "applyOps": [insert("a", 1, 7)] }))];
    let early_commit = entry(96, part(6, 80, doc! { "commitTransaction": 1 }));
    let open = entry(115, part(5, 0, ops(8)));
    let mut all = vec![first.clone(), foreign, prepared.clone(), commit.clone(), last.clone(), open, early_commit];
    all.extend(aborted.into_iter().chain(early));
    all.sort_by_key(|e| e.get_timestamp("ts").unwrap());
    assert_eq!(kept(&all).unwrap(), [first, emptied, prepared, commit, last]);
}

#[test]
fn inserts_into_a_capped_collection_begin_after_the_last_document_that_was_read() {
    let inserts: Vec<_> = [4, 5, 6, 7].map(|id| entry(100 + id, insert("capped", 2, id.cast_signed()))).into();
    let delete = entry(108, doc! { "op": "d", "ns": "d.capped", "ui": ui(2), "o": { "_id": 1 } });
    let all = [inserts.clone(), vec![delete.clone()]].concat();
    assert_eq!(kept(&all).unwrap(), [inserts[2].clone(), inserts[3].clone(), delete]);
    let update = doc! { "op": "u", "ns": "d.capped", "ui": ui(2), "o": { "_id": 6, "x": 1 }, "o2": { "_id": 6 } };
    assert!(refusal(&[entry(109, update)]).contains("a document of the capped collection d.capped was changed"));
}

#[test]
fn commands_stay_where_names_and_identities_do_not_part() {
    let stays = [
        entry(101, command(Some(7), doc! { "create": "born", "idIndex": { "v": 2, "key": { "_id": 1 }, "name": "_id_" } })),
        entry(102, insert("born", 7, 1)),
        entry(103, command(Some(1), doc! { "createIndexes": "a", "v": 2, "key": { "x": 1, "a": -1 }, "name": "x" })),
        entry(104, command(Some(1), doc! { "collMod": "a", "validator": {} })),
        entry(105, command(Some(1), doc! { "dropIndexes": "a", "index": "x" })),
        entry(106, command(Some(7), doc! { "drop": "born" })),
    ];
    let goes = [
        entry(110, command(Some(1), doc! { "startIndexBuild": "a", "indexes": [] })),
        entry(111, command(Some(8), doc! { "create": "out1" })),
        entry(112, insert("out1", 8, 1)),
        entry(113, command(Some(8), doc! { "renameCollection": "d.out1", "to": "d.out2" })),
        entry(114, command(Some(10), doc! { "create": "tmp.agg_out.1", "temp": true })),
        entry(115, command(Some(10), doc! { "renameCollection": "d.tmp.agg_out.1", "to": "d.out3", "dropTarget": false })),
        entry(116, command(Some(9), doc! { "drop": "a" })),
        entry(
            117,
            doc! { "op": "i", "ns": "d.system.views", "ui": ui(20), "o": { "_id": "d.out_view", "viewOn": "a", "pipeline": [] } },
        ),
        entry(118, doc! { "op": "c", "ns": "e.$cmd", "o": { "dropDatabase": 1 } }),
    ];
    let all: Vec<_> = stays.iter().chain(&goes).cloned().collect();
    assert_eq!(kept(&all).unwrap(), stays);
}

#[test]
fn creating_what_is_listed_is_passed_over() {
    let goes = [
        entry(101, command(Some(1), doc! { "create": "a", "idIndex": { "v": 2, "key": { "_id": 1 }, "name": "_id_" } })),
        entry(102, command(Some(2), doc! { "create": "capped", "capped": true, "size": 4096 })),
        entry(103, command(Some(3), doc! { "create": "system.buckets.s", "timeseries": {} })),
    ];
    let stays = [entry(110, insert("a", 1, 1)), entry(111, command(Some(1), doc! { "drop": "a" }))];
    let all: Vec<_> = goes.iter().chain(&stays).cloned().collect();
    assert_eq!(kept(&all).unwrap(), stays);
    // A new collection of the same name is a different one.
    assert!(refusal(&[entry(101, command(Some(7), doc! { "create": "a" }))]).contains("d.a was dropped and recreated"));
}

#[test]
fn what_mongorestore_would_get_wrong_is_refused_by_name() {
    let view = |op: &str, id: &str| doc! { "op": op, "ns": "d.system.views", "ui": ui(20), "o": { "_id": id, "viewOn": "a", "pipeline": [] }, "o2": { "_id": id } };
    for (entries, message) in [
        (vec![command(Some(1), doc! { "renameCollection": "d.a", "to": "d.b" })], "d.a was renamed to d.b"),
        (vec![command(Some(9), doc! { "renameCollection": "d.x", "to": "d.b" })], "another collection was renamed to d.b"),
        (
            vec![command(Some(9), doc! { "renameCollection": "d.x", "to": "d.out", "dropTarget": ui(1) })],
            "another collection was renamed to d.out",
        ),
        (vec![command(Some(1), doc! { "drop": "a" }), command(Some(7), doc! { "create": "a" })], "d.a was dropped and recreated"),
        (
            vec![
                command(Some(7), doc! { "create": "b" }),
                command(Some(7), doc! { "drop": "b" }),
                command(Some(8), doc! { "create": "b" }),
            ],
            "d.b was dropped and recreated",
        ),
        (vec![view("i", "d.new")], "the view or time series d.new was created, changed or dropped"),
        (vec![view("u", "d.v")], "the view or time series d.v was"),
        (vec![view("d", "d.s")], "the view or time series d.s was"),
        (vec![command(Some(20), doc! { "drop": "system.views" })], "was dropped"),
        (vec![command(Some(7), doc! { "create": "system.buckets.t", "timeseries": {} })], "the time series d.t was created"),
        (vec![command(Some(3), doc! { "drop": "system.buckets.s" })], "the time series d.s was dropped"),
        (
            vec![command(Some(3), doc! { "createIndexes": "system.buckets.s", "key": { "meta": 1 }, "name": "m" })],
            "the time series d.s was changed by the command \"createIndexes\"",
        ),
        (vec![command(None, doc! { "dropDatabase": 1 })], "was dropped with its database"),
        (vec![command(Some(1), doc! { "upgradeDowngradeViewlessTimeseries": "a" })], "upgradeDowngradeViewlessTimeseries"),
        (vec![insert("b", 1, 1)], "d.a was written to under the name d.b"),
    ] {
        let entries: Vec<_> = (101..).zip(entries).map(|(second, e)| entry(second, e)).collect();
        let refusal = refusal(&entries);
        assert!(refusal.contains(message) && refusal.starts_with("oplog entry at 1970-01-01T00:01:4"), "{refusal}");
    }
}

#[test]
fn what_is_no_entry_is_an_error_and_no_panic() {
    let without_ui = entry(101, doc! { "op": "i", "ns": "d.a", "o": { "_id": 1 } });
    for broken in [
        without_ui,
        entry(101, command(None, doc! { "applyOps": 1 })),
        entry(101, command(None, doc! { "applyOps": [1] })),
        entry(101, command(Some(7), doc! { "create": 1 })),
        entry(101, command(Some(1), doc! { "renameCollection": "d.a" })),
    ] {
        assert_eq!(kept(std::slice::from_ref(&broken)).unwrap_err().kind(), ErrorKind::Damaged, "{broken}");
    }
    let mut deep = insert("a", 1, 1);
    for _ in 0..20 {
        deep = command(None, doc! { "applyOps": [deep] });
    }
    assert_eq!(kept(&[entry(101, deep)]).unwrap_err().kind(), ErrorKind::Damaged);
}
