//! Generated histories of a source, to query the folds after every entry: they must report the
//! source's state then.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use proptest::prelude::*;
use uuid::Uuid;

use super::catalog::CatalogTracker;
use super::{Entry, Transactions};
use crate::format::digest::{ContentDigest, Sha256Hex};
use crate::format::manifest::{ClusterTime, Collection, CollectionKind, RawValue, StoredObject};
use crate::names::Namespace;

/// A request to the source, with collections, indexes, documents and sessions by number. Impossible
/// ones are ignored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    Create(u8),
    Drop(u8),
    Rename(u8, u8),
    /// Builds an index, or drops it.
    Index(u8, u8),
    /// Puts a document into a collection, alone or in a session's transaction.
    Put(Option<u8>, u8, i32),
    Delete(Option<u8>, u8, i32),
    /// The same in a transaction with a single part.
    PutAtOnce(u8, u8, i32),
    Prepare(u8),
    Commit(u8),
    Abort(u8),
}

pub(super) fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let (name, id, session) = (0..3u8, 0..3i32, 0..3u8);
    let alone_or_not = prop_oneof![Just(None), session.clone().prop_map(Some)];
    let ask = prop_oneof![
        2 => name.clone().prop_map(Ask::Create),
        1 => name.clone().prop_map(Ask::Drop),
        1 => (name.clone(), name.clone()).prop_map(|(from, to)| Ask::Rename(from, to)),
        1 => (name.clone(), 0..2u8).prop_map(|(name, index)| Ask::Index(name, index)),
        6 => (alone_or_not.clone(), name.clone(), id.clone()).prop_map(|(session, name, id)| Ask::Put(session, name, id)),
        2 => (alone_or_not, name.clone(), id.clone()).prop_map(|(session, name, id)| Ask::Delete(session, name, id)),
        1 => (session.clone(), name, id).prop_map(|(session, name, id)| Ask::PutAtOnce(session, name, id)),
        1 => session.clone().prop_map(Ask::Prepare),
        2 => session.clone().prop_map(Ask::Commit),
        1 => session.prop_map(Ask::Abort),
    ];
    proptest::collection::vec(ask, 1..60)
}

/// The visible state of a source.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct State {
    pub(super) names: BTreeMap<u8, Uuid>,
    pub(super) documents: BTreeMap<Uuid, BTreeMap<i32, i32>>,
    indexes: BTreeMap<Uuid, BTreeSet<u8>>,
    /// The first part of the oldest transaction without a logged end.
    open_from: Option<ClusterTime>,
}

/// A source during a history.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) entries: Vec<Vec<u8>>,
    /// Before each entry, and after the last.
    pub(super) states: Vec<State>,
    now: State,
    open: BTreeMap<u8, Open>,
    /// For each session, the first part of a transaction without a logged end.
    untold: BTreeMap<u8, ClusterTime>,
}

#[derive(Debug, Default)]
struct Open {
    number: i64,
    last: u32,
    is_prepared: bool,
    writes: Vec<Write>,
}

type Write = (Uuid, i32, Option<i32>);

/// The time of the `n`th entry, from 1.
pub(super) fn time(n: usize) -> ClusterTime {
    ClusterTime { t: n as u32, i: u32::from(n > 0) }
}

impl Source {
    pub(super) fn after(asks: &[Ask]) -> Self {
        let mut source = Self { states: vec![State::default()], ..Self::default() };
        asks.iter().for_each(|ask| source.take(*ask));
        source
    }

    fn log(&mut self, entry: Document) {
        let now: Timestamp = time(self.entries.len() + 1).into();
        let mut whole = doc! { "ts": now, "t": 1_i64, "v": 2_i64, "wall": bson::DateTime::MIN };
        whole.extend(entry);
        self.entries.push(whole.to_vec().unwrap());
        self.now.open_from = self.untold.values().min().copied();
        self.states.push(self.now.clone());
    }

    fn command(&mut self, uuid: Uuid, o: Document) {
        self.log(doc! { "op": "c", "ns": "d.$cmd", "ui": ui(uuid), "o": o });
    }

    /// A part of a session's transaction; the first begins one, the last logs its end.
    fn part(&mut self, session: u8, o: Document, is_last: bool) {
        let n = self.entries.len() + 1;
        let open = self.open.entry(session).or_insert_with(|| Open { number: n as i64, ..Open::default() });
        let previous = doc! { "ts": Timestamp { time: open.last, increment: u32::from(open.last > 0) }, "t": 1_i64 };
        match (is_last, open.last) {
            (true, _) => drop(self.untold.remove(&session)),
            (false, 0) => drop(self.untold.insert(session, time(n))),
            (false, _) => {}
        }
        open.last = n as u32;
        let (lsid, number) = (doc! { "id": i32::from(session) }, open.number);
        self.log(doc! { "op": "c", "ns": "admin.$cmd", "lsid": lsid, "txnNumber": number, "prevOpTime": previous, "o": o });
    }

    /// A transaction locks the collections and the documents that it writes to.
    fn is_held(&self, uuid: Uuid, id: Option<i32>, but_by: Option<u8>) -> bool {
        let others = self.open.iter().filter(|(session, _)| Some(**session) != but_by);
        others.flat_map(|(_, open)| &open.writes).any(|(in_, which, _)| *in_ == uuid && id.is_none_or(|id| *which == id))
    }

    fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Create(name) if !self.now.names.contains_key(&name) => {
                let uuid = Uuid::from_u128(self.entries.len() as u128 + 1);
                self.now.names.insert(name, uuid);
                self.now.documents.insert(uuid, BTreeMap::new());
                self.now.indexes.insert(uuid, BTreeSet::new());
                let id = doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" };
                self.command(uuid, doc! { "create": named(name), "idIndex": id });
            }
            Ask::Drop(name) => {
                let Some(uuid) = self.free(name) else { return };
                self.forget(name);
                self.command(uuid, doc! { "drop": named(name) });
            }
            Ask::Rename(from, to) if from != to => {
                let Some(uuid) = self.free(from) else { return };
                let mut o = doc! { "renameCollection": format!("d.{}", named(from)), "to": format!("d.{}", named(to)) };
                match (self.now.names.get(&to), self.free(to)) {
                    (None, _) => {}
                    (Some(_), Some(over)) => {
                        self.forget(to);
                        o.insert("dropTarget", ui(over));
                    }
                    (Some(_), None) => return,
                }
                self.now.names.remove(&from);
                self.now.names.insert(to, uuid);
                self.command(uuid, o);
            }
            Ask::Index(name, index) => {
                let Some(uuid) = self.free(name) else { return };
                let (of, key) = (format!("{index}_1"), index.to_string());
                let o = match self.now.indexes.get_mut(&uuid).is_some_and(|built| built.insert(index)) {
                    true => doc! { "createIndexes": named(name), "v": 2, "key": { key: 1 }, "name": of },
                    false => {
                        self.now.indexes.get_mut(&uuid).unwrap().remove(&index);
                        doc! { "dropIndexes": named(name), "index": of }
                    }
                };
                self.command(uuid, o);
            }
            Ask::Put(session, name, id) => self.write(session, name, id, Some(self.entries.len() as i32)),
            Ask::Delete(session, name, id) => self.write(session, name, id, None),
            Ask::PutAtOnce(session, name, id) if !self.open.contains_key(&session) => {
                let Some(uuid) = self.now.names.get(&name).copied().filter(|uuid| !self.is_held(*uuid, Some(id), None)) else {
                    return;
                };
                let value = self.entries.len() as i32;
                let operation = operation(uuid, name, id, self.now.documents[&uuid].contains_key(&id), Some(value));
                self.apply(&[(uuid, id, Some(value))]);
                self.part(session, doc! { "applyOps": [operation] }, true);
                self.open.remove(&session);
            }
            Ask::Prepare(session) if self.open.get(&session).is_some_and(|open| !open.is_prepared) => {
                self.part(session, doc! { "applyOps": [], "prepare": true }, false);
                self.open.get_mut(&session).unwrap().is_prepared = true;
            }
            Ask::Commit(session) => self.end(session, true),
            Ask::Abort(session) => self.end(session, false),
            _ => {}
        }
    }

    fn write(&mut self, session: Option<u8>, name: u8, id: i32, value: Option<i32>) {
        let Some(uuid) = self.now.names.get(&name).copied() else { return };
        if self.is_held(uuid, Some(id), session) || session.and_then(|s| self.open.get(&s)).is_some_and(|open| open.is_prepared) {
            return;
        }
        let own = session.and_then(|s| self.open.get(&s)).map(|open| open.writes.as_slice()).unwrap_or_default();
        let own = own.iter().rev().find(|(in_, which, _)| (*in_, *which) == (uuid, id));
        let exists = own.map_or(self.now.documents[&uuid].contains_key(&id), |(_, _, value)| value.is_some());
        if !exists && value.is_none() {
            return;
        }
        let operation = operation(uuid, name, id, exists, value);
        match session {
            None => {
                self.apply(&[(uuid, id, value)]);
                self.log(operation);
            }
            Some(session) => {
                self.part(session, doc! { "applyOps": [operation], "partialTxn": true }, false);
                self.open.get_mut(&session).unwrap().writes.push((uuid, id, value));
            }
        }
    }

    fn end(&mut self, session: u8, is_committed: bool) {
        let Some(open) = self.open.get(&session) else { return };
        let (is_prepared, writes) = (open.is_prepared, open.writes.clone());
        if is_committed {
            self.apply(&writes);
        }
        // Servers do not log the abort of an unprepared transaction.
        if is_committed || is_prepared {
            let o = match (is_committed, is_prepared) {
                (true, true) => doc! { "commitTransaction": 1 },
                (true, false) => doc! { "applyOps": [] },
                (false, _) => doc! { "abortTransaction": 1 },
            };
            self.part(session, o, true);
        }
        self.open.remove(&session);
    }

    fn apply(&mut self, writes: &[Write]) {
        for (uuid, id, value) in writes {
            let documents = self.now.documents.get_mut(uuid).unwrap();
            match value {
                Some(value) => drop(documents.insert(*id, *value)),
                None => drop(documents.remove(id)),
            }
        }
    }

    /// The collection of this name, if no transaction locks it.
    fn free(&self, name: u8) -> Option<Uuid> {
        self.now.names.get(&name).copied().filter(|uuid| !self.is_held(*uuid, None, None))
    }

    fn forget(&mut self, name: u8) {
        if let Some(uuid) = self.now.names.remove(&name) {
            self.now.documents.remove(&uuid);
            self.now.indexes.remove(&uuid);
        }
    }
}

fn operation(uuid: Uuid, name: u8, id: i32, exists: bool, value: Option<i32>) -> Document {
    let mut operation = doc! { "ns": format!("d.{}", named(name)), "ui": ui(uuid) };
    operation.extend(match (exists, value) {
        (true, Some(value)) => doc! { "op": "u", "o": { "_id": id, "n": value }, "o2": { "_id": id } },
        (false, Some(value)) => doc! { "op": "i", "o": { "_id": id, "n": value } },
        (_, None) => doc! { "op": "d", "o": { "_id": id } },
    });
    operation
}

fn named(name: u8) -> String {
    format!("c{name}")
}

fn ui(uuid: Uuid) -> Bson {
    bson::Uuid::from_bytes(uuid.into_bytes()).into()
}

fn listed(state: &State) -> Vec<Collection> {
    let raw = |d: &Document| RawValue::of(&RawDocumentBuf::try_from(d).unwrap());
    let one = |(name, uuid): (&u8, &Uuid)| {
        let built = state.indexes[uuid]
            .iter()
            .map(|index| doc! { "v": 2, "key": { index.to_string(): 1 }, "name": format!("{index}_1") });
        let indexes = std::iter::once(doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" }).chain(built);
        Collection {
            database: "d".to_owned(),
            name: named(*name),
            kind: CollectionKind::Collection,
            uuid: Some(*uuid),
            options: raw(&doc! {}),
            indexes: indexes.map(|index| raw(&index)).collect(),
            metadata: StoredObject { key: String::new(), bytes: 0, sha256: Sha256Hex::of(b"") },
            documents: 0,
            bytes: 0,
            digest: ContentDigest::default(),
            segments: Vec::new(),
        }
    };
    state.names.iter().map(one).collect()
}

/// Names, with UUIDs and index names.
fn catalog(collections: &[Collection]) -> BTreeMap<Namespace, (Option<Uuid>, BTreeSet<String>)> {
    let names = |c: &Collection| c.indexes.iter().map(|i| i.bson.get_str("name").unwrap().to_owned()).collect();
    collections.iter().map(|c| (c.namespace(), (c.uuid, names(c)))).collect()
}

fn tracker(source: &Source, listed_at: usize) -> CatalogTracker<'static> {
    CatalogTracker::new(Cow::Owned(listed(&source.states[listed_at])), time(listed_at), |_| true).unwrap()
}

proptest! {
    #[test]
    fn the_catalog_after_every_entry_is_the_sources(asks in asks(), at in any::<prop::sample::Index>()) {
        let source = Source::after(&asks);
        let listed_at = at.index(source.states.len());
        let mut going_on = tracker(&source, listed_at);
        for n in 1..source.states.len() {
            going_on.take(&source.entries[n - 1]).unwrap();
            let told = going_on.catalog().unwrap();
            let mut anew = tracker(&source, listed_at);
            for entry in &source.entries[..n] {
                anew.take(entry).unwrap();
            }
            prop_assert_eq!(&told, &anew.catalog().unwrap());
            prop_assert_eq!(catalog(&told.collections), catalog(&listed(&source.states[n.max(listed_at)])), "after {}", n);
        }
    }

    #[test]
    fn who_begins_where_a_transaction_is_open_misses_nothing(asks in asks(), at in any::<prop::sample::Index>()) {
        let source = Source::after(&asks);
        let since = at.index(source.states.len());
        let (mut all, mut late) = (Transactions::new(time(since)), Transactions::new(time(since)));
        let from = source.states[since].open_from.unwrap_or(time(since + 1));
        for (n, entry) in (1..).zip(&source.entries) {
            let entry = Entry::parse(entry).unwrap();
            let effect = all.take(&entry, vec![n]).unwrap();
            prop_assert_eq!(all.open_from(), source.states[n].open_from, "after {}", n);
            if entry.time >= from {
                prop_assert_eq!(late.take(&entry, vec![n]).unwrap(), effect);
            } else {
                prop_assert!(effect.kept.is_empty());
            }
        }
    }
}
