//! Makes the changes of collections, views and indexes in the target, one by one. Each is recorded
//! once it is made, so that a crash repeats at most one.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::changes::{self, Alteration, Change, Renaming};
use super::debts::{self, Debts};
use super::options::SyncOptions;
use super::status::StatusSender;
use crate::context::progress::Progress;
use crate::engine::import;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{ClusterTime, Collection, CollectionKind, RawValue};
use crate::mongo::{Version, catalog};
use crate::names::Namespace;
use crate::oplog::apply::Destination;
use crate::oplog::apply::gather::Gatherer;
use crate::oplog::catalog::CatalogTracker;
use crate::sink::indexes::{IndexBuilder, Which};
use crate::sink::synced::SyncedCollection;
use crate::sink::{CollectionSpec, Target, evolve};

/// Indexes of collections with at most so many documents are built at once.
const SMALL: u64 = 10_000;

/// The source's catalog as it is followed, and where its parts are in the target.
pub(super) struct Catalog {
    target: Target,
    version: Version,
    options: SyncOptions,
    /// `None` while entries are gathered.
    tracker: Option<CatalogTracker<'static>>,
    /// As of the last entry that was applied.
    collections: Vec<Collection>,
    places: HashMap<Uuid, (Namespace, Option<Uuid>)>,
    builder: IndexBuilder,
    debts: Debts,
    /// How many changes were made.
    pub(super) made: u64,
}

impl Catalog {
    /// The catalog as it was recorded.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`].
    pub(super) fn new(
        target: &Target,
        version: Version,
        options: &SyncOptions,
        recorded: &[SyncedCollection],
        at: ClusterTime,
        status: &StatusSender,
    ) -> Result<Self> {
        let listed: Vec<Collection> = recorded.iter().map(|one| one.source.clone()).collect();
        let places = recorded.iter().filter_map(|one| Some((one.source.uuid?, (one.to.clone(), one.uuid)))).collect();
        let wanted = options.clone();
        let tracker = CatalogTracker::new(listed, at, move |namespace: &Namespace| wanted.wants(namespace))?;
        let collections = tracker.current()?;
        Ok(Self {
            // A change that is begun is made to its end, but for index builds, which may take long.
            target: target.unstoppable(),
            version,
            options: options.clone(),
            tracker: Some(tracker),
            collections,
            places,
            builder: IndexBuilder::new(target.clone()),
            debts: Debts::new(target, version, status),
            made: 0,
        })
    }

    /// Directs the documents of everything that is followed.
    pub(super) fn direct(&self, gatherer: &mut Gatherer) {
        for collection in &self.collections {
            if let Some(uuid) = collection.uuid
                && let Some((to, _)) = self.places.get(&uuid)
            {
                gatherer.direct(uuid, Destination::of(collection, to, None));
            }
        }
    }

    /// What follows the entries, while they are gathered.
    pub(super) fn lend(&mut self) -> Result<CatalogTracker<'static>> {
        self.tracker.take().ok_or_else(lent)
    }

    /// Takes it back.
    pub(super) fn take_back(&mut self, tracker: CatalogTracker<'static>) {
        self.tracker = Some(tracker);
    }

    /// Takes an entry, and changes the target as it says. `created` are the collections that it
    /// creates.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for what cannot be followed; server errors.
    pub(super) async fn follow(&mut self, entry: &[u8], created: &HashSet<Uuid>, gatherer: &mut Gatherer) -> Result<()> {
        let tracker = self.tracker.as_mut().ok_or_else(lent)?;
        tracker.take(entry)?;
        let after = tracker.current()?;
        for change in changes::between(&self.collections, &after)? {
            self.make(change, created, gatherer).await?;
            self.made += 1;
        }
        self.collections = after;
        Ok(())
    }

    async fn make(&mut self, change: Change, created: &HashSet<Uuid>, gatherer: &mut Gatherer) -> Result<()> {
        match change {
            Change::Drop(gone) => {
                self.owed(&gone).await?;
                let to = self.place(&gone)?;
                let uuid = gone.uuid.and_then(|uuid| self.places.get(&uuid)?.1);
                evolve::drop(&self.target, &to, gone.kind, uuid).await?;
                self.forget(gone, gatherer).await?;
                match self.places.values().any(|(other, _)| other.database == to.database) {
                    true => Ok(()),
                    false => evolve::drop_remains(&self.target, &to.database).await,
                }
            }
            Change::Rename(renaming) => self.rename(*renaming, gatherer).await,
            Change::Create(new) => {
                if let Some(uuid) = new.uuid.filter(|uuid| !created.contains(uuid)) {
                    return Err(not_followed(&new, uuid));
                }
                self.create(&new, gatherer).await
            }
            Change::Alter(alteration) => self.alter(*alteration, gatherer).await,
        }
    }

    /// The name in the target: where it is, or where it is to be.
    fn place(&self, collection: &Collection) -> Result<Namespace> {
        match collection.uuid.and_then(|uuid| self.places.get(&uuid)) {
            Some((to, _)) => Ok(to.clone()),
            None => self.options.name(&collection.namespace()),
        }
    }

    async fn create(&mut self, new: &Collection, gatherer: &mut Gatherer) -> Result<()> {
        let to = self.options.name(&new.namespace())?;
        let spec = self.spec(new, &to)?;
        let uuid = evolve::create(&self.target, &spec).await?;
        self.record(new, to.clone(), uuid, gatherer).await?;
        self.build(new, &to, |_| true).await
    }

    async fn rename(&mut self, renaming: Renaming, gatherer: &mut Gatherer) -> Result<()> {
        let Renaming { before, after, over } = renaming;
        let (from, to) = (self.place(&before)?, self.options.name(&after.namespace())?);
        let known = after.uuid.and_then(|uuid| self.places.get(&uuid)?.1);
        let Some(known) = known else {
            return Err(Error::new(ErrorKind::Damaged, format!("{from} of the target is not known by its UUID")));
        };
        let owed = self.owed(&before).await?;
        if let Some(over) = &over {
            self.owed(over).await?;
        }
        if from != to {
            evolve::rename(&self.target, known, &from, &to, over.is_some()).await?;
        }
        if let Some(over) = over {
            self.forget(over, gatherer).await?;
        }
        // In another database, it is another collection.
        let uuid = evolve::identity(&self.target, &to, after.kind).await?;
        self.record(&after, to.clone(), uuid, gatherer).await?;
        self.build(&after, &to, |name| owed.iter().any(|owed| owed == name)).await
    }

    async fn alter(&mut self, alteration: Alteration, gatherer: &mut Gatherer) -> Result<()> {
        let Alteration { after, dropped, modify, created } = alteration;
        let to = self.place(&after)?;
        let mut owed = self.owed(&after).await?;
        owed.retain(|name| !dropped.contains(name));
        evolve::drop_indexes(&self.target, &to, &dropped).await?;
        for fields in &modify {
            // What is built later gets its new options then.
            let of = fields.get_document("index").and_then(|index| index.get_str("name")).ok();
            if !of.is_some_and(|name| owed.iter().any(|owed| owed == name)) {
                let fields = self.renamed(&after, &to, fields)?;
                evolve::modify(&self.target, &to, &fields).await?;
            }
        }
        let uuid = after.uuid.and_then(|uuid| self.places.get(&uuid)?.1);
        self.record(&after, to.clone(), uuid, gatherer).await?;
        owed.extend(created);
        self.build(&after, &to, |name| owed.iter().any(|owed| owed == name)).await
    }

    /// What a collection is owed, before it changes. See [`Debts::take_back`].
    async fn owed(&self, collection: &Collection) -> Result<Vec<String>> {
        match collection.uuid {
            Some(uuid) => self.debts.take_back(uuid).await,
            None => Ok(Vec::new()),
        }
    }

    /// Builds those indexes of a collection whose names are chosen: at once if it is small, beside
    /// if it is large, and later if the target refuses them.
    async fn build(&self, collection: &Collection, to: &Namespace, chosen: impl Fn(&str) -> bool) -> Result<()> {
        let is_chosen = |index: &&RawValue| catalog::name(&index.bson).is_some_and(|name| chosen(&name));
        let indexes: Vec<RawValue> = collection.indexes.iter().filter(is_chosen).cloned().collect();
        let Some(uuid) = collection.uuid.filter(|_| !indexes.is_empty()) else { return Ok(()) };
        let spec = self.spec(&Collection { indexes, ..collection.clone() }, to)?;
        let spec = spec.in_place(spec.indexes.clone());
        if evolve::count(&self.target, to, collection.kind).await? > SMALL {
            self.debts.owe(uuid, spec);
            return Ok(());
        }
        let item = Progress::default().item(format!("indexes of {to}"), spec.indexes.len() as u64, 0);
        let refused = self.builder.build(&spec, Which::All, &item).await?;
        if let Some(first) = refused.first() {
            let left = spec.indexes.iter().filter(|index| refused.iter().any(|refused| refused.name == index.name));
            self.debts.owe_refused(uuid, spec.in_place(left.cloned().collect()), first.error.to_string());
        }
        Ok(())
    }

    /// Finds out which indexes are missing, because they were not built when the process before
    /// ended. They are owed.
    ///
    /// # Errors
    /// Server errors.
    pub(super) async fn find_debts(&self) -> Result<()> {
        let place = |collection: &Collection| Ok((collection.clone(), self.place(collection)?));
        let followed = self.collections.iter().map(place).collect::<Result<Vec<_>>>()?;
        for (uuid, spec) in debts::missing(&self.target, self.version, &followed).await? {
            self.debts.owe(uuid, spec);
        }
        Ok(())
    }

    fn spec(&self, collection: &Collection, to: &Namespace) -> Result<CollectionSpec> {
        let mut collection = collection.clone();
        if collection.kind == CollectionKind::View {
            collection.options =
                import::renamed_view(&collection.options, &collection.namespace(), to, |name| self.options.name(name))?;
        }
        CollectionSpec::of(&collection, to.clone(), self.version)
    }

    /// The fields of a `collMod` with the names of the target.
    fn renamed(&self, of: &Collection, to: &Namespace, fields: &bson::RawDocumentBuf) -> Result<bson::RawDocumentBuf> {
        if of.kind != CollectionKind::View {
            return Ok(fields.clone());
        }
        let fields = RawValue::of(fields);
        let renamed = import::renamed_view(&fields, &of.namespace(), to, |name| self.options.name(name))?;
        Ok(renamed.bson)
    }

    async fn record(&mut self, source: &Collection, to: Namespace, uuid: Option<Uuid>, gatherer: &mut Gatherer) -> Result<()> {
        let recorded = SyncedCollection { source: source.clone(), to: to.clone(), uuid };
        SyncedCollection::record(&self.target, &[recorded], &[]).await?;
        if let Some(source_uuid) = source.uuid {
            gatherer.direct(source_uuid, Destination::of(source, &to, None));
            self.places.insert(source_uuid, (to, uuid));
        }
        Ok(())
    }

    async fn forget(&mut self, gone: Collection, gatherer: &mut Gatherer) -> Result<()> {
        if let Some(uuid) = gone.uuid {
            gatherer.pass_over(uuid);
            self.places.remove(&uuid);
        }
        SyncedCollection::record(&self.target, &[], &[gone]).await
    }
}

fn not_followed(collection: &Collection, uuid: Uuid) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!("{} ({uuid}) was renamed into what is followed, and its documents are not in the target", collection.namespace()),
    )
}

fn lent() -> Error {
    Error::new(ErrorKind::Internal, "the catalog was to be followed after a failure")
}
