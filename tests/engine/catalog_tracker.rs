//! The catalog after the entries of an oplog, with entries as servers of 4.4 to 6.0 write them.

use bson::{Binary, Bson, Document, RawDocumentBuf, Timestamp, doc, spec::BinarySubtype};
use bsonvault::error::{Error, ErrorKind};
use bsonvault::format::digest::{ContentDigest, Sha256Hex};
use bsonvault::format::manifest::{ClusterTime, Collection, CollectionKind, RawValue, StoredObject};
use bsonvault::oplog::catalog::{Catalog, CatalogTracker};
use bsonvault::oplog::{Committed, Entry};
use uuid::Uuid;

/// The time of the listing. Entries of [`Oplog`] come later unless they have their own time.
const LISTED_AT: u32 = 100;

fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn binary(n: u128) -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: uuid(n).as_bytes().to_vec() }
}

fn listed(name: &str, kind: CollectionKind, identity: u128, options: Document, indexes: &[Document]) -> Collection {
    let raw = |d: &Document| RawValue::of(&RawDocumentBuf::try_from(d).unwrap());
    Collection {
        database: "d".to_owned(),
        name: name.to_owned(),
        kind,
        uuid: (kind != CollectionKind::View).then(|| uuid(identity)),
        options: raw(&options),
        indexes: indexes.iter().map(raw).collect(),
        metadata: StoredObject { key: "k".to_owned(), bytes: 1, sha256: Sha256Hex::of(b"k") },
        documents: 5,
        bytes: 50,
        digest: ContentDigest(5),
        segments: Vec::new(),
    }
}

fn plain(name: &str, identity: u128) -> Collection {
    listed(name, CollectionKind::Collection, identity, doc! {}, &[id_index()])
}

fn id_index() -> Document {
    doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" }
}

/// The result of the entries.
#[derive(Debug)]
struct Followed {
    catalog: Catalog,
    committed: Committed,
}

/// Entries, each a second after the one before.
struct Oplog {
    entries: Vec<Document>,
    time: u32,
}

impl Oplog {
    fn new() -> Self {
        Self { entries: Vec::new(), time: LISTED_AT }
    }

    fn entry(mut self, mut entry: Document) -> Self {
        self.time += 1;
        entry.extend(doc! { "ts": Timestamp { time: self.time, increment: 1 }, "t": 1_i64, "v": 2_i64, "wall": bson::DateTime::from_millis(0) });
        self.entries.push(entry);
        self
    }

    fn command(self, identity: u128, o: Document) -> Self {
        self.entry(doc! { "op": "c", "ns": "d.$cmd", "ui": binary(identity), "o": o })
    }

    fn create(self, name: &str, identity: u128) -> Self {
        self.command(identity, doc! { "create": name, "idIndex": id_index() })
    }

    fn view(self, op: &str, o: Document) -> Self {
        let o2 = doc! { "_id": o.get("_id").cloned().unwrap_or(Bson::String("d.v".to_owned())) };
        self.entry(doc! { "op": op, "ns": "d.system.views", "ui": binary(999), "o": o, "o2": o2 })
    }

    fn of_transaction(self, number: i64, previous: u32, o: Document) -> Self {
        let previous = doc! { "ts": Timestamp { time: previous, increment: u32::from(previous > 0) }, "t": if previous > 0 { 1_i64 } else { -1 } };
        self.entry(doc! { "lsid": { "id": binary(1) }, "txnNumber": number, "op": "c", "ns": "admin.$cmd", "o": o, "prevOpTime": previous })
    }

    fn followed(&self, listed: &[Collection]) -> Result<Followed, Error> {
        let listed_at = ClusterTime { t: LISTED_AT, i: 1 };
        let mut tracker = CatalogTracker::new(listed, listed_at, |n| !n.collection.starts_with("unwanted"))?;
        let mut committed = Committed::new(listed_at);
        for entry in &self.entries {
            committed.add(tracker.take(&entry.to_vec().unwrap())?);
        }
        Ok(Followed { catalog: tracker.catalog()?, committed })
    }

    /// The collections at the end: name, last digits of the UUID, and whether the backup holds any
    /// of it.
    fn at_end(&self, listed: &[Collection]) -> Vec<(String, Option<u128>, bool)> {
        let catalog = self.followed(listed).unwrap().catalog;
        let one = |c: &Collection| (c.namespace().to_string(), c.uuid.map(|u| u.as_u128()), c.documents > 0);
        catalog.collections.iter().map(one).collect()
    }
}

fn has(name: &str, identity: u128) -> (String, Option<u128>, bool) {
    (format!("d.{name}"), Some(identity), true)
}

fn new(name: &str, identity: u128) -> (String, Option<u128>, bool) {
    (format!("d.{name}"), Some(identity), false)
}

#[test]
fn a_log_that_is_put_aside_keeps_its_documents_under_its_new_name() {
    let oplog =
        Oplog::new().command(1, doc! { "renameCollection": "d.log", "to": "d.log_old", "stayTemp": false }).create("log", 2);
    assert_eq!(oplog.at_end(&[plain("log", 1)]), [new("log", 2), has("log_old", 1)]);
}

#[test]
fn a_name_that_is_dropped_and_made_anew_is_another_collection() {
    let oplog =
        Oplog::new().entry(doc! { "op": "c", "ns": "d.$cmd", "ui": binary(1), "o": { "drop": "a" }, "o2": { "numRecords": 3 } });
    assert_eq!(oplog.at_end(&[plain("a", 1)]), []);
    assert_eq!(oplog.create("a", 2).at_end(&[plain("a", 1), plain("b", 3)]), [new("a", 2), has("b", 3)]);
}

#[test]
fn a_collection_that_was_listed_after_it_was_created_keeps_its_documents() {
    let oplog = Oplog::new().create("old", 1).command(1, doc! { "renameCollection": "d.old", "to": "d.a", "stayTemp": false });
    assert_eq!(oplog.at_end(&[plain("a", 1)]), [has("a", 1)]);
    let dropped = Oplog::new().command(2, doc! { "drop": "a" }).create("a", 1);
    assert_eq!(dropped.at_end(&[plain("a", 1)]), [has("a", 1)]);
}

#[test]
fn what_an_aggregation_puts_out_takes_the_place_of_what_was_there() {
    let temporary = "tmp.agg_out.fadca639-4a95-486a-bd12-f66b3bf5a402";
    let oplog = Oplog::new().command(2, doc! { "create": temporary, "temp": true, "idIndex": id_index() });
    assert_eq!(oplog.at_end(&[plain("out", 1)]), [has("out", 1)], "a temporary one is left out");
    let rename = doc! { "renameCollection": format!("d.{temporary}"), "to": "d.out", "stayTemp": false, "dropTarget": binary(1) };
    let oplog = oplog.command(2, rename);
    assert_eq!(oplog.at_end(&[plain("out", 1)]), [new("out", 2)]);
    let end = oplog.followed(&[plain("out", 1)]).unwrap();
    assert!(end.catalog.collections[0].options.bson.is_empty(), "{:?}", end.catalog.collections[0].options.json());
}

/// A collection that is listed while it is filled counts under its final name; nobody selects its
/// temporary name.
#[test]
fn a_temporary_collection_that_was_listed_lasts_if_it_gets_a_wanted_name() {
    let temporary = |name: &str| listed(name, CollectionKind::Collection, 2, doc! { "temp": true }, &[id_index()]);
    let rename = |from: &str, to: &str| {
        doc! { "renameCollection": format!("d.{from}"), "to": format!("d.{to}"), "stayTemp": false, "dropTarget": binary(1) }
    };
    for name in ["tmp.agg_out.x", "unwanted_tmp"] {
        let held = [plain("out", 1), temporary(name)];
        assert_eq!(Oplog::new().at_end(&held), [has("out", 1)]);
        assert_eq!(Oplog::new().command(2, doc! { "drop": name }).at_end(&held), [has("out", 1)]);
        let end = Oplog::new().command(2, rename(name, "out")).followed(&held).unwrap();
        assert_eq!(end.catalog.collections.len(), 1);
        assert_eq!((end.catalog.collections[0].uuid, end.catalog.collections[0].documents), (Some(uuid(2)), 5));
        assert!(!end.catalog.collections[0].is_temporary());
        assert_eq!(Oplog::new().command(2, rename(name, "unwanted")).at_end(&held), []);
    }
}

#[test]
fn a_rename_over_another_drops_that_one() {
    let listed = [plain("a", 1), plain("b", 2)];
    for target in [Bson::Binary(binary(2)), Bson::Boolean(true)] {
        let oplog =
            Oplog::new().command(1, doc! { "renameCollection": "d.a", "to": "d.b", "stayTemp": false, "dropTarget": target });
        assert_eq!(oplog.at_end(&listed), [has("b", 1)]);
    }
}

#[test]
fn only_what_is_wanted_is_created_and_what_is_held_stays_wherever_it_goes() {
    let oplog = Oplog::new()
        .create("unwanted_a", 5)
        .create("unwanted_b", 6)
        .command(6, doc! { "renameCollection": "d.unwanted_b", "to": "d.b", "stayTemp": false })
        .command(1, doc! { "renameCollection": "d.a", "to": "d.unwanted", "stayTemp": false });
    assert_eq!(oplog.at_end(&[plain("a", 1)]), [new("b", 6), has("unwanted", 1)]);
}

#[test]
fn a_collection_whose_documents_were_not_read_cannot_be_given_a_wanted_name() {
    let oplog = Oplog::new().command(8, doc! { "renameCollection": "d.unwanted", "to": "d.a", "stayTemp": false });
    let error = oplog.followed(&[]).unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("d.a"), "{error}");
    let oplog = oplog.command(8, doc! { "drop": "a" });
    assert_eq!(oplog.at_end(&[]), []);
}

#[test]
fn a_database_goes_with_all_that_is_in_it() {
    let oplog = Oplog::new()
        .create("b", 2)
        .view("i", doc! { "_id": "d.v", "viewOn": "b", "pipeline": [] })
        .entry(doc! { "op": "c", "ns": "d.$cmd", "o": { "dropDatabase": 1 } })
        .create("c", 3);
    assert_eq!(oplog.at_end(&[plain("a", 1)]), [new("c", 3)]);
}

#[test]
fn what_was_done_before_the_listing_is_in_it() {
    let mut oplog = Oplog::new();
    oplog.time = LISTED_AT - 3;
    let oplog = oplog.command(1, doc! { "drop": "a" }).create("b", 2).command(3, doc! { "importCollection": "c" });
    assert_eq!(oplog.at_end(&[plain("a", 1)]), [has("a", 1)]);
    let end = oplog.followed(&[plain("a", 1)]).unwrap();
    let counts = |time: u32| {
        let entry = doc! { "op": "d", "ns": "d.a", "ui": binary(1), "o": { "_id": 1 }, "ts": Timestamp { time, increment: 1 } };
        end.committed.counts(&Entry::parse(&entry.to_vec().unwrap()).unwrap())
    };
    assert!(!counts(LISTED_AT - 1) && !counts(LISTED_AT) && counts(LISTED_AT + 1));
}

#[test]
fn indexes_are_what_was_built_dropped_and_changed() {
    let build = |verb: &str, name: &str| {
        doc! { verb: "a", "indexBuildUUID": binary(77), "indexes": [{ "v": 2, "key": { name: 1 }, "name": name, "sparse": true }] }
    };
    let index = |name: &str| doc! { "v": 2, "key": { name: 1 }, "name": name };
    let collection =
        listed("a", CollectionKind::Collection, 1, doc! {}, &[id_index(), index("x"), index("y"), index("under way")]);
    let change = |index: Document| doc! { "collMod": "a", "index": index };
    let oplog = Oplog::new()
        .command(1, build("startIndexBuild", "built"))
        .command(1, build("startIndexBuild", "failed"))
        .command(1, build("startIndexBuild", "not done"))
        .command(1, build("commitIndexBuild", "built"))
        .command(1, build("abortIndexBuild", "failed"))
        .command(1, build("abortIndexBuild", "under way"))
        .command(1, doc! { "createIndexes": "a", "v": 2, "unique": true, "key": { "made": 1 }, "name": "made" })
        .entry(doc! { "op": "c", "ns": "d.$cmd", "ui": binary(1), "o": { "dropIndexes": "a", "index": "x" }, "o2": index("x") })
        .command(1, change(doc! { "name": "y", "expireAfterSeconds": 7_i64 }))
        .command(1, change(doc! { "name": "y", "hidden": true }))
        .command(1, change(doc! { "name": "built", "prepareUnique": true }))
        .command(1, change(doc! { "keyPattern": { "built": 1 }, "unique": true }))
        .command(9, change(doc! { "name": "of another", "hidden": true }));
    let end = oplog.followed(std::slice::from_ref(&collection)).unwrap();
    let found: Vec<Document> = end.catalog.collections[0].indexes.iter().map(|i| Document::try_from(&*i.bson).unwrap()).collect();
    assert_eq!(
        found,
        [
            id_index(),
            doc! { "v": 2, "key": { "y": 1 }, "name": "y", "expireAfterSeconds": 7_i64, "hidden": true },
            doc! { "v": 2, "key": { "built": 1 }, "name": "built", "sparse": true, "unique": true },
            doc! { "v": 2, "unique": true, "key": { "made": 1 }, "name": "made" },
        ]
    );
    for (which, left) in
        [(Bson::String("*".to_owned()), 1), (Bson::Document(doc! { "y": 1 }), 3), (bson::bson!(["y", "made"]), 2)]
    {
        let oplog = Oplog { entries: oplog.entries.clone(), time: oplog.time };
        let end =
            oplog.command(1, doc! { "dropIndexes": "a", "index": which }).followed(std::slice::from_ref(&collection)).unwrap();
        assert_eq!(end.catalog.collections[0].indexes.len(), left);
    }
}

#[test]
fn indexes_of_time_series_are_those_that_users_see() {
    let oplog = Oplog::new()
        .command(
            4,
            doc! { "create": "system.buckets.s", "validator": { "$jsonSchema": {} }, "clusteredIndex": true,
            "timeseries": { "timeField": "t", "metaField": "m", "granularity": "seconds", "bucketMaxSpanSeconds": 3600 } },
        )
        .view("i", doc! { "_id": "d.s", "viewOn": "system.buckets.s", "pipeline": [{ "$_internalUnpackBucket": {} }] })
        .command(
            4,
            doc! { "createIndexes": "system.buckets.s", "v": 2, "name": "i",
            "key": { "meta": 1, "meta.a": -1, "control.max.t": -1, "control.min.t": -1, "data.g": "2dsphere_bucket" } },
        )
        .command(
            4,
            doc! { "createIndexes": "system.buckets.s", "v": 2, "name": "j", "key": { "control.min.x": 1, "control.max.x": 1 },
            "originalSpec": { "v": 2, "name": "j", "key": { "x": 1 } } },
        )
        .command(4, doc! { "collMod": "system.buckets.s", "timeseries": { "granularity": "hours" } })
        .command(4, doc! { "collMod": "system.buckets.s", "expireAfterSeconds": 9_i64 });
    let end = oplog.followed(&[]).unwrap();
    let [series] = end.catalog.collections.as_slice() else { panic!("{:?}", end.catalog.collections) };
    assert_eq!((series.kind, series.name.as_str(), series.uuid), (CollectionKind::TimeSeries, "s", Some(uuid(4))));
    let document = |raw: &RawValue| Document::try_from(&*raw.bson).unwrap();
    assert_eq!(
        document(&series.options),
        doc! { "timeseries": { "timeField": "t", "metaField": "m", "granularity": "hours", "bucketMaxSpanSeconds": 2_592_000 }, "expireAfterSeconds": 9_i64 }
    );
    assert_eq!(
        document(&series.indexes[0]),
        doc! { "v": 2, "name": "i", "key": { "m": 1, "m.a": -1, "t": -1, "g": "2dsphere" } }
    );
    assert_eq!(document(&series.indexes[1]), doc! { "v": 2, "name": "j", "key": { "x": 1 } });
}

#[test]
fn views_follow_the_documents_that_define_them() {
    let view = |name: &str| listed(name, CollectionKind::View, 0, doc! { "viewOn": "a", "pipeline": [] }, &[]);
    let oplog = Oplog::new()
        .view("u", doc! { "_id": "d.v", "viewOn": "b", "pipeline": [{ "$match": { "x": 2 } }] })
        .entry(doc! { "op": "d", "ns": "d.system.views", "ui": binary(999), "o": { "_id": "d.w" } })
        .view("i", doc! { "_id": "d.new", "viewOn": "v", "pipeline": [] })
        .view("i", doc! { "_id": "d.unwanted", "viewOn": "v", "pipeline": [] });
    let end = oplog.followed(&[view("v"), view("w"), view("x")]).unwrap();
    let names: Vec<_> = end.catalog.collections.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["new", "v", "x"]);
    let options = Document::try_from(&*end.catalog.collections[1].options.bson).unwrap();
    assert_eq!(options, doc! { "viewOn": "b", "pipeline": [{ "$match": { "x": 2 } }] });

    let dropped = oplog.command(999, doc! { "drop": "system.views" });
    assert_eq!(dropped.at_end(&[view("v")]), []);
    let changed = Oplog::new().view("u", doc! { "$v": 2, "diff": { "u": { "viewOn": "b" } } });
    let error = changed.followed(&[view("v")]).unwrap_err();
    assert!(error.kind() == ErrorKind::Refused && error.to_string().contains("d.v"), "{error}");
}

#[test]
fn what_cannot_be_followed_is_refused_by_its_name() {
    for (o, named) in [
        (doc! { "importCollection": "a" }, "importCollection"),
        (doc! { "convertToCapped": "a", "size": 5 }, "convertToCapped"),
        (doc! { "collMod": "a", "unheardOf": 1 }, "unheardOf"),
        (doc! { "collMod": "a", "index": { "name": "_id_", "unheardOf": 1 } }, "unheardOf"),
    ] {
        let error = Oplog::new().command(1, o.clone()).followed(&[plain("a", 1)]).unwrap_err();
        assert!(error.kind() == ErrorKind::Refused && error.to_string().contains(named), "{o}: {error}");
        // Elsewhere it does no harm.
        Oplog::new().command(9, o).followed(&[plain("a", 1)]).unwrap();
    }
}

#[test]
fn transactions_count_where_they_are_committed_after_the_listing() {
    let ops = |id: i32| vec![doc! { "op": "i", "ns": "d.a", "ui": binary(1), "o": { "_id": id } }];
    let mut oplog = Oplog::new();
    oplog.time = LISTED_AT - 10;
    // 91 to 93: ended before the listing. 94 to 101: prepared before it, committed after it. 102,
    // 103: aborted. 104: small. 105 to 107: large, unprepared. 108: never committed. 109, 110: a
    // batch that is not a transaction.
    let oplog = oplog
        .of_transaction(1, 0, doc! { "applyOps": ops(1), "partialTxn": true })
        .of_transaction(1, 91, doc! { "applyOps": ops(2), "partialTxn": true })
        .of_transaction(1, 92, doc! { "applyOps": ops(3), "count": 3 })
        .of_transaction(2, 0, doc! { "applyOps": ops(4), "partialTxn": true })
        .of_transaction(2, 94, doc! { "applyOps": ops(5), "prepare": true, "count": 2 });
    let mut oplog = oplog;
    oplog.time = LISTED_AT;
    let oplog = oplog
        .of_transaction(2, 95, doc! { "commitTransaction": 1, "commitTimestamp": Timestamp { time: 95, increment: 1 } })
        .of_transaction(3, 0, doc! { "applyOps": ops(6), "prepare": true })
        .of_transaction(3, 102, doc! { "abortTransaction": 1 })
        .of_transaction(4, 0, doc! { "applyOps": ops(7) })
        .of_transaction(5, 0, doc! { "applyOps": ops(8), "partialTxn": true })
        .of_transaction(5, 105, doc! { "applyOps": ops(9), "partialTxn": true })
        .of_transaction(5, 106, doc! { "applyOps": [{ "op": "c", "ns": "d.$cmd", "ui": binary(2), "o": { "create": "made", "idIndex": id_index() } }], "count": 3 })
        .of_transaction(6, 0, doc! { "applyOps": [{ "op": "c", "ns": "d.$cmd", "ui": binary(3), "o": { "create": "never", "idIndex": id_index() } }], "prepare": true })
        .entry(doc! { "lsid": { "id": binary(1) }, "txnNumber": 7_i64, "multiOpType": 1, "op": "c", "ns": "admin.$cmd",
            "o": { "applyOps": ops(10) }, "prevOpTime": { "ts": Timestamp { time: 0, increment: 0 }, "t": -1_i64 } });
    let end = oplog.followed(&[plain("a", 1)]).unwrap();
    let names: Vec<_> = end.catalog.collections.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["a", "made"]);
    let counted: Vec<u32> = oplog
        .entries
        .iter()
        .map(|e| e.to_vec().unwrap())
        .filter_map(|bytes| {
            let entry = Entry::parse(&bytes).unwrap();
            end.committed.counts(&entry).then_some(entry.time.t)
        })
        .collect();
    assert_eq!(counted, [94, 95, 104, 105, 106, 107, 109]);
}

#[test]
fn a_transaction_that_began_before_the_slice_is_an_error_only_where_it_counts() {
    let late = Oplog::new().of_transaction(2, 50, doc! { "commitTransaction": 1 });
    let error = late.followed(&[]).unwrap_err();
    assert!(error.kind() == ErrorKind::Damaged && error.to_string().contains("(50, 1)"), "{error}");
    let mut early = Oplog::new();
    early.time = LISTED_AT - 5;
    early
        .of_transaction(2, 50, doc! { "applyOps": [], "partialTxn": true })
        .of_transaction(2, 96, doc! { "applyOps": [] })
        .followed(&[])
        .unwrap();
    Oplog::new().of_transaction(2, 50, doc! { "abortTransaction": 1 }).followed(&[]).unwrap();
}

#[test]
fn capped_collections_are_told_by_their_last_document() {
    let capped = listed("a", CollectionKind::Collection, 1, doc! { "capped": true, "size": 4096 }, &[id_index()]);
    let oplog = Oplog::new().entry(doc! { "op": "i", "ns": "d.a", "ui": binary(1), "o": { "_id": 5 }, "o2": { "_id": 5 } });
    for (last, within) in [(5_i32, true), (4, false)] {
        let listed = [capped.clone()];
        let mut tracker = CatalogTracker::new(&listed, ClusterTime { t: LISTED_AT, i: 1 }, |_| true).unwrap();
        tracker.last_read(uuid(1), 0x10, &last.to_le_bytes());
        tracker.take(&oplog.entries[0].to_vec().unwrap()).unwrap();
        assert_eq!(tracker.catalog().unwrap().read_within.contains(&uuid(1)), within);
    }
}

#[test]
fn entries_that_are_none_are_refused() {
    let good = doc! { "op": "i", "ns": "d.a", "ui": binary(1), "o": { "_id": 1 }, "ts": Timestamp { time: 200, increment: 1 } };
    for (field, value) in [
        ("ts", Bson::Int32(1)),
        ("op", Bson::String("?".to_owned())),
        ("ui", Bson::Int32(1)),
        ("o", Bson::Int32(1)),
        ("ns", Bson::Int32(1)),
    ] {
        let mut bad = good.clone();
        bad.insert(field, value);
        assert_eq!(Entry::parse(&bad.to_vec().unwrap()).unwrap_err().kind(), ErrorKind::Damaged, "{bad}");
        bad.remove(field);
        if !matches!(field, "ui" | "ns") {
            assert_eq!(Entry::parse(&bad.to_vec().unwrap()).unwrap_err().kind(), ErrorKind::Damaged, "{bad}");
        }
    }
    let mut nested = doc! { "op": "c", "ns": "a.$cmd", "o": { "applyOps": [] } };
    for _ in 0..20 {
        nested = doc! { "op": "c", "ns": "a.$cmd", "o": { "applyOps": [nested] } };
    }
    nested.insert("ts", Timestamp { time: 200, increment: 1 });
    let bytes = nested.to_vec().unwrap();
    let entry = Entry::parse(&bytes).unwrap();
    assert_eq!(entry.each(&mut |_| Ok(())).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn a_capped_collection_may_not_become_smaller_than_what_was_read_of_it() {
    // Five documents of 50 bytes in total.
    let capped = listed("c", CollectionKind::Collection, 1, doc! { "capped": true, "size": 8192, "max": 100 }, &[id_index()]);
    let large_enough = Oplog::new().command(1, doc! { "collMod": "c", "cappedSize": 50_i64, "cappedMax": 5_i64 });
    let end = large_enough.followed(std::slice::from_ref(&capped)).unwrap();
    assert_eq!(end.catalog.collections[0].options.bson.get_i64("max").unwrap(), 5);
    for smaller in [doc! { "collMod": "c", "cappedMax": 4_i64 }, doc! { "collMod": "c", "cappedSize": 49.0 }] {
        let error = Oplog::new().command(1, smaller).followed(std::slice::from_ref(&capped)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("smaller"), "{error}");
    }
}
