//! Finds the UUID of each collection of a dump in the dump's oplog: pure.
//!
//! Entries identify collections by UUID (`ui`), which dumps do not always have: metadata of time
//! series and of old tools lack it. And a collection may have been replaced between mongodump's
//! listing and the beginning of its oplog. Then the entries themselves show it.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::format::document::Elements;
use crate::format::manifest::{Collection, CollectionKind};
use crate::names::{Namespace, SYSTEM_DATABASES};
use crate::oplog::{Entry, Operation, OperationKind, text, uuid};

/// Takes a dump's oplog. After each entry, it can report which UUIDs the dump's collections have in
/// it.
#[derive(Debug)]
pub struct UuidResolver {
    /// For each namespace that may hold documents of the dump, the collections with this name.
    names: HashMap<Namespace, Bearers>,
    seen: HashSet<Uuid>,
}

/// The first collections with a name, by the first entry about each.
#[derive(Debug, Default)]
struct Bearers {
    /// The one that had the name when the oplog began.
    before: Option<Uuid>,
    /// The one that was created with the name.
    created: Option<Uuid>,
}

impl UuidResolver {
    /// A resolver for a dump with these collections.
    #[must_use]
    pub fn new(collections: &[Collection]) -> Self {
        let names = collections.iter().filter(|c| c.kind != CollectionKind::View).flat_map(names_of);
        Self { names: names.map(|name| (name, Bearers::default())).collect(), seen: HashSet::new() }
    }

    /// Takes the next entry, a document of the oplog.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if it writes to a collection without a UUID, as servers before 3.6
    /// do; [`ErrorKind::Damaged`].
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
                            format!("the oplog of the dump cannot be replayed: a write to {target} has no collection UUID"),
                        )
                        .hint("servers before 3.6 write such entries; the dump can be imported without its oplog"));
                    }
                }
                Ok(())
            }
        })
    }

    /// Gives each collection its UUID in the entries so far: its own, if any entry is about that.
    /// Otherwise the UUID of the collection that had its name when the oplog began, or that was
    /// created under it. Otherwise a new one, if it has none.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if two have the same.
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

    /// Records that an entry is about a collection and calls it by this name.
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

/// The names by which entries may refer to a collection's documents. For a time series, these are
/// its buckets, which have no name of their own from 8.3 on.
fn names_of(collection: &Collection) -> impl Iterator<Item = Namespace> + use<> {
    let namespace = collection.namespace();
    let buckets = (collection.kind == CollectionKind::TimeSeries).then(|| namespace.buckets());
    buckets.into_iter().chain(std::iter::once(namespace))
}

fn whole(name: &str) -> Option<Namespace> {
    name.split_once('.').map(|(database, collection)| Namespace::new(database, collection))
}

/// One of them is a copy, and it is unknown which one the oplog is about.
fn twice(collection: &Collection, uuid: Uuid) -> Error {
    Error::damaged(format!("{} has the UUID {uuid}, which another collection of the dump has, too", collection.namespace()))
        .hint("one of them was copied, or renamed, by hand: remove it from the dump")
}
