//! What a target that follows a source knows of itself: how far it is, of what, and who writes it.
//!
//! It is one document, `bsonvault.sync`. Whoever writes to the target moves its position from the
//! known value and under the known epoch, with the data or after them. So a process that lost the
//! target to another one, and wakes up, cannot write any more.
//!
//! The collections of the source, as they were at the position, are in
//! `bsonvault.sync.collections`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::{Document, RawDocumentBuf, Timestamp, doc};
use mongodb::ClientSession;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{MAJORITY_LIMIT, Target};
use crate::context::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::format::manifest::{ClusterTime, Collection, OplogPosition};
use crate::mongo::failure::{self, code, code_of};
use crate::mongo::{command, retry};
use crate::names::{Namespace, SYNC_DATABASE};
use crate::system;

/// The collection with the position.
const POSITION: &str = "sync";
/// The collection with the source's collections.
const COLLECTIONS: &str = "sync.collections";
/// The `_id` of the position.
const ID: &str = "position";
/// How long a holder counts as alive without renewal.
const EXPIRY: Duration = Duration::from_secs(10);
/// How often it renews.
const BEAT: Duration = Duration::from_secs(2);
/// The version of these documents.
const VERSION: i32 = 1;

/// How far a target is, and of what.
#[derive(Debug, Clone, PartialEq)]
pub struct Synced {
    /// The ID of the source's replica set.
    pub replica_set_id: String,
    /// The name of the source's replica set.
    pub replica_set: String,
    /// What is copied and under which names, in words that are compared.
    pub selection: String,
    /// What the target does.
    pub state: SyncedState,
    /// Everything up to this entry of the source is in it, and nothing later.
    pub at: OplogPosition,
    /// The first part of the oldest transaction that was open at that time.
    pub open_from: Option<ClusterTime>,
    /// If data and position are not written together: data up to this time may be in it.
    pub to: Option<ClusterTime>,
    /// Of a transaction of the source that is written bit by bit after that entry: the last part
    /// that is in it.
    pub within: Option<ClusterTime>,
    /// Counts those who took the target over.
    pub epoch: i64,
    /// Why it is held.
    pub reason: Option<String>,
    /// Who writes it, and whether that process lives.
    pub holder: Option<Holder>,
    /// What its holder said last.
    pub told: Option<Told>,
}

/// What a process that writes a target says of it, every two seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The newest entry of the source that it knows.
    pub archived: ClusterTime,
    /// Up to here, the target has everything, even if the position is not moved for what changes
    /// nothing.
    pub at: ClusterTime,
    /// How many indexes the target still lacks.
    pub debts: i64,
}

/// What a target does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncedState {
    /// It gets its first copy.
    Copying,
    /// It follows.
    Following,
    /// It is paused on request.
    Paused,
    /// Something came that cannot be applied.
    Held,
    /// It was finalized: it follows nothing any more.
    Final,
}

impl SyncedState {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Copying => "copying",
            Self::Following => "following",
            Self::Paused => "paused",
            Self::Held => "held",
            Self::Final => "final",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Copying, Self::Following, Self::Paused, Self::Held, Self::Final].into_iter().find(|state| state.name() == name)
    }
}

/// A process that writes a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its machine.
    pub host: String,
    /// Its process ID there.
    pub process: i64,
    /// Whether it lives, as far as can be told.
    pub lives: bool,
    /// The ID of the session of its transactions.
    session: Option<Document>,
}

/// A collection, time series or view of the source, and where it is in the target.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncedCollection {
    /// As it is in the source at the position. Has no segments.
    pub source: Collection,
    /// Its name in the target.
    pub to: Namespace,
    /// Its UUID there; for a time series, that of its buckets. Views have none.
    pub uuid: Option<Uuid>,
}

pub(super) fn timestamp(time: ClusterTime) -> Timestamp {
    Timestamp { time: time.t, increment: time.i }
}

pub(super) fn time(document: &Document, field: &str) -> Option<ClusterTime> {
    document.get_timestamp(field).ok().map(Into::into)
}

pub(super) fn internal(e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, "the state of a sync cannot be written as a document").cause(e)
}

pub(super) fn raw(document: &Document) -> Result<RawDocumentBuf> {
    RawDocumentBuf::try_from(document).map_err(internal)
}

impl Synced {
    fn of(document: &Document) -> Result<Self> {
        let broken = |what: &str| {
            Error::damaged(format!("{SYNC_DATABASE}.{POSITION} of the target is not what `sync` writes: {what}"))
                .hint("somebody changed it, or a newer version wrote it; drop the database, and begin anew in mode replace")
        };
        if document.get_i32("version").ok() != Some(VERSION) {
            return Err(broken("it has another version"));
        }
        let text = |field: &str| document.get_str(field).map(str::to_owned).map_err(|_| broken(&format!("{field} is missing")));
        let state = SyncedState::parse(&text("state")?).ok_or_else(|| broken("its state is unknown"))?;
        let digest = document.get_str("digest").ok().map(|digest| digest.to_owned().try_into()).transpose();
        let at = OplogPosition {
            time: time(document, "at").ok_or_else(|| broken("at is missing"))?,
            term: document.get_i64("term").ok(),
            digest: digest.map_err(|_| broken("its digest is none"))?,
        };
        let holder = document.get_document("holder").ok().map(|holder| {
            let host = holder.get_str("host").unwrap_or("?").to_owned();
            let process = holder.get_i64("process").unwrap_or(0);
            let is_dead = host == system::host() && !system::has_process(process);
            let lives = document.get_bool("lives").unwrap_or(false) && !is_dead;
            Holder { lives, host, process, session: holder.get_document("session").ok().cloned() }
        });
        Ok(Self {
            replica_set_id: text("replicaSetId")?,
            replica_set: text("replicaSet")?,
            selection: text("selection")?,
            state,
            at,
            open_from: time(document, "openFrom"),
            to: time(document, "to"),
            within: time(document, "within"),
            epoch: document.get_i64("epoch").map_err(|_| broken("epoch is missing"))?,
            reason: document.get_str("reason").ok().map(str::to_owned),
            holder,
            told: document.get_document("told").ok().and_then(|told| {
                let debts = told.get_i64("debts").unwrap_or(0);
                Some(Told { archived: time(told, "archived")?, at: time(told, "at")?, debts })
            }),
        })
    }

    /// The state of a target; `None` if it follows nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if it is not what this program writes; server errors.
    pub async fn read(target: &Target) -> Result<Option<Self>> {
        let command = doc! {
            "aggregate": POSITION,
            "pipeline": [
                { "$match": { "_id": ID } },
                { "$addFields": { "lives": { "$gt": ["$holder.expires", "$$NOW"] } } },
            ],
            "cursor": {},
            "readConcern": { "level": "local" },
        };
        let reply = target.run("reading how far the target is", SYNC_DATABASE, raw(&command)?).await?;
        let found = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        found.ok().and_then(|found| found.first()?.as_document()).map(Self::of).transpose()
    }

    /// The time of the first entry of the oplog that is needed to go on.
    #[must_use]
    pub fn needs(&self) -> ClusterTime {
        self.open_from.map_or(self.at.time, |open| open.min(self.at.time))
    }

    /// Where a target is, if it is at one moment of its source now: the position, and the target's
    /// own time if that is to be read at a time.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] if it is not what this program writes; server errors.
    pub async fn moment(target: &Target, at_a_time: bool) -> Result<Option<(ClusterTime, Option<Timestamp>)>> {
        let mut find = doc! { "find": POSITION, "filter": { "_id": ID }, "limit": 1 };
        if at_a_time {
            find.insert("readConcern", doc! { "level": "snapshot" });
        }
        let reply = target.run("reading how far the target is", SYNC_DATABASE, raw(&find)?).await?;
        let Ok(cursor) = reply.get_document("cursor") else { return Ok(None) };
        let found = cursor.get_array("firstBatch").ok().and_then(|found| found.first()?.as_document());
        let Some(synced) = found.map(Self::of).transpose()? else { return Ok(None) };
        let time = cursor.get_timestamp("atClusterTime").ok().filter(|_| at_a_time);
        let is_moment = synced.to.is_none() && synced.state != SyncedState::Copying && time.is_some() == at_a_time;
        Ok(is_moment.then_some((synced.at.time, time)))
    }

    fn fields(&self) -> Document {
        let mut fields = doc! {
            "version": VERSION,
            "replicaSetId": &self.replica_set_id,
            "replicaSet": &self.replica_set,
            "selection": &self.selection,
            "state": self.state.name(),
        };
        fields.extend(position(&self.at, self.open_from));
        fields
    }
}

/// The fields of a position.
pub(super) fn position(at: &OplogPosition, open_from: Option<ClusterTime>) -> Document {
    let mut fields = doc! { "at": timestamp(at.time) };
    fields.insert("term", at.term);
    fields.insert("digest", at.digest.map(String::from));
    fields.insert("openFrom", open_from.map(timestamp));
    fields
}

/// Keeps a target as it is: while it is held, what is written apart from the position waits.
#[derive(Debug, Clone, Default)]
pub struct Still(Arc<tokio::sync::Mutex<()>>);

impl Still {
    /// Waits until what is being written is complete, and lets nothing more be written until the
    /// result is dropped.
    pub async fn hold(&self) -> OwnedMutexGuard<()> {
        self.0.clone().lock_owned().await
    }
}

/// A move of the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// From one entry to a later one.
    On {
        /// The entry.
        from: ClusterTime,
        /// The later one.
        to: OplogPosition,
        /// The first part of the oldest transaction that is open then.
        open_from: Option<ClusterTime>,
    },
    /// From one part of a transaction of the source to a later one, while the position stays at an
    /// entry.
    Within {
        /// The entry.
        at: ClusterTime,
        /// The part, if one is in the target.
        from: Option<ClusterTime>,
        /// The later one.
        to: ClusterTime,
        /// The entry that commits the transaction.
        commit: ClusterTime,
    },
}

impl Move {
    /// The same move, to an earlier end.
    #[must_use]
    pub fn ending(self, end: OplogPosition, now_open_from: Option<ClusterTime>) -> Self {
        match self {
            Self::On { from, .. } => Self::On { from, to: end, open_from: now_open_from },
            Self::Within { at, from, commit, .. } => Self::Within { at, from, to: end.time, commit },
        }
    }

    /// The same move, from the end of another one on.
    #[must_use]
    pub fn after(self, before: Self) -> Self {
        match (self, before) {
            (Self::On { to, open_from, .. }, Self::On { to: before, .. }) => Self::On { from: before.time, to, open_from },
            (Self::Within { at, to, commit, .. }, Self::Within { to: before, .. }) => {
                Self::Within { at, from: Some(before), to, commit }
            }
            _ => self,
        }
    }

    /// The entry where the position is before.
    fn from(&self) -> ClusterTime {
        match self {
            Self::On { from, .. } => *from,
            Self::Within { at, .. } => *at,
        }
    }

    /// Up to here, data may be in the target meanwhile.
    fn reach(&self) -> ClusterTime {
        match self {
            Self::On { to, .. } => to.time,
            Self::Within { commit, .. } => *commit,
        }
    }

    /// Whether the position is at its end.
    #[must_use]
    pub fn is_made(&self, now: &Synced) -> bool {
        match self {
            Self::On { to, .. } => now.at.time == to.time,
            Self::Within { at, to, .. } => now.at.time == *at && now.within == Some(*to),
        }
    }

    /// What the position must be before, beside the entry; what is set, and what is taken away.
    fn change(&self) -> (Document, Document, Document) {
        match self {
            Self::On { to, open_from, .. } => (doc! {}, position(to, *open_from), doc! { "to": 1, "within": 1 }),
            Self::Within { from, to, .. } => (doc! { "within": from.map(timestamp) }, doc! { "within": timestamp(*to) }, doc! {}),
        }
    }
}

/// The right to write a target, until it is dropped or another process takes it.
#[derive(Debug)]
pub struct Held {
    target: Target,
    epoch: i64,
    /// All its transactions are in this session, so that whoever comes after it can end them.
    session: ClientSession,
    told: Arc<Mutex<Option<Told>>>,
    still: Still,
    /// What is written apart from the position is not complete.
    writing: Mutex<Option<OwnedMutexGuard<()>>>,
    lost: CancellationToken,
    end: CancellationToken,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Held {
    /// Takes a target. `begun` is what it follows from now on if it followed nothing before.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if a living process has it; server errors.
    pub async fn take(target: &Target, begun: &Synced) -> Result<(Self, Synced)> {
        let found = match Synced::read(target).await? {
            Some(found) => found,
            None => {
                let mut first = begun.fields();
                first.extend(doc! { "_id": ID, "epoch": 0_i64 });
                let command = doc! { "insert": POSITION, "documents": [first], "writeConcern": concern() };
                match target.try_run(SYNC_DATABASE, raw(&command)?, Some(command::COMMAND_LIMIT)).await? {
                    Ok(_) => {}
                    // Another process was faster, or an attempt whose reply was lost.
                    Err(e) if code_of(&e) == Some(code::DUPLICATE_KEY) => {}
                    Err(e) => return Err(failure::describe(target.connection.role(), "taking the target", e)),
                }
                Synced::read(target).await?.ok_or_else(|| Error::new(ErrorKind::Internal, "the target forgot its position"))?
            }
        };
        if let Some(holder) = found.holder.as_ref().filter(|holder| holder.lives) {
            return Err(busy(target, holder));
        }
        // A transaction that a dead process left open would keep everything waiting for a minute.
        if let Some(session) = found.holder.as_ref().and_then(|holder| holder.session.clone()) {
            let kill = doc! { "killSessions": [session] };
            target.run("ending the transactions of the process before", "admin", raw(&kill)?).await?;
        }
        let client = &target.connection.client;
        let session = retry::ask(retry::OPENING, failure::is_break, || async { client.start_session().await });
        let session = target.unless_stopped(session).await?;
        let session = session.map_err(|e| failure::describe(target.connection.role(), "beginning a session", e))?;
        let epoch = found.epoch + 1;
        let update = doc! {
            "update": POSITION,
            "updates": [{
                "q": { "_id": ID, "epoch": found.epoch },
                "u": [{ "$set": { "epoch": epoch, "holder": holder(session.id()) } }],
            }],
            "writeConcern": concern(),
        };
        target.run("taking the target", SYNC_DATABASE, raw(&update)?).await?;
        let held = Self {
            // What is begun is told to its end, also once it is stopped.
            target: target.unstoppable(),
            epoch,
            session,
            told: Arc::default(),
            still: Still::default(),
            writing: Mutex::default(),
            lost: CancellationToken::new(),
            end: CancellationToken::new(),
        };
        let taken =
            Synced::read(target).await?.filter(|now| now.epoch == epoch && now.holder.as_ref().is_some_and(Holder::is_own));
        let Some(taken) = taken else { return Err(held.lost_error()) };
        let beating = Beating {
            target: held.target.unstoppable(),
            epoch,
            session: held.session.id().clone(),
            told: held.told.clone(),
            lost: held.lost.clone(),
            end: held.end.clone(),
        };
        tokio::spawn(beating.beat());
        Ok((held, taken))
    }

    /// What distinguishes it from those who had the target before.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// What keeps the target as it is.
    #[must_use]
    pub fn still(&self) -> Still {
        self.still.clone()
    }

    /// What was written apart from the position is complete, or is given up.
    pub fn let_go(&self) {
        drop(lock(&self.writing).take());
    }

    /// The session of its transactions.
    pub fn session(&mut self) -> &mut ClientSession {
        &mut self.session
    }

    /// What the next renewal says of the target.
    pub fn tell(&self, told: Told) {
        *lock(&self.told) = Some(told);
    }

    /// Cancelled once another process has taken the target.
    #[must_use]
    pub fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// The error of a process whose target another one has taken.
    #[must_use]
    pub fn lost_error(&self) -> Error {
        Error::new(ErrorKind::Busy, format!("another process follows into {} now", self.target.connection.uri))
            .hint("one process writes a target at a time: this one was suspended, or did not reach the target for too long")
    }

    /// The update that moves the position. It matches nothing if the position is elsewhere, or the
    /// target is another process's.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`].
    pub fn advance(&self, step: &Move) -> Result<RawDocumentBuf> {
        let (beside, mut set, unset) = step.change();
        let mut query = doc! { "_id": ID, "epoch": self.epoch, "at": timestamp(step.from()) };
        query.extend(beside);
        set.insert("moved", bson::DateTime::now());
        let mut update = doc! { "$set": set };
        if !unset.is_empty() {
            update.insert("$unset", unset);
        }
        raw(&doc! { "update": POSITION, "updates": [{ "q": query, "u": update }] })
    }

    /// Moves the position, durably, after the data.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process has the target; server errors.
    pub async fn move_on(&self, step: &Move) -> Result<()> {
        let mut command = self.advance(step)?;
        command.append(bson::raw::cstr!("writeConcern"), raw(&concern())?);
        let reply = self.target.run("moving the position", SYNC_DATABASE, command).await?;
        // An attempt whose reply was lost may have moved it.
        let has_moved = count(&reply) > 0
            || Synced::read(&self.target).await?.is_some_and(|now| now.epoch == self.epoch && step.is_made(&now));
        if !has_moved {
            return Err(self.lost_error());
        }
        if matches!(step, Move::On { .. }) {
            self.let_go();
        }
        Ok(())
    }

    /// Says what a move writes, before it is written apart from the position.
    ///
    /// # Errors
    /// As for [`intend`](Self::intend).
    pub async fn intend_move(&self, step: &Move) -> Result<()> {
        self.intend(step.from(), step.reach()).await
    }

    /// Says that data up to this time may be in the target, before they are written apart from the
    /// position.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process has the target; server errors.
    pub async fn intend(&self, at: ClusterTime, to: ClusterTime) -> Result<()> {
        let is_writing = lock(&self.writing).is_some();
        if !is_writing {
            let still = self.still.hold().await;
            *lock(&self.writing) = Some(still);
        }
        self.set("announcing what is written", doc! { "at": timestamp(at) }, doc! { "to": timestamp(to) }).await
    }

    /// Sets the state of a target whoever has it: a process that has it looks once a second.
    ///
    /// # Errors
    /// Server errors.
    pub async fn ask(target: &Target, from: SyncedState, to: SyncedState) -> Result<bool> {
        let update = doc! {
            "update": POSITION,
            "updates": [{ "q": { "_id": ID, "state": from.name() }, "u": { "$set": { "state": to.name() } } }],
            "writeConcern": concern(),
        };
        let reply = target.run("asking for another state", SYNC_DATABASE, raw(&update)?).await?;
        Ok(count(&reply) > 0)
    }

    /// Sets the state, and why.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process has the target; server errors.
    pub async fn set_state(&self, state: SyncedState, reason: Option<&str>) -> Result<()> {
        self.set("telling the state", doc! {}, doc! { "state": state.name(), "reason": reason }).await
    }

    /// Replaces everything but who holds it.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if another process has the target; server errors.
    pub async fn set_all(&self, synced: &Synced) -> Result<()> {
        let mut fields = synced.fields();
        fields.extend(doc! { "reason": &synced.reason, "to": synced.to.map(timestamp), "within": synced.within.map(timestamp) });
        self.set("telling the state", doc! {}, fields).await
    }

    async fn set(&self, what: &str, condition: Document, set: Document) -> Result<()> {
        let mut query = doc! { "_id": ID, "epoch": self.epoch };
        query.extend(condition);
        let update = doc! {
            "update": POSITION, "updates": [{ "q": query, "u": { "$set": set } }], "writeConcern": concern(),
        };
        let reply = self.target.run(what, SYNC_DATABASE, raw(&update)?).await?;
        if count(&reply) == 0 { Err(self.lost_error()) } else { Ok(()) }
    }

    /// Releases it: the next process need not wait.
    pub async fn release(self) {
        self.end.cancel();
        let target = self.target.unstoppable();
        let update = doc! {
            "update": POSITION,
            "updates": [{ "q": { "_id": ID, "epoch": self.epoch }, "u": { "$unset": { "holder": 1 } } }],
            "writeConcern": concern(),
        };
        let Ok(update) = raw(&update) else { return };
        let released = tokio::time::timeout(EXPIRY, target.run("releasing the target", SYNC_DATABASE, update)).await;
        if !matches!(released, Ok(Ok(_))) {
            tracing::warn!("the target was not released; the next process waits until its hold has expired");
        }
    }
}

impl Holder {
    fn is_own(&self) -> bool {
        self.host == system::host() && self.process == i64::from(std::process::id())
    }
}

/// How many documents an update matched.
fn count(reply: &Document) -> u64 {
    crate::mongo::catalog::number(reply, "n").unwrap_or(0)
}

pub(super) fn concern() -> Document {
    doc! { "w": "majority", "wtimeout": MAJORITY_LIMIT }
}

/// Who holds it from now on, for a pipeline.
fn holder(session: &Document) -> Document {
    let millis = i64::try_from(EXPIRY.as_millis()).unwrap_or(i64::MAX);
    doc! {
        "host": { "$literal": system::host() },
        "process": i64::from(std::process::id()),
        "expires": { "$add": ["$$NOW", millis] },
        "session": { "$literal": session },
    }
}

fn busy(target: &Target, holder: &Holder) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!("{} is followed into by process {} on {}", target.connection.uri, holder.process, holder.host),
    )
    .hint("one process writes a target at a time: stop the other one; one that crashed on another machine counts for ten seconds")
}

/// Renews a hold.
struct Beating {
    target: Target,
    epoch: i64,
    session: Document,
    told: Arc<Mutex<Option<Told>>>,
    lost: CancellationToken,
    end: CancellationToken,
}

impl Beating {
    /// Renews the hold until the end, or until another process has the target.
    async fn beat(self) {
        let database = self.target.connection.database(SYNC_DATABASE);
        loop {
            tokio::select! {
                () = self.end.cancelled() => return,
                () = tokio::time::sleep(BEAT) => {}
            }
            let Ok(update) = self.renewal() else { return };
            match command::reply(&database, update, Some(EXPIRY)).await {
                Ok(reply) if count(&reply) == 0 && !self.end.is_cancelled() => {
                    self.lost.cancel();
                    return;
                }
                // The next one tries again.
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn renewal(&self) -> Result<RawDocumentBuf> {
        let mut set = doc! { "holder": holder(&self.session) };
        if let Some(Told { archived, at, debts }) = *lock(&self.told) {
            set.insert("told", doc! { "archived": timestamp(archived), "at": timestamp(at), "debts": debts });
        }
        raw(&doc! {
            "update": POSITION, "updates": [{ "q": { "_id": ID, "epoch": self.epoch }, "u": [{ "$set": set }] }],
        })
    }
}

impl SyncedCollection {
    fn id(&self) -> String {
        source_id(&self.source)
    }

    /// All collections of the source as they were at the position.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`]; server errors.
    pub async fn all(target: &Target) -> Result<Vec<Self>> {
        let command = doc! { "find": COLLECTIONS, "filter": {}, "sort": { "_id": 1 } };
        let database = target.connection.database(SYNC_DATABASE);
        let asking = || async {
            let asked = command::run_cursor(&database, raw(&command)?).await;
            asked.map_err(|e| failure::describe(target.connection.role(), "reading what the target follows", e))
        };
        let (found, _) = target.unless_stopped(command::patiently(asking)).await??;
        found.iter().map(|document| Self::of(document)).collect()
    }

    fn of(document: &bson::RawDocument) -> Result<Self> {
        let broken = || Error::damaged(format!("{SYNC_DATABASE}.{COLLECTIONS} of the target is not what `sync` writes"));
        let text = |field: &str| document.get_str(field).map_err(|e| broken().cause(e));
        let source = serde_json::from_str(text("source")?).map_err(|e| broken().cause(e))?;
        let uuid = document.get_str("uuid").ok().and_then(|uuid| uuid.parse().ok());
        Ok(Self { source, to: Namespace::new(text("database")?, text("collection")?), uuid })
    }

    fn document(&self) -> Result<Document> {
        let source = serde_json::to_string(&self.source).map_err(internal)?;
        Ok(doc! {
            "_id": self.id(),
            "database": &self.to.database,
            "collection": &self.to.collection,
            "uuid": self.uuid.map(|uuid| uuid.to_string()),
            "source": source,
        })
    }

    /// Records these, and forgets others, by their source.
    ///
    /// # Errors
    /// Server errors.
    pub async fn record(target: &Target, changed: &[Self], gone: &[Collection]) -> Result<()> {
        const AT_A_TIME: usize = 500;
        for some in changed.chunks(AT_A_TIME) {
            let updates = some.iter().map(|one| Ok(doc! { "q": { "_id": one.id() }, "u": one.document()?, "upsert": true }));
            let updates = updates.collect::<Result<Vec<_>>>()?;
            let update = doc! { "update": COLLECTIONS, "updates": updates, "writeConcern": concern() };
            target.run("recording what the target follows", SYNC_DATABASE, raw(&update)?).await?;
        }
        for some in gone.chunks(AT_A_TIME) {
            let ids: Vec<String> = some.iter().map(source_id).collect();
            let delete = doc! {
                "delete": COLLECTIONS, "deletes": [{ "q": { "_id": { "$in": ids } }, "limit": 0 }], "writeConcern": concern(),
            };
            target.run("recording what the target follows", SYNC_DATABASE, raw(&delete)?).await?;
        }
        Ok(())
    }

    /// Forgets all.
    ///
    /// # Errors
    /// Server errors.
    pub async fn forget_all(target: &Target) -> Result<()> {
        super::ddl::drop(target, &Namespace::new(SYNC_DATABASE, COLLECTIONS)).await
    }
}

/// What a collection of the source is known by: its UUID, or the name of a view.
pub(super) fn source_id(source: &Collection) -> String {
    source.uuid.map_or_else(|| format!("view {}", source.namespace()), |uuid| uuid.to_string())
}
