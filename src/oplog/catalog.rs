//! Works out which collections, views and indexes exist after each entry, from one listing and the
//! entries: pure.
//!
//! All changes to the catalog are resolved here: collections, views and indexes that are created,
//! dropped, changed and renamed. So replaying only deals with documents, in collections that exist
//! at the last entry to be replayed.

mod fields;
mod indexes;
mod options;
pub mod resolver;
mod series;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use bson::RawDocumentBuf;
use uuid::Uuid;

use self::fields::{Fields, is_true};
use self::indexes::Indexes;
use self::options::unsupported;
use super::{Effect, Entry, Operation, OperationKind, Transactions, text, uuid};
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::{ContentDigest, Sha256Hex};
use crate::format::kind;
use crate::format::manifest::{ClusterTime, Collection, CollectionKind, RawValue, StoredObject};
use crate::names::{BUCKETS_PREFIX, Namespace, SYSTEM_DATABASES};

const VIEWS: &str = "system.views";

/// Follows the catalog entry by entry. After each, it can report the catalog and continue.
pub struct CatalogTracker<'a> {
    listed_at: ClusterTime,
    wanted: Box<dyn Fn(&Namespace) -> bool + Send + Sync + 'a>,
    listed: Cow<'a, [Collection]>,
    collections: HashMap<Uuid, State>,
    views: BTreeMap<Namespace, View>,
    /// Unlisted collections from before the first entry, once they are renamed.
    strangers: HashMap<Uuid, Namespace>,
    transactions: Transactions<Command>,
    last_read: HashMap<Uuid, (u8, Vec<u8>)>,
    read_until: Option<ClusterTime>,
    rewritten: HashSet<Uuid>,
    has_differences: bool,
}

/// The catalog after an entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalog {
    /// The collections, time series and views at that time, by namespace. Listed ones keep their
    /// segments, documents, bytes and digest, which describe the state before the replay. Those
    /// created by entries have none.
    pub collections: Vec<Collection>,
    /// Whether any update is written as a difference (`$v: 2`), which servers write and accept from
    /// 5.0 on.
    pub has_differences: bool,
    /// The capped collections whose last document read is inserted by an entry: inserts up to it
    /// have been read.
    pub read_within: HashSet<Uuid>,
}

/// The current state of a collection.
#[derive(Debug, Clone)]
struct State {
    namespace: Namespace,
    kind: CollectionKind,
    options: Fields,
    indexes: Indexes,
    /// Its index in the listing.
    listed: Option<usize>,
    /// Whether entries changed it. If not, options and indexes are the listed ones, byte for byte.
    changed: bool,
}

#[derive(Debug, Clone)]
struct View {
    options: RawDocumentBuf,
    listed: Option<usize>,
}

/// A command that is kept until its transaction is committed.
#[derive(Debug)]
struct Command {
    namespace: String,
    collection: Option<Uuid>,
    o: Vec<u8>,
}

impl std::fmt::Debug for CatalogTracker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatalogTracker").field("listed_at", &self.listed_at).finish_non_exhaustive()
    }
}

impl<'a> CatalogTracker<'a> {
    /// Starts from what was listed at this time. Collections created by entries are included if
    /// their name is `wanted` when the catalog is requested. Listed ones are always included.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if options or indexes are not documents.
    pub fn new(
        listed: impl Into<Cow<'a, [Collection]>>,
        listed_at: ClusterTime,
        wanted: impl Fn(&Namespace) -> bool + Send + Sync + 'a,
    ) -> Result<Self> {
        let listed = listed.into();
        let (mut collections, mut views) = (HashMap::new(), BTreeMap::new());
        for (number, collection) in listed.iter().enumerate() {
            let namespace = collection.namespace();
            let Some(uuid) = collection.uuid else {
                let view = View { options: collection.options.bson.clone(), listed: Some(number) };
                views.insert(namespace, view);
                continue;
            };
            let options = Fields::of(collection.options.bson.as_bytes())?;
            let indexes = Indexes {
                list: collection.indexes.iter().map(|i| Fields::of(i.bson.as_bytes())).collect::<Result<_>>()?,
                series: (collection.kind == CollectionKind::TimeSeries).then(|| options.clone()),
            };
            let state = State { options, indexes, kind: collection.kind, listed: Some(number), changed: false, namespace };
            collections.insert(uuid, state);
        }
        Ok(Self {
            listed_at,
            wanted: Box::new(wanted),
            listed,
            collections,
            views,
            strangers: HashMap::new(),
            transactions: Transactions::new(listed_at),
            last_read: HashMap::new(),
            read_until: None,
            rewritten: HashSet::new(),
            has_differences: false,
        })
    }

    /// Sets which document of a capped collection was read last, by the type byte and the value of
    /// its `_id`.
    pub fn last_read(&mut self, collection: Uuid, kind: u8, id: &[u8]) {
        self.last_read.insert(collection, (kind, id.to_vec()));
    }

    /// Sets the time up to which collections were read: what is inserted later was not.
    pub fn read_until(&mut self, time: ClusterTime) {
        self.read_until = Some(time);
    }

    /// Takes the next entry, a document of the oplog. Returns the times of the earlier entries that
    /// now count with it, and its own: the parts of the transaction that it commits.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for an entry that cannot be replayed, by its name;
    /// [`ErrorKind::Damaged`] for one that is not an oplog entry.
    pub fn take(&mut self, entry: &[u8]) -> Result<Vec<ClusterTime>> {
        let entry = Entry::parse(entry)?;
        let place = |e: Error| e.context(format!("oplog entry at {}", entry.time));
        let mut commands = Vec::new();
        let counts = entry.time > self.listed_at;
        entry.each(&mut |operation| {
            match operation.kind {
                // A part may be committed later.
                OperationKind::Command if entry.part.is_some() || counts => commands.push(Command {
                    namespace: operation.namespace.to_owned(),
                    collection: operation.collection,
                    o: operation.o.to_vec(),
                }),
                OperationKind::Command | OperationKind::Nothing => {}
                _ if counts => self.take_document(&operation, entry.time)?,
                _ => {}
            }
            Ok(())
        })?;
        let Effect { kept, parts, .. } = self.transactions.take(&entry, commands)?;
        for command in kept {
            self.take_command(&command).map_err(place)?;
        }
        Ok(parts)
    }

    /// The first part of the oldest transaction that is open after the last entry taken.
    #[must_use]
    pub fn open_from(&self) -> Option<ClusterTime> {
        self.transactions.open_from()
    }

    /// The catalog after the last entry taken.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if an unlisted collection, whose documents the backup lacks, got a
    /// wanted name; [`ErrorKind::Damaged`] if two have the same name.
    pub fn catalog(&self) -> Result<Catalog> {
        if let Some(stranger) = self.strangers.values().find(|name| self.is_wanted(name)) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("while the backup was taken, a collection that it does not hold was renamed to {stranger}"),
            )
            .hint("take a new backup"));
        }
        let mut collections = Vec::new();
        for (uuid, state) in &self.collections {
            let temporary = state.options.get("temp").is_some_and(is_true);
            // A temporary one is listed under any name, and counts by the name that it gets.
            let is_held = state.listed.is_some_and(|number| !self.listed[number].is_temporary());
            if !temporary && (is_held || self.is_wanted(&state.namespace)) {
                collections.push(state.collection(*uuid, &self.listed)?);
            }
        }
        for (namespace, view) in &self.views {
            if view.listed.is_some() || self.is_wanted(namespace) {
                collections.push(view.collection(namespace, &self.listed));
            }
        }
        collections.sort_by_key(Collection::namespace);
        if let Some(twice) = collections.windows(2).find(|pair| pair[0].namespace() == pair[1].namespace()) {
            return Err(Error::damaged(format!(
                "at the end of the oplog slice, two collections are named {}",
                twice[0].namespace()
            )));
        }
        Ok(Catalog { collections, has_differences: self.has_differences, read_within: self.rewritten.clone() })
    }

    /// The collections that exist after the last entry taken and have a wanted name, and temporary
    /// ones under any name, since their name is not their last one.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if an unlisted collection got a wanted name;
    /// [`ErrorKind::Damaged`].
    pub fn current(&self) -> Result<Vec<Collection>> {
        if let Some(stranger) = self.strangers.values().find(|name| self.is_wanted(name)) {
            return Err(Error::new(ErrorKind::Refused, format!("a collection that is not followed was renamed to {stranger}")));
        }
        let states = self.collections.iter().filter(|(_, state)| {
            let is_temporary = state.options.get("temp").is_some_and(is_true);
            is_temporary || self.is_wanted(&state.namespace)
        });
        let mut collections: Vec<_> = states.map(|(uuid, state)| state.collection(*uuid, &self.listed)).collect::<Result<_>>()?;
        let views = self.views.iter().filter(|(namespace, _)| self.is_wanted(namespace));
        collections.extend(views.map(|(namespace, view)| view.collection(namespace, &self.listed)));
        Ok(collections)
    }

    fn is_wanted(&self, namespace: &Namespace) -> bool {
        let internal = SYSTEM_DATABASES.contains(&namespace.database.as_str())
            || (namespace.collection.starts_with("system.") && namespace.collection != "system.js");
        !internal && (self.wanted)(namespace)
    }

    fn take_document(&mut self, operation: &Operation<'_>, time: ClusterTime) -> Result<()> {
        if operation.target().is_some_and(|target| target.collection == VIEWS) {
            return self.take_view(operation);
        }
        if operation.kind == OperationKind::Update && operation.collection.is_some_and(|c| self.collections.contains_key(&c)) {
            self.has_differences |= Fields::of(operation.o)?.get("$v").is_some_and(|v| v.value.first() == Some(&2));
        }
        // The last document read shows which documents of a capped collection were read.
        if let Some(uuid) = operation.collection
            && operation.kind == OperationKind::Insert
            && self.read_until.is_none_or(|until| time <= until)
            && let Some((kind, id)) = self.last_read.get(&uuid)
            && operation.id()? == (*kind, id.as_slice())
        {
            self.rewritten.insert(uuid);
        }
        Ok(())
    }

    /// A write to `system.views`, which stores views and the visible part of time series as
    /// documents.
    fn take_view(&mut self, operation: &Operation<'_>) -> Result<()> {
        let (kind, id) = operation.id()?;
        let id = text(crate::format::document::Element { kind, name: b"_id", value: id })?;
        let Some((database, name)) = id.split_once('.') else {
            return Err(Error::damaged(format!("a view has the name {id:?}, which has no database")));
        };
        let namespace = Namespace::new(database, name);
        if operation.kind == OperationKind::Delete {
            self.views.remove(&namespace);
            return Ok(());
        }
        let mut options = Fields::of(operation.o)?;
        let Some(on) = options.get("viewOn") else {
            return Err(unsupported(&format!("the view {namespace} is changed by a difference instead of a whole definition")));
        };
        if text(on)?.starts_with(BUCKETS_PREFIX) {
            return Ok(());
        }
        options.remove("_id");
        let listed = self.views.get(&namespace).and_then(|view| view.listed);
        self.views.insert(namespace, View { options: options.raw()?, listed });
        Ok(())
    }

    fn take_command(&mut self, command: &Command) -> Result<()> {
        let operation = Operation {
            kind: OperationKind::Command,
            namespace: &command.namespace,
            collection: command.collection,
            o: &command.o,
            o2: None,
        };
        let (name, database) = (operation.command()?, operation.database());
        if SYSTEM_DATABASES.contains(&database) && name != "renameCollection" {
            return Ok(());
        }
        let fields = Fields::of(operation.o)?;
        let known = operation.collection.and_then(|uuid| self.collections.get_mut(&uuid));
        match (name, known) {
            ("create", _) => self.create(&operation, &fields),
            ("drop", _) => {
                self.drop(&operation, &fields);
                Ok(())
            }
            ("dropDatabase", _) => {
                self.collections.retain(|_, state| state.namespace.database != database);
                self.views.retain(|namespace, _| namespace.database != database);
                self.strangers.retain(|_, namespace| namespace.database != database);
                Ok(())
            }
            ("renameCollection", _) => self.rename(&operation, &fields),
            // They take effect when they are done, and separate entries report their changes to
            // documents.
            ("startIndexBuild" | "dbCheck" | "setMultikeyMetadata" | "dropIdent" | "emptycapped", _) => Ok(()),
            // For collections that are not followed.
            (_, None) if operation.collection.is_some() => Ok(()),
            ("createIndexes", Some(state)) => state.change().indexes.create(&fields),
            ("commitIndexBuild", Some(state)) => state.change().indexes.commit(&fields),
            ("abortIndexBuild", Some(state)) => state.change().indexes.abort(&fields),
            ("dropIndexes" | "deleteIndex" | "deleteIndexes", Some(state)) => state.change().indexes.drop(&fields),
            ("collMod", Some(state)) => {
                if let Some(index) = fields.get("index") {
                    state.change().indexes.modify(index)?;
                }
                let was_read = state.listed.map(|number| (self.listed[number].documents, self.listed[number].bytes));
                options::modify(&mut state.change().options, &fields, was_read)
            }
            (other, _) => Err(unsupported(&format!("the command {other:?} in {database}"))),
        }
    }

    fn create(&mut self, operation: &Operation<'_>, create: &Fields) -> Result<()> {
        let name = named(create, "create")?;
        let database = operation.database();
        if name == VIEWS {
            return Ok(());
        }
        let series = name.strip_prefix(BUCKETS_PREFIX);
        let namespace = Namespace::new(database, series.unwrap_or(name));
        let kind = if series.is_some() { CollectionKind::TimeSeries } else { CollectionKind::Collection };
        if series.is_none() && create.get("timeseries").is_some() {
            return Err(unsupported(&format!("{namespace} is created as a time series without buckets")));
        }
        let Some(uuid) = operation.collection else {
            return Err(Error::damaged(format!("{namespace} is created without a UUID")));
        };
        let options = options::of_created(create, kind);
        let indexes = match kind {
            CollectionKind::TimeSeries => Indexes { list: Vec::new(), series: Some(options.clone()) },
            _ => Indexes::of_created(create)?,
        };
        // Entries may begin before the listing, as in a dump. Then everything up to the listing is
        // in the entries once more.
        let listed = self.collections.get(&uuid).and_then(|known| known.listed);
        let state = State { namespace, kind, options, indexes, listed, changed: true };
        self.collections.insert(uuid, state);
        Ok(())
    }

    fn drop(&mut self, operation: &Operation<'_>, drop: &Fields) {
        if let Some(uuid) = operation.collection {
            self.collections.remove(&uuid);
            self.strangers.remove(&uuid);
        }
        if named(drop, "drop").is_ok_and(|name| name == VIEWS) {
            let database = operation.database();
            self.views.retain(|namespace, _| namespace.database != database);
        }
    }

    fn rename(&mut self, operation: &Operation<'_>, rename: &Fields) -> Result<()> {
        let to = named(rename, "to")?;
        let Some((database, name)) = to.split_once('.') else {
            return Err(Error::damaged(format!("renameCollection to {to:?}, which has no database")));
        };
        let series = name.strip_prefix(BUCKETS_PREFIX);
        let namespace = Namespace::new(database, series.unwrap_or(name));
        match rename.get("dropTarget") {
            Some(target) if target.kind == kind::BINARY => {
                if let Some(target) = uuid(target) {
                    self.collections.remove(&target);
                    self.strangers.remove(&target);
                }
            }
            Some(target) if is_true(target) => {
                self.collections.retain(|_, state| state.namespace != namespace);
                self.strangers.retain(|_, name| *name != namespace);
            }
            _ => {}
        }
        let Some(uuid) = operation.collection else {
            return Err(Error::damaged(format!("a collection without a UUID is renamed to {namespace}")));
        };
        match self.collections.get_mut(&uuid) {
            Some(state) => {
                state.namespace = namespace;
                if !rename.get("stayTemp").is_some_and(is_true) && state.options.get("temp").is_some() {
                    state.change().options.remove("temp");
                }
            }
            None => {
                self.strangers.insert(uuid, namespace);
            }
        }
        Ok(())
    }
}

impl State {
    fn change(&mut self) -> &mut Self {
        self.changed = true;
        self
    }

    fn collection(&self, uuid: Uuid, listed: &[Collection]) -> Result<Collection> {
        let before = self.listed.and_then(|number| listed.get(number));
        let mut collection = before.cloned().unwrap_or_else(|| empty(self.kind, Some(uuid)));
        collection.database.clone_from(&self.namespace.database);
        collection.name.clone_from(&self.namespace.collection);
        if self.changed {
            collection.options = RawValue::of(&self.options.raw()?);
            collection.indexes = self.indexes.list.iter().map(|index| Ok(RawValue::of(&index.raw()?))).collect::<Result<_>>()?;
        }
        Ok(collection)
    }
}

impl View {
    fn collection(&self, namespace: &Namespace, listed: &[Collection]) -> Collection {
        let before = self.listed.and_then(|number| listed.get(number));
        let mut collection = before.cloned().unwrap_or_else(|| empty(CollectionKind::View, None));
        collection.database.clone_from(&namespace.database);
        collection.name.clone_from(&namespace.collection);
        if collection.options.bson != self.options {
            collection.options = RawValue::of(&self.options);
        }
        collection
    }
}

/// A collection that was not listed; its name, options and indexes are set later.
fn empty(kind: CollectionKind, uuid: Option<Uuid>) -> Collection {
    Collection {
        database: String::new(),
        name: String::new(),
        kind,
        uuid,
        options: RawValue { bson: RawDocumentBuf::new() },
        indexes: Vec::new(),
        metadata: StoredObject { key: String::new(), bytes: 0, sha256: Sha256Hex::of(b"") },
        documents: 0,
        bytes: 0,
        digest: ContentDigest::default(),
        segments: Vec::new(),
    }
}

fn named<'f>(fields: &'f Fields, field: &str) -> Result<&'f str> {
    text(fields.get(field).ok_or_else(|| Error::damaged(format!("a command lacks {field:?}")))?)
}
