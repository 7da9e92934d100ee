//! Applies oplog entries to a target: changes to documents are repeated in the collections that
//! hold them there.
//!
//! If the documents were read after the first entry, each at another time, many entries have taken
//! effect already. Applied again, in order, they lead to the same documents in the end: an oplog is
//! designed for that. For the same reason, any part may be sent again.
//!
//! Within a frame, only the last state of a document counts. So what a later entry of the frame
//! undoes is not sent, and what is left is sent in the fastest way.

mod batch;
mod destination;
mod difference;
pub mod gather;
mod gathered;
mod group;
mod lane;
mod large;
pub mod moment;
mod open;
mod plan;
mod rights;
mod send;

use std::collections::BTreeMap;

use bson::rawdoc;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

pub use self::batch::Batch;
pub use self::destination::{Destination, Holds};
use self::lane::Arranged;
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
    lanes: Vec<Lane>,
    /// One collection of each database.
    databases: BTreeMap<String, Namespace>,
    begun: Identity,
    operations: u64,
}

/// A lane at work.
#[derive(Debug)]
struct Lane {
    queue: mpsc::Sender<Asked>,
    work: AbortOnDropHandle<Result<()>>,
}

/// What a lane is asked.
#[derive(Debug)]
enum Asked {
    /// To send this.
    Send(Arranged),
    /// To say when it has sent everything so far.
    Tell(oneshot::Sender<()>),
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
            lanes: (0..lanes).map(|_| Lane::begin(Sender::new(target.clone()))).collect(),
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

    /// Applies the next entries: a frame of whole ones, in their order. Returns once they are
    /// planned, while the target may still lack those of this frame and of the one before it. So a
    /// failure may show with a later frame, or with [`make_durable`](Self::make_durable).
    ///
    /// # Errors
    /// [`ErrorKind::Server`] if the target refuses an operation, naming the collection, the
    /// operation and the type of the `_id`; [`ErrorKind::Unreachable`], [`ErrorKind::Denied`],
    /// [`ErrorKind::Interrupted`]; [`ErrorKind::Damaged`] if the frame does not hold entries.
    pub async fn take(&mut self, frame: Vec<u8>) -> Result<()> {
        let mut planner = self.planner.take().ok_or_else(failed)?;
        // Once each lane has begun with the previous frame, this one is planned meanwhile.
        let mut room = Vec::new();
        for lane in &mut self.lanes {
            room.push(match lane.queue.clone().reserve_owned().await {
                Ok(room) => room,
                Err(_) => return Err(lane.failure().await),
            });
        }
        let (planner, planned) = self
            .target
            .cpu
            .run(move || {
                let planned = planner.plan(&frame)?;
                Ok((planner, planned))
            })
            .await?;
        self.operations += planned.operations;
        for (room, work) in room.into_iter().zip(planned.lanes) {
            room.send(Asked::Send(work));
        }
        self.planner = Some(planner);
        Ok(())
    }

    /// Waits until the target has everything.
    async fn wait(&mut self) -> Result<()> {
        let planner = self.planner.take().ok_or_else(failed)?;
        let mut told = Vec::new();
        for lane in &mut self.lanes {
            let (tell, answer) = oneshot::channel();
            if lane.queue.send(Asked::Tell(tell)).await.is_err() {
                return Err(lane.failure().await);
            }
            told.push(answer);
        }
        for (lane, answer) in self.lanes.iter_mut().zip(told) {
            if answer.await.is_err() {
                return Err(lane.failure().await);
            }
        }
        self.planner = Some(planner);
        Ok(())
    }

    /// Makes everything applied so far durable, and reports whether it is certain to be there.
    ///
    /// # Errors
    /// As for [`take`](Self::take).
    pub async fn make_durable(&mut self) -> Result<Applied> {
        self.wait().await?;
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

impl Lane {
    fn begin(mut sender: Sender) -> Self {
        let (queue, mut asked) = mpsc::channel(1);
        let work = async move {
            while let Some(asked) = asked.recv().await {
                match asked {
                    Asked::Send(work) => sender.send(work).await?,
                    // Whoever asked may be gone.
                    Asked::Tell(tell) => drop(tell.send(())),
                }
            }
            Ok(())
        };
        Self { queue, work: AbortOnDropHandle::new(tokio::spawn(work)) }
    }

    /// Why it ended.
    async fn failure(&mut self) -> Error {
        match (&mut self.work).await {
            Ok(Err(e)) => e,
            Ok(Ok(())) => failed(),
            Err(e) => Error::new(ErrorKind::Internal, "a lane died").cause(e),
        }
    }
}

fn failed() -> Error {
    Error::new(ErrorKind::Internal, "entries were to be applied after a failure")
}
