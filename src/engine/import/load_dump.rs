//! Loads a dump into collections: it is read once, in its own order, and several writers insert the
//! documents as they arrive.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::capped_overwrite::FirstDocuments;
use super::dump_source::DumpSource;
use super::load::{Brought, Came, Loaded, Loader, announce};
use super::select::Selected;
use super::turns::Turns;
use crate::context::memory::MemoryPermit;
use crate::context::progress::Item;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Content;
use crate::interop::{COPIES, Of, Part, Wanted};
use crate::sink::insert::{Arranged, Inserter};
use crate::sink::users::Accounts;

/// How many parts wait for a writer. The budget counts their bytes before they come here.
const WAITING: usize = 16;

/// A collection that is being filled.
struct Loading {
    number: usize,
    inserter: Inserter,
    item: Item,
    keeps_order: bool,
    is_capped: bool,
    /// What has arrived so far.
    content: Content,
    /// What happened to it.
    came: Came,
    /// The `_id`s that writers are inserting.
    turns: Turns,
    /// For a capped collection.
    first_documents: Arc<FirstDocuments>,
    /// Parts of it that writers are inserting.
    under_way: usize,
    ended: bool,
}

/// Fills every collection of the plan from a dump, as [`load`](super::load_backup::load) does from
/// a backup.
///
/// # Errors
/// Those of [`Dump::read`](crate::interop::Dump::read) and of [`Inserter::insert`].
pub(super) async fn load(dumped: &DumpSource, loader: &Loader<'_>, filled: UnboundedSender<Loaded>) -> Result<Brought> {
    let numbers = numbers(loader, dumped);
    let mut collections = Loadings { loader, numbers: &numbers, open: HashMap::new(), passed_over: 0, ended: 0 };
    let wanted = Wanted {
        collections: (0..dumped.collections().len()).map(|place| numbers.contains_key(&place)).collect(),
        oplog: false,
        users: loader.users,
    };
    let mut accounts = Accounts::default();
    let (sender, parts) = mpsc::channel(WAITING);
    let reading = dumped.dump().read(&wanted, &loader.budget, loader.target.stop(), sender);
    let writing = write(loader, &mut collections, &mut accounts, parts, &filled);
    let ((), ()) = tokio::try_join!(reading, writing)?;
    if collections.ended != numbers.len() {
        let left = collections.open.values().next().map(|left| &loader.specs[left.number].namespace);
        let name = left.map_or_else(|| "a collection".to_owned(), ToString::to_string);
        return Err(Error::new(ErrorKind::Internal, format!("{name} was not read to its end")));
    }
    Ok(Brought { passed_over: collections.passed_over, accounts })
}

/// For each filled collection, by its place in the dump: its number in the plan, and its progress.
/// The collections that result from the oplog are matched by UUID.
fn numbers(loader: &Loader<'_>, dumped: &DumpSource) -> HashMap<usize, (usize, Item)> {
    let places: HashMap<Uuid, usize> =
        dumped.collections().iter().enumerate().filter_map(|(place, c)| Some((c.uuid?, place))).collect();
    // A collection that the oplog creates has no documents before it.
    let place = |selected: &Selected<'_>| selected.collection.uuid.and_then(|uuid| places.get(&uuid)).copied();
    let item = |number: usize| loader.item(&loader.specs[number], "");
    let selected = loader.selected.iter().enumerate();
    selected.filter_map(|(number, selected)| Some((place(selected)?, (number, item(number))))).collect()
}

/// The collections that are being filled: from their first part until they are full.
struct Loadings<'a> {
    loader: &'a Loader<'a>,
    /// The number in the plan of each, and its progress, by its place in the dump.
    numbers: &'a HashMap<usize, (usize, Item)>,
    open: HashMap<usize, Loading>,
    /// Skipped documents of full collections.
    passed_over: u64,
    /// How many are full.
    ended: usize,
}

impl Loadings<'_> {
    /// The collection at this place, if it is selected.
    fn get(&mut self, place: usize) -> Option<&mut Loading> {
        let (number, item) = self.numbers.get(&place)?;
        Some(self.open.entry(place).or_insert_with(|| Loading::begin(self.loader, *number, item.clone())))
    }

    /// Reports a collection once it is full, and drops its state.
    fn tell_if_full(&mut self, place: usize, filled: &UnboundedSender<Loaded>) {
        if !self.open.get(&place).is_some_and(|collection| collection.ended && collection.under_way == 0) {
            return;
        }
        if let Some(Loading { number, item, first_documents, content, came, .. }) = self.open.remove(&place) {
            item.finish();
            self.ended += 1;
            self.passed_over += came.passed_over.documents;
            announce(filled, Loaded { number, content: came.left_of(&content), first_documents, came });
        }
    }
}

/// What a writer returns: the collection's place, what happened to the documents, and the `_id`s
/// that have arrived.
type Written = (usize, Came, Vec<u64>);

impl Loading {
    fn begin(loader: &Loader<'_>, number: usize, item: Item) -> Self {
        let spec = &loader.specs[number];
        Self {
            number,
            inserter: loader.inserter(spec),
            item,
            keeps_order: spec.keeps_order(),
            is_capped: spec.capped,
            content: Content::default(),
            came: Came::default(),
            turns: Turns::default(),
            first_documents: Arc::default(),
            under_way: 0,
            ended: false,
        }
    }

    /// Whether documents with these `_id`s must wait for those that writers are inserting.
    fn must_wait(&self, ids: &[u64]) -> bool {
        (self.keeps_order && self.under_way > 0) || self.turns.must_wait(ids)
    }
}

async fn write(
    loader: &Loader<'_>,
    collections: &mut Loadings<'_>,
    accounts: &mut Accounts,
    mut parts: mpsc::Receiver<Part>,
    filled: &UnboundedSender<Loaded>,
) -> Result<()> {
    // If an error drops the set, the writers stop.
    let mut writers: JoinSet<Result<Written>> = JoinSet::new();
    let mut more = true;
    while more || !writers.is_empty() {
        tokio::select! {
            part = parts.recv(), if more && writers.len() < loader.writers.now => match part {
                Some(Part::Documents { of: Of::Collection(place), frame, content, mut share, .. }) => {
                    let Some(inserter) = collections.get(place).map(|c| c.inserter.clone()) else { continue };
                    let arranged = inserter.arrange(frame).await?;
                    share.resize(COPIES * arranged.frame.len() as u64);
                    while collections.get(place).is_some_and(|c| c.must_wait(&arranged.ids)) {
                        settle(writers.join_next().await, collections, filled)?;
                    }
                    let Some(collection) = collections.get(place) else { continue };
                    collection.content.merge(&content);
                    if collection.is_capped {
                        Arc::make_mut(&mut collection.first_documents).take(&arranged.frame)?;
                    }
                    collection.under_way += 1;
                    collection.turns.begin(&arranged.ids);
                    writers.spawn(insert(place, inserter, collection.item.clone(), arranged, share));
                }
                Some(Part::End(Of::Collection(place))) => {
                    if let Some(collection) = collections.get(place) {
                        collection.ended = true;
                    }
                    collections.tell_if_full(place, filled);
                }
                Some(Part::Documents { of: Of::Users, frame, .. }) => accounts.take_users(&frame)?,
                Some(Part::Documents { of: Of::Roles, frame, .. }) => accounts.take_roles(&frame)?,
                Some(_) => {}
                None => more = false,
            },
            done = writers.join_next(), if !writers.is_empty() => settle(done, collections, filled)?,
        }
    }
    // Collections that the oplog creates, and views, are full already.
    let loaded: HashSet<usize> = collections.numbers.values().map(|(number, _)| *number).collect();
    for (number, spec) in loader.specs.iter().enumerate() {
        if spec.holds_documents() && !loaded.contains(&number) {
            announce(filled, Loaded { number, ..Loaded::default() });
        }
    }
    Ok(())
}

async fn insert(place: usize, inserter: Inserter, item: Item, arranged: Arranged, share: MemoryPermit) -> Result<Written> {
    let Arranged { frame, changes, ids } = arranged;
    let passed_over = inserter.insert(frame, &item).await?;
    drop(share);
    Ok((place, Came { changes, passed_over }, ids))
}

/// Records what a writer did.
fn settle(
    done: Option<Result<Result<Written>, tokio::task::JoinError>>,
    collections: &mut Loadings<'_>,
    filled: &UnboundedSender<Loaded>,
) -> Result<()> {
    let Some(done) = done else { return Ok(()) };
    let (place, came, ids) = done.map_err(|e| Error::new(ErrorKind::Internal, "a writer died").cause(e))??;
    if let Some(collection) = collections.open.get_mut(&place) {
        collection.under_way -= 1;
        collection.came.merge(&came);
        collection.turns.end(&ids);
    }
    collections.tell_if_full(place, filled);
    Ok(())
}
