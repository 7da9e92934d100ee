//! A dump to collections: it is read once, in its own order, and what it gives is inserted by several writers as it comes.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::dumped::Dumped;
use super::fill::{Came, Filled, announce};
use super::oldest::Oldest;
use super::stage::Stage;
use super::turns::Turns;
use crate::error::{Error, ErrorKind, Result};
use crate::format::digest::Content;
use crate::interop::{COPIES, Of, Part, Wanted};
use crate::pipeline::budget::Share;
use crate::pipeline::progress::Item;
use crate::sink::insert::{Arranged, Inserter};
use crate::sink::users::Accounts;

/// How many parts wait for a writer. Their bytes are drawn from the budget before they come here.
const WAITING: usize = 16;

/// A collection that is being filled.
struct Pouring {
    number: usize,
    inserter: Inserter,
    item: Item,
    keeps_order: bool,
    is_capped: bool,
    /// What came of it so far.
    content: Content,
    /// What became of that.
    came: Came,
    /// The `_id`s that writers have.
    turns: Turns,
    /// Where it is capped.
    oldest: Arc<Oldest>,
    /// Parts of it that writers have.
    under_way: usize,
    ended: bool,
}

/// What came of a dump beside the collections that were filled.
#[derive(Debug, Default)]
pub(super) struct Poured {
    /// Documents that were passed over.
    pub(super) passed_over: u64,
    /// Users and roles, where they are wanted.
    pub(super) accounts: Accounts,
}

/// Fills every collection of the plan from a dump, as [`fill`](super::fill::fill) does from a backup.
///
/// # Errors
/// Those of [`Dump::read`](crate::interop::Dump::read) and of [`Inserter::insert`].
pub(super) async fn pour(stage: &Stage<'_>, dumped: &Dumped, filled: UnboundedSender<Filled>) -> Result<Poured> {
    let mut collections = collections(stage, dumped);
    let wanted = Wanted {
        collections: (0..dumped.dump().collections().len()).map(|place| collections.contains_key(&place)).collect(),
        oplog: false,
        users: stage.plan.users.is_some(),
    };
    let mut accounts = Accounts::default();
    let (sender, parts) = mpsc::channel(WAITING);
    let stop = stage.plan.target.stop();
    let reading = dumped.dump().read(&wanted, &stage.budget, stop, sender);
    let writing = write(stage, &mut collections, &mut accounts, parts, &filled);
    let ((), ()) = tokio::try_join!(reading, writing)?;
    if let Some(left) = collections.values().find(|c| !c.ended || c.under_way > 0) {
        let name = &stage.plan.blueprints[left.number].namespace;
        return Err(Error::new(ErrorKind::Internal, format!("{name} was not read to its end")));
    }
    Ok(Poured { passed_over: collections.values().map(|c| c.came.passed_over.documents).sum(), accounts })
}

/// Each collection that is filled, by its place in the dump. What the oplog made of the catalog is told by identity.
fn collections(stage: &Stage<'_>, dumped: &Dumped) -> HashMap<usize, Pouring> {
    let Stage { plan, cpu, progress, .. } = stage;
    let listed = &dumped.backup().manifest.collections;
    let places: HashMap<Uuid, usize> = listed.iter().enumerate().filter_map(|(place, c)| Some((c.uuid?, place))).collect();
    let mut collections = HashMap::new();
    for (number, (selected, blueprint)) in plan.selected.iter().zip(&plan.blueprints).enumerate() {
        // What the oplog creates has no documents before it.
        let Some(place) = selected.collection.uuid.and_then(|uuid| places.get(&uuid)) else { continue };
        let inserter = Inserter::new(plan.target.clone(), Arc::new(blueprint.clone()), cpu.clone()).with_repeats(stage.repeats);
        let pouring = Pouring {
            number,
            inserter,
            item: plan.item(progress, blueprint, ""),
            keeps_order: blueprint.keeps_order(),
            is_capped: blueprint.capped,
            content: Content::default(),
            came: Came::default(),
            turns: Turns::default(),
            oldest: Arc::default(),
            under_way: 0,
            ended: false,
        };
        collections.insert(*place, pouring);
    }
    collections
}

/// What a writer gives back: the collection's place, what became of the documents, and the `_id`s that have arrived.
type Written = (usize, Came, Vec<u64>);

impl Pouring {
    /// Whether documents with these `_id`s must wait for what writers have.
    fn must_wait(&self, ids: &[u64]) -> bool {
        (self.keeps_order && self.under_way > 0) || self.turns.must_wait(ids)
    }
}

async fn write(
    stage: &Stage<'_>,
    collections: &mut HashMap<usize, Pouring>,
    accounts: &mut Accounts,
    mut parts: mpsc::Receiver<Part>,
    filled: &UnboundedSender<Filled>,
) -> Result<()> {
    // Dropped with an error, the set stops the writers.
    let mut writers: JoinSet<Result<Written>> = JoinSet::new();
    let mut more = true;
    while more || !writers.is_empty() {
        tokio::select! {
            part = parts.recv(), if more && writers.len() < stage.writers.now => match part {
                Some(Part::Documents { of: Of::Collection(place), frame, content, mut share, .. }) => {
                    let Some(inserter) = collections.get(&place).map(|c| c.inserter.clone()) else { continue };
                    let arranged = inserter.arrange(frame).await?;
                    share.resize(COPIES * arranged.frame.len() as u64);
                    while collections.get(&place).is_some_and(|c| c.must_wait(&arranged.ids)) {
                        settle(writers.join_next().await, collections, filled)?;
                    }
                    let Some(collection) = collections.get_mut(&place) else { continue };
                    collection.content.merge(&content);
                    if collection.is_capped {
                        Arc::make_mut(&mut collection.oldest).take(&arranged.frame)?;
                    }
                    collection.under_way += 1;
                    collection.turns.begin(&arranged.ids);
                    writers.spawn(insert(place, inserter, collection.item.clone(), arranged, share));
                }
                Some(Part::End(Of::Collection(place))) => {
                    if let Some(collection) = collections.get_mut(&place) {
                        collection.ended = true;
                        tell_if_full(collection, filled);
                    }
                }
                Some(Part::Documents { of: Of::Users, frame, .. }) => accounts.take_users(&frame)?,
                Some(Part::Documents { of: Of::Roles, frame, .. }) => accounts.take_roles(&frame)?,
                Some(_) => {}
                None => more = false,
            },
            done = writers.join_next(), if !writers.is_empty() => settle(done, collections, filled)?,
        }
    }
    // Those that the oplog creates, and the views, are full as they are.
    let poured: Vec<usize> = collections.values().map(|c| c.number).collect();
    for (number, blueprint) in stage.plan.blueprints.iter().enumerate() {
        if blueprint.holds_documents() && !poured.contains(&number) {
            announce(filled, Filled { number, ..Filled::default() });
        }
    }
    Ok(())
}

async fn insert(place: usize, inserter: Inserter, item: Item, arranged: Arranged, share: Share) -> Result<Written> {
    let Arranged { frame, changes, ids } = arranged;
    let passed_over = inserter.insert(frame, &item).await?;
    drop(share);
    Ok((place, Came { changes, passed_over }, ids))
}

/// Books what a writer did.
fn settle(
    done: Option<Result<Result<Written>, tokio::task::JoinError>>,
    collections: &mut HashMap<usize, Pouring>,
    filled: &UnboundedSender<Filled>,
) -> Result<()> {
    let Some(done) = done else { return Ok(()) };
    let (place, came, ids) = done.map_err(|e| Error::new(ErrorKind::Internal, "a writer died").cause(e))??;
    if let Some(collection) = collections.get_mut(&place) {
        collection.under_way -= 1;
        collection.came.merge(&came);
        collection.turns.end(&ids);
        tell_if_full(collection, filled);
    }
    Ok(())
}

fn tell_if_full(collection: &Pouring, filled: &UnboundedSender<Filled>) {
    if collection.ended && collection.under_way == 0 {
        collection.item.finish();
        let oldest = collection.oldest.clone();
        let content = collection.came.left_of(&collection.content);
        announce(filled, Filled { number: collection.number, content, oldest, came: collection.came });
    }
}
