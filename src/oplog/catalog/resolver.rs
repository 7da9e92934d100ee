//! Which UUID each collection of a dump has in its oplog: pure.
//!
//! Entries are told apart by the UUID of their collection (`ui`), and dumps do not always say it: metadata of time series never does, that of old tools does not either, and a
//! collection may have been replaced between mongodump's listing and the beginning of its oplog. Then the entries themselves tell.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Elements;
use crate::format::manifest::{Collection, CollectionKind};
use crate::names::{Namespace, SYSTEM_DATABASES};
use crate::oplog::{Entry, Operation, OperationKind, text, uuid};

/// Takes a dump's oplog, and can be asked after each entry which UUIDs the dump's collections have in it.
#[derive(Debug)]
pub struct UuidResolver {
    /// For each namespace that may hold documents of the dump, who bears the name.
    names: HashMap<Namespace, Bearers>,
    seen: HashSet<Uuid>,
}

/// The first collections that have a name, by the first entry about each.
#[derive(Debug, Default)]
struct Bearers {
    /// Had it when the oplog began.
    before: Option<Uuid>,
    /// Was created under it.
    created: Option<Uuid>,
}

impl UuidResolver {
    /// Of a dump with these collections.
    #[must_use]
    pub fn new(collections: &[Collection]) -> Self {
        let names = collections.iter().filter(|c| c.kind != CollectionKind::View).flat_map(names_of);
        Self { names: names.map(|name| (name, Bearers::default())).collect(), seen: HashSet::new() }
    }

    /// Takes the next entry, a document of the oplog.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] where it writes to a collection without saying which, as servers before 3.6 do; [`ErrorKind::Damaged`].
    pub fn take(&mut self, entry: &[u8]) -> Result<()> {
        let entry = Entry::parse(entry)?;
        entry.each(&mut |operation| match operation.kind {
            OperationKind::Nothing => Ok(()),
            OperationKind::Command => self.take_command(&operation),
            OperationKind::Insert | OperationKind::Update | OperationKind::Delete => {
                let Some(target) = operation.target() else { return Ok(()) };
                match operation.collection {
                    Some(collection) => self.met(collection, target, false),
                    None if SYSTEM_DATABASES.contains(&operation.database()) => {}
                    None => {
                        return Err(Error::new(
                            ErrorKind::Refused,
                            format!("the oplog of the dump cannot be replayed: a write to {target} does not say which collection it is about"),
                        )
                        .hint("servers before 3.6 write such; the dump without its oplog can be imported"));
                    }
                }
                Ok(())
            }
        })
    }

    /// Gives each collection the UUID that the entries so far have for it: its own, if any is about that; else the one that had its name
    /// when the oplog began, or that was created under it; else a new one, if it has none.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] where two have the same.
    pub fn resolve(&self, collections: &mut [Collection]) -> Result<()> {
        let mut taken: HashSet<Uuid> = HashSet::new();
        for collection in collections.iter() {
            if let Some(uuid) = collection.uuid.filter(|uuid| self.seen.contains(uuid))
                && !taken.insert(uuid)
            {
                return Err(twice(collection, uuid));
            }
        }
        for collection in collections.iter_mut().filter(|c| c.kind != CollectionKind::View) {
            if collection.uuid.is_some_and(|uuid| self.seen.contains(&uuid)) {
                continue;
            }
            let bearers: Vec<&Bearers> = names_of(collection).filter_map(|name| self.names.get(&name)).collect();
            let before = bearers.iter().filter_map(|b| b.before);
            let replaced_by = before.chain(bearers.iter().filter_map(|b| b.created)).find(|uuid| !taken.contains(uuid));
            let uuid = replaced_by.or(collection.uuid).unwrap_or_else(Uuid::new_v4);
            if !taken.insert(uuid) {
                return Err(twice(collection, uuid));
            }
            collection.uuid = Some(uuid);
        }
        Ok(())
    }

    fn take_command(&mut self, operation: &Operation<'_>) -> Result<()> {
        let Some(first) = Elements::of(operation.o)?.next().transpose()? else { return Ok(()) };
        let (Ok(name), Some(collection)) = (text(first), operation.collection) else { return Ok(()) };
        match first.name {
            b"renameCollection" => {
                let (mut to, mut dropped) = (None, None);
                for element in Elements::of(operation.o)? {
                    let element = element?;
                    match element.name {
                        b"to" => to = whole(text(element)?),
                        b"dropTarget" => dropped = uuid(element),
                        _ => {}
                    }
                }
                if let Some(from) = whole(name) {
                    self.met(collection, from, false);
                }
                if let (Some(to), Some(dropped)) = (to, dropped) {
                    self.met(dropped, to, false);
                }
            }
            command => self.met(collection, Namespace::new(operation.database(), name), command == b"create"),
        }
        Ok(())
    }

    /// An entry is about a collection, and calls it so.
    fn met(&mut self, collection: Uuid, name: Namespace, creates: bool) {
        // Later it may have been renamed.
        if !self.seen.insert(collection) {
            return;
        }
        if let Some(bearers) = self.names.get_mut(&name) {
            if creates { &mut bearers.created } else { &mut bearers.before }.get_or_insert(collection);
        }
    }
}

/// Under which names entries may speak of a collection's documents: those of a time series are its buckets, which from 8.3 on have no name of their own.
fn names_of(collection: &Collection) -> impl Iterator<Item = Namespace> + use<> {
    let namespace = collection.namespace();
    let buckets = (collection.kind == CollectionKind::TimeSeries).then(|| namespace.buckets());
    buckets.into_iter().chain(std::iter::once(namespace))
}

fn whole(name: &str) -> Option<Namespace> {
    name.split_once('.').map(|(database, collection)| Namespace::new(database, collection))
}

/// One of them is a copy, and which one its oplog is about cannot be told.
fn twice(collection: &Collection, uuid: Uuid) -> Error {
    Error::damaged(format!("{} has the UUID {uuid}, as another collection of the dump has", collection.namespace()))
        .hint("one of them was copied, or renamed, by hand: take it out of the dump")
}

#[cfg(test)]
mod tests {
    use bson::{Document, RawDocumentBuf, Timestamp, doc};

    use super::*;
    use crate::format::digest::{ContentDigest, Sha256Hex};
    use crate::format::manifest::{RawValue, StoredObject};

    fn collection(name: &str, kind: CollectionKind, uuid: Option<u128>) -> Collection {
        Collection {
            database: "d".to_owned(),
            name: name.to_owned(),
            kind,
            uuid: uuid.map(Uuid::from_u128),
            options: RawValue::of(&RawDocumentBuf::new()),
            indexes: Vec::new(),
            metadata: StoredObject { key: String::new(), bytes: 0, sha256: Sha256Hex::zero() },
            documents: 0,
            bytes: 0,
            digest: ContentDigest::default(),
            segments: Vec::new(),
        }
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
        assert_eq!(
            resolved(plain("a", Some(1)), &[command(2, doc! { "drop": "a" }), command(3, doc! { "create": "a" })]),
            [Some(2)]
        );
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
}
