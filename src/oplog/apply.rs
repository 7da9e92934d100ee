//! Replays an oplog slice: what its entries did to documents is done to the collections that hold them in the target.
//!
//! The documents were read at some time after the slice began, each at another, so many of the entries have had their effect already. Applied again,
//! in order, they come to the same documents in the end: an oplog is made for that. For the same reason any part may be sent again.

mod plan;
mod rights;
mod send;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bson::rawdoc;
use futures::future::try_join_all;
use uuid::Uuid;

pub use self::rights::refuse_without_rights;

use self::plan::Planner;
use self::send::Sender;
use crate::context::cpu::CpuPool;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{Collection, CollectionKind};
use crate::names::Namespace;
use crate::oplog::Committed;
use crate::sink::{Identity, Target, write_errors};

/// How many commands are under way at a time. The operations on one document are always in the same lane.
const LANES: usize = 2;

/// Where the documents of one of the source's collections are in the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The collection there; of a time series, that of its buckets.
    pub namespace: Namespace,
    /// What is to be minded.
    pub holds: Holds,
    /// Documents that its rules refuse may be in it.
    pub has_rules: bool,
    /// It compares text by a collation: different values of `_id` may be equal.
    pub collated: bool,
}

/// What a collection holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    /// Documents in any order.
    Documents,
    /// The buckets of a time series: servers refuse one made up of a change alone.
    Buckets,
    /// Documents in order.
    Capped {
        /// The `_id` of the last document that was read, by type byte and value, where the slice inserts it: inserts up to it have been read.
        after: Option<(u8, Vec<u8>)>,
    },
}

impl Place {
    /// The place of a collection that is filled under this name.
    #[must_use]
    pub fn of(collection: &Collection, name: &Namespace, after: Option<(u8, Vec<u8>)>) -> Self {
        let options = &collection.options.bson;
        let capped = options.get("capped").ok().flatten().is_some_and(|c| c.as_bool() != Some(false));
        let holds = match collection.kind {
            CollectionKind::TimeSeries => Holds::Buckets,
            _ if capped => Holds::Capped { after },
            _ => Holds::Documents,
        };
        let has = |option: &str| options.get(option).is_ok_and(|value| value.is_some());
        Self {
            namespace: if collection.kind == CollectionKind::TimeSeries { name.buckets() } else { name.clone() },
            holds,
            has_rules: has("validator") || has("encryptedFields"),
            collated: has("collation"),
        }
    }
}

/// A replay under way.
#[derive(Debug)]
pub struct Replay {
    target: Target,
    cpu: CpuPool,
    planner: Option<Planner>,
    senders: Vec<Sender>,
    databases: BTreeSet<Namespace>,
    begun: Identity,
    operations: u64,
}

/// A replay that came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// The operations that were applied.
    pub operations: u64,
    /// Whether another server became the target's primary meanwhile, or it was started anew: then some of the replay may be lost, and the whole slice is to be replayed
    /// once more, to what is there now.
    pub again: bool,
}

impl Replay {
    /// Begins a replay into these places, by the identity of the source's collections. Entries about other collections are passed over.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`], [`ErrorKind::Denied`], [`ErrorKind::Interrupted`].
    pub async fn new(target: Target, places: HashMap<Uuid, Place>, committed: Committed, cpu: CpuPool) -> Result<Self> {
        Self::with_lanes(target, places, committed, cpu, LANES).await
    }

    /// The same with this many commands under way at a time.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub async fn with_lanes(
        target: Target,
        places: HashMap<Uuid, Place>,
        committed: Committed,
        cpu: CpuPool,
        lanes: usize,
    ) -> Result<Self> {
        let lanes = lanes.max(1);
        let begun = target.identity().await?;
        let mut databases: BTreeSet<Namespace> = BTreeSet::new();
        for place in places.values() {
            if !databases.iter().any(|n| n.database == place.namespace.database) {
                databases.insert(place.namespace.clone());
            }
        }
        Ok(Self {
            senders: (0..lanes).map(|_| Sender::new(target.clone())).collect(),
            planner: Some(Planner::new(places, committed, lanes)),
            target,
            cpu,
            databases,
            begun,
            operations: 0,
        })
    }

    /// Applies the next entries of the slice: a frame of whole ones, in their order. Returns once the target has all of them.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] where the target refuses an operation, naming the collection, the operation and the type of the `_id`;
    /// [`ErrorKind::Unreachable`], [`ErrorKind::Denied`], [`ErrorKind::Interrupted`]; [`ErrorKind::Damaged`] where the frame does not hold entries.
    pub async fn take(&mut self, frame: Vec<u8>) -> Result<()> {
        let planner = self.planner.take();
        let mut planner =
            planner.ok_or_else(|| Error::new(ErrorKind::Internal, "a replay was used again after it had failed"))?;
        let (planner, lanes) = self
            .cpu
            .run(move || {
                let lanes = planner.plan(&frame)?;
                Ok((planner, lanes))
            })
            .await?;
        self.operations += lanes.iter().map(|lane| lane.len() as u64).sum::<u64>();
        try_join_all(self.senders.iter().zip(lanes).map(|(sender, lane)| sender.send(lane))).await?;
        self.planner = Some(planner);
        Ok(())
    }

    /// Makes everything durable, and says whether it is sure to be there.
    ///
    /// # Errors
    /// The server's; [`ErrorKind::Interrupted`].
    pub async fn finish(self) -> Result<Replayed> {
        for namespace in &self.databases {
            let command = rawdoc! {
                "update": namespace.collection.as_str(),
                "updates": [{ "q": { "$alwaysFalse": 1 }, "u": { "$set": { "durable": true } } }],
                "writeConcern": { "w": "majority", "j": true },
            };
            let what = format!("making {} durable", namespace.database);
            let reply = self.target.run(&what, &namespace.database, command).await?;
            if let Some(problem) = write_errors(&reply).into_iter().next() {
                return Err(problem.error(&what));
            }
        }
        let again = self.target.identity().await? != self.begun;
        Ok(Replayed { operations: self.operations, again })
    }
}

/// What a lane shares with the operations in it.
type Shared = Arc<Place>;
