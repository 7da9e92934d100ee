//! The indexes of servers before 3.0, which stored those of a database in its collection
//! `system.indexes`: pure. Dumps of that time have it as a file, and may lack metadata.

use std::collections::{BTreeMap, HashSet};

use bson::RawDocumentBuf;

use super::part::named;
use crate::error::{Error, Result};
use crate::format::document::{self, Documents};
use crate::names::Namespace;

/// The collection that lists the indexes of its database.
pub(super) const SYSTEM_INDEXES: &str = "system.indexes";

/// The most bytes of such a collection to read: a hundred thousand indexes need less.
pub(super) const LIMIT: u64 = 64 * 1024 * 1024;

/// How many collections a note names.
const NAMED: usize = 5;

/// The listed indexes, by database and collection.
#[derive(Debug, Default)]
pub(super) struct OldIndexes {
    /// The databases with such a list.
    listed: HashSet<String>,
    indexes: BTreeMap<Namespace, Vec<RawDocumentBuf>>,
}

impl OldIndexes {
    /// Takes the documents of a database's list. The database in their namespaces does not count:
    /// the directory may have been renamed.
    pub(super) fn add(&mut self, database: &str, documents: &[u8]) -> Result<()> {
        self.listed.insert(database.to_owned());
        for index in Documents::of(documents) {
            self.add_one(database, index?)?;
        }
        Ok(())
    }

    fn add_one(&mut self, database: &str, index: &[u8]) -> Result<()> {
        document::check(index)?;
        let index = RawDocumentBuf::from_bytes(index.to_vec())
            .map_err(|e| Error::damaged(format!("an index in {database}.{SYSTEM_INDEXES} is not a document: {e}")))?;
        // A document without both fields is not an index.
        if [index.get("ns"), index.get("key")].iter().all(|field| matches!(field, Ok(None))) {
            return Ok(());
        }
        let collection =
            index.get_str("ns").ok().and_then(|namespace| namespace.split_once('.')).map(|(_, collection)| collection);
        let Some(collection) = collection.filter(|collection| !collection.is_empty()) else {
            return Err(Error::damaged(format!("an index in {database}.{SYSTEM_INDEXES} does not name its collection (ns)")));
        };
        self.indexes.entry(Namespace::new(database, collection)).or_default().push(index);
        Ok(())
    }

    /// Keeps only the indexes of this collection: no other one is read.
    pub(super) fn only(&mut self, namespace: &Namespace) {
        self.indexes.retain(|of, _| of == namespace);
    }

    /// The indexes of a collection without metadata, and a note about it.
    pub(super) fn take(&mut self, namespace: &Namespace) -> (Vec<RawDocumentBuf>, String) {
        let name = named(namespace);
        let indexes = self.indexes.remove(namespace).unwrap_or_default();
        let note = match (self.listed.contains(&namespace.database), indexes.len()) {
            (false, _) => format!(
                "{name} has no metadata: its options and indexes are not known; it is treated as a plain collection without indexes"
            ),
            (true, 0) => format!(
                "{name} has no metadata, and {SYSTEM_INDEXES} lists no index of it: its options and indexes are not known; it is treated as a plain collection without indexes"
            ),
            (true, 1) => {
                format!("{name} has no metadata: its options are not known, and its index is the one that {SYSTEM_INDEXES} lists")
            }
            (true, many) => {
                format!(
                    "{name} has no metadata: its options are not known, and its indexes are the {many} that {SYSTEM_INDEXES} lists"
                )
            }
        };
        (indexes, note)
    }

    /// A note for each database whose list names collections that the dump does not hold. Lists for
    /// collections with metadata need no note: the metadata counts.
    pub(super) fn of_nothing(&self, holds: impl Fn(&Namespace) -> bool) -> Vec<String> {
        let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for namespace in self.indexes.keys().filter(|namespace| !holds(namespace)) {
            missing.entry(&namespace.database).or_default().push(&namespace.collection);
        }
        let note = |(database, names): (&str, Vec<&str>)| {
            let more = match names.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let names = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            format!("{database}.{SYSTEM_INDEXES} lists indexes of collections that the dump does not hold: {names}{more}")
        };
        missing.into_iter().map(note).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]
mod tests {
    use bson::rawdoc;

    use super::*;

    #[test]
    fn indexes_are_told_by_the_collection_in_their_namespace() {
        let listed = [
            rawdoc! { "v": 1, "key": { "_id": 1 }, "ns": "old.a.b", "name": "_id_" },
            rawdoc! { "v": 1, "key": { "x": 1 }, "ns": "old.a.b", "name": "x_1", "unique": true },
            rawdoc! { "v": 1, "key": { "_id": 1 }, "ns": "old.gone", "name": "_id_" },
        ];
        let bytes: Vec<u8> = listed.iter().flat_map(|index| index.as_bytes().to_vec()).collect();
        let mut old = OldIndexes::default();
        old.add("shop", &bytes).unwrap();
        let (indexes, note) = old.take(&Namespace::new("shop", "a.b"));
        assert_eq!(indexes, listed[..2]);
        assert!(note.contains("the 2 that system.indexes lists"), "{note}");
        for (namespace, words) in [(Namespace::new("shop", "c"), "lists no index of it"), (Namespace::new("d", "c"), "not known")]
        {
            let (none, note) = old.take(&namespace);
            assert!(none.is_empty() && note.contains(words) && note.contains("without indexes"), "{note}");
        }
        assert_eq!(old.of_nothing(|_| true), Vec::<String>::new());
        let notes = old.of_nothing(|_| false);
        assert!(notes.len() == 1 && notes[0].contains("does not hold: gone"), "{notes:?}");
        let nameless = rawdoc! { "key": { "x": 1 }, "name": "x_1" };
        let error = old.add("shop", nameless.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("does not name its collection"), "{error}");
    }
}
