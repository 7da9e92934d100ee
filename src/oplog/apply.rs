//! Applies oplog entries to a target: changes to documents are repeated in the collections that
//! hold them there.
//!
//! If the documents were read after the first entry, each at another time, many entries have taken
//! effect already. Applied again, in order, they lead to the same documents in the end: an oplog is
//! designed for that. For the same reason, any part may be sent again.
//!
//! Within a frame, only the last state of a document counts. So what a later entry of the frame
//! undoes is not sent, and what is left is sent in the fastest way.

mod destination;
mod difference;
mod group;
mod lane;
mod plan;
mod rights;
mod send;

use std::collections::BTreeMap;

use bson::rawdoc;
use futures::future::try_join_all;
use uuid::Uuid;

pub use self::destination::{Destination, Holds};
pub use self::plan::Commits;
use self::plan::Planner;
pub use self::rights::refuse_without_rights;
use self::send::Sender;
use crate::error::{Error, ErrorKind, Result};
use crate::names::Namespace;
use crate::sink::{Identity, Target, write_errors};

/// The number of concurrent commands. The operations on one document are always in the same lane.
const LANES: usize = 2;

/// Applies entries as they arrive, piece by piece.
#[derive(Debug)]
pub struct Applier {
    target: Target,
    /// `None` after a failure.
    planner: Option<Planner>,
    senders: Vec<Sender>,
    /// One collection of each database.
    databases: BTreeMap<String, Namespace>,
    begun: Identity,
    operations: u64,
}

/// What was applied so far and is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The number of operations.
    pub operations: u64,
    /// Whether another server became the target's primary meanwhile, or it was restarted. Then some
    /// writes may be lost, and all entries must be applied again, to what exists now.
    pub again: bool,
}

impl Applier {
    /// A new one for entries from the first one that `commits` knows. Entries are skipped until
    /// [`direct`](Self::direct) says where a collection is.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`], [`ErrorKind::Denied`], [`ErrorKind::Interrupted`].
    pub async fn new(target: Target, commits: Commits) -> Result<Self> {
        Self::with_lanes(target, commits, LANES).await
    }

    /// The same with this many concurrent commands.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub async fn with_lanes(target: Target, commits: Commits, lanes: usize) -> Result<Self> {
        let lanes = lanes.max(1);
        Ok(Self {
            begun: target.identity().await?,
            senders: (0..lanes).map(|_| Sender::new(target.clone())).collect(),
            planner: Some(Planner::new(commits, lanes)),
            target,
            databases: BTreeMap::new(),
            operations: 0,
        })
    }

    /// From the next entry on, the documents of this source collection are at this destination.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] after a failure.
    pub fn direct(&mut self, collection: Uuid, to: Destination) -> Result<()> {
        self.databases.entry(to.namespace.database.clone()).or_insert_with(|| to.namespace.clone());
        self.planner.as_mut().ok_or_else(failed)?.direct(collection, to);
        Ok(())
    }

    /// From the next entry on, entries about this source collection are skipped.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] after a failure.
    pub fn pass_over(&mut self, collection: Uuid) -> Result<()> {
        self.planner.as_mut().ok_or_else(failed)?.pass_over(collection);
        Ok(())
    }

    /// Applies the next entries: a frame of whole ones, in their order. Returns once the target has
    /// all those that count by then.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] if the target refuses an operation, naming the collection, the
    /// operation and the type of the `_id`; [`ErrorKind::Unreachable`], [`ErrorKind::Denied`],
    /// [`ErrorKind::Interrupted`]; [`ErrorKind::Damaged`] if the frame does not hold entries.
    pub async fn take(&mut self, frame: Vec<u8>) -> Result<()> {
        let mut planner = self.planner.take().ok_or_else(failed)?;
        let (planner, planned) = self
            .target
            .cpu
            .run(move || {
                let planned = planner.plan(&frame)?;
                Ok((planner, planned))
            })
            .await?;
        self.operations += planned.operations;
        try_join_all(self.senders.iter_mut().zip(planned.lanes).map(|(sender, lane)| sender.send(lane))).await?;
        self.planner = Some(planner);
        Ok(())
    }

    /// Makes everything applied so far durable, and reports whether it is certain to be there.
    ///
    /// # Errors
    /// Server errors; [`ErrorKind::Interrupted`].
    pub async fn make_durable(&self) -> Result<Applied> {
        for namespace in self.databases.values() {
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
        Ok(Applied { operations: self.operations, again })
    }
}

fn failed() -> Error {
    Error::new(ErrorKind::Internal, "entries were to be applied after a failure")
}
