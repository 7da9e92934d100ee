//! Writes what was gathered to the target, with the position.

use std::time::Duration;

use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::format::document::{self, Documents};
use crate::format::manifest::{ClusterTime, OplogPosition};
use crate::names::{Namespace, SYNC_DATABASE};
use crate::oplog::apply::gather::{Gathered, Gatherer};
use crate::oplog::apply::moment::{self, Manner, Outcome, Prepared, Writes};
use crate::oplog::apply::{Applier, Batch, Commits, Destination, Holds};
use crate::oplog::{Entry, OperationKind};
use crate::sink::Target;
use crate::sink::synced::{Held, Synced};

/// The pause before an aborted transaction is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// How many times in a row a transaction may be aborted.
const ABORTS: u32 = 100;

/// Writes to a target.
pub(super) struct Writer {
    target: Target,
    held: Held,
    /// Whether data and position can be written together.
    transactions: bool,
    /// Up to here, the target may hold data already, from before a crash.
    redo: Option<ClusterTime>,
    /// How many operations were written.
    operations: u64,
}

/// What became of what was gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It is in the target, which shows one moment of the source.
    Moment,
    /// It is in the target, which showed a mixture meanwhile.
    Eventually,
    /// The target is at an older position than it was: go on from there.
    WentBack,
}

impl Writer {
    pub(super) fn new(target: &Target, held: Held, transactions: bool, redo: Option<ClusterTime>) -> Self {
        Self { target: target.unstoppable(), held, transactions, redo, operations: 0 }
    }

    /// The right to write the target.
    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    /// Gives the right back.
    pub(super) fn into_held(self) -> Held {
        self.held
    }

    /// How many operations were written so far.
    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    /// Up to here, the target may hold data already: it is written again as one.
    pub(super) fn redo(&self) -> Option<ClusterTime> {
        self.redo
    }

    /// Moves the position from one entry to another, with what was gathered between them.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process has the target; server errors.
    pub(super) async fn write(
        &mut self,
        gathered: Gathered,
        gatherer: &Gatherer,
        (from, to): (ClusterTime, OplogPosition),
    ) -> Result<Written> {
        let open_from = gatherer.open_from();
        let redo = self.redo.is_some();
        let mut written = if gathered.hurried { Written::Eventually } else { Written::Moment };
        if !gathered.in_order.is_empty() {
            self.held.intend(from, to.time).await?;
            if !self.apply(&gathered, gatherer, |uuid| gathered.in_order.contains(&uuid), redo).await? {
                return Ok(Written::WentBack);
            }
        }
        if gathered.batch.is_empty() {
            self.held.move_on(from, &to, open_from).await?;
            self.redo = None;
            return Ok(written);
        }
        let Gathered { batch, entries, parts, in_order, hurried, to: _ } = gathered;
        let operations = batch.operations();
        let rest = Gathered { batch: Batch::default(), entries, parts, in_order, hurried, to: None };
        let done = match moment::prepare(&self.target, batch).await? {
            Prepared::Writes(writes) if self.transactions => self.in_transaction(&writes, (from, &to, open_from)).await?,
            Prepared::Writes(writes) => {
                written = Written::Eventually;
                self.apart(&writes, (from, to.time), redo).await?
            }
            // What was written before a crash may be later than the batch.
            Prepared::Missing(namespace) if !redo => return Err(missing(&namespace)),
            Prepared::Missing(_) | Prepared::Unclear => Outcome::TooLarge,
        };
        match done {
            Outcome::Done if self.transactions => self.operations += operations,
            Outcome::Moved => return Ok(Written::WentBack),
            Outcome::Done => {
                self.operations += operations;
                self.held.move_on(from, &to, open_from).await?;
            }
            // Entry by entry, as servers replicate.
            Outcome::TooLarge | Outcome::Duplicate | Outcome::Aborted => {
                written = Written::Eventually;
                self.held.intend(from, to.time).await?;
                let is_other = |uuid| !rest.in_order.contains(&uuid);
                if !self.apply(&rest, gatherer, is_other, redo).await? {
                    return Ok(Written::WentBack);
                }
                self.held.move_on(from, &to, open_from).await?;
            }
        }
        self.redo = None;
        Ok(written)
    }

    /// Writes data and position in one transaction.
    async fn in_transaction(
        &mut self,
        writes: &Writes,
        (from, to, open_from): (ClusterTime, &OplogPosition, Option<ClusterTime>),
    ) -> Result<Outcome> {
        let fence = self.held.advance(from, to, open_from)?;
        let (mut manner, mut aborts) = (Manner::Plain, 0);
        loop {
            match writes.in_transaction(&self.target, self.held.session(), manner, (SYNC_DATABASE, &fence)).await? {
                Outcome::Duplicate if manner == Manner::Plain => manner = Manner::Anew,
                Outcome::Aborted if aborts < ABORTS => {
                    aborts += 1;
                    self.target.unless_stopped(tokio::time::sleep(PAUSE)).await?;
                }
                Outcome::Aborted => {
                    return Err(Error::new(ErrorKind::Unreachable, "the target aborts every transaction"));
                }
                // An attempt whose reply was lost may have been it.
                Outcome::Moved => {
                    let now = Synced::read(&self.target).await?.filter(|now| now.epoch == self.held.epoch());
                    return match now {
                        None => Err(self.held.lost_error()),
                        Some(now) if now.at.time == to.time => Ok(Outcome::Done),
                        Some(_) => Ok(Outcome::Moved),
                    };
                }
                done => return Ok(done),
            }
        }
    }

    /// Writes data, and not the position.
    async fn apart(&self, writes: &Writes, (from, to): (ClusterTime, ClusterTime), redo: bool) -> Result<Outcome> {
        self.held.intend(from, to).await?;
        let (mut manner, mut aborts) = (if redo { Manner::Anew } else { Manner::Plain }, 0);
        loop {
            match writes.without_transaction(&self.target, manner).await? {
                Outcome::Duplicate if manner == Manner::Plain => manner = Manner::Anew,
                // What was written before it failed is written anew.
                Outcome::Aborted if aborts < ABORTS => {
                    (manner, aborts) = (Manner::Anew, aborts + 1);
                    self.target.unless_stopped(tokio::time::sleep(PAUSE)).await?;
                }
                done => return Ok(done),
            }
        }
    }

    /// Applies entries one by one, durably. False if the target's primary changed or was restarted
    /// meanwhile.
    async fn apply(
        &mut self,
        gathered: &Gathered,
        gatherer: &Gatherer,
        is_meant: impl Fn(Uuid) -> bool,
        redo: bool,
    ) -> Result<bool> {
        let mut applier = Applier::new(self.target.clone(), Commits::Known(gathered.committed())).await?;
        for (uuid, place) in gatherer.places().filter(|(uuid, _)| is_meant(*uuid)) {
            let mut place = place.clone();
            if redo && matches!(place.holds, Holds::Capped { .. }) {
                place.holds = Holds::Capped { after: self.last_written(uuid, &place, gathered).await? };
            }
            applier.direct(uuid, place)?;
        }
        applier.take(gathered.entries.clone()).await?;
        let applied = applier.make_durable().await?;
        self.operations += applied.operations;
        Ok(!applied.again)
    }

    /// The `_id` of the last document of a capped collection, if it was among these that were
    /// gathered: all up to it are there.
    async fn last_written(&self, uuid: Uuid, place: &Destination, gathered: &Gathered) -> Result<Option<(u8, Vec<u8>)>> {
        let what = format!("reading the last document of {}", place.namespace);
        let find = bson::rawdoc! {
            "find": place.namespace.collection.as_str(), "sort": { "$natural": -1 }, "limit": 1, "projection": { "_id": 1 },
        };
        let database = self.target.connection.database(&place.namespace.database);
        let asked = || async {
            let asked = crate::mongo::command::run_cursor(&database, find.clone()).await;
            asked.map_err(|e| crate::mongo::failure::describe(self.target.connection.role(), &what, e))
        };
        let (found, _) = self.target.unless_stopped(crate::mongo::command::patiently(asked)).await??;
        let Some(last) = found.first().map(|last| document::id(last.as_bytes())).transpose()?.flatten() else { return Ok(None) };
        let mut is_among = false;
        for entry in Documents::of(&gathered.entries) {
            Entry::parse(entry?)?.each(&mut |operation| {
                is_among |=
                    operation.collection == Some(uuid) && operation.kind == OperationKind::Insert && operation.id()? == last;
                Ok(())
            })?;
        }
        Ok(is_among.then(|| (last.0, last.1.to_vec())))
    }
}

fn missing(namespace: &Namespace) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!("the source updates a document of {namespace} that is not in the target: somebody else deleted it there"),
    )
}
