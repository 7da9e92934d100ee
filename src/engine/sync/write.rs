//! Writes what was gathered to the target, with the position.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::format::document::{self, Documents};
use crate::format::manifest::ClusterTime;
use crate::names::{Namespace, SYNC_DATABASE};
use crate::oplog::apply::gather::{Gathered, Gatherer, Pieces};
use crate::oplog::apply::moment::{self, Manner, Outcome, Prepared, Writes};
use crate::oplog::apply::{Applier, Batch, Commits, Destination, Holds};
use crate::oplog::{Committed, Entry, OperationKind};
use crate::sink::Target;
use crate::sink::synced::{Held, Move, Synced};

/// The pause before an aborted transaction is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long an aborted transaction is tried again, before the target counts as one that does not
/// answer.
const ABORTS: Duration = Duration::from_secs(5);
/// After so many times that the target ended a transaction, it counts as too large: it takes longer
/// than the target allows.
const ENDS: u32 = 3;

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

impl Written {
    /// What became of two parts together.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::WentBack, _) | (_, Self::WentBack) => Self::WentBack,
            (Self::Moment, Self::Moment) => Self::Moment,
            _ => Self::Eventually,
        }
    }
}

/// What became of an attempt to write a batch as one.
#[derive(Debug)]
enum Tried {
    /// It is done.
    Written(Written),
    /// It is too large for one transaction.
    TooLarge,
    /// Only the server can work it out.
    Unclear,
}

/// Entries that are applied one by one.
struct Entries<'a> {
    /// Whole documents.
    bytes: Cow<'a, [u8]>,
    /// Which of them count.
    committed: Committed,
}

impl<'a> Entries<'a> {
    fn of(gathered: &'a Gathered) -> Self {
        Self { bytes: Cow::Borrowed(&gathered.entries), committed: gathered.committed() }
    }

    /// Those of what is not needed any more.
    fn taken(gathered: &mut Gathered) -> Self {
        Self { bytes: Cow::Owned(std::mem::take(&mut gathered.entries)), committed: gathered.committed() }
    }
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

    /// Moves the position, with what was gathered.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process has the target; server errors.
    pub(super) async fn write(&mut self, mut gathered: Gathered, gatherer: &Gatherer, step: Move) -> Result<Written> {
        let (redo, mut written) = (self.redo.is_some(), Written::Moment);
        if !gathered.in_order.is_empty() {
            self.held.intend_move(&step).await?;
            let entries = match gathered.batch.is_empty() {
                true => Entries::taken(&mut gathered),
                false => Entries::of(&gathered),
            };
            if !self.apply(entries, gatherer, |uuid| gathered.in_order.contains(&uuid), redo).await? {
                return Ok(Written::WentBack);
            }
        }
        let batch = std::mem::take(&mut gathered.batch);
        if batch.is_empty() {
            self.held.move_on(&step).await?;
        } else {
            written = match self.try_write(batch, &step, redo).await? {
                Tried::Written(written) => written,
                Tried::TooLarge if gathered.in_order.is_empty() && gathered.is_divisible() && !redo => {
                    Box::pin(self.in_halves(&mut gathered, gatherer, step)).await?
                }
                Tried::TooLarge | Tried::Unclear => {
                    let is_other = |uuid| !gathered.in_order.contains(&uuid);
                    self.entry_by_entry(Entries::of(&gathered), gatherer, is_other, &step, redo).await?
                }
            };
        }
        if written != Written::WentBack {
            self.redo = None;
        }
        Ok(if gathered.hurried { written.and(Written::Eventually) } else { written })
    }

    /// Moves the position with what is too large for one transaction: each half is one of its own,
    /// or is halved again. No transaction of the source is cut.
    async fn in_halves(&mut self, gathered: &mut Gathered, gatherer: &Gatherer, whole: Move) -> Result<Written> {
        let committed = gathered.committed();
        let pieces = Arc::new(gatherer.pieces(gathered));
        let all = pieces.all();
        let mut ahead: Vec<Range<usize>> = pieces.halves(&all).into_iter().flatten().rev().collect();
        let (mut written, mut before) = (Written::Moment, None);
        while let Some(piece) = ahead.pop() {
            let step = before.map_or(whole, |before| whole.after(before));
            // The last one ends where all of it does, which may be later than its last entry.
            let step = match pieces.end(&piece) {
                Some(end) if piece.end < all.end => step.ending(end.position, end.open_from),
                _ => step,
            };
            let batch = self.gather_again(&pieces, &piece).await?;
            let done = match (self.try_write(batch, &step, false).await?, pieces.halves(&piece)) {
                (Tried::Written(written), _) => written,
                (Tried::TooLarge, Some([first, second])) => {
                    ahead.extend([second, first]);
                    continue;
                }
                (Tried::TooLarge | Tried::Unclear, _) => {
                    let entries = Entries { bytes: Cow::Borrowed(pieces.entries(&piece)), committed: committed.clone() };
                    self.entry_by_entry(entries, gatherer, |_| true, &step, false).await?
                }
            };
            written = written.and(done);
            if done == Written::WentBack {
                break;
            }
            before = Some(step);
        }
        Ok(written)
    }

    /// What a piece makes of documents, on the pool for such work.
    async fn gather_again(&self, pieces: &Arc<Pieces>, piece: &Range<usize>) -> Result<Batch> {
        let (pieces, piece) = (pieces.clone(), piece.clone());
        self.target.cpu.run(move || pieces.batch(&piece)).await
    }

    /// Moves the position with a batch, if the target takes it as one.
    async fn try_write(&mut self, batch: Batch, step: &Move, redo: bool) -> Result<Tried> {
        let operations = batch.operations();
        let done = match moment::prepare(&self.target, batch).await? {
            Prepared::Writes(writes) if self.transactions => self.in_transaction(&writes, step).await?,
            Prepared::Writes(writes) => self.apart(&writes, step, redo).await?,
            // What was written before a crash may be later than the batch.
            Prepared::Missing(namespace) if !redo => return Err(missing(&namespace)),
            Prepared::Missing(_) | Prepared::Unclear => return Ok(Tried::Unclear),
        };
        match done {
            Outcome::Moved => return Ok(Tried::Written(Written::WentBack)),
            Outcome::TooLarge | Outcome::Ended => return Ok(Tried::TooLarge),
            Outcome::Duplicate | Outcome::Aborted => return Ok(Tried::Unclear),
            Outcome::Done => self.operations += operations,
        }
        if self.transactions {
            return Ok(Tried::Written(Written::Moment));
        }
        self.held.move_on(step).await?;
        Ok(Tried::Written(Written::Eventually))
    }

    /// Moves the position with entries that are applied one by one, as servers replicate.
    async fn entry_by_entry(
        &mut self,
        entries: Entries<'_>,
        gatherer: &Gatherer,
        is_meant: impl Fn(Uuid) -> bool,
        step: &Move,
        redo: bool,
    ) -> Result<Written> {
        self.held.intend_move(step).await?;
        if !self.apply(entries, gatherer, is_meant, redo).await? {
            return Ok(Written::WentBack);
        }
        self.held.move_on(step).await?;
        Ok(Written::Eventually)
    }

    /// Moves the position without any data.
    pub(super) async fn move_on(&mut self, step: &Move) -> Result<()> {
        self.held.move_on(step).await?;
        self.redo = None;
        Ok(())
    }

    /// Writes data and position in one transaction.
    async fn in_transaction(&mut self, writes: &Writes, step: &Move) -> Result<Outcome> {
        let fence = self.held.advance(step)?;
        let (mut manner, mut ends, begun) = (Manner::Plain, 0, Instant::now());
        loop {
            match writes.in_transaction(&self.target, self.held.session(), manner, (SYNC_DATABASE, &fence)).await? {
                Outcome::Duplicate if manner == Manner::Plain => manner = Manner::Anew,
                Outcome::Ended if ends + 1 < ENDS => {
                    ends += 1;
                    self.target.unless_stopped(tokio::time::sleep(PAUSE)).await?;
                }
                Outcome::Aborted if begun.elapsed() < ABORTS => {
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
                        Some(now) if step.is_made(&now) => Ok(Outcome::Done),
                        Some(_) => Ok(Outcome::Moved),
                    };
                }
                done => return Ok(done),
            }
        }
    }

    /// Writes data, and not the position.
    async fn apart(&self, writes: &Writes, step: &Move, redo: bool) -> Result<Outcome> {
        self.held.intend_move(step).await?;
        let (mut manner, begun) = (if redo { Manner::Anew } else { Manner::Plain }, Instant::now());
        loop {
            match writes.without_transaction(&self.target, manner).await? {
                Outcome::Duplicate if manner == Manner::Plain => manner = Manner::Anew,
                // What was written before it failed is written anew.
                Outcome::Aborted if begun.elapsed() < ABORTS => {
                    manner = Manner::Anew;
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
        entries: Entries<'_>,
        gatherer: &Gatherer,
        is_meant: impl Fn(Uuid) -> bool,
        redo: bool,
    ) -> Result<bool> {
        let mut applier = Applier::new(self.target.clone(), Commits::Known(entries.committed.clone())).await?;
        for (uuid, place) in gatherer.places().filter(|(uuid, _)| is_meant(*uuid)) {
            let mut place = place.clone();
            if redo && matches!(place.holds, Holds::Capped { .. }) {
                place.holds = Holds::Capped { after: self.last_written(uuid, &place, &entries.bytes).await? };
            }
            applier.direct(uuid, place)?;
        }
        applier.take(entries.bytes.into_owned()).await?;
        let applied = applier.make_durable().await?;
        self.operations += applied.operations;
        Ok(!applied.again)
    }

    /// The `_id` of the last document of a capped collection, if it was among these that were
    /// gathered: all up to it are there.
    async fn last_written(&self, uuid: Uuid, place: &Destination, entries: &[u8]) -> Result<Option<(u8, Vec<u8>)>> {
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
        for entry in Documents::of(entries) {
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
