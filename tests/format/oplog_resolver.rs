//! The UUID resolver: which collection an entry of a dump's oplog is about if metadata does not
//! tell.

use bson::{Document, Timestamp, doc};
use bsonvault::error::ErrorKind;
use bsonvault::format::manifest::{Collection, CollectionKind};
use bsonvault::oplog::catalog::resolver::UuidResolver;
use uuid::Uuid;

use crate::oplog_by_name::listed;

fn collection(name: &str, kind: CollectionKind, uuid: Option<u128>) -> Collection {
    Collection { uuid: uuid.map(Uuid::from_u128), ..listed(name, kind, doc! {}) }
}

fn binary(uuid: u128) -> bson::Binary {
    bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: uuid.to_be_bytes().to_vec() }
}

fn insert(name: &str, uuid: u128) -> Document {
    doc! { "op": "i", "ns": format!("d.{name}"), "ui": binary(uuid), "o": { "_id": 1 } }
}

fn command(uuid: u128, o: Document) -> Document {
    doc! { "op": "c", "ns": "d.$cmd", "ui": binary(uuid), "o": o }
}

/// The UUIDs of these collections after these entries.
fn resolved(mut collections: Vec<Collection>, entries: &[Document]) -> Vec<Option<u128>> {
    let mut resolver = UuidResolver::new(&collections);
    for entry in entries {
        resolver.take(&with_time(entry)).unwrap();
    }
    resolver.resolve(&mut collections).unwrap();
    collections.iter().map(|c| c.uuid.map(|u| u.as_u128())).collect()
}

fn with_time(entry: &Document) -> Vec<u8> {
    let mut timed = doc! { "ts": Timestamp { time: 7, increment: 1 } };
    timed.extend(entry.clone());
    timed.to_vec().unwrap()
}

fn plain(name: &str, uuid: Option<u128>) -> Vec<Collection> {
    vec![collection(name, CollectionKind::Collection, uuid)]
}

#[test]
fn the_identity_of_the_metadata_counts_where_any_entry_is_about_it() {
    let renamed = command(1, doc! { "renameCollection": "d.a", "to": "d.b" });
    assert_eq!(resolved(plain("a", Some(1)), &[insert("a", 2), renamed]), [Some(1)]);
    assert_eq!(resolved(plain("a", Some(1)), &[]), [Some(1)]);
    assert_eq!(resolved(plain("a", Some(1)), &[insert("b", 2)]), [Some(1)]);
}

#[test]
fn one_that_was_replaced_before_the_oplog_began_has_the_identity_of_its_entries() {
    assert_eq!(resolved(plain("a", Some(1)), &[insert("a", 2), insert("a", 2)]), [Some(2)]);
    let batch = doc! { "op": "c", "ns": "admin.$cmd", "o": { "applyOps": [insert("a", 2)] } };
    assert_eq!(resolved(plain("a", Some(1)), &[batch]), [Some(2)]);
    assert_eq!(resolved(plain("a", Some(1)), &[command(2, doc! { "drop": "a" }), command(3, doc! { "create": "a" })]), [Some(2)]);
}

#[test]
fn one_that_came_to_the_name_within_the_oplog_is_another() {
    let renamed = command(2, doc! { "renameCollection": "d.b", "to": "d.a" });
    let both = [plain("a", Some(1)), plain("b", None)].concat();
    assert_eq!(resolved(both, &[renamed.clone(), insert("a", 2)]), [Some(1), Some(2)]);
    let over = command(2, doc! { "renameCollection": "d.b", "to": "d.a", "dropTarget": binary(3) });
    assert_eq!(resolved(plain("a", None), &[over]), [Some(3)]);
}

#[test]
fn one_without_an_identity_gets_that_of_its_entries_or_a_new_one() {
    let series = vec![collection("s", CollectionKind::TimeSeries, None), collection("v", CollectionKind::View, None)];
    assert_eq!(resolved(series.clone(), &[insert("system.buckets.s", 4), insert("v", 5)]), [Some(4), None]);
    assert_eq!(resolved(series, &[insert("s", 6)])[0], Some(6));
    assert_eq!(resolved(plain("a", None), &[command(2, doc! { "create": "a" }), insert("a", 2)]), [Some(2)]);
    let new = resolved([plain("a", None), plain("b", None)].concat(), &[]);
    assert!(new[0].is_some() && new[1].is_some() && new[0] != new[1], "{new:?}");
}

#[test]
fn writes_that_do_not_say_which_collection_are_refused_by_name() {
    let mut resolver = UuidResolver::new(&plain("a", Some(1)));
    let error = resolver.take(&with_time(&doc! { "op": "u", "ns": "d.a", "o": {}, "o2": { "_id": 1 } })).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("d.a"), "{error}");
    resolver.take(&with_time(&doc! { "op": "u", "ns": "config.x", "o": {}, "o2": { "_id": 1 } })).unwrap();
    resolver.take(&with_time(&doc! { "op": "n", "ns": "", "o": {} })).unwrap();
}
